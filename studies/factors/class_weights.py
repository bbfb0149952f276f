"""Weights by which the examples of a class count in the training loss, as Keras's `fit(class_weight=…)` has them."""

import numpy as np
import tensorflow as tf

from studies.factors.rules import Rule
from studies.record import StudyError, shown


def class_weights(node: dict, counts: np.ndarray) -> np.ndarray:
    """A weight for each class, `(classes,)`.

    `balanced`: n / (classes · n_c), so that the mean over the examples is 1 (King & Zeng 2001; scikit-learn's).
    `effective`: (1 − β) / (1 − β^n_c), scaled to a mean of 1 over the classes (Cui et al. 2019, section 4).

    Args:
        node: the config's `training`.
        counts: how many training examples each class has, by the labels trained by, `(classes,)`.

    Raises:
        StudyError: it is a list with another number of weights than there are classes.
    """
    chosen, there = node["class_weight"], counts > 0  # label noise may leave a class without an example
    if isinstance(chosen, list):
        if len(chosen) != len(counts):
            raise StudyError(
                f"training.class_weight={shown(chosen)}: expected {len(counts)} numbers, one for each class of the data"
            )
        return np.array(chosen, float)
    number = np.where(there, counts, 1).astype(float)
    if chosen == "effective":
        beta = node.get("class_weight_beta", 0.999)
        number = -np.expm1(number * np.log(beta)) if beta else np.ones(len(counts))
        weights = np.where(there, 1 / number, 0)
        return weights * there.sum() / weights.sum()
    return np.where(there, counts.sum() / (there.sum() * number), 0)


def rules(node: dict, counts: np.ndarray | None) -> list[Rule]:
    """What the config's `training` has done to the loss of an example.

    The weights are among what a step gets, not in its graph, so that one serves the splits of all seeds.
    """
    if node.get("class_weight") is None or counts is None:
        return []
    weights = class_weights(node, counts)
    return [Rule(weigh=_weight_of, draw=lambda rng, steps, batch: np.tile(weights, (steps, 1)))]


def _weight_of(targets, weights):
    """Of mixed targets the class with the largest share counts, as in Keras."""
    return tf.gather(weights, targets if targets.shape.rank == 1 else tf.argmax(targets, axis=-1))
