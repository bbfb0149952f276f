"""Masks in the step: a weight that is gone is zero after every update, and nothing of the optimizer remembers it."""

from collections import Counter

import keras
import numpy as np
import tensorflow as tf


class Masks:
    """Which weights there are, 1 or 0 in a variable beside each that may go.

    Args:
        weights: the trainable variables that have one.
        optimizer: built; what it keeps for a weight, in the weight's shape, is masked with it.
        starts: what each of the optimizer's variables starts as: a tensor, or the weight that it is a copy of.
        movement: whether −Σ w · ∂L/∂w is added up in the step.
    """

    def __init__(self, weights: list, optimizer, starts: list, *, movement: bool = False):
        self.weights = weights
        self.kept = [tf.Variable(tf.ones(w.shape), trainable=False) for w in weights]
        self.places = {id(w): place for place, w in enumerate(weights)}
        self.moved = [tf.Variable(tf.zeros(w.shape), trainable=False) for w in weights] if movement else []
        self.slots = _slots(weights, optimizer, starts)

    @property
    def variables(self) -> list:
        """All state."""
        return [*self.kept, *self.moved]

    def reset(self) -> None:
        """All weights are there, and none has moved."""
        for variable in self.kept:
            variable.assign(tf.ones_like(variable))
        for variable in self.moved:
            variable.assign(tf.zeros_like(variable))

    def of(self, gradients: list, weights: list) -> list:
        """Gradients of some weights, zero where a weight is gone, so that norms and moments are of what is there."""
        return [
            g if g is None or id(w) not in self.places else _masked(g, self.kept[self.places[id(w)]])
            for g, w in zip(gradients, weights, strict=True)
        ]

    def watch(self, gradients: list, weights: list) -> None:
        """Add an update's gradients to the movement, before it is made."""
        for gradient, weight in zip(gradients, weights, strict=True):
            if self.moved and gradient is not None and id(weight) in self.places:
                self.moved[self.places[id(weight)]].assign_sub(weight.value * gradient)

    def hold(self) -> None:
        """Zero what is gone of the weights, and of what the optimizer makes of them: copies, averages; after an update.

        Other slots see gradients that are zero, and stay as they were when the weight went.
        """
        for weight, kept in zip(self.weights, self.kept, strict=True):
            weight.value.assign(_masked(weight.value, kept), read_value=False)
        for slot, place, start in self.slots:
            if start is None:
                slot.assign(_masked(slot.value, self.kept[place]))

    def set(self, kept: list[np.ndarray]) -> None:
        """Take masks, one for each of `weights`; slots of what is gone go back to their start."""
        for variable, mask in zip(self.kept, kept, strict=True):
            variable.assign(mask.astype(np.float32))
        self.hold()
        for slot, place, start in self.slots:
            if start is not None:
                slot.assign(tf.where(self.kept[place] > 0, slot.value, start))


def _masked(values, kept):
    """Zero where not kept, even of what is infinite or no number; `tf.where` takes 2.6 times as long without XLA."""
    return tf.math.multiply_no_nan(values, kept)


def _slots(weights, optimizer, starts) -> list[tuple]:
    """The optimizer's variables of a weight's shape: each with its weight's place, and its start if it is no copy.

    Keras names a slot for its weight's path.
    """
    places: dict[str, list[int]] = {}
    for place, weight in enumerate(weights):
        places.setdefault(_flat(weight), []).append(place)
    names = sorted(places, key=len, reverse=True)
    seen: Counter[str] = Counter()
    # Adafactor makes its velocity anew at every step, from the means of rows and columns.
    remade = isinstance(getattr(optimizer, "optimizer", optimizer), keras.optimizers.Adafactor)
    found = []
    for slot, start in zip(optimizer.variables, starts, strict=True):
        own = slot.path.rpartition("/")[2]
        name = next((name for name in names if own.startswith(f"{name}_")), None)
        if name is None:
            continue
        place = places[name][seen[own] % len(places[name])]  # of equal names in the order of the weights
        seen[own] += 1
        if slot.shape == weights[place].shape:
            copy = isinstance(start, keras.Variable) or own.endswith("_average") or remade
            found.append((slot, place, None if copy else start))
    return found


def _flat(weight) -> str:
    return weight.path.replace("/", "_")
