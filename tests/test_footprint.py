"""What a study's networks come to on a device: trained again in a process of their own, and what is refused."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from test_writer import STUDY, written

from analysis import footprint
from studies.command import compose
from studies.design import grid
from studies.record import LayerRecord, Result, Study, StudyError
from studies.store import fits, writer

SETTINGS = ["model.depth=1", "model.width=8", "training.epochs=1", "engine.xla=false", "data.train_size=200"]
TINY = Study(
    "tiny",
    "How small is it?",
    {"initializer": ("glorot_uniform", "zeros"), "pruning": ("none", "channels")},
    (0, 1),
    {},
    "val_accuracy",
    skip=({"initializer": ["zeros"], "pruning": ["channels"]},),
)


def stored(root, fresh, study, trials, outcome):
    """A store with a study's trials, each with the result that `outcome` gives."""
    shutil.copy(fresh / "mlflow.db", root)
    execution = writer.Execution(root, study, trials, "")
    for trial in trials:
        execution.write(trial, [], [], outcome(trial))
    execution.close("FINISHED")
    return root


@pytest.fixture(scope="module")
def root(tf, config, fresh, tmp_path_factory):
    """Two arms at two seeds, trained; of the arm that starts at zero the second seed is stored as it never was."""
    from studies.train import trial as training

    trials = grid.expand(TINY, config(SETTINGS), {}, SETTINGS, config, compose.settle, exact=False)

    def outcome(trial):
        *records, result = training.run(trial)
        assert not any(isinstance(record, LayerRecord) for record in records)
        wrong = trial.arm["initializer"] == "zeros" and trial.seed == 1
        return replace(result, val_loss=result.val_loss * 1.001) if wrong else result

    return stored(tmp_path_factory.mktemp("tiny"), fresh, TINY, trials, outcome)


@pytest.fixture(scope="module")
def found(root, tmp_path_factory):
    """The answer as JSON, and the folder of the files."""
    folder = tmp_path_factory.mktemp("files") / "new"
    return json.loads(footprint.footprint("tiny", root, seeds=2, format="json", to=folder)), folder


def rows(found, **wanted):
    return [row for row in found[0]["networks"] if all(row[name] == value for name, value in wanted.items())]


def test_each_arm_has_its_networks_and_files(found):
    drawn, zeros = (
        [(row["network"], row["file"]) for row in rows(found, initializer=initializer, pruning="none")]
        for initializer in ("glorot_uniform", "zeros")
    )
    assert drawn == [("dense", "float"), ("dense", "int8")]
    # All that a network learns that starts at zero are the last layer's biases: its hidden units are dead.
    assert zeros == [(name, kind) for name in ("dense", "channels removed", "narrow") for kind in ("float", "int8")]
    assert {row["seeds"] for row in found[0]["networks"]} == {2}


def test_a_pruned_network_stands_beside_the_dense_arm_and_smaller_ones(found):
    pruned, removed, narrow = rows(found, pruning="channels", file="float")
    assert [row["network"] for row in (pruned, removed, narrow)] == ["pruned", "channels removed", "narrow"]
    assert pruned["parameters"] == 64 * 8 + 8 + 8 * 10 + 10 and removed["parameters"] == 64 * 4 + 4 + 4 * 10 + 10
    assert pruned["accuracy"] == removed["accuracy"] == pytest.approx(pruned["model_accuracy"], abs=1e-6)
    assert narrow["parameters"] == pytest.approx(pruned["kept"], rel=0.2)
    [dense] = rows(found, initializer="glorot_uniform", network="dense", file="float")
    assert pruned["flops"] == dense["flops"] > 1.9 * removed["flops"] and removed["effective_flops"] < dense["flops"]
    assert pruned["of_dense"] == pytest.approx(pruned["p50"] / dense["p50"])


def test_numbers_are_of_the_network_and_of_its_file(found):
    dense, small = rows(found, initializer="glorot_uniform", pruning="none")
    assert dense["parameters"] == 64 * 8 + 8 + 8 * 10 + 10 and dense["flops"] == 2 * (64 * 8 + 8 * 10)
    assert 0.9 * dense["parameters"] < dense["kept"] <= dense["parameters"]
    assert dense["accuracy"] == pytest.approx(dense["model_accuracy"], abs=1e-6)
    assert small["accuracy"] == pytest.approx(dense["accuracy"], abs=0.05)
    assert small["bytes"] < dense["bytes"] and small["compressed"] < dense["compressed"]
    assert 0 < dense["p50"] <= dense["p95"] < 1 and dense["of_dense"] == 1
    dead, removed, narrow = rows(found, initializer="zeros", file="float")
    assert dead["kept"] <= 10 and dead["effective_flops"] == 0 and removed["parameters"] == 64 + 1 + 10 + 10
    assert dead["accuracy"] == removed["accuracy"] and narrow["parameters"] == removed["parameters"]
    assert removed["of_dense"] == pytest.approx(removed["p50"] / dead["p50"])


