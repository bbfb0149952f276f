"""The only reader of MLflow: a study's trials, epochs and layers as tidy frames."""

import json
import os
import sqlite3
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from studies.record import EPOCH_COLUMNS, LAYER_COLUMNS, METRICS, Study, StudyError, listed

KNOWN_SCHEMAS = ("dc11669786a5",)
"""MLflow database versions that are read by SQL, 25 times faster than through MLflow's client."""

NUMBERS = (*METRICS, "epochs", "parameters", "classes", "seconds_build", "seconds_train", "seconds_total", "memory_mb")


@dataclass(frozen=True)
class Run:
    """What is read of an MLflow run, whichever way."""

    run_id: str
    start_time: int
    end_time: int | None
    status: str
    folder: Path
    tags: dict[str, str]
    metrics: dict[str, float]


@dataclass(frozen=True)
class Execution:
    """One invocation of a study: its design, and the keys of all its trials but those that only tune."""

    study: Study
    hash: str
    keys: tuple[str, ...]
    status: str
    folder: Path
    tags: dict[str, str]
    start_time: int
    end_time: int | None


def studies(root: str | Path = "mlruns") -> list[str]:
    """The names of the studies in a store."""
    if not _database(root).exists():
        return []
    with _connected(root) as connection:
        rows = connection.execute("SELECT name FROM experiments WHERE lifecycle_stage = 'active' AND name <> 'Default'")
        return sorted(name for (name,) in rows)


def execution(study: str, root: str | Path = "mlruns") -> Execution:
    """The study's latest execution.

    Raises:
        StudyError: the store has no such study.
    """
    parents = [run for run in _runs(study, root) if run.tags.get("trial.role") == "execution"]
    if not parents:
        known = listed(studies(root)) or "none yet"
        raise StudyError(
            f"no study {study!r} in {root}: it has {known}. Run it with python -m studies.run"
            f"{'' if study == 'single' else f' +study={study}'}, or name another store with --root FOLDER"
        )
    last = max(parents, key=lambda run: run.start_time)
    design = json.loads(last.tags["study.design"])
    for role in ("factors", "nuisance"):
        design[role] = {factor: tuple(levels) for factor, levels in design.get(role, {}).items()}
    for seeds in ("seeds", "tuning_seeds"):
        design[seeds] = tuple(design.get(seeds, ()))
    for rules in ("zip", "skip", "only", "settings"):
        design[rules] = tuple(tuple(rule) if isinstance(rule, list) else rule for rule in design.get(rules, ()))
    design["figures"] = tuple(design.get("figures", ()))
    keys = json.loads((last.folder / "trials.json").read_text())
    return Execution(
        Study(**design),
        last.tags["study.hash"],
        tuple(keys),
        last.status,
        last.folder,
        last.tags,
        last.start_time,
        last.end_time,
    )


def text(execution: Execution, name: str) -> str:
    """A file of an execution's own, as text; empty if it has none of that name."""
    path = execution.folder / name
    return path.read_text(encoding="utf-8") if path.exists() else ""


def tuning_trials(execution: Execution, root: str | Path = "mlruns") -> pd.DataFrame:
    """The trials that an execution's nuisance factors were tuned with."""
    keys = json.loads(text(execution, "tuning_trials.json") or "[]")
    return trials(execution.study.name, root, keys)


def trials(study: str, root: str | Path = "mlruns", keys=None) -> pd.DataFrame:
    """One row a trial: key, study, role, status, the factors by their config keys, seed, metrics, seconds, error.

    A factor with null among its levels has the dtype object, so that its other levels stay what they are.

    Args:
        keys: of the trials wanted, in the order wanted; None for those of the latest execution.
    """
    keys = execution(study, root).keys if keys is None else keys
    rows = {run.tags["trial.key"]: _row(run) for run in ended(study, root)}
    wanted = [rows[key] for key in keys if key in rows]
    frame = pd.DataFrame(wanted)
    for name in frame:
        if any(row.get(name) is None for row in wanted):
            frame[name] = pd.Series([row.get(name) for row in wanted], dtype=object)
    if frame.empty:
        return pd.DataFrame(columns=["key", "study", "role", "status", "seed", *NUMBERS, "error", "folder"])
    return frame


def epochs(study: str, root: str | Path = "mlruns", keys=None) -> pd.DataFrame:
    """One row a trial and epoch: the columns `studies.record.EPOCH_COLUMNS`."""
    return _parquet(trials(study, root, keys), "epochs.parquet", EPOCH_COLUMNS)


