"""The only reader of MLflow: the runs of a study and their files, from a store's folder; `server` and `postgres` read
what is elsewhere."""

import os
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from studies import address, contract
from studies.address import is_server
from studies.record import StudyError
from studies.waiting import reason

__all__ = ["Folder", "HasFiles", "Run", "Store", "is_server", "opened"]

HAS_TABLES = "SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'"

PATIENCE = 60
"""Seconds that a database may be locked by another program."""

PAGE = 1000
"""Runs a request to MLflow's client."""


@dataclass(frozen=True)
class Run:
    """What is read of an MLflow run, whichever way.

    Attributes:
        start_time, end_time: milliseconds since 1970, UTC.
        folder: of its files; of a server's run, on the server's machine.
    """

    run_id: str
    experiment_id: str
    start_time: int
    end_time: int | None
    status: str
    folder: Path
    tags: dict[str, str]
    metrics: dict[str, float] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)


class HasFiles(Protocol):
    """A run, or what was made of one."""

    @property
    def run_id(self) -> str:
        """MLflow's."""

    @property
    def folder(self) -> Path:
        """Of its files; of a server's run, on the server's machine."""


class Store(Protocol):
    """Where runs are read from."""

    def studies(self) -> list[str]:
        """The names of its studies."""

    def runs(self, study: str, metrics: Iterable[str] = (), params: bool = False, role: str = "") -> list[Run]:
        """The runs of a study, with the last values of these metrics, and with their params only if asked for.

        Args:
            role: whose are wanted, so that others need not be read, which all the same may be there.
        """

    def content(self, run: HasFiles, name: str) -> bytes:
        """One of a run's files.

        Raises:
            StudyError: it is not there.
        """

    def has(self, run: HasFiles, name: str) -> bool:
        """Whether a file is among a run's."""

    def path(self, run: HasFiles, name: str) -> Path:
        """One of a run's files, on this machine."""


def opened(root: str | Path) -> Store:
    """The store at `root`: a folder, by its path or URI, or the address of a tracking server or a database.

    Raises:
        StudyError: there is no MLflow server at the address, or it is a URI of another kind.
    """
    place = address.place(root)
    if not isinstance(place, address.Address):
        return Folder(place)
    if place.is_server:
        from analysis.read.server import Server

        return Server.at(place)
    from analysis.read.postgres import Database

    return Database(place)


class Folder:
    """A store in a folder; one that has no database has no studies."""

    def __init__(self, root: str | Path):
        self.root, self.database = root, Path(root) / "mlflow.db"
        self._whole = Path(root).resolve()  # once: it is asked for each run, which takes longer than to read them

    def __str__(self):
        return str(self.root)

    def studies(self) -> list[str]:
        """The names of its studies."""
        with _connected(self.database) as connection:
            if not connection or not connection.execute(HAS_TABLES).fetchone():
                return []
            names = (
                f"SELECT COALESCE(study, name) FROM experiments LEFT JOIN ({contract.OURS}) USING (experiment_id) "
                f"WHERE lifecycle_stage = 'active' AND name <> 'Default'"
            )
            return sorted({name for (name,) in connection.execute(names)})

    def runs(self, study: str, metrics: Iterable[str] = (), params: bool = False, role: str = "") -> list[Run]:
        """The runs of a study, with the last values of these metrics, and with their params only if asked for.

        Args:
            role: whose are wanted, so that others need not be read, which all the same may be there.
        """
        with _connected(self.database) as connection:
            if not connection or not connection.execute(HAS_TABLES).fetchone():
                return []
            [version] = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            if version in contract.SCHEMAS:
                return by_sql(connection, study, tuple(metrics), params, role, self._here)
        from mlflow.exceptions import MlflowException

        try:
            return by_client(client(contract.uri(self.root)), study, metrics, self._here)
        except MlflowException as error:
            raise StudyError(
                f"{self.database} cannot be read by this MLflow ({reason(error)}): name another store, "
                f"or bring a copy of it up to date with mlflow db upgrade"
            ) from error

    def content(self, run: HasFiles, name: str) -> bytes:
        """One of a run's files.

        Raises:
            StudyError: it is not there.
        """
        return content(run.folder / name, self.root)

    def has(self, run: HasFiles, name: str) -> bool:
        """Whether a file is among a run's."""
        return (run.folder / name).is_file()

    def path(self, run: HasFiles, name: str) -> Path:
        """One of a run's files."""
        return run.folder / name

    def _here(self, artifact_uri: str) -> Path:
        """Where a run's files are: below the store, wherever the store is now, if they are in `artifacts/STUDY/RUN/…`.

        Those of a run that a user began are where MLflow put them.
        """
        path = path_of(artifact_uri)
        ours = path.parts[-4:-3] == ("artifacts",) and ".." not in path.parts[-3:]
        return self._whole.joinpath("artifacts", *path.parts[-3:]) if ours else path


