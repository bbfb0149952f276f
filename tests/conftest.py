"""What the tests share. TensorFlow is imported by the `tf` fixture alone, so a test without it does not pay for it."""

import functools
import gc
import io
import os
import pickle
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager, redirect_stdout
from copy import deepcopy
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.pop("COLUMNS", None)  # which processes of pytest-xdist have: tables would be cut to fit

import hydra
import pytest
import yaml
from filelock import FileLock
from hypothesis import settings
from omegaconf import OmegaConf

from studies import run, terminal
from studies.command import compose
from studies.design import grid
from studies.execute import pool
from studies.record import Study
from studies.store import database

ROOT = Path(__file__).parent.parent
CONF = ROOT / "conf"

LONGEST = (
    ("test_quickstart", "test_ray", "test_run", "test_saving", "test_claim_run", "test_load"),
    ("test_notebooks", "test_recipes", "test_shared_store", "test_footprint", "test_search", "test_replay"),
    ("test_browser", "test_explore", "test_data", "test_faults", "test_checkpoints", "test_compiled", "test_callback"),
)
"""The modules that each process begins with, so that none waits long for the others at the end: those with the longest
tests, and those that start what all their tests share, which a process that takes over half of them would start again.
"""

settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("repeatable")

gc.disable()  # until all is imported: collections of garbage take a fifth of that, and a tenth of the tests


MEMORY, ROOM = Path("/dev/shm"), 8 * 2**30
"""A folder in memory, and the bytes that must be free there for these tests' stores: on a disk thousands of their
transactions wait for it.
"""


def pytest_configure():
    if MEMORY.is_dir() and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC and shutil.disk_usage(MEMORY).free > ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Of as many processes each starts at its part of the tests, and then takes from the others' ends."""
    if getattr(config, "workerinput", {}).get("workercount") != len(LONGEST):
        return
    first = [[item for name in names for item in items if item.path.stem == name] for names in LONGEST]
    rest = [item for item in items if item.path.stem not in sum(LONGEST, ())]
    left, ordered = len(items), []
    for place, own in enumerate(first):
        share = left // (len(first) - place)  # as pytest-xdist deals them out
        between = max(0, share - len(own))
        ordered += [*own, *rest[:between]]
        rest, left = rest[between:], left - share
    items[:] = [*ordered, *rest]


def pytest_collection_finish():
    """From here on collections are of what the tests make."""
    gc.freeze()
    gc.enable()


@contextmanager
def signals_as_before():
    """Undo what a command that ran here made of its signals, and heed what a shell's background ignores."""
    before = {number: signal.getsignal(number) for number in terminal.ENDINGS}
    for number, handler in before.items():
        if handler is signal.SIG_IGN:
            before[number] = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, before[number])
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session", autouse=True)
def parsed_once():
    """Each text of a config file is parsed once, which takes PyYAML a third of the time that Hydra composes in."""
    parse, kept = yaml.load, {}

    def load(stream, Loader):
        if Loader.__name__ != "OmegaConfLoader" or not hasattr(stream, "seek"):
            return parse(stream, Loader)
        text = stream.read()
        if text not in kept:
            stream.seek(0)
            kept[text] = pickle.dumps(parse(stream, Loader))
        return pickle.loads(kept[text])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yaml, "load", load)
        yield


@pytest.fixture(autouse=True)
def signals():
    with signals_as_before():
        yield


@pytest.fixture(scope="session")
def tf():
    """TensorFlow as a worker has it: one thread. Collections of garbage are spared its objects, as there."""
    gc.disable()
    import tensorflow

    gc.freeze()
    gc.enable()
    tensorflow.config.threading.set_intra_op_parallelism_threads(1)
    tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    return tensorflow


@pytest.fixture(scope="session")
def config():
    """A function from Hydra overrides to the resolved config."""

    @functools.cache
    def composed(overrides):
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            return OmegaConf.to_container(hydra.compose("config", list(overrides)), resolve=True)

    return lambda overrides=(): deepcopy(composed(tuple(overrides)))


