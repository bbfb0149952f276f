"""The store without TensorFlow: made-up records, MLflow's own client to read them back."""

import functools
import io
import json
import math
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.tracking import MlflowClient
from rich.console import Console

from analysis import load
from analysis.estimate import comparison
from studies import contract
from studies.command.sweep import Sweep
from studies.contract import CHARTED_EPOCHS, EPOCH_COLUMNS, LAYER_COLUMNS, STATISTICS, charted
from studies.factors import data
from studies.record import EpochRecord, LayerRecord, Result, Study, StudyError, Trial
from studies.store import database, files, writer

EPOCHS = 30
STUDY = Study(
    "made up", "Does it keep what it is given?", {"model.depth": (1, 2)}, (0, 1), {"model.depth": 1}, "val_loss"
)
CONFIG = {
    "data": {"_target_": "made.up", "path": "/made/up.npz", "content": "0123abcd", "train_size": None},
    "model": {"_target_": "studies.models.mlp", "depth": 1},
    "initializer": {"_target_": "keras.initializers.Zeros"},
    "optimizer": {"_target_": "keras.optimizers.SGD", "learning_rate": 0.1},
    "schedule": {"_target_": "studies.schedules.constant"},
    "regularizer": {},
    "clipping": {},
    "training": {"epochs": EPOCHS, "batch_size": 32},
}


def made_up_trials():
    return [
        Trial(f"{depth}{seed}" * 8, STUDY.name, "scientific", {"model.depth": depth}, seed, CONFIG, ("a=1",), "graph")
        for depth in (1, 2)
        for seed in (0, 1)
    ]


def records(trial, status="finished"):
    rng = np.random.default_rng(trial.seed)
    epochs = [
        EpochRecord(trial.key, e, 100 * e, 0.1, math.nan if e == 0 else rng.random(), rng.random(), *rng.random(3))
        for e in range(EPOCHS + 1)
    ]
    layers = [
        LayerRecord(trial.key, e, layer, tensor, (*rng.random(len(STATISTICS) - 1), math.nan))
        for layer in ("dense_1", "logits")
        for tensor in ("kernel", "recurrent_kernel", "bias")
        for e in range(EPOCHS + 1)
    ]
    result = Result(trial.key, status, EPOCHS, *rng.random(12), parameters=99, classes=10, seconds_total=2.0)
    return epochs, layers, replace(result, error="it broke\ntraceback") if status == "crashed" else result


@pytest.fixture
def root(fresh, tmp_path):
    shutil.copy(fresh / "mlflow.db", tmp_path)
    return tmp_path


def written(root, statuses=("finished", "diverged", "crashed", "timeout")):
    trials = made_up_trials()
    execution = writer.Execution(root, STUDY, trials, "study: made up\n", None, {"machine": "m" * 9000}, data.entry)
    for trial, status in zip(trials, statuses, strict=True):
        execution.write(trial, *records(trial, status))
    execution.close("FINISHED", "| a table |")
    return trials


def seen_by_mlflow(root):
    """All that MLflow's client says of the store's runs, by name, but for ids and times."""
    client = MlflowClient(contract.uri(root))
    experiment = client.get_experiment_by_name(STUDY.name)
    [parent] = client.search_runs([experiment.experiment_id], "tags.trial.role = 'execution'")

    def without_ids(tags):
        words = {parent.info.run_id: "PARENT", root.as_uri(): "ROOT"}
        return {k: functools.reduce(lambda v, old: v.replace(old, words[old]), words, v) for k, v in tags.items()}

    seen = {"experiment": (Path(experiment.artifact_location).name, without_ids(experiment.tags))}
    for run in client.search_runs([experiment.experiment_id]):
        tags = without_ids(run.data.tags)
        inputs = [(vars(each.dataset), [vars(tag) for tag in each.tags]) for each in run.inputs.dataset_inputs]
        history = {
            name: sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, name))
            for name in ("val_loss", "weights/dense_1/l2", "test_accuracy")
            if name in run.data.metrics
        }
        files = sorted(artifact.path for artifact in client.list_artifacts(run.info.run_id))
        seen[run.info.run_name] = (run.info.status, tags, run.data.params, run.data.metrics, history, files, inputs)
    return seen


def test_a_database_made_here_is_one_of_a_known_version(fresh):
    assert database.version(fresh / "mlflow.db") in contract.SCHEMAS


