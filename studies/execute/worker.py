"""The processes that run a pool's tasks: a server, which imports what tasks need once, and the workers it forks.

A worker has its import for nothing then, and shares the memory of it. Only a process of one thread may fork: TensorFlow
starts its threads, and CUDA, at the first operation, so the server does none. Where importing has started threads all
the same, on systems but Linux, and for workers of several threads (NumPy starts them as it is imported), each worker is
a fresh interpreter instead.
"""

import ctypes
import gc
import importlib.util
import json
import os
import random
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from studies.execute import compiled
from studies.execute.machine import gpus
from studies.execute.task import Begun, Done, attempt, resolve

NEEDLESS = ("matplotlib", "pandas", "sklearn")
"""What Keras imports, where it is there, for plots and frames: a third of its import."""

SERVER = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from studies.execute.worker import serve
serve(*sys.argv[2:])
"""

WORKER = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from studies.execute.worker import work
work(*sys.argv[2:])
"""

TRACED = "__autograph_generated_file"
"""Begins of the names of modules that TensorFlow makes, each of a file among the temporary ones."""

PR_SET_PDEATHSIG = 1  # prctl(2)


def serve(descriptor: str, function: str, threads: str) -> None:
    """Start a worker, or say how one ended, whenever the driver asks, until the driver is gone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # which clusters send to all processes at once:
        signal.signal(number, signal.SIG_IGN)  # workers are to finish what they do, and end with the driver
    end = socket.socket(fileno=int(descriptor))
    requests = Connection(os.dup(int(descriptor)))
    end.set_inheritable(False)
    folder = compiled.prepared(int(threads))
    forks = sys.platform == "linux" and threads == "1"
    if forks:
        _preload(function)
        forks = _may_fork()
    workers: dict[int, int] = {}
    with suppress(EOFError, OSError):
        while True:
            match requests.recv():
                case "start", number, variables, keeps:
                    _, descriptors, *_ = socket.recv_fds(end, 1, 3)
                    if not (pid := os.fork()):
                        requests.close()
                        end.close()
                        _become_worker(variables, descriptors, function, folder if keeps else None, forks)
                    workers[number] = pid
                    for each in descriptors:
                        os.close(each)
                case "end", number, patience:
                    requests.send(_ended(workers.pop(number), patience))


def _preload(function: str) -> None:
    """Import what `function` needs; what cannot be imported, the first task will say."""
    gc.disable()  # collections take a fifth of the import
    absent = [name for name in NEEDLESS if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    with suppress(Exception):
        resolve(function)
    for name in absent:
        if sys.modules.get(name, absent) is None:
            del sys.modules[name]
    with suppress(Exception):
        resolve(function)  # again, if it is for one of those that it failed
    gc.freeze()
    gc.enable()


def _may_fork() -> bool:
    """Whether this process has one thread, and no GPU in its hands."""
    opened = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            opened.append(os.readlink(link))
    return len(os.listdir("/proc/self/task")) == 1 and not any(name.startswith("/dev/nvidia") for name in opened)


def _become_worker(variables, descriptors, function, folder, forked) -> None:
    """Work, in the process that was just forked, and end it."""
    server = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != server:  # it died meanwhile
            os._exit(1)
    os.dup2(descriptors[2], 2)
    os.environ.clear()
    os.environ |= variables
    os.environ |= compiled.variables(folder)
    arguments = [*map(str, descriptors[:2]), function, str(folder or "")]
    if not forked:
        for each in descriptors[:2]:
            os.set_inheritable(each, True)
        os.execv(sys.executable, [sys.executable, "-c", WORKER, json.dumps(sys.path), *arguments])  # noqa: S606
    code = 1
    try:
        random.seed()
        if numpy := sys.modules.get("numpy"):
            numpy.random.seed()  # else every worker draws the same from the generator that all share
        work(*arguments)
        code = 0
    except SystemExit as ended:
        print(ended, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _ended(pid: int, patience: float) -> int:
    """A worker's exit code, negative for a signal's number; it is killed if it takes longer than `patience` seconds."""
    deadline = time.monotonic() + patience
    while not (found := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() >= deadline:
            os.kill(pid, signal.SIGKILL)
            found = os.waitpid(pid, 0)
            break
        time.sleep(0.005)
    return os.waitstatus_to_exitcode(found[1])


def work(tasks: str, records: str, function: str, folder: str) -> None:
    """A worker's life: do what comes through the pipe until the driver is gone.

    Args:
        tasks, records: file descriptors.
        function: what most tasks will want.
        folder: where XLA keeps what it compiles; empty if it does not.
    """
    incoming, outgoing = Connection(int(tasks), writable=False), Connection(int(records), readable=False)
    with suppress(Exception):  # the first task will say so
        resolve(function)
    groups = set()
    with suppress(EOFError, OSError):
        while True:
            function, task = incoming.recv()
            outgoing.send(Begun())
            for record in attempt(function, task, doubtful=bool(folder)):
                outgoing.send(record)
            if task.group not in groups:
                groups.add(task.group)
                _delete_sources()
                if folder:
                    compiled.seal(Path(folder))
            outgoing.send(Done())


def _delete_sources() -> None:
    """Delete what TensorFlow wrote of the functions that it traced, and loaded: it would at exit, which never comes."""
    for name in [name for name in sys.modules if name.startswith(TRACED)]:
        with suppress(OSError, TypeError):
            file = sys.modules[name].__file__
            for each in (file, importlib.util.cache_from_source(file)):  # type: ignore[arg-type, type-var]
                os.unlink(each)  # type: ignore[arg-type]


def environment(threads: int, number: int) -> dict[str, str]:
    """What TensorFlow reads when a worker imports it; values that the user set stay, but for threads, GPUs and backend.

    Args:
        number: of the worker: they take turns on the GPUs.
    """
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
    if devices := gpus():
        wanted["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
    fixed = {"TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "KERAS_BACKEND"}
    fixed.add("CUDA_VISIBLE_DEVICES")
    return {name: value for name, value in wanted.items() if name in fixed or name not in os.environ}
