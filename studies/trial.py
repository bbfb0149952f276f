"""One trial: builds its parts, drives the engine, gives records. Runs in a worker; imports TensorFlow."""

import gc
import json
import math
import resource
import time
from collections import OrderedDict
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from studies import targets
from studies.augmentation import Augmentation
from studies.data import Dataset, Split, noisy_labels, scaling, source, split
from studies.engine import XLA_STEPS, Course, Engine, padded, wants_xla, weight_name
from studies.initializers import Drawing
from studies.optimizers import Cycle, Lookahead, sharpness_aware
from studies.record import SEED_STREAMS, EpochRecord, LayerRecord, Result, StudyError, Trial

AROUND = ("sam", "lookahead", "slow_step", "ema")
"""Settings of any optimizer that Keras's do not take."""

ENGINES_KEPT = 4
ADAPT_EXAMPLES = 256
"""How many training examples an initializer sees that adapts to them."""

OBSERVATION_BYTES = 64 * 2**20
"""Weights are kept for a joint observation of several epochs up to this size."""

gc.freeze()  # a full collection that walks through all that TensorFlow's import made takes as long as a short trial

# The user's keras.json would change numbers under the same key.
keras.config.set_floatx("float32")
keras.config.set_dtype_policy("float32")
keras.config.set_epsilon(1e-7)
keras.config.set_image_data_format("channels_last")

DEVICE = "gpu" if tf.config.list_physical_devices("GPU") else "cpu"
if DEVICE == "gpu":
    tf.config.experimental.enable_op_determinism()  # else sums run in any order

_engines: OrderedDict = OrderedDict()
_datasets: OrderedDict = OrderedDict()
_drawings: OrderedDict = OrderedDict()


def streams(seed: int, pins: dict) -> dict[str, np.random.SeedSequence]:
    """The seed's independent streams by name; a pinned one comes from its own seed instead."""
    return {
        name: np.random.SeedSequence(seed if pins.get(name) is None else pins[name], spawn_key=(place,))
        for place, name in enumerate(SEED_STREAMS)
    }


def check(config: dict) -> Iterator[str]:
    """Build every part of a config once and train nothing: gives the error's text if a part is refused."""
    allow = config["targets"]["allow"]
    try:
        for group in ("initializer", "schedule", "regularizer", "clipping"):
            if group in config:
                targets.build(config[group], group, allow)
        if "optimizer" in config:
            _cycle(config.get("schedule"), build_optimizer(config["optimizer"], allow), allow)
        if "model" in config:
            _check_device(config["engine"]["device"])
            _check_draws(config, allow)
    except StudyError as error:
        yield str(error)


def _check_device(planned: str) -> None:
    if planned != DEVICE:
        raise StudyError(
            f"the trials are to be trained on a {planned}, and TensorFlow found a {DEVICE}: expected the device that "
            f"their keys name. CUDA_VISIBLE_DEVICES=-1 before the command trains on the CPU; for a GPU, TensorFlow "
            f"needs its CUDA libraries: pip install 'tensorflow[and-cuda]'"
        )


