"""The only writer of MLflow: a parent run for an execution of a study, a child run for each trial.

A child is written when its trial has ended, in one go, and terminated last: a run that is still RUNNING when no driver
lives is the leftover of a killed one, and goes.
"""

import json
import os
import platform
import sqlite3
import tempfile
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from studies.record import EPOCH_COLUMNS, LAYER_COLUMNS, STATISTICS, StudyError, content_key

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")

CHARTED = {"weights": ("l2", "distance"), "gradients": ("gradient_norm",), "updates": ("update_ratio",)}
"""The statistics of kernels that MLflow charts; every one is in layers.parquet."""

CHARTED_EPOCHS = 12
CURVES = ("learning_rate", "train_loss", "train_accuracy", "val_loss", "val_accuracy")
FINAL = (
    "best_val_loss",
    "best_val_accuracy",
    "test_loss",
    "test_accuracy",
    "epochs",
    "parameters",
    "classes",
    "seconds_build",
    "seconds_train",
    "seconds_total",
    "memory_mb",
)
RUN_STATUS = {"finished": "FINISHED", "diverged": "FINISHED", "timeout": "KILLED", "crashed": "FAILED"}
KNOWN_SCHEMAS = ("dc11669786a5",)
"""MLflow database versions whose metric tables `_insert_metrics` writes itself, 40 times faster than `log_batch`."""


def store_uri(root: str | Path) -> str:
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


class Execution:
    """One invocation of a study in the store: opened, given each trial's records, closed.

    Args:
        root: the store's folder.
        study: the study.
        trials: every trial of the design, finished ones too.
        config: the study's composed config, as text.
    """

    def __init__(self, root, study, trials, config: str):
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.tracking import MlflowClient

        self.entities = Metric, Param, RunTag
        self.root, self.study = Path(root).resolve(), study
        self.artifacts = self.root / "artifacts"
        _move_artifacts(self.root / "mlflow.db", self.artifacts)
        self.client = MlflowClient(store_uri(self.root))
        self.experiment = self._experiment()
        self._remove_leftovers()
        self.fast = _schema(self.root / "mlflow.db") in KNOWN_SCHEMAS
        self.versions = {f"version.{name}": version(name) for name in ("tensorflow", "keras", "mlflow", "numpy")}
        tags = {
            "study": study.name,
            "study.design": json.dumps(asdict(study)),
            "study.hash": content_key([trial.key for trial in trials]),
            "trial.role": "execution",
            "machine": f"{platform.node()} {platform.machine()} {os.cpu_count()} cores",
            "mlflow.note.content": study.question,
            **self.versions,
        }
        self.parent = self.client.create_run(
            self.experiment, run_name=f"{study.name} ({len(trials)} trials)", tags=tags
        ).info
        folder = self._folder(self.parent)
        (folder / "study.yaml").write_text(config)
        (folder / "trials.json").write_text(json.dumps([trial.key for trial in trials]))

    def write(self, trial, epochs, layers, result) -> None:
        """Write one ended trial.

        Args:
            epochs, layers: its `EpochRecord`s and `LayerRecord`s.
            result: its `Result`.
        """
        Metric, Param, RunTag = self.entities
        now = int(time.time() * 1000)
        seconds = 0 if result.seconds_total != result.seconds_total else result.seconds_total
        tags = {
            "study": self.study.name,
            "trial.key": trial.key,
            "trial.seed": str(trial.seed),
            "trial.role": trial.role,
            "trial.status": result.status,
            "trial.arm": json.dumps(trial.arm),
            "trial.overrides": json.dumps(trial.overrides)[:8000],
            "mlflow.parentRunId": self.parent.run_id,
            **self.versions,
        }
        if result.error:
            tags["trial.error"] = result.error[-5000:]
        run = self.client.create_run(
            self.experiment,
            start_time=now - int(1000 * seconds),
            run_name=f"{trial.label()} seed={trial.seed}",
            tags=tags,
        ).info
        params = {factor: str(level) for factor, level in trial.arm.items()} | {"seed": str(trial.seed)}
        params |= {name: value for name, value in _main_values(trial.config).items() if name not in params}
        self.client.log_batch(run.run_id, params=[Param(name, value) for name, value in list(params.items())[:100]])
        self._log_metrics(run.run_id, now, _metrics(epochs, layers, result))

        folder = self._folder(run)
        (folder / "config.yaml").write_text(_yaml(trial.config))
        _write_parquet(folder / "epochs.parquet", EPOCH_COLUMNS, [tuple(asdict(record).values()) for record in epochs])
        rows = [(record.key, record.epoch, record.layer, record.tensor, *record.statistics) for record in layers]
        _write_parquet(folder / "layers.parquet", LAYER_COLUMNS, rows)
        self.client.set_terminated(run.run_id, RUN_STATUS[result.status], end_time=now)

    def close(self, status: str, table: str = "") -> None:
        """End the execution with an MLflow status, and keep its table in Markdown."""
        if table:
            (self._folder(self.parent) / "comparison.md").write_text(table)
            self.client.set_tag(self.parent.run_id, "mlflow.note.content", f"{self.study.question}\n\n{table}"[:8000])
        self.client.set_terminated(self.parent.run_id, status)

    def _experiment(self) -> str:
        known = self.client.get_experiment_by_name(self.study.name)
        if known:
            if known.lifecycle_stage == "deleted":
                self.client.restore_experiment(known.experiment_id)
            return known.experiment_id
        location = (self.artifacts / self.study.name.replace(" ", "_")).as_uri()
        tags = {"mlflow.note.content": self.study.question}
        return self.client.create_experiment(self.study.name, artifact_location=location, tags=tags)

    def _remove_leftovers(self):
        running = self.client.search_runs([self.experiment], "attributes.status = 'RUNNING'", max_results=1000)
        for run in running:
            if run.data.tags.get("trial.role") == "execution":
                self.client.set_terminated(run.info.run_id, "KILLED")
            else:
                self.client.delete_run(run.info.run_id)

    def _folder(self, run) -> Path:
        folder = self.artifacts / self.study.name.replace(" ", "_") / run.run_id / "artifacts"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _log_metrics(self, run_id, now, metrics):
        if self.fast:
            _insert_metrics(self.root / "mlflow.db", run_id, now, metrics)
            return
        entities = [self.entities[0](name, value, now, step) for name, value, step in metrics]
        for start in range(0, len(entities), 1000):
            self.client.log_batch(run_id, metrics=entities[start : start + 1000])


