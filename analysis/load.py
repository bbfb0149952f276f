"""A study's trials, epochs and layers as tidy frames."""

import json
import math
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import pandas as pd
import yaml

from analysis.read import executions as reading
from analysis.read import raw, runs, server
from analysis.read.executions import LATEST, Execution
from analysis.read.runs import Run
from analysis.read.union import together, union, value
from studies import contract, terminal
from studies.contract import (
    CIRCUMSTANCES,
    CONFUSION_COLUMNS,
    DENSITY_COLUMNS,
    EPOCH_COLUMNS,
    LAYER_COLUMNS,
    MODEL,
    STATISTICS,
    TRIAL_COLUMNS,
    Tag,
)
from studies.record import METRICS, STATUSES, Result, Study, StudyError, listed, nearest

TEXTS = ("key", "status", "error", "quantities", "confusions", "class_names")
NUMBERS = tuple(dict.fromkeys((*METRICS, *(f.name for f in fields(Result) if f.name not in TEXTS))))
"""The numbers of a `Result`, which are columns of the trials frame, the metrics first."""

RUNNING = {"running_loss": "train_loss", "running_accuracy": "train_accuracy"}
"""What means over an epoch's steps were called in stores of before the trained network's numbers were kept too."""

OBSERVED = (*STATISTICS, "warning")
"""What the layers frame has of a tensor at an epoch."""

PARQUET = b"PAR1"
"""What a Parquet file begins and ends with."""

DENSITIES, CONFUSIONS = "densities.parquet", "confusions.parquet"

CLAIMS = contract.CONF / "study" / "claims"

READERS = 8
"""Files read at a time: a server's answers are waited for, and a folder's are read on two cores 1.7 times faster."""


def studies(root: str | Path = "mlruns") -> list[str]:
    """The names of the studies in a store.

    Args:
        root: here and below, the store's folder, by path or URI; or the address of an MLflow tracking server,
            `http://HOST:PORT`, or of a PostgreSQL database, `postgresql://USER@HOST/DATABASE`.
    """
    return runs.opened(root).studies()


def forget() -> None:
    """Have what was read of a server's trials be read again, since there are others now."""
    server.forget()


def executions(study: str, root: str | Path = "mlruns") -> list[Execution]:
    """The study's executions, oldest first.

    Raises:
        StudyError: the store has no such study.
    """
    store = runs.opened(root)
    parents = _parents(store, study, store.runs(study, role="execution"))
    return [_execution(store, run, number) for number, run in enumerate(parents, 1)]


def execution(
    study: str, root: str | Path = "mlruns", run_id: str | None = None, execution: str | int = LATEST
) -> Execution:
    """An execution of the study: the latest, or another, or several as one.

    Args:
        run_id: of an MLflow run, whose it is then; the latest's if it is none's.
        execution: here and below, which: `latest`; `own`, the last that trained what the study does by itself; a number
            as `analysis.compare --execution list` has it; the beginning of an MLflow run's id; `all`; `sweep`, the jobs
            of the last sweep; or some of these, separated by commas. Several are one whose factors are those of any,
            and what their commands set otherwise.

    Raises:
        StudyError: the store has no such study, or the study no such execution.
    """
    store = runs.opened(root)
    parents = _parents(store, study, store.runs(study, role="execution"))
    if run_id is not None:
        number = next((n for n, run in enumerate(parents, 1) if run.run_id == run_id), len(parents))
        return _execution(store, parents[number - 1], number)
    return _asked(store, study, parents, execution)


def pinned(study: str, root: str | Path = "mlruns") -> Execution:
    """The study's last execution that trained what it does by itself, whatever else was run since; if there is none
    the latest.

    Raises:
        StudyError: the store has no such study.
    """
    found = executions(study, root)
    return next((each for each in reversed(found) if each.own), found[-1])


def shared_levels(executions: Sequence[Execution], root: str | Path = "mlruns") -> list[dict[str, dict]]:
    """Of each of some executions of a study its trials' levels of all the factors that any of them has, by key."""
    store = runs.opened(root)
    trials = {run.tags[Tag.KEY]: run for run in ended_of(store.runs(executions[0].study.name, params=True))}
    return together(store, executions, trials)


def text(execution: Execution, name: str, root: str | Path = "mlruns") -> str:
    """One of an execution's own files, such as `study.yaml`.

    Raises:
        StudyError: it is not there.
    """
    return runs.opened(root).content(execution, name).decode()


