"""What foretells the end: against scipy and scikit-learn, in simulated studies, and by its command."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score
from test_writer import CONFIG, STUDY, records

from analysis import foretell, load
from analysis.estimate import foretell as estimates
from analysis.show import foretelling
from studies.contract import STATISTICS
from studies.record import Result, StudyError, Trial
from studies.store import writer

NAN = float("nan")
pytestmark = pytest.mark.filterwarnings("error")


def frames(values, failed, l2, seeds=1, layers=1):
    """The frames of a study: an arm each entry, or trials of arms, with a kernel's norm at epoch 1."""
    n = len(values)
    status = np.where(np.array(failed) == 1, "diverged", np.where(np.array(failed) == 0, "finished", "crashed"))
    trials = pd.DataFrame(
        {
            "key": [f"t{i}" for i in range(n)], "arm": [f"a{i // seeds}" for i in range(n)],
            "seed": [i % seeds for i in range(n)], "status": status, "val_accuracy": np.array(values, float),
            "epochs": 3, "classes": 10, "chance_train": 0.1, "chance_val": 0.1, "running_accuracy": 0.9,
        }
    )  # fmt: skip
    epochs = pd.DataFrame(
        [(key, e, 1000 * e, 0.5 / (e + 1)) for key in trials["key"] for e in range(4)],
        columns=["key", "epoch", "examples", "val_loss"],
    )
    rows = [
        (key, e, f"dense_{n}", "kernel", value * (n + 1) if e == 1 else 1.0)
        for key, value in zip(trials["key"], l2, strict=True)
        for e in range(4)
        for n in range(layers)
    ]
    return trials, epochs, pd.DataFrame(rows, columns=["key", "epoch", "layer", "tensor", "l2"])


def found(*frames, at=(1,), seed=0, **settings):
    return estimates.foretold(*frames, ["arm"], "val_accuracy", at, np.random.default_rng(seed), **settings)


def data(x, value, failed, arm):
    return estimates.Data(
        np.array(x, float)[:, None], *(np.array(each, float) for each in (value, failed)), np.array(arm)
    )


def test_rank_correlation_and_auc_are_scipys_and_scikit_learns_with_ties_and_missing_values():
    rng = np.random.default_rng(0)
    failed = rng.random(40) < 0.3
    values = np.where(failed, 0.1, rng.integers(3, 10, 40) / 10)  # a failure scores chance
    l2 = np.where(rng.random(40) < 0.2, NAN, rng.integers(0, 6, 40) + 2 * failed)
    [row] = found(*frames(values, failed, l2)).to_dict("records")
    there = ~np.isnan(l2)
    assert row["rho"] == pytest.approx(stats.spearmanr(l2[there], values[there]).statistic, abs=1e-12)
    assert row["auc"] == pytest.approx(roc_auc_score(failed[there], l2[there]), abs=1e-12)
    assert (row["trials"], row["failures"]) == (there.sum(), failed[there].sum())
    assert (row["of"], row["statistic"], row["epoch"]) == ("kernel", "l2", 1)


def test_resampled_arms_give_what_copying_their_trials_gives():
    rng = np.random.default_rng(1)
    arm = np.repeat(np.arange(6), 3)
    x, value, failed = rng.integers(0, 5, 18), rng.integers(0, 9, 18) / 9, rng.random(18) < 0.5
    drawn = rng.multinomial(6, np.full(6, 1 / 6), 20).astype(float)
    rhos = estimates._rhos(drawn, arm, *(estimates.below(each, each, arm, 6) for each in (x, value)))
    for times, rho in zip(drawn, rhos, strict=True):
        copies = np.repeat(np.arange(18), times[arm].astype(int))
        assert rho == pytest.approx(stats.spearmanr(x[copies], value[copies]).statistic)

    class Twice:  # the same sample each time: both ends of an interval are its value
        def multinomial(self, *_):
            return np.tile(times, (estimates.RESAMPLES, 1))

    low, _, auc, _ = data(x, value, failed, arm).resampled(0, Twice())
    assert low == pytest.approx(rhos[-1])
    assert auc == pytest.approx(roc_auc_score(failed[copies], x[copies]))


