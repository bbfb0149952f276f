"""A study's answer in words, from comparisons whose verdict is plain."""

import numpy as np
import pandas as pd
import pytest

from analysis.estimate import comparison, intervals
from analysis.show import answers

NAN = float("nan")

pytestmark = pytest.mark.filterwarnings("error")
RISE = np.array([0.02, -0.01, 0.02, -0.01, 0.01])


def trials(values, factors, metric="val_accuracy"):
    """Trials from arm -> its values over the seeds; an arm is a level or a tuple of levels."""
    rows = [
        (*(arm if isinstance(arm, tuple) else (arm,))[: len(factors)], seed, value)
        for arm, several in values.items()
        for seed, value in enumerate(several)
    ]
    frame = pd.DataFrame(rows, columns=[*factors, "seed", metric])
    return frame.assign(status=np.where(frame[metric].isna(), "crashed", "finished"), classes=10)


def said(values, factors=("optimizer",), baseline=None, metric="val_accuracy"):
    compared = comparison.comparison(trials(values, factors, metric), list(factors), metric, baseline or {})
    return answers.answer(compared, list(factors), metric, baseline or {})


FLAT = 0.9 + 0.001 * np.arange(5)


def test_a_clear_winner_is_said_to_be_one_with_its_paired_interval():
    [text] = said({"sgd": FLAT, "adam": FLAT + 0.05 + RISE / 10}, baseline={"optimizer": "sgd"})
    low, high = intervals.t_interval(0.05 + RISE / 10)
    assert text.startswith("adam (val accuracy 0.95") and "is clearly better than sgd: +0.0506" in text
    assert f"[{low:+.4f}, {high:+.4f}]" in text and "(paired, 5 seeds)" in text


def test_a_lead_within_its_interval_is_not_clear():
    [text] = said({"sgd": FLAT, "adam": FLAT + RISE, "lion": FLAT - 0.5 + RISE / 10}, baseline={"optimizer": "sgd"})
    assert text.startswith("Nothing is clearly better than sgd: the best of the others, adam")
    assert text.endswith("1 of 2 is clearly worse.")


def test_a_baseline_may_be_best():
    [text] = said({"sgd": FLAT, "adam": FLAT - RISE - 0.1}, baseline={"optimizer": "sgd"})
    assert text.startswith("Nothing is better than sgd, the baseline: val accuracy 0.902")
    assert text.endswith("1 of 1 is clearly worse.")


def test_a_loss_is_better_where_it_is_lower():
    values = {
        "sgd": FLAT,
        "adam": FLAT - 0.5 - RISE / 10,
        "lion": FLAT + 0.5 + RISE / 10,
        "lamb": FLAT - 0.4 + RISE / 10,
    }
    [text] = said(values, baseline={"optimizer": "sgd"}, metric="val_loss")
    assert text.startswith("adam (val loss 0.40") and "is clearly better than sgd: -0.50" in text
    assert text.endswith("1 of 3 is clearly worse.")
    text, _ = said(values, metric="val_loss")
    assert text.startswith("adam has the lowest val loss")


def test_without_a_baseline_what_cannot_be_told_from_the_best_is_named():
    text, spread = said({"sgd": FLAT, "adam": FLAT + RISE, "lion": FLAT - 0.5})
    assert text.startswith("adam has the highest val accuracy: 0.908 [") and "(95 % t interval, 5 seeds)" in text
    assert text.endswith("1 of the 2 others cannot be told from it (sgd).")
    assert spread == "Over seeds it varies least for sgd (sd 0.0016) and most for adam (sd 0.0149)."
    assert said({"sgd": FLAT - 0.5, "adam": FLAT + RISE})[0].endswith("it is clearly ahead of the other.")
    assert "the other cannot be told from it (sgd)" in said({"sgd": FLAT, "adam": FLAT + RISE})[0]


