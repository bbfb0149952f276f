"""Frames in, figures out: what is drawn has been computed before."""

from collections.abc import Iterable

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import LogNorm, Normalize
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analysis.estimate.arms import arms_of, as_level
from analysis.estimate.measure import measure
from analysis.show import style
from analysis.show.style import COLOURS, DASHES, INK, INTERVAL, MAP, MARKERS, SMALL, Figure, Style, brief, styled
from analysis.show.tables import level_text, rounded, words
from studies.record import arm_label, short


class Arms:
    """How arms are told apart in every figure: by colour, dashes and markers in a panel; and by panels.

    Args:
        frame: any with a row or more for each arm, in their order, such as `comparison.comparison` gives.
        colour: the factors whose combinations have a colour each; with none there is one arm.
        panels: the factors whose combinations have a panel each.
    """

    def __init__(self, frame: pd.DataFrame, colour: Iterable[str] = (), panels: Iterable[str] = ()):
        self.colour, self.panel_factors = list(colour), list(panels)
        self.styles = {
            arm: Style(COLOURS[n % len(COLOURS)], DASHES[n % len(DASHES)], MARKERS[n % len(MARKERS)])
            for n, arm in enumerate(dict.fromkeys(_arms(frame, self.colour)))
        }
        self.panels = list(dict.fromkeys(_arms(frame, self.panel_factors)))

    @property
    def by(self) -> list[str]:
        """The factors that make the arms."""
        return [*self.panel_factors, *self.colour]

    def name(self, arm: tuple) -> str:
        """An arm's name in a panel."""
        return _name(self.colour, arm)

    def title(self, panel: tuple) -> str:
        """A panel's title."""
        return arm_label(dict(zip(self.panel_factors, panel, strict=True)), whole=True) if self.panel_factors else ""

    def of(self, frame: pd.DataFrame, panel: tuple) -> list[tuple[tuple, pd.DataFrame]]:
        """The rows of each arm in a panel, without its levels, in the arms' order; none for an arm without any."""
        places = pd.Series(list(zip(_arms(frame, self.panel_factors), _arms(frame, self.colour), strict=True)))
        groups = frame.groupby(places.map({p: n for n, p in enumerate(dict.fromkeys(places))}).to_numpy())
        values = frame.drop(columns=self.by)  # texts are slow to take apart
        rows = {places.iloc[part[0]]: values.iloc[part] for part in groups.indices.values()} if len(frame) else {}
        return [(arm, rows[panel, arm]) for arm in self.styles if (panel, arm) in rows]


def _arms(frame: pd.DataFrame, factors: Iterable[str]) -> list[tuple]:
    """Each row's levels."""
    numbers, arms = arms_of(frame, list(factors))
    return [arms[number] for number in numbers]


def _name(factors, arm) -> str:
    if len(factors) == 1:
        return level_text(arm[0])
    return arm_label(dict(zip(factors, arm, strict=True)))