def exit_code(patch, *arguments):
    """Of `python -m studies.run`, run in this process."""
    # Hydra sets up logging and so closes the stream of every handler: with TensorFlow here, one of them is pytest's.
    patch.setattr("logging.shutdown", lambda handlers: None)
    # Most commands here end before a worker is needed, or have workers: what is begun ahead would import for nothing.
    patch.setattr(run.driver, "foresee", lambda words: None)
    # Each worker compiles each graph, and two processes of tests have the two cores already.
    patch.setattr(pool, "default_workers", lambda threads: 1)
    patch.setenv("HYDRA_FULL_ERROR", "0")
    patch.setattr(sys, "argv", ["studies.run", *arguments])
    patch.setattr(sys, "path", [*sys.path])
    try:
        return run.main()
    except SystemExit as ended:
        return ended.code


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    """A function from arguments to what `python -m studies.run` answers: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: (exit_code(monkeypatch, *arguments), *capsys.readouterr())


class Lasting(dict):
    """Executors by their configs, which a command closes only where it ends while a task runs."""

    def __init__(self):
        self.ends = []

    def __setitem__(self, config, executor):
        def close():
            if any(worker.tasks for worker in getattr(executor, "crew", ())):
                end()

        end, executor.close = executor.close, close
        self.ends.append(end)
        super().__setitem__(config, executor)

    def clear(self):
        pass


@contextmanager
def lasting_executors():
    executors = Lasting()
    yield executors
    for end in executors.ends:
        end()


@pytest.fixture(scope="session")
def lasting():
    with lasting_executors() as executors:
        yield executors


@pytest.fixture(scope="session")
def trained(lasting, together):
    """A function from arguments to what `python -m studies.run` prints, for what tests share."""

    def made(*arguments):
        printed = io.StringIO()
        with signals_as_before(), pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
            patch.chdir(together)
            patch.setattr(run, "EXECUTORS", lasting)
            assert exit_code(patch, *arguments) == 0, printed.getvalue()
        return printed.getvalue()

    return made


@pytest.fixture
def planned(cli, lasting, monkeypatch):
    """As `cli`, for plans: their workers, which build each model that nobody has built yet, live on."""
    monkeypatch.setattr(run, "EXECUTORS", lasting)
    return lambda *arguments: cli("plan=true", *arguments)


@pytest.fixture
def here(cli, lasting, monkeypatch):
    """As `cli`, for studies: their workers, which have imported what they need, live on."""
    monkeypatch.setattr(run, "EXECUTORS", lasting)
    return cli


@pytest.fixture
def own(cli, monkeypatch):
    """As `here`, for what workers must have from their start: they live on until the test ends."""
    with lasting_executors() as executors:
        monkeypatch.setattr(run, "EXECUTORS", executors)
        yield cli


@pytest.fixture(scope="session")
def trial_of(config):
    """A function from Hydra overrides and a seed to the one trial of that study."""

    def made(overrides=(), seed=0):
        study = Study("test", "Does it work?", {}, (seed,), {}, "val_accuracy")
        [trial] = grid.expand(study, config(overrides), {}, list(overrides), config, compose.settle, exact=False)
        return trial

    return made


@pytest.fixture(scope="session")
def together(request, tmp_path_factory):
    """The folder that all processes of these tests share: what one has made there the others find."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if hasattr(request.config, "workerinput") else folder


@pytest.fixture(scope="session")
def once(together):
    """A function from a name and what fills a folder to that folder, filled once: to be read or copied, not written."""

    def made(name, fill):
        folder, done = together / name, together / f"{name}.done"
        with FileLock(together / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of one that failed
                folder.mkdir()
                fill(folder)
                done.touch()
        return folder

    return made


SMALL = {
    "init_comparison": (
        "study.factors={initializer: [zeros, normal_small, normal_large, random_uniform, glorot_uniform, he_normal], "
        "model.depth: [2, 8]}",
        "study.seeds=2",
        "training.epochs=3",
    ),
    "optimizer_comparison": (
        "study.factors={optimizer: [sgd, momentum, adam]}",
        "study.settings=[]",
        "study.seeds=3",
        "training.epochs=4",
    ),
    "schedule_comparison": (
        "study.factors={optimizer.learning_rate: [0.03, 0.2], schedule: [constant, cosine, exponential, one_cycle]}",
        "study.seeds=2",
        "training.epochs=3",
    ),
    "signal_propagation": (
        "study.factors={compute.activation: [relu], compute.depth: [4], compute.initializer: [normal, he_normal]}",
        "study.seeds=2",
    ),
}
"""The studies that notebooks and recipes are about with the levels that they name, fewer seeds and epochs."""


@pytest.fixture(scope="session")
def shipped(once, fresh, trained):
    """A store that has some of the studies that ship, small ones: to be copied, not written."""

    def fill(folder):
        shutil.copy(fresh / "mlflow.db", folder)
        for study, overrides in SMALL.items():
            trained(f"+study={study}", *overrides, f"tracking.root={folder}")

    return once("shipped", fill)


@pytest.fixture(scope="session")
def fresh(once):
    """The folder of a fresh database."""

    return once("fresh", database.make)


@pytest.fixture
def made(fresh, tmp_path):
    """A folder with a database that nothing was written to yet, which takes MLflow seconds to make."""
    return shutil.copytree(fresh, tmp_path / "made")


@pytest.fixture(scope="session", autouse=True)
def cache(together):
    """The cache of decoded images and compiled graphs, empty at first."""
    folder = together / "cache"
    folder.mkdir(mode=0o700, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDIES_CACHE", str(folder))
        yield folder


def root_of(file):
    """The folder with `file`, if there is one."""
    for folder in (os.environ.get("STUDIES_DATA"), CONF.parent.parent / "shared" / "datasets"):
        if folder and (Path(folder) / file).is_file():
            return Path(folder)
    pytest.skip(f"there is no {file} in STUDIES_DATA or ../shared/datasets")


@pytest.fixture(scope="session")
def mnist_root():
    """The folder with mnist.npz."""
    return root_of("mnist.npz")


@pytest.fixture(scope="session")
def cifar10_root():
    """The folder with cifar10.tar.xz."""
    return root_of("cifar10.tar.xz")


@pytest.fixture(scope="session")
def golden_root():
    """The folder with reference data, beside that of the datasets."""
    data = os.environ.get("STUDIES_DATA")
    for folder in (data and Path(data).parent / "golden", CONF.parent.parent / "shared" / "golden"):
        if folder and folder.is_dir():
            return folder
    pytest.skip("there is no ../golden beside STUDIES_DATA, and no ../shared/golden")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the files that git has or would take, with this environment in place of a new one."""
    folder = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.split("\n"):
        if name and (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    if (ROOT / ".mypy_cache").exists():  # it knows files by their content
        shutil.copytree(ROOT / ".mypy_cache", folder / ".mypy_cache")
    os.utime(folder / "requirements.lock", (0, 0))  # else make would make the environment anew, through the link
    return folder
