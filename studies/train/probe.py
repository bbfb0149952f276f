"""Graphs that look at a network between epochs and leave it as it is."""

import math
from collections.abc import Callable
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from studies.contract import STATISTICS
from studies.observe import activations, curvature
from studies.observe.activations import Measured
from studies.observe.curvature import JACOBIAN_INPUTS, SMALL_BATCH, Objective


@dataclass(frozen=True)
class Named:
    """What is known of an output before it is measured: see `activations.Output`."""

    layer: str
    entries: int
    bounds: tuple[float, float] | None
    opens: bool


class Probe:
    """What a network gives for some examples, and how its loss lies around it.

    Args:
        model: a built Keras model.
        objective: the loss that is trained.
        from_logits: whether the model gives logits, not probabilities.
    """

    def __init__(self, model, objective: Objective, from_logits: bool = True):
        self.model, self.objective, self.from_logits = model, objective, from_logits
        self.outputs, self.named = activations.Outputs(model), []
        self.graphs: dict[tuple, Callable] = {}

    def bytes_each(self, x, scale, shift, order: np.ndarray) -> int:
        """What the outputs of all layers take for one of some images."""
        given = x, scale, shift, order
        self._graph(self._look, given, [tf.convert_to_tensor(value) for value in given])
        return 4 * sum(named.entries for named in self.named) // len(order)

    def look(self, x, scale, shift, order: np.ndarray) -> list[Measured]:
        """Measure the outputs of all layers for some images, in the order of `named`.

        Args:
            x, scale, shift: as an engine takes them.
            order: which images.
        """
        given = self._called(self._look, x, scale, shift, order)
        entries = [np.asarray(memoryview(tensor)) for tensor in given]  # without a copy
        return [activations.measured(each, of.bounds) for each, of in zip(entries, self.named, strict=True)]

    def gradients(self, x, y, scale, shift, order: np.ndarray) -> np.ndarray:
        """‖∂loss/∂output‖ of each output in `named`, for the mean loss of some images; `(outputs,)`."""
        return self._called(self._gradients, x, y, scale, shift, order).numpy()

    def slopes(self, looked: list[Measured], gradients: np.ndarray) -> dict[str, float]:
        """How activations and gradients grow from layer to layer, by the columns of the epochs frame."""
        sds = np.array([each.row[STATISTICS.index("sd")] for each in looked])
        opens = [named.opens for named in self.named]
        return {
            "activation_slope": curvature.slope(sds, opens),
            "gradient_slope": curvature.slope(gradients, opens),
        }

    def surroundings(self, x, y, scale, shift, order: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
        """Sharpness, noise scale and Jacobian's spectrum, by the columns of the epochs frame.

        Args:
            order: examples, at least one; those of a part of a batch of `SMALL_BATCH` are left out of the noise scale.
            rng: where the search for the greatest eigenvalue begins.
        """
        count = sum(math.prod(v.shape) for v in self.model.trainable_variables)
        start, sharpness = rng.standard_normal(count, np.float32), math.nan
        with suppress(LookupError):  # an operation whose gradient has none
            found = self._called(self._hessian, x, y, scale, shift, order, start)
            sharpness = curvature.sharpness(*(part.numpy() for part in found))
        small, large = self._called(self._noise, x, y, scale, shift, order)
        whole = len(order) // SMALL_BATCH * SMALL_BATCH
        products = self._called(self._jacobians, x, scale, shift, order[:JACOBIAN_INPUTS])
        return {
            "sharpness": sharpness,
            "noise_scale": curvature.noise_scale(float(small), float(large), whole),
            **curvature.jacobian_spectrum(products.numpy()),
        }

    def _called(self, function, *given):
        """The graph of a function of ours, traced once for so many examples of the data."""
        tensors = [tf.convert_to_tensor(value) for value in given]
        return self._graph(function, given, tensors)(*tensors)

    def _graph(self, function, given, tensors) -> Callable:
        place = function.__name__, *(len(value) for value in given if isinstance(value, np.ndarray))
        if place not in self.graphs:
            specs = [tf.TensorSpec(t.shape, t.dtype) for t in tensors]
            graph = tf.function(lambda *tensors: self._untouched(function, *tensors), autograph=False)
            self.graphs[place] = graph.get_concrete_function(*specs)
        return self.graphs[place]

    def _untouched(self, function, *tensors):
        """Call a function, and give what it may change in the network the values that it had."""
        variables = [v.value for v in self.model.non_trainable_variables]
        before = [variable.read_value() for variable in variables]
        found = function(*tensors)
        with tf.control_dependencies(tf.nest.flatten(found)):
            for variable, value in zip(variables, before, strict=True):
                variable.assign(value)
        return tf.nest.map_structure(tf.identity, found)

    def _look(self, x, scale, shift, order):
        outputs = self.outputs(_images(x, scale, shift, order))
        self.named = [Named(o.layer, math.prod(o.tensor.shape), o.bounds, o.opens) for o in outputs]
        return [tf.cast(output.tensor, tf.float32) for output in outputs]

    def _gradients(self, x, y, scale, shift, order):
        images, found = _images(x, scale, shift, order), []
        with tf.GradientTape() as tape:
            with self.outputs.heard(found, tape.watch):
                loss = self.objective(images, tf.gather(y, order))
            tensors = [output.tensor for output in found]
        gradients = tape.gradient(loss, tensors, unconnected_gradients="zero")
        squares = [tf.reduce_sum(tf.square(tf.cast(gradient, tf.float64))) for gradient in gradients]
        return tf.sqrt(tf.stack(squares)) if squares else tf.zeros((0,), tf.float64)

    def _hessian(self, x, y, scale, shift, order, start):
        weights = [v.value for v in self.model.trainable_variables]
        pieces = tf.split(start, [math.prod(weight.shape) for weight in weights])
        start = [tf.reshape(piece, weight.shape) for piece, weight in zip(pieces, weights, strict=True)]
        images, labels = _images(x, scale, shift, order), tf.gather(y, order)
        return curvature.hessian_products(self.objective, weights, images, labels, start)

    def _noise(self, x, y, scale, shift, order):
        weights = [v.value for v in self.model.trainable_variables]
        return curvature.gradient_squares(self.objective, weights, _images(x, scale, shift, order), tf.gather(y, order))

    def _jacobians(self, x, scale, shift, order):
        classes = self.model.output_shape[-1]
        images = _images(x, scale, shift, order)
        some = images[: curvature.jacobian_inputs(tuple(images.shape[1:]), classes)]
        return curvature.jacobian_products(self._logits, some, classes)

    def _logits(self, images):
        with nullcontext() if self.from_logits else _without_softmax(self.model.layers[-1]):
            return self.model(images, training=False)


@contextmanager
def _without_softmax(layer):
    """A layer that ends in a softmax gives what goes into it while this lasts.

    The logarithm of what comes out is no substitute: its Jacobian has lost a rank, and it has none where p is 0.
    """
    place = "call" if isinstance(layer, keras.layers.Softmax) else "activation"
    before = vars(layer).get(place)
    setattr(layer, place, lambda inputs, mask=None: inputs)
    try:
        yield
    finally:
        if before is None:
            delattr(layer, place)  # and the class's own is back
        else:
            setattr(layer, place, before)


def _images(x, scale, shift, order):
    return tf.cast(tf.gather(x, order), tf.float32) * scale + shift
