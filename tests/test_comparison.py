"""Estimates against values worked out by hand, by scipy and by simulation."""

import time

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from analysis.estimate import arms, comparison, intervals, tuning
from analysis.estimate.measure import measure
from studies.record import Study, StudyError

NAN = float("nan")

pytestmark = pytest.mark.filterwarnings("error")


def frame(*rows, factors=("initializer",)):
    """Trials from rows of levels, seed, val_accuracy and, if it is not finished, a status; ten classes."""
    rows = [(*row, "finished") if len(row) == len(factors) + 2 else row for row in rows]
    trials = pd.DataFrame(rows, columns=[*factors, "seed", "val_accuracy", "status"])
    return trials.assign(classes=10, val_loss=0.5)


def stored(values):
    """Numbers as the store has them, which were float32."""
    return np.float64(np.float32(values))


def compared(trials, by=("initializer",), baseline=None):
    table = comparison.comparison(trials, list(by), "val_accuracy", baseline or {})
    return table.set_index(list(by)) if by else table


def test_the_t_interval_by_hand():
    # Two values: the mean and t(.975, 1) = 12.706 times half their distance; five: t(.975, 4) = 2.776.
    assert intervals.t_interval(np.array([0.8, 0.9])) == pytest.approx(
        (0.85 - 12.7062 * 0.05, 0.85 + 12.7062 * 0.05), abs=1e-5
    )
    half = 2.776445 * np.sqrt(2.5) / np.sqrt(5)
    assert intervals.t_interval(np.arange(1.0, 6.0)) == pytest.approx((3 - half, 3 + half), abs=1e-5)


@pytest.mark.parametrize("n", [2, 5, 30])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_t_interval_is_scipys(n, level):
    values = np.random.default_rng(n).normal(size=n)
    expected = stats.ttest_1samp(values, 0).confidence_interval(level)
    assert intervals.t_interval(values, level) == pytest.approx(tuple(expected))


@pytest.mark.parametrize("values", [[], [0.5]])
def test_fewer_than_two_values_have_no_interval(values):
    assert np.isnan(intervals.t_interval(np.array(values))).all()


@pytest.mark.parametrize("n", [5, 10])
def test_the_t_interval_covers_a_normal_mean_as_often_as_it_says(n):
    samples = np.random.default_rng(0).normal(size=(10_000, n))
    low, high = np.array([intervals.t_interval(sample) for sample in samples]).T
    covered = np.mean((low < 0) & (high > 0))
    assert covered == pytest.approx(0.95, abs=0.0065)  # three standard errors


def test_failures_score_chance_and_crashes_are_missing():
    trials = frame(("a", 0, 0.9), ("a", 1, NAN, "diverged"), ("a", 2, 0.7, "timeout"), ("a", 3, 0.6, "crashed"))
    np.testing.assert_array_equal(comparison.scored(trials, "val_accuracy"), [0.9, 0.1, 0.1, NAN])
    np.testing.assert_allclose(comparison.scored(trials, "val_loss"), [0.5, np.log(10), np.log(10), NAN])
    row = compared(trials).loc["a"]
    assert (row["seeds"], row["failures"], row["mean"]) == (3, 3, pytest.approx(1.1 / 3))


@pytest.mark.parametrize("metric", ["train_loss", "val_loss", "test_accuracy", "best_val_accuracy", "ema_test_loss"])
def test_a_failure_is_never_ahead_of_anything_that_finished_whatever_the_metric(metric):
    finished, sign = np.array([0.05, 0.3, 4.0, 1e30]), -1 if metric.endswith("loss") else 1
    trials = frame(*(("a", seed, v) for seed, v in enumerate(finished)), ("a", 4, NAN, "diverged"))
    trials = trials.assign(**{metric: trials["val_accuracy"]})
    failure = comparison.scored(trials, metric)[4]
    assert (sign * failure <= sign * finished).all()
    assert failure == (0.05 if sign == 1 else 1e30)


def test_chance_is_the_share_of_the_largest_class():
    trials = frame(("a", 0, 0.9), ("a", 1, NAN, "diverged"), ("a", 2, NAN, "diverged"))
    trials = trials.assign(chance_val=[0.6, 0.7, NAN], chance_test=0.65, test_accuracy=[0.8, NAN, NAN])
    np.testing.assert_array_equal(comparison.scored(trials, "val_accuracy"), [0.9, 0.7, 0.1])
    np.testing.assert_array_equal(comparison.scored(trials, "test_accuracy"), [0.8, 0.65, 0.65])
    np.testing.assert_allclose(comparison.scored(trials, "val_loss")[1], np.log(10))


def test_chance_is_of_the_examples_that_the_metric_is_of():
    trials = frame(("a", 0, 0.9), ("a", 1, NAN, "diverged")).assign(chance_train=0.3, chance_val=0.6)
    for metric, chance in (("train_accuracy", 0.3), ("running_accuracy", 0.3), ("best_val_accuracy", 0.6)):
        found = comparison.scored(trials.assign(**{metric: trials["val_accuracy"]}), metric)
        np.testing.assert_array_equal(found, [0.9, chance])
        without = trials.drop(columns=["chance_train", "chance_val"]).assign(**{metric: trials["val_accuracy"]})
        np.testing.assert_array_equal(comparison.scored(without, metric), [0.9, 0.1])


