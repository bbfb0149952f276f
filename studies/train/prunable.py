"""What of a network may be pruned: its kernels, or its units with all that is theirs."""

from collections.abc import Iterator
from fnmatch import fnmatchcase

import keras
import numpy as np
from keras import layers

from studies.factors.models import Standardized
from studies.factors.pruning import Pruning
from studies.record import StudyError, listed

KERNELS = ("kernel",)
"""How the names of weights end that may go one by one: biases, normalization and embeddings stay."""

OF_UNITS = ("kernel", "bias", "gamma", "beta", "scale")
"""And of those that go with a unit."""

PASSED = (
    *(layers.Activation, layers.ReLU, layers.LeakyReLU, layers.Dropout, layers.SpatialDropout2D, layers.Flatten),
    *(layers.MaxPooling2D, layers.AveragePooling2D, layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D),
)
"""Layers that leave a unit's signal its own; what flattens lays out its places one after the other, units inmost."""

NORMS = (
    *(layers.BatchNormalization, layers.LayerNormalization),
    *(layers.GroupNormalization, layers.RMSNormalization),
)
CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)


def prunable(model: keras.Model, pruning: Pruning) -> list[keras.Variable]:
    """The kernels that may be pruned, in the model's order.

    Raises:
        StudyError: there are none, or `keep` names what is not there.
    """
    kernels = [v for v in model.trainable_variables if v.path.endswith(KERNELS) and len(v.shape) > 1]
    standardized = [layer for layer in model._flatten_layers(include_self=False) if isinstance(layer, Standardized)]
    if standardized:
        raise StudyError(
            f"pruning: the layer {standardized[0].name} standardizes its kernel, which makes other numbers of zeros: "
            f"expected no weight standardization. Choose another model.normalization, such as batch, or pruning=none"
        )
    last = pruning.keep_last or pruning.structured  # whose units are the classes
    places = list(range(len(kernels) - last))
    if pruning.structured:
        with_units = {id(layer.kernel) for layer in _with_units(model)}
        places = [place for place in places if id(kernels[place]) in with_units]
    names = [_layer(kernel, model) for kernel in kernels]
    for pattern in pruning.keep:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise StudyError(
                f"pruning.keep={pattern} is no layer of the model that could be pruned: expected some of "
                f"{listed(dict.fromkeys(names))}, or a pattern such as dense_*"
            )
    found = [place for place in places if not any(fnmatchcase(names[place], pattern) for pattern in pruning.keep)]
    if not found:
        there = f", whose layers with kernels are {listed(dict.fromkeys(names))}" if names else ""
        what = "layer whose units may go" if pruning.structured else "layer that may be pruned"
        raise StudyError(
            f"pruning: the model has no {what}{there}: expected one that neither pruning.keep nor pruning.keep_last "
            f"leaves as it is. Choose another model, or pruning=none"
        )
    return [kernels[place] for place in found]


def spread(model: keras.Model, kernels: list, units: list[np.ndarray], weights: list) -> list[np.ndarray]:
    """Masks of all that belongs to units: incoming weights, bias, the norm that follows, and outgoing weights.

    Outgoing ones only where one layer with a kernel follows, and nothing between mixes units or adds to them.

    Args:
        kernels: those that the units are of.
        units: true for those that stay, `(units,)` each.
        weights: the variables to have a mask each, of their shapes.
    """
    masks = {id(w): np.ones(w.shape, bool) for w in weights}
    owners = {id(layer.kernel): layer for layer in _with_units(model)}
    for kernel, kept in zip(kernels, units, strict=True):
        layer = owners[id(kernel)]
        norms, following = _followers(layer)
        own = [layer.kernel, layer.bias, *(getattr(norm, name, None) for norm in norms for name in OF_UNITS[2:])]
        for variable in own:
            if variable is not None and id(variable) in masks:
                masks[id(variable)] &= kept
        if following is not None:
            inputs = following.kernel.shape[-2]
            if inputs % len(kept) == 0:
                masks[id(following.kernel)] &= np.tile(kept, inputs // len(kept))[:, None]
    return [masks[id(w)] for w in weights]


def _with_units(model) -> Iterator[keras.Layer]:
    """The layers whose kernels' last axis is their units, in the model's order."""
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, (layers.Dense, *CONVOLUTIONS)) and getattr(layer, "groups", 1) == 1:
            yield layer


def _followers(layer) -> tuple[list, keras.Layer | None]:
    """The norms with a scale and an offset for each of a layer's units, and the layer that takes them, if it is plain.

    What group, layer and RMS normalization divide by is of all units, those that are gone included.
    """
    norms, units = [], layer.kernel.shape[-1]
    while len(nodes := layer._outbound_nodes) == 1:
        layer = nodes[0].operation
        if isinstance(layer, NORMS):
            norms.append(layer)
        elif isinstance(layer, (layers.Dense, *CONVOLUTIONS)) and layer.kernel.shape[-2] % units == 0:
            return norms, layer
        elif not isinstance(layer, PASSED):
            break
    return norms, None


def _layer(variable, model) -> str:
    return variable.path.removeprefix(f"{model.name}/").rpartition("/")[0]
