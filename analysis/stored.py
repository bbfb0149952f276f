"""One trial's run in a store, by its id or its key, with all that it was written with."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from analysis import load
from analysis.read import runs
from analysis.read.runs import Run
from studies.contract import Tag
from studies.record import StudyError, arm_label, listed, numbered

LEAST = 4
"""Signs of an id or a key that are enough to name it, if no other begins so."""

NAMED = 3
"""So many trials of an execution are named where one of them is meant."""


@dataclass(frozen=True)
class Stored:
    """A trial as it is stored.

    Attributes:
        run: its own.
        execution: the tags of the execution that it was run in; empty where that is gone.
        config: its whole config, without its seed and overrides.
        numbers: its results by name.
        frames: see `load.frames`.
    """

    run: Run
    execution: dict[str, str]
    config: dict
    numbers: dict[str, float]
    frames: dict[str, pd.DataFrame]

    @property
    def key(self) -> str:
        """The trial's."""
        return self.run.tags[Tag.KEY]

    @property
    def label(self) -> str:
        """Its study, levels and seed as a reader sees them."""
        return labelled(self.run)

    @property
    def tags(self) -> dict[str, str]:
        """What the run says of its surroundings, and for what it does not say its execution."""
        return self.execution | self.run.tags


def labelled(run: Run) -> str:
    """A trial's study, levels and seed: `init_comparison he_normal depth=8 seed=1`."""
    levels = json.loads(run.tags[Tag.ARM]) | json.loads(run.tags.get(Tag.NUISANCE, "{}"))
    return f"{run.tags['study']} {f'{arm_label(levels)} ' * bool(levels)}seed={run.tags[Tag.SEED]}"


def found(named: str, root: str | Path) -> Run:
    """The run of an ended trial: by its id, or by the trial's key, of which the latest counts; or by how one begins.

    Raises:
        StudyError: there is none, or several that are not told apart; or it is an execution's.
    """
    store, mine, others = runs.opened(root), [], []
    for study in store.studies() if len(named) >= LEAST else ():
        every = store.runs(study)
        of_trials = {run.run_id for run in load.ended_of(every)}
        for run in every:
            is_trial = run.run_id in of_trials
            if run.run_id.startswith(named) or (is_trial and run.tags[Tag.KEY].startswith(named)):
                (mine if is_trial else others).append((run, every))
    keys = {run.tags[Tag.KEY] for run, _ in mine}
    if len(keys) + len(others) > 1:
        raise StudyError(f"{named}: {len(keys) + len(others)} trials or runs in {root} begin so: write more of it")
    if others:
        raise StudyError(_refused(*others[0]))
    if not mine:
        raise StudyError(
            f"{named}: no trial in {root} has such a run or key: expected the first {LEAST} signs or more of an MLflow "
            f"run's id, or of a trial's key, as load.trials(STUDY)['key'] and the report's pages of trials have them; "
            f"another store is named with --root"
        )
    chosen = [run for run, _ in mine if run.run_id.startswith(named)] or [run for run, _ in mine]
    return with_numbers(max(chosen, key=lambda run: run.start_time), root)


def of_study(study: str, root: str | Path, count: int | None = None) -> list[Run]:
    """The trials of a study's latest execution, by their latest runs.

    Args:
        count: so many at most, those whose keys, which are hashes, come first: the same ones each time.

    Raises:
        StudyError: there is no such study, or none of its trials has ended.
    """
    ended = {run.tags[Tag.KEY]: run for run in load.ended(study, root)}
    keys = [key for key in load.execution(study, root).keys if key in ended]
    if not keys:
        raise StudyError(f"no trial of {study} in {root} has ended yet: run it again to go on")
    wanted = set(sorted(keys)[:count])
    measured = {run.run_id: run for run in runs.opened(root).runs(study, metrics=load.NUMBERS)}
    return [measured[ended[key].run_id] for key in keys if key in wanted]


def with_numbers(run: Run, root: str | Path) -> Run:
    """The same run with its results."""
    every = runs.opened(root).runs(run.tags["study"], metrics=load.NUMBERS)
    return next((each for each in every if each.run_id == run.run_id), run)


def read(run: Run, root: str | Path) -> Stored:
    """A trial's run with all its files.

    Raises:
        StudyError: one is lost or damaged; or it was not trained by `studies.run`.
    """
    store = runs.opened(root)
    parent = run.tags.get("mlflow.parentRunId", "")
    above = {each.run_id: each.tags for each in store.runs(run.tags["study"], role="execution")}
    try:
        config = yaml.safe_load(store.content(run, "config.yaml"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise StudyError(
            f"config.yaml of run {run.run_id} is damaged ({' '.join(str(error).split())[:200]}): restore it from a "
            f"copy of the store"
        ) from error
    if not isinstance(config, dict):
        raise StudyError(f"config.yaml of run {run.run_id} is damaged: expected the trial's config, by its parts")
    body = {name: node for name, node in config.items() if name not in ("seed", "overrides")}
    return Stored(run, above.get(parent, {}), body, load.numbers(run), load.frames(run, store))


def _refused(run: Run, every: Iterable[Run]) -> str:
    """What is said of a run that is no trial's."""
    if Tag.KEY in run.tags:
        return f"the run {run.run_id} is of a trial that has not ended, or its tags were edited: expected one that has"
    below = [each for each in load.ended_of(every) if each.tags.get("mlflow.parentRunId") == run.run_id]
    some = [f"{each.run_id} ({labelled(each)})" for each in below[:NAMED]]
    of = run.tags.get("study", "")
    return (
        f"the run {run.run_id} is an execution{f' of {of}' * bool(of)}, not a trial's. "
        + (f"It has trained {numbered(len(below), 'trial')}, such as {listed(some)}" if some else "It has trained none")
        + (f"; --all {of} takes those of the latest execution" if of else "")
    )
