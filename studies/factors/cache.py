"""Files that are made once and kept, in `$STUDIES_CACHE` or `~/.cache/weight-studies`."""

import os
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from studies.contract import cache_folder
from studies.record import StudyError


def kept(name: str, make: Callable[[Path], object]) -> Path:
    """The cache's file `name`; where it is not there, one process makes it while others wait for it.

    Args:
        make: writes the file to the path it is given. That becomes `name` when it is whole, so that a process that is
            killed leaves nothing that looks like the file.

    Raises:
        StudyError: the cache cannot be written.
    """
    place = cache_folder()
    file, partial = place / name, place / f"{name}.partial"
    try:
        if not file.is_file():
            place.mkdir(parents=True, exist_ok=True)
            with FileLock(place / f"{name}.lock"):
                if not file.is_file():
                    _make(make, partial)
                    partial.replace(file)
    except (OSError, NotImplementedError) as error:  # the latter from file systems without locks
        raise StudyError(
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
