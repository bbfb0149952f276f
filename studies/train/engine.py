"""The compiled epoch: a Keras model's training as one call of one graph.

An epoch takes its batch order, its learning rates and its random numbers as tensors, so one trace serves every seed,
initializer, rate and schedule; weights and optimizer slots are reset by assignment. The arithmetic is that of Keras's
`fit` on the same batches: same model, loss, regularizer and optimizer objects.
"""

import functools
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from studies.factors.optimizers import taken_over
from studies.observe.tensors import Tensor, gated, tensors
from studies.train.masks import Masks
from studies.train.probe import Probe
from studies.train.sensitivity import Sensitivity
from studies.train.squares import Squares, update_ratio
from studies.train.steps import Rules

EVALUATION_BATCH = 500
XLA_STEPS = 300
"""From here on a dense model's XLA compilation (1-4 s a worker) is repaid by some dozens of trials, or longer ones."""


def wants_xla(choice: str | bool, model: keras.Model, steps: int, rules: Rules) -> bool:
    """Whether to compile with XLA; `auto` looks at the trial's own device, layers, rules and steps, nothing else.

    XLA halves a dense model's step; on a CPU it makes convolutions 10-25 times slower, so any layer that is not known
    to gain leaves it off there.
    """
    if choice != "auto":
        return bool(choice)
    layers = keras.layers
    gains = (
        layers.InputLayer,
        layers.Flatten,
        layers.Dense,
        layers.Activation,
        layers.BatchNormalization,
        layers.GroupNormalization,
        layers.RMSNormalization,
        layers.Dropout,
    )
    dense = all(isinstance(layer, gains) for layer in model.layers) and rules.gain_from_xla
    return steps >= XLA_STEPS and (dense or bool(tf.config.list_physical_devices("GPU")))


@dataclass(frozen=True)
class Course:
    """What an epoch's steps get besides their data.

    Attributes:
        order: `(steps, batch)`, int32 indices into the data.
        rates: `(steps,)`, learning rates.
        momenta: `(steps,)`; read only by an engine with a `cycle`.
        drawn: what is random in each rule, `(steps, …)` float32 each.
    """

    order: np.ndarray
    rates: np.ndarray
    momenta: np.ndarray
    drawn: list[np.ndarray]


@dataclass(frozen=True)
class Epoch:
    """What an epoch gives.

    Attributes:
        loss: its steps' mean, without penalties, against the targets and with the weights that they were given.
        accuracy: their mean.
        clipped: the share that clipping changed, its updates' mean; 0 without clipping.
        weights: all trainable ones after it, end to end, `(weights,)`.
        squares: mean squared norm of each kernel's gradient and of its update, then of each gate's in recurrent ones,
            `(2, kernels + gates)` float64.
        ratios: of each step ‖Δw‖ / ‖w‖ of all kernels together, `(steps,)`, 0 where none was made; None: not kept.
    """

    loss: tf.Tensor
    accuracy: tf.Tensor
    clipped: tf.Tensor
    weights: tf.Tensor
    squares: tf.Tensor
    ratios: tf.Tensor | None = None


