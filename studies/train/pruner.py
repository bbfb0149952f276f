"""A trial's pruning: cuts its network between epochs, and starts what is left again."""

import math
from collections.abc import Callable

import keras
import numpy as np

from studies.factors import targets
from studies.factors.criteria import CRITERIA, ITERATIONS, Network, levels, select, shuffled
from studies.factors.pruning import UNPRUNED, Pruning
from studies.record import StudyError, listed
from studies.train.engine import Engine
from studies.train.prunable import KERNELS, OF_UNITS, prunable, spread

LINEAR_ABOVE_ZERO = ("relu", "leaky_relu", "linear", "elu", "selu", "celu")
"""Activations that are, so that sums over paths stay such."""

NO_SUMS_OVER_PATHS = (
    *(keras.layers.LayerNormalization, keras.layers.GroupNormalization, keras.layers.RMSNormalization),
    *(keras.layers.MultiHeadAttention, keras.layers.Softmax, keras.layers.RNN),
)

EXAMPLES = 512
"""How many training examples a criterion by gradients sees at most."""


def pruning_of(node: dict, allow: list[str]) -> Pruning:
    """What a pruning node asks for.

    Raises:
        StudyError: it is refused, or gives what is no `studies.factors.pruning.Pruning`.
    """
    built = targets.build(node, "pruning", allow) or UNPRUNED
    if not isinstance(built, Pruning):
        raise StudyError(
            f"pruning._target_={node['_target_']} gives a {type(built).__name__}: expected a "
            f"studies.factors.pruning.Pruning"
        )
    return built


def masked(pruning: Pruning) -> tuple[str, ...]:
    """How the names of the weights end that have masks."""
    if pruning is UNPRUNED:
        return ()
    return OF_UNITS if pruning.structured else KERNELS


def check(pruning: Pruning, epochs: int, model: keras.Model, from_logits: bool) -> None:
    """See that a run can be pruned so.

    Raises:
        StudyError: its plan does not fit the epochs, or the criterion the model.
    """
    plan = pruning.plan(epochs)
    prunable(model, pruning)
    if pruning.criterion == "movement" and any(cut.after == 0 for cut in plan.cuts):
        raise StudyError(
            "pruning.criterion=movement with a cut before the first epoch: nothing has moved yet. Cut later, such as "
            "pruning.at=0.5, or choose another criterion, such as snip"
        )
    if pruning.criterion == "synflow":
        _check_flow(model, from_logits)


def _check_flow(model: keras.Model, from_logits: bool) -> None:
    """See that what flows through a model's absolute weights is a sum over paths, which SynFlow takes it for."""
    if not from_logits:
        raise StudyError(
            "pruning.criterion=synflow, and the model ends in a softmax, whose outputs add up to one whatever flows: "
            "expected a model that gives logits, such as model.classifier_activation=null, or another criterion"
        )
    for layer in model._flatten_layers(include_self=False):
        activation = getattr(layer, "activation", None)
        name = getattr(activation, "__name__", "linear") if callable(activation) else "linear"
        if name not in LINEAR_ABOVE_ZERO or isinstance(layer, NO_SUMS_OVER_PATHS):
            what = f"has the activation {name}" if name not in LINEAR_ABOVE_ZERO else f"is a {type(layer).__name__}"
            raise StudyError(
                f"pruning.criterion=synflow, and the layer {layer.name} {what}, through which what flows is no sum "
                f"over paths: expected the activations {listed(LINEAR_ABOVE_ZERO)}, and batch normalization or none. "
                f"Choose another criterion, such as snip"
            )


