"""Ray beside the pool on one machine: the seconds that the same trials take, start-up and compiling apart.

    python -m benchmarks.cluster [TRIALS]

Prints JSON: of each the seconds, and the CPU seconds of all processes, which other work on the machine changes less; in
turns of a quarter of the trials, since the machine's speed drifts.
"""

import json
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from studies.execute.pool import Pool
from studies.execute.ray import Ray
from studies.execute.task import Task
from studies.factors import limits
from studies.record import Result, Trial

CONF = Path(__file__).parent.parent / "conf"
TRIAL = "studies.train.trial:run"


def tasks(config: dict, seeds: range) -> list[Task]:
    """A trial of the defaults, digits by a dense network, at each seed."""
    trials = [Trial(f"{seed:016x}", "s", "scientific", {}, seed, config, (), "graph") for seed in seeds]
    return [Task(trial.key, trial.graph_key, 1, trial) for trial in trials]


def used() -> float:
    """CPU seconds of this process and all below it."""
    own = psutil.Process()
    times = [each.cpu_times() for each in (own, *own.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def seconds(executor, some: list[Task]) -> np.ndarray:
    """How long they take, and how much of the processor; all have to finish."""
    began, before = time.perf_counter(), used()
    ended = [record.status for _, record in executor.run(TRIAL, some) if isinstance(record, Result)]
    assert ended == ["finished"] * len(some), ended
    return np.array([time.perf_counter() - began, used() - before])


def main(count: int) -> None:
    """Measure so many trials on each side."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = OmegaConf.to_container(compose("config"), resolve=True)
    del config["study"]
    config, turn, took = limits.settled(config), count // 4, {"pool": np.zeros(2), "ray": np.zeros(2)}
    with closing(Pool()) as pool, closing(Ray()) as ray:
        sides = {"pool": pool, "ray": ray}
        for executor in sides.values():
            seconds(executor, tasks(config, range(8 * executor.workers)))
        for start in range(0, 4 * turn, turn):
            for name in sides if start % (2 * turn) else reversed(sides):
                took[name] += seconds(sides[name], tasks(config, range(start, start + turn)))
    print(json.dumps({name: dict(zip(("seconds", "cpu"), each.tolist(), strict=True)) for name, each in took.items()}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 200)
