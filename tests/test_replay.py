"""A stored trial trained again: equal to the bit, or what differs; and a stored config is data, whatever it says."""

import hashlib
import json
import shutil
import sqlite3
import sys

import numpy as np
import pandas as pd
import pytest
import yaml

from analysis import load
from studies import replay as entry
from studies.command import replay
from studies.contract import Tag
from studies.factors import limits
from studies.record import LATER, RESULTS_VERSION, content_key
from studies.store import writer

SETTINGS = ["data.train_size=200", "data.flip=true", "model.depth=1", "model.width=8", "training.epochs=3"]


@pytest.fixture(scope="module")
def whole(trained, tmp_path_factory):
    """A store with three studies: dropout and augmentation, arrays of the user's own, and a computed one."""
    root = tmp_path_factory.mktemp("replayed")
    place = f"tracking.root={root / 'store'}"
    trained("+study.factors={model.dropout: [0, 0.3]}", "study.name=dropped", "study.seeds=1", *SETTINGS, place)
    rng = np.random.default_rng(0)
    arrays = {"x": rng.random((90, 4, 4)).astype(np.float32), "y": np.arange(90) % 3}
    np.savez(root / "mine.npz", **arrays)
    trained(
        "data=npz", f"data.path={root / 'mine.npz'}", "study.name=arrays", *SETTINGS[2:4], "training.epochs=1", place
    )
    compute = "+compute={_target_: studies.compute.descent.linear_regression, rate: 0.5}"
    trained(compute, "study.name=descent", "study.metric=agrees", "study.seeds=1", place)
    return root


@pytest.fixture
def root(whole, tmp_path):
    return shutil.copytree(whole / "store", tmp_path / "store")


@pytest.fixture
def again(lasting, monkeypatch, capsys):
    """A function from arguments to what the command answers, exit code, stdout, stderr; its workers are there."""
    [pool] = [executor for executor in lasting.values() if type(executor).__name__ == "Pool"][:1]
    monkeypatch.setattr(entry, "Pool", lambda workers: pool)
    return lambda root, *words: (entry.main([*map(str, words), "--root", str(root)]), *capsys.readouterr())


def run_of(root, study, place=0):
    return load.ended(study, root)[place]


def executed(root, statement, *values):
    with sqlite3.connect(root / "mlflow.db") as connection:
        connection.execute(statement, values)


def contents(root):
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in root.rglob("*") if file.is_file()}


def rewritten(run, change):
    """Change a stored config, and give it the key that is then its own, as who forges a record would."""
    file = run.folder / "config.yaml"
    config = yaml.safe_load(file.read_text())
    change(config)
    file.write_text(writer.yaml_of(config))
    body = {name: node for name, node in config.items() if name not in ("seed", "overrides")}
    seed = int(run.tags[Tag.SEED])
    return content_key({"config": limits.identity(body), "seed": seed, "version": RESULTS_VERSION})


def forged(root, run, change):
    key = rewritten(run, change)
    executed(root, "UPDATE tags SET value = ? WHERE key = ? AND run_uuid = ?", key, Tag.KEY, run.run_id)
    return key


def test_trials_come_out_equal_to_the_bit_and_the_store_stays_as_it_is(again, root):
    before = contents(root)
    code, said, _ = again(root, "--all", "dropped")
    assert code == 0 and said.count("equal to the bit in") == 2 and "2 of 2 trials came out equal" in said
    run = run_of(root, "dropped")
    code, said, heard = again(root, run.run_id[:6], run.tags[Tag.KEY])  # the same one twice
    assert code == 0 and f" seed=0, run {run.run_id}: equal to the bit in" in said and said.count("\n") == 1
    assert heard.startswith("training dropped dropout=0") and heard.endswith(" seed=0 again\n")
    for table in ("epochs", "layers", "densities", "confusions", "results"):
        assert f"{table} " in said
    code, said, _ = again(root, "--all", "descent")
    assert code == 0 and "not compared" not in said
    assert contents(root) == before


