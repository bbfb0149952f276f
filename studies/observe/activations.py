"""Statistics of what layers give on a probe batch: a function each, one table of them.

A unit is an entry of the last axis: of a dense layer a neuron, of a convolution a channel at all its places.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import keras
import numpy as np
import tensorflow as tf

from studies.contract import QUANTILES, STATISTICS
from studies.observe.weights import Rows, quantiles

SAMPLE = 2**11
"""Of a layer's outputs, evenly spaced: what quantiles are taken of where there are more. Their standard error is then
1.1 percentiles at the median, √(¼ / 2¹¹), and a quarter of that at the first and the last."""

NEAR = 0.01
"""Of an activation's range: as near to a bound its outputs count as saturated."""

BOUNDS = {
    keras.activations.tanh: (-1.0, 1.0),
    keras.activations.hard_tanh: (-1.0, 1.0),
    keras.activations.softsign: (-1.0, 1.0),
    keras.activations.sigmoid: (0.0, 1.0),
    keras.activations.hard_sigmoid: (0.0, 1.0),
}
"""Where activations flatten out on both sides."""

BY_KIND = (keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.PReLU, keras.layers.ELU, keras.layers.Softmax)
"""Layers that are an activation and have none."""

MODEST = 1e15
"""Entries between this and its inverse have squares in single precision; sums of others are taken in another unit."""


@dataclass(frozen=True)
class Output:
    """What a layer gave.

    Attributes:
        layer: its name, as weights have it.
        tensor: `(examples, …, units)`, of whatever floating type it computes in.
        bounds: of its activation; None if it has none on either side.
        opens: whether the layer has a kernel, with which a layer in the sense of the literature begins.
    """

    layer: str
    tensor: tf.Tensor
    bounds: tuple[float, float] | None
    opens: bool


class Outputs:
    """What gives a model's outputs layer by layer: of a sequential, functional or subclassed one, nested or not.

    Those of layers with weights and of activations; of a recurrent layer or an attention's parts the whole's.

    Args:
        model: a built Keras model.
    """

    def __init__(self, model: keras.Model):
        self.model = model
        every = list(model._flatten_layers(include_self=False))
        inside = {id(part) for layer in every if isinstance(layer, LOOPS) for part in _parts(layer)}
        self.layers = [layer for layer in every if id(layer) not in inside and _is_shown(layer)]

    def __call__(self, images: tf.Tensor) -> list[Output]:
        """Those of images, in inference mode, in the order in which the layers are called."""
        found: list[Output] = []
        with self.heard(found):
            self.model(images, training=False)
        return found

    @contextmanager
    def heard(self, found: list[Output], watch: Callable[[tf.Tensor], object] = lambda tensor: None) -> Iterator[None]:
        """Append to a list what the layers give while this lasts, once it is over.

        Of a layer that is called several times the last; nothing of what is not to be had outside of a loop.

        Args:
            watch: is called with each at once, such as `tf.GradientTape.watch`.
        """
        given: dict[int, tf.Tensor] = {}
        names = {id(layer): layer for layer in self.layers}
        with _listening(self.layers, given, watch):
            yield
        for place, tensor in given.items():
            if _is_here(tensor):
                layer = names[place]
                found.append(Output(layer_name(layer, self.model), tensor, _bounds(layer), _has_kernel(layer)))


LOOPS = (keras.layers.RNN, keras.layers.TimeDistributed)
"""Layers that call others in a loop, whose tensors are not to be had outside."""


def layer_name(layer: keras.Layer, model: keras.Model) -> str:
    """A layer's name as its weights have it: with the layers that it is in, without the model's own."""
    own = [*layer._trainable_variables, *layer._non_trainable_variables]
    path = own[0].path.rpartition("/")[0] if own else getattr(layer, "path", None) or layer.name
    return path.removeprefix(f"{model.name}/")


class Sums:
    """What several statistics share, each computed once.

    Args:
        entries: a layer's output, `(…, units)` float32.
        bounds: of its activation, if it has some.
    """

    def __init__(self, entries: np.ndarray, bounds: tuple[float, float] | None):
        self.units, self.bounds = entries.reshape(-1, entries.shape[-1] if entries.ndim > 1 else 1), bounds
        # First over examples, in long rows: over all places at once it takes thirty times as long for few channels.
        wide, last = entries.reshape(len(entries), -1), self.units.shape[-1]
        self.lows = wide.min(axis=0).reshape(-1, last).min(axis=0)
        self.highs = wide.max(axis=0).reshape(-1, last).max(axis=0)
        self.low, self.high = self.lows.min(), self.highs.max()

    @cached_property
    def unit(self) -> float:
        """What sums are taken in: 1, but for entries whose squares would be zero or infinite."""
        top = float(max(self.high, -self.low))
        return 1.0 if 1 / MODEST < top < MODEST or not 0 < top < np.inf else top

    @cached_property
    def scaled(self) -> np.ndarray:
        """All entries in that unit."""
        return self.units if self.unit == 1 else self.units / np.float32(self.unit)

    @cached_property
    def mean(self) -> np.float32:
        """In that unit."""
        return np.add.reduce(self.scaled, axis=None) / np.float32(self.units.size)

    @cached_property
    def sd(self) -> float:
        """In that unit."""
        gaps = (self.scaled - self.mean).reshape(-1)
        return math.sqrt(gaps @ gaps / gaps.size)


def mean(sums: Sums) -> float:
    """Σ a / n."""
    return sums.unit * float(sums.mean)


