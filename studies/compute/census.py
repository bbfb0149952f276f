"""Counts: of what a network's parameters are, of how many there are, of how long they take to train, of how drawn."""

from collections import Counter
from types import FunctionType
from typing import Annotated

import keras
import numpy as np
from keras import layers

from studies.factors.limits import number, one_of, whole

WEIGHTS = ("kernel", "embeddings")
"""How Keras's names of what is multiplied with inputs end: `depthwise_kernel`, `recurrent_kernel` too."""

READINGS = ("three_hidden", "two_hidden", "no_classes", "one_hidden")
SECONDS_A_DAY = 86_400


def _toy(*kinds: layers.Layer, inputs: tuple[int, ...]) -> keras.Model:
    return keras.Sequential([keras.Input(inputs), *kinds])


TOYS = {
    "tiny_dense": lambda: _toy(layers.Dense(8), inputs=(3,)),
    "tiny_he": lambda: _toy(
        layers.Conv2D(4, 3, kernel_initializer="he_normal"),
        layers.Flatten(),
        layers.Dense(2, kernel_initializer="he_uniform"),
        inputs=(8, 8, 3),
    ),
}
"""Controls: a biased dense layer of fan-in 3, three quarters of whose parameters are weights; a network drawn by He."""

MODELS = (*(name for name, found in vars(keras.applications).items() if isinstance(found, FunctionType)), *TOYS)


def application(model: Annotated[str, one_of(*MODELS)]) -> dict[str, float]:
    """What the parameters of one of `keras.applications`, untrained, or of a toy, are.

    Returns:
        weights: kernels and embeddings; biases; norms: scales and offsets of normalization, and
        layers' scales (ConvNeXt's); statistics: what is not
        trained, moving means and variances; others; total: all of them. share: weights / total; share_trainable:
        weights / what is trained.
    """
    counts = Counter({"weights": 0, "biases": 0, "norms": 0, "statistics": 0, "others": 0})
    for variable in _built(model).variables:
        counts[_kind(variable)] += int(np.prod(variable.shape))
    total = counts.total()
    shares = {"share": counts["weights"] / total, "share_trainable": counts["weights"] / (total - counts["statistics"])}
    return {**counts, "total": total, **shares}


def _kind(variable: keras.Variable) -> str:
    if not variable.trainable:
        return "statistics"
    if variable.name.endswith(WEIGHTS):
        return "weights"
    if variable.name in ("gamma", "beta"):
        return "norms"
    return "biases" if variable.name.endswith("bias") else "others"


def _built(model: str) -> keras.Model:
    return TOYS[model]() if model in TOYS else getattr(keras.applications, model)(weights=None)


def initializers(model: Annotated[str, one_of(*MODELS)]) -> dict[str, float]:
    """By which initializers the kernels of one of `keras.applications`, or of a toy, are drawn.

    Returns:
        kernels: of convolutions and dense layers; he, glorot: how many are drawn so; share, share_glorot: of all.
    """
    found = [
        value
        for layer in _built(model)._flatten_layers(include_self=False)
        for name in ("kernel_initializer", "depthwise_initializer", "pointwise_initializer")
        if (value := getattr(layer, name, None)) is not None
    ]
    he, glorot = (sum(map(kind, found)) for kind in (_is_he, _is_glorot))
    shares = {"share": he / len(found), "share_glorot": glorot / len(found)}
    return {"kernels": len(found), "he": he, "glorot": glorot, **shares}


def _is_he(initializer) -> bool:
    """Of variance 2 / fan-in (He et al. 2015, eq. 10), by whatever class."""
    kinds = keras.initializers
    by_scale = isinstance(initializer, kinds.VarianceScaling) and (initializer.scale, initializer.mode) == (2, "fan_in")
    return by_scale or isinstance(initializer, kinds.HeNormal | kinds.HeUniform)


def _is_glorot(initializer) -> bool:
    """Of variance 2 / (fan-in + fan-out) (Glorot and Bengio 2010, eq. 12), by whatever class."""
    kinds = keras.initializers
    by_scale = isinstance(initializer, kinds.VarianceScaling) and (initializer.scale, initializer.mode) == (
        1,
        "fan_avg",
    )
    return by_scale or isinstance(initializer, kinds.GlorotNormal | kinds.GlorotUniform)