def content(file: Path, root: object) -> bytes:
    """A file of a store's.

    Raises:
        StudyError: it is not there.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise StudyError(
            f"{file} cannot be read ({error.strerror}): the store in {root} is not whole; "
            f"restore its folder artifacts from a copy, or name another store with --root"
        ) from error


def by_sql(
    connection: Any,
    study: str,
    metrics: tuple[str, ...],
    params: bool,
    role: str,
    place: Callable[[str], Path],
) -> list[Run]:
    """The runs of a study, read from the tables of a known version of MLflow's database.

    Args:
        metrics, params, role: as `Store.runs` has them.
        place: where a run's files are, by its URI of them.
    """
    named = "SELECT experiment_id FROM experiments WHERE name = ?"
    found = (
        connection.execute(contract.EXPERIMENT, (study,)).fetchone() or connection.execute(named, (study,)).fetchone()
    )
    if not found:
        return []
    experiment = found[0]
    wanted: tuple = (experiment,)
    these = "experiment_id = ?"
    if role:
        these += f" AND run_uuid IN (SELECT run_uuid FROM tags WHERE key = '{contract.Tag.ROLE}' AND value = ?)"
        wanted = (experiment, role)
    rows = connection.execute(
        "SELECT run_uuid, start_time, end_time, status, artifact_uri FROM runs "
        f"WHERE {these} AND lifecycle_stage = 'active'",
        wanted,
    ).fetchall()
    of_these = f"run_uuid IN (SELECT run_uuid FROM runs WHERE {these})"

    def pairs(table, condition="", values=()):
        found = defaultdict(dict)
        query = f"SELECT run_uuid, key, value FROM {table} WHERE {of_these} {condition}"
        for run_id, key, value in connection.execute(query, (*wanted, *values)):
            found[run_id][key] = value
        return found

    tags, named = pairs("tags"), ", ".join("?" * len(metrics))
    numbers = pairs("latest_metrics", f"AND key IN ({named})", metrics) if metrics else {}
    settings = pairs("params") if params else {}
    return [
        Run(
            i,
            str(experiment),
            start,
            end,
            status,
            place(uri),
            contract.whole(tags.get(i, {})),
            *(of.get(i, {}) for of in (numbers, settings)),
        )
        for i, start, end, status, uri in rows
    ]


@contextmanager
def _connected(database: Path) -> Iterator[sqlite3.Connection | None]:
    """A connection that reads, closed at the end; None if there is no database.

    Raises:
        StudyError: it cannot be opened or read.
    """
    try:
        if not database.exists():
            yield None
            return
        with closing(_connection(database)) as connection:
            yield connection
    except (OSError, sqlite3.Error) as error:
        raise StudyError(
            f"{database} cannot be read ({getattr(error, 'strerror', None) or error}): name another store, or restore "
            f"it from a copy"
        ) from error


def _connection(database) -> sqlite3.Connection:
    """One that cannot write; unless the last writer was killed in the middle, whose half SQLite first takes back."""
    try:
        return _connection_as(database, "ro")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK:
            raise
    return _connection_as(database, "rw")


def _connection_as(database, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{database.resolve().as_uri()}?mode={mode}", uri=True, timeout=PATIENCE)
    try:
        connection.execute(HAS_TABLES)
    except sqlite3.OperationalError:
        connection.close()
        raise
    return connection


def client(uri: str) -> Any:
    """MLflow's client of a store."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    return MlflowClient(uri)


def by_client(
    client: Any, study: str, metrics: Iterable[str] | None, place: Callable[[str], Path], query: str = ""
) -> list[Run]:
    """The runs of a study by MLflow's client, all or those that a query of MLflow's finds; None is for all metrics."""
    tagged = client.search_experiments(filter_string=f"tags.`{contract.STUDY}` = '{study}'")
    experiment = tagged[0] if tagged else client.get_experiment_by_name(study)
    if experiment is None:
        return []
    runs, token = [], None
    wanted = None if metrics is None else frozenset(metrics)
    while token != "":
        page = client.search_runs([experiment.experiment_id], query, max_results=PAGE, page_token=token)
        runs += [
            Run(
                run.info.run_id,
                run.info.experiment_id,
                run.info.start_time,
                run.info.end_time,
                run.info.status,
                place(run.info.artifact_uri),
                contract.whole(run.data.tags),
                {name: value for name, value in run.data.metrics.items() if wanted is None or name in wanted},
                run.data.params,
            )
            for run in page
        ]
        token = page.token or ""
    return runs


def path_of(uri: str) -> Path:
    """The path in a URI."""
    return Path(unquote(urlsplit(uri).path))
