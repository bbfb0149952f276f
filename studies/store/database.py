"""MLflow's database: made, claimed, opened, moved. In a folder it is SQLite's; an address is that of another.

What the file system or a database refuses is said in one paragraph.
"""

import errno
import fcntl
import functools
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import quote

from filelock import FileLock

from studies import contract, waiting
from studies.address import Address
from studies.record import StudyError
from studies.store import holder, postgres

PATIENCE = 60
"""Seconds that a database may be locked by another program."""

LOCKED = 5
"""The same in the middle of a study, which then says so and goes on waiting."""

TABLES = Path(__file__).with_name("mlflow.sql")
"""The tables of the MLflow that we depend on, which takes seconds to make them; benchmarks/tables.py writes it."""

MISTAKES = (sqlite3.ProgrammingError, sqlite3.IntegrityError, sqlite3.NotSupportedError)
"""Errors that would be mistakes here."""

LONGEST = 200 - len("/artifacts") - 33
"""Signs of the place of a study's files that PostgreSQL's tables have room for, with a run's below it."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@contextmanager
def guarded(place: str | Path, setting: str = "tracking.root") -> Iterator[None]:
    """What the file system or a database refuses within is the user's to put right.

    Args:
        place: what the error begins with, such as the store's folder, or its address.
        setting: what names another folder.

    Raises:
        StudyError: a disk is full; the database is locked, damaged, away, or not to be written.
    """
    try:
        yield
    except (OSError, sqlite3.DatabaseError) as error:
        if isinstance(error, MISTAKES):
            raise
        raise StudyError(f"{place}: {_trouble(error, setting)}") from error
    except Exception as error:
        if said := waiting.trouble(place, error):
            raise StudyError(said) from error
        raise


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
    """Refuse a root where no store can be kept, before anything trains; of a server's address nothing is known yet.

    Args:
        setting: what names another folder.

    Raises:
        StudyError: it cannot be made, or written; its database is none of MLflow's.
    """
    if isinstance(root, Address):
        if not root.is_server:
            with guarded(root):
                postgres.version(root)
            assert root.files is not None  # noqa: S101
            _check_folder(root.files, setting)
        return
    _check_folder(Path(root), setting)


def _check_folder(root: Path, setting: str) -> None:
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
        with transaction(root) as connection:
            connection.execute("BEGIN IMMEDIATE")


def claimed(
    root: str | Path, study: str, sweep: str, tell: Callable[[str], object] = print
) -> AbstractContextManager[None]:
    """Keep other drivers from a study, but for the jobs of one sweep.

    Args:
        sweep: what the jobs of one sweep have in common; empty for a driver that is none.
        tell: is given a line where it takes a while.

    Raises:
        StudyError: another driver has the study; it says who.
    """
    if not isinstance(root, Address):
        return _claimed_file(Path(root), study, sweep)
    if root.is_server:
        from studies.store import client

        return client.claimed(root, study, sweep, tell)
    return _claimed_session(root, study, sweep)


@contextmanager
def _claimed_session(address, study, sweep) -> Iterator[None]:
    session = postgres.session(address)
    with guarded(address):
        session.lock(study, holder.me(sweep))
    try:
        yield
    finally:
        session.unlock(study)


@contextmanager
def _claimed_file(root, study, sweep) -> Iterator[None]:
    with guarded(root):
        file = open(root / f".{study}.lock", "a+")
    with file:
        deadline = time.monotonic() + 1  # a job that is just claiming it for the same sweep is done by then
        while not _claim(file, sweep):
            if time.monotonic() > deadline:
                file.seek(0)
                raise holder.refusal(study, root, holder.read(file.read()), "tracking.root=FOLDER")
            time.sleep(0.05)
        yield


def _claim(file, sweep) -> bool:
    """Lock a study's file alone, and leave in it who has it; or join those that hold it for the same sweep."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate(0)
        with guarded(Path(file.name).parent):
            os.write(file.fileno(), holder.me(sweep).text.encode())
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
    if sweep and holder.read(file.read()).sweep == sweep:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


