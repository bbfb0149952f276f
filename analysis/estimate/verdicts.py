"""Verdicts: whether what was measured supports a claim, by the rule of its card.

Direction and magnitude are judged apart. *Supported*: the interval lies beyond the margin, or inside the claimed band.
*Not supported*: wholly on the other side, or disjoint from the band. *Inconclusive*: anything else, or a control that
failed. *Invalid*: trials are missing, and nothing is said.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import pandas as pd
from scipy.special import stdtr

from analysis.estimate.comparison import scored
from analysis.estimate.estimands import Sample, baselines, each_context, in_unit, is_ratio, matching, samples
from analysis.estimate.importance import REFITS_OF_CONTROL, lead
from analysis.estimate.intervals import RESOLUTION, holm, sign_p, t_interval
from analysis.estimate.measure import measure
from studies.record import Claim, Study, arm_label, short

SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE, INVALID = "supported", "not supported", "inconclusive", "invalid"

ALPHA_CONTROL = 0.05
"""One-sided, of the test that a broken arm is worse."""

P_VALUES = ("p_for", "p_against", "p_inside", "p_outside")
"""Of a context."""

ALPHA_SAME = 0.01
"""Two-sided, of the test that an arm differs from itself: so often a good study's negative control fails."""


@dataclass(frozen=True)
class Judged:
    """One context, judged.

    Attributes:
        estimate, low, high: the mean over the seeds with its 95 % interval, in the unit of the margin: of a ratio the
            geometric mean. Of `value` the worst, the least and the greatest.
        direction, magnitude: of these verdicts; magnitude is empty where the claim names no band.
        p_against: one-sided, that the truth is not on the other side of the margin.
        note: why no interval is given, or what the direction was judged by.
        leads: P(of > against) paired by seed, a tie counted as half, of what is known; NaN without two sides.
        p_outside: one-sided, that the truth is not beyond the nearer end of the claimed band; NaN where none is tested.
        p_for: as p_against, that the truth is not on the claimed side, or that it is bought with accuracy.
        p_inside: as p_outside, that the truth is not inside the band.
        numbers: of each seed, or each trial of `value`, what it is judged by, in the unit of the margin, and its bound,
            see `estimands.Sample`: triples of seed, number, bound.
        by_signs: whether the direction was judged by the exact sign test.
    """

    context: str
    estimate: float
    low: float
    high: float
    n: int
    direction: str
    magnitude: str
    p_against: float
    note: str = ""
    p_outside: float = np.nan
    leads: float = np.nan
    p_for: float = np.nan
    p_inside: float = np.nan
    numbers: tuple[tuple[int, float, float], ...] = ()
    by_signs: bool = False

    @property
    def whole(self) -> str:
        """Direction and magnitude together."""
        return _together([self.direction, self.magnitude or self.direction])


@dataclass(frozen=True)
class Verdict:
    """What a study says of its claim.

    Attributes:
        direction, magnitude, verdict: of all contexts together.
        seeds: those that were looked at.
        look: the number of seeds at which it was decided, or the last.
        controls: each one's name and what it came to.
        because: why it is invalid or inconclusive; else empty.
        needed: the seeds that would decide what is open, see `outlook.outlook`; None where none would, or nothing is.
    """

    direction: str
    magnitude: str
    verdict: str
    contexts: list[Judged]
    seeds: tuple[int, ...]
    look: int
    controls: dict[str, str] = field(default_factory=dict)
    because: str = ""
    needed: int | None = None

    @property
    def decided(self) -> bool:
        """Whether it will not change with more seeds: controls are of the first look's alone."""
        return self.verdict in (SUPPORTED, NOT_SUPPORTED, INVALID) or bool(_failed(self.controls))

    def record(self) -> dict:
        """As JSON has it."""
        return asdict(self)


