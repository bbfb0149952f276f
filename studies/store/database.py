"""MLflow's SQLite database: made, claimed, opened, moved.

What the file system or SQLite refuses is said in one paragraph.
"""

import errno
import fcntl
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock

from studies import contract
from studies.record import StudyError

PATIENCE = 60
"""Seconds that a database may be locked by another program."""

TABLES = Path(__file__).with_name("mlflow.sql")
"""The tables of the MLflow that we depend on, which takes seconds to make them; benchmarks/tables.py writes it."""

MISTAKES = (sqlite3.ProgrammingError, sqlite3.IntegrityError, sqlite3.NotSupportedError)
"""Errors that would be mistakes here."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@contextmanager
def guarded(place: str | Path, setting: str = "tracking.root") -> Iterator[None]:
    """What the file system or SQLite refuses within is the user's to put right.

    Args:
        place: what the error begins with, such as the store's folder.
        setting: what names another folder.

    Raises:
        StudyError: a disk is full; the database is locked, damaged, or not to be written.
    """
    try:
        yield
    except (OSError, sqlite3.DatabaseError) as error:
        if isinstance(error, MISTAKES):
            raise
        raise StudyError(f"{place}: {_trouble(error, setting)}") from error


def _trouble(error: Exception, setting: str) -> str:
    code = getattr(error, "sqlite_errorcode", 0)
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE) or getattr(error, "errno", None) in FULL:
        return (
            f"there is no room left on the disk ({getattr(error, 'strerror', None) or error}). Make some: what is "
            f"finished is kept, and the same command goes on"
        )
    code &= 0xFF  # without what SQLite says of the details
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return (
            f"another program has kept mlflow.db locked for {PATIENCE} s. End it: what is finished is kept, and the "
            f"same command goes on"
        )
    if code in BROKEN or (isinstance(error, sqlite3.DatabaseError) and not code):
        return (
            f"mlflow.db is damaged, or not an SQLite database of MLflow's ({error}). Restore it from a copy, or name "
            f"another store with {setting}=FOLDER"
        )
    reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else error
    return f"the store cannot be written ({reason}). Name a folder of your own with {setting}=FOLDER"


def check_writable(root: str | Path, setting: str = "tracking.root") -> None:
    """Refuse a root where no store can be kept, before anything trains.

    Args:
        setting: what names another folder.

    Raises:
        StudyError: it cannot be made, or written; its database is none of MLflow's.
    """
    root = Path(root)
    with guarded(f"{setting}={root}", setting):
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
        database = root / "mlflow.db"
        if not has_content(database):
            return
        with open(database, "r+b"):
            pass
        if version(database) is None:
            raise sqlite3.DatabaseError("it has none of MLflow's tables")
        with transaction(database) as connection:
            connection.execute("BEGIN IMMEDIATE")


@contextmanager
def claimed(root: str | Path, study: str, sweep: str) -> Iterator[None]:
    """Keep other drivers from a study, but for the jobs of one sweep.

    Args:
        sweep: what the jobs of one sweep have in common; empty for a driver that is none.

    Raises:
        StudyError: another driver has the study.
    """
    with guarded(root):
        file = open(Path(root) / f".{study}.lock", "a+")
    with file:
        deadline = time.monotonic() + 1  # a job that is just claiming it for the same sweep is done by then
        while not _claim(file, sweep):
            if time.monotonic() > deadline:
                raise StudyError(
                    f"another process runs {study} in {root}: wait for it, or name another store with "
                    f"tracking.root=FOLDER"
                )
            time.sleep(0.05)
        yield


def _claim(file, sweep) -> bool:
    """Lock a study's file alone, and leave the sweep's name in it; or join those that hold it for the same sweep."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate(0)
        with guarded(Path(file.name).parent):
            os.write(file.fileno(), sweep.encode())
        if sweep:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        pass
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    file.seek(0)
    if sweep and file.read() == sweep:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


