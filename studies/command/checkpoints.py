"""The newest checkpoints of a study's trials, in a folder of this machine until the trials have ended."""

import glob
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from studies import address
from studies.record import Checkpoint, Trial

FOLDER = ".checkpoints"


class Checkpoints:
    """Those of one study.

    Args:
        root: the store; of an address they are in its folder on this machine.
        study: its name.
        every: how often a trial has one, by the settings of the config's `checkpoints`; nothing: never.
    """

    def __init__(self, root: str | Path, study: str, every: dict | None = None):
        self.folder, self.study = address.folder(root) / FOLDER, study
        self.every = (every or {}).get("epochs"), (every or {}).get("minutes")

    def given(self, trial: Trial) -> Trial:
        """A trial as a worker gets it now: with its newest checkpoint, if there is one."""
        try:
            content = self._file(trial.key).read_bytes()
        except OSError:
            content = b""
        return replace(trial, checkpoint_every=self.every, checkpoint=content)

    def keep(self, record: Checkpoint) -> str:
        """Keep a checkpoint in place of the one before, whole or not at all; gives why it could not be, if so."""
        file = self._file(record.key)
        new = file.with_suffix(".new")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            new.write_bytes(record.content)
            new.replace(file)
        except OSError as error:  # no room, say: what is written besides is worth more
            with suppress(OSError):
                new.unlink()
            return f"its checkpoint could not be kept in {self.folder}: {error.strerror or error}"
        return ""

    def drop(self, keys: Iterable[str]) -> None:
        """Remove those of trials that need none any more."""
        gone = {self._file(key).stem for key in keys}
        with suppress(OSError):
            for file in self.folder.glob(f"{glob.escape(self.study)}-*"):
                if file.stem in gone:
                    file.unlink(missing_ok=True)

    def count(self, keys: Iterable[str]) -> int:
        """How many of some trials have one."""
        return sum(self._file(key).is_file() for key in keys)

    def _file(self, key: str) -> Path:
        return self.folder / f"{self.study}-{key}.checkpoint"
