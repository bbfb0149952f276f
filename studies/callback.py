"""Weights watched in one's own training: a callback for any `model.fit` with TensorFlow.

    model.fit(x, y, epochs=20, callbacks=[WeightRecorder("my_study", {"width": 64}, seed=0)])

What it records has the names and the places of what `studies.run` records, so that `analysis` reads both alike.
"""

import math
import re
import resource
import shlex
import sys
import time
import traceback
import weakref
from pathlib import Path
from typing import Any

import keras
import numpy as np

from studies.command import provenance
from studies.contract import TRIAL_COLUMNS, charted
from studies.observe.early_warnings import early_warnings, stability
from studies.record import EpochRecord, Result, StudyError, listed, shown
from studies.store import fits
from studies.train.meter import Meter, frame_of_fit
from studies.train.watch import Watch

PROBE = 256
"""Examples of the data that are a probe batch, where none is named."""

KILO = 2**20 if sys.platform == "darwin" else 2**10
"""Of the units of memory that macOS and Linux count in, so many are a megabyte."""

DIAGNOSTICS = ("off", "standard", "full")
SCALAR = (str, int, float, bool, type(None))


class WeightRecorder(keras.callbacks.Callback):
    """Records every layer of a fit, as a trial of a study, into MLflow.

    The run is MLflow's active one, if there is one and no `root` is named; else one of its own in a store's folder. A
    fit whose loss is not finite at the end has diverged; one that an exception ends in a step has crashed.

    Training is not changed by it. While a fit is recorded its train function is another, compiled for that fit.

    Args:
        study: the study that the fit belongs to; None for the name of the active run's experiment, or `fits`.
        arm: what tells the fit from others of the study, factor -> level, such as `{"width": 64}`.
        seed: what its randomness was seeded by. A fit with the arm and seed of an earlier one takes its place, but for
            one that has crashed that of one that has not; None for the next number that its arm has not had.
        root: the folder of the store; None for the active run, or `mlruns`.
        probe: a batch of inputs, for which what layers give is observed. None for the first examples of the data, if
            they are arrays; else of arrays to validate by, if there are some; else nothing of it is observed.
        diagnostics: `standard`; `off`, for the curves alone; or `full`, with singular values before and after training.
        observe_every: epochs between observations of the weights; the first and the last are always made. What layers
            give, and what takes longer, is observed at a dozen log-spaced epochs of those.
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
        root: str | Path | None = None,
        probe: Any = None,
        diagnostics: str = "standard",
        observe_every: int = 1,
        metric: str | None = None,
    ):
        super().__init__()
        self.study, self.arm, self.seed, self.root = study, dict(arm or {}), seed, root
        self.probe, self.diagnostics, self.observe_every, self.metric = probe, diagnostics, observe_every, metric
        self.arm = {factor: _plain(level) for factor, level in self.arm.items()}
        _check(study, self.arm, seed, diagnostics, observe_every)
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
        self.recording = Recording(self, place, self.params["epochs"])
        # A fit that an exception ends between two steps does not say so.
        self.end = weakref.finalize(self, self.recording.meter.detach)
        try:
            self.recording.meter.attach()
        except BaseException:
            self.end()
            raise

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
            if recording.watch:
                recording.watch.look_at_last()
            self.end()
            self.run_id = recording.write()


class Recording:
    """One call of `model.fit`, as it goes on.

    Args:
        epochs: how many are planned.
    """

    def __init__(self, recorder: WeightRecorder, place: fits.Place, epochs: int):
        self.model, self.place, self.planned = recorder.model, place, epochs
        self.arm, self.seed, self.metric = recorder.arm, recorder.seed, recorder.metric
        self.every, self.full = recorder.observe_every, recorder.diagnostics == "full"
        self.probe: tuple[Any, bool] | None = None  # and whether it was named
        if recorder.diagnostics != "off":
            self.probe = _of_data(self.model) if recorder.probe is None else recorder.probe, recorder.probe is not None
        self.share = _commonest(self.model)
        self.meter = Meter(self.model, self._begin, self._fail)
        self.watch: Watch | None = None
        self.config = _config(self.model, epochs)
        self.epochs: list[EpochRecord] = []
        self.charted: set[int] = set()
        self.logs: dict[str, float] = {}
        self.unrecorded: set[str] = set()
        self.started = self.epoch_started = time.perf_counter()
        self.seconds_build = math.nan

    def begin_epoch(self, epoch: int) -> None:
        """An epoch begins; the first says after how many epochs this fit goes on."""
        if not self.epochs:
            self.charted = charted([*range(epoch, self.planned, self.every), self.planned])
            self.epochs.append(_record(epoch, 0, _rate(self.model), {}, 0.0))
            if self.watch:
                self.watch.take(epoch, keep=True, look=True)
            self.seconds_build = time.perf_counter() - self.started
        self.epoch_started = time.perf_counter()

    def end_epoch(self, epoch: int, logs: dict) -> None:
        """An epoch has been trained and validated."""
        seconds, taken = time.perf_counter() - self.epoch_started, self.meter.take()
        self.logs = self._numbers(logs)
        rate = _rate(self.model) if math.isnan(taken.rate) else taken.rate
        examples = self.epochs[-1].examples + taken.examples
        self.epochs.append(_record(epoch, examples, rate, self.logs, seconds))
        if self.watch:
            due = (epoch - self.epochs[0].epoch) % self.every == 0
            look = epoch in self.charted or self.model.stop_training
            self.watch.take(epoch, taken.squares, keep=due, look=look)

    def _numbers(self, logs: dict) -> dict[str, float]:
        """Those of Keras's logs that are a number each."""
        found = {name: np.asarray(value).item() for name, value in logs.items() if np.size(value) == 1}
        found = {name: float(value) for name, value in found.items() if isinstance(value, int | float)}
        if others := [name for name in logs if name not in found and name not in self.unrecorded]:
            self.unrecorded.update(others)
            print(f"note: {listed(others)}: not recorded, for it is not one number an epoch", file=sys.stderr)
        return found

    def write(self, status: str = "finished", error: str = "") -> str:
        """Keep the trial where it belongs; gives its run's id."""
        layers = self.watch.ended() if self.watch else []
        losses = [value for name, value in self.logs.items() if name in ("loss", "val_loss")]
        if status == "finished" and not all(map(math.isfinite, losses)):
            status = "diverged"
        chance, stable = self._chance(), stability(self.config["optimizer"])
        seen = early_warnings(self.epochs, layers, self._classes(), chance, stable)
        fit = fits.Fit(
            self.arm,
            self.seed,
            self.config,
            self.metric or _metric(self.epochs),
            self.epochs,
            seen.layers,
            self._result(status, error),
            seen.text,
            provenance.tags([], Path.cwd()) | {"mlflow.source.name": shlex.join(["python", *sys.argv])},
        )
        return self.place.write(fit)

    def _classes(self) -> int:
        """The number of classes that the network tells apart, 0 if it does not say."""
        return _classes(self.model, self.watch.shape if self.watch else None)

    def _chance(self) -> float:
        """The accuracy of guessing the commonest class, of classes alike where the labels are not to be had."""
        if not (classes := self._classes()):
            return math.nan
        return 1 / classes if math.isnan(self.share) else self.share

    def _begin(self) -> None:
        """Look at the network as it is before the first step, once it has weights."""
        if self.probe:
            self.watch = Watch(self.model, *self.probe, self.full)
            if self.epochs:  # there were none before
                self.watch.take(self.epochs[0].epoch, keep=True, look=True)

    def _fail(self, error: BaseException) -> None:
        """Keep a fit that an exception has ended, which goes on whatever becomes of that."""
        reason = "".join(traceback.format_exception_only(error)).strip().partition("\n")[0]
        try:
            self.write("crashed", f"{reason}\n{''.join(traceback.format_exception(error))}")
        except StudyError as unwritten:
            print(f"note: what was recorded of the fit is lost: {unwritten}", file=sys.stderr)

    def _result(self, status: str, error: str) -> Result:
        """How it ended."""
        trained, last = self.epochs[1:], vars(self.epochs[-1]) if self.epochs else {}
        ends = {name: last.get(name, math.nan) for name in ("running_loss", "running_accuracy")}
        for name, best in (("val_loss", np.nanmin), ("val_accuracy", np.nanmax)):
            values = [getattr(record, name) for record in trained]
            ends[name] = ends[f"last_{name}"] = last.get(name, math.nan)
            if not all(map(math.isnan, values)):
                ends[f"best_{name}"] = float(best(values))
        others = {name: value for name, value in self.logs.items() if _is_quantity(name, self.arm)}
        now = time.perf_counter()
        return Result(
            "",
            status,
            epochs=self.epochs[-1].epoch if self.epochs else 0,
            **ends,
            parameters=sum(math.prod(v.shape) for v in self.model.weights),
            classes=self._classes(),
            chance_train=self.share if self._classes() else math.nan,
            seconds_build=self.seconds_build,
            seconds_train=now - self.started - self.seconds_build,
            seconds_total=now - self.started,
            memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KILO,
            quantities=others,
            error=error,
        )


