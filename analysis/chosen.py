"""Which trials of a study are meant: of which of its executions, and under which conditions."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd

from analysis import load
from analysis.show import executions as words
from studies import contract
from studies.contract import Tag
from studies.record import Study, StudyError


@dataclass(frozen=True)
class About:
    """Which execution something is of, and what else the store has of its study.

    Attributes:
        executions: all of the study's, oldest first.
        ended: the keys of its trials that have ended.
    """

    execution: load.Execution
    executions: Sequence[load.Execution]
    ended: frozenset[str]

    @property
    def lines(self) -> list[str]:
        """That in words."""
        return [
            words.named(self.execution, len(self.executions)),
            *words.others(self.execution, self.executions, self.ended),
        ]

    @property
    def record(self) -> dict:
        """That as JSON has it."""
        return words.record(self.execution, self.executions, self.ended)


def folder_of(execution: load.Execution, root: str | Path) -> Path:
    """The folder of an execution's files, to be written into.

    Raises:
        StudyError: it is not in the store's folder, as where a database says anything.
    """
    try:
        place = contract.folder(root).resolve()
    except StudyError:  # a store that is no folder
        return execution.folder
    if not execution.folder.resolve().is_relative_to(place):
        raise StudyError(
            f"{root} says that the files of this execution are in {execution.folder}, which is outside of it: nothing "
            f"is written there; add --to"
        )
    return execution.folder


def about(execution: load.Execution, root: str | Path) -> About:
    """What is to be said of where the trials of an execution are from."""
    study = execution.study.name
    return About(execution, load.executions(study, root), frozenset(load.ended_keys(study, root)))


def selected(
    study: str,
    root: str | Path = "mlruns",
    where: str | None = None,
    since: str | None = None,
    execution: str | int | load.Execution = load.LATEST,
) -> tuple[Study, pd.DataFrame]:
    """A study, and the trials frame of one of its executions, or of some of its trials.

    Args:
        where: a condition on the columns of the trials frame and of `load.settings`, see `selection.Condition`.
        since: when the trials ended at the earliest, see `selection.since`.
        execution: which, as `load.execution` has it, or itself.

    Raises:
        StudyError: there is no such study, execution, column or time, or no such trial: it says which other executions
            have some.
    """
    found = execution if isinstance(execution, load.Execution) else load.execution(study, root, execution=execution)
    ended = load.trials(study, root, found.arms)
    if ended.empty:
        others = words.others(found, load.executions(study, root), load.ended_keys(study, root))
        raise StudyError(
            " ".join([f"no trial of {study} in {root} has ended yet: run it again to go on.", *others]).rstrip(".")
        )
    trials = _left(study, root, ended, where, since)
    if trials.empty:
        given = {"--where": where, "--since": since}
        asked = " and ".join(f"{name} {text}" for name, text in given.items() if text is not None)
        raise StudyError(
            f"{asked}: none of the {len(ended)} trials of {study} that have ended is such a one, of "
            f"{_whose(found)}{_elsewhere(study, root, found, where, since)}"
        )
    return found.study, trials.reset_index(drop=True)


def _left(study: str, root: str | Path, trials: pd.DataFrame, where, since) -> pd.DataFrame:
    """The trials that the conditions leave."""
    from analysis.read import selection

    if since is not None:
        earliest = selection.since(since, datetime.now().astimezone())
        late = {run.tags[Tag.KEY] for run in load.ended(study, root) if (run.end_time or 0) >= earliest}
        trials = trials[trials["key"].isin(late)]
    if where is not None:
        condition = selection.Condition(where)
        columns = trials.drop(columns="folder")
        if not condition.knows(columns):
            settings = load.settings(study, root, list(trials["key"]))
            columns = columns.merge(settings[["key", *(n for n in settings if n not in columns)]], on="key")
        trials = trials[condition.holds(columns.set_axis(trials.index))]
    return trials


def _whose(execution: load.Execution) -> str:
    if execution.parts:
        return f"executions {', '.join(str(part.number) for part in execution.parts)}"
    sets = f", which sets {' '.join(execution.settings)}" * (not execution.own)
    return f"execution {execution.number}{sets}"


def _elsewhere(study, root, execution, where, since) -> str:
    """The other executions that have such trials, and how to see them; empty if none has."""
    found = []
    for each in load.executions(study, root):
        keys = [key for key in each.arms if key not in execution.arms]
        trials = load.trials(study, root, {key: each.arms[key] for key in keys})
        try:
            number = 0 if trials.empty else len(_left(study, root, trials, where, since))
        except StudyError:  # a column that it has not
            number = 0
        if number:
            found.append(f"{number} of execution {each.number} are (--execution {each.number})")
    whole = ", or all in one table with --execution all" * (len(found) > 1)
    return f". But {', '.join(found)}{whole}" if found else ""
