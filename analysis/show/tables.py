"""Render frames as tables: to the terminal, Markdown, CSV, LaTeX, HTML. Computes nothing."""

import html
import json
import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from analysis.estimate.measure import measure
from analysis.show import escaped
from analysis.show.width import OF_A_RUN, fitted
from studies.record import arm_label, listed, short, shown

STYLES = {"terminal": "simple", "markdown": "pipe", "latex": "latex_booktabs", "html": "html"}
PLAIN = {
    "csv": lambda frame: frame.to_csv(index=False),
    "json": lambda frame: json.dumps(rows_of(frame), indent=2, ensure_ascii=False),
}
FORMATS = (*STYLES, *PLAIN)
JOB = ("overrides", "swept", "code", "root", "seeds", "failures", "mean", "sd", "metric", "objective", "trials")


DIGITS = 4
"""After the point, of a number without a known uncertainty."""


def rounded(value: float, uncertainty: float = math.nan, sign: bool = False) -> str:
    """A number with as many digits as mean something: its uncertainty has two.

    Args:
        uncertainty: half an interval's width, say; if it is zero or missing the number has `DIGITS` after the point.
        sign: whether a plus is written.

    >>> rounded(0.97073, 0.0185), rounded(0.10104, 0.0), rounded(123.4, 27.0), rounded(0.0063, 0.0071, sign=True)
    ('0.971', '0.1010', '123', '+0.0063')
    >>> rounded(4.1e-8, 7e-9), rounded(2e-6, 1e-3)
    ('4.1e-08', '0.0000')
    """
    if _missing(value):
        return "–"
    tiny = 0 < abs(value) < 1e-4 and (_missing(uncertainty) or uncertainty < 1e-5)
    if abs(value) >= 1e6 or tiny:
        return f"{value:{'+' if sign else ''}.3g}"
    known = not _missing(uncertainty) and uncertainty > 1e-9  # less is rounding
    digits = min(max(1 - math.floor(math.log10(uncertainty)), 0), 6) if known else DIGITS
    return f"{value:{'+' if sign else ''}.{digits}f}"


def words(metric: str) -> str:
    """A metric as a reader sees it: `val accuracy`; a layer's statistic as it is named."""
    return metric if "." in metric else metric.replace("_", " ")


def interval(value: float, low: float, high: float, sign: bool = False) -> str:
    """An interval, rounded by half its width: `[0.952, 0.989]`."""
    half = (high - low) / 2
    return "–" if _missing(low) else f"[{rounded(low, half, sign)}, {rounded(high, half, sign)}]"


def interval_note(metric: str, differences: bool = True, erratic: bool = False) -> str:
    """What the intervals of a comparison, with or without differences, are.

    Args:
        erratic: whether an arm fails at some seeds and not at others.
    """
    known = measure(metric)
    scale = ", on the logit scale, which keeps it between 0 and 1" if known.share else ", cut at 0" * (known.low == 0)
    cut = ", cut at -1 and 1" if known.share else ""
    paired = f"; of a difference it is of the pairs at the same seed{cut}" if differences else ""
    none = "; of an arm that fails at some seeds and not at others none holds, and none is shown: its share of seeds"
    none += " without a failure has an exact one (Clopper-Pearson)"
    return f"95 % intervals: Student's t over seeds{scale}{paired}{none if erratic else ''}."


def comparison_table(
    comparison: pd.DataFrame,
    by: list[str],
    metric: str,
    baseline: dict,
    format: str = "terminal",
    width: int | None = None,
) -> str:
    """A comparison as text: an arm a row.

    Args:
        comparison: what `comparison.comparison` gave.
        format: one of `FORMATS`; CSV and JSON have every number in full, the others the digits that mean something.
        width: of the terminal, which the table is to fit; None for as wide as it is.
    """
    if format in PLAIN:
        return PLAIN[format](comparison)
    anchors = [factor for factor in by if factor in baseline]
    headers = [*(short(factor, by) for factor in by), "seeds", "failed", words(metric), "95 % interval"]
    unsteady, standings = bool(comparison["erratic"].any()), bool((comparison["standing"] != "").any())
    headers[-2:-2] = ["finished"] * unsteady
    headers += ["standing"] * standings
    if anchors:
        against = arm_label({factor: baseline[factor] for factor in anchors})
        headers += [f"difference to {against}", "95 % interval"]
    rows = []
    for row in comparison.to_dict("records"):
        cells = [level_text(row[factor]) for factor in by]
        cells += [str(row["seeds"]), str(row["failures"]), *([success(row)] if unsteady else []), _mean(row)]
        cells += ["–" if row["erratic"] else interval(row["mean"], row["low"], row["high"])]
        cells += [row["standing"]] * standings
        if anchors:
            own = all(level_text(row[factor]) == level_text(baseline[factor]) for factor in anchors)
            difference, low, high = (row[name] for name in ("difference", "difference_low", "difference_high"))
            cells += ["baseline" if own else rounded(difference, (high - low) / 2, sign=True)]
            none = unsteady and row["test"] == "success"
            cells += ["" if own else "–" if none else interval(difference, low, high, sign=True)]
        rows.append(cells)
    aligned = ["left"] * len(by) + ["right"] * 2 + ["left"] * (len(headers) - len(by) - 2)
    return fitted(rows, headers, STYLES[format], aligned, width, _spare(headers, len(by), bool(anchors)))


