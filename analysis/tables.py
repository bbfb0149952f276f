"""Render a comparison: to the terminal, Markdown, CSV, LaTeX. Computes nothing."""

import pandas as pd
from tabulate import tabulate

from studies.record import listed, shown

STYLES = {"terminal": "simple", "markdown": "pipe", "latex": "latex_booktabs"}
FORMATS = (*STYLES, "csv")
OUTCOME = ("overrides", "swept", "code", "root", "seeds", "failures", "mean", "sd", "metric")


def comparison_table(
    comparison: pd.DataFrame, by: list[str], metric: str, baseline: dict, format: str = "terminal"
) -> str:
    """A comparison as text: an arm a row.

    Args:
        comparison: what `estimates.comparison` gave.
        format: one of `FORMATS`; CSV has every number in full, the others what a reader needs.
    """
    if format == "csv":
        return comparison.to_csv(index=False)
    anchors = [factor for factor in by if factor in baseline]
    headers = [*(_short(factor, by) for factor in by), "seeds", "failed", metric.replace("_", " "), "95 % interval"]
    if anchors:
        against = ", ".join(_level(baseline[factor]) for factor in anchors)
        headers += [f"difference to {against}", "95 % interval"]
    rows = []
    for row in comparison.to_dict("records"):
        cells = [_level(row[factor]) for factor in by]
        cells += [str(row["seeds"]), str(row["failures"]), _mean(row), _interval(row["low"], row["high"])]
        if anchors:
            own = all(_level(row[factor]) == _level(baseline[factor]) for factor in anchors)
            cells += ["baseline" if own else _signed(row["difference"])]
            cells += ["" if own else _interval(row["difference_low"], row["difference_high"], sign=True)]
        rows.append(cells)
    aligned = ["left"] * len(by) + ["right"] * 2 + ["left"] * (len(headers) - len(by) - 2)
    return tabulate(rows, headers, tablefmt=STYLES[format], colalign=aligned, disable_numparse=True)


def tuning_table(tuned: pd.DataFrame, by: list[str], nuisance: list[str], metric: str, format: str = "terminal") -> str:
    """What `estimates.tuned` chose, as text: an arm a row."""
    factors = [*by, *nuisance]
    rows = [
        [
            *(_level(row[factor]) for factor in factors),
            "none ended" if _missing(row["value"]) else f"{row['value']:.4f}",
            f"{listed(_short(factor, factors) for factor in row['edge'])}: extend the range" if row["edge"] else "",
        ]
        for row in tuned.to_dict("records")
    ]
    headers = [*(_short(factor, factors) for factor in factors), f"{metric.replace('_', ' ')} (tuning)", "on the edge"]
    return tabulate(rows, headers, tablefmt=STYLES[format], disable_numparse=True)


def rate_table(ranges: pd.DataFrame, by: list[str], format: str = "terminal") -> str:
    """What `estimates.rate_range` found, as text: an arm a row."""
    names = ("steepest", "lowest", "highest")
    headers = [*(_short(factor, by) for factor in by), "seeds"]
    headers += [header for name in names for header in (f"{name} rate", "95 % interval")]
    rows = []
    for row in ranges.to_dict("records"):
        cells = [*(_level(row[factor]) for factor in by), str(row["seeds"])]
        for name in names:
            low, high = row[f"{name}_low"], row[f"{name}_high"]
            cells += ["–" if _missing(row[name]) else f"{row[name]:.2g}"]
            cells += ["–" if _missing(low) else f"[{low:.2g}, {high:.2g}]"]
        rows.append(cells)
    return tabulate(rows, headers, tablefmt=STYLES[format], disable_numparse=True)


def sweep_table(jobs: list[dict], format: str = "terminal") -> str:
    """The jobs of a multirun as text: a job a row, with what sets it apart.

    Args:
        jobs: of each its overrides, name -> value, and the fields of `studies.sweep.Outcome`.
    """
    known = dict.fromkeys(name for job in jobs for name in job)
    names = [name for name in known if name not in OUTCOME and len({job.get(name) for job in jobs} - {""}) > 1]
    metrics = {job["metric"] for job in jobs if job["metric"]}
    headers = [*names, "seeds", "failed", " / ".join(sorted(metrics)).replace("_", " ") + ": mean ± sd over seeds"]
    rows = [
        [
            *(job.get(name, "") for name in names),
            str(job["seeds"]),
            str(job["failures"]),
            _mean(job) if job["seeds"] else "error" if job["code"] else "–",
        ]
        for job in jobs
    ]
    aligned = ["left"] * len(names) + ["right"] * 2 + ["left"]
    return tabulate(rows, headers, tablefmt=STYLES[format], colalign=aligned, disable_numparse=True)


def _short(factor: str, by: list[str]) -> str:
    last = factor.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in by) == 1 else factor


def _level(level) -> str:
    """A level as text; a list without brackets, which LaTeX would take for an argument at the start of a row."""
    if isinstance(level, list | tuple):
        return ", ".join(map(_level, level))
    return f"{level:.15g}" if isinstance(level, float) else shown(level)


def _missing(value) -> bool:
    return value != value


def _mean(row) -> str:
    if _missing(row["mean"]):
        return "–"
    return f"{row['mean']:.4f}" if _missing(row["sd"]) else f"{row['mean']:.4f} ± {row['sd']:.4f}"


def _signed(value) -> str:
    return "–" if _missing(value) else f"{value:+.4f}"


def _interval(low, high, sign=False) -> str:
    if _missing(low):
        return "–"
    return f"[{low:+.4f}, {high:+.4f}]" if sign else f"[{low:.4f}, {high:.4f}]"


def frame_table(frame: pd.DataFrame, format: str = "terminal") -> str:
    """Any frame as text: its columns are the headers; floats are differences if their column is called `change`."""
    if format == "csv":
        return frame.to_csv(index=False)

    def cell(column, value):
        if not isinstance(value, float):
            return _level(value)
        return _signed(value) if column == "change" else "–" if _missing(value) else f"{value:.4f}"

    rows = [[cell(*pair) for pair in row.items()] for row in frame.to_dict("records")]
    return tabulate(rows, list(frame), tablefmt=STYLES[format], disable_numparse=True)
