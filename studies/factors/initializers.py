"""Initial weights, drawn for each layer by itself, and the initializers that Keras lacks.

An initializer takes a kernel's shape, inputs before outputs, and gives its weights; its seed is the layer's own.
"""

import hashlib
import math
from collections.abc import Callable

import keras
import numpy as np

from studies.factors import targets

SEED_STATE = "seed_generator_state"


def scaled(initializer: str, gain: float, seed: int | None = None) -> Callable:
    """One of Keras's initializers by its name, times `gain`: for studies of the initial scale."""
    draw = keras.initializers.get({"class_name": initializer, "config": {"seed": seed}})
    return lambda shape, dtype="float32": gain * draw(shape, dtype=dtype)


def sparse(connections: int, stddev: float, seed: int | None = None) -> Callable:
    """Each unit has `connections` incoming weights from N(0, stddev²), all others zero (Martens 2010, section 5).

    A unit with fewer inputs than that, as in a first convolution, has all its weights drawn.
    """

    def draw(shape, dtype="float32"):
        fan_in, units = math.prod(shape[:-1]), shape[-1]
        rng = np.random.default_rng(seed)
        weights = np.zeros((fan_in, units), dtype)
        for unit in range(units):
            chosen = rng.choice(fan_in, min(connections, fan_in), replace=False)
            weights[chosen, unit] = stddev * rng.standard_normal(len(chosen))
        return weights.reshape(shape)

    return draw


def delta_orthogonal(gain: float, seed: int | None = None) -> Callable:
    """An orthogonal matrix in the centre of a convolution's window, zeros around it (Xiao et al. 2018, section 2.3).

    A dense kernel is orthogonal. Where there are fewer outputs than inputs only the outputs' weights are orthonormal.
    """
    orthogonal = keras.initializers.Orthogonal(gain=gain, seed=seed)

    def draw(shape, dtype="float32"):
        weights = np.zeros(shape, dtype)
        weights[tuple(size // 2 for size in shape[:-2])] = orthogonal(shape[-2:], dtype=dtype)
        return weights

    return draw


class LSUV:
    """Orthogonal weights, each layer's then scaled to outputs of variance 1 (Mishkin & Matas 2016, algorithm 1).

    Args:
        tolerance: how far from 1 the variance may be.
        trials: how often a layer is scaled at most.
    """

    def __init__(self, tolerance: float, trials: int, seed: int | None = None):
        self.tolerance, self.trials = tolerance, trials
        self.orthogonal = keras.initializers.Orthogonal(seed=seed)

    def __call__(self, shape, dtype="float32"):
        """A kernel before its scaling."""
        return self.orthogonal(shape, dtype=dtype)

    def adapt(self, model: keras.Model, images: np.ndarray) -> None:
        """Scale the kernels of a model's own layers, from the input on, by their outputs for `images`."""
        for layer in model.layers:
            if getattr(layer, "kernel", None) is None:
                continue
            inputs = keras.Model(model.inputs, layer.input)([images])
            activation, layer.activation = layer.activation, keras.activations.linear
            for _ in range(self.trials):
                variance = float(keras.ops.var(layer(inputs)))
                if abs(variance - 1) < self.tolerance or not variance > 0:
                    break
                layer.kernel.assign(layer.kernel / math.sqrt(variance))
            layer.activation = activation


def layer_seed(stream: np.random.SeedSequence, name: str) -> int:
    """An integer seed from a stream and a name alone: not from the depth or the order of construction."""
    words = np.frombuffer(hashlib.sha256(name.encode()).digest(), np.uint32)
    child = np.random.SeedSequence(stream.entropy, spawn_key=(*stream.spawn_key, *words.tolist()))
    return int(child.generate_state(1)[0] >> 1)


class Drawing:
    """How a model's variables start: its kernels from the study's initializer, the others from their layers' own.

    A kernel that its layer starts at zero stays at zero: the end of a residual branch.

    Args:
        model: a built Keras model.
        name_of: variable -> its layer's name and its own.
    """

    def __init__(self, model, name_of):
        owners = {
            id(v): layer for layer in model._flatten_layers(include_self=False) for v in layer._trainable_variables
        }
        self.rules = []
        for variable in model.variables:
            layer, tensor = name_of(variable)
            own = getattr(owners.get(id(variable)), f"{tensor}_initializer", None)
            self.rules.append((f"{layer}/{tensor}", tensor, variable, own, variable.numpy().copy()))

    def draw(self, node: dict, allow: list[str], init: np.random.SeedSequence, dropout: np.random.SeedSequence) -> list:
        """One array for each of `model.variables`, in their order."""
        return [self._value(rule, node, allow, init, dropout) for rule in self.rules]

    def try_out(self, node: dict, allow: list[str]) -> None:
        """Draw one kernel of each shape, to see that the initializer takes it.

        Raises:
            ValueError: it does not, or gives another shape; or whatever the user's own raises.
        """
        stream = np.random.SeedSequence(0)
        for rule in {rule[2].shape: rule for rule in self.rules if rule[1].endswith("kernel")}.values():
            name, _, variable, *_ = rule
            shape = tuple(np.shape(self._value(rule, node, allow, stream, stream)))
            if shape != tuple(variable.shape):
                raise ValueError(f"{name} has the shape {tuple(variable.shape)}, and was given {shape}")

    @staticmethod
    def _value(rule, node, allow, init, dropout):
        name, tensor, variable, own, built = rule
        if tensor == SEED_STATE:
            return np.array([layer_seed(dropout, name), 0], built.dtype)
        if node and tensor.endswith("kernel") and not isinstance(own, keras.initializers.Zeros):
            initializer = targets.build(node, "initializer", allow, seed=layer_seed(init, name))
            return initializer(variable.shape, dtype=variable.dtype)
        if own is not None and "seed" in own.get_config():
            return type(own).from_config(own.get_config() | {"seed": layer_seed(init, name)})(variable.shape)
        return built