def _spare(headers: list[str], factors: int, paired: bool) -> list[int]:
    """The places of a comparison's columns that it can do without, the first one first."""
    intervals = [place for place, header in enumerate(headers) if header == "95 % interval"]
    finished = [headers.index("finished")] if "finished" in headers else []
    return [*finished, *intervals, factors, *([len(headers) - 2] if paired else []), factors + 1]


def success(row) -> str:
    """The share of an arm's seeds that finished, with its exact interval: `80 % [28, 99]`."""
    if _missing(row["success"]):
        return "–"
    share, low, high = (f"{100 * row[name]:.0f}" for name in ("success", "success_low", "success_high"))
    return f"{share} % [{low}, {high}]"


def rows_of(frame: pd.DataFrame) -> list[dict]:
    """A frame's rows as JSON has them, every number in full; one that does not exist or is not finite is None."""

    def plain(value):
        value = value.item() if isinstance(value, np.generic) else value
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return [{name: plain(value) for name, value in row.items()} for row in frame.to_dict("records")]


def noted(text: str, lines: list[str], format: str) -> str:
    """A table with notes: under it, in LaTeX as comments above it; CSV and JSON have none."""
    if not lines or format in PLAIN:
        return text
    lines = [escaped.markdown(line) if format == "markdown" else escaped.line(line) for line in lines]
    if format == "html":
        return text + "".join(f"\n<p>{html.escape(line)}</p>" for line in lines)
    if format == "latex":
        return "".join(f"% {line}\n" for line in lines) + text
    return text + "\n\n" + ("\n- " if format == "markdown" else "\n  ").join(lines)


def tuning_table(
    tuned: pd.DataFrame,
    by: list[str],
    nuisance: list[str],
    metric: str,
    format: str = "terminal",
    notes: Iterable[str] = (),
    width: int | None = None,
) -> str:
    """What `tuning.tuned` chose, as text: an arm a row; with notes, from `tuning_notes`; no wider than `width`."""
    factors = [*by, *nuisance]
    rows = [
        [
            *(level_text(row[factor]) for factor in factors),
            "none ended" if _missing(row["value"]) else f"{row['value']:.4f}",
            f"{listed(short(factor, factors) for factor in row['edge'])}: extend the range" if row["edge"] else "",
        ]
        for row in tuned.to_dict("records")
    ]
    headers = [*(short(factor, factors) for factor in factors), f"{words(metric)} (tuning)", "on the edge"]
    return noted(fitted(rows, headers, STYLES[format], width=width), list(notes), format)


def tuning_notes(trials: pd.DataFrame, extended: list[tuple[str, str, float, float]]) -> list[str]:
    """What tuning cost, and how ranges were extended for it, a line each.

    Args:
        trials: those that tuned.
        extended: from `tuning.extended`.
    """
    seconds = trials["seconds_total"].sum()
    lines = [f"Tuning took {len(trials)} trials, {seconds:.0f} s of training over all workers."]
    for factor, side, bound, last in extended:
        down = "down" if side == "below" else "up"
        lines.append(f"{factor} was extended {side} {bound:.15g}, for all arms, and tried {down} to {last:.15g}.")
    return lines


def rate_table(ranges: pd.DataFrame, by: list[str], format: str = "terminal", width: int | None = None) -> str:
    """What `tuning.rate_range` found, as text: an arm a row."""
    names = ("steepest", "lowest", "highest")
    headers = [*(short(factor, by) for factor in by), "seeds"]
    headers += [header for name in names for header in (f"{name} rate", "95 % interval")]
    rows = []
    for row in ranges.to_dict("records"):
        cells = [*(level_text(row[factor]) for factor in by), str(row["seeds"])]
        for name in names:
            low, high = row[f"{name}_low"], row[f"{name}_high"]
            cells += ["–" if _missing(row[name]) else f"{row[name]:.2g}"]
            cells += ["–" if _missing(low) else f"[{low:.2g}, {high:.2g}]"]
        rows.append(cells)
    spare = [len(by), *(len(by) + 2 * place for place in (3, 2, 1))]
    return fitted(rows, headers, STYLES[format], width=width, spare=spare)


