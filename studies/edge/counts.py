"""What a network weighs: its parameters, and the operations of one example."""

from dataclasses import dataclass

import keras
import numpy as np

from studies.factors.models import work


@dataclass(frozen=True)
class Counts:
    """Of one network.

    Attributes:
        parameters: all of its weights, with biases and what normalization has, trained or not.
        kept: those of them that are not zero.
        flops: operations of one example, two for each multiply-add of a kernel's weight; what is done without a kernel
            (biases, activations, pooling, normalization) is not counted.
        effective: the same, of the weights that are not zero: what hardware would do that skips zeros.
    """

    parameters: int
    kept: int
    flops: int
    effective: int


def counts(model: keras.Model) -> Counts:
    """Count a model's parameters and operations, with the weights that it has now."""
    every, some = work(model), work(model, nonzero)
    return Counts(
        sum(int(np.prod(v.shape)) for v in model.weights),
        sum(map(nonzero, model.weights)),
        2 * (every.dense + every.convolution),
        2 * (some.dense + some.convolution),
    )


def nonzero(variable: keras.Variable) -> int:
    """How many of a weight's entries are not zero."""
    return int(np.count_nonzero(variable.numpy()))
