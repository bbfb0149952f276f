"""What a set of problems, draws or rates says of each arm: profiles, the best of n draws, rank correlation, the width
of the range of good rates.
"""

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy.special import bdtr

from analysis.estimate.arms import arms_of, as_level, grouped, levels_of
from analysis.estimate.comparison import by_seed, lost, scored
from analysis.estimate.intervals import LEVEL, RESOLUTION
from analysis.estimate.measure import Measure, measure
from studies.record import StudyError

RESAMPLES = 2000
ORDERS = 9999
"""Of a bootstrap, and of a permutation test: it is exact where there are no more orders than these, up to n = 7."""


def performance_profile(
    trials: pd.DataFrame, by: list[str], problems: list[str], metric: str, taus: Iterable[float] | None = None
) -> pd.DataFrame:
    """The share of problems that each arm solves within tau times the best arm's cost (Dolan and Moré 2002).

    It describes the problems at hand and has no interval: resample problems for one. Ranks may change when an arm is
    left out, since the best does (Gould and Scott 2016).

    Args:
        problems: the factors whose combinations are the problems, such as data, or data and seed; several trials of an
            arm at one are averaged.
        metric: a cost, such as a loss or seconds; of a share of which more is better its complement is, the error.
        taus: ratios, 1 or more; by default all at which a share changes.

    Returns:
        the columns `by`, tau, share, problems: how many there are. A trial that diverged or timed out solves its
        problem at no tau. A problem counts if every arm has trials of it, none of which crashed; with none the frame is
        empty. Arms that are equal solve all within 1, and where the best cost is 0 only those that have it too do.

    Raises:
        StudyError: the metric is no cost, or is below 0 somewhere.
    """
    known = measure(metric)
    if not known.better or (known.better > 0 and not known.share):
        raise StudyError(f"metric={metric}: expected a cost, such as a loss or seconds, or an accuracy")
    cost = 1 - scored(trials, metric) if known.share else scored(trials, metric)
    if (cost < 0).any():
        raise StudyError(f"metric={metric}: expected costs of 0 or more, received {cost.min():g}")
    cost = cost.where(~lost(trials, metric), np.inf)
    number, arms = arms_of(trials, by)
    place, found = arms_of(trials, problems)
    costs = np.full((len(arms), len(found)), np.nan)
    for at, part in cost.groupby([number, place]):
        costs[at] = part.mean(skipna=False)
    costs = costs[:, ~np.isnan(costs).any(axis=0)]
    best = costs.min(axis=0, initial=np.inf)
    equal = np.where(np.isfinite(costs) & (costs <= best * (1 + RESOLUTION)), 1.0, np.inf)
    ratios = np.divide(costs, best, out=equal, where=np.isfinite(costs) & (best > 0) & ~np.isfinite(equal))
    at = sorted({1.0, *ratios[np.isfinite(ratios)].tolist()} if taus is None else taus)
    rows = [
        (*arm, tau, np.mean(ratios[n] <= tau * (1 + RESOLUTION)), costs.shape[1])
        for n, arm in enumerate(arms)
        for tau in at
        if costs.shape[1]
    ]
    frame = pd.DataFrame(rows, columns=[*by, "tau", "share", "problems"])
    return frame.assign(**levels_of([row[: len(by)] for row in rows], by))


def best_of_draws(
    trials: pd.DataFrame,
    by: list[str],
    metric: str,
    rng: np.random.Generator,
    draws: Iterable[int] | None = None,
    level: float = LEVEL,
) -> pd.DataFrame:
    """The best that n draws of hyperparameters come to: tuning curves, whose ranks may cross with the budget.

    Expected: sum v(i) [(i/N)^n - ((i-1)/N)^n] of the N values in order (Dodge et al. 2019), with a percentile
    bootstrap. It is too low by up to .15 sd at n = N/2, and its interval covers a normal's in 91-95 % of studies at
    n = 1, 85-93 % at 2, and 61 % at n = 10 of N = 20 (simulated): beyond N / 20 take the median's. Median: the quantile
    .5^(1/n), whose interval by order statistics holds for any distribution and n; an end beyond the values seen is the
    metric's bound.

    Args:
        trials: each is one draw, independent of the others; failures count as `comparison.scored` has it.
        draws: numbers of draws, n; by default 1 to N, and none beyond the N of an arm.

    Returns:
        the columns `by`, draws, trials: N; expected, low, high: NaN ends for N = 1; median, median_low, median_high.
        Expected and median are the one number there is where all values are alike; an arm without a value has no row.

    Raises:
        StudyError: more and less of the metric are alike, or a number of draws is below 1.
    """
    known = measure(metric)
    if not known.better:
        raise StudyError(f"metric={metric}: expected one of which more or less is better")
    asked = None if draws is None else list(draws)
    if asked is not None and min(asked, default=1) < 1:
        raise StudyError(f"draws={min(asked)}: expected 1 or more")
    rows = []
    for arm, part in grouped(trials.assign(value=scored(trials, metric)), by):
        values = np.sort(known.better * part["value"].dropna().to_numpy(float))
        count = len(values)
        some = [n for n in (range(1, count + 1) if asked is None else asked) if n <= count]
        if not some:
            continue
        weights = draw_weights(count, np.array(some))
        again = np.sort(values[rng.integers(0, count, (RESAMPLES, count))], axis=1) @ weights
        ends = np.quantile(again, [(1 - level) / 2, (1 + level) / 2], axis=0) if count > 1 else np.full((2, 1), np.nan)
        for n, expected, (low, high) in zip(some, values @ weights, ends.T, strict=True):
            found = [known.better * each for each in (expected, low, high)]
            found[1:] = found[1:][:: known.better]
            rows.append((*arm, n, count, *found, *_median(values, n, level, known)))
    names = ["draws", "trials", "expected", "low", "high", "median", "median_low", "median_high"]
    frame = pd.DataFrame(rows, columns=[*by, *names])
    return frame.assign(**levels_of([row[: len(by)] for row in rows], by))


