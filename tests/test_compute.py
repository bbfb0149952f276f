"""Computed trials: their functions' inputs and quantities, their keys, and studies of them from command to store."""

import json
import math
import sqlite3
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis import export, load
from analysis.show import quantities as shown
from studies.command import compose
from studies.contract import TAG_LENGTH
from studies.design import grid
from studies.design.study import STUDYS, read_study
from studies.record import METRICS, Result, Study, StudyError

DESCENT = "studies.compute.descent.linear_regression"
STUDY = [
    f"+compute={{_target_: {DESCENT}, rate: 0.5}}",
    "+study.factors={compute.rate: [0.5, 1.1]}",
    "study.name=descent",
    "study.metric=agrees",
    "study.seeds=2",
]


@pytest.fixture(scope="module")
def trial(tf):
    from studies.compute import trial

    return trial


def node(**inputs):
    return {"_target_": DESCENT, **inputs}


def expanded(config, *overrides):
    base = config([*STUDY, *overrides])
    return grid.expand(read_study(base), base, {}, [*STUDY, *overrides], config, compose.settle, exact=False)


def test_a_computed_trial_is_its_function_inputs_seed_and_surroundings(config):
    trials = expanded(config)
    assert [(t.arm, t.seed) for t in trials] == [({"compute.rate": r}, s) for r in (0.5, 1.1) for s in (0, 1)]
    for same in ("optimizer=adam", "data.train_size=100", "training.epochs=3", "profile=full", "executor=serial"):
        assert [t.key for t in expanded(config, same)] == [t.key for t in trials], same
    for other in ("+compute.steps=10", "engine.threads=2"):
        assert not {t.key for t in expanded(config, other)} & {t.key for t in trials}, other
    assert not {"data", "model", "optimizer"} & trials[0].config.keys()


def test_what_trains_has_nothing_of_computing(config, trial_of):
    assert "compute" not in trial_of().config and not trial_of().computed


@pytest.mark.parametrize(
    ("inputs", "received", "allowed"),
    [
        ({"rate": 0}, "compute.rate=0", "a number above 0"),
        ({"rate": "fast"}, "compute.rate=fast", "a number above 0"),
        ({"rate": 0.5, "steps": 1.5}, "compute.steps=1.5", "a whole number of 1 or more"),
        ({}, "missing a required argument: 'rate'", "rate, momentum, steps"),
        ({"rate": 0.5, "size": 3}, "unexpected keyword argument 'size'", "rate, momentum, steps"),
        ({"_target_": "studies.compute.descent.nowhere"}, "nowhere", "linear_regression"),
        ({"_target_": "os.system"}, "os.system", "targets.allow"),
    ],
)
def test_wrong_inputs_are_refused_before_anything_runs(trial, inputs, received, allowed):
    [reason] = trial.check({"compute": node(**inputs), "targets": {"allow": []}})
    assert received in reason and allowed in reason


def test_an_input_that_its_rule_takes_is_not_refused(trial):
    assert list(trial.check({"compute": node(rate=1), "targets": {"allow": []}})) == []
    assert trial.ready(node(rate=1), [], np.random.default_rng(0)).keywords["rate"] == 1.0


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (3.0, "gave float"),
        ({}, "not empty"),
        ({"a b": 1}, "'a b'"),
        ({"seed": 1}, "'seed'"),
        ({"val_accuracy": 1}, "'val_accuracy'"),
        ({"of": "three"}, "of='three'"),
        ({"of": [1, 2]}, "of=[1, 2]"),
        ({"of": math.nan}, "of=nan"),
        ({f"q{place}": 1 / 3 for place in range(TAG_LENGTH // 25)}, "quantities"),
    ],
)
def test_quantities_that_cannot_be_kept_are_refused(trial, found, reason):
    with pytest.raises(StudyError, match="compute gave") as error:
        trial.quantities(found)
    assert reason in str(error.value)


def test_quantities_are_floats_in_double_precision(trial):
    found = trial.quantities({"third": np.float64(1 / 3), "count": 7, "lost": math.inf})
    assert found == {"third": 1 / 3, "count": 7.0, "lost": math.inf} and {type(v) for v in found.values()} == {float}


def test_an_unknown_metric_is_a_value_that_a_result_has_not():
    result = Result("k", "finished", quantities={"share": 0.5})
    assert result.value("share") == 0.5 and math.isnan(result.value("val_loss")) and math.isnan(result.value("key"))
    assert result.value("status") != "finished"


def test_a_computed_studys_choices_are_by_its_own_metric():
    study = Study("s", "?", {}, (0,), {}, "training_days")
    assert study.tuning_metric == "training_days"
    assert [replace(study, metric=m).tuning_metric for m in METRICS if m == "test_loss"] == ["val_loss"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["study.metric=val_loss"], "study.metric=val_loss: expected one of the quantities"),
        (["+study.nuisance={compute.momentum: [0, .5]}", "+compute.momentum=0"], "a computed study trains nothing"),
        (["+study.factors={compute.nowhere: [1]}"], "compute has no nowhere: it has rate"),
    ],
)
def test_a_wrong_computed_study_is_refused(config, overrides, said):
    with pytest.raises(StudyError, match="study") as error:
        expanded(config, *overrides)
    assert said in str(error.value)


def test_inputs_without_a_function_are_refused_by_what_is_meant(config):
    with pytest.raises(StudyError, match=r"compute=.*expected null, or a function and its inputs"):
        read_study(base := config(["+compute.rate=3", "study.metric=agrees"]))
        compose.settle({name: part for name, part in base.items() if name not in STUDYS})


