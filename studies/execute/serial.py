"""Run tasks in this process, one after another."""

import os
from collections.abc import Iterator

from studies.execute.task import Task, attempt
from studies.execute.worker import environment
from studies.record import Started


class Serial:
    """One task after another in this process: for debugging, with the trials' TensorFlow in the driver."""

    workers = 1

    def start(self, function: str, count: int, threads: int = 1) -> None:
        """Nothing to start."""

    def run(self, function: str, tasks: list[Task]) -> Iterator[tuple[Task, object]]:
        """Run the tasks by group; yields `(task, record)`, a `Started` first."""
        for task in sorted(tasks, key=lambda task: task.group):
            yield task, Started(task.key, attempt=1)
            os.environ |= environment(task.threads, number=0)  # TensorFlow reads it once, at the first task
            for record in attempt(function, task):
                yield task, record

    def close(self) -> None:
        """Nothing to stop."""
