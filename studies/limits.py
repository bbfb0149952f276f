"""What a setting may be: checked for every trial before the first one trains, without importing Keras.

Keras and the builders check their arguments too, but only in a worker, seconds later.
"""

import math
import sys
from collections.abc import Callable

from studies.record import EPOCHS, SEED_STREAMS, StudyError, listed, shown


def number(low=-math.inf, high=math.inf, *, above=None, below=None) -> Callable:
    """A float, from `low` to `high` or strictly between `above` and `below`; a whole number becomes a float."""
    floor, ceiling = (low if above is None else above), (high if below is None else below)
    expected = "a number"
    if floor > -math.inf:
        expected += f" {'above' if above is not None else 'from'} {floor:g}"
    if ceiling < math.inf:
        expected += f" {'below' if below is not None else 'to'} {ceiling:g}"

    def settle(value):
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
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


def text(value):
    """Words, not empty."""
    if not isinstance(value, str) or not value:
        raise ValueError("a text")
    return value


def prefix(value):
    """The name of a package, with its dot."""
    if not isinstance(value, str) or not value.strip(".") or not value.endswith("."):
        raise ValueError("prefixes that end in a dot, such as [mypackage.]")
    return value


def flag(value):
    """True or false."""
    if type(value) is not bool:
        raise ValueError("true or false")
    return value


def one_of(*names) -> Callable:
    """One of some names."""

    def settle(value):
        if not any(value is name or (value == name and type(value) is type(name)) for name in names):
            raise ValueError(f"one of {listed(names)}")
        return value

    return settle


def length(value):
    """A length of a schedule: a share of the run, or a number of epochs as a text."""
    if isinstance(value, str) and EPOCHS.fullmatch(value):
        return value
    try:
        return share(value)
    except ValueError:
        raise ValueError("a share of the run from 0 to below 1, or epochs, such as '5 epochs'") from None


def optional(rule: Callable) -> Callable:
    """Null, or what `rule` takes."""
    return lambda value: None if value is None else rule(value)


def many(rule: Callable, least: int = 1) -> Callable:
    """A list of `least` or more of what `rule` takes."""

    def settle(value):
        if not isinstance(value, list) or len(value) < least:
            raise ValueError(f"a list of {least} or more")
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
    "data.name": one_of("mnist", "fashion_mnist", "cifar10", "cifar100"),
    "data.path": optional(text),
    "data.root": optional(text),
    "data.test_fraction": optional(number(above=0, below=1)),
    "data.validation_fraction": number(above=0, below=1),
    "data.image_size": optional(whole(1)),
    "data.train_size": optional(whole(1)),
    "data.label_noise": number(0, 1),
    "data.imbalance": number(1),
    "data.standardize": flag,
    "data.flip": flag,
    "data.crop": whole(0),
    "data.cutout": whole(0),
    "model.depth": whole(1),
    "model.width": whole(1),
    "model.filters": many(whole(1)),
    "model.kernel_size": whole(1),
    "model.padding": one_of("same", "valid"),
    "model.dense": whole(1),
    "model.activation": one_of(*ACTIVATIONS),
    "model.normalization": one_of("none", "batch", "layer", "group", "rms", "weight"),
    "model.spatial_dropout": share,
    "model.zero_last": flag,
    "model.shortcut": flag,
    "model.blocks": whole(1),
    "model.cell": one_of("simple", "gru", "lstm"),
    "model.patch": whole(1),
    "model.heads": whole(1),
    "model.weights": one_of(None),
    "model.classifier_activation": optional(one_of("softmax")),
    "model.dropout": share,
    "initializer.value": number(),
    "initializer.mean": number(),
    "initializer.stddev": number(above=0),
    "initializer.minval": number(),
    "initializer.maxval": number(),
    "initializer.scale": number(above=0),
    "initializer.gain": number(),
    "initializer.initializer": one_of(
        "glorot_normal",
        "glorot_uniform",
        "he_normal",
        "he_uniform",
        "lecun_normal",
        "lecun_uniform",
        "orthogonal",
    ),
    "initializer.connections": whole(1),
    "initializer.tolerance": number(above=0),
    "initializer.trials": whole(1),
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
    "optimizer.initial_accumulator_value": number(0),
    "optimizer.beta_2_decay": number(high=0),
    "optimizer.epsilon_1": number(above=0),
    "optimizer.epsilon_2": number(above=0),
    "optimizer.clip_threshold": number(above=0),
    "optimizer.relative_step": flag,
    "optimizer.learning_rate_power": number(high=0),
    "optimizer.l1_regularization_strength": number(0),
    "optimizer.l2_regularization_strength": number(0),
    "optimizer.ns_steps": whole(1),
    "optimizer.rms_rate": number(above=0),
    "optimizer.adam_lr_ratio": number(above=0),
    "optimizer.adam_beta_1": share,
    "optimizer.adam_beta_2": share,
    "optimizer.adam_weight_decay": number(0),
    "optimizer.warmup_steps": whole(0),
    "optimizer.sam": number(0),
    "optimizer.lookahead": whole(0),
    "optimizer.slow_step": number(above=0, high=1),
    "optimizer.ema": share,
    "schedule.warmup": length,
    "schedule.final": number(0, 1),
    "schedule.factor": number(above=0),
    "schedule.at": many(length),
    "schedule.power": number(above=0),
    "schedule.scale": length,
    "schedule.period": length,
    "schedule.growth": number(1),
    "schedule.decay": number(0, 1),
    "schedule.low": number(0, 1),
    "schedule.peak": length,
    "schedule.start": number(0, 1),
    "schedule.low_momentum": optional(share),
    "schedule.patience": whole(1),
    "schedule.threshold": number(0),
    "regularizer.l1": number(0),
    "regularizer.l2": number(0),
    "regularizer.factor": number(0),
    "regularizer.decay": number(0),
    "regularizer.limit": number(above=0),
    "regularizer.smoothing": share,
    "regularizer.alpha": number(above=0),
    "regularizer.eta": number(0),
    "regularizer.gamma": number(0),
    "clipping.norm": number(above=0),
    "clipping.limit": number(above=0),
    "clipping.ratio": number(above=0),
    "clipping.epsilon": number(above=0),
    "diagnostics.observe_every": whole(0),
    "training.epochs": whole(1),
    "training.batch_size": whole(1),
    "training.early_stopping": optional(whole(1)),
    "training.timeout": optional(number(above=0)),
    "engine.threads": whole(1),
    "engine.xla": one_of("auto", True, False),
    **{f"seeds.{name}": optional(whole(0)) for name in SEED_STREAMS},
    "executor.workers": optional(whole(1)),
    "tracking.root": text,
    "targets.allow": many(prefix, least=0),
    "seed": optional(whole(0)),
    "plan": flag,
}