def has(execution: Execution, name: str, root: str | Path = "mlruns") -> bool:
    """Whether a file is among an execution's own."""
    return runs.opened(root).has(execution, name)


def tuning_trials(execution: Execution, root: str | Path = "mlruns") -> pd.DataFrame:
    """The trials that an execution's nuisance factors were tuned with; none if it has not got that far."""
    arms: dict[str, dict | None] = {}
    for part in execution.parts or (execution,):
        with suppress(StudyError):
            arms |= reading.arms(text(part, "tuning_trials.json", root))
    return trials(execution.study.name, root, arms)


def trials(
    study: str,
    root: str | Path = "mlruns",
    keys: Mapping[str, dict | None] | Iterable[str] | None = None,
    until: int | None = None,
    execution: str | int = LATEST,
) -> pd.DataFrame:
    """One row a trial: key, study, role, status, the factors by their config keys, seed, metrics, seconds, the
    quantities of computed trials in double precision, what it was trained by (`studies.contract.CIRCUMSTANCES`), error.

    A factor with null among its levels has the dtype object, so that its other levels stay what they are. Numbers that
    an earlier version did not store are NaN.

    Args:
        keys: of the trials wanted, in the order wanted; or, with each one's levels in the design at hand, the `arms` of
            an execution, else they are those that the trial was first run for. None for those of the `execution`.
        until: in milliseconds since 1970, UTC: the trials as they were then, without runs that had not ended.
    """
    store = runs.opened(root)
    found = store.runs(study, metrics=NUMBERS)
    if keys is None:
        keys = _asked(store, study, _parents(store, study, found), execution).arms
    if until is not None:
        found = [run for run in found if run.end_time is not None and run.end_time <= until]
    arms = keys if isinstance(keys, Mapping) else {}
    chosen = _chosen(found, keys)
    measured = dict.fromkeys((name for run in chosen for name in _quantities(run)), math.nan)
    wanted = [_row(run, arms.get(run.tags[Tag.KEY]), measured) for run in chosen]
    frame = pd.DataFrame(wanted)
    for name in frame:
        if any(row.get(name) is None for row in wanted):
            frame[name] = pd.Series([row.get(name) for row in wanted], dtype=object)
    if frame.empty:
        return pd.DataFrame(columns=["key", "study", "role", "status", "seed", *NUMBERS, "error", "warning", "folder"])
    return frame


def quantities(trials: pd.DataFrame, study: Study) -> list[str]:
    """The columns of a study's trials frame that are quantities of computed trials."""
    return [name for name in trials if name not in (*TRIAL_COLUMNS, *study.factors, *study.nuisance)]


def epochs(
    study: str, root: str | Path = "mlruns", keys: Iterable[str] | None = None, execution: str | int = LATEST
) -> pd.DataFrame:
    """One row a trial and epoch: the columns `studies.contract.EPOCH_COLUMNS`; what was not stored then is NaN."""
    store = runs.opened(root)
    return _joined(store, _selected(store, study, keys, execution), "epochs.parquet", EPOCH_COLUMNS)


def layers(
    study: str,
    root: str | Path = "mlruns",
    keys: Iterable[str] | None = None,
    statistics: Iterable[str] = OBSERVED,
    epochs: Collection[int] | None = None,
    execution: str | int = LATEST,
) -> pd.DataFrame:
    """One row a trial, epoch, layer and tensor: the columns `studies.contract.LAYER_COLUMNS`.

    A statistic that was not stored then is NaN, a warning empty.

    Args:
        statistics: those wanted, in the order wanted, some of `studies.contract.STATISTICS` and `warning`.
        epochs: those wanted; None for all.

    Raises:
        StudyError: there is no such study or statistic.
    """
    statistics = tuple(statistics)
    if unknown := [name for name in statistics if name not in OBSERVED]:
        raise StudyError(f"statistics={listed(unknown)}: expected some of {listed(OBSERVED)}")
    store = runs.opened(root)
    names = (*(name for name in LAYER_COLUMNS if name not in OBSERVED), *statistics)
    return _joined(store, _selected(store, study, keys, execution), "layers.parquet", names, epochs)


def densities(
    study: str, root: str | Path = "mlruns", keys: Iterable[str] | None = None, execution: str | int = LATEST
) -> pd.DataFrame:
    """How many entries of each weight lie where, at about a dozen epochs: `studies.contract.DENSITY_COLUMNS`.

    Counts are `(DENSITY_CELLS,)` each, of equal cells from low to high. Trials that were run without diagnostics, or
    before these were kept, have no rows.
    """
    store = runs.opened(root)
    kept = [run for run in _selected(store, study, keys, execution) if store.has(run, DENSITIES)]
    return _joined(store, kept, DENSITIES, DENSITY_COLUMNS)