@styled
def comparison(arms: Arms, compared: pd.DataFrame, units: pd.DataFrame, metric: str, guess: float = np.nan) -> Figure:
    """Every arm's mean with its interval, and every seed, crossed out where it failed, a row an arm.

    Args:
        compared: from `comparison.comparison`.
        units: from `comparison.by_seed`, with the same factors.
        guess: from `comparison.guess`: a line, where what is drawn comes near it.
    """
    names = [brief(arms.name(arm), 40) for arm in arms.styles]
    height = 0.25 + 0.21 * len(names)
    figure, panels = style.grid(
        [arms.title(panel) for panel in arms.panels],
        2.6 if len(arms.panels) > 1 else 5.2,
        height,
        left=style.margin(names),
    )
    rows = {arm: place for place, arm in enumerate(arms.styles)}
    for place, (panel, axes) in enumerate(zip(arms.panels, panels, strict=True)):
        for arm, part in arms.of(units, panel):
            for name, mark, some in (("seeds", "o", part["lost"] == 0), ("failed", "x", part["lost"] > 0)):
                axes.plot(
                    part["value"][some], [rows[arm]] * int(some.sum()), mark, markersize=4, markerfacecolor="none",
                    markeredgecolor=arms.styles[arm].colour, markeredgewidth=0.8, alpha=0.55, label=name,
                )  # fmt: skip
        for arm, part in arms.of(compared, panel):
            [row] = part.to_dict("records")
            look = arms.styles[arm]
            ends = [np.nan] * 2 if row["erratic"] else [row["low"], row["high"]]  # no t interval holds
            axes.plot(ends, [rows[arm]] * 2, color=look.colour, linewidth=1.8, label="interval")
            axes.plot(
                [row["mean"]], [rows[arm]], marker=look.marker, markersize=6, color=look.colour, linestyle="",
                label="mean",
            )  # fmt: skip
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.set_yticks(range(len(names)), names if place % 3 == 0 else [""] * len(names))
    means = compared["mean"][np.isfinite(compared["mean"]) & (compared["mean"] > 0)]
    if measure(metric).better < 0 and len(means) and means.max() > 100 * means.min():
        for axes in panels:
            axes.set_xscale("log")
            style.plain_log(axes.xaxis)
    style.share(panels, "x")
    failed = ", × one that failed" if units["lost"].any() else ""
    chance = style.chance(panels, guess, "x")
    figure.supxlabel(f"{words(metric)}: ● mean, ━ {INTERVAL}, ○ a seed{failed}{chance}", fontsize=9)
    return figure


