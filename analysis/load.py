"""A study's trials, epochs and layers as tidy frames."""

import ast
import difflib
import json
import math
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd
import yaml

from analysis.read import raw, runs
from analysis.read.runs import Run
from studies.contract import (
    CIRCUMSTANCES,
    CONFUSION_COLUMNS,
    DENSITY_COLUMNS,
    EPOCH_COLUMNS,
    LAYER_COLUMNS,
    STATISTICS,
    TRIAL_COLUMNS,
    Tag,
)
from studies.record import METRICS, STATUSES, Claim, Result, Space, Study, StudyError, listed

TEXTS = ("key", "status", "error", "quantities", "confusions")
NUMBERS = tuple(dict.fromkeys((*METRICS, *(f.name for f in fields(Result) if f.name not in TEXTS))))
"""The numbers of a `Result`, which are columns of the trials frame, the metrics first."""

RUNNING = {"running_loss": "train_loss", "running_accuracy": "train_accuracy"}
"""What means over an epoch's steps were called in stores of before the trained network's numbers were kept too."""

OBSERVED = (*STATISTICS, "warning")
"""What the layers frame has of a tensor at an epoch."""

DENSITIES, CONFUSIONS = "densities.parquet", "confusions.parquet"

CLAIMS = Path(__file__).parent.parent / "conf" / "study" / "claims"

READERS = 8
"""Files read at a time: a server's answers are waited for, and a folder's are read on two cores 1.7 times faster."""


@dataclass(frozen=True)
class Execution:
    """One invocation of a study: its design, and all its trials but those that only tune.

    Attributes:
        arms: the trials' keys, and the levels of each in this design, None where they were not kept.
        status: MLflow's, `RUNNING` until it has ended.
        folder: of its own files; of a server's, on the server's machine.
        tags: all that its run has, such as `version.keras` and `machine`.
        start_time, end_time: milliseconds since 1970, UTC; no end while it is running.
    """

    study: Study
    hash: str
    arms: dict[str, dict | None]
    status: str
    folder: Path
    run_id: str
    experiment_id: str
    tags: dict[str, str]
    start_time: int
    end_time: int | None

    @property
    def keys(self) -> tuple[str, ...]:
        """The trials' keys."""
        return tuple(self.arms)


def studies(root: str | Path = "mlruns") -> list[str]:
    """The names of the studies in a store.

    Args:
        root: here and below, the store's folder, by path or URI, or an `http://` or `https://` address of an MLflow
            tracking server.
    """
    return runs.opened(root).studies()


def executions(study: str, root: str | Path = "mlruns") -> list[Execution]:
    """The study's executions, oldest first.

    Raises:
        StudyError: the store has no such study.
    """
    store = runs.opened(root)
    return [_execution(store, run) for run in _parents(store, study, store.runs(study, role="execution"))]


def execution(study: str, root: str | Path = "mlruns", run_id: str | None = None) -> Execution:
    """The study's latest execution, or that of an MLflow run.

    Raises:
        StudyError: the store has no such study.
    """
    store = runs.opened(root)
    parents = _parents(store, study, store.runs(study, role="execution"))
    return _execution(store, next((run for run in parents if run.run_id == run_id), parents[-1]))


def text(execution: Execution, name: str, root: str | Path = "mlruns") -> str:
    """One of an execution's own files, such as `study.yaml`.

    Raises:
        StudyError: it is not there.
    """
    return runs.opened(root).content(execution, name).decode()


def tuning_trials(execution: Execution, root: str | Path = "mlruns") -> pd.DataFrame:
    """The trials that an execution's nuisance factors were tuned with; none if it has not got that far."""
    try:
        arms = json.loads(text(execution, "tuning_trials.json", root))
    except StudyError:
        arms = {}
    return trials(execution.study.name, root, arms)