@pytest.mark.parametrize("of", ["val", "test"])
def test_a_failure_scores_what_naming_the_largest_class_scores_by_class(of):
    """By scikit-learn's scores of that guess."""
    from sklearn.metrics import balanced_accuracy_score, f1_score

    labels, guess = np.repeat([0, 1, 2], [5, 12, 3]), np.full(20, 1)
    trials = frame(("a", 0, 0.9), ("a", 1, NAN, "diverged")).assign(**{"classes": 3, f"chance_{of}": 0.6})
    for name, score in (
        ("macro_f1", f1_score(labels, guess, average="macro")),
        ("balanced_accuracy", balanced_accuracy_score(labels, guess)),
    ):
        metric = f"{of}_{name}"
        assert measure(metric).share and measure(metric).better == 1
        found = comparison.scored(trials.assign(**{metric: [0.8, NAN]}), metric)
        np.testing.assert_allclose(found, [0.8, score])
        worse = comparison.scored(trials.assign(**{metric: [0.1, NAN]}), metric)
        np.testing.assert_array_equal(worse, [0.1, 0.1])


def test_what_has_no_classes_or_no_finite_loss_is_a_failure_without_a_warning():
    trials = frame(("a", 0, 0.9), ("a", 1, NAN, "timeout"), ("b", 0, NAN, "crashed"))
    trials = trials.assign(classes=[10, 0, 0], val_loss=[1.797e308, NAN, NAN])  # MLflow's infinity
    np.testing.assert_allclose(comparison.scored(trials, "val_loss"), [np.log(10), NAN, NAN])
    np.testing.assert_allclose(comparison.scored(trials, "val_accuracy"), [0.9, 0.9, NAN])
    table = comparison.comparison(trials, ["initializer"], "val_loss", {"initializer": "b"})
    assert list(table["seeds"]) == [1, 0]


def test_a_metric_that_nothing_has_is_not_a_failures_alone():
    trials = frame(("a", 0, 0.9), ("b", 0, NAN, "diverged")).assign(ema_val_accuracy=NAN)
    assert comparison.comparison(trials, ["initializer"], "ema_val_accuracy", {})["mean"].isna().all()


def test_an_unknown_metric_is_refused():
    with pytest.raises(
        StudyError, match=r"metric=accuracy: .*Did you mean val_accuracy\? Expected one of val_loss, val_accuracy, "
    ):
        comparison.scored(frame(("a", 0, 0.9)), "accuracy")


def test_a_row_is_an_arm_in_the_order_they_appear():
    table = compared(frame(("b", 0, 0.8), ("a", 0, 0.2), ("b", 1, 0.9), ("a", 1, 0.4)))
    assert list(table.index) == ["b", "a"]
    assert list(table["mean"]) == pytest.approx([0.85, 0.3])
    assert list(table["sd"]) == pytest.approx([np.std([0.8, 0.9], ddof=1), np.std([0.2, 0.4], ddof=1)])
    assert list(table["seeds"]) == [2, 2]


def test_differences_are_paired_by_seed():
    values, base = [0.91, 0.85, 0.97], [0.90, 0.83, 0.96]
    rows = [("he", s, v) for s, v in enumerate(values)] + [("zeros", s, v) for s, v in reversed(list(enumerate(base)))]
    table = compared(frame(*rows), baseline={"initializer": "zeros"})
    expected = stats.ttest_rel(values, base).confidence_interval(0.95)
    assert table.loc["he", "difference"] == pytest.approx(0.04 / 3)
    assert tuple(table.loc["he", ["difference_low", "difference_high"]]) == pytest.approx(tuple(expected))
    assert table.loc["zeros", ["difference", "difference_low", "difference_high"]].isna().all()
    assert table.loc["he", "high"] > table.loc["zeros", "mean"] > table.loc["he", "low"]  # unpaired, nothing is seen


def test_only_seeds_of_both_arms_make_pairs():
    rows = [("he", 0, 0.9), ("he", 1, 0.8), ("he", 2, 0.1, "crashed"), ("zeros", 1, 0.5), ("zeros", 2, 0.4)]
    table = compared(frame(*rows), baseline={"initializer": "zeros"})
    assert table.loc["he", "difference"] == pytest.approx(0.3)
    assert np.isnan(table.loc["he", "difference_low"])
    apart = compared(frame(("he", 0, 0.9), ("zeros", 1, 0.5)), baseline={"initializer": "zeros"})
    assert np.isnan(apart.loc["he", "difference"])


def test_one_seed_has_a_mean_and_no_interval():
    row = compared(frame(("he", 0, 0.9), ("zeros", 0, 0.5)), baseline={"initializer": "zeros"}).loc["he"]
    assert row[["mean", "difference"]].tolist() == pytest.approx([0.9, 0.4])
    assert row[["sd", "low", "high", "difference_low", "difference_high"]].isna().all()


TWO = ("initializer", "model.depth")


def grid():
    values = {("he", 2): (0.9, 0.8), ("he", 8): (0.7, 0.4), ("zeros", 2): (0.5, 0.5), ("zeros", 8): (0.1, 0.2)}
    return frame(*((*arm, seed, value) for arm, pair in values.items() for seed, value in enumerate(pair)), factors=TWO)


