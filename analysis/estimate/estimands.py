"""What claims are about: of each context one number a seed, which a rule then judges.

An estimand takes the trials of one context and gives, by seed, a value and how it is bounded: 0 where it is known; 1
where the true one is as large or larger, since a time was cut off at the budget; -1 where it is as small or smaller;
NaN where nothing is known.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from analysis.estimate import importance, paired, success, time_to_target
from analysis.estimate.arms import as_level
from analysis.estimate.comparison import scored
from analysis.estimate.measure import measure
from studies.record import METRICS, Claim, StudyError, arm_label, listed

CLOCKS = {"time_to_target": "time", "examples_to_target": "examples", "seconds_to_target": "seconds"}

GAPS = {"accuracy_gap": ("train_accuracy", "val_accuracy"), "loss_gap": ("val_loss", "train_loss")}
"""Generalization gaps: the first less the second."""


DECADE = 10.0
"""How far from the best level one is a slow one, or one that overshoots."""


@dataclass(frozen=True)
class Sample:
    """The numbers of one context.

    Attributes:
        context: the levels that it is at, as a reader sees them.
        seeds: `(n,)`.
        numbers: `(n,)`, of ratios their logarithms.
        bounds: `(n,)`: 0 for a known value, 1 or -1 for one that is at least or at most so much, NaN for none.
        ahead: by seed how far the arms `of` are ahead of `against` by the claim's metric; empty without a guard.
        refits: the estimates of a bootstrap over the points of a design; empty of other estimands.
        shares: of these the importance of each factor.
        scale: what rounding of the numbers is relative to: the greatest of the measures, of logarithms 1.
    """

    context: str
    seeds: np.ndarray
    numbers: np.ndarray
    bounds: np.ndarray
    scale: float = 0.0
    ahead: np.ndarray = field(default_factory=lambda: np.empty(0))
    refits: np.ndarray = field(default_factory=lambda: np.empty(0))
    shares: dict[str, float] = field(default_factory=dict)


def samples(
    claim: Claim,
    trials: pd.DataFrame,
    epochs: pd.DataFrame | None,
    by: list[str],
    tuned: pd.DataFrame | None = None,
    refits: int = importance.REFITS,
    estimand: "Callable[[_Context], Numbers] | None" = None,
) -> list[Sample]:
    """The numbers that a claim is judged by, of each context.

    A context is a combination of the levels of what it must hold across; of the estimands `value` and `mean` each arm.
    Of an existential claim each arm `against`, such as a baseline, makes a context of its own. Of an interaction the
    context that the others are set beside is none.

    Args:
        trials, epochs: those frames; the epochs only for a time to target.
        by: the factors.
        tuned: with a claim of the best arms, each arm's levels and the `value` that it was tuned to, more being better.
        refits: how many there are of an importance.
        estimand: another than the claim's, such as `dominance`.

    Raises:
        StudyError: there is no such measure, or no arm of a side in a context.
    """
    known = measured(claim, trials, epochs)
    across = by if claim.estimand in ("value", "mean") else list(claim.across)
    found = []
    for levels, part in each_context(known, across):
        if claim.beside and matching(part, claim.beside).all():
            continue
        sides, both = baselines(claim, part, by), _set_beside(claim, known, levels, part)
        for against in sides:
            one = replace(claim, against=against)
            named = [arm_label(levels)] * bool(levels) + [f"against {_named(against, sides)}"] * (len(sides) > 1)
            numbers = (estimand or ESTIMANDS[claim.estimand])(_Context(one, both, by, tuned))
            extra = _importance(_Context(one, both, by, tuned), refits)
            found.append(Sample(" ".join(named), *numbers, _scale(claim, part), _ahead(one, part), *extra))
    return found


def _set_beside(claim: Claim, known: pd.DataFrame, levels: dict, part: pd.DataFrame) -> pd.DataFrame:
    """A context's trials and those that they are set beside, of an interaction."""
    if not claim.beside:
        return part
    rest = {factor: [level] for factor, level in levels.items() if factor not in claim.beside}
    return pd.concat([part, known[matching(known, claim.beside | rest)]])


