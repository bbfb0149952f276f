"""MLflow's SQLite database, made by MLflow and written in its own tables.

MLflow's client takes 50 ms to write a small run in some forty statements, and 5 s to make a database. Here a whole run
is one transaction of 3 ms, which is there or is not when the driver is killed; and the database is made in a process
of its own while the workers start. Only for database versions whose tables are known; `studies.tracking` has the client
for others.
"""

import fcntl
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from filelock import FileLock

from studies.record import StudyError

KNOWN_VERSIONS = ("dc11669786a5",)

MAKE = """
import sys
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
SqlAlchemyStore("sqlite:///" + sys.argv[1], sys.argv[2])
"""


def uri(root: str | Path) -> str:
    """MLflow's name of the store under `root`."""
    return f"sqlite:///{Path(root).resolve() / 'mlflow.db'}"


def check_writable(root: str | Path) -> None:
    """Refuse a root where no store can be kept, before anything trains.

    Raises:
        StudyError: it cannot be made, or written.
    """
    root = Path(root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
        database = root / "mlflow.db"
        if database.exists():
            with open(database, "r+b") as file:
                head = file.read(16)
            if head and head != b"SQLite format 3\0":
                raise OSError("mlflow.db there is not an SQLite database")
    except OSError as error:
        raise StudyError(
            f"tracking.root={root}: the store cannot be written ({error.strerror or error}). Name a folder of your own "
            f"with tracking.root=FOLDER"
        ) from error


@contextmanager
def claimed(root: str | Path, study: str, sweep: str) -> Iterator[None]:
    """Keep other drivers from a study, but for the jobs of one sweep.

    Args:
        sweep: what the jobs of one sweep have in common; empty for a driver that is none.

    Raises:
        StudyError: another driver has the study.
    """
    with open(Path(root) / f".{study}.lock", "a+") as file:
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
        file.write(sweep)
        file.flush()
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


class Maker:
    """A fresh database in the making, in a process of its own; it is in nobody's way until it is put in its place.

    Args:
        root: the store's folder; nothing is made if there is a database in it already.
    """

    def __init__(self, root: str | Path):
        self.database, self.process = Path(root).resolve() / "mlflow.db", None
        if not self._is_there():
            self.folder = Path(tempfile.mkdtemp(prefix="mlflow-"))
            artifacts = (self.database.parent / "artifacts").as_uri()
            command = [sys.executable, "-c", MAKE, str(self.folder / "mlflow.db"), artifacts]
            self.process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
            )

    def place(self) -> None:
        """Wait until it is made, and move it to its place.

        Raises:
            StudyError: MLflow could not make it.
        """
        if self.process is None:
            return
        errors = self.process.communicate()[1].decode(errors="replace")
        if self.process.returncode:
            raise StudyError(f"MLflow could not make its database: {errors.strip().splitlines()[-1]}")
        with FileLock(self.database.with_name(".mlflow.lock")):  # another study may have been faster
            if not self._is_there():
                near = self.database.with_name(".mlflow.db.new")
                shutil.move(self.folder / "mlflow.db", near)
                near.replace(self.database)  # whole, whoever looks meanwhile

    def discard(self) -> None:
        """Leave nothing behind."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            shutil.rmtree(self.folder, ignore_errors=True)
            self.process = None

    def _is_there(self) -> bool:
        return self.database.exists() and self.database.stat().st_size > 0


def version(database: Path) -> str | None:
    """The version of an MLflow database's tables, None if it has none yet."""
    with closing(_connect(database)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
            return None
        return connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]


