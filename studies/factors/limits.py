"""What a setting may be: checked for every trial before the first one trains, without importing Keras.

Keras and the builders check their arguments too, but only in a worker, seconds later.
"""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from studies.factors import data
from studies.record import EPOCHS, LATER, SEED_STREAMS, StudyError, identity_parts, is_computed, listed, meant, shown


@dataclass(frozen=True, eq=False)
class Rule:
    """What a setting may be: called, it gives a value in its own type, or raises ValueError with what is expected.

    Attributes:
        schema: the same for editors, as far as JSON Schema can say it.
    """

    settle: Callable
    schema: dict

    def __call__(self, value: object) -> Any:
        """The value in its own type."""
        return self.settle(value)


def schema_of(rule: Callable) -> dict:
    """A rule for editors; of one that says nothing for them whatever there is."""
    return rule.schema if isinstance(rule, Rule) else PLAIN_SCHEMAS.get(rule, {})


def number(
    low: float = -math.inf, high: float = math.inf, *, above: float | None = None, below: float | None = None
) -> Callable:
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
        if not floor <= value <= ceiling or value in (above, below):
            raise ValueError(expected)
        return float(value)

    bounds = {"minimum": low, "maximum": high, "exclusiveMinimum": above, "exclusiveMaximum": below}
    given = {name: bound for name, bound in bounds.items() if bound is not None and math.isfinite(bound)}
    return Rule(settle, {"type": "number", **given})


def whole(low: int) -> Callable:
    """An int of `low` or more."""

    def settle(value):
        if type(value) is not int or value < low:
            raise ValueError(f"a whole number of {low} or more")
        return value

    return Rule(settle, {"type": "integer", "minimum": low})


def text(value: object) -> str:
    """Words, not empty."""
    if not isinstance(value, str) or not value:
        raise ValueError("a text")
    return value


def prefix(value: object) -> str:
    """The name of a package, with its dot."""
    if not isinstance(value, str) or not value.strip(".") or not value.endswith("."):
        raise ValueError("prefixes that end in a dot, such as [mypackage.]")
    return value


def flag(value: object) -> bool:
    """True or false."""
    if type(value) is not bool:
        raise ValueError("true or false")
    return value


def one_of(*names: object) -> Callable:
    """One of some names."""

    def settle(value):
        if not any(value is name or (value == name and type(value) is type(name)) for name in names):
            near = meant(value, names)
            raise ValueError(f"{near}expected one of {listed(names)}" if near else f"one of {listed(names)}")
        return value

    return Rule(settle, {"enum": list(names)})


def length(value: object) -> float | str:
    """A length of a schedule: a share of the run, or a number of epochs as a text."""
    if isinstance(value, str) and EPOCHS.fullmatch(value):
        return value
    try:
        return share(value)
    except ValueError:
        raise ValueError("a share of the run from 0 to below 1, or epochs, such as '5 epochs'") from None


def moment(value: object) -> float | str:
    """A point of the run: as a length, and its end too."""
    if isinstance(value, str) and EPOCHS.fullmatch(value):
        return value
    try:
        return number(0, 1)(value)
    except ValueError:
        raise ValueError("a share of the run from 0 to 1, or epochs, such as '5 epochs'") from None


def long(value: object) -> float | str:
    """A length that is not nothing."""
    if (read := length(value)) == 0 or (isinstance(read, str) and not float(read.split()[0])):
        raise ValueError("a share of the run above 0 and below 1, or epochs, such as '5 epochs'")
    return read


def class_weight(value: object) -> object:
    """How classes are weighted: by their sizes, by a list, or null for alike."""
    if value in (None, "balanced", "effective"):
        return value
    try:
        weights = many(number(0), least=2)(value)
    except ValueError:
        weights = []
    if not any(weights):
        raise ValueError("null, balanced, effective, or a list of a number from 0 on for each class, such as [1, 1, 5]")
    return weights


