"""Profiles, the best of n draws, rank correlation and the range of good rates, against closed forms and second ways."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.estimate import profiles
from studies.record import StudyError

NAN, INF = float("nan"), float("inf")
pytestmark = pytest.mark.filterwarnings("error")


def costs(**arms):
    """Trials of arms on problems: a cost each, None for one that diverged and `x` for one that crashed."""
    rows = [
        (arm, place, NAN if cost in (None, "x") else cost, {None: "diverged", "x": "crashed"}.get(cost, "finished"))
        for arm, several in arms.items()
        for place, cost in enumerate(several)
    ]
    return pd.DataFrame(rows, columns=["arm", "data", "seconds_train", "status"]).assign(seed=0)


def profile(trials, taus=None):
    table = profiles.performance_profile(trials, ["arm"], ["data"], "seconds_train", taus)
    return {arm: dict(zip(part["tau"], part["share"])) for arm, part in table.groupby("arm")}


def test_a_profile_by_hand():
    # Ratios: a 1, 2, 1, and none; b 2, 1, 1, 1.
    found = profile(costs(a=[1.0, 4.0, 3.0, None], b=[2.0, 2.0, 3.0, 9.0]))
    assert found == {"a": {1.0: 0.5, 2.0: 0.75}, "b": {1.0: 0.75, 2.0: 1.0}}
    assert profile(costs(a=[1.0, 3.0], b=[2.0, 2.0]), [1, 1.4, 1.5])["a"] == {1: 0.5, 1.4: 0.5, 1.5: 1.0}


@pytest.mark.parametrize("seed", range(5))
def test_a_profile_is_the_distribution_function_of_its_ratios(seed):
    values = np.random.default_rng(seed).uniform(1, 9, (3, 8))
    found = profile(costs(**dict(zip("abc", values.tolist()))))
    for n, arm in enumerate("abc"):
        for tau, share in found[arm].items():
            solved = [values[n, p] <= tau * min(values[:, p]) * (1 + 1e-9) for p in range(8)]
            assert share == pytest.approx(np.mean(solved))
    assert sum(each[1.0] for each in found.values()) == pytest.approx(1)  # each problem has one best


def test_profiles_of_equals_of_failures_of_zeros_and_of_nothing():
    assert profile(costs(a=[3.0, 3.0], b=[3.0, np.float64(np.float32(3.0000002))])) == {
        "a": {1.0: 1.0},
        "b": {1.0: 1.0},
    }
    assert profile(costs(a=[None, None], b=[None, None])) == {"a": {1.0: 0.0}, "b": {1.0: 0.0}}
    assert profile(costs(a=[0.0, 1.0], b=[5.0, 1.0]))["b"] == {1.0: 0.5}
    table = profiles.performance_profile(costs(a=["x", 1.0], b=[5.0, 1.0]), ["arm"], ["data"], "seconds_train")
    assert set(table["problems"]) == {1}
    assert profiles.performance_profile(costs(a=["x"], b=[1.0]), ["arm"], ["data"], "seconds_train").empty
    assert profiles.performance_profile(costs(), ["arm"], ["data"], "seconds_train").empty


def test_a_profile_of_accuracies_is_of_errors_and_of_what_is_no_cost_refused():
    trials = costs(a=[0.9, 0.8], b=[0.8, 0.9]).rename(columns={"seconds_train": "val_accuracy"}).assign(classes=10)
    table = profiles.performance_profile(trials, ["arm"], ["data"], "val_accuracy")
    assert sorted(set(table["tau"])) == pytest.approx([1, 2])
    for name in ("parameters", "mine"):
        with pytest.raises(StudyError, match="expected a cost"):
            profiles.performance_profile(
                costs(a=[1.0]).rename(columns={"seconds_train": name}), ["arm"], ["data"], name
            )
    with pytest.raises(StudyError, match="costs of 0 or more, received -1"):
        profile(costs(a=[-1.0]))


def draws(values, metric="val_accuracy", **more):
    trials = pd.DataFrame({"arm": "a", "seed": range(len(values)), metric: values, "status": "finished"})
    trials = trials.assign(classes=10)
    return profiles.best_of_draws(trials, ["arm"], metric, np.random.default_rng(0), **more)


@pytest.mark.parametrize(("metric", "best"), [("val_accuracy", max), ("val_loss", min)])
def test_the_expected_best_is_the_mean_over_all_draws_with_replacement(metric, best):
    values = [0.1, 0.5, 0.7, 0.9]
    table = draws(values, metric).set_index("draws")
    for n in range(1, 5):
        assert table.loc[n, "expected"] == pytest.approx(
            np.mean([best(d) for d in itertools.product(values, repeat=n)])
        )
    assert (table["low"] <= table["expected"]).all() and (table["expected"] <= table["high"]).all()
    assert table.loc[1, "expected"] == pytest.approx(np.mean(values))


def test_the_bootstrap_of_one_draw_is_that_of_the_mean():
    values = np.random.default_rng(1).uniform(size=40)
    row = draws(values, draws=[1]).iloc[0]
    ends = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=5000, rng=np.random.default_rng(2))
    assert (row["low"], row["high"]) == pytest.approx(tuple(ends.confidence_interval), abs=0.01)


@pytest.mark.parametrize("n", [1, 5, 20])
@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss"])
def test_the_medians_interval_covers_it(n, metric):
    rng, hits = np.random.default_rng(n), []
    truth = 0.5 ** (1 / n) if metric == "val_accuracy" else 1 - 0.5 ** (1 / n)  # of uniform values
    known = profiles.measure(metric)
    for _ in range(500):
        values = np.sort(known.better * rng.uniform(size=20))
        median, low, high = profiles._median(values, n, 0.95, known)
        hits.append(low <= truth <= high)
        assert low <= median <= high
    assert np.mean(hits) >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 500)


def test_the_medians_interval_of_one_draw_is_scipys():
    values = np.random.default_rng(0).uniform(size=30)
    row = draws(values, draws=[1]).iloc[0]
    expected = stats.quantile_test(values, p=0.5).confidence_interval(0.95)
    assert (row["median_low"], row["median_high"]) == pytest.approx(tuple(expected))


def test_one_draw_equal_ones_failures_and_none_are_defined():
    row = draws([0.4]).iloc[0]
    assert row["expected"] == row["median"] == 0.4 and np.isnan(row["low"])
    assert (row["median_low"], row["median_high"]) == (0, 1)
    table = draws([0.4] * 9)
    assert table[["expected", "low", "high", "median"]].to_numpy() == pytest.approx(0.4)
    assert len(draws([0.4, 0.5], draws=[1, 2, 3])) == 2 and draws([]).empty
    failed = pd.DataFrame({"arm": "a", "seed": [0, 1], "val_accuracy": NAN, "status": "diverged", "classes": 10})
    table = profiles.best_of_draws(failed, ["arm"], "val_accuracy", np.random.default_rng(0))
    assert list(table["expected"]) == pytest.approx([0.1, 0.1])
    assert profiles.best_of_draws(
        failed.assign(status="crashed"), ["arm"], "val_accuracy", np.random.default_rng(0)
    ).empty
    with pytest.raises(StudyError, match="expected one of which more or less is better"):
        draws([0.4], "mine")
    with pytest.raises(StudyError, match="draws=0: expected 1 or more"):
        draws([0.4], draws=[0])


@pytest.mark.parametrize("n", [2, 5, 7])
def test_a_rank_correlation_has_the_exact_p(n):
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=n), rng.integers(0, 4, n) + 0.0 if n > 2 else np.array([1.0, 2.0])
    found = profiles.rank_correlation(x, y, rng)
    rho = stats.spearmanr(x, y).statistic
    every = [stats.spearmanr(x, order).statistic for order in itertools.permutations(y)] if n < 7 else None
    assert found["rho"] == pytest.approx(rho) and found["pairs"] == n
    if every:
        assert found["p"] == pytest.approx(min(np.mean(np.abs(every) >= abs(rho) - 1e-9), 1), abs=1e-9)
    perfect = profiles.rank_correlation(range(n), range(n), rng)
    assert perfect["rho"] == pytest.approx(1) and perfect["p"] == pytest.approx(perfect["least_p"])


def test_a_rank_correlation_of_many_is_near_the_approximate_one_and_of_none_defined():
    rng = np.random.default_rng(0)
    x = rng.normal(size=60)
    y = x + 3 * rng.normal(size=60)
    found, expected = profiles.rank_correlation(x, y, rng), stats.spearmanr(x, y)
    assert (found["rho"], found["p"]) == (pytest.approx(expected.statistic), pytest.approx(expected.pvalue, abs=0.02))
    for a, b in (([], []), ([1], [2]), ([1, 1, 1], [1, 2, 3]), ([1, NAN], [1, 2])):
        found = profiles.rank_correlation(a, b, rng)
        assert np.isnan(found["rho"]) and found["p"] == 1
    assert profiles.rank_correlation([1, 2, NAN, 3], [1, 2, 9, 3], rng)["pairs"] == 3


def rates(**arms):
    """Trials of arms at rates: rate -> the values over seeds, None for a failure."""
    rows = [
        (arm, rate, seed, NAN if v is None else v, "diverged" if v is None else "finished")
        for arm, some in arms.items() for rate, values in some.items() for seed, v in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["arm", "rate", "seed", "val_accuracy", "status"]).assign(classes=10)


def range_of(trials, margin=0.02, metric="val_accuracy"):
    return profiles.rate_sensitivity(trials, "rate", ["arm"], metric, margin).set_index("arm")


def test_the_range_of_good_rates_by_hand():
    table = range_of(
        rates(
            a={0.1: [0.9, 0.91], 1e-3: [0.89, 0.9], 0.01: [0.91, 0.91], 1.0: [None, None], 1e-4: [0.5, 0.6]},
            b={0.1: [0.9, 0.9], 1.0: [0.89, 0.9], 0.01: [0.1, 0.1], 1e-3: [0.9, 0.9]},
        )
    )
    a, b = table.loc["a"], table.loc["b"]
    assert (a["best"], a["lowest"], a["highest"], a["edge"], a["levels"], a["seeds"]) == (0.01, 1e-3, 0.1, False, 5, 2)
    assert (a["decades"], a["value"]) == (pytest.approx(2), pytest.approx(0.91))
    # Of equals the least is best; what lies beyond a gap does not count.
    assert (b["best"], b["lowest"], b["highest"], b["decades"], b["edge"]) == (1e-3, 1e-3, 1e-3, 0, True)


def test_a_range_of_one_level_of_equals_of_failures_and_of_a_loss():
    table = range_of(rates(a={0.1: [0.9]}, b={0.1: [0.9], 0.2: [0.9]}, c={0.1: [None], 0.2: [None]}))
    assert list(table["decades"]) == pytest.approx([0, np.log10(2), np.log10(2)]) and table["edge"].all()
    crashed = range_of(rates(a={0.1: [0.9]}, b={0.1: [0.8]}).assign(status=["finished", "crashed"]))
    assert crashed.loc["b", "levels"] == 0 and np.isnan(crashed.loc["b", "best"])
    loss = rates(a={0.1: [0.5], 0.2: [0.1], 0.4: [0.2]}).rename(columns={"val_accuracy": "val_loss"})
    row = range_of(loss, 0.1, "val_loss").loc["a"]
    assert (row["best"], row["lowest"], row["highest"], row["value"]) == (0.2, 0.2, 0.4, 0.1)


def test_rates_are_compared_by_the_seeds_that_all_have():
    table = range_of(rates(a={0.1: [0.9, 0.1, 0.1], 0.2: [0.8]}))
    assert (table.loc["a", "best"], table.loc["a", "seeds"]) == (0.1, 1)


@pytest.mark.parametrize("level", ["x", 0, None, True])
def test_a_level_that_has_no_logarithm_is_refused(level):
    trials = rates(a={0.1: [0.9], 0.2: [0.8]})
    trials["rate"] = pd.Series([0.1, level], dtype=object)
    with pytest.raises(StudyError, match="expected numbers above 0"):
        range_of(trials)
    with pytest.raises(StudyError, match="margin of 0 or more"):
        range_of(rates(a={0.1: [0.9]}), -1)
