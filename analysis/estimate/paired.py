"""What pairs by seed say of two arms, without a normal distribution: exact tests, effect sizes, equivalence.

Values and others are `(n,)`, paired by place; a pair of which one is missing (NaN) is left out. Stored metrics were
float32: differences go through `intervals.settled`, and what differs by rounding alone is a tie.
"""

import functools

import numpy as np

from analysis.estimate.intervals import LEAST_PAIRS, LEVEL, RESOLUTION, Tested, settled, sign_p
from studies.record import StudyError, listed

ALTERNATIVES = ("two-sided", "greater", "less")
"""What a test looks for: values that differ from others, are greater, or are less."""

MOST_EXACT = 30
"""Pairs of which all sign flips are counted, a billion in 5 ms."""

FLIPS = 9999
"""Random sign flips of more pairs than that."""


def differences(values: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, float]:
    """The differences of those pairs that are there `(pairs,)`, ties zero, and the most that rounding makes of one.

    Raises:
        StudyError: the arrays are not of one length, or a value is infinite.
    """
    values, others = np.asarray(values, float), np.asarray(others, float)
    if values.ndim != 1 or values.shape != others.shape:
        raise StudyError(
            f"values and others have shapes {values.shape} and {others.shape}: expected one value a seed in each, the "
            f"same seeds in the same order, NaN where there is none"
        )
    if np.isinf(values).any() or np.isinf(others).any():
        raise StudyError("values or others are infinite: expected finite numbers; give failures a score first")
    there = ~np.isnan(values) & ~np.isnan(others)
    values, others = values[there], others[there]
    scale = max(np.abs(values).max(initial=0), np.abs(others).max(initial=0))
    apart = settled(values - others, scale)
    return np.where(np.abs(apart) <= RESOLUTION * scale, 0.0, apart), RESOLUTION * scale


def least_p(pairs: int, alternative: str = "two-sided") -> float:
    """The smallest p that an exact paired test can give: all pairs have one sign, 1 of 2^pairs ways, or 2 two-sided.

    Two-sided it is .0625 for five pairs and .03125 for six; 1 for none.

    Raises:
        StudyError: there is no such alternative.
    """
    if alternative not in ALTERNATIVES:
        raise StudyError(f"alternative={alternative}: expected one of {listed(ALTERNATIVES)}")
    return min(1.0, (2.0 if alternative == "two-sided" else 1.0) * 0.5**pairs)


def permutation_test(
    values: np.ndarray, others: np.ndarray, alternative: str = "two-sided", rng: np.random.Generator | None = None
) -> Tested:
    """The paired permutation test of the mean difference (Fisher 1935, §21): each difference could have the other sign.

    It is valid where differences are symmetric about zero if the arms are alike, as they are if a seed's two results
    could be exchanged; whatever their distribution. All sign flips are tried, for more than `MOST_EXACT` pairs `FLIPS`
    random ones. At 5 % its error is at most 5 %.

    Args:
        rng: needed for more than `MOST_EXACT` pairs.

    Returns:
        p is NaN where so few pairs cannot give one below .05, see `least_p`: fewer than six, or five one-sided. It is 1
        if all pairs are ties.

    Raises:
        StudyError: as `differences` and `least_p`; there is no `rng` though one is needed.
    """
    found, rounding = differences(values, others)
    if (short := _short(found, alternative)) is not None:
        return short
    total, slack = found.sum(), len(found) * rounding
    if alternative == "less" or (alternative == "two-sided" and total < 0):
        found, total = -found, -total
    if len(found) <= MOST_EXACT:
        # Of the sums of all flips, those of one half and of the other, it counts without making them.
        half, other = _flips(found[::2]), np.sort(_flips(found[1::2]))
        p = np.mean(1 - np.searchsorted(other, total - slack - half) / len(other))
    elif rng is None:
        raise StudyError(f"{len(found)} pairs: expected rng, a numpy.random.Generator, for more than {MOST_EXACT}")
    else:
        from scipy import stats

        null = {"permutation_type": "samples", "vectorized": True, "n_resamples": FLIPS, "batch": 500, "rng": rng}
        sums = stats.permutation_test((found,), np.sum, **null).null_distribution
        p = (np.count_nonzero(sums >= total - slack) + 1) / (len(sums) + 1)  # Phipson & Smyth 2010
    return _tested(min(2 * p, 1.0) if alternative == "two-sided" else p, found, alternative)


