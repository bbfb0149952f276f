"""What only several passes through a network tell: curvature, noise, Jacobians, how signals pass. A function each.

They run in TensorFlow's graph and see the network in inference mode: without dropout, with the running statistics of
batch normalization. None of them compares networks that differ by a rescaling which their function does not see, such
as of a ReLU layer by the next one's inverse, or of a kernel before a normalization.
"""

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

PRODUCTS = 10
"""Of the Hessian with a vector: the greatest eigenvalue comes out to four digits, as with 20, 60 (measured)."""

SMALL_BATCH = 32
"""Whose gradients are set against those of all examples, for the noise scale."""

JACOBIAN_INPUTS = 32
JACOBIAN_ENTRIES = 2**26
"""At most; networks of large images and many classes are taken at fewer inputs."""

Objective = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""From images and labels to the loss that is trained, a number."""


def hessian_products(
    objective: Objective, weights: list, images: tf.Tensor, labels: tf.Tensor, start: list
) -> tuple[tf.Tensor, tf.Tensor]:
    """Lanczos's tridiagonal matrix of the loss's Hessian (Golub & Van Loan 2013, algorithm 10.1.1).

    Each step is a Hessian-vector product (Pearlmutter 1994), the gradient of ⟨gradient, v⟩, as a power iteration's is;
    but its end values find the greatest eigenvalue where the one greatest in size is negative, and are nearer. The
    gradient itself is taken once, before all steps.

    Args:
        weights: variables.
        start: a random tensor for each of them.

    Returns:
        its diagonal and what is beside it, `(PRODUCTS,)` each.
    """
    shapes = [weight.shape for weight in weights]
    size = tf.sqrt(_dot(start, start))
    vector, before = [v / size for v in start], [tf.zeros(shape) for shape in shapes]
    with tf.GradientTape(persistent=True) as tape:
        gradients = _gradients(objective, weights, images, labels)

    def product(vector):
        found = tape.gradient(gradients, weights, output_gradients=vector, unconnected_gradients="zero")
        return [tf.convert_to_tensor(part) for part in found]

    def step(place, beta, diagonal, beside, *vectors):
        vector, before = vectors[: len(shapes)], vectors[len(shapes) :]
        image = product(vector)
        alpha = _dot(image, vector)
        rest = [a - alpha * v - beta * b for a, v, b in zip(image, vector, before, strict=True)]
        norm = tf.sqrt(_dot(rest, rest))
        after = [tf.math.divide_no_nan(r, norm) for r in rest]
        return place + 1, norm, diagonal.write(place, alpha), beside.write(place, norm), *after, *vector

    numbers = [tf.TensorArray(tf.float32, PRODUCTS) for _ in range(2)]
    _, _, diagonal, beside, *_ = tf.while_loop(
        lambda place, *_: place < PRODUCTS, step, (0, tf.zeros(()), *numbers, *vector, *before), parallel_iterations=1
    )
    return diagonal.stack(), beside.stack()


def sharpness(diagonal: np.ndarray, beside: np.ndarray) -> float:
    """The Hessian's greatest eigenvalue, of what `hessian_products` gives; NaN where that is not finite."""
    if not (np.isfinite(diagonal).all() and np.isfinite(beside).all()):
        return math.nan
    whole = np.diag(diagonal.astype(np.float64)) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1)
    end = np.flatnonzero(beside <= 1e-6 * np.abs(whole).max())  # the vectors so far span all that the start can reach
    last = end[0] + 1 if len(end) else len(diagonal)
    return float(np.linalg.eigvalsh(whole[:last, :last])[-1])