def layers(study: str, root: str | Path = "mlruns", keys=None) -> pd.DataFrame:
    """One row a trial, epoch, layer and tensor: the columns `studies.record.LAYER_COLUMNS`."""
    return _parquet(trials(study, root, keys), "layers.parquet", LAYER_COLUMNS)


def finished_keys(study: str, root: str | Path = "mlruns") -> set[str]:
    """The keys of trials that need not run again: all that ended but for crashes."""
    return {run.tags["trial.key"] for run in ended(study, root) if run.tags["trial.status"] != "crashed"}


def ended(study, root) -> list[Run]:
    """A study's ended trials, the latest run of each key last."""
    runs = [run for run in _runs(study, root) if "trial.key" in run.tags and run.status != "RUNNING"]
    return sorted(runs, key=lambda run: run.start_time)


def _row(run: Run) -> dict:
    tags = run.tags
    identity = {
        "key": tags["trial.key"],
        "study": tags["study"],
        "role": tags["trial.role"],
        "status": tags["trial.status"],
    }
    numbers = {name: run.metrics.get(name, float("nan")) for name in NUMBERS}
    return (
        identity
        | json.loads(tags["trial.arm"])
        | json.loads(tags.get("trial.nuisance", "{}"))
        | {"seed": int(tags["trial.seed"])}
        | numbers
        | {"error": tags.get("trial.error", ""), "warning": tags.get("trial.warning", ""), "folder": run.folder}
    )


def _parquet(frame: pd.DataFrame, name: str, columns) -> pd.DataFrame:
    parts = [pd.read_parquet(folder / name) for folder in frame["folder"]]
    parts = [part for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(columns))


def _database(root) -> Path:
    return Path(root) / "mlflow.db"


class _connected:
    """A read-only connection that is closed at the end; a file that is no database is the user's to put right."""

    def __init__(self, root):
        self.root = root
        self.connection = sqlite3.connect(f"{_database(root).resolve().as_uri()}?mode=ro", uri=True, timeout=60)

    def __enter__(self):
        return self.connection

    def __exit__(self, kind, error, traceback):
        self.connection.close()
        if kind is sqlite3.DatabaseError:
            raise StudyError(
                f"{_database(self.root)} cannot be read ({error}): name another store, or restore it from a copy"
            ) from error


def _runs(study, root) -> list[Run]:
    if not _database(root).exists():
        return []
    with _connected(root) as connection:
        has_tables = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
        known = (
            has_tables and connection.execute("SELECT version_num FROM alembic_version").fetchone()[0] in KNOWN_SCHEMAS
        )
        if known:
            return _runs_by_sql(connection, study, root)
    return _runs_by_client(study, root) if has_tables else []


def _runs_by_sql(connection, study, root) -> list[Run]:
    rows = connection.execute(
        "SELECT run_uuid, start_time, end_time, status, artifact_uri FROM runs JOIN experiments USING (experiment_id) "
        "WHERE experiments.name = ? AND runs.lifecycle_stage = 'active'",
        (study,),
    ).fetchall()
    of_study = (
        "run_uuid IN (SELECT run_uuid FROM runs JOIN experiments USING (experiment_id) WHERE experiments.name = ?)"
    )
    tags, metrics = defaultdict(dict), defaultdict(dict)
    for run_id, key, value in connection.execute(f"SELECT run_uuid, key, value FROM tags WHERE {of_study}", (study,)):
        tags[run_id][key] = value
    named = ", ".join("?" * len(NUMBERS))
    query = f"SELECT run_uuid, key, value FROM latest_metrics WHERE {of_study} AND key IN ({named})"
    for run_id, key, value in connection.execute(query, (study, *NUMBERS)):
        metrics[run_id][key] = value
    return [Run(i, start, end, status, _folder(uri, root), tags[i], metrics[i]) for i, start, end, status, uri in rows]


def _runs_by_client(study, root) -> list[Run]:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{_database(root).resolve()}")
    experiment = client.get_experiment_by_name(study)
    if experiment is None:
        return []
    runs, token = [], None
    while token != "":
        page = client.search_runs([experiment.experiment_id], max_results=1000, page_token=token)
        runs += page
        token = page.token or ""
    return [
        Run(
            run.info.run_id,
            run.info.start_time,
            run.info.end_time,
            run.info.status,
            _folder(run.info.artifact_uri, root),
            run.data.tags,
            {name: value for name, value in run.data.metrics.items() if name in NUMBERS},
        )
        for run in runs
    ]


def _folder(artifact_uri: str, root) -> Path:
    """Where a run's artifacts are: below the store, wherever the store is now."""
    return Path(root).resolve() / "artifacts" / Path(*Path(artifact_uri).parts[-3:])
