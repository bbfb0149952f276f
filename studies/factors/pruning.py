"""Pruning schedules: when a run's weights go, how many, and what the rest starts again from.

A schedule takes the run's epochs and gives a `Plan`: the cuts between them, each with the sparsity it leaves, a share
of the weights that may go. Which ones go is the criterion's affair, see `criteria`.

A length is a share of the run (0.5), or epochs as a text ("5 epochs"), to whole epochs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from studies.factors.schedules import in_steps
from studies.record import StudyError, shown

STRUCTURED = ("unit_l1", "unit_l2")
"""The criteria by which whole units go: channels of a convolution, neurons of a dense layer."""


@dataclass(frozen=True)
class Cut:
    """Weights go between two epochs.

    Attributes:
        after: epochs done before it.
        sparsity: the share of the prunable weights, or units, that is gone after it.
        back: whether what is left then starts again, see `Pruning.restart`.
    """

    after: int
    sparsity: float
    back: bool = False


@dataclass(frozen=True)
class Plan:
    """A run's cuts, and its course.

    Attributes:
        cuts: in their order.
        positions: which epoch of the learning rate's schedule each epoch of the run is, `(epochs,)`.
        length: the schedule's, in epochs.
        early: the epochs after which weights are kept, for those that go back to them.
    """

    cuts: tuple[Cut, ...]
    positions: np.ndarray
    length: int
    early: int = 0

    @property
    def settled(self) -> int:
        """The first epoch whose network has all the cuts behind it."""
        return max((cut.after + cut.back for cut in self.cuts), default=0)


@dataclass(frozen=True)
class Pruning:
    """How a network is pruned.

    Attributes:
        plan: takes the run's epochs; gives their plan.
        criterion: what a weight's place is by: one of `criteria.CRITERIA`, or a function as those are.
        scope: `global`: the weights of all layers compete; `layer`: each layer loses the same share.
        restart: what a cut goes `back` to: `rewind`: values of an early epoch, with the optimizer's state of it;
            `continue`: nothing but the learning rate; `reinitialize`: a fresh draw, after the last cut, and early
            values before.
        shuffled: the last cut leaves each layer as many weights, or units, as the criterion does, at random places.
        keep: layers that are not pruned, by their names or patterns of them (`conv_*`).
        keep_last: nor is the last one.
    """

    plan: Callable[[int], Plan]
    criterion: str | Callable
    scope: str = "global"
    restart: str = "rewind"
    shuffled: bool = False
    keep: tuple[str, ...] = ()
    keep_last: bool = True

    @property
    def structured(self) -> bool:
        """Whether whole units go."""
        return self.criterion in STRUCTURED


def straight(epochs: int, *cuts: Cut) -> Plan:
    """The plan of a run that goes on after each of its cuts."""
    return Plan(cuts, np.arange(epochs), epochs)


UNPRUNED = Pruning(straight, "magnitude")
"""Every weight stays."""


def one_shot(
    sparsity: float,
    criterion: str,
    scope: str = "global",
    at: float | str = 0.5,
    shuffled: bool = False,
    keep: tuple[str, ...] = (),
    keep_last: bool = True,
) -> Pruning:
    """All at once after the length `at`: 0 at initialization, 1 at the end; what is left of the run is fine-tuning."""

    def plan(epochs):
        return straight(epochs, Cut(_whole("at", at, epochs), sparsity))

    return Pruning(plan, criterion, scope, shuffled=shuffled, keep=tuple(keep), keep_last=keep_last)


def cubic(progress: np.ndarray, final: float) -> np.ndarray:
    """The sparsity at a share `progress` of the way from none to `final` (Zhu & Gupta 2017, eq. 1)."""
    return final * (1 - (1 - np.clip(progress, 0, 1)) ** 3)


def gradual(
    sparsity: float,
    criterion: str,
    scope: str = "global",
    begin: float | str = 0.2,
    end: float | str = 0.8,
    keep: tuple[str, ...] = (),
    keep_last: bool = True,
) -> Pruning:
    """More after every epoch between `begin` and `end`, many at first, few at last (Zhu & Gupta 2017, eq. 1)."""

    def plan(epochs):
        first, last = _whole("begin", begin, epochs), _whole("end", end, epochs)
        if first >= last:
            raise StudyError(
                f"pruning.begin={shown(begin)} and pruning.end={shown(end)} are {first} and {last} of {epochs} epochs: "
                f"expected an end after the beginning, such as 0.2 and 0.8 of a run of five epochs or more"
            )
        steps = np.arange(first + 1, last + 1)
        levels = cubic((steps - first) / (last - first), sparsity)
        return straight(epochs, *(Cut(int(e), float(s)) for e, s in zip(steps, levels, strict=True)))

    return Pruning(plan, criterion, scope, keep=tuple(keep), keep_last=keep_last)


def iterative(
    sparsity: float,
    criterion: str,
    scope: str = "global",
    rounds: int = 4,
    rewind: int = 0,
    restart: str = "rewind",
    shuffled: bool = False,
    keep: tuple[str, ...] = (),
    keep_last: bool = True,
) -> Pruning:
    """Train, cut, start again, `rounds` times (Frankle & Carbin 2019; with `rewind`, Frankle et al. 2020).

    Every cut takes the same share of what is left. A run of T epochs is followed by `rounds` of T − `rewind`, in
    each of which the learning rate takes the course that it took from epoch `rewind` on (Renda et al. 2020).

    Raises:
        StudyError: weights that are gone and stay zero would be shuffled in.
    """
    if shuffled and restart == "continue" and rounds > 1:
        raise StudyError(
            f"pruning.shuffled=true with pruning.restart=continue and pruning.rounds={rounds}: what earlier rounds "
            f"took has no values to go on with. Take pruning.rounds=1, or pruning.restart=rewind"
        )

    def plan(epochs):
        whole, rest = divmod(epochs + rounds * rewind, rounds + 1)
        if rest or whole <= rewind:
            least = max(whole, rewind + 1)
            fitting = [t + rounds * (t - rewind) for t in (least, least + 1)]
            raise StudyError(
                f"training.epochs={epochs} with pruning.rounds={rounds} and pruning.rewind={rewind}: expected a round "
                f"of T epochs and {rounds} more of T - {rewind}, such as training.epochs={fitting[0]} or {fitting[1]}"
            )
        again = whole - rewind
        cuts = (
            Cut(whole + number * again, 1 - (1 - sparsity) ** ((number + 1) / rounds), back=True)
            for number in range(rounds)
        )
        positions = np.concatenate([np.arange(whole), *[np.arange(rewind, whole)] * rounds])
        return Plan(tuple(cuts), positions, whole, rewind)

    return Pruning(plan, criterion, scope, restart, shuffled, tuple(keep), keep_last)


def _whole(name: str, length: float | str, epochs: int) -> int:
    """A length in whole epochs, of a run of `epochs`."""
    found = round(in_steps(length, epochs, 1))
    if found > epochs:
        raise StudyError(
            f"pruning.{name}={shown(length)}: expected {epochs} epochs at most, which is all of the training. Train "
            f"longer with training.epochs=NUMBER, or give a share of it, such as 0.5"
        )
    return found
