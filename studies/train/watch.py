"""What is observed of any Keras model between the epochs of its `fit`, as `observations` has it of a trial."""

import itertools
import math
import re
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.utils.naming import to_snake_case

from studies.observe import activations, spectra
from studies.observe.tensors import NOT_FINITE, Watched, running, tensors
from studies.record import LayerRecord, StudyError

OBSERVATION_BYTES = 64 * 2**20
"""Weights are kept for a joint observation of several epochs up to this size."""


class Watch:
    """The statistics of a model's layers at some epochs, taken of several at once; the model stays as it is.

    Args:
        model: one that has its weights, as they are before training.
        probe: a batch of its inputs, None for no look at what layers give.
        named: whether the user named the probe, and has to hear that it does not fit.
        full: whether singular values are taken of the first and the last epoch kept.

    Attributes:
        shape: of what the model gives for the probe; None if that is not known, or of several parts.

    Raises:
        StudyError: the model does not take the probe that the user named.
    """

    def __init__(self, model: keras.Model, probe: Any, named: bool, full: bool = False):
        self.model, self.probe, self.full = model, probe, full
        self.shape: tuple[int, ...] | None = None
        self.begun = False
        self.weights, self.running = list(model.trainable_variables), running(model)
        self.numbers = renumbered(model)
        found = tensors(model)
        names = unique((self._layer(each.layer), each.tensor) for each in found)
        found = [replace(each, layer=layer) for each, (layer, _) in zip(found, names, strict=True)]
        self.watched = Watched(found, self._entries(), np.random.default_rng(0))
        self.outputs = None if probe is None else activations.Outputs(model)
        self.looks: dict[str, list[tuple[int, activations.Measured]]] = {}
        self.kept: list[tuple[int, np.ndarray, Any]] = []
        self.latest: tuple[int, np.ndarray, Any] | None = None
        self.shown: set[int] = set()
        self.records: list[LayerRecord] = []
        try:
            self.untrained = self._measured()
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            if named:
                raise StudyError(f"probe: the model does not take it ({reason}): expected a batch of inputs") from error
            print(f"note: what layers give is not recorded ({reason}): give probe=, a batch of inputs", file=sys.stderr)
            self.outputs, self.untrained = None, []

    def take(self, epoch: int, squares: np.ndarray | float = math.nan, *, keep: bool, look: bool) -> None:
        """Take the network as it is after an epoch.

        Args:
            squares: of its steps, as `studies.train.meter.Taken` has them.
            keep: whether its weights are observed; those of the last epoch are.
            look: whether what layers give, spectra and densities are, too.
        """
        self.latest = epoch, self._entries(), squares
        if look:
            self._look(epoch)
        if keep or look:
            self._keep_latest()
            if sum(entries.nbytes for _, entries, _ in self.kept) > OBSERVATION_BYTES:
                latest = self.kept.pop()  # which may turn out to be the last
                self._observe(ended=False)
                self.kept.append(latest)

    def look_at_last(self) -> None:
        """Look at the last epoch taken, if nobody knew then that it was the last and the network is still as it was."""
        last = self.latest or (self.kept[-1] if self.kept else None)
        if last is None or last[0] in self.shown:
            return
        if np.array_equal(last[1], self._entries(), equal_nan=True):
            self._look(last[0])
        elif self.outputs:
            print(
                f"note: weights were changed after epoch {last[0]}: what layers gave is not recorded", file=sys.stderr
            )

    def ended(self) -> list[LayerRecord]:
        """All records; no more are taken."""
        self._keep_latest()
        self.shown.update(epoch for epoch, *_ in self.kept[-1:])
        self._observe(ended=True)
        for layer, looks in self.looks.items():
            epochs, measured = zip(*looks, strict=True)
            self._add(layer, "output", epochs, activations.statistics(list(measured)), {})
        return self.records

    def _look(self, epoch: int) -> None:
        found = self._measured() if self.shown else self.untrained
        self.shown.add(epoch)
        for layer, measured in found:
            self.looks.setdefault(layer, []).append((epoch, measured))

    def _keep_latest(self) -> None:
        if self.latest:
            self.kept.append(self.latest)
            self.latest = None

    def _observe(self, ended: bool) -> None:
        """Make records of what is kept.

        Args:
            ended: whether it has the last epoch.
        """
        if not self.kept:
            return
        ends = {0} if not self.begun else set()
        ends |= {len(self.kept) - 1} if ended else set()
        self.begun, full = True, sorted(ends) if self.full else []
        epochs, entries, squares = zip(*self.kept, strict=True)
        self.kept = []
        count = sum(tensor.norms is not None for tensor in self.watched.tensors)
        norms = np.stack([np.broadcast_to(each, (2, count)) for each in squares])
        shown = [place for place, epoch in enumerate(epochs) if epoch in self.shown]
        for tensor, table, densities in self.watched.tables(np.stack(entries), norms, shown, full):
            self._add(tensor.layer, tensor.tensor, epochs, table, densities)

    def _add(self, layer: str, tensor: str, epochs, table: np.ndarray, densities: dict) -> None:
        for place, (epoch, row) in enumerate(zip(epochs, table.tolist(), strict=True)):
            flag = NOT_FINITE if math.isnan(row[0]) else ""  # a row that has no mean
            self.records.append(LayerRecord("", epoch, layer, tensor, tuple(row), flag, densities.get(place, ())))

    def _entries(self) -> np.ndarray:
        """All weights and running statistics end to end, `(entries,)` float32."""
        return np.concatenate([_flat(v) for v in (*self.weights, *self.running)])

    def _measured(self) -> list[tuple[str, activations.Measured]]:
        """What each layer gives for the probe batch, in inference mode."""
        if self.outputs is None:
            return []
        variables = [v.value for v in self.model.non_trainable_variables]
        before, found = [variable.read_value() for variable in variables], []
        try:
            with spectra.one_thread():
                with self.outputs.heard(found):
                    given = self.model(self.probe, training=False)
                measured = [activations.measured(_float32(each.tensor), each.bounds) for each in found]
        finally:
            for variable, value in zip(variables, before, strict=True):
                variable.assign(value)
        self.shape = tuple(given.shape) if hasattr(given, "shape") else None
        names = unique((self._layer(each.layer), "output") for each in found)
        return [(layer, of) for (layer, _), of in zip(names, measured, strict=True)]

    def _layer(self, path: str) -> str:
        """A layer's name; a weight of the model itself is in a layer of the model's name."""
        return "/".join(self.numbers.get(part, part) for part in path.split("/")) or self.model.name


