"""What XLA has compiled, kept: the same bits whatever is there, and nothing that is there stops a trial."""

import os
import shutil

import pytest

from studies.execute import compiled
from studies.execute.pool import Pool
from studies.execute.task import Task
from studies.record import EpochRecord, Result, Started

TRIAL = "studies.train.trial:run"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache's folder of compiled graphs."""
    monkeypatch.setenv("STUDIES_CACHE", str(tmp_path / "cache"))
    return compiled.prepared(1)


@pytest.fixture
def train(trial_of):
    """A function that trains one trial in a process of its own, of one server: its numbers and attempts."""
    pool = Pool(1)

    def trained(untrained=lambda: None, xla=True):
        trial = trial_of(["model.depth=1", "training.epochs=2", f"engine.xla={str(xla).lower()}"])
        while pool.crew:
            pool.crew.pop().stop()
        compiled.prepared(1)  # as a new server does
        numbers, attempts = [], 0
        for _, record in pool.run(TRIAL, [Task(trial.key, trial.graph_key, 1, trial)]):
            match record:
                case Started():
                    attempts, numbers = attempts + 1, []
                case EpochRecord():
                    untrained()  # the epoch is compiled after the first of them
                    numbers += map(float.hex, (record.train_loss, record.val_loss, record.val_accuracy))
                case Result():
                    assert record.status == "finished", record.error
                    numbers.append(record.test_loss.hex())
                case list():
                    numbers += [value.hex() for row in record for value in row.statistics]
        return numbers, attempts

    yield trained
    pool.close()


def kept(folder):
    """The names and inodes of the files: TensorFlow writes new ones."""
    return {file.name: file.stat().st_ino for file in folder.iterdir()}


def test_cold_warm_damaged_and_unwritable_give_the_same_bits(folder, train):
    train(xla=False)
    assert kept(folder) == {}  # what is not compiled

    cold = train()
    assert cold[1] == 1
    first = kept(folder)
    assert sorted(name.rpartition(".")[2] for name in first) == ["pb"] * 2 + ["sha256"] * 2  # an epoch, an evaluation
    assert train() == cold and kept(folder) == first  # read, not made again

    file = max(folder.glob("*.pb"), key=lambda file: file.stat().st_size)
    file.write_bytes(file.read_bytes()[:1000])
    file.with_suffix(".sha256").unlink()
    compiled.seal(folder)
    assert train() == (cold[0], 2)  # TensorFlow dies of it, and the trial is tried again without

    def replace_by_a_file():
        if folder.is_dir():
            shutil.rmtree(folder)
            folder.touch()

    assert train(replace_by_a_file) == (cold[0], 2)  # as where the disk is full: it cannot be written
    assert compiled.prepared(1) is None


def test_only_whole_files_with_their_hash_stay_and_the_newest_of_too_many(folder, monkeypatch):
    monkeypatch.setattr(compiled, "MOST_BYTES", 250)
    for age, name in enumerate(["new.pb", "middle.pb", "old.pb"]):
        (folder / name).write_bytes(bytes(100))
        os.utime(folder / name, (10**9 - age, 10**9 - age))
    compiled.seal(folder)
    (folder / "not_sealed.pb").write_bytes(b"half")
    (folder / "torn.pb").write_bytes(b"whole")
    (folder / "torn.sha256").write_bytes(b"\xff\x00")
    (folder / ".new.sha256.99").write_bytes(b"of one that was killed")
    for name in ("not_sealed.pb", "torn.pb", ".new.sha256.99"):
        os.utime(folder / name, (1, 1))
    assert compiled.prepared(1) == folder
    assert {file.name for file in folder.glob("*.pb")} == {"new.pb", "middle.pb"}
    (folder / "new.pb").write_bytes(b"damaged")
    compiled.prepared(1)
    assert set(kept(folder)) == {"middle.pb", "middle.sha256"}


def test_another_processor_version_setting_or_number_of_threads_has_a_folder_of_its_own(folder, monkeypatch):
    folders = {folder, compiled.prepared(2)}
    for name, change in (
        ("_processor", lambda: "another"),
        ("version", lambda package: "1.0"),
        ("machine", type("Machine", (), {"cores": staticmethod(lambda: 99)})),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(compiled, name, change)
            folders.add(compiled.prepared(1))
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    folders.add(compiled.prepared(1))
    assert len(folders) == 6 and compiled._processor().count("flags") <= 1


def test_nothing_is_kept_where_there_is_no_room_or_no_home_or_a_folder_of_the_users(folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(compiled, "FREE_BYTES", 2**80)
        assert compiled.prepared(1) is None
    with monkeypatch.context() as patch:
        patch.setenv("TF_XLA_FLAGS", "--tf_xla_persistent_cache_directory=/mine")
        assert compiled.prepared(1) is None
    for mode in (0o777, 0o770):
        folder.chmod(mode)
        assert compiled.prepared(1) is None  # others could put machine code there
    assert compiled.variables(None) == compiled.variables(folder / "a b") == {}
    monkeypatch.setenv("TF_XLA_FLAGS", "--mine")
    assert compiled.variables(folder) == {"TF_XLA_FLAGS": f"--mine --tf_xla_persistent_cache_directory={folder}"}
