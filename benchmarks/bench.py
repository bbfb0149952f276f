"""Our figures and a practitioner's, side by side in one run: `make bench`, or `python -m benchmarks.bench NAME ...`.

The other side is `benchmarks/peer.py`. Prints a table, and writes it with the machine's name and versions to
`benchmarks/results/`. Times on shared machines swing by a factor of two: only ratios within one run mean something.
"""

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import yaml

from analysis import load
from benchmarks import pruned, replay
from studies.execute.worker import environment

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
DEPTHS = (2, 8, 16)
CNN = ["model=cnn", "model.padding=valid", "training.batch_size=128", "optimizer.learning_rate=0.02"]


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    name: str
    ours: str
    other: str
    ratio: str
    must: str
    aim: str


def whole_command(folder: Path) -> list[Figure]:
    """`init_comparison` from nothing, against the peer's time for 6 of its trials, scaled to 120; and memory.

    The second study is the same question at seeds of its own, in the same store, with what XLA kept of the first; its
    time is against the same figure of the peer's. The first is run again at the end, in a store and with a cache of its
    own, since the machine's speed drifts: the peer's time is set against the mean of the two.
    """
    study = ["-m", "studies.run", "+study=init_comparison"]
    firsts, memory = [], []
    for turn in range(2):
        store, settings = folder / f"whole_{turn}", {"STUDIES_CACHE": str(folder / f"cache_{turn}")}
        seconds, driver_mb = timed([*study, f"tracking.root={store}"], settings)
        firsts.append(seconds)
        memory.append(driver_mb)
        if turn == 0:
            second, _ = timed([*study, "study.seeds=[5,6,7,8,9]", f"tracking.root={store}"], settings)
            sweep = peer(folder, ["initializer=zeros,he_normal", f"depth={','.join(map(str, DEPTHS))}", "epochs=20"])
    trials = load.trials("init_comparison", store)
    assert len(trials) == 120, f"{len(trials)} of 120 trials"
    first = np.mean(firsts)
    trials_seconds = sum(sweep.trial_seconds)
    peer_seconds = sweep.seconds - trials_seconds + trials_seconds * 120 / len(sweep.trial_seconds)
    rerun, _ = timed([*study, f"tracking.root={store}"], settings)
    name = "init_comparison, 120 trials: seconds"
    return [
        compared(name, first, peer_seconds, peer_seconds / first, "30×", "40×"),
        compared(f"{name}, second study", second, peer_seconds, peer_seconds / second, "35×", "40×"),
        Figure("driver's memory after 120 trials", f"{max(memory):.0f} MB", "", "", "350 MB", ""),
        Figure("a worker's memory, shared too", f"{trials['memory_mb'].max():.0f} MB", "", "", "1300 MB", ""),
        Figure("rerun of the finished study", f"{rerun:.1f} s", "", "", "4 s", "2 s"),
    ]


def steady_rate(folder: Path) -> list[Figure]:
    """Trials a minute once compiled, digits MLP 2×64, 30 epochs; the first fifth of the trials is left out."""
    store, count = folder / "steady", 100
    timed(["-m", "studies.run", f"study.seeds={count}", "training.epochs=30", f"tracking.root={store}"])
    ends = np.sort([run.end_time for run in load.ended("single", store)]) / 1000
    skip = count // 5
    ours = 60 * (len(ends) - 1 - skip) / (ends[-1] - ends[skip])
    other = 60 / np.mean(peer(folder, ["epochs=30", "seed=0,1,2,3,4,5"]).trial_seconds[1:])
    return [compared("steady trials a minute, digits MLP 2×64, 30 epochs", ours, other, ours / other, "20×", "40×")]


