"""Trials of one's own `fit` in MLflow, as those that `studies.run` trains are: for the callback.

A fit is a trial, in the active MLflow run or in one of its own. All that are recorded under one study's name are one
execution, whose design grows with them: what they were told apart by are its factors.
"""

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from filelock import FileLock

from studies import contract
from studies.contract import CIRCUMSTANCES, Tag
from studies.record import EpochRecord, LayerRecord, Result, Study, StudyError, Trial, content_key
from studies.store import database, writer
from studies.store import files as kept
from studies.store.client import ClientStore
from studies.store.names import run_name
from studies.store.sql import Store

FITS = "fits.json"
"""An execution's file that has each fit's key, arm, seed and status."""

USUAL = "mlruns"
"""The folder of the store that a fit outside a run is kept in."""


@dataclass(frozen=True)
class Fit:
    """A fit that has ended. Its records' keys are given when it is written.

    Attributes:
        arm: what it is told apart by, factor -> level.
        seed: None for the next number that its arm has not had.
        config: what it was trained with, as a trial's config.
        metric: what arms are to be compared by.
        warning: the signs that it went wrong, from `studies.observe`.
        provenance: tags that say how it came about.
    """

    arm: dict
    seed: int | None
    config: dict
    metric: str
    epochs: list[EpochRecord]
    layers: list[LayerRecord]
    result: Result
    warning: str
    provenance: dict[str, str]


def place(study: str | None, root: str | Path | None) -> "Place":
    """Where a fit is to be kept: a store's folder if one is named, else the active MLflow run, else the usual folder.

    Args:
        study: None for the name of the active run's experiment, or `fits`.

    Raises:
        StudyError: nothing can be written there, or the study's name stands for something else there.
    """
    run = active_run() if root is None else None
    return ActiveRun(run, study) if run else Folder(USUAL if root is None else root, study or "fits")


def active_run() -> Any:
    """MLflow's active run, None if there is none; MLflow is not imported for it."""
    mlflow = sys.modules.get("mlflow")
    return mlflow.active_run() if mlflow else None


class Place:
    """Where fits of a study are kept.

    Attributes:
        study: its name.
    """

    study: str

    def write(self, fit: Fit) -> str:
        """Write a fit as a trial, and the execution that it belongs to as it is now; gives the trial's run's id.

        Raises:
            StudyError: nothing can be written any more, or it has crashed and would take the place of one that has not.
        """
        with self._writing() as store:
            parent = store.execution(True)
            fits = json.loads(self._kept(store, parent)) if parent else {}
            trial, epochs, layers, result = _numbered(self.study, fit, fits)
            if result.status == "crashed" and _ended(fits.get(trial.key)):
                raise StudyError(
                    f"study={self.study}, seed={trial.seed}: it has crashed, and one of its arm and seed that came to "
                    f"its end is there and stays: expected another seed"
                )
            fits[trial.key] = {"arm": trial.arm, "seed": trial.seed, "status": result.status}
            shared = {n: tag for n, tag in fit.provenance.items() if n in CIRCUMSTANCES or n.startswith("version.")}
            now = writer.Clock(store.latest()).now()
            if parent is None:
                tags = {"study": self.study, Tag.ROLE: "execution", Tag.FITS: "callback"}
                parent = store.begin(self.study, tags, now)
                store.write(parent, "FINISHED", now, {}, [])
            tags = writer.trial_tags(trial, result, fit.warning) | shared
            started = now - writer.milliseconds(result)
            run, status = self._begin(store, parent, trial, tags, started, writer.RUN_STATUS[result.status])
            self._keep(store, run, writer.trial_files(trial, epochs, layers, result))
            # MLflow's pages take the first metric where they show one.
            metrics = sorted(writer.metrics(epochs, layers, result), key=lambda metric: metric[0] != fit.metric)
            store.write(run, status, now, writer.params(trial), metrics)
            study = design(self.study, list(fits.values()), fit.metric)
            self._keep(store, parent, _execution_files(study, fits, trial))
            store.end(parent, "FINISHED", _execution_tags(study, fits) | fit.provenance)
        return run

    def _writing(self) -> AbstractContextManager[Store | ClientStore]:
        """The experiment, to nobody else's use."""
        raise NotImplementedError

    def _begin(self, store, parent: str, trial: Trial, tags: dict, start: int, status: str) -> tuple[str, str]:
        """The run that a trial is to be written into, and the status that it is to have."""
        return store.begin(run_name(trial, {}), tags | {"mlflow.parentRunId": parent}, start), status

    def _keep(self, store, run: str, files: dict[str, bytes]) -> None:
        """Keep files with a run."""
        raise NotImplementedError

    def _kept(self, store, run: str) -> bytes:
        """An execution's `FITS`."""
        raise NotImplementedError


