"""A study of 3,000 tiny trials whose workers, and twice the driver, are killed: `python -m benchmarks.soak`.

Every trial must finish once, memory must not grow from trial 500 on, and the store must be whole. The oldest worker is
spared, so that one is seen to grow old. Exits with 1 if anything is not as it should be.
"""

import argparse
import os
import random
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from analysis import load
from studies.record import listed

ROOT = Path(__file__).parent.parent
NAME = "soak"
ARMS = {"model.width": tuple(range(4, 24)), "model.depth": (1, 2, 3)}
"""Each is a graph of its own, of which workers keep the last few: so many that one that is let go must be gone."""

WARM, WINDOW = 1 / 6, 1 / 12
"""Shares of the trials: memory is compared from the first on, as it is in the first window of the second's length and
in the last."""

GROWTH = 0.10
"""By how much memory may have grown: its share."""

KILLS_EVERY, RESTARTS = 150, 2
RECOVERY = 10.0
"""Seconds that the driver may take from its restart to the first new trial."""

PERIOD = 1.0
TRIES = 3
FINISHED = "SELECT COUNT(*) FROM tags WHERE key = 'trial.status' AND value = 'finished'"
ENDED = "SELECT COUNT(DISTINCT value) FROM tags WHERE key = 'trial.key'"
EXECUTIONS = "SELECT COUNT(*) FROM tags WHERE key = 'trial.role' AND value = 'execution'"
KEYS = """
SELECT value FROM tags JOIN runs USING (run_uuid) WHERE key = 'trial.key' AND lifecycle_stage = 'active'
AND run_uuid IN (SELECT run_uuid FROM tags WHERE key = 'trial.status' AND value = 'finished')
"""


@dataclass(frozen=True)
class Sample:
    """Memory at a moment, in MB.

    Attributes:
        ended: trials until then.
        driver, worker: what the driver and its oldest worker have resident, what the worker shares with others too.
        started: when that worker was, in clock ticks since boot.
    """

    ended: int
    driver: float
    worker: float
    started: int


