"""Ratios of positive quantities, such as losses and times, paired by seed; and the interquartile mean.

Values and others are `(n,)`, paired by place; a pair of which one is missing (NaN) is left out.
"""

import numpy as np

from analysis.estimate.intervals import LEVEL, RESOLUTION, Estimate, t_interval
from studies.record import StudyError

RESAMPLES = 9999
"""Of a bootstrap."""

ALL_ALIKE = "all ratios are alike: there is no spread to make an interval of"


def log_ratio(values: np.ndarray, others: np.ndarray, level: float = LEVEL) -> Estimate:
    """The geometric mean of value / other by seed, with the t interval of the logarithms, taken back.

    It is valid where log ratios are near to normal: it covers in 94.5 to 96 % of normal and lognormal samples, and of
    accuracies near one, from 5 seeds on (`make validate`). What a seed does to both arms it takes out.

    Returns:
        value NaN for no pair; no interval for one; the value itself as both ends where all ratios are alike, but for
        rounding, which is no evidence that others would be.

    Raises:
        StudyError: the arrays are not of one length, or a value is not positive and finite.
    """
    values, others = _positive(values, others)
    if len(values) < 2:
        value = float(values[0] / others[0]) if len(values) else np.nan
        return Estimate(value, np.nan, np.nan, len(values), f"an interval needs 2 pairs: there are {len(values)}")
    logs = np.log(values / others)
    centre, alike = logs.mean(), np.ptp(logs) <= 2 * RESOLUTION
    low, high = (centre, centre) if alike else t_interval(logs, level)
    value, low, high = map(float, np.exp([centre, low, high]))
    return Estimate(value, low, high, len(logs), ALL_ALIKE if alike else "")


def mean_ratio(
    values: np.ndarray,
    others: np.ndarray,
    rng: np.random.Generator,
    statistic=np.mean,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> Estimate:
    """The ratio of the means, with the bias-corrected accelerated bootstrap of the pairs (Efron 1987).

    It is valid for many independent pairs, as over seeds × datasets. At few seeds it is too short: one of 95 %
    covers in 82 to 84, 88 to 90 and 90 to 93 % of samples at 5, 10 and 20 (`make validate`). There use `log_ratio`.

    Args:
        statistic: another mean, such as `interquartile_mean`, that takes an `axis`.

    Returns:
        as `log_ratio`.

    Raises:
        StudyError: as `log_ratio`.
    """
    values, others = _positive(values, others)
    if len(values) < 2:
        return log_ratio(values, others, level)
    value = float(statistic(values, axis=0) / statistic(others, axis=0))
    if np.ptp(np.log(values / others)) <= 2 * RESOLUTION:
        return Estimate(value, value, value, len(values), ALL_ALIKE)
    from scipy import stats

    def ratio(values, others, axis=-1):
        return statistic(values, axis=axis) / statistic(others, axis=axis)

    settings = {"paired": True, "vectorized": True, "confidence_level": level, "n_resamples": resamples, "rng": rng}
    found = stats.bootstrap((values, others), ratio, **settings).confidence_interval
    if np.isnan([found.low, found.high]).any():  # no jackknife spread, so no acceleration
        found = stats.bootstrap((values, others), ratio, method="percentile", **settings).confidence_interval
    return Estimate(value, float(found.low), float(found.high), len(values))


def interquartile_mean(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """The mean of the middle half of values along an axis (Agarwal et al. 2021): a quarter, rounded down, off each end.

    It is the mean for fewer than four values, and robust against one wild seed in four or more. Nothing may be missing.

    Returns:
        an array without the axis; NaN for no value.
    """
    from scipy import stats

    values = np.asarray(values, float)
    if not values.shape[axis]:
        return np.full(np.delete(values.shape, axis), np.nan)[()]
    return stats.trim_mean(values, 0.25, axis=axis)


def _positive(values: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of which both are there."""
    values, others = np.asarray(values, float), np.asarray(others, float)
    if values.ndim != 1 or values.shape != others.shape:
        raise StudyError(
            f"values and others have shapes {values.shape} and {others.shape}: expected one value a seed in each, the "
            f"same seeds in the same order, NaN where there is none"
        )
    there = ~np.isnan(values) & ~np.isnan(others)
    values, others = values[there], others[there]
    both = np.concatenate([values, others])
    if not (np.isfinite(both) & (both > 0)).all():
        wrong = both[~(np.isfinite(both) & (both > 0))][0]
        raise StudyError(f"a value is {wrong:g}: ratios need numbers above 0; compare differences, or leave it out")
    return values, others
