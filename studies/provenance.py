"""What an execution was run by: the command, the code, the machine. Asked once an execution, in 10 ms."""

import getpass
import hashlib
import os
import platform
import shlex
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent


def tags(words: list[str], root: Path = ROOT) -> dict[str, str]:
    """MLflow's tags of provenance; what cannot be known here has none.

    Args:
        words: of the command line.
        root: of the checkout.
    """
    found = {
        "mlflow.source.name": shlex.join(["python", "-m", "studies.run", *words]),
        "mlflow.source.type": "LOCAL",
        "mlflow.user": _user(),
        "machine": _machine(),
        "lock.hash": _lock_hash(root / "requirements.lock"),
        **_git(root),
    }
    return {name: value for name, value in found.items() if value}


def _git(root: Path) -> dict[str, str]:
    """The commit, and whether files differ from it; nothing if git is not there or has no say."""
    if not (root / ".git").exists():  # else git may speak of a repository around this one
        return {}
    command = ["git", "--no-optional-locks", "-C", str(root), "status", "--porcelain=v2", "--branch"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return {}
    heads = {line.split()[1]: line.split()[2] for line in lines if line.startswith("# ")}
    if heads.get("branch.oid", "(initial)") == "(initial)":
        return {}
    dirty = any(not line.startswith("# ") for line in lines)
    return {"mlflow.source.git.commit": heads["branch.oid"], "git.dirty": str(dirty).lower()}


def _lock_hash(lock: Path) -> str:
    return hashlib.sha256(lock.read_bytes()).hexdigest()[:16] if lock.is_file() else ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user that has no name
        return ""


def _machine() -> str:
    """`node x86_64, AMD EPYC 7B13, 2 cores, 8 GB`."""
    facts = [f"{platform.node()} {platform.machine()}", _processor(), f"{os.cpu_count()} cores", _memory()]
    return ", ".join(fact for fact in facts if fact)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = (line.partition(":")[2].strip() for line in file if line.startswith("model name"))
            return next(names, "")
    except OSError:
        return ""


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB"
    except (OSError, ValueError):
        return ""
