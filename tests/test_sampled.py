"""Designs whose factors are drawn from ranges: which points there are, what they are called, what is refused."""

import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
from test_claims import CARD, FACTORS
from test_design import BASE, Compose, counted

from analysis.read import executions
from studies.command import plan
from studies.contract import Tag
from studies.design import arms, controls, grid
from studies.design.claim import read_claim
from studies.design.study import read_study
from studies.record import Space, StudyError

RATE, WIDTH = "optimizer.learning_rate", "model.width"
RANGES = {RATE: {"low": 0.001, "high": 1, "scale": "log"}, WIDTH: {"low": 3, "high": 80, "whole": True}}
CROSSED = {"optimizer": ["SGD", "Adam"], **RANGES}


def read(overridden=frozenset(), say=lambda remark: None, **node):
    return read_study(BASE | {"study": BASE["study"] | node}, overridden, say)


def expand(study):
    return grid.expand(study, BASE, {}, [], Compose(), counted, exact=False)


def test_ranges_move_together_along_a_sequence_and_lists_are_crossed_with_their_points():
    study = read(factors=CROSSED, points=16)
    every = arms.of(study)
    assert len(every) == 32 and study.sampled == {RATE: Space(0.001, 1.0, "log"), WIDTH: Space(3.0, 80.0, whole=True)}
    counts, _ = np.histogram(study.factors[RATE], np.geomspace(0.001, 1, 17))
    assert set(counts) == {1}  # a Sobol sequence has a point in each sixteenth
    points = [[(arm[RATE], arm[WIDTH]) for arm in every if arm["optimizer"] == name] for name in CROSSED["optimizer"]]
    assert points[0] == points[1] == list(zip(study.factors[RATE], study.factors[WIDTH], strict=True))
    assert {type(width) for width in study.factors[WIDTH]} == {int}
    fewer = read(factors=CROSSED, points=9)
    assert fewer.factors[RATE] == study.factors[RATE][:9]
    trials = expand(study)
    assert len(trials) == 32 and trials[3].config["optimizer"]["learning_rate"] == study.factors[RATE][3]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"points": None}, "study.points is null"),
        ({"points": 0}, "study.points=0: expected a whole number from 1"),
        ({"factors": {"optimizer": ["SGD", "Adam"]}}, "study.factors has no range"),
        ({"zip": [["optimizer", RATE]]}, "has a range: expected lists"),
        ({"factors": {"optimizer": {"low": 1, "high": 2}}}, "expected a list of options"),
        ({"factors": {RATE: {"low": 1, "high": 0.1}}}, "expected low below high"),
    ],
)
def test_what_cannot_be_drawn_is_refused(change, words):
    with pytest.raises(StudyError, match=words):
        read(**{"factors": CROSSED, "points": 16} | change)


def test_points_that_round_to_the_same_are_one_and_a_factor_that_is_fixed_is_not_drawn():
    said = []
    few = read(say=said.append, factors={WIDTH: {"low": 3, "high": 5, "whole": True}}, points=16)
    assert sorted(few.factors[WIDTH]) == [3, 4, 5] and said == [
        "study.points=16 are 3 different ones: the others round to the same"
    ]
    alone = read({RATE}, factors=CROSSED, points=4)
    assert list(alone.factors) == ["optimizer", WIDTH] and list(alone.sampled) == [WIDTH] and alone.zip == ()
    said.clear()
    fixed = read({RATE, "study.points"}, said.append, factors={RATE: RANGES[RATE]}, points=4)
    assert fixed.factors == {} and "study.points is void: no factor has a range" in said


def test_a_trial_of_points_is_called_by_its_point_whose_levels_a_plan_lists(capsys):
    study = read(factors=CROSSED, points=8)
    trials = expand(study)
    assert study.labelled(trials[9]) == "Adam point 2"
    held = replace(trials[9], arm=trials[9].arm | {RATE: 0.5})
    assert study.labelled(held) == "Adam learning_rate=0.5 point 2"
    lines = plan._points(study)
    assert lines[0] == f"{RATE}: 0.001 to 1, log" and len(lines) == 2 + 2 + 8
    assert lines[5].split() == ["2", str(study.factors[RATE][1]), str(study.factors[WIDTH][1])]
    plain = read(factors={RATE: [0.1, 0.2]})
    assert plain.labelled(expand(plain)[0]) == "learning_rate=0.1" and plan._points(plain) == []


def test_a_factor_of_points_can_be_held_in_all_of_them():
    study = read(factors=CROSSED, points=8)
    held = controls._changed(controls._restricted(study, {}, (5,)), {RATE: 0.5})
    found = arms.of(held)
    assert len(found) == 16 and {arm[RATE] for arm in found} == {0.5}
    assert [arm[WIDTH] for arm in found] == [arm[WIDTH] for arm in arms.of(study)]


def test_what_is_drawn_from_is_kept_and_is_no_part_of_a_card():
    study = read(factors=CROSSED, points=4)
    tags = {Tag.DESIGN: json.dumps(asdict(study)), Tag.HASH: ""}
    run = SimpleNamespace(tags=tags, status="", folder=None, run_id="", experiment_id="", start_time=0, end_time=0)
    assert executions.read(run, 1, b"{}").study == study
    claim = read_claim(CARD, FACTORS, "quick")
    bare = replace(study, claim=claim, sampled={})
    assert bare.card == replace(study, claim=claim).card != replace(bare, factors={}).card
