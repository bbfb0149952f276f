"""An executor that trains nothing, so that only the driver works: every task gives the records of one real trial."""

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from studies.executors import Task, environment
from studies.record import Started

ROOT = Path(__file__).parent.parent
KEY = "0" * 16
"""Stands in the kept records for the key of a task, which is as long."""

TRAIN = """
import pickle, sys
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from studies import limits, trial
from studies.record import Trial

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


class Replay:
    """Gives each task the records in a file that `keep` wrote."""

    workers = 1

    def __init__(self, records: str):
        self.records = pickle.loads(Path(records).read_bytes())

    def start(self, function: str, count: int, threads: int = 1) -> None:
        """Nothing to start."""

    def run(self, function: str, tasks: list[Task]) -> Iterator[tuple[Task, object]]:
        """The records of every task, read as from a pipe; a check finds nothing."""
        for task in tasks if function == "studies.trial:run" else ():
            yield task, Started(task.key, attempt=1)
            for record in self.records:
                yield task, pickle.loads(record.replace(KEY.encode(), task.key.encode()))

    def close(self) -> None:
        """Nothing to stop."""
