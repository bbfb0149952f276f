"""Identities that textbooks state, held against Keras and the engine at random shapes."""

import math
from collections.abc import Callable
from typing import Annotated

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from studies.factors.limits import flag, number, one_of, whole
from studies.factors.models import Positions, StandardizedConv2D, StandardizedDense
from studies.train.engine import Course, Engine

DOUBLE = {"dtype": "float64"}
STEP = 1e-5
"""Of a central difference: its error, h² and rounding / h, is least about the cube root of double precision."""

MOST_WEIGHTS = 12
"""Of each tensor whose gradient is checked one by one, drawn."""


def linear_map(rng: np.random.Generator, transposed: Annotated[bool, flag] = True) -> dict[str, float]:
    """Keras's dense layer against z = W x + b in NumPy, W of shape (m, n), at drawn m, n and 1 to 8 examples.

    Args:
        transposed: take Keras's kernel, which is (n, m), for the transposed of W, as it is; else for W itself, which
            only a square one can be.

    Returns:
        outputs, inputs: m and n; discrepancy: greatest difference in z, relative to the greatest |z|.
    """
    outputs, inputs, examples = (int(rng.integers(2, most)) for most in (65, 65, 9))
    outputs = outputs if transposed else inputs
    kernel, b, x = rng.normal(size=(inputs, outputs)), rng.normal(size=outputs), rng.normal(size=(examples, inputs))
    layer = layers.Dense(outputs, **DOUBLE)
    layer.build((None, inputs))
    layer.set_weights([kernel, b])
    w = kernel.T if transposed else kernel
    z = np.stack([[w[i] @ column + b[i] for i in range(outputs)] for column in x])
    return {"outputs": outputs, "inputs": inputs, "discrepancy": _relative(layer(x).numpy(), z)}


WEIGHTED: dict[str, Callable[[bool], layers.Layer]] = {
    "dense": lambda bias: layers.Dense(5, use_bias=bias, **DOUBLE),
    "convolution": lambda bias: layers.Conv2D(5, 3, use_bias=bias, **DOUBLE),
    "depthwise_convolution": lambda bias: layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=bias, **DOUBLE),
}
"""Layers of weights and biases; the last axis but one of their kernels is of the features that come in."""


def bias_offset(
    rng: np.random.Generator, layer: Annotated[str, one_of(*WEIGHTED)] = "dense", use_bias: Annotated[bool, flag] = True
) -> dict[str, float]:
    """What a layer of a kind gives, before its activation, for zeros and for one feature scaled, at drawn weights.

    Args:
        use_bias: false sets a layer without biases against those that are drawn for it.

    Returns:
        at_zero: greatest |z(0)|; without: the same of the layer without biases; firing: the share of units that a ReLU
        lets through at zero input. offset: greatest |z(0) - b|, scaling: greatest difference between z with one
        feature's weights times a drawn number and z with that feature times it, both relative to the greatest |z|;
        discrepancy: the greatest of offset, scaling and without.
    """
    features, examples = int(rng.integers(2, 9)), int(rng.integers(1, 5))
    shape = (features,) if layer == "dense" else (int(rng.integers(3, 7)), int(rng.integers(3, 7)), features)
    made, plain = WEIGHTED[layer](use_bias), WEIGHTED[layer](False)
    for each in (made, plain):
        each.build((None, *shape))
    kernel, x = rng.normal(size=made.kernel.shape), rng.normal(size=(examples, *shape))
    b = rng.normal(size=plain.compute_output_shape((None, *shape))[-1])
    weights, factor, feature = [kernel, b][: 1 + use_bias], float(rng.uniform(2, 5)), int(rng.integers(features))
    made.set_weights(weights)
    plain.set_weights([kernel])
    at_zero, without = made(np.zeros_like(x)).numpy(), plain(np.zeros_like(x)).numpy()
    offset = float(np.abs(at_zero - b).max() / np.abs(b).max())

    scaled, heavier = x.copy(), kernel.copy()
    scaled[..., feature] *= factor
    heavier[..., feature, :] *= factor
    by_feature = made(scaled).numpy()
    made.set_weights([heavier, *weights[1:]])
    scaling = _relative(made(x).numpy(), by_feature)
    return {
        "at_zero": float(np.abs(at_zero).max()),
        "without": float(np.abs(without).max()),
        "firing": float((at_zero > 0).mean()),
        "offset": offset,
        "scaling": scaling,
        "discrepancy": max(offset, scaling, float(np.abs(without).max())),
    }


def _relative(values: np.ndarray, others: np.ndarray) -> float:
    return float(np.abs(values - others).max() / np.abs(others).max())


