"""Run tasks on a Ray cluster, one that there is or one of this machine alone, and stream back what they yield.

A worker is an actor: a process on a node, which keeps what it has compiled from one task to the next. It gives a task's
records as a stream, several at a time. What holds work back is that a worker has one task at most besides the one it is
at, and is at most `UNREAD` messages ahead of the driver.
"""

import math
import os
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from studies import terminal
from studies.execute.actor import CHOSEN, Actor, Model, versions
from studies.execute.cluster import LOOK, Connection, reason
from studies.execute.machine import WORKER_MEMORY_MB, cores, default_workers
from studies.execute.pool import ATTEMPTS, AWAY
from studies.execute.queue import Queue
from studies.execute.task import Done, Task, resolve
from studies.execute.worker import environment
from studies.record import Checkpoint, Result, Started, StudyError, listed

MOVES = 5
"""Nodes that may die under a task before it is taken for what kills them."""

UNREAD = 16
"""So many messages a task may be ahead of the driver."""


KEPT = ("TF_CPP_MIN_LOG_LEVEL", "TF_CPU_ALLOCATOR_USE_BFC", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
"""Variables of a worker that are as the user has set them, if so."""


class Ray:
    """Workers on the nodes of a Ray cluster, until `close`.

    A worker that dies costs its task a retry, as in a pool; a node that dies costs it one that does not count, up to
    `MOVES`. Nodes that join get workers.

    Args:
        address: of the cluster: `HOST:PORT` or `auto` from one of its machines, `ray://HOST:PORT` from any other; None
            starts Ray on this machine, for this command.
        workers: how many at most; None: what the nodes' resources allow.
        cpus: of a worker, as the nodes count them; None: one for each of its threads.
        gpus: of a worker; a part of one, such as 0.5, is shared.
        memory: of a worker, in MB; None: not asked for, and 1,300 where workers are counted.
        timeout: seconds after which a worker is killed that is at one task still; None: never.

    Raises:
        StudyError: a setting is out of its range.
    """

    def __init__(
        self,
        address: str | None = None,
        workers: int | None = None,
        cpus: float | None = None,
        gpus: float = 0,
        memory: int | None = None,
        timeout: float | None = None,
    ):
        for name, value in (("workers", workers), ("cpus", cpus), ("memory", memory), ("timeout", timeout)):
            if value is not None and not value > 0:
                raise StudyError(f"executor.{name}={value}: expected more than 0, or null")
        self.address, self.limit, self.cpus, self.gpus = address, workers, cpus, gpus
        self.memory, self.timeout = memory, timeout
        self.connection: Connection | None = None
        self.code: list[str] = []
        self.crew: list[_Worker] = []
        self.coming: list[_Worker] = []
        self.lent: dict[str, Any] = {}
        self.refused: dict[str, str] = {}
        self.doubted, self.failures = set[str](), Counter[str]()
        self.drained, self.waited = False, 0.0

    @property
    def workers(self) -> int:
        """How many there would be for single-threaded tasks."""
        if self.address is None:
            return self.limit or default_workers(threads=1)
        seats = sum(self._seats(1).values())
        return max(1, min(self.limit or seats, seats))

    def bring(self, code: list[str]) -> None:
        """Have modules and packages of the user's own, files and folders, come to the nodes too."""
        if more := [place for place in code if place not in self.code]:
            self.code += more
            if self.connection and self.address is not None:
                self.close()

    def start(self, function: str, count: int, threads: int = 1) -> None:
        """Start workers, which import what `function` needs; but only `run` connects, which may take long."""
        if self.connection:
            self._begin(function, count, threads)

    def _begin(self, function: str, count: int, threads: int) -> None:
        """Connect, and start workers.

        Raises:
            StudyError: there is no such cluster, or none of its nodes has what a worker is to have.
        """
        if not self.crew and not any(self._seats(threads).values()):
            has = self._connected().described()
            raise StudyError(f"{self._asked(threads)}: no node has so much; the cluster has {has}")
        self._staff(function, threads, count)

    def run(self, function: str, tasks: list[Task]) -> Iterator[tuple[Task, object]]:
        """Run the tasks; yields `(task, record)` as they come, a `Started` first at each attempt.

        After `drain`, a task whose worker dies is not tried again, and has no `Result`.

        Raises:
            StudyError: a node has other versions than the driver, or the cluster's head is gone.
            RuntimeError: every worker is idle and tasks wait still, which is a fault of this module.
        """
        if not tasks or self.drained:
            return
        threads = tasks[0].threads
        self._begin(function, len(tasks), threads)
        queue, starts, deaths, ended = Queue(tasks, self.crew), Counter[str](), defaultdict(Counter), set[str]()

        def started(worker: _Worker):
            task = worker.tasks[0]
            starts[task.key] += 1
            return task, Started(task.key, starts[task.key], worker.circumstances)

        while True:
            busy = [worker for worker in self.crew if worker.tasks]
            if not self.drained:
                self._staff(function, threads, len(busy) + queue.count())
                for worker in self._given(function, queue):
                    yield started(worker)
            busy = [worker for worker in self.crew if worker.tasks]
            if not busy and (self.drained or not queue.count()):
                return
            if not busy and self.crew and not self.coming:
                raise RuntimeError(f"{queue.count()} tasks were never given to a worker")
            for worker, records in self._heard(busy):
                if isinstance(records, str):
                    yield from self._lost(worker, records, queue, deaths, ended)
                    continue
                for record in records:
                    task = worker.tasks[0]
                    if isinstance(record, Done):
                        worker.streams.popleft()
                        queue.note(worker, task)
                        if worker.tasks:
                            yield started(worker)
                    elif isinstance(record, Model):
                        record.write(task.payload.model)
                    elif isinstance(record, Checkpoint):
                        deaths.pop(task.key, None)  # it gets on, however often its workers die
                        yield task, record
                    else:
                        if isinstance(record, Result):
                            ended.add(task.key)
                        yield task, record

    def drain(self) -> None:
        """Give no worker anything more; what it has, perhaps a short task beyond the one it is at, it still does."""
        self.drained = True

    def close(self) -> None:
        """Stop every worker, whatever it does, and a Ray of this command's own."""
        if self.connection:
            if self.connection.lives:  # else Ray would connect again, to kill them
                for worker in (*self.crew, *self.coming):
                    worker.kill()
            self.connection.close()
        self.connection, self.crew, self.coming, self.lent = None, [], [], {}

    def _connected(self) -> Connection:
        """The connection, made where there is none, or another executor has one since."""
        if self.connection is None or not self.connection.lives:
            self.close()
            cpus = max(cores(), math.ceil((self.limit or 0) * (self.cpus or 1)))
            self.connection = Connection(self.address, self.code, cpus)
        return self.connection

    def _needs(self, threads: int) -> dict[str, float]:
        """What a worker takes of a node, as Ray names it."""
        return {"CPU": self.cpus or threads, "GPU": self.gpus, "memory": (self.memory or 0) * 2**20}

    def _asked(self, threads: int) -> str:
        asked = {"cpus": self.cpus or threads, "gpus": self.gpus, "memory": self.memory}
        return " ".join(f"executor.{name}={value:g}" for name, value in asked.items() if value)

    def _seats(self, threads: int) -> dict[str, int]:
        """How many workers each node may have."""
        seats = {}
        for name, node in self._connected().look().items():
            has = node["Resources"]
            rooms = [has.get(kind, 0) / needed for kind, needed in self._needs(threads).items() if needed]
            if self.memory is None and self.address is not None:
                rooms.append(max(1, has.get("memory", 0) / 2**20 // WORKER_MEMORY_MB))
            seats[name] = 0 if name in self.refused else int(min(rooms))
        return seats

    def _staff(self, function: str, threads: int, count: int) -> None:
        """Start workers where there is room, as far as there are tasks for them."""
        seats = self._seats(threads)
        taken = Counter(worker.node for worker in (*self.crew, *self.coming))
        own = default_workers(threads) if self.address is None else math.inf
        for _ in range(int(min(count, self.limit or own, sum(seats.values()))) - taken.total()):
            free = {node: taken[node] / seat for node, seat in seats.items() if taken[node] < seat}
            if not free:
                return
            node = min(free, key=lambda name: free[name])
            taken[node] += 1
            self.coming.append(self._hire(function, threads, node))

    def _hire(self, function: str, threads: int, node: str) -> "_Worker":
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        wanted = environment(threads, number=0)
        chosen = {name: os.environ[name] for name in (*resolve(CHOSEN), *KEPT) if name in os.environ}
        variables = chosen | wanted | {"PYTHONWARNINGS": ""}
        variables.pop("CUDA_VISIBLE_DEVICES", None)  # which is Ray's to say
        if not self.gpus:
            variables["CUDA_VISIBLE_DEVICES"] = "-1"
        needs, keeps = self._needs(threads), node not in self.doubted
        self.doubted.discard(node)
        connection = self._connected()
        kind = connection.ray.remote(Actor).options(
            num_cpus=needs["CPU"],
            num_gpus=needs["GPU"],
            memory=needs["memory"] or None,
            runtime_env={"env_vars": variables},
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            max_restarts=0,
        )
        actor = kind.remote(os.getcwd(), variables, threads, function, keeps)
        return _Worker(connection, actor, node, threads)

    def _given(self, function: str, queue: Queue) -> "Iterator[_Worker]":
        """Give out tasks; yields each worker that begins one."""
        for place, worker in enumerate(self.crew):
            if not worker.tasks and (task := queue.take(worker, self.crew)):
                if worker.threads != task.threads:
                    worker.kill()
                    said, worker = worker.circumstances, self._hire(function, task.threads, worker.node)
                    self.crew[place], worker.circumstances, worker.began = worker, said, math.inf
                self._give(worker, function, task)
                yield worker
            if len(worker.tasks) == 1 and worker.piped and (task := queue.ahead(worker)):
                self._give(worker, function, task)

    def _give(self, worker: "_Worker", function: str, task: Task) -> None:
        """Give a worker a task, and before it what it reads, which goes to each node once."""
        if (reading := task.reads) and reading.key not in worker.taken:
            if reading.key not in self.lent:
                self.lent[reading.key] = worker.ray.put(resolve(reading.give)(reading.of))
            worker.taken.add(reading.key)
            worker.actor.take.remote(reading.take, reading.of, self.lent[reading.key])
        worker.give(function, task)

    def _heard(self, busy: "list[_Worker]") -> "Iterator[tuple[_Worker, list | str]]":
        """Wait for records, new workers or the next look at the nodes: yields workers, and records or how it died."""
        now = time.monotonic()
        for worker in busy:
            worker.began += max(now - self.waited - AWAY, 0.0) if self.waited else 0.0
        limit = self.timeout or math.inf
        left = min([LOOK, *(worker.began + limit - now for worker in busy)])
        waiting = {w.streams[0]: w for w in busy} | {w.introduction: w for w in (*self.coming, *busy) if w.introduction}
        ready, wait = [], self._connected().ray.wait
        if waiting:
            ready, rest = wait(list(waiting), num_returns=1, timeout=max(left, 0.0))
            if ready and rest:
                ready += wait(rest, num_returns=len(rest), timeout=0)[0]
        else:  # no node has room, until one joins
            time.sleep(LOOK)
        self.waited = time.monotonic()
        for each in ready:
            worker = waiting[each]
            if each is worker.introduction or each == worker.introduction:
                self._meet(worker)
            elif worker in self.crew:
                yield worker, worker.receive()
        for worker in busy:
            if worker in self.crew and worker.tasks and self.waited > worker.began + limit:
                yield worker, f"killed after executor.timeout={limit:g} s; raise it if trials need longer"

    def _meet(self, worker: "_Worker") -> None:
        """Take a worker on that has said where it is, unless its versions are others than the driver's."""
        if worker in self.coming:
            self.coming.remove(worker)
        introduction, worker.introduction, worker.began = worker.introduction, None, time.monotonic()
        try:
            said = worker.ray.get(introduction)
        except worker.ray.exceptions.RayError as error:
            self.failures[worker.node] += 1
            if worker.node in self._connected().look(again=True) and self.failures[worker.node] >= ATTEMPTS:
                self._refuse(worker, f"starts no worker: {reason(error)}")
            return
        ours = versions()
        others = [f"{name} {said['versions'][name] or 'missing'}, not {v}" for name, v in ours.items()]
        others = [line for line, (name, v) in zip(others, ours.items(), strict=True) if said["versions"][name] != v]
        if others:
            worker.kill()
            self._refuse(worker, f"has {listed(others)} as here")
            return
        del self.failures[worker.node]
        worker.circumstances = said["circumstances"]
        if worker not in self.crew:
            self.crew.append(worker)

    def _refuse(self, worker: "_Worker", why: str) -> None:
        """Have no workers on a node.

        Raises:
            StudyError: it was there from the beginning; one that came later is only told of.
        """
        connection = self._connected()
        place = connection.nodes.get(worker.node, {}).get("NodeManagerAddress", worker.node)
        said = f"the node {place} {why}. Every node needs the environment of requirements.lock"
        self.refused[worker.node] = said
        if worker.node in connection.first:
            raise StudyError(said)
        terminal.say(f"warning: {said}; it is left out")

    def _lost(self, worker: "_Worker", how: str, queue: Queue, deaths, ended) -> Iterator[tuple[Task, object]]:
        """A worker has died: its task waits again, or has a result if it has been the death of too many.

        Args:
            deaths: of each task's workers, and of their nodes.
            ended: keys of tasks that have their result.
        """
        self.crew.remove(worker)
        worker.kill()
        of = "worker" if worker.node in self._connected().look(again=True) else "node"
        if of == "worker":
            self.doubted.add(worker.node)
        task, *unstarted = worker.tasks
        for each in unstarted:
            queue.put(each, self.crew)
        if task.key in ended:
            return
        deaths[task.key][of] += 1
        count = deaths[task.key][of]
        if count < {"worker": ATTEMPTS, "node": MOVES}[of]:
            queue.put(task, self.crew)
        else:
            yield task, Result(task.key, "crashed", error=f"its {of} died {count} times, the last time {how}")


class _Worker:
    """An actor, as the driver sees it.

    Attributes:
        node: the id of the node that it is on.
        introduction: what it will say of itself; None when it has.
        circumstances: what may change numbers there, as a trial's tags.
        streams: of its tasks, what gives their records.
        taken: keys of what it has to read.
        began: when the task began that it is at.
        tasks, groups, compiled, open: see `queue.Slot`.
    """

    def __init__(self, connection: Connection, actor: Any, node: str, threads: int):
        self.ray, self.piped, self.actor, self.node = connection.ray, connection.streams, actor, node
        self.threads = threads
        self.tasks: deque[Task] = deque()
        self.streams: deque[Any] = deque()
        self.groups, self.compiled, self.open = set[str](), set[str](), dict[str, None]()
        self.taken, self.circumstances = set[str](), dict[str, str]()
        self.since = self.began = math.inf
        self.introduction = actor.introduce.remote()

    def give(self, function: str, task: Task) -> None:
        """Have it do a task, after the one it is at."""
        if not self.tasks:
            self.since = time.monotonic()
            self.began = math.inf if self.introduction else self.since
        self.tasks.append(task)
        if self.piped:
            stream = self.actor.stream.options(num_returns="streaming", _generator_backpressure_num_objects=UNREAD)
            self.streams.append(stream.remote(function, task))
        else:
            self.streams.append(self.actor.more.remote(function, task))

    def done(self) -> float:
        """Seconds that the task took which it has just done."""
        self.tasks.popleft()
        before, self.since = self.since, time.monotonic()
        self.began = self.since
        return self.since - before

    def receive(self) -> list | str:
        """The next records of the task it is at, or how it died."""
        try:
            if self.piped:
                return self.ray.get(next(self.streams[0]))
            records = self.ray.get(self.streams[0])
        except StopIteration:
            return "its records ended before it did"
        except self.ray.exceptions.RayError as error:
            return reason(error)
        if not isinstance(records[-1], Done):
            self.streams[0] = self.actor.more.remote()
        return records

    def kill(self) -> None:
        """End its process."""
        with suppress(Exception):  # it is dead, or its node is
            self.ray.kill(self.actor)
