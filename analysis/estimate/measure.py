"""What a column of numbers is: which way is better, between which bounds it lies, what a failure scores."""

import math
from dataclasses import dataclass

from studies.record import METRICS

AMOUNTS = ("sd", "l1", "l2", "max_norm", "distance", "cosine_distance", "gradient_norm", "update_norm", "update_ratio",
           "update_ratio_max", "update_ratio_q999",
           "spectral_norm", "stable_rank", "effective_rank", "condition_number", "parameters", "epochs", "classes",
           "examples", "learning_rate", "jacobian_max", "jacobian_median", "jacobian_min")  # fmt: skip
"""Columns and statistics, neither better nor worse, that are never below zero."""


SHARES = ("clipped", "sparsity", "parameters_kept", "saturated", "dead")
"""Columns and statistics, neither better nor worse, between 0 and 1."""


@dataclass(frozen=True)
class Measure:
    """A column that arms are compared by.

    Attributes:
        name: of the column.
        better: 1 where more is better, -1 where less is, 0 where neither is: then arms differ, and none is best.
        low, high: the bounds of its values.
        guessed: whether a guess has a score, which is what a failure gets; else it gets the worst that finished.
    """

    name: str
    better: int = 0
    low: float = -math.inf
    high: float = math.inf
    guessed: bool = False

    @property
    def share(self) -> bool:
        """Whether it lies between 0 and 1."""
        return (self.low, self.high) == (0, 1)

    @property
    def sign(self) -> int:
        """`better`, and 1 where neither is: for what must be ordered either way."""
        return self.better or 1


def measure(name: str) -> Measure:
    """The measure that a column's name stands for.

    More is better of what ends in `accuracy` or `macro_f1`; less of what ends in `loss`, of `seconds…` and `memory_mb`;
    nothing is known of others, such as parameters, a layer's statistic and a column of one's own. Accuracies and F1,
    `chance_…`, `SHARES` and a layer's `sparsity_…` are shares; losses, seconds, memory and `AMOUNTS` are never below
    zero.

    >>> measure("val_accuracy").better, measure("seconds_total").better, measure("dense.kernel.l2@3").better
    (1, -1, 0)
    """
    of_layer = name.count(".") >= 2
    last = name.partition("@")[0]
    last = last.rpartition(".")[2] if of_layer else last
    guessed = name in METRICS
    if not of_layer and last.endswith(("accuracy", "macro_f1")):
        return Measure(name, 1, 0, 1, guessed)
    if not of_layer and (last.endswith("loss") or last.startswith("seconds") or last == "memory_mb"):
        return Measure(name, -1, 0, math.inf, guessed)
    if last.startswith(("sparsity_", "chance_")) or last in SHARES:
        return Measure(name, 0, 0, 1)
    return Measure(name, 0, 0) if last in AMOUNTS else Measure(name)
