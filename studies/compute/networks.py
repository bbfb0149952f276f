"""Small networks of dense layers for trials that look into what was trained: by the engine, then as arrays."""

import functools
import itertools
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from studies.factors import data, regularizers
from studies.factors.rules import Rule
from studies.train.engine import Course, Engine
from studies.train.steps import Rules

BATCH = 32
HELD_OUT = 1 / 3

PENALTIES: dict[str, Callable[[float], list[Rule]]] = {
    "none": lambda strength: [],
    "l1": lambda strength: [Rule(penalty=keras.regularizers.L1(strength))],
    "l2": lambda strength: [Rule(penalty=keras.regularizers.L2(strength))],
    "proximal_l1": lambda strength: [regularizers.proximal_l1(strength)],
}
"""Of every kernel."""

Table = tuple[np.ndarray, np.ndarray]
"""x `(examples, inputs)`, y `(examples,)`."""

Weights = list[np.ndarray]
"""Kernel `(inputs, outputs)` and bias `(outputs,)` of each layer, from the inputs; ReLU between them, logits last."""


class Examples(NamedTuple):
    """What a network is trained on, x `(examples, inputs)` and y `(examples,)`, and what is held out from it.

    Attributes:
        inputs: `(inputs,)`, which columns of the table they are.
    """

    x: np.ndarray
    y: np.ndarray
    held_x: np.ndarray
    held_y: np.ndarray
    inputs: np.ndarray


def _digits(shadows: bool = False) -> Table:
    found = data.digits(shadows=shadows)
    return found.x.reshape(len(found.x), -1).astype(float), found.y


def _table(name: str) -> Table:
    """A table inside scikit-learn whose last column is the class."""
    [package] = find_spec("sklearn").submodule_search_locations  # type: ignore[union-attr, misc]
    table = np.loadtxt(Path(package) / "datasets" / "data" / f"{name}.csv", delimiter=",", skiprows=1)
    return table[:, :-1], table[:, -1].astype(np.int32)


def _planted() -> Table:
    """1,000 examples of 16 independent normal inputs, of which the class is a linear function: each says less."""
    x = np.random.default_rng(0).normal(size=(1000, 16))
    return x, (x @ np.linspace(1, 0, 16) > 0).astype(np.int32)


TABLES: dict[str, Callable[[], Table]] = {
    "digits": _digits,
    "shadowed_digits": functools.partial(_digits, shadows=True),
    "breast_cancer": functools.partial(_table, "breast_cancer"),
    "planted": _planted,
}
"""Real data inside scikit-learn: 1,797 × 64 pixels, the same with 64 to reject, 569 × 30 measurements; and one table
whose answer is known."""


def examples(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, standardized: bool) -> Examples:
    """A table shuffled, a third of it held out, every input by the examples to train on: 0 to 1, or mean 0 and sd 1.

    Inputs that are the same in the whole table are left out, whatever the shuffle, so that all shuffles share a graph.
    """
    kept, order = np.ptp(x, axis=0) > 0, rng.permutation(len(x))
    x, y, held = x[order][:, kept], y[order], round(HELD_OUT * len(x))
    rest = x[held:]
    shift, scale = (rest.mean(axis=0), rest.std(axis=0)) if standardized else (rest.min(axis=0), np.ptp(rest, axis=0))
    x = (x - shift) / np.where(scale > 0, scale, 1)
    return Examples(x[held:], y[held:], x[:held], y[:held], np.flatnonzero(kept))


def drawn(rng: np.random.Generator, sizes: Sequence[int]) -> Weights:
    """A network's start, by its layers' sizes from inputs to classes: N(0, 2 / inputs), biases 0 (He et al. 2015)."""
    weights = []
    for inputs, outputs in itertools.pairwise(sizes):
        weights += [rng.normal(0, np.sqrt(2 / inputs), (inputs, outputs)), np.zeros(outputs)]
    return weights


def trained(
    rng: np.random.Generator,
    start: Weights,
    examples: Examples,
    epochs: int,
    rate: float = 0.05,
    penalty: str = "none",
    strength: float = 0.0,
) -> Weights:
    """A network after so many epochs of SGD with momentum .9 under a cosine schedule, by the engine.

    Args:
        start: its weights before, see `drawn`.
        rate: at the first step.
        penalty, strength: one of `PENALTIES`.
    """
    tensors = (
        tf.constant(examples.x.astype(np.float32)),
        tf.constant(examples.y.astype(np.int32)),
        tf.constant(1.0),
        tf.constant(0.0),
    )
    steps = len(examples.x) // BATCH
    sizes = (start[0].shape[0], *(bias.shape[0] for bias in start[1::2]))
    engine = _engine(sizes, len(examples.x), penalty, strength)
    engine.reset([each.astype(np.float32) for each in start])
    rates = rate * (1 + np.cos(np.pi * np.arange(epochs * steps) / (epochs * steps))) / 2
    none = [np.zeros((steps, 0), np.float32) for _ in engine.rules.rules]
    for each in np.split(rates.astype(np.float32), epochs):
        order = rng.permutation(len(examples.x))[: steps * BATCH].reshape(steps, BATCH).astype(np.int32)
        engine.run_epoch(*tensors, Course(order, each, np.zeros(steps, np.float32), none))
    return [v.numpy().astype(float) for v in engine.model.variables]


@functools.lru_cache(maxsize=8)
def _engine(sizes: tuple[int, ...], count: int, penalty: str, strength: float) -> Engine:
    """A compiled engine for `count` examples: of trials that differ in the seed alone it is the same."""
    inputs, *hidden, classes = sizes
    layers = [keras.layers.Dense(width, "relu") for width in hidden] + [keras.layers.Dense(classes)]
    model = keras.Sequential([keras.Input((inputs,)), *layers])
    engine = Engine(model, keras.optimizers.SGD(momentum=0.9), Rules(PENALTIES[penalty](strength)), observe=False)
    shapes = tf.zeros((count, inputs)), tf.zeros(count, tf.int32), tf.constant(1.0), tf.constant(0.0)
    engine.compile(*shapes, count // BATCH, BATCH)
    return engine


def forward(weights: Weights, x: np.ndarray) -> list[np.ndarray]:
    """What each layer gives for `(examples, inputs)` before its activation, the logits last."""
    outputs = []
    for place in range(0, len(weights), 2):
        x = x @ weights[place] + weights[place + 1]
        outputs.append(x)
        x = np.maximum(x, 0)
    return outputs


def log_shares(logits: np.ndarray) -> np.ndarray:
    """The logarithm of the softmax over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def loss(weights: Weights, x: np.ndarray, y: np.ndarray) -> float:
    """The mean cross-entropy."""
    return float(-log_shares(forward(weights, x)[-1])[np.arange(len(y)), y].mean())


def accuracy(weights: Weights, x: np.ndarray, y: np.ndarray) -> float:
    """The share of examples whose greatest logit is their class's."""
    return float((forward(weights, x)[-1].argmax(axis=1) == y).mean())
