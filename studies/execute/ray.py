"""Run tasks on a Ray cluster, one that there is or one of this machine alone, and stream back what they yield.

A worker is an actor: a process on a node, which keeps what it has compiled from one task to the next. It gives a task's
records as a stream, several at a time. What holds work back is that a worker has one task at most besides the one it is
at, and is at most `UNREAD` messages ahead of the driver.
"""

import logging
import math
import os
import platform
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from studies import terminal
from studies.execute import compiled
from studies.execute.machine import WORKER_MEMORY_MB, cores, default_workers
from studies.execute.pool import ATTEMPTS, AWAY
from studies.execute.queue import Queue
from studies.execute.task import Done, Task, attempt, resolve
from studies.execute.worker import environment
from studies.record import EpochRecord, Result, Started, StudyError, Trial, listed

MOVES = 5
"""Nodes that may die under a task before it is taken for what kills them."""

LOOK = 2.0
"""Seconds from one look at the cluster's nodes to the next."""

GONE = 30.0
"""Seconds without the cluster's head after which it is taken for dead; Ray ends the driver's process after 60."""

HELD = 0.2
"""Seconds for which epochs' records are held back, to come as one message: a message costs half a millisecond."""

UNREAD = 16
"""So many messages a task may be ahead of the driver."""

LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Without it Ray listens on the loopback interface alone, on Linux too."""

CIRCUMSTANCES = "studies.command.provenance:circumstances"

ARITHMETIC = ("TF_", "XLA_", "KERAS_", "ONEDNN_", "DNNL_", "NVIDIA_", "CUBLAS_", "OMP_", "MALLOC_")
"""Begins of variables that may change numbers or memory: a worker has the driver's, and none of its node's own."""


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

    connected: ClassVar["Ray | None"] = None
    """Who has this process's connection: Ray allows one."""

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
        self.ray: Any = None
        self.code: list[str] = []
        self.crew: list[_Worker] = []
        self.coming: list[_Worker] = []
        self.lent: dict[str, Any] = {}
        self.known: dict[str, dict] = {}
        self.refused: dict[str, str] = {}
        self.doubted, self.failures = set[str](), Counter[str]()
        self.drained = self.busy_once = False
        self.waited = self.looked = self.met = 0.0
        self.folder: str | None = None

    @property
    def workers(self) -> int:
        """How many there would be for single-threaded tasks."""
        if self.address is None:
            return self.limit or default_workers(threads=1)
        self._connect()
        return min(self.limit or math.inf, sum(self._seats(1).values())) or 1

    def bring(self, code: list[str]) -> None:
        """Have modules and packages of the user's own, files and folders, come to the nodes too."""
        if more := [place for place in code if place not in self.code]:
            self.code += more
            if self.ray and self.address is not None:
                self.close()

    def start(self, function: str, count: int, threads: int = 1) -> None:
        """Connect, and start workers, which import what `function` needs.

        Raises:
            StudyError: there is no such cluster, or none of its nodes has what a worker is to have.
        """
        self._connect()
        if not self.crew and not any(self._seats(threads).values()):
            raise StudyError(f"{self._asked(threads)}: no node has so much; the cluster has {self._has()}")
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
        self.start(function, len(tasks), threads)
        queue, starts, deaths = Queue(tasks, self.crew), Counter[str](), defaultdict(Counter)

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
                    yield from self._lost(worker, records, queue, deaths)
                    continue
                for record in records:
                    task = worker.tasks[0]
                    if isinstance(record, Done):
                        worker.streams.popleft()
                        queue.note(worker, task)
                        if worker.tasks:
                            yield started(worker)
                    elif isinstance(record, _Model):
                        record.write(task.payload.model)
                    else:
                        yield task, record

    def drain(self) -> None:
        """Give no worker anything more; what it has, perhaps a short task beyond the one it is at, it still does."""
        self.drained = True

    def close(self) -> None:
        """Stop every worker, whatever it does, and a Ray of this command's own."""
        if self.ray:
            for worker in (*self.crew, *self.coming):
                worker.kill()
            with suppress(Exception), terminal.unheard():  # a cluster that is gone
                self.ray.shutdown()
            Ray.connected = None
        self.ray, self.crew, self.coming, self.lent, self.known = None, [], [], {}, {}
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None

    def _connect(self) -> None:
        """Be connected, to a Ray that is started if it is to be this command's own."""
        if self.ray:
            return
        if Ray.connected:
            Ray.connected.close()
        ray = _imported(local=self.address is None)
        package = str(Path(__file__).parent.parent)
        options: dict[str, Any] = {"runtime_env": {"py_modules": [package, *self.code]}}
        if self.address is None:
            self.folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # a socket's path must be short
            count = max(cores(), math.ceil((self.limit or 0) * (self.cpus or 1)))
            options = {"num_cpus": count, "include_dashboard": False, "_temp_dir": self.folder}
            options["runtime_env"] = {"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}}
        else:
            _probe(self.address)
        before = {number: signal.getsignal(number) for number in terminal.ENDINGS}
        try:
            with terminal.unheard():
                ray.init(self.address or "local", log_to_driver=False, logging_level=logging.CRITICAL, **options)
        except Exception as error:
            raise StudyError(_unreached(self.address, error)) from error
        finally:
            for number, handler in before.items():  # Ray takes SIGTERM for itself
                signal.signal(number, handler)
        self.ray, Ray.connected, self.looked = ray, self, -math.inf
        self._look()
        self.first = set(self.known)

    @property
    def _piped(self) -> bool:
        """Whether records can come as a stream: not from outside of the cluster."""
        return not (self.address or "").startswith("ray://")

    def _look(self) -> dict[str, dict]:
        """The nodes that are alive, by their ids, as of a moment ago.

        Raises:
            StudyError: the cluster's head is gone.
        """
        now = time.monotonic()
        if now - self.looked < LOOK:
            return self.known
        self.looked = now
        head = (self.address or "").removeprefix("ray://")
        if self._piped:
            head = self.ray.get_runtime_context().gcs_address
        if _answers(head):
            self.met = now
            self.known = {node["NodeID"]: node for node in self.ray.nodes() if node["Alive"]}
        elif now - self.met > GONE:
            raise StudyError(
                f"the head of the Ray cluster at {head} is gone: what had ended is kept. Start the cluster again; the "
                f"same command then goes on from there"
            )
        return self.known

    def _needs(self, threads: int) -> dict[str, float]:
        """What a worker takes of a node, as Ray names it."""
        return {"CPU": self.cpus or threads, "GPU": self.gpus, "memory": (self.memory or 0) * 2**20}

    def _asked(self, threads: int) -> str:
        asked = {"cpus": self.cpus or threads, "gpus": self.gpus, "memory": self.memory}
        return " ".join(f"executor.{name}={value:g}" for name, value in asked.items() if value)

    def _has(self) -> str:
        nodes = [(node["NodeManagerAddress"], node["Resources"]) for node in self.known.values()]
        return listed(f"{ip} ({r.get('CPU', 0):g} CPUs, {r.get('GPU', 0):g} GPUs)" for ip, r in nodes) or "no nodes"

    def _seats(self, threads: int) -> dict[str, int]:
        """How many workers each node may have."""
        seats = {}
        for name, node in self._look().items():
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

        variables = {n: v for n, v in os.environ.items() if n.startswith(ARITHMETIC)} | environment(threads, number=0)
        variables |= {"PYTHONWARNINGS": ""}
        variables.pop("CUDA_VISIBLE_DEVICES", None)  # which is Ray's to say
        if not self.gpus:
            variables["CUDA_VISIBLE_DEVICES"] = "-1"
        needs, keeps = self._needs(threads), node not in self.doubted
        self.doubted.discard(node)
        kind = self.ray.remote(_Actor).options(
            num_cpus=needs["CPU"],
            num_gpus=needs["GPU"],
            memory=needs["memory"] or None,
            runtime_env={"env_vars": variables},
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            max_restarts=0,
        )
        actor = kind.remote(os.getcwd(), variables, threads, function, keeps)
        return _Worker(self.ray, actor, node, threads, self._piped)

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
            if len(worker.tasks) == 1 and self._piped and (task := queue.ahead(worker)):
                self._give(worker, function, task)

    def _give(self, worker: "_Worker", function: str, task: Task) -> None:
        """Give a worker a task, and before it what it reads, which goes to each node once."""
        if (reading := task.reads) and reading.key not in worker.taken:
            if reading.key not in self.lent:
                self.lent[reading.key] = self.ray.put(resolve(reading.give)(reading.of))
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
        ready = []
        if waiting:
            ready, rest = self.ray.wait(list(waiting), num_returns=1, timeout=max(left, 0.0))
            if ready and rest:
                ready += self.ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        else:
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
            said = self.ray.get(introduction)
        except self.ray.exceptions.RayError as error:
            self.failures[worker.node] += 1
            self.looked = -math.inf
            if worker.node in self._look() and self.failures[worker.node] >= ATTEMPTS:
                self._refuse(worker, f"starts no worker: {_reason(error)}")
            return
        ours = _versions()
        others = [f"{name} {said['versions'][name] or 'missing'}, not {v}" for name, v in ours.items()]
        others = [line for line, (name, v) in zip(others, ours.items(), strict=True) if said["versions"][name] != v]
        if others:
            worker.kill()
            self._refuse(worker, f"has {listed(others)} as here")
            return
        worker.circumstances = said["circumstances"]
        if worker not in self.crew:
            self.crew.append(worker)

    def _refuse(self, worker: "_Worker", why: str) -> None:
        """Have no workers on a node.

        Raises:
            StudyError: it was there from the beginning; one that came later is only told of.
        """
        place = self.known.get(worker.node, {}).get("NodeManagerAddress", worker.node)
        said = f"the node {place} {why}. Every node needs the environment of requirements.lock"
        self.refused[worker.node] = said
        if worker.node in self.first:
            raise StudyError(said)
        terminal.say(f"warning: {said}; it is left out")

    def _lost(self, worker: "_Worker", how: str, queue: Queue, deaths) -> Iterator[tuple[Task, object]]:
        """A worker has died: its task waits again, or has a result if it has been the death of too many."""
        self.crew.remove(worker)
        worker.kill()
        self.looked = -math.inf
        of = "worker" if worker.node in self._look() else "node"
        if of == "worker":
            self.doubted.add(worker.node)
        task, *unstarted = worker.tasks
        for each in unstarted:
            queue.put(each, self.crew)
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

    def __init__(self, ray, actor, node: str, threads: int, piped: bool):
        self.ray, self.actor, self.node, self.threads, self.piped = ray, actor, node, threads, piped
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
            return _reason(error)
        if not isinstance(records[-1], Done):
            self.streams[0] = self.actor.more.remote()
        return records

    def kill(self) -> None:
        """End its process."""
        with suppress(Exception):  # it is dead, or its node is
            self.ray.kill(self.actor)


class _Actor:
    """A worker's process, for as long as the driver's connection lasts."""

    def __init__(self, folder: str, variables: dict[str, str], threads: int, function: str, keeps: bool):
        for name in [name for name in os.environ if name.startswith(ARITHMETIC) and name not in variables]:
            del os.environ[name]
        with suppress(OSError):  # there is none such on this node
            os.chdir(folder)
        self.cache = compiled.prepared(threads) if keeps else None
        os.environ |= compiled.variables(self.cache)
        self.groups, self.records = set[str](), iter(())
        with suppress(Exception):  # the first task will say so
            resolve(function)

    def introduce(self) -> dict[str, dict[str, str]]:
        """What may change numbers here, and what must be as it is at the driver."""
        return {"circumstances": resolve(CIRCUMSTANCES)(), "versions": _versions()}

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
                    yield _Model(file.read_bytes())
                yield record


@dataclass(frozen=True)
class _Model:
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


def _versions() -> dict[str, str]:
    """What decides numbers and must be the same everywhere."""
    found = {n: v for n, v in resolve(CIRCUMSTANCES)().items() if n.startswith("version.")}
    return {"Python": platform.python_version()} | {n.removeprefix("version."): v for n, v in found.items()}


def _imported(local: bool) -> Any:
    """Ray, which says nothing and reports to nobody; one of this machine alone is reached from it alone.

    Raises:
        StudyError: it is not installed.
    """
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.pop(LOOPBACK, None)
    if local:
        os.environ[LOOPBACK] = "0"
        if not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
            os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        import ray
        from ray._private import ray_constants
        from ray._private import worker as of_ray
    except ImportError as error:
        raise StudyError(f"executor=ray needs Ray ({error}): pip install 'weight-studies[cluster]'") from error
    ray_constants.ENABLE_RAY_CLUSTER = not local  # read when Ray is imported, which may have been before
    if hasattr(of_ray, "print_to_stdstream"):  # what nodes report of themselves
        of_ray.print_to_stdstream = lambda *_, **__: None
    return ray


def _probe(address: str) -> None:
    """See that somebody answers there, since Ray would try for a minute.

    Raises:
        StudyError: nobody does.
    """
    head = address.removeprefix("ray://")
    if address != "auto" and not _answers(head):
        raise StudyError(_unreached(address, ConnectionError(f"nobody answers at {head}")))


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
    except (OSError, ValueError):
        return False
    return True


def _unreached(address: str | None, error: Exception) -> str:
    """Why there is no connection, and what to do."""
    if address is None:
        return f"executor=ray: Ray cannot be started on this machine ({_reason(error)}); executor=pool does without"
    return (
        f"executor.address={address}: {_reason(error)}. Expected a Ray cluster: auto or HOST:6379 on one of its "
        f"machines (ray start --head on the first, ray start --address=HOST:6379 on the others), ray://HOST:10001 from "
        f"any other that has the cluster's token"
    )


def _reason(error: Exception) -> str:
    """What Ray says, in a line: without the particulars of its actors."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith("The actor ") and "unexpectedly before" not in line]
    return (telling or lines or [type(error).__name__])[0][:300].rstrip(".")