def main() -> int:
    """Run the soak; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=3000, help="how many, rounded to whole arms (default 3000)")
    parser.add_argument("--seed", type=int, default=0, help="of who is killed when (default 0)")
    parser.add_argument("--keep", type=Path, help="a folder for the store, which is kept; else it is deleted")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="soak-"))
    try:
        return Soak(folder, options.trials, random.Random(options.seed)).run()  # noqa: S311
    finally:
        folder.with_name(f"{folder.name}.log").unlink(missing_ok=True)
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


class Soak:
    """One run of it.

    Args:
        root: the store's folder.
        trials: about how many.
        chance: who is killed when.
    """

    def __init__(self, root: Path, trials: int, chance: random.Random):
        arms = 1
        for levels in ARMS.values():
            arms *= len(levels)
        self.root, self.chance, self.seeds = root, chance, max(1, round(trials / arms))
        self.total, self.log = arms * self.seeds, root.with_name(f"{root.name}.log")
        self.samples: list[Sample] = []
        self.killed, self.seen, self.recovered = 0, 0, list[float]()
        self.wrong: list[str] = []

    def run(self) -> int:
        """Run it and print its figures; gives the exit code."""
        began = time.monotonic()
        restarts = sorted(self.chance.sample(range(self.total // 30, self.total // 15), RESTARTS))
        for until in restarts:
            self._drive(until)
        code = 1
        for _ in range(TRIES):
            if code:  # a trial may have met two kills, and then has crashed: the same command tries it again
                code = self._drive(self.total + 1)
        if code:
            self.wrong.append(f"the study ended with {code}: {self.log.read_text()[-1000:]}")
        else:
            self._judge_store()
            self._judge_memory()
        minutes, back = (time.monotonic() - began) / 60, ", ".join(f"{seconds:.1f} s" for seconds in self.recovered)
        print(f"{self.total} trials in {minutes:.1f} min, {self.killed} workers killed, and the driver at", end=" ")
        print(f"{listed(restarts)} finished trials; from its restart to the first new trial: {back}")
        for line in self.wrong:
            print(f"wrong: {line}")
        return int(bool(self.wrong))

    def _drive(self, until: int) -> int:
        """Run the command, and kill its workers; the driver, when so many trials have finished. Gives its exit code."""
        factors = ",".join(f"{name}:[{','.join(map(str, levels))}]" for name, levels in ARMS.items())
        words = [f"+study.factors={{{factors}}}", f"study.name={NAME}", f"study.seeds={self.seeds}"]
        words += ["training.epochs=1", "data.train_size=200", "executor.workers=2", f"tracking.root={self.root}"]
        began, first, before = time.monotonic(), self.finished(), self._executions()
        with open(self.log, "w") as log:
            driver = subprocess.Popen([sys.executable, "-m", "studies.run", *words], cwd=ROOT, stdout=log, stderr=log)
        due, trains = first + self._wait(), first == 0
        while driver.poll() is None:
            time.sleep(PERIOD if trains else 0.1)
            if not trains and self._executions() > before:  # it gives out its first trial then
                trains = True
                self.recovered.append(time.monotonic() - began)
            finished = self.finished()
            self._sample(driver.pid)
            if finished >= until:
                self._kill(driver)
            elif finished >= due:
                due = finished + self._wait()
                self._kill_worker(driver.pid)
        return driver.returncode

    def _wait(self) -> int:
        return self.chance.randint(KILLS_EVERY // 2, KILLS_EVERY * 3 // 2)

    def finished(self) -> int:
        """How many trials have finished, as far as was seen: what a killed driver began, the next one takes back."""
        self.seen = max(self.seen, self._counted(FINISHED))
        return self.seen

    def _executions(self) -> int:
        return self._counted(EXECUTIONS)

    def _counted(self, query: str) -> int:
        with (
            suppress(sqlite3.Error),
            closing(sqlite3.connect(f"file:{self.root}/mlflow.db?mode=ro", uri=True)) as opened,
        ):
            return opened.execute(query).fetchone()[0]
        return 0

    def _sample(self, pid: int) -> None:
        with suppress(OSError, ValueError, IndexError):  # one that has just died
            oldest = min(_workers(pid), key=_since)
            self.samples.append(Sample(self._counted(ENDED), _memory(pid), _memory(oldest), _since(oldest)))

    def _kill(self, driver: subprocess.Popen) -> None:
        """The driver; its processes must go with it."""
        family = [driver.pid, *_descendants(driver.pid)]
        driver.kill()
        driver.wait()
        deadline = time.monotonic() + 10
        while left := [pid for pid in family if Path(f"/proc/{pid}").exists()]:
            if time.monotonic() > deadline:
                self.wrong.append(f"{len(left)} processes outlived their driver by 10 s")
                return
            time.sleep(0.05)

    def _kill_worker(self, pid: int) -> None:
        """Any but the oldest."""
        with suppress(OSError, IndexError):
            others = sorted(_workers(pid), key=_since)[1:]
            os.kill(self.chance.choice(others), signal.SIGKILL)
            self.killed += 1

    def _judge_store(self) -> None:
        """See that every trial finished once, and that nothing is half made."""
        with closing(sqlite3.connect(self.root / "mlflow.db")) as opened:
            if (found := opened.execute("PRAGMA integrity_check").fetchone()[0]) != "ok":
                self.wrong.append(f"mlflow.db: {found}")
            if running := opened.execute("SELECT COUNT(*) FROM runs WHERE status = 'RUNNING'").fetchone()[0]:
                self.wrong.append(f"{running} runs are RUNNING")
            counts = Counter(key for (key,) in opened.execute(KEYS))
            runs = {run for (run,) in opened.execute("SELECT run_uuid FROM runs")}
        if len(counts) != self.total or set(counts.values()) != {1}:
            self.wrong.append(
                f"{len(counts)} of {self.total} trials finished, {counts.total() - len(counts)} more than once"
            )
        if orphans := {folder.name for folder in (self.root / "artifacts" / NAME).iterdir()} - runs:
            self.wrong.append(f"{len(orphans)} folders are of no run")
        frame = load.epochs(NAME, self.root)
        if set(frame["key"].value_counts()) != {2} or frame["key"].nunique() != self.total:
            self.wrong.append("the epochs of some trial are not whole")

    def _judge_memory(self) -> None:
        """See that memory is as it was when the caches were full."""
        first, width = int(self.total * WARM), int(self.total * WINDOW)
        for name in ("driver", "worker"):
            of = self.samples
            if name == "worker":  # one worker's life: what it does while it warms up is no growth
                oldest = statistics.mode(sample.started for sample in of) if of else 0
                of = [sample for sample in of if sample.started == oldest]
            early = [getattr(s, name) for s in of if first <= s.ended < first + width]
            late = [getattr(s, name) for s in of if self.total - width <= s.ended < self.total]
            if not (early and late):
                self.wrong.append(f"there are not enough samples of the {name}'s memory")
                continue
            before, after = statistics.median(early), statistics.median(late)
            grown = f"{after / before - 1:+.1%}"
            print(f"{name}: {before:.0f} MB at trial {first}, {after:.0f} MB at trial {self.total}: {grown}")
            if after > before * (1 + GROWTH):
                self.wrong.append(f"the {name}'s memory has grown by more than {GROWTH:.0%}")
        most = max((sample.driver for sample in self.samples if sample.ended == self.total), default=0)
        print(f"driver: {most:.0f} MB at most as it reads all trials and draws the report")
        if [seconds for seconds in self.recovered if seconds > RECOVERY]:
            self.wrong.append(f"a restart took longer than {RECOVERY:.0f} s")


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _descendants(pid: int) -> list[int]:
    return [each for child in _children(pid) for each in (child, *_descendants(child))]


def _workers(pid: int) -> list[int]:
    """A driver's workers: the children of its child."""
    return [worker for server in _children(pid) for worker in _children(server)]


def _since(pid: int) -> int:
    """When a process was started, in clock ticks since boot."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def _memory(pid: int) -> float:
    """What of a process is in memory, MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    sys.exit(main())