def test_other_factors_are_averaged_within_a_seed():
    row = compared(grid(), baseline={"initializer": "zeros"}).loc["he"]
    units, base = np.array([0.8, 0.6]), np.array([0.3, 0.35])
    assert (row["seeds"], row["mean"]) == (2, pytest.approx(0.7))
    assert (row["low"], row["high"]) == pytest.approx(intervals.mean_interval(units, "val_accuracy"))
    cut = intervals.difference_interval(units - base, "val_accuracy")
    assert (row["difference_low"], row["difference_high"]) == pytest.approx(cut)


def test_a_crash_makes_its_seed_missing_where_others_are_averaged_in():
    trials = grid()
    trials.loc[0, "status"] = "crashed"
    row = compared(trials).loc["he"]
    assert (row["seeds"], row["failures"], row["mean"]) == (1, 1, pytest.approx(0.6))


def test_an_arm_is_compared_with_the_baselines_levels_and_its_own_elsewhere():
    table = compared(grid(), TWO, {"initializer": "zeros"})
    assert table["difference"].tolist() == pytest.approx([0.35, 0.4, NAN, NAN], nan_ok=True)
    both = compared(grid(), TWO, {"initializer": "zeros", "model.depth": 2})
    assert both["difference"].tolist() == pytest.approx([0.35, 0.05, NAN, -0.35], nan_ok=True)


def test_a_baseline_that_is_not_there_gives_no_difference():
    assert compared(grid(), ["model.depth"], {"initializer": "zeros"})["difference"].isna().all()
    assert compared(grid(), ["initializer"], {"initializer": "ones"})["difference"].isna().all()


def test_without_factors_all_trials_are_one_arm():
    table = compared(frame((0, 0.9), (1, 0.8), factors=()), by=())
    assert table[["seeds", "mean"]].to_numpy().tolist() == [[2, pytest.approx(0.85)]]


@pytest.mark.parametrize("levels", [([8], [8, 16]), (None, 3), (True, False), (0.1, 1.0)])
def test_a_level_is_of_any_type(levels):
    rows = [(level, seed, 0.1 * place) for place, level in enumerate(levels) for seed in (0, 1)]
    trials = frame(*rows, factors=("x",))
    trials["x"] = pd.Series([row[0] for row in rows], dtype=object)
    table = comparison.comparison(trials, ["x"], "val_accuracy", {"x": levels[0]})
    assert table["x"].tolist() == [tuple(level) if isinstance(level, list) else level for level in levels]
    assert table["difference"].tolist() == pytest.approx([NAN, 0.1], nan_ok=True)


@pytest.mark.parametrize("by", [(), ("initializer",), TWO])
def test_no_trials_give_no_rows(by):
    table = comparison.comparison(grid().iloc[:0], list(by), "val_accuracy", {"initializer": "zeros"})
    assert table.empty and list(table.columns[: len(by) + 2]) == [*by, "seeds", "failures"]


RATES = {"optimizer.learning_rate": (0.01, 0.1, 1)}


def best(values, metric="val_accuracy", nuisance=RATES):
    """What is chosen from `(arm, level of each nuisance factor, seed, value[, status])`."""
    rows = [(*row, "finished") if len(row) == len(nuisance) + 3 else row for row in values]
    trials = pd.DataFrame(rows, columns=["initializer", *nuisance, "seed", metric, "status"]).assign(classes=10)
    return tuning.tuned(trials, ["initializer"], nuisance, metric)


def test_the_best_mean_of_each_arm_is_chosen_and_what_lies_on_the_edge_is_said():
    he = [("he", rate, seed, value) for rate, value in zip((0.01, 0.1, 1), (0.7, 0.9, 0.8)) for seed in (100, 101)]
    zeros = [("zeros", rate, seed, rate / 10 + seed / 1e4) for rate in (0.01, 0.1, 1) for seed in (100, 101)]
    table = best(he + zeros)
    assert list(table["initializer"]) == ["he", "zeros"]
    assert list(table["optimizer.learning_rate"]) == [0.1, 1] and type(table.iloc[1, 1]) is int
    assert list(table["value"]) == pytest.approx([0.9, 0.11005])
    assert list(table["edge"]) == [[], ["optimizer.learning_rate"]]
    assert list(best(he, "val_accuracy").iloc[0, 1:2]) == list(best(he[::-1], "val_accuracy").iloc[0, 1:2])


def test_of_equals_the_earlier_level_is_chosen_whatever_order_they_ended_in():
    rows = [("he", rate, 100, 0.9) for rate in (1, 0.1, 0.01)]
    assert list(best(rows)["optimizer.learning_rate"]) == [0.01]
    assert list(best(rows, nuisance={"optimizer.learning_rate": (0.1, 1, 0.01)})["optimizer.learning_rate"]) == [0.1]


def test_a_loss_is_tuned_to_its_least_and_no_failure_is_ahead_of_what_finished():
    rows = [("he", 0.01, 100, 3.0), ("he", 0.1, 100, 2.5), ("he", 1, 100, NAN, "diverged")]  # chance: log 10 = 2.303
    assert list(best(rows, "val_loss")["optimizer.learning_rate"]) == [0.1]
    rows = [("he", 0.01, 100, 0.05), ("he", 0.1, 100, NAN, "diverged"), ("he", 1, 100, 0.04)]  # chance: .1
    assert list(best(rows)["optimizer.learning_rate"]) == [0.01]


