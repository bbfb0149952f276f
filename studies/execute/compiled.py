"""What XLA has compiled, kept from one command to the next.

TensorFlow keeps it in a folder of files, and dies of one that is damaged. So a folder belongs to one version, processor
and number of threads; each file has its hash in a file beside it, and one that has not is deleted before anybody reads.
"""

import hashlib
import os
import platform
import stat
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from studies import contract
from studies.execute import machine
from studies.record import StudyError

MOST_BYTES = 512 * 2**20
FREE_BYTES = 512 * 2**20
"""A disk with less room than that keeps nothing."""

FLAG = "--tf_xla_persistent_cache_directory"
SETTINGS = ("XLA_FLAGS", "TF_XLA_FLAGS", "TF_ENABLE_ONEDNN_OPTS")


def prepared(threads: int) -> Path | None:
    """The folder, with whole files only; None where nothing can be kept, or the user has a folder of their own."""
    if FLAG in os.environ.get("TF_XLA_FLAGS", ""):
        return None
    try:
        folder = contract.cache_folder() / f"xla-{_key(threads)}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours_alone(folder):
            return None
        _sweep(folder)
        disk = os.statvfs(folder)
        room = disk.f_bavail * disk.f_frsize >= FREE_BYTES and os.access(folder, os.W_OK)
        return folder if room else None
    except (OSError, StudyError, PackageNotFoundError):  # no home, no room, no TensorFlow
        return None


def variables(folder: Path | None) -> dict[str, str]:
    """The environment of a process that is to use the folder."""
    if folder is None or any(character.isspace() for character in str(folder)):  # flags are separated by spaces
        return {}
    return {"TF_XLA_FLAGS": f"{os.environ.get('TF_XLA_FLAGS', '')} {FLAG}={folder}".strip()}


def seal(folder: Path) -> None:
    """Note the hash of each file that has none yet: TensorFlow puts whole ones in their places."""
    with suppress(OSError):  # full, or another process has just deleted it: it is compiled again
        for file in folder.glob("*.pb"):
            if not (note := _note(file)).exists():
                written = note.with_name(f".{note.name}.{os.getpid()}")
                written.write_bytes(_hash(file))
                written.replace(note)


def _is_ours_alone(folder: Path) -> bool:
    """Whether nobody else can put anything there: it is machine code, and will run."""
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


def _sweep(folder: Path) -> None:
    """Delete what is damaged or has no hash, and beyond `MOST_BYTES` the oldest."""
    room = MOST_BYTES
    files = [(entry.stat().st_mtime, entry) for entry in folder.iterdir() if entry.suffix != ".sha256"]
    for _, file in sorted(files, reverse=True):
        with suppress(OSError):
            room -= file.stat().st_size
            note = _note(file)
            if room < 0 or not note.is_file() or note.read_bytes() != _hash(file):
                note.unlink(missing_ok=True)
                file.unlink()


def _note(file: Path) -> Path:
    return file.with_suffix(".sha256")


def _hash(file: Path) -> bytes:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest().encode()


def _key(threads: int) -> str:
    """Of whatever the same graph may be compiled otherwise by."""
    settings = [os.environ.get(name, "") for name in SETTINGS]
    parts = [os.geteuid(), version("tensorflow"), _processor(), machine.cores(), threads, *settings]
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:16]


def _processor() -> str:
    """The processor and what it can do."""
    with suppress(OSError), open("/proc/cpuinfo") as file:
        names = ("model name", "flags", "Features", "CPU part")
        return "".join(sorted({line for line in file if line.startswith(names)}))
    return f"{platform.machine()} {platform.processor()}"