def test_intervals_cover_where_trials_of_an_arm_are_copies_and_resampling_trials_would_not(monkeypatch):
    monkeypatch.setattr(estimates, "RESAMPLES", 200)
    rng, true, covered = np.random.default_rng(0), 6 / np.pi * np.arcsin(0.6 / 2), {"arms": 0, "trials": 0}
    for _ in range(40):
        x = rng.normal(size=20)
        y = 0.6 * x + 0.8 * rng.normal(size=20)
        copies = np.repeat(np.arange(20), 5)
        for unit, arm in (("arms", copies), ("trials", np.arange(100))):
            low, high, *_ = data(x[copies], y[copies], y[copies] < 0, arm).resampled(0, rng)
            covered[unit] += low <= true <= high
    assert covered["arms"] >= 34 and covered["trials"] <= 32  # of 40; expected 38 and 26


def test_one_in_twenty_studies_that_hold_nothing_has_a_small_p(monkeypatch):
    monkeypatch.setattr(estimates, "PERMUTATIONS", 99)
    rng, small = np.random.default_rng(0), {"arms": 0, "trials": 0}
    for _ in range(60):
        copies = np.repeat(np.arange(12), 4)
        x, y = rng.normal(size=(12, 15))[copies], rng.normal(size=12)[copies]
        for unit, arm in (("arms", copies), ("trials", np.arange(48))):
            p = estimates.Data(x, y, (y < 0).astype(float), arm).chances(rng)
            small[unit] += p["rho_p"].min() <= 0.05
    assert small["arms"] <= 8 and small["trials"] >= 30  # of 60; expected 3 and 50


def test_p_is_small_where_something_is_foretold_and_counts_the_epochs_looked_at():
    value = np.arange(20) / 20
    one = found(*frames(value, [0] * 20, value))
    two = found(*frames(value, [0] * 20, value), at=(1, 2))
    assert one["rho_p"].tolist() == pytest.approx([1 / 1001]) and two["rho_p"].tolist() == pytest.approx([2 / 1001])


def test_arms_exchange_ends_only_with_arms_of_as_many_trials():
    arm = np.array([0, 0, 1, 1, 2, 3, 3, 2, 2])
    drawn = estimates._exchanged(arm, np.random.default_rng(0), 50)
    sizes = np.bincount(arm)
    assert (np.sort(drawn, axis=1) == np.arange(9)).all() and (sizes[arm[drawn]] == sizes[arm]).all()
    pairs = drawn[:, [0, 1]]
    assert (arm[pairs[:, 0]] == arm[pairs[:, 1]]).all() and len(np.unique(pairs[:, 0])) == 3


def test_perfect_separation_is_no_certainty():
    value = np.r_[np.full(10, 0.1), np.linspace(0.5, 0.9, 14)]
    [row] = found(*frames(value, value < 0.2, value)).to_dict("records")
    assert row["auc"] == 0 and row["auc_low"] == 0 and 0.05 < row["auc_high"] < 0.3
    # Newcombe's own: solve 1 - θ = z sd(θ), at 10 and 14.
    theta = 1 - row["auc_high"]
    odds = 11 * ((1 - theta) / (2 - theta) + theta / (1 + theta))
    assert 1 - theta == pytest.approx(1.959964 * np.sqrt(theta * (1 - theta) * (1 + odds) / 140), abs=1e-4)


def test_layers_are_summed_up_and_the_best_summary_stands_for_its_statistic():
    value = np.arange(8) / 8
    trials, epochs, layers = frames(value, [0] * 8, [1.0] * 8, layers=3)
    layers.loc[(layers["layer"] == "dense_2") & (layers["epoch"] == 1), "l2"] = -value
    wide = estimates.summaries(epochs, layers, 1, list(trials["key"]))
    assert wide["kernel", "l2", "last"].tolist() == (-value).tolist()
    assert ("kernel", "l2", "first") not in wide  # it is the same everywhere
    [row] = found(trials, epochs, layers).to_dict("records")
    assert row["rho"] == pytest.approx(-1) and row["over"] in ("min", "last")


