"""A task: what a worker gets, and how it is run wherever that is.

The function that runs it is named by a string, `package.module:function`, and resolved where it runs, so the driver
never imports what a task needs. It is a generator: what it yields comes back.
"""

import importlib
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from studies import origin
from studies.record import Result

LESS_MEMORY = "fewer workers (executor.workers=N) or a smaller training.batch_size take less"
"""What to do where there is none left."""


@dataclass(frozen=True)
class Reading:
    """What a task reads from files that need not be where its worker is.

    Attributes:
        key: of what is read.
        give: a function, named, that gives it where the files are.
        take: one that the worker has it by: it is called with `of` and what was given.
        of: what `give` is called with.
    """

    key: str
    give: str
    take: str
    of: Any


@dataclass(frozen=True)
class Task:
    """What a worker gets.

    Attributes:
        group: tasks of one group run on one worker where that is no slower, since they share its compiled graphs.
        threads: of the worker's TensorFlow.
        cost: roughly how long it takes, in any unit; the most costly groups start first.
        renewed: gives the payload as it is when the task is given out, again or for the first time; None: as it is.
        reads: what is sent ahead of it to a worker that may be elsewhere.
    """

    key: str
    group: str
    threads: int
    payload: Any
    cost: float = 1.0
    renewed: Callable[[Any], Any] | None = field(default=None, compare=False)
    reads: Reading | None = field(default=None, compare=False)

    def given(self) -> "Task":
        """The task as a worker gets it now."""
        return replace(self, payload=self.renewed(self.payload), renewed=None) if self.renewed else self

    def __reduce__(self):
        """Whatever sends a task sends it as it is then given."""
        given = self.given()
        return Task, (given.key, given.group, given.threads, given.payload, given.cost)


class Executor(Protocol):
    """What runs tasks."""

    @property
    def workers(self) -> int:
        """So many run at once."""

    def start(self, function: str, count: int, threads: int = 1) -> None:
        """Begin to start what `count` tasks need, if anything; returns at once."""

    def run(self, function: str, tasks: list[Task]) -> Iterator[tuple[Task, Any]]:
        """Run the tasks; yields `(task, record)`, a `Started` before a task's others."""

    def drain(self) -> None:
        """Give out no more tasks: `run` ends when what runs has ended, whose records it yields.

        Only notes it, so that a signal's handler may call it, before `run` too. It holds for good.
        """

    def close(self) -> None:
        """End whatever was started."""


@dataclass(frozen=True)
class Begun:
    """A task's first record: its time runs from now on."""


@dataclass(frozen=True)
class Done:
    """A task's last record: it will yield no more."""


def attempt(function: str, task: Task, doubtful: bool = False) -> Iterator[object]:
    """What a task yields; a `Result` with the status `crashed` if it raises.

    Args:
        doubtful: an error of TensorFlow's may be for what was kept of an earlier command.

    Raises:
        SystemExit: such an error: the worker ends, and the task is tried again without what was kept.
    """
    try:
        yield from resolve(function)(task.payload)
    except Exception as error:
        summary = origin.summary(error)
        if (
            isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError"
        ):  # the latter TensorFlow's
            summary += f" — memory ran out: {LESS_MEMORY}"
        if doubtful and type(error).__module__.startswith("tensorflow."):
            raise SystemExit(summary) from error
        yield Result(task.key, "crashed", error=f"{summary}\n{traceback.format_exc()}")


def resolve(function: str) -> Any:
    """The function, or what else `package.module:function` names."""
    module, _, name = function.partition(":")
    return getattr(importlib.import_module(module), name)