def optional(rule: Callable) -> Callable:
    """Null, or what `rule` takes."""
    schema = {"anyOf": [{"type": "null"}, schema_of(rule)]}
    return Rule(lambda value: None if value is None else rule(value), schema)


def many(rule: Callable, least: int = 1) -> Callable:
    """A list of `least` or more of what `rule` takes."""

    def settle(value):
        if not isinstance(value, list) or len(value) < least:
            raise ValueError(f"a list of {least} or more")
        return [rule(item) for item in value]

    return Rule(settle, {"type": "array", "minItems": least, "items": schema_of(rule)})


PLAIN_SCHEMAS: dict[Callable, dict] = {
    text: {"type": "string", "minLength": 1},
    prefix: {"type": "string", "pattern": r"\.$"},
    flag: {"type": "boolean"},
    **{
        rule: {"anyOf": [{"type": "number"}, {"type": "string", "pattern": "epochs?$"}]}
        for rule in (length, moment, long)
    },
}
"""Of the rules that are functions by themselves."""


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

OF_ANY_OPTIMIZER = {
    "clipnorm": optional(number(above=0)),
    "clipvalue": optional(number(above=0)),
    "global_clipnorm": optional(number(above=0)),
    "use_ema": flag,
    "ema_momentum": share,
    "ema_overwrite_frequency": optional(whole(1)),
    "loss_scale_factor": optional(number(above=0)),
    "gradient_accumulation_steps": optional(whole(2)),
}
"""What Keras's optimizers take besides the settings that the options have."""


NOISY = ("mixup", "cutmix", "gradient_noise")
"""The regularizers that draw from the stream `noise`."""


def _all_but(*names) -> Callable[[dict], dict]:
    return lambda node: {name: value for name, value in node.items() if name not in names}


def _alone(node) -> tuple:
    return ()


def _sets_momentum(node):
    """Whether a schedule sets the momentum; of the user's own only its making tells, so that it counts whole."""
    if not node or node["_target_"].startswith(("studies.schedules.", "keras.optimizers.schedules.")):
        return node.get("low_momentum") is not None
    return node


def _observed(node):
    """Whether anything is observed, not what; and whether each step's update is."""
    some = bool(node["observe_every"] or node["ends"])
    return {"some": some, "extremes": True} if node.get("extremes") else some


def _masks(node):
    """Whether there are masks, of units' biases too, and whether movement is added up; the user's own counts whole."""
    if not node or not node["_target_"].startswith("studies.pruning."):
        return node
    return {"units": str(node.get("criterion")).startswith("unit_"), "movement": node.get("criterion") == "movement"}


def _batches(node):
    """What a step takes: so many examples, and the weights of their classes if they have some."""
    return node["batch_size"] if node.get("class_weight") is None else [node["batch_size"], "class_weight"]


@dataclass(frozen=True)
class Group:
    """A part of a config: what it may be, what is checked, and what it does to the compiled graph.

    Attributes:
        settings: name -> the rule of its values.
        targets: module -> what in it is an option; of a public module of Keras, without names, whatever it has of the
            kind. A module of ours goes by its canonical name, see `targets`.
        plain: no `_target_` takes it: it has the settings listed here, all of them and no others.
        required: settings that are read besides what its target takes.
        more: rules of settings that its targets take, or that it has besides, and none of the options has.
        built_with: the other parts that are needed to build it for a check; None: it is not built by itself.
        graph: what of it shapes the graph; None: nothing. All else enters it as tensors, or not at all.
        places: settings that say where a file is, or how strictly it is read; its content counts instead.
        later: settings that came when there were results already, and the value of each that is as it was before.
    """

    settings: dict[str, Callable] = field(default_factory=dict)
    targets: dict[str, tuple[str, ...]] = field(default_factory=dict)
    plain: bool = False
    required: tuple[str, ...] = ()
    more: dict[str, Callable] = field(default_factory=dict)
    built_with: Callable[[dict], tuple[str, ...]] | None = None
    graph: Callable[[dict], object] | None = None
    places: tuple[str, ...] = ()
    later: Mapping[str, object] = field(default_factory=dict)