@dataclass(frozen=True)
class Evidence:
    """The frames that a claim is judged by.

    Attributes:
        trials: the arms at the evaluation seeds.
        epochs: theirs and the controls', where the measure needs them.
        tuned: each arm's levels and the `value` that it was tuned to.
        positive, negative: the controls' trials, with the levels and the seeds of the trials that they stand beside;
            None where the card asks for none.
    """

    trials: pd.DataFrame
    epochs: pd.DataFrame | None = None
    tuned: pd.DataFrame | None = None
    positive: pd.DataFrame | None = None
    negative: pd.DataFrame | None = None


def verdict(
    study: Study, evidence: Evidence, expected: int, short: dict[str, int] | None = None, lost: int = 0
) -> Verdict:
    """The verdict at the first look at which the rule decides, else at the last that there are trials for.

    Args:
        expected: how many trials there should be for each seed.
        short: controls of which trials are missing, and how many there are.
        lost: how many of the study's trials are missing.
    """
    trials = evidence.trials
    sides = {"positive": evidence.positive, "negative": evidence.negative}
    gone = [*(short or {}), *(name for name, side in sides.items() if side is not None and _crashed(side))]
    missing = "".join(f"trials of the {name} control are missing or crashed" for name in gone[:1])
    missing = f"{lost} of its trials are missing" if lost else missing
    if missing := missing or _missing(study, trials, expected):
        return Verdict(INVALID, "", INVALID, [], tuple(sorted(set(trials["seed"]))), 0, because=missing)
    controls = _controls(study, evidence)
    looks = [look for look in study.looks or (len(study.seeds),) if look <= trials["seed"].nunique()]
    for look in looks or [trials["seed"].nunique()]:
        found = at(study, evidence, study.seeds[:look], controls)
        if found.decided:
            break
    return found


def at(study: Study, evidence: Evidence, seeds: tuple[int, ...], controls: dict[str, str]) -> Verdict:
    """The verdict by the trials of some seeds, all of which are there.

    Args:
        controls: what they came to.
    """
    assert study.claim is not None  # noqa: S101
    return combined(
        study.claim, [judged(study.claim, each) for each in numbers(study, evidence, seeds)], seeds, controls
    )


def numbers(study: Study, evidence: Evidence, seeds: tuple[int, ...], estimand: Callable | None = None) -> list[Sample]:
    """What is judged at some seeds: of each context its numbers; or those of another estimand, see `estimands`."""
    assert study.claim is not None  # noqa: S101
    there = evidence.trials[evidence.trials["seed"].isin(seeds)]  # what later seeds score is nothing that a look knows
    return samples(study.claim, there, evidence.epochs, list(study.factors), _rated(study, evidence), estimand=estimand)


def deciding(claim: Claim, found: Verdict) -> Judged | None:
    """The context that a short form names: the one that bears the claim out least; an existential one, most."""
    order, sign = (NOT_SUPPORTED, INCONCLUSIVE, SUPPORTED), {"above": 1, "below": -1}.get(claim.direction, 0)
    best = claim.existential

    def standing(each: Judged) -> tuple[int, float]:
        unknown = -np.inf if best else np.inf
        return order.index(each.whole), sign * each.estimate if np.isfinite(each.estimate) else unknown

    return (max if best else min)(found.contexts, key=standing, default=None)