def alone(root: Path | Address) -> AbstractContextManager[Any]:
    """Keep other processes of this store from what is done in here, where something can: not behind a server."""
    if isinstance(root, Path):
        return FileLock(root / ".mlflow.lock")
    return nullcontext() if root.is_server else postgres.alone(root)


def make(root: str | Path) -> None:
    """Put a fresh database into a store's folder, unless there is one; or MLflow's tables into that of an address.

    Raises:
        StudyError: there is no room for it.
    """
    if isinstance(root, Address):
        if not root.is_server:
            with guarded(root):
                waiting.asked(root, functools.partial(postgres.make, root))
        return
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


def version(database: Path | Address) -> str | None:
    """The version of the tables in an MLflow database, a file or an address; None if it has none yet."""
    if isinstance(database, Address):
        return postgres.version(database)
    with transaction(database.parent) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
            return None
        return connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]


def found(connection: Any, root: Path | Address, study: str) -> tuple[int | None, str]:
    """The experiment that holds a study, whatever it is called now, None if there is none; and its files' place, a URI.

    The places of our experiments' files are put right first: MLflow keeps them whole, and the store may have been
    moved. Other projects' experiments stay as they are.

    Raises:
        StudyError: an experiment of that name holds something else.
    """
    if isinstance(root, Address):
        return _found_there(connection, root, study)
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
    raise taken(root, study)


def taken(root: Path | Address, study: str) -> StudyError:
    """That an experiment of a study's name holds something else."""
    other = "tracking.uri=ADDRESS" if isinstance(root, Address) else "tracking.root=FOLDER"
    return StudyError(
        f"{root}: the experiment {study} in MLflow's database there is not this study's. Give the study another name "
        f"with study.name=NAME, or rename that experiment, or name another store with {other}"
    )


def _found_there(connection, address: Address, study: str) -> tuple[int | None, str]:
    """The same in a database whose files are where it says, whoever looks."""
    if known := connection.execute(contract.EXPERIMENT, (study,)).fetchone():
        experiment, location = known
        if not location.startswith("file://"):
            raise StudyError(
                f"{address}: the files of {study} are kept at {location}, by the MLflow server that it was begun "
                f"through: go on with it there, by tracking.uri=http://HOST:PORT, or give the study another name with "
                f"study.name=NAME"
            )
        return experiment, location
    if connection.execute("SELECT 1 FROM experiments WHERE name = ?", (study,)).fetchone():
        raise taken(address, study)
    return None, files_of(address, study)


def files_of(address: Address, study: str) -> str:
    """Where the files of a study are kept that begins in a database, a URI.

    Raises:
        StudyError: it has more signs than there is room for.
    """
    assert address.files is not None  # noqa: S101
    place = f"{address.files.as_uri()}/artifacts/{quote(study)}"
    if len(place) > LONGEST:
        raise StudyError(
            f"tracking.root={address.files}: {address} has no room for the places of files below a folder of so many "
            f"signs: name one that is {len(place) - LONGEST} shorter"
        )
    return place


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


def mark(connection: Any, experiment: int | None, study: str, root: Path | Address) -> None:
    """Tag an experiment as ours."""
    statement = (
        "INSERT INTO experiment_tags (key, value, experiment_id) VALUES (?, ?, ?) "
        "ON CONFLICT (key, experiment_id) DO UPDATE SET value = excluded.value"
    )
    folder = root.files if isinstance(root, Address) else root
    tags = {contract.STUDY: study} | ({contract.ROOT: folder.as_uri()} if folder else {})
    connection.executemany(statement, [(key, value, experiment) for key, value in tags.items()])


@contextmanager
def transaction(root: Path | Address) -> Iterator[Any]:
    """A connection to a store's database whose changes are all there in the end, or none of them.

    Raises:
        StudyError: see `guarded`; what a database that is away refuses is raised as it is.
    """
    if isinstance(root, Address):
        with postgres.session(root).transaction() as made:
            yield made
        return
    timeout = LOCKED if waiting.is_patient() else PATIENCE
    with guarded(root), closing(sqlite3.connect(root / "mlflow.db", timeout=timeout)) as connection, connection:
        yield connection
