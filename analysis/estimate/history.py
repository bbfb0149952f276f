"""The executions of a study, what changed from one to another, and what an answer was preceded by."""

import itertools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd
import yaml

from analysis import load
from studies.contract import CIRCUMSTANCES
from studies.record import Study, StudyError, arm_label, is_neutral, listed

COMMIT = "mlflow.source.git.commit"

TABLE = "comparison.md"
"""Among an execution's files if it showed its table."""


MOST_NAMED = 6
"""Arms that are named of those that were trained by one alone."""


@dataclass(frozen=True)
class Look:
    """A table that an execution showed before, of some of the trials that are compared now.

    Attributes:
        day: on which, local time.
        seeds, arms: how many it was of.
        metric, baseline: what by and against what.
    """

    day: str
    seeds: int
    arms: int
    metric: str
    baseline: dict


@dataclass(frozen=True)
class Choices:
    """What was chosen, or could have been, with the results in sight: no p value accounts for it.

    Attributes:
        where, since: the conditions on the trials, as `analysis.compare` has them; None if there are none.
        by: the factors compared, if they are not all of the study's.
        metric: what they are compared by, if it is not the study's own.
        looks: earlier ones at some of the trials, oldest first.
        design: what those would be if they were the present one's; `day` is empty.
    """

    where: str | None = None
    since: str | None = None
    by: tuple[str, ...] | None = None
    metric: str | None = None
    looks: tuple[Look, ...] = ()
    design: Look | None = None


def choices(
    study: Study,
    executions: list[load.Execution],
    keys: Collection[str],
    root: str | Path,
    by: list[str] | None = None,
    metric: str | None = None,
    where: str | None = None,
    since: str | None = None,
    left: Collection[str] | None = None,
) -> Choices:
    """What an answer was preceded by.

    An execution counts as a look if it showed its table, shares trials with those at hand, and has others besides, or
    another metric or baseline: the first look at a design has none before it, nor has the same one repeated.

    Args:
        executions: of the study, oldest first; those that came before.
        keys: of the trials at hand, before any condition on them.
        by, metric, where, since: as `analysis.compare` has them.
        left: keys of the trials that the conditions leave; None for all.
    """
    now, found = _view(study, keys), {}
    left = now[0] if left is None else frozenset(left)
    for each in executions:
        view = _view(each.study, each.keys)
        if view != now and view not in found and not view[0].isdisjoint(left) and _was_shown(each, root):
            found[view] = _look(
                each.study, each.keys, f"{datetime.fromtimestamp((each.end_time or 0) / 1000):%Y-%m-%d}"
            )
    other_by = None if by is None or set(by) in ({*study.factors}, {*study.compared}) else tuple(by)
    return Choices(
        where,
        since,
        other_by,
        None if metric in (None, study.metric) else metric,
        tuple(found.values()),
        _look(study, keys, ""),
    )


def _view(study, keys) -> tuple:
    """What makes two tables the same."""
    return frozenset(keys), study.metric, arm_label(study.baseline, whole=True)


def _look(study, keys, day) -> Look:
    return Look(day, len(study.seeds), round(len(keys) / len(study.seeds)), study.metric, study.baseline)


def _was_shown(execution, root) -> bool:
    if execution.end_time is None:
        return False
    try:
        return bool(load.text(execution, TABLE, root))
    except StudyError:
        return False


def listing(executions: list[load.Execution], ended: Collection[str] = ()) -> pd.DataFrame:
    """One row an execution: its number and id, started (local time), seconds (NaN while it runs), status, trials and
    how many of them have ended, what it sets besides the study, its sweep, command, commit and versions.

    Args:
        ended: the keys of the study's trials that have ended.
    """
    return pd.DataFrame(
        [
            {
                "execution": each.number,
                "id": each.run_id,
                "started": f"{datetime.fromtimestamp(each.start_time / 1000):%Y-%m-%d %H:%M:%S}",
                "seconds": math.nan if each.end_time is None else (each.end_time - each.start_time) / 1000,
                "status": each.status,
                "trials": len(each.keys),
                "ended": len(set(each.keys) & set(ended)),
                "sets": " ".join(each.settings),
                "own": each.own,
                "sweep": each.sweep,
                "command": each.command,
                "commit": each.tags.get(COMMIT, ""),
                "versions": ", ".join(
                    f"{_called(name)} {version}"
                    for name, version in sorted(each.tags.items())
                    if name.startswith("version.")
                ),
            }
            for each in executions
        ]
    )