def judged(claim: Claim, sample: Sample) -> Judged:
    """One context by the claim's rule.

    The direction is judged by the one-sided t interval at the alpha of a look, and so is either end of the band. Where
    times were cut off at the budget, all values are alike, or successes are compared, there is no such interval: then
    by the exact sign test on which side of the margin they are, and what is not known counts for neither side. The
    estimand `value` is of what does not vary by chance, or must hold each time: all must be on the claimed side.
    """
    values, bounds = sample.numbers, sample.bounds
    if claim.estimand == "value":
        return _every(claim, sample)
    if claim.estimand == "importance_lead":
        return _ranked(claim, sample)
    known = values[np.isfinite(values) & (bounds == 0)]
    n = len(values)
    low, high = t_interval(known) if len(known) == n else (np.nan, np.nan)
    for_it, against, note = _directed(claim, sample)
    by_signs = bool(note) and n > 1
    direction = (
        SUPPORTED if for_it <= claim.alpha_look else NOT_SUPPORTED if against <= claim.alpha_look else INCONCLUSIVE
    )
    estimate = float(np.median(values[np.isfinite(values)])) if np.isfinite(values).any() else np.nan
    estimate = float(known.mean()) if len(known) == n and n else estimate
    estimate, low, high = (float(in_unit(claim, number)) for number in (estimate, low, high))
    least, most = t_interval(known, 1 - 2 * claim.alpha_look) if len(known) == n else (np.nan, np.nan)
    magnitude = _magnitude(claim, float(in_unit(claim, least)), float(in_unit(claim, most)))
    if direction == INCONCLUSIVE and not note and np.isfinite(low) and not low <= claim.margin <= high:
        note = f"beyond the margin at 95 %, and not at the {100 - 200 * claim.alpha_look:.1f} % of a look"
    if claim.direction == "within":
        direction = magnitude
    if direction == SUPPORTED and claim.guard is not None:
        bought, unpaid = _bought(claim, sample.ahead)
        direction, note = _guarded(claim, sample.ahead, note)
        for_it = np.fmax(for_it, bought)
        against = unpaid if direction == NOT_SUPPORTED else against
    inside, outside = _banded(claim, known) if len(known) == n > 1 else (np.nan, np.nan)
    some = values[~np.isnan(bounds)] if claim.of else np.empty(0)
    leads = float((np.mean(some > 0) + np.mean(some >= 0)) / 2) if len(some) else np.nan
    found = Judged(sample.context, estimate, low, high, n, direction, magnitude, against)
    found = replace(found, p_for=float(for_it), p_outside=outside, p_inside=inside, by_signs=by_signs)
    return replace(found, note=note, leads=leads, numbers=_numbers(claim, sample))


def _guarded(claim: Claim, ahead: np.ndarray, note: str) -> tuple[str, str]:
    """What is left of a support by the one-sided test that no more accuracy than the guard was paid for it."""
    bought, unpaid = _bought(claim, ahead)
    if np.isnan(bought):
        return INCONCLUSIVE, f"what it costs in {claim.metric} is not known"
    said = f"{claim.metric} changes by {ahead.mean():+.4f}"
    if bought <= claim.alpha_look:
        return SUPPORTED, note
    if unpaid <= claim.alpha_look:
        return NOT_SUPPORTED, f"bought with accuracy: {said}, more than {claim.guard:g} is allowed"
    return INCONCLUSIVE, f"whether it is bought with accuracy is open: {said}, {claim.guard:g} is allowed"


def _bought(claim: Claim, ahead: np.ndarray) -> tuple[float, float]:
    """One-sided, that more accuracy than the guard is paid, and that no more is; NaN where that is not known."""
    if len(ahead) < 2 or not np.isfinite(ahead).all():
        return np.nan, np.nan
    return _beyond_zero(ahead + (claim.guard or 0.0), RESOLUTION * max(1.0, np.abs(ahead).max()))


def _beyond_zero(values: np.ndarray, slack: float) -> tuple[float, float]:
    """One-sided, that the truth is not above zero, and not below: by Student's test, of values alike by the sign test.

    Args:
        slack: values that differ by less do so by rounding.
    """
    n = len(values)
    if np.ptp(values) > slack:
        t = values.mean() / (values.std(ddof=1) / np.sqrt(n))
        return float(stdtr(n - 1, -t)), float(stdtr(n - 1, t))
    return sign_p(int((values > slack).sum()), n), sign_p(int((values < -slack).sum()), n)


