"""Run tasks in this process or in a pool of spawned ones, and stream back what they yield.

A task is an object with a `key`, a `group` and a `threads`; the function that runs it is named by a string,
`package.module:function`, and resolved where it runs, so the driver never imports what a task needs. It is a generator:
what it yields comes back as `(task, record)`.
"""

import importlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from studies.record import Result, Started, StudyError

ATTEMPTS = 2
WORKER_MEMORY_MB = 1300
WORKERS_PER_GPU = 2


@dataclass(frozen=True)
class Task:
    """What a worker gets.

    Attributes:
        group: tasks of one group run on one worker where that is no slower, since they share its compiled graphs.
        threads: of the worker's TensorFlow.
        cost: roughly how long it takes, in any unit; the most costly groups start first.
    """

    key: str
    group: str
    threads: int
    payload: object
    cost: float = 1.0


@dataclass(frozen=True)
class Done:
    """A task's last record: it will yield no more."""


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
            for record in _attempt(function, task):
                yield task, record

    def close(self) -> None:
        """Nothing to stop."""


class Pool:
    """Spawned worker processes that live until `close`.

    A worker that dies costs its task a retry; a task that kills its worker twice gets a `Result` with the status
    `crashed`. Each worker takes its next task from the group it has compiled graphs for, and otherwise from the group
    with most left to do, so that a graph is compiled on as few workers as possible.

    Args:
        workers: how many processes at most; None: what cores, memory and GPUs allow.

    Raises:
        StudyError: `workers` is less than 1.
    """

    def __init__(self, workers: int | None = None):
        if workers is not None and workers < 1:
            raise StudyError(
                f"executor.workers={workers}: expected 1 or more, or null for as many as the machine allows"
            )
        self.limit = workers
        self.crew: list[_Worker] = []
        self.started = 0

    @property
    def workers(self) -> int:
        """How many processes there would be for single-threaded tasks."""
        return self.limit or default_workers(threads=1)

    def start(self, function: str, count: int, threads: int = 1) -> None:
        """Start workers now, so that they import what `function` needs while the driver does other things."""
        for _ in range(min(count, self.limit or default_workers(threads)) - len(self.crew)):
            worker = self._hire(threads)
            worker.connection.send(function)
            self.crew.append(worker)

    def run(self, function: str, tasks: list[Task]) -> Iterator[tuple[Task, object]]:
        """Run the tasks; yields `(task, record)` as they come, a `Started` first at each attempt."""
        waiting: dict[str, list[Task]] = defaultdict(list)
        for task in reversed(tasks):
            waiting[task.group].append(task)
        attempts: dict[str, int] = defaultdict(int)
        if not tasks:
            return
        if not self.crew:
            self.start(function, len(tasks), tasks[0].threads)
        while True:
            for place, worker in enumerate(self.crew):
                if worker.task is None and (task := _next_task(waiting, worker, self.crew)):
                    if worker.threads != task.threads:
                        worker.stop()
                        worker = self.crew[place] = self._hire(task.threads)
                    attempts[task.key] += 1
                    yield task, Started(task.key, attempts[task.key])
                    worker.give(function, task)
            busy = [worker for worker in self.crew if worker.task]
            if not busy:
                return
            ready = wait([worker.connection for worker in busy])
            for worker in busy:
                if worker.connection not in ready:
                    continue
                task, record = worker.task, worker.receive()
                if record is None:
                    ending = worker.stop()
                    self.crew[self.crew.index(worker)] = self._hire(worker.threads)
                    if attempts[task.key] < ATTEMPTS:
                        waiting[task.group].append(task)
                    else:
                        yield task, _crashed(task, f"its worker died {ATTEMPTS} times, the last time {ending}")
                elif isinstance(record, Done):
                    worker.task = None
                else:
                    yield task, record

    def close(self) -> None:
        """Stop every worker, whatever it does."""
        for worker in self.crew:
            worker.process.kill()
            worker.stop()
        self.crew = []

    def _hire(self, threads: int) -> "_Worker":
        self.started += 1
        return _Worker(threads, number=self.started)