def level_changes(old: dict[str, dict], new: dict[str, dict]) -> pd.DataFrame:
    """One row a factor of either of two executions: its levels before and after.

    Args:
        old, new: the arms of the trials of each, by key, with a level of every factor.
    """
    names = dict.fromkeys(name for arms in (old, new) for arm in arms.values() for name in arm)
    levels = [
        [listed(dict.fromkeys(_hashable(arm.get(name)) for arm in arms.values())) for arms in (old, new)]
        for name in names
    ]
    rows = [(name, *both) for name, both in zip(names, levels, strict=True)]
    return pd.DataFrame(rows, columns=["factor", "before", "after"])


def config_changes(old: str, new: str, factors: Collection[str] = ()) -> pd.DataFrame:
    """One row a config key whose value changed, was added or removed (–), from two configs as YAML.

    One that is neutral in a config and not there in the other, which is of before it came, did not change.

    Args:
        factors: whose levels are no settings: what a config says of them no trial need have.
    """
    before, after = (dict(_flat(yaml.safe_load(text) or {})) for text in (old, new))
    rows = [
        (
            key,
            *(_yaml(config[key]) if key in config else "–" for config in (before, after)),
        )
        for key in dict.fromkeys([*before, *after])
        if not _is_same(key, before, after) and not _is_of(key, factors)
    ]
    return pd.DataFrame(rows, columns=["config key", "before", "after"])


def _is_same(key: str, before: dict, after: dict) -> bool:
    if key in before and key in after:
        return before[key] == after[key]
    return is_neutral(key, before.get(key, after.get(key)))


def _is_of(key: str, factors: Collection[str]) -> bool:
    """Whether a config key is a factor, or within what one of its options is."""
    return any(key == factor or key.startswith(f"{factor}.") for factor in factors)


def _hashable(level: object) -> object:
    return tuple(level) if isinstance(level, list) else level


def shared(old: pd.DataFrame, new: pd.DataFrame, by: list[str]) -> list[pd.DataFrame]:
    """Of two trials frames those rows whose arm, by the factors `by`, and seed are in the other too."""
    cells = [[(_arm(row, by), row["seed"]) for row in frame.to_dict("records")] for frame in (old, new)]
    both = set.intersection(*map(set, cells))
    return [frame[[cell in both for cell in mine]] for frame, mine in zip((old, new), cells, strict=True)]


