"""How gradients pass through networks that have not been trained, and how they should by what is known of it."""

import math
from typing import Annotated

import keras
import numpy as np
import tensorflow as tf

from studies.factors.limits import number, one_of, whole

SCHEMES = {
    "glorot_normal": keras.initializers.GlorotNormal,
    "he_normal": keras.initializers.HeNormal,
    "lecun_normal": keras.initializers.LecunNormal,
    "orthogonal": keras.initializers.Orthogonal,
}
EXAMPLES, CLASSES = 256, 10


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
