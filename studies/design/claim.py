"""A claim's card as a study's YAML declares it, read and checked. Pure: no TensorFlow, no MLflow, no Hydra."""

import itertools
import math
import re
from collections import Counter
from dataclasses import fields

from studies.contract import STATISTICS
from studies.design import arms
from studies.record import METRICS, Claim, EpochRecord, Result, Study, StudyError, arm_label, listed, shown

KINDS = ("definitional", "arithmetic", "existential", "universal", "quantitative")

IMPORTANCE = "importance_lead"
"""The estimand of a claim that one factor matters more than any other."""

ESTIMANDS = {
    "value": (),
    "mean": (),
    "difference": ("of", "against"),
    "ratio": ("of", "against"),
    "interaction_ratio": ("of", "against", "beside"),
    "slope": ("of", "against", "along"),
    "spread_ratio": ("of", "against", "along"),
    "stable_ratio": ("of", "against", "along"),
    "ends_ratio": ("along",),
    IMPORTANCE: ("along",),
}
"""What a claim can be about, and the settings that each needs; `analysis.estimate.estimands` says what they are."""

DERIVED = ("time_to_target", "examples_to_target", "seconds_to_target", "accuracy_gap", "loss_gap", "success")
"""Measures of a trial that are worked out from its columns and epochs."""

WATCHED = tuple(f.name for f in fields(EpochRecord) if f.name.endswith(("accuracy", "loss")))
"""What there can be a time to a target of."""

CENSORED = ("value", "mean", "difference", "ratio", "ends_ratio")
"""Estimands that know what to do with a time that was cut off."""

TEXTS = ("key", "status", "confusions", "class_names", "error")
"""What of a `Result` is no number."""

COLUMNS = (*METRICS, *(f.name for f in fields(Result) if f.name not in (*TEXTS, *METRICS)))
"""Of the trials frame, of a trained trial."""

DIRECTIONS = ("above", "below", "within")
CARD = (
    "id",
    "version",
    "number",
    "chapter",
    "quote",
    "kind",
    "hypothesis",
    "decision",
    "prediction",
    "controls",
    "profiles",
)
HYPOTHESIS = (
    "estimand",
    "measure",
    "direction",
    "margin",
    "why_margin",
    "claimed_band",
    "target",
    "metric",
    "guard",
    "best",
)
DECISION = ("across", "alpha_look")
CONTROLS = ("positive", "negative")

ALPHA_LOOK = 0.021
"""One-sided, at each of at most three looks at 6, 12 and 20 seeds: the error of all is then 4.9 % (simulated)."""

MOST_ALPHA = 3 * ALPHA_LOOK
"""Of all looks together, one-sided, as a sum, whatever seeds they are at."""

POINTS = 16
"""At least, to tell which factor matters most of, in each context."""

APART = 500
"""Seeds between a negative control's block and the study's."""


def read_claim(node: object, factors: dict, profile: str, computed: bool = False) -> Claim | None:
    """The claim of a composed config, None if it has none.

    Args:
        factors: those that are compared, with their levels.
        computed: whether the trials compute, so that their measures are known only when they have.

    Raises:
        StudyError: something in `claim` is not what it should be.
    """
    card = arms.mapping(node, "claim", "id: he_for_relu")
    if not card:
        return None
    _names(card, "claim", CARD, ("id", "version", "quote", "kind", "hypothesis"))
    if not isinstance(card["version"], int) or isinstance(card["version"], bool) or card["version"] < 1:
        raise StudyError(f"claim.version={shown(card['version'])}: expected 1, 2, …, a new one for each changed card")
    if not re.fullmatch(r"[a-z0-9_]+", str(card["id"])):
        raise StudyError(f"claim.id={shown(card['id'])}: expected small letters, digits and _")
    across, alpha = _decision(card.get("decision"), factors)
    hypothesis = _hypothesis(card["hypothesis"], factors, across)
    known = (*DERIVED, *COLUMNS)
    if not computed and hypothesis["measure"] not in known and not of_layer(hypothesis["measure"]):
        raise StudyError(
            f"claim.hypothesis.measure={hypothesis['measure']}: expected one of {listed(known)}; or of a layer "
            f"LAYER.TENSOR.STATISTIC[@EPOCH] with one of {listed(STATISTICS)}"
        )
    positive, negative = _controls(
        card.get("controls"), hypothesis["estimand"], hypothesis["direction"], factors, hypothesis["along"]
    )
    return Claim(
        id=str(card["id"]),
        version=card["version"],
        quote=str(card["quote"]),
        kind=_one_of(card["kind"], "claim.kind", KINDS),
        across=across,
        alpha_look=alpha,
        positive=positive,
        negative=negative,
        prediction=arms.mapping(card.get("prediction"), "claim.prediction", "value: 0.96"),
        profile=profile,
        number=_place(card.get("number")),
        chapter=str(card.get("chapter") or ""),
        **hypothesis,
    )


