"""What seeds can show: the least difference that is detected, and the seeds that a margin needs."""

import functools
import itertools
import math
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import betaincinv, gammaincinv, ndtr, stdtrit

from analysis.estimate.arms import arms_of, as_level
from analysis.estimate.comparison import blocks, by_seed, varies
from analysis.estimate.intervals import LEAST_PAIRS, LEVEL, paired
from studies.record import StudyError, arm_label

POWER = 0.8
MOST_SEEDS = 10**6
"""More are given as infinitely many."""

PLAN = ("arm", "other", "pairs", "test", "sd", "alpha", "detectable", "seeds", "seeds_low", "seeds_high", "note")


def plan(
    trials: pd.DataFrame,
    by: list[str],
    metric: str,
    baseline: dict,
    margin: float | None = None,
    power: float = POWER,
    over: Iterable[str] = (),
) -> pd.DataFrame:
    """What the seeds there are can show of each comparison, and how many would show a margin.

    The test is the product's: two-sided at 5 %, paired by seed, Holm-adjusted over all comparisons. Of these Holm asks
    5 % / m of the first, the worst case, which all are planned for. It is valid for differences that are roughly
    normal. Their sd is itself known from few pairs (of five, within .6 and 2.9 times), and so are the seeds: within
    seeds_low and seeds_high, by the chi-squared interval of the sd at 95 %.

    Args:
        baseline: with a level of one of `by` each arm is compared with its baseline, see `comparison.comparison`;
            without, all arms with each other.
        margin: the least difference that matters, above 0, in the metric's unit; None for none.
        over: factors that are averaged over, see `comparison.by_seed`.

    Returns:
        one row a comparison, `PLAN`: arm, other: their labels; pairs: seeds that both have; test: `t` or, where one of
        them fails at some seeds, `success`, McNemar's; sd: of the paired differences; alpha: of the worst case;
        detectable: the difference that is found with this power, of `success` the failure rate that is told from none;
        seeds: for the margin, of `success` for the difference of rates that is seen, infinite where none is;
        seeds_low, seeds_high, missing of `success`; note: why a number is missing, NaN: too few pairs, or no spread, as
        where all is alike or all failed.

    Raises:
        StudyError: there are no two arms to compare, or the margin is not above 0.
    """
    if margin is not None and not (margin > 0 and math.isfinite(margin)):
        raise StudyError(f"margin={margin:g}: expected a difference above 0, such as 0.01")
    arms = arms_of(trials, by)[1]
    values, gone, *_ = blocks(by_seed(trials, by, metric, over), by, {arm: n for n, arm in enumerate(arms)})
    erratic, pairs = varies(gone), _pairs(arms, by, baseline)
    if not pairs:
        raise StudyError(
            f"expected two arms to compare by {', '.join(by) or 'no factor'}; there is one, or no baseline"
        )
    alpha, rows = (1 - LEVEL) / len(pairs), []
    for one, other in pairs:
        names = [arm_label(dict(zip(by, arms[n], strict=True))) for n in (one, other)]
        if erratic[one] or erratic[other]:
            finished = np.where(np.isnan(gone), np.nan, gone == 0)[:, [one, other]]
            found = _by_success(finished[~np.isnan(finished).any(axis=1)], alpha, power)
        else:
            found = _by_t(paired(values[:, one], values[:, other]), margin, alpha, power)
        rows.append((*names, *found[:3], alpha, *found[3:]))
    return pd.DataFrame(rows, columns=PLAN)


def _pairs(arms, by, baseline) -> list[tuple[int, int]]:
    """The places of the arms that are compared, each with its baseline if there is one."""
    anchors = {factor: as_level(level) for factor, level in baseline.items() if factor in by}
    if not anchors:
        return [(b, a) for a, b in itertools.combinations(range(len(arms)), 2)]
    place = {arm: n for n, arm in enumerate(arms)}
    others = [place.get(tuple(anchors.get(f, level) for f, level in zip(by, arm, strict=True))) for arm in arms]
    return [(n, other) for n, other in enumerate(others) if other is not None and other != n]


def _by_t(differences, margin, alpha, power) -> tuple:
    count = len(differences)
    if count < 2:
        return count, "t", np.nan, np.nan, np.nan, np.nan, np.nan, "needs two seeds that both have"
    sd = float(np.std(differences, ddof=1))
    if not sd:
        return count, "t", 0.0, np.nan, np.nan, np.nan, np.nan, "alike at every seed"
    least = sd * detectable(count, alpha, power) if count >= LEAST_PAIRS else np.nan
    note = "" if count >= LEAST_PAIRS else f"not tested with fewer than {LEAST_PAIRS} seeds"
    if margin is None:
        return count, "t", sd, least, np.nan, np.nan, np.nan, note
    tail = (1 - LEVEL) / 2
    ends = (sd * math.sqrt((count - 1) / stats.chi2.ppf(share, count - 1)) for share in (1 - tail, tail))
    return count, "t", sd, least, *(seeds_needed(margin / each, alpha, power) for each in (sd, *ends)), note


