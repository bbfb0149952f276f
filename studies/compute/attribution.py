"""Explanations of a network's answers by its weights, and whether they say what the answers hang on."""

from typing import Annotated

import numpy as np
from scipy.stats import rankdata

from studies.compute import networks
from studies.compute.networks import TABLES, Weights
from studies.factors.limits import one_of, whole


def deletion(
    rng: np.random.Generator,
    data: Annotated[str, one_of(*TABLES)] = "digits",
    depth: Annotated[int, whole(0)] = 1,
    explained_by: Annotated[str, one_of("own", "randomized")] = "own",
    width: Annotated[int, whole(1)] = 32,
    epochs: Annotated[int, whole(1)] = 30,
) -> dict[str, float]:
    """How much faster a ReLU network gives an answer up if its inputs are deleted by weight × input, not at random.

    Of each example held out, the inputs are set to their mean one after the other, those first that speak most for the
    class that the network gave; what is left of that class's probability, on the mean over all numbers of inputs
    deleted, is the area under the deletion curve (Samek et al. 2017; Petsiuk et al. 2018). Inputs are standardized.

    Args:
        depth: hidden layers; 0 is logistic regression.
        explained_by: the network's own weights, or others that are drawn anew (Adebayo et al. 2018), of which nothing
            is to be explained.

    Returns:
        gap: area in random order less that by weight × input; beyond_input: area by |input| alone, largest first, less
            the same, which is what the weights add; area, area_random, area_input; similarity: Spearman's correlation
            of the explanation with that by weights drawn anew, the mean over the examples; accuracy.
    """
    examples = networks.examples(rng, *TABLES[data](), standardized=True)
    sizes = (examples.x.shape[1], *[width] * depth, int(examples.y.max()) + 1)
    weights = networks.trained(rng, networks.drawn(rng, sizes), examples, epochs)
    x, other = examples.held_x, networks.drawn(rng, sizes)
    logits = networks.forward(weights, x)[-1]
    answers = logits.argmax(axis=1)
    own, randomized = (weight_times_input(each, x, answers) for each in (weights, other))
    area = area_under(weights, x, answers, own if explained_by == "own" else randomized)
    area_random = area_under(weights, x, answers, rng.random(x.shape))
    area_input = area_under(weights, x, answers, np.abs(x))
    return {
        "gap": area_random - area,
        "beyond_input": area_input - area,
        "area": area,
        "area_random": area_random,
        "area_input": area_input,
        "similarity": float(_correlated(own, randomized).mean()),
        "accuracy": networks.accuracy(weights, x, examples.held_y),
    }


def weight_times_input(weights: Weights, x: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The gradient of each example's logit of a class times its inputs, `(examples, inputs)`.

    Between ReLUs that do not switch a network is linear, and the gradient is its effective weight: the product of the
    kernels without the units that are off (Shrikumar et al. 2017, section 2).

    Args:
        x: `(examples, inputs)`.
        classes: one for each example.
    """
    *hidden, _ = networks.forward(weights, x)
    effective = weights[-2].T[classes]
    for kernel, before in zip(weights[-4::-2], hidden[::-1], strict=True):
        effective = (effective * (before > 0)) @ kernel.T
    return effective * x


def area_under(weights: Weights, x: np.ndarray, classes: np.ndarray, scores: np.ndarray) -> float:
    """The mean probability of the examples' classes while inputs are set to 0, those of the highest scores first.

    Args:
        scores: `(examples, inputs)`.

    Returns:
        the mean over 0, 1, … all inputs deleted, the ends by half: the area under the curve from 0 to 1.
    """
    places = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1)
    curve = [
        np.exp(networks.log_shares(networks.forward(weights, x * (places >= count))[-1]))[
            np.arange(len(x)), classes
        ].mean()
        for count in range(x.shape[1] + 1)
    ]
    return float(np.trapezoid(curve) / x.shape[1])


def _correlated(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each row with that of the other."""
    ranks = [rankdata(each, axis=1) for each in (values, others)]
    one, two = (each - each.mean(axis=1, keepdims=True) for each in ranks)
    return (one * two).sum(axis=1) / np.sqrt((one**2).sum(axis=1) * (two**2).sum(axis=1))
