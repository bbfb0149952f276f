"""What it would take to decide what is open: the seeds, if the effect is as it was seen to be."""

from dataclasses import replace

import numpy as np
from scipy.special import bdtr, bdtrc

from analysis.estimate import power
from analysis.estimate.estimands import Sample, is_ratio
from analysis.estimate.intervals import RESOLUTION
from analysis.estimate.verdicts import (
    INCONCLUSIVE,
    NOT_SUPPORTED,
    SUPPORTED,
    Evidence,
    Judged,
    Verdict,
    judged,
    numbers,
)
from studies.record import Claim, Study

MOST = 1000
"""More seeds than that are said to be so many."""

Part = tuple[int, float]
"""Of what is open: whether it tends to bear the claim out, 1, or to contradict it, -1; the seeds that would show it."""


def outlook(study: Study, evidence: Evidence, found: Verdict) -> Verdict:
    """An inconclusive verdict with the seeds that it would take to decide it, and that said in `because`.

    They are those at which a test at the card's alpha, at one look, finds the effect that was seen with `power.POWER`:
    of the t test `power.seeds_needed`, against the margin or the ends of the band; where values are cut off, or
    successes compared, the sign test's. They are as many as the last of what is open needs, or, where something tends
    to decide the claim alone, as that does. The effect seen is a guess at the true one, and so are they.
    """
    claim = study.claim
    assert claim is not None  # noqa: S101
    if any(not outcome.startswith("passed") for outcome in found.controls.values()):
        return replace(found, because=f"{found.because}; more seeds do not mend a control")
    if claim.estimand == "importance_lead":  # by refits, not by seeds
        return found
    if claim.estimand == "value":
        notes = [each.note for each in found.contexts if each.direction == INCONCLUSIVE]
        return replace(found, because=f"{found.because}: {notes[0]}; more seeds do not tell")
    samples = numbers(study, evidence, found.seeds)
    parts = [_open(claim, *pair, len(samples)) for pair in zip(samples, found.contexts, strict=True)]
    open_ = [(some, each.whole == NOT_SUPPORTED) for some, each in zip(parts, found.contexts, strict=True) if some]
    seeds = _of_claim(claim, open_)
    if not seeds <= power.MOST_SEEDS:
        words = "the estimate leans to neither side of the margin: no number of seeds will do"
        return replace(found, because=f"{found.because}; {words}")
    seeds = max(int(seeds), len(found.seeds) + 1)
    many = f"more than {MOST:,}" if seeds > MOST else f"about {seeds}"
    words = f"{many} seeds would decide it ({power.POWER:.0%} power at the effect seen)".replace("%", " %", 1)
    return replace(found, because=f"{found.because}; {words}", needed=seeds)


def _of_claim(claim: Claim, contexts: list[tuple[list[Part], bool]]) -> float:
    """The seeds that decide a claim.

    Args:
        contexts: those in which something is open: what, and whether they can no longer bear the claim out.
    """
    if not contexts:
        return np.inf
    if not claim.existential:
        return _of_all([part for parts, _ in contexts for part in parts])
    for_it = [
        max(seeds for _, seeds in parts) for parts, lost in contexts if not lost and all(side > 0 for side, _ in parts)
    ]
    return min(for_it) if for_it else max(_of_all(parts) for parts, _ in contexts)


def _of_all(parts: list[Part]) -> float:
    """The seeds that decide what must hold in every part: a contradiction in one is enough."""
    against = [seeds for side, seeds in parts if side < 0]
    return min(against) if against else max(seeds for _, seeds in parts)


def _open(claim: Claim, sample: Sample, found: Judged, contexts: int) -> list[Part]:
    """What is open in a context; at the worst of Holm's alphas where that rule is of one context among several."""
    alone = 1 if claim.existential else -1
    alphas = {side: claim.alpha_look / (contexts if side == alone else 1) for side in (-1, 1)}
    known = np.isfinite(sample.numbers).all() and not sample.bounds.any() and len(sample.numbers) > 1
    parts = []
    if found.direction == INCONCLUSIVE and claim.direction != "within":
        paid = claim.guard is not None and judged(replace(claim, guard=None), sample).direction == SUPPORTED
        if paid:
            parts.append(_by_t(sample.ahead + (claim.guard or 0.0), alphas))
        else:
            parts.append(_by_margin(claim, sample, known, alphas))
    if found.magnitude == INCONCLUSIVE:
        parts.append(_by_band(claim, sample.numbers, alphas) if known else (0, np.inf))
    return parts


def _by_margin(claim: Claim, sample: Sample, known: bool, alphas: dict[int, float]) -> Part:
    """By the test that judges the direction: Student's, or where it is not defined the sign test."""
    sign = 1 if claim.direction == "above" else -1
    margin = np.log(claim.margin) if is_ratio(claim) else claim.margin
    values = sign * (sample.numbers - margin)
    most = np.abs(sample.numbers[np.isfinite(sample.numbers)]).max(initial=0)
    slack = RESOLUTION * max(sample.scale, most, abs(margin))
    if known and np.ptp(values) > slack and not (claim.measure == "success" and claim.estimand == "difference"):
        return _by_t(values, alphas)
    bounds = sign * sample.bounds
    shares = {1: np.mean((values > slack) & (bounds >= 0)), -1: np.mean((values < -slack) & (bounds <= 0))}
    side = max(shares, key=lambda each: shares[each])
    return (side, sign_seeds(float(shares[side]), alphas[side])) if shares[side] > 0.5 else (0, np.inf)


def _by_t(values: np.ndarray, alphas: dict[int, float]) -> Part:
    if len(values) < 2 or not np.isfinite(values).all() or not values.std():
        return 0, np.inf
    effect = values.mean() / values.std(ddof=1)
    side = 1 if effect > 0 else -1
    return side, power.seeds_needed(effect, alphas[side], alternative="larger")


def _by_band(claim: Claim, values: np.ndarray, alphas: dict[int, float]) -> Part:
    """Of an estimate inside the band both ends must be cleared, of one outside the nearer."""
    assert claim.claimed_band is not None  # noqa: S101
    sd = values.std(ddof=1)
    if not sd:
        return 0, np.inf
    least, most = claim.claimed_band
    if is_ratio(claim):
        least, most = (np.log(end) if end > 0 else -np.inf for end in (least, most))
    room = np.array([values.mean() - least, most - values.mean()]) / sd
    if room.min() <= 0:
        return -1, power.seeds_needed(room.min(), alphas[-1], alternative="larger")

    def both(seeds: int) -> float:
        return sum(power.t_power(min(each, 1e3), seeds, alphas[1], "larger") for each in room) - 1

    return 1, power.fewest(both, power.POWER, power.LEAST_PAIRS)


def sign_seeds(share: float, alpha: float) -> float:
    """The fewest seeds at which the one-sided sign test finds a share ahead, above a half, with `power.POWER`.

    >>> [sign_seeds(share, 0.021) for share in (1.0, 0.9, 0.6)]
    [6, 12, 215]
    """

    def found(seeds: int) -> float:
        low, high = seeds // 2, seeds + 1  # of how many ahead p is still above alpha, and of how many not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if bdtr(seeds - middle, seeds, 0.5) <= alpha else (middle, high)
        return 0.0 if high > seeds else float(bdtrc(high - 1, seeds, share))

    return power.fewest(found, power.POWER, 1)
