"""What checkpoints cost a trial: epochs of one with and of one without in turns, in one process, as a worker runs them.

`python -m benchmarks.checkpoints ROUNDS [OVERRIDE ...]` prints as JSON the CPU seconds of an epoch without, the ratio
of those with a checkpoint after each, the seconds of a checkpoint with all that executor and driver do with it, its
share of an epoch and of the ten minutes that are the default, and its bytes. Without overrides it is a network for
CIFAR-10.
"""

import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

from studies.execute.worker import environment

ROOT = Path(__file__).parent.parent
CIFAR10 = ("data=cifar10", "model=cnn", "data.standardize=true")
MINUTES = 10


def cost(rounds: int, overrides: list[str]) -> dict:
    """Seconds, bytes and shares, medians of the rounds.

    Args:
        rounds: epochs of each side, which take turns.
    """
    command = [sys.executable, "-m", "benchmarks.checkpoints", str(rounds), *overrides]
    settings = os.environ | environment(threads=1, number=0) | {"STUDIES_MEASURE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def _measure(rounds: int, overrides: list[str]) -> dict:
    import hydra

    from studies.command import compose
    from studies.command.checkpoints import Checkpoints
    from studies.design import grid
    from studies.record import Checkpoint, EpochRecord, Trial, content_key
    from studies.train import trial

    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose.resolved(hydra.compose("config", overrides=[*overrides, f"training.epochs={rounds + 3}"]))
    settled, _, graph = compose.settle({part: node for part, node in config.items() if part not in grid.STUDYS})
    plain = Trial("k", "", "", {}, 0, settled, (), content_key(graph))
    seconds, alone, size = {True: [], False: []}, [], 0
    with tempfile.TemporaryDirectory() as folder:
        kept = Checkpoints(folder, "s")
        sides = {  # one after the other has the engine that they share: each needs its own
            False: trial.run(plain),
            True: trial.run(replace(plain, graph_key="other", checkpoint_every=(1, None))),
        }
        for _ in range(rounds + 1):  # the first has the untrained network and tracing in it
            for often, records in sides.items():
                began = started = time.process_time()  # of one thread: what others do on the machine is left out
                for record in records:
                    if isinstance(record, Checkpoint):
                        kept.keep(pickle.loads(pickle.dumps(record)))
                        size = len(record.content)
                        alone.append(time.process_time() - began)
                        break
                    if isinstance(record, EpochRecord) and record.epoch and not often:
                        break
                    began = time.process_time()
                seconds[often].append(time.process_time() - started)
    epoch, one = median(seconds[False][1:]), median(alone)
    return {
        "epoch_seconds": epoch,
        "ratio": median(w / o for w, o in zip(seconds[True][1:], seconds[False][1:], strict=True)),
        "checkpoint_seconds": one,
        "share_every_epoch": one / epoch,
        f"share_every_{MINUTES}_minutes": one / (60 * MINUTES),
        "bytes": size,
    }


if __name__ == "__main__":
    number, *words = sys.argv[1:] or ["3"]
    found = (_measure if os.environ.get("STUDIES_MEASURE") else cost)(int(number), words or list(CIFAR10))
    print(json.dumps(found))
