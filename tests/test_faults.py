"""What happens to machines happens here, for real, to processes that the tests have started; then the same command
finishes the study: every trial once, and numbers equal to those of an undisturbed run, to the bit.

What trains here is a stand-in without TensorFlow, which draws a trial's numbers from its key: what is tested is the
driver, the pool and the store. Whole trials are killed in test_run.py.
"""

import ctypes
import fcntl
import os
import pty
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import termios
import threading
import time
from contextlib import closing, contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import load
from studies import run
from studies.command import checks, cost, driver
from studies.contract import STATISTICS
from studies.execute.pool import Pool
from studies.execute.serial import Serial
from studies.execute.task import Task
from studies.factors import data
from studies.record import EpochRecord, LayerRecord, Result, Started, StudyError, Work
from studies.store import database
from tests.conftest import lasting_executors

ROOT = Path(__file__).parent.parent
HERE = "tests.test_faults:"
STUDY = ["+study.factors={initializer:[he_normal,orthogonal]}", "study.name=faulty", "study.seeds=4"]
STUDY += ["training.epochs=2", "model.width=8", "executor.workers=2"]
TRIALS = 8
FAULT = "STUDIES_TEST_FAULT"
"""The environment variable that names a file: what goes wrong in the trial that finds it first, which deletes it."""

KILL = "STUDIES_TEST_KILL"
"""After how many of its doings in the store, such as a file that it opens, a driver kills itself."""

COMMAND = f"""
import os, signal, sys
from studies import run
from studies.command import checks, driver
driver.TRIAL, checks.CHECK = "{HERE}trial", "{HERE}check"
left, root = int(os.environ.pop("{KILL}", 0)), sys.argv[1].partition("=")[2]

def audited(event, arguments):
    global left
    if left and event in ("open", "os.mkdir", "os.rename", "sqlite3.connect") and root in str(arguments[0]):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(audited)
sys.exit(run.main())
"""


def started(store, *words, **settings):
    """The same command as a process."""
    command = [sys.executable, "-c", COMMAND, f"tracking.root={store}", *STUDY, *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, **(pipes | settings))


def check(parts):
    yield from ()


def trial(trial):
    """A trial of a tenth of a second; what a fault leaves half done was half sent."""
    random = np.random.default_rng(int(trial.key, 16))
    numbers = random.random((3, 4))
    for epoch, (rate, loss, accuracy, _) in enumerate(numbers):
        yield EpochRecord(trial.key, epoch, 0, rate, loss, accuracy, loss, accuracy, 0.1)
        statistics = tuple(random.random(len(STATISTICS)))
        yield [LayerRecord(trial.key, epoch, "dense", "kernel", statistics)]
        time.sleep(0.03)
        go_wrong()
    _, loss, accuracy, test = numbers[-1]
    yield Result(trial.key, "finished", 2, val_loss=loss, val_accuracy=accuracy, test_accuracy=test, classes=10)


def go_wrong():
    """As the file says, if there is one."""
    file = Path(os.environ.get(FAULT, ""))
    try:
        fault = file.read_text()
        if not fault.endswith("always"):
            file.unlink()
    except OSError:
        return
    match fault.split():
        case "die", *_:
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang", *_:  # in C, where no exception of Python's reaches it
            libc = ctypes.PyDLL(None)
            libc.sleep(600)
        case "grow", *_:
            resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))
            np.zeros(2**40)
        case "linger", seconds:
            time.sleep(float(seconds))


def numbers(store):
    """Every number that the study gave, in a fixed order; times left out."""
    without = ["seconds", "seconds_build", "seconds_train", "seconds_total", "memory_mb", "folder"]
    read = (load.trials("faulty", store), load.epochs("faulty", store), load.layers("faulty", store))
    return [
        frame.drop(columns=without, errors="ignore")
        .sort_values([c for c in ("key", "epoch", "layer", "tensor") if c in frame])
        .reset_index(drop=True)
        for frame in read
    ]


