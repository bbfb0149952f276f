"""Run tasks in this process, one after another."""

import os
from collections.abc import Iterator
from contextlib import suppress

from studies import terminal
from studies.execute.task import Task, attempt, resolve
from studies.execute.worker import environment
from studies.record import Started, StudyError

threads: int | None = None
"""With how many the first task ran in this process, whichever executor or job that was of; None: none has."""


class Serial:
    """One task after another in this process: for debugging, with the trials' TensorFlow in the driver.

    TensorFlow reads its number of threads once, so all that a process runs have the same.
    """

    workers = 1

    def __init__(self):
        self.drained = False

    def start(self, function: str, count: int, threads: int = 1) -> None:
        """Nothing to start."""

    def run(self, function: str, tasks: list[Task]) -> Iterator[tuple[Task, object]]:
        """Run the tasks by group; yields `(task, record)`, a `Started` first.

        Raises:
            StudyError: a task wants another number of threads than the first that this process ran.
        """
        global threads
        tasks = sorted(tasks, key=lambda task: task.group)
        for task in tasks:
            if task.threads != (expected := threads or tasks[0].threads):
                raise StudyError(
                    f"engine.threads={task.threads}: expected {expected}, as in the first trial of this process, "
                    "since TensorFlow reads it once; use executor=pool, or a command for each number of threads"
                )
        for task in tasks:
            if self.drained:
                return
            yield task, Started(task.key, attempt=1)
            threads = task.threads
            os.environ |= environment(threads, number=0)
            with terminal.unheard(), suppress(Exception):  # TensorFlow's log of its import; the task says what fails
                resolve(function)
            for record in attempt(function, task.given()):
                yield task, record

    def drain(self) -> None:
        """Begin no other task."""
        self.drained = True

    def close(self) -> None:
        """Nothing to stop."""
