"""From a study to its trials: the grid of factor levels times the seeds. Pure: no TensorFlow, no MLflow, no Hydra."""

import json
import math
import re
from collections.abc import Callable
from typing import Any

from studies.design import arms
from studies.design.study import STUDYS
from studies.record import (
    METRICS,
    RESULTS_VERSION,
    Study,
    StudyError,
    Trial,
    arm_label,
    content_key,
    listed,
)

Compose = Callable[[list[str]], dict]

Settle = Callable[[dict], tuple[dict, dict, dict]]
"""From a trial's config to the same checked, with every value in its own type; what of it can change numbers; and what
of it shapes the compiled graph. Raises StudyError."""


def expand(
    study: Study,
    base: dict,
    choices: dict[str, str],
    overrides: list[str],
    compose: Compose,
    settle: Settle,
    exact: bool,
    chosen: list[dict] | None = None,
    points: list[dict] | None = None,
) -> list[Trial]:
    """Every trial of a study, arms in the order of the factors' levels, an arm's seeds together.

    A study with nuisance factors has the trials that tune them, each arm at every combination of their levels, those
    of settings that it has; and, once it is `chosen` how each arm does best, the arms at that.

    Args:
        base: the config without any factor's level.
        choices: the option that each group has in it.
        overrides: what the user asked for besides the study's factors.
        compose: Hydra overrides -> resolved config.
        settle: checks a trial's config, and says what of it counts.
        exact: compose every arm by itself (60 ms each), for configs whose values refer to one another; else compose
            each level once and put the arms together from what the levels change.
        chosen: each arm's nuisance levels, factor -> level, in the order of the arms.
        points: the combinations that every arm is tuned at, in place of the study's.
    """
    composed = _composed(study, _flat(base), choices, overrides, compose, exact)
    tunes = bool(study.nuisance) and chosen is None
    seeds = study.tuning_seeds if tunes else study.seeds
    trials = []
    for arm, nuisance in _fitting(study, _cells(study, seeds, tunes, chosen, points), composed):
        given = [*arm.items(), *arms.settings_of(study, arm | nuisance), *nuisance.items()]
        config, identity, graph = settle({name: part for name, part in composed(given).items() if name not in STUDYS})
        graph_key = content_key(graph)
        trials += [
            Trial(
                key=content_key({"config": identity, "seed": seed, "version": RESULTS_VERSION}),
                study=study.name,
                role="nuisance" if tunes else "scientific",
                arm=arm,
                seed=seed,
                config=config,
                overrides=(*overrides, *_assignments(given), f"seed={seed}"),
                graph_key=graph_key,
                nuisance=nuisance,
            )
            for seed in seeds
        ]
    if points is None:
        _refuse_unfitting(study, trials)
    _refuse_twins(trials)
    _check_average(study, trials)
    return trials


def _cells(study: Study, seeds, tunes: bool, chosen, points) -> list[tuple[dict, dict]]:
    """Pairs of an arm and its nuisance levels: at all points while it is tuned, else those chosen."""
    every = arms.of(study)
    tried = len(points) if points else study.draws or math.prod(map(len, study.nuisance.values()))
    count = len(every) * len(seeds) * (tried if tunes else 1)
    if count > arms.MOST_TRIALS:
        raise StudyError(
            f"{study.name} has {count:,} trials: expected {arms.MOST_TRIALS:,} at most. Leave out levels or seeds"
        )
    if tunes:
        return [(arm, nuisance) for arm in every for nuisance in points or arms.nuisance_of(study)]
    return list(zip(every, chosen or [{}] * len(every), strict=True))


def _composed(study, base, choices, overrides, compose, exact) -> Callable[[list], dict]:
    """What gives the config of an arm from its levels, pairs of path and value; each level is composed once."""
    changes = {}
    for factor, levels in () if exact else (study.factors | study.nuisance).items():
        for level in levels:
            assignment = f"{factor}={written(level)}"
            if assignment not in changes:
                unchanged = choices.get(factor) == level
                changes[assignment] = {} if unchanged else _change(base, factor, level, overrides, compose)

    def composed(given) -> dict:
        assignments = _assignments(given)
        if exact:
            return compose(overrides + assignments)
        for assignment, (path, value) in zip(assignments, given, strict=True):
            if assignment not in changes:
                changes[assignment] = _change(base, path, value, overrides, compose)
        return _assemble(base, [(*g, changes[a]) for g, a in zip(given, assignments, strict=True)])

    return composed


def remarks(study: Study, trials: list[Trial], drawn: Callable[[dict], set[str]]) -> list[str]:
    """What one might not expect of a study's trials, a line each.

    Args:
        drawn: gives the streams that a config draws from, those that are pinned left out.

    Raises:
        StudyError: the seeds of every arm are one and the same run.
    """
    lines, tuned = [], [trial for trial in trials if arms.is_tuned(study, trial.arm)]
    if study.nuisance and (untuned := [trial.arm for trial in trials if not arms.is_tuned(study, trial.arm)]):
        lines.append(f"not tuned, by study.settings: {'; '.join(dict.fromkeys(map(arm_label, untuned)))}")
    for factor in study.nuisance:
        if without := [trial.arm for trial in tuned if factor not in trial.nuisance and "." in factor]:
            labels = dict.fromkeys(arm_label(arm) for arm in without)
            lines.append(f"{factor} is tuned where there is such a setting, so not for {listed(labels)}")
    lines += _unused_folds(study, trials)
    pinned = {arm_label(trial.arm): drawn(trial.config) for trial in trials}
    alike = [label for label, streams in pinned.items() if not streams]
    seeds = {trial.seed for trial in trials}
    if alike and len(seeds) > 1:
        if len(alike) == len(pinned):
            raise StudyError(
                f"the {len(seeds)} seeds are one run, {len(seeds)} times: all that is drawn is pinned by seeds.split, "
                f"seeds.init, …: leave one of them free, such as seeds.init=null, or take one seed, study.seeds=1"
            )
        lines.append(
            f"the {len(seeds)} seeds of {'; '.join(alike)} are one run, {len(seeds)} times: all that is drawn is pinned"
        )
    return lines


