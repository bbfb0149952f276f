"""The only reader of MLflow: the runs of a study and their files, from a store's folder or from a tracking server."""

import os
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from studies import contract
from studies.record import StudyError

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


def opened(root: str | Path) -> "Folder | Server":
    """The store at `root`: a folder, by its path or URI, or the address of a tracking server.

    Raises:
        StudyError: there is no MLflow server at the address, or it is a URI of another kind.
    """
    return Server(str(root)) if is_server(root) else Folder(contract.folder(root))


def is_server(root: str | Path) -> bool:
    """Whether a root is the address of a tracking server."""
    return str(root).startswith(("http://", "https://"))


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
                return self._runs_by_sql(connection, study, tuple(metrics), params, role)
        from mlflow.exceptions import MlflowException

        try:
            return _runs_by_client(_client(contract.uri(self.root)), study, metrics, self._here)
        except MlflowException as error:
            raise StudyError(
                f"{self.database} cannot be read by this MLflow ({_reason(error)}): name another store, "
                f"or bring a copy of it up to date with mlflow db upgrade"
            ) from error

    def content(self, run: HasFiles, name: str) -> bytes:
        """One of a run's files.

        Raises:
            StudyError: it is not there.
        """
        try:
            return (run.folder / name).read_bytes()
        except OSError as error:
            raise StudyError(
                f"{run.folder / name} cannot be read ({error.strerror}): the store in {self.root} is not whole; "
                f"restore its folder artifacts from a copy, or name another store with --root"
            ) from error

    def has(self, run: HasFiles, name: str) -> bool:
        """Whether a file is among a run's."""
        return (run.folder / name).is_file()

    def _runs_by_sql(self, connection, study, metrics, params, role) -> list[Run]:
        named = "SELECT experiment_id FROM experiments WHERE name = ?"
        found = (
            connection.execute(contract.EXPERIMENT, (study,)).fetchone()
            or connection.execute(named, (study,)).fetchone()
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
                self._here(uri),
                *(of.get(i, {}) for of in (tags, numbers, settings)),
            )
            for i, start, end, status, uri in rows
        ]

    def _here(self, artifact_uri: str) -> Path:
        """Where a run's files are: below the store, wherever the store is now, if they are in `artifacts/STUDY/RUN/…`.

        Those of a run that a user began are where MLflow put them.
        """
        path = _path(artifact_uri)
        ours = path.parts[-4:-3] == ("artifacts",) and ".." not in path.parts[-3:]
        return self._whole.joinpath("artifacts", *path.parts[-3:]) if ours else path


class Server:
    """A store behind an MLflow tracking server, with the credentials that MLflow's own client would use.

    Raises:
        StudyError: there is none at the address, or it refuses.
    """

    def __init__(self, address: str):
        self.address = str(address).removesuffix("/")
        try:
            named = urlsplit(self.address).hostname
        except ValueError:
            named = None
        if not named:
            raise StudyError(f"{address} is no address: expected one such as http://127.0.0.1:5000")
        self.client = _client(self.address)
        from mlflow.utils.credentials import get_default_host_creds

        self.credentials = get_default_host_creds(self.address)
        answer = self._get("/api/2.0/mlflow/experiments/search", {"max_results": 1}, max_retries=0, timeout=10)
        if answer.status_code in (401, 403):
            raise StudyError(
                f"{self.address} refuses ({answer.status_code} {answer.reason}): set MLFLOW_TRACKING_USERNAME and "
                f"MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN; or start the server with --allowed-hosts and "
                f"the name it is called by"
            )
        if not (answer.ok and answer.headers.get("Content-Type", "").startswith("application/json")):
            raise StudyError(
                f"{self.address} is no MLflow tracking server (it answers {answer.status_code} {answer.reason}): "
                f"expected the address that shows MLflow in a browser, such as http://127.0.0.1:5000"
            )

    def __str__(self):
        return self.address

    def studies(self) -> list[str]:
        """The names of its studies."""
        found, token = [], None
        while token != "":
            page = self._asked(self.client.search_experiments, max_results=PAGE, page_token=token)
            found += [e.tags.get(contract.STUDY, e.name) for e in page if e.name != "Default"]
            token = page.token or ""
        return sorted(set(found))

    def runs(self, study: str, metrics: Iterable[str] = (), params: bool = False, role: str = "") -> list[Run]:
        """The runs of a study, of whatever role, with the last values of these metrics, and with their params."""
        return self._asked(_runs_by_client, self.client, study, metrics, _path)

    def content(self, run: HasFiles, name: str) -> bytes:
        """One of a run's files.

        Raises:
            StudyError: the server cannot give it.
        """
        answer = self._get("/get-artifact", {"path": name, "run_uuid": run.run_id}, max_retries=2)
        if not answer.ok:
            raise StudyError(
                f"{self.address} cannot give {name} of run {run.run_id} ({answer.status_code} {answer.reason}): on the "
                f"server's machine it should be in {run.folder}. If the store was moved there, run a study in it: that "
                f"puts the places of its files right"
            )
        return answer.content

    def has(self, run: HasFiles, name: str) -> bool:
        """Whether a file is among a run's."""
        return any(file.path == name for file in self._asked(self.client.list_artifacts, run.run_id))

    def _get(self, endpoint, params, **settings):
        from mlflow.utils.rest_utils import http_request

        settings = {"params": params, "raise_on_status": False, **settings}
        return self._asked(http_request, self.credentials, endpoint, "GET", **settings)

    def _asked(self, ask, *arguments, **settings):
        from mlflow.exceptions import MlflowException

        try:
            return ask(*arguments, **settings)
        except MlflowException as error:
            raise StudyError(
                f"{self.address} does not answer ({_reason(error)}): start it with mlflow server, or name another "
                f"store with --root, a folder or an address such as http://127.0.0.1:5000"
            ) from error


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


def _client(uri: str):
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    return MlflowClient(uri)


def _runs_by_client(client, study, metrics, place) -> list[Run]:
    tagged = client.search_experiments(filter_string=f"tags.`{contract.STUDY}` = '{study}'")
    experiment = tagged[0] if tagged else client.get_experiment_by_name(study)
    if experiment is None:
        return []
    runs, token, wanted = [], None, frozenset(metrics)
    while token != "":
        page = client.search_runs([experiment.experiment_id], max_results=PAGE, page_token=token)
        runs += [
            Run(
                run.info.run_id,
                run.info.experiment_id,
                run.info.start_time,
                run.info.end_time,
                run.info.status,
                place(run.info.artifact_uri),
                run.data.tags,
                {name: value for name, value in run.data.metrics.items() if name in wanted},
                run.data.params,
            )
            for run in page
        ]
        token = page.token or ""
    return runs


def _path(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path))


def _reason(error: Exception) -> str:
    """The innermost part of what a failed request says, in one line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rpartition("] ")[2].rstrip(")'\"") if "Errno" in lines[0] else lines[0][:200]