def test_sql_and_mlflows_client_write_the_same(fresh, tmp_path, monkeypatch):
    seen = []
    for known in (contract.SCHEMAS, ()):
        monkeypatch.setattr("studies.contract.SCHEMAS", known)
        root = tmp_path / str(len(known))
        root.mkdir()
        shutil.copy(fresh / "mlflow.db", root)
        written(root)
        seen.append(seen_by_mlflow(root))
    assert seen[0] == seen[1]
    statuses = {name: entry[0] for name, entry in seen[0].items() if "seed" in name}
    expected = ["FINISHED", "FINISHED", "FAILED", "KILLED"]
    assert statuses == dict(
        zip(["depth=1 seed=0", "depth=1 seed=1", "depth=2 seed=0", "depth=2 seed=1"], expected, strict=True)
    )


def test_every_run_has_the_dataset_that_it_trained_on_and_an_execution_the_one_they_share(root):
    trials = written(root)
    client = MlflowClient(contract.uri(root))
    [experiment] = [e.experiment_id for e in client.search_experiments() if e.name == STUDY.name]
    found = client.search_runs([experiment], "dataset.name = 'up'")
    assert len(found) == len(trials) + 1
    [(dataset, tags)] = {
        (tuple(vars(each.dataset).items()), tuple((tag.key, tag.value) for tag in each.tags))
        for run in found
        for each in run.inputs.dataset_inputs
    }
    assert tags == (("mlflow.data.context", "training"),)
    entry = {f"_{name}": value for name, value in data.entry(CONFIG["data"]).items()}
    assert dict(dataset) == entry | {"_schema": None}

    fewer = replace(trials[0], key="f" * 16, config=CONFIG | {"data": CONFIG["data"] | {"train_size": 9}})
    execution = writer.Execution(root, STUDY, [*trials, fewer], "", entry=data.entry)
    execution.write(fewer, *records(fewer))
    execution.close("FINISHED")
    assert client.get_run(execution.parent).inputs.dataset_inputs == []
    digests = {each.dataset.digest for run in client.search_runs([experiment]) for each in run.inputs.dataset_inputs}
    assert len(digests) == 2


def test_numbers_whose_names_are_alike_to_mlflow_end_an_execution_as_others_do(root):
    execution = writer.Execution(root, STUDY, made_up_trials(), "")
    execution.close("FINISHED", numbers={"path=a+b": 0.5, "path=a:b": 0.5, "c": 2, "none": math.nan})
    run = MlflowClient(contract.uri(root)).get_run(execution.parent)
    assert run.info.status == "FINISHED" and run.data.metrics == {"path_a_b": 0.5, "c": 2}


def test_descriptions_say_what_is_asked_and_where_the_answer_is(root):
    execution = writer.Execution(root, STUDY, made_up_trials(), "")
    table = "\n".join(f"| row {n:04d} of a long table |" for n in range(1000))
    execution.close("FINISHED", table)
    client = MlflowClient(contract.uri(root))
    experiment = client.get_experiment_by_name(STUDY.name)
    page = f"#/experiments/{experiment.experiment_id}/runs/{execution.parent}"
    description = experiment.tags["mlflow.note.content"]
    for part in (STUDY.question, "`model.depth` (compared): 1, 2", page, "analysis.compare 'made up'", "report.html"):
        assert part in description
    view = json.loads(experiment.tags["mlflow.sharedViewState.study"])
    assert view["selectedColumns"][:3] == ["metrics.`val_loss`", "params.`model.depth`", "params.`seed`"]
    note = client.get_run(execution.parent).data.tags["mlflow.note.content"]
    assert note.startswith(STUDY.question) and f"{page}/artifactPath/report.html" in note
    assert len(note) <= writer.TAG_LENGTH and note.endswith(" of a long table |") and "row 0000" in note


def test_the_studys_metric_and_factors_come_first(root):
    written(root)
    client = MlflowClient(contract.uri(root))
    [run] = client.search_runs([client.get_experiment_by_name(STUDY.name).experiment_id], "params.model.depth = '2'")[
        :1
    ]
    assert list(run.data.params)[:2] == ["model.depth", "seed"]
    assert next(iter(run.data.metrics)) == STUDY.metric == "val_loss"


def test_sql_and_mlflows_client_read_the_same(root, monkeypatch):
    written(root)
    by_sql = load.trials(STUDY.name, root)
    monkeypatch.setattr("studies.contract.SCHEMAS", ())
    pd.testing.assert_frame_equal(by_sql, load.trials(STUDY.name, root), check_exact=True)


