"""The one style of all figures: colours, sizes, axes, and how a figure becomes SVG."""

import functools
import io
import re
import textwrap
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from html import escape

import matplotlib.backends.backend_svg  # loaded here, and not only when a figure is drawn
import matplotlib.figure
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.lines import TICKDOWN, TICKLEFT, Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator, ScalarFormatter
from PIL import Image

from analysis.estimate.measure import measure

INK = "#010203"
"""Of text, axes and the last arm's colour: in a figure inside a page it becomes the page's own."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666", INK)
"""Okabe and Ito's, which the colour-blind can tell apart, with grey for their yellow, which is faint on white."""

DASHES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))

MARKERS = "osD^vPX*"
"""Arms are told apart by these and the dashes too: the first eight by any of the colour, the marker, and the dashes
with either; forty by all three.
"""

SMALL = 7.6
"""Points of the least text: ten pixels of a screen."""

MAP = "cividis"
"""Made to look alike to people with and without colour vision deficiency (Nuñez et al. 2018)."""

STYLE = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "text.color": INK,
    "text.parse_math": False,
    "axes.formatter.use_mathtext": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#8C8C8C",
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "svg.hashsalt": "weight-studies",
    "svg.fonttype": "none",
}

INTERVAL = "95 % t interval over seeds"


class Figure(matplotlib.figure.Figure):
    """A figure that a notebook shows by itself: JupyterLab withholds an SVG until one trusts the notebook."""

    def _repr_svg_(self) -> str:
        return svg(self)

    def _repr_png_(self) -> bytes:
        return png(self)


@dataclass(frozen=True)
class Style:
    """How an arm is drawn wherever it is."""

    colour: str
    dashes: str | tuple
    marker: str


def styled(draw: Callable) -> Callable:
    """A function that draws, in this style."""

    @functools.wraps(draw)
    def drawn(*arguments, **named):
        with matplotlib.rc_context(STYLE):
            return draw(*arguments, **named)

    return drawn


