"""A smaller network from one whose channels are pruned: dead units are taken out, the outputs stay what they were.

A unit is taken out if nothing reads it (all of its weights in the next layer are zero), or if it gives the same number
whatever the image (all of its incoming weights are zero): that number goes into the next layer's bias.
"""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers

from studies.record import StudyError

LEARNING = (layers.Dense, layers.Conv2D)
"""Layers whose units can be taken out."""

ELEMENTWISE = (
    *(layers.Activation, layers.ReLU, layers.LeakyReLU, layers.ELU),
    *(layers.Dropout, layers.SpatialDropout2D, layers.GaussianNoise, layers.GaussianDropout, layers.AlphaDropout),
    *(layers.MaxPooling2D, layers.AveragePooling2D, layers.GlobalMaxPooling2D, layers.GlobalAveragePooling2D),
)
"""Layers that leave channels apart and have no weights: a channel of one number stays one of one number."""

MIXING = {getattr(keras.activations, name) for name in ("softmax", "log_softmax", "sparsemax", "glu")}
"""Activations that do not; nor, for all that is known, does one that is not Keras's."""


@dataclass
class _Signal:
    """What goes from one layer to the next.

    Attributes:
        kept: `(channels,)`, whether a channel of the whole network is one of the small one's.
        value: `(channels,)`, of channels that are not kept the number that they are.
    """

    kept: np.ndarray
    value: np.ndarray


def shrunk(model: keras.Model) -> tuple[keras.Model, int]:
    """A network without the units that do nothing, and how many those were; 0 leaves the network as it is.

    Raises:
        StudyError: its layers are no chain, as where a shortcut adds what two layers give: both would have to lose the
            same channels.
    """
    chain = _chain(model)
    read = _read(chain)
    inputs = keras.Input(model.input_shape[1:])
    channels = model.input_shape[-1]
    signal, outputs, removed = _Signal(np.full(channels, True), np.zeros(channels)), inputs, 0
    for place, layer in enumerate(chain):
        if isinstance(layer, LEARNING) and _is_plain(layer):
            keep = read[place] if place < _last(chain) else np.full(len(read[place]), True)
            layer, weights, signal = _smaller(layer, signal, keep, _can_fold(chain[place + 1 :]))
            removed += int((~signal.kept).sum())
        else:
            layer, weights, signal = _passed(layer, signal)
        outputs = layer(outputs)
        layer.set_weights(weights)
    return (keras.Model(inputs, outputs), removed) if removed else (model, 0)


def _chain(model) -> list:
    """A model's layers in order, each fed by the one before."""
    model = model._functional if isinstance(model, keras.Sequential) else model
    found = [layer for layer in model.layers if not isinstance(layer, layers.InputLayer)]
    operations = [each for each in getattr(model, "operations", found) if not isinstance(each, layers.InputLayer)]
    before = model.inputs
    for layer in operations:
        nodes: list = list(getattr(layer, "_inbound_nodes", ()))
        fed = isinstance(layer, layers.Layer) and not isinstance(layer, keras.Model) and len(nodes) == 1
        if not fed or len(before) != 1 or [id(t) for t in nodes[0].input_tensors] != [id(before[0])]:
            raise StudyError(
                f"channels cannot be removed: {layer.name} is not fed by the layer before it alone, and what layers "
                f"share would have to lose the same channels: expected a chain of layers"
            )
        before = nodes[0].output_tensors
    return operations


def _is_plain(layer) -> bool:
    """Whether it is Keras's own layer, whose units do not mix but by its kernel."""
    return type(layer) in LEARNING and getattr(layer, "groups", 1) == 1


def _is_elementwise(activation) -> bool:
    return activation in vars(keras.activations).values() and activation not in MIXING


def _passes(layer) -> bool:
    if isinstance(layer, layers.Activation):
        return _is_elementwise(layer.activation)
    return type(layer) in (*ELEMENTWISE, layers.BatchNormalization, layers.Flatten)


def _last(chain) -> int:
    """The place from which on nothing is taken out: the last layer with units, whose outputs are the network's."""
    return max((place for place, layer in enumerate(chain) if isinstance(layer, LEARNING)), default=-1)


