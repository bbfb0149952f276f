"""Weights watched in one's own training: a callback for any `model.fit` with TensorFlow.

    model.fit(x, y, epochs=20, callbacks=[WeightRecorder("my_study", {"width": 64}, seed=0)])

What it records has the names and the places of what `studies.run` records, so that `analysis` reads both alike.
"""

import itertools
import math
import re
import resource
import shlex
import sys
import time
import traceback
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import global_state
from keras.src.utils.naming import to_snake_case

from studies.command import provenance
from studies.contract import STATISTICS, TRIAL_COLUMNS
from studies.observe.early_warnings import early_warnings
from studies.observe.weights import weight_statistics
from studies.record import EpochRecord, LayerRecord, Result, StudyError, listed, shown
from studies.store import fits
from studies.train.engine import L2, weight_name
from studies.train.meter import Meter

OBSERVATION_BYTES = 64 * 2**20
"""Weights are kept for a joint observation of several epochs up to this size."""

PROBE = 256
"""Examples of a probe batch that is taken from the data."""

STEPS = STATISTICS.index("gradient_norm")

SCALAR = (str, int, float, bool, type(None))


class WeightRecorder(keras.callbacks.Callback):
    """Records every layer of a fit, as a trial of a study, into MLflow.

    The run is MLflow's active one, if there is one and no `root` is named; else one of its own in a store's folder. A
    fit whose loss is not finite at the end has diverged; one that an exception ends in a step has crashed.

    Training is not changed by it. While a fit is recorded its train function is another, compiled for that fit.

    Args:
        study: the study that the fit belongs to; None for the name of the active run's experiment, or `fits`.
        arm: what tells the fit from others of the study, factor -> level, such as `{"width": 64}`.
        seed: what its randomness was seeded by. A fit with the arm and seed of an earlier one takes its place; None for
            the next number that its arm has not had.
        root: the folder of the store; None for the active run, or `mlruns`.
        observe_every: epochs between observations of the weights; the first and the last are always made.
        metric: what arms are compared by, a column of the trials; None for the validation accuracy, or what there is.

    Raises:
        StudyError: an argument is not what it should be.
    """

    def __init__(
        self,
        study: str | None = None,
        arm: dict[str, Any] | None = None,
        seed: int | None = None,
        *,
        root: str | None = None,
        observe_every: int = 1,
        metric: str | None = None,
    ):
        super().__init__()
        self.study, self.arm, self.seed, self.root = study, dict(arm or {}), seed, root
        self.observe_every, self.metric = observe_every, metric
        self.arm = {factor: _plain(level) for factor, level in self.arm.items()}
        _check(study, self.arm, seed, observe_every)
        if keras.backend.backend() != "tensorflow":
            raise StudyError(f"keras.backend is {keras.backend.backend()}: expected tensorflow, by KERAS_BACKEND")
        self.run_then = fits.active_run() if root is None else None
        self.recording: Recording | None = None
        self.run_id: str | None = None

    def on_train_begin(self, logs=None) -> None:
        """Begin to record.

        Raises:
            StudyError: it cannot be kept, or not be measured.
        """
        run_now = fits.active_run() if self.root is None else None
        if self.run_then and (run_now is None or run_now.info.run_id != self.run_then.info.run_id):
            raise StudyError(
                f"the MLflow run {self.run_then.info.run_id}, which was active when the callback was made, has ended: "
                f"make the callback and fit inside with mlflow.start_run(): …, or name a store with root=FOLDER"
            )
        place = fits.place(self.study, self.root)
        self.recording = Recording(self.model, place, self.observe_every, (self.params or {}).get("epochs"))
        self.recording.named = self.arm, self.seed, self.metric
        # A fit that an exception ends between two steps does not say so.
        self.end = weakref.finalize(self, self.recording.meter.detach)
        self.recording.meter.attach()

    def on_epoch_begin(self, epoch: int, logs=None) -> None:
        """Start the clock."""
        if self.recording:
            self.recording.begin_epoch(epoch)

    def on_epoch_end(self, epoch: int, logs=None) -> None:
        """Record an epoch."""
        if self.recording:
            self.recording.end_epoch(epoch + 1, logs or {})

    def on_train_end(self, logs=None) -> None:
        """Write what was recorded.

        Raises:
            StudyError: it cannot be written any more.
        """
        if self.recording:
            recording, self.recording = self.recording, None
            self.end()
            self.run_id = recording.write()


