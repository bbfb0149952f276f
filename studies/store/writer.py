"""The only writer of MLflow: a run for an execution of a study, in it one for each trial; around it that of a sweep.

A child is written when its trial has ended, in one go: a run that is RUNNING when no driver lives is a killed one's.
"""

import functools
import json
import math
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from studies import address, contract, waiting
from studies.address import Address
from studies.contract import (
    CIRCUMSTANCES,
    CONFUSION_COLUMNS,
    DENSITY_COLUMNS,
    EPOCH_COLUMNS,
    LAYER_COLUMNS,
    MODEL,
    STATISTICS,
    TAG_LENGTH,
    Tag,
    charted,
    run_page,
    set_by_command,
)
from studies.masking import masked
from studies.record import (
    IDENTITY,
    METRICS,
    SERIES,
    EpochRecord,
    LayerRecord,
    Result,
    Space,
    StudyError,
    Trial,
    content_key,
    listed,
    shown,
)
from studies.store import database, files
from studies.store.client import ClientStore
from studies.store.files import artifacts
from studies.store.names import execution_name, run_name, sweep_name
from studies.store.sql import Store

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")

CHARTED = {
    "weights": ("l2", "distance", "spectral_norm"),
    "gradients": ("gradient_norm",),
    "updates": ("update_ratio",),
}
"""The statistics of kernels that MLflow charts; every one is in layers.parquet."""

CHARTED_OUTPUTS = {"activations": ("mean", "sd", "saturated", "dead")}
"""And those of what layers give."""

LEARNING = "accuracy and loss"
"""The section of a trial's page that its curves come in again, before those of its layers: MLflow sorts sections by
name, and has metrics of no section last."""
LEARNED = ("train_accuracy", "val_accuracy", "train_loss", "val_loss")

EXPERIMENT_TAG_LENGTH = 5000
"""What MLflow's client takes for an experiment's tag."""

PARAM_LENGTH, METRIC_LENGTH = 6000, 250
"""What MLflow keeps of a parameter's value and of a metric's name."""

LOW, HIGH = STATISTICS.index("min"), STATISTICS.index("max")
CURVES = tuple(name for name in EPOCH_COLUMNS if name not in ("key", "epoch", "examples", "seconds"))
FINAL = (
    "epochs",
    "parameters",
    "classes",
    "chance_train",
    "chance_val",
    "chance_test",
    "seconds_build",
    "seconds_train",
    "seconds_total",
    "memory_mb",
    "sparsity",
    "parameters_kept",
    "update_ratio_q999",
)
RUN_STATUS = {"finished": "FINISHED", "diverged": "FINISHED", "timeout": "KILLED", "crashed": "FAILED"}


@contextmanager
def guarded(root: str | Path, setting: str = "tracking.root") -> Iterator[None]:
    """What the file system, SQLite or MLflow refuses within is the user's to put right.

    Args:
        root, setting: as `studies.store.database.guarded` has them.

    Raises:
        StudyError: it is refused.
    """
    try:
        with database.guarded(root, setting):
            yield
    except Exception as error:
        mlflow = sys.modules.get("mlflow.exceptions")
        if mlflow is None or not isinstance(error, mlflow.MlflowException):
            raise
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
        other = "tracking.uri=ADDRESS" if isinstance(root, Address) else f"{setting}=FOLDER"
        raise StudyError(
            f"{root}: MLflow refuses to write ({reason}). The same command goes on when that is put right; or name "
            f"another store with {other}"
        ) from error


def _writing(method):
    """A method of `Execution`, guarded."""

    @functools.wraps(method)
    def writing(self, *arguments, **settings):
        with guarded(self.root):
            return method(self, *arguments, **settings)

    return writing


class Clock:
    """The machine's, which never is behind what is written, nor goes back: of executions the last begun is the latest.

    Args:
        last: the latest moment that is written, milliseconds since 1970.
    """

    def __init__(self, last: int):
        self.began = max(int(1000 * time.time()), last + 1) - int(1000 * time.monotonic())

    def now(self) -> int:
        """Milliseconds since 1970."""
        return self.began + int(1000 * time.monotonic())