def assert_whole(store, undisturbed):
    """Every trial finished once, the same numbers, nothing half made: no run that runs, no folder without a run."""
    for ours, theirs in zip(numbers(store), numbers(undisturbed), strict=True):
        assert len(ours)
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    with closing(sqlite3.connect(store / "mlflow.db")) as connection:
        finished = (
            "SELECT value, COUNT(*) FROM tags JOIN runs USING (run_uuid) WHERE key = 'trial.key' AND run_uuid IN "
            "(SELECT run_uuid FROM tags WHERE key = 'trial.status' AND value = 'finished') GROUP BY value"
        )
        counts = dict(connection.execute(finished))
        assert len(counts) == TRIALS and set(counts.values()) == {1}
        assert connection.execute("SELECT COUNT(*) FROM runs WHERE status = 'RUNNING'").fetchone() == (0,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        runs = {run for (run,) in connection.execute("SELECT run_uuid FROM runs")}
    assert {folder.name for folder in (store / "artifacts/faulty").iterdir()} <= runs
    assert not [path for path in store.rglob(".*") if path.suffix == ".new" or path.name.startswith(".models-")]


@pytest.fixture(scope="module")
def executors():
    with lasting_executors() as executors:
        yield executors


@pytest.fixture
def study(cli, monkeypatch, executors):
    """As `cli`, for the study in this process, with workers that live on."""
    monkeypatch.setattr(driver, "TRIAL", HERE + "trial")
    monkeypatch.setattr(checks, "CHECK", HERE + "check")
    monkeypatch.setattr(run, "EXECUTORS", executors)
    return lambda store, *words: cli(*STUDY, f"tracking.root={store}", *words)


@pytest.fixture(scope="module")
def fault(tmp_path_factory):
    """A function from what is to go wrong to the file that says so, which the trial that does deletes."""
    file = tmp_path_factory.mktemp("fault") / "fault"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FAULT, str(file))
        yield lambda what: file.write_text(what) and file


@pytest.fixture
def undisturbed(fault, study, once, fresh):
    """The study's store, not to be changed."""

    def fill(folder):
        store = shutil.copytree(fresh, folder / "store")
        code, _, error = study(store)
        assert code == 0, error

    return once("undisturbed", fill) / "store"


@contextmanager
def disk(place, size):
    """A small disk of its own at a folder."""
    place.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def nap(payload):
    time.sleep(0.2)
    yield payload


def tasks(count):
    return [Task(str(i), f"g{i}", threads=1, payload=i) for i in range(count)]


@pytest.mark.parametrize("kind", [lambda: Pool(workers=2), Serial], ids=["pool", "serial"])
def test_an_executor_that_is_drained_ends_what_runs_and_begins_nothing(kind):
    with closing(kind()) as executor:
        begun, done = [], []
        for task, record in executor.run(HERE + "nap", tasks(6)):
            (begun if isinstance(record, Started) else done).append(task.key)
            if not isinstance(record, Started):
                executor.drain()
        assert sorted(begun) == sorted(done) and 1 <= len(done) <= 3
        assert not list(executor.run(HERE + "nap", tasks(2)))


def test_a_worker_that_is_killed(study, fault, undisturbed, made):
    fault("die")
    code, printed, error = study(made)
    assert code == 0 and f"{TRIALS} to run" in printed, error
    assert_whole(made, undisturbed)


def test_a_trial_that_hangs_in_c_is_ended_and_tried_again(study, fault, undisturbed, made):
    fault("hang")
    code, _, error = study(made, "executor.timeout=1")
    assert code == 0, error
    assert_whole(made, undisturbed)


def test_a_trial_that_hangs_twice_has_crashed_and_says_so(study, fault, undisturbed, made):
    file = fault("hang always")
    code, printed, _ = study(made, "executor.timeout=0.5", "study.seeds=1", "study.factors.initializer=[he_normal]")
    file.unlink()
    said = "its worker died 2 times, the last time killed after executor.timeout=0.5 s; raise it if trials need longer"
    assert code == 1 and re.search(rf"crashed: {said}$", printed, re.M), printed
    code, _, error = study(made, "executor.timeout=20")
    assert code == 0, error
    assert_whole(made, undisturbed)