class Folder(Place):
    """A store's folder, in which a fit is a run of its own.

    Raises:
        StudyError: see `place`.
    """

    def __init__(self, root: str | Path, study: str):
        self.study, self.root = study, contract.folder(root).resolve()
        database.check_writable(self.root, "root")
        database.make(self.root)
        with self._writing() as store:
            _refuse_declared(store, study)

    @contextmanager
    def _writing(self) -> Iterator[Store | ClientStore]:
        with writer.guarded(self.root, "root"), FileLock(self.root / f".{self.study}.fits.lock"):
            yield writer.opened(self.root, self.study)

    def _keep(self, store, run: str, files: dict[str, bytes]) -> None:
        kept.keep(store, run, files)

    def _kept(self, store, run: str) -> bytes:
        folder = kept.folder_of(store)
        assert folder is not None  # noqa: S101
        return (kept.artifacts(folder, run) / FITS).read_bytes()


class ActiveRun(Place):
    """MLflow's active run, which a fit is written into, a further one into a run nested in it.

    Raises:
        StudyError: see `place`.
    """

    def __init__(self, run, study: str | None):
        from mlflow.tracking import MlflowClient

        self.run, self.client = run.info.run_id, MlflowClient()
        with self._guarded():
            if self.client.get_run(self.run).info.lifecycle_stage != "active":
                raise StudyError(f"the active MLflow run {self.run} was deleted: end it, and begin another")
            experiment = self.client.get_experiment(run.info.experiment_id)
            self.experiment = experiment.experiment_id
            self.study = study or experiment.tags.get(contract.STUDY, experiment.name)
            self._refuse_another(experiment)
            _refuse_declared(_Experiment(self.client, self.experiment), self.study)
            if contract.STUDY not in experiment.tags:
                self.client.set_experiment_tag(self.experiment, contract.STUDY, self.study)

    @contextmanager
    def _writing(self) -> Iterator[ClientStore]:
        with self._guarded():
            yield _Experiment(self.client, self.experiment)

    def _begin(self, store, parent: str, trial: Trial, tags: dict, start: int, status: str) -> tuple[str, str]:
        if Tag.KEY in self.client.get_run(self.run).data.tags:
            return super()._begin(store, self.run, trial, tags, start, status)
        for key, value in tags.items():
            self.client.set_tag(self.run, key, value)
        return self.run, "RUNNING"  # until the user ends it

    def _keep(self, store, run: str, files: dict[str, bytes]) -> None:
        there = {file.path for file in self.client.list_artifacts(run)} if run == self.run else set()
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                if name not in there:  # such as a config.yaml of the user's own
                    (Path(folder) / name).write_bytes(content)
            self.client.log_artifacts(run, folder)

    def _kept(self, store, run: str) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            return Path(self.client.download_artifacts(run, FITS, folder)).read_bytes()

    def _refuse_another(self, experiment) -> None:
        """See that an experiment holds one study and a study is in one experiment, which is how it is found again."""
        known = experiment.tags.get(contract.STUDY, self.study)
        if known != self.study:
            raise StudyError(
                f"study={self.study}: the active MLflow run is in the experiment {experiment.name}, which holds the "
                f"study {known}: expected that one, or a run of another experiment, after "
                f"mlflow.set_experiment({self.study!r}); or root=FOLDER for a run of its own in a store of ours"
            )
        tagged = self.client.search_experiments(filter_string=f"tags.`{contract.STUDY}` = '{self.study}'")
        others = [e.name for e in tagged if e.experiment_id != experiment.experiment_id]
        if others:
            raise StudyError(
                f"study={self.study}: that study is in the experiment {others[0]}, and the active MLflow run is in "
                f"{experiment.name}: expected a run there, after mlflow.set_experiment({others[0]!r}), or another name"
            )

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
            raise StudyError(
                f"the active MLflow run {self.run} cannot be written ({reason}): expected one that is there and "
                f"running, as inside with mlflow.start_run(): …; or root=FOLDER for a run of its own in a store of ours"
            ) from error