def _flips(found: np.ndarray) -> np.ndarray:
    """The sums of differences `(n,)` with every choice of their signs, `(2^n,)`."""
    return functools.reduce(lambda sums, each: np.concatenate([sums - each, sums + each]), found, np.zeros(1))


def sign_test(values: np.ndarray, others: np.ndarray, alternative: str = "two-sided") -> Tested:
    """The exact sign test (Arbuthnott 1710): of the pairs that differ, as many favour one arm as a coin would.

    It is valid whatever the distribution, and says nothing of sizes; ties are left out. Of pairs that are 0 or 1 it is
    the exact McNemar test.

    Returns:
        p is NaN where so few pairs cannot give one below .05, see `least_p`; else 1 if all are ties.

    Raises:
        StudyError: as `differences` and `least_p`.
    """
    found, _ = differences(values, others)
    if (short := _short(found, alternative)) is not None:
        return short
    above, below = int(np.count_nonzero(found > 0)), int(np.count_nonzero(found < 0))
    sides = {"greater": above, "less": below, "two-sided": max(above, below)}
    p = sign_p(sides[alternative], above + below) * (2 if alternative == "two-sided" else 1)
    return _tested(min(p, 1.0), found, alternative)


def _short(found: np.ndarray, alternative: str) -> Tested | None:
    """The answer where there are too few pairs for one."""
    least = least_p(len(found), alternative)
    if least <= 1 - LEVEL:
        return None
    return Tested(np.nan, len(found), least, f"{len(found)} pairs cannot give a p below {least:.4g}")


def _tested(p: float, found: np.ndarray, alternative: str) -> Tested:
    differ = int(np.count_nonzero(found))
    least = least_p(differ, alternative)
    few = f"{differ} of {len(found)} pairs differ, which cannot give a p below {least:.4g}"
    return Tested(float(p), len(found), least_p(len(found), alternative), few if least > 1 - LEVEL else "")


def probability_better(values: np.ndarray, others: np.ndarray) -> float:
    """The paired P(value > other), a tie counted as half: the share of seeds at which values are ahead.

    It has no unit, and .5 means neither is ahead. A loss is better when it is less: exchange the two.

    Returns:
        NaN for no pair; .5 if all are ties; 0, .5 or 1 for one.

    Raises:
        StudyError: as `differences`.
    """
    found, _ = differences(values, others)
    return float((np.mean(found > 0) + np.mean(found >= 0)) / 2) if len(found) else np.nan


def cliffs_delta(values: np.ndarray, others: np.ndarray) -> float:
    """Cliff's delta (1993): P(value > other) - P(value < other) over all `n × n` pairs, of two seeds or one.

    It measures how little two arms overlap, whatever their seeds share: from -1 to 1, 0 for arms that are alike. It
    takes only seeds that both arms have.

    Returns:
        NaN for no seed; 0 if all values are equal; -1, 0 or 1 for one.

    Raises:
        StudyError: as `differences`.
    """
    found, rounding = differences(values, others)
    if not len(found):
        return np.nan
    values, others = np.asarray(values, float), np.asarray(others, float)
    there = ~np.isnan(values) & ~np.isnan(others)
    apart = np.subtract.outer(values[there], others[there])
    return float(np.mean(apart > rounding) - np.mean(apart < -rounding))


def equivalence_test(values: np.ndarray, others: np.ndarray, margin: float) -> Tested:
    """Whether the mean difference lies within ± margin: two one-sided paired t tests (TOST, Schuirmann 1987).

    A small p shows that the arms differ by less than the margin; it is below .05 just where the 90 % t interval of the
    differences lies within it. It is valid where the paired t test is: differences near to normal, or many.

    Returns:
        p is NaN for fewer than `LEAST_PAIRS` pairs, and where all differences are alike, so that there is no spread to
        test by, as often by chance where accuracies count few images.

    Raises:
        StudyError: as `differences`; the margin is not positive and finite.
    """
    if not 0 < margin < np.inf:
        raise StudyError(f"margin={margin}: expected a number above 0, the least difference that would matter")
    found, _ = differences(values, others)
    if len(found) < LEAST_PAIRS:
        return Tested(np.nan, len(found), 0.0, f"{len(found)} pairs: {LEAST_PAIRS} are needed")
    if np.ptp(found) == 0:
        return Tested(np.nan, len(found), 0.0, f"all differences are {found[0]:.4g}: there is no spread to test by")
    from statsmodels.stats.weightstats import ttost_paired

    return Tested(float(ttost_paired(found, np.zeros(len(found)), -margin, margin)[0]), len(found), 0.0)
