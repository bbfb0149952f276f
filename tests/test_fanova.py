"""Importances: against functions whose shares are known, the same twice, and the verdicts that they lead to."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import qmc
from test_claims import CARD, frame

from analysis import claims
from analysis.estimate import estimands, importance, verdicts
from analysis.estimate.verdicts import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED, Evidence
from analysis.show import board
from studies.command.driver import Driver
from studies.design import claim as design
from studies.record import Space, Study, StudyError

RATE, WIDTH, DEPTH = "optimizer.learning_rate", "model.width", "model.depth"


def levels(points):
    return {RATE: 10 ** (4 * points[:, 0] - 4), WIDTH: np.round(8 + 120 * points[:, 1]), DEPTH: points[:, 2]}


POINTS = qmc.Sobol(3, rng=0).random_base2(5)
LEVELS = levels(POINTS)
HYPOTHESIS = {
    "estimand": "importance_lead",
    "measure": "val_accuracy",
    "along": RATE,
    "direction": "above",
    "margin": 0.0,
    "why_margin": "to lead is to lead",
}


def test_an_additive_function_has_the_shares_that_it_was_given():
    drawn = levels(qmc.Sobol(3, rng=0).random_base2(6))
    rates, widths, noise = drawn.values()
    where = importance.places(pd.DataFrame(drawn))
    scores = 2 * np.log10(rates) / 4 + widths / 120
    found = importance.importances(where, scores)
    assert found == pytest.approx([0.8, 0.2, 0], abs=0.1) and found.sum() < 1 + 1e-9
    assert np.array_equal(found, importance.importances(where, scores))
    as_they_are = np.stack([rates, (widths - 8) / 120, noise], axis=1)  # nine tenths of which lie above a rate of .1
    assert importance.importances(as_they_are, scores)[0] < 0.45
    assert importance.importances(where, np.full(64, 0.1)).tolist() == [0, 0, 0]


def test_what_two_do_together_is_of_neither_as_an_exact_analysis_of_a_grid_has_it():
    one, other = np.meshgrid(np.arange(8), np.arange(8), indexing="ij")
    table = np.where(one > 3, 1.0, 0.0) + np.where((one > 3) == (other > 3), 0.5, 0.0) + 0.5 * (other > 5)
    mains = [(table.mean(axis=axis) - table.mean()).var() / table.var() for axis in (1, 0)]
    assert sum(mains) < 0.9  # the rest is the interaction's
    where = importance.places(pd.DataFrame({"one": one.ravel(), "other": other.ravel()}))
    assert importance.importances(where, table.ravel()) == pytest.approx(mains, abs=0.05)


def test_names_are_places_and_each_level_has_the_room_of_its_points():
    names = importance.places(pd.DataFrame({"activation": ["relu", "tanh", "relu", "elu"]}))
    assert names[:, 0] == pytest.approx([0.25, 0.625, 0.25, 0.875])


def study(scores, seeds=2, **more):
    """A study of points and the trials that score so, at each seed a little otherwise."""
    factors = {name: tuple(some.tolist()) for name, some in LEVELS.items()}
    claim = design.read_claim(
        CARD | {"hypothesis": HYPOTHESIS, "decision": {"alpha_look": 0.05}} | more, factors, "quick"
    )
    asked = Study("s", "?", factors, tuple(range(seeds)), {}, "val_accuracy", zip=(tuple(factors),), claim=claim)
    values = {place: [score + 0.001 * seed for seed in range(seeds)] for place, score in enumerate(scores)}
    trials = frame(values, factor="point")
    return asked, trials.drop(columns="point").assign(**{n: np.repeat(some, seeds) for n, some in LEVELS.items()})


@pytest.fixture
def few(monkeypatch):
    """Refits enough for a share of 5 %, and forests of few trees."""
    refits, importances = importance.refits, importance.importances
    monkeypatch.setattr(importance, "refits", lambda *given: refits(*given[:3], 20))
    monkeypatch.setattr(importance, "importances", lambda x, y, trees=8, seed=0: importances(x, y, 8, seed))


@pytest.mark.parametrize(
    ("weights", "said"), [((3, 1, 0), SUPPORTED), ((1, 3, 0), NOT_SUPPORTED), ((1.1, 1, 0), INCONCLUSIVE)]
)
def test_a_factor_leads_if_it_ranks_first_in_all_refits_but_few(few, weights, said):
    asked, trials = study(importance.places(pd.DataFrame(LEVELS)) @ np.array(weights) / 10)
    found = verdicts.verdict(asked, Evidence(trials), len(POINTS))
    [one] = found.contexts
    assert found.verdict == said and one.n == 2 and one.low <= one.estimate <= one.high
    assert [seed for seed, _, _ in one.numbers] == [0, 1] and not (one.p_for <= 0.05) ^ (said == SUPPORTED)
    assert found.because == ("open at so many points: the estimate" if said == INCONCLUSIVE else "")
    assert "ranks first in" in one.note and "learning_rate 0." in one.note
    [sample] = estimands.samples(asked.claim, trials, None, list(asked.factors))
    assert sample.numbers == pytest.approx([one.estimate] * 2, abs=0.05) and len(sample.refits) == 20


def test_a_point_that_failed_scores_chance_and_one_that_is_missing_decides_nothing(few):
    asked, trials = study(0.5 + 0.1 * POINTS[:, 1])
    lost = trials[RATE] > 0.1
    failed = trials.assign(status=np.where(lost, "diverged", "finished"))
    failed.loc[lost, "val_accuracy"] = np.nan
    [sample] = estimands.samples(asked.claim, failed, None, list(asked.factors))
    assert max(sample.shares, key=sample.shares.get) == RATE  # of 32 points the 8 that failed are the highest rates
    [sample] = estimands.samples(asked.claim, failed[~lost | (failed["seed"] == 0)], None, list(asked.factors))
    assert verdicts.judged(asked.claim, sample).direction == INCONCLUSIVE


@pytest.mark.parametrize(
    ("read", "outcome"), [(False, "passed: where optimizer.learning_rate is held"), (True, "failed")]
)
def test_a_rate_that_is_drawn_and_not_read_must_not_lead(few, read, outcome):
    scores = importance.places(pd.DataFrame(LEVELS)) @ np.array([3, 1, 0]) / 10
    asked, trials = study(scores, controls={"positive": {RATE: 0.05}})
    held = trials if read else study(importance.places(pd.DataFrame(LEVELS))[:, 1] / 10)[1]
    found = verdicts.verdict(asked, Evidence(trials, positive=held.assign(**{RATE: 0.05})), len(POINTS))
    assert found.controls["positive"].startswith(outcome)
    assert found.verdict == (INCONCLUSIVE if read else SUPPORTED)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"controls": {"positive": {WIDTH: 8}}}, "expected optimizer.learning_rate alone"),
        ({"hypothesis": HYPOTHESIS | {"along": "nosuch"}}, "along=nosuch"),
        ({"hypothesis": HYPOTHESIS | {"measure": "time_to_target", "target": 0.9}}, "cut off at the budget"),
    ],
)
def test_a_wrong_card_is_refused(change, words):
    with pytest.raises(StudyError, match=words):
        study(POINTS[:, 0], **change)


def test_a_verdict_names_what_the_points_were_drawn_from(few):
    asked, trials = study(importance.places(pd.DataFrame(LEVELS)) @ np.array([3, 1, 0]) / 10)
    asked = replace(asked, sampled={RATE: Space(0.0001, 1.0, "log"), DEPTH: Space(0.0, 1.0)})
    lines = board.said(asked, verdicts.verdict(asked, Evidence(trials), len(POINTS)))
    assert "32 points of 2 ranges, learning_rate 0.0001 to 1, log; depth 0 to 1." in lines
    assert "32 points of 2 ranges, learning_rate 0.0001 to 1, log" in board.scope(asked, trials)


def test_too_few_points_or_factors_to_rank_are_refused():
    asked, _ = study(POINTS[:, 0])
    design.check_arms(asked)
    few = {name: some[:5] for name, some in asked.factors.items()}
    alone = {RATE: asked.factors[RATE]}
    for factors, words in ((few, "5 arms in a context"), (alone, "no factor beside")):
        with pytest.raises(StudyError, match=words):
            design.check_arms(
                Study("s", "?", factors, (0,), {}, "val_accuracy", zip=(tuple(factors),), claim=asked.claim)
            )


def test_what_is_not_installed_is_said_before_anything_trains(monkeypatch, tmp_path):
    asked, _ = study(POINTS[:, 0])
    claims.check_tools(asked.claim)
    monkeypatch.setattr(importance.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StudyError, match=r"pip install 'weight-studies\[importance\]'"):
        claims.check_tools(asked.claim)
    trained = []
    executor = type("Executor", (), {"close": lambda self: None, "run": lambda self, *a: trained.append(a)})()
    console = type("Console", (), {"print": lambda self, *a, **k: None})()
    with pytest.raises(StudyError, match="not installed"):
        Driver(asked, executor, tmp_path, "", console).drive([], lambda *a: [])
    assert not trained