def convolutions(folder: Path) -> list[Figure]:
    """CNN on MNIST: examples a second of all workers against one Keras `fit`, and the share of the machine's peak.

    The seconds are an epoch's with its validation and without its diagnostics, on both sides; medians, since the first
    epoch traces. The sides and the peak take turns, since the machine's speed drifts.
    """
    workers, epochs = len(os.sched_getaffinity(0)), 4
    settings = [*CNN, "data=mnist", f"training.epochs={epochs}", f"study.seeds={workers}"]
    fit = ["data=mnist", "model=cnn", "batch_size=128", f"epochs={epochs}"]
    ours, other, peaks = [], [], []
    for turn in range(2):
        store = folder / f"cnn_{turn}"
        peaks.append(matrix_peak())
        timed(["-m", "studies.run", *settings, f"tracking.root={store}"])
        frame = load.epochs("single", store)
        examples = frame["examples"].max() / epochs
        ours.append(workers * examples / frame.loc[frame["epoch"] > 0, "seconds"].median())
        other.append(examples / peer(folder, fit).epoch_seconds[0])
    ours, other, peak = np.mean(ours), np.mean(other), np.mean(peaks)

    from studies.factors import models, targets  # after the measurements: TensorFlow takes memory

    node = yaml.safe_load((ROOT / "conf/model/cnn.yaml").read_text()) | {"padding": "valid"}
    work = models.work(targets.build(node, "model", [], input_shape=(28, 28, 1), classes=10))
    first_layer = 24 * 24 * node["kernel_size"] ** 2 * node["filters"][0]
    flops = 2 * (3 * (work.dense + work.convolution) - first_layer)  # the first layer has no gradient to its input
    share = 100 * ours * flops / peak
    return [
        compared("CNN on MNIST: examples a second, all workers", ours, other, ours / other, "2×", "2.7×"),
        Figure("the same: share of the matrix peak", f"{share:.0f} %", f"{peak / 1e9:.0f} GFLOP/s", "", "45 %", "60 %"),
    ]


def diagnostics_share(folder: Path) -> list[Figure]:
    """What diagnostics add to a trial's training, in CPU seconds, tiers taking turns in one process; the least of each.

    And what they add to the digits MLP against what a Keras callback takes that computes the same with NumPy.
    """
    sides = {tier: [f"diagnostics={tier}"] for tier in ("off", "standard", "full")}
    cnn = ["data=mnist", "model=cnn", "data.train_size=6000"]
    figures = []
    for name, overrides, repeats, limit in (("digits MLP", [], 20, "15 %"), ("MNIST CNN, 6,000 images", cnn, 2, "5 %")):
        seconds = training_seconds(["training.epochs=20", *overrides], sides, repeats, least=True)
        for tier, must in (("standard", limit), ("full", "30 %")):
            more, off = 100 * (seconds[tier] / seconds["off"] - 1), 1000 * seconds["off"]
            title = f"diagnostics={tier} adds to 20 epochs, {name}"
            figures.append(Figure(title, f"{more:.1f} %", f"{off:.0f} ms", "", must, ""))
    command = [sys.executable, "-m", "benchmarks.diagnostics", "10"]
    settings = os.environ | environment(threads=1, number=0)
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=True)
    ours, theirs = (1000 * value for value in json.loads(done.stdout).values())
    return [
        *figures,
        compared("diagnostics of the digits MLP, ms against a callback's", ours, theirs, theirs / ours, "5×", ""),
    ]


def callback_share(folder: Path) -> list[Figure]:
    """What the callback adds to Keras's own `fit`, in percent of it: see `benchmarks.fits`."""
    command, settings = [sys.executable, "-m", "benchmarks.fits", "5"], os.environ | environment(threads=1, number=0)
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=True)
    figures = []
    for name, seconds in json.loads(done.stdout.splitlines()[-1]).items():
        ours, other = seconds["with"], seconds["without"]
        share = f"{100 * (ours / other - 1):.1f} %"
        label = f"the callback in Keras's fit, {name.replace('_', ' ')}: CPU seconds"
        figures.append(Figure(label, f"{ours:.2f}", f"{other:.2f}", share, "10 %", ""))
    return figures