@styled
def heat(
    compared: pd.DataFrame, rows: list[str], columns: list[str], metric: str, panels: Iterable[str] = ()
) -> Figure:
    """The means over two factors, or groups of them, as a map; small multiples over others.

    Args:
        compared: from `comparison.comparison` with all of these factors.
        rows, columns: the factors down and across.
        panels: the factors that have a map for each combination of their levels.
    """
    panels = list(panels)
    down, across, over = (list(dict.fromkeys(_arms(compared, factors))) for factors in (rows, columns, panels))
    names, heads = ([brief(_name(of, arm), 40) for arm in arms] for of, arms in ((rows, down), (columns, across)))
    titles = [arm_label(dict(zip(panels, panel, strict=True)), whole=True) if panels else "" for panel in over]
    turned = max(map(len, heads), default=0) > 7
    figure, axes = style.grid(
        titles, max(0.55 * len(across), 1.2), max(0.26 * len(down), 0.5), left=style.margin(names) + 0.2,
        bottom=0.55 + (0.06 * max(map(len, heads), default=0) if turned else 0), right=0.9, gap=(0.25, 0.85),
    )  # fmt: skip
    places = zip(*(_arms(compared, factors) for factors in (panels, rows, columns)), strict=True)
    cells = dict(zip(places, compared.to_dict("records"), strict=True))
    norm = Normalize(compared["mean"].min(), compared["mean"].max())
    colours = matplotlib.colormaps[MAP]
    for place, (panel, panel_axes) in enumerate(zip(over, axes, strict=True)):
        mine = [
            [cells.get((panel, d, a), dict.fromkeys(("mean", "low", "high"), np.nan)) for a in across] for d in down
        ]
        means = np.array([[cell["mean"] for cell in row] for row in mine])
        image = panel_axes.imshow(means, cmap=MAP, norm=norm, aspect="auto", interpolation="none")
        for (i, j), mean in np.ndenumerate(means):
            if np.isfinite(mean):
                dark = np.dot(colours(norm(mean))[:3], (0.299, 0.587, 0.114)) < 0.5
                text = rounded(mean, (mine[i][j]["high"] - mine[i][j]["low"]) / 2)
                colour = "white" if dark else "black"
                panel_axes.text(j, i, text, ha="center", va="center", fontsize=SMALL, color=colour)
        turn = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if turned else {}
        style.bare(panel_axes)
        panel_axes.set_xticks(range(len(heads)), heads, **turn)
        named = names if place % 3 == 0 else []
        panel_axes.set_yticks(range(len(named)), named)
        panel_axes.set_xlabel(", ".join(columns) if place // 3 == (len(over) - 1) // 3 else "")
        panel_axes.set_ylabel(", ".join(rows) if place % 3 == 0 else "")
    style.scale(figure, image, f"mean {words(metric)}")
    return figure


MOST_TOGETHER = 8
MOST_FACETS = 36
"""Arms in one panel, and panels of one arm each that they are drawn in where there are more."""


@styled
def curves(
    arms: Arms, frame: pd.DataFrame, metric: str, guess: float = np.nan, ends: pd.DataFrame | None = None
) -> Figure:
    """A metric's course by arm: the mean over seeds, and its interval as a band; each arm in a panel of its own, before
    the others in grey, where there are more than can be told apart.

    Args:
        frame: from `dynamics.curves`.
        guess: from `comparison.guess`: a line, where what is drawn comes near it.
        ends: from `dynamics.ends`: crosses, where trials fail.
    """
    drawn = facets(arms)
    several = len(drawn) > 1
    figure, panels = style.grid(
        [title for title, *_ in drawn], 2.7 if several else 5.2, 2.2 if len(drawn) < 7 else 1.5, left=0.85, right=0.2
    )
    shown = frame[[*arms.by, "epoch", "mean", "low", "high"]]
    parts = {panel: dict(arms.of(shown, panel)) for panel in arms.panels}
    fails = {panel: dict(arms.of(ends, panel)) if ends is not None and len(ends) else {} for panel in arms.panels}
    for (_, panel, shown), axes in zip(drawn, panels, strict=True):
        mine = parts[panel]
        if others := [part for arm, part in mine.items() if arm not in shown]:
            axes.add_collection(
                LineCollection([part[["epoch", "mean"]].to_numpy(float) for part in others], colors="#8C8C8C66", lw=0.7)
            )
        for arm in filter(shown.__contains__, mine):
            part = mine[arm]
            _line(axes, part["epoch"], part, arms.styles[arm], arms.name(arm))
            if arm in fails[panel]:
                at = fails[panel][arm]["epoch"]
                heights = np.interp(at, part["epoch"], part["mean"].astype(float))
                axes.plot(at, heights, "x", color=arms.styles[arm].colour, markersize=7, label="failed")
    style.heights(panels, frame["mean"], metric)
    style.share(panels, "x")
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    failed = ", ×: trials fail" if any(fails.values()) else ""
    chance = style.chance(panels, guess, "y")
    figure.supxlabel(f"epoch; band: {INTERVAL}{failed}{chance}", fontsize=9)
    figure.supylabel(words(metric), fontsize=9)
    if all(len(shown) > 1 for *_, shown in drawn):
        _legend(figure, arms)
    return figure


def facets(arms: Arms) -> list[tuple[str, tuple, list]]:
    """Each panel of curves: its title, its levels, and the arms that are told apart in it."""
    if MOST_TOGETHER < len(arms.styles) <= MOST_FACETS // len(arms.panels):
        pairs = [(panel, arm) for panel in arms.panels for arm in arms.styles]
        titles = [", ".join(filter(None, (arms.title(panel), brief(arms.name(arm), 30)))) for panel, arm in pairs]
        return [(title, panel, [arm]) for title, (panel, arm) in zip(titles, pairs, strict=True)]
    return [(arms.title(panel), panel, list(arms.styles)) for panel in arms.panels]


def _line(axes, x, part, look: Style, name: str, every: bool = False) -> None:
    """An arm's means, and its intervals as a band, with a marker at some means or all."""
    low, high = part["low"].to_numpy(float), part["high"].to_numpy(float)
    _band(axes, x.to_numpy(float), low, high, look.colour)
    step = 1 if every else max(len(part) // 4, 1)
    how = {"linestyle": look.dashes, "marker": look.marker, "markersize": 4, "linewidth": 1.4}
    first = 0 if every else MARKERS.index(look.marker) * step // len(MARKERS)  # so that not all are in one place
    axes.plot(x, part["mean"], color=look.colour, label=name, markevery=(first, step), **how)


def _band(axes, x, low, high, colour) -> None:
    """As Matplotlib's own `fill_between`, in a fifth of its time."""
    there = np.isfinite(low) & np.isfinite(high)
    outline = np.column_stack(
        [np.concatenate([x[there], x[there][::-1]]), np.concatenate([low[there], high[there][::-1]])]
    )
    shape = PolyCollection([outline] if there.any() else [], facecolors=colour, alpha=0.15, linewidths=0)
    axes.add_collection(shape, autolim=False)


def _legend(figure: Figure, arms: Arms) -> None:
    """The arms' names above a figure, which grows by as much."""
    if len(arms.styles) < 2:
        return
    lines = [
        Line2D([], [], color=s.colour, linestyle=s.dashes, marker=s.marker, markersize=4, lw=1.4, label=arms.name(arm))
        for arm, s in arms.styles.items()
    ]
    width, height = figure.get_size_inches()
    columns = max(1, int(width / (0.6 + 0.072 * max(len(line.get_label()) for line in lines))))
    taller = height + 0.18 * -(-len(lines) // columns) + 0.1
    for axes in figure.axes:
        box = axes.get_position()
        axes.set_position((box.x0, box.y0 * height / taller, box.width, box.height * height / taller))
    figure.set_size_inches(width, taller)
    figure.legend(handles=lines, loc="upper left", ncols=columns, bbox_to_anchor=(0, 1), columnspacing=1.2)


DECADES = 1e4
"""What a scale of colours spans: what is smaller than its top by more has the colour of its foot."""

LAYER_STATISTICS = {"l2": "norm", "update_ratio": "update ratio", "gradient_norm": "gradient norm"}


@styled
def layer_maps(arms: list[dict], frame: pd.DataFrame, statistics: Iterable[str] = tuple(LAYER_STATISTICS)) -> Figure:
    """Statistics of kernels by layer and epoch: a row a statistic, a column an arm.

    Args:
        arms: those shown, factor -> level.
        frame: from `dynamics.medians`. Zeros have a colour of their own, below the scale; what was not recorded, such
            as after a trial diverged, is left blank.
    """
    statistics = list(statistics)
    tables = _rows_of(frame, arms)
    kernels = [list(dict.fromkeys(table["kernel"])) for table in tables]
    alike = all(names == kernels[0] for names in kernels)
    left = style.margin(brief(name, 16) for names in kernels for name in names)
    headings, lines = _wrapped(arms, 1.5 if alike else 1.5 + left)
    figure, panels = style.grid(
        headings + [""] * len(arms) * (len(statistics) - 1), 1.5,
        min(max(0.16 * max(map(len, kernels), default=1), 0.9), 2.4), columns=len(arms), left=left,
        top=0.15 + 0.15 * lines, right=1.15, gap=(0.15 if alike else left, 0.3),
    )  # fmt: skip
    colours = matplotlib.colormaps[MAP].with_extremes(under="#D55E00", bad=(0, 0, 0, 0))
    for row, statistic in enumerate(statistics):
        every = pd.concat([table[statistic] for table in tables])
        positive = every[np.isfinite(every) & (every > 0)]
        high = positive.max() if len(positive) else 1.0
        low = max(positive.min(), high / DECADES) if len(positive) else 0.1
        foot = "≤ " if len(positive) and positive.min() < low else ""
        norm = LogNorm(low, max(high, low * 1.01))
        for column, (table, names) in enumerate(zip(tables, kernels, strict=True)):
            axes = panels[row * len(arms) + column]
            wide = table.pivot(index="kernel", columns="epoch", values=statistic).reindex(names)
            values = wide.to_numpy(float)
            values = np.where(values > 0, values.clip(low), np.where(values == 0, low / 10, np.nan))
            shown = np.ma.masked_invalid(values)
            epochs = wide.columns.to_numpy(float)
            across = (epochs[0] - 0.5, epochs[-1] + 0.5) if len(epochs) else (0, 1)
            image = axes.imshow(
                shown, cmap=colours, norm=norm, aspect="auto", interpolation="none",
                extent=(*across, len(names) - 0.5, -0.5),
            )  # fmt: skip
            style.bare(axes)
            every_nth = max(1, -(-len(names) // 8))
            ticks = sorted({*range(0, len(names) - 1, every_nth), len(names) - 1}) if names else []
            ticks = ticks if column == 0 or not alike else []
            axes.set_yticks(ticks, [brief(names[t], 16) for t in ticks], fontsize=SMALL)
            if row < len(statistics) - 1:
                axes.set_xticks([])
            else:
                axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        zeros = "min" if (every == 0).any() else "neither"
        style.scale(figure, image, LAYER_STATISTICS.get(statistic, words(statistic)), axes, zeros, foot)
    style.share(panels, "x")
    figure.supxlabel("epoch", fontsize=9)
    return figure


def _wrapped(arms: list[dict], width: float) -> tuple[list[str], int]:
    """The arms' names in lines of a width in inches, and the most lines that one has."""
    names = ["\n".join(style.in_lines(arm_label(arm), width)) for arm in arms]
    return names, max((name.count("\n") + 1 for name in names), default=1)


def _rows_of(frame: pd.DataFrame, arms: list[dict]) -> list[pd.DataFrame]:
    """Each arm's rows."""
    number, there = arms_of(frame, list(arms[0]) if arms else [])
    places = {levels: place for place, levels in enumerate(there)}
    wanted = [places.get(tuple(map(as_level, arm.values())), -1) for arm in arms]
    return [frame[number == place] for place in wanted]


RIDGED = 3
"""An arm's kernels whose distributions are drawn, the first and the last among them."""


def ridged(counts: pd.DataFrame) -> pd.DataFrame:
    """Of the frame that `load.densities` gives what `ridgelines` draws of it, which takes long to compute."""
    kernels = counts[counts["tensor"].astype(str).str.endswith("kernel")]
    pairs = kernels[["key", "layer", "tensor"]].drop_duplicates()
    kept = [group.iloc[some(list(range(len(group))), RIDGED)] for _, group in pairs.groupby("key", sort=False)]
    return kernels.merge(pd.concat(kept)) if kept else kernels


@styled
def ridgelines(arms: list[dict], frame: pd.DataFrame, layers: int = RIDGED) -> Figure:
    """How the weights' distribution moves: a ridge an epoch, the first at the top; a row a layer, a column an arm.

    Args:
        arms: those shown, factor -> level.
        frame: from `dynamics.densities`.
        layers: how many of an arm's are shown, the first and the last among them.
    """
    tables = _rows_of(frame, arms)
    kernels = [some(list(dict.fromkeys(table["kernel"])), layers) for table in tables]
    rows = max(map(len, kernels), default=1) or 1
    headings, lines = _wrapped(arms, 1.75)
    figure, panels = style.grid(
        [""] * len(arms) * rows, 1.75, 1.2, columns=len(arms), left=0.55, top=0.3 + 0.16 * lines, gap=(0.15, 0.45)
    )
    epochs = sorted(frame["epoch"].unique())
    colours = matplotlib.colormaps[MAP](np.linspace(0.05, 0.9, max(len(epochs), 1)))
    ridges = [dict(list(table.groupby(["kernel", "epoch"], sort=False)[["weight", "density"]])) for table in tables]
    for place, axes in enumerate(panels):
        row, column = divmod(place, len(arms))
        names = kernels[column]
        heading = f"{headings[column]}\n" if row == 0 else ""
        if row >= max(len(names), 1):
            axes.remove()
            continue
        axes.set_title(heading + (brief(names[row], 23) if names else "all weights alike"), loc="left")
        for height, epoch in enumerate(epochs):
            ridge = ridges[column].get((names[row], epoch)) if names else None
            weight, density = np.empty((2, 0)) if ridge is None else ridge.to_numpy().T
            axes.fill_between(
                weight, -height, 2.2 * _heights(density) - height,
                facecolor=colours[height], alpha=0.75, edgecolor=INK, linewidth=0.4, zorder=height + 2,
            )  # fmt: skip
        axes.grid(False)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0, labelsize=SMALL)
        axes.tick_params(axis="x", labelsize=SMALL)
        named = epochs if column == 0 else []
        axes.set_yticks([-p for p in range(len(named))], map(str, named))
        axes.set_ylim(-len(epochs) + 0.6, 2.4)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    figure.supxlabel("weight; each ridge has its own height, spikes are cut", fontsize=9)
    figure.supylabel("epoch", fontsize=9)
    return figure


def some(names: list, count: int) -> list:
    """Some of the names, evenly, the first and the last among them."""
    if len(names) <= count:
        return names
    return [names[place] for place in np.linspace(0, len(names) - 1, count).round().astype(int)]


def _heights(density: np.ndarray) -> np.ndarray:
    """An outline's heights up to 1; a spike, such as the zeros of pruned weights, is cut, else the rest were flat."""
    if not len(density):
        return density
    first, second = np.sort(density)[[-1, -3]]  # two points a cell
    top = 1.5 * second if 0 < 4 * second < first else first
    return np.minimum(density / top, 1)


@styled
def sensitivity(arms: Arms, compared: pd.DataFrame, rate: str, metric: str) -> Figure:
    """A metric along a factor of numbers, a line an arm, intervals as bands; rates and what is pruned on log scales.

    Args:
        compared: from `comparison.comparison` by the arms' factors and this one.
        rate: the factor.
    """
    figure, panels = style.grid(
        [arms.title(panel) for panel in arms.panels], 2.7 if len(arms.panels) > 1 else 5.2, 2.2, left=0.85, right=0.2
    )
    tried = sorted(set(compared[rate].astype(float)))
    for panel, axes in zip(arms.panels, panels, strict=True):
        for arm, part in arms.of(compared.sort_values(rate, kind="stable"), panel):
            look = arms.styles[arm]
            _line(axes, part[rate].astype(float), part, look, arms.name(arm), every=True)
        if rate.endswith("sparsity"):
            axes.set_xscale("function", functions=(_gone, _left))
            axes.set_xticks(tried, [f"{100 * level:.3g} %" for level in tried])
        elif tried[0] > 0:
            axes.set_xscale("log")
            style.plain_log(axes.xaxis)
            if len(tried) <= 7:
                axes.set_xticks(tried)
    style.heights(panels, compared["mean"], metric)
    style.share(panels, "x")
    figure.supxlabel(f"{words(short(rate, [rate]))}; band: {INTERVAL}", fontsize=9)
    figure.supylabel(words(metric), fontsize=9)
    _legend(figure, arms)
    return figure


def _gone(sparsity):
    """Where a sparsity is drawn: by how often the weights that are left are halved."""
    return -np.log2(np.clip(1 - np.asarray(sparsity, float), 2.0**-20, None))


def _left(halvings):
    return 1 - 2.0 ** -np.asarray(halvings, float)


@styled
def tuning_curve(arms: Arms, frame: pd.DataFrame, metric: str) -> Figure:
    """The best score that so many draws are expected to find, a line an arm.

    Args:
        frame: from `tuning.tuning_curve`.
    """
    figure, panels = style.grid(
        [arms.title(panel) for panel in arms.panels], 2.7 if len(arms.panels) > 1 else 5.2, 2.2, left=0.85, right=0.2
    )
    for panel, axes in zip(arms.panels, panels, strict=True):
        for arm, part in arms.of(frame, panel):
            look = arms.styles[arm]
            how = {"linestyle": look.dashes, "marker": look.marker, "markersize": 4, "linewidth": 1.4}
            axes.plot(part["draws"], part["best"], color=look.colour, **how)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    style.heights(panels, frame["best"], metric)
    style.share(panels, "x")
    figure.supxlabel("draws", fontsize=9)
    figure.supylabel(f"expected best {words(metric)}", fontsize=9)
    _legend(figure, arms)
    return figure


@styled
def loss_by_rate(arms: Arms, curve: pd.DataFrame, ranges: pd.DataFrame) -> Figure:
    """The training loss against the learning rate of a range test, a line a seed, a panel an arm.

    Args:
        arms: with a colour each.
        curve: from `tuning.rate_curve`.
        ranges: from `tuning.rate_range`, drawn as vertical lines.
    """
    figure, panels = style.grid([arms.name(arm) or "defaults" for arm in arms.styles], 2.7, 2.2)
    first = curve.groupby("seed")["loss"].first()
    top = 1.8 * first[np.isfinite(first)].max()  # leaves room for the legend, not for what blows up
    lines, found = dict(arms.of(curve, ())), dict(arms.of(ranges, ()))
    for axes, (arm, look) in zip(panels, arms.styles.items(), strict=True):
        for _, line in lines[arm].groupby("seed"):
            axes.plot(line["learning_rate"], line["loss"], color=look.colour, alpha=0.7, linewidth=1.2)
        for name, dashes in (("steepest", ":"), ("lowest", "-"), ("highest", "--")):
            rate = found[arm][name].iloc[0]
            axes.axvline(rate, color=INK, alpha=0.8, linestyle=dashes, linewidth=1, label=f"{name} {rate:.2g}")
        axes.set(xscale="log", ylim=(0, top if np.isfinite(top) else 1))
        style.plain_log(axes.xaxis)
        axes.legend(loc="upper left")
    style.share(panels, "x")
    figure.supxlabel("learning rate", fontsize=9)
    figure.supylabel("training loss, mean of an epoch", fontsize=9)
    return figure


SIDES = {"forward": "variance of pre-activations", "gradient": "gradient's variance, over the last layer's"}


@styled
def variance_by_layer(frame: pd.DataFrame, by: list[str]) -> Figure:
    """Variances layer by layer, measured as points and predicted as lines: signals above, gradients below.

    Args:
        frame: from `propagation.by_layer`.
        by: the factors: the last has a colour a level, all others but the depth a column of panels; networks of several
            depths share a panel.
    """
    *others, colour = by
    others = [factor for factor in others if not factor.endswith("depth")]
    arms = Arms(frame, [colour], others)
    titles = [arms.title(panel) for panel in arms.panels]
    figure, panels = style.grid(
        [*titles, *[""] * len(titles)], 2.3, 2.0, columns=len(titles), left=0.85, gap=(0.55, 0.3), right=0.15
    )
    for place, axes in enumerate(panels):
        row, column = divmod(place, len(titles))
        side = frame[frame["direction"] == list(SIDES)[row]].reset_index(drop=True)
        for arm, part in arms.of(side, arms.panels[column]):
            look = arms.styles[arm]
            for _, line in part.groupby((part["layer"].diff() <= 0).cumsum()):  # a network each
                axes.plot(line["layer"], line["predicted"], color=look.colour, linewidth=1.2, zorder=2)
                axes.errorbar(
                    line["layer"], line["measured"], [line["measured"] - line["low"], line["high"] - line["measured"]],
                    color=look.colour, linestyle="", marker="o",
                    markersize=max(5 - list(arms.styles).index(arm), 1.5), elinewidth=0.7, zorder=3,
                )  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda power, _: f"$10^{{{power:g}}}$"))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        if column == 0:
            axes.set_ylabel(SIDES[list(SIDES)[row]], fontsize=8)
    style.share(panels, "x")
    figure.supxlabel("layer; points: measured, with the range over the seeds; lines: predicted", fontsize=9)
    _legend(figure, arms)
    return figure