class _Worker:
    """A process of its own, at the far end of a pipe; when it dies, the pipe ends."""

    def __init__(self, threads: int, number: int):
        self.connection, far_end = multiprocessing.Pipe()
        self.threads, self.task, self.groups = threads, None, set()
        self.stderr = tempfile.TemporaryFile()
        arguments = [json.dumps(sys.path), str(far_end.fileno())]
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, *arguments],
            pass_fds=[far_end.fileno()],
            stdin=subprocess.DEVNULL,
            stderr=self.stderr,
            env=os.environ | environment(threads, number) | {"PYTHONWARNINGS": ""},  # none of a library's is an error
            start_new_session=True,  # Ctrl-C is the driver's to handle
        )
        far_end.close()

    def give(self, function: str, task: Task) -> None:
        self.task = task
        self.groups.add(task.group)
        try:
            self.connection.send((function, task))
        except OSError:
            pass  # it is dead already: receiving will say so

    def receive(self) -> object | None:
        """Its next record, or None if it is dead."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            return None

    def stop(self) -> str:
        """Kill the process and say how it ended, with the last it had to say."""
        self.connection.close()
        try:
            code = self.process.wait(timeout=1 if self.task else 0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.stderr.seek(0)
        last_words = self.stderr.read().decode(errors="replace").strip().splitlines()[-5:]
        self.stderr.close()
        return "\n".join([f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}", *last_words])


WORKER = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from studies.executors import work
work(int(sys.argv[2]))
"""


def work(file_descriptor: int) -> None:
    """A worker's life: do what comes through the pipe until the driver is gone."""
    connection = Connection(file_descriptor)
    try:
        while True:
            match connection.recv():
                case str(function):
                    with suppress(ImportError, AttributeError):  # the first task will say so
                        resolve(function)
                case function, task:
                    for record in _attempt(function, task):
                        connection.send(record)
                    connection.send(Done())
    except (EOFError, OSError):
        pass


def environment(threads: int, number: int) -> dict[str, str]:
    """What TensorFlow reads when a worker imports it; values that the user set stay, but for threads and backend."""
    wanted = {
        "TF_NUM_INTRAOP_THREADS": str(threads),
        "TF_NUM_INTEROP_THREADS": "1",
        "OMP_NUM_THREADS": str(threads),
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_CPU_ALLOCATOR_USE_BFC": "1",  # keeps freed memory: convolutions take 10-15 % less time
        "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
        "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),  # the same for NumPy: diagnostics take a quarter less
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    }
    if _gpus():
        wanted["CUDA_VISIBLE_DEVICES"] = str(number % _gpus())
    fixed = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "KERAS_BACKEND")
    return {name: value for name, value in wanted.items() if name in fixed or name not in os.environ}


def _attempt(function: str, task: Task) -> Iterator[object]:
    try:
        yield from resolve(function)(task.payload)
    except Exception as error:
        summary = " ".join(str(error).split())[:300]
        yield _crashed(task, f"{type(error).__name__}: {summary}\n{traceback.format_exc()}")


def _crashed(task: Task, error: str) -> Result:
    return Result(task.key, "crashed", error=error)


def _next_task(waiting: dict[str, list[Task]], worker: _Worker, crew: list[_Worker]) -> Task | None:
    """From a group the worker knows, else one that nobody knows, else any: the one with most left to do."""
    left = {group: sum(task.cost for task in tasks) for group, tasks in waiting.items() if tasks}
    if not left:
        return None
    taken = {group for other in crew for group in other.groups}
    choices = left.keys() & worker.groups or left.keys() - taken or left.keys()
    return waiting[max(choices, key=lambda group: (left[group], group))].pop()


def resolve(function: str) -> Callable:
    """The function that `package.module:function` names."""
    module, _, name = function.partition(":")
    return getattr(importlib.import_module(module), name)


def default_workers(threads: int) -> int:
    """One worker for every `threads` cores this process may use, as far as memory and GPUs allow."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [cores // threads]
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        limits.append(int(fields["MemAvailable"].split()[0]) // 1024 // WORKER_MEMORY_MB)
    if _gpus():
        limits.append(_gpus() * WORKERS_PER_GPU)
    return max(1, min(limits))


def _gpus() -> int:
    return len(list(Path("/dev").glob("nvidia[0-9]*")))