def charted(epochs: list[int]) -> set[int]:
    """About a dozen of the epochs, log-spaced: the first and the last among them.

    >>> sorted(charted(list(range(31))))
    [0, 1, 2, 3, 4, 5, 7, 9, 12, 16, 22, 30]
    """
    if len(epochs) <= CHARTED_EPOCHS:
        return set(epochs)
    last, count = len(epochs) - 1, CHARTED_EPOCHS - 1
    places = {0, last}
    for fewer in range(count):
        places |= {round(last ** (fewer / (count - 1)))}
    step = 1
    while len(places) < CHARTED_EPOCHS:  # rounding made neighbours meet: fill up from the first epochs
        places.add(step)
        step += 1
    return {epochs[place] for place in places}


def _metrics(epochs, layers, result) -> list[tuple[str, float, int]]:
    """Name, value and step of what goes into MLflow; only finite values, which is all it can keep."""
    steps = charted([record.epoch for record in epochs])
    metrics = [
        (name, getattr(record, name), record.epoch) for record in epochs if record.epoch in steps for name in CURVES
    ]
    places = {name: STATISTICS.index(name) for names in CHARTED.values() for name in names}
    for record in layers:
        if record.tensor.endswith("kernel") and record.epoch in steps:
            layer = record.layer.replace("(", "").replace(")", "")
            for family, names in CHARTED.items():
                metrics += [
                    (
                        f"{family}/{layer}/{name.removeprefix('gradient_').removeprefix('update_')}",
                        record.statistics[places[name]],
                        record.epoch,
                    )
                    for name in names
                ]
    last = epochs[-1].epoch if epochs else 0
    metrics += [(name, float(getattr(result, name)), last) for name in FINAL]
    return [metric for metric in metrics if abs(metric[1]) < float("inf")]


def _insert_metrics(database, run_id, now, metrics):
    rows = [(name, value, now, run_id, step) for name, value, step in metrics]
    latest = {row[0]: row for row in sorted(rows, key=lambda row: row[4])}
    with sqlite3.connect(database, timeout=60) as connection:
        statement = "INSERT INTO {} (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, 0)"
        connection.executemany(statement.format("metrics"), rows)
        connection.executemany(statement.format("latest_metrics"), list(latest.values()))
    connection.close()


def _schema(database) -> str:
    with sqlite3.connect(database) as connection:
        found = connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]
    connection.close()
    return found


def _move_artifacts(database: Path, artifacts: Path) -> None:
    """MLflow keeps absolute artifact locations: point them here again if the store's folder was moved."""
    if not database.exists():
        return
    connection = sqlite3.connect(database, timeout=60)
    try:
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            rows = connection.execute(f"SELECT rowid, {column} FROM {table} WHERE {column} LIKE 'file://%/artifacts/%'")
            for row, location in rows.fetchall():
                tail = location.split("/artifacts/", 1)[1]
                here = f"{artifacts.as_uri()}/{tail}"
                if here != location:
                    connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (here, row))
        connection.commit()
    except sqlite3.OperationalError:
        pass  # an empty file: MLflow will make its tables
    finally:
        connection.close()


def _main_values(config: dict) -> dict[str, str]:
    """The config's main values, flat: what a group's target is called, and its settings."""
    values = {}
    for group in ("data", "model", "initializer", "optimizer", "schedule", "regularizer", "clipping", "training"):
        for name, value in config[group].items():
            if name == "_target_":
                values[group] = str(value).rpartition(".")[2]
            elif not isinstance(value, dict):
                values[f"{group}.{name}"] = str(value)[:500]
    return values


def _write_parquet(path, names, rows):
    import pyarrow
    from pyarrow import parquet

    columns = zip(*rows, strict=True) if rows else ([] for _ in names)
    table = pyarrow.table(dict(zip(names, map(pyarrow.array, columns), strict=True)))
    parquet.write_table(
        table, path, compression="zstd", use_dictionary=["key", "layer", "tensor"] if "layer" in names else False
    )


def _yaml(config) -> str:
    import yaml

    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
