"""Times to a target by hand, and survival against published data (Freireich et al. 1963)."""

import numpy as np
import pandas as pd
import pytest

from analysis.estimate import intervals
from analysis.estimate import time_to_target as times
from studies.record import StudyError

pytestmark = pytest.mark.filterwarnings("error")

NAN = float("nan")

MERCAPTOPURINE = "6 6 6 6+ 7 9+ 10 10+ 11+ 13 16 17+ 19+ 20+ 22 23 25+ 32+ 32+ 34+ 35+"
PLACEBO = "1 1 2 2 3 4 4 5 5 8 8 8 8 11 11 12 12 15 17 22 23"


def given(text):
    """Times as `times.times` gives them, from `6 9+`: reached at 6, censored at 9."""
    words = text.split()
    found = pd.DataFrame({"time": [float(word.strip("+")) for word in words], "seed": range(len(words))})
    return found.assign(reached=[not word.endswith("+") for word in words], examples=NAN, seconds=NAN)


def course(*curves, metric="val_accuracy", status=None, seconds=2.0):
    """Trials and epochs of curves from epoch 0 on; an epoch sees 100 examples in two seconds."""
    statuses = status or ["finished"] * len(curves)
    names = [f"t{n}" for n in range(len(curves))]
    trials = pd.DataFrame({"key": names, "seed": range(len(curves)), "status": statuses, "optimizer": "sgd"})
    trials["epochs"] = [len(curve) - 1 for curve in curves]
    epochs = [
        {"key": key, "epoch": n, "examples": 100 * n, "seconds": seconds * (n > 0), metric: value}
        for key, curve in zip(names, curves, strict=True)
        for n, value in enumerate(curve)
    ]
    return trials, pd.DataFrame(epochs)


def found(*curves, target=0.9, metric="val_accuracy", status=None, **how):
    table = times.times(*course(*curves, metric=metric, status=status), ["optimizer"], metric, target, **how)
    return table[["time", "examples", "seconds", "reached"]].to_numpy(float).tolist()


def test_the_time_by_hand():
    # .8 at epoch 2 and 1 at epoch 3: .9 is half way, 250 examples, 5 seconds.
    assert found([0.1, 0.5, 0.8, 1.0]) == [[pytest.approx(2.5), pytest.approx(250), pytest.approx(5), 1]]
    assert found([0.1, 0.5, 0.8, 1.0], whole=True) == [[3, 300, 6, 1]]
    assert found([0.95, 0.5]) == [[0, 0, 0, 1]]
    assert found([0.1, 0.9, 0.1]) == [[1, 100, 2, 1]]


def test_a_loss_has_its_target_below():
    assert found([2.0, 1.0, 0.5], metric="val_loss", target=0.75)[0][0] == pytest.approx(1.5)
    assert found([np.inf, 1.0, 0.5], metric="val_loss", target=1.5)[0][0] == 1
    assert found([2.0, 1.0], metric="val_loss", target=0.5)[0] == [1, 100, 2, 0]


def test_a_target_that_float32_rounds_is_reached():
    assert found([0.1, float(np.float32(0.95))], target=0.95) == [[1, 100, 2, 1]]


def test_epochs_that_were_not_observed_are_passed_over():
    assert found([NAN, NAN, 0.7, NAN, 1.1])[0][0] == pytest.approx(3)
    assert found([NAN, 0.95])[0][0] == 1


def test_what_a_network_reached_before_it_was_pruned_does_not_count():
    trials, epochs = course([0.1, 0.95, 0.3, 0.8, 0.96], [0.1, 0.95, 0.9, 0.9, 0.9])
    epochs["sparsity"] = [0, 0, 0.5, 0.9, 0.9, *[NAN] * 5]  # the second is not pruned
    table = times.times(trials, epochs, ["optimizer"], "val_accuracy", 0.9)
    assert table["time"].tolist() == [pytest.approx(3 + 0.1 / 0.16), pytest.approx(0.8 / 0.85)]


def test_what_does_not_get_there_is_censored_at_the_whole_budget():
    """One that stopped early, diverged or timed out is not ahead of one that went on, whatever it had reached."""
    curves = [[0.1, 0.2, 0.3, 0.4, 0.5], [0.1, 0.95, NAN], [0.1, 0.95], [0.1, 0.2]]
    status = ["finished", "diverged", "timeout", "finished"]
    assert found(*curves, status=status) == [[4, 400, 8, 0]] * 4
    assert found(*curves, status=status, budget=10) == [[10, 1000, 20, 0]] * 4
    assert found([0.1, 0.2, 1.0], budget=1) == [[1, 100, 2, 0]]