def gradient_squares(
    objective: Objective, weights: list, images: tf.Tensor, labels: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean squared norm of the gradients of batches of `SMALL_BATCH`, and that of all of them together."""
    batches = images.shape[0] // SMALL_BATCH
    if not batches:
        return tf.zeros(()), tf.zeros(())

    def step(place, squares, *sums):
        part = slice(place * SMALL_BATCH, (place + 1) * SMALL_BATCH)
        gradients = _gradients(objective, weights, images[part], labels[part])
        return place + 1, squares + _dot(gradients, gradients), *(s + g for s, g in zip(sums, gradients, strict=True))

    zeros = [tf.zeros(weight.shape) for weight in weights]
    _, squares, *sums = tf.while_loop(
        lambda place, *_: place < batches, step, (0, tf.zeros(()), *zeros), parallel_iterations=1
    )
    return squares / batches, _dot(sums, sums) / batches**2


def noise_scale(small: float, large: float, examples: int) -> float:
    """The simple gradient noise scale tr(Σ) / |G|², in examples (McCandlish et al. 2018, eq. 2.9 and appendix A.1).

    Args:
        small, large: mean squared gradient norm of batches of `SMALL_BATCH`, and of `examples`, a multiple of it.

    Returns:
        NaN where the noise leaves no sign of the gradient: its estimate is not above zero; or for one batch alone.
    """
    if examples <= SMALL_BATCH:
        return math.nan
    signal = (examples * large - SMALL_BATCH * small) / (examples - SMALL_BATCH)
    noise = (small - large) / (1 / SMALL_BATCH - 1 / examples)
    return noise / signal if signal > 0 else math.nan


def jacobian_products(logits: Callable[[tf.Tensor], tf.Tensor], images: tf.Tensor, classes: int) -> tf.Tensor:
    """JJᵀ of each input, `(inputs, classes, classes)`, with J the Jacobian `(classes, entries)` of the logits by it."""

    def row(place, rows):
        with tf.GradientTape() as tape:
            tape.watch(images)
            of_class = tf.reduce_sum(tf.cast(tf.gather(logits(images), place, axis=1), tf.float32))
        gradient = tape.gradient(of_class, images, unconnected_gradients="zero")
        return place + 1, rows.write(place, tf.reshape(gradient, (images.shape[0], -1)))

    rows = tf.TensorArray(tf.float32, classes)
    _, rows = tf.while_loop(lambda place, _: place < classes, row, (0, rows), parallel_iterations=1)
    jacobians = tf.transpose(tf.cast(rows.stack(), tf.float64), (1, 0, 2))
    return tf.matmul(jacobians, jacobians, transpose_b=True)


def jacobian_inputs(shape: tuple[int, ...], classes: int) -> int:
    """At how many inputs of a shape Jacobians are taken."""
    return max(1, min(JACOBIAN_INPUTS, JACOBIAN_ENTRIES // (classes * math.prod(shape))))


def jacobian_spectrum(products: np.ndarray) -> dict[str, float]:
    """Greatest, median and least singular value of the input-logit Jacobian, means over the inputs.

    Their spread is what dynamical isometry is about (Saxe et al. 2014; Pennington et al. 2017).

    Args:
        products: from `jacobian_products`.
    """
    names = ("jacobian_max", "jacobian_median", "jacobian_min")
    if not np.isfinite(products).all():
        return dict.fromkeys(names, math.nan)
    values = np.sqrt(np.maximum(np.linalg.eigvalsh(products), 0))
    found = (values[:, -1], np.median(values, axis=1), values[:, 0])
    return dict(zip(names, (float(value.mean()) for value in found), strict=True))


def slope(values: np.ndarray, opens: list[bool]) -> float:
    """How a size changes from layer to layer: least squares through its natural logarithms (Glorot & Bengio 2010).

    A layer is what begins with a kernel and ends before the next: its last output counts, after normalization and
    activation; the network's last, the logits, is left out.

    Args:
        values: of each output, such as its sd, `(outputs,)`.
        opens: of each output whether its layer has a kernel.

    Returns:
        above zero where it grows towards the output; NaN for fewer than two layers, or where a size is 0 or not finite.
    """
    starts = np.flatnonzero(opens)
    ends = values[starts[1:] - 1] if len(starts) else values[:0]
    if len(ends) < 2 or not (np.isfinite(ends) & (ends > 0)).all():
        return math.nan
    return float(np.polyfit(np.arange(len(ends)), np.log(ends), 1)[0])


def _gradients(objective, weights, images, labels) -> list:
    with tf.GradientTape() as tape:
        loss = objective(images, labels)
    found = tape.gradient(loss, weights, unconnected_gradients="zero")
    return [tf.convert_to_tensor(gradient) for gradient in found]  # those of embeddings are slices


def _dot(some, others):
    # Not `add_n`, which begins with whichever input's buffer is free.
    return tf.reduce_sum(tf.stack([tf.reduce_sum(a * b) for a, b in zip(some, others, strict=True)]))