def trials(
    study: str,
    root: str | Path = "mlruns",
    keys: Mapping[str, dict | None] | Iterable[str] | None = None,
    until: int | None = None,
) -> pd.DataFrame:
    """One row a trial: key, study, role, status, the factors by their config keys, seed, metrics, seconds, the
    quantities of computed trials in double precision, what it was trained by (`studies.contract.CIRCUMSTANCES`), error.

    A factor with null among its levels has the dtype object, so that its other levels stay what they are. Numbers that
    an earlier version did not store are NaN.

    Args:
        keys: of the trials wanted, in the order wanted; or, with each one's levels in the design at hand, the `arms` of
            an execution, else they are those that the trial was first run for. None for those of the latest execution.
        until: in milliseconds since 1970, UTC: the trials as they were then, without runs that had not ended.
    """
    store = runs.opened(root)
    found = store.runs(study, metrics=NUMBERS)
    if keys is None:
        keys = _arms(store, _parents(store, study, found)[-1])
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


def epochs(study: str, root: str | Path = "mlruns", keys: Iterable[str] | None = None) -> pd.DataFrame:
    """One row a trial and epoch: the columns `studies.contract.EPOCH_COLUMNS`; what was not stored then is NaN."""
    store = runs.opened(root)
    return _joined(store, _selected(store, study, keys), "epochs.parquet", EPOCH_COLUMNS)


