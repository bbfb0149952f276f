"""A dense network with as many parameters as a pruned one has left: the same builder, with less width."""

from collections.abc import Callable

import keras
from keras import layers

from studies.factors import targets
from studies.record import StudyError

WIDTHS = ("width", "filters", "dense")
"""What widths are called among the settings of a model."""

STEPS = 12
"""Of the bisection: a width of some thousands is met to the unit."""


def narrowed(node: dict, parameters: int, build: Callable[[dict], keras.Model], allow: list[str]) -> dict:
    """A model's node with all widths times one factor, so that the model has about so many parameters.

    A builder without any of `WIDTHS` is called as it is, and its layers are made narrower after it, see `scaled`.

    Args:
        build: gives a node's model; what it is to allow besides is `OWN`.
        allow: prefixes that the user allows.

    Raises:
        StudyError: no width of it can be less, or a model of that width cannot be built.
    """
    at = _by_settings(node) if any(_is_width(node.get(name)) for name in WIDTHS) else _by_layers(node, allow)
    low, high = 0.0, 1.0
    best: tuple[int, dict] = 0, {}
    for _ in range(STEPS):
        factor = (low + high) / 2
        count = build(at(factor)).count_params()
        if not best[1] or abs(count - parameters) < abs(best[0] - parameters):
            best = count, at(factor)
        low, high = (factor, high) if count < parameters else (low, factor)
    return best[1]


OWN = "studies.edge.narrow."
"""What a narrow model's node may name besides what its group allows."""


def _is_width(value) -> bool:
    numbers = value if isinstance(value, list) else [value]
    return all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)


def _by_settings(node: dict) -> Callable[[float], dict]:
    unit = node.get("heads", 1)  # of attention, which share the width evenly

    def at(factor):
        widths = {name: node[name] for name in WIDTHS if _is_width(node.get(name))}
        times = {
            name: [_less(each, factor) for each in value] if isinstance(value, list) else _less(value, factor, unit)
            for name, value in widths.items()
        }
        return node | times

    return at


def _by_layers(node: dict, allow: list[str]) -> Callable[[float], dict]:
    settings = {name: value for name, value in node.items() if name != "_target_"}
    return lambda factor: {
        "_target_": f"{OWN}scaled",
        "builder": node["_target_"],
        "factor": factor,
        "allow": list(allow),
        **settings,
    }


def _less(width: int, factor: float, unit: int = 1) -> int:
    return unit * max(1, round(width * factor / unit))


def scaled(
    input_shape: tuple[int, ...], classes: int, *, builder: str, factor: float, allow: list[str], **settings: object
) -> keras.Model:
    """A builder's model, each dense layer and convolution but the last with `factor` of its units, one at least.

    Raises:
        StudyError: the layers do not fit together then.
    """
    node = {"_target_": builder, **settings}
    model = targets.build(node, "model", allow, input_shape=input_shape, classes=classes)
    wide = [layer.name for layer in model.layers if isinstance(layer, layers.Dense | layers.Conv2D)][:-1]

    def narrower(layer):
        config = layer.get_config()
        if layer.name in wide:
            name = "units" if "units" in config else "filters"
            config[name] = _less(config[name], factor)
        return type(layer).from_config(config)

    try:
        return keras.models.clone_model(model, clone_function=narrower)
    except (ValueError, TypeError) as error:
        raise StudyError(
            f"model: {builder} cannot be made narrower: its layers do not fit together then, and it has no setting "
            f"{' or '.join(WIDTHS)}"
        ) from error