def baselines(claim: Claim, trials: pd.DataFrame, by: list[str]) -> list[dict]:
    """The rules of what the arms `of` are set against in turn: of an existential claim each arm by itself."""
    if not claim.existential or not claim.against:
        return [claim.against]
    own = [factor for factor in by if factor not in claim.across]
    rows = trials.loc[matching(trials, claim.against), own].itertuples(index=False)
    arms = dict.fromkeys(tuple(as_level(level) for level in row) for row in rows)
    return [{factor: [level] for factor, level in zip(own, arm, strict=True)} for arm in arms] or [claim.against]


def _named(rule: dict, others: list[dict]) -> str:
    """A rule of one arm by the factors that tell it from others."""
    return arm_label({factor: levels[0] for factor, levels in rule.items() if any(o[factor] != levels for o in others)})


def measured(claim: Claim, trials: pd.DataFrame, epochs: pd.DataFrame | None) -> pd.DataFrame:
    """The trials with each one's `value`, what the claim measures of it, and whether it is `censored`.

    Args:
        epochs: theirs, for a time to target.
    """
    # Each context by itself: what a failure scores on one dataset is nothing of another's.
    parts = [_measured(claim, part, epochs) for _, part in each_context(trials, list(claim.across))]
    return pd.concat(parts).loc[trials.index] if parts else trials.assign(value=np.nan, censored=False)


def in_unit(claim: Claim, value):
    """A value, or several, in the unit of the claim's margin: of a ratio's logarithm the ratio."""
    return np.exp(value) if is_ratio(claim) else value


def is_ratio(claim: Claim) -> bool:
    """Whether the claim's values are logarithms of ratios."""
    return claim.estimand.endswith("ratio")


def _scale(claim: Claim, part: pd.DataFrame) -> float:
    values = part["value"].to_numpy(float)
    return 1.0 if is_ratio(claim) else float(np.abs(values[np.isfinite(values)]).max(initial=0))


def _ahead(claim: Claim, part: pd.DataFrame) -> np.ndarray:
    """By seed the mean of the claim's metric over the arms `of` less that over `against`, more being better."""
    if claim.guard is None:
        return np.empty(0)
    scores = scored(part, claim.metric) * measure(claim.metric).sign
    means = [
        scores[rows].groupby(part["seed"][rows]).mean()
        for rows in (matching(part, r) for r in (claim.of, claim.against))
    ]
    return (means[0] - means[1]).to_numpy(float)


def each_context(measured: pd.DataFrame, across: list[str]) -> Iterator[tuple[dict, pd.DataFrame]]:
    """Each combination of levels that there is, in order of appearance, and its rows."""
    keys = [tuple(as_level(level) for level in row) for row in measured[across].itertuples(index=False)]
    for key in dict.fromkeys(keys):
        yield dict(zip(across, key, strict=True)), measured[[other == key for other in keys]]


def _measured(claim: Claim, trials: pd.DataFrame, epochs: pd.DataFrame | None) -> pd.DataFrame:
    """Of one context."""
    frame, censored = trials.assign(censored=False), False
    if claim.measure in CLOCKS:
        parts = []
        for target, part in _by_target(claim, frame):
            assert target is not None  # noqa: S101
            mine = epochs[epochs["key"].isin(part["key"])] if epochs is not None else None
            found = time_to_target.times(part, mine, [], claim.metric, target, smooth=True)
            parts.append(
                part.assign(value=found[CLOCKS[claim.measure]].to_numpy(), censored=~found["reached"].to_numpy())
            )
        return pd.concat(parts).loc[frame.index]
    if claim.measure == "success":
        metric = None if claim.target is None else claim.metric
        parts = [success.succeeded(part, metric, target) for target, part in _by_target(claim, trials)]
        values = pd.concat(parts).loc[trials.index]
    elif claim.measure in GAPS:
        first, second = GAPS[claim.measure]
        values = trials[first].astype(float) - trials[second].astype(float)
    elif claim.measure in METRICS or (claim.measure in trials and measure(claim.measure).better):
        values = scored(trials, claim.measure)
    elif claim.measure in trials and pd.api.types.is_numeric_dtype(trials[claim.measure]):
        values = trials[claim.measure].astype(float)
    else:
        known = [name for name in trials if pd.api.types.is_numeric_dtype(trials[name])]
        raise StudyError(
            f"claim.hypothesis.measure={claim.measure}: expected one of {listed([*CLOCKS, *GAPS, 'success'])}, or a "
            f"column of the trials, {listed(known)}"
        )
    if claim.measure.startswith("update_ratio"):  # of a trial that diverged, its greatest steps are not in it
        censored = trials["status"] != "finished"
    return frame.assign(value=values, censored=censored)