def grid(
    titles: list[str],
    width: float,
    height: float,
    columns: int = 3,
    left: float = 0.65,
    bottom: float = 0.5,
    top: float = 0.3,
    right: float = 0.15,
    gap: tuple[float, float] = (0.3, 0.45),
) -> tuple[Figure, list[Axes]]:
    """A figure with a panel a title, row by row; sizes and margins in inches, which is faster than a layout engine.

    Titles are broken into lines as wide as their panels, which grow apart by as much.
    """
    titles = ["\n".join(in_lines(title, width)) for title in titles]
    more = 0.15 * max((title.count("\n") for title in titles), default=0)
    top, gap = top + more, (gap[0], gap[1] + more * (len(titles) > columns))
    columns = max(1, min(columns, len(titles)))
    rows = -(-len(titles) // columns)
    whole = left + columns * width + (columns - 1) * gap[0] + right
    high = top + rows * height + (rows - 1) * gap[1] + bottom
    figure = Figure(figsize=(whole, high))
    panels = []
    for place, title in enumerate(titles):
        row, column = divmod(place, columns)
        x, y = left + column * (width + gap[0]), bottom + (rows - 1 - row) * (height + gap[1])
        panel = figure.add_axes((x / whole, y / high, width / whole, height / high))
        panel.set_title(title, loc="left")
        panels.append(panel)
    return figure, panels


def in_lines(text: str, width: float) -> list[str]:
    """A text in lines as wide as some inches."""
    return textwrap.wrap(text, max(int(width / 0.078), 10), break_on_hyphens=False, break_long_words=False) or [""]


def margin(names: Iterable[str]) -> float:
    """Inches that tick labels need."""
    return 0.25 + 0.075 * max((len(name) for name in names), default=0)


def brief(name: str, length: int) -> str:
    """A name's end, if it is longer."""
    return name if len(name) <= length else f"…{name[1 - length :]}"


def plain_log(axis) -> None:
    """Put plain numbers on a logarithmic axis, in several places of a decade if it has few; Matplotlib's own are in its
    mathematical notation.
    """
    low, high = axis.get_view_interval()
    if high < 30 * low:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_tick_params(which="minor", label1On=False)  # else each of a hundred empty labels is laid out


def share(panels: list[Axes], axis: str) -> None:
    """Give all panels the same limits."""
    limits = np.array([getattr(panel, f"get_{axis}lim")() for panel in panels])
    for panel in panels:
        getattr(panel, f"set_{axis}lim")(limits[:, 0].min(), limits[:, 1].max())


def heights(panels: list[Axes], means: pd.Series, metric: str) -> None:
    """Limits for lines, which their bands do not set: that of two seeds is thirteen times as wide as their spread.

    Losses are on a logarithmic axis; those of zero are below it.
    """
    means = means[np.isfinite(means)]
    logarithmic = measure(metric).better < 0 and (means > 0).any()
    means = means[means > 0] if logarithmic else means
    for axes in panels if len(means) else ():
        if logarithmic:
            axes.set(yscale="log", ylim=(0.9 * means.min(), 1.1 * means.max()))
            plain_log(axes.yaxis)
        else:
            room = 0.06 * np.ptp(means) or 0.05
            axes.set_ylim(means.min() - room, means.max() + room)


def chance(panels: list[Axes], guess: float, axis: str) -> str:
    """Draw what guessing scores, if that is in or near the limits; gives what the axis's label says of it.

    Args:
        axis: `x` or `y`, along which the scores are; all panels have the same limits.
    """
    if not np.isfinite(guess):
        return ""
    low, high = sorted(getattr(panels[0], f"get_{axis}lim")())
    logarithmic = getattr(panels[0], f"get_{axis}scale")() == "log"
    room = (high / low) ** 0.15 if logarithmic else 0.15 * (high - low)
    least, most = (low / room, high * room) if logarithmic else (low - room, high + room)
    if not least <= guess <= most:
        return f"; chance is {guess:.2g}"
    before, after = (guess / room**0.1, guess * room**0.1) if logarithmic else (guess - room / 8, guess + room / 8)
    for axes in panels:
        draw = axes.axvline if axis == "x" else axes.axhline
        draw(guess, color=INK, linewidth=0.9, linestyle=(0, (1, 2)), alpha=0.8, label="chance", zorder=1)
        getattr(axes, f"set_{axis}lim")(min(low, before), max(high, after))
    return "; dotted: chance"


def bare(axes: Axes) -> None:
    """Leave of the axes only the labels."""
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def scale(figure, image, label, axes=None, extend="neither", foot="") -> None:
    """A colour scale at the right, beside the figure or the row of `axes`; `foot` goes before its least number."""
    width, height = figure.get_size_inches()
    box = axes.get_position() if axes else None
    bottom, tall = (box.y0, box.height) if box else (0.5 / height, min(1.6, height - 0.8) / height)
    scale = figure.colorbar(
        image, cax=figure.add_axes((1 - (1.0 if box else 0.7) / width, bottom, 0.1 / width, tall)), extend=extend
    )
    scale.outline.set_visible(False)
    scale.set_label(label, fontsize=8)
    scale.ax.tick_params(which="both", labelsize=SMALL, length=2)
    if isinstance(image.norm, LogNorm):
        low, high = image.norm.vmin, image.norm.vmax
        scale.set_ticks(
            [low, (low * high) ** 0.5, high], labels=[f"{foot}{low:.2g}", f"{(low * high) ** 0.5:.2g}", f"{high:.2g}"]
        )
        scale.ax.yaxis.set_minor_formatter(NullFormatter())


def svg(figure: Figure) -> str:
    """A figure as SVG on white, the same text for the same figure."""
    text = io.StringIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        for axes in figure.axes:
            _settle(axes)
        # The text stays text: who reads it has the font.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    drawn = re.sub(r'<g id="[^"]*">', "<g>", text.getvalue())
    # Two digits are a hundredth of a point: half the size, and nobody sees the rest.
    drawn = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(?<=\.\d\d)\d+", "", path[0]), drawn)
    drawn = drawn.replace("<image ", '<image image-rendering="pixelated" ')
    return drawn.replace("<svg ", '<svg style="background:#fff" ', 1)


def png(figure: Figure) -> bytes:
    """A figure as PNG on white, 144 pixels an inch, of 256 colours, which is a third of the bytes."""
    image, small = io.BytesIO(), io.BytesIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(image, format="png", dpi=144, facecolor="white", metadata={"Software": None})
    Image.open(image).convert("RGB").quantize(256).save(small, format="png", optimize=True)
    return small.getvalue()


def _settle(axes: Axes) -> None:
    """Have Matplotlib look for no place for what has one, or is not there: it would lay out all tick labels for each.

    A title starts on the axes' top, unless a number that all of an axis's ticks have in common may be there.
    """
    title = axes.get_title(loc="left")
    if title and not isinstance(axes.yaxis.get_major_formatter(), ScalarFormatter):
        axes.set_title(title, loc="left", y=1.0)
    for axis in (axes.xaxis, axes.yaxis):
        _draw_minor_marks(axis)
        if not axis.get_label_text():
            axis.set_label_coords(0, 0)


def _draw_minor_marks(axis) -> None:
    """Have one line draw a logarithmic axis's minor marks, for which Matplotlib makes five artists each."""
    if not isinstance(axis.get_minor_locator(), LogLocator) or axis.get_ticks_position() == "right":
        return
    low, high = sorted(axis.get_view_interval())
    places = [place for place in axis.get_minorticklocs() if low <= place <= high]
    name, rc, panel = axis.axis_name, matplotlib.rcParams, axis.axes
    along = (places, [0] * len(places))
    if name == "x":
        marker, transform = TICKDOWN, panel.get_xaxis_transform("tick1")
    else:
        marker, transform, along = TICKLEFT, panel.get_yaxis_transform("tick1"), along[::-1]
    marks = Line2D(
        *along, color=INK, linestyle="none", marker=marker, markersize=rc[f"{name}tick.minor.size"],
        markeredgewidth=rc[f"{name}tick.minor.width"], transform=transform, clip_on=False, zorder=0.5,
    )  # fmt: skip
    panel.add_artist(marks)
    axis.set_minor_locator(NullLocator())


def inline(svg: str, description: str) -> str:
    """An SVG as a part of a page: without a background, text and axes in the page's own colour.

    Args:
        description: what it shows, for those who cannot see it.
    """
    body = svg[svg.index("<svg ") :].replace('style="background:#fff" ', "").replace(INK, "currentColor")
    return body.replace("<svg ", f'<svg role="img" aria-label="{escape(description)}" ', 1)
