"""Files that are made once and kept, in `$STUDIES_CACHE` or `~/.cache/weight-studies`."""

import os
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from studies.record import StudyError


def folder() -> Path:
    """Where the files are."""
    return Path(os.environ.get("STUDIES_CACHE") or "~/.cache/weight-studies").expanduser()


def kept(name: str, make: Callable[[Path], None]) -> Path:
    """The cache's file `name`; where it is not there, one process makes it while others wait for it.

    Args:
        make: writes the file to the path it is given. That becomes `name` when it is whole, so that a process that is
            killed leaves nothing that looks like the file.

    Raises:
        StudyError: the cache cannot be written.
    """
    place = folder()
    file, partial = place / name, place / f"{name}.partial"
    try:
        if not file.is_file():
            place.mkdir(parents=True, exist_ok=True)
            with FileLock(place / f"{name}.lock"):
                if not file.is_file():
                    make(partial)
                    with open(partial, "rb") as written:
                        os.fsync(written.fileno())
                    partial.replace(file)
    except OSError as error:
        raise StudyError(
            f"{file} cannot be written ({error.strerror or error}): decoded images are kept there; make room, or name "
            f"another folder with STUDIES_CACHE=FOLDER"
        ) from error
    return file
