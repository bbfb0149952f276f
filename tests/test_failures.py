"""Where trials fail at some seeds: success rates first, against scipy, statsmodels and simulation."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from analysis.estimate import comparison, intervals
from analysis.show import answers, tables
from benchmarks import failures

NAN = float("nan")
pytestmark = pytest.mark.filterwarnings("error")


def frame(metric="val_accuracy", **arms):
    """Trials of arms: a value a seed, None for one that diverged, `x` for one that crashed."""
    rows = [
        (arm, seed, NAN if value in (None, "x") else value, {None: "diverged", "x": "crashed"}.get(value, "finished"))
        for arm, values in arms.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=["arm", "seed", metric, "status"]).assign(classes=10)


def compared(trials, metric="val_accuracy", baseline="a"):
    return comparison.comparison(trials, ["arm"], metric, {"arm": baseline} if baseline else {}).set_index("arm")


def said(trials, metric="val_accuracy", baseline="a", by=("arm",)):
    baseline = {"arm": baseline} if baseline else {}
    return answers.answer(comparison.comparison(trials, list(by), metric, baseline), list(by), metric, baseline)


STABLE = [0.90, 0.91, 0.89, 0.90, 0.905]
RISKY = [0.95, 0.96, None, 0.95, 0.955]


@pytest.mark.parametrize(("count", "n"), [(0, 5), (5, 5), (4, 5), (7, 20), (1, 1)])
def test_the_interval_of_a_share_is_statsmodels(count, n):
    assert intervals.share_interval(count, n) == pytest.approx(proportion_confint(count, n, method="beta"))
    assert intervals.share_interval(count, n) == pytest.approx(tuple(stats.binomtest(count, n).proportion_ci()))


def test_of_nothing_there_is_no_share():
    assert np.isnan(intervals.share_interval(0, 0)).all()


def test_mcnemars_p_is_statsmodels():
    rng = np.random.default_rng(0)
    first, second = (rng.random((12, 30)) < 0.6).astype(float), (rng.random((12, 30)) < 0.8).astype(float)
    for a, b, p in zip(first.T, second.T, intervals.mcnemar_p(first, second)):
        cells = [[np.sum((a == x) & (b == y)) for y in (1, 0)] for x in (1, 0)]
        assert p == pytest.approx(min(mcnemar(cells, exact=True).pvalue, 1))
    assert intervals.mcnemar_p(np.ones(5), np.zeros(5)) == 0.0625
    assert intervals.mcnemar_p(np.ones(5), np.ones(5)) == 1
    assert intervals.mcnemar_p(np.array([1, NAN]), np.array([0, 1.0])) == 1
    assert np.isnan(intervals.mcnemar_p(np.array([NAN]), np.array([1.0])))


def test_a_comparison_has_the_share_that_finished_with_its_interval():
    table = compared(frame(a=STABLE, b=RISKY, c=[None] * 5, d=["x", 0.9, 0.8, "x", None], e=["x"]))
    assert list(table["tried"]) == [5, 5, 5, 3, 0]
    assert list(table["success"]) == pytest.approx([1, 0.8, 0, 2 / 3, NAN], nan_ok=True)
    assert list(table["erratic"]) == [False, True, False, True, False]
    low, high = proportion_confint(4, 5, method="beta")
    assert tuple(table.loc["b", ["success_low", "success_high"]]) == pytest.approx((low, high))
    assert list(table["test"]) == ["", "success", "t", "success", "t"]
    row = table.loc["b"]
    expected = intervals.t_interval(np.delete(np.array([0.05, 0.05, 0, 0.05, 0.05]), 2))
    assert (row["finished_difference"], row["finished_pairs"]) == (pytest.approx(0.05), 4)
    assert (row["finished_low"], row["finished_high"]) == pytest.approx(expected)
    assert row["success_difference"] == pytest.approx(-0.2)
    assert table.loc["c", ["finished_difference", "success_difference"]].isna().all()


def test_tests_of_success_and_of_means_are_one_family():
    n, rng = 12, np.random.default_rng(0)
    flat, other = 0.9 + 0.001 * rng.normal(size=n), 0.9005 + 0.001 * rng.normal(size=n)
    table = compared(frame(a=flat, b=[None if seed < 9 else 0.95 for seed in range(n)], c=other))
    raw = [stats.binomtest(9, 9).pvalue, stats.ttest_rel(other, flat).pvalue]
    assert list(table["p"][1:]) == pytest.approx(list(multipletests(raw, method="holm")[1]))
    assert table.loc["b", "p"] == pytest.approx(2 * raw[0]) and raw[0] < raw[1] < 0.9


def test_success_leads_the_answer_and_the_metric_of_what_finished_is_second():
    text, note = said(frame(a=STABLE, b=RISKY))
    assert text.startswith(
        "Trials fail at some seeds, and success comes first: a, the baseline, finishes at 5 of 5 seeds (100 % [48, 100]"
        "); b at 4 of 5 seeds (80 % [28, 99]), which may be chance (exact McNemar, p = 1.000)."
    )
    assert "Of the val accuracy at seeds at which both finished: b differs by +0.05" in text
    assert text.endswith("(paired, 4 seeds); the t interval does not hold where trials fail.")
    assert "clearly" not in text and note.startswith("Trials that did not finish: 1;")


def test_a_success_that_is_clearly_more_frequent_is_said_to_be_and_other_arms_keep_their_test():
    n = 8
    steady = list(0.9 + 0.001 * np.arange(n))
    text = said(frame(a=steady, b=[None] * 7 + [0.9], c=[v + 0.05 + 0.001 * (s % 3) for s, v in enumerate(steady)]))[0]
    assert "b at 1 of 8 seeds (12 % [0, 53]), clearly less often (exact McNemar, p = 0.016)" in text
    assert "c (val accuracy 0.95" in text and "is clearly better than a: +0.05" in text
    text = said(frame(b=steady, a=[None] * 7 + [0.9]))[0]
    assert "b at 8 of 8 seeds (100 % [63, 100]), clearly more often" in text and "clearly better" not in text
    text = said(frame(b=[None, 0.9], a=[0.9, None]))[0]
    assert text.endswith("There is no seed at which both finished.")


def test_contexts_are_counted_by_success_where_trials_fail():
    trials = pd.concat([frame(a=STABLE, b=RISKY).assign(depth=2), frame(a=STABLE, b=STABLE).assign(depth=8)])
    held, short, first, _, shallow, deep = said(trials, by=("arm", "depth"))
    assert held.startswith("a is best") and short == "The others fall short: b with 1 of 5 seeds failing at depth=2."
    assert first.startswith(
        "Against a, 0 of 1 arms are clearly better and 0 clearly worse; 1 more, at whose seeds trials"
    )
    assert first.endswith("is compared by how often they finish: 0 clearly more often and 0 clearly less.")
    assert "b at 4 of 5 seeds" in shallow and deep.startswith("At depth=8: Nothing is better than a")


def test_without_a_baseline_and_of_one_arm_success_leads_too():
    text = said(frame(a=STABLE, b=RISKY), baseline=None)[0]
    assert text.startswith("Trials fail at some seeds: b at 4 of 5 seeds (80 % [28, 99]) finish. a has the highest")
    assert text.endswith("the other cannot be told from it (b).")
    text = said(frame(b=RISKY), baseline=None)[0]
    assert text.startswith("It finishes at 4 of 5 seeds (80 % [28, 99]). The val accuracy is 0.78")
    assert "no t interval holds where some fail" in text and "[0." not in text


def test_an_arm_that_fails_stands_by_its_success_and_not_by_a_t_test():
    scores = [0.899, None, 0.9, None]
    table = compared(frame(a=[0.9, 0.901, 0.902, 0.901], b=scores), baseline=None)
    assert list(table["standing"]) == ["best", "tied"]
    poor = [0.12, 0.13, 0.12, None, 0.13]  # clearly worse by t, and it fails no more often than chance has it
    assert list(compared(frame(a=STABLE, b=poor), baseline=None)["standing"]) == ["best", "tied"]
    n = 12
    table = compared(frame(a=[0.9 + s / 1000 for s in range(n)], b=[None] * 11 + [0.95]), baseline=None)
    assert list(table["standing"]) == ["best", "worse"]
    often = frame(a=[0.9] * n, b=[0.5] * 2 + [None] * 10, c=[0.7] * n)
    assert list(compared(often, baseline=None)["standing"]) == ["best", "worse", "untested"]  # c: alike at every seed


def test_the_table_shows_success_and_no_t_interval_that_does_not_hold():
    table = compared(frame(a=STABLE, b=RISKY)).reset_index()
    text = tables.comparison_table(table, ["arm"], "val_accuracy", {"arm": "a"})
    a, b = text.splitlines()[2:]
    assert "finished" in text and "100 % [48, 100]" in a and "[0.89" in a
    assert "80 % [28, 99]" in b and b.count("[") == 1 and b.split("  ")[-1].strip() == "–"
    assert "Clopper" in tables.interval_note("val_accuracy", erratic=True)
    assert "finished" not in tables.comparison_table(table[:1], ["arm"], "val_accuracy", {"arm": "a"})
    assert tables.success({"success": NAN}) == "–"


def test_a_failure_has_no_value_where_nothing_is_better_and_success_leads_there_too():
    trials = frame("mine", a=STABLE, b=RISKY)
    table = compared(trials, "mine")
    assert table.loc["b", "seeds"] == 4 and table.loc["b", "test"] == "success"
    text, note = said(trials, "mine")
    assert text.startswith("Trials fail at some seeds") and "have no mine and are left out" in note
    assert "count as the worst that finished." in said(frame("seconds_total", a=STABLE, b=RISKY), "seconds_total")[1]


def test_a_seed_succeeds_if_all_that_is_averaged_in_it_does_and_an_arm_that_always_fails_there_is_not_erratic():
    deep = frame(a=[None] * 5, b=[None] * 5).assign(depth=16)
    trials = pd.concat([frame(a=STABLE, b=RISKY).assign(depth=2), deep], ignore_index=True)
    table = compared(trials)
    assert list(table["success"]) == [0, 0] and list(table["erratic"]) == [False, True]


def test_a_span_over_arms_that_fail_is_not_tested():
    units = comparison.by_seed(frame(a=STABLE, b=RISKY), ["arm"], "val_accuracy")
    [line] = answers.spans([(["arm"], comparison.span(units, ["arm"]))])
    assert line.endswith(": untested, for trials fail at some seeds and not at others.")
    assert not comparison.span(units[units["arm"] == "a"].assign(arm=list("aabbb")), ["arm"])["erratic"]


def test_what_seeds_without_a_failure_do_not_exclude_is_said_of_a_clear_winner():
    better = [v + 0.05 + 0.001 * (s % 3) for s, v in enumerate(STABLE)]
    table = compared(frame(a=STABLE, b=better))
    [line] = answers.unseen(table, "val_accuracy")
    assert "5 seeds without a failure leave a failure rate of up to 45 % possible" in line
    assert stats.binom.pmf(0, 5, 0.45) == pytest.approx(0.05, abs=0.002)
    assert answers.unseen(compared(frame(a=better, b=STABLE)), "val_accuracy") == []
    assert answers.unseen(compared(frame("mine", a=STABLE, b=better), "mine"), "mine") == []


def test_an_arm_that_fails_at_a_fifth_of_the_seeds_is_called_better_only_where_no_failure_is_seen():
    few, many = (failures.claims(80, seeds, np.random.default_rng(seeds)) for seeds in (5, 30))
    for found in (few, many):
        seen = found[found["failures"] > 0]
        assert seen["led"].all() and not seen["better"].any() and not seen["worse"].any()
        assert (found["better"] == (found["failures"] == 0)).all()
    assert many["better"].mean() < 0.025
    assert few["covered"].mean() == pytest.approx(0.67, abs=0.15)  # why no t interval is trusted here
