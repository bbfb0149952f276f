"""The executions of a study: which there are, and what changed from one to another."""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis import load
from analysis.show import executions as words
from analysis.show import tables
from studies.record import StudyError, listed


def listing(study: str, root: str | Path = "mlruns", format: str = "terminal", width: int | None = None) -> str:
    """A study's executions, oldest first, one a row.

    Raises:
        StudyError: there is no such study.
    """
    from analysis.estimate import history

    found = history.listing(load.executions(study, root), load.ended_keys(study, root))
    return words.listing_table(found, format, width)


def changes(
    study: str,
    root: str | Path = "mlruns",
    metric: str | None = None,
    format: str = "terminal",
    which: str | None = None,
    width: int | None = None,
) -> str:
    """A study's executions, and what changed from one to another, the last two; as CSV the executions only.

    Only what both have is compared: a factor's levels are no settings, and means are of the arms that both have, each
    over the seeds that both had when it ended.

    Args:
        which: the two to compare, by their numbers or the beginnings of their ids, separated by a comma.

    Raises:
        StudyError: there is no such study, metric or execution, or `which` names other than two.
    """
    from analysis.estimate import history

    found = load.executions(study, root)
    whole = history.listing(found, load.ended_keys(study, root))
    pair = _pair(study, root, found, which)
    if pair is None or format == "csv":
        rows = {"study": study, "executions": tables.rows_of(whole)}
        return json.dumps(rows, indent=2) if format == "json" else words.listing_table(whole, format, width)
    old, new = pair
    arms = load.shared_levels(pair, root)
    levels = history.level_changes(*arms)
    before, after = (load.text(each, "study.yaml", root) for each in pair)
    changed = Changes(
        old.number,
        new.number,
        {"added": len({*new.keys} - {*old.keys}), "removed": len({*old.keys} - {*new.keys})}
        | {"kept": len({*new.keys} & {*old.keys})},
        levels[levels["before"] != levels["after"]],
        history.config_changes(before, after, list(levels["factor"])),
        metric or new.study.metric,
        _means(study, root, pair, arms, metric or new.study.metric),
    )
    if format == "json":
        record = {"study": study, "executions": tables.rows_of(whole), "changes": changed.record}
        return json.dumps(record, indent=2, ensure_ascii=False)
    return "\n\n".join([words.listing_table(whole, format, width), *changed.paragraphs(format, width)])


@dataclass(frozen=True)
class Changes:
    """What changed from one execution to another, by their numbers.

    Attributes:
        trials: how many were added, removed and kept.
        levels, settings: of factors, from `history.level_changes`; of configs, from `history.config_changes`.
        means: of the metric, from `history.mean_changes`; None if they have no arm in common.
    """

    old: int
    new: int
    trials: dict[str, int]
    levels: pd.DataFrame
    settings: pd.DataFrame
    metric: str
    means: pd.DataFrame | None

    @property
    def record(self) -> dict:
        """As JSON has it."""
        rows = {"levels": self.levels, "settings": self.settings, "means": self.means}
        return {"from": self.old, "to": self.new, "trials": self.trials, "metric": self.metric} | {
            name: [] if frame is None else tables.rows_of(frame) for name, frame in rows.items()
        }

    def paragraphs(self, format: str, width: int | None) -> list[str]:
        """As a reader sees it."""
        added, removed, kept = self.trials.values()
        parts = [f"From execution {self.old} to {self.new}: {added} trials added, {removed} removed, {kept} kept"]
        parts += [tables.frame_table(self.levels, format, width)] if len(self.levels) else []
        same = self.settings.empty
        parts += ["the settings are the same" if same else tables.frame_table(self.settings, format, width)]
        if self.means is None:
            return [*parts, "They have no arm in common at the same seed, so that no means are compared."]
        parts += [f"{tables.words(self.metric)}, mean over the seeds that both had"]
        return [*parts, tables.frame_table(self.means, format, width)]


def _pair(study, root, found, which) -> tuple[load.Execution, load.Execution] | None:
    """The two executions to compare; None where there is one alone."""
    if which is None:
        return (found[-2], found[-1]) if len(found) > 1 else None
    parts = [load.execution(study, root, execution=part.strip()) for part in which.split(",")]
    if len(parts) != 2 or any(part.parts for part in parts) or parts[0] == parts[1]:
        numbers = listed(range(1, len(found) + 1))
        raise StudyError(f"--executions --execution {which}: expected two of {numbers}, such as 1,{len(found)}")
    return parts[0], parts[1]


def _means(study, root, pair, arms, metric) -> pd.DataFrame | None:
    """Each shared arm's mean in either execution as it was when that ended; None if they share none."""
    from analysis.estimate import columns, comparison, history

    by = list(dict.fromkeys(name for each in pair for name in each.study.factors))
    frames = [load.trials(study, root, own, each.end_time) for own, each in zip(arms, pair, strict=True)]
    if any(frame.empty for frame in frames):
        return None
    shared = history.shared(frames[0], frames[1], by)
    if any(frame.empty for frame in shared):
        return None
    means = [comparison.comparison(columns.added(frame, metric, study, root), by, metric, {}) for frame in shared]
    return history.mean_changes(means[0], means[1], by)