def combined(claim: Claim, contexts: list[Judged], seeds: tuple[int, ...], controls: dict[str, str]) -> Verdict:
    """The verdict over all contexts, by the kind of claim that it is.

    An existential claim is supported if it holds in any context, direction and magnitude both, after Holm's rule over
    the contexts, each of which is one more chance; it is not supported if it does not hold in every one of them. Any
    other claim must hold in each context, and a contradiction in any must hold after Holm's rule.
    """
    exists = claim.existential
    if claim.estimand != "value":
        contexts = _corrected(claim, contexts, SUPPORTED if exists else NOT_SUPPORTED)
    directions, over = [each.direction for each in contexts], _any if exists else _together
    sizes = [each.whole if exists and each.magnitude else each.magnitude for each in contexts]
    direction, magnitude = over(directions), over(sizes)
    said = _together([direction, magnitude]) if magnitude else direction
    failed = _failed(controls)
    because = ""
    if failed:
        because = "; ".join(f"the {name} control {controls[name]}" for name in failed)
    elif said == INCONCLUSIVE:
        open_ = [
            each.context or "the estimate" for each, d in zip(contexts, directions, strict=True) if d == INCONCLUSIVE
        ]
        few = "so many points" if claim.estimand == "importance_lead" else f"{len(seeds)} seeds"
        because = f"open at {few}: {'; '.join(open_) or 'how large it is'}"
    return Verdict(
        direction, magnitude, INCONCLUSIVE if failed else said, contexts, seeds, len(seeds), controls, because
    )


def _corrected(claim: Claim, contexts: list[Judged], lone: str) -> list[Judged]:
    """The contexts, where what one of them by itself decides, `lone`, is left open unless it survives Holm's rule."""
    p = {name: np.array([getattr(each, name) for each in contexts]) for name in P_VALUES}
    if lone == SUPPORTED:
        of_direction, of_magnitude = holm(p["p_for"]), holm(np.fmax(p["p_for"], p["p_inside"]))
    else:
        of_direction, of_magnitude = holm(p["p_against"]), holm(p["p_outside"])
    if claim.direction == "within":  # which the magnitude is
        of_direction = of_magnitude = holm(p["p_inside"] if lone == SUPPORTED else p["p_outside"])

    def left(said: str, p: float) -> str:
        return INCONCLUSIVE if said == lone and p > claim.alpha_look else said

    return [
        replace(each, direction=left(each.direction, one), magnitude=left(each.magnitude, other))
        for each, one, other in zip(contexts, of_direction, of_magnitude, strict=True)
    ]


def _any(verdicts: list[str]) -> str:
    """Of an existential claim: one that is supported is enough, and only if none may be it is not."""
    if not verdicts or "" in verdicts:
        return ""
    if SUPPORTED in verdicts:
        return SUPPORTED
    return NOT_SUPPORTED if set(verdicts) == {NOT_SUPPORTED} else INCONCLUSIVE


def _failed(controls: dict[str, str]) -> list[str]:
    return [name for name, outcome in controls.items() if not outcome.startswith("passed")]


def _together(verdicts: list[str]) -> str:
    if not verdicts or "" in verdicts:
        return ""
    if all(each == SUPPORTED for each in verdicts):
        return SUPPORTED
    return NOT_SUPPORTED if NOT_SUPPORTED in verdicts else INCONCLUSIVE


def _missing(study: Study, trials: pd.DataFrame, expected: int) -> str:
    """What keeps a verdict from being given, empty if nothing does."""
    if crashed := _crashed(trials):
        return f"{crashed} of its trials crashed"
    per_seed = trials.groupby("seed")["key"].nunique()
    short = per_seed[per_seed < expected]
    if len(trials) == 0 or len(short):
        return f"{int((expected - short).sum()) or 'all'} of its trials are missing"
    least = study.looks[0] if study.looks else len(study.seeds)
    return f"{len(per_seed)} of {least} seeds are there" if len(per_seed) < least else ""


def _rated(study: Study, evidence: Evidence) -> pd.DataFrame | None:
    """What the arms were tuned to, a greater `value` the better one."""
    tuned = evidence.tuned
    return None if tuned is None else tuned.assign(value=tuned["value"] * measure(study.tuning_metric).sign)


def _crashed(trials: pd.DataFrame) -> int:
    return int((trials["status"] == "crashed").sum())


