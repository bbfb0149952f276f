"""Whole studies through the command line: real processes, a real store, real kills."""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import pandas as pd
import pytest

from analysis import load
from studies import terminal

ROOT = Path(__file__).parent.parent
STUDY = [
    "+study.factors={initializer:[he_normal,orthogonal],model.depth:[1,3]}",
    "study.name=small",
    "study.seeds=4",
    "training.epochs=9",  # long enough for XLA
    "model.dropout=0.2",
    "model.width=16",
]
TRIALS = 16
NOT_NUMBERS = ["seconds", "seconds_build", "seconds_train", "seconds_total", "memory_mb", "folder"]


def command(store, *words):
    return [sys.executable, "-m", "studies.run", *STUDY, f"tracking.root={store}", *words]


def frames(store):
    """Every number that a study gave, in a fixed order; times left out."""
    read = (load.trials("small", store), load.epochs("small", store), load.layers("small", store))
    return [
        frame.drop(columns=NOT_NUMBERS, errors="ignore")
        .sort_values([c for c in ("key", "epoch", "layer", "tensor") if c in frame])
        .reset_index(drop=True)
        for frame in read
    ]


def assert_same_to_the_bit(store, other, seeds=(0, 1, 2, 3)):
    """Of the trials at some seeds."""
    for ours, theirs in zip(frames(store), frames(other), strict=True):
        trials = load.trials("small", other)
        theirs = theirs[theirs["key"].isin(trials.loc[trials["seed"].isin(seeds), "key"])].reset_index(drop=True)
        assert len(ours)
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True)


def assert_each_trial_once(store, but="nothing"):
    """Leaving out runs with that status: of a trial that crashed and was run again."""
    with closing(sqlite3.connect(store / "mlflow.db")) as connection:
        query = "SELECT value, COUNT(*) FROM tags JOIN runs USING (run_uuid) WHERE key = 'trial.key' "
        query += "AND lifecycle_stage = 'active' AND run_uuid NOT IN (SELECT run_uuid FROM tags WHERE key = "
        counts = dict(connection.execute(query + "'trial.status' AND value = ?) GROUP BY value", (but,)))
    assert len(counts) == TRIALS and set(counts.values()) == {1}


@pytest.fixture(scope="session")
def pooled(once, fresh, trained):
    """The study's store, not to be changed, and what the command printed."""

    def fill(folder):
        store = shutil.copytree(fresh, folder / "store")
        (folder / "printed").write_text(trained(*STUDY, f"tracking.root={store}"))

    folder = once("pooled", fill)
    return folder / "store", (folder / "printed").read_text()


def processes_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ended(store):
    try:
        return len(load.finished_keys("small", store))
    except sqlite3.Error:
        return 0


def when_some_have_ended(store, driver, count):
    deadline = time.monotonic() + 120
    while ended(store) < count and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert driver.poll() is None, driver.communicate()[1]


def test_a_study_says_what_it_did(pooled):
    store, printed = pooled
    assert f"{TRIALS} trials, 0 finished before, {TRIALS} to run" in printed
    assert f"[{TRIALS}/{TRIALS}]" in printed and "0 failed, 0 skipped" in printed
    table = [line for line in printed.splitlines() if re.match(r"(he_normal|orthogonal) +[13] ", line)]
    assert len(table) == 4
    assert re.search(rf"^results +{store}$", printed, re.M)
    assert re.search(rf"^browse +\S+ -m analysis.ui --root {store}$", printed, re.M)


def test_every_trial_is_stored_whole(pooled):
    store, _ = pooled
    trials, epochs, layers = frames(store)
    assert set(trials["status"]) == {"finished"} and len(trials) == TRIALS
    assert (epochs.groupby("key").size() == 10).all()
    kernels = layers[layers["tensor"] == "kernel"]
    assert (kernels.groupby("key")["epoch"].nunique() == 10).all()
    assert trials["test_accuracy"].between(0.3, 1).all()
    assert_each_trial_once(store)


def test_the_finished_study_is_not_run_again(here, pooled):
    store, printed = pooled
    before = (store / "mlflow.db").read_bytes()
    code, output, _ = here(*STUDY, f"tracking.root={store}")
    assert code == 0
    assert f"{TRIALS} finished before, 0 to run" in output
    assert (store / "mlflow.db").read_bytes() == before
    table = printed[printed.index("\ninitializer") : printed.index("results")]
    assert table in output