def confusions(
    study: str, root: str | Path = "mlruns", keys: Iterable[str] | None = None, execution: str | int = LATEST
) -> pd.DataFrame:
    """How many examples of a class a trained network takes for which: `studies.contract.CONFUSION_COLUMNS`.

    A class is its label, from 0 on; a pair that does not occur has no row. They are of the weights that the trial's
    scores are of. Trials that diverged or crashed, or were run before these were kept, have no rows.
    """
    store = runs.opened(root)
    kept = [run for run in _selected(store, study, keys, execution) if store.has(run, CONFUSIONS)]
    return _joined(store, kept, CONFUSIONS, CONFUSION_COLUMNS)


def model_path(study: str, key: str, root: str | Path = "mlruns") -> Path:
    """The file of a trial's trained model, for `keras.saving.load_model`; it takes images as the dataset has them.

    Args:
        root: the store's folder.

    Raises:
        StudyError: there is no such trial, or its model was not kept.
    """
    found = _chosen(runs.opened(root).runs(study), [key])
    if not found:
        raise StudyError(f"no trial {key} of {study} in {root} has ended: expected a key of load.trials({study!r})")
    store = runs.opened(root)
    if not store.has(found[0], MODEL):
        raise StudyError(
            f"the model of the trial {key} was not kept: run its study with tracking.models=all, which trains again "
            f"what lacks one"
        )
    return store.path(found[0], MODEL)


def without_model(study: str, root: str | Path = "mlruns", keys: Collection[str] | None = None) -> set[str]:
    """The keys of trials that finished and whose models were not kept; of all, or of some."""
    store = runs.opened(root)
    finished = {run.tags[Tag.KEY]: run for run in ended(study, root) if run.tags[Tag.STATUS] == "finished"}
    finished = {key: run for key, run in finished.items() if keys is None or key in keys}
    return {key for key, run in finished.items() if not store.has(run, MODEL)}


def damaged(study: str, root: str | Path, keys: set[str]) -> set[str]:
    """Those of some trials that have a file which is cut short or lost, as after a power cut; of a folder's alone.

    One whose files are away altogether is not among them: they may come back.
    """
    if runs.is_server(root):
        return set()
    latest = {run.tags[Tag.KEY]: run for run in ended(study, root) if run.tags[Tag.KEY] in keys}
    return {key for key, run in latest.items() if run.folder.is_dir() and not all(map(_has_end, _frames_of(run)))}


def _frames_of(run: Run) -> list[Path]:
    """The Parquet files that a trial's run has, and those that each has."""
    always = [run.folder / "epochs.parquet", run.folder / "layers.parquet"]
    return [*always, *(file for file in run.folder.glob("*.parquet") if file not in always)]


def _has_end(file: Path) -> bool:
    """Whether a Parquet file is there to its end, where it has its name again."""
    try:
        with open(file, "rb") as opened:
            opened.seek(-len(PARQUET), os.SEEK_END)
            return opened.read() == PARQUET
    except OSError:
        return False