def _every(claim: Claim, sample: Sample) -> Judged:
    """A context all of whose values must be on the claimed side."""
    values = sample.numbers
    open_ = sample.bounds != 0 if claim.direction != "above" else sample.bounds < 0  # at least so much is above, too
    if not len(values) or not np.isfinite(values).all() or open_.any():
        missing = (np.nan, np.nan, np.nan, len(values), INCONCLUSIVE, "", np.nan, "a value is missing")
        return Judged(sample.context, *missing, numbers=_numbers(claim, sample))
    least, greatest = float(values.min()), float(values.max())
    worst = {"above": least, "below": greatest}.get(claim.direction)
    if worst is None:
        low, high = claim.claimed_band or (-np.inf, np.inf)
        worst = least if low - least > greatest - high else greatest
    magnitude = _magnitude(claim, least, greatest, exact=True)
    good = {"above": worst > claim.margin, "below": worst < claim.margin}.get(claim.direction, magnitude == SUPPORTED)
    said = SUPPORTED if good else NOT_SUPPORTED
    found = (worst, least, greatest, len(values), said, magnitude, np.nan)
    return Judged(sample.context, *found, numbers=_numbers(claim, sample))


def _numbers(claim: Claim, sample: Sample) -> tuple[tuple[int, float, float], ...]:
    """As `Judged` has them."""
    triples = zip(sample.seeds, in_unit(claim, sample.numbers), sample.bounds, strict=True)
    return tuple((int(seed), float(number), float(bound)) for seed, number, bound in triples)


def _ranked(claim: Claim, sample: Sample) -> Judged:
    """A context in which a factor must lead by more than the margin in all refits but a share of alpha."""
    n, leads, shares = len(sample.seeds), sample.refits, sample.shares
    if not len(leads):
        return Judged(sample.context, np.nan, np.nan, np.nan, n, INCONCLUSIVE, "", 1.0, "a point's value is missing")
    estimate = lead(np.array(list(shares.values())), list(shares).index(claim.along))
    low, high = (float(end) for end in np.quantile(leads, [0.025, 0.975]))
    beyond = (leads - claim.margin) * (1 if claim.direction == "above" else -1)
    for_it, against = float(np.mean(beyond <= 0)), float(np.mean(beyond >= 0))
    direction = (
        SUPPORTED if for_it <= claim.alpha_look else NOT_SUPPORTED if against <= claim.alpha_look else INCONCLUSIVE
    )
    ranked = sorted(shares.items(), key=lambda each: -each[1])
    note = f"{short(claim.along, shares)} ranks first in {np.mean(leads > 0):.1%} of {len(leads)} refits; importance: "
    note += ", ".join(f"{short(factor, shares)} {share:.2f}" for factor, share in ranked)
    return Judged(
        *(sample.context, estimate, low, high, n, direction, _magnitude(claim, low, high), against, note),
        p_for=for_it,
        numbers=_numbers(claim, sample),
    )


def _directed(claim: Claim, sample: Sample) -> tuple[float, float, str]:
    """The one-sided p that the truth is on the claimed side of the margin, and on the other; what they are by."""
    if claim.direction == "within":
        return 1.0, 1.0, ""
    sign = 1 if claim.direction == "above" else -1
    margin = np.log(claim.margin) if is_ratio(claim) else claim.margin
    values, bounds, n = sign * (sample.numbers - margin), sign * sample.bounds, len(sample.numbers)
    if n < 2:
        return 1.0, 1.0, "one seed, by which nothing is tested"
    scale = max(sample.scale, np.abs(sample.numbers[np.isfinite(sample.numbers)]).max(initial=0), abs(margin))
    slack = RESOLUTION * scale
    paired = claim.measure == "success" and claim.estimand == "difference"  # McNemar's test, which is no t test's case
    if np.isfinite(values).all() and (bounds == 0).all() and np.ptp(values) > slack and not paired:
        return *_beyond_zero(values, slack), ""
    ahead, behind = int(((values > slack) & (bounds >= 0)).sum()), int(((values < -slack) & (bounds <= 0)).sum())
    unknown, cut = int(np.isnan(bounds).sum()), int((np.abs(bounds) == 1).sum())
    where = "as they diverged" if claim.measure.startswith("update_ratio") else "at the budget"
    why = [f"{cut} of {n} seeds cut off {where}"] * (cut > 0) + [f"{unknown} of {n} seeds not known"] * (unknown > 0)
    alike = "successes and failures" if paired else "all differences alike"
    return sign_p(ahead, n), sign_p(behind, n), f"{', '.join(why) or alike}: direction by the sign test, median given"


