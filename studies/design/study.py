"""A study as its YAML declares it, read and checked. Pure: no TensorFlow, no MLflow, no Hydra."""

import json
import re
from collections.abc import Callable, Set

from studies.design import arms, search
from studies.design.claim import check_arms, read_claim, read_looks
from studies.record import (
    BLOCKS,
    FIGURES,
    IDENTITY,
    LATER,
    METRICS,
    Space,
    Study,
    StudyError,
    content_key,
    identity_parts,
    is_computed,
    listed,
    meant,
    shown,
)

STUDYS = ("study", "seed", "plan", "force", "claim", "profile", "checkpoints")
"""The parts of a config that a trial has no use for."""

PARTS = (*STUDYS, *IDENTITY, "compute", "executor", "tracking", "targets")
"""All the parts of a config."""

STUDY = (
    "name",
    "question",
    "factors",
    "zip",
    "skip",
    "only",
    "settings",
    "points",
    "seeds",
    "nuisance",
    "draws",
    "extend",
    "tuning_seeds",
    "baseline",
    "metric",
    "figures",
    "looks",
)
"""The settings of a study."""


def read_study(
    config: dict, overridden: Set[str] = frozenset(), say: Callable[[str], object] = lambda remark: None
) -> Study:
    """The study that a composed config declares.

    Args:
        overridden: the keys that the user set on the command line. A factor that is one of them has the level it was
            given; one that a chosen option has no setting for (`model.depth` after `model=lenet_300_100`) goes.
        say: is told of everything in the study that does not count because of them, a line each.

    Raises:
        StudyError: something in `study` is not what it should be.
    """
    _check_names(config, "", PARTS, "part")
    node = arms.mapping(config["study"], "study", "name: my_study")
    _check_names(node, "study.", STUDY, "setting")
    named, tuned, left_out = _roles(node, config, overridden, say)
    factors, zipped, sampled = _factors(node, named, left_out, overridden, say)
    nuisance, space, draws = _tuning(node, tuned, overridden, say)
    if nuisance == {} and {"study.tuning_seeds"} & overridden:
        say("study.tuning_seeds is void: nothing is tuned")
    _check_metric(node["metric"], config, nuisance)
    if not re.fullmatch(r"[A-Za-z0-9][\w .-]{0,99}", str(node["name"])):
        raise StudyError(f"study.name={node['name']!r}: expected up to 100 letters, digits, spaces or . _ -")
    seeds, tuning_seeds = _both_seeds(node, config["seed"], bool(nuisance))
    _check_blocks(node, factors, zipped, nuisance, bool(config["claim"]))
    card = read_claim(config["claim"], factors, config["profile"]["name"], is_computed(config))
    study = Study(
        str(node["name"]),
        str(node["question"] or _question(node["metric"], [factor for factor in factors if factor not in BLOCKS])),
        factors,
        seeds,
        _baseline(node["baseline"], factors, zipped, left_out),
        node["metric"],
        zipped,
        arms.rules(node["skip"], "study.skip", factors, left_out, say),
        arms.rules(node["only"], "study.only", factors, left_out, say),
        arms.settings(node["settings"], factors, left_out, overridden, nuisance, say),
        nuisance,
        tuning_seeds,
        _figures(node["figures"]),
        space=space,
        draws=draws,
        extend=node["extend"],
        looks=read_looks(node["looks"], seeds, card),
        claim=card,
        fixed=_fixed(config) if card else "",
        sampled=sampled,
    )
    check_arms(study)
    return study


def _check_blocks(node, factors, zipped, nuisance, claim: bool) -> None:
    """Refuse uses of a factor that is averaged over within a seed which would compare its levels."""
    for factor in BLOCKS:
        uses = {
            "tuned": factor in nuisance,
            "a baseline": isinstance(node["baseline"], dict) and factor in node["baseline"],
            "moved along with another factor": any(factor in group for group in zipped),
            "a factor of a claim": claim and factor in factors,
        }
        if found := [use for use, is_so in uses.items() if is_so]:
            raise StudyError(
                f"{factor} is {found[0]}: expected it among study.factors alone, of a study without a claim, since "
                f"its levels are not compared: a seed's value is the mean over them. Leave it out there"
            )


def _fixed(config) -> str:
    """What trials have besides the factors, hashed, but for where data lie, how it is run and what is watched."""
    parts = {part: config[part] for part in identity_parts(config) if part not in ("engine", "diagnostics")}
    if "data" in parts:
        parts["data"] = {name: value for name, value in parts["data"].items() if name != "root"}
    for part, later in LATER.items():
        if part in parts:
            neutral = [name for name, value in later.items() if parts[part].get(name) == value]
            parts[part] = {name: value for name, value in parts[part].items() if name not in neutral}
    return content_key(parts)