GROUPS: dict[str, Group] = {
    "data": Group(
        targets={"studies.data": ("digits", "npz", "image_folder", "published")},
        graph=_all_but("label_noise", "standardize", "fold"),
        places=data.PLACES,
        later=data.LATER,
        required=(
            *("validation_fraction", "test_fraction", "folds", "fold"),
            *("train_size", "test_size", "label_noise", "imbalance"),
            *("standardize", "flip", "crop", "cutout"),
        ),
        settings={
            "name": one_of("mnist", "fashion_mnist", "cifar10", "cifar100"),
            "path": optional(text),
            "root": optional(text),
            "test_fraction": optional(number(above=0, below=1)),
            "validation_fraction": number(above=0, below=1),
            "folds": optional(whole(2)),
            "fold": whole(0),
            "image_size": optional(whole(1)),
            "resize": one_of("stretch", "pad", "crop"),
            "unreadable": one_of("refuse", "skip"),
            "train_size": optional(whole(1)),
            "test_size": optional(whole(1)),
            "label_noise": number(0, 1),
            "imbalance": number(1),
            "standardize": flag,
            "flip": flag,
            "crop": whole(0),
            "cutout": whole(0),
            "shadows": flag,
        },
    ),
    "model": Group(
        targets={
            "studies.models": (
                *("mlp", "lenet_300_100", "cnn", "deep_cnn", "lenet5", "c3d3"),
                *("vgg_small", "resnet", "row_rnn", "vit"),
            ),
            "keras.applications": (),
        },
        graph=_all_but(),
        built_with=lambda node: ("data", "initializer", "engine"),
        settings={
            "depth": whole(1),
            "width": whole(1),
            "filters": many(whole(1)),
            "kernel_size": whole(1),
            "padding": one_of("same", "valid"),
            "dense": whole(1),
            "activation": one_of(*ACTIVATIONS),
            "normalization": one_of("none", "batch", "layer", "group", "rms", "weight"),
            "spatial_dropout": share,
            "zero_last": flag,
            "shortcut": flag,
            "blocks": whole(1),
            "cell": one_of("simple", "gru", "lstm"),
            "pixels": whole(1),
            "patch": whole(1),
            "heads": whole(1),
            "weights": one_of(None),
            "classifier_activation": optional(one_of("softmax")),
            "dropout": share,
        },
        more={"use_bias": flag},
    ),
    "initializer": Group(
        targets={
            "keras.initializers": (),
            "studies.initializers": ("scaled", "sparse", "delta_orthogonal", "LSUV"),
        },
        built_with=_alone,
        settings={
            "value": number(),
            "mean": number(),
            "stddev": number(above=0),
            "minval": number(),
            "maxval": number(),
            "scale": number(above=0),
            "gain": number(),
            "initializer": one_of(
                "glorot_normal",
                "glorot_uniform",
                "he_normal",
                "he_uniform",
                "lecun_normal",
                "lecun_uniform",
                "orthogonal",
            ),
            "connections": whole(1),
            "tolerance": number(above=0),
            "trials": whole(1),
            "mode": one_of("fan_in", "fan_out", "fan_avg"),
            "distribution": one_of("truncated_normal", "untruncated_normal", "uniform"),
        },
    ),
    "optimizer": Group(
        targets={"keras.optimizers": ()},
        graph=_all_but("learning_rate"),
        built_with=_alone,
        required=("learning_rate", "sam", "lookahead", "slow_step", "ema"),
        more=OF_ANY_OPTIMIZER | {"weight_decay_on": one_of("all", "kernels")},
        later=LATER["optimizer"],
        settings={
            "learning_rate": number(above=0),
            "momentum": share,
            "nesterov": flag,
            "rho": share,
            "centered": flag,
            "epsilon": number(above=0),
            "beta_1": share,
            "beta_2": share,
            "amsgrad": flag,
            "weight_decay": number(0),
            "initial_accumulator_value": number(0),
            "beta_2_decay": number(high=0),
            "epsilon_1": number(above=0),
            "epsilon_2": number(above=0),
            "clip_threshold": number(above=0),
            "relative_step": flag,
            "learning_rate_power": number(high=0),
            "l1_regularization_strength": number(0),
            "l2_regularization_strength": number(0),
            "ns_steps": whole(1),
            "rms_rate": number(above=0),
            "adam_lr_ratio": number(above=0),
            "adam_beta_1": share,
            "adam_beta_2": share,
            "adam_weight_decay": number(0),
            "warmup_steps": whole(0),
            "sam": number(0),
            "lookahead": whole(0),
            "slow_step": number(above=0, high=1),
            "ema": share,
        },
    ),
    "schedule": Group(
        targets={
            "studies.schedules": (
                *("constant", "step", "exponential", "polynomial", "inverse_sqrt", "cosine", "cosine_restarts"),
                *("triangular", "triangular2", "exp_range", "plateau", "one_cycle", "range_test"),
            ),
            "keras.optimizers.schedules": (),
        },
        graph=_sets_momentum,
        built_with=lambda node: ("optimizer",) if _sets_momentum(node) else (),
        settings={
            "warmup": length,
            "final": number(0, 1),
            "factor": number(above=0),
            "at": many(length),
            "power": number(above=0),
            "scale": long,
            "period": long,
            "growth": number(1),
            "decay": number(0, 1),
            "low": number(0, 1),
            "peak": long,
            "start": number(0, 1),
            "low_momentum": optional(share),
            "patience": whole(1),
            "threshold": number(0),
        },
    ),
    "regularizer": Group(
        targets={
            "keras.regularizers": (),
            "studies.regularizers": (
                *("orthogonal", "decoupled", "proximal_l1", "max_norm", "unit_norm"),
                *("label_smoothing", "mixup", "cutmix", "gradient_noise"),
            ),
        },
        graph=_all_but(),
        built_with=_alone,
        settings={
            "l1": number(0),
            "l2": number(0),
            "factor": number(0),
            "decay": number(0),
            "limit": number(above=0),
            "smoothing": share,
            "alpha": number(above=0),
            "eta": number(0),
            "gamma": number(0),
            "applies_to": one_of("kernels", "all"),
        },
        later=LATER["regularizer"],
    ),
    "clipping": Group(
        targets={"studies.clipping": ("clip_by_value", "clip_by_norm", "clip_by_global_norm", "clip_adaptively")},
        graph=_all_but(),
        built_with=_alone,
        settings={
            "norm": number(above=0),
            "limit": number(above=0),
            "ratio": number(above=0),
            "epsilon": number(above=0),
        },
    ),
    "pruning": Group(
        targets={"studies.pruning": ("one_shot", "gradual", "iterative")},
        graph=_masks,
        built_with=lambda node: ("model", "data", "schedule", "training"),
        settings={
            "sparsity": share,
            "criterion": one_of(
                *("magnitude", "random", "taylor", "snip", "movement", "synflow"),
                *("unit_l1", "unit_l2"),
            ),
            "scope": one_of("global", "layer"),
            "at": moment,
            "begin": moment,
            "end": moment,
            "rounds": whole(1),
            "rewind": whole(0),
            "restart": one_of("rewind", "continue", "reinitialize"),
            "shuffled": flag,
            "keep": many(text, least=0),
            "keep_last": flag,
        },
    ),
    "diagnostics": Group(
        plain=True,
        graph=_observed,
        settings={
            "observe_every": whole(0),
            "ends": flag,
        },
        more={"extremes": flag},
    ),
    "training": Group(
        plain=True,
        graph=_batches,
        settings={
            "epochs": whole(1),
            "batch_size": whole(1),
            "early_stopping": optional(whole(1)),
            "timeout": optional(number(above=0)),
        },
        more={"class_weight": class_weight, "class_weight_beta": number(0, below=1)},
        later=LATER["training"],
    ),
    "engine": Group(
        plain=True,
        graph=_all_but(),
        settings={
            "threads": whole(1),
            "xla": one_of("auto", True, False),
        },
    ),
    "seeds": Group(
        plain=True,
        settings={name: optional(whole(0)) for name in SEED_STREAMS},
    ),
    "profile": Group(
        plain=True,
        settings={
            "name": text,
        },
    ),
    "compute": Group(
        targets={
            "studies.compute.census": ("application", "dense", "transformer", "training_time", "initializers"),
            "studies.compute.identities": ("linear_map", "bias_offset", "chain_rule", "update_rule"),
            "studies.compute.descent": ("linear_regression",),
            "studies.compute.propagation": ("gradient_slope", "variances"),
            "studies.compute.importance": ("magnitude", "rejection"),
            "studies.compute.attribution": ("deletion",),
            "studies.compute.inference": ("batch_one",),
        },
        graph=_all_but(),
        built_with=_alone,
    ),
    "executor": Group(
        targets={"studies.serial": ("Serial",), "studies.pool": ("Pool",), "studies.ray": ("Ray",)},
        settings={
            "workers": optional(whole(1)),
        },
        more={
            "timeout": optional(number(above=0)),
            "address": optional(text),
            "cpus": optional(number(above=0)),
            "gpus": number(0),
            "memory": optional(whole(1)),
        },
    ),
    "tracking": Group(
        plain=True,
        settings={
            "root": text,
        },
        more={"uri": optional(text), "patience": number(0), "models": one_of("none", "first", "all")},
    ),
    "checkpoints": Group(
        plain=True,
        settings={
            "epochs": optional(whole(1)),
            "minutes": optional(number(above=0)),
        },
    ),
    "targets": Group(
        plain=True,
        settings={
            "allow": many(prefix, least=0),
        },
    ),
}
"""All there are, but the study and what says which of its trials are run."""

