"""The compiled epoch: a Keras model's training as one call of one graph.

An epoch takes its batch order, its learning rates and its random numbers as tensors, so one trace serves every seed,
initializer, rate and schedule; weights and optimizer slots are reset by assignment. The arithmetic is that of Keras's
`fit` on the same batches: same model, loss, regularizer and optimizer objects.
"""

import math
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from studies.diagnostics import weight_statistics
from studies.record import STATISTICS

EVALUATION_BATCH = 500
L2 = STATISTICS.index("l2")
XLA_STEPS = 300
"""From here on a dense model's XLA compilation (1-4 s a worker) is repaid by some dozens of trials, or longer ones."""


def wants_xla(choice: str | bool, model: keras.Model, steps: int, regularizer=None) -> bool:
    """Whether to compile with XLA; `auto` looks at the trial's own device, layers, rule and steps, nothing else.

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
    dense = all(isinstance(layer, gains) for layer in model.layers) and getattr(regularizer, "gains_from_xla", True)
    return steps >= XLA_STEPS and (dense or bool(tf.config.list_physical_devices("GPU")))


@dataclass(frozen=True)
class Course:
    """What an epoch's steps get besides their data.

    Attributes:
        order: `(steps, batch)`, int32 indices into the data.
        rates: `(steps,)`, learning rates.
        momenta: `(steps,)`; read only by an engine with a `cycle`.
        augment: `(steps, batch, numbers)`, what the augmentation draws for each example.
        noise: `(steps, numbers)`, what the regularizing rule draws for each step.
    """

    order: np.ndarray
    rates: np.ndarray
    momenta: np.ndarray
    augment: np.ndarray
    noise: np.ndarray


@dataclass(frozen=True)
class Epoch:
    """What an epoch gives.

    Attributes:
        loss: its steps' mean, without penalties, against the targets that they were given.
        accuracy: their mean.
        clipped: the share that clipping changed, their mean; 0 without clipping.
        weights: all trainable ones after it, end to end, `(weights,)`.
        squares: mean squared norm of each kernel's gradient and of its update, `(2, kernels)`.
    """

    loss: tf.Tensor
    accuracy: tf.Tensor
    clipped: tf.Tensor
    weights: tf.Tensor
    squares: tf.Tensor


class Engine:
    """A model and an optimizer compiled to one call an epoch.

    Args:
        model: gives logits `(batch, classes)`, or probabilities if its last activation is a softmax.
        optimizer: not built yet; its learning rate is overwritten at every step.
        regularizer: added to the loss for every kernel, besides the model's own losses; or a
            `studies.regularizers.Rule`.
        clip: takes the lists of gradients and weights, gives that of gradients and the share that it changed.
        ascent: takes the lists of gradients and weights and a function that gives the gradients where the weights are
            when it is called; gives the list of gradients to go by.
        augmentation: changes a batch of images, given what was drawn for each.
        averages: whether the optimizer keeps an average of the weights.
        cycle: takes a step's momentum and has the optimizer use it, if momenta are to be used.
        observe: whether to accumulate gradients' and updates' norms inside the step.
        xla: compile the epoch with XLA.
    """

    def __init__(
        self,
        model,
        optimizer,
        *,
        regularizer=None,
        clip=None,
        ascent=None,
        augmentation=None,
        averages=False,
        cycle=None,
        observe=True,
        xla=False,
    ):
        if tf.config.list_physical_devices("GPU"):
            tf.config.experimental.enable_op_determinism()  # else a GPU adds up in whatever order comes
        self.model, self.optimizer = model, optimizer
        self.weights, self.classes = model.trainable_variables, model.output_shape[-1]
        self.kernels = [v for v in self.weights if len(v.shape) > 1]
        from_logits = not _ends_in_softmax(model)
        self.loss = keras.losses.SparseCategoricalCrossentropy(from_logits)
        self.soft_loss = keras.losses.CategoricalCrossentropy(from_logits)
        self.clip, self.ascent, self.augmentation = clip, ascent, augmentation
        self.averages, self.cycle, self.observe, self.xla = averages, cycle, observe, xla
        self.rule, self.penalty = (regularizer, None) if hasattr(regularizer, "before") else (None, regularizer)
        self.fresh_slots = _built_slots(optimizer, self.weights)

    def compile(self, x, y, scale, shift, steps: int, batch: int) -> None:
        """Trace the graphs for this data and `steps` batches of `batch`; needed once, before the first epoch.

        The model sees `x * scale + shift`, both `(channels,)`.

        The concrete functions are kept: calling them costs a tenth of the millisecond that a `tf.function` takes to
        find the trace again.
        """
        data = [tf.TensorSpec(t.shape, t.dtype) for t in (x, y, scale, shift)]
        order, rates, momenta = tf.TensorSpec([steps, batch], tf.int32), tf.TensorSpec([steps]), tf.TensorSpec([steps])
        augment = tf.TensorSpec([steps, batch, getattr(self.augmentation, "numbers", 0)])
        noise = tf.TensorSpec([steps, getattr(self.rule, "numbers", 0)])
        # AutoGraph would rewrite this file and what it calls, which takes longer than the trace.
        epoch = tf.function(self._epoch, jit_compile=self.xla, autograph=False)
        self.epoch = epoch.get_concrete_function(*data, order, rates, momenta, augment, noise)
        chunks = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, None])
        self.evaluate = tf.function(self._evaluate, autograph=False).get_concrete_function(*data, *chunks)
        average = tf.function(self._evaluate_average, autograph=False)
        self.evaluate_average = average.get_concrete_function(*data, *chunks) if self.averages else None

    def reset(self, values: list) -> None:
        """Start over from `values`, one array for each of `model.variables`, with a fresh optimizer."""
        for variable, value in zip(self.model.variables, values, strict=True):
            variable.assign(value)
        for slot, value in zip(self.optimizer.variables, self.fresh_slots, strict=True):
            slot.assign(value)

    def run_epoch(self, x, y, scale, shift, course: Course) -> Epoch:
        """Train for an epoch."""
        return Epoch(*self.epoch(x, y, scale, shift, *map(tf.constant, vars(course).values())))

    def state(self) -> list:
        """Values of the model's and the optimizer's variables."""
        return [variable.numpy() for variable in (*self.model.variables, *self.optimizer.variables)]

    def restore(self, state: list) -> None:
        """Go back to what `state` gave."""
        for variable, value in zip((*self.model.variables, *self.optimizer.variables), state, strict=True):
            variable.assign(value)

    def flat_weights(self):
        """All trainable weights end to end, `(weights,)`."""
        return _flat([v.value for v in self.weights])

    def _epoch(self, x, y, scale, shift, order, rates, momenta, augment, noise):
        """Train on the batches of a course; gives the fields of an `Epoch`."""

        def step(place, loss_sum, accuracy_sum, clipped_sum, gradient_squares, update_squares):
            images, labels = _images(tf.gather(x, order[place]), scale, shift), tf.gather(y, order[place])
            if self.augmentation:
                images = self.augmentation(images, augment[place])
            targets = labels
            if change := getattr(self.rule, "batch", None):
                images, targets = change(images, tf.one_hot(labels, self.classes), noise[place])
            loss, outputs, gradients = self._gradients(images, targets)
            raw = [g for g, v in zip(gradients, self.weights) if len(v.shape) > 1]
            before = [v.value.read_value() for v in self.kernels] if self.observe else []
            if self.ascent:
                gradients = self._gradients_after_ascent(gradients, images, targets)
            if self.clip:
                gradients, share = self.clip(gradients, [v.value for v in self.weights])
                clipped_sum += share
            if change := getattr(self.rule, "gradients", None):
                gradients = change(gradients, self.optimizer.iterations, noise[place])
            self._update(gradients, rates[place], momenta[place])
            if self.observe:
                updates = [v.value.read_value() - w for v, w in zip(self.kernels, before)]
                gradient_squares += tf.square(_flat(raw))
                update_squares += tf.square(_flat(updates))
            accuracy = tf.reduce_mean(_correct(labels, outputs))
            return place + 1, loss_sum + loss, accuracy_sum + accuracy, clipped_sum, gradient_squares, update_squares

        # Squares are summed element by element, all kernels in one tensor, and reduced after the loop: a reduction in
        # every step costs half a step, and each operation more half a microsecond.
        sizes = [math.prod(v.shape) for v in self.kernels]
        zeros = tf.zeros(sum(sizes) if self.observe else 0)
        steps = order.shape[0]
        _, *sums, gradient_squares, update_squares = _loop(steps, step, *[tf.zeros(())] * 3, zeros, zeros)
        totals = (gradient_squares, update_squares)
        norms = [[tf.reduce_sum(t) for t in tf.split(total, sizes)] if self.observe else [] for total in totals]
        return *(total / steps for total in sums), self.flat_weights(), tf.stack(norms) / steps

    def _gradients(self, images, targets):
        """The loss without penalties, the outputs, and the gradients of the loss with penalties."""
        with tf.GradientTape() as tape:
            outputs = self.model(images, training=True)
            loss = (self.soft_loss if targets.shape.rank == 2 else self.loss)(targets, outputs)
            objective = loss + self._penalty()
        return loss, outputs, tape.gradient(objective, [v.value for v in self.weights])

    def _gradients_after_ascent(self, gradients, images, targets):
        """The gradients elsewhere; running statistics stay those of the weights themselves."""

        def there():
            statistics = [v.value.read_value() for v in self.model.non_trainable_weights]
            _, _, gradients = self._gradients(images, targets)
            for variable, value in zip(self.model.non_trainable_weights, statistics):
                variable.assign(value)
            return gradients

        return self.ascent(gradients, self.weights, there)

    def _update(self, gradients, rate, momentum):
        self.optimizer.learning_rate.assign(rate)
        if self.cycle:
            self.cycle(momentum)
        self._change_kernels("before", rate)
        self.optimizer.apply(gradients, self.weights)
        self._change_kernels("after", rate)

    def _evaluate(self, x, y, scale, shift, order, weight):
        """Mean loss and accuracy in inference mode over `order`, `(chunks, batch)`, by `weight`: 0 for padding."""

        def chunk(place, loss_sum, correct):
            labels = tf.gather(y, order[place])
            outputs = self.model(_images(tf.gather(x, order[place]), scale, shift), training=False)
            loss = self.loss(labels, outputs, sample_weight=weight[place]) * tf.cast(tf.size(labels), tf.float32)
            return place + 1, loss_sum + loss, correct + tf.reduce_sum(_correct(labels, outputs) * weight[place])

        _, loss, correct = _loop(tf.shape(order)[0], chunk, tf.zeros(()), tf.zeros(()))
        return loss / tf.reduce_sum(weight), correct / tf.reduce_sum(weight)

    def _evaluate_average(self, *data_and_chunks):
        """As `_evaluate`, with the optimizer's average of the weights in place of the weights, for the time of it."""
        raw = [weight.value.read_value() for weight in self.weights]
        self.optimizer.finalize_variable_values(self.weights)
        found = self._evaluate(*data_and_chunks)
        with tf.control_dependencies(found):
            for weight, value in zip(self.weights, raw, strict=True):
                weight.assign(value)
        return found

    def statistics(self, flats, squares, start) -> list[tuple[str, str, np.ndarray]]:
        """Every statistic of every trainable weight at several epochs.

        Args:
            flats: what `flat_weights` or `run_epoch` gave at each epoch, `(weights,)` each.
            squares: what `run_epoch` gave with it, `(2, kernels)` each; NaN for the untrained network.
            start: `flat_weights` of the untrained network.

        Returns:
            layer, tensor and `(epochs, len(STATISTICS))` for each trainable weight.
        """
        epochs = len(flats)
        rows, start = np.stack([flat.numpy() for flat in flats]), start.numpy()
        ends = np.cumsum([math.prod(v.shape) for v in self.weights])
        tables = [
            weight_statistics(rows[:, end - n : end], start[end - n : end])
            for end, n in zip(ends, np.diff(ends, prepend=0), strict=True)
        ]

        norms = np.full((epochs, 2, len(self.weights)), np.nan, np.float32)
        norms[:, :, [place for place, v in enumerate(self.weights) if len(v.shape) > 1]] = np.sqrt(squares)
        with np.errstate(divide="ignore", invalid="ignore"):
            return [
                (
                    *weight_name(v, self.model),
                    np.column_stack([table, norms[:, :, place], norms[:, 1, place] / table[:, L2]]),
                )
                for place, (v, table) in enumerate(zip(self.weights, tables, strict=True))
            ]

    def _penalty(self):
        penalties = list(self.model.losses)
        if self.penalty is not None:
            penalties += [self.penalty(kernel.value) for kernel in self.kernels]
        return tf.add_n(penalties) if penalties else 0.0

    def _change_kernels(self, when, rate):
        if change := getattr(self.rule, when, None):
            for kernel in self.kernels:
                kernel.assign(change(kernel.value, rate))


