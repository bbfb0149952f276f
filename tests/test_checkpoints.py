"""A trial that goes on from a checkpoint ends with the numbers of one that was never disturbed, to the bit."""

import dataclasses
import functools
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from contextlib import closing
from pathlib import Path

import h5py
import numpy as np
import pytest

from analysis import load
from studies.command.checkpoints import Checkpoints
from studies.contract import set_by_command
from studies.execute.pool import PIPE_BYTES, Pool
from studies.execute.task import Task
from studies.factors import criteria
from studies.record import Checkpoint, EpochRecord, Note, Started
from studies.train.packed import pack, unpack

ROOT = str(Path(__file__).parent.parent)
SMALL = ("model.width=12", "data.train_size=192", "engine.xla=false", "training.epochs=6", "diagnostics=none")
TIMES = ("seconds", "seconds_build", "seconds_train", "seconds_total", "memory_mb")

CASES = {
    "plain": "optimizer=rmsprop schedule=plateau schedule.patience=1 schedule.threshold=9",
    "drawn": (
        "model.dropout=0.2 model.normalization=batch data.flip=true data.crop=1 data.cutout=2 data.label_noise=0.2 "
        "optimizer=adamw optimizer.learning_rate=0.3 optimizer.ema=0.9 optimizer.lookahead=4 optimizer.sam=0.05 "
        "regularizer=cutmix training.early_stopping=2"
    ),
    "recurrent": (
        "model=row_rnn model.cell=gru +optimizer.gradient_accumulation_steps=4 schedule=one_cycle "
        "schedule.low_momentum=0.85 regularizer=mixup"
    ),
    "gradual": (
        "model.width=40 pruning=gradual pruning.criterion=synflow diagnostics=full +diagnostics.extremes=true "
        "initializer=lsuv"
    ),
    "lottery": (
        "pruning=lottery_shuffled pruning.criterion=random pruning.rounds=2 pruning.rewind=1 training.epochs=7 "
        "optimizer=adam regularizer=label_smoothing"
    ),
    "reinitialized": (
        "initializer=lsuv pruning=lottery_reinitialized pruning.rounds=1 optimizer.learning_rate=3 "
        "training.early_stopping=1"
    ),
    "movement": (
        "pruning=one_shot pruning.criterion=movement clipping=adaptive training.class_weight=effective "
        "schedule=plateau schedule.patience=2 schedule.threshold=9"
    ),
}
"""What is remembered between epochs, or drawn in them, by every kind of setting."""

AFTER = {
    **{"plain": (1, 4), "drawn": (1, 3), "recurrent": (1, 4), "gradual": (1, 3)},
    **{"lottery": (1, 3, 5), "reinitialized": (2,), "movement": (2, 4)},
}
"""The epochs whose checkpoints each goes on from."""

PIECES = {
    "parts.engine": "plain",
    "parts.random.order": "plain",
    "parts.random.augment": "drawn",
    "parts.random.noise": "drawn",
    "parts.heard": "movement",
    "parts.kept": "plain",
    "parts.pruner.early": "lottery",
    "parts.pruner.kept": "lottery",
    "parts.pruner.random": "lottery",
    "parts.pruner.sparsity": "gradual",
    "stopping.lowest": "drawn",
    "stopping.waited": "drawn",
    "stopping.best": "drawn",
    "stopping.coming": "reinitialized",
    "observations.random": "gradual",
    "observations.ratios": "gradual",
    "observations.kept": "gradual",
    "observations.looks": "gradual",
    "observations.ends": "gradual",
}
"""Of what is in a checkpoint, and a case that would end otherwise without it."""


def numbers(records):
    """All that records say but how long it took, as text, in which NaN equals NaN."""
    flat = [each for record in records for each in (record if isinstance(record, list) else [record])]
    found = [dataclasses.asdict(each) for each in flat if not isinstance(each, Checkpoint | Note)]
    return sorted(repr({name: value for name, value in each.items() if name not in TIMES}) for each in found)


def notes(records):
    return [record.text for record in records if isinstance(record, Note)]


@pytest.fixture(scope="module")
def ran(tf, trial_of):
    """A function from a case to its trial, what it says undisturbed, and its checkpoints by epochs."""
    from studies.train import observations, parts, trial

    @functools.cache
    def undisturbed(case):
        whole = dataclasses.replace(trial_of((*SMALL, *CASES[case].split())), checkpoint_every=(1, None))
        records = list(trial.run(whole))
        return whole, records, {each.epoch: each.content for each in records if isinstance(each, Checkpoint)}

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(criteria.ITERATIONS, "synflow", 10)
        patch.setattr(parts, "ENGINES_KEPT", len(CASES))
        patch.setattr(observations, "OBSERVATION_BYTES", 40_000)  # of two epochs or so
        yield undisturbed


