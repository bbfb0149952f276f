"""The process of a worker on a node of a Ray cluster: what it does there, and what it says of where it is."""

import os
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from studies.execute import compiled
from studies.execute.task import Done, Task, attempt, resolve
from studies.record import EpochRecord, Result, StudyError, Trial

HELD = 0.2
"""Seconds for which epochs' records are held back, to come as one message: a message costs half a millisecond."""

CIRCUMSTANCES = "studies.command.provenance:circumstances"

CHOSEN = "studies.command.provenance:BITS"
"""Variables by which a user chooses other arithmetic: a worker has the driver's, and none of its node's own."""


class Actor:
    """A worker's process, for as long as the driver's connection lasts."""

    def __init__(self, folder: str, variables: dict[str, str], threads: int, function: str, keeps: bool):
        for name in resolve(CHOSEN):
            if name not in variables:
                os.environ.pop(name, None)
        with suppress(OSError):  # there is none such on this node
            os.chdir(folder)
        self.cache = compiled.prepared(threads) if keeps else None
        os.environ |= compiled.variables(self.cache)
        self.groups = set[str]()
        self.records: Iterator[list] = iter(())
        with suppress(Exception):  # the first task will say so
            resolve(function)

    def introduce(self) -> dict[str, dict[str, str]]:
        """What may change numbers here, and what must be as it is at the driver."""
        return {"circumstances": resolve(CIRCUMSTANCES)(), "versions": versions()}

    def take(self, function: str, of: object, value: object) -> None:
        """Have something that tasks read."""
        resolve(function)(of, value)

    def stream(self, function: str, task: Task) -> Iterator[list]:
        """A task's records, several at a time, with a `Done` at the end."""
        held, since = [], time.monotonic()
        for record in self._records(function, task):
            held.append(record)
            if not isinstance(record, EpochRecord | list | Result) or time.monotonic() - since > HELD:
                yield held
                held, since = [], time.monotonic()
        if self.cache and task.group not in self.groups:
            compiled.seal(self.cache)
        self.groups.add(task.group)
        yield [*held, Done()]

    def more(self, function: str = "", task: Task | None = None) -> list:
        """The next records of the task at hand, or the first of another."""
        if task:
            self.records = self.stream(function, task)
        return next(self.records)

    def _records(self, function: str, task: Task) -> Iterator[object]:
        """A task's records; a model that is to be kept is one, before the result, since its folder is elsewhere."""
        trial = task.payload
        if not (isinstance(trial, Trial) and trial.model):
            yield from attempt(function, task, doubtful=bool(self.cache))
            return
        with tempfile.TemporaryDirectory(prefix="studies-model-") as folder:
            file = Path(folder) / Path(trial.model).name
            task = replace(task, payload=replace(trial, model=str(file)))
            for record in attempt(function, task, doubtful=bool(self.cache)):
                if isinstance(record, Result) and file.exists():
                    yield Model(file.read_bytes())
                yield record


@dataclass(frozen=True)
class Model:
    """A trained model's file."""

    content: bytes

    def write(self, place: str) -> None:
        """Put it where it is wanted, whole or not at all.

        Raises:
            StudyError: there is no room.
        """
        try:
            new = Path(f"{place}.new")
            new.write_bytes(self.content)
            new.replace(place)
        except OSError as error:
            raise StudyError(
                f"{place} cannot be written ({error.strerror or error}): make room, or keep no models, "
                f"tracking.models=none"
            ) from error


def versions() -> dict[str, str]:
    """What decides numbers and must be the same everywhere."""
    found = {n: v for n, v in resolve(CIRCUMSTANCES)().items() if n.startswith("version.")}
    return {"Python": platform.python_version()} | {n.removeprefix("version."): v for n, v in found.items()}
