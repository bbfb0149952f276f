"""What Keras's regularizers lack: a penalty, and rules for what happens at a step.

A penalty takes a kernel and gives a number to add to the loss. What is random in a rule comes as numbers that were
drawn ahead.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from studies.factors.rules import Rule, Step, unit_norms


def orthogonal(factor: float) -> Callable[[tf.Tensor], tf.Tensor]:
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


def proximal_l1(l1: float, l2: float = 0.0) -> Rule:
    """W ← sign w · max(|w| − rate · l1, 0) after the update: exact zeros (Parikh & Boyd 2014, section 6.5.2).

    With l2 it is the elastic net's, divided by 1 + 2 · rate · l2 (section 6.5.3).
    """

    def after(kernel, rate):
        shrunk = tf.sign(kernel) * tf.nn.relu(tf.abs(kernel) - rate * l1)
        return shrunk / (1 + 2 * rate * l2) if l2 else shrunk

    return Rule(after=after)


def max_norm(limit: float) -> Rule:
    """Scale a unit's incoming weights to a norm of at most `limit` (Srivastava et al. 2014, section 5.1)."""
    return Rule(after=lambda kernel, rate: kernel * tf.minimum(1.0, limit / _not_zero(unit_norms(kernel))))


def unit_norm() -> Rule:
    """Scale a unit's incoming weights to norm 1."""
    return Rule(after=lambda kernel, rate: kernel / _not_zero(unit_norms(kernel)))


def label_smoothing(smoothing: float) -> Rule:
    """Targets of 1 − smoothing for the label, and smoothing shared by all classes (Szegedy et al. 2016, section 7)."""

    def examples(images, targets, drawn):
        return images, (1 - smoothing) * targets + smoothing / targets.shape[-1]

    return Rule(examples=examples)


def mixup(alpha: float) -> Rule:
    """Each image and target λ times itself and 1 − λ times another's, λ from Beta(α, α) (Zhang et al. 2018, eq. 1)."""

    def examples(images, targets, drawn):
        return tuple(drawn[0] * own + (1 - drawn[0]) * _others(own) for own in (images, targets))

    def draw(rng, steps, batch):
        return rng.beta(alpha, alpha, (steps, 1))

    return Rule(examples=examples, draw=draw)


def cutmix(alpha: float) -> Rule:
    """A box of each image is another's, and as much of its target (Yun et al. 2019, eqs. 1 and 2).

    The box leaves a share λ of the image, λ from Beta(α, α), unless the border cuts it off; targets go by what is left.
    """

    def examples(images, targets, drawn):
        left, row, column = tf.unstack(drawn)
        inside = _window(images.shape[1], row, left)[:, None] & _window(images.shape[2], column, left)[None, :]
        share = tf.reduce_mean(tf.cast(inside, tf.float32))
        mixed = tf.where(inside[None, :, :, None], _others(images), images)
        return mixed, (1 - share) * targets + share * _others(targets)

    def draw(rng, steps, batch):
        return np.column_stack([rng.beta(alpha, alpha, steps), rng.random((steps, 2))])

    return Rule(examples=examples, draw=draw)


def gradient_noise(eta: float, gamma: float) -> Rule:
    """Gradients plus N(0, σ²) with σ² = eta / (1 + step)^gamma (Neelakantan et al. 2015, eqs. 1 and 2)."""

    def gradients(gradients, step: Step):
        sd = tf.sqrt(eta / (1.0 + tf.cast(step.number, tf.float32)) ** gamma)
        seed = tf.cast(step.drawn * 2**24, tf.int32)
        return [g + sd * tf.random.stateless_normal(g.shape, tf.add(seed, [n, 0])) for n, g in enumerate(gradients)]

    # XLA draws the numbers again wherever they are used: 45 ms a step for 90,000 weights, where TensorFlow takes 3 ms.
    return Rule(gradients=gradients, draw=lambda rng, steps, batch: rng.random((steps, 2)), gains_from_xla=False)


def _others(batch):
    """The next example in place of each; batches are in random order, so it is any."""
    return tf.roll(batch, 1, axis=0)


def _window(size, centre, left):
    """Which of `size` rows are in a window of √(1 − left) of them around `centre`, a share of them."""
    half = tf.floor(size * tf.sqrt(1 - left)) // 2  # as the authors cut it
    middle = tf.floor(centre * size)
    rows = tf.range(size, dtype=tf.float32)
    return (rows >= middle - half) & (rows < middle + half)


def _not_zero(norms):
    return tf.where(norms > 0, norms, 1.0)
