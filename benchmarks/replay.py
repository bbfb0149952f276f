"""Many trials from the records of one real trial: an executor that trains nothing, and stores of any size."""

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from studies import contract
from studies.contract import STATISTICS
from studies.execute.task import Task
from studies.execute.worker import environment
from studies.record import EpochRecord, Result, Started, Study, Trial
from studies.store import database, writer

ROOT = Path(__file__).parent.parent
KEY = "0" * 16
"""Stands in the kept records for the key of a task, which is as long."""

TRAIN = """
import pickle, sys
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from studies.factors import limits
from studies.record import Trial
from studies.train import trial

with initialize_config_dir(sys.argv[1], version_base="1.3"):
    config = OmegaConf.to_container(compose("config", overrides=sys.argv[4:]), resolve=True)
del config["study"]
records = trial.run(Trial(sys.argv[3], "", "", {}, 0, limits.settled(config), (), ""))
with open(sys.argv[2], "wb") as file:
    pickle.dump([pickle.dumps(record) for record in records], file)
"""


def keep(overrides: list[str], file: Path) -> None:
    """Train the trial that overrides compose, and keep its records as they come through a worker's pipe."""
    command = [sys.executable, "-c", TRAIN, str(ROOT / "conf"), str(file), KEY, *overrides]
    settings = os.environ | environment(threads=1, number=0)
    subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=True)


def store(root: Path, file: Path, count: int, copies: int = 0) -> None:
    """Make a store of a study `replayed`, its trials written as a driver does, from the records in a file.

    Args:
        copies: so many times each statistic of each kernel is charted, at three epochs; 0 charts what studies chart.
    """
    root.mkdir()
    database.make(root)
    groups = ("data", "model", "initializer", "optimizer", "schedule", "regularizer", "clipping", "training")
    config: dict = {group: {} for group in groups}
    study = Study("replayed", "How long does it take?", {"model.depth": tuple(range(count))}, (0,), {}, "val_accuracy")
    trials = [Trial(f"{n:016x}", study.name, "scientific", {"model.depth": n}, 0, config, (), "") for n in range(count)]
    kept, charted = pickle.loads(file.read_bytes()), (writer.CHARTED, contract.CHARTED_EPOCHS)
    if copies:
        writer.CHARTED, contract.CHARTED_EPOCHS = {f"copy_{n}": STATISTICS for n in range(copies)}, 3
    try:
        execution = writer.Execution(root, study, trials, "")
        for trial in trials:
            records = [pickle.loads(record.replace(KEY.encode(), trial.key.encode())) for record in kept]
            epochs = [record for record in records if isinstance(record, EpochRecord)]
            layers = [row for record in records if isinstance(record, list) for row in record]
            [result] = [record for record in records if isinstance(record, Result)]
            execution.write(trial, epochs, layers, result)
        execution.close("FINISHED")
    finally:
        writer.CHARTED, contract.CHARTED_EPOCHS = charted


class Replay:
    """Gives each task the records in a file that `keep` wrote."""

    workers = 1

    def __init__(self, records: str):
        self.records = pickle.loads(Path(records).read_bytes())

    def start(self, function: str, count: int, threads: int = 1) -> None:
        """Nothing to start."""

    def run(self, function: str, tasks: list[Task]) -> Iterator[tuple[Task, object]]:
        """The records of every task, read as from a pipe; a check finds nothing."""
        for task in tasks if function == "studies.train.trial:run" else ():
            yield task, Started(task.key, attempt=1)
            for record in self.records:
                yield task, pickle.loads(record.replace(KEY.encode(), task.key.encode()))

    def drain(self) -> None:
        """Nothing takes long."""

    def close(self) -> None:
        """Nothing to stop."""