def _roles(node, config, overridden, say) -> tuple[dict, dict, set]:
    """The factors that are compared and those that are tuned, with their levels as written; and those that go."""
    roles = {
        role: {str(f): levels for f, levels in arms.mapping(node[role], f"study.{role}", "model.depth: [2, 8]").items()}
        for role in ("factors", "nuisance")
    }
    if both := roles["factors"].keys() & roles["nuisance"].keys():
        raise StudyError(
            f"study.nuisance names {listed(sorted(both))}, and so does study.factors: expected a factor to be either "
            f"compared or tuned; leave it out of one"
        )
    every = roles["factors"] | roles["nuisance"]
    gone = {factor for factor in every if factor not in overridden and _is_gone(factor, config, overridden)}
    left_out = gone | (every.keys() & overridden)
    for factor in (factor for factor in every if factor in left_out):
        group, role = factor.partition(".")[0], "compared" if factor in roles["factors"] else "tuned"
        why = f"the chosen {group} has no such setting" if factor in gone else "it is fixed in the command"
        say(f"{factor} is not {role}: {why}")
    named, tuned = ({f: levels for f, levels in roles[role].items() if f not in left_out} for role in roles)
    for role, names in (("factors", named), ("nuisance", tuned)):
        for factor in names:
            _check_factor(f"study.{role}", factor, config, named | tuned)
    return named, tuned, left_out


def _factors(node, named, left_out, overridden, say) -> tuple[dict[str, tuple], tuple, dict[str, Space]]:
    """The levels of the factors that are compared, the groups that move together, and the ranges drawn from."""
    zipped = arms.zipped(node["zip"], named, left_out)
    together = {factor for group in zipped for factor in group}
    sampled, points = _sampled(node, named, together, overridden, say)
    factors = {
        f: points[f] if f in sampled else arms.levels(f"study.factors.{f}", levels, f in together)
        for f, levels in named.items()
    }
    for group in zipped:
        if len({len(factors[factor]) for factor in group}) > 1:
            counts = listed(f"{factor} ({len(factors[factor])})" for factor in group)
            raise StudyError(f"study.zip moves {counts} together: expected as many levels of each")
    return factors, (*zipped, *([tuple(sampled)] if len(sampled) > 1 else [])), sampled


def _sampled(node, named, zipped, overridden, say) -> tuple[dict[str, Space], dict[str, tuple]]:
    """The ranges of factors that have one, and the points that are drawn of them, each once: their levels."""
    spaces = {f: search.space(f"study.factors.{f}", each) for f, each in named.items() if search.is_space(each)}
    if not spaces:
        if node["points"] is not None and not any(map(search.is_space, (node["factors"] or {}).values())):
            raise StudyError(
                f"study.points={shown(node['points'])}, and study.factors has no range to draw from: give it one, such "
                f"as {{optimizer.learning_rate: {search.EXAMPLE}}}, or leave out study.points"
            )
        if "study.points" in overridden:
            say("study.points is void: no factor has a range")
        return {}, {}
    if node["points"] is None:
        raise StudyError(
            f"study.factors has a range for {listed(spaces)}, and study.points is null: say how many points of it are "
            f"compared, such as study.points=64"
        )
    if both := [factor for factor in spaces if factor in zipped]:
        raise StudyError(
            f"study.zip names {listed(both)}, which has a range: expected lists of levels; all ranges move together as "
            f"it is"
        )
    count = search.draws(node["points"], "study.points")
    rows = list(zip(*search.drawn(spaces, count).values(), strict=True))
    once = list(dict.fromkeys(rows))
    if len(once) < count:
        say(f"study.points={count} are {len(once)} different ones: the others round to the same")
    return spaces, dict(zip(spaces, zip(*once, strict=True), strict=True))


def _tuning(node, tuned, overridden, say) -> tuple[dict, dict, int]:
    """The nuisance factors' levels; what they are drawn from, and how many points, if they are."""
    read = {
        f: search.space(f"study.nuisance.{f}", each)
        if search.is_space(each)
        else arms.levels(f"study.nuisance.{f}", each)
        for f, each in tuned.items()
    }
    if not isinstance(node["extend"], bool):
        raise StudyError(f"study.extend={shown(node['extend'])}: expected true or false")
    draws = 0 if node["draws"] is None else search.draws(node["draws"])
    ranges = [factor for factor, each in read.items() if isinstance(each, Space)]
    if ranges and not draws:
        raise StudyError(
            f"study.nuisance has a range for {listed(ranges)}, and study.draws is null: say how many points of it are "
            f"tried, such as study.draws=12"
        )
    if ranges:
        nuisance = search.drawn(read, draws)
        points = {json.dumps(point) for point in zip(*nuisance.values(), strict=True)}
        if len(points) < draws:
            say(f"study.draws={draws} are {len(points)} different ones: the others round to the same")
        return nuisance, read, draws
    if draws and not any(map(search.is_space, (node["nuisance"] or {}).values())):
        raise StudyError(
            f"study.draws={draws}, and study.nuisance has no range to draw from: give it one, such as "
            f"{{optimizer.learning_rate: {search.EXAMPLE}}}, or leave out study.draws"
        )
    for name in ("study.draws", "study.extend"):
        if name in overridden:
            say(f"{name} is void: no range is tuned over")
    return read, {}, 0


