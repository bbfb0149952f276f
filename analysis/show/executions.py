"""Which execution something is of, what each sets, and what else there is, in words and as a table."""

from collections.abc import Collection, Sequence
from datetime import datetime

import pandas as pd

from analysis.read.executions import SWEEP, Execution, last_sweep
from analysis.show import tables
from analysis.show.width import fitted

MOST = 4
"""Of the designs that are spoken of one by one."""

ID = 8
"""Signs of a run's id that are shown."""

LONGEST = 90
"""Signs of what an execution sets that are shown where it is named among others."""


def named(execution: Execution, count: int = 0) -> str:
    """Which execution this is, when and by what it was run, and what it set.

    Args:
        count: how many the study has; 0 says nothing of it.
    """
    of = f" of {count}" * (count > 0)
    if execution.parts:
        parts = execution.parts
        days = list(dict.fromkeys(moment(part.start_time)[:10] for part in (parts[0], parts[-1])))
        sets = "; ".join(f"{part.number} {_sets(part)}" for part in parts)
        numbers = f"{parts[0].number} to {parts[-1].number}" if _in_a_row(parts) else _joined(p.number for p in parts)
        return f"Executions {numbers}{of} as one, of {' to '.join(days)}. What they set: {sets}."
    when = f"Execution {execution.number}{of}, {moment(execution.start_time)}"
    if not execution.command:
        return f"{when}."
    job = f"the job {' '.join(execution.settings)} of " * bool(execution.sweep and execution.settings)
    return f"{when}: {job}{execution.command}"


def pinned(execution: Execution) -> str:
    """Which execution a page reads, where what it says is of the study's own design."""
    line = f"Execution {execution.number} of {execution.study.name}, {moment(execution.start_time)}"
    if execution.own:
        return f"{line}, of the study's own design."
    return (
        f"{line}, which is not of the study's own design: it sets {' '.join(execution.settings)}. The store has no "
        f"other, and what is said here of numbers need not hold of these."
    )


def others(execution: Execution, executions: Sequence[Execution], ended: Collection[str]) -> list[str]:
    """What else the store has of a study than the trials at hand, and how to see it; nothing if that is all.

    Args:
        execution: the one at hand.
        executions: all of the study's.
        ended: the keys of the trials that have ended.
    """
    found = _elsewhere(execution, executions, ended)
    if not found:
        return []
    said = [
        f"{number} trial{'s' * (number > 1)} {_of(each)} (--execution {each.number})" for each, number in found[:MOST]
    ]
    more = [f"and {len(found) - MOST} designs more (--execution list)"] * (len(found) > MOST)
    whole = "--execution all has everything in one table"
    if execution.sweep and any(each.sweep == execution.sweep for each, _ in found):
        jobs = ",".join(str(each.number) for each in executions if each.sweep == execution.sweep)
        which = SWEEP if last_sweep(executions) == execution.sweep else jobs
        whole = f"--execution {which} has the jobs of this sweep in one table, {whole.removesuffix(' in one table')}"
    return [f"Not in it, but in the store: {', '.join([*said, *more])}; {whole}."]


def record(execution: Execution, executions: Sequence[Execution], ended: Collection[str]) -> dict:
    """Which execution something is of, and what else there is, as JSON has it."""
    parts = execution.parts or (execution,)
    found = _elsewhere(execution, executions, ended)
    return {
        "executions": [
            {
                "number": part.number,
                "id": part.run_id,
                "started": datetime.fromtimestamp(part.start_time / 1000).astimezone().isoformat(),
                "command": part.command,
                "sets": list(part.settings),
                "trials": len(part.keys),
            }
            for part in parts
        ],
        "elsewhere": [
            {"number": each.number, "id": each.run_id, "sets": list(each.settings), "trials": number}
            for each, number in found
        ],
    }


def listing_table(listing: pd.DataFrame, format: str = "terminal", width: int | None = None) -> str:
    """The executions of a study as text, one a row: from `history.listing`."""
    if format in tables.PLAIN:
        return tables.PLAIN[format](listing)
    headers = ["", "id", "started", "seconds", "status", "trials", "sets", "sweep", "commit", "versions"]
    names = {sweep: f"{place}" for place, sweep in enumerate(dict.fromkeys(filter(None, listing["sweep"])), 1)}
    rows = [
        [
            str(row["execution"]),
            row["id"][:ID],
            row["started"],
            "–" if row["seconds"] != row["seconds"] else f"{row['seconds']:.0f}",
            row["status"],
            f"{row['ended']} of {row['trials']}" if row["ended"] < row["trials"] else str(row["trials"]),
            row["sets"] or "–",
            names.get(row["sweep"], "–"),
            row["commit"][:12] or "–",
            row["versions"] or "–",
        ]
        for row in listing.to_dict("records")
    ]
    aligned = ["right", "left", "left", "right", "left", "right", *["left"] * 4]
    if not names:
        place = headers.index("sweep")
        headers, aligned = [*headers[:place], *headers[place + 1 :]], [*aligned[:place], *aligned[place + 1 :]]
        rows = [[*row[:place], *row[place + 1 :]] for row in rows]
    spare = ("versions", "commit", "seconds", "status")
    return fitted(rows, headers, tables.STYLES[format], aligned, width, spare)


def moment(milliseconds: int) -> str:
    """A time as a reader sees it, local."""
    return f"{datetime.fromtimestamp(milliseconds / 1000):%Y-%m-%d %H:%M}"


def _elsewhere(execution, executions, ended) -> list[tuple[Execution, int]]:
    """The last execution of each design that has trials which are not at hand, and how many, the latest first."""
    seen, found = set(execution.keys), {}
    for each in reversed(executions):
        new = {key for key in each.keys if key not in seen and key in ended}
        seen |= new
        if new:
            sets = tuple(word for word in each.settings if not word.startswith("study.seeds="))
            first, number = found.get(sets, (each, 0))
            found[sets] = first, number + len(new)
    return list(found.values())


def _of(execution) -> str:
    return "of the study's own design" if execution.own else f"with {_sets(execution)}"


def _sets(execution) -> str:
    text = " ".join(execution.settings) or "nothing else"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _in_a_row(parts) -> bool:
    return len(parts) > 2 and parts[-1].number - parts[0].number == len(parts) - 1


def _joined(numbers) -> str:
    *most, last = map(str, numbers)
    return f"{', '.join(most)} and {last}" if most else last
