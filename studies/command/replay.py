"""A stored trial trained once more: its config is taken as data, checked, and what comes out held against the store.

Nothing is written into the store. What may be imported and called is what this command allows, whatever a config says.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis import load, stored
from analysis.estimate import agreement
from studies.command import compose, driver, provenance
from studies.contract import CIRCUMSTANCES, Tag
from studies.execute.task import Executor, Task
from studies.factors import limits
from studies.record import (
    METRICS,
    RESULTS_VERSION,
    EpochRecord,
    LayerRecord,
    Result,
    Started,
    StudyError,
    Trial,
    content_key,
    identity_parts,
    is_computed,
    listed,
    shown,
)
from studies.store import writer

AHEAD = 20
"""Versions of results, later than this code's, that a key is tried with, so that one is called by its number."""

FOUND_HERE = {"data": ("content",), "engine": ("device", "environment"), "targets": ("allow", "source")}
"""What of a config is found where the trial is trained, and not asked for."""

COMMIT = "mlflow.source.git.commit"
SURROUNDINGS = {
    **{name: name.removeprefix("version.") for name in CIRCUMSTANCES},
    "machine": "machine",
    COMMIT: "commit",
    "git.dirty": "changed files",
    "lock.hash": "lock",
}
"""Tags of what a trial was trained by and on, and what they are called."""

CLOCKS = ("seconds_build", "seconds_train", "seconds_total", "memory_mb")
"""Results that no two runs have alike."""


@dataclass(frozen=True)
class Replayed:
    """What came of training a trial again.

    Attributes:
        stored: as it was.
        status: how it ended now.
        error: why, if it crashed; its first line.
        version: of the results that are stored.
        agreement: of the numbers; None if it crashed.
        surroundings: what differs of them: name, then, now; a version that is not known is empty.
        accuracy: of the end, by name: then, now.
    """

    stored: stored.Stored
    status: str
    error: str
    version: int
    agreement: agreement.Agreement | None
    surroundings: tuple[tuple[str, str, str], ...]
    accuracy: dict[str, tuple[float, float]]

    @property
    def equal(self) -> bool:
        """Whether it ended as it did, and all its numbers are equal to the bit."""
        then = self.stored.run.tags[Tag.STATUS]
        return self.agreement is not None and self.agreement.equal and self.status == then


@dataclass(frozen=True)
class Ready:
    """A stored trial that can be trained: what it was, and is now, but for its surroundings."""

    stored: stored.Stored
    trial: Trial
    version: int
    differs: tuple[tuple[str, str, str], ...]


def ready(was: stored.Stored, allow: list[str], place: str | None = None) -> Ready:
    """The trial that a stored config describes.

    Args:
        allow: prefixes of targets of the user's own that may be imported; what the config itself allows does not count.
        place: where its data are now, its `data.path` or `data.root`; None: where they were, or `STUDIES_DATA`.

    Raises:
        StudyError: the config is not what its key says; or it names a target that is not allowed, or data that are
            not here or are others; or the trial has no numbers, or is a fit of the user's own.
    """
    tags, config = was.run.tags, was.config
    _refuse_unrepeatable(was)
    try:
        seed, version = int(tags[Tag.SEED]), _version(was)
        old = limits.identity(config)
        asked = {part: _asked(part, config[part]) for part in (*identity_parts(config),)}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise StudyError(_changed(was)) from error
    if not is_computed(config):
        asked["data"] = _placed(asked["data"], place)
    asked["targets"] = {"allow": list(allow)}
    try:
        settled, identity, graph = compose.settle(asked, trusted=True)
    except StudyError as error:
        raise StudyError(_not_here(error, was, allow)) from error
    differs = tuple(_differences(old, identity))
    if changed := [each for each in differs if each[0] == "data.content"]:
        raise StudyError(
            f"{was.label}: its data are others than those it was trained on (content {changed[0][1][:16]} then, "
            f"{changed[0][2][:16]} now): name the file or folder that it was with --data PLACE"
        )
    trial = Trial(
        content_key({"config": identity, "seed": seed, "version": version}),
        tags["study"],
        tags[Tag.ROLE],
        {},
        seed,
        settled,
        (),
        content_key(graph),
    )
    return Ready(was, trial, version, differs)


def _refuse_unrepeatable(was: stored.Stored) -> None:
    """Refuse what has no numbers that could come out again."""
    status = was.run.tags[Tag.STATUS]
    if "engine" not in was.config:
        raise StudyError(
            f"{was.label} is a fit of your own, which WeightRecorder has recorded: its code and data are not stored, "
            f"and it cannot be trained again. Expected a trial that python -m studies.run has trained"
        )
    if status == "crashed":
        reason = was.run.tags.get(Tag.ERROR, "").partition("\n")[0]
        raise StudyError(
            f"{was.label} crashed ({reason or 'nothing is known of why'}), and has no numbers to compare: the study's "
            f"own command runs it again"
        )


def _version(was: stored.Stored) -> int:
    """The version of the results whose key the config has.

    Raises:
        StudyError: it has none's, so that it is not the config that was trained.
    """
    identity, seed = limits.identity(was.config), int(was.run.tags[Tag.SEED])
    for version in (*range(RESULTS_VERSION, 0, -1), *range(RESULTS_VERSION + 1, RESULTS_VERSION + AHEAD)):
        if content_key({"config": identity, "seed": seed, "version": version}) == was.key:
            return version
    raise StudyError(_changed(was))


def _changed(was: stored.Stored) -> str:
    return (
        f"the record of {was.label} was changed: its config.yaml and seed are not those of its key, {was.key}, so that "
        f"they are not what was trained. Restore {was.run.folder} from a copy, or train it anew"
    )


