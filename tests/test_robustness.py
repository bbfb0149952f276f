"""What a verdict hangs on: each change of the analysis is the verdict on trials and a card that are changed so."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from test_claims import frame, read, study

from analysis.estimate import verdicts
from analysis.estimate.robustness import robustness
from analysis.estimate.verdicts import INCONCLUSIVE, INVALID, NOT_SUPPORTED, SUPPORTED, Evidence
from analysis.show import board

FACTORS = {"data": ("digits", "mnist"), "optimizer": ("sgd", "adam")}
CLAIM = replace(read(factors=FACTORS), across=("data",))


def trials(gains=(0.1, 0.1), seeds=8, **columns):
    """Both arms' accuracies on both datasets, adam's ahead by so much."""
    wobble = 0.005 * np.cos(np.arange(seeds))
    parts = [
        frame({"sgd": [0.5] * seeds, "adam": 0.5 + gain + wobble}).assign(data=data)
        for data, gain in zip(FACTORS["data"], gains, strict=True)
    ]
    made = pd.concat(parts, ignore_index=True)
    return made.assign(key=made["data"] + made["key"], best_val_accuracy=made["val_accuracy"], **columns)


def changed(asked, evidence):
    found = verdicts.verdict(asked, evidence, len(FACTORS["optimizer"]) * evidence.trials["data"].nunique())
    return found, {row.change: row for row in robustness(asked, evidence, found)}


def test_each_change_is_the_verdict_on_what_is_left():
    whole = trials((0.1, -0.1))
    whole["test_accuracy"] = np.where(whole["optimizer"] == "adam", 0.9, 0.8) + 0.001 * whole["seed"]
    found, rows = changed(study(CLAIM, FACTORS, 8, (4, 8)), Evidence(whole))
    assert (found.verdict, found.look) == (NOT_SUPPORTED, 4)  # so that halves are of the four seeds looked at
    assert {change: row.verdict for change, row in rows.items()} == {
        "best epoch's val accuracy": NOT_SUPPORTED,
        "test accuracy": INCONCLUSIVE,  # differences all alike: 1/16 is no .021
        "first half of the seeds": NOT_SUPPORTED,
        "second half of the seeds": NOT_SUPPORTED,
        "without digits": NOT_SUPPORTED,
        "without mnist": SUPPORTED,
    }
    some = whole[(whole["data"] == "digits") & (whole["seed"] < 4)]
    alone = verdicts.verdict(study(CLAIM, FACTORS, 4), Evidence(some), 2).contexts[0]
    row = rows["without mnist"]
    assert (row.estimate, row.low, row.high, row.context) == (alone.estimate, alone.low, alone.high, "")
    assert rows["best epoch's val accuracy"].context == "mnist"
    few = changed(study(CLAIM, FACTORS, 3), Evidence(trials(seeds=3)))[1]
    assert (
        few["first half of the seeds"].verdict == INCONCLUSIVE and few["second half of the seeds"].verdict == SUPPORTED
    )
    half = whole[whole["seed"].isin([2, 3])]
    assert rows["second half of the seeds"].estimate == pytest.approx(
        verdicts.at(study(CLAIM, FACTORS, 8), Evidence(half), (2, 3), {}).contexts[1].estimate
    )


def test_levels_that_go_together_are_left_out_together():
    models = {"digits": "mlp", "mnist": "cnn"}
    whole = trials().assign(model=lambda made: made["data"].map(models))
    asked = study(replace(CLAIM, across=("data", "model")), FACTORS | {"model": ("mlp", "cnn")}, 8)
    found = verdicts.verdict(asked, Evidence(whole), 4)
    assert [row.change for row in robustness(asked, Evidence(whole), found)][-2:] == ["without digits", "without mnist"]


def test_what_was_not_stored_or_cannot_be_otherwise_is_no_change():
    _, rows = changed(study(CLAIM, FACTORS, 8), Evidence(trials()))
    assert "test accuracy" not in rows  # there is no such column
    _, rows = changed(study(CLAIM, FACTORS, 8), Evidence(trials(test_accuracy=np.nan)))
    assert "test accuracy" not in rows
    one = replace(read(factors=FACTORS), across=(), estimand="value", measure="share", of={}, against={})
    asked = study(one, {"data": ("digits",)}, 1)
    values = pd.DataFrame([{"key": "k", "seed": 0, "data": "digits", "status": "finished", "share": 0.9}])
    found = verdicts.verdict(asked, Evidence(values), 1)
    assert found.verdict == SUPPORTED and robustness(asked, Evidence(values), found) == []
    assert robustness(asked, Evidence(values), replace(found, verdict=INVALID)) == []


def test_nothing_changes_a_verdict_whose_control_failed():
    again = frame({"sgd": [0.7 + 0.001 * seed for seed in range(8)]}).assign(data="digits")
    asked = study(CLAIM, FACTORS, 8)
    evidence = Evidence(trials(), negative=pd.concat([again, again.assign(data="mnist")], ignore_index=True))
    found, rows = changed(asked, evidence)
    assert found.controls["negative"].startswith("failed") and found.verdict == INCONCLUSIVE
    assert not rows  # whatever is changed, it stays so


def test_half_of_the_seeds_is_no_change_where_so_few_can_decide_nothing():
    """Of three signs the least p is 1/8; three differences that vary can decide."""
    for spread, halves in ((0.0, 0), (0.004, 2)):
        whole = trials(seeds=6)
        adam = whole["optimizer"] == "adam"
        whole["val_accuracy"] = np.where(adam, 0.6 + spread * np.sin(whole["seed"]), 0.5)
        found, rows = changed(study(CLAIM, FACTORS, 6), Evidence(whole))
        assert found.verdict == SUPPORTED and sum("half" in change for change in rows) == halves


def test_a_gap_and_what_it_must_not_cost_are_taken_of_the_test_set():
    factors = {"optimizer": ("sgd", "adam")}
    claim = read(factors=factors, measure="accuracy_gap", direction="below", guard=0.005)
    spread = 0.001 * np.array([1, -1] * 3)
    made = frame({"sgd": [0.9] * 6, "adam": (0.9 + spread).tolist()})
    adam = made["optimizer"] == "adam"
    gap = np.where(adam, 0.05, 0.1) + np.tile(spread, 2)
    made = made.assign(train_accuracy=made["val_accuracy"] + gap, test_accuracy=made["val_accuracy"] - adam * 0.1)
    asked = study(claim, factors, 6)
    found = verdicts.verdict(asked, Evidence(made), 2)
    [test, *_] = robustness(asked, Evidence(made), found)
    assert (found.verdict, test.change, test.verdict) == (SUPPORTED, "test accuracy", NOT_SUPPORTED)
    free = study(replace(claim, guard=None), factors, 6)
    [test, *_] = robustness(free, Evidence(made), verdicts.verdict(free, Evidence(made), 2))
    assert test.estimate == pytest.approx(0.05) and test.verdict == NOT_SUPPORTED  # the gap itself is wider there
    paid = made.assign(train_accuracy=made["test_accuracy"] + gap)  # and here it is not, but test accuracy is
    for each, said in ((asked, NOT_SUPPORTED), (free, SUPPORTED)):
        [test, *_] = robustness(each, Evidence(paid), verdicts.verdict(each, Evidence(paid), 2))
        assert test.verdict == said


def test_times_hang_on_their_target():
    factors = {"optimizer": ("sgd", "adam")}
    claim = read(factors=factors, measure="time_to_target", target=0.9, direction="below", estimand="ratio")
    made = frame({"sgd": [0.95] * 6, "adam": [0.95] * 6})
    rises = {"sgd": [0.5, 0.895, 0.895, 0.93, 0.95], "adam": [0.5, 0.7, 0.91, 0.93, 0.95]}
    rows = [(key, epoch, rises[key.partition("-")[0]][epoch], epoch, 1.0) for key in made["key"] for epoch in range(5)]
    epochs = pd.DataFrame(rows, columns=["key", "epoch", "val_accuracy", "examples", "seconds"])
    asked, evidence = study(claim, factors, 6), Evidence(made.assign(epochs=4), epochs)
    found = verdicts.verdict(asked, evidence, 2)
    assert found.verdict == SUPPORTED
    assert next(iter(robustness(asked, evidence, found))).change == "a target 0.01 lower"
    assert next(iter(robustness(asked, evidence, found))).verdict == NOT_SUPPORTED
    by_data = replace(asked, claim=replace(claim, target={"digits": 0.9}, across=("data",)))
    some = replace(evidence, trials=evidence.trials.assign(data="digits"))
    assert robustness(by_data, some, verdicts.verdict(by_data, some, 2))[0].verdict == NOT_SUPPORTED
    by_clock = replace(asked, claim=replace(claim, measure="seconds_to_target"))
    assert robustness(by_clock, evidence, found)[0].change == "epochs to target"


@pytest.mark.parametrize(
    ("verdicts", "words"),
    [
        ([], ""),
        ([SUPPORTED] * 3, "3 of 3"),
        ([SUPPORTED, INCONCLUSIVE, SUPPORTED], "2 of 3; change 1: inconclusive"),
        ([INCONCLUSIVE, INCONCLUSIVE, SUPPORTED], "1 of 3"),
        ([INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED], "1 of 3; change 1: not supported"),
    ],
)
def test_the_board_names_what_a_verdict_hangs_on(verdicts, words):
    rows = [{"change": f"change {place}", "verdict": verdict} for place, verdict in enumerate(verdicts)]
    assert board.robust({"verdict": SUPPORTED, "robustness": rows}) == words


def test_of_a_mean_each_level_of_any_factor_is_left_out():
    asked = study(replace(CLAIM, estimand="mean", of={}, against={}, across=(), margin=0.55), FACTORS, 8)
    rows = {row.change for row in changed(asked, Evidence(trials()))[1].values()}
    assert {"without digits", "without mnist", "without sgd", "without adam"} <= rows
