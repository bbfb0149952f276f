"""What is exported is what `load` gives, and its dictionary explains every column."""

import json
import re
import shutil
from dataclasses import replace

import pandas as pd
import pytest
from test_writer import STUDY, made_up_trials, records

from analysis import export, load
from studies.contract import EPOCH_COLUMNS, LAYER_COLUMNS
from studies.store import writer

LEVELS = {"model.widths": (None, [8, 16], 3, "3"), "optimizer.nesterov": (True, False), "optimizer.rate": (1, 0.5)}


@pytest.fixture(scope="module")
def root(fresh, tmp_path_factory):
    """A store of a study whose factors' levels are of many types, one of its two nuisance factors' too."""
    root = tmp_path_factory.mktemp("store")
    shutil.copy(fresh / "mlflow.db", root)
    arms = [dict(zip(LEVELS, levels)) for levels in zip(LEVELS["model.widths"], (True, False) * 2, (1, 1, 1, 0.5))]
    nuisance = {"optimizer.beta": ("auto", 0.9)}
    study = replace(STUDY, factors=LEVELS, baseline={}, nuisance=nuisance, tuning_seeds=(9,))
    trials = [
        replace(trial, arm=arm, nuisance={"optimizer.beta": "auto"}) for trial, arm in zip(made_up_trials(), arms)
    ]
    execution = writer.Execution(root, study, trials, "")
    for trial in trials:
        execution.write(trial, *records(trial))
    execution.close("FINISHED")
    return root


def exported(root, folder):
    assert export.main([STUDY.name, "--to", str(folder), "--root", str(root)]) == 0
    return {name: pd.read_parquet(folder / f"{name}.parquet") for name in export.COLUMNS}


def described(folder):
    """Frame -> column -> type and meaning, as the dictionary's tables say."""
    sections = re.split(r"^## (\w+)\.parquet$", (folder / "dictionary.md").read_text(), flags=re.M)
    row = re.compile(r"^\| `(.+?)` \| (\w+) \| (.+) \|$", re.M)
    return {
        name: {column: (kind, meaning) for column, kind, meaning in row.findall(text)}
        for name, text in zip(sections[1::2], sections[2::2], strict=True)
    }


def test_the_table_of_meanings_is_complete(root):
    assert tuple(export.EPOCH) == EPOCH_COLUMNS and tuple(export.LAYER) == LAYER_COLUMNS
    factors = {*LEVELS, "optimizer.beta"}
    assert [name for name in load.trials(STUDY.name, root) if name not in factors] == [*export.TRIAL, "folder"]
    assert all(meaning for columns in export.COLUMNS.values() for meaning in columns.values())


def test_the_files_have_the_frames_and_levels_of_any_type_survive(root, tmp_path):
    frames = exported(root, tmp_path / "new" / "folder")
    trials = load.trials(STUDY.name, root)
    for name, mixed in {"model.widths": True, "optimizer.beta": True, "optimizer.nesterov": False}.items():
        read = frames["trials"][name]
        assert list(map(json.loads, read) if mixed else read) == list(trials[name])
    assert frames["trials"]["optimizer.rate"].tolist() == [1, 1, 1, 0.5]
    others = [name for name in trials if name not in ("model.widths", "optimizer.beta", "folder")]
    pd.testing.assert_frame_equal(frames["trials"][others], trials[others], check_exact=True)
    pd.testing.assert_frame_equal(frames["epochs"], load.epochs(STUDY.name, root), check_exact=True)
    pd.testing.assert_frame_equal(frames["layers"], load.layers(STUDY.name, root), check_exact=True)


def test_the_dictionary_has_a_line_for_every_column_of_every_file(root, tmp_path):
    frames = exported(root, tmp_path)
    told = described(tmp_path)
    assert {name: list(columns) for name, columns in told.items()} == {name: list(f) for name, f in frames.items()}
    trials = told["trials"]
    assert trials["model.widths"] == ("text", 'factor, each level as JSON text: `null`, `[8, 16]`, `3`, `"3"`')
    assert trials["optimizer.nesterov"] == ("boolean", "factor: `true`, `false`")
    assert trials["optimizer.rate"] == ("number", "factor: `1`, `0.5`")
    assert trials["optimizer.beta"][1].startswith("nuisance factor, tuned for each arm, each level as JSON text")
    assert trials["seed"][0] == "integer" and told["layers"]["kurtosis"][0] == "number"


def test_an_export_replaces_its_own_files_and_no_others(root, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "trials.parquet").write_text("of before")
    exported(root, tmp_path)
    names = {"trials.parquet", "epochs.parquet", "layers.parquet", "dictionary.md", "notes.txt"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_what_cannot_be_exported_is_an_error_in_one_paragraph(root, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    writer.Execution(root, replace(STUDY, name="begun"), [], "").close("FINISHED")
    for study, to, said in (
        ("nosuch", tmp_path, "error: no study 'nosuch' in"),
        ("begun", tmp_path, "error: no trial of begun in"),
        (STUDY.name, tmp_path / "file", "cannot be written (File exists)"),
        (STUDY.name, tmp_path / "file" / "below", "cannot be written (Not a directory)"),
    ):
        assert export.main([study, "--to", str(to), "--root", str(root)]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1


def test_an_export_does_not_replace_another_studys(root, tmp_path, capsys):
    (tmp_path / "dictionary.md").write_text("# another\n")
    assert export.main([STUDY.name, "--to", str(tmp_path), "--root", str(root)]) == 2
    assert "another study was exported there" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["dictionary.md"]