def _by_target(claim: Claim, frame: pd.DataFrame) -> Iterator[tuple[float | None, pd.DataFrame]]:
    if not isinstance(claim.target, dict):
        yield claim.target, frame
        return
    for level, part in frame.groupby(claim.across[0], sort=False):
        if str(level) not in claim.target:
            raise StudyError(f"claim.hypothesis.target has {listed(claim.target)}, and no {claim.across[0]}={level}")
        yield claim.target[str(level)], part


class _Context:
    """The trials of one context, arm by arm.

    Args:
        part: with `value` and `censored`.
    """

    def __init__(self, claim: Claim, part: pd.DataFrame, by: list[str], tuned: pd.DataFrame | None):
        self.claim, self.part, self.by, self.tuned = claim, part, by, tuned

    def side(self, rule: dict) -> tuple[pd.Series, pd.Series]:
        """By seed the value and whether it is censored, of the arm that a rule means: the best tuned of several."""
        rows = self.part[matching(self.part, rule)]
        arms = list(dict.fromkeys(tuple(as_level(v) for v in row) for row in rows[self.by].itertuples(index=False)))
        if not arms:
            raise StudyError(f"claim.hypothesis: no arm matches {rule} in the store: run the study's trials first")
        if len(arms) > 1:
            if not self.claim.best:
                raise StudyError(
                    f"claim.hypothesis: {len(arms)} arms match {rule}: expected one in each context, best: true, or "
                    f"their other factors in claim.decision.across"
                )
            rows = rows[_is_arm(rows, self.by, max(arms, key=self._tuned_to))]
        rows = rows.set_index("seed")
        return rows["value"], rows["censored"]

    def _tuned_to(self, arm: tuple) -> float:
        if self.tuned is None:
            raise StudyError("claim.hypothesis.best: expected a study that tunes its arms, by study.nuisance")
        there = self.tuned[_is_arm(self.tuned, self.by, arm)]
        return float(there["value"].iloc[0])

    def levels(self) -> list:
        """Of the factor along which something is taken, rising."""
        return sorted(self.part[self.claim.along].unique().tolist())

    def points(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The values, a row a seed and a column a point; and the points, a column a factor that varies."""
        levels = self.part[[factor for factor in self.by if factor not in self.claim.across]].map(as_level)
        levels = levels[[factor for factor in levels if len(set(levels[factor])) > 1]]
        number = levels.groupby(list(levels), sort=False, dropna=False).ngroup()
        table = self.part.assign(point=number).pivot(index="seed", columns="point", values="value")
        return table, levels[~number.duplicated()].reset_index(drop=True)

    def at(self, level) -> "_Context":
        """The trials at one level of that factor."""
        return _Context(self.claim, self.part[self.part[self.claim.along] == level], self.by, self.tuned)


Numbers = tuple[np.ndarray, np.ndarray, np.ndarray]


def value(context: _Context) -> Numbers:
    """The measure itself."""
    rows = context.part.sort_values("seed")
    return rows["seed"].to_numpy(), rows["value"].to_numpy(float), np.where(rows["censored"], 1.0, 0.0)


def difference(context: _Context) -> Numbers:
    """The measure of one arm less that of the other, by seed."""
    return _set_against(context, lambda one, other: one - other)


def ratio(context: _Context) -> Numbers:
    """The logarithm of one arm's measure over the other's, by seed; nothing where one is not above zero."""
    return _set_against(context, _log_ratio)


def interaction_ratio(context: _Context) -> Numbers:
    """The logarithm of the ratio of one arm to the other here over the same ratio where it is set beside, by seed."""
    reference = matching(context.part, context.claim.beside)
    parts = (_Context(context.claim, context.part[rows], context.by, context.tuned) for rows in (~reference, reference))
    one, other = (pd.DataFrame(dict(zip(("seed", "value", "bound"), ratio(part), strict=True))) for part in parts)
    both = one.merge(other, on="seed")
    above, below = both["bound_x"].to_numpy(), -both["bound_y"].to_numpy()
    opposed = above * below == -1  # one is more, the other takes away more
    return (
        both["seed"].to_numpy(),
        (both["value_x"] - both["value_y"]).to_numpy(),
        np.where(opposed, np.nan, np.sign(above + below)),
    )


def slope(context: _Context) -> Numbers:
    """The slope of the difference along a factor, by seed, least squares over log2 of its levels."""
    levels = context.levels()
    columns = [_frame(*difference(context.at(level)))["value"] for level in levels]
    table = pd.concat(columns, axis=1)
    x = np.log2(levels) - np.mean(np.log2(levels))
    return _known(table.to_numpy(float) @ (x / (x @ x)), table.index)


def spread_ratio(context: _Context) -> Numbers:
    """The logarithm of the ratio of standard deviations along a factor, by seed: how much less one side depends on it.

    Each side's measure must vary at all.
    """
    sides = []
    for rule in (context.claim.of, context.claim.against):
        table = pd.concat([context.at(level).side(rule)[0] for level in context.levels()], axis=1)
        sides.append(table.std(axis=1, ddof=1, skipna=False))
    with np.errstate(divide="ignore", invalid="ignore"):
        return _known(np.log(sides[0] / sides[1]), sides[0].index)


def stable_ratio(context: _Context) -> Numbers:
    """The logarithm of the ratio of the largest levels along a factor, such as a rate, up to which all succeed.

    By seed: the largest level at which the seed's trial succeeds, and those at all smaller levels. At the largest level
    of all it is at least that; where none succeeds it is at most the smallest level.
    """
    sides = []
    for rule in (context.claim.of, context.claim.against):
        levels = context.levels()
        table = pd.concat([context.at(level).side(rule)[0] for level in levels], axis=1).astype(float)
        good = np.cumprod(table.to_numpy() >= 0.5, axis=1).sum(axis=1)
        logs = np.log(np.array([levels[0], *levels], float))
        sides.append((table.index, logs[good], good == len(levels), good == 0))
    (index, one, top, none), (_, other, other_top, other_none) = sides
    up, down = top | other_none, other_top | none
    bounds = np.where(up & down, np.nan, np.where(up, 1.0, np.where(down, -1.0, 0.0)))
    return index.to_numpy(), one - other, bounds


def ends_ratio(context: _Context) -> Numbers:
    """The logarithm of the measure a decade from a factor's best level, at the better side, over that at the best.

    By seed: the best level is that of the lowest median over the other seeds, and the sides are the levels nearest to a
    tenth and ten times it; nothing is known where the levels end before half of that.
    """
    levels = context.levels()
    sides = [context.at(level).side({}) for level in levels]
    times = pd.concat([side[0] for side in sides], axis=1).to_numpy(float)
    cut = pd.concat([side[1] for side in sides], axis=1).to_numpy(bool)
    logs, bounds = np.full(len(times), np.nan), np.full(len(times), np.nan)
    reached, place = np.where(cut, np.inf, times), np.log(np.array(levels, float))
    for seed in range(len(times)):
        best = int(np.argmin(np.median(np.delete(reached, seed, axis=0), axis=0))) if len(times) > 1 else 0
        away = [int(np.argmin(np.abs(place - place[best] - sign * np.log(DECADE)))) for sign in (-1, 1)]
        far = all(abs(place[side] - place[best]) >= np.log(DECADE / 2) for side in away)
        if far and not cut[seed, best] and times[seed, best] > 0:
            logs[seed] = np.log(times[seed, away]).min() - np.log(times[seed, best])
            # A side that was reached was so before the budget, at which the other was cut off: it is the better one.
            bounds[seed] = 1.0 if cut[seed, away].all() else 0.0
    return sides[0][0].index.to_numpy(), logs, bounds


def dominance(context: _Context) -> Numbers:
    """Cliff's delta of one arm's measure over the other's, over all their seeds; times that were cut off are alike."""
    one, other = (context.side(rule)[0].astype(float) for rule in (context.claim.of, context.claim.against))
    seeds = sorted(set(one.index) & set(other.index))
    values = [side[seeds].to_numpy() for side in (one, other)]
    delta = paired.cliffs_delta(*(np.where(np.isfinite(some), some, np.nan) for some in values))
    return _known([delta], pd.Index([len(seeds)]))


def importance_lead(context: _Context) -> Numbers:
    """The importance of a factor for the measure less that of the most important other, see `importance`."""
    table, points = context.points()
    where, which = importance.places(points), list(points).index(context.claim.along)
    leads = [
        importance.lead(importance.importances(where, scores), which) if np.isfinite(scores).all() else np.nan
        for scores in table.to_numpy(float)
    ]
    return _known(leads, table.index)


def _importance(context: _Context, refits: int) -> tuple[np.ndarray, dict[str, float]]:
    """Of the mean over the seeds the leads in refits, and the importance of each factor."""
    if context.claim.estimand != "importance_lead":
        return np.empty(0), {}
    table, points = context.points()
    where, scores = importance.places(points), table.mean(axis=0, skipna=False).to_numpy(float)
    if not np.isfinite(scores).all():
        return np.empty(0), {}
    found = dict(zip(points, importance.importances(where, scores).tolist(), strict=True))
    return importance.refits(where, scores, list(points).index(context.claim.along), refits), found


ESTIMANDS: dict[str, Callable[[_Context], Numbers]] = {
    "value": value,
    "mean": value,
    "difference": difference,
    "ratio": ratio,
    "interaction_ratio": interaction_ratio,
    "slope": slope,
    "spread_ratio": spread_ratio,
    "stable_ratio": stable_ratio,
    "ends_ratio": ends_ratio,
    "importance_lead": importance_lead,
}


def _set_against(context: _Context, change: Callable) -> Numbers:
    (one, cut), (other, other_cut) = context.side(context.claim.of), context.side(context.claim.against)
    seeds = sorted(set(one.index) & set(other.index))
    values = change(one[seeds].to_numpy(float), other[seeds].to_numpy(float))
    cut, other_cut = cut[seeds].to_numpy(bool), other_cut[seeds].to_numpy(bool)
    bounds = np.where(cut & other_cut, np.nan, cut.astype(float) - other_cut)
    none = np.isneginf(values)  # of a ratio whose first is zero or below, such as a gap: below whatever there is
    return np.array(seeds), values, np.where(none, -1.0, np.where(np.isfinite(values), bounds, np.nan))


def _log_ratio(one, other):
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(np.maximum(one, 0)) - np.log(np.where(other > 0, other, np.nan))


def _frame(seeds, values, _) -> pd.DataFrame:
    return pd.DataFrame({"value": values}, index=seeds)


def _known(values, index) -> Numbers:
    values = np.asarray(values, float)
    return index.to_numpy(), values, np.where(np.isfinite(values), 0.0, np.nan)


def matching(frame: pd.DataFrame, rule: dict) -> np.ndarray:
    """Whether each row is of an arm that a rule means, factor -> levels."""
    found = np.full(len(frame), True)
    for factor, levels in rule.items():
        wanted = [as_level(level) for level in levels]
        found &= np.array([as_level(level) in wanted for level in frame[factor].tolist()], bool)
    return found


def _is_arm(frame: pd.DataFrame, by: list[str], arm: tuple) -> np.ndarray:
    return matching(frame, {factor: [level] for factor, level in zip(by, arm, strict=True)})
