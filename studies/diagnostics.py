"""Statistics of weights: a function each, one table of them.

A statistic takes rows of weights and gives one number a row, or a column each for several names. A row is one tensor at
one epoch.
"""

from functools import cached_property

import numpy as np

from studies.record import QUANTILES, SPARSITY_THRESHOLDS, STATISTICS


class Rows:
    """Rows of weights with what several statistics share, each computed once.

    Args:
        w: `(rows, n)`.
        start: the same weights before training, `(n,)`.
    """

    def __init__(self, w: np.ndarray, start: np.ndarray):
        self.w, self.start = w, start

    @cached_property
    def size(self):
        """|w|."""
        return np.abs(self.w)

    @cached_property
    def ordered(self):
        """Each row in rising order."""
        return np.sort(self.w, axis=-1)

    @cached_property
    def min(self):
        """Each row's smallest."""
        return self.w.min(axis=-1)

    @cached_property
    def max(self):
        """Each row's largest."""
        return self.w.max(axis=-1)

    @cached_property
    def norm(self):
        """√Σ w²."""
        return _norm(self.w)

    @cached_property
    def mean(self):
        """Σ w / n."""
        return self.w.mean(axis=-1)

    @cached_property
    def centred(self):
        """W − mean w."""
        # A rounded mean can lie outside the row: equal weights then had a spread, and a skew of ±1.
        return self.w - np.clip(self.mean, self.min, self.max)[:, None]

    @cached_property
    def squares(self):
        """(w − mean w)²."""
        return np.square(self.centred)

    @cached_property
    def variance(self):
        """Of the population: divided by n."""
        return self.squares.mean(axis=-1)


def mean(rows):
    """Σ w / n."""
    return rows.mean


def sd(rows):
    """Of the population: divided by n."""
    return np.sqrt(rows.variance)


def smallest(rows):
    """Min w."""
    return rows.min


def largest(rows):
    """Max w."""
    return rows.max


def l1(rows):
    """Σ |w|."""
    return rows.size.sum(axis=-1)


def l2(rows):
    """√Σ w²."""
    return rows.norm


def max_norm(rows):
    """Max |w|."""
    return np.maximum(-rows.min, rows.max)


def skew(rows):
    """m₃ / m₂^1.5, with central moments mₖ."""
    return (rows.squares * rows.centred).mean(axis=-1) / rows.variance**1.5


def kurtosis(rows):
    """m₄ / m₂² − 3: in excess of the normal distribution."""
    return np.square(rows.squares).mean(axis=-1) / rows.variance**2 - 3


def quantiles(rows):
    """By linear interpolation between order statistics (Hyndman & Fan 1996, type 7)."""
    last = rows.w.shape[-1] - 1
    position = np.array(QUANTILES) * last
    below = position.astype(int)
    part = (position - below).astype(np.float32)
    return (1 - part) * rows.ordered[:, below] + part * rows.ordered[:, np.minimum(below + 1, last)]


def sparsity(rows):
    """Share of weights no larger than a fraction of the largest: exact zeros at fraction 0."""
    limits = max_norm(rows)[:, None] * np.array(SPARSITY_THRESHOLDS, np.float32)
    limits = np.column_stack([limits, np.nextafter(-limits, np.float32(-np.inf))])
    places = np.array([row.searchsorted(limit, "right") for row, limit in zip(rows.ordered, limits, strict=True)])
    upper, lower = np.split(places, 2, axis=1)
    return (upper - lower) / np.float32(rows.w.shape[-1])


def distance(rows):
    """‖w − w₀‖ / ‖w₀‖; missing (NaN) for weights that start at zero."""
    start = _norm(rows.start)
    return _norm(rows.w - rows.start) / start if start else np.full(len(rows.w), np.nan)


def cosine_distance(rows):
    """1 − cos(w, w₀), the layer rotation (Carbonnelle & De Vleeschouwer 2019).

    Taken as half the squared distance of the unit vectors, which keeps its digits where 1 − cos would lose them.
    """
    gap = rows.w / rows.norm[:, None] - rows.start / _norm(rows.start)
    return np.square(gap).sum(axis=-1) / 2


TABLE = (
    (("mean",), mean),
    (("sd",), sd),
    (("min",), smallest),
    (("max",), largest),
    (("l1",), l1),
    (("l2",), l2),
    (("max_norm",), max_norm),
    (("skew",), skew),
    (("kurtosis",), kurtosis),
    (tuple(f"q{round(100 * q):02d}" for q in QUANTILES), quantiles),
    (tuple(f"sparsity_{t}" for t in SPARSITY_THRESHOLDS), sparsity),
    (("distance",), distance),
    (("cosine_distance",), cosine_distance),
)
STEP_STATISTICS = ("gradient_norm", "update_norm", "update_ratio")
assert (*(name for names, _ in TABLE for name in names), *STEP_STATISTICS) == STATISTICS


def weight_statistics(w: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Every statistic of the table.

    Args:
        w: rows of weights, `(rows, n)`.
        start: the same weights before training, `(n,)`.

    Returns:
        `(rows, number of statistics)`, in the table's order.
    """
    rows = Rows(w, start)
    with np.errstate(all="ignore"):  # what has no result is NaN
        return np.column_stack([statistic(rows) for _, statistic in TABLE])


def _norm(w):
    return np.sqrt(np.square(w).sum(axis=-1))
