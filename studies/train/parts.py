"""What a trial trains with, built from its config: examples, model, optimizer, rules, schedule, a compiled engine.

What several trials can share is built once a process: datasets, and engines by what shapes their graphs.
"""

import dataclasses
import functools
import json
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework import ops

from studies import origin
from studies.factors import limits, targets
from studies.factors.data import Dataset, Split, noisy_labels, scaling, source, split, taken
from studies.factors.initializers import Drawing
from studies.factors.models import work
from studies.factors.optimizers import Cycle, Lookahead, exempt, optimizer_of
from studies.factors.pruning import Pruning
from studies.observe.tensors import weight_name
from studies.record import SEED_STREAMS, Result, StudyError, Trial, Work
from studies.train import pruner, saving, steps
from studies.train.engine import XLA_STEPS, Course, Engine, Epoch, chunked, ends_in_softmax, wants_xla

ENGINES_KEPT = 4
ADAPT_EXAMPLES = 256
"""How many training examples an initializer sees that adapts to them."""

PROBED = 8
"""So many images of noise show whether outputs are probabilities."""

_engines: OrderedDict = OrderedDict()
_datasets: OrderedDict = OrderedDict()
_drawings: OrderedDict = OrderedDict()

# The user's keras.json would change numbers under the same key.
keras.config.set_floatx("float32")
keras.config.set_dtype_policy("float32")
keras.config.set_epsilon(1e-7)
keras.config.set_image_data_format("channels_last")


def streams(seed: int, pins: dict) -> dict[str, np.random.SeedSequence]:
    """The seed's independent streams by name; a pinned one comes from its own seed instead."""
    return {
        name: np.random.SeedSequence(seed if pins.get(name) is None else pins[name], spawn_key=(place,))
        for place, name in enumerate(SEED_STREAMS)
    }


def check(config: dict) -> Iterator[str | Work | Result]:
    """Build every part of a config once and train nothing: gives a model's work, or why a part is refused; of an error
    in the user's own code a crash's result, with the traceback.
    """
    allow = config["targets"]["allow"]
    try:
        for group in ("initializer", "schedule"):
            if group in config:
                targets.build(config[group], group, allow)
        for group in steps.GROUPS:
            if config.get(group):
                steps.option(config[group], group, allow)
        if "optimizer" in config:
            optimizer = build_optimizer(config["optimizer"], allow)
            if "schedule" in config:
                cycle_of(targets.build(config["schedule"], "schedule", allow), optimizer, config["schedule"])
        if config.get("pruning"):
            _check_pruning(config, allow)
        elif "model" in config:
            _check_device(config["engine"]["device"])
            yield _check_draws(config, allow)
    except StudyError as error:
        own = origin.place(error)
        yield Result("", "crashed", error=f"{error}\n{traceback.format_exc()}") if own else str(error)


def _check_device(planned: str) -> None:
    found = "gpu" if tf.config.list_physical_devices("GPU") else "cpu"
    if planned != found:
        raise StudyError(
            f"the trials are to be trained on a {planned}, and TensorFlow found a {found}: expected the device that "
            f"their keys name. CUDA_VISIBLE_DEVICES=-1 before the command trains on the CPU; for a GPU, TensorFlow "
            f"needs its CUDA libraries: pip install 'tensorflow[and-cuda]'"
        )


def _check_pruning(config: dict, allow: list[str]) -> None:
    """Plan a run's pruning, and find in its model what may be pruned."""
    pruning = pruner.pruning_of(config["pruning"], allow)
    limits.check_lengths(config, pruning.plan(config["training"]["epochs"]).length)
    dataset, _ = dataset_of(config["data"], allow)
    model = build_model(config["model"], dataset, allow)
    pruner.check(pruning, config["training"]["epochs"], model, not ends_in_softmax(model))