class Execution:
    """One invocation of a study in the store: opened, given each trial's records, closed.

    Args:
        root: the store's folder, or its address; its database is there.
        study: the study.
        trials: every trial of the design, finished ones too; of one that tunes, the tuning trials.
        config: the study's composed config, as text.
        jobs: the `studies.command.sweep.Sweep` that this is a job of, if it is.
        provenance: tags that say how it came about.
        compared: the trials that it compares, if it is known already and they are others.
        entry: from a trial's data node to what is shown of its dataset, see `studies.factors.data.entry`; None for
            nothing.
    """

    def __init__(
        self,
        root,
        study,
        trials,
        config: str,
        jobs=None,
        provenance: dict[str, str] | None = None,
        entry: Callable[[dict], dict] | None = None,
        compared=None,
    ):
        self.study, self.provenance = study, provenance or {}
        self.root = root if isinstance(root, Address) else Path(root).resolve()
        self.levels = study.factors | study.nuisance
        self.reported = not all(trial.computed for trial in trials)
        nodes = {content_key(node): node for trial in trials if (node := trial.config.get("data"))}
        self.datasets = {key: entry(node) for key, node in nodes.items()} if entry else {}
        self._begin(trials, config, jobs, provenance, compared)

    @_writing
    def _begin(self, trials, config, jobs, provenance, compared) -> None:
        study = self.study
        self.store = opened(self.root, study.name)
        self.store.end_leftovers(jobs.id if jobs else "")
        if not jobs:  # which may be writing
            files.delete_halves(self.store)
        self.clock = Clock(self.store.latest())
        self.versions = {f"version.{name}": version(name) for name in ("tensorflow", "keras", "mlflow", "numpy")}
        self.versions |= {name: tag for name, tag in (provenance or {}).items() if name in CIRCUMSTANCES}
        if jobs:
            self.versions["sweep"] = jobs.id
        tags = {
            "study": study.name,
            Tag.DESIGN: json.dumps(asdict(study)),
            Tag.HASH: content_key([trial.key for trial in trials] + ([study.seeds] if study.nuisance else [])),
            Tag.ROLE: "execution",
            "mlflow.note.content": _whole_lines(study.question),
            **{name: value[:TAG_LENGTH] for name, value in (provenance or {}).items()},
            **self.versions,
        }
        if claim := study.claim:
            tags |= {Tag.CLAIM: claim.id, Tag.VERSION: str(claim.version), Tag.CARD: study.card}
            tags[Tag.PROFILE] = claim.profile
        if jobs:
            tags["mlflow.parentRunId"] = self._sweep_run(jobs)
        name = execution_name(study.name, set_by_command(tags), len(trials))
        self.parent = self.store.begin(name, tags, self.clock.now())
        shared = next(iter(self.datasets.values())) if len(self.datasets) == 1 else None
        with files.begun(self.store, self.parent):
            self.keep({"study.yaml": config})
            self.keep_design(compared or [trial for trial in trials if trial.role == "scientific"])
            self.store.write(self.parent, "RUNNING", None, self._params(), [], shared)
        self.store.describe({"mlflow.note.content": self._description(), **self._view()})

    def _params(self) -> dict[str, str]:
        """What the execution compares, as MLflow keeps parameters."""
        study = self.study
        params = {name: listed(map(shown, levels))[:PARAM_LENGTH] for name, levels in self.levels.items()}
        return params | {"seed": listed(study.seeds)[:PARAM_LENGTH], "metric": study.metric}

    def _description(self) -> str:
        """The experiment's: what is asked, by what, and where the answer is."""
        study = self.study
        drawn = f", {study.draws} draws" * (study.draws > 0)
        averaged = [factor for factor in study.factors if factor not in study.compared]
        roles = (
            ("compared", study.compared),
            ("averaged over", averaged),
            (f"tuned for each arm{drawn}", study.nuisance),
        )
        tried = study.factors | study.nuisance | study.space | study.sampled
        levels = {f: str(each) if isinstance(each, Space) else listed(each) for f, each in tried.items()}
        factors = [f"- `{f}` ({role}): {levels[f]}" for role, fs in roles for f in fs]
        lines = [
            study.question,
            "",
            *factors,
            *[""] * bool(factors),
            f"Compared by `{study.metric}`, at the seeds {listed(study.seeds)}.",
            "",
            f"Latest execution: [its table]({self._page()})"
            + f" and [report]({self._page('report.html')}), which is `report.html` among its artifacts" * self.reported
            + ".",
            "",
            f"Tables in a terminal: `python -m analysis.compare {shlex.quote(study.name)}`, and `--root` for a store "
            f"that is not in `mlruns`.",
        ]
        return _whole_lines("\n".join(lines), self._room)

    @property
    def _room(self) -> int:
        """What is kept of an experiment's tag."""
        return min(TAG_LENGTH, EXPERIMENT_TAG_LENGTH) if isinstance(self.root, Address) else TAG_LENGTH

    def _view(self) -> dict[str, str]:
        """The list of runs with the columns that matter, which MLflow's pages show under `viewStateShareKey=study`."""
        params = (*self.study.factors, *self.study.nuisance, "seed")
        columns = [f"metrics.`{self.study.metric}`", *(f"params.`{name}`" for name in params)]
        columns += ["tags.`trial.status`", "tags.`trial.warning`"]
        while len(view := json.dumps({"selectedColumns": columns})) > self._room:
            columns.pop(1)
        return {"mlflow.sharedViewState.study": view}

    def _page(self, artifact: str = "") -> str:
        """The address of the execution's page, within MLflow's pages."""
        return run_page("", self.store.experiment, self.parent, artifact)

    def _sweep_run(self, jobs) -> str:
        """The run of the sweep, made by the first of its jobs."""
        with database.alone(self.root):
            run = self.store.sweep_run(jobs.id)
            if run is None:
                tags = {"study": self.study.name, Tag.ROLE: "sweep", "sweep": jobs.id}
                run = self.store.begin(sweep_name(jobs.name), tags, self.clock.now())
                self.store.write(run, "RUNNING", None, {}, [])
        return run

    @property
    def artifacts(self) -> Path:
        """The folder of the execution's own files, which a server has none of here."""
        folder = files.folder_of(self.store)
        assert folder is not None  # noqa: S101
        return artifacts(folder, self.parent)

    @_writing
    def keep_design(self, trials: list[Trial]) -> None:
        """Keep which trials the execution compares, and each one's arm in its design: key -> factor -> level."""
        self.keep({"trials.json": json.dumps({trial.key: trial.levels for trial in trials})})

    @_writing
    def keep(self, texts: dict[str, str]) -> None:
        """Keep files, name -> text, with the execution."""
        files.keep(self.store, self.parent, texts)

    @_writing
    def write(
        self,
        trial: Trial,
        epochs: list[EpochRecord],
        layers: list[LayerRecord],
        result: Result,
        warning: str = "",
        circumstances: Mapping[str, str] | None = None,
    ) -> None:
        """Write one ended trial.

        Args:
            epochs, layers: its `EpochRecord`s and `LayerRecord`s.
            result: its `Result`.
            warning: the signs that it went wrong, from `studies.observe`.
            circumstances: what of them it had that was not the driver's, as tags.
        """
        now = self.clock.now()
        tags = trial_tags(trial, result, warning) | {"mlflow.parentRunId": self.parent, **self.versions}
        tags |= circumstances or {}
        run = self.store.begin(run_name(trial, self.levels, self.study.seeds), tags, now - milliseconds(result))
        # MLflow's pages take the first metric where they show one.
        found = sorted(metrics(epochs, layers, result), key=lambda metric: metric[0] != self.study.metric)
        dataset = self.datasets.get(content_key(trial.config.get("data")))
        with files.begun(self.store, run):
            files.keep(self.store, run, trial_files(trial, epochs, layers, result))
            if trial.model and result.status == "finished":
                files.take(self.store, run, Path(trial.model), MODEL)
            self.store.write(run, RUN_STATUS[result.status], now, params(trial), found, dataset)

    @_writing
    def close(
        self, status: str, table: str = "", verdict: str = "", numbers: Mapping[str, float] | None = None
    ) -> None:
        """End the execution with an MLflow status, and keep its table in Markdown.

        Args:
            verdict: on the study's claim, if it has one that was judged.
            numbers: what it comes to, name -> value, which MLflow charts beside those of other executions.
        """
        note = f"{self.study.question}\n\n**{verdict}**" if verdict else self.study.question
        if table:
            files.keep(self.store, self.parent, {"comparison.md": table})
            report = f"[report.html]({self._page('report.html')}), the answer; `figures/`, its figures; "
            note += (
                f"\n\nAmong the artifacts: {report * self.reported}`comparison.md`, this table; `study.yaml`, the "
                f"whole config.\n\n{table}"
            )
        tags = {Tag.VERDICT: verdict} if verdict else {}
        found = {_key(name): float(value) for name, value in (numbers or {}).items() if abs(value) < math.inf}
        charted = [(name, value, 0) for name, value in found.items()]  # MLflow takes a name once
        self.store.end(self.parent, status, tags | {"mlflow.note.content": _whole_lines(note)}, charted)


