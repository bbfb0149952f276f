"""Tasks that wait for workers, wherever those are: whose turn is next."""

import heapq
import pickle
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Protocol

from studies.execute.task import Task

AHEAD = 1.0
"""Of tasks that take less than so many seconds a worker has its next one before it is done with one."""

AHEAD_BYTES = 2**15
"""Of tasks larger than that, none: all of it must fit in the pipe, since the worker may be waiting for the driver."""


class Slot(Protocol):
    """A worker, as the queue sees it.

    Attributes:
        threads: of its TensorFlow.
        tasks: the one it works at, and perhaps the next.
        groups: those it has taken a task of.
        compiled: those it has done one of.
        open: groups it knows that may have tasks, the next one last; a dictionary without values.
    """

    threads: int
    tasks: deque[Task]
    groups: set[str]
    compiled: set[str]
    open: dict[str, None]

    def done(self) -> float:
        """Take off the task that it has just done; gives the seconds that it took."""


class Queue:
    """Tasks that wait, by group; what it is asked takes no longer for many than for few.

    Args:
        tasks: of each group they start in this order.
        crew: each knows groups from earlier runs.
    """

    def __init__(self, tasks: list[Task], crew: Sequence[Slot]):
        self.waiting: dict[str, list[Task]] = defaultdict(list)
        self.left: dict[str, float] = defaultdict(float)
        self.first: dict[str, float] = {}
        self.later: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
        for task in reversed(tasks):
            self.waiting[task.group].append(task)
            self.left[task.group] += task.cost
        by_cost = sorted(self.left, key=lambda group: (self.left[group], group))
        known = {group for worker in crew for group in worker.groups}
        self.fresh = [group for group in by_cost if group not in known]
        for worker in crew:
            worker.open = {group: None for group in by_cost if group in worker.groups}
        self.most = sorted((-self.left[group], group) for group in by_cost)

    def count(self) -> int:
        """How many tasks wait."""
        return sum(map(len, self.waiting.values()))

    def put(self, task: Task, crew: Sequence[Slot]) -> None:
        """Have a task wait again, as the next of its group, also for those of the crew who know it and had run dry."""
        self.waiting[task.group].append(task)
        self.left[task.group] += task.cost
        heapq.heappush(self.most, (-self.left[task.group], task.group))
        for worker in crew:
            if task.group in worker.groups:
                worker.open[task.group] = None

    def take(self, worker: Slot, crew: Sequence[Slot]) -> Task | None:
        """From a group the worker knows, else one that nobody knows, else any: the one with most left to do.

        None: nothing waits, or those who know its graph will be done with it before this worker would have compiled it.
        They are busy, or take one as soon as they are asked.
        """
        while worker.open and not self.waiting[next(reversed(worker.open))]:
            worker.open.popitem()
        while self.fresh and not self.waiting[self.fresh[-1]]:
            self.fresh.pop()
        group: str | None
        if worker.open:
            group = next(reversed(worker.open))
        elif self.fresh:
            group = self.fresh.pop()
        elif (group := self._most_left()) is None or not self._repays(group, crew):
            return None
        worker.groups.add(group)
        worker.open[group] = None
        return self._pop(group)

    def ahead(self, worker: Slot) -> Task | None:
        """A short task for a worker that is busy with another of its group."""
        group = worker.tasks[0].group
        seconds, count = self.later[group]
        if not (count and seconds / count < AHEAD and self.waiting[group]):
            return None
        task = self.waiting[group][-1]
        fits = task.threads == worker.threads and len(pickle.dumps(task)) < AHEAD_BYTES
        return self._pop(group) if fits else None

    def note(self, worker: Slot, task: Task) -> None:
        """That a worker is done with its task, and how long it took."""
        seconds = worker.done()
        if task.group in worker.compiled:
            self.later[task.group][0] += seconds
            self.later[task.group][1] += 1
        else:
            worker.compiled.add(task.group)
            self.first[task.group] = seconds

    def _pop(self, group: str) -> Task:
        task = self.waiting[group].pop()
        self.left[group] -= task.cost
        return task

    def _most_left(self) -> str | None:
        while self.most:
            said, group = self.most[0]
            if not self.waiting[group]:
                heapq.heappop(self.most)
            elif -said > self.left[group]:
                heapq.heapreplace(self.most, (-self.left[group], group))
            else:
                return group
        return None

    def _repays(self, group: str, crew: Sequence[Slot]) -> bool:
        """Whether one more worker would have its first task of the group done before the others have done them all."""
        others = sum(group in worker.open for worker in crew)  # not all who know it: one that is dry will not come
        seconds, count = self.later[group]
        if not others or not count:
            return True
        return self.first.get(group, 0.0) < len(self.waiting[group]) * seconds / count / others