def _images(kind: type[layers.Layer], **settings) -> Callable:
    return lambda rng: ((int(rng.integers(4, 7)), int(rng.integers(4, 7)), 2), kind(**settings, **DOUBLE))


def _convolution(kind: type[layers.Layer], filters: bool = True) -> Callable:
    def made(rng):
        shape = int(rng.integers(4, 8)), int(rng.integers(4, 8)), int(rng.integers(1, 4))
        settings = {"filters": int(rng.integers(1, 5))} if filters else {}
        return shape, kind(kernel_size=int(rng.integers(1, 4)), **settings, **DOUBLE)

    return made


def _vectors(kind: type[layers.Layer], **settings) -> Callable:
    return lambda rng: ((int(rng.integers(2, 9)),), kind(**settings, **DOUBLE))


def _recurrent(kind: type[layers.Layer]) -> Callable:
    def made(rng):
        return (int(rng.integers(2, 6)), int(rng.integers(1, 5))), kind(int(rng.integers(1, 5)), **DOUBLE)

    return made


class _SelfAttention(layers.Layer):
    def __init__(self, heads: int, width: int):
        super().__init__(**DOUBLE)
        self.attention = layers.MultiHeadAttention(heads, width, **DOUBLE)

    def build(self, shape):
        self.attention.build(shape, shape)

    def call(self, x):
        return self.attention(x, x)


LAYERS: dict[str, Callable] = {
    "dense": lambda rng: ((int(rng.integers(1, 9)),), layers.Dense(int(rng.integers(1, 9)), **DOUBLE)),
    "convolution": _convolution(layers.Conv2D),
    "depthwise_convolution": _convolution(layers.DepthwiseConv2D, filters=False),
    "separable_convolution": _convolution(layers.SeparableConv2D),
    "standardized_dense": lambda rng: (
        (int(rng.integers(4, 9)),),
        StandardizedDense(int(rng.integers(1, 9)), **DOUBLE),
    ),
    "standardized_convolution": _images(StandardizedConv2D, filters=3, kernel_size=3),
    "average_pooling": _images(layers.AveragePooling2D, pool_size=2),
    "batch_normalization": _images(layers.BatchNormalization),
    "layer_normalization": _vectors(layers.LayerNormalization),
    "group_normalization": _images(layers.GroupNormalization, groups=2),
    "rms_normalization": _vectors(layers.RMSNormalization),
    "simple_recurrent": _recurrent(layers.SimpleRNN),
    "gru": _recurrent(layers.GRU),
    "lstm": _recurrent(layers.LSTM),
    "attention": lambda rng: (
        (int(rng.integers(2, 6)), int(rng.integers(1, 5))),
        _SelfAttention(int(rng.integers(1, 4)), int(rng.integers(1, 5))),
    ),
    "positions": lambda rng: ((int(rng.integers(2, 6)), int(rng.integers(1, 5))), Positions(**DOUBLE)),
    "embedding": lambda rng: ((int(rng.integers(1, 6)),), layers.Embedding(7, int(rng.integers(1, 5)), **DOUBLE)),
}
"""From a generator to an input's shape, drawn, and a layer for it: all that the models of `studies.models` have."""


def chain_rule(
    rng: np.random.Generator, layer: Annotated[str, one_of(*LAYERS)], wrong_by: Annotated[float, number()] = 0.0
) -> dict[str, float]:
    """Backpropagation's gradient of a cross-entropy against central differences, in double precision.

    The network is the layer between two dense ones, with softplus, which has no kink, after each; so the errors pass
    through it to weights before it, but for an embedding, which has nothing before.

    Args:
        layer: its kind, at a drawn shape.
        wrong_by: the backward formula of softplus is wrong by this share.

    Returns:
        checked: weights; discrepancy: ‖g - g'‖ / max(‖g‖, ‖g'‖) over them.
    """
    model, x = _around(rng, layer, wrong_by)
    y = rng.integers(3, size=len(x))
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float64")
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape) / math.sqrt(max(variable.shape[0], 1)))

    def loss():
        return loss_of(y, model(x, training=True))

    with tf.GradientTape() as tape:
        value = loss()
    gradients = tape.gradient(value, [v.value for v in model.trainable_variables])
    compiled, exact, measured = tf.function(loss), [], []
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        gradient = tf.convert_to_tensor(gradient).numpy().ravel()
        start = variable.numpy()
        for place in rng.permutation(start.size)[:MOST_WEIGHTS]:
            ends = []
            for sign in (1, -1):
                moved = start.copy()
                moved.flat[place] += sign * STEP
                variable.assign(moved)
                ends.append(float(compiled()))
            variable.assign(start)
            exact.append(gradient[place])
            measured.append((ends[0] - ends[1]) / (2 * STEP))
    norms = np.linalg.norm(exact), np.linalg.norm(measured)
    return {"checked": len(exact), "discrepancy": float(np.linalg.norm(np.subtract(exact, measured)) / max(norms))}