def cluster_share(folder: Path) -> list[Figure]:
    """What Ray takes for 200 digits trials against the pool, start-up apart: see `benchmarks.cluster`."""
    command = [sys.executable, "-m", "benchmarks.cluster"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    sides = json.loads(done.stdout.splitlines()[-1])
    figures = []
    for kind, name in (("seconds", "seconds"), ("cpu", "CPU seconds")):
        ours, other = sides["ray"][kind], sides["pool"][kind]
        label = f"200 digits trials by Ray, against the pool: {name}"
        figures.append(Figure(label, f"{ours:.1f}", f"{other:.1f}", f"{ours / other:.2f}×", "1.15×", ""))
    return figures


def factor_steps(folder: Path) -> list[Figure]:
    """Milliseconds of a training step under each factor, digits MLP 2×64, against the plain step."""
    options = [
        f"{group}={path.stem}"
        for group in ("optimizer", "schedule", "regularizer", "clipping")
        for path in sorted((ROOT / "conf" / group).glob("*.yaml"))
    ]
    options += ["optimizer.sam=0.05", "optimizer.lookahead=5", "optimizer.ema=0.99", "model.dropout=0.2"]
    options += [f"model.normalization={name}" for name in ("batch", "layer", "group", "rms", "weight")]
    options += ["data.flip=true", "data.crop=1", "data.cutout=2", "data.standardize=true"]
    options += ["optimizer=momentum schedule=one_cycle schedule.low_momentum=0.8"]
    sides = {"plain": ["optimizer=sgd"]} | {option: ["optimizer=sgd", *option.split()] for option in options}
    seconds = training_seconds(["diagnostics=none"], sides, repeats=5)
    steps = 20 * (1150 // 32)
    step = {name: 1000 * s / steps for name, s in seconds.items()}
    plain = step.pop("plain")
    return [
        Figure(f"ms a step, {name}", f"{ms:.3f}", f"{plain:.3f}", f"{ms / plain:.2f}×", "", "")
        for name, ms in step.items()
    ]


def pruned_steps(folder: Path) -> list[Figure]:
    """A step with masks against a dense one, in turns in one process, CPU time: under XLA, but for the CNN."""
    lenet = ["model=lenet_300_100", "training.batch_size=64", "data=mnist", "data.train_size=4000"]
    nets = {
        "digits MLP 2×64": [],
        "LeNet-300-100 on MNIST": lenet,
        "MNIST CNN": [*CNN, "data=mnist", "data.train_size=2000", "engine.xla=false"],
    }
    figures = []
    for name, words in nets.items():
        for optimizer in ("momentum", "adam"):
            plain = [*words, f"optimizer={optimizer}"]
            words_of = {"dense": plain, "pruned": [*plain, "pruning=snip"]}
            ms = pruned.step_ms(words_of, 6 if "CNN" in name else 20)
            ratio = f"{ms['pruned'] / ms['dense']:.2f}×"
            label = f"CPU ms of a pruned step, {name}, {optimizer}"
            figures.append(Figure(label, f"{ms['pruned']:.3f}", f"{ms['dense']:.3f}", ratio, "1.15×", ""))
    return figures


def answers(folder: Path) -> list[Figure]:
    """Commands that answer without TensorFlow."""
    store = f"tracking.root={folder / 'answers'}"
    commands = {
        "--help": ["--help"],
        "a config error": ["+study=init_comparison", "model.depth=-1", store],
        "plan=true, init_comparison": ["+study=init_comparison", "plan=true", store],
    }
    return [
        Figure(name, f"{min(timed(['-m', 'studies.run', *words])[0] for _ in range(3)):.1f} s", "", "", "4 s", "2 s")
        for name, words in commands.items()
    ]


def driver_overhead(folder: Path) -> list[Figure]:
    """Planning a large design, and the driver's own CPU time a trial: `everything`, with a store but without training.

    A study of one trial is taken off, for what a study costs at all.
    """
    big = ["+study=everything", "study.seeds=20", "plan=true"]
    seconds, megabytes = timed(["-m", "studies.run", *big])
    figures = [
        Figure("planning 10,000 trials: seconds", f"{seconds:.1f} s", "", "", "5 s", ""),
        Figure("the same: memory", f"{megabytes:.0f} MB", "", "", "300 MB", ""),
    ]
    records = folder / "records.pickle"
    replay.keep(["+study=everything"], records)
    plain = [
        f"{group}={option}" for group, option in (("initializer", "lsuv"), ("optimizer", "sgd"), ("regularizer", "l2"))
    ]
    designs = {1: [*plain, "schedule=step"], 100: ["schedule=step"], 500: [], 2000: ["study.seeds=4"]}
    used = {count: driver_seconds(folder / f"driver_{count}", records, words) for count, words in designs.items()}
    for count in list(designs)[1:]:
        each = 1000 * (used[count] - used[1]) / (count - 1)
        figures.append(Figure(f"driver's CPU ms a trial, of {count:,}", f"{each:.1f}", "", "", "30", ""))
    return figures


def loading(folder: Path) -> list[Figure]:
    """The frames of 1,000 trials of 500 MLflow metrics and of 10,000 of 32, that of the trials against MLflow's own.

    Each in a fresh process, the import of pandas in its seconds.
    """
    records = folder / "records.pickle"
    replay.keep(["model.depth=3", "training.epochs=30"], records)
    ours = """
import time
started = time.perf_counter()
from analysis import load
frames = [read("replayed", {root!r}) for read in ({reads})]
assert list(map(len, frames)) == [{count}, 31 * {count}, 31 * 8 * {count}][: len(frames)]
"""
    other = """
import time
started = time.perf_counter()
import mlflow
mlflow.set_tracking_uri("sqlite:///{root}/mlflow.db")
assert len(mlflow.search_runs(experiment_names=["replayed"])) == {count} + 1
"""
    figures = []
    for count, copies, seconds_allowed, megabytes_allowed in ((1000, 5, "2 s", "500 MB"), (10_000, 0, "20 s", "")):
        root = folder / f"replayed_{count}"
        replay.store(root, records, count, copies)
        (its, its_mb), (mine, mine_mb), (whole, whole_mb) = (
            measured(code.format(root=str(root), count=count, reads=reads))
            for code, reads in (
                (other, ""),
                (ours, "load.trials,"),
                (ours, "load.trials, load.epochs, load.layers"),
            )
        )
        name = f"analysis.load, {count:,} trials"
        figures += [
            compared(f"{name}, their frame: seconds", mine, its, its / mine, "", ""),
            Figure(f"{name}, their frame: memory", f"{mine_mb:.0f} MB", f"{its_mb:.0f} MB", "", "", ""),
            Figure(f"{name}, all three frames: seconds", f"{whole:.1f}", "", "", seconds_allowed, ""),
            Figure(f"{name}, all three frames: memory", f"{whole_mb:.0f} MB", "", "", megabytes_allowed, ""),
        ]
    return figures


BENCHES = {
    f.__name__: f
    for f in (
        answers,
        driver_overhead,
        steady_rate,
        whole_command,
        convolutions,
        diagnostics_share,
        callback_share,
        cluster_share,
        factor_steps,
        pruned_steps,
        loading,
    )
}


def compared(name, ours, other, ratio, must, aim) -> Figure:
    """A figure that has another side."""
    return Figure(name, f"{ours:.1f}", f"{other:.1f}", f"{ratio:.1f}×", must, aim)


def driver_seconds(store: Path, records: Path, words: list[str]) -> float:
    """CPU seconds that the driver of `everything` takes itself, when every trial is a kept one."""
    code = """
import resource, sys
from studies import run
assert run.main() == 0
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, file=sys.stderr)
"""
    executor = ["executor=serial", "executor._target_=benchmarks.replay.Replay", f"+executor.records={records}"]
    words = ["+study=everything", *words, *executor, "targets.allow=[benchmarks.]", f"tracking.root={store}"]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return float(done.stderr.split()[-1])


def measured(code: str) -> tuple[float, float]:
    """Seconds since `started`, and peak MB, of Python code in a process of its own."""
    code += """
import resource
print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
    settings = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=True)
    seconds, megabytes = map(float, done.stdout.split())
    return seconds, megabytes


def timed(words: list[str], settings: dict[str, str] | None = None) -> tuple[float, float]:
    """Wall seconds of a Python command, and its own peak memory in MB, its workers' left out.

    Args:
        settings: environment variables.
    """
    started, quiet = time.perf_counter(), subprocess.DEVNULL
    command, variables = [sys.executable, *words], os.environ | (settings or {})
    process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=quiet, stderr=quiet)
    peak = 0.0

    def watch():
        nonlocal peak
        while process.poll() is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
                peak = max(peak, int(re.search(r"VmHWM:\s+(\d+)", status).group(1)) / 1024)
            except (OSError, AttributeError):
                return  # it has just ended
            time.sleep(0.1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    process.wait()
    seconds = time.perf_counter() - started
    watcher.join()
    return seconds, peak


@dataclass(frozen=True)
class Peer:
    """Wall seconds of a sweep, and of each of its trials and their median epochs."""

    seconds: float
    trial_seconds: list[float]
    epoch_seconds: list[float]


def peer(folder: Path, grid: list[str]) -> Peer:
    """Run a sweep of the peer's."""
    with tempfile.TemporaryDirectory(dir=folder) as store:
        started = time.perf_counter()
        command = [sys.executable, str(ROOT / "benchmarks" / "peer.py"), "-m", f"store={store}", *grid]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        trials = re.findall(r"([\d.]+) s/epoch, ([\d.]+) s$", done.stdout, re.M)
        return Peer(time.perf_counter() - started, [float(t) for _, t in trials], [float(e) for e, _ in trials])


def matrix_peak() -> float:
    """Single-precision operations a second of a 2048³ product on all cores, the best of 20."""
    code = """
import time, tensorflow as tf
a = tf.random.normal((2048, 2048)); times = []
for _ in range(20):
    started = time.perf_counter(); tf.linalg.matmul(a, a).numpy(); times.append(time.perf_counter() - started)
print(2 * 2048**3 / min(times))
"""
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def training_seconds(
    overrides: list[str], sides: dict[str, list[str]], repeats: int, least: bool = False
) -> dict[str, float]:
    """Median, or least, CPU seconds of a trial's training under each side's overrides, taking turns in one process.

    In one thread: what else the machine does matters less than it does for seconds.
    """
    code = """
import json, statistics, sys, time
from dataclasses import replace
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from studies.factors import limits
from studies.record import Trial
from studies.train import parts, trial

def made(overrides):
    config = OmegaConf.to_container(compose("config", overrides=overrides), resolve=True)
    del config["study"]
    return Trial("", "", "", {}, 0, limits.settled(config), (), str(overrides))

with initialize_config_dir(sys.argv[1], version_base="1.3"):
    sides = {name: made(overrides) for name, overrides in json.loads(sys.argv[2]).items()}
seconds = {name: [] for name in sides}
parts.ENGINES_KEPT = len(sides)
for repeat in range(int(sys.argv[3]) + 1):
    for name, each in sides.items():
        records = trial.run(replace(each, seed=repeat))
        next(records)  # built, and looked at once
        began = time.process_time()
        list(records)
        if repeat:
            seconds[name].append(time.process_time() - began)
print(json.dumps({name: (min if sys.argv[4] else statistics.median)(s) for name, s in seconds.items()}))
"""
    words = {name: [*overrides, *more] for name, more in sides.items()}
    command = [sys.executable, "-c", code, str(ROOT / "conf"), json.dumps(words), str(repeats), "least" * least]
    settings = os.environ | environment(threads=1, number=0)
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main(names: list[str]) -> int:
    """Run the named measurements, or all."""
    unknown = set(names) - BENCHES.keys()
    if unknown:
        print(f"error: {', '.join(sorted(unknown))}: expected some of {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    if not (Path(os.environ.setdefault("STUDIES_DATA", "data")) / "mnist.npz").exists():
        print(
            "error: the benchmarks need MNIST: name the folder of mnist.npz with STUDIES_DATA=FOLDER", file=sys.stderr
        )
        return 2
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names or BENCHES:
            try:
                figures += BENCHES[name](Path(folder))
            except subprocess.CalledProcessError as error:
                print(f"{name} failed: {error.stderr}", file=sys.stderr)
                figures.append(Figure(name, "failed", "", "", "", ""))
            print(f"measured {name}", file=sys.stderr, flush=True)
    rows = [("figure", "ours", "other", "ratio", "must", "aim"), *(tuple(asdict(f).values()) for f in figures)]
    widths = [max(len(row[i]) for row in rows) for i in range(6)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    RESULTS.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    record = {
        "machine": f"{platform.node()} {platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("tensorflow", "keras", "mlflow", "numpy", "hydra-core")},
        "time": now.isoformat(timespec="seconds"),
        "figures": [asdict(figure) for figure in figures],
    }
    path = RESULTS / f"{now:%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    print(f"\n{path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
