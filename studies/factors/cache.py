"""Files that are made once and kept, in `$STUDIES_CACHE` or `~/.cache/weight-studies`."""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from studies.contract import cache_folder
from studies.record import StudyError

T = TypeVar("T")


class Unkept(StudyError):
    """The cache cannot be written."""


def read(
    name: str, make: Callable[[Path], object], load: Callable[[Path], T], damaged: tuple[type[Exception], ...]
) -> T:
    """What `load` gives of the cache's file `name`: anew where it is damaged; without a cache of one made for once.

    Args:
        make: as `kept` has it.
        damaged: what `load` raises of a file that is not whole.

    Raises:
        Unkept: there is no room for temporary files either.
    """
    try:
        file = kept(name, make)
        try:
            return load(file)
        except damaged:
            file.unlink(missing_ok=True)
            return load(kept(name, make))
    except (Unkept, OSError) as error:
        trouble = error
    print(f"note: {trouble}. Until then it is made each time, which takes longer", file=sys.stderr)
    try:
        with tempfile.TemporaryDirectory(prefix="studies-") as folder:
            file = Path(folder) / name
            make(file)
            return load(file)
    except OSError as error:  # no room there either
        raise Unkept(f"{trouble}; nor is there room in {tempfile.gettempdir()} ({error.strerror})") from error


def forget(name: str) -> None:
    """Delete the cache's file `name`, which is not whole.

    Raises:
        Unkept: there is no cache.
    """
    try:
        (_folder() / name).unlink(missing_ok=True)
    except OSError as error:
        raise Unkept(str(error)) from error


def _folder() -> Path:
    try:
        return cache_folder()
    except StudyError as error:  # no home
        raise Unkept(str(error)) from error


def kept(name: str, make: Callable[[Path], object]) -> Path:
    """The cache's file `name`; where it is not there, one process makes it while others wait for it.

    Args:
        make: writes the file to the path it is given. That becomes `name` when it is whole, so that a process that is
            killed leaves nothing that looks like the file.

    Raises:
        Unkept: the cache cannot be written.
    """
    place = _folder()
    file, partial = place / name, place / f"{name}.partial"
    try:
        if not file.is_file():
            place.mkdir(parents=True, exist_ok=True)
            with FileLock(place / f"{name}.lock"):
                if not file.is_file():
                    _make(make, partial)
                    partial.replace(file)
    except (OSError, NotImplementedError) as error:  # the latter from file systems without locks
        raise Unkept(
            f"{file} cannot be written ({getattr(error, 'strerror', None) or error}): what is made once is kept there; "
            f"make room, or name another folder with STUDIES_CACHE=FOLDER"
        ) from error
    return file


def _make(make, partial) -> None:
    """Have a file made whole; what fails leaves nothing, since the disk may be full."""
    try:
        make(partial)
        with open(partial, "rb") as written:
            os.fsync(written.fileno())
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
