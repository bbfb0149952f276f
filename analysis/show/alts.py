"""What a figure says, in words, for those who cannot see it."""

from collections.abc import Callable

import pandas as pd

from analysis.estimate.arms import arms_of, as_level
from analysis.estimate.measure import measure
from analysis.show.plots import Arms
from analysis.show.tables import rounded, words
from studies.record import arm_label

MOST = 6
"""Panels that are told one by one."""


def comparison(arms: Arms, compared: pd.DataFrame, metric: str) -> str:
    """Which arm has the best mean in each panel, which the worst, and what fails."""

    def told(part: pd.DataFrame) -> str:
        failed = int(part["failures"].sum())
        return _ends(part, metric) + (f"; {failed} trial{'s' * (failed > 1)} failed" if failed else "")

    return f"{words(metric)}. {_panels(arms, compared[[*arms.by, 'mean', 'failures']], told)}"


def curves(arms: Arms, frame: pd.DataFrame, metric: str) -> str:
    """Which arm ends best in each panel, and which worst."""
    last = frame[frame["epoch"] == frame["epoch"].max()]
    told = _panels(arms, last[[*arms.by, "mean"]], lambda part: _ends(part, metric))
    return f"{words(metric)} by epoch, at the last one. {told}"


def along(arms: Arms, compared: pd.DataFrame, factor: str, metric: str) -> str:
    """At which level of a factor each arm is best."""
    better = measure(metric).sign

    def told(part: pd.DataFrame) -> str:
        best = (better * part["mean"]).groupby(part["arm"], sort=False).idxmax().dropna()
        return "; ".join(
            f"{arm or 'it'} is best at {part[factor][at]:g}, {rounded(part['mean'][at])}" for arm, at in best.items()
        )

    return f"{words(metric)}. {_panels(arms, compared[[*arms.by, factor, 'mean']], told)}"


def heat(compared: pd.DataFrame, by: list[str], metric: str) -> str:
    """The cells with the greatest and the least mean."""
    there = compared.dropna(subset="mean")
    if there.empty:
        return f"Nothing has a {words(metric)}."
    least, most = there.loc[there["mean"].idxmin()], there.loc[there["mean"].idxmax()]
    low, high = (f"{rounded(row['mean'])} ({arm_label({f: row[f] for f in by}, whole=True)})" for row in (least, most))
    return f"Mean {words(metric)}, from {low} to {high}."


def ranges(found: pd.DataFrame, by: list[str]) -> str:
    """Each arm's rate with the steepest descent, and the one with the lowest loss."""
    told = [
        f"{arm_label({f: row[f] for f in by}) or 'defaults'}: steepest at {row['steepest']:.2g}, lowest at "
        f"{row['lowest']:.2g}"
        for row in found.to_dict("records")
    ]
    return f"Training loss by learning rate. {'; '.join(told)}."


def reach(arms: list[dict], last: pd.DataFrame, by: list[str]) -> str:
    """In which of some arms no gradient reaches a kernel at the end, or nothing is finite any more.

    Args:
        last: of `dynamics.medians`, the last epoch.
    """
    number, there = arms_of(last, by)
    cut = []
    for arm in arms:
        levels = tuple(map(as_level, arm.values()))
        rows = last[number == there.index(levels)] if levels in there else last[:0]
        gradients = rows["gradient_norm"].astype(float)
        if rows.empty or not (gradients > 0).any():
            cut.append(arm_label(arm) or "all")
    return f"No gradient is left at the end in {'; '.join(cut)}." if cut else "Gradients reach kernels of all of them."


def _panels(arms: Arms, frame: pd.DataFrame, told: Callable[[pd.DataFrame], str]) -> str:
    """What is told of each panel; of many, of the first and last only."""
    names = [arms.name(arm) for arm in _levels(frame, arms.colour)]
    frame = frame.drop(columns=arms.by).assign(arm=names, panel=_levels(frame, arms.panel_factors))
    frame = frame[frame["mean"].notna()]
    said = []
    for panel in arms.panels if len(arms.panels) <= MOST else [arms.panels[0], arms.panels[-1]]:
        there = frame[[each == panel for each in frame["panel"]]].reset_index(drop=True)
        title = arms.title(panel)
        said.append(f"{title}: " * bool(title) + (told(there) if len(there) else "nothing that can be compared"))
    return ". ".join(said) + "." + f" And {len(arms.panels) - 2} more panels." * (len(arms.panels) > MOST)


def _levels(frame: pd.DataFrame, factors: list[str]) -> list[tuple]:
    number, levels = arms_of(frame, factors)
    return [levels[n] for n in number]


def _ends(part: pd.DataFrame, metric: str) -> str:
    better = measure(metric).better
    high, low = part.loc[part["mean"].idxmax()], part.loc[part["mean"].idxmin()]
    if len(part) == 1:
        return f"{high['arm']} {rounded(high['mean'])}".strip()
    first, last = (low, high) if better < 0 else (high, low)
    names = ("best", "worst") if better else ("highest", "lowest")
    return f"{first['arm']} is {names[0]}, {rounded(first['mean'])}; {last['arm']} {names[1]}, {rounded(last['mean'])}"