@pytest.fixture(scope="module")
def resumed(ran):
    """A function from a case and a checkpoint's content to what a trial says that begins with it."""
    from studies.train import parts, trial

    def goes_on(case, content):
        whole, *_ = ran(case)
        for engine, _ in parts._engines.values():  # as another trial might leave it
            engine.restore([np.ones_like(value) for value in engine.state()])
        return list(trial.run(dataclasses.replace(whole, checkpoint=content)))

    return goes_on


@pytest.mark.parametrize("case", CASES)
def test_a_trial_that_goes_on_ends_as_one_that_was_not_disturbed(ran, resumed, case):
    _, records, kept = ran(case)
    assert len(kept) == records[-1].epochs - 1
    for epoch in AFTER[case]:
        again = resumed(case, kept[epoch])
        assert notes(again) == [f"goes on after epoch {epoch}"]
        assert numbers(again) == numbers(records)
        later = [record.content for record in again if isinstance(record, Checkpoint)]
        assert len(later) == records[-1].epochs - 1 - epoch


def test_the_cases_with_early_stopping_go_back(ran):
    for case in ("drawn", "reinitialized"):
        result = ran(case)[1][-1]
        assert result.epochs < 6 and result.val_loss != result.last_val_loss


@pytest.fixture(scope="module")
def start(ran):
    """A function from a case to the state that its trial begins with."""
    from studies.train.checkpoints import Journal
    from studies.train.observations import Observations
    from studies.train.parts import Parts
    from studies.train.stopping import EarlyStopping

    @functools.cache
    def state(case):
        trial, *_ = ran(case)
        parts = Parts(trial)
        stopping = EarlyStopping(trial.config["training"]["early_stopping"], parts.settled)
        return Journal(trial, parts, Observations(trial, parts), stopping).state()

    return state


@pytest.mark.parametrize("piece", PIECES)
def test_without_any_piece_of_a_checkpoint_numbers_would_be_others(ran, resumed, start, piece):
    case, (*way, last) = PIECES[piece], piece.split(".")
    _, records, kept = ran(case)
    state = unpack(kept[AFTER[case][-1]])
    missing = functools.reduce(dict.__getitem__, [*way, last], start(case))
    # There are no early weights at the start: those of now are as wrong.
    functools.reduce(dict.__getitem__, way, state)[last] = missing if last != "early" else state["parts"]["engine"]
    assert numbers(resumed(case, pack(state))) != numbers(records)


class Trap:
    def __reduce__(self):
        return os.mkdir, (self.folder,)

    def __init__(self, folder):
        self.folder = str(folder)


def changed(content, **pieces):
    return pack(unpack(content) | pieces)


def test_a_checkpoint_that_is_of_no_use_is_left_and_the_trial_begins_anew(ran, resumed, tmp_path):
    _, records, kept = ran("plain")
    whole, middle = kept[4], len(kept[4]) // 2
    versions = unpack(whole)["circumstances"]
    for content, reason in (
        (whole[:-1], "damaged, or cut short"),
        (whole[:middle], "damaged, or cut short"),
        (whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :], "damaged, or cut short"),
        (b"\0" * 4096, "damaged, or cut short"),
        (pickle.dumps(Trap(tmp_path / "sprung")), "damaged, or cut short"),
        (changed(whole, key="0" * 16), "of another trial, 0000000000000000"),
        (changed(whole, format=0), "of format 0, not 1"),
        (changed(whole, circumstances=versions | {"tensorflow": "1.0"}), "made with tensorflow 1.0"),
        (changed(whole, circumstances=versions | {"processor": "Z80"}), "made with processor Z80"),
        (changed(whole, parts=unpack(ran("drawn")[2][1])["parts"]), "not those of this network"),
        (pack([]), "has not what"),
        (pack({"format": 1}), "has not what"),
    ):
        again = resumed("plain", content)
        [said] = notes(again)
        assert said.startswith("starts from its beginning") and reason in said
        assert numbers(again) == numbers(records)
    assert not (tmp_path / "sprung").exists()