INNER = ("initializer", "optimizer", "schedule", "regularizer")
"""The groups whose targets may stand inside any part: what layers and optimizers of Keras take."""

LIMITS: dict[str, Callable] = {
    **{f"{part}.{name}": rule for part, group in GROUPS.items() for name, rule in group.settings.items()},
    "seed": optional(whole(0)),
    "plan": one_of(False, True, "json"),
    "force": flag,
}

RULES = LIMITS | {f"{part}.{name}": rule for part, group in GROUPS.items() for name, rule in group.more.items()}

PLAIN = tuple(part for part, group in GROUPS.items() if group.plain)
"""The parts that no `_target_` takes."""


def settled(config: dict) -> dict:
    """The config with every value in the type its setting has (`0` is `0.0` where a number is meant).

    Raises:
        StudyError: a setting that is unknown or missing, or a value that it cannot have.
    """
    result = _settled(config, "")
    for part, node in config.items():
        if part == "compute" and node is not None and not (isinstance(node, dict) and "_target_" in node):
            raise StudyError(
                f"compute={shown(node)}: expected null, or a function and its inputs, such as "
                f"'+compute={{_target_: studies.compute.census.application, model: ResNet50}}'"
            )
        if part in PLAIN or (isinstance(node, dict) and "_target_" in node):
            _check_settings(part, node)
        elif isinstance(node, dict) and node:
            raise StudyError(
                f"{part} is none and takes no settings, but was given {listed(node)}: choose an option, {part}=NAME"
            )
    check_lengths(result, result.get("training", {}).get("epochs", math.inf))
    return result


