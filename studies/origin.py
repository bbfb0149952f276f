"""Where an error comes from: a line of a user's own code, if it passed through any. Standard library only."""

import os
import re
import sysconfig
import traceback
from pathlib import Path

LONGEST = 300
"""So many characters of an error's message are said."""

BOLD = re.compile(r"\x1b\[1m(.*)\x1b\[0m", re.DOTALL)
"""What Keras has bold in a terminal: the error, between what it says around one."""

WRAPPED = "Error encountered: "
"""What comes before the error of a layer's own `call`, after what Keras has to say of it."""

OURS = tuple(f"{Path(__file__).parent.parent / package}{os.sep}" for package in ("studies", "analysis"))
INSTALLED = ("site-packages", "dist-packages")


def summary(error: BaseException) -> str:
    """An error in one line, with its place: `KeyError: 'b' (mine.py, line 12, in build)`."""
    message = error.msg if isinstance(error, SyntaxError) else str(error)  # its text has its place, too
    said = f"{type(error).__name__}: {_said(message)}".removesuffix(": ")
    where = place(error)
    return f"{said} ({where})" if where else said


def _said(message: str) -> str:
    """A message in one line; of one that Keras puts around another, that other."""
    bold = BOLD.search(message)
    line = " ".join((bold[1] if bold else message).split())
    return line.rpartition(WRAPPED)[2][:LONGEST]


def place(error: BaseException | None) -> str:
    """The last line of a user's own code that an error, or what caused it, passed: `mine.py, line 12, in build`.

    Code is a user's own if it is neither this project's, nor Python's, nor installed. Empty if there is none.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, SyntaxError) and error.filename and _is_own(error.filename):
            return f"{_shown(error.filename)}, line {error.lineno}"
        for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
            if _is_own(frame.f_code.co_filename):
                return f"{_shown(frame.f_code.co_filename)}, line {line}, in {frame.f_code.co_name}"
        error = error.__cause__ or error.__context__
    return ""


def _is_own(file: str) -> bool:
    path = os.path.realpath(file)
    pythons = (f"{os.path.realpath(sysconfig.get_path(kind))}{os.sep}" for kind in ("stdlib", "platstdlib"))
    installed = any(folder in Path(path).parts for folder in INSTALLED)
    return os.path.isfile(path) and not installed and not path.startswith((*OURS, *pythons))


def _shown(file: str) -> str:
    """A file's path from the working folder, if it is in it."""
    path = os.path.realpath(file)
    try:
        return str(Path(path).relative_to(os.path.realpath(os.getcwd())))
    except (ValueError, OSError):
        return path
