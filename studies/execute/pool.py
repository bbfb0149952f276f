"""Run tasks in a pool of other processes, and stream back what they yield, as `(task, record)`."""

import fcntl
import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait

from studies.execute.machine import default_workers
from studies.execute.queue import Queue
from studies.execute.task import LESS_MEMORY, Begun, Done, Task
from studies.execute.worker import SERVER, environment
from studies.record import Checkpoint, Result, Started, StudyError

ATTEMPTS = 2

PIPE_BYTES = 2**20
"""What a worker may yield while the driver is busy with something else."""


AWAY = 1.0
"""Seconds; while the driver is at something else for longer, workers may wait for it, and no time runs out for them."""


EXPECTED: list["_Server"] = []
"""The server of a pool to come, which has begun to import."""


def expect(function: str) -> None:
    """Begin what takes longest of the pool that this process will probably have, before it has read what is wanted."""
    EXPECTED.append(_Server(function, threads=1))


def expect_no_more() -> None:
    """End what no pool has taken over."""
    while EXPECTED:
        EXPECTED.pop().close()


class Pool:
    """Worker processes that live until `close`, forked from one that has imported what they need.

    A worker that dies costs its task a retry, without what XLA kept of earlier commands; a task that kills its worker
    twice, without a checkpoint between, gets a `Result` with the status `crashed`. Each worker takes its next task from
    the group it has compiled graphs for, and otherwise from the group with most left to do, so that a graph is compiled
    on as few workers as possible.

    Args:
        workers: how many processes at most; None: what cores, memory and GPUs allow.
        timeout: seconds after which a worker is killed that is at one task still, whatever that is at; None: never.

    Raises:
        StudyError: `workers` is less than 1, or `timeout` is not above 0.
    """

    def __init__(self, workers: int | None = None, timeout: float | None = None):
        if workers is not None and workers < 1:
            raise StudyError(
                f"executor.workers={workers}: expected 1 or more, or null for as many as the machine allows"
            )
        if timeout is not None and not timeout > 0:
            raise StudyError(f"executor.timeout={timeout}: expected seconds above 0, or null for no end to a trial")
        self.limit, self.timeout = workers, timeout
        self.crew: list[_Worker] = []
        self.servers: dict[int, _Server] = {}
        self.started = 0
        self.drained = False
        self.waited = time.monotonic()

    @property
    def workers(self) -> int:
        """How many processes there would be for single-threaded tasks."""
        return self.limit or default_workers(threads=1)

    def start(self, function: str, count: int, threads: int = 1) -> None:
        """Start workers now, so that they import what `function` needs while the driver does other things."""
        for _ in range(min(count, self.limit or default_workers(threads)) - len(self.crew)):
            self.crew.append(self._hire(function, threads))

    def run(self, function: str, tasks: list[Task]) -> Iterator[tuple[Task, object]]:
        """Run the tasks; yields `(task, record)` as they come, a `Started` first at each attempt.

        After `drain`, a task whose worker dies is not tried again, and has no `Result`.

        Raises:
            RuntimeError: every worker is idle and tasks wait still, which is a fault of this module.
        """
        if not tasks or self.drained:
            return
        if not self.crew:
            self.start(function, len(tasks), tasks[0].threads)
        queue, starts, deaths, ended = Queue(tasks, self.crew), Counter[str](), Counter[str](), set[str]()

        def started(task):
            starts[task.key] += 1
            return task, Started(task.key, starts[task.key])

        while True:
            for place, worker in enumerate(self.crew if not self.drained else ()):
                if not worker.tasks and (task := queue.take(worker, self.crew)):
                    if worker.threads != task.threads:
                        worker.stop()
                        worker = self.crew[place] = self._hire(function, task.threads)
                    yield started(task)
                    worker.give(function, task)
                if len(worker.tasks) == 1 and (task := queue.ahead(worker)):
                    worker.give(function, task)
            busy = [worker for worker in self.crew if worker.tasks]
            if not busy:
                if (lost := queue.count()) and not self.drained:
                    raise RuntimeError(f"{lost} tasks were never given to a worker")
                return
            for worker, task, record in self._heard(busy):
                if isinstance(record, _Death):
                    self.crew[self.crew.index(worker)] = self._hire(function, worker.threads, keeps=False)
                    for unstarted in list(worker.tasks)[1:]:
                        queue.put(unstarted, self.crew)
                    deaths[task.key] += 1
                    if task.key in ended:  # it died between that and its next task
                        continue
                    if deaths[task.key] < ATTEMPTS:
                        queue.put(task, self.crew)
                    else:
                        error = f"its worker died {ATTEMPTS} times, the last time {record.how}"
                        yield task, Result(task.key, "crashed", error=error)
                elif isinstance(record, Checkpoint):
                    del deaths[task.key]  # it gets on, however often its workers die
                    yield task, record
                elif isinstance(record, Done):
                    queue.note(worker, task)
                    if worker.tasks:
                        yield started(worker.tasks[0])
                else:
                    if isinstance(record, Result):
                        ended.add(task.key)
                    yield task, record

    def _heard(self, busy: "list[_Worker]") -> "Iterator[tuple[_Worker, Task, object]]":
        """Wait for records: a worker, the task it is at, and the record or its death; of each worker one."""
        now = time.monotonic()
        away = max(now - self.waited - AWAY, 0.0)
        for worker in busy:
            worker.began += away
        limit = self.timeout or math.inf
        left = min(worker.began + limit - now for worker in busy)
        ready = wait([worker.records for worker in busy], None if left == math.inf else max(left, 0.0))
        self.waited = time.monotonic()
        for worker in busy:
            task = worker.tasks[0]
            if worker.records in ready:
                record = worker.receive()
                if isinstance(record, Begun):
                    worker.began = time.monotonic()
                else:
                    yield worker, task, _Death(worker.stop()) if record is None else record
            elif self.waited > worker.began + limit:
                worker.stop(patience=0)
                yield worker, task, _Death(f"killed after executor.timeout={limit:g} s; raise it if trials need longer")

    def drain(self) -> None:
        """Give no worker anything more; what it has, perhaps a short task beyond the one it is at, it still does."""
        self.drained = True

    def close(self) -> None:
        """Stop every worker, whatever it does."""
        for server in self.servers.values():
            server.close()
        for worker in self.crew:
            worker.close()
        self.crew, self.servers = [], {}

    def _hire(self, function: str, threads: int, keeps: bool = True) -> "_Worker":
        self.started += 1
        server = self.servers.get(threads)
        if server is None or not server.lives():
            server = self.servers[threads] = _expected(function, threads) or _Server(function, threads)
        return _Worker(server, threads, self.started, keeps)