PLAIN = ("diagnostics", "training", "engine", "seeds", "tracking", "targets")
"""The parts that no `_target_` takes: they have the settings listed here, all of them and no others."""

REQUIRED = (
    "data.validation_fraction",
    "data.test_fraction",
    "data.train_size",
    "data.label_noise",
    "data.imbalance",
    "data.standardize",
    "data.flip",
    "data.crop",
    "data.cutout",
    "optimizer.learning_rate",
    "optimizer.sam",
    "optimizer.lookahead",
    "optimizer.slow_step",
    "optimizer.ema",
)
"""What is read of parts that have a `_target_`, besides what it takes."""


def settled(config: dict) -> dict:
    """The config with every value in the type its setting has (`0` is `0.0` where a number is meant).

    Raises:
        StudyError: a setting that is unknown or missing, or a value that it cannot have.
    """
    result = _settled(config, "")
    for part, node in config.items():
        if part in PLAIN or isinstance(node, dict) and "_target_" in node:
            _check_settings(part, node)
        elif isinstance(node, dict) and node:
            raise StudyError(
                f"{part} is none and takes no settings, but was given {listed(node)}: choose an option, {part}=NAME"
            )
    return result


def _check_settings(part, node):
    known = [path.partition(".")[2] for path in LIMITS if path.startswith(f"{part}.")]
    if not isinstance(node, dict):
        raise StudyError(
            f"{part}={shown(node)}: expected the settings {listed(known)}, such as {part}.{known[0]}=VALUE"
        )
    for name in node if part in PLAIN else ():
        if name not in known:
            raise StudyError(f"{part}.{name}={shown(node[name])}: there is no such setting; {part} has {listed(known)}")
    for name in known:
        if name not in node and (part in PLAIN or f"{part}.{name}" in REQUIRED):
            raise StudyError(f"{part}.{name} is missing: give it a value, {part}.{name}=VALUE")


def _settled(node, prefix):
    result = {}
    for name, value in node.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict) and path not in LIMITS:
            result[name] = _settled(value, f"{path}.")
        elif path in LIMITS:
            try:
                result[name] = LIMITS[path](value)
            except ValueError as expected:
                raise StudyError(f"{path}={shown(value)}: expected {expected}") from None
        elif isinstance(value, float) and not math.isfinite(value):
            raise StudyError(f"{path}={value}: expected a finite number")
        else:
            result[name] = value
    return result
