"""What is observed of a model's weights: each trainable one, each gate of a recurrent kernel, running statistics."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from studies.contract import STATISTICS, STEP_STATISTICS, WEIGHT_STATISTICS
from studies.observe import spectra, weights
from studies.observe.spectra import Layout

GATES = {"LSTMCell": ("input", "forget", "cell", "output"), "GRUCell": ("update", "reset", "candidate")}
"""In the order in which Keras keeps them, side by side in a kernel's last axis."""

FRESH = 3.0
"""How many times as much of random numbers is mixed into where a power iteration begins as of where the last one ended:
else it may never leave a block, or stay on a direction that another one has overtaken. (Of 54 series of 300 × 300
matrices in which the second one overtakes, 18 were off by .2 to 3 % with a tenth, none with this.)"""

L2 = STATISTICS.index("l2")
NOT_FINITE = "not finite"
"""The warning of a row whose entries are not all finite: its statistics are missing."""


@dataclass(frozen=True)
class Tensor:
    """One row of the layers frame at each epoch.

    Attributes:
        layer, tensor: its names.
        place: of its entries, or of the kernel that it is a gate of, among all.
        shape: its own.
        gate: which of how many; None for a whole tensor.
        norms: its place among the gradients' and updates' squares; None if it has none.
        layout: as a matrix; None if it is none.
    """

    layer: str
    tensor: str
    place: slice
    shape: tuple[int, ...]
    gate: tuple[int, int] | None = None
    norms: int | None = None
    layout: Layout | None = None

    @property
    def name(self) -> tuple[str, str]:
        """Both names."""
        return self.layer, self.tensor

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Its entries in rows of all, `(epochs, n)`."""
        own = rows[:, self.place]
        if self.gate is None:
            return own
        number, count = self.gate
        return own.reshape(len(own), -1, count, self.shape[-1])[:, :, number].reshape(len(own), -1)


def tensors(model: Any) -> list[Tensor]:
    """Those of a built Keras model: its trainable weights in their order, gates, then running statistics.

    Entries are taken from all trainable weights end to end, `running(model)` after them; squares of kernels, which
    have more than one axis, in their order, those of gates after them.
    """
    layers = {id(v): layer for layer in _layers(model) for v in _own(layer)}
    gates, found, parts = gated(model), [], []
    end, kernels = 0, 0
    total = sum(len(v.shape) > 1 for v in model.trainable_variables)
    for variable in (*model.trainable_variables, *running(model)):
        shape, kernel = tuple(variable.shape), variable.trainable and len(variable.shape) > 1
        place = slice(end, end := end + math.prod(shape))
        layer, tensor = weight_name(variable, model)
        own, norms = layers.get(id(variable)), kernels if kernel else None
        matrix = spectra.layout(shape, own, tensor) if kernel and tensor != "bias" else None
        found.append(Tensor(layer, tensor, place, shape, norms=norms, layout=matrix))
        kernels += kernel
        names = gates.get(id(variable), ())
        for number, name in enumerate(names):
            of_gate = (*shape[:-1], shape[-1] // len(names))
            gate = number, len(names)
            count = total + len(parts)
            parts.append(Tensor(layer, f"{tensor}.{name}", place, of_gate, gate, count, spectra.layout(of_gate)))
    trained = len(model.trainable_variables)
    return [*found[:trained], *parts, *found[trained:]]


def weight_name(variable: Any, model: Any) -> tuple[str, str]:
    """A weight's layer and tensor: `dense_1`, `kernel`. Nested layers keep their path, the model's own name goes."""
    layer, _, tensor = variable.path.removeprefix(f"{model.name}/").rpartition("/")
    return layer, tensor


def running(model: Any) -> list:
    """A model's variables that follow training without a gradient, such as batch normalization's moving mean."""
    return [
        v
        for layer in _layers(model)
        for v in layer._non_trainable_variables
        if "float" in str(v.dtype) and len(v.shape)
    ]


def gated(model: Any) -> dict[int, tuple[str, ...]]:
    """The gates of each kernel that has some, by the variable's id."""
    return {
        id(kernel): GATES[type(cell).__name__]
        for cell in _layers(model)
        if type(cell).__name__ in GATES
        for kernel in (cell.kernel, cell.recurrent_kernel)
    }


class Watched:
    """Every statistic of a model's weights, of several epochs at once; knows where power iterations ended.

    Args:
        tensors: from `tensors`.
        start: all entries of the untrained network, `(entries,)`.
        rng: where power iterations begin.
    """

    def __init__(self, tensors: list[Tensor], start: np.ndarray, rng: np.random.Generator):
        self.tensors, self.start, self.ends = tensors, start, {}
        self.begins = {t.name: rng.standard_normal(t.layout.columns) for t in tensors if t.layout}

    def tables(
        self, rows: np.ndarray, squares: np.ndarray, charted: list[int] | None = None, full: list[int] | None = None
    ) -> list[tuple[Tensor, np.ndarray, dict[int, tuple[int, ...]]]]:
        """The statistics of each tensor.

        Args:
            rows: all entries at each epoch, `(epochs, entries)`.
            squares: mean squares of gradients and of updates, `(epochs, 2, squares)`; NaN where there were none.
            charted: the rows whose spectral norms and densities are taken as well.
            full: and those whose singular values are.

        Returns:
            of each tensor `(epochs, len(STATISTICS))`, and its densities by row.
        """
        found, norms = [], np.sqrt(squares)
        first = self.start[None]
        with spectra.one_thread(), np.errstate(divide="ignore", invalid="ignore"):
            for tensor in self.tensors:
                of_rows = weights.Rows(np.ascontiguousarray(tensor.of(rows)), tensor.of(first)[0])
                table = np.full((len(rows), len(STATISTICS)), np.nan)
                table[:, : len(WEIGHT_STATISTICS)] = weights.statistics(of_rows)
                if tensor.norms is not None:
                    steps = table[:, len(WEIGHT_STATISTICS) :][:, : len(STEP_STATISTICS)]
                    steps[:, :2] = norms[:, :, tensor.norms]
                    steps[:, 2] = norms[:, 1, tensor.norms] / table[:, L2]
                if tensor.layout:
                    self._add_spectra(tensor, of_rows.w, table, charted or [], full or [])
                found.append((tensor, table, weights.densities(of_rows, charted or [])))
        return found

    def _add_spectra(self, tensor, entries, table, charted, full) -> None:
        fresh, layout = self.begins[tensor.name], tensor.layout
        for row in charted:
            begin = self.ends.get(tensor.name)
            begin = fresh if begin is None else begin + FRESH / math.sqrt(len(fresh)) * fresh
            norm, rank, self.ends[tensor.name] = spectra.norms(layout.matrix(entries[row]), begin)
            table[row, NORM : NORM + 2] = norm, rank
        for row in full:
            for name, value in spectra.ends(layout.matrix(entries[row])).items():
                table[row, STATISTICS.index(name)] = value


NORM = STATISTICS.index("spectral_norm")


def _layers(model) -> list:
    return list(model._flatten_layers())


def _own(layer) -> list:
    return [*layer._trainable_variables, *layer._non_trainable_variables]
