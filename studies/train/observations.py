"""What is observed of a trial besides its curves: its weights at some epochs, what goes through the network at fewer.

Looking draws from a generator of its own and leaves the network as it is: a trial trains alike whatever is observed.
"""

import math
from collections.abc import Iterator

import numpy as np

from studies.contract import STATISTICS, charted
from studies.observe import activations, spectra
from studies.observe.activations import Measured
from studies.observe.tensors import NOT_FINITE, Watched, running
from studies.record import SEED_STREAMS, LayerRecord, Trial
from studies.train.parts import Parts

OBSERVATION_BYTES = 64 * 2**20
"""Weights are kept for a joint observation of several epochs up to this size."""

PROBE_EXAMPLES, PROBE_BYTES = 256, 640 * 2**20
"""For what layers give; fewer of a network whose outputs take more, of which all are there at a time."""

LOSS_EXAMPLES, LOSS_BYTES = 512, 256 * 2**20
"""For how the loss lies around the network; the products with its Hessian take four times as much."""

RARE = 0.999
"""The quantile of the steps' updates that counts as extreme."""

GRADIENT = STATISTICS.index("gradient_norm")


class Observations:
    """The statistics of a trial's layers at some of its epochs, taken of several at once.

    Args:
        trial: the trial.
        parts: its own, at their start.
    """

    def __init__(self, trial: Trial, parts: Parts):
        node, self.key, self.engine, self.data = trial.config["diagnostics"], trial.key, parts.engine, parts.data
        self.every, self.ends = node["observe_every"], node["ends"]
        self.charted: set[int] = set()
        self.ratios: list[np.ndarray] = []
        self.given: list[LayerRecord] = []
        if not self.some:
            return
        self.rng = np.random.default_rng(np.random.SeedSequence(trial.seed, spawn_key=(len(SEED_STREAMS),)))
        self.order, self.many = self._examples(parts.examples.split.train)
        self.charted = charted([*filter(self.due, range(parts.epochs)), parts.epochs])
        self.running = running(self.engine.model)
        self.untrained = self._entries(self.engine.flat_weights())
        self.watched = Watched(self.engine.tensors, self.untrained, self.rng)
        self.kept: list[tuple] = []
        self.looks: list[tuple] = []

    def _examples(self, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which training examples are looked at, for what layers give and for how the loss lies."""
        x, _, scale, shift = self.data
        order, many = (
            self.rng.choice(train, min(count, len(train)), False).astype(np.int32)
            for count in (PROBE_EXAMPLES, LOSS_EXAMPLES)
        )
        each = max(1, self.engine.probe.bytes_each(x, scale, shift, order))
        return order[: max(1, PROBE_BYTES // each)], many[: max(1, LOSS_BYTES // each)]

    @property
    def some(self) -> bool:
        """Whether anything is observed."""
        return self.every > 0 or self.ends

    def due(self, epoch: int) -> bool:
        """Whether an epoch is one to observe, besides the first and the last."""
        return self.every > 0 and epoch % self.every == 0

    def hear(self, ratios) -> dict[str, float]:
        """Keep what an epoch's steps did, `Epoch.ratios`; gives what is of the epoch, by its columns.

        What is not finite ends the trial, and is left out: the steps before it say how it came to that.
        """
        if ratios is None:
            return {}
        found = ratios.numpy()
        self.ratios.append(found[np.isfinite(found) & (found > 0)])
        return {"update_ratio_max": float(self.ratios[-1].max(initial=0))}

    @property
    def extremes(self) -> dict[str, float]:
        """What the trial's steps come to, by the fields of `Result`."""
        every = np.concatenate(self.ratios) if self.ratios else np.empty(0)
        return {"update_ratio_q999": float(np.quantile(every, RARE))} if len(every) else {}

    def look(self, epoch: int, ended: bool) -> dict[str, float]:
        """Look at the network after an epoch, if it is one of those; gives what is of the epoch, by its columns.

        Args:
            ended: whether it is the last.
        """
        if not self.some or not (ended or epoch in self.charted):
            return {}
        x, _, scale, shift = self.data
        with spectra.one_thread():
            looked = self.engine.probe.look(x, scale, shift, self.order)
        gradients, found = None, {}
        if self.ends and (ended or epoch == 0):
            gradients = self.engine.probe.gradients(*self.data, self.order)
            found = self.engine.probe.surroundings(*self.data, self.many, self.rng)
            found |= self.engine.probe.slopes(looked, gradients)
        self.looks.append((epoch, looked, gradients))
        return {name: value if math.isfinite(value) else math.nan for name, value in found.items()}

    def take(self, epoch: int, ended: bool, weights=None, squares=None) -> Iterator[list[LayerRecord]]:
        """Take an epoch's weights if it is due or the last; gives the records of those kept when there are enough.

        Args:
            weights, squares: as `studies.train.engine.Epoch` has them; without them it is the untrained network's.
        """
        if not self.some:
            return
        if ended or epoch == 0 or self.due(epoch):
            entries = self.untrained if weights is None else self._entries(weights)
            self.kept.append((epoch, entries, math.nan if squares is None else squares.numpy()))
        if ended or sum(entries.nbytes for _, entries, _ in self.kept) > OBSERVATION_BYTES:
            records = self._records(ended)
            self.given += records
            self.kept, self.looks = [], []
            yield records

    def state(self) -> dict:
        """All that is remembered between epochs."""
        if not self.some:
            return {"ratios": self.ratios}
        return {
            "ratios": self.ratios,
            "random": self.rng.bit_generator.state,
            "kept": self.kept,
            "looks": [(epoch, [(m.row, m.sample) for m in looked], norms) for epoch, looked, norms in self.looks],
            "ends": [(*name, end) for name, end in self.watched.ends.items()],
            "named": [(r.epoch, r.layer, r.tensor, r.warning, r.density) for r in self.given],
            "statistics": np.array([r.statistics for r in self.given]),
        }

    def restore(self, state: dict) -> None:
        """Go back to what `state` gave."""
        self.ratios = state["ratios"]
        if not self.some:
            return
        self.rng.bit_generator.state = state["random"]
        self.kept = [tuple(entry) for entry in state["kept"]]
        self.looks = [(epoch, [Measured(*m) for m in looked], norms) for epoch, looked, norms in state["looks"]]
        self.watched.ends = {(layer, tensor): end for layer, tensor, end in state["ends"]}
        rows = zip(state["named"], state["statistics"].tolist(), strict=True)
        self.given = [
            LayerRecord(self.key, epoch, layer, tensor, tuple(row), warning, tuple(density))
            for (epoch, layer, tensor, warning, density), row in rows
        ]

    def _entries(self, weights) -> np.ndarray:
        """All that is observed of the weights, end to end."""
        follow = [v.numpy().reshape(-1) for v in self.running]
        return np.concatenate([weights.numpy(), *follow]) if follow else weights.numpy()

    def _records(self, ended) -> list[LayerRecord]:
        epochs, rows, squares = zip(*self.kept, strict=True)
        shape = 2, len(self.engine.kernels) + sum(self.engine.gates)
        norms = np.stack([np.broadcast_to(each, shape) for each in squares])
        looked = {epoch for epoch, *_ in self.looks}
        shown = [place for place, epoch in enumerate(epochs) if epoch in looked]
        full = [place for place in shown if self.ends and (epochs[place] == 0 or (ended and place == len(epochs) - 1))]
        records = [
            LayerRecord(self.key, epoch, tensor.layer, tensor.tensor, tuple(row), _flag(row), densities.get(place, ()))
            for tensor, table, densities in self.watched.tables(np.stack(rows), norms, shown, full)
            for place, (epoch, row) in enumerate(zip(epochs, table.tolist(), strict=True))
        ]
        return records + self._of_outputs()

    def _of_outputs(self) -> list[LayerRecord]:
        epochs, looked, gradients = zip(*self.looks, strict=True) if self.looks else ((), (), ())
        records = []
        for place, named in enumerate(self.engine.probe.named if epochs else ()):
            table = activations.statistics([measured[place] for measured in looked])
            table[:, GRADIENT] = [math.nan if norms is None else norms[place] for norms in gradients]
            rows = zip(epochs, table.tolist(), strict=True)
            records += [LayerRecord(self.key, e, named.layer, "output", tuple(row), _flag(row)) for e, row in rows]
        return records


def _flag(row) -> str:
    """The warning of a row that has no mean: only one that is not finite has none."""
    return NOT_FINITE if math.isnan(row[0]) else ""