def test_what_is_packed_comes_back_in_its_types_and_no_object_is():
    values = {
        "numbers": [1, 2**100, 0.1, float("inf"), True, None, "é"],
        "arrays": [np.arange(6, dtype=">i4").reshape(2, 3).T, np.float32(0.1), np.zeros((0, 3)), np.array([True])],
    }
    found = unpack(pack(values))
    assert found["numbers"] == values["numbers"]
    for one, other in zip(found["arrays"], values["arrays"], strict=True):
        assert one.dtype == other.dtype and type(one) is type(other)
        np.testing.assert_array_equal(one, other)
    for refused in (object(), np.array([object()]), {1: 2}, {"array": 1}, b"bytes", np.array(["text"])):
        with pytest.raises(TypeError):
            pack([refused])


def test_seconds_are_those_of_all_parts_and_a_timeout_is_of_them(ran, resumed, trial_of):
    from studies.train import trial

    _, _, kept = ran("plain")
    before = {"seconds_build": 100.0, "seconds_train": 200.0, "seconds_total": 300.0}
    result = resumed("plain", changed(kept[4], seconds=before))[-1]
    for name, seconds in before.items():
        assert seconds < getattr(result, name) < seconds + 60
    limited = trial_of((*SMALL, *CASES["plain"].split(), "training.timeout=301"))
    content = changed(kept[4], key=limited.key, seconds=before | {"seconds_total": 400.0})
    *_, result = trial.run(dataclasses.replace(limited, checkpoint=content))
    assert result.status == "timeout" and result.epochs == 5


def test_what_keras_does_not_know_of_has_no_checkpoints(tf, trial_of, tmp_path, monkeypatch):
    from studies.train import trial

    (tmp_path / "mine_of_checkpoints.py").write_text(
        "import keras, tensorflow as tf\n"
        "class Count(keras.layers.Layer):\n"
        "    def build(self, shape):\n"
        "        self.count = tf.Variable(0.0, trainable=False, name='calls')\n"
        "    def call(self, x):\n"
        "        self.count.assign_add(1.0)\n"
        "        return x * (1 + self.count)\n"
        "def net(input_shape, classes):\n"
        "    x = keras.layers.Flatten()(inputs := keras.Input(input_shape))\n"
        "    return keras.Model(inputs, Count()(keras.layers.Dense(classes)(x)))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ("~model", "+model={_target_: mine_of_checkpoints.net}", "targets.allow=[mine_of_checkpoints.]")
    own = dataclasses.replace(trial_of((*SMALL[1:], *words)), checkpoint_every=(1, None))
    records = list(trial.run(own))
    assert not any(isinstance(record, Checkpoint) for record in records) and records[-1].status == "finished"
    [said] = notes(records)
    assert said.startswith("has no checkpoints") and "calls" in said


def test_how_often_is_in_no_key_and_no_card(trial_of, cli):
    usual, often = trial_of(SMALL), trial_of((*SMALL, "checkpoints.epochs=1"))
    assert often.key == usual.key and "checkpoints" not in often.config
    assert set_by_command({"mlflow.source.name": "studies.run checkpoints.minutes=null"}) == ()
    code, _, err = cli("checkpoints.epochs=0")
    assert code == 2 and "checkpoints.epochs=0: expected a whole number of 1 or more" in err


def stored(root):
    """What a store has of a study's trials, but for what hangs on time, as text."""
    trials = load.trials("single", root).sort_values("key")
    frames = [trials.drop(columns=[*TIMES[1:], "folder"]), load.epochs("single", root), load.layers("single", root)]
    frames += [load.densities("single", root), load.confusions("single", root)]
    texts = [frame.drop(columns="seconds", errors="ignore").map(repr).to_csv() for frame in frames]
    [model] = root.rglob("model.keras")
    assert len(weights(model)) == 6
    return texts, weights(model)


def weights(model):
    """All that a model's file has, to the bit."""
    found = {}
    with zipfile.ZipFile(model).open("model.weights.h5") as content, h5py.File(content) as file:
        file.visititems(lambda name, node: found.update({name: node[()].tobytes()} if hasattr(node, "shape") else {}))
    return found


def test_a_command_goes_on_from_what_another_left_unless_it_is_forced(ran, made, here):
    trial, records, kept = ran("drawn")
    folder = made / ".checkpoints"

    def left(name, content):
        folder.mkdir(exist_ok=True)
        (folder / f"single-{name}.checkpoint").write_bytes(content)

    left(trial.key, kept[3])
    left("0" * 16, b"of a trial that is yet to come")
    words = (f"tracking.root={made}", *SMALL, *CASES["drawn"].split())
    code, out, _ = here(*words)
    assert code == 0 and "seed=0 goes on after epoch 3\n" in out
    found = load.epochs("single", made).sort_values("epoch")
    assert found["val_loss"].tolist() == [r.val_loss for r in records if isinstance(r, EpochRecord)]
    assert load.trials("single", made)["test_loss"].tolist() == [records[-1].test_loss]
    assert [file.name for file in folder.iterdir()] == [f"single-{'0' * 16}.checkpoint"]
    left(trial.key, kept[3])
    code, out, _ = here(*words, "force=true")
    assert code == 0 and "goes on after" not in out and not list(folder.glob(f"*{trial.key}*"))
    left(trial.key, kept[3])
    code, out, _ = here(*words)  # there is nothing left to train
    assert code == 0 and not list(folder.glob(f"*{trial.key}*"))


def test_what_cannot_be_kept_is_said_once_and_ends_nothing(made, here):
    (made / ".checkpoints").write_text("no folder")
    code, out, _ = here(f"tracking.root={made}", *SMALL, "checkpoints.epochs=1")
    assert code == 0 and out.count("could not be kept in") == 1


def dying(payload):
    """Gets no further than to its next checkpoint, four times."""
    yield Checkpoint("k", payload + 1, bytes(PIPE_BYTES))
    if payload < 3:
        os.kill(os.getpid(), signal.SIGKILL)
    yield "done"


def test_a_task_is_tried_again_from_its_newest_checkpoint_as_long_as_it_gets_on():
    kept, ends = [], []
    with closing(Pool(workers=1)) as pool:
        for _, record in pool.run(
            "tests.test_checkpoints:dying", [Task("k", "g", 1, 0, renewed=lambda old: len(kept))]
        ):
            (kept if isinstance(record, Checkpoint) else ends).append(record)
    assert [record.epoch for record in kept] == [1, 2, 3, 4] and ends[-1] == "done"
    assert sum(isinstance(record, Started) for record in ends) == 4


LONG = (
    *("study.seeds=1", "data.train_size=320", "model.width=12", "model.dropout=0.2", "data.crop=1", "optimizer=adam"),
    *("training.epochs=300", "diagnostics.observe_every=50", "engine.xla=false", "checkpoints.epochs=20"),
    "tracking.models=all",
)


def children(pid):
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def driver(made, tmp_path):
    """A command that trains for seconds, as a process that says what it does in `tmp_path / "said"`."""
    words = [sys.executable, "-m", "studies.run", f"tracking.root={made}", "executor.workers=1", *LONG]
    with open(tmp_path / "said", "w") as said:
        process = subprocess.Popen(words, stdout=said, stderr=said, cwd=tmp_path, env=os.environ | {"PYTHONPATH": ROOT})
    yield process
    process.kill()
    process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="finds a pool's workers in /proc")
