"""Signs that a trial is going wrong, from its records: a function each, one table of them.

A sign of the network takes a trial's course and says of each epoch, `(epochs,)`, whether it is seen there. A sign of
layers takes the rows of one kind, kernels or outputs, and says so of each of them, `(epochs, rows)`. What was not
observed, NaN, shows no sign.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from studies.contract import STATISTICS
from studies.record import EpochRecord, LayerRecord

TINY_UPDATE = 1e-4
LARGE_UPDATE = 0.1
"""Of ‖Δw‖/‖w‖ in a step: a tenth and a hundred times the rule of thumb of 1e-3 (Karpathy 2015, CS231n, part 3)."""

FITTED = 0.95
"""Training accuracy from which on small steps are no sign: the gradient of a cross-entropy goes with what is left."""

ANNEALED = 0.1
"""Of the trial's highest rate: below it small steps are what the schedule asks for."""

SHRUNK = 1e-3
"""Of a layer's gradient norm to the last layer's, and its inverse: a factor of two in each of ten layers, which is the
slope, log 2 a layer, from which on propagation is called broken (Glorot & Bengio 2010; He et al. 2015, eq. 14)."""

MOST = 0.5
"""Of a layer's units: dead (Lu et al. 2019), or saturated (Glorot & Bengio 2010)."""

SURE = 3.0
"""Standard deviations that an accuracy must be above chance."""

PATIENCE = 2
"""Epochs that a network is given to leave chance."""

STABLE = 2.0
"""Rate times sharpness above which gradient descent leaves a quadratic's minimum (Cohen et al. 2021, section 2)."""

NAMED = 3
"""Layers that a text names one by one; of more it says how many."""


def stability(optimizer: dict) -> float:
    """Rate times sharpness above which an optimizer's steps grow on a quadratic; NaN where no one number holds.

    2 of gradient descent, 2 (1 + β) with momentum β, 2 (1 + β) / (1 + 2β) with Nesterov's (Cohen et al. 2021, appendix
    B); adaptive rules have none, for they change what is sharp.

    Args:
        optimizer: its node in a trial's config.
    """
    if optimizer.get("_target_", "").rpartition(".")[2] != "SGD":
        return float("nan")
    momentum = float(optimizer.get("momentum") or 0)
    limit = STABLE * (1 + momentum)
    return limit / (1 + 2 * momentum) if optimizer.get("nesterov") else limit


class Course:
    """A trial's records as arrays, an entry an epoch from 0, the untrained network, on.

    Args:
        epochs, layers: its records.
        classes: number of classes, 0 where there are none: then nothing is held against guessing.
        chance: the accuracy of guessing the commonest class of the training examples.
        stable: rate times sharpness that its optimizer bears, see `stability`.
    """

    def __init__(
        self, epochs: list[EpochRecord], layers: list[LayerRecord], classes: int, chance: float, stable: float = STABLE
    ):
        self.epochs, self.layers, self.classes, self.chance, self.stable = epochs, layers, classes, chance, stable

    def of(self, name: str) -> np.ndarray:
        """A field of the epoch records, `(epochs,)`."""
        return np.array([getattr(record, name) for record in self.epochs], float)

    @cached_property
    def row(self) -> dict[int, int]:
        """Epoch -> its place."""
        return {record.epoch: place for place, record in enumerate(self.epochs)}

    @cached_property
    def kernels(self) -> "Rows":
        """Those of all layers, the recurrent ones among them."""
        return Rows(self, [n for n, record in enumerate(self.layers) if record.tensor.endswith("kernel")])

    @cached_property
    def outputs(self) -> "Rows":
        """What layers give for the probe batch."""
        return Rows(self, [n for n, record in enumerate(self.layers) if record.tensor == "output"])

    @cached_property
    def places(self) -> dict[str, int]:
        """Layer -> its number among those with kernels, in the network's order, the one next to the input 1."""
        names = dict.fromkeys(layer for layer, _ in self.kernels.names)
        return {name: number for number, name in enumerate(names, start=1)}


class Rows:
    """The records of one kind as tables, a row an epoch, a column a tensor in the network's order.

    Args:
        course: whose they are.
        records: their places among the course's.
    """

    def __init__(self, course: Course, records: list[int]):
        self.course, self.records = course, np.array(records, int)
        some = [course.layers[n] for n in records]
        self.names = list(dict.fromkeys((record.layer, record.tensor) for record in some))
        column = {name: n for n, name in enumerate(self.names)}
        self.epoch = np.array([course.row[record.epoch] for record in some], int)
        self.column = np.array([column[record.layer, record.tensor] for record in some], int)
        self.values = np.array([record.statistics for record in some], float).reshape(-1, len(STATISTICS))

    def of(self, name: str) -> np.ndarray:
        """A statistic, `(epochs, tensors)`; NaN where it was not observed."""
        return self.table(self.values[:, STATISTICS.index(name)], np.nan)

    def table(self, values: np.ndarray, missing) -> np.ndarray:
        """Values of the records, `(records,)`, as `(epochs, tensors)`."""
        table = np.full((len(self.course.epochs), len(self.names)), missing)
        table[self.epoch, self.column] = values
        return table

    def each(self, table: np.ndarray) -> np.ndarray:
        """A table's values by record: the inverse of `table`."""
        return table[self.epoch, self.column]