def test_a_computed_study_goes_from_the_command_to_the_store_and_is_not_run_again(here, tmp_path):
    code, output, error = here(*STUDY)
    assert (code, error) == (0, "")
    assert "4 trials, 0 finished before, 4 to run" in output and "report" not in output.split("results")[1]
    frame = load.trials("descent")
    assert list(frame["agrees"]) == [1.0] * 4 and list(frame["converged"]) == [1.0, 1.0, 0.0, 0.0]
    measured = load.quantities(frame, load.execution("descent").study)
    assert measured == ["threshold", "condition", "distance", "excess", "steps_made", "converged", "agrees"]
    assert frame["threshold"].nunique() == 2 and (frame["threshold"] != frame["threshold"].astype("float32")).all()
    with sqlite3.connect("mlruns/mlflow.db") as connection:
        stored = {value for (value,) in connection.execute("SELECT value FROM latest_metrics WHERE key = 'agrees'")}
        params = dict(connection.execute("SELECT key, value FROM params WHERE key LIKE 'compute%'"))
    assert stored == {1.0} and params["compute"] == "linear_regression"

    files = export.write("descent", tmp_path / "exported")
    dictionary = (tmp_path / "exported" / "dictionary.md").read_text()
    assert len(files) == 4 and f"| `threshold` | number | {export.QUANTITY} |" in dictionary

    code, output, _ = here(*STUDY, "study.seeds=3", "executor=serial")
    assert code == 0 and "6 trials, 4 finished before, 2 to run" in output
    again = here(*STUDY, "study.seeds=3", "tracking.root=serial", "executor=serial")
    assert again[0] == 0
    wanted = [*measured, "key", "seed"]
    serial = load.trials("descent", "serial")[wanted]
    pd.testing.assert_frame_equal(load.trials("descent")[wanted], serial, check_exact=True)

    assert "  6 finished in mlruns, 6 to run again\n" in here(*STUDY, "study.seeds=3", "--force", "--plan")[1]
    before = {run.run_id for run in load.ended("descent")}
    code, output, _ = here(*STUDY, "study.seeds=3", "executor=serial", "--force")
    assert code == 0 and "6 trials, 6 finished before, 6 to run again" in output
    latest = {run.tags["trial.key"]: run.run_id for run in load.ended("descent")}
    assert len(latest) == 6 and before.isdisjoint(latest.values())
    pd.testing.assert_frame_equal(load.trials("descent")[wanted], serial, check_exact=True)
    assert "6 trials, 6 finished before, 0 to run\n" in here(*STUDY, "study.seeds=3", "executor=serial")[1]

    code, _, error = here(*STUDY, "study.metric=nowhere")
    assert code == 2 and "expected one of the quantities that compute gave, threshold" in error


def test_a_wrong_input_ends_the_command_before_anything_is_stored(cli, tmp_path):
    code, _, error = cli(*STUDY, "+compute.steps=0", "executor=serial")
    assert code == 2 and error.startswith("error: compute.steps=0: expected a whole number") and error.count("\n") == 1
    assert not (tmp_path / "mlruns" / "mlflow.db").exists() or load.studies() == []


def test_a_function_of_the_users_own_is_called_and_one_that_raises_has_crashed(cli, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "def measured(rng, raises=False):\n"
        "    if raises:\n        raise ArithmeticError('no such number')\n"
        "    return {'drawn': rng.random()}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ["+compute={_target_: mine.measured, raises: false}", "+study.factors={compute.raises: [false, true]}"]
    words += ["targets.allow=[mine.]", "study.name=mine", "study.metric=drawn", "executor=serial"]
    code, output, _ = cli(*words)
    assert code == 1 and "ArithmeticError: no such number" in output
    frame = load.trials("mine")
    assert list(frame["status"]) == ["finished", "crashed"] and frame["drawn"].dtype == float
    assert frame["drawn"][0] == np.random.default_rng(0).random() and math.isnan(frame["drawn"][1])
    sys.modules.pop("mine")


FRAME = pd.DataFrame(
    {"f": ["a", "a", "b", "c"], "status": ["finished"] * 3 + ["crashed"], "n": [1, 3, 5, math.nan], "x": [0.1] * 4}
)


def test_the_table_of_quantities_has_an_arm_a_row_with_its_span():
    text = shown.table(FRAME, ["f"], ["n", "x"])
    rows = [line.split() for line in text.splitlines()[2:]]
    assert rows[0] == ["a", "2", "0", "2", "[1,", "3]", "0.1"] and rows[1] == ["b", "1", "0", "5", "0.1"]
    assert rows[2] == ["c", "0", "1", "–", "–"]


def test_the_table_of_quantities_has_them_in_full_for_programs():
    first, *_ = json.loads(shown.table(FRAME, ["f"], ["n"], "json"))
    assert first == {"f": "a", "seeds": 2, "failed": 0, "n_mean": 2.0, "n_least": 1.0, "n_greatest": 3.0}


def test_a_function_has_as_many_threads_as_the_trial_says(trial, config, tmp_path, monkeypatch):
    """NumPy rounds otherwise with more, and a driver that runs trials itself has one a core."""
    (tmp_path / "threaded.py").write_text(
        "import threadpoolctl\n\ndef most():\n"
        "    return {'most': max(pool['num_threads'] for pool in threadpoolctl.threadpool_info())}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    [one, *_] = expanded(config)
    node, allowed = {"_target_": "threaded.most"}, {"allow": ["threaded."]}
    with trial.threadpool_limits(2):
        [result] = trial.run(replace(one, config=one.config | {"compute": node, "targets": allowed}))
    assert result.quantities == {"most": 1.0}
    sys.modules.pop("threaded")
