"""Signs that a trial is going wrong, from its records: a function each, one table of them.

A sign takes a trial's course and says of each epoch, `(epochs,)`, whether it is seen there.
"""

from functools import cached_property

import numpy as np

from studies.contract import STATISTICS
from studies.record import EpochRecord, LayerRecord

TINY_UPDATE = 1e-5
LARGE_UPDATE = 0.1
"""Of ‖Δw‖/‖w‖ in a step: a hundredth and a hundred times the rule of thumb of 1e-3 (Karpathy 2015, CS231n, part 3)."""

SURE = 3.0
"""Standard deviations that an accuracy must be above chance."""

PATIENCE = 2
"""Epochs that a network is given to leave chance."""


class Course:
    """A trial's records as arrays, an entry an epoch from 0, the untrained network, on.

    Args:
        epochs, layers: its records.
        classes: number of classes.
        chance: the accuracy of guessing the commonest class of the training examples.
    """

    def __init__(self, epochs: list[EpochRecord], layers: list[LayerRecord], classes: int, chance: float):
        self.epochs, self.layers, self.classes, self.chance = epochs, layers, classes, chance

    def of(self, name: str) -> np.ndarray:
        """A field of the epoch records, `(epochs,)`."""
        return np.array([getattr(record, name) for record in self.epochs], float)

    @cached_property
    def steps(self) -> dict[str, np.ndarray]:
        """Gradient norm and update ratio of each kernel, `(epochs, kernels)`; NaN where they were not observed."""
        places = {name: STATISTICS.index(name) for name in ("gradient_norm", "update_ratio")}
        rows = {record.epoch: row for row, record in enumerate(self.epochs)}
        kernels = {}
        for record in self.layers:
            if record.tensor.endswith("kernel"):
                kernels.setdefault((record.layer, record.tensor), []).append(record)
        tables = {name: np.full((len(self.epochs), len(kernels)), np.nan) for name in places}
        for column, records in enumerate(kernels.values()):
            for record in records:
                for name, place in places.items():
                    tables[name][rows[record.epoch], column] = record.statistics[place]
        return tables


def no_gradient(course: Course) -> np.ndarray:
    """Some kernel's gradient was exactly zero in every step of the epoch: nothing reaches it."""
    return (course.steps["gradient_norm"] == 0).any(axis=1)


def tiny_updates(course: Course) -> np.ndarray:
    """The steps move no kernel by more than a hundred-thousandth of its norm."""
    ratios = course.steps["update_ratio"]
    tiny = ratios < TINY_UPDATE
    return np.asarray((tiny | np.isnan(ratios)).all(axis=1) & tiny.any(axis=1))


def large_updates(course: Course) -> np.ndarray:
    """The steps move some kernel by more than a tenth of its norm."""
    return np.asarray((course.steps["update_ratio"] > LARGE_UPDATE).any(axis=1))


def at_chance(course: Course) -> np.ndarray:
    """After two epochs the training accuracy is still one that guessing could have."""
    chance, seen = course.chance, np.diff(course.of("examples"), prepend=0)
    sd = np.sqrt(chance * (1 - chance) / np.maximum(seen, 1))
    return (course.of("running_accuracy") <= chance + SURE * sd) & (course.of("epoch") >= PATIENCE)


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
    """The validation loss is twice its lowest, with the training loss at its own lowest."""
    train, val = course.of("running_loss"), course.of("val_loss")
    return (val > 2 * np.fmin.accumulate(val)) & (train <= np.fmin.accumulate(train))


TABLE = {
    "no gradient": no_gradient,
    "tiny updates": tiny_updates,
    "large updates": large_updates,
    "at chance": at_chance,
    "worse than guessing": worse_than_guessing,
    "loss rises": loss_rises,
    "overfitting": overfitting,
}


def early_warnings(epochs: list[EpochRecord], layers: list[LayerRecord], classes: int, chance: float) -> str:
    """The signs that are seen, with their first epochs: `at chance from epoch 2; loss rises from epoch 5`.

    Args:
        classes, chance: as `Course` has them.
    """
    course, seen = Course(epochs, layers, classes, chance), []
    for name, sign in TABLE.items() if epochs and classes else ():
        with np.errstate(invalid="ignore"):
            there = np.flatnonzero(sign(course))
        if len(there):
            seen.append(f"{name} from epoch {epochs[there[0]].epoch}")
    return "; ".join(seen)