def warning_table(warnings: pd.DataFrame, metric: str, format: str = "terminal", by: Iterable[str] = ()) -> str:
    """What `dynamics.warnings` or, with factors, `dynamics.warnings_within` found, as text: a warning a row.

    Args:
        by: the factors that make the arms.
    """
    by = list(by)
    with_it, without = f"{words(metric)} with it", f"{words(metric)} without"
    headers = [*(short(factor, by) for factor in by), "early warning", "trials"]
    headers += ["first epoch", "failed", with_it, without]
    rows = [
        [
            *(level_text(row[factor]) for factor in by),
            row["warning"],
            f"{row['trials']} of {row['of']}" if by else str(row["trials"]),
            f"{row['epoch']:g}",
            str(row["failed"]),
            rounded(row["value"]),
            rounded(row["others"]),
        ]
        for row in warnings.to_dict("records")
    ]
    return escaped.table(rows, headers, STYLES[format])


def failure_table(failures: pd.DataFrame, by: list[str], format: str = "terminal") -> str:
    """What `comparison.failures` counted, as text: an arm and status a row."""
    headers = [*(short(factor, by) for factor in by), "status", "trials", "seeds", "epochs", "reason"]
    rows = [
        [
            *(level_text(row[factor]) for factor in by),
            row["status"],
            str(row["trials"]),
            level_text(row["seeds"]),
            f"{row['epochs']:g}",
            row["error"],
        ]
        for row in failures.to_dict("records")
    ]
    return escaped.table(rows, headers, STYLES[format])


def sweep_table(jobs: list[dict], format: str = "terminal", width: int | None = None) -> str:
    """The jobs of a multirun as text: a job a row, with what sets it apart.

    Args:
        jobs: of each its overrides, name -> value, and the fields of `studies.command.sweep.Outcome`.
        width: of the terminal, which the table is to fit; None for as wide as it is.
    """
    known = dict.fromkeys(name for job in jobs for name in job)
    names = [name for name in known if name not in JOB and len({job.get(name) for job in jobs} - {""}) > 1]
    metrics = {job["metric"] for job in jobs if job["metric"]}
    headers = [
        *(short(name, names) for name in names),
        "seeds",
        "failed",
        " / ".join(sorted(metrics)).replace("_", " ") + ": mean ± sd over seeds",
    ]
    rows = [
        [
            *(str(job.get(name, "")) for name in names),
            str(job["seeds"]),
            str(job["failures"]),
            _outcome(job),
        ]
        for job in jobs
    ]
    aligned = ["left"] * len(names) + ["right"] * 2 + ["left"]
    spare = [len(names), len(names) + 1]
    return fitted(rows, headers, STYLES[format], aligned, width, spare, OF_A_RUN)


def _outcome(job) -> str:
    if not job["seeds"]:
        return "error" if job["code"] else "–"
    return "failed" if _missing(job["mean"]) else _mean(job)


def level_text(level: object) -> str:
    """A level as text; a list without brackets, which LaTeX would take for an argument at the start of a row."""
    if isinstance(level, list | tuple):
        return ", ".join(map(level_text, level))
    return f"{level:.15g}" if isinstance(level, float) else shown(level)


def _missing(value) -> bool:
    return value != value


def _mean(row) -> str:
    half = (row["high"] - row["low"]) / 2 if "high" in row else row["sd"]
    mean = rounded(row["mean"], half)
    return mean if _missing(row["sd"]) else f"{mean} ± {rounded(row['sd'], half)}"


def frame_table(
    frame: pd.DataFrame, format: str = "terminal", width: int | None = None, spare: Sequence[str] = ()
) -> str:
    """Any frame as text: its columns are the headers; floats are differences if their column is called `change`.

    Args:
        width, spare: see `width.fitted`.
    """
    if format in PLAIN:
        return PLAIN[format](frame)

    def cell(column, value):
        if not isinstance(value, float):
            return level_text(value)
        return rounded(value, sign=column == "change")

    rows = [[cell(*pair) for pair in row.items()] for row in frame.to_dict("records")]
    return fitted(rows, list(frame), STYLES[format], width=width, spare=spare)
