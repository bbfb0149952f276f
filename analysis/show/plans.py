"""What seeds can show, as a table and in words. Computes no statistic."""

import math

import pandas as pd

from analysis.estimate.power import POWER
from analysis.show.sentences import duration
from analysis.show.tables import PLAIN, frame_table, rounded, words
from studies.record import StudyError


def plan_table(plan: pd.DataFrame, margin: float | None, format: str = "terminal", width: int | None = None) -> str:
    """What `power.plan` found, as text: a comparison a row; CSV and JSON have every number in full.

    Args:
        width: of the terminal that it is for; None for as wide as it is.
    """
    if format in PLAIN:
        return PLAIN[format](plan)
    rows = [
        {
            "arm": row["arm"],
            "against": row["other"],
            "seeds": row["pairs"],
            "sd of difference": rounded(row["sd"]),
            f"found at {100 * POWER:g} %": _found(row),
            **({} if margin is None else {f"seeds for {margin:g}": _seeds(row)}),
            "note": row["note"],
        }
        for row in plan.to_dict("records")
    ]
    return frame_table(pd.DataFrame(rows), format, width, ("sd of difference", "seeds"))


def plan_words(plan: pd.DataFrame, metric: str, margin: float | None, seconds: float, workers: int) -> list[str]:
    """What a plan says.

    Args:
        seconds: what a seed of all arms costs one worker, see `power.seconds_a_seed`.
        workers: the study's own, 1 if it leaves them to the machine.
    """
    able, rates = plan[plan["detectable"].notna() & (plan["test"] == "t")], plan[plan["test"] == "success"]
    share = f"{100 * plan['alpha'].iloc[0]:.2g} %"
    lines = [
        f"Two-sided at 5 %, Holm-adjusted over {len(plan)} comparisons: {share} in the worst case, planned for here."
    ]
    if len(able):
        least, most = (able.loc[able["detectable"].agg(end)] for end in ("idxmin", "idxmax"))
        ends = f"{rounded(least['detectable'])} ({least['arm']} against {least['other']})"
        if len(able) > 1:
            ends += f" to {rounded(most['detectable'])} ({most['arm']} against {most['other']})"
        lines.append(f"With {100 * POWER:g} % power the seeds there are find differences in {words(metric)} of {ends}.")
    if margin is not None:
        lines += _needed(plan[plan["test"] == "t"], metric, margin, seconds, workers)
    if len(rates):
        lines.append(
            f"{len(rates)} of {len(plan)} comparisons {'have' if len(rates) > 1 else 'has'} an arm that fails at some "
            f"seeds: planned by success rates, with the failure rate that is told from none, and the seeds for the "
            f"difference seen."
        )
    if int(missing := (plan["note"] != "").sum()):
        lines.append(f"Of {missing} of {len(plan)} comparisons the trials there are say too little: see the notes.")
    return lines


def _needed(plan, metric, margin, seconds, workers) -> list[str]:
    known = plan[plan["seeds"].notna()]
    if known.empty:
        return [f"Nothing says how many seeds a difference of {margin:g} in {words(metric)} needs."]
    most = known.loc[known["seeds"].idxmax()]
    enough = int((known["seeds"] <= known["pairs"]).sum())
    lead = (
        f"A difference of {margin:g} in {words(metric)} is found with the seeds there are in {enough} of {len(known)}"
    )
    if enough == len(known):
        return [f"{lead} comparisons."]
    more = most["seeds"] - most["pairs"]
    where = f"{most['arm']} against {most['other']}"
    lines = [f"{lead} comparisons; all take {_count(most['seeds'])} seeds ({_range(most)}), for {where}."]
    if math.isfinite(more) and seconds == seconds:
        shared = f", on the study's {workers} {duration(more * seconds / workers)}" if workers > 1 else ""
        cost = f"{_count(more)} more take {duration(more * seconds)} of one worker{shared}"
        lines.append(f"A seed of all arms takes {duration(seconds)} of one worker: {cost}.")
    return lines


def _range(row) -> str:
    return f"{_count(row['seeds_low'])} to {_count(row['seeds_high'])}, as well as {row['pairs']} seeds know the sd"


def _found(row) -> str:
    if row["test"] == "success" and row["detectable"] == row["detectable"]:
        return f"failure rate {100 * row['detectable']:.0f} %"
    return rounded(row["detectable"])


def _seeds(row) -> str:
    if row["seeds"] != row["seeds"]:
        return "–"
    if row["test"] == "success":
        return f"{_count(row['seeds'])} for success" if math.isfinite(row["seeds"]) else "–"
    return f"{_count(row['seeds'])} [{_count(row['seeds_low'])}, {_count(row['seeds_high'])}]"


def _count(seeds: float) -> str:
    return f"{seeds:.0f}" if math.isfinite(seeds) else "over a million"


def margin_of(text: str) -> float:
    """The least difference that matters, as a command is given it.

    Raises:
        StudyError: it is not a number above 0.
    """
    try:
        margin = float(text)
    except ValueError:
        margin = math.nan
    if not 0 < margin < math.inf:
        raise StudyError(f"--margin {text}: expected a difference above 0 in the metric's unit, such as 0.01")
    return margin