def _check_draws(config: dict, allow: list[str]) -> Work:
    """Build the model for its data, and draw a kernel of each shape that it has; gives the model's work."""

    def make():
        dataset, _ = dataset_of(config["data"], allow)
        split(dataset, config["data"], np.random.default_rng(0))
        model = build_model(config["model"], dataset, allow)
        return Drawing(model, lambda variable: weight_name(variable, model)), work(model)

    node = config["initializer"]
    drawing, counted = _kept(_drawings, json.dumps([config["model"], config["data"]], sort_keys=True), make, limit=1)
    try:
        drawing.try_out(node, allow)
    except StudyError:
        raise
    except Exception as error:
        if origin.place(error):
            raise targets.own_fault(node, "initializer", error) from error
        if not isinstance(error, (*targets.REFUSALS, ArithmeticError, LookupError)):
            raise
        reason = " ".join(str(error).split()).rstrip(".")
        raise StudyError(
            f"initializer={node['_target_']} cannot draw what model={config['model']['_target_']} has: {reason}. "
            f"Choose another of either, or leave the arm out with study.skip"
        ) from error
    return counted


@dataclass(frozen=True)
class Examples:
    """A trial's data.

    Attributes:
        dataset: all of it.
        split: what is trained on, validated and tested.
        tensors: images, labels to train by, scale, shift: what an engine takes.
    """

    dataset: Dataset
    split: Split
    tensors: tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]

    def chance(self, part: str) -> float:
        """The accuracy of always guessing the commonest class of a part of the split, by the labels trained by."""
        labels = self.tensors[1].numpy()[getattr(self.split, part)]
        return float(np.bincount(labels).max() / len(labels))

    @property
    def counts(self) -> np.ndarray:
        """How many training examples each class has, by the labels trained by, `(classes,)`."""
        return np.bincount(self.tensors[1].numpy()[self.split.train], minlength=self.dataset.classes)

    @functools.cached_property
    def parts(self) -> dict[str, np.ndarray]:
        """Indices of what a network is evaluated on: of the training examples as many as are held out to validate."""
        train = self.split.train  # class after class: evenly spaced ones have each class in proportion
        count = min(len(self.split.val), len(train))
        some = train[np.linspace(0, len(train) - 1, count).round().astype(int)]
        return {"val": self.split.val, "train": some, "test": self.split.test}

    @functools.cached_property
    def chunks(self) -> tuple[tuple[tf.Tensor, tf.Tensor, tf.Tensor], dict[str, tuple[int, int]]]:
        """All parts as an engine evaluates them, and where each begins and ends: one shape, so one compiled graph."""
        order, weight, member = chunked(*self.parts.values())
        ends = np.cumsum(member.sum(axis=0)).astype(int).tolist()
        spans = dict(zip(self.parts, zip([0, *ends[:-1]], ends, strict=True), strict=True))
        return (tf.constant(order), tf.constant(weight), tf.constant(member)), spans