def _asked(part: str, node: Any) -> Any:
    """A part of a config as a user gives it; settings that came after it was stored are as all was before."""
    group = limits.GROUPS[part]
    must = group.settings if group.plain else group.required
    later = {name: value for name, value in group.later.items() if name in must} if node else {}
    return later | {name: value for name, value in node.items() if name not in FOUND_HERE.get(part, ())}


def _placed(node: dict, place: str | None) -> dict:
    """A data node with the place where its files are here."""
    setting = next((name for name in ("path", "root") if name in node), None)
    if setting is None:
        if place:
            raise StudyError(f"--data {place}: {node.get('_target_')} has no data.path or data.root: leave it out")
        return node
    here = os.environ.get("STUDIES_DATA") if setting == "root" and not _is_folder(node["root"]) else None
    return node | {setting: place or here or node[setting]}


def _is_folder(path: str | None) -> bool:
    return path is not None and Path(path).is_dir()


def _not_here(error: StudyError, was: stored.Stored, allow: list[str]) -> str:
    """Why a stored trial cannot be trained here."""
    remedies = []
    theirs = [prefix for prefix in was.config.get("targets", {}).get("allow", []) if prefix not in allow]
    if "_target_" in str(error):
        remedies = [
            "What a stored config allows does not count: give --allow PREFIX if the package is yours and you trust it"
            + f" (it was trained with {listed(theirs)})" * bool(theirs)
        ]
    elif str(error).startswith("data"):
        remedies = ["If its data are elsewhere now, name the place with --data PLACE"]
    return ". ".join([f"{was.label} cannot be trained here: {error}", *remedies])


def _differences(old: dict, new: dict) -> Iterator[tuple[str, str, str]]:
    """The settings of two identities that are not the same: name, then, now."""
    was, now = (dict(_flat(each)) for each in (old, new))
    for name in dict.fromkeys((*was, *now)):
        if was.get(name) != now.get(name):
            yield name, shown(was.get(name, "")), shown(now.get(name, ""))


def _flat(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _flat(value, f"{path}.{name}" if path else str(name))
    else:
        yield path, node


def replayed(trials: list[Ready], executor: Executor, tell: Callable[[str], None]) -> Iterator[Replayed]:
    """Train trials again, and compare each as it ends.

    Args:
        executor: its workers train, as they did for the study.
        tell: is told what begins.
    """
    here = provenance.tags([])
    for function in (driver.TRIAL, driver.COMPUTED):
        chosen = {str(n): each for n, each in enumerate(trials) if each.trial.computed == (function == driver.COMPUTED)}
        tasks = [
            Task(name, each.trial.graph_key, each.trial.config["engine"]["threads"], each.trial)
            for name, each in chosen.items()
        ]
        epochs: dict[str, list[EpochRecord]] = {}
        layers: dict[str, list[LayerRecord]] = {}
        for task, record in executor.run(function, tasks) if tasks else ():
            match record:
                case Started():
                    tell(f"training {chosen[task.key].stored.label} again")
                    epochs[task.key], layers[task.key] = [], []
                case EpochRecord():
                    epochs[task.key].append(record)
                case list():
                    layers[task.key] += record
                case Result():
                    ended = chosen[task.key], epochs.pop(task.key, []), layers.pop(task.key, []), record
                    yield _compared(*ended, here)


def _compared(
    asked: Ready, epochs: list[EpochRecord], layers: list[LayerRecord], result: Result, here: dict[str, str]
) -> Replayed:
    was, error = asked.stored, result.error.partition("\n")[0]
    surroundings = (*asked.differs, *_surroundings(was.tags, here))
    if result.status == "crashed":
        return Replayed(was, "crashed", error, asked.version, None, surroundings, {})
    seen = driver.watched(asked.trial, epochs, layers, result)
    files = _Files(writer.trial_files(asked.trial, epochs, seen.layers, result))
    now = _numbers(result)
    then = {name: value for name, value in was.numbers.items() if name not in CLOCKS}
    # One that the clock has ended has no end that comes out again; up to there it must.
    timed = was.run.tags[Tag.STATUS] == "timeout" or result.status == "timeout"
    until = min(_last(was.frames["epochs"]), max((e.epoch for e in epochs), default=0)) if timed else None
    found = agreement.agreement(was.frames, load.frames(was.run, files), ({}, {}) if timed else (then, now), until)
    ends = {
        name: (then.get(name, float("nan")), now.get(name, float("nan"))) for name in ("val_accuracy", "test_accuracy")
    }
    accuracy = {} if asked.trial.computed else ends
    status = was.run.tags[Tag.STATUS] if timed else result.status
    return Replayed(was, status, error, asked.version, found, surroundings, accuracy)


def _last(frame) -> int:
    return int(frame["epoch"].max()) if len(frame) else 0


def _numbers(result: Result) -> dict[str, float]:
    """A result's numbers as the store has them, but for what the clock and the memory say."""
    names = [name for name in (*METRICS, *writer.FINAL) if name not in CLOCKS]
    return {name: float(getattr(result, name)) for name in names} | result.quantities


def _surroundings(then: dict[str, str], now: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    for tag, name in SURROUNDINGS.items():
        if then.get(tag, "") != now.get(tag, ""):
            yield name, then.get(tag, ""), now.get(tag, "")


class _Files:
    """The files of a trial that has just ended, as a store has them."""

    def __init__(self, content: dict[str, bytes]):
        self.files = content

    def content(self, _run, name: str) -> bytes:
        """One of them."""
        return self.files[name]

    def has(self, _run, name: str) -> bool:
        """Whether it is there."""
        return name in self.files
