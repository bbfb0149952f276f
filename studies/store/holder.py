"""Who drives a study: what a driver leaves with its lock, and what another says that meets it."""

import getpass
import json
import os
import shlex
import socket
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path

from studies.masking import masked
from studies.record import StudyError


@dataclass(frozen=True)
class Holder:
    """A driver.

    Attributes:
        sweep: what the jobs of one sweep have in common; empty for a driver that is none.
        machine: the host's boot, and within it the space that process ids are of.
        born: when the process began, in the machine's own count, since ids of processes come again.
        since: seconds since 1970.
    """

    host: str = ""
    pid: int = 0
    user: str = ""
    since: float = 0.0
    command: str = ""
    sweep: str = ""
    machine: str = ""
    born: str = ""

    @property
    def text(self) -> str:
        """What is left with the lock."""
        return json.dumps(asdict(self))

    @property
    def is_known_dead(self) -> bool:
        """Whether it was a process of this machine, and is none any more."""
        return bool(self.born) and self.machine == _machine() and _born(self.pid) != self.born

    def __str__(self):
        if not self.pid:
            return ""
        began = datetime.fromtimestamp(self.since).astimezone()
        day = "" if began.date() == datetime.now().astimezone().date() else f"{began:%Y-%m-%d} "
        user = f", of {self.user}" * bool(self.user)
        return f" (process {self.pid} on {self.host}{user}, since {day}{began:%H:%M:%S}: {self.command})"


def me(sweep: str = "") -> Holder:
    """This process."""
    user = ""
    with suppress(OSError, KeyError):
        user = getpass.getuser()
    first, *words = sys.orig_argv or ["python"]
    command = " ".join(shlex.join([Path(first).name, *map(masked, words)]).split())[:300]
    pid = os.getpid()
    return Holder(socket.gethostname(), pid, user, time.time(), command, sweep, _machine(), _born(pid))


def read(text: str | None) -> Holder:
    """Who left a text with a lock; nobody in particular if it says nothing."""
    with suppress(ValueError, TypeError, AttributeError):
        known = {field.name for field in fields(Holder)}
        return Holder(**{name: value for name, value in json.loads(text or "").items() if name in known})
    return Holder()


def refusal(study: str, place: object, holder: Holder, setting: str, more: str = "") -> StudyError:
    """What a driver says that meets another.

    Args:
        setting: what names another store.
        more: when it would be let in, if that is known.
    """
    return StudyError(
        f"another process runs {study} in {place}{holder}: wait for it{more}, or name another store with {setting}"
    )


def _machine() -> str:
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()


def _born(pid: int) -> str:
    """When a process began; empty if there is none, or it is not known here."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]  # what is dead and was not asked after yet is dead
    except (OSError, IndexError):
        return ""