def test_of_equals_what_finished_is_chosen_before_what_failed():
    """The worst that finished is what a failure scores: nothing is left to tell them apart but that it finished."""
    rows = [("he", 0.01, 100, NAN, "diverged"), ("he", 0.1, 100, 3.0), ("he", 1, 100, NAN, "timeout")]
    [row] = best(rows, "val_loss").to_dict("records")
    assert (row["optimizer.learning_rate"], row["value"]) == (0.1, 3.0)
    alone = best([rows[0], rows[2]], "val_loss")
    assert list(alone["optimizer.learning_rate"]) == [0.01]


def test_means_that_only_rounding_makes_differ_are_equals():
    accuracies = {0.01: (0.9, 0.85), 0.1: (0.85, 0.9)}
    rows = [("he", rate, 100 + n, stored(v)) for rate, pair in accuracies.items() for n, v in enumerate(pair)]
    rows += [("zeros", rate, 100, stored(0.7) + (rate == 0.1) * 5e-8) for rate in (0.01, 0.1)]
    assert list(best(rows)["optimizer.learning_rate"]) == [0.01, 0.01]


def test_a_combination_that_crashed_is_not_chosen():
    rows = [("he", 0.01, 100, 0.5), ("he", 0.1, 100, 0.99), ("he", 0.1, 101, NAN, "crashed")]
    assert list(best(rows)["optimizer.learning_rate"]) == [0.01]
    [row] = best(rows[2:]).to_dict("records")
    assert row["optimizer.learning_rate"] is None and np.isnan(row["value"]) and row["edge"] == []


def test_levels_that_are_lists_names_and_null_are_chosen_as_they_are():
    nuisance = {"schedule": ("constant", "cosine"), "model.filters": ([8], [8, 16]), "seeds.init": (None, 3)}
    rows = [
        ("he", schedule, filters, pin, 100, value)
        for value, (schedule, filters, pin) in enumerate(
            (s, f, p) for s in nuisance["schedule"] for f in nuisance["model.filters"] for p in nuisance["seeds.init"]
        )
    ]
    [row] = best(rows[:-1], nuisance=nuisance).to_dict("records")
    assert [row[factor] for factor in nuisance] == ["cosine", [8, 16], None] and row["edge"] == []


def test_an_arm_without_a_nuisance_factors_setting_is_tuned_over_the_rest():
    nuisance = RATES | {"optimizer.momentum": (0.5, 0.9)}
    rows = [("sgd", 0.01, momentum, 100, momentum) for momentum in (0.5, 0.9)]
    rows += [("adam", rate, None, 100, 1 - rate) for rate in (0.1, 0.01)]
    table = best(rows, nuisance=nuisance)
    assert list(table["optimizer.learning_rate"]) == [0.01, 0.01] and list(table["optimizer.momentum"]) == [0.9, None]


def test_without_factors_there_is_one_arm_to_tune():
    trials = pd.DataFrame({"optimizer.learning_rate": [0.01, 0.1], "val_accuracy": [0.3, 0.4], "status": "finished"})
    table = tuning.tuned(trials.assign(classes=10), [], RATES, "val_accuracy")
    assert list(table["optimizer.learning_rate"]) == [0.1]


def range_test(losses, rates=None, seed=0):
    rates = np.geomspace(0.01, 100, len(losses)) if rates is None else rates
    return pd.DataFrame({"optimizer": "sgd", "seed": seed, "learning_rate": rates, "loss": losses})


def test_a_range_test_finds_where_the_loss_falls_fastest_is_lowest_and_is_back():
    curve = range_test([2.0, 1.9, 1.0, 0.4, 0.2, 0.9, 1.3, NAN, NAN])
    row = tuning.rate_range(curve, ["optimizer"]).iloc[0]
    rates = curve["learning_rate"]
    # Half way from .2 to 2 is 1.1; the slope by central differences is steepest between 1.9 and .4.
    assert (row["steepest"], row["lowest"], row["highest"]) == pytest.approx((rates[2], rates[4], rates[6]))
    assert row["seeds"] == 1 and np.isnan(row["lowest_low"])


@pytest.mark.parametrize(
    ("losses", "highest"), [([2.0, 1.0, 0.5, 0.4], None), ([2.0, 1.0, NAN, NAN], 2), ([2.0, 2.1, 2.2, 2.3], 1)]
)
def test_a_range_test_may_end_early_late_or_never_fall(losses, highest):
    curve = range_test(losses)
    row = tuning.rate_range(curve, ["optimizer"]).iloc[0]
    expected = NAN if highest is None else curve["learning_rate"][highest]
    np.testing.assert_allclose(row["highest"], expected)
    assert row["steepest"] <= row["lowest"]


def test_rates_are_averaged_as_logarithms():
    falls = [2.0, 1.0, 0.1, 2.0]
    curve = pd.concat([range_test(falls, rates=np.geomspace(1, 1000, 4) * k, seed=k) for k in (1, 4)])
    row = tuning.rate_range(curve, ["optimizer"]).iloc[0]
    assert row["lowest"] == pytest.approx(200)
    low, high = np.log([row["lowest_low"], row["lowest_high"]])
    assert (low, high) == pytest.approx(intervals.t_interval(np.log([100, 400])))


def test_a_rate_curve_has_the_losses_of_each_trained_epoch():
    trials = pd.DataFrame({"key": ["a", "b"], "optimizer": ["sgd", "adam"], "seed": [0, 0]})
    epochs = pd.DataFrame(
        {"key": ["b", "b", "a"], "epoch": [0, 1, 1], "learning_rate": [0.1, 0.2, 0.3], "running_loss": [NAN, 2.0, 3.0]}
    )
    rows = tuning.rate_curve(trials, epochs, ["optimizer"])
    assert rows.to_dict("records") == [
        {"optimizer": "adam", "seed": 0, "learning_rate": 0.2, "loss": 2.0},
        {"optimizer": "sgd", "seed": 0, "learning_rate": 0.3, "loss": 3.0},
    ]


