"""Runs of a study's experiment, written in the tables of MLflow's database: SQLite's in a folder, or PostgreSQL's.

MLflow's client takes 50 ms to write a small run in some forty statements. Here a whole run is one transaction of 3 ms,
which is there or is not when the driver is killed, or the database is. Only for database versions whose tables are
known; `client` is for others.
"""

import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from studies import contract, waiting
from studies.address import Address
from studies.contract import Tag
from studies.store.database import found, mark, transaction

T = TypeVar("T")

TAG = (
    "INSERT INTO tags (key, value, run_uuid) VALUES (?, ?, ?) "
    "ON CONFLICT (key, run_uuid) DO UPDATE SET value = excluded.value"
)

ENDED = "end_time = CASE WHEN start_time > ? THEN start_time ELSE ? END"
"""Now, unless the clock has stepped back since."""


class Store:
    """Runs of a study's experiment, written by SQL.

    Args:
        place: a store's folder, or the address of a database; its version is one of `contract.SCHEMAS`.
        study: the study's name; its experiment is made if it is not there, restored if it was deleted.

    Raises:
        StudyError: an experiment of that name holds something else.
    """

    def __init__(self, place: Path | Address, study: str):
        self.place = place
        self.experiment, self.location = self._do(lambda connection: self._experiment(connection, study))
        self._begun: dict[str, tuple] = {}

    def _do(self, work: Callable[[Any], T]) -> T:
        """What some work gives that is done in one transaction, again if it is not known to have been done."""

        def whole():
            with transaction(self.place) as connection:
                return work(connection)

        return waiting.asked(self.place, whole)

    def _experiment(self, connection, study) -> tuple[int, str]:
        in_folder, now = isinstance(self.place, Path), _now()
        # Jobs of one sweep make it once.
        connection.execute("BEGIN IMMEDIATE" if in_folder else "LOCK TABLE experiments IN SHARE ROW EXCLUSIVE MODE")
        experiment, location = found(connection, self.place, study)
        if experiment is None:
            columns = "name, artifact_location, lifecycle_stage, creation_time, last_update_time"
            statement = f"INSERT INTO experiments ({columns}) VALUES (?, ?, 'active', ?, ?)"
            connection.execute(statement, (study, location, now, now))
            query = "SELECT experiment_id FROM experiments WHERE name = ?"
            [experiment] = connection.execute(query, (study,)).fetchone()
            mark(connection, experiment, study, self.place)
        restore = (
            "UPDATE experiments SET lifecycle_stage = 'active', last_update_time = ? "
            "WHERE experiment_id = ? AND lifecycle_stage <> 'active'"
        )
        connection.execute(restore, (now, experiment))
        return experiment, location

    def describe(self, tags: dict[str, str]) -> None:
        """Give the experiment tags, its description among them."""
        statement = (
            "INSERT INTO experiment_tags (key, value, experiment_id) VALUES (?, ?, ?) "
            "ON CONFLICT (key, experiment_id) DO UPDATE SET value = excluded.value"
        )
        rows = [(key, value, self.experiment) for key, value in tags.items()]
        self._do(lambda connection: connection.executemany(statement, rows))

    def begin(self, name: str, tags: dict[str, str], start: int) -> str:
        """A new run's id; the run is there from its first `write` on."""
        run = uuid.uuid4().hex
        self._begun[run] = name, self._parted(tags | {"mlflow.runName": name}), start
        return run

    def _parted(self, tags: dict[str, str]) -> dict[str, str]:
        """Tags as the database takes them: SQLite keeps texts of any length."""
        return tags if isinstance(self.place, Path) else contract.parted(tags)

    def write(
        self, run: str, status: str, end: int | None, params: dict[str, str], metrics: list, dataset: dict | None = None
    ) -> None:
        """Write a run that was just begun, whole.

        Args:
            params: name -> value.
            metrics: `(name, value, step)`, finite values. MLflow shows them, and params, in the order that they have.
            dataset: what it trained on, from `studies.factors.data.entry`.
        """
        name, tags, start = self._begun.pop(run)
        now = _now()

        def whole(connection):
            if connection.execute("SELECT 1 FROM runs WHERE run_uuid = ?", (run,)).fetchone():
                return  # it was written, and the answer was lost
            connection.execute(
                "INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, "
                "start_time, end_time, source_version, lifecycle_stage, artifact_uri, experiment_id) "
                "VALUES (?, ?, 'LOCAL', 'studies.run', '', '', ?, ?, ?, '', 'active', ?, ?)",
                (run, name, status, start, end, f"{self.location}/{run}/artifacts", self.experiment),
            )
            for table, pairs in (("tags", tags), ("params", params)):
                statement = f"INSERT INTO {table} (key, value, run_uuid) VALUES (?, ?, ?)"
                connection.executemany(statement, [(key, value, run) for key, value in pairs.items()])
            self._add_metrics(connection, run, metrics, now)
            if dataset:
                self._add_input(connection, run, dataset)

        self._do(whole)

    def tag(self, run: str, tags: dict[str, str]) -> None:
        """Give a run tags."""
        self._do(lambda connection: self._add_tags(connection, run, tags))

    def _add_tags(self, connection, run, tags) -> None:
        connection.executemany(TAG, [(key, value, run) for key, value in self._parted(tags).items()])

    def _add_metrics(self, connection, run, metrics, now) -> None:
        latest = {entry[0]: entry for entry in metrics}  # in their order
        latest |= {entry[0]: entry for entry in sorted(metrics, key=lambda entry: entry[2])}
        for table, entries in (("metrics", metrics), ("latest_metrics", latest.values())):
            statement = (
                f"INSERT INTO {table} (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, FALSE) "
                f"ON CONFLICT DO NOTHING"
            )
            connection.executemany(statement, [(key, value, now, run, step) for key, value, step in entries])

    def _add_input(self, connection, run, dataset) -> None:
        names = ("name", "digest", "source_type", "source", "profile")
        connection.execute(
            "INSERT INTO datasets (dataset_uuid, experiment_id, name, digest, dataset_source_type, dataset_source, "
            "dataset_profile) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (uuid.uuid4().hex, self.experiment, *(dataset[name] for name in names)),
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
        now, entries = _now(), list(metrics)

        def whole(connection):
            connection.execute(f"UPDATE runs SET status = ?, {ENDED} WHERE run_uuid = ?", (status, now, now, run))
            self._add_tags(connection, run, tags)
            self._add_metrics(connection, run, entries, now)

        self._do(whole)

    def end_leftovers(self, sweep: str) -> None:
        """Say of runs that a killed driver left RUNNING that they were killed; those of this sweep may live.

        What a user has begun in the experiment is none of ours.
        """
        now = _now()
        killed = (
            f"UPDATE runs SET status = 'KILLED', {ENDED} WHERE status = 'RUNNING' AND experiment_id = ? "
            "AND run_uuid IN (SELECT run_uuid FROM tags WHERE key = ?) "
            "AND run_uuid NOT IN (SELECT run_uuid FROM tags WHERE key = 'sweep' AND value = ?)"
        )
        values = now, now, self.experiment, Tag.ROLE, sweep
        self._do(lambda connection: connection.execute(killed, values) and None)

    def sweep_run(self, sweep: str) -> str | None:
        """The run that the executions of a sweep are nested in, if there is one yet."""
        query = (
            "SELECT run_uuid FROM runs JOIN tags USING (run_uuid) JOIN tags AS roles USING (run_uuid) WHERE "
            "experiment_id = ? AND tags.key = 'sweep' AND tags.value = ? AND roles.key = 'trial.role' AND "
            "roles.value = 'sweep'"
        )
        return self._one(query, self.experiment, sweep)

    def execution(self, fits: bool) -> str | None:
        """The last execution there is of one's own fits, or of a study that was declared."""
        query = (
            "SELECT run_uuid FROM runs JOIN tags AS roles USING (run_uuid) WHERE experiment_id = ? AND "
            "lifecycle_stage = 'active' AND roles.key = ? AND roles.value = 'execution' AND ? = EXISTS "
            "(SELECT 1 FROM tags WHERE tags.run_uuid = runs.run_uuid AND key = ?) ORDER BY start_time DESC"
        )
        return self._one(query, self.experiment, Tag.ROLE, fits, Tag.FITS)

    def runs(self) -> set[str]:
        """The ids of all runs in the database, of whatever study."""
        return {
            run for (run,) in self._do(lambda connection: connection.execute("SELECT run_uuid FROM runs").fetchall())
        }

    def latest(self) -> int:
        """When the last of the study's runs began, or was asked for, by the clocks of then: milliseconds since 1970."""
        started = "SELECT MAX(start_time) FROM runs WHERE experiment_id = ?"
        asked = "SELECT value FROM tags JOIN runs USING (run_uuid) WHERE experiment_id = ? AND key IN (?, ?)"

        def whole(connection):
            [(last,)] = connection.execute(started, (self.experiment,)).fetchall()
            moments = connection.execute(asked, (self.experiment, Tag.ASKED, Tag.JOINED)).fetchall()
            return max([last or 0, *(contract.moment(said) for (said,) in moments)])

        return self._do(whole)

    def _one(self, query, *values) -> str | None:
        found = self._do(lambda connection: connection.execute(query, values).fetchone())
        return found and found[0]


def _now() -> int:
    return int(time.time() * 1000)