def test_a_trial_that_is_older_than_a_setting_is_trained_as_it_was(again, root):
    run = run_of(root, "dropped")

    def older(config):
        for part, later in LATER.items():
            config[part] = {name: value for name, value in (config[part] or {}).items() if name not in later}

    assert rewritten(run, older) == run.tags[Tag.KEY]
    code, said, error = again(root, run.run_id)
    assert code == 0 and "equal to the bit" in said, error


def test_what_differs_is_said_with_what_differs_of_the_surroundings(again, root, monkeypatch):
    run = run_of(root, "dropped")
    epochs = pd.read_parquet(run.folder / "epochs.parquet")
    epochs.loc[epochs["epoch"] >= 2, "val_loss"] *= 1 + 1e-6
    epochs.to_parquet(run.folder / "epochs.parquet")
    executed(root, "UPDATE latest_metrics SET value = value + 0.25 WHERE key = 'test_accuracy'")
    executed(root, "UPDATE tags SET value = 'another' WHERE key = 'processor' AND run_uuid = ?", run.run_id)
    code, said, _ = again(root, run.run_id)
    assert code == 1 and "different: 3 of " in said
    assert "  epochs.val_loss: 2 numbers, first at epoch 2, by 1e-06 of its size at most\n" in said
    assert "results.test_accuracy: 1 number" in said and "test_accuracy at the end: " in said
    assert "differs of the surroundings: processor: another then, " in said
    code, said, _ = again(root, run.run_id, "--format", "json")
    [found] = json.loads(said)
    assert code == 1 and found["differences"][0] | {"largest_relative": 0} == {
        "table": "epochs",
        "column": "val_loss",
        "count": 2,
        "first_epoch": 2,
        "largest_relative": 0,
    }
    assert found["surroundings"][0]["then"] == "another" and found["results_version"] == {"then": 5, "now": 5}
    monkeypatch.setattr(replay, "RESULTS_VERSION", RESULTS_VERSION - 1)  # as an older code has it
    monkeypatch.setattr(entry, "RESULTS_VERSION", RESULTS_VERSION - 1)
    assert f"its results are of version {RESULTS_VERSION}, and this code makes" in again(root, run.run_id)[1]


def test_a_run_is_found_or_the_error_says_what_there_is(again, root):
    executed(root, "UPDATE tags SET value = 'crashed' WHERE key = ? AND value = 'finished'", Tag.STATUS)
    execution = load.execution("dropped", root)
    for words, expected in (
        ([execution.run_id], "is an execution of dropped, not a trial's. It has trained 2 trials, such as "),
        (["0123456789"], "no trial in "),
        (["abc"], "the first 4 signs or more"),
        ([], "or --all STUDY"),
        (["--all", "nosuch"], "no study 'nosuch'"),
        (["--sample", "3", "0123"], "with --all STUDY"),
        (["--all", "dropped", "--allow", "mine"], "prefixes that end in a dot"),
        ([run_of(root, "dropped").run_id], "crashed (nothing is known of why), and has no numbers to compare"),
    ):
        code, said, error = again(root, *words)
        assert (code, said) == (2, "") and expected in error and error.count("\n") == 1, words