class Engine:
    """A model and an optimizer compiled to one call an epoch.

    Args:
        model: gives logits `(batch, classes)`, or probabilities if it ends in a softmax.
        optimizer: not built yet; its learning rate is overwritten at every step. What it is told of accumulating
            gradients and of scaling the loss is done here.
        rules: what else happens at a step.
        cycle: takes a step's momentum and has the optimizer use it, if momenta are to be used.
        observe: whether to accumulate gradients' and updates' norms inside the step.
        extremes: whether to keep each step's update ratio.
        masked: the names of the weights that may be pruned, by their ends; none: no masks.
        movement: whether to add up what a criterion by movement needs.
        xla: compile the epoch with XLA.
    """

    def __init__(
        self,
        model,
        optimizer,
        rules: Rules | None = None,
        *,
        cycle=None,
        observe=True,
        extremes=False,
        masked=(),
        movement=False,
        xla=False,
    ):
        if tf.config.list_physical_devices("GPU"):
            tf.config.experimental.enable_op_determinism()  # else a GPU adds up in whatever order comes
        self.model, self.optimizer, self.rules = model, optimizer, rules or Rules()
        self.weights, self.classes = model.trainable_variables, model.output_shape[-1]
        self.kernels = [v for v in self.weights if len(v.shape) > 1]
        gates = gated(model)
        self.gates = [len(gates.get(id(v), ())) for v in self.kernels]
        self.squares = Squares(self.kernels, self.gates, xla) if observe and self.kernels else None
        self.extremes = extremes and bool(self.kernels)
        self.from_logits = not ends_in_softmax(model)
        self.loss = keras.losses.SparseCategoricalCrossentropy(self.from_logits)
        self.soft_loss = keras.losses.CategoricalCrossentropy(self.from_logits)
        self.cycle, self.xla = cycle, xla
        self.accumulated, self.loss_scale = taken_over(optimizer)
        if self.accumulated > 1 and not self.rules.need_one_pass:
            raise ValueError("a rule that takes a batch's gradients twice cannot have those of accumulated batches")
        self.averages = optimizer.use_ema
        self.fresh_slots = _built_slots(optimizer, self.weights)
        self.waiting = Waiting(self.weights) if self.accumulated > 1 else None
        some = [v for v in self.weights if v.path.endswith(tuple(masked))]
        self.masks = Masks(some, optimizer, self.fresh_slots, movement=movement)
        self.sensitivity = Sensitivity(self)

    def compile(self, x, y, scale, shift, steps: int, batch: int) -> None:
        """Trace the graphs for this data and `steps` batches of `batch`; needed once, before the first epoch.

        The model sees `x * scale + shift`, both `(channels,)`.

        The concrete functions are kept: calling them costs a tenth of the millisecond that a `tf.function` takes to
        find the trace again.
        """
        data = [tf.TensorSpec(t.shape, t.dtype) for t in (x, y, scale, shift)]
        order, rates, momenta = tf.TensorSpec([steps, batch], tf.int32), tf.TensorSpec([steps]), tf.TensorSpec([steps])
        some = dict.fromkeys((rule.stream for rule in self.rules.rules), np.random.default_rng(0))
        drawn = [tf.TensorSpec([steps, *numbers.shape[1:]]) for numbers in self.rules.draw(some, 1, batch)]
        # AutoGraph would rewrite this file and what it calls, which takes longer than the trace.
        epoch = tf.function(self._epoch, jit_compile=self.xla, autograph=False)
        self.epoch = epoch.get_concrete_function(*data, order, rates, momenta, *drawn)
        floats = tf.TensorSpec([None, None])
        chunks = tf.TensorSpec([None, None], tf.int32), floats, floats, tf.TensorSpec([2], tf.int32)
        sums = tf.function(self._sums, jit_compile=self.xla, autograph=False)
        self.sums = sums.get_concrete_function(*data, *chunks)
        # Traced when it is first asked, and never with XLA, which would compile as long as a short trial takes.
        asked = [data[0], *data[2:], tf.TensorSpec([None], tf.int32)]
        self.named = tf.function(self._named, input_signature=asked, autograph=False)
        of_average = tf.function(self._sums_of_average, autograph=False)
        self.sums_of_average: Any = of_average.get_concrete_function(*data, *chunks) if self.averages else None

    @property
    def variables(self) -> list:
        """All state."""
        waiting = self.waiting.variables if self.waiting else []
        return [*self.model.variables, *self.optimizer.variables, *waiting, *self.masks.variables]

    @functools.cached_property
    def unseen(self) -> list:
        """What steps use that is no part of the state, such as a `tf.Variable` of the user's own."""
        ours = {id(getattr(variable, "value", variable)) for variable in self.variables}
        ours |= {id(variable) for variable in self.variables}
        return [variable for variable in self.epoch.variables if id(variable) not in ours]

    def reset(self, values: list) -> None:
        """Start over from `values`, one array for each of `model.variables`, with a fresh optimizer."""
        _assign(self.model.variables, values)
        _assign(self.optimizer.variables, self.fresh_slots)
        if self.waiting:
            self.waiting.reset()
        self.masks.reset()

    def run_epoch(self, x, y, scale, shift, course: Course) -> Epoch:
        """Train for an epoch."""
        given = (course.order, course.rates, course.momenta, *course.drawn)
        return Epoch(*self.epoch(x, y, scale, shift, *map(tf.constant, given)))

    def evaluate(
        self, x, y, scale, shift, order, weight, member, span=None, average=False
    ) -> list[tuple[float, float]]:
        """Mean loss and accuracy of each part, in inference mode.

        Args:
            order, weight, member: the parts, as `chunked` gives them.
            span: the first chunk to evaluate and the one after the last; parts outside have no result. All by default.
            average: of the optimizer's average of the weights.
        """
        sums = self.sums_of_average if average else self.sums
        span = tf.constant((0, len(order)) if span is None else span)
        losses, right, counts = (total.numpy() for total in sums(x, y, scale, shift, order, weight, member, span))
        there = counts > 0
        means = (total[there] / counts[there] for total in (losses, right))
        return list(zip(*(mean.tolist() for mean in means), strict=True))

    def predict(self, x, scale, shift, order: np.ndarray) -> np.ndarray:
        """The class that the network now gives each of the examples `order`, `(examples,)`, in inference mode."""
        chunks = np.array_split(order.astype(np.int32), -(-len(order) // EVALUATION_BATCH))
        return np.concatenate([self.named(x, scale, shift, tf.constant(chunk)).numpy() for chunk in chunks])

    def state(self) -> list:
        """Values of the model's and the optimizer's variables."""
        return [variable.numpy() for variable in self.variables]

    def restore(self, state: list) -> None:
        """Go back to what `state` gave."""
        _assign(self.variables, state)

    def mask(self, kept: list) -> None:
        """Take a mask for each weight that `masks` has; what it leaves out is zero from here on."""
        self.masks.set(kept)
        if self.waiting:
            _assign(self.waiting.sums, self.masks.of(self.waiting.sums, self.weights))

    def flat_weights(self) -> tf.Tensor:
        """All trainable weights end to end, `(weights,)`."""
        return _flat([v.value for v in self.weights])

    def _epoch(self, x, y, scale, shift, order, rates, momenta, *drawn):
        """Train on the batches of a course; gives the fields of an `Epoch`."""

        def step(place, loss_sum, accuracy_sum, *update_sums):
            numbers = [of_rule[place] for of_rule in drawn]
            images, labels = _images(tf.gather(x, order[place]), scale, shift), tf.gather(y, order[place])
            images, targets = self.rules.examples(images, labels, self.classes, numbers)
            examples = images, targets, self.rules.weights(targets, numbers)
            loss, outputs, gradients = self._gradients(*examples)

            def update(gradients):
                return self._update(gradients, examples, rates[place], momenta[place], numbers)

            done = self.waiting.join(gradients, self.accumulated, update) if self.waiting else update(gradients)
            accuracy = tf.reduce_mean(_correct(labels, outputs))
            if self.extremes:
                done = [*done[:-1], tf.where(tf.range(steps) == place, done[-1], 0.0)]
            sums = [total + more for total, more in zip(update_sums, done, strict=True)]
            return place + 1, loss_sum + loss, accuracy_sum + accuracy, *sums

        steps = order.shape[0]
        zeros = [*(self.squares.zeros() if self.squares else []), *([tf.zeros(steps)] if self.extremes else [])]
        _, loss, accuracy, updates, clipped, *totals = _loop(steps, step, *[tf.zeros(())] * 4, *zeros)
        updates, squares = tf.maximum(updates, 1), tf.zeros((2, 0), tf.float64)
        ratios = [totals.pop()] if self.extremes else []
        if self.squares:
            squares = self.squares.whole(totals) / tf.cast(updates, tf.float64)
        return loss / steps, accuracy / steps, clipped / updates, self.flat_weights(), squares, *ratios

    def _gradients(self, images, targets, weights):
        """The loss without penalties, the outputs, and the gradients of the loss with penalties."""
        with tf.GradientTape() as tape:
            outputs = self.model(images, training=True)
            loss = (self.soft_loss if targets.shape.rank == 2 else self.loss)(targets, outputs, weights)
            penalties = [*self.model.losses, *self.rules.penalties(self.weights)]
            objective = tf.add_n([loss, *penalties]) if penalties else loss
            if self.loss_scale != 1:
                objective *= self.loss_scale
        gradients = tape.gradient(objective, [v.value for v in self.weights])
        if self.loss_scale != 1:
            gradients = [None if g is None else g / self.loss_scale for g in gradients]
        return loss, outputs, self.masks.of(gradients, self.weights)

    def _update(self, gradients, examples, rate, momentum, drawn):
        """One update of the weights; gives 1 for it, the share clipped, its gradients' and updates' squares, its ratio.

        A weight that the loss does not reach has no gradient, and stays as it is, as in Keras's `fit`.
        """
        raw = [tf.zeros(v.shape) if g is None else g for g, v in zip(gradients, self.weights) if len(v.shape) > 1]
        before = [v.value.read_value() for v in self.kernels] if self.squares or self.extremes else []
        reached = [place for place, g in enumerate(gradients) if g is not None]
        weights, gradients = ([these[place] for place in reached] for these in (self.weights, gradients))
        if not weights:
            raise ValueError("the loss reaches none of the model's weights")
        self.masks.watch(gradients, weights)

        def gradients_now():
            statistics = [v.value.read_value() for v in self.model.non_trainable_weights]
            _, _, now = self._gradients(*examples)
            for variable, value in zip(self.model.non_trainable_weights, statistics):
                variable.assign(value)
            return [now[place] for place in reached]

        gradients, share = self.rules.gradients(gradients, weights, self.optimizer.iterations, gradients_now, drawn)
        if self.rules.change_gradients:
            gradients = self.masks.of(gradients, weights)
        self.optimizer.learning_rate.assign(rate)
        if self.cycle:
            self.cycle(momentum)
        self.rules.change("before", self.weights, rate)
        self.optimizer.apply(gradients, weights)
        self.rules.change("after", self.weights, rate)
        self.masks.hold()
        updates = [v.value.read_value() - w for v, w in zip(self.kernels, before)]
        squares = self.squares.of(raw, updates) if self.squares else []
        return tf.ones(()), share, *squares, *([update_ratio(updates, before)] if self.extremes else [])

    def _sums(self, x, y, scale, shift, order, weight, member, span):
        """Of each part in a span of chunks: the loss's sum, how many are right, how many there are."""

        def chunk(place, losses, right, counts):
            labels = tf.gather(y, order[place])
            outputs = self.model(_images(tf.gather(x, order[place]), scale, shift), training=False)
            loss = self.loss(labels, outputs, sample_weight=weight[place]) * tf.cast(tf.size(labels), tf.float32)
            correct = tf.reduce_sum(_correct(labels, outputs) * weight[place])
            of_it = member[place] > 0
            sums = losses, right, counts
            more = loss, correct, tf.reduce_sum(weight[place])
            added = (old + tf.cast(new, tf.float64) for old, new in zip(sums, more, strict=True))
            return place + 1, *(tf.where(of_it, new, old) for new, old in zip(added, sums, strict=True))

        none = tf.zeros(tf.shape(member)[1], tf.float64)
        return _loop(span[1], chunk, none, none, none, first=span[0])[1:]

    def _named(self, x, scale, shift, order):
        """The classes that examples are given."""
        outputs = self.model(_images(tf.gather(x, order), scale, shift), training=False)
        return tf.argmax(outputs, axis=-1, output_type=tf.int32)

    def _sums_of_average(self, *data_and_chunks):
        """As `_sums`, with the optimizer's average of the weights in place of the weights, for the time of it."""
        raw = [weight.value.read_value() for weight in self.weights]
        self.optimizer.finalize_variable_values(self.weights)
        found = self._sums(*data_and_chunks)
        with tf.control_dependencies(found):
            for weight, value in zip(self.weights, raw, strict=True):
                weight.assign(value)
        return found

    def objective(self, images, labels):
        """The loss with penalties of images as the network sees them, in inference mode."""
        loss = self.loss(labels, self.model(images, training=False))
        penalties = [*self.model.losses, *self.rules.penalties(self.weights)]
        return tf.add_n([loss, *penalties]) if penalties else loss

    @functools.cached_property
    def tensors(self) -> list[Tensor]:
        """What is observed of the model's weights."""
        return tensors(self.model)

    @functools.cached_property
    def probe(self) -> Probe:
        """What looks at the network between epochs; traced at its first use."""
        return Probe(self.model, self.objective, self.from_logits)


class Waiting:
    """Gradients of batches that wait for an update of them all (`gradient_accumulation_steps`).

    Args:
        weights: the variables that they are of.
    """

    def __init__(self, weights: list):
        self.sums = [tf.Variable(tf.zeros(weight.shape), trainable=False) for weight in weights]
        self.count = tf.Variable(0, trainable=False)

    @property
    def variables(self) -> list:
        """All state."""
        return [*self.sums, self.count]

    def reset(self) -> None:
        """None wait."""
        for variable in self.variables:
            variable.assign(tf.zeros_like(variable))

    def join(self, gradients: list, batches: int, update):
        """Add a batch's gradients; the last of `batches` makes the update, by their mean.

        Args:
            update: takes the list of mean gradients, None where there is none, and gives tensors.

        Returns:
            what `update` gives, zeros where it is not made.
        """
        sums = [None if g is None else s + g for s, g in zip(self.sums, gradients, strict=True)]
        shapes = []

        def now():
            done = update([None if s is None else s / batches for s in sums])
            shapes[:] = [(tensor.shape, tensor.dtype) for tensor in done]
            self.reset()
            return done

        def later():
            for waiting, total in zip(self.sums, sums, strict=True):
                if total is not None:
                    waiting.assign(total)
            self.count.assign_add(1)
            return tuple(tf.zeros(*shape) for shape in shapes)

        return tf.cond(self.count + 1 == batches, now, later)


def chunked(*parts: np.ndarray, batch: int = EVALUATION_BATCH) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parts of the examples as equal chunks of at most `batch`, which the first part fills evenly if it is not small.

    Args:
        parts: their indices.

    Returns:
        indices, `(chunks, size)`; weights, `(chunks, size)`: 1 for an example, 0 for padding; 1 for the part that a
        chunk belongs to and 0 for the others, `(chunks, parts)`.
    """
    first, longest = (-(-size // -(-size // batch)) for size in (len(parts[0]), max(map(len, parts))))
    size = max(first, longest // 4)  # a few examples to validate are padded, not thousands to test taken by the few
    counts = [-(-len(part) // size) for part in parts]
    order, weight = np.zeros((sum(counts), size), np.int32), np.zeros((sum(counts), size), np.float32)
    for part, end, count in zip(parts, np.cumsum(counts), counts, strict=True):
        for rows, values in ((order, part), (weight, 1)):
            rows[end - count : end].reshape(-1)[: len(part)] = values
    return order, weight, np.repeat(np.eye(len(parts), dtype=np.float32), counts, axis=0)


def _built_slots(optimizer, weights) -> list:
    """Build an optimizer; what each of its variables starts as: a tensor, or the weight that it is a copy of.

    The weights are random meanwhile, so that a copy (schedule-free Adam keeps one) is told from a constant.
    """
    values, rng = [w.numpy() for w in weights], np.random.default_rng(0)
    for weight in weights:
        weight.assign(rng.normal(size=weight.shape))
    optimizer.build(weights)
    starts = []
    for slot in optimizer.variables:
        copied = [w for w in weights if w.shape == slot.shape and np.array_equal(w, slot)]
        starts.append(copied[0] if copied else tf.constant(slot.numpy().copy()))
    for weight, value in zip(weights, values, strict=True):
        weight.assign(value)
    return starts


def _assign(variables, values) -> None:
    """Give variables of Keras or TensorFlow their values; Keras's own `assign` takes four times as long."""
    for variable, value in zip(variables, values, strict=True):
        inner = getattr(variable, "value", None)
        (inner if isinstance(inner, tf.Variable) else variable).assign(value, read_value=False)


def _loop(end, body, *start, first=0):
    return tf.while_loop(
        lambda place, *_: place < end, body, (tf.convert_to_tensor(first), *start), parallel_iterations=1
    )


def _flat(tensors):
    return tf.concat([tf.reshape(t, [-1]) for t in tensors], axis=0)


def _images(batch, scale, shift):
    return tf.cast(batch, tf.float32) * scale + shift


def _correct(labels, outputs):
    return tf.cast(tf.argmax(outputs, axis=-1, output_type=labels.dtype) == labels, tf.float32)


def ends_in_softmax(model: keras.Model) -> bool:
    """Whether a model gives probabilities."""
    last = model.layers[-1]
    return isinstance(last, keras.layers.Softmax) or getattr(last, "activation", None) is keras.activations.softmax
