"""What masks cost a step: epochs of a dense and of a pruned trial in turns, in one process, as a worker runs them.

`python -m benchmarks.pruned SIDES ROUNDS` prints the least CPU milliseconds of a step of each side.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from studies.execute.worker import environment

ROOT = Path(__file__).parent.parent


def step_ms(sides: dict[str, list[str]], rounds: int) -> dict[str, float]:
    """CPU milliseconds of a training step under the overrides of each side, the least of the rounds.

    Args:
        rounds: epochs of each side, which take turns.
    """
    command = [sys.executable, "-m", "benchmarks.pruned", json.dumps(sides), str(rounds)]
    settings = os.environ | environment(threads=1, number=0)
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def _measure(sides: dict[str, list[str]], rounds: int) -> dict[str, float]:
    import hydra

    from studies.command import compose
    from studies.design import grid
    from studies.record import Trial, content_key
    from studies.train.parts import Parts

    turns, least = {}, dict.fromkeys(sides, float("inf"))
    for name, overrides in sides.items():
        with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            config = compose.resolved(hydra.compose("config", overrides=overrides))
        settled, _, graph = compose.settle({part: node for part, node in config.items() if part not in grid.STUDYS})
        parts = Parts(Trial("", "", "", {}, 0, settled, (), content_key(graph)))
        turns[name] = parts, next(parts.courses())
    for _ in range(rounds + 1):
        for name, (parts, course) in turns.items():
            started = time.process_time()  # of one thread: what others do on the machine is left out
            parts.engine.run_epoch(*parts.data, course).loss.numpy()
            least[name] = min(least[name], 1000 * (time.process_time() - started) / parts.steps)
    return least


if __name__ == "__main__":
    print(json.dumps(_measure(json.loads(sys.argv[1]), int(sys.argv[2]))))