def test_a_record_that_was_changed_is_damaged_or_lacks_its_data_is_refused(again, root, whole):
    run = run_of(root, "arrays")
    assert again(root, run.run_id)[0] == 0
    moved = (whole / "mine.npz").rename(whole / "moved.npz")
    code, _, error = again(root, run.run_id)
    assert code == 2 and "no such file" in error and "--data PLACE" in error
    assert again(root, run.run_id, "--data", moved)[0] == 0
    arrays = dict(np.load(moved))
    np.savez(whole / "other.npz", **arrays | {"x": arrays["x"] + 1})
    assert "its data are others" in again(root, run.run_id, "--data", whole / "other.npz")[2]
    moved.rename(whole / "mine.npz")
    config = (run.folder / "config.yaml").read_text()
    for text, expected in (
        (config.replace("epochs: 1", "epochs: 2"), "was changed"),
        ("a: [", "is damaged"),
        ("!!python/object/apply:os.system [true]", "is damaged"),
        ("- 1", "is damaged"),
        ("data: 1", "a fit of your own"),
        ("engine: {}\nmodel: 3", "was changed"),
    ):
        (run.folder / "config.yaml").write_text(text)
        code, _, error = again(root, run.run_id)
        assert code == 2 and expected in error and error.count("\n") == 1, text
    (run.folder / "config.yaml").write_text(config)
    (run.folder / "layers.parquet").write_bytes((run.folder / "layers.parquet").read_bytes()[:300])
    assert "layers.parquet of run" in again(root, run.run_id)[2]
    (run.folder / "layers.parquet").unlink()
    assert "cannot be read" in again(root, run.run_id)[2]


def test_what_a_stored_config_allows_does_not_count(again, root, tmp_path, monkeypatch):
    """A forged record, whose key is right, names code that would leave a mark."""
    mark = tmp_path / "mark"
    (tmp_path / "evil_of_tests.py").write_text(f"open({str(mark)!r}, 'w').close()\ndef build(**_): pass")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    run = run_of(root, "dropped")

    def change(config):
        config["model"] = {"_target_": "evil_of_tests.build"}
        config["targets"] = {"allow": ["evil_of_tests.", "os."], "source": {"evil_of_tests": "0"}}

    forged(root, run, change)
    code, _, error = again(root, run.run_id)
    assert code == 2 and not mark.exists()
    assert "is outside what model may be" in error and "(it was trained with evil_of_tests., os.)" in error
    assert "evil_of_tests" not in sys.modules
    code, said, _ = again(root, run.run_id, "--allow", "evil_of_tests.")  # whose worker is told to call it
    assert code == 1 and "it crashed when it was trained again" in said
    assert "targets.source" in said or "source.evil_of_tests" in said


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "os.system", "command": "true"},
        {"_target_": "keras.utils.get_file", "origin": "file:///etc/passwd"},
        {"_target_": "keras.initializers.Constant", "value": {"_target_": "os.system", "command": "true"}},
        {"_target_": "keras.initializers.Constant", "value": {"class_name": "Lambda", "module": "os", "config": {}}},
        {"_target_": ["os.system"]},
    ],
)
def test_a_stored_config_names_nothing_that_its_group_does_not_offer(again, root, node):
    run = run_of(root, "dropped")
    forged(root, run, lambda config: config.update(initializer=node))
    code, _, error = again(root, run.run_id)
    assert code == 2 and "cannot be trained here: initializer" in error and error.count("\n") == 1


def test_interpolations_in_a_stored_config_stay_texts(again, root, monkeypatch):
    monkeypatch.setenv("SECRET_OF_TESTS", "hush")
    run = run_of(root, "arrays")
    forged(root, run, lambda config: config["data"].update(path="${oc.env:SECRET_OF_TESTS}"))
    code, said, error = again(root, run.run_id)
    assert code == 2 and "${oc.env:SECRET_OF_TESTS}" in error and "hush" not in said + error


def test_results_of_an_earlier_version_are_called_so(again, root):
    run = run_of(root, "dropped")
    config = load.configs("dropped", root, [run.tags[Tag.KEY]])[run.tags[Tag.KEY]]
    body = {name: node for name, node in config.items() if name not in ("seed", "overrides")}
    old = content_key({"config": limits.identity(body), "seed": 0, "version": RESULTS_VERSION - 1})
    executed(root, "UPDATE tags SET value = ? WHERE key = ? AND run_uuid = ?", old, Tag.KEY, run.run_id)
    code, said, _ = again(root, old)
    assert code == 0 and f"its results are of version {RESULTS_VERSION - 1}, and this code" in said