def of_layer(measure: str) -> bool:
    """Whether a measure is a statistic of a layer, such as `dense_1.kernel.l2` or `*.kernel.sd@10`."""
    name = measure.partition("@")[0]
    return name.count(".") >= 2 and name.rpartition(".")[2] in STATISTICS


def _place(number) -> int | None:
    """Of the claim in the article that it is taken from."""
    if number is not None and (type(number) is not int or number < 1):
        raise StudyError(
            f"claim.number={shown(number)}: expected its place in the article, 1, 2, …; leave it out if it has none"
        )
    return number


def _hypothesis(node, factors, across) -> dict:
    """What is estimated and how it is judged, by the fields of `Claim`."""
    node = arms.mapping(node, "claim.hypothesis", "estimand: ratio")
    estimand = _one_of(node.get("estimand"), "claim.hypothesis.estimand", ESTIMANDS)
    needed = ESTIMANDS[estimand]
    margin = ("margin",) * (node.get("direction") != "within")
    always = ("measure", "direction", *margin, "why_margin")
    _names(node, "claim.hypothesis", (*HYPOTHESIS, *needed), (*always, *needed))
    rules = {name: _rule(node[name], name, factors) for name in ("of", "against", "beside") if name in needed}
    if others := [factor for factor in rules.get("beside", {}) if factor not in across]:
        raise StudyError(
            f"claim.hypothesis.beside names {listed(others)}: expected levels of claim.decision.across, "
            f"{listed(across) or 'which has none'}, such as {{model: mlp}}"
        )
    if rules and rules["of"] == rules["against"]:
        raise StudyError(f"claim.hypothesis.of and against are the same arms, {shown(rules['of'])}: expected two")
    along = _along(node["along"], estimand, factors) if "along" in needed else ""
    direction = _one_of(node["direction"], "claim.hypothesis.direction", DIRECTIONS)
    margin = 0.0 if direction == "within" else _margin(node["margin"], direction, estimand)
    _refuse_unused(node, estimand)
    return {
        "estimand": estimand,
        "measure": str(node["measure"]),
        "of": rules.get("of", {}),
        "against": rules.get("against", {}),
        "beside": rules.get("beside", {}),
        "along": along,
        "best": bool(node.get("best", False)),
        "target": _target(node, across, factors),
        "metric": _one_of(
            node.get("metric", "val_accuracy"),
            "claim.hypothesis.metric",
            WATCHED if str(node["measure"]).endswith("to_target") else METRICS,
        ),
        "direction": direction,
        "margin": margin,
        "why_margin": str(node["why_margin"]),
        "guard": _guard(node.get("guard"), needed),
        "claimed_band": _band(node.get("claimed_band"), direction, margin),
    }