def _around(rng: np.random.Generator, layer: str, wrong_by: float) -> tuple[keras.Model, np.ndarray]:
    """A small network with a layer of a kind in it, and four examples."""
    shape, kind = LAYERS[layer](rng)
    softplus = _softplus(wrong_by)
    inputs = keras.Input(shape, dtype="int32" if layer == "embedding" else "float64")
    x = inputs if layer == "embedding" else layers.Dense(shape[-1], activation=softplus, **DOUBLE)(inputs)
    x = layers.Activation(softplus, **DOUBLE)(kind(x))
    model = keras.Model(inputs, layers.Dense(3, **DOUBLE)(layers.Flatten(**DOUBLE)(x)))
    batch = (4, *shape)
    return model, rng.integers(7, size=batch) if layer == "embedding" else rng.normal(size=batch)


def _softplus(wrong_by: float) -> Callable:
    if not wrong_by:
        return tf.math.softplus

    @tf.custom_gradient
    def wrong(x):
        return tf.math.softplus(x), lambda upstream: upstream * tf.sigmoid(x) * (1 + wrong_by)

    return wrong


OPTIMIZERS: dict[str, Callable[[], keras.optimizers.Optimizer]] = {
    "sgd": lambda: keras.optimizers.SGD(),
    "momentum": lambda: keras.optimizers.SGD(momentum=0.9),
    "weight_decay": lambda: keras.optimizers.SGD(weight_decay=0.1),
    "rmsprop": lambda: keras.optimizers.RMSprop(),
    "adam": lambda: keras.optimizers.Adam(),
}


def update_rule(
    rng: np.random.Generator,
    optimizer: Annotated[str, one_of(*OPTIMIZERS)],
    steps: Annotated[int, whole(1)] = 2,
) -> dict[str, float]:
    """The engine's steps on a drawn network of one hidden layer against w ← w - η ∇J, with ∇J by hand in NumPy.

    Each step is held against the formula from where the engine was before it; η, drawn, is another at each.

    Returns:
        discrepancy: greatest difference in a weight, relative to the greatest |w|; update_discrepancy: of all updates,
        ‖Δw + η∇J‖ / ‖η∇J‖; both the worst of the steps.
    """
    inputs, hidden, classes, examples = (int(rng.integers(2, most)) for most in (17, 17, 6, 33))
    x = rng.normal(size=(examples, inputs)).astype(np.float32)
    y = rng.integers(classes, size=examples).astype(np.int32)
    rates = rng.uniform(0.05, 0.5, steps).astype(np.float32)
    model = keras.Sequential([keras.Input((inputs,)), layers.Dense(hidden, activation="tanh"), layers.Dense(classes)])
    start = [rng.normal(size=v.shape).astype(np.float32) for v in model.variables]
    engine = Engine(model, OPTIMIZERS[optimizer](), observe=False)
    data = tf.constant(x), tf.constant(y), tf.constant(1.0), tf.constant(0.0)
    engine.compile(*data, 1, examples)
    engine.reset(start)
    errors, update_errors, before = [], [], start
    for rate in rates:
        order = rng.permutation(examples)[None].astype(np.int32)
        engine.run_epoch(*data, Course(order, rate[None], np.zeros(1, np.float32), []))
        after = [v.numpy() for v in model.variables]
        wanted = -float(rate) * _flat(_gradient(before, x, y))
        made = _flat(after) - _flat(before)
        off = made - wanted
        errors.append(np.abs(off).max() / np.abs(_flat(before)).max())
        update_errors.append(np.linalg.norm(off) / np.linalg.norm(wanted))
        before = after
    return {"discrepancy": float(max(errors)), "update_discrepancy": float(max(update_errors))}


def _flat(tensors: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([tensor.astype(float).ravel() for tensor in tensors])


def _gradient(weights: list[np.ndarray], x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """∇J of the mean cross-entropy of a network of one tanh layer, by the chain rule (Rumelhart et al. 1986)."""
    w1, b1, w2, b2 = (w.astype(float) for w in weights)
    x = x.astype(float)
    h = np.tanh(x @ w1 + b1)
    logits = h @ w2 + b2
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    delta2 = (shares / shares.sum(axis=1, keepdims=True) - np.eye(len(b2))[y]) / len(x)
    delta1 = (delta2 @ w2.T) * (1 - h**2)
    return [x.T @ delta1, delta1.sum(axis=0), h.T @ delta2, delta2.sum(axis=0)]
