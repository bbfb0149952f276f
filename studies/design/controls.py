"""The trials of a claim's controls: an arm that is broken, which must be found worse, and one set against itself."""

from collections.abc import Callable
from dataclasses import replace

from studies.design import arms
from studies.record import Study, Trial

Expand = Callable[..., list[Trial]]


def controls(study: Study, expand: Expand, chosen: list[dict] | None) -> dict[str, list[Trial]]:
    """The trials of each control that the card asks for, at the seeds of the first look, or as far from them.

    The positive control's are the arms `of`, with what breaks them; the negative one's the arms `against` once more.

    Args:
        expand: a study and what was chosen for each of its arms -> its trials.
        chosen: each arm's nuisance levels, in the order of the study's arms; None where nothing is tuned.
    """
    claim = study.claim
    if claim is None:
        return {}
    first = study.seeds[: study.looks[0]] if study.looks else study.seeds
    found = {}
    if claim.positive:
        broken = _restricted(study, claim.of, first)
        levels = {factor: (value,) for factor, value in claim.positive.items() if factor in study.factors}
        others = {name: value for name, value in claim.positive.items() if name not in levels}
        extra = ({"when": {}, "set": others},) if others else ()
        only = tuple({f: levels_ for f, levels_ in rule.items() if f not in levels} for rule in broken.only)
        only = () if any(not rule for rule in only) else only
        broken = replace(broken, factors=study.factors | levels, only=only, settings=(*study.settings, *extra))
        found["positive"] = _trials(study, broken, expand, chosen, claim.positive)
    if claim.negative:
        other = _restricted(study, claim.against, tuple(seed + claim.negative for seed in first))
        found["negative"] = _trials(study, other, expand, chosen, {})
    return found


def _restricted(study: Study, rule: dict, seeds: tuple[int, ...]) -> Study:
    """The study with those of its arms that a rule matches; rules that are about others alone go."""
    kept = [arm for arm in arms.of(study) if arms.matches(rule, arm)]
    only = tuple({factor: [level] for factor, level in arm.items()} for arm in kept)
    return replace(study, seeds=seeds, only=only, skip=(), looks=())


def _trials(study: Study, part: Study, expand: Expand, chosen, but: dict) -> list[Trial]:
    """The trials of a part of a study, each arm at what was chosen for it, but for some settings."""
    if chosen is not None:
        mine = [levels for arm, levels in zip(arms.of(study), chosen, strict=True) if _is_in(arm, part)]
        chosen = [{name: level for name, level in levels.items() if name not in but} for levels in mine]
        have = {name for levels in chosen for name, level in levels.items() if level is not None}
        part = replace(part, nuisance={name: levels for name, levels in part.nuisance.items() if name in have})
    return [replace(trial, role="control") for trial in expand(part, chosen)]


def _is_in(arm: dict, part: Study) -> bool:
    return not part.only or any(arms.matches(rule, arm) for rule in part.only)
