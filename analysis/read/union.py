"""Several executions of a study as one: the union of their trials, told apart by what the executions set otherwise."""

import ast
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import yaml

from analysis.read.executions import Execution
from analysis.read.runs import Run, Store
from studies.contract import Tag
from studies.record import EXECUTION, IDENTITY, content_key, is_neutral

NO_SETTING = ("seed", "engine.threads")
"""What trials of an arm may differ in."""

PLACES = ("data.root", "data.path", "data.unreadable")
"""And where their data's content is known, which counts instead."""

UNTAGGED = "5"
"""The version of the results of executions that were run before they were tagged with it."""


def union(store: "Store", parts: Sequence[Execution], runs: dict[str, Run]) -> Execution:
    """Executions as one.

    Its factors are those that any of them has, and what their commands set otherwise. An arm that would still merge
    trials of unlike settings is split by the factor `execution`, the number of the first that has those settings. A
    trial that several have stands once.

    Args:
        parts: oldest first, one at least.
        runs: those of their trials, by key, with params; of trials that have not ended there are none.
    """
    parts = [part for part in parts if part.arms] or list(parts[-1:])
    levels = Levels(store, parts, runs)
    factors = list(dict.fromkeys(factor for part in parts for factor in part.study.factors))
    arms = {key: _arm(levels, part, key, factors) for part in parts for key in part.arms}
    set_by = dict.fromkeys(_name(word) for part in parts for word in part.settings)
    for factor in [
        name for name in set_by if name not in factors and name != "seed" and not name.startswith(("study", "claim"))
    ]:
        found = {key: levels.of(factor, part, key) for part in parts for key in part.arms}
        if len({_plain(level) for level in found.values()}) > 1:
            factors.append(factor)
            arms = {key: arm | {factor: found[key]} for key, arm in arms.items()}
    first = {key: part.number for part in reversed(parts) for key in part.arms}
    results = {key: part.tags.get(Tag.RESULTS, UNTAGGED) for part in parts for key in part.arms}
    if numbers := _told_apart(store, arms, factors, runs, first, results):
        factors.append(EXECUTION)
        arms = {key: arm | {EXECUTION: numbers[key]} for key, arm in arms.items()}
    latest, study = parts[-1], _design(parts, factors, arms)
    arms = _in_order(arms, study.factors)
    return replace(
        latest,
        study=study,
        hash=content_key([part.hash for part in parts]),
        arms={**arms},
        status=latest.status if all(part.status == "FINISHED" for part in parts[:-1]) else "FAILED",
        tags={name: value for name, value in latest.tags.items() if not name.startswith("claim.")},
        start_time=parts[0].start_time,
        number=0,
        parts=tuple(parts),
    )


def together(store: "Store", executions: Sequence[Execution], runs: dict[str, Run]) -> list[dict[str, dict]]:
    """Of each execution its trials' levels of all the factors that any of them has, by key; `runs` as in `union`."""
    levels = Levels(store, executions, runs)
    factors = list(dict.fromkeys(factor for each in executions for factor in each.study.factors))
    return [{key: {name: levels.of(name, each, key) for name in factors} for key in each.arms} for each in executions]


class Levels:
    """What trials have of factors, those too that their own design does not vary."""

    def __init__(self, store: "Store", parts: Sequence[Execution], runs: dict[str, Run]):
        self.runs = runs
        self.configs = {part.run_id: yaml.safe_load(store.content(part, "study.yaml")) or {} for part in parts}
        self.options = {part.run_id: json.loads(part.tags.get(Tag.OPTIONS, "{}")) for part in parts}
        self.known = {
            (group, _plain(self.configs[run].get(group))): option
            for run, options in self.options.items()
            for group, option in options.items()
        }

    def of(self, factor: str, part: Execution, key: str) -> object:
        """A trial's level of a factor: by its design, else its config's; None if it has no such setting."""
        run = self.runs.get(key)
        arm = part.arms[key] or {}
        if part.arms[key] is None and run:
            arm = json.loads(run.tags[Tag.ARM]) | json.loads(run.tags.get(Tag.NUISANCE, "{}"))
        if factor in arm:
            return arm[factor]
        if "." not in factor:
            return self._option(factor, part)
        if run and factor in run.params:
            return value(run.params[factor])
        return _at(self.configs[part.run_id], factor)

    def _option(self, group: str, part: Execution) -> object:
        """The option of a group; of executions that have not kept it, one of the same content, else what it builds."""
        node = self.configs[part.run_id].get(group)
        named = self.options[part.run_id].get(group) or self.known.get((group, _plain(node)))
        if named or not isinstance(node, dict):
            return named or node
        return str(node.get("_target_") or "none").rpartition(".")[2]


def _arm(levels: Levels, part: Execution, key: str, factors: list[str]) -> dict:
    """A trial's levels of all factors, and of what its own arm was tuned to."""
    return {factor: levels.of(factor, part, key) for factor in factors} | (part.arms[key] or {})