def _expected(function: str, threads: int) -> "_Server | None":
    """The expected server, if it was started as one would be now."""
    made = (function, threads, _variables(threads, number=0))
    for server in EXPECTED:
        if server.made == made and server.lives():
            EXPECTED.remove(server)
            return server
    return None


@dataclass(frozen=True)
class _Death:
    """That a worker has died, and how."""

    how: str


class _Server:
    """The process that starts workers of so many threads; it has imported what `function` needs.

    Attributes:
        made: what it was made of: function, threads, environment.
    """

    def __init__(self, function: str, threads: int):
        self.made = function, threads, _variables(threads, number=0)
        self.end, far_end = socket.socketpair()
        self.stderr = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, json.dumps(sys.path), str(far_end.fileno()), function, str(threads)],
            pass_fds=[far_end.fileno()],
            stdin=subprocess.DEVNULL,
            stderr=self.stderr,
            env=self.made[-1],
            start_new_session=True,  # Ctrl-C is the driver's to handle
        )
        far_end.close()
        self.requests = Connection(os.dup(self.end.fileno()))

    def lives(self) -> bool:
        """Whether it can start workers."""
        return self.process.poll() is None

    def fork(self, number: int, variables: dict[str, str], descriptors: list[int], keeps: bool) -> None:
        """Have it start a worker, as soon as it has imported what that needs."""
        with suppress(OSError):  # it is dead: receiving from the worker will say so
            self.requests.send(("start", number, variables, keeps))
            socket.send_fds(self.end, [b"."], descriptors)

    def ended(self, number: int, patience: float) -> tuple[int, str]:
        """The exit code of a worker, which is killed if it goes on; if this process is dead, its own and last words."""
        try:
            self.requests.send(("end", number, patience))
            return self.requests.recv(), ""
        except (EOFError, OSError):
            with suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)
            return self.process.wait(), _last_words(self.stderr)

    def close(self) -> None:
        """Kill it and all its workers: they are one process group."""
        if self.process.returncode is None:
            with suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        for each in (self.requests, self.end, self.stderr):
            each.close()


