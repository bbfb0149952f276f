"""Runs of a study's experiment, written in the tables of MLflow's database.

MLflow's client takes 50 ms to write a small run in some forty statements. Here a whole run is one transaction of 3 ms,
which is there or is not when the driver is killed. Only for database versions whose tables are known; `client` is for
others.
"""

import time
import uuid
from collections.abc import Iterable
from pathlib import Path

from studies.contract import Tag
from studies.store.database import found, mark, transaction


class Store:
    """Runs of a study's experiment, written by SQL.

    Args:
        database: an MLflow database of a version in `contract.SCHEMAS`.
        study: the study's name; its experiment is made if it is not there, restored if it was deleted.

    Raises:
        StudyError: an experiment of that name holds something else.
    """

    def __init__(self, database: Path, study: str):
        self.database = database
        now = _now()
        with transaction(database) as connection:
            connection.execute("BEGIN IMMEDIATE")  # jobs of one sweep make it once
            self.experiment, self.location = found(connection, database.parent, study)
            if self.experiment is None:
                columns = "name, artifact_location, lifecycle_stage, creation_time, last_update_time"
                statement = f"INSERT INTO experiments ({columns}) VALUES (?, ?, 'active', ?, ?)"
                self.experiment = connection.execute(statement, (study, self.location, now, now)).lastrowid
                mark(connection, self.experiment, study, database.parent)
            restore = (
                "UPDATE experiments SET lifecycle_stage = 'active', last_update_time = ? "
                "WHERE experiment_id = ? AND lifecycle_stage <> 'active'"
            )
            connection.execute(restore, (now, self.experiment))

    def describe(self, tags: dict[str, str]) -> None:
        """Give the experiment tags, its description among them."""
        with transaction(self.database) as connection:
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
            dataset: what it trained on, from `studies.factors.data.entry`.
        """
        name, tags, start = self._begun
        with transaction(self.database) as connection:
            connection.execute(
                "INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, "
                "start_time, end_time, source_version, lifecycle_stage, artifact_uri, experiment_id) "
                "VALUES (?, ?, 'LOCAL', 'studies.run', '', '', ?, ?, ?, '', 'active', ?, ?)",
                (run, name, status, start, end, f"{self.location}/{run}/artifacts", self.experiment),
            )
            for table, pairs in (("tags", tags), ("params", params)):
                statement = f"INSERT INTO {table} (key, value, run_uuid) VALUES (?, ?, ?)"
                connection.executemany(statement, [(key, value, run) for key, value in pairs.items()])
            self._add_metrics(connection, run, metrics)
            if dataset:
                self._add_input(connection, run, dataset)

    def tag(self, run: str, tags: dict[str, str]) -> None:
        """Give a run tags."""
        with transaction(self.database) as connection:
            self._add_tags(connection, run, tags)

    def _add_tags(self, connection, run, tags) -> None:
        tag = "INSERT OR REPLACE INTO tags (key, value, run_uuid) VALUES (?, ?, ?)"
        connection.executemany(tag, [(key, value, run) for key, value in tags.items()])

    def _add_metrics(self, connection, run, metrics) -> None:
        now, latest = _now(), {entry[0]: entry for entry in metrics}  # in their order
        latest |= {entry[0]: entry for entry in sorted(metrics, key=lambda entry: entry[2])}
        for table, entries in (("metrics", metrics), ("latest_metrics", latest.values())):
            statement = f"INSERT INTO {table} (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, 0)"
            connection.executemany(statement, [(key, value, now, run, step) for key, value, step in entries])

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

    def end(self, run: str, status: str, tags: dict[str, str], metrics: Iterable[tuple] = ()) -> None:
        """End a run that was written as RUNNING, tag it, and give it metrics, `(name, value, step)`."""
        with transaction(self.database) as connection:
            connection.execute("UPDATE runs SET status = ?, end_time = ? WHERE run_uuid = ?", (status, _now(), run))
            self._add_tags(connection, run, tags)
            self._add_metrics(connection, run, list(metrics))

    def end_leftovers(self, sweep: str) -> None:
        """Say of runs that a killed driver left RUNNING that they were killed; those of this sweep may live."""
        with transaction(self.database) as connection:
            killed = (
                "UPDATE runs SET status = 'KILLED', end_time = ? WHERE status = 'RUNNING' AND experiment_id = ? "
                "AND run_uuid NOT IN (SELECT run_uuid FROM tags WHERE key = 'sweep' AND value = ?)"
            )
            connection.execute(killed, (_now(), self.experiment, sweep))

    def sweep_run(self, sweep: str) -> str | None:
        """The run that the executions of a sweep are nested in, if there is one yet."""
        with transaction(self.database) as connection:
            query = (
                "SELECT run_uuid FROM runs JOIN tags USING (run_uuid) JOIN tags AS roles USING (run_uuid) WHERE "
                "experiment_id = ? AND tags.key = 'sweep' AND tags.value = ? AND roles.key = 'trial.role' AND "
                "roles.value = 'sweep'"
            )
            found = connection.execute(query, (self.experiment, sweep)).fetchone()
            return found and found[0]

    def execution(self, fits: bool) -> str | None:
        """The last execution there is of one's own fits, or of a study that was declared."""
        with transaction(self.database) as connection:
            query = (
                "SELECT run_uuid FROM runs JOIN tags AS roles USING (run_uuid) WHERE experiment_id = ? AND "
                "lifecycle_stage = 'active' AND roles.key = ? AND roles.value = 'execution' AND ? = EXISTS "
                "(SELECT 1 FROM tags WHERE tags.run_uuid = runs.run_uuid AND key = ?) ORDER BY start_time DESC"
            )
            found = connection.execute(query, (self.experiment, Tag.ROLE, fits, Tag.FITS)).fetchone()
            return found and found[0]


def _now() -> int:
    return int(time.time() * 1000)
