"""Intervals and tests for means over seeds."""

from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr, betaincinv, expit, logit, stdtr, stdtrit

from analysis.estimate.measure import measure

LEVEL = 0.95
LEAST_PAIRS = 3
"""Of seeds that a difference is tested by."""

RESOLUTION = 2 * float(np.finfo(np.float32).eps)
"""Of stored metrics, relative to the greatest of them: they were float32, each off by up to a quarter of this. What
differs by less does so by rounding alone: an image of 50,000, averaged over 20 contexts, is four times as much."""


@dataclass(frozen=True)
class Estimate:
    """A quantity and its interval.

    Attributes:
        value: NaN where there is nothing to estimate it from.
        low, high: the ends of the interval, both NaN where there is none.
        n: the pairs, or trials, that it is by.
        note: what to know before reading it, such as why there is no interval; else empty.
    """

    value: float
    low: float
    high: float
    n: int
    note: str = ""


@dataclass(frozen=True)
class Tested:
    """What a test found.

    Attributes:
        p: NaN where none should be read: there are too few pairs for one below 1 - `LEVEL`, or no spread to test by.
        n: the pairs that it is by.
        least: the smallest p that this many pairs can give.
        note: why p is NaN, or cannot be small; else empty.
    """

    p: float
    n: int
    least: float
    note: str = ""


def reaches(values: np.ndarray, target: float, metric: str) -> np.ndarray:
    """Whether values of a metric, of any shape, are at a target or better, but for rounding; missing ones are not.

    Stored values were float32, where an accuracy of .95 is less than .95.
    """
    values, slack = np.asarray(values, float), RESOLUTION * abs(target)
    return values >= target - slack if measure(metric).better > 0 else values <= target + slack


def t_interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Student's t interval for a mean of independent values `(n,)`; NaN for fewer than two.

    It is valid for values near to normal, such as paired differences. One of 95 % covers the mean of lognormal values
    with a skewness of 1.75 in 91 to 93 % of samples at 5 to 20 seeds (`make validate`): of times and losses take that
    of logarithms, `ratios.log_ratio`; of accuracies near one `mean_interval`, which covers in 95 % where this does in
    92 % at 5. Values that are all alike have an interval of no width, which says nothing of other seeds.
    """
    n = len(values)
    if n < 2:
        return np.nan, np.nan
    centre, half = np.mean(values), stdtrit(n - 1, (1 + level) / 2) * np.std(values, ddof=1) / np.sqrt(n)
    return centre - half, centre + half


def mean_interval(values: np.ndarray, metric: str) -> tuple[float, float]:
    """The interval for the mean of a metric's values `(n,)`, which knows its bounds, see `bounded`."""
    low, high = t_interval(values)
    mean = np.mean(values) if len(values) else np.nan
    ends = bounded(mean, (high - low) / 2, metric)
    return float(ends[0]), float(ends[1])


