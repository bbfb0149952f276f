"""What Keras's optimizers lack: wrappers around any of them, a momentum that changes, and clipping.

Clipping takes the gradients and their weights and gives the gradients and the share that it changed: of the elements,
the tensors, the units, or of all (1 or 0), whichever it scales by itself.
"""

from collections.abc import Callable

import keras
import tensorflow as tf


class Lookahead:
    """Every few steps the weights go back to a point between where they were and where they are (Zhang et al. 2019).

    Args:
        optimizer: a Keras optimizer, whose weights are the paper's fast ones.
        every: steps between, the paper's k.
        slow_step: how far the slow weights go towards the fast ones, the paper's alpha.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer, every: int, slow_step: float):
        self.optimizer, self.every, self.slow_step = optimizer, every, slow_step
        self.finalize_variable_values = optimizer.finalize_variable_values

    def build(self, weights) -> None:
        """Make the optimizer's slots, and the slow weights as copies."""
        self.optimizer.build(weights)
        self.slow = [keras.Variable(weight.numpy(), trainable=False, name=f"{weight.name}_slow") for weight in weights]

    @property
    def variables(self) -> list:
        """All state."""
        return [*self.optimizer.variables, *self.slow]

    @property
    def learning_rate(self):
        """The optimizer's variable."""
        return self.optimizer.learning_rate

    @property
    def iterations(self):
        """Steps done, a variable."""
        return self.optimizer.iterations

    def apply(self, gradients, weights) -> None:
        """A step of the optimizer's; after every k-th the slow weights follow, and both are one."""
        self.optimizer.apply(gradients, weights)
        meets = self.iterations % self.every == 0  # algorithm 1
        for weight, slow in zip(weights, self.slow, strict=True):
            between = slow + self.slow_step * (weight - slow)
            slow.assign(tf.where(meets, between, slow))
            weight.assign(tf.where(meets, between, weight))


def sharpness_aware(radius: float) -> Callable:
    """The gradients at the point `radius` away, straight up the loss (Foret et al. 2021, algorithm 1)."""

    def ascent(gradients, weights, gradients_there):
        scale = radius / tf.maximum(tf.linalg.global_norm(gradients), 1e-12)
        start = [weight.value.read_value() for weight in weights]
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.assign_add(scale * gradient)
        found = gradients_there()
        for weight, value in zip(weights, start, strict=True):
            weight.assign(value)
        return found

    return ascent


class Cycle:
    """Sets an optimizer's momentum, Keras's `momentum` or `beta_1`, while a step is traced.

    Attributes:
        high: the optimizer's own momentum.

    Raises:
        ValueError: it has none.
    """

    def __init__(self, optimizer):
        self.optimizer = getattr(optimizer, "optimizer", optimizer)
        names = [name for name in ("momentum", "beta_1") if getattr(self.optimizer, name, 0)]
        if not names:
            raise ValueError(f"{type(self.optimizer).__name__} has no momentum above 0 to cycle")
        self.name, self.high = names[0], getattr(self.optimizer, names[0])

    def __call__(self, momentum) -> None:
        """Have what is traced from here on use a tensor as its momentum."""
        setattr(self.optimizer, self.name, _NotZero(momentum) if self.name == "momentum" else momentum)


class _NotZero:
    """A tensor that compares as a number above zero, as Keras's SGD asks of its momentum while it is traced."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __ne__(self, other):
        return True

    def __tf_tensor__(self, dtype=None, name=None):
        return self.tensor


def clip_by_value(limit: float):
    """Every element of a gradient kept within ± `limit`."""

    def clip(gradients, weights):
        outside = tf.concat([tf.reshape(tf.abs(g) > limit, [-1]) for g in gradients], axis=0)
        share = tf.reduce_mean(tf.cast(outside, tf.float32))
        return [tf.clip_by_value(g, -limit, limit) for g in gradients], share

    return clip


def clip_by_norm(norm: float):
    """Scale each tensor's gradient by itself to a norm of at most `norm`."""

    def clip(gradients, weights):
        longer = [tf.cast(tf.norm(g) > norm, tf.float32) for g in gradients]
        return [tf.clip_by_norm(g, norm) for g in gradients], tf.reduce_mean(longer)

    return clip


def clip_by_global_norm(norm: float):
    """Scale all gradients together so that their joint norm is at most `norm` (Pascanu et al. 2013, algorithm 1)."""

    def clip(gradients, weights):
        clipped, joint = tf.clip_by_global_norm(gradients, norm)
        return clipped, tf.cast(joint > norm, tf.float32)

    return clip


def clip_adaptively(ratio: float, epsilon: float):
    """Scale each unit's gradient to a norm of at most `ratio` times its weights' (Brock et al. 2021, eq. 3).

    Args:
        epsilon: what a unit's weights count as at least, so that those that start at zero can move.
    """

    def norm(tensor):
        axes = list(range(len(tensor.shape) - 1)) or None  # a unit's incoming weights; a bias as a whole
        return tf.sqrt(tf.reduce_sum(tf.square(tensor), axis=axes, keepdims=True))

    def clip(gradients, weights):
        limits = [ratio * tf.maximum(norm(w), epsilon) for w in weights]
        norms = [norm(g) for g in gradients]
        longer = tf.concat([tf.reshape(n > limit, [-1]) for n, limit in zip(norms, limits, strict=True)], axis=0)
        clipped = [
            g * tf.where(n > limit, limit / tf.maximum(n, 1e-30), 1.0)
            for g, n, limit in zip(gradients, norms, limits, strict=True)
        ]
        return clipped, tf.reduce_mean(tf.cast(longer, tf.float32))

    return clip