def dense(
    inputs: Annotated[int, whole(1)],
    reading: Annotated[str, one_of(*READINGS)],
    width: Annotated[int, whole(1)] = 1000,
    classes: Annotated[int, whole(1)] = 10,
) -> dict[str, float]:
    """Counts the parameters of a dense network of "three layers", built and counted by Keras.

    Args:
        inputs: of an example.
        reading: what three layers are: `three_hidden` of `width` each and the classes' after them; `two_hidden` and
            the classes' is the third; `no_classes`: three of `width`, the last gives the outputs; `one_hidden`: inputs,
            one of `width` and the classes'.
        width: neurons of a layer.
        classes: outputs.

    Returns:
        weights, biases, total; millions: of weights.
    """
    hidden = {"three_hidden": 3, "no_classes": 3, "two_hidden": 2, "one_hidden": 1}[reading]
    sizes = [width] * hidden + [classes] * (reading != "no_classes")
    variables = _toy(*(layers.Dense(size, kernel_initializer="zeros") for size in sizes), inputs=(inputs,)).variables
    weights = sum(int(np.prod(v.shape)) for v in variables if v.name == "kernel")
    biases = sum(int(np.prod(v.shape)) for v in variables if v.name == "bias")
    return {"weights": weights, "biases": biases, "total": weights + biases, "millions": weights / 1e6}


def transformer(
    blocks: Annotated[int, whole(1)],
    width: Annotated[int, whole(1)],
    vocabulary: Annotated[int, whole(1)],
    context: Annotated[int, whole(1)],
) -> dict[str, float]:
    """Counts the parameters of a GPT by its sizes (Brown et al. 2020, table 2.1); the output shares the embedding.

    Returns:
        weights: 12 blocks · width² + (vocabulary + context) · width (Kaplan et al. 2020, table 1); total: with all
        biases and normalizations, shape by shape; share: weights / total; billions: of weights.
    """
    weights = 12 * blocks * width**2 + (vocabulary + context) * width
    total = sum(int(np.prod(shape)) for shape in _shapes(blocks, width, vocabulary, context))
    return {"weights": weights, "total": total, "share": weights / total, "billions": weights / 1e9}


def _shapes(blocks: int, width: int, vocabulary: int, context: int) -> list[tuple[int, ...]]:
    """The shapes of a GPT-2's tensors (Radford et al. 2019): pre-norm blocks, hidden layers of four widths."""
    norm = [(width,), (width,)]
    attention = [(width, 3 * width), (3 * width,), (width, width), (width,)]
    hidden = [(width, 4 * width), (4 * width,), (4 * width, width), (width,)]
    return [(vocabulary, width), (context, width), *blocks * [*norm, *attention, *norm, *hidden], *norm]


def training_time(
    devices: Annotated[int, whole(1)],
    teraflops: Annotated[float, number(above=0)],
    tokens: Annotated[float, number(above=0)],
    blocks: Annotated[int, whole(1)],
    width: Annotated[int, whole(1)],
    vocabulary: Annotated[int, whole(1)],
    context: Annotated[int, whole(1)],
) -> dict[str, float]:
    """How long a GPT takes to train: 6 N D / (devices · sustained FLOP/s) (Kaplan et al. 2020, sec. 2.1).

    Args:
        devices: how many.
        teraflops: 10¹² operations a second that one sustains.
        tokens: D, that it is trained on.
        blocks, width, vocabulary, context: see `transformer`; N is its weights.

    Returns:
        billions: of weights; days; months: of 30.44 days; petaflop_days: operations in all.
    """
    weights = transformer(blocks, width, vocabulary, context)["weights"]
    operations = 6 * weights * tokens
    days = operations / (devices * teraflops * 1e12) / SECONDS_A_DAY
    work = operations / 1e15 / SECONDS_A_DAY
    return {"billions": weights / 1e9, "days": days, "months": days / (365.25 / 12), "petaflop_days": work}
