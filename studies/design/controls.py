"""The trials of a claim's controls: an arm that is broken, which must be found worse, and one set against itself."""

from collections.abc import Callable
from dataclasses import replace

from studies.design import arms
from studies.design.claim import IMPORTANCE
from studies.record import Study, Trial

Expand = Callable[..., list[Trial]]

SEEDS = 5
"""Of a control of what is trained: the fewest by which the sign test can find a broken arm worse at .05."""


def controls(study: Study, expand: Expand, chosen: list[dict] | None) -> dict[str, list[Trial]]:
    """The trials of each control that the card asks for, at the first `SEEDS` seeds of the first look, or as far from
    them; without looks at all seeds, of an importance at the first.

    The positive control's are the arms `of`, with what breaks them; the negative one's the arms `against` once more.

    Args:
        expand: a study and what was chosen for each of its arms -> its trials.
        chosen: each arm's nuisance levels, in the order of the study's arms; None where nothing is tuned, or is yet.
    """
    claim = study.claim
    if claim is None:
        return {}
    first = study.seeds[: min(study.looks[0], SEEDS)] if study.looks else study.seeds
    first = first[:1] if claim.estimand == IMPORTANCE else first  # its arms are points, which are many
    found = {}
    if claim.positive:
        changed = _changed(_restricted(study, claim.of, first), claim.positive)
        found["positive"] = _trials(study, changed, expand, chosen, claim.positive)
    if isinstance(claim.negative, dict):
        if not claim.negative:
            return found
        seeds = tuple(claim.negative.get("study.seeds", first))
        others = {name: value for name, value in claim.negative.items() if name != "study.seeds"}
        changed = _changed(_restricted(study, {}, seeds), others)
        found["negative"] = _trials(study, changed, expand, chosen, others)
    elif claim.negative:
        other = _restricted(study, claim.against, tuple(seed + claim.negative for seed in first))
        found["negative"] = _trials(study, other, expand, chosen, {})
    return found


def _changed(part: Study, values: dict) -> Study:
    """A part of a study with some settings' values, in place of a factor's levels where it is one."""
    moving = {factor for group in part.zip for factor in group}
    levels = {f: (v,) * (len(part.factors[f]) if f in moving else 1) for f, v in values.items() if f in part.factors}
    others = {name: value for name, value in values.items() if name not in levels}
    only = tuple({f: level for f, level in rule.items() if f not in levels} for rule in part.only)
    extra = ({"when": {}, "set": others},) if others else ()
    return replace(
        part,
        factors=part.factors | levels,
        only=only if all(only) else (),
        settings=(*part.settings, *extra),
    )


def _restricted(study: Study, rule: dict, seeds: tuple[int, ...]) -> Study:
    """The study with those of its arms that a rule matches; rules that are about others alone go."""
    kept = [arm for arm in arms.of(study) if arms.matches(rule, arm)]
    only = tuple({factor: [level] for factor, level in arm.items()} for arm in kept)
    return replace(study, seeds=seeds, only=only, skip=(), looks=())


def _trials(study: Study, part: Study, expand: Expand, chosen, but: dict) -> list[Trial]:
    """The trials of a part of a study, each arm at what was chosen for it, but for some settings."""
    if chosen is None:
        part = replace(part, nuisance={})  # which not every arm has, such as the norm of one that is not clipped
    else:
        mine = [levels for arm, levels in zip(arms.of(study), chosen, strict=True) if _is_in(arm, part)]
        chosen = [{name: level for name, level in levels.items() if name not in but} for levels in mine]
        have = {name for levels in chosen for name, level in levels.items() if level is not None}
        part = replace(part, nuisance={name: levels for name, levels in part.nuisance.items() if name in have})
    return [replace(trial, role="control") for trial in expand(part, chosen)]


def _is_in(arm: dict, part: Study) -> bool:
    return not part.only or any(arms.matches(rule, arm) for rule in part.only)
