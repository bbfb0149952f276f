"""How signals pass through networks that have not been trained, and how they should by what is known of it."""

import math
from typing import Annotated

import keras
import numpy as np
import tensorflow as tf

from studies.factors.limits import number, one_of, whole
from studies.record import SERIES

SCHEMES = {
    "glorot_normal": keras.initializers.GlorotNormal,
    "he_normal": keras.initializers.HeNormal,
    "lecun_normal": keras.initializers.LecunNormal,
    "orthogonal": keras.initializers.Orthogonal,
}
EXAMPLES, CLASSES = 256, 10
POINTS = 100
"""Of the quadrature that takes means over N(0, 1); an even number, so that none is at a ReLU's kink."""


def gradient_slope(
    rng: np.random.Generator,
    initializer: Annotated[str, one_of("normal", *SCHEMES)] = "he_normal",
    sd: Annotated[float, number(above=0)] = 0.01,
    activation: Annotated[str, one_of("relu", "tanh", "linear")] = "relu",
    depth: Annotated[int, whole(3)] = 10,
    width: Annotated[int, whole(1)] = 64,
) -> dict[str, float]:
    """The slope of log ‖∂L/∂a‖ over the layers of a network of one width at step 0, on normal inputs.

    Args:
        initializer: `normal` draws from N(0, sd²), the others have a scale of their own and no use for sd.

    Returns:
        slope: of the natural logarithm, a layer towards the output, by least squares; below zero gradients explode on
            their way back, above zero they vanish. steepness: its size. predicted: for ReLU
            -log √(n Var(w) / 2), for linear ones without the 2 (He et al. 2015, section 2.2); there for these alone.
    """
    seeds = rng.integers(2**31, size=depth).tolist()
    kernels = [
        keras.initializers.RandomNormal(0.0, sd, seed) if initializer == "normal" else SCHEMES[initializer](seed=seed)
        for seed in seeds
    ]
    hidden = [keras.layers.Dense(width, activation, kernel_initializer=each, dtype="float64") for each in kernels]
    x, labels = rng.normal(size=(EXAMPLES, width)), rng.integers(0, CLASSES, EXAMPLES)
    logs = np.log(np.maximum(_norms(hidden, x, labels), np.finfo(float).tiny))
    slope = float(np.polyfit(np.arange(depth), logs, 1)[0])
    found = {"slope": slope, "steepness": abs(slope)}
    if halves := {"relu": 2, "linear": 1}.get(activation):
        variance = {"normal": sd**2, "he_normal": 2 / width}.get(initializer, 1 / width)
        found["predicted"] = -math.log(math.sqrt(width * variance / halves))
    return found