def trial_tags(trial: Trial, result: Result, warning: str) -> dict[str, str]:
    """What the run of a trial that has ended is tagged with."""
    tags = {
        "study": trial.study,
        Tag.KEY: trial.key,
        Tag.SEED: str(trial.seed),
        Tag.ROLE: trial.role,
        Tag.STATUS: result.status,
        Tag.ARM: json.dumps(trial.arm),
        Tag.NUISANCE: json.dumps(trial.nuisance),
    }
    overrides = json.dumps(trial.overrides)
    if len(overrides) <= TAG_LENGTH:  # else in config.yaml only
        tags[Tag.OVERRIDES] = overrides
    if warning:
        tags[Tag.WARNING] = warning[:TAG_LENGTH]
    if result.quantities:  # the metrics are single precision, and only finite
        found = {n: value if math.isfinite(value) else str(value) for n, value in result.quantities.items()}
        tags[Tag.QUANTITIES] = json.dumps(found)
    if result.error:
        tags[Tag.ERROR] = masked(result.error).replace("\0", "\ufffd")[:TAG_LENGTH]
    return tags


def trial_files(trial: Trial, epochs: list[EpochRecord], layers: list[LayerRecord], result: Result) -> dict[str, bytes]:
    """A trial's artifacts by their names: its config, and its frames as Parquet."""
    config = yaml_of({**trial.config, "seed": trial.seed, "overrides": list(trial.overrides)})
    statistics = np.array([record.statistics for record in layers], float).reshape(-1, len(STATISTICS))
    numbers = dict(zip(STATISTICS, statistics.T.copy(), strict=True))
    columns = {n: numbers[n] if n in numbers else [getattr(record, n) for record in layers] for n in LAYER_COLUMNS}
    files = {
        "config.yaml": masked(config).encode(),
        "epochs.parquet": _parquet({n: [getattr(e, n) for e in epochs] for n in EPOCH_COLUMNS}),
        "layers.parquet": _parquet(columns),
    }
    if counted := [record for record in layers if record.density]:
        files["densities.parquet"] = _parquet(_densities(counted))
    if result.confusions:
        names = dict(enumerate(result.class_names))
        rows = [
            (trial.key, which, label, predicted, count, names.get(label, ""), names.get(predicted, ""))
            for which, found in result.confusions.items()
            for label, predicted, count in found
        ]
        files["confusions.parquet"] = _parquet(dict(zip(CONFUSION_COLUMNS, zip(*rows, strict=True), strict=True)))
    return files