def test_memory_that_runs_out_says_what_takes_less(study, fault, undisturbed, made):
    fault("grow")
    code, printed, _ = study(made)
    assert code == 1 and re.search(
        r"crashed: _?\w*MemoryError: .* — memory ran out: fewer workers \(executor.workers=N\) or a smaller", printed
    ), printed
    code, printed, error = study(made)
    assert code == 0 and "1 to run" in printed, error
    assert_whole(made, undisturbed)


def test_a_driver_that_is_killed_at_whatever_it_does_in_its_store(study, undisturbed, made):
    """Before files, renames and transactions: as it opens the store, twice as it writes trials, as it ends."""
    killed = 0
    for doings in (9, 49, 58, 67):
        process = started(made, env=os.environ | {KILL: str(doings)})
        _, errors = process.communicate(timeout=60)
        assert process.returncode in (0, -signal.SIGKILL), errors
        killed += process.returncode < 0
    assert killed >= 3
    code, _, error = study(made)
    assert code == 0, error
    assert_whole(made, undisturbed)


def reading(process, pattern):
    """What a process prints until a line has the pattern."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if re.search(pattern, line):
            return lines
    raise AssertionError("".join(lines) + process.stderr.read())


def family(pid):
    """A process and all that it has started."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [pid, *(each for child in children for each in family(child))]


def when_a_trial_runs(file, process):
    deadline = time.monotonic() + 60
    while file.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not file.exists()


def test_what_runs_is_finished_when_a_cluster_asks_all_processes_to_end(study, fault, undisturbed, made):
    """The reader of the output ends with them."""
    file = fault("linger 2")
    process = started(made)
    reading(process, "to run")
    when_a_trial_runs(file, process)
    for each in family(process.pid):
        os.kill(each, signal.SIGTERM)
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(60) == 143
    said = (
        r"interrupted: no other trial is begun, and what runs, ([12]) trials?, is finished first; SIGTERM again stop.*"
    )
    kept = r"interrupted: (\d) of 8 trials are kept; the same command goes on from there"
    found = re.fullmatch(f"{said}\n{kept}\n", errors)
    assert found and 0 < int(found[1]) <= int(found[2]) == len(load.finished_keys("faulty", made)) < TRIALS, errors
    with closing(sqlite3.connect(made / "mlflow.db")) as connection:
        assert connection.execute("SELECT COUNT(*) FROM runs WHERE status = 'RUNNING'").fetchone() == (0,)
    code, _, error = study(made)
    assert code == 0, error
    assert_whole(made, undisturbed)


def test_a_sweep_that_is_interrupted_in_its_first_job_leaves_no_run_that_runs(fault, made):
    file = fault("linger 1")
    process = started(made, "-m", "model.depth=2,3")
    when_a_trial_runs(file, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    with closing(sqlite3.connect(made / "mlflow.db")) as connection:
        statuses = dict(connection.execute("SELECT status, COUNT(*) FROM runs GROUP BY status"))
    assert statuses.keys() == {"FINISHED", "KILLED"} and statuses["KILLED"] == 2  # the sweep's, and the execution's


def test_what_runs_is_finished_when_the_terminal_closes(study, fault, undisturbed, made):
    file, (ours, theirs) = fault("linger 2"), pty.openpty()
    terminals = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    controlled = {"preexec_fn": lambda: fcntl.ioctl(0, termios.TIOCSCTTY), "start_new_session": True}
    process = started(made, **terminals, **controlled)
    os.close(theirs)
    printed = b""
    while b"to run" not in printed:
        printed += os.read(ours, 1000)
    when_a_trial_runs(file, process)
    os.close(ours)
    assert process.wait(60) == 129
    assert 0 < len(load.finished_keys("faulty", made)) < TRIALS
    code, _, error = study(made)
    assert code == 0, error
    assert_whole(made, undisturbed)


@pytest.fixture
def pictures(tmp_path):
    """A folder of 40 images of two classes."""
    pillow = pytest.importorskip("PIL.Image")
    for number in range(40):
        folder = tmp_path / "pictures" / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (8, 8, 3), np.uint8)
        pillow.fromarray(pixels).save(folder / f"{number}.png")
    return ["data=image_folder", f"data.path={tmp_path / 'pictures'}", "data.test_fraction=0.2"]