def _told_apart(store, arms, factors, runs, first, results) -> dict[str, int]:
    """Of each trial the number of the first execution that has its arm with its settings; nothing if no arm has two."""
    variants: dict[str, dict] = defaultdict(dict)
    taken: dict[tuple, int] = {}
    places = {key: _plain([arm[factor] for factor in factors]) for key, arm in arms.items()}
    sorts = {key: _plain([_settings(runs[key], factors), results[key]]) for key in arms if key in runs}
    for key, inner in _inner(store, {key: (places[key], sort) for key, sort in sorts.items()}, runs, first).items():
        sorts[key] += inner
    for key, sort in sorts.items():  # two at one seed are of unlike settings, whatever they differ in
        like = places[key], sort, runs[key].tags[Tag.SEED]
        taken[like] = taken.get(like, -1) + 1
        sorts[key] = f"{sort}{taken[like]}"
        mine = variants[places[key]]
        mine[sorts[key]] = min(first[key], mine.get(sorts[key], first[key]))
    if all(len(mine) < 2 for mine in variants.values()):
        return {}
    return {key: variants[place].get(sorts.get(key), first[key]) for key, place in places.items()}


def _inner(store, groups: dict[str, tuple], runs, first) -> dict[str, str]:
    """What trials have that params do not say: settings within settings, and the user's own code.

    It is read where it may tell apart, in a group that several executions have trials of, and of one trial of each.

    Args:
        groups: of each trial what it has in common with others that may be one arm.
    """
    found: dict[tuple, dict[int, str]] = defaultdict(dict)
    for key, group in groups.items():
        found[group].setdefault(first[key], key)
    texts = {}
    for group, keys in found.items():
        for number, key in keys.items() if len(keys) > 1 else ():
            config = yaml.load(store.content(runs[key], "config.yaml"), yaml.CSafeLoader)
            parts = {name: config.get(name) or {} for name in (*IDENTITY, "compute")}
            inner = {name: {n: v for n, v in part.items() if isinstance(v, dict)} for name, part in parts.items()}
            sources = (config.get("targets") or {}).get("source") or {}
            texts[group, number] = _plain([{name: part for name, part in inner.items() if part}, sources])
    return {key: text for key, group in groups.items() if (text := texts.get((group, first[key])))}


def _settings(run: Run, factors: list[str]) -> list[tuple[str, str]]:
    """What a trial has besides its levels; a neutral setting is none, for trials of before it came have not got it."""
    places = PLACES if value(run.params.get("data.content", "")) else ()
    others = [each for each in sorted(run.params.items()) if each[0] not in (*factors, *NO_SETTING, *places)]
    return [(name, text) for name, text in others if not is_neutral(name, value(text))]


def _design(parts, factors, arms):
    """The study that the union is of: the last one's, with all the levels that its arms have."""
    study = parts[-1].study
    same_zip = [group for group in study.zip if all(_moves(part, group) == _moves(parts[-1], group) for part in parts)]
    together = {factor for group in same_zip for factor in group}
    levels = {}
    for factor in factors:
        named = [level for part in parts for level in part.study.factors.get(factor, ())]
        found = [arm[factor] for arm in arms.values()]
        every = {_plain(level): level for level in reversed([*named, *found])}
        there = {_plain(level) for level in found}
        ordered = dict.fromkeys(map(_plain, [*named, *found]))
        mine = [every[each] for each in ordered if each in there]
        if all(isinstance(level, int | float) and not isinstance(level, bool) for level in mine):
            mine.sort()
        levels[factor] = study.factors[factor] if factor in together else tuple(mine)
    return replace(
        study,
        factors=levels,
        seeds=tuple(sorted({seed for part in parts for seed in part.study.seeds})),
        baseline={factor: level for factor, level in study.baseline.items() if factor in factors},
        zip=tuple(same_zip),
        skip=(),
        only=(),
        settings=(),
        nuisance={factor: tried for factor, tried in study.nuisance.items() if factor not in factors},
        looks=(),
        claim=None,
        sampled=study.sampled if all(part.study.sampled == study.sampled for part in parts) else {},
    )


def _in_order(arms: dict[str, dict], factors: dict[str, tuple]) -> dict[str, dict]:
    """The arms in the order of their levels, as in a grid."""
    places = {factor: {_plain(level): n for n, level in reversed([*enumerate(factors[factor])])} for factor in factors}
    return dict(sorted(arms.items(), key=lambda each: [places[name][_plain(each[1][name])] for name in factors]))


def _moves(part, group) -> list:
    return [_plain(part.study.factors.get(factor)) for factor in group]


def _name(word: str) -> str:
    """The key that a command's word sets."""
    return word.lstrip("+~").partition("=")[0].partition("@")[0]


def _at(config, path: str) -> object:
    for part in path.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return config


def _plain(level: object) -> str:
    """A level as a text that alike ones have in common."""
    if isinstance(level, float) and level.is_integer():
        level = int(level)
    return json.dumps(level, sort_keys=True, default=str)


def value(text: str) -> object:
    """What a param was before MLflow made it a text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