def _baseline(node, factors, zipped, left_out) -> dict:
    baseline = arms.mapping(node, "study.baseline", "model.depth: 2")
    baseline = {factor: level for factor, level in baseline.items() if factor not in left_out}
    for factor, level in baseline.items():
        if factor not in factors:
            raise StudyError(
                f"study.baseline names {factor}: {meant(factor, factors)}expected one of the factors {listed(factors)}"
            )
        if not any(arms.same(level, other) for other in factors[factor]):
            raise StudyError(
                f"study.baseline.{factor}={shown(level)}: {meant(level, factors[factor])}expected one of its levels "
                f"{listed(factors[factor])}"
            )
    return baseline | arms.moved_along(baseline, zipped, factors)


def _both_seeds(node, one, tunes: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The seeds that arms are compared at, and those that they are tuned at, if they are."""
    seeds = (one,) if one is not None else _seeds(node["seeds"], "study.seeds")
    tuning_seeds = _seeds(node["tuning_seeds"], "study.tuning_seeds")
    if tunes and (both := set(seeds) & set(tuning_seeds)):
        raise StudyError(
            f"study.tuning_seeds={listed(tuning_seeds)} and the study's seeds, {listed(seeds)}, share "
            f"{listed(sorted(both))}: expected others, such as [100, 101, 102], so that the best is measured afresh"
        )
    return seeds, tuning_seeds if tunes else ()


def _check_metric(metric, config, nuisance):
    if is_computed(config):
        if nuisance:
            raise StudyError(f"study.nuisance names {listed(nuisance)}: a computed study trains nothing, leave it out")
        if metric in METRICS or not re.fullmatch(r"[A-Za-z]\w*", str(metric)):
            raise StudyError(f"study.metric={shown(metric)}: expected one of the quantities that compute gives")
    elif metric not in METRICS:
        raise StudyError(f"study.metric={metric}: {meant(metric, METRICS)}expected one of {listed(METRICS)}")


def _check_names(node, prefix, names, what):
    for name in node:
        if name not in names:
            near = meant(name, names)
            raise StudyError(f"{prefix}{name}: there is no such {what}; {near}there are {listed(names)}")
    for name in names:
        if name not in node:
            raise StudyError(f"{prefix}{name} is missing: expected all of {listed(names)}")


def _is_gone(factor, config, overridden) -> bool:
    """Whether the user chose an option that has no such setting."""
    group, _, path = factor.partition(".")
    return bool(path) and group in overridden and path.partition(".")[0] not in config[group]


def _check_factor(role, factor, config, factors):
    group, _, path = factor.partition(".")
    allowed = (*IDENTITY, "compute", "targets") if path else IDENTITY[:-3]
    if group not in allowed:
        raise StudyError(
            f"{role} names {factor}: {meant(factor, IDENTITY[:-3])}expected a group ({listed(IDENTITY[:-3])}) or a "
            f"path into one or into {listed(IDENTITY[-3:])}, such as model.depth"
        )
    if path and group not in factors:
        node = config[group]
        for part in path.split("."):
            if not isinstance(node, dict) or part not in node:
                keys = [k for k in node if k != "_target_"] if isinstance(node, dict) else []
                raise StudyError(
                    f"{role} names {factor}, and {group} has no {path}: {meant(part, keys)}it has "
                    f"{listed(keys) or 'none'}"
                )
            node = node[part]


def _question(metric: str, factors: list[str]) -> str:
    """What a study asks that does not say it."""
    if not factors:
        return "How does one network train?"
    *first, last = factors
    return (
        f"How does {metric.replace('_', ' ')} depend on {' and '.join([', '.join(first), last] if first else [last])}?"
    )


def _figures(names) -> tuple[str, ...]:
    if not isinstance(names, list) or not all(name in FIGURES for name in names):
        raise StudyError(f"study.figures={shown(names)}: expected a list of some of {listed(FIGURES)}")
    if len(set(names)) < len(names):
        raise StudyError(f"study.figures={shown(names)} has a figure twice: leave one out")
    return tuple(names)


def _seeds(seeds, path) -> tuple[int, ...]:
    if isinstance(seeds, int) and not isinstance(seeds, bool) and seeds >= 1:
        if seeds > arms.MOST_TRIALS:
            raise StudyError(f"{path}={seeds}: expected a count of {arms.MOST_TRIALS:,} at most")
        return tuple(range(seeds))
    if isinstance(seeds, list) and seeds and all(type(s) is int and s >= 0 for s in seeds):
        if len(set(seeds)) == len(seeds):
            return tuple(seeds)
        raise StudyError(f"{path}={seeds} has a seed twice: leave one out")
    raise StudyError(
        f"{path}={shown(seeds)}: expected a count of 1 or more, such as 5, or a list of seeds, such as [0, 1, 7]"
    )