def test_a_full_or_damaged_cache_costs_time_alone(study, made, tmp_path, pictures, monkeypatch):
    words = [*pictures, "training.batch_size=4", "study.seeds=1"]

    def asked(folder):
        monkeypatch.setenv("STUDIES_CACHE", str(folder))
        data._described.cache_clear()
        code, printed, errors = study(made, *words)
        assert code == 0, errors
        return printed + errors

    with disk(tmp_path / "full", "16k") as full:
        (full / "filler").write_bytes(bytes(12_000))
        assert "No space left on device): what is made once is kept there; make room" in asked(full)
        assert not list(full.glob("*.npz")) and not list(full.glob("*.partial"))
    read_only = tmp_path / "file"
    read_only.write_text("no folder")
    assert "Until then it is made each time, which takes longer" in asked(read_only / "cache")
    assert "Until then" not in asked(tmp_path / "cache")
    [kept] = (tmp_path / "cache").glob("*.npz")
    whole = kept.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:-900] + bytes(900), b""):
        kept.write_bytes(content)
        asked(tmp_path / "cache")
        with np.load(kept) as ours, np.load(BytesIO(whole)) as theirs:
            assert all((ours[name] == theirs[name]).all() for name in theirs.files)


@pytest.mark.parametrize("home", ["read-only", "missing"])
def test_a_home_that_cannot_be_written_costs_time_alone(fault, undisturbed, made, tmp_path, home):
    environment = {n: value for n, value in os.environ.items() if n != "STUDIES_CACHE"} | {"HOME": str(tmp_path / home)}
    with disk(tmp_path / "read-only", "1m"):
        subprocess.run(["mount", "-o", "remount,ro", tmp_path / "read-only"], check=True)
        process = started(made, env=environment)
        _, error = process.communicate(timeout=60)
        assert process.returncode == 0 and "Traceback" not in error, error
    assert_whole(made, undisturbed)


def test_a_note_of_the_cache_that_is_cut_short_is_written_anew(tmp_path, monkeypatch, config, trial_of):
    monkeypatch.setenv("STUDIES_CACHE", str(tmp_path))
    monkeypatch.setattr(cost, "_counted", {})
    node, work = trial_of().config, Work(layers=2, dense=3, convolution=4)
    cost.keep(node, work)
    [note] = tmp_path.glob("work-*.json")
    note.write_text(note.read_text()[:9])
    monkeypatch.setattr(cost, "_counted", {})
    assert cost.known(node) is None and not note.exists()
    cost.keep(node, work)
    monkeypatch.setattr(cost, "_counted", {})
    assert cost.known(node) == work


def test_a_trial_whose_files_are_cut_short_is_trained_again_by_the_same_command(study, undisturbed, made):
    shutil.copytree(undisturbed, made, dirs_exist_ok=True)
    runs = [
        folder for folder in (made / "artifacts/faulty").iterdir() if (folder / "artifacts/layers.parquet").exists()
    ]
    layers, epochs = runs[0] / "artifacts/layers.parquet", runs[1] / "artifacts/epochs.parquet"
    layers.write_bytes(layers.read_bytes()[:1000])
    epochs.write_bytes(b"")  # as after a power cut
    with pytest.raises(StudyError, match=r"(layers|epochs).parquet of run .* is damaged .* the same command trains"):
        load.layers("faulty", made), load.epochs("faulty", made)
    code, printed, error = study(made)
    assert code == 0 and "2 that had finished are trained again, since files of theirs are cut short" in printed, error
    for ours, theirs in zip(numbers(made), numbers(undisturbed), strict=True):
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    assert "0 to run" in study(made)[1]
    design = load.execution("faulty", made).folder / "trials.json"
    design.write_text(design.read_text()[:30])
    with pytest.raises(StudyError, match=r"trials.json of run .* is damaged"):
        load.execution("faulty", made)