class Recording:
    """One call of `model.fit`, as it goes on.

    Args:
        every: epochs between observations.
        planned: epochs.
    """

    def __init__(self, model: keras.Model, place: fits.Place, every: int, planned: int | None):
        self.model, self.place, self.every, self.planned = model, place, every, planned
        self.named: tuple[dict, int | None, str | None] = {}, None, None
        self.meter = Meter(model, self._begin, self._fail)
        self.config = _config(model, planned)
        self.epochs: list[EpochRecord] = []
        self.layers: list[LayerRecord] = []
        self.logs: dict[str, float] = {}
        self.waiting: list[tuple[int, np.ndarray, np.ndarray]] = []
        self.latest: tuple[int, np.ndarray, np.ndarray] | None = None
        self.started = self.epoch_started = time.perf_counter()
        self.seconds_build = math.nan

    def begin_epoch(self, epoch: int) -> None:
        """An epoch begins; the first says after how many epochs this fit goes on."""
        now = time.perf_counter()
        if not self.epochs:
            self.seconds_build = now - self.started
            self.epochs.append(EpochRecord("", epoch, 0, _rate(self.model), *[math.nan] * 4, seconds=0.0))
        self.epoch_started = now

    def end_epoch(self, epoch: int, logs: dict) -> None:
        """An epoch has been trained and validated."""
        seconds, taken = time.perf_counter() - self.epoch_started, self.meter.take()
        self.logs = {name: float(value) for name, value in logs.items()}
        of = {name: _found(self.logs, name) for name in ("loss", "accuracy", "val_loss", "val_accuracy")}
        rate = _rate(self.model) if math.isnan(taken.rate) else taken.rate
        examples = self.epochs[-1].examples + taken.examples
        self.epochs.append(EpochRecord("", epoch, examples, rate, *of.values(), seconds=seconds))
        if self.every and self.meter.ready:
            self.latest = epoch, self._flat(), taken.squares
            if (epoch - self.epochs[0].epoch) % self.every == 0:
                self._keep_latest()

    def write(self, status: str = "finished", error: str = "") -> str:
        """Keep the trial where it belongs; gives its run's id."""
        self._keep_latest()
        self._observe()
        losses = [value for name, value in self.logs.items() if name in ("loss", "val_loss")]
        if status == "finished" and not all(map(math.isfinite, losses)):
            status = "diverged"
        arm, seed, metric = self.named
        result = self._result(status, error)
        classes = _classes(self.model)
        warning = early_warnings(self.epochs, self.layers, classes, 1 / classes if classes else math.nan)
        metric = metric or _metric(self.epochs)
        origin = provenance.tags([], Path.cwd()) | {"mlflow.source.name": shlex.join(["python", *sys.argv])}
        fit = fits.Fit(arm, seed, self.config, metric, self.epochs, self.layers, result, warning, origin)
        return self.place.write(fit)

    def _begin(self) -> None:
        """Look at the network as it is before the first step, once it has weights."""
        self.weights = list(self.model.trainable_variables)
        self.names, self.start = names(self.weights, self.model), self._flat()

    def _fail(self, error: BaseException) -> None:
        """Keep a fit that an exception has ended, which goes on whatever becomes of that."""
        reason = "".join(traceback.format_exception_only(error)).strip().partition("\n")[0]
        try:
            self.write("crashed", f"{reason}\n{''.join(traceback.format_exception(error))}")
        except StudyError as unwritten:
            print(f"note: what was recorded of the fit is lost: {unwritten}", file=sys.stderr)

    def _flat(self) -> np.ndarray:
        """All weights end to end, `(weights,)` float32."""
        return np.concatenate([np.ravel(v.numpy()).astype(np.float32, copy=False) for v in self.weights])

    def _keep_latest(self) -> None:
        """Have the latest epoch observed, with others: together they take half the time."""
        if self.latest:
            self.waiting.append(self.latest)
            self.latest = None
            if sum(flat.nbytes for _, flat, _ in self.waiting) > OBSERVATION_BYTES:
                self._observe()

    def _observe(self) -> None:
        """Make the records of the epochs that wait."""
        if not (self.every and self.meter.ready and self.epochs):
            return
        if not self.layers:
            none = np.full((2, len(self.meter.kernels)), np.nan)
            self.waiting.insert(0, (self.epochs[0].epoch, self.start, none))
        epochs, flats, squares = zip(*self.waiting, strict=True) if self.waiting else ((), (), ())
        self.waiting = []
        if epochs:
            tables = statistics(self.weights, np.stack(flats), np.stack(squares), self.start)
            for (layer, tensor), table in zip(self.names, tables, strict=True):
                rows = zip(epochs, table.tolist(), strict=True)
                self.layers += [LayerRecord("", epoch, layer, tensor, tuple(row)) for epoch, row in rows]

    def _result(self, status: str, error: str) -> Result:
        """How it ended."""
        trained, last = self.epochs[1:], vars(self.epochs[-1]) if self.epochs else {}
        ends = {name: last.get(name, math.nan) for name in ("running_loss", "running_accuracy")}
        for name, best in (("val_loss", np.nanmin), ("val_accuracy", np.nanmax)):
            values = [getattr(record, name) for record in trained]
            ends[name] = ends[f"last_{name}"] = last.get(name, math.nan)
            if not all(map(math.isnan, values)):
                ends[f"best_{name}"] = float(best(values))
        others = {name: value for name, value in self.logs.items() if _is_quantity(name, self.named[0])}
        now = time.perf_counter()
        return Result(
            "",
            status,
            epochs=self.epochs[-1].epoch if self.epochs else 0,
            **ends,
            parameters=sum(math.prod(v.shape) for v in self.model.weights),
            classes=_classes(self.model),
            seconds_build=self.seconds_build,
            seconds_train=now - self.started - self.seconds_build,
            seconds_total=now - self.started,
            memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            / (2**20 if sys.platform == "darwin" else 2**10),
            quantities=others,
            error=error,
        )