def _check_draws(config: dict, allow: list[str]) -> None:
    """Build the model for its data, and draw a kernel of each shape that it has."""

    def make():
        dataset, _ = _dataset(config["data"], allow)
        split(dataset, config["data"], np.random.default_rng(0))
        model = _model(config["model"], dataset, allow)
        return Drawing(model, lambda variable: weight_name(variable, model))

    node = config["initializer"]
    drawing = _kept(_drawings, json.dumps([config["model"], config["data"]], sort_keys=True), make, limit=1)
    try:
        drawing.try_out(node, allow)
    except (TypeError, ValueError, ArithmeticError, LookupError, NotImplementedError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise StudyError(
            f"initializer={node['_target_']} cannot draw what model={config['model']['_target_']} has: {reason}. "
            f"Choose another of either, or leave the arm out with study.skip"
        ) from error


def run(trial: Trial) -> Iterator[EpochRecord | list[LayerRecord] | Result]:
    """Train one trial and give its records as they come, layers' ones many at a time, its result last."""
    started = time.perf_counter()
    config, key = trial.config, trial.key
    allow, training = config["targets"]["allow"], config["training"]
    seeds = streams(trial.seed, config["seeds"])

    dataset, x = _dataset(config["data"], allow)
    parts = split(dataset, config["data"], np.random.default_rng(seeds["split"]))
    noise = np.random.default_rng(seeds["noise"])
    y = noisy_labels(dataset, parts.train, config["data"]["label_noise"], noise)
    scale, shift = scaling(dataset, parts.train, config["data"]["standardize"])
    arrays = (x, *map(tf.constant, (y, scale, shift)))
    batch = min(training["batch_size"], len(parts.train))
    steps, epochs = len(parts.train) // batch, training["epochs"]
    observe_every = config["diagnostics"]["observe_every"]

    engine, drawing = _engine(trial, dataset, arrays, steps, batch)
    engine.reset(drawing.draw(config["initializer"], allow, seeds["init"], seeds["dropout"]))
    initializer = targets.build(config["initializer"], "initializer", allow)
    if hasattr(initializer, "adapt"):
        some = np.random.default_rng(seeds["init"]).choice(parts.train, min(ADAPT_EXAMPLES, len(parts.train)), False)
        initializer.adapt(engine.model, dataset.x[some].astype(np.float32) * scale + shift)
        engine.reset([v.numpy() for v in engine.model.variables])
    schedule = targets.build(config["schedule"], "schedule", allow)
    rates = config["optimizer"]["learning_rate"] * fractions(schedule, steps * epochs, steps)
    stopping = EarlyStopping(training["early_stopping"])
    evaluate, evaluate_average = _evaluations(engine, arrays, parts)

    start = engine.flat_weights()
    observations = [(0, start, np.full((2, len(engine.kernels)), np.nan, np.float32))]
    val_loss, val_accuracy = evaluate("val")
    yield EpochRecord(key, 0, 0, float(rates[0]), math.nan, math.nan, val_loss, val_accuracy, 0.0)
    built = time.perf_counter()

    status, history, kept = "finished", [], 1.0
    courses = _courses(engine, schedule, rates, epochs, parts.train, batch, seeds, noise)
    for epoch, course in enumerate(courses, start=1):
        epoch_started = time.perf_counter()
        course.rates[:] *= kept
        done = engine.run_epoch(*arrays, course)
        val_loss, val_accuracy = evaluate("val")
        seconds = time.perf_counter() - epoch_started
        history.append(
            EpochRecord(
                key,
                epoch,
                epoch * steps * batch,
                float(course.rates[-1]),
                float(done.loss),
                float(done.accuracy),
                val_loss,
                val_accuracy,
                seconds,
                *evaluate_average("val"),
                float(done.clipped) if engine.clip else math.nan,
            )
        )
        yield history[-1]
        kept *= schedule.feedback(val_loss) if hasattr(schedule, "feedback") else 1.0
        stopping.hear(val_loss, engine)
        if not math.isfinite(history[-1].train_loss + history[-1].val_loss):
            status = "diverged"
        elif epoch < epochs and training["timeout"] and time.perf_counter() - started > training["timeout"]:
            status = "timeout"
        ended = status != "finished" or epoch == epochs or stopping.due
        if observe_every and (ended or epoch % observe_every == 0):
            observations.append((epoch, done.weights, done.squares.numpy()))
        if observe_every and (ended or len(observations) * done.weights.shape[0] * 4 > OBSERVATION_BYTES):
            yield _layer_records(engine, key, observations, start)
            observations = []
        if ended:
            break

    trained = time.perf_counter()
    stopping.go_back(engine)
    test_loss, test_accuracy, ema_test_loss, ema_test_accuracy = (
        (*evaluate("test"), *evaluate_average("test")) if status == "finished" else [math.nan] * 4
    )
    last = history[-1]
    yield Result(
        key,
        status,
        epochs=last.epoch,
        train_loss=last.train_loss,
        train_accuracy=last.train_accuracy,
        val_loss=last.val_loss,
        val_accuracy=last.val_accuracy,
        best_val_loss=min(record.val_loss for record in history),
        best_val_accuracy=max(record.val_accuracy for record in history),
        test_loss=test_loss,
        test_accuracy=test_accuracy,
        ema_val_loss=last.ema_val_loss,
        ema_val_accuracy=last.ema_val_accuracy,
        ema_test_loss=ema_test_loss,
        ema_test_accuracy=ema_test_accuracy,
        parameters=sum(math.prod(v.shape) for v in engine.model.weights),
        classes=dataset.classes,
        seconds_build=built - started,
        seconds_train=trained - built,
        seconds_total=time.perf_counter() - started,
        memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


def fractions(schedule, steps: int, epoch: int) -> np.ndarray:
    """What a schedule leaves of the rate at each step, `(steps,)`; those of Keras take one step at a time."""
    if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        every = tf.function(lambda: tf.map_fn(schedule, tf.range(steps, dtype=tf.float32)))
        return every().numpy()
    return schedule(np.arange(steps), steps, epoch)


def _layer_records(engine, key, observations, start) -> list[LayerRecord]:
    epochs, flats, squares = zip(*observations, strict=True)
    return [
        LayerRecord(key, epoch, layer, tensor, tuple(row))
        for layer, tensor, table in engine.statistics(flats, np.stack(squares), start)
        for epoch, row in zip(epochs, table.tolist(), strict=True)
    ]


class EarlyStopping:
    """Ends training when the validation loss has not fallen for `patience` epochs, and restores the best weights.

    Args:
        patience: None: training ends when it is over, where it is.
    """

    def __init__(self, patience: int | None):
        self.patience, self.lowest, self.waited, self.state = patience, math.inf, 0, None

    def hear(self, val_loss: float, engine: Engine) -> None:
        """Take notice of an epoch's validation loss."""
        if self.patience is None:
            return
        self.waited += 1
        if val_loss < self.lowest:
            self.lowest, self.waited, self.state = val_loss, 0, engine.state()

    @property
    def due(self) -> bool:
        """Whether training is to end."""
        return self.patience is not None and self.waited >= self.patience

    def go_back(self, engine: Engine) -> None:
        """Restore the weights of the lowest validation loss."""
        if self.state is not None:
            engine.restore(self.state)


def _courses(engine, schedule, rates, epochs, train, batch, seeds, noise) -> Iterator[Course]:
    """What the steps of one epoch after the other get; the rates are the schedule's, `(epochs · steps,)`."""
    shuffle, augment = (np.random.default_rng(seeds[name]) for name in ("order", "augment"))
    steps = len(rates) // epochs
    momenta = np.zeros(len(rates))
    if hasattr(schedule, "momentum"):
        momenta = schedule.momentum(np.arange(len(rates)), len(rates), steps, engine.cycle.high)
    for these in np.split(np.arange(len(rates)), epochs):
        yield Course(
            shuffle.permutation(train)[: steps * batch].reshape(steps, batch).astype(np.int32),
            rates[these].astype(np.float32),
            momenta[these].astype(np.float32),
            augment.random((steps, batch, engine.augmentation.numbers if engine.augmentation else 0), np.float32),
            (engine.rule.draw(noise, steps) if engine.rule else np.zeros((steps, 0))).astype(np.float32),
        )


def _evaluations(engine: Engine, arrays, parts: Split):
    """Functions from `val` or `test` to loss and accuracy now: of the weights, and of their average if there is one."""
    chunks = {name: tuple(map(tf.constant, padded(getattr(parts, name)))) for name in ("val", "test")}

    def evaluate(name, function=engine.evaluate):
        loss, accuracy = function(*arrays, *chunks[name])
        return float(loss), float(accuracy)

    def evaluate_average(name):
        return evaluate(name, engine.evaluate_average) if engine.averages else (math.nan, math.nan)

    return evaluate, evaluate_average


def _dataset(node: dict, allow: list[str]) -> tuple[Dataset, tf.Tensor]:
    """The dataset, and its images as a tensor on the device, where they stay."""
    node = source(node)

    def make():
        dataset = targets.build(node, "data", allow)
        return dataset, tf.constant(dataset.x)

    return _kept(_datasets, json.dumps(node, sort_keys=True), make, limit=2)


def _model(node: dict, dataset: Dataset, allow: list[str]) -> keras.Model:
    keras.utils.clear_session(free_memory=False)  # names of unnamed layers count from one again
    arguments = {"input_shape": dataset.x.shape[1:], "classes": dataset.classes}
    return targets.build(node, "model", allow, **arguments)


def build_optimizer(node: dict, allow: list[str]):
    """The node's optimizer, not built yet, with what config.yaml puts around any of them."""
    own = {name: value for name, value in node.items() if name not in AROUND}
    if node["ema"]:
        own |= {"use_ema": True, "ema_momentum": node["ema"]}
    optimizer = targets.build(own, "optimizer", allow)
    return Lookahead(optimizer, node["lookahead"], node["slow_step"]) if node["lookahead"] else optimizer


def _cycle(node: dict | None, optimizer, allow: list[str]) -> Cycle | None:
    """What sets the optimizer's momentum, if the schedule does.

    Raises:
        StudyError: the optimizer has none.
    """
    if not node or not hasattr(targets.build(node, "schedule", allow), "momentum"):
        return None
    try:
        return Cycle(optimizer)
    except ValueError as error:
        raise StudyError(
            f"schedule.low_momentum={node['low_momentum']}: {error}. Choose another optimizer, such as "
            f"optimizer=momentum, or schedule.low_momentum=null"
        ) from None


def _augmentation(node: dict) -> Augmentation | None:
    settings = {name: node[name] for name in ("flip", "crop", "cutout")}
    return Augmentation(**settings) if any(settings.values()) else None


def _engine(trial: Trial, dataset: Dataset, arrays: tuple, steps: int, batch: int) -> tuple[Engine, Drawing]:
    """A compiled engine for the trial's graph, made once and kept, and what draws its initial weights."""
    config, allow = trial.config, trial.config["targets"]["allow"]

    total = steps * config["training"]["epochs"]

    def make():
        model = _model(config["model"], dataset, allow)
        optimizer = build_optimizer(config["optimizer"], allow)
        regularizer = targets.build(config["regularizer"], "regularizer", allow)
        engine = Engine(
            model,
            optimizer,
            regularizer=regularizer,
            clip=targets.build(config["clipping"], "clipping", allow),
            ascent=sharpness_aware(config["optimizer"]["sam"]) if config["optimizer"]["sam"] else None,
            augmentation=_augmentation(config["data"]),
            averages=config["optimizer"]["ema"] > 0,
            cycle=_cycle(config["schedule"], optimizer, allow),
            observe=config["diagnostics"]["observe_every"] > 0,
            xla=wants_xla(config["engine"]["xla"], model, total, regularizer),
        )
        engine.compile(*arrays, steps, batch)
        return engine, Drawing(model, lambda variable: weight_name(variable, model))

    return _kept(_engines, (trial.graph_key, total >= XLA_STEPS), make, limit=ENGINES_KEPT)


def _kept(cache: OrderedDict, key, make, limit: int):
    """The value under `key`, made if it is not there; beyond `limit`, the one unused for longest goes."""
    if key not in cache:
        cache[key] = make()
        if len(cache) > limit:
            cache.popitem(last=False)
    cache.move_to_end(key)
    return cache[key]
