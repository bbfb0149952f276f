"""What a setting may be: checked for every trial before the first one trains, without importing Keras.

Keras and the builders check their arguments too, but only in a worker, seconds later.
"""

import math
from collections.abc import Callable

from studies.record import SEED_STREAMS, StudyError, listed


def number(low=-math.inf, high=math.inf, *, above=None, below=None) -> Callable:
    """A float, from `low` to `high` or strictly between `above` and `below`; a whole number becomes a float."""
    floor, ceiling = (low if above is None else above), (high if below is None else below)
    expected = "a number"
    if floor > -math.inf:
        expected += f" {'above' if above is not None else 'from'} {floor:g}"
    if ceiling < math.inf:
        expected += f" {'below' if below is not None else 'to'} {ceiling:g}"

    def settle(value):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(expected)
        if not floor <= value <= ceiling or value == above or value == below:
            raise ValueError(expected)
        return float(value)

    return settle


def whole(low: int) -> Callable:
    """An int of `low` or more."""

    def settle(value):
        if type(value) is not int or value < low:
            raise ValueError(f"a whole number of {low} or more")
        return value

    return settle


def flag(value):
    """True or false."""
    if type(value) is not bool:
        raise ValueError("true or false")
    return value


def one_of(*names) -> Callable:
    """One of some names."""

    def settle(value):
        if not any(value is name or (value == name and type(value) is type(name)) for name in names):
            raise ValueError(f"one of {listed(str(n).lower() if isinstance(n, bool) else n for n in names)}")
        return value

    return settle


def optional(rule: Callable) -> Callable:
    """Null, or what `rule` takes."""
    return lambda value: None if value is None else rule(value)


def many(rule: Callable) -> Callable:
    """A list of one or more of what `rule` takes."""

    def settle(value):
        if not isinstance(value, list) or not value:
            raise ValueError("a list")
        return [rule(item) for item in value]

    return settle


ACTIVATIONS = (
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "selu",
    "celu",
    "gelu",
    "glu",
    "silu",
    "swish",
    "mish",
    "hard_silu",
    "softplus",
    "softsign",
    "tanh",
    "sigmoid",
    "hard_sigmoid",
    "hard_tanh",
    "tanh_shrink",
    "soft_shrink",
    "hard_shrink",
    "sparse_plus",
    "squareplus",
    "exponential",
    "linear",
)

share = number(0, below=1)

LIMITS: dict[str, Callable] = {
    "data.test_fraction": optional(number(above=0, below=1)),
    "data.validation_fraction": number(above=0, below=1),
    "model.depth": whole(1),
    "model.width": whole(1),
    "model.filters": many(whole(1)),
    "model.kernel_size": whole(1),
    "model.dense": whole(1),
    "model.activation": one_of(*ACTIVATIONS),
    "model.batch_norm": flag,
    "model.dropout": share,
    "initializer.value": number(),
    "initializer.mean": number(),
    "initializer.stddev": number(above=0),
    "initializer.minval": number(),
    "initializer.maxval": number(),
    "initializer.scale": number(above=0),
    "initializer.gain": number(),
    "initializer.mode": one_of("fan_in", "fan_out", "fan_avg"),
    "initializer.distribution": one_of("truncated_normal", "untruncated_normal", "uniform"),
    "optimizer.learning_rate": number(above=0),
    "optimizer.momentum": share,
    "optimizer.nesterov": flag,
    "optimizer.rho": share,
    "optimizer.centered": flag,
    "optimizer.epsilon": number(above=0),
    "optimizer.beta_1": share,
    "optimizer.beta_2": share,
    "optimizer.amsgrad": flag,
    "optimizer.weight_decay": number(0),
    "schedule.warmup": share,
    "schedule.final": number(0, 1),
    "regularizer.l1": number(0),
    "regularizer.l2": number(0),
    "clipping.norm": number(above=0),
    "diagnostics.observe_every": whole(0),
    "training.epochs": whole(1),
    "training.batch_size": whole(1),
    "training.timeout": optional(number(above=0)),
    "engine.threads": whole(1),
    "engine.xla": one_of("auto", True, False),
    **{f"seeds.{name}": optional(whole(0)) for name in SEED_STREAMS},
}


def settled(config: dict, prefix: str = "") -> dict:
    """The config with every value in the type its setting has (`0` is `0.0` where a number is meant).

    Raises:
        StudyError: a value that its setting cannot have.
    """
    result = {}
    for name, value in config.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict):
            result[name] = settled(value, f"{path}.")
        elif path in LIMITS:
            try:
                result[name] = LIMITS[path](value)
            except ValueError as expected:
                raise StudyError(f"{path}={value}: expected {expected}") from None
        else:
            result[name] = value
    return result
