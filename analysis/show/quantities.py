"""What computed trials measured, as a table: an arm a row, a quantity a column."""

import pandas as pd
from tabulate import tabulate

from analysis.estimate.arms import grouped
from analysis.show.tables import PLAIN, STYLES, level_text
from studies.record import short

SPAN = ("mean", "least", "greatest")


def table(trials: pd.DataFrame, by: list[str], names: list[str], format: str = "terminal") -> str:
    """Each quantity over the seeds of an arm that finished: its mean, and its least and greatest if they differ.

    Args:
        trials: a trials frame of computed trials.
        by: the factors.
        names: the quantities, from `load.quantities`.
        format: one of `tables.FORMATS`; CSV and JSON have mean, least and greatest in full, in columns of their own.
    """
    rows = []
    for arm, part in grouped(trials, by):
        done = part[part["status"] == "finished"]
        spans = done[names].agg(["mean", "min", "max"]).T.to_numpy(float) if names else []
        rows.append((arm, len(done), len(part) - len(done), spans))
    headers = [*(short(factor, by) for factor in by), "seeds", "failed"]
    if format in PLAIN:
        columns = [*headers, *(f"{name}_{which}" for name in names for which in SPAN)]
        whole = [(*arm, *counts, *(value for span in spans for value in span)) for arm, *counts, spans in rows]
        return PLAIN[format](pd.DataFrame(whole, columns=columns))
    cells = [[*map(level_text, arm), *map(str, counts), *map(_span, spans)] for arm, *counts, spans in rows]
    words = [name.replace("_", " ") for name in names]
    return tabulate(cells, [*headers, *words], tablefmt=STYLES[format], disable_numparse=True)


def _span(span) -> str:
    mean, least, greatest = map(_number, span)
    return mean if least == greatest else f"{mean} [{least}, {greatest}]"


def _number(value: float) -> str:
    if value != value:
        return "–"
    return f"{value:.0f}" if value == round(value) and abs(value) < 1e15 else f"{value:.4g}"