def variances(
    rng: np.random.Generator,
    initializer: Annotated[str, one_of("normal", *SCHEMES)] = "he_normal",
    sd: Annotated[float, number(above=0)] = 0.05,
    activation: Annotated[str, one_of("linear", "relu", "tanh", "sigmoid", "elu", "gelu", "silu")] = "relu",
    depth: Annotated[int, whole(2)] = 10,
    width: Annotated[int, whole(1)] = 128,
) -> dict[str, float]:
    """Variance of the pre-activations h, and of the gradients ∂L/∂h, layer by layer at step 0, on N(0, 1) inputs.

    The prediction is that of wide networks (Poole et al. 2016, eq. 3; Schoenholz et al. 2017, eq. 9): with n Var(w) = g
    and z from N(0, 1), Var(h) becomes g E[φ(√Var(h) z)²] from one layer to the next, and the gradient's variance
    g E[φ'(√Var(h) z)²] times itself on its way back. For ReLU both factors are g / 2 (He et al. 2015, eq. 9 and 14),
    for linear layers g, for tanh near g while signals are small.

    Args:
        initializer: `normal` draws from N(0, sd²), the others have a scale of their own and no use for sd.

    Returns:
        forward_gain, gradient_gain: the mean factor a layer, of the gradient's towards the input; predicted_…: as
            predicted; forward_off, gradient_off: how many powers of ten a layer's measured variance is off at most;
            forward__L, gradient__L, predicted_forward__L, predicted_gradient__L: of each layer L from 1, the variance
            as its power of ten, the gradient's over that of the last layer.
    """
    seeds = rng.integers(2**31, size=depth).tolist()
    draws = [
        keras.initializers.RandomNormal(0.0, sd, seed) if initializer == "normal" else SCHEMES[initializer](seed=seed)
        for seed in seeds
    ]
    kernels = [draw((width, width), dtype="float64") for draw in draws]
    phi = keras.activations.get(activation)
    x, labels = rng.normal(size=(EXAMPLES, width)), rng.integers(0, CLASSES, EXAMPLES)
    gain = width * {"normal": sd**2, "he_normal": 2 / width}.get(initializer, 1 / width)
    curves = dict(zip(("forward", "gradient"), _measured(kernels, phi, x, labels), strict=True))
    curves |= dict(zip(("predicted_forward", "predicted_gradient"), _wide(gain, phi, depth), strict=True))
    powers = {name: np.log10(np.maximum(curve, np.finfo(float).tiny)) for name, curve in curves.items()}
    found = {}
    for name, power in powers.items():
        towards = -1 if name.endswith("gradient") else 1
        found[f"{name}_gain"] = float(10 ** (towards * (power[-1] - power[0]) / (depth - 1)))
    for name in ("forward", "gradient"):
        found[f"{name}_off"] = float(np.abs(powers[name] - powers[f"predicted_{name}"]).max())
    layers = {
        f"{name}{SERIES}{n}": round(float(p), 4) for name, power in powers.items() for n, p in enumerate(power, 1)
    }
    return found | layers


def _measured(kernels, phi, x: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean squares of each layer's h, `(layers,)`; and of ∂L/∂h over the last layer's."""
    last = keras.layers.Dense(CLASSES, kernel_initializer=keras.initializers.GlorotNormal(seed=0), dtype="float64")
    with tf.GradientTape() as tape:
        signals, values = [], tf.constant(x)
        for kernel in kernels:
            signal = tf.matmul(values, kernel)
            tape.watch(signal)
            signals.append(signal)
            values = phi(signal)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, last(values))
    gradients = [tf.reduce_mean(tf.square(gradient)).numpy() for gradient in tape.gradient(loss, signals)]
    forward = [tf.reduce_mean(tf.square(signal)).numpy() for signal in signals]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.array(forward), np.nan_to_num(np.array(gradients) / gradients[-1])


def _wide(gain: float, phi, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """The same of a network that is as wide as it takes."""
    places, weights = np.polynomial.hermite_e.hermegauss(POINTS)
    weights = weights / weights.sum()
    forward, factors = [gain], []
    for _ in range(depth - 1):
        nodes = tf.constant(math.sqrt(forward[-1]) * places)
        with tf.GradientTape() as tape:
            tape.watch(nodes)
            values = phi(nodes)
        slopes = tape.gradient(values, nodes).numpy()
        forward.append(gain * float(weights @ values.numpy() ** 2))
        factors.append(gain * float(weights @ slopes**2))
    return np.array(forward), np.append(np.cumprod(factors[::-1])[::-1], 1.0)


def _norms(hidden: list[keras.layers.Layer], x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """‖∂L/∂a‖ for the activations a of each hidden layer, over a batch."""
    last = keras.layers.Dense(CLASSES, kernel_initializer=keras.initializers.GlorotNormal(seed=0), dtype="float64")
    with tf.GradientTape() as tape:
        activations, values = [], tf.constant(x)
        for layer in hidden:
            values = layer(values)
            tape.watch(values)
            activations.append(values)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, last(values))
    return np.array([float(tf.norm(gradient)) for gradient in tape.gradient(loss, activations)])