class Pruner:
    """Cuts a network by a plan, and starts it again.

    Args:
        pruning: how; with `UNPRUNED` nothing ever happens.
        epochs: of the run.
        engine: with masks, if there is anything to prune.
        gradients: gives the gradients that a criterion may ask for, of some kernels.
        draw: puts a fresh draw into the engine.
        rng: what is random comes from it.
    """

    def __init__(
        self,
        pruning: Pruning,
        epochs: int,
        engine: Engine,
        gradients: Callable[[list], list[np.ndarray]],
        draw: Callable[[], None],
        rng: np.random.Generator,
    ):
        self.pruning, self.engine, self.draw, self.rng = pruning, engine, draw, rng
        self.gradients = gradients
        self.plan, self.masks = pruning.plan(epochs), engine.masks
        self.cuts = {cut.after: cut for cut in self.plan.cuts}
        self.goes_back = any(cut.back for cut in self.plan.cuts)
        self.early: list = []
        self.kernels = prunable(engine.model, pruning) if engine.masks.weights else []
        self.kept = [np.ones(self._of_cut(kernel), bool) for kernel in self.kernels]
        self.sparsity = 0.0

    def after(self, epoch: int) -> bool:
        """Do what comes after an epoch, 0 for the untrained network; whether weights have gone."""
        if self.goes_back and epoch == self.plan.early:
            self.early = self.engine.state()
        cut = self.cuts.get(epoch)
        if cut is None or cut.back:
            return False
        self._cut(cut)
        return True

    def before(self, epoch: int) -> bool:
        """Do what comes before an epoch, counted from 1; whether the network starts again."""
        cut = self.cuts.get(epoch - 1)
        if cut is None or not cut.back:
            return False
        self._cut(cut)
        if self.pruning.restart == "reinitialize" and cut is self.plan.cuts[-1]:
            masks = self._masks()
            self.draw()
            self.engine.mask(masks)
        elif self.pruning.restart != "continue":
            masks = self._masks()
            self.engine.restore(self.early)
            self.engine.mask(masks)
        return True

    def state(self) -> dict:
        """All that it remembers and the engine does not."""
        random = self.rng.bit_generator.state
        return {"early": self.early, "kept": self.kept, "sparsity": self.sparsity, "random": random}

    def restore(self, state: dict) -> None:
        """Go back to what `state` gave."""
        self.early, self.kept, self.sparsity = state["early"], state["kept"], state["sparsity"]
        self.rng.bit_generator.state = state["random"]

    @property
    def shares(self) -> dict[str, float]:
        """The share of the prunable weights that is gone, and of all the model's parameters that is left."""
        if not self.kernels:
            return {}
        gone = {id(w): int(np.count_nonzero(kept.numpy() == 0)) for w, kept in zip(self.masks.weights, self.masks.kept)}
        size, total = (sum(math.prod(v.shape) for v in some) for some in (self.kernels, self.engine.model.weights))
        return {
            "sparsity": sum(gone[id(kernel)] for kernel in self.kernels) / size,
            "parameters_kept": 1 - sum(gone.values()) / total,
        }

    def _cut(self, cut) -> None:
        criterion, last = self.pruning.criterion, cut is self.plan.cuts[-1]
        score = CRITERIA[criterion] if isinstance(criterion, str) else criterion
        iterations = ITERATIONS.get(str(criterion), 1) if cut.sparsity > self.sparsity else 1
        for level in levels(self.sparsity, cut.sparsity, iterations):
            with np.errstate(all="ignore"):  # weights of a trial that diverges
                scores = score(self._network())
            self.kept = select(scores, self.kept, level, self.pruning.scope, self.rng, int(self.pruning.structured))
        if self.pruning.shuffled and last:
            self.kept = shuffled(self.kept, self.rng)
        self.sparsity = cut.sparsity
        self.engine.mask(self._masks())

    def _network(self) -> Network:
        """What is left of the network, as a criterion sees it."""
        masks, engine = self.masks, self.engine
        places = [masks.places[id(kernel)] for kernel in self.kernels]
        values = [k.numpy() * kept for k, kept in zip(self.kernels, self.kept, strict=True)]
        return Network(
            values,
            lambda: self.gradients(self.kernels),
            lambda: [masks.moved[place].numpy() for place in places],
            lambda values: engine.sensitivity.flow(self.kernels, values),
            self.rng,
        )

    def _masks(self) -> list[np.ndarray]:
        """A mask for each weight that has one in the engine."""
        weights = self.masks.weights
        if self.pruning.structured:
            return spread(self.engine.model, self.kernels, self.kept, weights)
        own = dict(zip(map(id, self.kernels), self.kept, strict=True))
        return [own.get(id(w), np.ones(w.shape, bool)) for w in weights]

    def _of_cut(self, kernel) -> tuple[int, ...]:
        """The shape of what stays or goes."""
        return tuple(kernel.shape[-1:] if self.pruning.structured else kernel.shape)