@pytest.mark.parametrize(("place", "room"), [(".", 300_000), ("artifacts", 60_000)], ids=["store", "artifacts"])
def test_a_disk_that_fills_up_stops_the_study_and_with_room_made_the_same_command_finishes(
    study, undisturbed, fresh, tmp_path, place, room
):
    store = tmp_path / "store"
    full = store / place
    store.mkdir()
    with disk(full, room + (fresh / "mlflow.db").stat().st_size * (place == ".")):
        shutil.copy(fresh / "mlflow.db", store)
        code, printed, error = study(store)
        assert code == 2 and "there is no room left on the disk" in error and error.count("\n") == 1, error
        assert "the same command goes on" in error and "Traceback" not in printed
        subprocess.run(["mount", "-o", "remount,size=100M", full], check=True)
        code, printed, error = study(store)
        assert code == 0, error
        assert_whole(store, undisturbed)


@contextmanager
def locked(store, file, seconds):
    """Another program that has the database locked, from when a trial lingers, for so long."""

    def hold():
        with closing(sqlite3.connect(store / "mlflow.db", isolation_level=None)) as connection:
            while file.exists():
                time.sleep(0.02)
            connection.execute("BEGIN EXCLUSIVE")
            time.sleep(seconds)
            connection.execute("ROLLBACK")

    thread = threading.Thread(target=hold)
    thread.start()
    yield
    thread.join()


def test_a_locked_database_is_waited_for_and_not_for_ever(study, fault, undisturbed, made, monkeypatch):
    monkeypatch.setattr(database, "LOCKED", 0.5)
    with locked(made, fault("linger 0.3"), seconds=4):
        code, printed, error = study(made, "tracking.patience=1")
        assert code == 2 and "for longer than tracking.patience=1 s: what is finished is kept" in error, error
    with locked(made, fault("linger 0.3"), seconds=2):
        code, printed, error = study(made)
    assert code == 0, error
    assert re.search(r"is away since .* \(database is locked\): the study waits and loses nothing", printed)
    assert re.search(r"is back after \d s: the study goes on", printed)
    assert_whole(made, undisturbed)


def test_the_execution_that_was_begun_last_is_the_latest_though_the_clock_has_stepped_back(study, made, monkeypatch):
    """What is there was written a day ahead of the clock that is right now."""
    assert study(made, "study.seeds=1")[0] == 0
    with closing(sqlite3.connect(made / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE runs SET start_time = start_time + 86400000, end_time = end_time + 86400000")
    assert study(made, "study.seeds=2")[0] == 0
    assert len(load.execution("faulty", made).keys) == 4
    assert study(made, "study.seeds=1")[0] == 0  # all is there: it is asked for
    assert len(load.execution("faulty", made).keys) == 2
    runs = {run.tags["trial.key"]: run.run_id for run in load.ended("faulty", made)}
    assert study(made, "study.seeds=2", "force=true")[0] == 0
    again = {run.tags["trial.key"]: run.run_id for run in load.ended("faulty", made)}
    assert again.keys() == runs.keys() and not set(again.values()) & set(runs.values())
    assert [len(each.keys) for each in load.executions("faulty", made)] == [2, 4, 4]
    with closing(sqlite3.connect(made / "mlflow.db")) as connection:
        assert connection.execute("SELECT COUNT(*) FROM runs WHERE end_time < start_time").fetchone() == (0,)