def test_one_seed_claims_nothing():
    [text] = said({"sgd": [0.9], "adam": [0.95]}, baseline={"optimizer": "sgd"})
    lead = "The best is adam (val accuracy 0.9500), which differs from sgd by +0.0500 (paired, 1 seed)"
    assert text == f"{lead}: one seed does not tell whether by chance."
    assert "may be chance" in said({"sgd": [0.9], "adam": [0.95]})[0]


@pytest.mark.parametrize(("values", "text"), [([0.9], "0.9000 at one seed"), ([0.9, 0.92], "0.91 [0.68, 0.98]")])
def test_one_arm_is_measured(values, text):
    assert text in said({"all": values}, factors=())[0]


def test_where_nothing_has_a_score_there_is_no_answer():
    assert said({"sgd": [NAN], "adam": [NAN]}) == [
        "There is no answer: no arm has a val accuracy that can be compared."
    ]


def test_a_baseline_without_a_score_is_not_given_anothers():
    base = {"optimizer": "sgd"}
    text, failed = said({"sgd": [NAN, NAN], "adam": [0.9, 0.91]}, baseline=base)
    scores = "those that diverged or timed out count as chance, or as the worst that finished if that is worse"
    assert failed == f"Trials that did not finish: 2; {scores}."
    assert text.startswith(
        "sgd, the baseline, has no val accuracy here. Only adam has a val accuracy: 0.905 [0.820, 0.952]"
    )
    text, _ = said({"sgd": [NAN, NAN], "adam": [0.9, 0.91], "lion": [0.5, 0.52]}, baseline=base)
    assert text.startswith("sgd, the baseline, has no val accuracy here. adam has the highest val accuracy: 0.905")
    text, _ = said({"sgd": [0.9, 0.91], "adam": [NAN, NAN]}, baseline=base)
    assert text.startswith("Only sgd, the baseline, has a val accuracy: 0.905")
    text, _ = said({"sgd": FLAT, "adam": [NAN] * 5})
    assert text == "Only sgd has a val accuracy: 0.9020 [0.9000, 0.9039] (95 % t interval, 5 seeds)."


def test_an_arm_that_shares_no_seed_with_the_baseline_is_not_compared():
    values = {"sgd": [0.80, 0.81, NAN, NAN], "adam": [NAN, NAN, 0.9, 0.91]}
    text, _ = said(values, baseline={"optimizer": "sgd"})
    assert text == "No arm shares a seed with sgd, the baseline, and so none can be compared with it."
    text = said(values | {"lion": [0.7, 0.70, 0.7, 0.72]}, baseline={"optimizer": "sgd"})[0]
    assert text.startswith("Nothing is better than sgd, the baseline: val accuracy 0.805")
    assert said(values)[0] == "No arm can be told from another: there is no seed that all of them have."


def test_an_arm_that_leads_by_its_own_seeds_but_is_behind_on_shared_ones_is_not_better():
    values = {"sgd": [0.95, 0.96, 0.955, 0.2, 0.21], "adam": [0.90, 0.912, 0.903, NAN, NAN]}
    text, _, seeds = said(values, baseline={"optimizer": "sgd"})
    assert text.startswith("Nothing is better than sgd") and text.endswith("1 of 1 is clearly worse.")
    assert seeds.startswith("Not all arms have the same seeds")
    text, *_ = said(values)
    assert text.startswith("sgd has the highest val accuracy at the 3 seeds that the arms share: 0.66")


def failing(values, metric="val_loss", baseline=None):
    """What is said of arms in which None is a trial that diverged."""
    frame = trials(
        {arm: [NAN if v is None else v for v in several] for arm, several in values.items()}, ["rate"], metric
    )
    frame["status"] = ["diverged" if v is None else "finished" for several in values.values() for v in several]
    baseline = {} if baseline is None else {"rate": baseline}
    return answers.answer(comparison.comparison(frame, ["rate"], metric, baseline), ["rate"], metric, baseline)