def test_what_was_written_is_read_to_the_bit(root):
    trials = written(root)
    frame = load.trials(STUDY.name, root)
    assert list(frame["key"]) == [trial.key for trial in trials]
    assert list(frame["model.depth"]) == [1, 1, 2, 2] and list(frame["seed"]) == [0, 1, 0, 1]
    assert frame["error"].str.startswith("it broke").tolist() == [False, False, True, False]
    epochs, layers = load.epochs(STUDY.name, root), load.layers(STUDY.name, root)
    assert tuple(epochs.columns) == EPOCH_COLUMNS and tuple(layers.columns) == LAYER_COLUMNS
    for trial in trials:
        given_epochs, given_layers, result = records(trial)
        np.testing.assert_array_equal(
            epochs[epochs["key"] == trial.key].to_numpy()[:, 1:].astype(float),
            [list(vars(record).values())[1:] for record in given_epochs],
        )
        np.testing.assert_array_equal(
            layers[layers["key"] == trial.key][list(STATISTICS)], [record.statistics for record in given_layers]
        )
        row = frame[frame["key"] == trial.key].iloc[0]
        assert row["test_accuracy"] == result.test_accuracy and row["epochs"] == EPOCHS


def test_a_level_that_is_null_leaves_the_others_as_they_are(root):
    levels = [None, 3, 3, None]
    trials = [replace(trial, arm={"seeds.init": level}) for trial, level in zip(made_up_trials(), levels, strict=True)]
    execution = writer.Execution(root, STUDY, trials, "")
    for trial in trials:
        execution.write(trial, *records(trial))
    execution.close("FINISHED")
    frame = load.trials(STUDY.name, root)
    assert list(frame["seeds.init"]) == levels and {type(level) for level in frame["seeds.init"]} == {int, type(None)}
    compared = comparison.comparison(frame, ["seeds.init"], "val_loss", {"seeds.init": None})
    assert list(compared["seeds.init"]) == [None, 3] and list(compared["seeds"]) == [2, 2]


