"""The arms of a study: the levels of its factors, and the rules over them: zip, skip, only, settings."""

import itertools
import json
import math
from collections.abc import Callable, Set

from studies.record import IDENTITY, Study, StudyError, listed, shown

MOST_TRIALS = 100_000
"""Of a study: more are a slip of the hand, and take gigabytes to plan."""


def of(study: Study) -> list[dict]:
    """The arms, factor -> level, that the rules leave of the grid.

    Raises:
        StudyError: a rule matches nothing, or nothing is left.
    """
    axes, placed = [], set()
    for factor in study.factors:
        if factor not in placed:
            group = next((group for group in study.zip if factor in group), (factor,))
            axes.append([dict(zip(group, row)) for row in zip(*(study.factors[f] for f in group), strict=True)])
            placed |= set(group)
    if (count := math.prod(map(len, axes))) > MOST_TRIALS:
        raise StudyError(
            f"{study.name} has a grid of {count:,} arms: expected {MOST_TRIALS:,} at most. Leave out levels"
        )
    cells = (dict(itertools.chain.from_iterable(part.items() for part in cell)) for cell in itertools.product(*axes))
    grid = [{factor: cell[factor] for factor in study.factors} for cell in cells]
    for name in ("skip", "only", "settings"):
        for rule in getattr(study, name):
            when = rule["when"] if name == "settings" else rule
            of_arms = {factor: levels for factor, levels in when.items() if factor in study.factors}
            if not any(matches(of_arms, arm) for arm in grid):
                raise StudyError(f"study.{name} has a rule that matches no arm: {shown(when)}. Leave it out")
    arms = [arm for arm in grid if not any(matches(rule, arm) for rule in study.skip)]
    arms = [arm for arm in arms if not study.only or any(matches(rule, arm) for rule in study.only)]
    if not arms:
        raise StudyError("study.skip and study.only leave no arm: leave a rule out")
    return arms


def nuisance_of(study: Study) -> list[dict]:
    """Every combination of the nuisance factors' levels, the first factor's changing last; or every point drawn."""
    levels = study.nuisance.values()
    rows = zip(*levels, strict=True) if study.draws else itertools.product(*levels)
    return [dict(zip(study.nuisance, row, strict=True)) for row in rows]


def settings_of(study: Study, arm: dict) -> list[tuple]:
    """What the study's settings give an arm, with its nuisance levels if it is tuned; of two for one key the later
    counts."""
    values = {}
    for entry in study.settings:
        if matches(entry["when"], arm):
            values |= entry["set"]
    return list(values.items())


def is_tuned(study: Study, arm: dict) -> bool:
    """Whether the nuisance factors are tuned for an arm: not if its settings say that it is to be as it comes."""
    return not any(entry.get("tune") is False and matches(entry["when"], arm) for entry in study.settings)


def zipped(node: object, factors: dict, left_out: set[str]) -> tuple:
    """The groups of factors that move together, without those that the user has fixed."""
    groups = []
    for group in _list(node, "study.zip", "[[optimizer, optimizer.learning_rate]]"):
        names = _list(group, "study.zip", "[[optimizer, optimizer.learning_rate]]")
        for factor in names:
            if factor not in (*factors, *left_out):
                raise StudyError(f"study.zip names {factor}: expected factors of the study, {listed(factors)}")
        if any(names.count(factor) > 1 or any(factor in other for other in groups) for factor in names):
            raise StudyError(f"study.zip names a factor twice in {shown(node)}: expected each in one group at most")
        groups.append(tuple(factor for factor in names if factor not in left_out))
    return tuple(group for group in groups if len(group) > 1)


def moved_along(baseline: dict, zipped: tuple, factors: dict) -> dict:
    """The levels that factors have in the baseline because they move together with those that it names.

    Raises:
        StudyError: they have several there.
    """
    others = {}
    for group in zipped:
        named = {factor: baseline[factor] for factor in group if factor in baseline}
        moves = list(zip(*(factors[factor] for factor in group), strict=True)) if named else []
        there = [m for m in moves if all(same(dict(zip(group, m))[f], level) for f, level in named.items())]
        if len(there) > 1:
            raise StudyError(
                f"study.baseline names {listed(f'{f}={shown(level)}' for f, level in named.items())}, which study.zip "
                f"has {len(there)} times: name {listed(f for f in group if f not in named)} too"
            )
        for move in there:
            others |= dict(zip(group, move, strict=True))
    return others


def rules(node: object, path: str, factors: dict, left_out: set[str], say: Callable[[str], object]) -> tuple:
    """Rules over arms; one that names a factor which the user has fixed is void, and said to be."""
    example = "[{initializer: zeros, model.depth: [8, 16]}]"
    read = [_rule(rule, f"{path}[{place}]", factors, left_out) for place, rule in enumerate(_list(node, path, example))]
    _say_void(path, [place for place, rule in enumerate(read) if not rule], say)
    return tuple(rule for rule in read if rule)