def make(root: str | Path) -> None:
    """Put a fresh database into a store's folder, unless there is one.

    Raises:
        StudyError: there is no room for it.
    """
    root = Path(root).resolve()
    database, near = root / "mlflow.db", root / ".mlflow.db.new"
    with guarded(root), FileLock(root / ".mlflow.lock"):
        if has_content(database):
            return
        near.unlink(missing_ok=True)  # of a process that was killed
        try:
            with closing(sqlite3.connect(near)) as connection:
                connection.executescript(TABLES.read_text())
                now = int(1000 * time.time())
                default = (0, "Default", f"{root.as_uri()}/artifacts/0", "active", now, now, "default")
                connection.execute("INSERT INTO experiments VALUES (?, ?, ?, ?, ?, ?, ?)", default)
                connection.commit()
            near.replace(database)  # whole, whoever looks meanwhile
        finally:
            near.unlink(missing_ok=True)


def has_content(database: Path) -> bool:
    """Whether there is a database, and something in its file."""
    return database.exists() and (database.is_dir() or database.stat().st_size > 0)


def version(database: Path) -> str | None:
    """The version of an MLflow database's tables, None if it has none yet."""
    with transaction(database) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
            return None
        return connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]


def found(connection: sqlite3.Connection, root: Path, study: str) -> tuple[int | None, str]:
    """The experiment that holds a study, whatever it is called now, None if there is none; and its files' place, a URI.

    The places of our experiments' files are put right first: MLflow keeps them whole, and the store may have been
    moved. Other projects' experiments stay as they are.

    Raises:
        StudyError: an experiment of that name holds something else.
    """
    move_artifacts(connection, root)
    usual = f"{root.as_uri()}/artifacts/{quote(study)}"
    if known := connection.execute(contract.EXPERIMENT, (study,)).fetchone():
        return known[0], _here(known[1], root, study) or usual
    query = "SELECT experiment_id, artifact_location FROM experiments WHERE name = ?"
    if not (named := connection.execute(query, (study,)).fetchone()):
        return None, usual
    if here := _here(named[1], root, study):  # of a driver that was killed before it wrote a run
        mark(connection, named[0], study, root)
        return named[0], here
    raise StudyError(
        f"{root}: the experiment {study} in MLflow's database there is not this study's. Give the study another name "
        f"with study.name=NAME, or rename that experiment, or name another store with tracking.root=FOLDER"
    )


def move_artifacts(connection: sqlite3.Connection, root: Path) -> None:
    """Put the places of our experiments' files right if the store is not where they were last written.

    Ours are below `ROOT/artifacts/STUDY`, wherever that was; what an experiment of ours has elsewhere stays.
    """
    for experiment, study, location, known, _ in connection.execute(contract.OURS).fetchall():
        here = _here(location, root, study)
        if known == root.as_uri() and here in (None, location):
            continue
        if here:
            statement = "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?"
            connection.execute(statement, (here, experiment))
        runs = connection.execute("SELECT run_uuid, artifact_uri FROM runs WHERE experiment_id = ?", (experiment,))
        moved = [(_here(place, root, study, f"/{run}/artifacts"), run) for run, place in runs.fetchall()]
        statement = "UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?"
        connection.executemany(statement, [(place, run) for place, run in moved if place])
        mark(connection, experiment, study, root)


def _here(place: str | None, root: Path, study: str, below: str = "") -> str | None:
    """A place of a study's files, in the store at `root`; None if it is none.

    Below an experiment's place is a run's. Earlier stores have `_` for a space.
    """
    for name in (study, study.replace(" ", "_")):
        tail = f"/artifacts/{quote(name)}{below}"
        if place and place.startswith("file://") and place.endswith(tail):
            return root.as_uri() + tail
    return None


def mark(connection: sqlite3.Connection, experiment: int | None, study: str, root: Path) -> None:
    """Tag an experiment as ours."""
    statement = "INSERT OR REPLACE INTO experiment_tags (key, value, experiment_id) VALUES (?, ?, ?)"
    tags = {contract.STUDY: study, contract.ROOT: root.as_uri()}
    connection.executemany(statement, [(key, value, experiment) for key, value in tags.items()])


@contextmanager
def transaction(database: Path) -> Iterator[sqlite3.Connection]:
    """A connection whose changes are all there in the end, or none of them.

    Raises:
        StudyError: see `guarded`.
    """
    with guarded(database.parent), closing(sqlite3.connect(database, timeout=PATIENCE)) as connection, connection:
        yield connection
