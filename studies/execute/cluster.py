"""This process's connection to a Ray cluster: made, looked after, and ended."""

import logging
import math
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from studies import terminal
from studies.record import StudyError, listed

LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Without it Ray listens on the loopback interface alone, on Linux too."""


GONE = 30.0
"""Seconds without the cluster's head after which it is taken for dead; Ray ends the driver's process after 60."""


LOOK = 2.0
"""Seconds from one look at the nodes to the next."""


REAPER = """
import os, shutil, signal, sys, time
from glob import glob
folder, driver = sys.argv[1:]
sys.stdin.read()
for _ in range(20):
    there = set()
    for link in glob("/proc/[0-9]*/fd/*"):
        try:
            if os.readlink(link).startswith(folder + "/"):
                there.add(link.split("/")[2])
        except OSError:
            pass
    there -= {driver}
    for pid in there:
        try:
            os.kill(int(pid), signal.SIGKILL)
        except OSError:
            pass
    if not there:
        break
    time.sleep(0.2)
shutil.rmtree(folder, ignore_errors=True)
"""
"""Ends what is left of a Ray when its driver has closed the pipe, or is dead: some of its processes would live on."""


class Connection:
    """To a cluster that there is, or to one of this machine alone, which is started and ends with the connection.

    Args:
        address: of the cluster; None starts one.
        code: files and folders of modules that its nodes are to have besides ours.
        cpus: that a started one has to give out.

    Attributes:
        ray: the module.
        nodes: those alive when it was last looked, by their ids, as Ray describes them.
        first: the ids of those that were there from the beginning.

    Raises:
        StudyError: Ray is not installed, or nobody answers, or not to us.
    """

    current: ClassVar["Connection | None"] = None
    """This process's: Ray allows one."""

    def __init__(self, address: str | None, code: list[str], cpus: int):
        if Connection.current:
            Connection.current.close()
        self.address, self.folder = address, ""
        self.reaper: subprocess.Popen | None = None
        self.ray = _imported(local=address is None)
        options: dict[str, Any] = {"runtime_env": {"py_modules": [str(Path(__file__).parent.parent), *code]}}
        if address is None:
            self.folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # a socket's path must be short
            command = [sys.executable, "-I", "-S", "-c", REAPER, self.folder, str(os.getpid())]
            self.reaper = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
            options = {"num_cpus": cpus, "include_dashboard": False, "_temp_dir": self.folder}
            options["runtime_env"] = {"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}}
        else:
            _probe(address)
        self._init(options)
        Connection.current = self
        self.met, self.looked, self.nodes = time.monotonic(), -math.inf, dict[str, dict]()
        self.first = set(self.look())

    def _init(self, options: dict) -> None:
        before = {number: signal.getsignal(number) for number in terminal.ENDINGS}
        if self.streams:
            options |= {"log_to_driver": False}
        try:
            with terminal.unheard():
                self.ray.init(self.address or "local", logging_level=logging.CRITICAL, **options)
        except BaseException as error:
            with suppress(Exception):
                self.ray.shutdown()
            self._sweep()
            if not isinstance(error, Exception):
                raise
            raise StudyError(_unreached(self.address, error)) from error
        finally:
            for number, handler in before.items():  # Ray takes SIGTERM for itself
                signal.signal(number, handler)

    @property
    def streams(self) -> bool:
        """Whether records can come as a stream: not from outside of the cluster."""
        return not (self.address or "").startswith("ray://")

    @property
    def lives(self) -> bool:
        """Whether it is this process's still."""
        return Connection.current is self

    def look(self, again: bool = False) -> dict[str, dict]:
        """The nodes that are alive, as of a moment ago.

        Args:
            again: look now.

        Raises:
            StudyError: the cluster's head is gone.
        """
        now = time.monotonic()
        if now - self.looked < LOOK and not again:
            return self.nodes
        self.looked = now
        head = self.ray.get_runtime_context().gcs_address if self.streams else str(self.address).removeprefix("ray://")
        if _answers(head):
            self.met = now
            self.nodes = {node["NodeID"]: node for node in self.ray.nodes() if node["Alive"]}
        elif now - self.met > GONE:
            raise StudyError(
                f"the head of the Ray cluster at {head} is gone: what had ended is kept. Start the cluster again; the "
                f"same command then goes on from there"
            )
        return self.nodes

    def described(self) -> str:
        """What the nodes have, in words."""
        nodes = [(node["NodeManagerAddress"], node["Resources"]) for node in self.nodes.values()]
        return listed(f"{ip} ({r.get('CPU', 0):g} CPUs, {r.get('GPU', 0):g} GPUs)" for ip, r in nodes) or "no nodes"

    def close(self) -> None:
        """End it: its actors die, and with it a cluster that it started."""
        if self.lives:
            Connection.current = None
            with suppress(Exception), terminal.unheard():  # the cluster may be gone
                self.ray.shutdown()
        self._sweep()

    def _sweep(self) -> None:
        if self.reaper:
            self.reaper.communicate()
            self.reaper = None


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
    _bind(ray_constants, local)
    if hasattr(of_ray, "print_to_stdstream"):  # what nodes report of themselves
        of_ray.print_to_stdstream = lambda *_, **__: None
    with suppress(ImportError, AttributeError):  # and what workers print, where `ray://` brings it
        from ray.util.client.logsclient import LogstreamClient

        setattr(LogstreamClient, "stdstream", lambda *_, **__: None)  # noqa: B010  its type is not to be checked
    return ray


def _bind(constants: Any, local: bool) -> None:
    """Have Ray listen on loopback alone, or not: it reads the variable when it is imported, which may have been before.

    Raises:
        StudyError: this version of Ray does so otherwise: what it starts could be reached from elsewhere.
    """
    if not hasattr(constants, "ENABLE_RAY_CLUSTER"):
        if not local:
            return
        raise StudyError(
            "executor=ray: this version of Ray is not known to listen on this machine's loopback alone: install that "
            "of requirements.lock, or start Ray yourself (docs/cluster.md) and name it by executor.address=auto"
        )
    constants.ENABLE_RAY_CLUSTER = not local


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
        return f"executor=ray: Ray cannot be started on this machine ({reason(error)}); executor=pool does without"
    return (
        f"executor.address={address}: {reason(error)}. Expected a Ray cluster: auto or HOST:6379 on one of its "
        f"machines (ray start --head on the first, ray start --address=HOST:6379 on the others), ray://HOST:10001 from "
        f"any other; and with a token, RAY_AUTH_MODE=token set and the token in ~/.ray/auth_token or where "
        f"RAY_AUTH_TOKEN_PATH says"
    )


def reason(error: Exception) -> str:
    """What Ray says, in a line: without the particulars of its actors."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith("The actor ") and "unexpectedly before" not in line]
    return textwrap.shorten((telling or lines or [type(error).__name__])[0], 300, placeholder=" …").rstrip(".")