class Parts:
    """A trial's parts, put together and at their start.

    Args:
        trial: the trial.

    Raises:
        StudyError: a part is refused, or the batch is larger than the training set.
    """

    def __init__(self, trial: Trial):
        config, self.allow = trial.config, trial.config["targets"]["allow"]
        self.seeds = streams(trial.seed, config["seeds"])
        self.random = {name: np.random.default_rng(stream) for name, stream in self.seeds.items()}
        self.examples = self._examples(config["data"])
        self.epochs, self.batch = config["training"]["epochs"], config["training"]["batch_size"]
        if self.batch > len(self.examples.split.train):
            raise StudyError(
                f"training.batch_size={self.batch}: expected at most {len(self.examples.split.train)}, the number of "
                f"training examples"
            )
        self.steps = len(self.examples.split.train) // self.batch
        self.schedule_node = config["schedule"]
        self.schedule = targets.build(self.schedule_node, "schedule", self.allow)
        self.rules = steps.rules(config, self.allow, self.examples.counts)
        pruning = pruner.pruning_of(config["pruning"], self.allow)
        self.engine, drawing = self._engine(trial, pruning)
        self._start(drawing, config["initializer"], self.seeds["init"])
        again, noise = (_child(self.seeds[name], "pruning") for name in ("init", "noise"))
        self.pruner = pruner.Pruner(
            pruning,
            self.epochs,
            self.engine,
            self._gradients,
            lambda: self._start(drawing, config["initializer"], again),
            np.random.default_rng(noise),
        )
        self.pruner.after(0)
        self.rates, self.momenta = self._rates(config["optimizer"]["learning_rate"])
        self.kept, self.heard = 1.0, list[float]()

    @property
    def data(self) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """Images, labels, scale and shift, as the engine takes them."""
        return self.examples.tensors

    def evaluate(self, *names: str, average: bool = False) -> list[tuple[float, float]]:
        """Loss and accuracy of the network now, in inference mode, on each part named.

        Args:
            names: of `val`, `train` and `test`, in this order and without a gap.
            average: of the weights' average, which the optimizer has to keep.
        """
        chunks, spans = self.examples.chunks
        span = spans[names[0]][0], spans[names[-1]][1]
        return self.engine.evaluate(*self.data, *chunks, span, average=average)

    def confusion(self, name: str) -> np.ndarray:
        """How many examples of each class the network now takes for which, `(classes, classes)`, of `val` or `test`."""
        x, _, scale, shift = self.data
        examples = self.examples.parts[name]
        predicted = self.engine.predict(x, scale, shift, examples)
        counts = np.zeros((self.engine.classes, self.engine.classes), int)
        np.add.at(counts, (self.examples.dataset.y[examples], predicted), 1)
        return counts

    def save(self, file: str, tried: bool = False) -> None:
        """Save the network as it is now, see `saving.save`."""
        _, _, scale, shift = self.data
        saving.save(self.engine.model, scale.numpy(), shift.numpy(), file, tried)

    def hear(self, val_loss: float) -> None:
        """Tell the schedule of an epoch's validation loss: it may have a say in the rates to come."""
        if hasattr(self.schedule, "feedback"):
            self.kept *= self.schedule.feedback(val_loss)
            self.heard.append(val_loss)

    def after(self, epoch: int, done: Epoch) -> Epoch:
        """Do what comes after an epoch and before it is evaluated; gives the epoch with the weights that are left."""
        if not self.pruner.after(epoch):
            return done
        self._renew_schedule()
        return dataclasses.replace(done, weights=self.engine.flat_weights())

    @property
    def left(self) -> dict[str, float]:
        """What is left of the network, by the columns that say so."""
        return self.pruner.shares

    @property
    def settled(self) -> int:
        """The first epoch whose network is as the last one's, but for training."""
        return self.pruner.plan.settled

    def state(self) -> dict:
        """All that is not as it was at their start, between epochs."""
        return {
            "engine": self.engine.state(),
            "pruner": self.pruner.state(),
            "random": {name: rng.bit_generator.state for name, rng in self.random.items()},
            "heard": self.heard,
            "kept": self.kept,
        }

    def restore(self, state: dict) -> None:
        """Go back to what `state` gave; they are at their start."""
        self.pruner.restore(state["pruner"])
        for name, rng in self.random.items():
            rng.bit_generator.state = state["random"][name]
        for val_loss in state["heard"]:
            self.hear(val_loss)
        self.kept = state["kept"]
        self.engine.restore(state["engine"])

    def courses(self, after: int = 0) -> Iterator[Course]:
        """What the steps of one epoch after the other get.

        Args:
            after: epochs that were trained before.
        """
        train = self.examples.split.train
        epochs = list(zip(np.split(self.rates, self.epochs), np.split(self.momenta, self.epochs), strict=True))
        for epoch, (rates, momenta) in enumerate(epochs[after:], start=after + 1):
            if self.pruner.before(epoch):
                self._renew_schedule()
                self.kept = 1.0
            shuffled = self.random["order"].permutation(train)[: self.steps * self.batch]
            yield Course(
                shuffled.reshape(self.steps, self.batch).astype(np.int32),
                (self.kept * rates).astype(np.float32),
                momenta.astype(np.float32),
                self.rules.draw(self.random, self.steps, self.batch),
            )

    def _renew_schedule(self) -> None:
        """Have a schedule that knows nothing of the losses before."""
        self.schedule, self.heard = targets.build(self.schedule_node, "schedule", self.allow), []

    def _examples(self, node: dict) -> Examples:
        dataset, x = dataset_of(node, self.allow)
        parts = split(dataset, node, self.random["split"])
        y = noisy_labels(dataset, parts.train, node["label_noise"], self.random["noise"])
        scale, shift = scaling(dataset, parts.train, node["standardize"])
        return Examples(dataset, parts, (x, tf.constant(y), tf.constant(scale), tf.constant(shift)))

    def _gradients(self, kernels: list) -> list[np.ndarray]:
        """The mean loss's gradients of kernels, on some training examples that have each class in proportion."""
        train = self.examples.split.train
        some = train[np.linspace(0, len(train) - 1, min(len(train), pruner.EXAMPLES)).round().astype(int)]
        return self.engine.sensitivity.gradients(self.data, some, kernels)

    def _engine(self, trial: Trial, pruning: Pruning) -> tuple[Engine, Drawing]:
        """A compiled engine for the trial's graph, made once and kept, and what draws its initial weights."""
        config, total = trial.config, self.steps * self.epochs
        cycles = hasattr(self.schedule, "momentum")

        def make():
            model = build_model(config["model"], self.examples.dataset, self.allow)
            optimizer = build_optimizer(config["optimizer"], self.allow)
            exempt(optimizer, config["optimizer"], model.trainable_variables)
            engine = Engine(
                model,
                optimizer,
                self.rules,
                cycle=cycle_of(self.schedule, optimizer, config["schedule"]),
                observe=config["diagnostics"]["observe_every"] > 0 or config["diagnostics"]["ends"],
                extremes=config["diagnostics"].get("extremes", False),
                masked=pruner.masked(pruning),
                movement=pruning.criterion == "movement" or callable(pruning.criterion),
                xla=wants_xla(config["engine"]["xla"], model, total, self.rules),
            )
            with _unregistered():
                engine.compile(*self.data, self.steps, self.batch)
            return engine, Drawing(model, lambda variable: weight_name(variable, model))

        return _kept(_engines, (trial.graph_key, self.steps, total >= XLA_STEPS, cycles), make, limit=ENGINES_KEPT)

    def _start(self, drawing: Drawing, node: dict, init: np.random.SeedSequence) -> None:
        """Draw the initial weights, which may adapt to some training examples."""
        self.engine.reset(drawing.draw(node, self.allow, init, self.seeds["dropout"]))
        initializer = targets.build(node, "initializer", self.allow)
        if hasattr(initializer, "adapt"):
            train, (_, _, scale, shift) = self.examples.split.train, self.data
            some = self.random["init"].choice(train, min(ADAPT_EXAMPLES, len(train)), False)
            images = self.examples.dataset.x[some].astype(np.float32) * scale.numpy() + shift.numpy()
            initializer.adapt(self.engine.model, images)
            self.engine.reset([v.numpy() for v in self.engine.model.variables])

    def _rates(self, rate: float) -> tuple[np.ndarray, np.ndarray]:
        """Learning rate and momentum of each step of the run, `(steps,)` each.

        A schedule counts updates; batches whose gradients wait for one have what it will have. What starts again has
        the course that it had, from there on.
        """
        plan = self.pruner.plan
        batches, total = self.engine.accumulated, self.steps * plan.length
        updates, epoch = max(1, total // batches), self.steps / batches
        of_step = np.minimum(np.arange(total) // batches, updates - 1)
        momenta = np.zeros(updates)
        if self.engine.cycle:
            momenta = self.schedule.momentum(np.arange(updates), updates, epoch, self.engine.cycle.high)
        again = (np.arange(total).reshape(plan.length, self.steps)[plan.positions]).ravel()
        of_step = of_step[again]
        return rate * fractions(self.schedule, updates, epoch)[of_step], momenta[of_step]


def fractions(schedule: Callable, updates: int, epoch: float) -> np.ndarray:
    """What a schedule leaves of the rate at each update, `(updates,)`; those of Keras take one at a time."""
    if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        every = tf.function(lambda: tf.map_fn(schedule, tf.range(updates, dtype=tf.float32)))
        return every().numpy()
    return schedule(np.arange(updates), updates, epoch)


def _child(stream: np.random.SeedSequence, name: str) -> np.random.SeedSequence:
    """A stream of its own, from another and a name."""
    return np.random.SeedSequence(stream.entropy, spawn_key=(*stream.spawn_key, *name.encode()))


def dataset_of(node: dict, allow: list[str]) -> tuple[Dataset, tf.Tensor]:
    """A data node's dataset, and its images as a tensor on the device, where they stay."""
    node = source(node)

    def make():
        dataset = taken(node) or targets.build(node, "data", allow)
        if not isinstance(dataset, Dataset):
            raise StudyError(
                f"data: {node['_target_']} gives a {type(dataset).__name__}: expected a studies.factors.data.Dataset"
            )
        return dataset, tf.constant(dataset.x)

    return _kept(_datasets, json.dumps(node, sort_keys=True), make, limit=2)


def build_model(node: dict, dataset: Dataset, allow: list[str]) -> keras.Model:
    """A model node's model for a dataset.

    Raises:
        StudyError: it is one that the engine would train otherwise than Keras's `fit`.
    """
    keras.utils.clear_session(free_memory=False)  # names of unnamed layers count from one again
    shape = dataset.x.shape[1:]
    model = targets.build(node, "model", allow, input_shape=shape, classes=dataset.classes)
    fault = _fault(model, dataset.classes)
    if not fault and not node["_target_"].startswith(("studies.", "keras.")):
        fault = _mistaken(model, node, shape)
    if fault:
        raise StudyError(f"model: {node['_target_']} gives {fault}")
    return model


def _mistaken(model: keras.Model, node: dict, input_shape: tuple[int, ...]) -> str:
    """How a user's model would be taken for one that gives logits, or probabilities, and is not; empty if it is."""
    images = np.random.default_rng(0).random((PROBED, *input_shape), np.float32)
    try:
        outputs = model(images, training=False).numpy()
    except Exception as error:
        if origin.place(error):
            raise targets.own_fault(node, "model", error) from error
        raise
    are = bool((outputs >= 0).all() and np.allclose(outputs.sum(axis=1), 1, atol=1e-4))
    if are == ends_in_softmax(model) or not np.isfinite(outputs).all():
        return ""
    given = "probabilities that do not come from" if are else "outputs that are no probabilities, after"
    return (
        f"{given} a softmax in its last layer: expected logits, or keras.layers.Softmax() as the last layer of the "
        f"model that is returned, not of one inside it"
    )


def _fault(model, classes: int) -> str:
    """What of a model would be taken and not be trained as Keras's `fit` does; empty if nothing."""
    if not isinstance(model, keras.Model):
        return f"a {type(model).__name__}: expected a keras.Model"
    if not model.built:
        return "a model without weights yet: begin it with keras.Input(input_shape)"
    if model.compiled:
        return "a compiled model: its loss and its optimizer would not be used; leave model.compile out"
    own = [
        name for name in ("train_step", "compute_loss") if getattr(type(model), name) is not getattr(keras.Model, name)
    ]
    if own:
        return f"a model with a {own[0]} of its own, which would not be called: expected Keras's"
    if model.output_shape != (None, classes):
        return f"outputs of shape {model.output_shape}: expected {(None, classes)}, a logit for each class"
    other = [layer for layer in model._flatten_layers(include_self=False) if layer.compute_dtype != "float32"]
    if other:
        return f"the layer {other[0].name} in {other[0].compute_dtype}: expected float32 in all layers"
    if getattr(model.layers[-1], "activation", None) is keras.activations.sigmoid:
        return "the outputs of a sigmoid: expected logits, or the probabilities of a softmax"
    return ""


def build_optimizer(node: dict, allow: list[str]) -> keras.optimizers.Optimizer | Lookahead:
    """An optimizer node's optimizer, not built yet, with what goes around any of them."""
    return optimizer_of(node, lambda own: targets.build(own, "optimizer", allow))


def cycle_of(schedule: Callable, optimizer: keras.optimizers.Optimizer | Lookahead, node: dict) -> Cycle | None:
    """What sets the optimizer's momentum, if the schedule does.

    Raises:
        StudyError: the optimizer has none.
    """
    if not hasattr(schedule, "momentum"):
        return None
    try:
        return Cycle(optimizer)
    except ValueError as error:
        raise StudyError(
            f"schedule={node['_target_'].rpartition('.')[2]} with schedule.low_momentum={node.get('low_momentum')}: "
            f"{error}. Choose another optimizer, such as optimizer=momentum, or schedule.low_momentum=null"
        ) from None


@contextmanager
def _unregistered() -> Iterator[None]:
    """Take back the gradients that TensorFlow registers in here, for ever: each holds the whole graph that it is of.

    Keras's optimizers have one in every graph, of a sum over replicas, that nobody takes once the graph is made.
    """
    registry = ops.gradient_registry._registry
    before = set(registry)
    yield
    for name in registry.keys() - before:
        if name.startswith("CustomGradient-"):
            del registry[name]


def _kept(cache: OrderedDict, key, make, limit: int):
    """The value under `key`, made if it is not there; beyond `limit`, the one unused for longest goes."""
    if key not in cache:
        cache[key] = make()
        if len(cache) > limit:
            cache.popitem(last=False)
    cache.move_to_end(key)
    return cache[key]
