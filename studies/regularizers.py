"""What Keras's regularizers lack: a penalty, and rules that change kernels before or after each update.

A penalty takes a kernel and gives a number to add to the loss. A rule takes a kernel and the step's learning rate and
gives the new kernel; the engine calls its `before` or its `after` the optimizer's update.
"""

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf


@dataclass(frozen=True)
class Rule:
    """What happens to every kernel at every step; None for nothing."""

    before: Callable | None = None
    after: Callable | None = None


def orthogonal(factor: float):
    """Factor · ‖WᵀW − I‖²_F a unit's weights in a column; WWᵀ if there are more units (Brock et al. 2017, eq. 2)."""

    def penalty(kernel):
        matrix = tf.reshape(kernel, [-1, kernel.shape[-1]])
        wide = matrix.shape[0] < matrix.shape[1]
        gram = tf.matmul(matrix, matrix, transpose_a=not wide, transpose_b=wide)
        return factor * tf.reduce_sum(tf.square(gram - tf.eye(gram.shape[0])))

    return penalty


def decoupled(decay: float) -> Rule:
    """W ← w − rate · decay · w besides the update (Loshchilov & Hutter 2019, algorithm 2), for any optimizer."""
    return Rule(before=lambda kernel, rate: kernel * (1 - rate * decay))


def proximal_l1(l1: float) -> Rule:
    """W ← sign w · max(|w| − rate · l1, 0) after the update: exact zeros (Parikh & Boyd 2014, section 6.5.2)."""
    return Rule(after=lambda kernel, rate: tf.sign(kernel) * tf.nn.relu(tf.abs(kernel) - rate * l1))


def max_norm(limit: float) -> Rule:
    """Scale a unit's incoming weights to a norm of at most `limit` (Srivastava et al. 2014, section 5.1)."""
    return Rule(after=lambda kernel, rate: kernel * tf.minimum(1.0, limit / tf.maximum(_norms(kernel), 1e-30)))


def unit_norm() -> Rule:
    """Scale a unit's incoming weights to norm 1."""
    return Rule(after=lambda kernel, rate: kernel / tf.maximum(_norms(kernel), 1e-30))


def _norms(kernel):
    """Of each unit's incoming weights, kept in the kernel's rank."""
    return tf.sqrt(tf.reduce_sum(tf.square(kernel), axis=list(range(len(kernel.shape) - 1)), keepdims=True))