@pytest.mark.parametrize("n", [3, 5, 20])
def test_the_paired_p_is_scipys(n):
    a, b = np.random.default_rng(n).normal(size=(2, n))
    assert intervals.paired_p(a - b) == pytest.approx(stats.ttest_rel(a, b).pvalue)


@pytest.mark.parametrize(
    ("differences", "p"),
    [([0.1], NAN), ([0.1, 0.2], NAN), ([0.0, 0.0, 0.0], 1), ([0.1, 0.1, 0.1], NAN), ([0.0, 0.0, 1e-17], 1)],
)
def test_the_paired_p_of_differences_without_a_spread(differences, p):
    np.testing.assert_equal(intervals.paired_p(np.array(differences)), p)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_holm_is_statsmodels_and_passes_over_what_is_missing(count):
    p = np.random.default_rng(count).uniform(0, 0.2, count)
    expected = multipletests(p, method="holm")[1]
    np.testing.assert_allclose(intervals.holm(p), expected)
    np.testing.assert_allclose(intervals.holm(np.insert(p, 1, NAN)), np.insert(expected, 1, NAN))
    assert np.isnan(intervals.holm(np.full(3, NAN))).all()


def spread(*means):
    """Arms a, b, c with these means over five seeds, and a spread of about .01 each."""
    noise = np.random.default_rng(0).normal(0, 0.01, (len(means), 5))
    rows = [("abc"[n], seed, mean + noise[n, seed]) for n, mean in enumerate(means) for seed in range(5)]
    return frame(*rows)


def test_the_best_arm_and_those_that_cannot_be_told_from_it_are_marked():
    rise = [0.02, -0.01, 0.02, -0.01, 0.01]  # of the mean .006, with a t of .9
    near = [("near", seed, 0.9 + 0.001 * seed) for seed in range(5)]
    best = [("best", seed, 0.9 + 0.001 * seed + rise[seed]) for seed in range(5)]
    far = [("far", seed, 0.7 + rise[seed]) for seed in range(5)]
    assert list(compared(frame(*near, *best, *far))["standing"]) == ["tied", "best", "worse"]


def test_a_loss_is_best_where_it_is_least():
    trials = spread(0.5, 0.9).assign(val_loss=lambda t: 1 - t["val_accuracy"])
    standing = comparison.comparison(trials, ["initializer"], "val_loss", {})["standing"]
    assert list(standing) == ["worse", "best"]


def test_arms_are_best_among_those_that_share_what_the_baseline_leaves_open():
    deep = spread(0.1, 0.3).assign(depth=8, val_accuracy=lambda t: t["val_accuracy"].to_numpy()[::-1])
    deep["initializer"] = deep["initializer"].map({"a": "b", "b": "a"})
    parts = [spread(0.9, 0.5).assign(depth=2), deep]
    trials = pd.concat(parts, ignore_index=True)
    by = ["initializer", "depth"]
    marked = comparison.comparison(trials, by, "val_accuracy", {"initializer": "a"}).set_index(by)["standing"]
    assert dict(marked) == {("a", 2): "best", ("b", 2): "worse", ("a", 8): "worse", ("b", 8): "best"}
    alone = comparison.comparison(trials, by, "val_accuracy", {}).set_index(by)["standing"]
    assert [arm for arm, standing in alone.items() if standing == "best"] == [("a", 2)]


def test_one_seed_ties_nothing_and_one_arm_is_not_best():
    table = compared(frame(("a", 0, 0.9), ("b", 0, 0.8)))
    assert list(table["standing"]) == ["best", "untested"]
    assert list(compared(frame(("a", 0, 0.9)))["standing"]) == [""]


def test_p_is_adjusted_over_the_comparisons_with_the_baseline():
    trials = spread(0.5, 0.52, 0.7)
    table = compared(trials, baseline={"initializer": "a"})
    values = trials.set_index("seed").groupby("initializer")["val_accuracy"].apply(list)
    raw = [stats.ttest_rel(values[arm], values["a"]).pvalue for arm in "bc"]
    assert np.isnan(table.loc["a", "p"])
    assert list(table.loc[["b", "c"], "p"]) == pytest.approx(list(multipletests(raw, method="holm")[1]))


def test_equal_arms_are_rarely_told_apart():
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(100):
        values = stored(rng.normal(324, 4, (4, 5)).round() / IMAGES)
        trials = frame(*(("abcd"[n], seed, values[n, seed]) for n in range(4) for seed in range(5)))
        wrong += (compared(trials, baseline={"initializer": "a"})["p"] < 0.05).any()
    assert wrong / 100 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 100)


def test_failures_are_counted_by_arm_and_status_with_their_reason():
    trials = frame(
        ("a", 0, 0.9),
        *(("b", seed, NAN, "diverged") for seed in (0, 1)),
        ("b", 2, NAN, "crashed"),
        ("c", 0, 0.1, "timeout"),
    )
    trials = trials.assign(epochs=[20, 1, 3, 0, 7], error=["", "", "", "boom\nTraceback …", ""])
    rows = comparison.failures(trials, ["initializer"]).to_dict("records")
    assert [(r["initializer"], r["status"], r["trials"], r["seeds"], r["epochs"], r["error"]) for r in rows] == [
        ("b", "diverged", 2, (0, 1), 2, ""),
        ("b", "crashed", 1, (2,), 0, "boom"),
        ("c", "timeout", 1, (0,), 7, ""),
    ]
    assert comparison.failures(trials[:1], ["initializer"]).empty


