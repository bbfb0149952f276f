"""A study's answer in words, from comparisons whose verdict is plain."""

import numpy as np
import pandas as pd
import pytest

from analysis import answers, estimates

NAN = float("nan")
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
    compared = estimates.comparison(trials(values, factors, metric), list(factors), metric, baseline or {})
    return answers.answer(compared, list(factors), metric, baseline or {})


FLAT = 0.9 + 0.001 * np.arange(5)


def test_a_clear_winner_is_said_to_be_one_with_its_paired_interval():
    [text] = said({"sgd": FLAT, "adam": FLAT + 0.05 + RISE / 10}, baseline={"optimizer": "sgd"})
    low, high = estimates.t_interval(0.05 + RISE / 10)
    assert text.startswith("adam (val accuracy 0.95") and "is clearly better than sgd: +0.0506" in text
    assert f"[{low:+.4f}, {high:+.4f}]" in text and "paired over 5 seeds" in text


def test_a_lead_within_its_interval_is_not_clear():
    [text] = said({"sgd": FLAT, "adam": FLAT + RISE, "lion": FLAT - 0.5}, baseline={"optimizer": "sgd"})
    assert text.startswith("Nothing is clearly better than sgd; the best, adam")
    assert text.endswith("1 of 2 is clearly worse.")


def test_a_baseline_may_be_best():
    [text] = said({"sgd": FLAT, "adam": FLAT - RISE - 0.1}, baseline={"optimizer": "sgd"})
    assert text.startswith("sgd, the baseline, has the highest val accuracy, 0.902")
    assert "none of 1 other does better; 1 of 1 is clearly worse." in text


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
    [text] = said(values, metric="val_loss")
    assert text.startswith("adam has the lowest val loss")


def test_without_a_baseline_what_cannot_be_told_from_the_best_is_named():
    [text] = said({"sgd": FLAT, "adam": FLAT + RISE, "lion": FLAT - 0.5})
    assert text.startswith("adam has the highest val accuracy: 0.908 [") and "(95 % t interval, 5 seeds)" in text
    assert text.endswith("1 of the 2 others cannot be told from it (sgd).")
    assert said({"sgd": FLAT - 0.5, "adam": FLAT + RISE})[0].endswith("it is clearly ahead of the other.")


def test_one_seed_claims_nothing():
    [text] = said({"sgd": [0.9], "adam": [0.95]}, baseline={"optimizer": "sgd"})
    assert text == ("The best is adam (val accuracy 0.9500), +0.0500 from sgd: with one seed that may be chance.")
    assert "may be chance" in said({"sgd": [0.9], "adam": [0.95]})[0]


@pytest.mark.parametrize(("values", "text"), [([0.9], "0.9000 at one seed"), ([0.9, 0.92], "0.91 [0.78, 1.04]")])
def test_one_arm_is_measured(values, text):
    assert text in said({"all": values}, factors=())[0]


def test_where_nothing_has_a_score_there_is_no_answer():
    assert said({"sgd": [NAN], "adam": [NAN]}) == ["There is no answer: no trial has a val accuracy."]


def test_a_baseline_that_crashed_is_no_reason_to_fail():
    [text] = said({"sgd": [NAN, NAN], "adam": [0.9, 0.91]}, baseline={"optimizer": "sgd"})
    assert "0.9" in text


def test_each_combination_of_other_levels_is_spoken_of_after_the_count():
    values = {
        ("sgd", 2): FLAT,
        ("adam", 2): FLAT + 0.05 + RISE / 10,
        ("sgd", 8): FLAT,
        ("adam", 8): FLAT - 0.2 + RISE / 10,
    }
    first, *others = said(values, ("optimizer", "model.depth"), {"optimizer": "sgd"})
    assert first.startswith("Against sgd, 1 of 2 arms are clearly better and 1 clearly worse")
    assert first.endswith("of adam depth=2.")
    assert [line.partition(":")[0] for line in others] == ["At depth=2", "At depth=8"]
    assert "adam (val accuracy 0.95" in others[0] and "sgd, the baseline, has the highest" in others[1]


def test_too_many_combinations_are_counted_only():
    values = {(o, d): FLAT + RISE * (o == "adam") for d in range(9) for o in ("sgd", "adam")}
    assert len(said(values, ("optimizer", "model.depth"), {"optimizer": "sgd"})) == 1


def test_factors_are_ranked_by_how_far_they_move_a_metric():
    some = trials(
        {("a", 1): [0.1, 0.2], ("a", 2): [0.2, 0.3], ("b", 1): [0.8, 0.9], ("b", 2): [0.9, 1.0]}, ("x", "model.y")
    )
    compared = [([f], estimates.comparison(some, [f], "val_accuracy", {})) for f in ("model.y", "x")]
    assert answers.spans(compared, "val_accuracy") == [
        "x moves it by 0.7000, from a to b, averaged over the others.",
        "model.y moves it by 0.1000, from y=1 to y=2, averaged over the others.",
    ]