class Store:
    """Runs of one experiment, written by SQL.

    Args:
        database: an MLflow database of a version in `KNOWN_VERSIONS`.
        experiment: its name; made if it is not there, restored if it was deleted.
        location: the experiment's artifacts, a URI.
    """

    def __init__(self, database: Path, experiment: str, location: str):
        self.database, self.location = database, location
        now = _now()
        with closing(_connect(database)) as connection, connection:
            connection.execute(
                "INSERT INTO experiments (name, artifact_location, lifecycle_stage, creation_time, last_update_time) "
                "VALUES (?, ?, 'active', ?, ?) "
                "ON CONFLICT (workspace, name) DO UPDATE SET lifecycle_stage = 'active', last_update_time = ?",
                (experiment, location, now, now, now),
            )
            query = "SELECT experiment_id FROM experiments WHERE name = ?"
            self.experiment = connection.execute(query, (experiment,)).fetchone()[0]

    def describe(self, tags: dict[str, str]) -> None:
        """Give the experiment tags, its description among them."""
        with closing(_connect(self.database)) as connection, connection:
            statement = "INSERT OR REPLACE INTO experiment_tags (key, value, experiment_id) VALUES (?, ?, ?)"
            connection.executemany(statement, [(key, value, self.experiment) for key, value in tags.items()])

    def begin(self, name: str, tags: dict[str, str], start: int) -> str:
        """A new run's id; the run is there from its first `write` on."""
        self._begun = name, tags | {"mlflow.runName": name}, start
        return uuid.uuid4().hex

    def write(
        self, run: str, status: str, end: int | None, params: dict[str, str], metrics: list, dataset: dict | None = None
    ) -> None:
        """Write a run that was just begun, whole.

        Args:
            params: name -> value.
            metrics: `(name, value, step)`, finite values. MLflow shows them, and params, in the order that they have.
            dataset: what it trained on, from `studies.data.entry`.
        """
        name, tags, start = self._begun
        now = _now()
        in_order = dict.fromkeys(entry[0] for entry in metrics)
        latest = in_order | {entry[0]: entry for entry in sorted(metrics, key=lambda entry: entry[2])}
        with closing(_connect(self.database)) as connection, connection:
            connection.execute(
                "INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, "
                "start_time, end_time, source_version, lifecycle_stage, artifact_uri, experiment_id) "
                "VALUES (?, ?, 'LOCAL', 'studies.run', '', '', ?, ?, ?, '', 'active', ?, ?)",
                (run, name, status, start, end, f"{self.location}/{run}/artifacts", self.experiment),
            )
            for table, pairs in (("tags", tags), ("params", params)):
                statement = f"INSERT INTO {table} (key, value, run_uuid) VALUES (?, ?, ?)"
                connection.executemany(statement, [(key, value, run) for key, value in pairs.items()])
            for table, entries in (("metrics", metrics), ("latest_metrics", latest.values())):
                statement = (
                    f"INSERT INTO {table} (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, 0)"
                )
                connection.executemany(statement, [(key, value, now, run, step) for key, value, step in entries])
            if dataset:
                self._add_input(connection, run, dataset)

    def _add_input(self, connection, run, dataset) -> None:
        connection.execute(
            "INSERT OR IGNORE INTO datasets (dataset_uuid, experiment_id, name, digest, dataset_source_type, "
            "dataset_source, dataset_profile) VALUES "
            "(:uuid, :experiment, :name, :digest, :source_type, :source, :profile)",
            dataset | {"uuid": uuid.uuid4().hex, "experiment": self.experiment},
        )
        query = "SELECT dataset_uuid FROM datasets WHERE experiment_id = ? AND name = ? AND digest = ?"
        [known] = connection.execute(query, (self.experiment, dataset["name"], dataset["digest"])).fetchone()
        edge = uuid.uuid4().hex
        connection.execute(
            "INSERT INTO inputs (input_uuid, source_type, source_id, destination_type, destination_id) "
            "VALUES (?, 'DATASET', ?, 'RUN', ?)",
            (edge, known, run),
        )
        tag = "INSERT INTO input_tags (input_uuid, name, value) VALUES (?, 'mlflow.data.context', 'training')"
        connection.execute(tag, (edge,))

    def end(self, run: str, status: str, note: str) -> None:
        """End a run that was written as RUNNING."""
        with closing(_connect(self.database)) as connection, connection:
            connection.execute("UPDATE runs SET status = ?, end_time = ? WHERE run_uuid = ?", (status, _now(), run))
            tag = "INSERT OR REPLACE INTO tags (key, value, run_uuid) VALUES (?, ?, ?)"
            connection.execute(tag, ("mlflow.note.content", note, run))

    def end_leftovers(self, sweep: str) -> None:
        """Say of runs that a killed driver left RUNNING that they were killed; those of this sweep may live."""
        with closing(_connect(self.database)) as connection, connection:
            killed = (
                "UPDATE runs SET status = 'KILLED', end_time = ? WHERE status = 'RUNNING' AND experiment_id = ? "
                "AND run_uuid NOT IN (SELECT run_uuid FROM tags WHERE key = 'sweep' AND value = ?)"
            )
            connection.execute(killed, (_now(), self.experiment, sweep))

    def sweep_run(self, sweep: str) -> str | None:
        """The run that the executions of a sweep are nested in, if there is one yet."""
        with closing(_connect(self.database)) as connection:
            query = (
                "SELECT run_uuid FROM runs JOIN tags USING (run_uuid) JOIN tags AS roles USING (run_uuid) WHERE "
                "experiment_id = ? AND tags.key = 'sweep' AND tags.value = ? AND roles.key = 'trial.role' AND "
                "roles.value = 'sweep'"
            )
            found = connection.execute(query, (self.experiment, sweep)).fetchone()
            return found and found[0]


def move_artifacts(database: Path, artifacts: Path) -> None:
    """MLflow keeps absolute artifact locations: point them here again if the store's folder was moved."""
    with closing(_connect(database)) as connection, connection:
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            rows = connection.execute(f"SELECT rowid, {column} FROM {table} WHERE {column} LIKE 'file://%/artifacts/%'")
            for row, location in rows.fetchall():
                here = f"{artifacts.as_uri()}/{location.split('/artifacts/', 1)[1]}"
                if here != location:
                    connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (here, row))


def _connect(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(database, timeout=60)


def _now() -> int:
    return int(time.time() * 1000)