def test_a_finished_study_that_is_asked_for_otherwise_has_an_execution_and_a_report_of_its_own(here, pooled, tmp_path):
    store = shutil.copytree(pooled[0], tmp_path / "store")

    def asked(*words):
        _, output, _ = here(*STUDY, f"tracking.root={store}", *words)
        assert "0 to run" in output
        return Path(re.search(r"^report +(\S+/report.html)$", output, re.M)[1])

    some = asked("study.seeds=[1]", "model.depth=1", "study.metric=test_accuracy")
    assert "2 arms, 1 seed, 2 of 2 trials; metric: test_accuracy" in some.read_text()
    assert "model.depth" not in load.trials("small", store)
    count = len(load.executions("small", store))
    assert asked("study.seeds=[1]", "model.depth=1", "study.metric=test_accuracy") == some
    assert len(load.executions("small", store)) == count
    assert f"4 arms, 4 seeds, {TRIALS} of {TRIALS} trials; metric: val_accuracy" in asked().read_text()
    assert set(load.trials("small", store)["model.depth"]) == {1, 3}
    assert len(load.executions("small", store)) == count  # the first one's, which is the latest again
    assert load.execution("small", store).number == 1

    with closing(sqlite3.connect(store / "mlflow.db")) as connection, connection:
        executions = "run_uuid IN (SELECT run_uuid FROM tags WHERE key = 'trial.role' AND value = 'execution')"
        connection.execute(f"UPDATE runs SET status = 'RUNNING', end_time = NULL WHERE {executions}")
    asked()  # as after a driver that was killed when its last trial had ended
    assert load.execution("small", store).status == "FINISHED"
    with closing(sqlite3.connect(store / "mlflow.db")) as connection, connection:
        connection.execute(f"UPDATE runs SET lifecycle_stage = 'deleted' WHERE {executions}")
    asked()
    assert len(load.executions("small", store)) == 1


def test_one_process_then_workers_with_grown_seeds_give_the_same_numbers(here, tf, pooled, made):
    """Both reuse their graphs for one trial after another."""
    serial = (*STUDY, f"tracking.root={made}", "executor=serial", "model.depth=1", "study.seeds=[1,3]")
    code, first, error = here(*serial)
    assert code == 0 and "4 trials, 0 finished before, 4 to run" in first, error
    code, grown, error = here(*STUDY, f"tracking.root={made}")
    assert code == 0, error
    assert f"4 finished before, {TRIALS - 4} to run" in grown
    assert_same_to_the_bit(made, pooled[0])
    assert_each_trial_once(made)