def _along(along, estimand, factors) -> str:
    """The factor along which something is taken; numbers where their order, or their logarithm, counts."""
    levels = factors.get(along, ())
    if len(levels) < 2:
        raise StudyError(
            f"claim.hypothesis.along={along}: expected a factor of the study with two levels or more, one of "
            f"{listed(factor for factor, levels in factors.items() if len(levels) > 1)}"
        )
    if estimand not in ("spread_ratio", IMPORTANCE) and not all(_is_number(level) and level > 0 for level in levels):
        raise StudyError(
            f"claim.hypothesis.along={along}, which has the levels {listed(levels)}: expected numbers above 0, since "
            f"estimand={estimand} is by their order and ratios"
        )
    return along


def _refuse_unused(node, estimand) -> None:
    """See that everything the card says has a say in what is judged."""
    measure = str(node["measure"])
    timed = measure.endswith("to_target")
    if node.get("target") is not None and not (timed or measure == "success"):
        raise StudyError(f"claim.hypothesis.target: measure={measure} has no use for it: leave it out")
    if node.get("best") and "of" not in ESTIMANDS[estimand]:
        raise StudyError(f"claim.hypothesis.best: estimand={estimand} has no use for it: leave it out")
    if timed and estimand not in CENSORED:
        raise StudyError(
            f"claim.hypothesis.estimand={estimand}: expected one of {listed(CENSORED)} with measure={measure}, "
            f"which is cut off at the budget where the target is not reached"
        )


def _decision(node, factors) -> tuple[tuple[str, ...], float]:
    """The factors across whose levels the claim must hold, and the error of a look."""
    decision = arms.mapping(node, "claim.decision", "across: [data]")
    _names(decision, "claim.decision", DECISION, ())
    across, alpha = decision.get("across") or [], decision.get("alpha_look", ALPHA_LOOK)
    if not isinstance(across, list) or not set(across) <= factors.keys():
        raise StudyError(
            f"claim.decision.across={shown(across)}: expected a list of factors, some of {listed(factors)}"
        )
    if not _is_number(alpha) or not 0 < alpha <= 0.05:
        raise StudyError(f"claim.decision.alpha_look={shown(alpha)}: expected a number above 0 and up to 0.05")
    return tuple(across), float(alpha)


def read_looks(node: object, seeds: tuple[int, ...], claim: Claim | None) -> tuple[int, ...]:
    """The numbers of seeds at which the claim's rule is asked.

    Raises:
        StudyError: they do not rise, do not end at all the seeds, or there is no claim to decide.
    """
    looks = [] if node is None else node
    if not isinstance(looks, list) or not all(type(look) is int and look >= 2 for look in looks):
        raise StudyError(f"study.looks={shown(looks)}: expected numbers of seeds from 2 on, such as [6, 12, 20]")
    if any(later <= earlier for earlier, later in itertools.pairwise(looks)):
        raise StudyError(f"study.looks={shown(looks)}: expected numbers that increase, such as [6, 12, 20]")
    if looks and claim is None:
        raise StudyError(
            f"study.looks={shown(looks)}, and the study has no claim, whose rule says when to stop: expected a "
            f"claim, or leave study.looks out"
        )
    if claim and len(looks) * claim.alpha_look > MOST_ALPHA * (1 + 1e-9):
        raise StudyError(
            f"study.looks={shown(looks)} at claim.decision.alpha_look={claim.alpha_look:g}: expected "
            f"{MOST_ALPHA / claim.alpha_look:.0f} looks at most, or alpha_look={MOST_ALPHA / len(looks):.3g}, since "
            f"each look is one more chance to find what is not there"
        )
    if looks and looks[-1] != len(seeds):
        raise StudyError(
            f"study.looks={shown(looks)} and {len(seeds)} seeds: expected the last look at all of them, as with "
            f"study.seeds={looks[-1]}"
        )
    return tuple(looks)