def unique(names: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Layers and tensors, those of one name told apart by a number: `dense`, `dense_1`."""
    found: dict[tuple[str, str], None] = {}
    for layer, tensor in names:
        others = (f"{layer}_{number}" if number else layer for number in itertools.count())
        found[next(other for other in others if (other, tensor) not in found), tensor] = None
    return list(found)


def renumbered(model: keras.Model) -> dict[str, str]:
    """Names that Keras gave to layers -> what it would have called them in a process's first model.

    It counts on from model to model, so that the same layer is `dense_1` in one fit and `dense_3` in the next.
    """
    given = global_state.get_global_attribute("object_name_uids") or {}
    counts: Counter[str] = Counter()
    found = {}
    for layer in model._flatten_layers(include_self=False):
        base, _, number = layer.name.rpartition("_") if re.search(r"_\d+$", layer.name) else (layer.name, "", "0")
        if base == to_snake_case(type(layer).__name__) and int(number) < given.get(base, 0):
            found[layer.name] = f"{base}_{counts[base]}" if counts[base] else base
            counts[base] += 1
    return found


def _flat(variable) -> np.ndarray:
    return np.ravel(variable.numpy()).astype(np.float32, copy=False)


def _float32(tensor) -> np.ndarray:
    return tf.cast(tensor, tf.float32).numpy()