def test_crashes_and_trials_without_a_value_have_no_time():
    np.testing.assert_array_equal(found([0.1, 0.95], status=["crashed"]), [[NAN, NAN, NAN, 0]])
    np.testing.assert_array_equal(found([NAN, NAN]), [[NAN, NAN, NAN, 0]])
    trials, epochs = course([0.1, 0.95], [0.1, 0.95])
    table = times.times(trials, epochs[epochs["key"] == "t0"], [], "val_accuracy", 0.9)
    assert table["reached"].tolist() == [True, False] and table["time"].isna().tolist() == [False, True]
    assert times.times(trials[:0], epochs, ["optimizer"], "val_accuracy", 0.9).empty
    none = times.times(trials, epochs[:0], ["optimizer"], "val_accuracy", 0.9)
    assert none["time"].isna().all() and not none["reached"].any()


def test_clocks_that_were_not_kept_are_missing():
    trials, epochs = course([0.1, 0.5, 0.95])
    table = times.times(trials, epochs.drop(columns="seconds").assign(examples=NAN), [], "val_accuracy", 0.9)
    assert table["seconds"].isna().all() and table["examples"].isna().all() and table["reached"].all()


def test_a_peak_of_one_epoch_is_smoothed_away_by_the_past_alone():
    curve = [0.1, 0.2, 0.95, 0.3, 0.92, 0.93, 0.94]
    assert found(curve, whole=True)[0][0] == 2
    # medians of three: .1 .15 .2 .3 .92 .92 .93
    assert found(curve, whole=True, smooth=True)[0][0] == 4
    assert found([0.1, 0.95], smooth=True)[0][3] == 0  # of two the mean


def test_targets_and_metrics_that_cannot_be_are_refused():
    with pytest.raises(StudyError, match="metric=seconds: expected a column of the epochs frame, one of val_accuracy"):
        times.times(*course([0.1, 0.2]), [], "seconds", 1)
    with pytest.raises(StudyError, match="target=nan"):
        found([0.1, 0.2], target=NAN)
    with pytest.raises(StudyError, match="budget=0"):
        found([0.1, 0.2], budget=0)


def test_survival_is_the_published():
    """Kalbfleisch & Prentice 2002, table 1.1; Klein & Moeschberger 2003, example 4.1."""
    curve = times.survival(given(MERCAPTOPURINE)).set_index("time")
    assert curve.loc[[6, 7, 10, 13, 16, 22, 23], "share"].tolist() == pytest.approx(
        [0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448], abs=5e-4
    )
    assert curve.loc[[6, 10, 23], ["at_risk", "events"]].to_numpy().tolist() == [[21, 3], [15, 1], [6, 1]]
    assert times.median_time(given(MERCAPTOPURINE)) == 23
    assert times.median_time(given(PLACEBO)) == 8


def test_the_log_rank_test_is_the_published():
    # Chi-squared 16.8 on one degree of freedom.
    assert times.logrank_test(given(MERCAPTOPURINE), given(PLACEBO)).p == pytest.approx(4.17e-5, abs=1e-6)


def test_the_restricted_mean_is_the_published():
    # Klein & Moeschberger 2003, example 4.2: 23.3 ± 2.83 up to 35 weeks, with n for n - 1.
    mean = times.restricted_mean(given(MERCAPTOPURINE), 35)
    assert mean.value == pytest.approx(23.29, abs=0.01)
    assert (mean.value - mean.low) / 2.0860 / np.sqrt(21 / 20) == pytest.approx(2.83, abs=0.005)
    assert mean.high == pytest.approx(2 * mean.value - mean.low)


def test_the_restricted_mean_of_what_is_censored_at_the_budget_alone_is_a_mean():
    mean = times.restricted_mean(given("3 5 4 8+ 8+ 7 8"), 8)
    low, high = intervals.t_interval(np.array([3, 5, 4, 8, 8, 7, 8.0]))
    assert (mean.value, mean.low, mean.high) == pytest.approx((43 / 7, low, min(high, 8)))
    shorter = times.restricted_mean(given("3 5 4 8+ 8+ 7 8"), 6)
    assert (shorter.value, shorter.low) == pytest.approx(
        (36 / 7, intervals.t_interval(np.array([3, 5, 4, 6, 6, 6, 6.0]))[0])
    )