def test_a_study_survives_killed_processes_and_goes_on_after_its_driver_was_killed(here, pooled, made):
    """One that was interrupted goes on in test_search.py."""
    driver = subprocess.Popen(command(made), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for count, killed in ((1, "server"), (2, "worker"), (3, "driver")):
        when_some_have_ended(made, driver, count)
        [server] = processes_of(driver.pid)
        process = {"server": server, "driver": driver.pid}.get(killed) or processes_of(server)[0]
        os.kill(process, signal.SIGKILL)
    output, _ = driver.communicate()
    assert f"0 finished before, {TRIALS} to run" in output
    kept = ended(made)
    assert 3 <= kept < TRIALS
    code, output, error = here(*STUDY, f"tracking.root={made}")
    assert code == 0, error
    assert f"{kept} finished before, {TRIALS - kept} to run" in output
    assert_same_to_the_bit(made, pooled[0])
    assert_each_trial_once(made, but="crashed")  # one that both kills met
    with closing(sqlite3.connect(made / "mlflow.db")) as connection:
        assert connection.execute("SELECT COUNT(*) FROM runs WHERE status = 'RUNNING'").fetchone() == (0,)


def heeding():
    """Before a process begins: let it heed what a shell's background, or nohup, has these tests ignore."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def catches(pid, number):
    [mask] = re.findall(r"^SigCgt:\s+(\S+)$", Path(f"/proc/{pid}/status").read_text(), re.M)
    return int(mask, 16) >> (number - 1) & 1


@pytest.mark.parametrize(
    ("delay", "number"),  # as it imports, composes, starts its worker, makes its store, trains
    [(0, signal.SIGINT), (0.2, signal.SIGHUP), (0.6, signal.SIGINT), (1.2, signal.SIGTERM), (4.0, signal.SIGTERM)],
)
def test_a_command_can_be_ended_at_any_moment(tmp_path, delay, number):
    for name in ("tmp", "here"):
        (tmp_path / name).mkdir()
    driver = subprocess.Popen(
        [sys.executable, "-m", "studies.run", "training.epochs=100000", "executor.workers=1"],
        cwd=tmp_path / "here",
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heeding,
    )
    while not catches(driver.pid, signal.SIGHUP):  # the first moments are Python's own
        time.sleep(0.001)
    time.sleep(delay)
    workers = processes_of(driver.pid)
    driver.send_signal(number)
    driver.send_signal(number)  # as `timeout` does: the same one
    time.sleep(1.5 * terminal.TOGETHER)
    driver.send_signal(number)  # as impatience has it: what runs is not waited for
    try:
        _, errors = driver.communicate(timeout=60)
    finally:
        driver.kill()
    assert driver.returncode == 128 + number
    assert re.fullmatch(r"(interrupted: no other[^\n]*\n)?interrupted[^\n]*\n", errors), errors
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def test_what_a_command_prints_can_be_run_wherever_the_store_is(tmp_path):
    """With a name full of signs, on a terminal that has few, without a home, and with a trial that diverges."""
    place, here = tmp_path / 'it\'s $HOME & a "b"', tmp_path / "here"
    here.mkdir()
    words = ["optimizer.learning_rate=1e30", "training.epochs=1", "executor.workers=1", "study.seeds=2"]
    words += [f"tracking.root={json.dumps(str(place))}"]
    bare = {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii", "LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0"}
    bare |= {"PYTHONUTF8": "0", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    start = [sys.executable, "-m", "studies.run", *words]
    done = subprocess.run(start, cwd=here, env=bare, capture_output=True, encoding="ascii")
    assert done.returncode == 0, done.stderr
    table = re.search(r"^ +2 +2 +0\.\d+ \? 0\.0", done.stdout, re.M)
    assert table and re.search(
        r"^\[2/2\] learning_rate=1e30 epochs=1: val_accuracy failed  \(2 failed", done.stdout, re.M
    ), done.stdout
    printed = dict(re.findall(r"^(tables|browse) +(.*)$", done.stdout, re.M))
    again = subprocess.run(printed["tables"], shell=True, cwd=here, env=bare, capture_output=True, encoding="ascii")
    assert again.returncode == 0 and table[0] in again.stdout
    told = subprocess.run(f"printf %s {printed['browse']}", shell=True, env=bare, capture_output=True, text=True)
    assert told.stdout.endswith(f"-manalysis.ui--root{place}")
    assert list(here.iterdir()) == []


def test_a_trial_that_raises_is_recorded_as_crashed_and_tried_again(own, made, monkeypatch, tmp_path):
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text(
        "import os, keras\n"
        "def net(input_shape, classes, width):\n"
        "    inputs = keras.Input(input_shape)\n"
        "    hidden = keras.layers.Dense(width)(keras.layers.Flatten()(inputs))\n"
        "    if width == 3 and not os.path.exists(os.environ['REPAIRED']):\n"
        "        hidden = Broken()(hidden)\n"
        "    return keras.Model(inputs, keras.layers.Dense(classes)(hidden))\n"
        "class Broken(keras.layers.Layer):\n"
        "    def call(self, x, training=None):\n"
        "        if training: raise RuntimeError('it broke in training')\n"
        "        return x\n"
    )
    words = [
        "model._target_=mine.nets.net",
        "~model.depth",
        "~model.activation",
        "~model.normalization",
        "~model.dropout",
        "targets.allow=[mine.]",
        "+study.factors={model.width:[3,4]}",
        "study.name=broken",
        "training.epochs=1",
        f"tracking.root={made}",
    ]
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("REPAIRED", str(tmp_path / "repaired"))
    code, first, error = own(*words)
    assert code == 1, error
    trials = load.trials("broken", made).set_index("model.width")
    assert dict(trials["status"]) == {3: "crashed", 4: "finished"}
    assert "it broke in training" in trials.loc[3, "error"] and "it broke in training" in first

    (tmp_path / "repaired").touch()
    code, second, error = own(*words)
    assert code == 0, error
    assert "1 finished before, 1 to run" in second
    assert set(load.trials("broken", made)["status"]) == {"finished"}


def test_arms_are_tuned_before_they_are_compared(here, made):
    words = [
        "+study.factors={initializer:[he_normal,zeros]}",
        "+study.nuisance={optimizer.learning_rate:[0.0001,0.1],training.epochs:[1,2]}",
        "study.tuning_seeds=[100,101]",
        "study.metric=test_accuracy",
        "study.name=tuned",
        f"tracking.root={made}",
    ]
    code, first, error = here(*words)
    assert code == 0, error
    assert "16 tuning trials, 0 finished before, 16 to run" in first
    runs = load.ended("tuned", made)
    roles = pd.Series([run.tags["trial.role"] for run in runs]).value_counts()
    assert dict(roles) == {"nuisance": 16, "scientific": 2}
    tuning = load.trials("tuned", made, [r.tags["trial.key"] for r in runs if r.tags["trial.role"] == "nuisance"])
    means = tuning.groupby(["initializer", "optimizer.learning_rate", "training.epochs"])["val_accuracy"].mean()
    compared = load.trials("tuned", made)
    assert set(compared["role"]) == {"scientific"} and list(compared["seed"]) == [0, 0]
    he, zeros = (compared.iloc[place] for place in (0, 1))
    assert (he["optimizer.learning_rate"], he["training.epochs"]) == means["he_normal"].idxmax()
    assert (zeros["optimizer.learning_rate"], zeros["training.epochs"]) == (0.0001, 1)  # all at chance: the first
    assert re.search(r"^he_normal +0.1 +2 +0.\d{4} +learning_rate, epochs: extend", first, re.M)

    code, output, error = here(*words, "study.seeds=2")
    assert code == 0, error
    assert "16 tuning trials, 16 finished before, 0 to run" in output
    assert "4 trials, 2 finished before, 2 to run" in output
    assert list(load.trials("tuned", made)["seed"]) == [0, 1, 0, 1]
    kept = [json.loads(path.read_text()) for path in made.rglob("tuning.json")]
    assert len(kept) == 2 and kept[0] == kept[1] and [row["initializer"] for row in kept[0]] == ["he_normal", "zeros"]

    # The same trials in a design of fewer factors: the arms are this design's, of those that tune too.
    code, output, error = here(*words, "study.seeds=2", "initializer=zeros")
    assert code == 0, error
    assert "8 tuning trials, 8 finished before, 0 to run" in output
    execution = load.execution("tuned", made)
    assert "initializer" not in load.tuning_trials(execution, made) and len(execution.arms) == 2
    report = (execution.folder / "report.html").read_text()
    assert "Each arm was trained at every combination of" in report and "2 of 2 trials" in report


def test_a_study_of_every_kind_of_factor(here, made):
    words = [
        "+study.factors={optimizer:[momentum,adam],schedule:[one_cycle,plateau],regularizer:[mixup,proximal_l1],"
        "clipping:[none,adaptive],model.normalization:[none,group]}",
        "+study.zip=[[clipping,model.normalization]]",
        "+study.skip=[{optimizer:adam,clipping:none}]",
        "+study.only=[{schedule:one_cycle},{regularizer:proximal_l1}]",
        "+study.settings=[{when:{schedule:one_cycle},set:{schedule.low_momentum:0.8}},"
        "{when:{optimizer:adam},set:{optimizer.learning_rate:0.005,optimizer.ema:0.9,optimizer.sam:0.05}},"
        "{when:{regularizer:proximal_l1},set:{regularizer.l1:0.05,data.crop:1,data.label_noise:0.1}}]",
        "study.figures=[loss_by_rate]",
        "study.name=everything",
        "model.depth=1",
        "training.epochs=2",
        "training.batch_size=64",
        f"tracking.root={made}",
    ]
    code, printed, error = here(*words)
    assert code == 0, error
    trials, epochs = load.trials("everything", made), load.epochs("everything", made)
    assert len(trials) == 9 and set(trials["status"]) == {"finished"}
    assert (trials["ema_test_accuracy"].notna() == (trials["optimizer"] == "adam")).all()
    clipped = epochs[epochs["epoch"] > 0].groupby("key")["clipped"].max().reindex(trials["key"])
    assert (clipped.notna().to_numpy() == (trials["clipping"] == "adaptive")).all()
    layers = load.layers("everything", made)
    last = layers[(layers["epoch"] == 2) & (layers["tensor"] == "kernel")].groupby("key")["sparsity_0"].max()
    assert ((last.reindex(trials["key"]) > 0).to_numpy() == (trials["regularizer"] == "proximal_l1")).all()
    report = Path(re.search(r"^report +(\S+/report.html)$", printed, re.M)[1])
    written = report.read_text()
    figures = {path.stem for path in (report.parent / "figures").iterdir()}
    assert "loss_by_rate" in figures and len(re.findall(r"<figure( data-chart=\S+)?>", written)) == len(figures)
    report.unlink()
    assert "0 to run" in here(*words)[1] and report.read_text() == written


def test_two_drivers_of_one_study_do_not_meet(here, made):
    first = subprocess.Popen(command(made), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (made / ".small.lock").exists():
        time.sleep(0.05)
    time.sleep(0.5)
    code, _, error = here(*STUDY, f"tracking.root={made}")
    first.kill()
    first.communicate()
    assert code == 2
    assert "another process runs small" in error


def test_the_jobs_of_a_multirun_share_their_workers_and_give_the_same_numbers(here, pooled, made):
    words = command(made, "executor.workers=2", "study.seeds=[0,2]", "optimizer.learning_rate=0.01,0.02", "-m")
    sweep = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    workers = set()

    def forked(pid):
        """Those of its processes that are of the pool, and not of what an import looks up."""
        return {p for p in processes_of(pid) if "studies.execute.worker" in Path(f"/proc/{p}/cmdline").read_text()}

    while sweep.poll() is None:
        with suppress(OSError):
            workers.update(*map(forked, forked(sweep.pid)))
        time.sleep(0.05)
    output, error = sweep.communicate()
    assert sweep.returncode == 0, error
    assert output.count("8 trials, 0 finished before, 8 to run") == 2 and len(workers) == 2
    assert_same_to_the_bit(made, pooled[0], seeds=(0, 2))  # of the last job
    table = re.findall(r"^(0.01|0.02) +2 +0  0\.\d+ ± 0\.\d+$", output, re.M)
    assert table == ["0.01", "0.02"]
    latest = {}
    for rate in (0.01, 0.02):
        words = (*STUDY, "study.seeds=[0,2]", f"optimizer.learning_rate={rate}", f"tracking.root={made}")
        assert "0 to run" in here(*words)[1]
        latest[rate] = set(load.execution("small", made).keys)
    assert len(latest[0.01] & latest[0.02]) == 0  # finished before, and each is the latest when it was asked for last


def test_the_jobs_of_a_multirun_run_side_by_side_in_processes_of_a_launchers(here, made):
    words = ["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "executor=serial", "optimizer=sgd,adam"]
    words += ["model.depth=1,-1", "training.epochs=1", f"tracking.root={made}"]
    start = [sys.executable, "-m", "studies.run", *words]
    first = subprocess.run(start, cwd=ROOT, capture_output=True, text=True)
    assert first.returncode == 2 and "Traceback" not in first.stderr
    assert first.stderr.count("error: model.depth=-1: expected a whole number of 1 or more\n") == 2
    rows = re.findall(r"^(sgd|adam) +(-?1) +([01]) +0  (0\.\d{4}|error)$", first.stdout, re.M)
    assert [row[:3] for row in rows] == [("sgd", "1", "1"), ("sgd", "-1", "0"), ("adam", "1", "1"), ("adam", "-1", "0")]
    assert [row[3] == "error" for row in rows] == [False, True, False, True]

    with closing(sqlite3.connect(made / "mlflow.db")) as connection:
        runs = dict(connection.execute("SELECT run_uuid, name || ' ' || status FROM runs").fetchall())
        parents = connection.execute("SELECT run_uuid, value FROM tags WHERE key = 'mlflow.parentRunId'").fetchall()
    nested = sorted((runs[parent], runs[run]) for run, parent in parents)
    whole = "sweep optimizer=sgd,adam model.depth=1,-1 training.epochs=1 FAILED"
    jobs = [f"optimizer={optimizer} depth=1 epochs=1 (1 trial) FINISHED" for optimizer in ("sgd", "adam")]
    trials = [f"{optimizer} depth=1 epochs=1 seed=0 FINISHED" for optimizer in ("sgd", "adam")]
    assert nested == sorted([*zip(jobs, trials, strict=True), *((whole, job) for job in jobs)])
    assert len(runs) == 5

    code, again, _ = here(*(word for word in words if "launcher" not in word))
    assert code == 2 and again.count("1 trial, 1 finished before, 0 to run") == 2
    assert re.findall(r"^(?:sgd|adam) .*$", again, re.M) == re.findall(r"^(?:sgd|adam) .*$", first.stdout, re.M)