def statistics(weights: list, flats: np.ndarray, squares: np.ndarray, start: np.ndarray) -> list[np.ndarray]:
    """Every statistic of every weight at several epochs, as `studies.train.engine.Engine.statistics` has them.

    Args:
        weights: variables.
        flats: their values end to end at each epoch, `(epochs, weights)`.
        squares: mean squared norms of each kernel's gradient and update in each, `(epochs, 2, kernels)`.
        start: their values before training, `(weights,)`.

    Returns:
        `(epochs, len(STATISTICS))` for each weight.
    """
    ends = np.cumsum([math.prod(v.shape) for v in weights])
    kernels = iter(np.moveaxis(np.sqrt(squares), 2, 0))
    tables = []
    for v, end in zip(weights, ends, strict=True):
        part = slice(end - math.prod(v.shape), end)
        table = np.full((len(flats), len(STATISTICS)), np.nan)
        found = weight_statistics(flats[:, part], start[part])
        table[:, : found.shape[1]] = found
        if len(v.shape) > 1:
            norms = next(kernels)
            with np.errstate(divide="ignore", invalid="ignore"):
                steps = (norms[:, 0], norms[:, 1], norms[:, 1] / table[:, L2])
            table[:, STEPS : STEPS + len(steps)] = np.column_stack(steps)
        tables.append(table)
    return tables


def names(weights: list, model: keras.Model) -> list[tuple[str, str]]:
    """Layer and tensor of each weight; a weight of the model itself is in a layer of the model's name.

    Weights of one name are told apart by a number: `dense`, `dense_1`.
    """
    found: dict[tuple[str, str], None] = {}
    numbers = renumbered(model)
    for weight in weights:
        layer, tensor = weight_name(weight, model)
        layer = "/".join(numbers.get(part, part) for part in layer.split("/")) or model.name
        number = next(n for n in itertools.count() if (f"{layer}_{n}" if n else layer, tensor) not in found)
        found[f"{layer}_{number}" if number else layer, tensor] = None
    return list(found)


def renumbered(model: keras.Model) -> dict[str, str]:
    """Names that Keras gave to layers -> what it would have called them in a process's first model.

    It counts on from model to model, so that the same layer is `dense_1` in one fit and `dense_3` in the next.
    """
    given = global_state.get_global_attribute("object_name_uids") or {}
    counts: Counter[str] = Counter()
    found = {}
    for layer in model._flatten_layers(include_self=False):
        base, _, number = layer.name.rpartition("_") if re.search(r"_\d+$", layer.name) else (layer.name, "", "0")
        if base == to_snake_case(type(layer).__name__) and int(number) < given.get(base, 0):
            found[layer.name] = f"{base}_{counts[base]}" if counts[base] else base
            counts[base] += 1
    return found