@pytest.mark.parametrize(
    ("metric", "bad"), [("test_loss", [3.1, 2.9, 3.3, 3.0, 3.05]), ("val_accuracy", [0.08, 0.09, 0.07, 0.08, 0.085])]
)
def test_an_arm_that_failed_is_never_ahead_though_what_finished_is_worse_than_chance(metric, bad):
    failed = [None] * 5
    text, _ = failing({"0.05": bad, "1e7": failed}, metric, "0.05")
    assert text.startswith("Nothing is better than 0.05, the baseline: ") and text.endswith("; the other failed.")
    text, _ = failing({"0.05": bad, "1e7": failed}, metric, "1e7")
    assert text.startswith("1e7, the baseline, failed: not one of its trials finished. 0.05 has the ")
    assert text.endswith("; all the others failed.")
    text, *_ = failing({"0.05": bad, "1e7": failed}, metric)
    assert text.startswith("0.05 has the ") and text.endswith("; all the others failed.")
    half = [*bad[:2], None, None, None]
    text, _ = failing({"0.05": bad, "1e7": half}, metric, "0.05")
    assert "0.05, the baseline, finishes at 5 of 5 seeds (100 % [48, 100]); 1e7 at 2 of 5 seeds (40 % [5, 85])" in text
    assert "better" not in text


def test_arms_that_are_equal_but_for_rounding_are_not_better():
    for noise in (0, 5e-8 * np.array([1, -1, 1, 1, 1])):
        [text] = said({"sgd": FLAT, "adam": FLAT + noise}, baseline={"optimizer": "sgd"})
        assert text.startswith("Nothing is better than sgd, the baseline: val accuracy 0.902")
        assert "the nearest, adam, differs by +0.0000 [+0.0000, +0.0000] (paired, 5 seeds)." in text
        values = {("sgd", 2): FLAT, ("adam", 2): FLAT + noise, ("sgd", 8): FLAT, ("adam", 8): FLAT - 0.1}
        first, *_ = said(values, ("optimizer", "model.depth"), {"optimizer": "sgd"})
        assert first.endswith("none is ahead of it.")
    [text] = said({"sgd": [0.9], "adam": [0.9]}, baseline={"optimizer": "sgd"})
    assert text.startswith("Nothing is better than sgd")


def test_what_averages_leave_out_is_said():
    assert answers.left_out([], [], False, ["model.depth"]) == []
    [line] = answers.left_out([(16, None), (2, "x")], [3, 4], False, ["model.depth", "data"])
    assert line.endswith("for not every arm has it: depth=16 data=null, depth=2 data=x; seeds 3, 4.")
    [line] = answers.left_out([(2,), (16,)], [0], True, ["model.depth"])
    assert line.startswith("No combination of model.depth was tried with all arms at one seed")


def test_where_all_are_worse_no_gain_is_named():
    values = {
        (o, d): FLAT - 0.1 * (o == "adam") + RISE / 10 * d * (o == "adam") for d in (1, 2) for o in ("sgd", "adam")
    }
    held, short, counts, *_ = said(values, ("optimizer", "model.depth"), {"optimizer": "sgd"})
    assert held == "sgd is best, or cannot be told from the best, at every depth (1, 2)."
    assert short == "The others fall short: adam behind the best everywhere."
    assert counts == "Against sgd, 0 of 2 arms are clearly better and 2 clearly worse."
    two = {arm: several[:2] for arm, several in values.items()}  # which cannot be tested, so that nothing is held
    first = said(two, ("optimizer", "model.depth"), {"optimizer": "sgd"})[0]
    assert first == "0 of 2 arms have a better val accuracy than sgd; no test can tell whether by chance."