def _check(study, arm, seed, diagnostics, every) -> None:
    """Refuse what cannot be kept, before anything trains."""
    if study is not None and not re.fullmatch(r"[A-Za-z0-9][\w .-]{0,99}", str(study)):
        raise StudyError(f"study={study!r}: expected up to 100 letters, digits, spaces or . _ -")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or seed < 0):
        raise StudyError(f"seed={shown(seed)}: expected a whole number from 0 on, or None for the next one")
    if diagnostics not in DIAGNOSTICS:
        raise StudyError(f"diagnostics={shown(diagnostics)}: expected one of {listed(DIAGNOSTICS)}")
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise StudyError(f"observe_every={shown(every)}: expected a number of epochs, 1 or more")
    for factor, level in arm.items():
        if not isinstance(factor, str) or not re.fullmatch(r"[A-Za-z][\w .-]{0,99}", factor) or factor in TRIAL_COLUMNS:
            raise StudyError(
                f"arm names {factor!r}: expected a name of up to 100 letters, digits, spaces or . _ -, and none of "
                f"{listed(TRIAL_COLUMNS)}, which are columns already"
            )
        whole = level if isinstance(level, list) else [level]
        if not all(isinstance(each, SCALAR) and each not in (math.inf, -math.inf) and each == each for each in whole):
            raise StudyError(
                f"arm has {factor}={level!r}: expected a number, a text, true, false, None, or a list of such"
            )


