"""What computed trials measured, as a table: an arm a row, a quantity a column."""

import pandas as pd

from analysis.estimate.arms import grouped
from analysis.show.tables import PLAIN, STYLES, level_text
from analysis.show.width import OF_A_RUN, fitted
from studies.record import short

SPAN = ("mean", "least", "greatest")


def table(
    trials: pd.DataFrame, by: list[str], names: list[str], format: str = "terminal", width: int | None = None
) -> str:
    """Each quantity over the seeds of an arm that finished: its mean, and its least and greatest if they differ.

    Args:
        trials: a trials frame of computed trials.
        by: the factors.
        names: the quantities, from `load.quantities`.
        format: one of `tables.FORMATS`; CSV and JSON have mean, least and greatest in full, in columns of their own.
        width: of the terminal, which the table is to fit: the last quantities are left out first.
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
    spare = [*reversed(range(len(headers) + 1, len(headers) + len(words))), len(headers) - 1, len(headers) - 2]
    return fitted(cells, [*headers, *words], STYLES[format], width=width, spare=spare, advice=OF_A_RUN)


def _span(span) -> str:
    mean, least, greatest = map(_number, span)
    return mean if least == greatest else f"{mean} [{least}, {greatest}]"


def _number(value: float) -> str:
    if value != value:
        return "–"
    return f"{value:.0f}" if value == round(value) and abs(value) < 1e15 else f"{value:.4g}"
