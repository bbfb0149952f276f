"""One trial: drives the engine through its epochs and gives records. Runs in a worker; imports TensorFlow."""

import gc
import math
import resource
import sys
import time
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

from studies.record import Checkpoint, EpochRecord, LayerRecord, Note, Result, Trial
from studies.train.checkpoints import Journal
from studies.train.engine import Course, Epoch
from studies.train.observations import Observations
from studies.train.parts import Parts
from studies.train.stopping import EarlyStopping

Record: TypeAlias = EpochRecord | list[LayerRecord] | Checkpoint | Note | Result

gc.freeze()  # a full collection that walks through all that TensorFlow's import made takes as long as a short trial


def run(trial: Trial, parts: Parts | None = None) -> Iterator[Record]:
    """Train one trial and give its records as they come, layers' ones many at a time, its result last.

    Args:
        trial: goes on from its checkpoint, if it has one: the records of before come again.
        parts: the trial's, at their start, for who wants its network when it has ended; None makes them.
    """
    started = time.perf_counter()
    training, parts = trial.config["training"], parts or Parts(trial)
    observations, stopping = Observations(trial, parts), EarlyStopping(training["early_stopping"], parts.settled)
    journal = Journal(trial, parts, observations, stopping)
    if trial.model:  # so that what cannot be saved is known before it is trained
        parts.save(trial.model, tried=True)
    yield from journal.go_on()
    if not journal.history:
        yield journal.add(_untrained(trial, parts, observations))
        yield from observations.take(0, ended=False)
    built = time.perf_counter()

    def times() -> dict[str, float]:
        now, before = time.perf_counter(), journal.seconds
        spent = {"seconds_build": built - started, "seconds_train": now - built, "seconds_total": now - started}
        return {name: before[name] + seconds for name, seconds in spent.items()}

    status, first = "finished", len(journal.history)
    for epoch, course in enumerate(parts.courses(first - 1), start=first):
        began = time.perf_counter()
        done = parts.after(epoch, parts.engine.run_epoch(*parts.data, course))
        observed = ["train"] if epoch in observations.charted or epoch == parts.epochs else []
        found = scores(parts, "val", *observed, average=True)
        seconds = time.perf_counter() - began
        parts.hear(found["val_loss"])
        stopping.hear(found["val_loss"], parts.engine)
        if not math.isfinite(float(done.loss) + found["val_loss"]):
            status = "diverged"
        over = epoch == parts.epochs or stopping.due
        if status == "finished" and not over and times()["seconds_total"] > (training["timeout"] or math.inf):
            status = "timeout"
        ended = status != "finished" or over
        if ended and not observed:
            found |= scores(parts, "train")
        found |= observations.hear(done.ratios) | observations.look(epoch, ended) | parts.left
        yield journal.add(_trained(trial, parts, epoch, course, done, seconds, found))
        yield from observations.take(epoch, ended, done.weights, done.squares)
        if ended:
            break
        yield from journal.checkpoint(times())

    spent: dict[str, Any] = times()
    ends = _ends(parts, status, journal.history[1:], stopping) | observations.extremes
    spent["seconds_total"] = times()["seconds_total"]
    if trial.model and status == "finished":
        parts.save(trial.model)
    yield Result(trial.key, status, **ends, **spent, memory_mb=_memory())


def _untrained(trial: Trial, parts: Parts, observations: Observations) -> EpochRecord:
    observed = ["train"] if observations.some else []
    found = scores(parts, "val", *observed) | observations.look(0, ended=False) | parts.left
    return EpochRecord(trial.key, 0, 0, float(parts.rates[0]), math.nan, math.nan, seconds=0.0, **found)


def _trained(
    trial: Trial, parts: Parts, epoch: int, course: Course, done: Epoch, seconds: float, found: dict[str, float]
) -> EpochRecord:
    return EpochRecord(
        trial.key,
        epoch,
        epoch * parts.steps * parts.batch,
        float(course.rates[-1]),
        float(done.loss),
        float(done.accuracy),
        seconds=seconds,
        clipped=float(done.clipped) if parts.rules.clip else math.nan,
        **found,
    )


def _memory() -> float:
    """The peak of this process's memory, in MB of 2^20 bytes."""
    unit = 2**20 if sys.platform == "darwin" else 2**10  # which macOS counts bytes in, Linux kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def scores(parts: Parts, *names: str, average: bool = False) -> dict[str, float]:
    """Loss and accuracy of the network as it is on parts of the data, by their columns: `val_loss`, `val_accuracy`.

    Args:
        names: of `train`, `val` and `test`.
        average: of the weights' average too, if the optimizer keeps one, but for `train`.
    """
    found = {}
    for prefix, wanted in {"": names, "ema_": [name for name in names if name != "train"]}.items():
        if prefix and not (average and parts.engine.averages):
            continue
        for name, (loss, accuracy) in zip(wanted, parts.evaluate(*wanted, average=bool(prefix)), strict=True):
            found |= {f"{prefix}{name}_loss": loss, f"{prefix}{name}_accuracy": accuracy}
    return found


def by_class(parts: Parts, *names: str) -> dict[str, Any]:
    """What of a `Result` needs the classes told apart, of the network as it is.

    A class counts if it is among a set's labels or what they are taken for; a recall needs an example of it.

    Args:
        names: of `val` and `test`.
    """
    found: dict[str, Any] = {"confusions": {}, "class_names": parts.examples.dataset.names}
    for name in names:
        counts = parts.confusion(name)
        right, of_class, taken = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
        there, seen = of_class > 0, of_class + taken > 0
        found[f"{name}_macro_f1"] = float(np.mean(2 * right[seen] / (of_class + taken)[seen]))
        found[f"{name}_balanced_accuracy"] = float(np.mean(right[there] / of_class[there]))
        pairs = np.argwhere(counts)
        found["confusions"][name] = [(*pair.tolist(), int(counts[tuple(pair)])) for pair in pairs]
    return found


def _ends(parts: Parts, status: str, history: list[EpochRecord], stopping: EarlyStopping) -> dict:
    """What a trial comes to, by the fields of `Result`: scores are of the weights that it ends with."""
    last = vars(history[-1])
    ends = {name: last[name] for name in ("running_loss", "running_accuracy", "train_loss", "train_accuracy")}
    ends |= {name: last[name] for name in ("val_loss", "val_accuracy", "ema_val_loss", "ema_val_accuracy")}
    if status != "diverged" and stopping.go_back(parts.engine):
        ends |= scores(parts, "val", "train", average=True)
    if status == "finished":
        ends |= scores(parts, "test", average=True)
    sets = {"finished": ["val", "test"], "timeout": ["val"]}
    ends |= by_class(parts, *sets.get(status, ()))
    settled = [record for record in history if record.epoch >= parts.settled] or history[-1:]
    return ends | {
        **parts.left,
        "epochs": history[-1].epoch,
        "last_val_loss": history[-1].val_loss,
        "last_val_accuracy": history[-1].val_accuracy,
        "best_val_loss": min(record.val_loss for record in settled),
        "best_val_accuracy": max(record.val_accuracy for record in settled),
        "parameters": sum(math.prod(v.shape) for v in parts.engine.model.weights),
        "classes": parts.examples.dataset.classes,
        "chance_train": parts.examples.chance("train"),
        "chance_val": parts.examples.chance("val"),
        "chance_test": parts.examples.chance("test"),
    }