def raw_runs(csv: str | Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Raw runs that others publish, as the trials and the epochs of a store: the same estimates work on both.

    Args:
        csv: a file with one row a run and epoch and the columns seed, epoch, metrics (names that end in accuracy or
            loss; accuracies as shares of one), perhaps examples and seconds, and factors: all others.

    Returns:
        trials: the columns that `trials` gives, with the metrics of the last epoch, and any other metric that the file
        has; epochs: those that `epochs` gives, and the same. What the file does not say is NaN, or an empty text. A
        trial has diverged if a metric is missing or infinite at its last epoch.

    Raises:
        StudyError: the file cannot be read, has no seed, epoch or metric, has two rows for an epoch of a trial, or
            texts for numbers.
    """
    found, course = raw.frames(csv)
    blank = dict.fromkeys(NUMBERS, float("nan")) | dict.fromkeys(CIRCUMSTANCES, "")
    found = found.assign(**{name: value for name, value in blank.items() if name not in found})
    ends = (*NUMBERS, *CIRCUMSTANCES, "error", "warning", "folder")
    heads = [name for name in found if name not in ends]
    return found[[*heads, *ends]], course.reindex(columns=list(dict.fromkeys((*EPOCH_COLUMNS, *course))))


def numbers(run: Run) -> dict[str, float]:
    """A trial's `NUMBERS` as its run has them, without those that were not stored."""
    return {name: run.metrics[place] for name, place in _places(NUMBERS, run.metrics).items()} | _quantities(run)


def frames(run: Run, store) -> dict[str, pd.DataFrame]:
    """All frames of one trial's run, `epochs`, `layers`, `densities` and `confusions`, as far as it has them.

    Args:
        store: what has its files, see `analysis.read.runs.opened`.

    Raises:
        StudyError: a file is lost or damaged.
    """
    kept = {"epochs": EPOCH_COLUMNS, "layers": LAYER_COLUMNS}
    maybe = {"densities": DENSITY_COLUMNS, "confusions": CONFUSION_COLUMNS}
    kept |= {name: columns for name, columns in maybe.items() if store.has(run, f"{name}.parquet")}
    return {name: _joined(store, [run], f"{name}.parquet", columns) for name, columns in kept.items()}


def settings(
    study: str, root: str | Path = "mlruns", keys: Iterable[str] | None = None, execution: str | int = LATEST
) -> pd.DataFrame:
    """One row a trial: key, and the main values of its config, by their config keys; null where it has none."""
    selected = _selected(runs.opened(root), study, keys, execution, params=True)
    rows = [{name: value(text) for name, text in run.params.items()} for run in selected]
    names = list(dict.fromkeys(name for row in rows for name in row))
    frame = pd.DataFrame({name: pd.Series([row.get(name) for row in rows], dtype=object) for name in names})
    frame.insert(0, "key", [run.tags[Tag.KEY] for run in selected])
    return frame


def configs(
    study: str, root: str | Path = "mlruns", keys: Iterable[str] | None = None, execution: str | int = LATEST
) -> dict[str, dict]:
    """Each trial's whole config, with its `seed` and the `overrides` that compose it, by its key."""
    store = runs.opened(root)
    selected = _selected(store, study, keys, execution)
    return {run.tags[Tag.KEY]: yaml.safe_load(store.content(run, "config.yaml")) for run in selected}


def finished_keys(study: str, root: str | Path = "mlruns") -> set[str]:
    """The keys of trials that need not run again: all that ended but for crashes."""
    latest = {run.tags[Tag.KEY]: run.tags[Tag.STATUS] for run in ended(study, root)}
    return {key for key, status in latest.items() if status != "crashed"}


def ended_keys(study: str, root: str | Path = "mlruns") -> set[str]:
    """The keys of a study's trials that have ended, crashes too."""
    return {run.tags[Tag.KEY] for run in ended(study, root)}


def ended(study: str, root: str | Path = "mlruns") -> list[Run]:
    """A study's ended trials, the latest run of each key last."""
    return ended_of(runs.opened(root).runs(study))


def _parents(store, study, found) -> list[Run]:
    parents = [run for run in found if run.tags.get(Tag.ROLE) == "execution" and _is_whole(run)]
    if not parents:
        known = store.studies()
        folder = "claims/" * (CLAIMS / f"{study}.yaml").is_file()
        words = [] if study == "single" else [f"+study={folder}{study}"]
        advice = f"Run it with {terminal.spoken('studies.run', *words)}, or name another store with --root FOLDER"
        if study not in known and (near := nearest(study, known)):
            raise StudyError(f"no study {study!r} in {store}{near} It has {listed(known)}. {advice}")
        raise StudyError(f"no study {study!r} in {store}: it has {listed(known) or 'none yet'}. {advice}")
    return sorted(parents, key=lambda run: run.start_time)


def _execution(store, run, number) -> Execution:
    return reading.read(run, number, store.content(run, "trials.json"))


def _asked(store, study, parents, which) -> Execution:
    """The execution that is meant of all the study's."""
    places, as_one = reading.places(parents, which, study)
    parts = [_execution(store, parents[place], place + 1) for place in places]
    if len(parts) == 1 or not as_one:
        return parts[-1]
    trials = {run.tags[Tag.KEY]: run for run in ended_of(store.runs(study, params=True))}
    return union(store, parts, trials)


def ended_of(found: Iterable[Run]) -> list[Run]:
    """Those of some runs that are of trials that have ended, the latest last."""
    ended = [run for run in found if Tag.KEY in run.tags and run.status != "RUNNING" and _is_whole(run)]
    return sorted(ended, key=lambda run: run.start_time)


def _is_whole(run) -> bool:
    """Whether a trial's run, or an execution's, still has what it was written with: MLflow's pages edit tags."""
    tags = run.tags
    try:
        if Tag.KEY not in tags:
            needed = {"name", "question", "factors", "seeds", "baseline", "metric"}
            return needed <= json.loads(tags[Tag.DESIGN]).keys() and Tag.HASH in tags
        arm, nuisance = json.loads(tags[Tag.ARM]), json.loads(tags.get(Tag.NUISANCE, "{}"))
        _quantities(run)
        of_one = isinstance(arm, dict) and isinstance(nuisance, dict) and int(tags[Tag.SEED]) >= 0
        return of_one and {"study", Tag.ROLE} <= tags.keys() and tags[Tag.STATUS] in STATUSES
    except (KeyError, ValueError, AttributeError, TypeError):
        return False


def _selected(store, study, keys, execution, **more) -> list[Run]:
    """The latest runs of the trials wanted, in the order wanted, in one reading of the store."""
    found = store.runs(study, **more)
    return _chosen(found, _asked(store, study, _parents(store, study, found), execution).arms if keys is None else keys)


def _chosen(found: list[Run], keys: Iterable[str]) -> list[Run]:
    latest = {run.tags[Tag.KEY]: run for run in ended_of(found)}
    return [latest[key] for key in keys if key in latest]


def _quantities(run: Run) -> dict[str, float]:
    """What a computed trial measured."""
    return {name: float(value) for name, value in json.loads(run.tags.get(Tag.QUANTITIES, "{}")).items()}


def _row(run: Run, arm: dict | None, measured: dict[str, float]) -> dict:
    """A row of the trials frame.

    Args:
        arm: the trial's in the design at hand, which need not be that it was run for.
        measured: the quantities of all the trials, NaN.
    """
    tags = run.tags
    identity = {
        "key": tags[Tag.KEY],
        "study": tags["study"],
        "role": tags[Tag.ROLE],
        "status": tags[Tag.STATUS],
    }
    places = _places(NUMBERS, run.metrics)
    numbers = {name: run.metrics[places[name]] if name in places else float("nan") for name in NUMBERS}
    return (
        identity
        | (json.loads(tags[Tag.ARM]) | json.loads(tags.get(Tag.NUISANCE, "{}")) if arm is None else arm)
        | {"seed": int(tags[Tag.SEED])}
        | numbers
        | measured
        | _quantities(run)
        | {name: tags.get(name, "") for name in CIRCUMSTANCES}
        | {"error": tags.get(Tag.ERROR, ""), "warning": tags.get(Tag.WARNING, ""), "folder": run.folder}
    )


def _places(names: Iterable[str], stored: Collection[str]) -> dict[str, str]:
    """What is wanted -> what it is called among what a version of this package stored; without what is not there."""
    old = {} if RUNNING.keys() & set(stored) else RUNNING
    places = {name: old.get(name, name) for name in names if name not in old.values()}
    return {name: place for name, place in places.items() if place in stored}


def _joined(
    store, selected: list[Run], file: str, names: tuple[str, ...], epochs: Collection[int] | None = None
) -> pd.DataFrame:
    """The rows of a Parquet file of each run, one run's after another's; those of some epochs, or all."""
    import pyarrow
    from pyarrow import compute, parquet

    def table(run):
        content = store.content(run, file)
        try:  # not read_table, which takes twice as long for a small file
            part = parquet.ParquetFile(pyarrow.BufferReader(content))
            places = _places(names, part.schema_arrow.names)
            stored = part.read(list(places.values()), use_threads=False)
        except (pyarrow.ArrowException, OSError) as error:
            raise StudyError(
                f"{file} of run {run.run_id} in {run.folder} is damaged ({str(error).splitlines()[0]}): restore it "
                f"from a copy, or run its study again: the same command trains it anew"
            ) from error
        stored = stored.select(list(places.values())).rename_columns(list(places))
        if "warning" in names and "warning" not in places:
            stored = stored.append_column("warning", pyarrow.array([""] * len(stored), pyarrow.string()))
        return stored if epochs is None else stored.filter(compute.is_in(stored["epoch"], pyarrow.array([*epochs])))

    with ThreadPoolExecutor(READERS) as readers:
        parts = [part for part in readers.map(table, selected) if len(part)]
    if not parts:
        return pd.DataFrame(columns=list(names))
    whole = pyarrow.concat_tables(parts, promote_options="permissive")
    del parts
    frame = whole.to_pandas(split_blocks=True, self_destruct=True)
    return frame if tuple(frame) == names else frame.reindex(columns=list(names))  # older trials have fewer columns
