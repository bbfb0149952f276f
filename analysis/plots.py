"""Frames in, figures out: what is drawn has been computed before. Every style is here."""

import io

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from studies.record import arm_label

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
"""Okabe and Ito's, which the colour-blind can tell apart; arms take them in their order."""


def loss_by_rate(curve: pd.DataFrame, ranges: pd.DataFrame, by: list[str]) -> Figure:
    """The training loss against the learning rate, a line a seed, a panel an arm.

    Args:
        curve: from `estimates.rate_curve`.
        ranges: from `estimates.rate_range`, drawn as vertical lines.
        by: the factors that make the arms.
    """
    columns = min(3, len(ranges))
    rows = -(-len(ranges) // columns)
    figure = Figure(figsize=(1 + 3.6 * columns, 0.6 + 2.9 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    top = 1.8 * curve["loss"].iloc[0]  # of the untrained network: leaves room for the legend, not for what blows up
    for place, (panel, (_, arm)) in enumerate(zip(panels, ranges.iterrows(), strict=False)):
        mine = curve[(curve[by].map(str) == arm[by].map(str)).all(axis=1)]
        colour = COLOURS[place % len(COLOURS)]
        for _, line in mine.groupby("seed"):
            panel.plot(line["learning_rate"], line["loss"], color=colour, alpha=0.7, linewidth=1.2)
        for name, dashes in (("steepest", ":"), ("lowest", "-"), ("highest", "--")):
            panel.axvline(arm[name], color="0.3", linestyle=dashes, linewidth=1, label=f"{name} {arm[name]:.2g}")
        panel.set_title(arm_label({factor: arm[factor] for factor in by}), fontsize=10, parse_math=False)
        panel.set(xscale="log", ylim=(0, top))
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(fontsize=8, frameon=False, loc="upper left")
    for panel in panels[len(ranges) :]:
        panel.remove()
    figure.supxlabel("learning rate", fontsize=10)
    figure.supylabel("training loss, mean of an epoch", fontsize=10)
    return figure


def svg(figure: Figure) -> str:
    """A figure as SVG, the same text for the same figure."""
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "weight-studies", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