def sd(sums: Sums) -> float:
    """Of the population: divided by n."""
    return sums.unit * sums.sd


def smallest(sums: Sums) -> float:
    """Min a."""
    return sums.low


def largest(sums: Sums) -> float:
    """Max a."""
    return sums.high


def zeros(sums: Sums) -> float:
    """The share of exact zeros: of a ReLU, of all that it turned off."""
    return np.count_nonzero(sums.units == 0) / sums.units.size  # of booleans: a tenth of what it takes of numbers


def saturated(sums: Sums) -> float:
    """The share within a hundredth of its range of an activation's bounds (Glorot & Bengio 2010, section 3).

    Missing for activations that are not bounded on both sides.
    """
    if sums.bounds is None:
        return math.nan
    low, high = sums.bounds
    margin = NEAR * (high - low)
    return np.count_nonzero((sums.units <= low + margin) | (sums.units >= high - margin)) / sums.units.size


def dead(sums: Sums) -> float:
    """The share of units that give zero for every example (Lu et al. 2019, "Dying ReLU and initialization")."""
    return np.count_nonzero((sums.lows == 0) & (sums.highs == 0)) / sums.lows.size


def l2(sums: Sums) -> float:
    """√Σ a², of mean and sd."""
    return math.sqrt(sums.units.size) * math.hypot(mean(sums), sd(sums))


def max_norm(sums: Sums) -> float:
    """Max |a|."""
    return max(sums.high, -sums.low)


TABLE: dict[str, Callable[[Sums], float]] = {
    "mean": mean,
    "sd": sd,
    "min": smallest,
    "max": largest,
    "l2": l2,
    "max_norm": max_norm,
    "sparsity_0": zeros,
    "saturated": saturated,
    "dead": dead,
}
"""By the columns of the layers frame, which the quantiles are added to."""

PLACES = [STATISTICS.index(name) for name in TABLE]
QUANTILE_PLACES = [STATISTICS.index(f"q{round(100 * q):02d}") for q in QUANTILES]


@dataclass(frozen=True)
class Measured:
    """A layer's output, measured but for its quantiles, which are taken of several at once.

    Attributes:
        row: `(len(STATISTICS),)`; NaN throughout for one that is not all finite.
        sample: some of its entries.
    """

    row: np.ndarray
    sample: np.ndarray


def measured(entries: np.ndarray, bounds: tuple[float, float] | None = None) -> Measured:
    """A layer's output by the table, `(examples, …, units)` float32."""
    row, sums = np.full(len(STATISTICS), np.nan), Sums(entries, bounds)
    if math.isfinite(sums.low) and math.isfinite(sums.high):
        row[PLACES] = [statistic(sums) for statistic in TABLE.values()]
    flat = entries.reshape(-1)
    return Measured(row, flat[:: stride(flat.size)].copy())


def statistics(epochs: list[Measured]) -> np.ndarray:
    """One layer's outputs at several epochs, `(epochs, len(STATISTICS))`; what outputs do not have is NaN."""
    table, samples = np.stack([each.row for each in epochs]), np.stack([each.sample for each in epochs])
    with np.errstate(invalid="ignore"):
        table[:, QUANTILE_PLACES] = quantiles(Rows(samples, samples[0]))
    table[np.isnan(table[:, PLACES[0]])] = np.nan
    return table


def stride(count: int) -> int:
    """Between sampled entries of so many: prime to their number, so that it meets no axis in step."""
    step = -(-count // SAMPLE)
    while math.gcd(step, count) > 1:
        step += 1
    return step


@contextmanager
def _listening(layers, found: dict, watch) -> Iterator[None]:
    """While it lasts, what these layers give is put down: layer's id -> tensor."""

    def listens(layer, call):
        def heard(*arguments, **settings):
            given = call(*arguments, **settings)
            first = tf.nest.flatten(given)[0]
            watch(first)
            found.pop(id(layer), None)
            found[id(layer)] = first
            return given

        return heard

    own = {id(layer): layer.__dict__.get("call") for layer in layers}
    for layer in layers:
        layer.__dict__["call"] = listens(layer, layer.call)
    try:
        yield
    finally:
        for layer in layers:
            if own[id(layer)] is None:
                del layer.__dict__["call"]
            else:
                layer.__dict__["call"] = own[id(layer)]


def _parts(layer) -> list:
    return list(layer._flatten_layers(include_self=False))


def _is_shown(layer) -> bool:
    if isinstance(layer, LOOPS):
        return True
    if isinstance(layer, keras.Model) or _parts(layer):
        return False
    return bool(layer.weights) or isinstance(layer, BY_KIND) or callable(getattr(layer, "activation", None))


def _bounds(layer) -> tuple[float, float] | None:
    """Of a layer's activation; a gated one's output is a product of activations, which has no bound to be near to."""
    if isinstance(layer, keras.layers.LSTM | keras.layers.GRU):
        return None
    activation = getattr(layer, "activation", None)
    return next((bounds for function, bounds in BOUNDS.items() if function is activation), None)


def _is_here(tensor) -> bool:
    """Whether a tensor is of the graph at hand, not of a loop's inside it, and can be measured."""
    if not tf.executing_eagerly() and getattr(tensor, "graph", None) is not tf.compat.v1.get_default_graph():
        return False
    return tensor.dtype.is_floating and tensor.shape.is_fully_defined()


def _has_kernel(layer) -> bool:
    return any(len(v.shape) > 1 for v in layer.trainable_variables)