def draw_weights(count: int, draws: np.ndarray) -> np.ndarray:
    """How much each value in order counts for the best of so many draws, `(values, draws)`."""
    places = np.arange(count + 1)[:, None] / max(count, 1)
    return np.diff(places**draws, axis=0)


def _median(values: np.ndarray, draws: int, level: float, known: Measure) -> tuple[float, float, float]:
    """The median best of so many draws and its interval; of ordered values, the greatest best."""
    count, at, tail = len(values), 0.5 ** (1 / draws), (1 - level) / 2
    below = bdtr(np.arange(count + 1), count, at)  # of the values, at most so many are below the quantile
    first = int(np.count_nonzero(below[:count] <= tail))
    last = int(np.argmax(below >= 1 - tail))
    worst, most = (known.low, known.high) if known.better > 0 else (-known.high, -known.low)
    low = values[first - 1] if first else worst
    high = values[last] if last < count else most
    median = values[min(math.ceil(at * count - 1e-9), count) - 1]
    ends = sorted((known.better * float(low), known.better * float(high)))
    return known.better * float(median), ends[0], ends[1]


def rank_correlation(x: Iterable[float], y: Iterable[float], rng: np.random.Generator) -> dict:
    """Spearman's correlation of pairs and its two-sided permutation p: exact up to 7 pairs, else of random orders.

    It is valid for any monotone relation of independent pairs; pairs of one seed are not.

    Args:
        x, y: `(n,)`; a pair with a missing one is left out.

    Returns:
        rho; p; pairs; least_p: what p cannot go below with so many. For fewer than 2 pairs, or where one of the two is
        alike throughout, rho is NaN and p is 1: nothing can be seen.
    """
    pairs = np.column_stack([np.asarray(list(x), float), np.asarray(list(y), float)])
    pairs = pairs[~np.isnan(pairs).any(axis=1)]
    count = len(pairs)
    orders = math.factorial(min(count, 20))
    least = min(2 / orders, 1.0) if orders <= ORDERS else 1 / (ORDERS + 1)
    if count < 2 or (np.ptp(pairs, axis=0) == 0).any():
        return {"rho": np.nan, "p": 1.0, "pairs": count, "least_p": least}
    from scipy import stats  # which takes half a second

    first, second = (ranks - ranks.mean() for ranks in map(stats.rankdata, pairs.T))
    norm = np.sqrt((first**2).sum() * (second**2).sum())
    found = stats.permutation_test(
        (first,),
        lambda each, axis: (each * second).sum(axis=axis) / norm,
        permutation_type="pairings",
        vectorized=True,
        n_resamples=ORDERS,
        rng=rng,
    )
    return {"rho": float(found.statistic), "p": float(found.pvalue), "pairs": count, "least_p": least}


def rate_sensitivity(
    trials: pd.DataFrame, factor: str, by: list[str], metric: str, margin: float, over: Iterable[str] = ()
) -> pd.DataFrame:
    """How wide the range of a numeric factor is in which an arm is within a margin of its best level.

    Means of levels are compared as they are, so that luck counts: with few seeds take a margin above their t intervals.
    A width is that between levels that were tried; the range may go on up to the next one.

    Args:
        factor: of numbers above 0, such as `optimizer.learning_rate`.
        margin: in the metric's unit.

    Returns:
        one row an arm: the columns `by`; levels: with a value; seeds: those that all of them have, which the means are
        of, or, with none, each level's own; best: the level with the best mean, of equals the least; value: that mean;
        lowest, highest: the ends of the unbroken run of levels about it within the margin; decades: the logarithm of
        their ratio to base 10, 0 for one level; edge: whether an end is the least or the greatest level tried, beyond
        which it may go on. An arm without a value has 0 levels and NaN.

    Raises:
        StudyError: a level is not a number above 0, the margin is below 0, or more and less of the metric are alike.
    """
    better = measure(metric).better
    tried = [as_level(level) for level in trials[factor]]
    if bad := [each for each in tried if isinstance(each, bool) or not isinstance(each, int | float) or each <= 0]:
        raise StudyError(f"{factor}={bad[0]}: expected numbers above 0, of which a range has a width in decades")
    if not better or margin < 0:
        raise StudyError(f"metric={metric}, margin={margin:g}: expected a margin of 0 or more of what has a better")
    rows = []
    for arm, part in grouped(by_seed(trials, [*by, factor], metric, over), by):
        table = part.pivot(index="seed", columns=factor, values="value").astype(float)
        table = table.dropna(axis=1, how="all").sort_index(axis=1)
        whole = table.dropna()
        means = (whole if len(whole) else table).mean() * better
        if means.empty:
            rows.append((*arm, 0, 0, *[np.nan] * 5, False))
            continue
        rates, best = means.index.to_numpy(float), int(means.to_numpy().argmax())
        near = means.to_numpy() >= means.iloc[best] - margin - RESOLUTION * np.abs(means).max()
        outside = np.flatnonzero(~near)
        low = max(outside[outside < best], default=-1) + 1
        high = min(outside[outside > best], default=len(near)) - 1
        ends = rates[low], rates[high], np.log10(rates[high] / rates[low])
        edge = bool(low == 0 or high == len(near) - 1)
        rows.append((*arm, len(means), len(whole), rates[best], better * means.iloc[best], *ends, edge))
    names = ["levels", "seeds", "best", "value", "lowest", "highest", "decades", "edge"]
    frame = pd.DataFrame(rows, columns=[*by, *names])
    return frame.assign(**levels_of([row[: len(by)] for row in rows], by))