def _of_data(model) -> Any:
    """The first examples that `fit` was given, as the model takes them; None if they are not arrays.

    Keras does not tell callbacks of the data, hence the look into `fit` itself; nothing is drawn from a dataset, whose
    order that would change.
    """
    frame = frame_of_fit(model)
    given = frame.f_locals if frame else {}
    for inputs in (given.get("x"), given.get("val_x")):
        parts = keras.tree.flatten(inputs)
        if parts and all(hasattr(part, "shape") and hasattr(part, "__getitem__") for part in parts):
            return keras.tree.map_structure(lambda part: np.asarray(part[:PROBE]), inputs)
    print("note: what layers give is not recorded: name a batch of inputs with probe=", file=sys.stderr)
    return None


def _commonest(model) -> float:
    """The share of the commonest class among the labels that `fit` was given; NaN if they are not an array of such."""
    if "crossentropy" not in _loss(model):
        return math.nan
    frame = frame_of_fit(model)
    labels = frame.f_locals.get("y") if frame else None
    if not hasattr(labels, "shape") or not hasattr(labels, "__getitem__"):
        return math.nan
    labels = np.asarray(labels)
    if _loss(model).startswith("categorical"):
        labels = labels.argmax(axis=-1)
    counts = np.unique(labels, return_counts=True)[1]
    return float(counts.max() / counts.sum()) if len(counts) else math.nan


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


def _record(epoch: int, examples: int, rate: float, logs: dict[str, float], seconds: float) -> EpochRecord:
    return EpochRecord(
        "",
        epoch,
        examples,
        rate,
        running_loss=logs.get("loss", math.nan),
        running_accuracy=_accuracy(logs, ""),
        val_loss=logs.get("val_loss", math.nan),
        val_accuracy=_accuracy(logs, "val_"),
        seconds=seconds,
    )


def _accuracy(logs: dict[str, float], prefix: str) -> float:
    """The accuracy among Keras's logs, which goes by several names, such as `acc`; NaN if there is none."""
    names = [name for name in logs if name.startswith("val_") == bool(prefix)]
    named = [name for name in (f"{prefix}accuracy", f"{prefix}acc") if name in logs]
    named += [name for name in names if name.endswith("accuracy")]
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


def _loss(model) -> str:
    """The name of a model's loss; empty if it has several."""
    return str(model.loss if isinstance(model.loss, str) else getattr(model.loss, "name", ""))


def _classes(model, shape: tuple[int, ...] | None) -> int:
    """The number of classes that a model tells apart, 0 if it does not say.

    Args:
        shape: of what it gives for a batch, if that is known.
    """
    if "categorical_crossentropy" not in _loss(model):
        return 2 * ("binary_crossentropy" in _loss(model))
    shape = getattr(model, "output_shape", None) or shape if model.built else None
    return shape[-1] if isinstance(shape, tuple) and shape and isinstance(shape[-1], int) else 0