def _check(study, arm, seed, every) -> None:
    """Refuse what cannot be kept, before anything trains."""
    if study is not None and not re.fullmatch(r"[A-Za-z0-9][\w .-]{0,99}", str(study)):
        raise StudyError(f"study={study!r}: expected up to 100 letters, digits, spaces or . _ -")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or seed < 0):
        raise StudyError(f"seed={shown(seed)}: expected a whole number from 0 on, or None for the next one")
    if isinstance(every, bool) or not isinstance(every, int) or every < 0:
        raise StudyError(f"observe_every={shown(every)}: expected a number of epochs, 1 or more, or 0 for never")
    for factor, level in arm.items():
        if not isinstance(factor, str) or not re.fullmatch(r"[A-Za-z][\w .-]{0,99}", factor) or factor in TRIAL_COLUMNS:
            raise StudyError(
                f"arm names {factor!r}: expected a name of up to 100 letters, digits, spaces or . _ -, and none of "
                f"{listed(TRIAL_COLUMNS)}, which are columns already"
            )
        whole = level if isinstance(level, list) else [level]
        if not all(isinstance(each, SCALAR) and each == each for each in whole):
            raise StudyError(
                f"arm has {factor}={level!r}: expected a number, a text, true, false, None, or a list of such"
            )


def _plain(level):
    """A level as JSON has it: NumPy's numbers as Python's, of as many digits, tuples as lists."""
    if isinstance(level, np.generic):
        return float(str(level)) if isinstance(level, np.floating) else level.item()
    return [_plain(each) for each in level] if isinstance(level, tuple | list) else level


def _config(model, planned) -> dict:
    """What a fit is trained with, as far as the model knows, in the form of a trial's config."""
    settings = {name: _plain_rate(value) for name, value in model.optimizer.get_config().items()}
    loss = model.loss if isinstance(model.loss, str) else getattr(model.loss, "name", type(model.loss).__name__)
    return {
        "model": {"_target_": type(model).__name__, "name": model.name},
        "optimizer": {"_target_": type(model.optimizer).__name__}
        | {name: value for name, value in settings.items() if isinstance(value, SCALAR) and name != "name"},
        "training": {"epochs": planned, "loss": str(loss), "dtype": model.dtype_policy.name},
    }


def _plain_rate(value):
    """A float32 that Keras gives as a float of more digits, with its own: 0.1, not 0.10000000149011612."""
    return float(str(np.float32(value))) if isinstance(value, float) and value == np.float32(value) else value


def _rate(model) -> float:
    try:
        return float(model.optimizer.learning_rate)
    except (AttributeError, TypeError, ValueError):
        return math.nan


def _found(logs: dict[str, float], name: str) -> float:
    """A score among Keras's logs, NaN if there is none; the accuracy goes by several names, such as `acc`."""
    prefix = "val_" if name.startswith("val_") else ""
    if name.endswith("loss"):
        return logs.get(name, math.nan)
    of_part = [key for key in logs if key.startswith("val_") == bool(prefix)]
    named = [key for key in (name, f"{prefix}acc") if key in logs] + [k for k in of_part if k.endswith("accuracy")]
    return logs[named[0]] if named else math.nan


def _metric(epochs: list[EpochRecord]) -> str:
    """What arms are compared by: the first of these that was measured."""
    for name in ("val_accuracy", "val_loss", "running_accuracy", "running_loss"):
        if any(not math.isnan(getattr(record, name)) for record in epochs):
            return name
    return "running_loss"


def _is_quantity(name: str, arm: dict) -> bool:
    """Whether an entry of Keras's logs becomes a column of its own."""
    return bool(re.fullmatch(r"[A-Za-z]\w*", name)) and name not in (*TRIAL_COLUMNS, *arm, "loss", "accuracy", "acc")


def _classes(model) -> int:
    """The number of classes that a model tells apart, 0 if it does not say."""
    loss = model.loss if isinstance(model.loss, str) else getattr(model.loss, "name", "")
    if "categorical_crossentropy" not in str(loss):
        return 2 * ("binary_crossentropy" in str(loss))
    shape = getattr(model, "output_shape", None) if model.built else None
    return shape[-1] if isinstance(shape, tuple) and isinstance(shape[-1], int) else 0