def test_the_restricted_mean_of_nothing_one_all_alike_and_none_that_reached():
    none = times.restricted_mean(given("5 6")[:0], 8)
    assert np.isnan([none.value, none.low, none.high]).all() and none.n == 0
    one = times.restricted_mean(given("5"), 8)
    assert one.value == 5 and np.isnan(one.low) and "needs 2 trials" in one.note
    alike = times.restricted_mean(given("5 5 5"), 8)
    assert (alike.value, alike.low, alike.high) == (5, 5, 5)
    failed = times.restricted_mean(given("8+ 8+ 8+"), 8)
    assert failed.value == 8 and np.isnan(failed.low) and "none of 3" in failed.note
    with pytest.raises(StudyError, match="nothing is known after 7"):
        times.restricted_mean(given("3 7+"), 8)
    with pytest.raises(StudyError, match="budget=0"):
        times.restricted_mean(given("3 7+"), 0)


def test_the_median_with_censoring():
    assert times.median_time(given("1 2 3 9+")) == 2.5
    assert times.median_time(given("1 2 3 9+ 9+")) == 3
    assert times.median_time(given("1 2 9+ 9+")) == np.inf
    assert times.median_time(given("9+ 9+")) == np.inf
    assert times.median_time(given("4")) == 4
    assert np.isnan(times.median_time(given("4")[:0]))


def test_the_log_rank_test_of_nothing_one_all_alike_and_none_that_reached():
    assert "2 of each" in times.logrank_test(given("3"), given("4 5")).note
    for one, other in (("8+ 8+", "8+ 8+ 8+"), ("5 5 5", "5 5")):
        assert times.logrank_test(given(one), given(other)).p == 1
    missing = pd.concat([given("3 4 5 6"), given("1 1").assign(time=NAN, reached=False)])
    assert times.logrank_test(missing, given("5 6 7")) == times.logrank_test(given("3 4 5 6"), given("5 6 7"))


def test_the_paired_ratio_is_of_seeds_at_which_both_reach_it():
    ratio = times.paired_ratio(given("2 8 9+ 4"), given("1 1 1 9+"))
    assert ratio.value == pytest.approx(4) and ratio.n == 2 and "2 of 4 seeds are left out" in ratio.note
    shifted = given("1 1").assign(seed=[1, 2])
    assert times.paired_ratio(given("2 8"), shifted).value == 8
    assert np.isnan(times.paired_ratio(given("9+"), given("9+")).value)
    with pytest.raises(StudyError, match="one trial a seed"):
        times.paired_ratio(pd.concat([given("2"), given("3")]), given("1"))
    with pytest.raises(StudyError, match="above 0"):
        times.paired_ratio(given("0 2"), given("1 1"))
    with pytest.raises(StudyError, match="clock=epochs"):
        times.survival(given("1"), "epochs")


def test_by_default_means_are_restricted_to_what_is_known_of_all_arms():
    def budget(**arms):
        table = pd.concat([given(text).assign(optimizer=name) for name, text in arms.items()])
        [found] = times.summary(table, ["optimizer"])["budget"].unique()
        return found

    assert budget(sgd="2 4 8+", adam="1 5+ 6+") == 6
    assert budget(sgd="2 4 9", adam="1 5+ 6+") == 6
    assert budget(sgd="2 4 5", adam="1 7") == 7


def test_the_summary_has_a_row_an_arm():
    table = pd.concat([given("2 4 8+ 6").assign(optimizer="sgd"), given("8+ 8+").assign(optimizer="adam")])
    rows = times.summary(table, ["optimizer"], 8).set_index("optimizer")
    assert rows.loc["sgd", ["trials", "reached", "share", "median", "mean"]].tolist() == [4, 3, 0.75, 5, 5]
    assert rows.loc["sgd", ["share_low", "share_high"]].tolist() == pytest.approx([0.194, 0.994], abs=1e-3)
    assert rows.loc["adam", ["trials", "reached", "share", "median", "mean"]].tolist() == [2, 0, 0, np.inf, 8]
    assert times.summary(table, ["optimizer"]).equals(rows.reset_index())
    lost = times.summary(table.assign(time=NAN), ["optimizer"], 8)
    assert lost["trials"].tolist() == [0, 0] and lost[["share", "median", "mean"]].isna().all(axis=None)