def params(trial: Trial) -> dict[str, str]:
    """A trial's levels, seed, and its config's main values, as MLflow keeps them."""
    levels = trial.levels | {"seed": trial.seed}
    named = {name: str(level) for name, level in levels.items()}
    return named | {name: value for name, value in _main_values(trial.config).items() if name not in named}


def milliseconds(result: Result) -> int:
    """How long a trial took; 0 if that is not known."""
    return 0 if math.isnan(result.seconds_total) else int(1000 * result.seconds_total)


def _key(name: str) -> str:
    """A metric's name, of the characters that MLflow allows."""
    return re.sub(r"[^\w./ -]", "_", name)[:METRIC_LENGTH]


def end_sweep(root: str | Path, study: str, sweep: str, status: str, table: str) -> None:
    """End a sweep's run among a study's, if it has one, and keep the table of its jobs in Markdown."""
    root = address.place(root)
    if isinstance(root, Path) and not database.has_content(root / "mlflow.db"):  # it was ended before there was any
        return
    with guarded(root):
        store = opened(root, study)
        if run := store.sweep_run(sweep):
            files.keep(store, run, {"sweep.md": table})
            store.end(run, status, {"mlflow.note.content": table[:TAG_LENGTH]})


def join(root: str | Path, study: str, run: str, sweep: str) -> None:
    """Have an execution that has ended be what a job of a sweep came to, which had nothing left to train."""
    with guarded(root):
        store = opened(root, study)
        store.tag(run, {Tag.JOINED: f"{Clock(store.latest()).now()} {sweep}"})


def ask(root: str | Path, study: str, run: str) -> None:
    """Have an execution that has ended be the latest again."""
    with guarded(root):
        store = opened(root, study)
        store.tag(run, {Tag.ASKED: str(Clock(store.latest()).now())})


