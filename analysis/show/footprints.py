"""Footprints as a table, and in words: renders what `analysis.footprint` measured."""

import math

import pandas as pd

from analysis.show import tables
from analysis.show.width import fitted
from studies.record import arm_label, short

HEADERS = (
    *("network", "file", "parameters", "kept", "MFLOP", "of kept", "KB gzip"),
    *("p50 µs", "p95 µs", "× dense", "test accuracy"),
)

MEANT = (
    "Parameters are all weights, with biases and what normalization has; kept are those that are not zero. MFLOP are "
    "two for each multiply-add of a kernel's weight in one image; of kept, those of weights that are not zero.",
    "KB gzip, times and accuracy are the exported LiteRT file's: one image at a time in its interpreter, on one thread "
    "of this machine, all files in turns; × dense is the median over that of the dense network's file.",
)


def table(found: pd.DataFrame, by: list[str], format: str = "terminal", width: int | None = None) -> str:
    """Footprints as text: a network and kind of file a row.

    Args:
        found: what `footprint.measured` gave.
        format: one of `tables.FORMATS`; CSV and JSON have every number in full, times in seconds.
        width: of the terminal that it is for; None for as wide as it is.
    """
    if format in tables.PLAIN:
        return tables.PLAIN[format](found.drop(columns="reference"))
    rows = []
    for row in found.to_dict("records"):
        levels = ["–" if row[factor] is None else tables.level_text(row[factor]) for factor in by]
        rows.append([*levels, *_cells(row)])
    headers = [*(short(factor, by) for factor in by), *HEADERS]
    aligned = ["left"] * (len(by) + 2) + ["right"] * (len(HEADERS) - 2)
    spare = ("p95 µs", "of kept", "MFLOP", "parameters", "× dense", "kept")
    return fitted(rows, headers, tables.STYLES[format], aligned, width, spare)


def _cells(row: dict) -> list[str]:
    micros = [
        f"{1e6 * row[name]:.3g}" if 1e6 * row[name] < 1000 else f"{1e6 * row[name]:,.0f}" for name in ("p50", "p95")
    ]
    return [
        row["network"],
        row["file"] + " *" * bool(row["in_floats"]),
        f"{row['parameters']:,.0f}",
        f"{100 * row['kept'] / row['parameters']:.1f} %",
        f"{row['flops'] / 1e6:.3g}",
        f"{row['effective_flops'] / 1e6:.3g}",
        *(
            "–" if math.isnan(row[name]) else cell
            for name, cell in (
                ("compressed", f"{row['compressed'] / 1000:,.1f}"),
                ("p50", micros[0]),
                ("p95", micros[1]),
                ("of_dense", f"{row['of_dense']:.2f}"),
                ("accuracy", f"{row['accuracy']:.4f}"),
            )
        ),
    ]


def notes(found: pd.DataFrame, by: list[str]) -> list[str]:
    """What is to be said of a table: how it is meant, and what of each network is not as one might think."""
    lines = list(MEANT)
    if (seeds := found["seeds"].max()) > 1:
        lines.append(f"Numbers are means over up to {seeds:.0f} seeds.")
    some = {}
    for row in found.to_dict("records"):
        label = arm_label({factor: row[factor] for factor in by if row[factor] is not None})
        told = list(row["notes"])
        if row["in_floats"]:
            told.append(f"* not int8 from end to end: {', '.join(row['in_floats'])} in floats")
        for text in told:
            some.setdefault(text, {}).setdefault(row["network"], {})[label] = None
    for text, networks in some.items():
        whose = "; ".join(f"{network} of {', '.join(labels)}" for network, labels in networks.items())
        lines.append(f"{whose}: {text}.")
    return lines