def _magnitude(claim: Claim, low: float, high: float, exact: bool = False) -> str:
    if claim.claimed_band is None:
        return ""
    least, most = claim.claimed_band
    if not (np.isfinite(low) and np.isfinite(high)) or (low == high and not exact):
        return INCONCLUSIVE
    if low >= least and high <= most:
        return SUPPORTED
    return NOT_SUPPORTED if exact or high < least or low > most else INCONCLUSIVE


def _banded(claim: Claim, values: np.ndarray) -> tuple[float, float]:
    """The p that goes with an interval inside the claimed band, and with one disjoint from it; NaN without a band or a
    spread."""
    if claim.claimed_band is None or not values.std():
        return np.nan, np.nan
    least, most = claim.claimed_band
    if is_ratio(claim):
        least, most = (np.log(end) if end > 0 else -np.inf for end in (least, most))
    n, mean, error = len(values), values.mean(), values.std(ddof=1) / np.sqrt(len(values))
    within, beyond = min(mean - least, most - mean), max(least - mean, mean - most)
    return float(stdtr(n - 1, -within / error)), float(stdtr(n - 1, -beyond / error))


def _controls(study: Study, evidence: Evidence) -> dict[str, str]:
    """Each control of the card and what it came to: `passed: …` or `failed: …`."""
    outcomes = {}
    if evidence.positive is not None:
        outcomes["positive"] = _broken(study, evidence)
    if evidence.negative is not None:
        outcomes["negative"] = _same_arm(study, evidence)
    return outcomes


def _broken(study: Study, evidence: Evidence) -> str:
    """Whether what must be found is found: that a broken arm is worse than itself, that an input violates the claim."""
    claim, control = study.claim, evidence.positive
    assert claim is not None and control is not None  # noqa: S101
    if claim.estimand in ("value", "mean"):
        found = [judged(claim, sample).direction for sample in samples(claim, control, None, list(study.factors))]
        known = all(each == NOT_SUPPORTED for each in found)
        return (
            "passed: an input that violates the claim is found to violate it"
            if known
            else "failed: an input that violates the claim is not found to violate it"
        )
    if claim.estimand == "importance_lead":
        return _held(claim, evidence.trials, control, list(study.factors))
    outcome, worse = _worse(claim, evidence.trials, control)
    if not worse:
        return f"failed: {outcome}"
    rest = evidence.trials[evidence.trials["seed"].isin(control["seed"])]
    rest = rest[~matching(rest, claim.of)] if claim.of else rest[:0]
    frame = pd.concat([rest, control], ignore_index=True)
    by, tuned = list(study.factors), _rated(study, evidence)
    fooled = [
        s.context for s in samples(claim, frame, evidence.epochs, by, tuned) if judged(claim, s).direction == SUPPORTED
    ]
    if fooled and claim.direction != "within":
        return f"failed: the broken arm bears the claim out{f' at {fooled[0]}' if fooled[0] else ''}"
    return f"passed: {outcome}"


