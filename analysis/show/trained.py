"""What a study's trials have in common: the data and the network, and how it was trained, in two lines."""

import pandas as pd

from studies.record import is_neutral, listed, shown

OFF = (None, "", "none", False, 0)
"""Values that say nothing of a setting; `OFF_TOO` of those whose neutral value is another, which are not of late."""
OFF_TOO = {"data.imbalance": 1.0, "optimizer.slow_step": 0.5}

TRAINING = ("initializer", "optimizer", "schedule", "regularizer", "clipping", "pruning")
AFTER = {"initializer": " weights", "schedule": " schedule"}
"""Words for options whose names do not say of what they are."""

KINDS = 3
"""Of the values that a setting has in the trials, those that are listed."""


def trained(settings: pd.DataFrame, factors: list[str], trials: pd.DataFrame, images: float | None = None) -> list[str]:
    """What was trained, and how: all that the trials' settings say but for factors and what is off.

    Args:
        settings: of all the trials, from `load.settings`.
        factors: what the study compares or tunes, which is left out; an option's own settings too, but for its rate.
        trials: a trials frame, for the number of parameters.
        images: how many are trained on in an epoch, if that is known.

    Returns:
        two lines; none of trials that compute instead, or that another program trained.
    """
    if "training.epochs" not in settings or "model" not in settings:
        return []
    own = {f"{factor}." for factor in factors if "." not in factor}
    said = {
        name: text
        for name in settings
        if name not in ("key", "seed", "data.content", *factors)
        and (name == "optimizer.learning_rate" or not any(name.startswith(each) for each in own))
        and (text := _text(name, settings[name]))
    }
    if "data.folds" in said:
        said.pop("data.validation_fraction", "")  # it is not used then
    parameters = _ends(trials["parameters"].dropna(), "{:,.0f}")
    data = [_group(said, "data"), f"{images:,.0f} images an epoch" if images else ""]
    model = [_group(said, "model"), f"{parameters} parameters" if parameters else ""]
    said |= {group: said[group] + word for group, word in AFTER.items() if group in said}
    ways = [_group(said, group) for group in TRAINING]
    epochs, batch = said.pop("training.epochs", ""), said.pop("training.batch_size", "")
    lengths = [
        f"{epochs} epoch{'s' * (epochs != '1')}" * bool(epochs),
        f"batches of {batch}" * bool(batch),
        _group(said, "training"),
    ]
    parts = {"Data": _and(data), "Model": _and(model)}
    return [
        " ".join(f"{name}: {text}." for name, text in parts.items() if text),
        f"Training: {'; '.join(filter(None, [*ways, _and(lengths)]))}.",
    ]


def _group(said: dict[str, str], group: str) -> str:
    """A group's option and what is on of its settings: `SGD, learning rate 0.02, momentum 0.9`."""
    inner = {name.partition(".")[2]: text for name, text in said.items() if name.startswith(f"{group}.")}
    return _and([said.get(group, ""), *(f"{name.replace('_', ' ')} {text}".strip() for name, text in inner.items())])


def _and(parts) -> str:
    return ", ".join(filter(None, parts))


def _text(name: str, values: pd.Series) -> str:
    """The value that a setting has in all trials, or those that it has; nothing if it is off in all."""
    there = [value for value in values if not _is_off(name, value)]
    different = list(dict.fromkeys(map(shown, there)))
    if not different:
        return ""
    if different == ["true"]:
        text = "on"
    elif len(different) > 1 and all(isinstance(value, int | float) for value in there):
        text = _ends(pd.Series(there, dtype=float), "{:.6g}")
    else:
        text = listed(different) if len(different) <= KINDS else f"of {len(different)} kinds"
    return text + " in some trials" * (len(there) < len(values))


def _is_off(name: str, value: object) -> bool:
    return value in OFF or is_neutral(name, value) or value == OFF_TOO.get(name, "")


def _ends(values: pd.Series, form: str) -> str:
    ends = [form.format(value) for value in (values.min(), values.max())] if len(values) else []
    return " to ".join(dict.fromkeys(ends))
