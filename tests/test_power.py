"""Power against statsmodels and simulation; the seeds planner through its command."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower
from test_compare import stored

from analysis import load, power
from analysis.estimate import intervals
from analysis.estimate import power as estimates
from analysis.show import plans
from studies.record import StudyError

NAN, INF = float("nan"), float("inf")
pytestmark = pytest.mark.filterwarnings("error")


def frame(**arms):
    """Trials of arms: a value a seed, None for one that diverged, `x` for one that crashed."""
    rows = [
        (arm, seed, NAN if value in (None, "x") else value, {None: "diverged", "x": "crashed"}.get(value, "finished"))
        for arm, values in arms.items()
        for seed, value in enumerate(values)
    ]
    trials = pd.DataFrame(rows, columns=["arm", "seed", "val_accuracy", "status"])
    return trials.assign(classes=10, seconds_total=2.0)


def planned(trials, baseline="a", margin=0.01):
    return estimates.plan(trials, ["arm"], "val_accuracy", {"arm": baseline} if baseline else {}, margin)


def test_the_seeds_that_an_effect_needs_are_the_known_ones():
    found = [estimates.seeds_needed(d, 0.05, 0.8, "larger") for d in (0.5, 1, 1.5, 2)]
    assert found == [27, 8, 5, 4]
    assert estimates.seeds_needed(0.5, 0.05) == 34  # two-sided, as tables of power have it
    assert estimates.seeds_needed(-0.5, 0.05) == 34 and estimates.seeds_needed(1e6, 1e-4) == 3
    assert estimates.seeds_needed(1e-5, 0.05) == INF


@pytest.mark.parametrize("alternative", ["two-sided", "larger"])
@pytest.mark.parametrize("alpha", [0.05, 0.0025])
@pytest.mark.parametrize("n", [3, 5, 20, 100])
def test_the_power_is_statsmodels(n, alpha, alternative):
    there = 0
    for effect in (0.1, 0.3, 0.5, 1, 2, 3, 5, 15):
        with np.errstate(all="ignore"):
            expected = TTestPower().power(effect, n, alpha, alternative=alternative)
        if expected == expected:  # which it is not for many of the great ones
            assert estimates.t_power(effect, n, alpha, alternative) == pytest.approx(expected, abs=3e-4)
            there += 1
    assert there > 3


def test_the_power_is_what_the_products_own_test_has():
    differences = np.random.default_rng(0).normal(1.5, 1, (6, 20_000))
    found = np.mean(intervals.paired_p(differences) <= 0.05 / 4)
    assert estimates.t_power(1.5, 6, 0.05 / 4) == pytest.approx(found, abs=0.01)


def test_what_is_detectable_is_found_with_the_power_asked_for():
    for n, alpha in ((2, 0.05), (3, 0.0025), (5, 0.0025), (40, 0.05)):
        assert estimates.t_power(estimates.detectable(n, alpha), n, alpha) == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize(("n", "first", "second"), [(20, 0.3, 0.05), (8, 0.9, 0.0), (30, 0.2, 0.1)])
def test_the_power_of_mcnemars_test_is_simulated(n, first, second):
    draw = np.random.default_rng(n).random((n, 20_000))
    one = np.where(draw < first, 0.0, 1.0)
    other = np.where((draw >= first) & (draw < first + second), 0.0, 1.0)
    found = np.mean(intervals.mcnemar_p(one, other) <= 0.05)
    assert estimates.mcnemar_power(n, first, second, 0.05) == pytest.approx(found, abs=0.01)
    assert estimates.mcnemar_power(n, 0, 0, 0.05) == 0


LUCK = np.array([0.01, -0.02, 0.0, 0.02, -0.01])


def test_a_plan_is_of_each_arm_to_its_baseline_at_the_worst_case_of_holm():
    table = planned(frame(a=[0.8] * 5, b=0.85 + LUCK, c=0.85 + 2 * LUCK))
    assert list(zip(table["arm"], table["other"])) == [("b", "a"), ("c", "a")]
    sd = np.std(LUCK, ddof=1)
    assert list(table["sd"]) == pytest.approx([sd, 2 * sd]) and table["alpha"].to_numpy() == pytest.approx(0.025)
    assert list(table["seeds"]) == [estimates.seeds_needed(0.01 / s, 0.025) for s in (sd, 2 * sd)]
    assert table["detectable"][0] == pytest.approx(sd * estimates.detectable(5, 0.025))
    # With the seeds that it asks for, what is detectable is the margin or less, and with one fewer more.
    n = int(table["seeds"][0])
    assert sd * estimates.detectable(n, 0.025) <= 0.01 < sd * estimates.detectable(n - 1, 0.025)
    # The sd's interval at 95 % by the chi-squared table of 4 degrees of freedom: 11.143 and .4844.
    low, high = sd * np.sqrt(4 / 11.143), sd * np.sqrt(4 / 0.4844)
    ends = [estimates.seeds_needed(0.01 / s, 0.025) for s in (low, high)]
    assert list(table.loc[0, ["seeds_low", "seeds_high"]]) == pytest.approx(ends, abs=1)
    every = planned(frame(a=[0.8] * 5, b=0.85 + LUCK, c=0.85 + 2 * LUCK), baseline=None, margin=None)
    assert list(zip(every["arm"], every["other"])) == [("b", "a"), ("c", "a"), ("c", "b")]
    assert (
        every["alpha"].to_numpy() == pytest.approx(0.05 / 3)
        and every["seeds"].isna().all()
        and every["detectable"].notna().all()
    )


def test_few_seeds_no_spread_failures_and_crashes_are_defined_and_said():
    flat = [0.8] * 5
    table = planned(frame(a=flat, b=[0.9, 0.91], c=[0.9], d=[0.85] * 5, e=["x"] * 5, f=[None] * 5)).set_index("arm")
    assert table.loc["b", "note"] == "not tested with fewer than 3 seeds" and table.loc["b", "seeds"] > 3
    assert table.loc["c", "note"] == table.loc["e", "note"] == "needs two seeds that both have"
    for arm in "df":
        assert table.loc[arm, "note"] == "alike at every seed" and table.loc[arm, "sd"] == 0
    assert table.loc[list("cdef"), ["detectable", "seeds"]].isna().all(axis=None)


def test_an_arm_that_fails_at_some_seeds_is_planned_by_success():
    n = 12
    row = planned(frame(a=[0.8] * n, b=[None if s % 2 else 0.9 for s in range(n)])).iloc[0]
    assert row["test"] == "success" and np.isnan(row["sd"]) and row["note"] == ""
    # p = 2 / 2^k is .05 or less from k = 6 on: a failure rate at which 6 of 12 or more fail in 80 % of studies.
    assert stats.binom.sf(5, n, row["detectable"]) == pytest.approx(0.8)
    need = int(row["seeds"])
    assert estimates.mcnemar_power(need, 0.5, 0, 0.05) >= 0.8 > estimates.mcnemar_power(need - 1, 0.5, 0, 0.05)
    few = planned(frame(a=[0.8] * 5, b=[None, *[0.9] * 4])).iloc[0]
    assert few["note"] == "5 seeds show no difference of success, 6 the greatest" and np.isnan(few["detectable"])
    same = planned(frame(a=[None, 0.9, 0.8], b=[0.9, None, 0.8])).iloc[0]
    assert same["seeds"] == INF
    assert planned(frame(a=[None, 0.9, "x"], b=["x", "x", 0.9])).iloc[0]["note"] == "needs seeds that both have"


def test_what_cannot_be_planned_is_refused():
    with pytest.raises(StudyError, match="expected two arms to compare by arm"):
        planned(frame(a=[0.8]))
    with pytest.raises(StudyError, match="expected two arms"):
        planned(frame(a=[0.8], b=[0.9]), baseline="c")
    for margin in (0, -1, NAN, INF):
        with pytest.raises(StudyError, match="expected a difference above 0"):
            planned(frame(a=[0.8], b=[0.9]), margin=margin)


def test_a_seed_costs_what_its_trials_took():
    trials = frame(a=[0.8, 0.9], b=[0.8, 0.9]).assign(seconds_total=[1, 2, 3, 4])
    assert estimates.seconds_a_seed(trials) == 5  # a mean of 2.5 for each of two arms
    assert estimates.seconds_a_seed(trials.assign(seconds_total=[NAN, 2, 3, 4])) == 6
    assert np.isnan(estimates.seconds_a_seed(trials.assign(seconds_total=NAN)))


def test_durations_are_in_a_unit_that_reads():
    assert [plans.duration(s) for s in (0.5, 90, 5400, 360000)] == ["0.5 s", "90 s", "90 min", "100 h"]


def said(trials, margin=0.01, seconds=10.0, workers=1):
    return plans.plan_words(planned(trials, margin=margin), "val_accuracy", margin, seconds, workers)


def test_a_plan_in_words_says_the_seeds_and_their_cost():
    first, found, needed, cost = said(frame(a=[0.8] * 5, b=0.85 + LUCK, c=0.85 + 2 * LUCK), workers=2)
    assert "over 2 comparisons: 2.5 % in the worst case" in first
    assert found.startswith("With 80 % power the seeds there are find differences in val accuracy of 0.0")
    table = planned(frame(a=[0.8] * 5, b=0.85 + LUCK, c=0.85 + 2 * LUCK))
    n = int(table["seeds"][1])
    assert f"in 0 of 2 comparisons; all take {n} seeds (" in needed and "for c against a" in needed
    total = plans.duration(10.0 * (n - 5))
    assert f"takes 10 s of one worker: {n - 5} more take {total} of one worker, on the study's 2 " in cost
    assert cost.endswith(f"2 {plans.duration(5.0 * (n - 5))}.")
    enough = said(frame(a=[0.8] * 5, b=0.85 + LUCK), margin=0.5)[-1]
    assert enough.endswith("is found with the seeds there are in 1 of 1 comparisons.")
    n = 12
    text = " ".join(said(frame(a=[0.8] * n, b=[None if s % 2 else 0.9 for s in range(n)])))
    assert "1 of 1 comparisons has an arm that fails at some seeds: planned by success rates" in text
    assert "too little: see the notes" in said(frame(a=[0.8], b=[0.9]))[-1]


@pytest.fixture(scope="module")
def root(fresh, tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    shutil.copy(fresh / "mlflow.db", root)
    factors = {"initializer": ("he", "zeros"), "model.depth": (1, 2)}
    stored(root, "first", factors, {"initializer": "he"}, {"executor": {"workers": 4}}, (0, 1, 2, 3))
    stored(root, "one", {"initializer": ("he",)}, {})
    return root


@pytest.fixture
def command(root, capsys):
    return lambda *words: (power.main([*words, "--root", str(root)]), *capsys.readouterr())


def test_the_command_plans_what_the_store_has(root, command):
    code, out, error = command("first")
    assert code == 0 and not error and "seeds for 0.01" in out and "found at 80 %" in out
    table = out.split("\n\n")[0].splitlines()
    assert len(table) == 4 and table[2].startswith("zeros depth=1") and "he depth=1" in table[2]
    trials = load.trials("first", root).pivot(index="seed", columns=["initializer", "model.depth"])["val_accuracy"]
    sd = (trials["zeros", 1] - trials["he", 1]).std()
    assert f"{sd:.4f}" in table[2]
    assert "A seed of all arms takes 8 s of one worker" in out and "on the study's 4 " in out


def test_the_command_has_every_format_metric_and_factor(command):
    loss = ["--metric", "val_loss", "--margin", ".1"]
    for words in (["--by", "initializer"], ["--metric", "dense_1.kernel.l2"], loss, ["--margin", "1e-2"]):
        for format in ("terminal", "markdown", "csv", "json", "latex", "html"):
            code, out, error = command("first", *words, "--format", format)
            assert code == 0 and out and not error
    assert "seeds for" not in command("first", "--metric", "val_loss")[1]
    whole = json.loads(command("first", "--format", "json", "--by", "depth", "--margin", "0.2")[1])
    assert whole["margin"] == 0.2 and whole["by"] == ["model.depth"] and len(whole["comparisons"]) == 1


def test_errors_of_the_command_are_one_paragraph(command):
    for words, said in (
        (["nosuch"], "no study 'nosuch'"), (["first", "--margin", "0"], "--margin 0: expected a difference above 0"),
        (["first", "--margin", "x"], "--margin x: expected"), (["first", "--by", "x"], "--by x: expected factors"),
        (["first", "--metric", "x"], "metric=x: there is no such column"), (["one"], "expected two arms to compare"),
    ):  # fmt: skip
        code, out, error = command(*words)
        assert code == 2 and said in error and error.count("\n") == 1 and not out, error