class _Experiment(ClientStore):
    """An experiment of the user's own."""

    def __init__(self, client, experiment: str):
        self._open(client, "MLflow", experiment)

    def write(self, run, status, end, params, metrics, dataset=None) -> None:
        """What is there already, such as by `mlflow.autolog`, stays: its params, and the curves of its metrics."""
        known = self.client.get_run(run).data
        last = max((step for _, _, step in metrics), default=0)
        params = {name: value for name, value in params.items() if name not in known.params}
        metrics = [entry for entry in metrics if entry[0] not in known.metrics or entry[2] == last]
        super().write(run, status, end, params, metrics, dataset)


def _numbered(study: str, fit: Fit, fits: dict) -> tuple[Trial, list[EpochRecord], list[LayerRecord], Result]:
    """A fit with its seed and its key, by which it takes the place of an earlier one of the same arm and seed."""
    taken = {known["seed"] for known in fits.values() if known["arm"] == fit.arm}
    seed = next(n for n in range(len(taken) + 1) if n not in taken) if fit.seed is None else fit.seed
    key = content_key({"study": study, "arm": fit.arm, "seed": seed})
    trial = Trial(key, study, "scientific", fit.arm, seed, fit.config, (), "")
    epochs = [replace(record, key=key) for record in fit.epochs]
    return trial, epochs, [replace(record, key=key) for record in fit.layers], replace(fit.result, key=key)


def _ended(known: dict | None) -> bool:
    """Whether a fit that is there came to its end."""
    return known is not None and known.get("status") != "crashed"


def design(study: str, fits: Sequence[dict], metric: str) -> Study:
    """The study that some fits are: the factors are what their arms have, an arm that lacks one has null.

    Args:
        fits: an `arm` and a `seed` each.
    """
    names = list(dict.fromkeys(name for fit in fits for name in fit["arm"]))
    arms = [{name: fit["arm"].get(name) for name in names} for fit in fits]
    levels = {name: tuple(_different([arm[name] for arm in arms])) for name in names}
    every = [dict(zip(levels, some, strict=True)) for some in product(*levels.values())] if names else []
    rules = [{name: [level] for name, level in arm.items()} for arm in _different(arms)]
    return Study(
        study,
        f"How does {metric.replace('_', ' ')} depend on {' and '.join(names)}?"
        if names
        else f"How does {study} train?",
        levels,
        tuple(sorted({fit["seed"] for fit in fits})),
        {},
        metric,
        only=tuple(rules) if len(rules) < len(every) else (),
    )


def _different(values: Sequence) -> list:
    """Values in the order in which they first come; 1, 1.0 and true are three."""
    return list({json.dumps(value, sort_keys=True): value for value in values}.values())


def _execution_tags(study: Study, fits: dict) -> dict[str, str]:
    return {
        Tag.DESIGN: json.dumps(asdict(study)),
        Tag.HASH: content_key(list(fits)),
        "mlflow.note.content": study.question,
    }


def _execution_files(study: Study, fits: dict, trial: Trial) -> dict[str, bytes]:
    """What is kept with the execution; the config is the last fit's."""
    arms = {key: {name: fit["arm"].get(name) for name in study.factors} for key, fit in fits.items()}
    declared = {
        "name": study.name,
        "question": study.question,
        "factors": {name: list(levels) for name, levels in study.factors.items()},
        "seeds": list(study.seeds),
        "metric": study.metric,
    }
    return {
        FITS: json.dumps(fits).encode(),
        "trials.json": json.dumps(arms).encode(),
        "study.yaml": writer.yaml_of({"study": declared, **trial.config}).encode(),
    }


def _refuse_declared(store, study: str) -> None:
    if store.execution(False):
        raise StudyError(
            f"study={study}: a study of that name is there, which python -m studies.run has trained: expected another "
            f"name for fits of your own"
        )
