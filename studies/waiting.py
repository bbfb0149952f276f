"""Waiting for a server or a database that is away, or locked: in a study; whatever only reads is told at once."""

import os
import re
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TypeVar

from studies import terminal
from studies.masking import masked
from studies.record import StudyError

T = TypeVar("T")

PAUSE = 2.0
"""Seconds between two tries at most."""

AGAIN = 60.0
"""Seconds between two lines that say that somebody is away."""

LIMIT, BRIEFLY = "MLFLOW_HTTP_REQUEST_TIMEOUT", "5"
"""By which MLflow's client is told how many seconds a server may take to answer; so many when nobody waits for it."""

REFUSALS = ("authentication", "no password supplied", "does not exist", "pg_hba.conf", "permission denied")
"""What a database says that is there and will not have us."""

FULL = ("too many c", "remaining connection slots", "No space left on device")
"""What a database says that has no connection, or no disk, left for us."""

PASSING = (408, 425, 429)
"""Answers of a server that ask for another try, besides 500 and above."""


class _State:
    patience: float | None = None
    tell: Callable[[str], object] | None = None


@contextmanager
def patient(seconds: float, tell: Callable[[str], object]) -> Iterator[None]:
    """Have `asked` wait in here.

    Args:
        seconds: how long somebody may be away before the study ends.
        tell: is given the lines that say so.
    """
    before = _State.patience, _State.tell
    _State.patience, _State.tell = seconds, tell
    try:
        yield
    finally:
        _State.patience, _State.tell = before


def is_patient() -> bool:
    """Whether `asked` waits."""
    return _State.patience is not None


@contextmanager
def impatient() -> Iterator[None]:
    """Have `asked` wait for nobody in here, such as where the user has waited enough."""
    before, _State.patience = _State.patience, None
    usual = os.environ.get(LIMIT)
    os.environ[LIMIT] = BRIEFLY
    try:
        yield
    finally:
        _State.patience = before
        if usual is None:
            del os.environ[LIMIT]
        else:
            os.environ[LIMIT] = usual


def asked(place: object, ask: Callable[[], T]) -> T:
    """What `ask` gives, which can be asked again with the same outcome: once it does not fail since `place` is away.

    Raises:
        Interrupted: the user ends the command meanwhile, even within `studies.terminal.held`.
        StudyError: it has been away for too long.
    """
    began, told, pause = None, 0.0, 0.1
    while True:
        try:
            given = ask()
        except Exception as error:
            reason, now = away(error), time.monotonic()
            if not reason or _State.patience is None:
                raise
            if began is None:
                began, since = now, datetime.now().astimezone()
            if now - began > _State.patience:
                raise StudyError(
                    f"{place} has been away since {since:%H:%M:%S} ({reason}), for longer than "
                    f"tracking.patience={_State.patience:g} s: what is finished is kept, and the same command goes on "
                    f"when it is back"
                ) from error
            if now >= told:
                told = now + AGAIN
                _tell(
                    f"{place} is away since {since:%H:%M:%S} ({reason}): the study waits and loses nothing, and goes "
                    f"on when it is back; it gives up {_State.patience:g} s after that time (tracking.patience)"
                )
        else:
            if began is not None:
                _tell(f"{place} is back after {time.monotonic() - began:.0f} s: the study goes on")
            return given
        _sleep(pause)
        pause = min(2 * pause, PAUSE)


def _tell(line: str) -> None:
    if _State.tell:
        _State.tell(line)


def _sleep(seconds: float) -> None:
    """Wait, unless the user wants no more of it."""
    until = time.monotonic() + seconds
    while True:
        if terminal.received() is not None:
            raise terminal.Interrupted
        if (left := until - time.monotonic()) <= 0:
            return
        time.sleep(min(left, 0.1))


def away(error: BaseException | None) -> str:
    """Why a server or a database cannot answer for now, as an error says, in a few words; empty for another error."""
    while error is not None:
        if _is_passing(error):
            return reason(error)
        error = error.__cause__
    return ""


def _is_passing(error: BaseException) -> bool:
    if isinstance(error, sqlite3.OperationalError):
        return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    psycopg = sys.modules.get("psycopg")
    if psycopg and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return not any(word in str(error) for word in REFUSALS)
    mlflow = sys.modules.get("mlflow.exceptions")
    if mlflow and isinstance(error, mlflow.MlflowException):
        return _is_passing_code(error.get_http_status_code())
    requests = sys.modules.get("requests")
    if requests and isinstance(error, requests.RequestException):
        answer = getattr(error, "response", None)
        return _is_passing_code(answer.status_code) if answer is not None else isinstance(error, OSError)
    return isinstance(error, Unanswered)


def _is_passing_code(code: int) -> bool:
    return code >= 500 or code in PASSING


class Unanswered(Exception):
    """A server has answered, but that it cannot for now."""


def checked(answer):
    """A server's answer, of `requests`, if it is one.

    Raises:
        Unanswered: it is that there will be one later.
    """
    if _is_passing_code(answer.status_code):
        raise Unanswered(f"it answers {answer.status_code} {answer.reason}")
    return answer


def reason(error: BaseException) -> str:
    """The innermost part of what a failed request says, in one line without passwords."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()] or [type(error).__name__]
    first = lines[0]
    if "FATAL:" in first:
        first = first.rpartition("FATAL:")[2].strip()
    elif "no password supplied" in first:
        first = "no password supplied"
    elif answered := re.search(r"too many (\d+) error responses", str(error)):
        first = f"it answers {answered[1]}"
    elif "RemoteDisconnected" in first or "ConnectionReset" in first:
        first = "it has ended the connection"
    elif "Errno" in first:
        first = first.rpartition("] ")[2].rstrip(")'\"")
    elif "refused" in first.lower():
        first = "connection refused"
    elif "timed out" in first.lower():
        first = "it takes too long to answer"
    return masked(first)[:160]


def trouble(place: object, error: BaseException) -> str:
    """What a user is told of an error of a database or a server; empty for another error."""
    psycopg = sys.modules.get("psycopg")
    if psycopg and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        if "does not exist" in str(error):
            return f"{place} is not there ({reason(error)}): create it, as docs/shared_store.md has it"
        if not _is_passing(error):
            return (
                f"{place} refuses ({reason(error)}): put a line HOST:PORT:DATABASE:USER:PASSWORD into ~/.pgpass, which "
                f"nobody else may read (chmod 600), or set PGPASSWORD; and see pg_hba.conf on the database's machine"
            )
        if any(word in str(error) for word in FULL):
            return (
                f"{place} has no room ({reason(error)}): make some on its disk, or in its connections; what is "
                f"finished is kept, and the same command goes on"
            )
        return f"{place} does not answer ({reason(error)}): start PostgreSQL there, or see that this is its address"
    if psycopg and isinstance(error, psycopg.errors.InsufficientPrivilege | psycopg.errors.UndefinedTable):
        return f"{place} refuses ({reason(error)}): name a user that owns the database, as docs/shared_store.md has it"
    return ""
