"""A trial's checkpoints: what is known of it so far, and how it goes on from one in another process.

All that is drawn from, added up or remembered between epochs is in it; what follows from the config is made anew.
A schedule's `feedback` is told again what it heard, so it need not know how to be kept; it must hang on nothing else.
"""

import time
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from studies import processor
from studies.record import RESULTS_VERSION, Checkpoint, EpochRecord, LayerRecord, Note, Trial
from studies.train.observations import Observations
from studies.train.packed import pack, unpack
from studies.train.parts import Parts
from studies.train.stopping import EarlyStopping

FORMAT = 1
"""Goes up when what is in a checkpoint changes: one of another is not gone on from."""

SECONDS = ("seconds_build", "seconds_train", "seconds_total")


class Journal:
    """What is known of a trial so far.

    Args:
        trial: it may have a checkpoint.
        parts, observations, stopping: its own, at their start.

    Attributes:
        history: the records of its epochs, that of the untrained network first.
        seconds: what it took before its checkpoint, by the fields of `Result`.
    """

    def __init__(self, trial: Trial, parts: Parts, observations: Observations, stopping: EarlyStopping):
        self.trial, self.parts, self.observations, self.stopping = trial, parts, observations, stopping
        self.history: list[EpochRecord] = []
        self.seconds = dict.fromkeys(SECONDS, 0.0)
        self.last, self.said = time.monotonic(), False

    def add(self, record: EpochRecord) -> EpochRecord:
        """Put down an epoch; gives it back."""
        self.history.append(record)
        return record

    def go_on(self) -> Iterator[Note | EpochRecord | list[LayerRecord]]:
        """Go on from the trial's checkpoint; gives the records of before it.

        Where it cannot be gone on from a note says why, and all is as it was.
        """
        if not self.trial.checkpoint:
            return
        try:
            state = unpack(self.trial.checkpoint)
            why = self._unlike(state)
        except ValueError as error:
            why = str(error)
        except (KeyError, TypeError):
            why = "it has not what a checkpoint has"
        if why:
            yield Note(self.trial.key, f"starts from its beginning, since its checkpoint is of no use: {why}")
            return
        self._restore(state)
        yield Note(self.trial.key, f"goes on after epoch {self.history[-1].epoch}")
        yield from self.history
        yield list(self.observations.given)

    def checkpoint(self, seconds: dict[str, float]) -> Iterator[Checkpoint | Note]:
        """A checkpoint, if one is due after the last epoch of the history.

        Args:
            seconds: what the trial has taken so far, by the fields of `Result`.
        """
        epochs, minutes = self.trial.checkpoint_every
        epoch, now = self.history[-1].epoch, time.monotonic()
        if not (epochs and epoch % epochs == 0) and not (minutes and now - self.last >= 60 * minutes):
            return
        if unseen := self.parts.engine.unseen:
            if not self.said:
                names = ", ".join(sorted(v.name for v in unseen))
                yield Note(self.trial.key, f"has no checkpoints: its steps use what Keras does not know of, {names}")
            self.said = True
            return
        head = {"format": FORMAT, "key": self.trial.key, "circumstances": circumstances()}
        yield Checkpoint(self.trial.key, epoch, pack(head | {"seconds": seconds} | self.state()))
        self.last = time.monotonic()

    def state(self) -> dict[str, Any]:
        """All that is known, and all that is remembered for what comes."""
        return {
            "history": [vars(record) for record in self.history],
            "parts": self.parts.state(),
            "observations": self.observations.state(),
            "stopping": self.stopping.state(),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.history = [EpochRecord(**fields) for fields in state["history"]]
        self.seconds = state["seconds"]
        self.observations.restore(state["observations"])
        self.stopping.restore(state["stopping"])
        self.parts.restore(state["parts"])

    def _unlike(self, state: dict[str, Any]) -> str:
        """Why a checkpoint is not one that this trial can go on from here; empty if it is."""
        if state["format"] != FORMAT:
            return f"it is of format {state['format']}, not {FORMAT}"
        if state["key"] != self.trial.key:
            return f"it is of another trial, {state['key']}"
        now = circumstances()
        if there := [f"{name} {was}" for name, was in state["circumstances"].items() if now.get(name) != was]:
            return f"it was made with {', '.join(there)}, and numbers of both are not to be mixed"
        if _shapes(state["parts"]["engine"]) != _shapes(self.parts.engine.state()):
            return "its weights are not those of this network"
        return ""


def circumstances() -> dict[str, str | int]:
    """What may change a trial's last bits where it runs, besides its config."""
    devices = tf.config.list_physical_devices("GPU")
    models = [str(tf.config.experimental.get_device_details(each).get("device_name", "")) for each in devices]
    return {
        "results version": RESULTS_VERSION,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "processor": processor.kind(),
        "gpu": ", ".join(models),
    }


def _shapes(values: list) -> list[tuple]:
    return [(np.shape(value), np.asarray(value).dtype) for value in values]