def test_arms_are_numbered_in_their_order_and_named_again():
    trials = pd.DataFrame({"x": pd.Series([None, [8, 16], None], dtype=object), "y": [1, 2, 1]})
    number, found = arms.arms_of(trials, ["x", "y"])
    assert list(number) == [0, 1, 0] and found == [(None, 1), ((8, 16), 2)]
    again = arms.labelled(pd.DataFrame({"arm": [1, 0], "z": [5, 6]}), found, ["x", "y"])
    assert again.to_dict("records") == [{"x": (8, 16), "y": 2, "z": 5}, {"x": None, "y": 1, "z": 6}]
    assert arms.arms_of(trials, [])[1] == [()]


def test_arms_stand_by_the_seeds_that_all_of_them_have():
    # By its own seeds b leads; by the seeds that both have it is clearly behind.
    a, b = [0.95, 0.96, 0.955, 0.2, 0.21], [0.90, 0.912, 0.903]
    rows = [("a", s, v) for s, v in enumerate(a)] + [("b", s, v) for s, v in enumerate(b)]
    rows += [("b", s, NAN, "crashed") for s in (3, 4)]
    table = compared(frame(*rows), baseline={"initializer": "a"})
    assert list(table["standing"]) == ["best", "worse"] and list(table["blocks"]) == [3, 3]
    assert table.loc["b", "pairs"] == 3 and table.loc["a", "mean"] < table.loc["b", "mean"]


def test_an_arm_with_too_few_seeds_to_be_tested_does_not_take_those_of_the_others():
    rows = [(arm, seed, base + 0.01 * seed) for arm, base in (("a", 0.5), ("b", 0.8)) for seed in range(5)]
    rows = [*rows[:5], *((a, s, v - 0.001 * s) for a, s, v in rows[5:]), ("c", 0, 0.99)]
    table = compared(frame(*rows))
    assert list(table["standing"]) == ["worse", "best", "untested"] and list(table["blocks"]) == [5, 5, 5]


def test_arms_without_a_seed_in_common_are_not_tested():
    table = compared(
        frame(("a", 0, 0.8), ("a", 1, 0.81), ("b", 2, 0.802), ("b", 3, 0.812)), baseline={"initializer": "a"}
    )
    assert list(table["standing"]) == ["untested", "untested"] and list(table["blocks"]) == [0, 0]
    assert table.loc["b", "pairs"] == 0


IMAGES = 360


def counted(rng, arms, seeds, sd=6):
    """Equal arms' accuracies `(seeds, arms)`, counted in images and stored as float32."""
    return stored((324 + rng.normal(0, sd, (seeds, arms))).round() / IMAGES)


@pytest.mark.parametrize("seeds", [3, 4, 5])
def test_accuracies_that_are_counted_in_images_are_told_apart_by_chance_no_more_often_than_claimed(seeds):
    """An A/A test of differences of a few of 360 images, each as the store has it."""
    a, b = (counted(np.random.default_rng(seed), 8000, seeds, sd=1) for seed in (0, 1))
    assert np.nanmean(intervals.paired_p(a - b) < 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 8000)


def test_differences_of_as_many_images_at_every_seed_are_not_tested_though_float32_makes_them_differ():
    rng = np.random.default_rng(0)
    bases = rng.integers(180, 340, (200, 3))
    a, b = stored(bases / IMAGES), stored((bases + 1) / IMAGES)
    assert np.ptp(b - a, axis=1).any()  # they do differ
    assert all(np.isnan(intervals.paired_p(d)) for d in b - a)
    rows = [(n, s, v) for n, values in enumerate((a[0], b[0])) for s, v in enumerate(values)]
    row = compared(frame(*rows), baseline={"initializer": 0}).loc[1]
    assert np.isnan(row["p"]) and row["standing"] == "best"
    assert row["difference_low"] == pytest.approx(row["difference_high"], abs=1e-15)


def test_of_means_that_only_rounding_makes_differ_the_first_is_best():
    values = stored([0.9, 0.85, 0.7])
    rows = [("a", s, v) for s, v in enumerate(values)] + [("b", s, v + 5e-8) for s, v in enumerate(values)]
    assert list(compared(frame(*rows))["standing"]) == ["best", "tied"]


def test_what_one_image_in_fifty_thousand_makes_differ_is_a_difference():
    values = stored(np.array([40000, 40001, 40000, 40002]) / 50000)
    assert np.isfinite(intervals.paired_p(values - stored(0.75)))
    assert np.isfinite(comparison.comparison(losses(1e-6 * values), ["initializer"], "val_loss", {})["sd"]).all()


def losses(values):
    return frame(*(("a", seed, 0.5) for seed in range(len(values)))).assign(val_loss=values)