def not_finite(rows: Rows) -> np.ndarray:
    """Some weights, or outputs, are no numbers any more: their row has no norm."""
    return rows.table(~np.isfinite(rows.values[:, STATISTICS.index("l2")]), False)


def no_gradient(rows: Rows) -> np.ndarray:
    """The gradient was exactly zero in every step of the epoch: nothing reaches these weights."""
    return rows.of("gradient_norm") == 0


def vanishing(rows: Rows) -> np.ndarray:
    """The gradient's norm is less than a thousandth of the last layer's: what is learned there does not get here."""
    norms = rows.of("gradient_norm")
    return (norms > 0) & (norms < SHRUNK * norms[:, -1:]) & np.isfinite(norms[:, -1:])


def exploding(rows: Rows) -> np.ndarray:
    """The gradient's norm is more than a thousand times the last layer's, or infinite."""
    norms = rows.of("gradient_norm")
    return ((norms > norms[:, -1:] / SHRUNK) & (norms[:, -1:] > 0)) | np.isinf(norms)


def dead_units(rows: Rows) -> np.ndarray:
    """More than half of the units give zero for every example of the probe batch; not of what pruning has made so."""
    return (rows.of("dead") > MOST) & ~(rows.course.of("sparsity") > 0)[:, None]


def saturated(rows: Rows) -> np.ndarray:
    """More than half of the activations are saturated; not of the last layer, whose own work it is to be sure."""
    found = rows.of("saturated") > MOST
    found[:, -1:] = False
    return found


def tiny_updates(rows: Rows) -> np.ndarray:
    """A step moves weights by less than 1e-4 of their norm, with the data not fitted and the rate not annealed."""
    course, rate = rows.course, rows.course.of("learning_rate")
    asked = (course.of("running_accuracy") < FITTED) & (rate >= ANNEALED * np.nanmax(rate, initial=0))
    return (rows.of("update_ratio") < TINY_UPDATE) & asked[:, None]


def large_updates(rows: Rows) -> np.ndarray:
    """A step moves these weights by more than a tenth of their norm."""
    return rows.of("update_ratio") > LARGE_UPDATE


def too_sharp(course: Course) -> np.ndarray:
    """The Hessian's top eigenvalue is above 2 / rate, or what `stability` has for 2: steps along it grow."""
    return course.of("sharpness") * course.of("learning_rate") > course.stable


def at_chance(course: Course) -> np.ndarray:
    """After two epochs the training accuracy is still one that guessing could have."""
    chance, seen = course.chance, np.diff(course.of("examples"), prepend=0)
    sd = np.sqrt(chance * (1 - chance) / np.maximum(seen, 1))
    given = course.of("epoch") - course.epochs[0].epoch
    return (course.of("running_accuracy") <= chance + SURE * sd) & (given >= PATIENCE)


def worse_than_guessing(course: Course) -> np.ndarray:
    """The validation loss is more than twice that of the uniform guess, log(classes), where training should begin.

    Of the untrained network: Karpathy 2015, CS231n, part 3, "look for correct loss at chance performance".
    """
    losses = course.of("val_loss")
    return np.isfinite(losses) & (losses > 2 * np.log(course.classes))


def loss_rises(course: Course) -> np.ndarray:
    """The training loss is a tenth above that of the first epoch."""
    losses = course.of("running_loss")
    return losses > 1.1 * losses[1] if len(losses) > 1 else np.zeros(len(losses), bool)


def overfitting(course: Course) -> np.ndarray:
    """The validation loss is twice its lowest, with the training loss at its own lowest.

    Taken as the median of three epochs: where little is left of a loss, it doubles at one epoch by chance.
    """
    train, val = course.of("running_loss"), course.of("val_loss")
    val = np.median(sliding_window_view(np.concatenate([val[:1], val[:1], val]), 3), axis=1)
    return (val > 2 * np.fmin.accumulate(val)) & (train <= np.fmin.accumulate(train))