def test_what_is_missing_in_the_first_layer_is_not_taken_from_the_second():
    trials, epochs, layers = frames(np.arange(6) / 6, [0] * 6, np.arange(6.0), layers=2)
    layers.loc[layers["layer"] == "dense_0", "l2"] = NAN
    wide = estimates.summaries(epochs, layers, 1, list(trials["key"]))
    assert ("kernel", "l2", "first") not in wide and wide["kernel", "l2", "min"].notna().all()


def test_trials_that_had_ended_or_crashed_do_not_count():
    trials, epochs, layers = frames([0.5, 0.6, NAN, NAN, 0.8], [0, 0, 1, 2, 0], np.arange(5.0))
    trials.loc[2, "epochs"] = 1
    [row] = found(trials, epochs, layers).to_dict("records")
    [count] = estimates.counts(trials, epochs, ["arm"], "val_accuracy", [1]).to_dict("records")
    assert row["trials"] == count["trials"] == 3 and (count["ended"], count["crashed"]) == (1, 1)


def test_a_trial_at_chance_in_its_last_epoch_has_failed():
    trials, epochs, _ = frames([0.1, 0.9, 0.9], [0, 0, 1], np.arange(3.0))
    trials["running_accuracy"] = [0.12, 0.14, 0.9]  # 3 sd of 1,000 examples above .1 are .128
    assert estimates.ends(trials, epochs, "val_accuracy")["failed"].tolist() == [1, 0, 1]


def test_what_has_no_classes_fails_by_its_status_alone():
    trials, epochs, _ = frames([0.1, 0.9, 0.9], [0, 0, 1], np.arange(3.0))
    trials = trials.assign(classes=0, chance_train=NAN, running_accuracy=NAN)  # a regression that Keras has trained
    assert estimates.ends(trials, epochs, "val_accuracy")["failed"].tolist() == [0, 0, 1]


def test_one_arm_has_no_interval_and_no_failures_no_auc():
    value = np.arange(5) / 5
    [row] = found(*frames(value, [0] * 5, value, seeds=5)).to_dict("records")
    assert row["rho"] == pytest.approx(1) and np.isnan([row["rho_low"], row["auc"], row["auc_p"]]).all()
    assert row["rho_p"] == 1
    assert found(*frames(value, [1] * 5, value)).empty  # they all end alike


def test_where_nothing_was_observed_there_is_no_row():
    trials, epochs, layers = frames(np.arange(6) / 6, [0] * 6, [1.0] * 6)
    assert found(trials, epochs, layers).empty and found(trials, epochs, layers.iloc[:0]).empty


def test_the_same_seed_gives_the_same_numbers_however_many_rows_are_shown():
    rng = np.random.default_rng(3)
    trials, epochs, layers = frames(rng.random(12), rng.random(12) < 0.4, rng.random(12), layers=3)
    layers["l1"], layers["sd"] = rng.random((2, len(layers)))
    whole = found(trials, epochs, layers, at=(1, 2))
    some = found(trials, epochs, layers, at=(1, 2), most=1)
    pd.testing.assert_frame_equal(some, whole.groupby("epoch").head(1).reset_index(drop=True))
    assert some["epoch"].tolist() == [1, 2] and some["rho_low"].notna().all()
    assert not found(trials, epochs, layers, at=(1, 2), seed=1).equals(whole)


