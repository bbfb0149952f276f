"""What the weights of an input say of how much it matters to a trained network, and what they do not."""

from typing import Annotated

import numpy as np
from scipy.stats import spearmanr

from studies.compute import networks
from studies.compute.networks import PENALTIES, TABLES, Weights
from studies.factors.limits import flag, number, one_of, whole

SHUFFLES = 5
"""Of every input, whose rises of the loss are averaged."""

SPAN = 100.0
"""Inputs are rescaled by up to so much either way."""


def magnitude(
    rng: np.random.Generator,
    data: Annotated[str, one_of(*TABLES)] = "digits",
    standardized: Annotated[bool, flag] = True,
    trained: Annotated[bool, flag] = True,
    width: Annotated[int, whole(1)] = 32,
    epochs: Annotated[int, whole(1)] = 30,
) -> dict[str, float]:
    """The rank correlation of inputs' weights with their importance in a ReLU network of one hidden layer.

    An input's weight is the norm of what leads from it, its importance the rise of the loss on examples held out when
    it is shuffled among them (Breiman 2001; Fisher et al. 2019). Two rescalings leave the function, and so every
    importance, as it is: a hidden unit's incoming weights times a and its outgoing ones over a (Dinh et al. 2017), and
    an input times c and its weights over c.

    Args:
        standardized: inputs of mean 0 and sd 1, else from 0 to 1.
        trained: false takes the network as it is drawn.

    Returns:
        correlation: Spearman's, of norms; times_sd: of norms times the inputs' sd; rescaled_units: of norms after
        the one unit that goes least with importance is made to outweigh the others; rescaled_inputs: after inputs are
        rescaled by drawn c; unchanged: greatest difference that both make to a logit, relative to the greatest;
        accuracy: on examples held out.
    """
    examples = networks.examples(rng, *TABLES[data](), standardized)
    weights = networks.drawn(rng, (examples.x.shape[1], width, int(examples.y.max()) + 1))
    if trained:
        weights = networks.trained(rng, weights, examples, epochs)
    matters = permutation_importance(rng, weights, examples.held_x, examples.held_y)
    kernel, sd = weights[0], examples.x.std(axis=0)
    one, other = outweighed(weights, matters), rescaled(rng, weights)
    return {
        "correlation": _ranked(np.linalg.norm(kernel, axis=1), matters),
        "times_sd": _ranked(np.linalg.norm(kernel, axis=1) * sd, matters),
        "rescaled_units": _ranked(np.linalg.norm(one[0], axis=1), matters),
        "rescaled_inputs": _ranked(np.linalg.norm(other[0][0], axis=1), matters),
        "unchanged": max(
            _apart(weights, examples.held_x, one, examples.held_x),
            _apart(weights, examples.held_x, other[0], examples.held_x * other[1]),
        ),
        "accuracy": networks.accuracy(weights, examples.held_x, examples.held_y),
    }


def rejection(
    rng: np.random.Generator,
    penalty: Annotated[str, one_of(*PENALTIES)] = "l1",
    strength: Annotated[float, number(0)] = 0.003,
    width: Annotated[int, whole(1)] = 64,
    epochs: Annotated[int, whole(1)] = 40,
) -> dict[str, float]:
    """Which inputs a network under a penalty drops: digits, and beside them as many shadows, see `data.digits`.

    An input is dropped if none of its weights is larger than a thousandth of the layer's largest.

    Returns:
        rejected, missed: shares of the shadows, and of the digits' pixels, that are dropped; apart: their difference;
        sparsity: of the first layer's weights at a thousandth of the largest; zeros: of those that are exactly 0;
        accuracy: on examples held out.
    """
    x, y = TABLES["shadowed_digits"]()
    places = np.arange(x.shape[1]).reshape(8, 16)
    examples = networks.examples(rng, x, y, standardized=False)
    shadow = np.isin(examples.inputs, places[:, 8:])
    weights = networks.drawn(rng, (len(shadow), width, int(y.max()) + 1))
    weights = networks.trained(rng, weights, examples, epochs, penalty=penalty, strength=strength)
    small = np.abs(weights[0]) <= np.abs(weights[0]).max() / 1000
    dropped = small.all(axis=1)
    rejected, missed = float(dropped[shadow].mean()), float(dropped[~shadow].mean())
    return {
        "rejected": rejected,
        "missed": missed,
        "apart": rejected - missed,
        "sparsity": float(small.mean()),
        "zeros": float((weights[0] == 0).mean()),
        "accuracy": networks.accuracy(weights, examples.held_x, examples.held_y),
    }


def permutation_importance(rng: np.random.Generator, weights: Weights, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """By input `(inputs,)` the rise of the mean cross-entropy when it is shuffled among the examples."""
    whole, rises = networks.loss(weights, x, y), np.zeros(x.shape[1])
    for place in range(x.shape[1]):
        for _ in range(SHUFFLES):
            shuffled = x.copy()
            shuffled[:, place] = rng.permutation(x[:, place])
            rises[place] += networks.loss(weights, shuffled, y) - whole
    return rises / SHUFFLES


def outweighed(weights: Weights, matters: np.ndarray) -> Weights:
    """The same function by other weights: the hidden unit whose weights go least with importance has almost all."""
    kernel, bias, out, *rest = weights
    goes = [_ranked(np.abs(unit), matters) for unit in kernel.T]
    factors = np.ones(kernel.shape[1])
    factors[int(np.argmin(goes))] = 1e4
    return [kernel * factors, bias * factors, out / factors[:, None], *rest]


def rescaled(rng: np.random.Generator, weights: Weights) -> tuple[Weights, np.ndarray]:
    """The same function of inputs `(inputs,)` times as large: the weights, and by how much."""
    factors = SPAN ** rng.uniform(-1, 1, len(weights[0]))
    return [weights[0] / factors[:, None], *weights[1:]], factors


def _apart(weights: Weights, x: np.ndarray, others: Weights, other_x: np.ndarray) -> float:
    logits = networks.forward(weights, x)[-1]
    return float(np.abs(logits - networks.forward(others, other_x)[-1]).max() / np.abs(logits).max())


def _ranked(values: np.ndarray, others: np.ndarray) -> float:
    return float(spearmanr(values, others).statistic)
