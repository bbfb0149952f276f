"""The rules of a step, in the order in which they act: on images, on targets, on gradients, on kernels."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import tensorflow as tf

from studies.factors import augmentation, class_weights, optimizers, targets
from studies.factors.rules import Rule, Step
from studies.record import StudyError

GROUPS = {"clipping": "clip", "regularizer": "penalty"}
"""The config groups whose options act at a step -> the field of `Rule` that a plain function of theirs is."""

SHRINK = (
    *(f"keras.regularizers.{name}" for name in ("L1", "L2", "L1L2", "l1", "l2", "l1_l2")),
    *(f"studies.regularizers.{name}" for name in ("decoupled", "proximal_l1")),
)
"""The regularizers that may be of all weights, by `applies_to`: each weight is drawn to zero by itself."""


def rules(config: dict, allow: list[str], counts: np.ndarray | None = None) -> "Rules":
    """Those of a trial's config: what is done to any dataset, then what goes around any optimizer, then `GROUPS`.

    Args:
        counts: how many training examples each class has, `(classes,)`; without them no class is weighted.
    """
    options = [option(config[group], group, allow) for group in GROUPS if config[group]]
    weights = class_weights.rules(config["training"], counts)
    return Rules([*augmentation.rules(config["data"]), *weights, *optimizers.rules(config["optimizer"]), *options])


def option(node: dict, group: str, allow: list[str]) -> Rule:
    """The rule that a node of one of `GROUPS` is.

    Raises:
        StudyError: it is refused, or gives what is no rule.
    """
    shrinks = targets.canonical_name(node["_target_"]) in SHRINK
    own = {name: value for name, value in node.items() if not (shrinks and name == "applies_to")}
    built, field = targets.build(own, group, allow), GROUPS[group]
    if isinstance(built, Rule):
        return replace(built, applies_to=node["applies_to"]) if own.keys() < node.keys() else built
    if not callable(built):
        raise StudyError(
            f"{group}._target_={node['_target_']} gives a {type(built).__name__}: expected a "
            f"studies.factors.rules.Rule, or a function as its field {field} takes"
        )
    return Rule(**{field: built}, applies_to=node["applies_to"]) if own.keys() < node.keys() else Rule(**{field: built})


class Rules:
    """An ordered list of rules as one; what was drawn is a list too, an entry for each."""

    def __init__(self, rules: Sequence[Rule] = ()):
        self.rules = tuple(rules)

    @property
    def clip(self) -> bool:
        """Whether gradients are clipped."""
        return any(rule.clip for rule in self.rules)

    @property
    def gain_from_xla(self) -> bool:
        """Whether XLA makes none of them slower."""
        return all(rule.gains_from_xla for rule in self.rules)

    @property
    def change_gradients(self) -> bool:
        """Whether one does more to gradients than clip them."""
        return any(rule.gradients for rule in self.rules)

    @property
    def need_one_pass(self) -> bool:
        """Whether the gradients of a batch are needed once only."""
        return all(rule.one_pass for rule in self.rules)

    def draw(self, streams: dict[str, np.random.Generator], steps: int, batch: int) -> list[np.ndarray]:
        """What is random in so many steps, `(steps, …)` float32 for each rule."""
        return [
            rule.draw(streams[rule.stream], steps, batch).astype(np.float32)
            if rule.draw
            else np.zeros((steps, 0), np.float32)
            for rule in self.rules
        ]

    def examples(self, images: tf.Tensor, labels: tf.Tensor, classes: int, drawn: list) -> tuple[tf.Tensor, tf.Tensor]:
        """Images and targets of a batch: labels `(batch,)` until a rule asks for shares of the classes."""
        targets = labels
        for rule, numbers in zip(self.rules, drawn, strict=True):
            if rule.images:
                images = rule.images(images, numbers)
            if rule.examples:
                shares = targets if targets.shape.rank == 2 else tf.one_hot(targets, classes)
                images, targets = rule.examples(images, shares, numbers)
        return images, targets

    def weights(self, targets: tf.Tensor, drawn: list) -> tf.Tensor | None:
        """What each example's loss counts, `(batch,)`; None: all alike."""
        found = [rule.weigh(targets, numbers) for rule, numbers in zip(self.rules, drawn, strict=True) if rule.weigh]
        return functools.reduce(tf.multiply, found) if found else None

    def penalties(self, weights: list) -> list:
        """What is added to the loss."""
        return [rule.penalty(w.value) for rule in self.rules if rule.penalty for w in _those(weights, rule)]

    def gradients(
        self, gradients: list, weights: list, number: tf.Tensor, gradients_now: Callable[[], list], drawn: list
    ) -> tuple[list, tf.Tensor]:
        """Gradients to go by, and the share that was clipped."""
        share = tf.zeros(())
        for rule, numbers in zip(self.rules, drawn, strict=True):
            if rule.gradients:
                gradients = rule.gradients(gradients, Step(weights, number, numbers, gradients_now))
            if rule.clip:
                gradients, share = rule.clip(gradients, [weight.value for weight in weights])
        return gradients, share

    def change(self, when: str, weights: list, rate: tf.Tensor) -> None:
        """Change weights `before` or `after` the update."""
        for rule in self.rules:
            if change := getattr(rule, when):
                for weight in _those(weights, rule):
                    weight.assign(change(weight.value, rate))


def _those(weights: list, rule: Rule) -> list:
    """The weights that a rule is of."""
    return [weight for weight in weights if rule.applies_to == "all" or len(weight.shape) > 1]