def identity(config: dict) -> dict:
    """What of a trial's config can change its numbers; the source of the user's own modules is of it too."""
    parts = {part: config[part] for part in identity_parts(config)}
    for part in parts:
        later = GROUPS[part].later.items()
        parts[part] = _all_but(*(name for name, before in later if parts[part].get(name) == before))(parts[part])
        if parts[part].get("content"):  # which counts wherever it is; else the place is all that tells data apart
            parts[part] = _all_but(*GROUPS[part].places)(parts[part])
    return parts | {"source": config["targets"].get("source", {})}


def graph(config: dict) -> dict:
    """What of a trial's config shapes its compiled graph: what differs in nothing here can share one."""
    parts = identity(config)
    return {part: shape(parts[part]) for part in identity_parts(config) if (shape := GROUPS[part].graph)}


def drawn(config: dict) -> set[str]:
    """A seed's streams that are not pinned and that a trial draws from; the user's own parts may draw from any.

    What a computed trial draws is the stream `compute`.
    """
    if is_computed(config):
        return {"compute"}
    model, regularizer = config["model"], config["regularizer"].get("_target_", "")
    own = regularizer and not regularizer.startswith(("studies.", "keras."))
    streams = {"split", "init", "order"}
    if any(config["data"].get(name) for name in ("flip", "crop", "cutout")):
        streams.add("augment")
    if not model["_target_"].startswith("studies.") or model.get("dropout") or model.get("spatial_dropout"):
        streams.add("dropout")
    if (
        config["data"].get("label_noise")
        or own
        or regularizer.rpartition(".")[2] in NOISY
        or _is_drawn(config["pruning"])
    ):
        streams.add("noise")
    return {stream for stream in streams if config["seeds"].get(stream) is None}