def settings(
    node: object,
    factors: dict,
    left_out: set[str],
    overridden: Set[str],
    nuisance: dict,
    say: Callable[[str], object],
) -> tuple:
    """Pairs of `when` and `set`, some with `tune: false`; what the user set on the command line stays as it is.

    What is tuned for an arm is not set, but for one that is not tuned. `when` may name nuisance levels too, such as an
    option that needs another length of training.
    """
    read, void = [], []
    example = "[{when: {optimizer: adam}, set: {optimizer.learning_rate: 0.001}}]"
    for place, entry in enumerate(_list(node, "study.settings", example)):
        path = f"study.settings[{place}]"
        if not isinstance(entry, dict) or entry.keys() - {"tune"} != {"when", "set"}:
            raise StudyError(f"{path}={shown(entry)}: expected when and set, such as {example}")
        if not isinstance(tune := entry.get("tune", True), bool):
            raise StudyError(f"{path}.tune={shown(tune)}: expected false for arms that are not tuned, or leave it out")
        values = mapping(entry["set"], f"{path}.set", "optimizer.learning_rate: 0.001")
        for name, value in values.items():
            if str(name).partition(".")[0] not in (*IDENTITY, "compute"):
                raise StudyError(f"{path}.set names {name}: expected keys in {listed((*IDENTITY, 'compute'))}")
            if not _is_level(value):
                raise StudyError(f"{path}.set.{name}={shown(value)}: expected a name, a number or a list")
        settled = overridden | (nuisance.keys() if tune else set())
        values = {name: value for name, value in values.items() if name not in settled}
        if not (rule := _rule(entry["when"], f"{path}.when", factors | (nuisance if tune else {}), left_out)):
            void.append(place)
        elif values or not tune:
            read.append({"when": rule, "set": values} | ({} if tune else {"tune": False}))
    _say_void("study.settings", void, say)
    return tuple(read)


def _say_void(path, places, say) -> None:
    if places:
        say(f"{path} {listed(places)} (from 0): void, since what it is about is not compared")


def levels(path: str, node: object, repeats: bool = False) -> tuple:
    """A factor's levels, named in errors by their path; they may repeat if the factor moves together with others."""
    _, kind, factor = path.split(".", 2)
    if isinstance(node, dict):
        inner = f"{factor}.{next(iter(node), 'name')}"
        raise StudyError(
            f"{path}={node}: expected a list of levels. If {inner} is meant, write its dot inside the mapping: "
            f"'+study.{kind}={{{inner}: [2, 8]}}'"
        )
    if not isinstance(node, list) or not node:
        raise StudyError(f"{path}={shown(node)}: expected a list of one level or more, such as [2, 8, 16]")
    for place, level in enumerate(node):
        if "." not in factor and not isinstance(level, str):
            raise StudyError(f"{path} has the level {shown(level)}: expected the name of an option of {factor}")
        if not _is_level(level):
            raise StudyError(f"{path} has the level {level}: expected a name, a number or a list")
        if not repeats and any(same(level, other) for other in node[:place]):
            raise StudyError(f"{path} has the level {shown(level)} twice: leave one out")
    return tuple(node)


def mapping(node: object, path: str, example: str) -> dict:
    """A part of the study that is a mapping; null is an empty one."""
    if node is not None and not isinstance(node, dict):
        raise StudyError(f"{path}={shown(node)}: expected a mapping, such as {{{example}}}")
    return dict(node or {})


def same(value: object, other: object) -> bool:
    """Equal, and of one type: 1, 1.0 and true are three levels."""
    return json.dumps(value) == json.dumps(other)


def _rule(rule, path, factors, left_out) -> dict:
    rule = mapping(rule, path, "initializer: zeros")
    if not rule:
        raise StudyError(f"{path} is empty: expected levels of factors, such as {{initializer: zeros}}")
    if any(factor in left_out for factor in rule):
        return {}
    named = {}
    for factor, levels in rule.items():
        if factor not in factors:
            raise StudyError(f"{path} names {factor}: expected factors of the study, {listed(factors)}")
        one = any(same(levels, level) for level in factors[factor]) or not isinstance(levels, list)
        named[factor] = [levels] if one else levels
        for level in named[factor]:
            if not any(same(level, other) for other in factors[factor]):
                raise StudyError(
                    f"{path} names {factor}={shown(level)}: expected some of its levels {listed(factors[factor])}"
                )
    return named


def _is_level(value) -> bool:
    """Whether it can be a level: a name, a finite number, true, false or null, or a list of such."""
    if isinstance(value, list):
        return all(map(_is_level, value))
    return not (isinstance(value, dict) or (isinstance(value, float) and not math.isfinite(value)))


def _list(node, path, example) -> list:
    if node is not None and not isinstance(node, list):
        raise StudyError(f"{path}={shown(node)}: expected a list, such as {example}")
    return node or []


def matches(rule: dict, arm: dict) -> bool:
    """Whether an arm is one that a rule means, factor -> levels."""
    return all(f in arm and any(same(arm[f], level) for level in levels) for f, levels in rule.items())