LAYERS: dict[str, tuple[Callable[[Rows], np.ndarray], tuple[str, ...]]] = {
    "not finite": (not_finite, ("kernels", "outputs")),
    "no gradient": (no_gradient, ("kernels",)),
    "gradients vanish": (vanishing, ("kernels", "outputs")),
    "gradients explode": (exploding, ("kernels", "outputs")),
    "dead units": (dead_units, ("outputs",)),
    "saturated": (saturated, ("outputs",)),
    "tiny updates": (tiny_updates, ("kernels",)),
    "large updates": (large_updates, ("kernels",)),
}
"""Signs of layers, and the rows of a course that show them."""

NETWORK: dict[str, Callable[[Course], np.ndarray]] = {
    "too sharp for the rate": too_sharp,
    "at chance": at_chance,
    "worse than guessing": worse_than_guessing,
    "loss rises": loss_rises,
    "overfitting": overfitting,
}

GUESSING = (at_chance, worse_than_guessing)
"""Those of them that need classes."""

TABLE = (*LAYERS, *NETWORK)
"""Every sign, in the order in which a text has them."""


@dataclass(frozen=True)
class Warnings:
    """What was seen of a trial.

    Attributes:
        text: the signs, where and from which epoch on: `gradients vanish from layer 9 down from epoch 1; at chance from
            epoch 2`. Layers are those that show it at that epoch, by their numbers among those with kernels, the one
            next to the input being 1.
        layers: the layer records, each with the signs that it shows at its epoch: `gradients vanish; tiny updates`.
    """

    text: str
    layers: list[LayerRecord]


def early_warnings(
    epochs: list[EpochRecord], layers: list[LayerRecord], classes: int, chance: float, stable: float = STABLE
) -> Warnings:
    """The signs that a trial shows; of a pruned one from its last cut on, which is meant to make all worse at first.

    Args:
        classes, chance, stable: as `Course` has them.
    """
    if not epochs:
        return Warnings("", layers)
    first = next(place for place, record in enumerate(epochs) if not record.sparsity < epochs[-1].sparsity)
    if first:
        begins = epochs[first].epoch
        late = early_warnings(epochs[first:], [r for r in layers if r.epoch >= begins], classes, chance, stable)
        marked = iter(late.layers)
        return Warnings(late.text, [next(marked) if record.epoch >= begins else record for record in layers])
    course, seen = Course(epochs, layers, classes, chance, stable), []
    shown = np.zeros(len(layers), int)
    with np.errstate(invalid="ignore", over="ignore"):
        for bit, (name, (sign, kinds)) in enumerate(LAYERS.items()):
            found = [(rows, sign(rows)) for rows in (getattr(course, kind) for kind in kinds) if rows.names]
            for rows, table in found:
                shown[rows.records] |= rows.each(table).astype(int) << bit
            if there := _first([table for _, table in found]):
                where = {layer for rows, table in found for (layer, _), at in zip(rows.names, table[there[0]]) if at}
                seen.append(f"{name} {_where(course, where)} from epoch {epochs[there[0]].epoch}")
        for name, of_network in NETWORK.items():
            if not classes and of_network in GUESSING:
                continue
            if there := _first([of_network(course)[:, None]]):
                seen.append(f"{name} from epoch {epochs[there[0]].epoch}")
    return Warnings("; ".join(seen), [_marked(*pair) for pair in zip(layers, shown.tolist(), strict=True)])


def _marked(record: LayerRecord, signs: int) -> LayerRecord:
    """A record with its signs, a bit each, after what whoever made it has said, such as that it is not finite."""
    if not signs:
        return record
    said = [record.warning] * bool(record.warning)
    names = dict.fromkeys([*said, *(name for bit, name in enumerate(LAYERS) if signs >> bit & 1)])
    return replace(record, warning="; ".join(names))


def _first(tables: list[np.ndarray]) -> list[int]:
    """The place of the first epoch at which anything is seen, alone in a list; nothing if nothing is."""
    if not tables:
        return []
    return np.flatnonzero(np.column_stack(tables).any(axis=1))[:1].tolist()


def _where(course: Course, layers: set[str]) -> str:
    """Layers as a text: `from layer 9 down`, `in every layer`, `in layers 2, 5, 6 and 3 more`; or by their names."""
    count, numbers = len(course.places), sorted(course.places[layer] for layer in layers if layer in course.places)
    others = sorted(layers - course.places.keys())
    if numbers and not others and count > 1:
        if len(numbers) == count:
            return "in every layer"
        if len(numbers) > 1 and numbers[-1] == len(numbers):
            return f"from layer {numbers[-1]} down"
        if len(numbers) > 1 and numbers[-1] - numbers[0] + 1 == len(numbers) and numbers[-1] == count:
            return f"from layer {numbers[0]} up"
    names = [*map(str, numbers), *others]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"in layer{'s' * (len(names) > 1)} {', '.join(names[:NAMED])}{more}"
