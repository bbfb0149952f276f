"""Whether a verdict hangs on a choice: the same trials by another metric, by half of the seeds, or a context fewer."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from analysis.estimate.estimands import CLOCKS, GAPS, matching
from analysis.estimate.intervals import sign_p
from analysis.estimate.verdicts import INVALID, Evidence, Verdict, at, combined, deciding
from studies.record import METRICS, Claim, Study, StudyError, arm_label

NUMBERS = ("val", "best_val", "test")
"""Of the last epoch's network, or that with the lowest validation loss; over the epochs; on test examples."""

EASIER = 0.01
"""How much lower a target that is an accuracy is tried: times hang on it most."""


@dataclass(frozen=True)
class Changed:
    """What the same trials come to by another choice.

    Attributes:
        change: what is done otherwise: `test accuracy`, `first half of the seeds`, `without digits`.
        verdict: then.
        estimate, low, high: of the context that bears the claim out least, as on the board.
        context: that context; empty where there is one.
    """

    change: str
    verdict: str
    estimate: float
    low: float
    high: float
    context: str


def robustness(study: Study, evidence: Evidence, found: Verdict) -> list[Changed]:
    """The verdict by the same trials under each change that the claim allows, one at a time.

    All are judged at one look, at the seeds that the verdict is by, by the card's own rule and alpha. Controls are not
    judged anew: what they came to stands. A change that the claim does not allow (a computed quantity has no other
    metric, one seed no half) is left out, and so is half of the seeds where so few can decide nothing; everything of a
    verdict that no change could alter, since it is none or a control failed; and of the lead of an importance, whose
    refits take a minute a change, all but leaving a context out.

    Args:
        found: the verdict that the evidence came to.
    """
    if found.verdict == INVALID or not all(outcome.startswith("passed") for outcome in found.controls.values()):
        return []
    if study.claim and study.claim.estimand == "importance_lead":
        return [_changed(study.claim, change, new) for change, new in _fewer(study.claim, found)]
    there = evidence.trials[evidence.trials["seed"].isin(found.seeds)]
    evidence = replace(evidence, trials=there, positive=None, negative=None)
    rows = []
    for change, asked, some, seeds in _changes(study, evidence, found.seeds):
        try:
            new = at(asked, some, seeds, found.controls)
        except StudyError:  # nothing is left to set against each other
            continue
        assert asked.claim is not None  # noqa: S101
        least = sign_p(len(seeds), len(seeds))  # that so many seeds can give
        if len(seeds) < len(found.seeds) and least > asked.claim.alpha_look and any(c.by_signs for c in new.contexts):
            continue
        rows.append(_changed(asked.claim, change, new))
    return rows


def _changed(claim: Claim, change: str, new: Verdict) -> Changed:
    least = deciding(claim, new)
    numbers = (least.estimate, least.low, least.high) if least else (np.nan,) * 3
    return Changed(change, new.verdict, *numbers, least.context if least and len(new.contexts) > 1 else "")


def _fewer(claim: Claim, found: Verdict) -> Iterator[tuple[str, Verdict]]:
    """The verdict by all contexts but one, of those that were judged."""
    for left in found.contexts if len(found.contexts) > 1 else ():
        rest = [each for each in found.contexts if each is not left]
        yield f"without {left.context}", combined(claim, rest, found.seeds, found.controls)


def _changes(
    study: Study, evidence: Evidence, seeds: tuple[int, ...]
) -> Iterator[tuple[str, Study, Evidence, tuple[int, ...]]]:
    """Each change: what it is, and the study, the evidence and the seeds with it."""
    claim, trials = study.claim, evidence.trials
    assert claim is not None  # noqa: S101
    for change, other in _metrics(claim):
        named = {other.measure, other.metric} & set(METRICS) - {claim.measure, claim.metric}
        if all(name in trials and trials[name].notna().any() for name in named):
            yield change, replace(study, claim=other), evidence, seeds
    if claim.measure in GAPS:
        [validation] = [name for name in GAPS[claim.measure] if name.startswith("val")]
        test = validation.replace("val", "test")
        if trials[test].notna().any():
            asked = replace(study, claim=replace(claim, metric=claim.metric.replace("val", "test")))
            yield _words(test), asked, replace(evidence, trials=trials.assign(**{validation: trials[test]})), seeds
    middle = len(seeds) // 2
    for name, half in (("first", seeds[:middle]), ("second", seeds[middle:])) if middle else ():
        some = replace(evidence, trials=trials[trials["seed"].isin(half)])
        yield f"{name} half of the seeds", study, some, half
    left: set[tuple] = set()
    for factor in study.factors if claim.estimand in ("value", "mean") else claim.across:
        for level in dict.fromkeys(trials[factor]):
            rest = trials[~matching(trials, {factor: [level]})]
            if len(rest) and (same := tuple(rest.index)) not in left:  # else it goes with a level of another factor
                left.add(same)
                yield f"without {arm_label({factor: level})}", study, replace(evidence, trials=rest), seeds


def _metrics(claim: Claim) -> Iterator[tuple[str, Claim]]:
    """The claim by each other metric of what it is about, or of what it must not cost."""
    if claim.measure in METRICS:
        for other in _others(claim.measure):
            yield _words(other), replace(claim, measure=other, metric=other)
    elif claim.measure in CLOCKS:
        if claim.measure == "seconds_to_target":
            yield "epochs to target", replace(claim, measure="time_to_target")
        if claim.metric.endswith("accuracy"):
            yield f"a target {EASIER:g} lower", replace(claim, target=_lower(claim.target))
    elif (claim.guard is not None and claim.measure not in GAPS) or (
        claim.measure == "success" and claim.target is not None
    ):
        for other in _others(claim.metric):
            yield _words(other), replace(claim, metric=other)


def _others(metric: str) -> list[str]:
    """The same on other examples, or of another epoch; nothing of what training itself sees."""
    by_class = [kind for kind in ("macro_f1", "balanced_accuracy") if metric.endswith(kind)]
    [kind] = by_class or [metric.rpartition("_")[2]]
    head = metric.removesuffix(f"_{kind}")
    if head.startswith("ema_"):
        return [f"ema_{name}_{kind}" for name in ("val", "test") if f"ema_{name}" != head]
    known = (*NUMBERS, "last_val")
    others = [f"{name}_{kind}" for name in NUMBERS if name != head] if head in known else []
    return [name for name in others if name in METRICS]


def _lower(target):
    return {level: value - EASIER for level, value in target.items()} if isinstance(target, dict) else target - EASIER


def _words(metric: str) -> str:
    return metric.replace("best_val", "best epoch's val").replace("_", " ")
