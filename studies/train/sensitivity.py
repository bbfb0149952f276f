"""What pruning's criteria ask of a network besides its weights, each a graph that is traced when it is first asked."""

import numpy as np
import tensorflow as tf

FACTORS = (1.0, *(2.0**power for exponent in range(1, 25) for power in (-exponent, exponent)))
"""What all kernels are scaled by, in turn, until what flows through them is a float32 and not zero."""


class Sensitivity:
    """Gradients of an engine's network where its weights are.

    Args:
        engine: with a model, a loss and trainable weights.
    """

    def __init__(self, engine):
        self.engine = engine
        self.of_loss = tf.function(self._of_loss, autograph=False)
        self.of_flow = tf.function(self._of_flow, autograph=False)

    def gradients(self, data: tuple, order: np.ndarray, kernels: list) -> list[np.ndarray]:
        """The mean loss's gradient of each kernel on the examples `order`, in inference mode, without penalties."""
        found = dict(zip(map(id, self.engine.weights), self.of_loss(*data, tf.constant(order, tf.int32)), strict=True))
        return [found[id(kernel)].numpy() for kernel in kernels]

    def flow(self, kernels: list, values: list[np.ndarray]) -> list[np.ndarray]:
        """W · ∂R/∂w of each kernel at |`values`|, R the summed output for ones (Tanaka et al. 2020, eq. 4).

        Biases and offsets are zero and the rest is taken absolute, so that R is a sum over paths, and the scores of
        each layer that all paths go through add up to R. Scaling all kernels alike, as is done where R is no float32,
        leaves the scores' order where paths are equally long.
        """
        model, weights = self.engine.model, self.engine.weights
        own, before = dict(zip(map(id, kernels), values, strict=True)), [v.numpy() for v in model.variables]
        try:
            for factor in FACTORS:
                for variable, value in zip(model.variables, before, strict=True):
                    variable.assign(_linear(variable, own.get(id(variable), value), factor))
                found = dict(zip(map(id, weights), self.of_flow(), strict=True))
                flows = [np.asarray(found[id(k)], float) * np.abs(v) for k, v in zip(kernels, values, strict=True)]
                if all(np.isfinite(flow).all() for flow in flows) and any(flow.any() for flow in flows):
                    break
        finally:
            for variable, value in zip(model.variables, before, strict=True):
                variable.assign(value)
        return flows

    def _of_loss(self, x, y, scale, shift, order):
        values = [v.value for v in self.engine.weights]
        with tf.GradientTape() as tape:
            images = tf.cast(tf.gather(x, order), tf.float32) * scale + shift
            loss = self.engine.loss(tf.gather(y, order), self.engine.model(images, training=False))
        return tape.gradient(loss, values, unconnected_gradients="zero")

    def _of_flow(self):
        values, model = [v.value for v in self.engine.weights], self.engine.model
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(model(tf.ones((1, *model.input_shape[1:])), training=False))
        return tape.gradient(total, values, unconnected_gradients="zero")


def _linear(variable, value, factor):
    """A variable's value in the linear network of absolute values."""
    name = variable.path.rpartition("/")[2]
    if name.endswith("kernel"):
        return np.abs(value) * factor
    if name in ("bias", "beta", "moving_mean"):
        return np.zeros_like(value)
    if name == "moving_variance":
        return np.ones_like(value)
    return np.abs(value) if value.dtype.kind == "f" else value