def test_a_trial_whose_worker_and_driver_are_killed_ends_as_if_nothing_had_been(driver, made, fresh, here, tmp_path):
    said = tmp_path / "said"

    def until(there):
        deadline = time.monotonic() + 60
        while not (found := there()):
            assert driver.poll() is None and time.monotonic() < deadline, said.read_text()
            time.sleep(0.005)
        return found

    def checkpoint():
        return [file.stat().st_mtime_ns for file in made.glob(".checkpoints/*.checkpoint")]

    until(checkpoint)
    for server in children(driver.pid):
        for worker in children(server):
            os.kill(worker, signal.SIGKILL)
    until(lambda: "goes on after epoch" in said.read_text())
    before = checkpoint()
    until(lambda: checkpoint() != before)
    driver.kill()
    driver.wait()
    code, out, _ = here(f"tracking.root={made}", *LONG)
    assert code == 0 and "goes on after epoch" in out and not checkpoint()
    other = shutil.copytree(fresh, tmp_path / "other")
    code, out, _ = here(f"tracking.root={other}", *LONG, "checkpoints.epochs=null")
    assert code == 0 and "goes on" not in out
    assert stored(made) == stored(other)


def test_a_checkpoint_goes_whatever_its_study_is_called(tmp_path):
    kept = Checkpoints(tmp_path, "a [b]*?")
    assert not kept.keep(Checkpoint("key", 1, b"content")) and kept.count(["key"]) == 1
    kept.drop(["key"])
    assert kept.count(["key"]) == 0
