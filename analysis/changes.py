"""The executions of a study: which there are, and what changed from one to another."""

import json
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

    return words.listing_table(history.listing(load.executions(study, root), load.ended_keys(study, root)), format, width)


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
    before, after = set(old.keys), set(new.keys)
    counts = {"added": len(after - before), "removed": len(before - after), "kept": len(after & before)}
    arms = load.shared_levels(pair, root)
    levels = history.level_changes(*arms)
    settings = history.config_changes(*(load.text(each, "study.yaml", root) for each in pair), list(levels["factor"]))
    levels = levels[levels["before"] != levels["after"]]
    metric = metric or new.study.metric
    means = _means(study, root, pair, arms, metric)
    if format == "json":
        compared = {"from": old.number, "to": new.number, "trials": counts, "metric": metric}
        compared |= {"levels": tables.rows_of(levels), "settings": tables.rows_of(settings)}
        compared |= {"means": [] if means is None else tables.rows_of(means)}
        rows = {"study": study, "executions": tables.rows_of(whole), "changes": compared}
        return json.dumps(rows, indent=2, ensure_ascii=False)
    parts = [words.listing_table(whole, format, width)]
    parts += [f"From execution {old.number} to {new.number}: " + ", ".join(_counted(counts))]
    parts += [tables.frame_table(levels, format, width)] if len(levels) else []
    parts += ["the settings are the same" if settings.empty else tables.frame_table(settings, format, width)]
    if means is None:
        parts += ["They have no arm in common at the same seed, so that no means are compared."]
    else:
        parts += [f"{tables.words(metric)}, mean over the seeds that both had", tables.frame_table(means, format, width)]
    return "\n\n".join(parts)


def _counted(counts: dict[str, int]) -> list[str]:
    return [f"{counts['added']} trials added", f"{counts['removed']} removed", f"{counts['kept']} kept"]


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
