"""The jobs of one command: what they share, in whatever processes they run, and how each of them ended.

A launcher may run jobs in other processes, which have the environment of the first and nothing else of it: so the
environment names a folder, and the jobs meet there.
"""

import json
import math
import os
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from studies import terminal

FOLDER = "STUDIES_SWEEP"
"""The environment variable with the folder; conf/config.yaml has Hydra write there too."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        overrides: the job's own.
        swept: whether it is of a multirun.
        code: its exit code.
        root: the store's folder; study, root and metric are empty if it did not get that far.
        seeds: with a value; mean, sd: of the study's metric over them, NaN if nothing finished.
        failures: trials that did not finish.
        objective: what a sweeper optimizes: the mean of the `tuning_metric`, infinitely bad if nothing finished.
        trials: what identifies its trials, all of them.
        quote, verdict: of its study's claim, empty if it has none, or has not got that far.
        error: why it ended without one, in a paragraph.
        trained: whether it was not judged before.
    """

    overrides: list[str]
    swept: bool
    code: int = 0
    study: str = ""
    root: str = ""
    metric: str = ""
    seeds: int = 0
    failures: int = 0
    mean: float = math.nan
    sd: float = math.nan
    objective: float = math.nan
    trials: str = ""
    quote: str = ""
    verdict: str = ""
    error: str = ""
    trained: bool = True


@dataclass(frozen=True)
class Sweep:
    """The jobs of one command.

    Attributes:
        folder: where they meet; its name is theirs alone.
        command: its words.
        wants_traceback: whether the user asked for one.
    """

    folder: Path
    command: list[str]
    wants_traceback: bool

    @property
    def id(self) -> str:
        """What the jobs' runs in the store are tagged with."""
        return self.folder.name

    @property
    def name(self) -> str:
        """The command's overrides."""
        return " ".join(word for word in self.command if word not in ("-m", "--multirun"))

    def tell(self, number: int, outcome: Outcome) -> None:
        """Say how a job ended."""
        with suppress(FileNotFoundError):  # the command was interrupted, and nobody listens any more
            (self.folder / f"{number}.json").write_text(json.dumps(asdict(outcome)))

    def outcomes(self) -> list[Outcome]:
        """How the jobs that have ended did, in their order."""
        files = sorted(self.folder.glob("[0-9]*.json"), key=lambda path: int(path.stem))
        return [Outcome(**json.loads(path.read_text())) for path in files]


@contextmanager
def begun(command: list[str], wants_traceback: bool) -> Iterator[Sweep]:
    """The sweep of a command, known to every process that starts meanwhile."""
    with ExitStack() as stack:
        with terminal.held():
            prefix = f"studies-{uuid.uuid4().hex}-"
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True))
        (Path(folder) / "command.json").write_text(json.dumps([command, wants_traceback]))
        os.environ[FOLDER] = folder
        try:
            yield current()
        finally:
            del os.environ[FOLDER]


def words() -> list[str]:
    """Those of the command that this process works for."""
    return current().command if FOLDER in os.environ else sys.argv[1:]


def current() -> Sweep:
    """The sweep that this process works for."""
    folder = Path(os.environ[FOLDER])
    return Sweep(folder, *json.loads((folder / "command.json").read_text()))
