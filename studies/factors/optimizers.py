"""What Keras's optimizers lack: what goes around any of them, and a momentum that changes."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from studies.factors.rules import Rule, Step, joint_norm
from studies.record import StudyError, shown

AROUND = ("sam", "lookahead", "slow_step", "ema", "weight_decay_on")
"""Settings of any optimizer that Keras's do not take."""

INSTEAD = {
    "use_ema": "ask for an average of the weights with optimizer.ema=0.99",
    "ema_momentum": "give the average's decay as optimizer.ema=0.99",
    "decay": "Keras ignores it; use a schedule, or +optimizer.weight_decay",
    "lr": "it is called optimizer.learning_rate",
}
"""Arguments of Keras's optimizers that a node may not have, and what to do."""


def optimizer_of(
    node: dict, build: Callable[[dict], keras.optimizers.Optimizer]
) -> "keras.optimizers.Optimizer | Lookahead":
    """An optimizer node's optimizer, not built yet, with what config.yaml puts around any of them.

    Args:
        build: makes an object of a node.

    Raises:
        StudyError: an argument that would be taken and do something else, or nothing.
    """
    own = {name: value for name, value in node.items() if name not in AROUND}
    for name, instead in INSTEAD.items():
        if name in own:
            raise StudyError(f"optimizer.{name}={shown(own[name])}: expected no such setting: {instead}")
    if node["ema"]:
        own |= {"use_ema": True, "ema_momentum": node["ema"]}
    optimizer = build(own)
    if node["sam"] and optimizer.gradient_accumulation_steps:
        raise StudyError(
            f"optimizer.sam={node['sam']:g} with optimizer.gradient_accumulation_steps="
            f"{optimizer.gradient_accumulation_steps}: a point up the loss of all accumulated batches would need them "
            f"twice; leave one out, or have the whole batch in training.batch_size"
        )
    return Lookahead(optimizer, node["lookahead"], node["slow_step"]) if node["lookahead"] else optimizer


def exempt(optimizer: "keras.optimizers.Optimizer | Lookahead", node: dict, weights: list[keras.Variable]) -> None:
    """Leave biases and norms out of the decay of an optimizer that is not built yet, if its node says so."""
    if node.get("weight_decay_on", "all") == "kernels":
        own: Any = getattr(optimizer, "optimizer", optimizer)
        others = [w for w in weights if len(w.shape) < 2 or w.path.endswith("bias")]  # a GRU's bias has two dimensions
        own.exclude_from_weight_decay(var_list=others)


def rules(node: dict) -> list[Rule]:
    """What an optimizer node has done to gradients."""
    return [sharpness_aware(node["sam"])] if node["sam"] else []


def taken_over(optimizer: "keras.optimizers.Optimizer | Lookahead") -> tuple[int, float]:
    """Batches an update and the loss's factor, which the engine sees to: Keras's settings of them are cleared.

    In Keras's `apply` an accumulating step decays, and in its `fit` alone the loss is scaled.
    """
    own: Any = getattr(optimizer, "optimizer", optimizer)
    batches, scale = own.gradient_accumulation_steps or 1, own.loss_scale_factor or 1.0
    own.gradient_accumulation_steps = own.loss_scale_factor = None
    return batches, scale


class Lookahead:
    """Every few steps the weights go back to a point between where they were and where they are (Zhang et al. 2019).

    Args:
        optimizer: a Keras optimizer, whose weights are the paper's fast ones.
        every: steps between, the paper's k.
        slow_step: how far the slow weights go towards the fast ones, the paper's alpha.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer, every: int, slow_step: float):
        self.optimizer, self.every, self.slow_step = optimizer, every, slow_step
        self.finalize_variable_values = optimizer.finalize_variable_values

    def build(self, weights: list[keras.Variable]) -> None:
        """Make the optimizer's slots, and the slow weights as copies."""
        self.optimizer.build(weights)
        names = [f"{weight.path.replace('/', '_')}_slow" for weight in weights]  # as Keras names slots
        self.slow = [keras.Variable(w.numpy(), trainable=False, name=n) for n, w in zip(names, weights, strict=True)]

    @property
    def variables(self) -> list:
        """All state."""
        return [*self.optimizer.variables, *self.slow]

    @property
    def learning_rate(self) -> keras.Variable:
        """The optimizer's variable."""
        return self.optimizer.learning_rate

    @property
    def use_ema(self) -> bool:
        """Whether the optimizer keeps an average of the weights."""
        return self.optimizer.use_ema

    @property
    def iterations(self) -> keras.Variable:
        """Steps done, a variable."""
        return self.optimizer.iterations

    def apply(self, gradients: list, weights: list[keras.Variable]) -> None:
        """A step of the optimizer's; after every k-th the slow weights follow, and both are one."""
        self.optimizer.apply(gradients, weights)
        meets = self.iterations % self.every == 0  # algorithm 1
        for weight, slow in zip(weights, self.slow, strict=True):
            between = slow + self.slow_step * (weight - slow)
            slow.assign(tf.where(meets, between, slow))
            weight.assign(tf.where(meets, between, weight))


def sharpness_aware(radius: float) -> Rule:
    """The gradients at the point `radius` away, straight up the loss (Foret et al. 2021, algorithm 1)."""

    def gradients(gradients, step: Step):
        norm = joint_norm(gradients)
        scale = radius / tf.where(norm > 0, norm, 1.0)
        start = [weight.value.read_value() for weight in step.weights]
        for weight, gradient in zip(step.weights, gradients, strict=True):
            weight.assign_add(scale * gradient)
        found = step.gradients_now()
        for weight, value in zip(step.weights, start, strict=True):
            weight.assign(value)
        return found

    return Rule(gradients=gradients, one_pass=False)


class Cycle:
    """Sets an optimizer's momentum, Keras's `momentum` or `beta_1`, while a step is traced.

    Attributes:
        high: the optimizer's own momentum.

    Raises:
        ValueError: it has none.
    """

    def __init__(self, optimizer):
        self.optimizer = getattr(optimizer, "optimizer", optimizer)
        names = [name for name in ("momentum", "beta_1") if getattr(self.optimizer, name, 0)]
        if not names:
            raise ValueError(f"{type(self.optimizer).__name__} has no momentum above 0 to cycle")
        self.name, self.high = names[0], getattr(self.optimizer, names[0])

    def __call__(self, momentum) -> None:
        """Have what is traced from here on use a tensor as its momentum."""
        setattr(self.optimizer, self.name, _NotZero(momentum) if self.name == "momentum" else momentum)


class _NotZero:
    """A tensor that compares as a number above zero, as Keras's SGD asks of its momentum while it is traced."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __ne__(self, other):
        return True

    def __tf_tensor__(self, dtype=None, name=None):
        return self.tensor
