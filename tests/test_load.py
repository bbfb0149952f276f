"""Frames from a store's folder and from a tracking server: the same, and only what was asked for."""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
from test_writer import CONFIG, STUDY, made_up_trials, records, written

from analysis import compare, load
from studies import contract
from studies.contract import CONFUSION_COLUMNS, DENSITY_COLUMNS, EPOCH_COLUMNS, LAYER_COLUMNS, STATISTICS
from studies.record import Result, StudyError
from studies.store import writer


@pytest.fixture(scope="module")
def root(fresh, tmp_path_factory):
    """A store of two executions, in a folder whose name a URI has to quote; a trial that crashed has no epochs."""
    root = tmp_path_factory.mktemp("a store")
    shutil.copy(fresh / "mlflow.db", root)
    written(root)
    trials = [replace(made_up_trials()[0], key="5" * 16, seed=2), replace(made_up_trials()[1], key="6" * 16, seed=3)]
    again = writer.Execution(root, replace(STUDY, seeds=(2, 3)), trials, "study: grown\n")
    again.write(trials[0], *records(trials[0]))
    again.write(trials[1], [], [], Result(trials[1].key, "crashed", error="it broke"))
    again.close("KILLED")
    return root


@pytest.fixture(scope="module")
def server(root):
    """The address of a tracking server of that store."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1"]
    process = subprocess.Popen(
        [*command, "--port", address.rpartition(":")[2], "--backend-store-uri", contract.uri(root)],
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
        cwd=root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{address}/health").close()
                break
            except OSError:
                assert process.poll() is None
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def all_keys(root):
    return [run.tags["trial.key"] for run in load.ended(STUDY.name, root)]


@pytest.mark.parametrize("frame", [load.trials, load.epochs, load.layers, load.settings])
def test_a_server_gives_the_frames_that_the_folder_gives(frame, root, server):
    for keys in (None, all_keys(root), []):
        here, there = frame(STUDY.name, root, keys), frame(STUDY.name, server + "/", keys)
        assert len(here) or not keys
        pd.testing.assert_frame_equal(here, there, check_exact=True)


def test_a_server_gives_the_studies_and_executions_that_the_folder_gives(root, server):
    assert load.studies(server) == load.studies(root) == [STUDY.name]
    assert load.executions(STUDY.name, server) == load.executions(STUDY.name, root)
    assert load.execution(STUDY.name, server) == load.execution(STUDY.name, root)
    assert load.finished_keys(STUDY.name, server) == load.finished_keys(STUDY.name, root)
    with pytest.raises(StudyError, match=f"no study 'nosuch' in {server}: it has made up"):
        load.trials("nosuch", server)


def test_a_server_that_lost_a_file_is_an_error_that_says_where_it_should_be(root, server):
    file = load.execution(STUDY.name, root).folder / "trials.json"
    file.rename(file.with_suffix(".lost"))
    try:
        for place, said in ((server, f"should be in {file.parent}"), (root, f"{file} cannot be read")):
            with pytest.raises(StudyError, match=said):
                load.trials(STUDY.name, place)
    finally:
        file.with_suffix(".lost").rename(file)


def test_an_address_without_a_server_is_an_error_at_once(server):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
        started = time.monotonic()
        for address, said in (
            (nobody, "does not answer .*Connection refused"),
            ("http://nosuch.invalid", "does not answer"),
            (f"{server}/elsewhere", "is no MLflow tracking server .*404"),
        ):
            with pytest.raises(StudyError, match=said):
                load.trials(STUDY.name, address)
        assert time.monotonic() - started < 10


def test_executions_are_in_their_order_with_what_a_report_needs(root):
    first, last = load.executions(STUDY.name, root)
    assert last == load.execution(STUDY.name, root) != first
    assert (first.status, last.status) == ("FINISHED", "KILLED") and (len(first.keys), len(last.keys)) == (4, 2)
    assert first.start_time <= first.end_time <= last.start_time <= last.end_time
    assert first.run_id in first.folder.parts and first.tags["version.keras"] == last.tags["version.keras"]
    assert (last.folder / "study.yaml").read_text() == "study: grown\n"


def test_layers_has_only_the_statistics_asked_for(root):
    whole = load.layers(STUDY.name, root)
    assert tuple(whole) == LAYER_COLUMNS
    some = load.layers(STUDY.name, root, statistics=["l2", "mean"])
    pd.testing.assert_frame_equal(some, whole[["key", "epoch", "layer", "tensor", "l2", "mean"]], check_exact=True)
    assert list(load.layers(STUDY.name, root, statistics=[])) == ["key", "epoch", "layer", "tensor"]
    with pytest.raises(StudyError, match="statistics=l3: expected some of mean, sd"):
        load.layers(STUDY.name, root, statistics=["l2", "l3"])


def test_rows_are_in_the_order_of_the_keys_and_frames_without_rows_have_their_columns(root):
    keys = all_keys(root)[::-1]
    for frame in (load.epochs, load.layers):
        with_rows = [key for key in keys if key != "6" * 16]
        assert list(dict.fromkeys(frame(STUDY.name, root, keys)["key"])) == with_rows
        assert tuple(frame(STUDY.name, root, ["6" * 16])) in (EPOCH_COLUMNS, LAYER_COLUMNS)


def test_trials_of_before_a_column_was_added_have_it_empty(root, tmp_path):
    old = shutil.copytree(root, tmp_path / "old")
    folder = load.trials(STUDY.name, old)["folder"].iloc[0]
    pd.read_parquet(folder / "layers.parquet").drop(columns=["kurtosis", "warning"]).to_parquet(
        folder / "layers.parquet"
    )
    assert set(load.layers(STUDY.name, old)["warning"]) == {""}
    for statistics in (STATISTICS, ["l2", "kurtosis"]):
        frame = load.layers(STUDY.name, old, statistics=statistics)
        assert frame["kurtosis"].isna().all() and frame["l2"].notna().all()


def test_densities_come_back_of_the_trials_that_have_them(fresh, tmp_path):
    shutil.copy(fresh / "mlflow.db", tmp_path)
    first, second = made_up_trials()[:2]
    execution = writer.Execution(tmp_path, STUDY, [first, second], "")
    for trial, density in ((first, tuple(range(64))), (second, ())):
        epochs, layers, result = records(trial)
        execution.write(trial, epochs, [replace(row, density=density) for row in layers], result)
    execution.close("FINISHED")
    frame = load.densities(STUDY.name, tmp_path)
    layers = load.layers(STUDY.name, tmp_path, [first.key])
    assert tuple(frame) == DENSITY_COLUMNS and set(frame["key"]) == {first.key} and len(frame) == len(layers)
    assert all(list(counts) == list(range(64)) for counts in frame["counts"])
    np.testing.assert_array_equal(frame[["low", "high"]], layers[["min", "max"]])
    assert tuple(load.densities(STUDY.name, tmp_path, [second.key])) == DENSITY_COLUMNS


def test_confusions_come_back_of_the_trials_that_have_them(fresh, tmp_path):
    shutil.copy(fresh / "mlflow.db", tmp_path)
    first, second = made_up_trials()[:2]
    execution = writer.Execution(tmp_path, STUDY, [first, second], "")
    found = {"val": [(0, 0, 5), (1, 0, 2)], "test": [(1, 1, 9)]}
    for trial, confusions in ((first, found), (second, {})):
        epochs, layers, result = records(trial)
        execution.write(trial, epochs, layers, replace(result, confusions=confusions))
    execution.close("FINISHED")
    frame = load.confusions(STUDY.name, tmp_path)
    assert tuple(frame) == CONFUSION_COLUMNS and set(frame["key"]) == {first.key}
    assert frame[["set", "class", "predicted", "count"]].to_numpy().tolist() == [
        ["val", 0, 0, 5],
        ["val", 1, 0, 2],
        ["test", 1, 1, 9],
    ]
    assert tuple(load.confusions(STUDY.name, tmp_path, [second.key])) == CONFUSION_COLUMNS


def test_every_number_of_a_result_is_a_column_that_comes_back(fresh, tmp_path):
    """One that is new in `Result` is asked for by `load`, and has to be written by `tracking`."""
    shutil.copy(fresh / "mlflow.db", tmp_path)
    trial = made_up_trials()[0]
    epochs, layers, result = records(trial)
    texts = ("key", "status", "error", "quantities", "confusions", "class_names")
    names = [field.name for field in fields(Result) if field.name not in texts]
    values = {name: float(place + 1) for place, name in enumerate(names)}
    execution = writer.Execution(tmp_path, STUDY, [trial], "")
    execution.write(trial, epochs, layers, replace(result, **values))
    execution.close("FINISHED")
    [row] = load.trials(STUDY.name, tmp_path).to_dict("records")
    assert {name: row[name] for name in names} == values


def test_what_an_earlier_version_stored_has_its_present_name_and_what_it_did_not_is_missing(root, tmp_path):
    """Means over the steps were once called as the trained network's numbers are now."""
    old = shutil.copytree(root, tmp_path / "old")
    with sqlite3.connect(old / "mlflow.db") as connection:
        connection.execute("DELETE FROM latest_metrics WHERE key LIKE 'train!_%' ESCAPE '!' OR key LIKE 'best%'")
        connection.execute("UPDATE latest_metrics SET key = 'train_loss' WHERE key = 'running_loss'")
        connection.execute("DELETE FROM latest_metrics WHERE key LIKE 'running!_%' ESCAPE '!'")
    now = load.trials(STUDY.name, root), load.epochs(STUDY.name, root)
    for folder in load.trials(STUDY.name, old)["folder"]:
        stored = pd.read_parquet(folder / "epochs.parquet").drop(columns=["train_loss", "train_accuracy", "clipped"])
        before = {"running_loss": "train_loss", "running_accuracy": "train_accuracy"}
        stored.rename(columns=before).to_parquet(folder / "epochs.parquet")
    trials, epochs = load.trials(STUDY.name, old), load.epochs(STUDY.name, old)
    for frame, expected in zip((trials, epochs), now, strict=True):
        pd.testing.assert_series_equal(frame["running_loss"], expected["running_loss"])
        assert expected["running_loss"].notna().any() and frame["val_loss"].notna().any()
        assert frame["train_loss"].isna().all()
    assert trials["best_val_loss"].isna().all() and epochs["clipped"].isna().all()
    renamed = "what earlier versions stored under that name is running_loss now"
    for format in ("terminal", "markdown", "json"):
        assert renamed in compare.table(STUDY.name, old, metric="train_loss", format=format)
        assert "earlier versions" not in compare.table(STUDY.name, root, metric="train_loss", format=format)
        assert "earlier versions" not in compare.table(STUDY.name, old, metric="running_loss", format=format)
        assert "earlier versions" not in compare.table(STUDY.name, old, metric="ema_val_loss", format=format)


def test_settings_are_the_configs_values_as_they_were(root):
    frame = load.settings(STUDY.name, root)
    assert list(frame["key"]) == list(load.trials(STUDY.name, root)["key"])
    assert set(frame["data"]) == {"up"} and set(frame["optimizer"]) == {"SGD"}
    assert set(frame["optimizer.learning_rate"]) == {CONFIG["optimizer"]["learning_rate"]}
    assert list(frame["model.depth"]) == [1, 1] and list(frame["seed"]) == [2, 3]