def test_words_say_what_there_is_none_of():
    value = np.arange(8) / 8

    def said(*frame):
        counts = estimates.counts(*frame[:2], ["arm"], "val_accuracy", [1])
        return " ".join(foretelling.foretell_words(found(*frame), counts, "val_accuracy"))

    assert "no AUC" in said(*frames(value, [0] * 8, value))
    assert "They all end alike" in said(*frames(value, [1] * 8, value))
    assert "No intervals" in said(*frames(value, [0] * 8, value, seeds=4))
    assert "No interval of an AUC" in said(*frames(value, [1] + [0] * 7, value))
    assert "1 of them, in 1 arm (in 1 at every seed), failed" in said(*frames(value, [1] + [0] * 7, value))


@pytest.fixture(scope="module")
def root(fresh, tmp_path_factory):
    """A store with a study of six arms at two seeds, of which an arm diverged, and one without layers."""
    folder = tmp_path_factory.mktemp("foretell")
    shutil.copy(fresh / "mlflow.db", folder)
    for name, kept in (("made up", True), ("bare", False)):
        study = replace(STUDY, name=name, factors={"model.depth": tuple(range(6))}, baseline={}, metric="val_accuracy")
        trials = [
            Trial(f"{n:08x}{seed:08x}", name, "scientific", {"model.depth": n}, seed, CONFIG, (), "graph")
            for n in range(6)
            for seed in (0, 1)
        ]
        execution = writer.Execution(folder, study, trials, "")
        for trial in trials:
            epochs, layers, _ = records(trial)
            depth = trial.arm["model.depth"]
            layers = [r for r in layers if r.epoch < 3] if kept else []
            result = Result(trial.key, "finished" if depth else "diverged", 30, classes=10, running_accuracy=0.5,
                            val_accuracy=depth / 10, chance_train=0.1)  # fmt: skip
            execution.write(trial, [e for e in epochs if e.epoch < 31], layers, result)
        execution.close("FINISHED")
    return folder


def asked(root, capsys, *words):
    code = foretell.main([*words, "--root", str(root)])
    return code, capsys.readouterr()


def test_the_command_shows_a_table_and_words(root, capsys, monkeypatch):
    monkeypatch.setattr(estimates, "RESAMPLES", 50)
    monkeypatch.setattr(estimates, "PERMUTATIONS", 50)
    code, out = asked(root, capsys, "made up", "--most", "2")
    lines = out.out.splitlines()
    assert code == 0 and [line[:1] for line in lines[2:6]] == ["0", "0", "1", "1"]
    assert "Epoch 1: 12 trials of 6 arms had not ended, and 2 of them, in 1 arm" in out.out
    for format in ("markdown", "csv"):
        assert asked(root, capsys, "made up", "--format", format)[0] == 0
    code, out = asked(root, capsys, "made up", "--format", "json", "--epoch", "2, 1")
    whole = json.loads(out.out)
    assert [row["epoch"] for row in whole["epochs"]] == [1, 2] and len(whole["statistics"]) > 2 * len(STATISTICS) - 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nosuch"], "no study 'nosuch'"),
        (["made up", "--epoch", "7"], "--epoch 7: 7 was not observed .* expected some of 0, 1, 2"),
        (["made up", "--epoch", "0,x"], "x was not observed"),
        (["made up", "--metric", "nosuch"], "metric=nosuch"),
        (["made up", "--most", "0"], "--most 0"),
        (["bare"], "nothing was kept of its layers"),
    ],
)
def test_what_cannot_be_foretold_is_one_paragraph(root, capsys, words, said):
    code, out = asked(root, capsys, *words)
    assert code == 2 and re.search(said, out.err) and out.err.count("\n") == 1


def test_a_study_of_computed_trials_has_nothing_to_foretell(root):
    trials = load.trials("made up", root).assign(epochs=0)
    with pytest.raises(StudyError, match="its trials are computed"):
        foretell.chosen("made up", trials, root)


def test_layers_can_be_read_at_some_epochs(root):
    some = load.layers("made up", root, epochs=[1])
    whole = load.layers("made up", root)
    pd.testing.assert_frame_equal(some, whole[whole["epoch"] == 1].reset_index(drop=True))