def _by_success(finished, alpha, power) -> tuple:
    """As `_by_t`, of whether each of two arms finished, `(seeds, 2)`."""
    count = len(finished)
    if not count:
        return 0, "success", np.nan, np.nan, np.nan, np.nan, np.nan, "needs seeds that both have"
    few = math.ceil(math.log2(2 / alpha) - 1e-9)  # seeds at which one arm alone fails, for p = 2 / 2^n <= alpha
    least = float(betaincinv(few, count - few + 1, power)) if count >= few else np.nan
    only = (finished[:, 0] < finished[:, 1]).mean(), (finished[:, 0] > finished[:, 1]).mean()
    seeds = fewest(lambda n: mcnemar_power(n, *only, alpha), power, few) if only[0] != only[1] else math.inf
    note = "" if count >= few else f"{count} seeds show no difference of success, {few} the greatest"
    return count, "success", np.nan, least, seeds, np.nan, np.nan, note


def seeds_needed(effect: float, alpha: float, power: float = POWER, alternative: str = "two-sided") -> float:
    """The fewest seeds, three or more, at which a paired t test finds an effect with a power; infinite above a million.

    Args:
        effect: the difference in standard deviations of the differences (Cohen's d), not 0.
        alternative: `two-sided`, or `larger` for a one-sided test.

    >>> [seeds_needed(d, 0.05, 0.8, "larger") for d in (0.5, 1, 1.5, 2)]
    [27, 8, 5, 4]
    """
    return fewest(lambda n: t_power(abs(effect), n, alpha, alternative), power, LEAST_PAIRS)


def detectable(seeds: int, alpha: float, power: float = POWER, alternative: str = "two-sided") -> float:
    """The effect, in standard deviations of the differences, that a paired t test of two seeds or more finds."""
    low, high = 0.0, 1.0
    while t_power(high, seeds, alpha, alternative) < power:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if t_power(middle, seeds, alpha, alternative) >= power else (middle, high)
    return high


def t_power(effect: float, seeds: int, alpha: float, alternative: str = "two-sided") -> float:
    """How often Student's paired t test finds an effect, in standard deviations of the differences.

    The mean of the normal's power over what the sd comes out as. statsmodels's `TTestPower` gives the same, but NaN for
    many of the great effects that few seeds find, as the noncentral t of SciPy 1.17 does.
    """
    sd, shift = _spreads(seeds - 1), effect * math.sqrt(seeds)
    critical = stdtrit(seeds - 1, 1 - alpha / (1 + (alternative == "two-sided")))
    missed = ndtr(critical * sd - shift)
    return float(1 - np.mean(missed - ndtr(-critical * sd - shift) if alternative == "two-sided" else missed))


@functools.lru_cache
def _spreads(freedom: int) -> np.ndarray:
    """What an sd of 1 comes out as, at 4,000 evenly likely places."""
    return np.sqrt(2 * gammaincinv(freedom / 2, (np.arange(4000) + 0.5) / 4000) / freedom)


def mcnemar_power(seeds: int, first: float, second: float, alpha: float) -> float:
    """How often the exact McNemar test finds a difference of success, summed over all outcomes.

    Args:
        first, second: the probability that a seed fails for the first arm alone, and for the second alone.
    """
    either = first + second
    if not either:
        return 0.0
    apart = np.arange(seeds + 1)
    few = np.maximum(stats.binom.ppf(alpha / 2, np.maximum(apart, 1), 0.5), 0)
    few = np.where(2 * stats.binom.cdf(few, apart, 0.5) <= alpha, few, few - 1)  # so many, and p is alpha or less
    found = stats.binom.cdf(few, apart, first / either) + stats.binom.sf(apart - few - 1, apart, first / either)
    return float(stats.binom.pmf(apart, seeds, either) @ np.where(few < 0, 0.0, found))


def fewest(reached: Callable[[int], float], power: float, least: int) -> float:
    """The fewest seeds, `least` or more, at which a power is reached that rises with them; infinite above a million."""
    low, high = least - 1, least
    while reached(high) < power:
        low, high = high, 2 * high
        if high > MOST_SEEDS:
            return math.inf
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) >= power else (middle, high)
    return high


def seconds_a_seed(trials: pd.DataFrame) -> float:
    """What a seed costs one worker: the seconds of all its trials, a mean over the seeds; NaN if none was measured."""
    seconds = trials["seconds_total"].astype(float)
    arms = trials.groupby("seed").size()
    known = seconds.notna().sum()
    return float(seconds.sum() / known * arms.max()) if known else np.nan