def _read(chain) -> dict[int, np.ndarray]:
    """Of each layer with units which of them something reads that counts, from the last layer to the first."""
    read: dict[int, np.ndarray] = {}
    wanted = None
    for place in reversed(range(len(chain))):
        layer = chain[place]
        if isinstance(layer, LEARNING):
            kernel = layer.get_weights()[0]
            read[place] = np.full(kernel.shape[-1], True)
            if wanted is not None and _is_elementwise(layer.activation):
                read[place] = wanted
            wanted = kernel[..., read[place]].any(axis=(*range(kernel.ndim - 2), -1))
            wanted = wanted if _is_plain(layer) else None
        elif isinstance(layer, layers.Flatten) and wanted is not None:
            wanted = wanted.reshape(-1, layer.input.shape[-1]).any(axis=0)
        elif not _passes(layer):
            wanted = None
    return read


def _can_fold(after) -> Callable[[np.ndarray], np.ndarray]:
    """What says of the numbers that dead channels are, as they leave a layer, whether later layers can do without.

    Zeros always can; other numbers not where a convolution pads with zeros beside them.
    """

    def can(value):
        for layer in after:
            if isinstance(layer, LEARNING):
                padded = isinstance(layer, layers.Conv2D) and layer.padding != "valid"
                plain = _is_plain(layer)
                return np.full(value.shape, plain) if not padded else plain & (value == 0)
            if not _passes(layer):
                return np.full(value.shape, False)
            if isinstance(layer, layers.Flatten):
                continue
            value = _of_constants(layer, value)
        return np.full(value.shape, False)

    return can


def _smaller(layer, signal: _Signal, keep: np.ndarray, can_fold):
    """A layer without some of its inputs and units; its weights; what it gives."""
    kernel, *bias = layer.get_weights()
    offset = bias[0].astype(float) if bias else np.zeros(kernel.shape[-1])
    into = kernel.sum(axis=tuple(range(kernel.ndim - 2)))  # (inputs, units): each input that is one number, times this
    offset = offset + np.where(signal.kept, 0, signal.value) @ into
    kernel = kernel[..., signal.kept, :]
    same = ~kernel.any(axis=tuple(range(kernel.ndim - 1))) & _is_elementwise(layer.activation)
    value = np.where(same, np.asarray(layer.activation(keras.ops.convert_to_tensor(offset))), 0.0)
    kept = keep & ~(same & can_fold(value))
    if not kept.any():
        kept[0] = True  # no layer is empty
    value = np.where(kept, 0.0, value)
    sizes = {"filters" if isinstance(layer, layers.Conv2D) else "units": int(kept.sum())}
    biased = bool(bias) or bool(offset.any())
    made = type(layer).from_config(layer.get_config() | sizes | {"use_bias": biased})
    weights = [kernel[..., kept], *([offset[kept].astype(np.float32)] if biased else [])]
    return made, weights, _Signal(kept, value)


def _passed(layer, signal: _Signal):
    """A layer without units of its own as it is in the small network; its weights; what it gives."""
    try:
        made = type(layer).from_config(layer.get_config())
    except (TypeError, ValueError, NotImplementedError, AttributeError) as error:
        raise StudyError(
            f"channels cannot be removed: the layer {layer.name} cannot be made again from its get_config: {error}"
        ) from error
    if isinstance(layer, layers.Flatten):
        places = int(np.prod(layer.input.shape[1:-1]))
        return made, [], _Signal(np.tile(signal.kept, places), np.tile(signal.value, places))
    weights = layer.get_weights()
    if isinstance(layer, layers.BatchNormalization):
        weights = [each[signal.kept] for each in weights]
    if not _passes(layer):  # which has all of its inputs, and channels of its own
        channels = layer.output.shape[-1]
        return made, weights, _Signal(np.full(channels, True), np.zeros(channels))
    return made, weights, _Signal(signal.kept, np.where(signal.kept, 0.0, _of_constants(layer, signal.value)))


def _of_constants(layer, value: np.ndarray) -> np.ndarray:
    """What a layer that leaves channels apart makes of channels that are one number each, `(channels,)`."""
    shape = (1, *(size if size else 1 for size in layer.input.shape[1:-1]), len(value))
    made = layer(keras.ops.convert_to_tensor(np.broadcast_to(value, shape).astype(np.float32)), training=False)
    return np.asarray(made).reshape(-1, len(value))[0].astype(float)
