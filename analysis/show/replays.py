"""What training stored trials again has shown, in words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.estimate.agreement import Agreement, Difference
from studies.record import listed, numbered

MOST = 12
"""Columns that are named of those that differ."""

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Outcome:
    """What has come of one trial.

    Attributes:
        found: how its numbers agree; None: it crashed.
        status, versions: how it ended and the version of its results, then and now.
        error: why it crashed.
        surroundings: what differs of them: name, then, now.
        accuracy: of the end, by name: then, now.
    """

    key: str
    run_id: str
    label: str
    equal: bool
    found: Agreement | None
    status: tuple[str, str]
    error: str
    versions: tuple[int, int]
    surroundings: Sequence[tuple[str, str, str]]
    accuracy: Mapping[str, tuple[float, float]]


def lines(outcome: Outcome) -> list[str]:
    """What is said of one trial."""
    found = outcome.found
    head = f"{outcome.label}, run {outcome.run_id}"
    said = [f"{head}: {_verdict(found, outcome.status, outcome.error)}"]
    if found:
        said += [f"  {line}" for line in _differences(found.differences)]
        if found.differences:
            said += [
                f"  {name} at the end: {then:.6g} then, {now:.6g} now" for name, (then, now) in outcome.accuracy.items()
            ]
        if found.unstored:
            said.append(f"  not compared, since it is not in both: {_some(found.unstored)}")
    then, now = outcome.versions
    if then != now:
        said.append(
            f"  its results are of version {then}, and this code makes those of version {now}: between these the code "
            f"changed numbers"
        )
    differs = bool(found is None or found.differences)
    said += [
        f"  {'differs of the surroundings' if differs else 'though otherwise now'}: {line}"
        for line in (f"{name}: {a or UNKNOWN} then, {b or UNKNOWN} now" for name, a, b in outcome.surroundings)
    ]
    if differs and found and not outcome.surroundings and then == now:
        said.append(
            "  nothing that is known of the surroundings differs: the record was changed, or the trial has code that "
            "is not the same twice"
        )
    return said


def _verdict(found: Agreement | None, status: tuple[str, str], error: str) -> str:
    if found is None:
        return f"it crashed when it was trained again: {error}"
    many = f"{found.numbers:,} numbers ({', '.join(f'{name} {count:,}' for name, count in found.tables.items())})"
    if status[0] != status[1]:
        return f"it has {status[1]} now, and had {status[0]} then"
    if found.equal:
        timed = ", up to where the clock ended it" * (status[0] == "timeout")
        return f"equal to the bit in {many}{timed}"
    count = sum(each.count for each in found.differences)
    return f"different: {count:,} of {many} are not equal to the bit"


def _differences(differences: Sequence[Difference]) -> list[str]:
    """A line for each column that differs, those of the first epochs first."""
    ordered = sorted(differences, key=lambda each: math.inf if each.epoch is None else each.epoch)
    said = [_difference(each) for each in ordered[:MOST]]
    return said + [f"and {numbered(len(ordered) - MOST, 'column')} more"] * (len(ordered) > MOST)


def _difference(each: Difference) -> str:
    since = f", first at epoch {each.epoch}" * (each.epoch is not None)
    if not each.column:
        return f"{each.table}: {numbered(each.count, 'row')} in one of them alone{since}"
    much = "" if math.isnan(each.largest) else f", by {each.largest:.2g} of its size at most"
    return f"{each.table}.{each.column}: {numbered(each.count, 'number')}{since}{much}"


def _some(names: Sequence[str]) -> str:
    return listed(names[:MOST]) + f" and {len(names) - MOST} more" * (len(names) > MOST)


def record(outcome: Outcome) -> dict:
    """The same for a program; a number that there is not is null."""
    found, status, versions = outcome.found, outcome.status, outcome.versions
    different = found.differences if found else ()
    return {
        "key": outcome.key,
        "run_id": outcome.run_id,
        "trial": outcome.label,
        "equal": outcome.equal,
        "status": {"then": status[0], "now": status[1]},
        "error": outcome.error,
        "results_version": {"then": versions[0], "now": versions[1]},
        "numbers": found.tables if found else {},
        "differences": [
            {
                "table": each.table,
                "column": each.column or None,
                "count": each.count,
                "first_epoch": each.epoch,
                "largest_relative": None if math.isnan(each.largest) else each.largest,
            }
            for each in different
        ],
        "not_compared": list(found.unstored) if found else [],
        "surroundings": [
            {"name": name, "then": then or None, "now": now or None} for name, then, now in outcome.surroundings
        ],
        "at_the_end": {
            name: {"then": _number(then), "now": _number(now)} for name, (then, now) in outcome.accuracy.items()
        },
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