def test_small_and_large_losses_are_told_apart_by_what_their_own_float32_resolves():
    rng = np.random.default_rng(0)
    for scale in (1e-12, 1.0, 1e12):
        a, b = (stored(scale * rng.uniform(low, low + 1, 5)) for low in (1, 2))
        assert intervals.paired_p(intervals.paired(a, b), max(a.max(), b.max())) == pytest.approx(
            stats.ttest_rel(a, b).pvalue
        )
        assert (intervals.paired(a, a * (1 + 5e-8)) == 0).all()
        trials = pd.concat([losses(a), losses(b).assign(initializer="b"), losses(a).assign(initializer="c")])
        table = comparison.comparison(trials, ["initializer"], "val_loss", {"initializer": "a"})
        assert table["difference"].iloc[2] == 0 and table["p"].iloc[1] < 1


def test_equal_arms_are_rarely_found_worse_than_the_best_of_them():
    """Studies of eight equal arms, each a group of rivals: how often any of the others is found worse."""
    rng, studies = np.random.default_rng(0), 300
    for seeds in (3, 5):
        values = counted(rng, 8 * studies, seeds)
        trials = pd.DataFrame({"arm": np.arange(8 * studies) % 8, "study": np.arange(8 * studies) // 8})
        trials = trials.loc[np.tile(trials.index, seeds)].assign(seed=np.repeat(range(seeds), 8 * studies))
        trials = trials.assign(val_accuracy=values.ravel(), status="finished", classes=10)
        table = comparison.comparison(trials, ["arm", "study"], "val_accuracy", {"arm": 0})
        excluded = (table["standing"] == "worse").groupby(table["study"]).any()
        assert excluded.mean() <= 0.05 and (table["standing"] == "best").sum() == studies
        assert len(excluded) == studies


@pytest.mark.parametrize(("mean", "sd"), [(0.97, 0.02), (0.9, 0.1), (0.57, 0.2), (0.99, 0.006)])
def test_the_interval_of_an_accuracy_is_within_its_bounds_and_covers_as_often_as_it_says(mean, sd):
    k = mean * (1 - mean) / sd**2 - 1
    samples = np.random.default_rng(0).beta(mean * k, (1 - mean) * k, (20_000, 5))
    centre, half = samples.mean(axis=1), 2.776445 * samples.std(axis=1, ddof=1) / np.sqrt(5)
    low, high = intervals.bounded(centre, half, "val_accuracy")
    assert (low >= 0).all() and (high <= 1).all()
    assert np.mean((low <= mean) & (mean <= high)) == pytest.approx(0.945, abs=0.016)
    one = intervals.mean_interval(samples[0], "val_accuracy")
    assert one == pytest.approx((low[0], high[0]))


def test_intervals_know_their_metrics_bounds():
    low, high = intervals.mean_interval(stored([0.88, 0.99]), "test_accuracy")
    assert 0 < low < 0.9 and 0.99 < high < 1
    low, high = intervals.mean_interval(np.array([1.0, 1.0, 1.0]), "val_accuracy")
    assert (low, high) == (1, 1)
    assert intervals.mean_interval(np.array([0.1, 2.0]), "val_loss")[0] == 0
    assert intervals.difference_interval(np.array([0.1, 0.8]), "val_accuracy")[1] == 1
    assert intervals.difference_interval(np.array([0.1, 0.8]), "val_loss")[1] > 1
    for values in ([], [0.5]):
        assert np.isnan(intervals.mean_interval(np.array(values), "val_accuracy")).all()


def test_arms_are_averaged_over_what_all_of_them_were_tried_with():
    rows = [("a", 2, s, 0.5 + s / 100) for s in (0, 1)] + [("b", 2, s, 0.6) for s in (0, 1)]
    rows += [("a", 16, s, 0.1) for s in (0, 1)]  # where it is hard, and only a was tried
    trials = frame(*rows, factors=TWO)
    fair = comparison.comparison(trials, ["initializer"], "val_accuracy", {}, ["model.depth"])
    assert list(fair["mean"]) == pytest.approx([0.505, 0.6])
    assert list(compared(trials)["mean"]) == pytest.approx([0.3025, 0.6])
    apart = frame(("a", 2, 0, 0.5), ("b", 16, 0, 0.6), factors=TWO)
    nothing = comparison.comparison(apart, ["initializer"], "val_accuracy", {}, ["model.depth"])
    assert list(nothing["initializer"]) == ["a", "b"] and nothing["mean"].isna().all()


def test_seeds_are_averaged_over_the_same_combinations():
    # Easy at depth 2 (.9), hard at 16 (.1); seeds 2 and 3 have not been to depth 16 yet.
    rows = [(arm, depth, s, 0.9 if depth == 2 else 0.1) for arm in "ab" for depth in (2, 16) for s in range(4)]
    trials = frame(*(row for row in rows if row[1] == 2 or row[2] < 2), factors=TWO)
    by_arm = comparison.comparison(trials, ["initializer"], "val_accuracy", {}, ["model.depth"])
    assert list(by_arm["mean"]) == pytest.approx([0.9, 0.9]) and list(by_arm["sd"]) == pytest.approx([0, 0])
    assert arms.left_out(trials, ["initializer"], ["model.depth"]) == ([(16,)], [], False)
    more = trials[(trials["seed"] < 3) & ((trials["seed"] < 2) | (trials["initializer"] == "a"))]
    table = comparison.comparison(more, ["initializer"], "val_accuracy", {}, ["model.depth"])
    assert list(table["mean"]) == pytest.approx([0.5, 0.5]) and list(table["seeds"]) == [2, 2]
    assert arms.left_out(more, ["initializer"], ["model.depth"]) == ([], [2], False)


def test_the_largest_block_may_be_what_three_of_four_seeds_have_in_common():
    depths = [{*range(5), 5, 6}, {*range(5), 5, 7}, {*range(5), 6, 7}, {8}]
    rows = [(arm, depth, seed, 0.5) for arm in "ab" for seed, those in enumerate(depths) for depth in sorted(those)]
    trials = frame(*rows, factors=TWO)
    kept = arms.comparable(trials, ["initializer"], ["model.depth"])
    assert len(kept) == 2 * 15 and set(kept["seed"]) == {0, 1, 2} and set(kept["model.depth"]) == set(range(5))


@pytest.mark.parametrize("seed", range(20))
def test_no_block_is_larger_than_the_one_kept(seed):
    there = np.random.default_rng(seed).random((6, 7)) < 0.7
    rows, columns = arms._block(there)
    every = [[place for place in range(6) if mask >> place & 1] for mask in range(1, 2**6)]
    assert there[np.ix_(rows, columns)].all()
    assert len(rows) * len(columns) == max(len(some) * there[some].all(axis=0).sum() for some in every)


def test_a_block_of_many_ragged_seeds_is_found_in_time():
    there = np.random.default_rng(0).random((200, 60)) < 0.8
    there[:150, :40] = True
    start = time.perf_counter()
    rows, columns = arms._block(there)
    assert time.perf_counter() - start < 5 and there[np.ix_(rows, columns)].all()


def test_a_whole_frame_leaves_nothing_out_and_arms_tried_apart_everything():
    assert arms.left_out(grid(), ["initializer"], ["model.depth"]) == ([], [], False)
    assert arms.left_out(grid(), TWO, []) == ([], [], False)
    apart = frame(("a", 2, 0, 0.5), ("b", 16, 0, 0.6), factors=TWO)
    assert arms.left_out(apart, ["initializer"], ["model.depth"]) == ([(2,), (16,)], [0], True)


def test_factors_that_move_together_are_not_averaged_over():
    study = Study("x", "?", {"a": (1,), "b": (1,), "c": (1,)}, (0,), {}, "val_accuracy", zip=(("a", "b"),))
    assert arms.averaged_over(study, ["a"]) == ["c"] and arms.averaged_over(study, ["c"]) == ["a", "b"]


ZIPPED = {"regularizer": ("none", "none", "l1"), "model.dropout": (0.0, 0.5, 0.0)}


def test_arms_that_a_zipped_factor_tells_apart_are_not_merged():
    study = Study("x", "?", ZIPPED, (0,), {"regularizer": "none", "model.dropout": 0.0}, "val_accuracy",
                  zip=(tuple(ZIPPED),))  # fmt: skip
    over = arms.averaged_over(study, ["regularizer"])
    assert over == ["model.dropout"]
    rows = [("none", 0.0, s, 0.5) for s in range(3)] + [("none", 0.5, s, 0.7) for s in range(3)]
    rows += [("l1", 0.0, s, 0.5 + 0.01 * s) for s in range(3)]
    trials = frame(*rows, factors=tuple(ZIPPED))
    table = comparison.comparison(trials, ["regularizer"], "val_accuracy", study.baseline, over)
    assert list(table["mean"]) == pytest.approx([0.5, 0.51]) and table["difference"].iloc[1] == pytest.approx(0.01)
    assert arms.left_out(trials, ["regularizer"], over) == ([(0.5,)], [], False)


def test_the_span_of_a_factor_is_from_its_worst_to_its_best_level():
    trials = spread(0.5, 0.9, 0.7)
    found = comparison.span(comparison.by_seed(trials, ["initializer"], "val_accuracy"), ["initializer"])
    assert (found["lowest"], found["highest"], found["pairs"]) == (("a",), ("b",), 5)
    values = trials.set_index("seed").groupby("initializer")["val_accuracy"].apply(list)
    assert found["difference"] == pytest.approx(np.mean(values["b"]) - np.mean(values["a"]))
    assert found["p"] == pytest.approx(3 * stats.ttest_rel(values["b"], values["a"]).pvalue)
    assert comparison.span(comparison.by_seed(trials[:5], ["initializer"], "val_accuracy"), ["initializer"]) is None


def test_a_range_test_whose_losses_are_never_finite_has_no_rates():
    curve = pd.concat([range_test([NAN, NAN, NAN]), range_test([2.0, 1.0, 0.4], seed=1)])
    row = tuning.rate_range(curve, ["optimizer"]).iloc[0]
    assert row["lowest"] == pytest.approx(100) and row["seeds"] == 2
    assert np.isnan(tuning.rate_range(range_test([NAN, NAN]), ["optimizer"]).iloc[0]["lowest"])
    assert np.isfinite(tuning.rate_range(range_test([NAN, 2.0, 1.0, 0.5]), ["optimizer"]).iloc[0]["steepest"])


def test_an_arm_none_of_whose_trials_finished_has_failed_and_is_not_best():
    lost = [("a", seed, NAN, "diverged") for seed in range(3)]
    bad = [("b", seed, 0.05 + seed / 1000) for seed in range(3)]  # below chance, which the failed one scores
    assert list(compared(frame(*lost, *bad))["standing"]) == ["failed", "best"]
    assert list(compared(frame(*lost, *(("b", *row[1:]) for row in lost)))["standing"]) == ["failed", "failed"]
