"""Initial weights, drawn for each layer by itself."""

import hashlib

import numpy as np

from studies import targets

SEED_STATE = "seed_generator_state"


def layer_seed(stream: np.random.SeedSequence, name: str) -> int:
    """An integer seed from a stream and a name alone: not from the depth or the order of construction."""
    words = np.frombuffer(hashlib.sha256(name.encode()).digest(), np.uint32)
    child = np.random.SeedSequence(stream.entropy, spawn_key=(*stream.spawn_key, *words.tolist()))
    return int(child.generate_state(1)[0] >> 1)


class Drawing:
    """How a model's variables start: its kernels from the study's initializer, the others from their layers' own.

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

    @staticmethod
    def _value(rule, node, allow, init, dropout):
        name, tensor, variable, own, built = rule
        if tensor == SEED_STATE:
            return np.array([layer_seed(dropout, name), 0], built.dtype)
        if node and tensor.endswith("kernel"):
            initializer = targets.build(node, "initializer", allow, seed=layer_seed(init, name))
            return initializer(variable.shape, dtype=variable.dtype)
        if own is not None and "seed" in own.get_config():
            return type(own).from_config(own.get_config() | {"seed": layer_seed(init, name)})(variable.shape)
        return built
