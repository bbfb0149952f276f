"""Which levels hold at every level of the other factors, and where the others fall short, in two sentences."""

import pandas as pd

from analysis.estimate.arms import as_level
from analysis.estimate.measure import measure
from studies.record import arm_label, listed, short, shown

MOST = 6
"""Levels, or groups of levels that break alike, that are spoken of one by one."""

HOLDS = ("best", "tied")


def held(compared: pd.DataFrame, anchors: list[str], contexts: list[str], metric: str) -> list[str]:
    """Which levels of `anchors` are best, or cannot be told from the best, in every combination of `contexts`.

    A level falls short where none of its trials finished, where it fails at some seeds, where its interval reaches
    what a guess scores, or where it is worse than the best. Of one that was not tried in every combination nothing is
    known in the others: it is named apart.

    Args:
        compared: from `comparison.comparison`, of these factors and metric.

    Returns:
        nothing where neither more nor less of the metric is better, or where an arm could not be tested.
    """
    better = measure(metric).better
    rows = compared.to_dict("records")
    if not better or not contexts or any(row["standing"] in ("", "untested") for row in rows):
        return []
    states: dict[tuple, dict[tuple, str]] = {}
    for row in rows:
        level, context = (tuple(as_level(row[factor]) for factor in factors) for factors in (anchors, contexts))
        states.setdefault(level, {})[context] = _state(row, better)
    where = sorted({context: None for found in states.values() for context in found}, key=_order)
    if len(where) == 1:
        return []
    names = {level: arm_label(dict(zip(anchors, level, strict=True))) for level in states}
    sound = [level for level, found in states.items() if not any(found.values())]
    holding = [level for level in sound if len(states[level]) == len(where)]
    broken: dict[str, list[str]] = {}
    for level, found in states.items():
        if level not in sound:
            broken.setdefault(_breaks(found, where, contexts), []).append(names[level])
    partly = [
        f"{names[level]} ({_some([_named(context, contexts) for context in where if context in states[level]])})"
        for level in sound
        if level not in holding
    ]
    return [
        _holding([names[level] for level in holding], anchors, where, contexts),
        *[f"Not tried everywhere, and best or tied where they were: {_some(partly)}."] * bool(partly),
        *_broken(broken, bool(sound)),
    ]


def _state(row, better: int) -> str:
    """What is wrong with an arm; nothing if it holds."""
    if row["standing"] == "failed":
        return "with no trial that finishes"
    if row["erratic"]:
        lost = row["tried"] - round(row["success"] * row["tried"])
        return f"with {lost} of {row['tried']} seeds failing"
    end = row["low"] if better > 0 else row["high"]
    if (row["chance"] - (row["mean"] if end != end else end)) * better >= 0:
        return "at chance"
    return "" if row["standing"] in HOLDS else "behind the best"


def _holding(names: list[str], anchors, where, contexts) -> str:
    everywhere = _everywhere(where, contexts)
    if not names:
        return f"No {' and '.join(short(a, anchors) for a in anchors)} is best, or tied with the best, {everywhere}."
    are = "is" if len(names) == 1 else "are"
    return f"{_some(names)} {are} best, or cannot be told from the best, {everywhere}."


def _everywhere(where, contexts) -> str:
    if len(contexts) == 1:
        return f"at every {short(contexts[0], contexts)} ({listed(shown(level) for [level] in where)})"
    return f"at all {len(where)} combinations of {' and '.join(short(each, contexts) for each in contexts)}"


def _broken(broken: dict[str, list[str]], others: bool) -> list[str]:
    said = [f"{_some(names)} {breaks}" for breaks, names in broken.items()]
    if len(said) > MOST:
        said = [*said[:MOST], f"and {sum(map(len, list(broken.values())[MOST:]))} more"]
    return [f"{'The others fall short' if others else 'Each falls short'}: {'; '.join(said)}."] if said else []


def _breaks(found: dict[tuple, str], where: list[tuple], contexts: list[str]) -> str:
    """`at chance from depth=8 on, behind the best at depth=2`: what is wrong of a level, and where."""
    said = []
    for state in filter(None, dict.fromkeys(found.get(context) for context in where)):
        places = [n for n, context in enumerate(where) if found.get(context) == state]
        numbered = len(contexts) == 1 and all(isinstance(level, int | float) for [level] in where)
        if len(places) == len(where):
            said.append(f"{state} everywhere")
        elif numbered and len(places) > 1 and places == list(range(places[0], len(where))):
            said.append(f"{state} from {_named(where[places[0]], contexts)} on")
        else:
            said.append(f"{state} at {_some([_named(where[n], contexts) for n in places])}")
    return " and ".join(said)


def _named(context: tuple, contexts: list[str]) -> str:
    return arm_label(dict(zip(contexts, context, strict=True)), whole=True)


def _order(context: tuple):
    """Numbers by their size, other levels as they come."""
    return tuple(level if isinstance(level, int | float) and not isinstance(level, bool) else 0 for level in context)


def _some(names: list[str]) -> str:
    if len(names) > MOST:
        return f"{', '.join(names[:MOST])} and {len(names) - MOST} more"
    return listed(names) if len(names) < 2 else f"{', '.join(names[:-1])} and {names[-1]}"
