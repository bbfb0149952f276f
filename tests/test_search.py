"""Tuning over a space: which points are drawn, how ranges are extended, what is chosen, and one real study of it."""

import dataclasses
import itertools
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy.stats import qmc
from test_design import BASE, Compose, counted, expand, read

from analysis import load
from analysis.estimate import tuning
from analysis.read import executions
from studies.command import compose, driver
from studies.contract import Tag
from studies.design import arms, grid, search
from studies.design.study import read_study
from studies.record import Space, StudyError

ROOT = Path(__file__).parent.parent
RATE, WIDTH, MOMENTUM = "optimizer.learning_rate", "model.width", "optimizer.momentum"
RATES = {"low": 0.001, "high": 1, "scale": "log"}
WIDTHS = {"low": 3, "high": 6, "whole": True}
NAN = float("nan")


def drawn(draws=8, **more):
    """A study of two optimizers that draws rates, momenta and widths."""
    spaces = {RATE: RATES, MOMENTUM: {"low": 0.5, "high": 0.9}, WIDTH: WIDTHS}
    return read(**{"factors": {"optimizer": ["SGD", "Adam"]}, "nuisance": spaces, "draws": draws} | more)


def test_the_first_of_more_draws_are_the_same_and_cover_each_range_evenly_on_its_scale():
    few, many = drawn(5), drawn(16)
    assert arms.nuisance_of(few) == arms.nuisance_of(many)[:5]
    for values, edges in (
        (many.nuisance[RATE], np.geomspace(0.001, 1, 17)),
        (many.nuisance[MOMENTUM], np.linspace(0.5, 0.9, 17)),
        (many.nuisance[WIDTH], [3, 4, 5, 6, 7]),
    ):
        counts, _ = np.histogram(values, edges)
        assert set(counts) == {16 // len(counts)}  # a Sobol sequence has a point in each sixteenth
    assert all(float(f"{value:.4g}") == value for value in many.nuisance[RATE])


def test_whole_numbers_are_asked_for_not_inferred_from_how_a_bound_is_written():
    assert {type(value) for value in drawn().nuisance[WIDTH]} == {int}
    written = [drawn(nuisance={RATE: {"low": low, "high": high}}) for low, high in ((1000, 9000), (1e3, 9e3))]
    assert written[0] == written[1] and {type(value) for value in written[0].nuisance[RATE]} == {float}
    assert (
        drawn(nuisance={WIDTH: WIDTHS | {"low": 2.5, "high": 6.4}}).nuisance == drawn(nuisance={WIDTH: WIDTHS}).nuisance
    )


def test_drawn_numbers_stay_in_their_range_and_apart_where_it_is_narrow():
    narrow = drawn(32, nuisance={RATE: {"low": 0.99991, "high": 0.99999}}).nuisance[RATE]
    assert len(set(narrow)) == 32 and min(narrow) >= 0.99991 and max(narrow) <= 0.99999


def test_a_list_among_ranges_is_drawn_from_by_its_index():
    study = drawn(9, nuisance={RATE: RATES, "training.epochs": [5, 1, 20]})
    counts = [study.nuisance["training.epochs"].count(level) for level in (5, 1, 20)]
    assert sum(counts) == 9 and min(counts) >= 2
    assert study.space == {RATE: Space(0.001, 1.0, "log"), "training.epochs": (5, 1, 20)}
    alone = read(nuisance={"training.epochs": [5, 1, 20]})
    assert (alone.draws, alone.space, alone.extend) == (0, {}, True)


def test_all_arms_have_the_same_draws_of_what_they_have():
    study = drawn(6)
    trials = expand(
        study.factors, nuisance=study.nuisance, tuning_seeds=(100, 101), space=study.space, draws=6, extend=False
    )
    assert len(trials) == 2 * 6 * 2 and {trial.role for trial in trials} == {"nuisance"}
    sgd, adam = ([t.nuisance for t in trials if t.arm["optimizer"] == o and t.seed == 100] for o in ("SGD", "Adam"))
    assert sgd == arms.nuisance_of(study)
    assert adam == [{f: v for f, v in point.items() if f != MOMENTUM} for point in sgd]


def test_points_that_are_one_for_an_arm_are_tried_once():
    study = drawn(6, nuisance={RATE: RATES, MOMENTUM: {"low": 0.5, "high": 0.9}})
    few = dict(study.nuisance) | {RATE: (0.1, 0.1, 0.2, 0.2, 0.3, 0.3)}
    trials = expand(study.factors, nuisance=few, tuning_seeds=(100,), space=study.space, draws=6)
    assert [sum(t.arm["optimizer"] == o for t in trials) for o in ("SGD", "Adam")] == [6, 3]
    said = []
    read_study(BASE | {"study": BASE["study"] | {"nuisance": {WIDTH: WIDTHS}, "draws": 40}}, set(), said.append)
    assert said == ["study.draws=40 are 4 different ones: the others round to the same"]


def test_points_are_tuned_at_though_no_arm_has_all_of_their_settings():
    spaces = {"optimizer": ["SGD"], MOMENTUM: {"low": 0.5, "high": 0.9}}
    study = drawn(1, factors={}, nuisance=spaces, tuning_seeds=[100])
    points = [{"optimizer": "Adam", MOMENTUM: 0.95}]
    [trial] = grid.expand(study, BASE, {}, [], Compose(), counted, False, points=points)
    assert (trial.role, trial.nuisance) == ("nuisance", {"optimizer": "Adam"})


def test_an_edge_is_where_the_lowest_or_the_highest_draw_is_best():
    study = drawn(8)
    low, high = min(study.nuisance[RATE]), max(study.nuisance[RATE])
    middle = dict(zip(study.nuisance, (sorted(study.nuisance[f])[3] for f in study.nuisance), strict=True))
    assert search.edges(study, [middle, middle | {MOMENTUM: None}]) == []
    assert search.edges(study, [middle | {RATE: high}, middle | {RATE: low}]) == [(RATE, "low"), (RATE, "high")]
    assert search.edges(study, [middle | {WIDTH: 6}, {RATE: high, MOMENTUM: None}]) == [(RATE, "high"), (WIDTH, "high")]
    assert search.edges(drawn(1), arms.nuisance_of(drawn(1))) == []  # of one draw there is no edge
    listed = drawn(8, nuisance={RATE: RATES, "training.epochs": [1, 2]})
    assert search.edges(listed, [{RATE: middle[RATE], "training.epochs": 1}]) == []


def test_an_extension_is_half_a_range_wide_on_its_scale_and_half_as_many_draws():
    study = drawn(8)
    for factor, side, low, high in (
        (RATE, "low", 0.001**1.5, 0.001),
        (RATE, "high", 1, 1000**0.5),
        (MOMENTUM, "high", 0.9, 1.1),
        (WIDTH, "low", 1, 2),
        (WIDTH, "high", 7, 8),
    ):
        points = search.extension(study, factor, side)
        assert len(points) == 4 and all(low * 0.999 <= point[factor] <= high * 1.001 for point in points)
        assert len({point[RATE] for point in points}) == 4 and {type(point[WIDTH]) for point in points} == {int}
        others = {f for f in study.nuisance if f != factor}
        assert all(study.space[f].low <= point[f] <= study.space[f].high for point in points for f in others)
    assert search.reach(study, RATE, "high") == 31.62 and search.reach(study, MOMENTUM, "low") == 0.3
    assert search.reach(study, WIDTH, "low") == 1 and search.reach(study, WIDTH, "high") == 8
    assert [len(search.extension(drawn(draws), RATE, "low")) for draws in (1, 3, 4, 13)] == [2, 2, 2, 6]


def test_an_extension_goes_on_in_the_sequence_with_a_part_for_each_side():
    study = drawn(8)
    more = arms.nuisance_of(drawn(8 + 6 * 4))
    sides = [(f, side) for f in study.nuisance for side in ("low", "high")]
    for place, (factor, side) in enumerate(sides):
        mine = more[8 + 4 * place : 12 + 4 * place]
        points = search.extension(study, factor, side)
        assert [{**point, factor: 0} for point in points] == [{**point, factor: 0} for point in mine]
    assert search.most(study) == 24 and search.most(drawn(8, extend=False)) == 0


@pytest.mark.parametrize(
    ("node", "received", "allowed"),
    [
        ({"nuisance": {RATE: {"low": 1, "high": 0.1}}}, f"{RATE}: low=1 and high=0.1", "low below high"),
        ({"nuisance": {RATE: {"low": 1, "high": 1.0}}}, "low=1 and high=1.0", "low below high"),
        ({"nuisance": {RATE: RATES | {"low": 0}}}, f"{RATE}.low=0", "above 0 on a log scale"),
        ({"nuisance": {RATE: RATES | {"low": -1}}}, f"{RATE}.low=-1", "above 0 on a log scale"),
        ({"draws": 0}, "study.draws=0", "a whole number from 1"),
        ({"draws": -4}, "study.draws=-4", "a whole number from 1"),
        ({"draws": True}, "study.draws=true", "a whole number from 1"),
        ({"draws": 10**9}, "study.draws=1000000000", "to 100,000"),
        ({"draws": None}, f"a range for {RATE}, and study.draws is null", "study.draws=12"),
        ({"nuisance": {}}, "study.draws=4, and study.nuisance has no range", "leave out study.draws"),
        ({"nuisance": {RATE: [0.1, 1]}}, "study.draws=4, and study.nuisance has no range", "low: .001"),
        ({"nuisance": {RATE: RATES | {"step": 2}}}, f"{RATE}.step: there is no such key", "low, high, scale, whole"),
        ({"nuisance": {RATE: {"low": 1}}}, f"{RATE}.high is missing", "low, high"),
        ({"nuisance": {RATE: RATES | {"high": None}}}, f"{RATE}.high=null", "a finite number"),
        ({"nuisance": {RATE: RATES | {"high": float("inf")}}}, f"{RATE}.high=inf", "a finite number"),
        ({"nuisance": {RATE: RATES | {"high": NAN}}}, f"{RATE}.high=nan", "a finite number"),
        ({"nuisance": {RATE: RATES | {"low": True}}}, f"{RATE}.low=true", "a finite number"),
        ({"nuisance": {RATE: RATES | {"scale": "ln"}}}, f"{RATE}.scale=ln", "linear, log"),
        ({"nuisance": {WIDTH: WIDTHS | {"whole": 1}}}, f"{WIDTH}.whole=1", "true or false"),
        ({"nuisance": {WIDTH: {"low": 3.1, "high": 3.9, "whole": True}}}, "no whole number lies from 3.1 to", "widen"),
        ({"nuisance": {"optimizer": RATES}}, "study.nuisance.optimizer=", "a list of options"),
        ({"extend": 1}, "study.extend=1", "true or false"),
        ({"seeds": [7, 101]}, "share 101", "measured afresh"),
    ],
)  # fmt: skip
def test_wrong_spaces_are_refused(node, received, allowed):
    with pytest.raises(StudyError) as error:
        read(**{"nuisance": {RATE: RATES}, "draws": 4} | node)
    assert received in str(error.value) and allowed in str(error.value)


def test_more_dimensions_than_the_sequence_has_are_refused():
    assert search.MOST_DIMENSIONS == qmc.Sobol.MAXDIM
    with pytest.raises(StudyError, match=r"draws from 21,202 dimensions: expected 21,201 at most"):
        search.drawn({f"f{n}": Space(0, 1) for n in range(qmc.Sobol.MAXDIM + 1)}, 2)


def test_draws_are_void_where_the_command_fixes_what_they_are_of():
    said = []
    node = {"nuisance": {RATE: RATES, "training.epochs": [1, 2]}, "draws": 4}
    config = BASE | {"study": BASE["study"] | node}
    study = read_study(config, {RATE, "study.draws"}, said.append)
    assert (study.draws, study.space, study.nuisance) == (0, {}, {"training.epochs": (1, 2)})
    assert said == [f"{RATE} is not tuned: it is fixed in the command", "study.draws is void: no range is tuned over"]


def test_what_a_command_leaves_of_a_studys_range_is_said():
    config = {"study": {"nuisance": {RATE: {"low": 1, "high": 2, "scale": "log"}, WIDTH: [8]}}}
    [one, other] = compose.merged([f"+study.nuisance={{{RATE}:{{low:0.1,high:0.5}}}}"], config)
    assert one == f"study.nuisance keeps {WIDTH} of the study besides; study.nuisance=null before it leaves all out"
    assert other == f"study.nuisance.{RATE} keeps scale: log of the study besides"
    assert compose.merged([f"+study.nuisance={{{RATE}:[0.1],{WIDTH}:[8]}}"], config) == []


def test_a_design_is_read_back_from_the_store_and_an_older_one_too():
    study = drawn(4)
    for left_out in ((), ("space", "draws", "extend")):
        design = {name: value for name, value in dataclasses.asdict(study).items() if name not in left_out}
        tags = {Tag.DESIGN: json.dumps(design), Tag.HASH: ""}
        run = SimpleNamespace(tags=tags, status="", folder="", run_id="", experiment_id="", start_time=0, end_time=0)
        found = executions.read(run, 1, b"{}").study
        assert found == (dataclasses.replace(study, space={}, draws=0) if left_out else study)


def test_the_driver_pays_for_scipy_only_where_something_is_drawn():
    code = "import sys, studies.run, studies.design.search; assert not [m for m in sys.modules if 'scipy.stats' in m]"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def tried(*rows):
    """A trials frame of `(optimizer, rate, width, seed, value)`."""
    frame = pd.DataFrame(rows, columns=["optimizer", RATE, WIDTH, "seed", "val_accuracy"])
    return frame.assign(status="finished", classes=10, seconds_total=1.5)


SPACE = {RATE: Space(0.1, 1.0), WIDTH: Space(2, 8, whole=True)}
NUISANCE = {RATE: (0.3, 0.9, 0.5), WIDTH: (8, 2, 4)}


def test_the_best_draw_is_chosen_by_its_mean_over_the_seeds_and_its_edges_are_those_of_all_draws():
    means = {(0.3, 8): 0.5, (0.9, 2): 0.6, (0.5, 4): 0.7}
    rows = [("SGD", r, w, s, v + d) for (r, w), v in means.items() for s, d in ((100, 0.2), (101, -0.2))]
    choose = lambda frame: tuning.tuned(frame, ["optimizer"], NUISANCE, "val_accuracy", SPACE).iloc[0]  # noqa: E731
    row = choose(tried(*rows))
    assert (row[RATE], row[WIDTH], row["value"], row["edge"]) == (0.5, 4, pytest.approx(0.7), [])
    row = choose(tried(*rows, ("SGD", 1.2, 8, 100, 0.9)))  # an extension
    assert (row[RATE], row[WIDTH], row["edge"]) == (1.2, 8, [RATE, WIDTH])
    row = choose(tried(*rows, ("SGD", 1.2, 4, 100, 0.1), ("SGD", 0.9, 9, 100, 0.9)))
    assert (row[RATE], row["edge"]) == (0.9, [WIDTH])
    assert choose(tried(("SGD", 0.5, 4, 100, 0.5), ("SGD", 0.3, 4, 100, 0.5)))[RATE] == 0.5  # of equals the first


def test_what_was_extended_is_seen_in_the_trials():
    frame = tried(("SGD", 0.05, 8, 100, 0.5), ("SGD", 1.0, 9, 100, 0.5), ("SGD", 0.02, 12, 100, 0.5))
    assert tuning.extended(frame, SPACE) == [(RATE, "below", 0.1, 0.02), (WIDTH, "above", 8, 12)]
    assert tuning.extended(frame[1:2].assign(**{WIDTH: None}), SPACE) == []


def test_the_expected_best_is_the_mean_over_all_ways_to_draw():
    scores = [0.2, 0.9, 0.4, 0.9]
    for higher, best in ((True, max), (False, min)):
        every = [np.mean([best(way) for way in itertools.product(scores, repeat=n)]) for n in (1, 2, 3, 4)]
        assert tuning.expected_best(scores, higher) == pytest.approx(every)
    assert tuning.expected_best([]).shape == (0,)


def test_the_tuning_curve_is_of_the_means_of_what_was_drawn_at_first():
    rows = [("SGD", r, w, s, v + d) for r, w, v in ((0.3, 8, 0.2), (0.9, 2, 0.4)) for s, d in ((1, 0.1), (2, -0.1))]
    rows += [("SGD", 1.2, 8, 1, 0.99)]  # of an extension
    rows += [("Adam", 0.3, None, 1, 0.5), ("Adam", 0.05, None, 1, 0.9)]  # has no width; of an extension
    curve = tuning.tuning_curve(tried(*rows).astype({WIDTH: object}), ["optimizer"], NUISANCE, "val_accuracy")
    assert curve.to_dict("list") == {
        "optimizer": ["SGD", "SGD", "Adam"], "draws": [1, 2, 1], "best": pytest.approx([0.3, 0.35, 0.5]),
    }  # fmt: skip


def test_the_plan_counts_draws_and_what_an_extension_adds_at_most(planned):
    words = [
        "+study.factors={optimizer: [momentum, adam]}",
        f"+study.nuisance={{{RATE}: {{low: .001, high: 1, scale: log}}, {MOMENTUM}: {{low: .5, high: .9}}}}",
        "study.draws=5",
        "study.seeds=2",
    ]
    code, output, error = planned(*words)
    assert (code, error) == (0, "")
    assert "30 tuning trials, 2 arms at 5 draws and 3 seeds" in output
    assert "at most 48 more, if ranges are extended" in output  # 2 arms, 2 ranges, 2 sides, 2 draws, 3 seeds
    assert "then 4 final trials, each arm at its best draw and 2 seeds" in output
    assert "at most" not in planned(*words, "study.extend=false")[1]


STUDY = [
    "+study.factors={optimizer:[sgd,adam]}",
    f"+study.nuisance={{{RATE}:{{low:1e-5,high:1e-3,scale:log}}}}",
    "study.draws=4",
    "study.tuning_seeds=[100,101]",
    "study.seeds=2",
    "study.name=drawn",
    "training.epochs=2",
    "model.width=8",
]


def scores(store):
    execution = load.execution("drawn", store)
    both = pd.concat([load.tuning_trials(execution, store), load.trials("drawn", store)])
    return both[["key", "role", "optimizer", RATE, "seed", "val_loss", "val_accuracy", "test_loss"]]


def test_a_range_is_extended_and_a_study_interrupted_there_goes_on_to_the_same_numbers(here, fresh, tmp_path):
    whole, half = (shutil.copytree(fresh, tmp_path / name) for name in ("whole", "half"))
    code, output, error = here(*STUDY, f"tracking.root={whole}")
    assert code == 0, error
    assert "16 tuning trials, 0 finished before, 16 to run" in output
    line = (
        f"an arm does best at the high end of {RATE}, 1e-05 to 0.001, log: extended to 0.01 for all arms, 2 draws more"
    )
    assert output.count("\nan arm does best") == output.count(line) == 1
    assert "24 tuning trials, 16 finished before, 8 to run" in output
    assert "4 trials, 0 finished before, 4 to run" in output
    frame = scores(whole)
    assert dict(frame["role"].value_counts()) == {"nuisance": 24, "scientific": 4}
    means = frame[frame["role"] == "nuisance"].groupby(["optimizer", RATE])["val_accuracy"].mean()
    assert sorted({rate for _, rate in means.index})[-1] > 0.001 and len(means) == 12
    for optimizer, part in frame[frame["role"] == "scientific"].groupby("optimizer"):
        assert set(part[RATE]) == {means[optimizer].idxmax()} and sorted(part["seed"]) == [0, 1]
    execution = load.execution("drawn", whole)
    assert (execution.study.draws, execution.study.space) == (4, {RATE: Space(1e-5, 1e-3, "log")})
    page = (execution.folder / "report.html").read_text()
    seconds = load.tuning_trials(execution, whole)["seconds_total"].sum()
    for said in (f"Tuning took 24 trials, {seconds:.0f} s of training", f"{RATE} was extended above 0.001"):
        assert said in output and said in page
    assert "expected best val accuracy" in page and "the same 4 draws of" in page

    command = [sys.executable, "-m", "studies.run", *STUDY, f"tracking.root={half}"]
    stopped = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in stopped.stdout:
        if "24 tuning trials" in line:
            stopped.send_signal(signal.SIGINT)
            break
    _, error = stopped.communicate(timeout=120)
    asked = r"(interrupted: no other[^\n]*\n)?"
    kept = r"interrupted: (1[6-9]|2[0-4]) of 24 trials are kept; the same command goes on from there\n"
    assert stopped.returncode == 130 and re.fullmatch(asked + kept, error), error
    code, output, error = here(*STUDY, f"tracking.root={half}")
    assert code == 0, error
    assert "16 tuning trials, 16 finished before, 0 to run" in output
    pd.testing.assert_frame_equal(scores(half), frame, check_exact=True)


def test_an_extension_leaves_out_what_a_setting_cannot_have(tmp_path, monkeypatch, capsys):
    study = drawn(8, nuisance={RATE: {"low": 0.1, "high": 0.9}})
    rates = sorted(point[RATE] for point in search.extension(study, RATE, "high"))

    def expand(_, points):
        if points[0][RATE] >= rates[2]:
            raise StudyError("expected a number below it")
        return [SimpleNamespace(key="", rate=points[0][RATE])]

    def checked(trials, executor):
        if trials[0].rate >= rates[1]:  # as a worker finds when it builds the part
            raise StudyError("expected a number below it")

    monkeypatch.setattr(driver.checks, "checked", checked)
    monkeypatch.setattr(driver.checks, "check_sizes", lambda points: None)

    def extended(side):
        drive = driver.Driver(study, None, tmp_path, "", Console())
        points = drive._extended([(RATE, side)], expand)
        assert points[:8] == arms.nuisance_of(study)
        return points[8:], capsys.readouterr().out

    points, output = extended("high")
    assert [point[RATE] for point in points] == rates[:1]
    assert "extended to 1.3 for all arms, 1 draws more, without what a setting cannot have (expected a num" in output
    monkeypatch.setattr(search, "extension", lambda *_: arms.nuisance_of(study)[2:4])
    points, output = extended("low")
    assert points == [] and "at the low end of optimizer.learning_rate, 0.1 to 0.9: no more is drawn\n" in output