def check_arms(study: Study) -> None:
    """See that a claim's rules mean one arm in each context, or several of which the best tuned is taken.

    Raises:
        StudyError: they do not; or the negative control's seeds are others' of the study.
    """
    claim = study.claim
    if claim is None:
        return
    if claim.estimand == IMPORTANCE:
        _check_points(study, claim)
        return
    if isinstance(claim.negative, int) and claim.negative:
        others = {seed + claim.negative for seed in study.seeds}
        if both := sorted(others & {*study.seeds, *study.tuning_seeds}):
            raise StudyError(
                f"claim.controls.negative={claim.negative}: its seeds share {listed(both)} with those that the study "
                f"is tuned or judged at: expected seeds farther off, such as {APART}"
            )
    if claim.best and not study.nuisance:
        raise StudyError("claim.hypothesis.best: expected a study that tunes its arms, by study.nuisance")
    apart = [factor for factor in dict.fromkeys((*claim.across, claim.along)) if factor]
    contexts: dict[str, list[dict]] = {}
    for arm in arms.of(study) if claim.of or claim.along else ():
        contexts.setdefault(arm_label({factor: arm[factor] for factor in apart}), []).append(arm)
    for context, some in contexts.items():
        for name in ("of", "against") if claim.of else ("along",):
            rule = getattr(claim, name) if claim.of else {}
            count = sum(arms.matches(rule, arm) for arm in some)
            each = claim.best or (name == "against" and claim.kind == "existential")
            if not count or (count > 1 and not each):
                raise StudyError(
                    f"claim.hypothesis.{name}: {count} arms match {shown(rule or claim.along)} at {context}: expected "
                    f"one, best: true, or their other factors in claim.decision.across"
                )


def _check_points(study: Study, claim: Claim) -> None:
    """See that there are others that a factor can matter more than, and points to tell."""
    others = [f for f, levels in study.factors.items() if f not in (*claim.across, claim.along) and len(levels) > 1]
    contexts = Counter(arm_label({factor: arm[factor] for factor in claim.across}) for arm in arms.of(study))
    if not others or min(contexts.values()) < POINTS:
        raise StudyError(
            f"claim.hypothesis.estimand={claim.estimand}: {listed(others) or 'no factor'} beside {claim.along}, and "
            f"{min(contexts.values())} arms in a context: expected other factors, and {POINTS} arms at least to tell "
            f"which of them matters most, such as ranges and study.points=64"
        )


def profile_values(node: object, profile: str) -> dict:
    """What a card's profile sets, config key -> value.

    Raises:
        StudyError: the card has no such profile.
    """
    card = node if isinstance(node, dict) else {}
    profiles = arms.mapping(card.get("profiles"), "claim.profiles", "quick: {training.epochs: 10}")
    if not profiles:
        return {}
    if profile not in profiles:
        raise StudyError(f"profile={profile}: claim.profiles of this study has {listed(profiles)}")
    return arms.mapping(profiles[profile], f"claim.profiles.{profile}", "training.epochs: 10")


def _names(node: dict, path: str, allowed, needed) -> None:
    for name in node:
        if name not in allowed:
            raise StudyError(f"{path}.{name}: there is no such setting; there are {listed(allowed)}")
    for name in needed:
        if node.get(name) is None:
            raise StudyError(f"{path}.{name} is missing: expected all of {listed(needed)}")


def _one_of(value, path, allowed) -> str:
    if value not in allowed:
        raise StudyError(f"{path}={shown(value)}: expected one of {listed(allowed)}")
    return value


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _margin(margin, direction, estimand) -> float:
    if not _is_number(margin):
        raise StudyError(f"claim.hypothesis.margin={shown(margin)}: expected a number; an effect {direction} it counts")
    if estimand.endswith("ratio") and margin <= 0:
        raise StudyError(f"claim.hypothesis.margin={shown(margin)}: expected a ratio above 0, such as 1 for none")
    return float(margin)


def _guard(guard, needed) -> float | None:
    if guard is None:
        return None
    if "of" not in needed or not _is_number(guard) or guard < 0:
        raise StudyError(
            f"claim.hypothesis.guard={shown(guard)}: expected how far the arms of may fall behind those "
            f"against, such as 0.005, with an estimand that sets arms against each other"
        )
    return float(guard)