class _Worker:
    """A process of its own, at the far end of two pipes; when it dies, the pipes end.

    Attributes:
        tasks: the one it works at, and perhaps the next.
        groups: those it has taken a task of.
        compiled: those it has done one of.
        open: groups it knows that may have tasks, the next one last; a dictionary without values.
        since: when its task was given to it or the one before it was done, by the monotonic clock.
        began: when it began that, later by what does not count, see `AWAY`; infinite while it starts itself.
    """

    def __init__(self, server: _Server, threads: int, number: int, keeps: bool):
        self.server, self.threads, self.number = server, threads, number
        self.tasks: deque[Task] = deque()
        self.groups, self.compiled, self.open, self.since, self.began = set(), set(), {}, 0.0, math.inf
        self.stderr = tempfile.TemporaryFile()
        its_tasks, self.connection = Pipe(duplex=False)
        self.records, its_records = Pipe(duplex=False)
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            with suppress(OSError):  # no more for this user
                fcntl.fcntl(its_records.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        far_ends = (its_tasks, its_records)
        descriptors = [*(end.fileno() for end in far_ends), self.stderr.fileno()]
        server.fork(number, _variables(threads, number), descriptors, keeps)
        for end in far_ends:
            end.close()

    def give(self, function: str, task: Task) -> None:
        if not self.tasks:
            self.since = time.monotonic()
        self.tasks.append(task)
        with suppress(OSError):  # it is dead already: receiving will say so
            self.connection.send((function, task))

    def done(self) -> float:
        """Seconds that the task took which it has just done."""
        self.tasks.popleft()
        before, self.since, self.began = self.since, time.monotonic(), math.inf
        return self.since - before

    def receive(self) -> object | None:
        """Its next record, or None if it is dead."""
        try:
            return self.records.recv()
        except (EOFError, OSError):
            return None

    def stop(self, patience: float | None = None) -> str:
        """Kill the process and say how it ended, with the last it had to say.

        Args:
            patience: seconds that it has to end by itself; None: one, if it is at a task, since it then is dying.
        """
        self.connection.close()
        self.records.close()
        patience = float(bool(self.tasks)) if patience is None else patience
        code, of_server = self.server.ended(self.number, patience)
        words = [*of_server.splitlines(), *_last_words(self.stderr).splitlines()]
        self.stderr.close()
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        if code == -signal.SIGKILL:
            how += f", as systems end what takes too much memory: {LESS_MEMORY}"
        elif any("bad_alloc" in word for word in words):
            how += f", since memory ran out: {LESS_MEMORY}"
        return "\n".join([how, *words])

    def close(self) -> None:
        """Wait until it is gone, when its server has been killed."""
        self.connection.close()
        while wait([self.records], timeout=1) and self.receive() is not None:
            pass
        self.records.close()
        self.stderr.close()


def _variables(threads: int, number: int) -> dict[str, str]:
    return os.environ | environment(threads, number) | {"PYTHONWARNINGS": ""}  # none of a library's is an error


def _last_words(stderr) -> str:
    stderr.seek(0)
    return "\n".join(stderr.read().decode(errors="replace").strip().splitlines()[-5:])