def test_children_are_nested_and_charted_at_a_dozen_epochs(root):
    written(root)
    client = MlflowClient(contract.uri(root))
    runs = client.search_runs([client.get_experiment_by_name(STUDY.name).experiment_id])
    (parent,) = [run for run in runs if run.data.tags["trial.role"] == "execution"]
    children = [run for run in runs if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    steps = [m.step for m in client.get_metric_history(children[0].info.run_id, "gradients/logits/norm")]
    assert len(steps) == CHARTED_EPOCHS and {0, 1, EPOCHS} <= set(steps)
    assert {"weights/logits/l2", "weights/logits_recurrent/l2"} <= children[0].data.metrics.keys()
    assert not any("bias" in name for name in children[0].data.metrics)


def test_a_killed_driver_leaves_nothing_half_written(root, monkeypatch):
    for known in (contract.SCHEMAS, ()):
        monkeypatch.setattr("studies.contract.SCHEMAS", known)
        trials = made_up_trials()
        killed = writer.Execution(root, STUDY, trials, "")
        killed.store.begin("depth=1 seed=0", {"trial.key": trials[0].key, "trial.status": "finished"}, 0)
        assert load.finished_keys(STUDY.name, root) == set()
        writer.Execution(root, STUDY, trials, "").close("FINISHED")
        client = MlflowClient(contract.uri(root))
        runs = client.search_runs([client.get_experiment_by_name(STUDY.name).experiment_id])
        assert {run.data.tags["trial.role"] for run in runs if "trial.role" in run.data.tags} == {"execution"}
        assert not [run for run in runs if run.info.status == "RUNNING"]


def test_a_job_leaves_the_runs_of_its_sweeps_other_jobs_alone_and_shares_their_parent(root, monkeypatch):
    for known in (contract.SCHEMAS, ()):
        monkeypatch.setattr("studies.contract.SCHEMAS", known)
        jobs = Sweep(Path(f"sweep-{len(known)}"), ["-m", "seed=0,1"], False)
        executions = [writer.Execution(root, STUDY, made_up_trials(), "", jobs) for _ in range(2)]
        client = MlflowClient(contract.uri(root))
        runs = [client.get_run(execution.parent) for execution in executions]
        assert [run.info.status for run in runs] == ["RUNNING", "RUNNING"]
        [parent] = {run.data.tags["mlflow.parentRunId"] for run in runs}
        assert client.get_run(parent).info.run_name == "sweep seed=0,1"
        for execution in executions:
            execution.close("FINISHED")
        writer.end_sweep(root, STUDY.name, jobs.id, "FINISHED", "| jobs |")
        assert client.get_run(parent).info.status == "FINISHED"
        assert [artifact.path for artifact in client.list_artifacts(parent)] == ["sweep.md"]

        theirs = client.create_run(runs[0].info.experiment_id, run_name="a user's own").info.run_id
        killed = writer.Execution(root, STUDY, made_up_trials(), "", Sweep(Path("other"), [], False))
        writer.Execution(root, STUDY, made_up_trials(), "", jobs).close("FINISHED")
        assert client.get_run(killed.parent).info.status == "KILLED"
        assert client.get_run(theirs).info.status == "RUNNING"
        assert load.execution(STUDY.name, root).study == STUDY


def test_a_trials_overrides_are_kept_whole_however_long(root):
    trials = [
        replace(trial, overrides=("a=" + length * "x", "seed=0")) for trial, length in zip(made_up_trials(), (10, 9000))
    ]
    execution = writer.Execution(root, STUDY, trials, "")
    for trial in trials:
        execution.write(trial, *records(trial))
    execution.close("FINISHED")
    tags = {run.tags["trial.key"]: run.tags for run in load.ended(STUDY.name, root)}
    for trial, folder in zip(trials, load.trials(STUDY.name, root)["folder"], strict=True):
        assert tuple(yaml.safe_load((folder / "config.yaml").read_text())["overrides"]) == trial.overrides
    assert [json.loads(tags[trial.key].get("trial.overrides", "null")) for trial in trials] == [
        ["a=xxxxxxxxxx", "seed=0"],
        None,
    ]


def test_a_study_has_one_driver_or_the_jobs_of_one_sweep(tmp_path):
    with database.claimed(tmp_path, "s", ""), database.claimed(tmp_path, "other", ""):
        for sweep in ("", "a"):
            with pytest.raises(StudyError, match="another process runs s in"), database.claimed(tmp_path, "s", sweep):
                pass
    with database.claimed(tmp_path, "s", "a"), database.claimed(tmp_path, "s", "a"):
        for sweep in ("", "b"):
            with pytest.raises(StudyError, match="another process runs s in"), database.claimed(tmp_path, "s", sweep):
                pass
    with database.claimed(tmp_path, "s", "b"):
        pass


def test_a_crashed_trial_is_run_again_and_its_new_run_counts(root):
    trials = written(root, ("finished", "crashed", "finished", "finished"))
    assert load.finished_keys(STUDY.name, root) == {trials[i].key for i in (0, 2, 3)}
    again = writer.Execution(root, STUDY, trials, "")
    again.write(trials[1], *records(trials[1]))
    again.close("FINISHED")
    assert load.finished_keys(STUDY.name, root) == {trial.key for trial in trials}
    assert list(load.trials(STUDY.name, root)["status"]) == ["finished"] * 4


def test_the_latest_execution_says_which_trials_count(root):
    trials = written(root)
    writer.Execution(root, STUDY, trials[:2], "").close("FINISHED")
    assert len(load.trials(STUDY.name, root)) == 2
    assert load.execution(STUDY.name, root).study == STUDY


def test_a_store_that_was_moved_still_has_its_artifacts(root, tmp_path_factory):
    trials = written(root)
    moved = tmp_path_factory.mktemp("new place") / "store"
    shutil.move(root, moved)
    assert len(load.layers(STUDY.name, moved)) == 4 * 2 * 3 * (EPOCHS + 1)
    writer.Execution(moved, STUDY, trials, "").close("FINISHED")
    client = MlflowClient(contract.uri(moved))
    for run in client.search_runs([client.get_experiment_by_name(STUDY.name).experiment_id]):
        assert Path(client.download_artifacts(run.info.run_id, "")).is_relative_to(moved)


def test_an_unknown_study_is_an_error_that_lists_what_there_is(root, tmp_path):
    written(root)
    with pytest.raises(StudyError, match=r"no study 'nosuch'.*it has made up"):
        load.trials("nosuch", root)
    with pytest.raises(StudyError, match="none yet"):
        load.trials("nosuch", tmp_path / "nowhere")


@pytest.mark.parametrize("last", [1, 5, 12, 13, 14, 20, 30, 100, 1000])
def test_charted_epochs(last):
    chosen = sorted(charted(list(range(last + 1))))
    assert len(chosen) == min(last + 1, CHARTED_EPOCHS)
    assert chosen[:2] == [0, 1] and chosen[-1] == last
    gaps = np.diff(chosen)
    assert (gaps[1:] >= gaps[:-1]).all() or last < 25


def test_a_root_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="cannot be written"):
        database.check_writable(tmp_path / "file" / "store")
    (tmp_path / "mlflow.db").write_text("not a database at all")
    with pytest.raises(StudyError, match="not an SQLite database"):
        database.check_writable(tmp_path)


