"""Learning-rate schedules: functions from a step to a fraction of the optimizer's rate.

A schedule takes the steps `(n,)`, counted from 0, the run's length and an epoch's, both in steps, and gives factors
`(n,)`. Every one can start with a linear warmup; its own course then takes the rest of the run. It may have, besides,
`momentum`, a function that gives each step's momentum, and `feedback`, one that takes the validation loss after each
epoch and gives a factor for the epochs to come.

A length is a share of the run (0.1), or epochs as a text ("5 epochs").
"""

import functools
import inspect
from collections.abc import Callable

import numpy as np

from studies.record import EPOCHS


def _warmed(schedule):
    """Give a schedule the argument `warmup`: the length over which the rate climbs, to be full at its last step."""

    @functools.wraps(schedule)
    def builder(*arguments, warmup: float | str = 0.0, **settings):
        course = schedule(*arguments, **settings)

        def factor(step, steps, epoch):
            climb = min(round(in_steps(warmup, steps, epoch)), steps)
            after = np.maximum(step - climb, 0)
            return np.where(step < climb, (step + 1) / max(1, climb), course(after, max(1, steps - climb), epoch))

        vars(factor).update(vars(course))
        return factor

    own = inspect.signature(schedule)
    warmup = inspect.signature(builder, follow_wrapped=False).parameters["warmup"]
    vars(builder)["__signature__"] = own.replace(parameters=[*own.parameters.values(), warmup])
    return builder


def in_steps(length: float | str, steps: int, epoch: int) -> float:
    """A length in steps, of a run of `steps` with `epoch` steps an epoch."""
    epochs = EPOCHS.fullmatch(str(length))
    return float(epochs[1]) * epoch if epochs else float(length) * steps


@_warmed
def constant() -> Callable:
    """The optimizer's own rate throughout."""
    return lambda step, steps, epoch: np.ones(len(step))


@_warmed
def step(factor: float = 0.1, at: tuple[float | str, ...] = (0.5, 0.75)) -> Callable:
    """Multiplied by `factor` at each of the lengths `at` (He et al. 2016, section 4.2)."""

    def course(step, steps, epoch):
        reached = [step >= round(in_steps(length, steps, epoch)) for length in at]
        return factor ** np.sum(reached, axis=0)

    return course


@_warmed
def exponential(final: float = 0.01) -> Callable:
    """final^t, with t from 0 to 1 over the run."""
    return lambda step, steps, epoch: final ** (step / steps)


@_warmed
def polynomial(power: float = 1.0, final: float = 0.0) -> Callable:
    """final + (1 − final) (1 − t)^power, with t from 0 to 1 over the run; a straight line at power 1."""
    return lambda step, steps, epoch: final + (1 - final) * (1 - step / steps) ** power


@_warmed
def inverse_sqrt(scale: float | str = "1 epoch") -> Callable:
    """1 / √(1 + step / scale), the decay of Vaswani et al. 2017 (section 5.3) with its warmup as scale."""
    return lambda step, steps, epoch: 1 / np.sqrt(1 + step / max(1, in_steps(scale, steps, epoch)))


@_warmed
def cosine(final: float = 0.0) -> Callable:
    """Half a cosine down to `final` (Loshchilov & Hutter 2017, eq. 5 without restarts)."""
    return lambda step, steps, epoch: _descent(step / steps, final)


@_warmed
def cosine_restarts(period: float | str = 0.1, growth: float = 2.0, decay: float = 1.0, final: float = 0.0) -> Callable:
    """Half cosines down to `final`, one after the other (Loshchilov & Hutter 2017, eq. 5).

    Args:
        period: length of the first.
        growth: how much longer each is than the one before.
        decay: how much lower each starts than the one before.
    """

    def course(step, steps, epoch):
        first = max(1.0, in_steps(period, steps, epoch))
        if growth == 1:
            number, within = np.divmod(step / first, 1)
        else:
            # The n-th starts at first · (growth^n − 1) / (growth − 1).
            number = np.floor(np.log1p(step / first * (growth - 1)) / np.log(growth) + 1e-9)
            within = (step / first - (growth**number - 1) / (growth - 1)) / growth**number
        return decay**number * _descent(np.clip(within, 0, 1), final)

    return course


@_warmed
def triangular(period: float | str = 0.2, low: float = 0.1) -> Callable:
    """Straight up from `low` and down again, once a `period` (Smith 2017, section 3.2)."""
    return lambda step, steps, epoch: low + (1 - low) * _triangle(step, in_steps(period, steps, epoch))[1]


@_warmed
def triangular2(period: float | str = 0.2, low: float = 0.1) -> Callable:
    """Triangular, with half the height in every period that follows (Smith 2017, section 3.2)."""

    def course(step, steps, epoch):
        number, height = _triangle(step, in_steps(period, steps, epoch))
        return low + (1 - low) * height / 2**number

    return course


@_warmed
def exp_range(period: float | str = 0.2, low: float = 0.1, final: float = 0.1) -> Callable:
    """Triangular, with a height that falls exponentially to `final` at the run's end (Smith 2017, section 3.2)."""

    def course(step, steps, epoch):
        _, height = _triangle(step, in_steps(period, steps, epoch))
        return low + (1 - low) * height * final ** (step / steps)

    return course


@_warmed
def plateau(factor: float = 0.1, patience: int = 5, threshold: float = 0.0001) -> Callable:
    """Multiplied by `factor` when the validation loss has not fallen by `threshold` for `patience` epochs."""
    lowest, waited = np.inf, 0

    def feedback(val_loss):
        nonlocal lowest, waited
        falls = val_loss < lowest - threshold
        lowest, waited = (val_loss, 0) if falls else (lowest, waited + 1)
        if waited < patience:
            return 1.0
        waited = 0
        return factor

    def course(step, steps, epoch):
        return np.ones(len(step))

    vars(course).update(feedback=feedback)
    return course


def one_cycle(
    peak: float | str = 0.3, start: float = 0.04, final: float = 0.0001, low_momentum: float | None = None
) -> Callable:
    """Half a cosine up from `start` to 1 at the length `peak`, half a cosine down to `final` (Smith & Topin 2019).

    Args:
        low_momentum: where the optimizer's momentum is when the rate is at its highest, down from and back to its own
            by half cosines; None: it stays.
    """

    def halves(step, steps, epoch, start, final):
        top = min(max(1, round(in_steps(peak, steps, epoch))), steps)
        down = _descent(np.clip((step - top) / max(1, steps - 1 - top), 0, 1), final)
        return np.where(step < top, _descent(1 - step / top, start), down)

    def course(step, steps, epoch):
        return halves(step, steps, epoch, start, final)

    def momentum(step, steps, epoch, high):
        return high - (high - low_momentum) * halves(step, steps, epoch, 0, 0)

    if low_momentum is not None:
        vars(course).update(momentum=momentum)
    return course


def range_test(low: float = 0.0001) -> Callable:
    """Exponentially up from `low` to 1 at the last step: the learning-rate range test (Smith 2017, section 3.3)."""
    return lambda step, steps, epoch: low ** (1 - step / max(1, steps - 1))


def _descent(t, final):
    return final + (1 - final) * (1 + np.cos(np.pi * t)) / 2


def _triangle(step, period):
    """The number of a step's period, and its height from 0 at the ends to 1 in the middle."""
    number, within = np.divmod(step / max(2.0, period), 1)
    return number, 1 - np.abs(2 * within - 1)