def test_each_combination_of_other_levels_is_spoken_of_after_the_count():
    values = {
        ("sgd", 2): FLAT,
        ("adam", 2): FLAT + 0.05 + RISE / 10,
        ("sgd", 8): FLAT,
        ("adam", 8): FLAT - 0.2 + RISE / 10,
    }
    held, short, counts, *others = said(values, ("optimizer", "model.depth"), {"optimizer": "sgd"})
    assert held == "No optimizer is best, or tied with the best, at every depth (2, 8)."
    assert short == "Each falls short: sgd behind the best at depth=2; adam behind the best at depth=8."
    assert counts == "Against sgd, 1 of 2 arms are clearly better and 1 clearly worse."
    assert [line.partition(":")[0] for line in others] == ["At depth=2", "At depth=8"]
    assert "adam (val accuracy 0.95" in others[0] and "Nothing is better than sgd, the baseline" in others[1]


def test_too_many_combinations_are_counted_only():
    values = {(o, d): FLAT + RISE * (o == "adam") for d in range(9) for o in ("sgd", "adam")}
    assert len(said(values, ("optimizer", "model.depth"), {"optimizer": "sgd"})) == 2


def test_factors_are_ranked_by_how_far_they_move_a_metric():
    some = trials(
        {("a", 1): [0.1, 0.2], ("a", 2): [0.2, 0.3], ("b", 1): [0.8, 0.9], ("b", 2): [0.9, 1.0]}, ("x", "model.y")
    )
    found = [([f], comparison.span(comparison.by_seed(some, [f], "val_accuracy"), [f])) for f in ("model.y", "x")]
    x, y = answers.spans(found)
    assert x.startswith("Averaged over the others, x moves it by +0.7000") and "from a to b" in x
    assert "model.y moves it by +0.1000" in y and "from y=1 to y=2" in y
    alone = [
        ([f], comparison.span(comparison.by_seed(some[some["seed"] == 0], [f], "val_accuracy"), [f])) for f in ("x",)
    ]
    [line] = answers.spans(alone)
    assert line.endswith("x moves it by +0.7000, from a to b: one seed does not tell whether by chance.")


def test_a_span_that_chance_can_make_is_said_to_be_one():
    some = trials({"a": FLAT, "b": FLAT + RISE, "c": FLAT - RISE}, ("x",))
    [line] = answers.spans([(["x"], comparison.span(comparison.by_seed(some, ["x"], "val_accuracy"), ["x"]))])
    assert line.endswith("which may be the luck of the extremes.")
    some = trials({"a": FLAT, "b": FLAT + 0.3 + RISE}, ("x",))
    [line] = answers.spans([(["x"], comparison.span(comparison.by_seed(some, ["x"], "val_accuracy"), ["x"]))])
    assert "from a to b: clearly" in line


def test_one_seed_at_which_the_baseline_leads_names_no_other_best():
    [text] = said({"sgd": [0.95], "adam": [0.9]}, baseline={"optimizer": "sgd"})
    assert text.startswith("Nothing is better than sgd, the baseline: val accuracy 0.9500 at one seed")


def test_differences_that_are_alike_at_every_seed_are_said_to_be_so():
    [text] = said({"sgd": [0.9] * 3, "adam": [0.95] * 3}, baseline={"optimizer": "sgd"})
    assert text.endswith("(paired, 3 seeds): alike at every seed, which no test can judge.")


def test_null_and_its_name_are_two_contexts_and_lists_are_written_one_way():
    values = {
        ("sgd", None): FLAT,
        ("adam", None): FLAT - 0.1 + RISE,
        ("sgd", "null"): FLAT,
        ("adam", "null"): FLAT + RISE,
    }
    assert sum(line.startswith("At x=") for line in said(values, ("optimizer", "x"), {"optimizer": "sgd"})) == 2
    [text] = said({((8,),): FLAT, ((8, 16),): FLAT + 0.1 + RISE / 10}, ("filters",), {"filters": [8]})
    assert text.startswith("[8, 16] (val accuracy") and "clearly better than [8]" in text