def mean_changes(old: pd.DataFrame, new: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """One row an arm that two comparisons have: its mean in either, and the difference.

    Args:
        old, new: from `comparison.comparison`, both by the factors `by`.
    """
    before = {_arm(row, by): row["mean"] for row in old.to_dict("records")}
    rows = [
        (_arm(row, by), before[_arm(row, by)], row["mean"], row["mean"] - before[_arm(row, by)])
        for row in new.to_dict("records")
        if _arm(row, by) in before
    ]
    return pd.DataFrame(rows, columns=["arm", "before", "after", "change"])


def mixed(trials: pd.DataFrame, by: Sequence[str] = ()) -> list[str]:
    """Says what was not the same for all trials of a frame though it may change their numbers, and whether arms differ
    by it too; nothing if all was.

    Args:
        by: the factors that make arms.
    """
    unlike, kinds = [], []
    for name in CIRCUMSTANCES:
        known = trials[name][trials[name] != ""] if name in trials else pd.Series()
        if len(counts := known.value_counts()) > 1:
            unlike.append(f"{_called(name)} " + " and ".join(f"{value} ({n})" for value, n in counts.items()))
            kinds.append(name)
    if not unlike:
        return []
    return [
        f"The trials were not all trained by the same, {'; '.join(unlike)}: that alone changes last bits, and after "
        f"some epochs scores.{_confounded(trials, by, kinds)}"
    ]


def _confounded(trials: pd.DataFrame, by: Sequence[str], kinds: list[str]) -> str:
    """Whether what sets arms apart may be what they were trained by, as a sentence to follow; empty for a single arm.

    Args:
        kinds: the columns of what is not the same.
    """
    if not by or not {"seed", *by} <= set(trials):
        return ""
    rows = trials.to_dict("records")
    where = [tuple(row[name] for name in kinds) for row in rows]
    arms: dict[str, set] = {}
    seeds: dict[int, set] = {}
    for row, kind in zip(rows, where, strict=True):
        arms.setdefault(_arm(row, by), set()).add(kind)
        seeds.setdefault(row["seed"], set()).add(kind)
    if len(arms) < 2:
        return ""
    if all(len(each) == 1 for each in seeds.values()):
        return " At each seed all arms were trained by the same, so that differences at a seed are not of that."
    alone = {arm: next(iter(each)) for arm, each in arms.items() if len(each) == 1}
    if len(set(alone.values())) > 1 or (alone and len(alone) < len(arms)):
        named = [f"{arm} by {' and '.join(kind)} alone" for arm, kind in alone.items()]
        more = f" and {len(named) - MOST_NAMED} arms more" * (len(named) > MOST_NAMED)
        return (
            f" Arms are confounded with it, {', '.join(named[:MOST_NAMED])}{more}: what sets these apart from others "
            f"may be what they were trained by."
        )
    apart = sum(len(each) > 1 for each in seeds.values())
    return (
        f" At {apart} of {len(seeds)} seeds the arms were not all trained by the same, so that differences are of it "
        f"too."
    )


def renamed(trials: pd.DataFrame, metric: str) -> list[str]:
    """Says where the numbers are now that earlier versions stored as a metric; nothing if any that finished has it."""
    now = {old: name for name, old in load.RUNNING.items()}.get(metric)
    finished = trials[trials["status"] == "finished"]
    if now not in trials or finished[metric].notna().any() or finished[now].isna().all():
        return []
    return [
        f"No trial that finished has {metric}: what earlier versions stored under that name is {now} now, which these "
        f"trials have."
    ]


def changed(finished: list[dict[str, str]], now: dict[str, str]) -> str:
    """How trials that an execution would add to were trained otherwise than it would train, or nothing.

    Args:
        finished: the tags of those that are there.
        now: what `studies.command.provenance.circumstances` says.
    """
    unlike = {name: [] for name in CIRCUMSTANCES}
    for tags, name in itertools.product(finished, CIRCUMSTANCES):
        if tags.get(name) and now.get(name) and tags[name] != now[name]:
            unlike[name].append(tags[name])
    parts = [
        f"{len(values)} by {_called(name)} {listed(dict.fromkeys(values))}, now {now[name]}"
        for name, values in unlike.items()
        if values
    ]
    if not parts:
        return ""
    return (
        f"of the {len(finished)} trials that are finished, not all were trained as the others will be "
        f"({'; '.join(parts)}), which alone can change scores: study.name=ANOTHER trains all of them anew"
    )


def _called(name: str) -> str:
    return name.removeprefix("version.")


def _arm(row, by) -> str:
    return arm_label({factor: row[factor] for factor in by})


def _yaml(value) -> str:
    """A value as YAML has it in one line: null is not the text 'null'."""
    return yaml.safe_dump(value, default_flow_style=True, width=1e9, allow_unicode=True).removesuffix("...\n").strip()


def _flat(config, path=""):
    if isinstance(config, dict) and config:
        for name, value in config.items():
            yield from _flat(value, f"{path}.{name}" if path else str(name))
    else:
        yield path, config
