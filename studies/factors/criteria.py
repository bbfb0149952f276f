"""Pruning criteria: what a weight is worth, and the masks of those that are worth most.

A criterion takes a `Network` and gives an array of scores for each prunable kernel, of its shape; by units, `(units,)`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Network:
    """What a criterion may know of a network: its prunable kernels, and what is worked out only if it is asked for.

    Attributes:
        kernels: their values; zero where they are gone.
        gradients: gives the mean loss's gradient of each, on training examples, in inference mode.
        movement: gives −Σ w · ∂L/∂w of each over the updates so far.
        flow: takes a value for each; gives w · ∂R/∂w of each, R the summed output of the linear network of the
            absolute values for an input of ones.
        rng: what is random comes from it.
    """

    kernels: list[np.ndarray]
    gradients: Callable[[], list[np.ndarray]]
    movement: Callable[[], list[np.ndarray]]
    flow: Callable[[list[np.ndarray]], list[np.ndarray]]
    rng: np.random.Generator


def magnitude(network: Network) -> list[np.ndarray]:
    """|w| (Han et al. 2015)."""
    return [np.abs(kernel) for kernel in network.kernels]


def random(network: Network) -> list[np.ndarray]:
    """Any, with equal chance: the control."""
    return [network.rng.random(kernel.shape) for kernel in network.kernels]


def taylor(network: Network) -> list[np.ndarray]:
    """|w · ∂L/∂w|: the loss's change without the weight, to first order (Molchanov et al. 2019, eq. 8).

    At initialization it is SNIP, up to a factor that all share (Lee et al. 2019, eq. 6).
    """
    return [np.abs(w * g) for w, g in zip(network.kernels, network.gradients(), strict=True)]


def movement(network: Network) -> list[np.ndarray]:
    """−Σ w · ∂L/∂w: weights that were pulled towards zero go first (Sanh et al. 2020, eq. 3 with exact gradients).

    L is all that is trained by, penalties included.
    """
    return network.movement()


def synflow(network: Network) -> list[np.ndarray]:
    """|w| · ∂R/∂|w|: a weight's share of what flows through the network, without data (Tanaka et al. 2020, eq. 4)."""
    return network.flow(network.kernels)


def unit_l1(network: Network) -> list[np.ndarray]:
    """A unit's mean |w| over its incoming weights: in each layer the order of Li et al. 2017, who take their sum."""
    return [_columns(np.abs(kernel)).mean(axis=0) for kernel in network.kernels]


def unit_l2(network: Network) -> list[np.ndarray]:
    """A unit's root mean square of its incoming weights."""
    return [np.sqrt(np.square(_columns(kernel), dtype=float).mean(axis=0)) for kernel in network.kernels]


CRITERIA: dict[str, Callable[[Network], list[np.ndarray]]] = {
    "magnitude": magnitude,
    "random": random,
    "taylor": taylor,
    "snip": taylor,
    "movement": movement,
    "synflow": synflow,
    "unit_l1": unit_l1,
    "unit_l2": unit_l2,
}

ITERATIONS = {"synflow": 100}
"""Of a criterion whose scores change as weights go: one cut is so many, and no layer goes as a whole (Tanaka 2020)."""


def levels(before: float, after: float, iterations: int) -> list[float]:
    """Sparsities on the way from one to another, each leaving the same share (Tanaka et al. 2020, algorithm 1)."""
    ratio = (1 - after) / (1 - before)
    return [1 - (1 - before) * ratio ** (n / iterations) for n in range(1, iterations + 1)]


def select(
    scores: list[np.ndarray],
    kept: list[np.ndarray],
    sparsity: float,
    scope: str,
    rng: np.random.Generator,
    least: int = 0,
) -> list[np.ndarray]:
    """Masks of the highest scores among those kept, such that a share `sparsity` of all is gone.

    What is gone stays gone; what is not finite goes first.

    Args:
        kept: true where there is something to keep, a mask for each array of scores.
        scope: `global`, or `layer`: each array by itself.
        rng: which of equal scores stay comes from it, and nothing else.
        least: how many of each array stay whatever the sparsity.
    """
    if scope == "layer":
        pairs = zip(scores, kept, strict=True)
        return [mask for s, k in pairs for mask in _highest([s], [k], sparsity, rng, least)]
    return _highest(scores, kept, sparsity, rng, least)


def shuffled(kept: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Masks that keep as much of each array at random places."""
    return [rng.permutation(mask.ravel()).reshape(mask.shape) for mask in kept]


def _highest(scores, kept, sparsity, rng, least):
    there = np.concatenate([mask.ravel() for mask in kept])
    flat = np.concatenate([np.asarray(score, float).ravel() for score in scores])
    flat = np.where(there, np.where(np.isfinite(flat), flat, -np.finfo(float).max), -np.inf)
    ends = np.cumsum([mask.size for mask in kept])[:-1]
    if least:
        for part in np.split(flat, ends):  # views
            best = np.argsort(part)[-least:]
            part[best] = np.where(part[best] > -np.inf, np.inf, -np.inf)
    count = min(max(round((1 - sparsity) * flat.size), int(np.isposinf(flat).sum())), int(there.sum()))
    chosen = np.zeros(flat.size, bool)
    if count:
        limit = np.partition(flat, flat.size - count)[flat.size - count]
        chosen = flat > limit
        equal = np.flatnonzero(flat == limit)
        more = count - int(chosen.sum())
        chosen[equal if more == len(equal) else rng.choice(equal, more, replace=False)] = True
    return [part.reshape(mask.shape) for part, mask in zip(np.split(chosen, ends), kept, strict=True)]


def _columns(kernel):
    """A unit's incoming weights in a column."""
    return kernel.reshape(-1, kernel.shape[-1])