def _unused_folds(study: Study, trials: list[Trial]) -> list[str]:
    """A line where not every fold is a level, so that some images never validate."""
    folds = {(trial.config.get("data") or {}).get("folds") for trial in trials if "data.fold" in study.factors}
    given = study.factors.get("data.fold", ())
    return [
        f"data.fold takes {len(given)} of {count} folds: the images of the others never validate"
        for count in sorted(each for each in folds if each)
        if len(given) < count
    ]


def _assignments(given) -> list[str]:
    return [f"{path}={written(value)}" for path, value in given]


def _fitting(study: Study, cells, composed: Callable[[list], dict]) -> list[tuple[dict, dict]]:
    """Pairs of an arm and its nuisance levels, without those of settings that its options lack, none of them twice."""
    known, fitting, seen = {}, [], set()
    for arm, nuisance in cells:
        nuisance = nuisance if arms.is_tuned(study, arm) else {}
        settings = arms.settings_of(study, arm | nuisance)
        varied = [*arm.items(), *settings, *((f, v) for f, v in nuisance.items() if "." not in f)]
        groups = {path for path, _ in varied if "." not in path}
        doubtful = {factor for factor in nuisance if "." in factor and factor.partition(".")[0] in groups}
        if doubtful:
            place = json.dumps(varied)
            if place not in known:
                known[place] = _flat(composed(varied)).keys()
            nuisance = {f: level for f, level in nuisance.items() if f not in doubtful or f in known[place]}
        if (cell := json.dumps([arm, nuisance])) not in seen:
            seen.add(cell)
            fitting.append((arm, nuisance))
    return fitting


def _refuse_unfitting(study: Study, trials: list[Trial]) -> None:
    for factor in study.nuisance:
        if not any(factor in trial.nuisance for trial in trials):
            raise StudyError(f"study.nuisance names {factor}, and no arm has such a setting: leave it out")


def written(level: Any) -> str:
    """A level in Hydra's override grammar: what Hydra reads as the same value, of the same type."""
    if level is None or isinstance(level, bool | int | float):
        return json.dumps(level)
    if isinstance(level, list):
        return f"[{','.join(written(item) for item in level)}]"
    if isinstance(level, dict):
        return f"{{{','.join(f'{name}:{written(inner)}' for name, inner in level.items())}}}"
    if re.fullmatch(r"(?!(?:null|true|false|nan|inf)\Z)[a-z_][a-z0-9_./-]*", level, re.I | re.A):
        return level
    # Backslashes are escapes before a quote only, the closing one too.
    escaped = re.sub(r"(\\*)('|\Z)", lambda run: 2 * run[1] + ("\\'" if run[2] else ""), level)
    return f"'{escaped}'"


def _change(base: dict, factor, level, overrides, compose) -> dict:
    """What a level changes in the base config, flat: dotted path -> new value, or `_GONE`."""
    if "." in factor:
        return {factor: level}
    changed = _flat(compose([*overrides, f"{factor}={written(level)}"]))
    change = {path: value for path, value in changed.items() if path not in base or not arms.same(base[path], value)}
    return change | {path: _GONE for path in base if path not in changed}


_GONE = object()


def _assemble(base, levels) -> dict:
    """An arm's config: groups change first, then paths, as Hydra has it."""
    flat = dict(base)
    for factor, level, change in sorted(levels, key=lambda entry: "." in entry[0]):
        if "." in factor and factor not in flat:
            group = factor.partition(".")[0]
            option = {f: v for f, v, _ in levels}.get(group)
            there = [path.partition(".")[2] for path in flat if path.startswith(f"{group}.") and "_target_" not in path]
            raise StudyError(f"{factor}={level} does not fit {group}={option}, which has {listed(there)}")
        for path, value in change.items():
            if value is _GONE:
                flat.pop(path, None)
            else:
                flat[path] = value
    return _nested(flat)


def _flat(config, prefix="") -> dict:
    flat = {}
    for name, value in config.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _nested(flat) -> dict:
    config = {}
    for path, value in flat.items():
        *parents, name = path.split(".")
        node = config
        for parent in parents:
            if not isinstance(node.get(parent), dict):
                node[parent] = {}
            node = node[parent]
        if not (value == {} and isinstance(node.get(name), dict)):
            node[name] = value
    return config


def _refuse_twins(trials):
    known = {}
    for trial in trials:
        twin = known.setdefault(trial.key, trial)
        if twin is not trial:
            raise StudyError(
                f"the arms {twin.label()} and {trial.label()} come to the same trial: leave one out, or say what sets "
                f"them apart"
            )


def _check_average(study, trials):
    for trial in trials:
        if study.metric in METRICS and study.metric.startswith("ema_") and not trial.config["optimizer"]["ema"]:
            raise StudyError(
                f"study.metric={study.metric}, and {trial.label()} keeps no average of its weights: give it one with "
                f"optimizer.ema=0.99, or compare by {study.metric.removeprefix('ema_')}"
            )
