"""A study's executions: what each was run by, what it sets, and which of them is meant."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from analysis.read.runs import Run
from studies.contract import Tag, set_by_command
from studies.record import Claim, Space, Study, StudyError

LATEST, OWN, ALL, SWEEP = "latest", "own", "all", "sweep"

WORDS = {
    LATEST: "the last that was run, or asked for again",
    OWN: "the last of the study's own design",
    ALL: "all of them as one",
    SWEEP: "the jobs of the last sweep as one",
}
"""What can be asked for by a word."""

LEAST = 4
"""Signs of a run's id that are enough to name it, if no other begins so."""

MORE = ("study.seeds=", "study.question=", "study.figures=", "profile=quick")
"""Begins of words that leave a study's own design what it is; quick is the profile that one has without a word."""


@dataclass(frozen=True)
class Execution:
    """One invocation of a study: its design, and all its trials but those that only tune; or several as one.

    Attributes:
        arms: the trials' keys, and the levels of each in this design, None where they were not kept.
        status: MLflow's, `RUNNING` until it has ended.
        folder: of its own files; of a server's, on the server's machine. Of several: the last one's, as its run is.
        tags: all that its run has, such as `version.keras` and `machine`.
        start_time, end_time: milliseconds since 1970, UTC; no end while it is running.
        number: its place among the study's executions, from 1 on, the oldest first.
        parts: of several as one these; else empty.
    """

    study: Study
    hash: str
    arms: dict[str, dict | None]
    status: str
    folder: Path
    run_id: str
    experiment_id: str
    tags: dict[str, str]
    start_time: int
    end_time: int | None
    number: int = 0
    parts: "tuple[Execution, ...]" = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """The trials' keys."""
        return tuple(self.arms)

    @property
    def command(self) -> str:
        """What it was run by; empty if that is not known."""
        return self.tags.get("mlflow.source.name", "")

    @property
    def settings(self) -> tuple[str, ...]:
        """What its command sets besides the study: `model.depth=4`."""
        return set_by_command(self.tags)

    @property
    def own(self) -> bool:
        """Whether it trains what the study does by itself, at whichever seeds."""
        return is_own(self.tags)

    @property
    def sweep(self) -> str:
        """What the jobs of its sweep have in common, of the last one that had it for a job; empty if it is of none."""
        return _sweep(self.tags, self.start_time)[1]


def is_own(tags: dict[str, str]) -> bool:
    """Whether an execution trains what its study does by itself, at whichever seeds."""
    return all(word.startswith(MORE) for word in set_by_command(tags))


def places(parents: Sequence[Run], which: str | int, study: str) -> tuple[list[int], bool]:
    """Which executions are meant, by their places among all, and whether as one, however many they are.

    Args:
        parents: the runs of all the study's executions, oldest first, one at least.
        which: a word of `WORDS`, a number from 1 on, the beginning of a run's id (its own, or that of its sweep), or
            several of these, separated by commas.

    Raises:
        StudyError: none is meant, or several that the beginning of an id does not tell apart.
    """
    found = [_places(parents, part.strip(), study) for part in str(which).split(",")]
    several = len(found) > 1 or str(which).strip() in (ALL, SWEEP) or len(found[0]) > 1
    return sorted({place for part in found for place in part}), several