def filled(root: str | Path, study: str, run: str, fill: Callable[[Path], Any]) -> Any:
    """What `fill` gives, which puts files into a folder that a run keeps them in: paths, or their addresses."""
    with guarded(root):
        return files.filled(opened(root, study), run, fill)


def opened(root: str | Path, study: str) -> Store | ClientStore:
    """The experiment of a study in a store, made if it is not there."""
    place = address.place(root)
    if isinstance(place, Address):
        known = not place.is_server and waiting.asked(place, lambda: database.version(place)) in contract.SCHEMAS
    else:
        place = place.resolve()
        known = database.version(place / "mlflow.db") in contract.SCHEMAS
    return (Store if known else ClientStore)(place, study)


def _whole_lines(text: str, most: int = TAG_LENGTH) -> str:
    """As many whole lines of a text as MLflow keeps of a tag, so that a table is not cut within a row."""
    return text if len(text) <= most else text[:most].rpartition("\n")[0] or text[:most]


def metrics(epochs: list[EpochRecord], layers: list[LayerRecord], result: Result) -> list[tuple[str, float, int]]:
    """Name, value and step of what goes into MLflow; only finite values, which is all it can keep."""
    steps = charted([record.epoch for record in epochs])
    metrics = [
        (name, getattr(record, name), record.epoch) for record in epochs if record.epoch in steps for name in CURVES
    ]
    last = epochs[-1].epoch if epochs else 0
    # A metric's last value is what MLflow shows of it: the trial's, not the last epoch's, which early stopping left.
    ends = {name: float(getattr(result, name)) for name in (*METRICS, *FINAL)}
    ends = {name: value for name, value in ends.items() if abs(value) < math.inf}
    metrics = [metric for metric in metrics if metric[0] not in ends or metric[2] != last]
    metrics += [(name, value, last) for name, value in ends.items()]
    metrics += [(f"{LEARNING}/{name}", value, step) for name, value, step in metrics if name in LEARNED]
    places = {name: place for place, name in enumerate(STATISTICS)}
    for record in layers:
        if record.epoch in steps and (record.tensor == "output" or record.tensor.endswith("kernel")):
            which = "" if record.tensor in ("kernel", "output") else f"_{record.tensor.removesuffix('_kernel')}"
            layer = _key(record.layer.replace("(", "").replace(")", "") + which)
            for family, names in (CHARTED_OUTPUTS if record.tensor == "output" else CHARTED).items():
                metrics += [
                    (
                        f"{family}/{layer}/{name.removeprefix('gradient_').removeprefix('update_')}",
                        record.statistics[places[name]],
                        record.epoch,
                    )
                    for name in names
                ]
    for quantity, value in result.quantities.items():
        name, _, place = quantity.partition(SERIES)
        metrics.append((name, value, int(place) if place.isdecimal() else last))
    return [metric for metric in metrics if abs(metric[1]) < math.inf]


def _densities(layers) -> dict[str, list]:
    """The columns of the densities frame."""
    ends = [(record.statistics[LOW], record.statistics[HIGH], list(record.density)) for record in layers]
    columns = {name: [getattr(record, name) for record in layers] for name in DENSITY_COLUMNS[:4]}
    return columns | {
        name: list(column) for name, column in zip(DENSITY_COLUMNS[4:], zip(*ends, strict=True), strict=True)
    }


def _main_values(config: dict) -> dict[str, str]:
    """The config's main values, flat: what a group's target is called, and its settings."""
    values = {}
    for group in (*IDENTITY, "compute"):
        for name, value in config.get(group, {}).items():
            if name == "_target_":
                values[group] = str(value).rpartition(".")[2]
            elif not isinstance(value, dict):
                values[f"{group}.{name}"] = str(value)[:500]
    return values


def _parquet(columns: dict) -> bytes:
    import pyarrow
    from pyarrow import parquet

    table, buffer = pyarrow.table(columns), pyarrow.BufferOutputStream()  # a file of its own takes a third longer
    # Snappy is read three times as fast as zstd from files this small, and takes a fifth more room.
    dictionary = ["key", "layer", "tensor", "warning"] if "layer" in columns else False
    parquet.write_table(table, buffer, compression="snappy", use_dictionary=dictionary, write_statistics=False)
    return buffer.getvalue().to_pybytes()


def yaml_of(config: dict) -> str:
    """A config as text."""
    return yaml.dump(config, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True)