def bounded(mean, half, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """The ends of t intervals, mean ± half, of any shape, that a metric's bounds are respected by.

    An accuracy's is made on the logit scale by the delta method, half / (mean (1 - mean)) on either side of
    logit(mean), and taken back: it lies within 0 and 1. At five seeds it covers the mean of beta-distributed accuracies
    (mean ± sd) of .97 ± .02 in 94.5 % and of .9 ± .1 in 93 % of samples, where mean ± half covers it in 92 % and 88 %
    (simulated, as a test does). None is right for an arm that fails at one seed in five: 67 %, whichever is taken.
    A loss's, and that of what else is never below zero, is cut at zero, which loses no coverage. What `measure` knows
    no bounds of is mean ± half.
    """
    mean, half, known = np.asarray(mean, float), np.asarray(half, float), measure(metric)
    if not known.share:
        return np.maximum(mean - half, np.minimum(mean, known.low)), mean + half
    inside = (mean > 0) & (mean < 1) & (half > 0)
    safe = np.where(inside, mean, 0.5)
    wide = half / (safe * (1 - safe))
    ends = (np.where(inside, expit(logit(safe) + sign * wide), mean + sign * half) for sign in (-1, 1))
    return tuple(ends)


def difference_interval(differences: np.ndarray, metric: str) -> tuple[float, float]:
    """The t interval for the mean of paired differences `(n,)`; those of shares are cut at -1 and 1."""
    low, high = t_interval(differences)
    return (max(low, -1.0), min(high, 1.0)) if measure(metric).share and low == low else (low, high)


def settled(differences: np.ndarray, scale=1.0) -> np.ndarray:
    """Differences `(n, ...)` made alike along the first axis where they differ by rounding, and zero if they are so.

    Args:
        scale: the greatest of the values that they are differences of, which rounding is relative to; one, or
            `(...)`; 0 for what is settled already.
    """
    differences = np.asarray(differences, float)
    if not len(differences):
        return differences
    mean = differences.mean(axis=0)
    alike = np.ptp(differences, axis=0) <= RESOLUTION * scale
    return np.where(alike, np.where(np.abs(mean) <= RESOLUTION * scale, 0.0, mean), differences)


def paired(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The settled differences of what is paired by place, of those pairs `(n,)` where both are there."""
    there = ~np.isnan(values) & ~np.isnan(others)
    values, others = values[there], others[there]
    scale = max(np.abs(values).max(), np.abs(others).max()) if len(values) else 1.0
    return settled(values - others, scale)


def paired_p(differences: np.ndarray, scale=1.0):
    """The two-sided p of Student's t test that paired differences `(n, ...)` have a mean of zero; NaN for n < 3.

    Differences that are all alike, but for rounding, have no spread to test by: p is 1 if they are zero, else NaN.
    Accuracies are counted in images, so that two seeds often differ by the same number of them by chance: too often to
    test two.

    Args:
        scale: as in `settled`.
    """
    differences = settled(differences, scale)
    n = len(differences)
    if n < LEAST_PAIRS:
        return np.full(differences.shape[1:], np.nan)[()]
    mean, error = differences.mean(axis=0), differences.std(axis=0, ddof=1) / np.sqrt(n)
    spread = np.ptp(differences, axis=0) > 0
    t = np.divide(mean, error, out=np.full(mean.shape, np.nan), where=spread & (error > 0))
    return np.where(spread | (mean != 0), 2 * stdtr(n - 1, -np.abs(t)), 1.0)[()]


def share_interval(count: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """The exact interval for a share of which `count` of `n` independent trials were seen (Clopper and Pearson 1934).

    It covers at least as often as it says, at any n. NaN for n = 0; of none it begins at 0, and of all it ends at 1.
    """
    if not n:
        return np.nan, np.nan
    tail = (1 - level) / 2
    low = betaincinv(count, n - count + 1, tail) if count else 0.0
    return float(low), float(betaincinv(count + 1, n - count, 1 - tail)) if count < n else 1.0


def sign_p(count: int, n: int) -> float:
    """The one-sided p of the exact sign test: P(X >= count) of n fair coins; 1 for none."""
    return float(bdtr(n - count, n, 0.5)) if count else 1.0


def mcnemar_p(first: np.ndarray, second: np.ndarray):
    """The exact two-sided p that two arms succeed as often, paired by seed (McNemar 1947, by the sign test).

    Only seeds count at which one of them succeeds and the other does not. Where there is none p is 1; for n = 5 it
    cannot go below .0625.

    Args:
        first, second: `(n, ...)`, 1 where a seed succeeded and 0 where it did not; a pair with a missing one is left
            out.

    Returns:
        `(...)`; NaN where no pair is complete.
    """
    there = ~np.isnan(first) & ~np.isnan(second)
    more, less = ((there & (first > second)).sum(axis=0), (there & (first < second)).sum(axis=0))
    p = np.minimum(2 * bdtr(np.minimum(more, less), more + less, 0.5), 1.0)
    return np.where(there.any(axis=0), p, np.nan)[()]


def holm(p: np.ndarray) -> np.ndarray:
    """One family's p-values `(m,)` adjusted for their number (Holm 1979); missing ones stay so and do not count.

    statsmodels has the same, and collects garbage at each call: 25 ms, where a study has a family for each panel.
    """
    p = np.asarray(p, float)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]
    steps = np.arange(len(order), 0, -1) * p[order]
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.maximum.accumulate(steps).clip(max=1)
    return adjusted


def pairs_with(values: np.ndarray, one: int, finished: np.ndarray, erratic: np.ndarray) -> np.ndarray:
    """The p of one arm's differences to each of all arms, Holm-adjusted over all pairs of the arms.

    It is of the paired t test, and of `mcnemar_p` for a pair of which one fails at some seeds.

    All pairs are the family where the one was picked as the best: of eight equal arms another is then found to be worse
    in 2-4 % of studies, with the k - 1 pairs of the best alone in 8-12 % (simulated, as a test does).

    Args:
        values, finished: `(seeds, arms)`, none missing; finished is 1 where no trial failed, else 0.
        erratic: whether an arm fails at some seeds, `(arms,)`.

    Returns:
        `(arms,)`; NaN where there is no test, as of the one with itself.
    """
    arms, scale = values.shape[1], np.abs(values).max(axis=0)
    p = [paired_p(values[:, n + 1 :] - values[:, [n]], np.maximum(scale[n + 1 :], scale[n])) for n in range(arms - 1)]
    first, second = np.triu_indices(arms, 1)
    unsteady = erratic[first] | erratic[second]
    rates = mcnemar_p(finished[:, first[unsteady]], finished[:, second[unsteady]])
    every = np.concatenate([np.empty(0), *p])
    every[unsteady] = rates
    adjusted = holm(every)
    found = np.full(arms, np.nan)
    for those, others in ((first, second), (second, first)):
        found[others[those == one]] = adjusted[those == one]
    return found