def _places(parents, which: str, study: str) -> list[int]:
    several = list(range(len(parents)))
    if which == LATEST:
        return [max(several, key=lambda place: (_asked(parents[place]), place))]
    if which == ALL:
        return several
    if which == OWN:
        if own := [place for place in several if is_own(parents[place].tags)]:
            return own[-1:]
        raise StudyError(
            f"--execution own: none of the {len(parents)} executions of {study} is of its own design, all set "
            f"something else: run it as it is, or name another, such as latest; --execution list shows them"
        )
    if which == SWEEP:
        jobs = [_sweep(run.tags, run.start_time) for run in parents]
        if (last := max(jobs, default=(0, "")))[1]:
            return [place for place in several if jobs[place][1] == last[1]]
        raise StudyError(
            f"--execution sweep: no execution of {study} is the job of a sweep (python -m studies.run -m …): expected "
            f"{_expected(parents)}"
        )
    if which.isdecimal() and 1 <= int(which) <= len(parents):
        return [int(which) - 1]
    known = len(which) >= LEAST
    mine = [place for place in several if known and parents[place].run_id.startswith(which)]
    above = {run.tags.get("mlflow.parentRunId", "") for run in parents}
    sweeps = sorted(run for run in above if known and run.startswith(which))
    if len(mine) + len(sweeps) > 1:
        raise StudyError(
            f"--execution {which}: {len(mine) + len(sweeps)} runs of {study} have ids that begin so: write more of it"
        )
    if sweeps:
        return [place for place in several if parents[place].tags.get("mlflow.parentRunId") == sweeps[0]]
    if not mine:
        raise StudyError(f"--execution {which}: {study} has no such execution: expected {_expected(parents)}")
    return mine


def last_sweep(executions: "Sequence[Execution]") -> str:
    """The sweep that was run last, of those that had some of these for jobs; empty if none had."""
    return max((_sweep(each.tags, each.start_time) for each in executions), default=(0, ""))[1]


def _sweep(tags: dict[str, str], start: int) -> tuple[int, str]:
    """When an execution was a job of a sweep for the last time, and of which; 0 and empty if it never was."""
    when, _, sweep = tags.get(Tag.JOINED, "").partition(" ")
    if when.isdecimal() and sweep:
        return int(when), sweep
    return (start, tags["sweep"]) if tags.get("sweep") else (0, "")


def _asked(run) -> int:
    """When an execution was last asked for, in milliseconds since 1970: a command that leaves nothing to train has the
    one of its design again.
    """
    return max(run.start_time, int(run.tags.get(Tag.ASKED, 0)))


def _expected(parents) -> str:
    numbers = "1" if len(parents) == 1 else f"a number from 1 to {len(parents)}"
    return f"{numbers}, {', '.join(WORDS)}, or the first {LEAST} signs or more of an id; --execution list shows them"


def read(run: Run, number: int, kept: bytes) -> Execution:
    """An execution of its run.

    Args:
        kept: its `trials.json`.

    Raises:
        StudyError: that is damaged.
    """
    try:
        compared = arms(kept)
    except ValueError as error:
        raise StudyError(
            f"trials.json of run {run.run_id} in {run.folder} is damaged ({error}): restore it from a copy, or delete "
            f"the run among MLflow's pages, and the same command writes another"
        ) from error
    design = json.loads(run.tags[Tag.DESIGN])
    for role in ("factors", "nuisance"):
        design[role] = {factor: tuple(levels) for factor, levels in design.get(role, {}).items()}
    for seeds in ("seeds", "tuning_seeds"):
        design[seeds] = tuple(design.get(seeds, ()))
    for rules in ("zip", "skip", "only", "settings"):
        design[rules] = tuple(tuple(rule) if isinstance(rule, list) else rule for rule in design.get(rules, ()))
    for names in ("figures", "looks"):
        design[names] = tuple(design.get(names, ()))
    if card := design.get("claim"):
        band = card["claimed_band"]
        card |= {"across": tuple(card["across"]), "claimed_band": None if band is None else tuple(band)}
        known = {f.name for f in fields(Claim)}
        design["claim"] = Claim(**{name: value for name, value in card.items() if name in known})
    spaces = design.get("space", {}).items()
    design["space"] = {factor: Space(**s) if isinstance(s, dict) else tuple(s) for factor, s in spaces}
    design["sampled"] = {factor: Space(**each) for factor, each in design.get("sampled", {}).items()}
    return Execution(
        Study(**design),
        run.tags[Tag.HASH],
        compared,
        run.status,
        run.folder,
        run.run_id,
        run.experiment_id,
        run.tags,
        run.start_time,
        run.end_time,
        number,
    )


def arms(kept: str | bytes) -> dict[str, dict | None]:
    """The trials that an execution compares, of its `trials.json`: key -> its arm in that design, None if not kept."""
    found = json.loads(kept)
    return found if isinstance(found, dict) else dict.fromkeys(found)