def _worse(claim: Claim, trials: pd.DataFrame, control: pd.DataFrame) -> tuple[str, bool]:
    """By how much a broken arm is worse than itself, where by least; whether it is so in every context."""
    own = trials[matching(trials, claim.of) & trials["seed"].isin(control["seed"])]
    both = pd.concat([own.assign(broken=False), control.assign(broken=True)], ignore_index=True)
    found = []
    for levels, part in each_context(both, list(claim.across)):
        part = part.assign(value=scored(part, claim.metric))  # what a failure scores on one dataset is no other's
        table = part.pivot_table(index="seed", columns="broken", values="value")
        table = table.reindex(columns=[False, True]).dropna()
        gap = (table[False] - table[True]).to_numpy() * measure(claim.metric).better
        p, _ = _beyond_zero(gap, RESOLUTION * max(1.0, np.abs(gap).max(initial=0))) if len(gap) > 1 else (1.0, 1.0)
        found.append((p, gap.mean() if len(gap) else np.nan, len(gap), arm_label(levels) if levels else ""))
    p, gap, n, where = max(found)
    at = f" at {where}, where it is clear least" if len(found) > 1 else ""
    name = claim.metric.replace("val_", "validation ").replace("_", " ")
    return f"the broken arm's {name} is {gap:.3f} worse over {n} seeds{at} (p {p:.1g})", p <= ALPHA_CONTROL


def _held(claim: Claim, trials: pd.DataFrame, control: pd.DataFrame, by: list[str]) -> str:
    """Whether a factor is not found to lead of which the trials have not read what was drawn: it was held."""
    others = [factor for factor in by if factor != claim.along]
    drawn = trials[by].drop_duplicates(others)
    frame = control.drop(columns=claim.along).merge(drawn, on=others)
    found = [judged(claim, sample) for sample in samples(claim, frame, None, by, refits=REFITS_OF_CONTROL)]
    leads = ", ".join(f"{each.estimate:+.2f}" for each in found)
    if any(each.direction == SUPPORTED for each in found):
        return f"failed: {claim.along} is held, and what was drawn of it bears the claim out ({leads})"
    return f"passed: where {claim.along} is held, what was drawn of it leads by {leads}"


def _same_arm(study: Study, evidence: Evidence) -> str:
    """Whether the arm `against`, set against itself at other seeds, is not found to differ from itself."""
    claim, control = study.claim, evidence.negative
    assert claim is not None and control is not None  # noqa: S101
    if claim.estimand in ("value", "mean"):
        cases = [judged(claim, sample).direction for sample in samples(claim, control, None, list(study.factors))]
        return (
            "passed: an input of which the claim must hold is found to bear it out"
            if set(cases) == {SUPPORTED}
            else "failed: an input of which the claim must hold is not found to bear it out"
        )
    block = "block of seeds"
    names = ("own", "other")
    seeds = set(control["seed"])
    own = evidence.trials[matching(evidence.trials, claim.against) & evidence.trials["seed"].isin(seeds)]
    both = pd.concat([own.assign(**{block: "own"}), control.assign(**{block: "other"})], ignore_index=True)
    tuned = _rated(study, evidence)
    if tuned is not None:
        tuned = pd.concat([tuned.assign(**{block: name}) for name in names], ignore_index=True)
    numbers = []
    for rule in baselines(claim, own, list(study.factors)):
        other, mine = (rule | {block: [name]} for name in reversed(names))
        same, some = replace(claim, of=other, against=mine), both[matching(both, rule)]
        numbers += samples(same, some.reset_index(drop=True), evidence.epochs, [*study.factors, block], tuned)
    nothing = 1.0 if is_ratio(claim) else 0.0
    alpha = ALPHA_SAME / 2 / len(numbers)  # on either side, of all contexts together (Bonferroni)
    same = replace(same, alpha_look=alpha, margin=nothing, direction="above", claimed_band=None, guard=None)
    found = [judged(same, sample) for sample in numbers]
    if all(np.isnan(sample.bounds).all() for sample in numbers):
        return "failed: nothing is known of an arm against itself at other seeds"
    if differ := [each for each in found if each.direction != INCONCLUSIVE]:
        return f"failed: an arm against itself at other seeds comes to {differ[0].estimate:.4g}"
    return (
        f"passed: an arm against itself at other seeds comes to {', '.join(f'{each.estimate:.3g}' for each in found)}"
    )