def test_a_trial_that_comes_out_otherwise_is_named_and_the_others_are_as_they_were(found):
    [note] = [note for note in found[0]["notes"] if "trained again" in note]
    assert note.startswith(
        "dense of zeros none: trained again it came out otherwise than in the store (val_accuracy 0."
    )


def test_files_are_kept_that_another_interpreter_can_run(found):
    from ai_edge_litert.interpreter import Interpreter

    names = sorted(path.name for path in found[1].iterdir())
    assert len(names) == 2 * (2 + 6 + 6)
    assert "initializer=zeros-pruning=none-seed=1-channels-removed-int8.tflite" in names
    opened = Interpreter(str(found[1] / "initializer=zeros-pruning=none-seed=0-dense-float.tflite"))
    assert opened.get_input_details()[0]["shape"].tolist() == [1, 8, 8, 1]


def test_the_table_has_what_was_measured(found):
    import pandas as pd

    from analysis.show import footprints, tables

    frame = pd.DataFrame(found[0]["networks"]).assign(reference="")
    frame["of_dense"] = frame["of_dense"].astype(float)
    text = footprints.table(frame, ["initializer"])
    assert "channels removed" in text and f"{rows(found)[0]['accuracy']:.4f}" in text
    for format in tables.FORMATS:
        assert "glorot" in footprints.table(frame, ["initializer"], format)
    missing = frame.assign(compressed=np.nan, p50=np.nan, p95=np.nan, of_dense=np.nan, accuracy=np.nan)
    assert "–" in footprints.table(missing, ["initializer"])
    fallen = frame.assign(in_floats=[["ELU"], *[[]] * (len(frame) - 1)])
    assert any("ELU in floats" in line for line in footprints.notes(fallen, ["initializer"]))
    assert " *" in footprints.table(fallen, ["initializer"])


def refused(capsys, *arguments):
    assert footprint.main([str(argument) for argument in arguments]) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.startswith("error: ") and error.count("\n") == 1
    return error


def test_what_cannot_be_is_refused_before_anything_is_trained(root, fresh, capsys, tmp_path):
    assert "did you mean tiny" in refused(capsys, "tinny", "--root", root).lower()
    assert "expected 1 or more" in refused(capsys, "tiny", "--root", root, "--seeds", 0)
    where = refused(capsys, "tiny", "--root", root, "--where", "initializer == 'he_normal'")
    assert "none of the 6 trials of tiny" in where
    assert "no column" in refused(capsys, "tiny", "--root", root, "--where", "innitializer == 'zeros'")


def test_a_study_without_a_trained_network_is_refused(config, fresh, capsys, tmp_path):
    shutil.copy(fresh / "mlflow.db", tmp_path)
    written(tmp_path, ("diverged", "diverged", "crashed", "timeout"))
    error = refused(capsys, STUDY.name, "--root", tmp_path)
    assert "none of these 4 trials has finished (diverged, crashed, timeout)" in error
    overrides = ["+study=claims/million_weights"]
    study = replace(TINY, name="computed", factors={}, skip=(), seeds=(0,), metric="millions")
    base = config(overrides)
    trials = grid.expand(study, base, {}, overrides, config, compose.settle, exact=False)
    stored(tmp_path, fresh, study, trials, lambda trial: Result(trial.key, "finished", quantities={"millions": 2.0}))
    assert "computed computes: its trials have no trained network" in refused(capsys, "computed", "--root", tmp_path)
    config, result = {"model": {"_target_": "Sequential"}}, Result("", "finished", val_accuracy=0.9)
    fits.Folder(tmp_path, "own").write(fits.Fit({"width": 8}, 0, config, "val_accuracy", [], [], result, "", {}))
    assert "own has fits of your own" in refused(capsys, "own", "--root", tmp_path)


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        (
            "training 2 of 3 again: width=8 seed=0\ntraining a narrow network",
            "It was at width=8 seed=0: leave that arm",
        ),
        ("training 3 of 3 again: width=8 seed=0\ntiming 4 files in turns", "It was at no arm: run it again"),
        ("", "It was at no arm: run it again"),
    ],
    ids=["training", "timing", "before"],
)
def test_an_arm_is_named_only_if_the_process_ended_at_it(monkeypatch, said, advice):
    monkeypatch.setattr(footprint, "PROCESS", f"print({said!r}, flush=True); raise SystemExit('no memory')")
    with pytest.raises(StudyError, match=f"exit code 1.: no memory. .*{advice}"):
        footprint._answered([{"config": {"engine": {"threads": 1}}}], None)
