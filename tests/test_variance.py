"""The analysis of variance against statsmodels, scipy and closed forms."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from analysis.estimate import variance
from studies.record import StudyError

NAN = float("nan")
pytestmark = pytest.mark.filterwarnings("error")


def made(effect, seeds=6, sd=0.1, drop=0, rng=0):
    """Trials of three levels of `x` and two of `y`; effect is a function of their places."""
    rng = np.random.default_rng(rng)
    luck = rng.normal(0, 0.2, seeds)
    rows = [
        ("abc"[i], j, seed, effect(i, j) + luck[seed] + rng.normal(0, sd))
        for i in range(3) for j in range(2) for seed in range(seeds)
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["x", "m.y", "seed", "mine"]).assign(status="finished")
    return frame.drop(index=rng.choice(len(frame), drop, replace=False)).reset_index(drop=True)


@pytest.mark.parametrize("drop", [0, 7])
def test_it_is_statsmodels_type_two(drop):
    trials = made(lambda i, j: 0.1 * i + 0.2 * i * j, drop=drop)
    table = variance.anova(trials, ["x", "m.y"], "mine").set_index("term")
    model = ols("mine ~ C(x) * C(y) + C(seed)", trials.rename(columns={"m.y": "y"})).fit()
    expected = anova_lm(model, typ=2)
    places = {"x": "C(x)", "m.y": "C(y)", "x × m.y": "C(x):C(y)", "seed": "C(seed)", "rest": "Residual"}
    for term, place in places.items():
        assert table.loc[term, "ss"] == pytest.approx(expected.loc[place, "sum_sq"])
        assert table.loc[term, "df"] == expected.loc[place, "df"]
        assert table.loc[term, "F"] == pytest.approx(expected.loc[place, "F"], nan_ok=True)
        assert table.loc[term, "p"] == pytest.approx(expected.loc[place, "PR(>F)"], nan_ok=True)


def test_one_factor_and_a_block_of_two_is_the_paired_t_test():
    trials = made(lambda i, j: 0.3 * j).query("x == 'a'")
    row = variance.anova(trials, ["m.y"], "mine").iloc[0]
    halves = [trials.loc[trials["m.y"] == j, "mine"].to_numpy() for j in (0, 1)]
    t = stats.ttest_rel(*halves)
    assert (row["F"], row["p"]) == (pytest.approx(t.statistic**2), pytest.approx(t.pvalue))
    # Partial eta and omega squared by their closed forms, of F = t² with 1 and 5 degrees of freedom and 12 values.
    assert row["eta2"] == pytest.approx(t.statistic**2 / (t.statistic**2 + 5))
    assert row["omega2"] == pytest.approx((t.statistic**2 - 1) / (t.statistic**2 - 1 + 12))


def test_in_a_complete_design_the_shares_add_up_and_three_factors_interact():
    trials = pd.concat([made(lambda i, j: i * j, rng=z).assign(z=z) for z in (0, 1)])
    table = variance.anova(trials, ["x", "m.y", "z"], "mine", order=3)
    assert list(table["term"]) == ["x", "m.y", "z", "x × m.y", "x × z", "m.y × z", "x × m.y × z", "seed", "rest"]
    assert table["share"].sum() == pytest.approx(1) and table["df"].sum() == len(trials) - 1
    assert "x × m.y × z" not in set(variance.anova(trials, ["x", "m.y", "z"], "mine")["term"])


def test_empty_cells_have_fewer_degrees_of_freedom():
    trials = made(lambda i, j: 0.1 * i)
    holed = trials[(trials["x"] != "c") | (trials["m.y"] == 0)]
    table = variance.anova(holed, ["x", "m.y"], "mine").set_index("term")
    assert list(table["df"]) == [2, 1, 1, 5, len(holed) - 1 - 9] and np.isfinite(table["F"][:-1]).all()
    apart = trials[(trials["x"] == "a") == (trials["m.y"] == 0)]  # the factors move together
    table = variance.anova(apart, ["x", "m.y"], "mine").set_index("term")
    assert table.loc["m.y", "df"] == 0 and table.loc["m.y", "ss"] == 0 and np.isnan(table.loc["m.y", "p"])


def test_one_seed_equal_values_no_spread_and_nothing_are_defined():
    trials = made(lambda i, j: i)
    one = variance.anova(trials[trials["seed"] == 0], ["x", "m.y"], "mine").set_index("term")
    assert one.loc["rest", "df"] == 0 and one["p"].isna().all() and one.loc["seed", "df"] == 0
    alike = variance.anova(trials.assign(mine=np.float32(0.9)), ["x", "m.y"], "mine")
    assert (alike["ss"] == 0).all() and (alike["share"] == 0).all() and set(alike["p"][:-1]) == {1.0}
    exact = trials.assign(mine=trials["x"].map({"a": 0.1, "b": 0.2, "c": 0.3}))
    table = variance.anova(exact, ["x", "m.y"], "mine").set_index("term")
    assert np.isnan(table.loc["x", "p"]) and table.loc["x", "eta2"] == 1 and table.loc["m.y", "p"] == 1
    failed = variance.anova(trials.assign(status="diverged"), ["x", "m.y"], "mine")
    assert (failed["ss"] == 0).all() and (failed["df"] == 0).all() and failed["p"].isna().all()
    assert list(variance.anova(trials, [], "mine")["term"]) == ["seed", "rest"]


def test_a_crash_leaves_its_cell_out():
    trials = made(lambda i, j: 0.1 * i)
    crashed = trials.assign(status=["crashed", *["finished"] * (len(trials) - 1)])
    pd.testing.assert_frame_equal(
        variance.anova(crashed, ["x", "m.y"], "mine"), variance.anova(trials[1:], ["x", "m.y"], "mine")
    )


def test_ratios_do_not_interact_on_the_logarithmic_scale():
    trials = made(lambda i, j: 0.5 * i + 0.7 * j, sd=0.02)
    times = trials.assign(seconds_train=np.exp(trials["mine"])).drop(columns="mine")
    raw, logs = (variance.anova(times, ["x", "m.y"], "seconds_train", log=log).set_index("term") for log in (0, 1))
    assert raw.loc["x × m.y", "p"] < 0.01 < 0.05 < logs.loc["x × m.y", "p"]
    with pytest.raises(StudyError, match=r"mine=-.*: expected values above 0"):
        variance.anova(trials.assign(mine=-1.5), ["x"], "mine", log=True)


def test_components_are_those_the_values_were_made_of():
    rng, seeds = np.random.default_rng(0), 150
    luck = rng.normal(0, 0.3, seeds)
    rows = [(x, s, 1.0 * x + luck[s] + rng.normal(0, 0.5)) for x in (0, 1) for s in range(seeds)]
    trials = pd.DataFrame(rows, columns=["x", "seed", "mine"]).assign(status="finished")
    found = variance.components(trials, ["x"], "mine").set_index("term")["variance"]
    assert found["x"] == pytest.approx(0.25, rel=0.2)
    assert found["seed"] == pytest.approx(0.09, rel=0.4) and found["rest"] == pytest.approx(0.25, rel=0.2)
    few = variance.components(trials[trials["seed"] < 6], ["x"], "mine").set_index("term")
    table = variance.anova(trials[trials["seed"] < 6], ["x"], "mine").set_index("term")
    ms = table["ss"] / table["df"]
    assert few.loc["seed", "variance"] == pytest.approx(max(ms["seed"] - ms["rest"], 0) / 2)  # by hand: two arms
    assert few["share"].sum() == pytest.approx(1)


def test_components_of_equal_values_are_zero_and_one_seed_is_refused():
    trials = made(lambda i, j: i)
    table = variance.components(trials.assign(mine=0.5), ["x", "m.y"], "mine")
    assert (table[["variance", "share"]] == 0).all(axis=None)
    with pytest.raises(StudyError, match="run the study at more seeds"):
        variance.components(trials[trials["seed"] == 0], ["x", "m.y"], "mine")


def test_an_interaction_has_its_test_and_the_differences_at_each_level():
    trials = made(lambda i, j: 0.3 * j * (i == 2))
    test, gaps = variance.interaction(trials, "x", "m.y", "mine")
    assert test["p"].item() < 0.01 and test["df"].item() == 2
    assert list(zip(gaps["m.y"], gaps["x"])) == [(0, "b"), (0, "c"), (1, "b"), (1, "c")]
    first, other = (trials.query(f"x == '{x}' and `m.y` == 1")["mine"].to_numpy() for x in "ac")
    expected = stats.ttest_rel(other, first)
    assert gaps["difference"][3] == pytest.approx((other - first).mean())
    assert (gaps["low"][3], gaps["high"][3]) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert gaps["p"][3] == pytest.approx(4 * expected.pvalue)


def test_an_interaction_of_levels_that_are_null_or_missing_is_defined():
    trials = made(lambda i, j: 0.1 * i)
    trials["x"] = pd.Series([{"a": None, "b": (1, 2), "c": "c"}[x] for x in trials["x"]], dtype=object)
    holed = trials[(trials["x"] != "c") | (trials["m.y"] == 0)]
    gaps = variance.interaction(holed, "x", "m.y", "mine").differences
    assert list(gaps["pairs"]) == [6, 6, 6, 0] and np.isnan(gaps["difference"][3]) and gaps["x"][0] == (1, 2)
    one = variance.interaction(trials[trials["seed"] == 0], "x", "m.y", "mine")
    assert np.isnan(one.test["p"].item()) and one.differences[["low", "p"]].isna().all(axis=None)