def _band(band, direction, margin) -> tuple[float, float] | None:
    if band is None:
        if direction == "within":
            raise StudyError("claim.hypothesis.claimed_band is missing: direction=within needs it, such as [-0.1, 0.1]")
        return None
    if not (isinstance(band, list) and len(band) == 2 and all(map(_is_number, band))):
        raise StudyError(f"claim.hypothesis.claimed_band={shown(band)}: expected two numbers, such as [0.6, 0.8]")
    if band[0] >= band[1]:
        raise StudyError(f"claim.hypothesis.claimed_band={shown(band)}: expected the lower number first")
    if (direction == "above" and band[1] <= margin) or (direction == "below" and band[0] >= margin):
        raise StudyError(
            f"claim.hypothesis.claimed_band={shown(band)} and direction={direction}, margin={margin:g}: expected some "
            f"of the band {direction} the margin"
        )
    return float(band[0]), float(band[1])


def _rule(node, name, factors) -> dict:
    """Which arms a side of a comparison is: factor -> levels."""
    [rule] = arms.rules([node], f"claim.hypothesis.{name}", factors, set(), lambda _: None) or [{}]
    return rule


def _target(hypothesis, across, factors) -> dict | float | None:
    """The value to reach, or by the level of the first factor that the claim goes across."""
    target = hypothesis.get("target")
    if target is None:
        if str(hypothesis["measure"]).endswith("to_target"):
            raise StudyError("claim.hypothesis.target is missing: a time to target needs it, such as 0.95")
        return None
    if isinstance(target, dict):
        if not across or not all(map(_is_number, target.values())):
            raise StudyError(
                f"claim.hypothesis.target={shown(target)}: expected a number, or one for each level of the first "
                f"factor of claim.decision.across"
            )
        if left := [level for level in map(str, factors[across[0]]) if level not in map(str, target)]:
            raise StudyError(
                f"claim.hypothesis.target={shown(target)}: expected one for {across[0]}={listed(left)} too"
            )
        return {str(level): float(value) for level, value in target.items()}
    if not _is_number(target):
        raise StudyError(f"claim.hypothesis.target={shown(target)}: expected a number, such as 0.95")
    return float(target)


def _controls(node, estimand, direction, factors, along="") -> tuple[dict, int | dict]:
    """What makes the positive control, config key -> value; and the negative one, see `Claim`."""
    controls = arms.mapping(node, "claim.controls", "positive: {optimizer.learning_rate: 1.0e-5}")
    _names(controls, "claim.controls", CONTROLS, ())
    positive = arms.mapping(controls.get("positive"), "claim.controls.positive", "optimizer.learning_rate: 1.0e-5")
    compared = [name for name in positive if name in factors]
    if "of" in ESTIMANDS[estimand] and compared:
        raise StudyError(
            f"claim.controls.positive sets {listed(compared)}, a factor of the study, so that nothing stands beside "
            f"the broken arm: break it by another setting, such as training.epochs or model.width"
        )
    if estimand == IMPORTANCE and positive and list(positive) != [along]:
        raise StudyError(
            f"claim.controls.positive sets {listed(positive)}: expected {along} alone, held where it matters nothing, "
            f"with estimand={estimand}"
        )
    can_fail = "of" in ESTIMANDS[estimand] and direction != "within"
    negative = controls.get("negative")
    if negative is None:
        negative = APART if can_fail else 0
    if estimand in ("value", "mean"):
        negative = arms.mapping(negative or None, "claim.controls.negative", "study.seeds: [1000, 1001]")
        seeds = negative.get("study.seeds", [0])
        if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
            raise StudyError(
                f"claim.controls.negative.study.seeds={shown(seeds)}: expected a list, such as [1000, 1001]"
            )
        return positive, negative
    if type(negative) is not int or negative < 0:
        raise StudyError(
            f"claim.controls.negative={shown(negative)}: expected how far the seeds of its block are from the study's, "
            f"such as {APART}, or 0 for none"
        )
    if negative and not can_fail:
        raise StudyError(
            f"claim.controls.negative={negative}: expected 0 with estimand={estimand} and direction={direction}, by "
            f"which no arm can differ from itself"
        )
    return positive, negative