def _is_drawn(pruning) -> bool:
    """Whether some of what is pruned is drawn; of the user's own it may be."""
    own = bool(pruning) and not pruning["_target_"].startswith("studies.")
    return own or pruning.get("criterion") == "random" or bool(pruning.get("shuffled"))


def checks(config: dict) -> list[dict]:
    """Parts of a trial's config that are to be built together, each once whatever else differs."""
    every = []
    for part, group in GROUPS.items():
        if group.built_with is not None and config.get(part):
            every.append({name: config[name] for name in (part, *group.built_with(config[part]), "targets")})
    return every


def check_lengths(config: dict, epochs: float) -> None:
    """Refuse a schedule's length in epochs that is longer than the run, or its round: it would be cut, or never come.

    Raises:
        StudyError: there is one.
    """
    settings = [(f"{part}.{name}", v) for part in ("schedule", "pruning") for name, v in config.get(part, {}).items()]
    for path, value in settings:
        for length in value if isinstance(value, list) else [value]:
            read = EPOCHS.fullmatch(length) if isinstance(length, str) else None
            if read and float(read[1]) > epochs:
                raise StudyError(
                    f"{path}={shown(value)}: expected {epochs} epochs at most, which is all of the training. "
                    f"Train longer with training.epochs=NUMBER, or give a share of it, such as 0.1"
                )


def _check_settings(part, node):
    group = GROUPS.get(part, Group())
    known = list(group.settings)
    if not isinstance(node, dict):
        raise StudyError(
            f"{part}={shown(node)}: expected the settings {listed(known)}, such as {part}.{known[0]}=VALUE"
        )
    for name in node if group.plain else ():
        if name not in (*known, *group.more):
            raise StudyError(
                f"{part}.{name}={shown(node[name])}: there is no such setting; "
                f"{meant(name, [*known, *group.more])}{part} has {listed([*known, *group.more])}"
            )
    for name in known:
        if name not in node and (group.plain or name in group.required):
            raise StudyError(f"{part}.{name} is missing: give it a value, {part}.{name}=VALUE")


def _settled(node, prefix):
    result = {}
    for name, value in node.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict) and path not in RULES:
            result[name] = _settled(value, f"{path}.")
        elif path in RULES:
            try:
                result[name] = RULES[path](value)
            except ValueError as reason:
                said = f"{'expected ' * ('expected ' not in str(reason))}{reason}"
                raise StudyError(f"{path}={shown(value)}: {said}") from None
        elif isinstance(value, float) and not math.isfinite(value):
            raise StudyError(f"{path}={value}: expected a finite number")
        else:
            result[name] = value
    return result
