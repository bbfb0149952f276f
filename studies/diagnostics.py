"""Statistics of weights: a function each, one table of them.

A statistic takes `w`, the rows of weights `(rows, n)`, and `start`, the same weights before training `(rows, n)`, and
gives one number a row, or a column each for several names. Rows are observations: one tensor at one epoch. Working on
many epochs' rows at once costs a trial a few dozen ops instead of a few dozen an epoch.
"""

import numpy as np
import tensorflow as tf

from studies.record import QUANTILES, SPARSITY_THRESHOLDS, STATISTICS


def mean(w, start):
    """Σ w / n."""
    return tf.reduce_mean(w, axis=-1)


def sd(w, start):
    """Of the population: divided by n."""
    return tf.sqrt(_moment(w, 2))


def smallest(w, start):
    """Min w."""
    return tf.reduce_min(w, axis=-1)


def largest(w, start):
    """Max w."""
    return tf.reduce_max(w, axis=-1)


def l1(w, start):
    """Σ |w|."""
    return tf.reduce_sum(tf.abs(w), axis=-1)


def l2(w, start):
    """√Σ w²."""
    return _norm(w)


def max_norm(w, start):
    """Max |w|."""
    return tf.reduce_max(tf.abs(w), axis=-1)


def skew(w, start):
    """m₃ / m₂^1.5, with central moments mₖ."""
    return _moment(w, 3) / _moment(w, 2) ** 1.5


def kurtosis(w, start):
    """m₄ / m₂² − 3: in excess of the normal distribution."""
    return _moment(w, 4) / _moment(w, 2) ** 2 - 3


def order_statistics(w, start):
    """Quantiles and sparsity, which share a sort."""
    ordered = _sort(w)
    return tf.concat([quantiles(ordered), sparsity(ordered)], axis=-1)


def quantiles(ordered):
    """By linear interpolation between order statistics (Hyndman & Fan 1996, type 7)."""
    n = tf.shape(ordered)[-1]
    position = tf.constant(QUANTILES, tf.float64) * tf.cast(n - 1, tf.float64)
    below = tf.cast(tf.floor(position), tf.int32)
    above = tf.minimum(below + 1, n - 1)
    part = tf.cast(position - tf.floor(position), tf.float32)
    return (1 - part) * tf.gather(ordered, below, axis=-1) + part * tf.gather(ordered, above, axis=-1)


def sparsity(ordered):
    """Share of weights no larger than a fraction of the largest: exact zeros at fraction 0."""
    largest_size = tf.maximum(-ordered[:, :1], ordered[:, -1:])
    limits = largest_size * tf.constant([float(fraction) for fraction in SPARSITY_THRESHOLDS])
    within = tf.searchsorted(ordered, limits, side="right") - tf.searchsorted(ordered, -limits, side="left")
    return tf.cast(within, tf.float32) / tf.cast(tf.shape(ordered)[-1], tf.float32)


def distance(w, start):
    """‖w − w₀‖ / ‖w₀‖; missing (NaN) for weights that start at zero."""
    return _missing_where_zero(_norm(start), _norm(w - start))


def cosine_distance(w, start):
    """1 − cos(w, w₀), the layer rotation (Carbonnelle & De Vleeschouwer 2019).

    Taken as half the squared distance of the unit vectors, which keeps its digits where 1 − cos would lose them.
    """
    unit = w / _norm(w)[:, None]
    unit_start = start / _norm(start)[:, None]
    return tf.reduce_sum(tf.square(unit - unit_start), axis=-1) / 2


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
    (
        (*(f"q{round(100 * q):02d}" for q in QUANTILES), *(f"sparsity_{t}" for t in SPARSITY_THRESHOLDS)),
        order_statistics,
    ),
    (("distance",), distance),
    (("cosine_distance",), cosine_distance),
)
STEP_STATISTICS = ("gradient_norm", "update_norm", "update_ratio")
assert (*(name for names, _ in TABLE for name in names), *STEP_STATISTICS) == STATISTICS


@tf.function(input_signature=[tf.TensorSpec([None, None]), tf.TensorSpec([None, None])], autograph=False)
def weight_statistics(w, start):
    """Every statistic of the table.

    Args:
        w: rows of weights, `(rows, n)`.
        start: the same tensors before training, `(rows, n)`.

    Returns:
        `(rows, number of statistics)`, in the table's order.
    """
    columns = [statistic(w, start) for _, statistic in TABLE]
    return tf.concat([c if len(c.shape) == 2 else c[:, None] for c in columns], axis=1)


def _norm(w):
    return tf.sqrt(tf.reduce_sum(tf.square(w), axis=-1))


def _moment(w, order):
    # A rounded mean can lie outside the row: equal weights then had a spread, and a skew of ±1.
    low, high = tf.reduce_min(w, axis=-1, keepdims=True), tf.reduce_max(w, axis=-1, keepdims=True)
    centred = w - tf.clip_by_value(tf.reduce_mean(w, axis=-1, keepdims=True), low, high)
    power = centred
    for _ in range(order - 1):
        power = power * centred
    return tf.reduce_mean(power, axis=-1)


def _missing_where_zero(denominator, numerator):
    return tf.where(denominator == 0, np.nan, numerator / denominator)


def _sort(w):
    # NumPy's vectorized sort takes 0.9 ms where tf.sort takes 15 (60 rows of 4,096, one core); on a GPU tf.sort wins.
    if tf.config.list_physical_devices("GPU"):
        return tf.sort(w, axis=-1)
    ordered = tf.numpy_function(lambda a: np.sort(a, axis=-1), [w], tf.float32, stateful=False)
    return tf.ensure_shape(ordered, w.shape)