def layers(
    study: str,
    root: str | Path = "mlruns",
    keys: Iterable[str] | None = None,
    statistics: Iterable[str] = OBSERVED,
    epochs: Collection[int] | None = None,
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
    return _joined(store, _selected(store, study, keys), "layers.parquet", names, epochs)


def densities(study: str, root: str | Path = "mlruns", keys: Iterable[str] | None = None) -> pd.DataFrame:
    """How many entries of each weight lie where, at about a dozen epochs: `studies.contract.DENSITY_COLUMNS`.

    Counts are `(DENSITY_CELLS,)` each, of equal cells from low to high. Trials that were run without diagnostics, or
    before these were kept, have no rows.
    """
    store = runs.opened(root)
    kept = [run for run in _selected(store, study, keys) if store.has(run, DENSITIES)]
    return _joined(store, kept, DENSITIES, DENSITY_COLUMNS)


def confusions(study: str, root: str | Path = "mlruns", keys: Iterable[str] | None = None) -> pd.DataFrame:
    """How many examples of a class a trained network takes for which: `studies.contract.CONFUSION_COLUMNS`.

    A class is its label, from 0 on; a pair that does not occur has no row. They are of the weights that the trial's
    scores are of. Trials that diverged or crashed, or were run before these were kept, have no rows.
    """
    store = runs.opened(root)
    kept = [run for run in _selected(store, study, keys) if store.has(run, CONFUSIONS)]
    return _joined(store, kept, CONFUSIONS, CONFUSION_COLUMNS)


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


def settings(study: str, root: str | Path = "mlruns", keys: Iterable[str] | None = None) -> pd.DataFrame:
    """One row a trial: key, and the main values of its config, by their config keys; null where it has none."""
    selected = _selected(runs.opened(root), study, keys, params=True)
    rows = [{name: _value(text) for name, text in run.params.items()} for run in selected]
    names = list(dict.fromkeys(name for row in rows for name in row))
    frame = pd.DataFrame({name: pd.Series([row.get(name) for row in rows], dtype=object) for name in names})
    frame.insert(0, "key", [run.tags[Tag.KEY] for run in selected])
    return frame


def configs(study: str, root: str | Path = "mlruns", keys: Iterable[str] | None = None) -> dict[str, dict]:
    """Each trial's whole config, with its `seed` and the `overrides` that compose it, by its key."""
    store = runs.opened(root)
    selected = _selected(store, study, keys)
    return {run.tags[Tag.KEY]: yaml.safe_load(store.content(run, "config.yaml")) for run in selected}


def finished_keys(study: str, root: str | Path = "mlruns") -> set[str]:
    """The keys of trials that need not run again: all that ended but for crashes."""
    return {run.tags[Tag.KEY] for run in ended(study, root) if run.tags[Tag.STATUS] != "crashed"}


def ended(study: str, root: str | Path = "mlruns") -> list[Run]:
    """A study's ended trials, the latest run of each key last."""
    return _ended(runs.opened(root).runs(study))


def _parents(store, study, found) -> list[Run]:
    parents = [run for run in found if run.tags.get(Tag.ROLE) == "execution" and _is_whole(run)]
    if not parents:
        known = store.studies()
        near = difflib.get_close_matches(study, known, 1)
        folder = "claims/" * (CLAIMS / f"{study}.yaml").is_file()
        advice = (
            f"Did you mean {near[0]}?"
            if near and study not in known
            else f"Run it with python -m studies.run{'' if study == 'single' else f' +study={folder}{study}'}, or name "
            f"another store with --root FOLDER"
        )
        raise StudyError(f"no study {study!r} in {store}: it has {listed(known) or 'none yet'}. {advice}")
    return sorted(parents, key=lambda run: run.start_time)


def _execution(store, run) -> Execution:
    design = json.loads(run.tags[Tag.DESIGN])
    for role in ("factors", "nuisance"):
        design[role] = {factor: tuple(levels) for factor, levels in design.get(role, {}).items()}
    for seeds in ("seeds", "tuning_seeds"):
        design[seeds] = tuple(design.get(seeds, ()))
    for rules in ("zip", "skip", "only", "settings"):
        design[rules] = tuple(tuple(rule) if isinstance(rule, list) else rule for rule in design.get(rules, ()))
    for names in ("figures", "looks"):
        design[names] = tuple(design.get(names, ()))
    if card := design.get("claim"):
        band = card["claimed_band"]
        card |= {"across": tuple(card["across"]), "claimed_band": None if band is None else tuple(band)}
        known = {f.name for f in fields(Claim)}
        design["claim"] = Claim(**{name: value for name, value in card.items() if name in known})
    spaces = design.get("space", {}).items()
    design["space"] = {factor: Space(**s) if isinstance(s, dict) else tuple(s) for factor, s in spaces}
    design["sampled"] = {factor: Space(**each) for factor, each in design.get("sampled", {}).items()}
    return Execution(
        Study(**design),
        run.tags[Tag.HASH],
        _arms(store, run),
        run.status,
        run.folder,
        run.run_id,
        run.experiment_id,
        run.tags,
        run.start_time,
        run.end_time,
    )


def _arms(store, run) -> dict[str, dict | None]:
    """The trials that an execution compares: key -> its arm in that design, None where it was not kept."""
    kept = json.loads(store.content(run, "trials.json"))
    return kept if isinstance(kept, dict) else dict.fromkeys(kept)


def _ended(found) -> list[Run]:
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


def _selected(store, study, keys, **more) -> list[Run]:
    """The latest runs of the trials wanted, in the order wanted, in one reading of the store."""
    found = store.runs(study, **more)
    return _chosen(found, _arms(store, _parents(store, study, found)[-1]) if keys is None else keys)


def _chosen(found: list[Run], keys: Iterable[str]) -> list[Run]:
    latest = {run.tags[Tag.KEY]: run for run in _ended(found)}
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


def _value(text: str):
    """What a param was before MLflow made it a text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _joined(
    store, selected: list[Run], file: str, names: tuple[str, ...], epochs: Collection[int] | None = None
) -> pd.DataFrame:
    """The rows of a Parquet file of each run, one run's after another's; those of some epochs, or all."""
    import pyarrow
    from pyarrow import compute, parquet

    def table(run):
        # Not read_table, which takes twice as long for a small file.
        part = parquet.ParquetFile(pyarrow.BufferReader(store.content(run, file)))
        places = _places(names, part.schema_arrow.names)
        stored = part.read(list(places.values()), use_threads=False)
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
