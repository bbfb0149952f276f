"""Gradients and updates measured inside the step that Keras's `fit` compiles, whatever the `train_step`.

The optimizer's methods are wrapped for the time of a fit, so that what is measured is what it was given: the mean over
accumulated batches, without the scale of a scaled loss, before clipping. Nothing is computed twice and nothing drawn.
"""

import sys
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from studies.observe.tensors import gated
from studies.record import StudyError

ENDS = (StopIteration, tf.errors.OutOfRangeError)
"""What Keras's `fit` takes for the end of the data."""


@dataclass(frozen=True)
class Taken:
    """What has been measured since it was last taken.

    Attributes:
        examples: how many were trained on.
        rate: the learning rate of the last update, NaN if there was none.
        squares: mean squared norm of each kernel's gradient and of its update over the updates, then of each gate's in
            recurrent ones, `(2, kernels + gates)` float64; NaN for a kernel that was not updated.
    """

    examples: int
    rate: float
    squares: np.ndarray


class Meter:
    """Measures a model's training from `attach` to `detach`, at the latest to the first step of another fit.

    Args:
        model: compiled; its weights need not be there yet.
        begin: called once, when they are there and none has been updated.
        fail: called with what is raised by a step of the fit.
    """

    def __init__(self, model: keras.Model, begin: Callable[[], object], fail: Callable[[BaseException], object]):
        self.model, self.begin, self.fail = model, begin, fail
        self.ready = self.used = False
        self.wrapped: list[tuple[Any, str]] = []
        self.kernels: list = []
        self.fit: weakref.ref | None = None

    def attach(self) -> None:
        """Have the train function compiled anew, with what measures.

        Raises:
            StudyError: another meter is there, the optimizer is none of Keras's, or there are several devices.
        """
        optimizers = list(optimizers_of(self.model))
        if not optimizers:
            raise StudyError("the model has no optimizer of Keras's: expected one, from model.compile(optimizer=…)")
        if self.model.distribute_strategy.num_replicas_in_sync > 1:
            raise StudyError(
                f"the model is trained by {self.model.distribute_strategy.num_replicas_in_sync} replicas at once: "
                f"expected one device, without a tf.distribute strategy"
            )
        for target in (self.model, *optimizers):
            _take_out_leftovers(target)
        callbacks = next(_callbacks_of_fits(self.model), None)
        self.fit = None if callbacks is None else weakref.ref(callbacks)
        self._wrap(self.model, "train_step", self._train_step)
        for optimizer in optimizers:
            self._wrap(optimizer, "apply", partial(self._apply, optimizer))
            self._wrap(optimizer, "_backend_apply_gradients", partial(self._apply_gradients, optimizer))
        self.before = self.model.train_function
        self.model.make_train_function(force=True)
        self.function = self.model.train_function = partial(self._train, self.model.train_function)
        if self.model.built and self.model.trainable_variables:
            self._prepare()

    def detach(self) -> None:
        """Leave model and optimizer as they were; twice is once."""
        if self.wrapped:
            for target, name in self.wrapped:
                vars(target).pop(name, None)
            self.wrapped = []
            if self.model.train_function is self.function:  # else it was compiled anew
                self.model.train_function = self.before

    def take(self) -> Taken:
        """What has been measured, which begins anew."""
        if not self.ready:
            return Taken(0, np.nan, np.full((2, 0), np.nan))
        gradients, counts = self.gradients.numpy()
        sums = 2 * np.stack([gradients, self.updates.numpy()])
        taken = Taken(
            int(self.examples.numpy()),
            float(self.rate.numpy()),
            np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0),
        )
        for variable in (self.gradients, self.updates, self.examples):
            variable.assign(tf.zeros_like(variable))
        self.rate.assign(np.nan)
        return taken

    def _wrap(self, target, name: str, measured: Callable) -> None:
        """Put a function in the place of a method, which it gets as its first argument."""
        wrapper = partial(measured, getattr(target, name))
        wrapper.meter = self  # type: ignore[attr-defined]
        vars(target)[name] = wrapper  # past the tracking of attributes that Keras does
        self.wrapped.append((target, name))

    def _prepare(self) -> None:
        """Make what is summed into; called while the first step is traced if there were no weights before."""
        if self.ready:
            return
        with tf.init_scope():
            self.kernels = [v for v in self.model.trainable_variables if len(v.shape) > 1]
            self.places = {id(v): place for place, v in enumerate(self.kernels)}
            self.places |= {id(v.value): place for place, v in enumerate(self.kernels)}
            gates = gated(self.model)
            self.gates = [len(gates.get(id(v), ())) for v in self.kernels]
            count = len(self.kernels) + sum(self.gates)
            self.gradients = tf.Variable(tf.zeros((2, count), tf.float64), trainable=False)
            self.updates = tf.Variable(tf.zeros(count, tf.float64), trainable=False)
            self.examples = tf.Variable(tf.zeros((), tf.int64), trainable=False)
            self.rate = tf.Variable(np.float32(np.nan), trainable=False)
            self.ready = True
            self.begin()

    def _is_over(self) -> bool:
        """Whether the fit that was to be measured does not go on: an exception has ended it between steps.

        Nobody says so to callbacks, and what is raised later is not of that fit.
        """
        if self.fit and not any(callbacks is self.fit() for callbacks in _callbacks_of_fits(self.model)):
            self.detach()
            return True
        return False

    def _train(self, function, *arguments):
        """Some steps, as `fit` calls them."""
        if self._is_over():
            return self.model.train_function(*arguments)
        self.used = True
        try:
            return function(*arguments)
        except ENDS:
            raise
        except BaseException as error:
            self.detach()
            self.fail(error)
            raise

    def _train_step(self, function, data, *arguments, **settings):
        if self._is_over():
            return function(data, *arguments, **settings)
        batches = [t for t in tf.nest.flatten(data) if isinstance(t, tf.Tensor) and t.shape.rank]
        found = function(data, *arguments, **settings)
        if batches and self.ready:
            self.examples.assign_add(tf.shape(batches[0], tf.int64)[0])
        return found

    def _apply(self, optimizer, function, grads, trainable_variables=None):
        """What an optimizer does with gradients, measured by what it did to the kernels."""
        if self._is_over():
            return function(grads, trainable_variables)
        self._prepare()
        weights = optimizer._trainable_variables if trainable_variables is None else list(trainable_variables)
        kernels = {self.places[id(w)]: _variable(w) for w in weights if id(w) in self.places}
        before = {place: kernel.read_value() for place, kernel in kernels.items()}
        found = function(grads, trainable_variables if trainable_variables is None else weights)
        if kernels:
            updates = {
                place: self._half_square(kernel.read_value() - before[place], place)
                for place, kernel in kernels.items()
            }
            self.updates.assign_add(self._each(updates))
        return found

    def _apply_gradients(self, optimizer, function, grads, trainable_variables):
        """Unscaled gradients that are to make an update, alone or, every so many steps, with those accumulated.

        Nothing is measured inside of what Keras does with them: a number that is taken of an accumulated mean there
        keeps TensorFlow from merging its division with the rate, and training is another in the last bit.
        """
        updates, every = tf.constant(True), optimizer.gradient_accumulation_steps or 1
        pairs = [(w, g) for w, g in zip(trainable_variables, grads, strict=True) if id(w) in self.places]
        wide = {self.places[id(w)]: tf.cast(tf.convert_to_tensor(g), tf.float64) for w, g in pairs}
        if every > 1:
            updates = (_variable(optimizer._iterations) + 1) % every == 0
            for w, _ in pairs:
                waiting = _variable(optimizer._accumulated_gradients[optimizer._get_variable_index(w)])
                wide[self.places[id(w)]] += tf.cast(waiting.read_value(), tf.float64)
        squares = {place: self._half_square(gradient / every, place) for place, gradient in wide.items()}
        if squares:
            updated = np.array([place in squares for place in range(len(self.kernels))], float)
            counts = np.concatenate([updated, np.repeat(updated, self.gates)])
            sums = tf.stack([self._each(squares), tf.constant(counts)])
            self.gradients.assign_add(tf.where(updates, sums, tf.zeros_like(sums)))
        self.rate.assign(tf.where(updates, tf.cast(optimizer.learning_rate, tf.float32), self.rate))
        return function(grads, trainable_variables)

    def _half_square(self, tensor, place: int) -> tf.Tensor:
        """Half the squared norm of what is of a kernel, or of each of its gates, `(gates,)`.

        In double precision as the engine has it: float32 has none below 1e-45 and above 1e38.
        """
        wide, gates = tf.cast(tf.convert_to_tensor(tensor), tf.float64), self.gates[place]
        if not gates:
            return tf.nn.l2_loss(wide)
        return tf.reduce_sum(tf.square(tf.reshape(wide, (-1, gates, wide.shape[-1] // gates))), axis=(0, 2)) / 2

    def _each(self, numbers: dict[int, tf.Tensor]) -> tf.Tensor:
        """A number for each kernel, then for each gate, 0 where there is none, `(kernels + gates,)`."""
        wholes, parts = [], []
        for place, gates in enumerate(self.gates):
            number = numbers[place] if place in numbers else tf.zeros((gates,) if gates else (), tf.float64)
            wholes.append(tf.reduce_sum(number) if gates else number)
            parts += [number] if gates else []
        return tf.concat([tf.stack(wholes), *parts], axis=0) if parts else tf.stack(wholes)


def optimizers_of(model: keras.Model) -> Iterator[keras.optimizers.Optimizer]:
    """The optimizers that a `train_step` may call: the model's own, those among its attributes, those inside them."""
    waiting, seen = [model.optimizer, *vars(model).values()], set()
    while waiting:
        optimizer = waiting.pop(0)
        if not isinstance(optimizer, keras.optimizers.Optimizer) or id(optimizer) in seen:
            continue
        seen.add(id(optimizer))
        inner = [getattr(optimizer, "inner_optimizer", None), *getattr(optimizer, "_inner_optimizers", ())]
        inner = [each for each in inner if each is not None]
        waiting += inner
        if not inner:  # else it hands gradients on, unscaled or sorted by variable
            yield optimizer


def frame_of_fit(model: keras.Model) -> FrameType | None:
    """The innermost call of a model's `fit` that goes on; None if there is none."""
    return next(_frames_of_fits(model), None)


def _frames_of_fits(model: keras.Model) -> Iterator[FrameType]:
    """The calls of a model's `fit` that go on, from the innermost out: a callback may fit too."""
    frame: FrameType | None = sys._getframe(1)
    while frame:
        if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is model:
            yield frame
        frame = frame.f_back


def _callbacks_of_fits(model: keras.Model) -> Iterator[keras.callbacks.CallbackList]:
    """Keras's list of the callbacks of each, by which fits are told apart."""
    for frame in _frames_of_fits(model):
        if isinstance(callbacks := frame.f_locals.get("callbacks"), keras.callbacks.CallbackList):
            yield callbacks


def _take_out_leftovers(target) -> None:
    """Detach the meter of a fit that never ended."""
    for function in list(vars(target).values()):
        if isinstance(other := getattr(function, "meter", None), Meter):
            other.detach()
            if not other.used:  # in this fit no step has been made
                raise StudyError(
                    "two callbacks record the same fit: expected one, leave the other out of callbacks=[…]"
                )


def _variable(weight):
    """TensorFlow's variable of a Keras variable, or itself."""
    return weight.value if isinstance(weight, keras.Variable) else weight