def weight_name(variable, model) -> tuple[str, str]:
    """A weight's layer and tensor: `dense_1`, `kernel`. Nested layers keep their path, the model's own name goes."""
    layer, _, tensor = variable.path.removeprefix(f"{model.name}/").rpartition("/")
    return layer, tensor


def padded(indices: np.ndarray, batch: int = EVALUATION_BATCH) -> tuple[np.ndarray, np.ndarray]:
    """Indices as equal chunks `(chunks, size)` of at most `batch`, and weights: 1 for an example, 0 for padding."""
    chunks = -(-len(indices) // batch)
    size = -(-len(indices) // chunks)
    order = np.zeros(chunks * size, np.int32)
    weight = np.zeros(chunks * size, np.float32)
    order[: len(indices)], weight[: len(indices)] = indices, 1
    return order.reshape(chunks, size), weight.reshape(chunks, size)


def _built_slots(optimizer, weights) -> list:
    """Build an optimizer; what each of its variables starts as: an array, or the weight that it is a copy of.

    The weights are random meanwhile, so that a copy (schedule-free Adam keeps one) is told from a constant.
    """
    values, rng = [w.numpy() for w in weights], np.random.default_rng(0)
    for weight in weights:
        weight.assign(rng.normal(size=weight.shape))
    optimizer.build(weights)
    starts = []
    for slot in optimizer.variables:
        copied = [w for w in weights if w.shape == slot.shape and np.array_equal(w, slot)]
        starts.append(copied[0] if copied else slot.numpy().copy())
    for weight, value in zip(weights, values, strict=True):
        weight.assign(value)
    return starts


def _loop(times, body, *start):
    return tf.while_loop(lambda place, *_: place < times, body, (tf.constant(0), *start), parallel_iterations=1)


def _flat(tensors):
    return tf.concat([tf.reshape(t, [-1]) for t in tensors], axis=0)


def _images(batch, scale, shift):
    return tf.cast(batch, tf.float32) * scale + shift


def _correct(labels, outputs):
    return tf.cast(tf.argmax(outputs, axis=-1, output_type=labels.dtype) == labels, tf.float32)


def _ends_in_softmax(model) -> bool:
    return getattr(model.layers[-1], "activation", None) is keras.activations.softmax
