"""What factors may do at a training step besides the optimizer's update, and norms that rules measure by."""

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf


@dataclass(frozen=True)
class Step:
    """What a rule that changes gradients may know of the step.

    Attributes:
        weights: the Keras variables that the gradients are of.
        number: updates made before it, a tensor.
        drawn: the rule's random numbers for it.
        gradients_now: gives the gradients of the same batch where the weights are when it is called.
    """

    weights: list
    number: tf.Tensor
    drawn: tf.Tensor
    gradients_now: Callable[[], list]


@dataclass(frozen=True)
class Rule:
    """What happens at every step; None where nothing does.

    Attributes:
        images: takes images `(batch, height, width, channels)` and what was drawn; gives images.
        examples: takes images, targets `(batch, classes)` and what was drawn; gives images and targets.
        weigh: takes targets, labels `(batch,)` or shares of the classes, and what was drawn; gives what each example's
            loss counts, `(batch,)`.
        penalty: takes a kernel; gives what is added to the loss for it.
        gradients: takes the list of gradients and a `Step`; gives the list.
        clip: takes the lists of gradients and of weights; gives the gradients and the share that it changed.
        before, after: the update: take a kernel and the step's learning rate, give the new kernel.
        applies_to: the weights that these three are of: `kernels`, those of more than one dimension, or `all`.
        draw: takes a generator, a number of steps and the batch size; gives what is random, `(steps, …)`.
        stream: the seed's stream that it draws from.
        gains_from_xla: false for what XLA makes slower on a CPU.
        one_pass: false for what needs the gradients of a batch more than once.
    """

    images: Callable | None = None
    examples: Callable | None = None
    weigh: Callable | None = None
    penalty: Callable | None = None
    gradients: Callable | None = None
    clip: Callable | None = None
    before: Callable | None = None
    after: Callable | None = None
    applies_to: str = "kernels"
    draw: Callable | None = None
    stream: str = "noise"
    gains_from_xla: bool = True
    one_pass: bool = True


def norm_of(tensor: tf.Tensor, axis: list[int] | None = None) -> tf.Tensor:
    """√Σ x² over `axis`, or over all, whose dimensions are kept.

    Taken of the entries as shares of the largest: float32 squares are zero below 1e-22 and infinite above 1e19.
    """
    largest = tf.reduce_max(tf.abs(tensor), axis=axis, keepdims=True)
    scale = tf.where((largest > 0) & tf.math.is_finite(largest), largest, 1.0)
    return scale * tf.sqrt(tf.reduce_sum(tf.square(tensor / scale), axis=axis, keepdims=True))


def joint_norm(tensors: list) -> tf.Tensor:
    """√Σ x² over all the tensors, a scalar."""
    return tf.squeeze(norm_of(tf.stack([tf.squeeze(norm_of(tensor)) for tensor in tensors])))


def unit_norms(tensor: tf.Tensor) -> tf.Tensor:
    """The norm of each unit's incoming weights, kept in the kernel's rank; of a bias as a whole."""
    return norm_of(tensor, list(range(len(tensor.shape) - 1)) or None)