def test_two_drivers_that_make_one_database_at_once_share_it(tmp_path):
    with ThreadPoolExecutor(4) as drivers:
        list(drivers.map(database.make, [tmp_path] * 4))
    for name in ("one", "two"):
        database.make(tmp_path)
        writer.Execution(tmp_path, replace(STUDY, name=name), [], "").close("FINISHED")
    assert load.studies(tmp_path) == ["one", "two"]
    assert not (tmp_path / ".mlflow.db.new").exists()


def test_files_are_replaced_whole_whoever_reads_meanwhile(root):
    execution = writer.Execution(root, STUDY, made_up_trials(), "study: made up\n")
    stop, wrong = threading.Event(), []

    def read():
        while not stop.is_set():
            try:
                json.loads((execution.artifacts / "trials.json").read_text())
            except ValueError as error:
                wrong.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(300):
        execution.keep_design(made_up_trials())
    stop.set()
    reader.join()
    assert not wrong


def test_what_trials_were_trained_by_is_kept_and_a_mixture_is_said_before_and_after(root):
    from analysis import compare
    from studies.command import driver, provenance

    now = provenance.circumstances()
    old = now | {"version.keras": "2.0", "processor": "another"}
    trials = made_up_trials()
    for these, by in ((trials[:2], old), (trials[2:], now)):
        execution = writer.Execution(root, STUDY, trials, "", provenance=by)
        for trial in these:
            execution.write(trial, *records(trial))
        execution.close("FINISHED")
    frame = load.trials(STUDY.name, root)
    assert list(frame["version.keras"]) == ["2.0"] * 2 + [now["version.keras"]] * 2
    for text in (compare.answer(STUDY, frame, root), report(execution, frame, root)):
        assert f"keras 2.0 (2) and {now['version.keras']} (2); processor another (2) and " in text
        assert "device" not in text.partition("not all trained by the same")[2].partition(":")[0]

    printed = io.StringIO()
    drive = driver.Driver(STUDY, None, root, "", Console(file=printed, width=300))
    drive._warner_of_mixing({trial.key for trial in trials[2:]})(now)
    drive._warner_of_mixing(set())(now)
    drive._warner_of_mixing({trial.key for trial in trials[:2]})(old)  # as workers elsewhere say
    assert printed.getvalue() == ""
    warn = drive._warner_of_mixing({trial.key for trial in trials})
    warn(now), warn(now)
    assert printed.getvalue().count(f"2 by keras 2.0, now {now['version.keras']}; 2 by processor another, now ") == 1


def report(execution, frame, root) -> str:
    """The report's page as text."""
    from analysis import report

    [found] = [each for each in load.executions(STUDY.name, root) if each.run_id == execution.parent]
    return report.report(found, frame, root).html


def test_a_sweep_that_ended_before_there_was_a_database_makes_none(tmp_path):
    """MLflow itself would take half a minute to make one, after Ctrl-C."""
    writer.end_sweep(tmp_path, STUDY.name, "some", "KILLED", "| jobs |")
    assert not list(tmp_path.iterdir())


def test_only_what_a_run_is_called_is_deleted_as_half_written(root):
    folder = files.folder_of(writer.opened(root, STUDY.name))
    half, kept = folder / ("0" * 32) / "artifacts" / "a", folder / "theirs" / "b"
    for file in (half, kept):
        file.parent.mkdir(parents=True)
        file.touch()
    for name in ("0" * 32, "", "..", "theirs"):
        (folder / f"{files.NOTE}{name}").touch()
    writer.Execution(root, STUDY, made_up_trials(), "").close("FINISHED")
    assert not half.exists() and kept.exists() and not list(folder.glob(f"{files.NOTE}*"))
