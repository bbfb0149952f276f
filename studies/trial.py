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
from studies.data import Dataset, Split, split
from studies.engine import XLA_STEPS, Engine, padded, wants_xla, weight_name
from studies.initializers import Drawing
from studies.record import SEED_STREAMS, EpochRecord, LayerRecord, Result, StudyError, Trial

ENGINES_KEPT = 4
ADAPT_EXAMPLES = 256
"""How many training examples an initializer sees that adapts to them."""

OBSERVATION_BYTES = 64 * 2**20
"""Weights are kept for a joint observation of several epochs up to this size."""

gc.freeze()  # a full collection that walks through all that TensorFlow's import made takes as long as a short trial

_engines: OrderedDict = OrderedDict()
_datasets: OrderedDict = OrderedDict()


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
        for group in ("initializer", "optimizer", "schedule", "regularizer", "clipping"):
            if group in config:
                targets.build(config[group], group, allow)
        if "model" in config:
            dataset = _dataset(config["data"], allow)[0]
            _model(config["model"], dataset, allow)
    except StudyError as error:
        yield str(error)


def run(trial: Trial) -> Iterator[EpochRecord | list[LayerRecord] | Result]:
    """Train one trial and give its records as they come, layers' ones many at a time, its result last."""
    started = time.perf_counter()
    config, key = trial.config, trial.key
    allow, training = config["targets"]["allow"], config["training"]
    seeds = streams(trial.seed, config["seeds"])

    dataset, arrays = _dataset(config["data"], allow)
    parts = split(dataset, config["data"], np.random.default_rng(seeds["split"]))
    batch = min(training["batch_size"], len(parts.train))
    steps, epochs = len(parts.train) // batch, training["epochs"]
    observe_every = config["diagnostics"]["observe_every"]

    engine, drawing = _engine(trial, dataset, arrays, steps, batch)
    engine.reset(drawing.draw(config["initializer"], allow, seeds["init"], seeds["dropout"]))
    initializer = targets.build(config["initializer"], "initializer", allow)
    if hasattr(initializer, "adapt"):
        some = np.random.default_rng(seeds["init"]).choice(parts.train, min(ADAPT_EXAMPLES, len(parts.train)), False)
        initializer.adapt(engine.model, dataset.x[some].astype(np.float32) * dataset.scale)
        engine.reset([v.numpy() for v in engine.model.variables])
    schedule = targets.build(config["schedule"], "schedule", allow)
    rates = config["optimizer"]["learning_rate"] * fractions(schedule, steps * epochs, steps)
    rates = rates.astype(np.float32).reshape(epochs, steps)
    shuffle = np.random.default_rng(seeds["order"])
    evaluate = _evaluation(engine, arrays, parts)

    start = engine.flat_weights()
    observations = [(0, start, np.full((2, len(engine.kernels)), np.nan, np.float32))]
    val_loss, val_accuracy = evaluate("val")
    yield EpochRecord(key, 0, 0, float(rates[0, 0]), math.nan, math.nan, val_loss, val_accuracy, 0.0)
    built = time.perf_counter()

    status, history = "finished", []
    for epoch in range(1, epochs + 1):
        epoch_started = time.perf_counter()
        order = shuffle.permutation(parts.train)[: steps * batch].reshape(steps, batch).astype(np.int32)
        loss, accuracy, flat, squares = engine.run_epoch(*arrays, tf.constant(order), tf.constant(rates[epoch - 1]))
        val_loss, val_accuracy = evaluate("val")
        seconds = time.perf_counter() - epoch_started
        history.append(
            EpochRecord(
                key, epoch, epoch * steps * batch, float(rates[epoch - 1, -1]), float(loss), float(accuracy), val_loss,
                val_accuracy, seconds,
            )
        )  # fmt: skip
        yield history[-1]
        if not math.isfinite(history[-1].train_loss + history[-1].val_loss):
            status = "diverged"
        elif epoch < epochs and training["timeout"] and time.perf_counter() - started > training["timeout"]:
            status = "timeout"
        ended = status != "finished" or epoch == epochs
        if observe_every and (ended or epoch % observe_every == 0):
            observations.append((epoch, flat, squares.numpy()))
        if observe_every and (ended or len(observations) * flat.shape[0] * 4 > OBSERVATION_BYTES):
            yield _layer_records(engine, key, observations, start)
            observations = []
        if ended:
            break

    trained = time.perf_counter()
    test_loss, test_accuracy = evaluate("test") if status == "finished" else (math.nan, math.nan)
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


def _evaluation(engine: Engine, arrays, parts: Split):
    """A function from `val` or `test` to its loss and accuracy now."""
    chunks = {name: tuple(map(tf.constant, padded(getattr(parts, name)))) for name in ("val", "test")}

    def evaluate(name):
        loss, accuracy = engine.evaluate(*arrays, *chunks[name])
        return float(loss), float(accuracy)

    return evaluate


def _dataset(node: dict, allow: list[str]) -> tuple[Dataset, tuple]:
    """The dataset, and its images, labels and scale as tensors on the device, where they stay."""

    def make():
        dataset = targets.build(node, "data", allow)
        return dataset, (tf.constant(dataset.x), tf.constant(dataset.y), tf.constant(dataset.scale, tf.float32))

    return _kept(_datasets, json.dumps(node, sort_keys=True), make, limit=2)


def _model(node: dict, dataset: Dataset, allow: list[str]) -> keras.Model:
    keras.utils.clear_session(free_memory=False)  # names of unnamed layers count from one again
    arguments = {"input_shape": dataset.x.shape[1:], "classes": dataset.classes}
    return targets.build(node, "model", allow, **arguments)


def _engine(trial: Trial, dataset: Dataset, arrays: tuple, steps: int, batch: int) -> tuple[Engine, Drawing]:
    """A compiled engine for the trial's graph, made once and kept, and what draws its initial weights."""
    config, allow = trial.config, trial.config["targets"]["allow"]

    total = steps * config["training"]["epochs"]

    def make():
        model = _model(config["model"], dataset, allow)
        engine = Engine(
            model,
            targets.build(config["optimizer"], "optimizer", allow),
            regularizer=targets.build(config["regularizer"], "regularizer", allow),
            clip=targets.build(config["clipping"], "clipping", allow),
            observe=config["diagnostics"]["observe_every"] > 0,
            xla=wants_xla(config["engine"]["xla"], model, total),
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
