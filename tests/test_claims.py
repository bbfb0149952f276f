"""Claims: cards that are refused, estimands and verdicts by made-up trials, error rates by simulation, the board."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from test_compare import stored

from analysis import claims, load
from analysis.estimate import estimands, verdicts
from analysis.estimate.verdicts import INCONCLUSIVE, INVALID, NOT_SUPPORTED, SUPPORTED, Evidence
from analysis.read import cards
from analysis.show import board
from benchmarks.validate import claimed
from studies.command.job import UNCLAIMED
from studies.contract import Tag
from studies.design import claim as design
from studies.design.controls import controls
from studies.design.study import read_study
from studies.record import Study, StudyError, Trial
from studies.store.sql import Store

FACTORS = {"data": ("digits", "mnist"), "optimizer": ("sgd", "adam", "rmsprop"), "model.depth": (2, 8)}
HYPOTHESIS = {
    "estimand": "difference",
    "measure": "val_accuracy",
    "of": {"optimizer": "adam"},
    "against": {"optimizer": "sgd"},
    "direction": "above",
    "margin": 0.0,
    "why_margin": "any gain is a gain",
}
TIMED = HYPOTHESIS | {"measure": "time_to_target", "target": 0.9}
WITHIN = HYPOTHESIS | {"direction": "within", "claimed_band": [-0.1, 0.1]}
CARD = {"id": "adam", "version": 1, "quote": "Adam is better.", "kind": "universal", "hypothesis": HYPOTHESIS}
ESTIMANDS = tuple(design.ESTIMANDS)


def read(factors=FACTORS, **hypothesis):
    hypothesis = {"margin": 1.0} | hypothesis if "ratio" in hypothesis.get("estimand", "") else hypothesis
    return design.read_claim(CARD | {"hypothesis": HYPOTHESIS | hypothesis}, factors, "quick")


def study(claim, factors, seeds, looks=()):
    return Study("s", "?", factors, tuple(range(seeds)), {}, "val_accuracy", looks=looks, claim=claim)


def frame(values: dict, seeds=None, factor="optimizer", **columns) -> pd.DataFrame:
    """A trials frame from an arm's level -> its values by seed."""
    rows = [
        {"key": f"{level}-{seed}", "status": "finished", factor: level, "seed": seed, "val_accuracy": value}
        for level, row in values.items()
        for seed, value in zip(seeds or range(len(row)), row, strict=True)
    ]
    made = pd.DataFrame(rows)
    return made.assign(epochs=10, classes=10, seconds_total=1.0, **columns)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hypothesis": HYPOTHESIS | {"margin": None}}, "margin is missing"),
        ({"hypothesis": HYPOTHESIS | {"margin": "much"}}, "margin=much"),
        ({"hypothesis": HYPOTHESIS | {"claimed_band": [0.8, 0.6]}}, "the lower number first"),
        ({"hypothesis": HYPOTHESIS | {"claimed_band": 0.8}}, "two numbers"),
        ({"hypothesis": HYPOTHESIS | {"estimand": "feeling"}}, "estimand=feeling: expected one of value, mean"),
        ({"hypothesis": HYPOTHESIS | {"direction": "up"}}, "expected one of above, below, within"),
        ({"hypothesis": HYPOTHESIS | {"of": {"optimizer": "lion"}}}, "expected some of its levels sgd, adam"),
        ({"hypothesis": HYPOTHESIS | {"of": {"nosuch": 1}}}, "expected factors of the study"),
        ({"hypothesis": HYPOTHESIS | {"measure": "time_to_target"}}, "target is missing"),
        ({"hypothesis": HYPOTHESIS | {"estimand": "slope"}}, "along is missing"),
        ({"hypothesis": HYPOTHESIS | {"estimand": "slope", "along": "nosuch"}}, "along=nosuch"),
        ({"hypothesis": HYPOTHESIS | {"against": {"optimizer": "adam"}}}, "the same arms"),
        ({"hypothesis": HYPOTHESIS | {"measure": "feeling"}}, "measure=feeling: expected one of time_to_target"),
        ({"hypothesis": HYPOTHESIS | {"direction": "within"}}, "claimed_band is missing"),
        ({"version": 0}, "claim.version=0"),
        ({"number": 0}, "claim.number=0: expected its place in the article"),
        ({"kind": "rumour"}, "claim.kind=rumour"),
        ({"nosuch": 1}, "claim.nosuch: there is no such setting"),
        ({"decision": {"across": ["nosuch"]}}, "across"),
        ({"decision": {"alpha_look": 0.5}}, "alpha_look=0.5"),
        ({"controls": {"negative": -1}}, "negative=-1"),
        ({"controls": {"positive": {"model.depth": 1}}}, "sets model.depth, a factor"),
        ({"hypothesis": HYPOTHESIS | {"estimand": "ratio"}}, "margin=0.0: expected a ratio above 0"),
        ({"hypothesis": HYPOTHESIS | {"claimed_band": [-0.2, -0.1]}}, "some of the band above the margin"),
        ({"hypothesis": HYPOTHESIS | {"metric": "feeling"}}, "metric=feeling"),
        ({"hypothesis": TIMED | {"metric": "test_accuracy"}}, "metric=test_accuracy"),
        ({"hypothesis": HYPOTHESIS | {"target": 0.9}}, "measure=val_accuracy has no use for it"),
        ({"hypothesis": TIMED | {"estimand": "slope", "along": "model.depth"}}, "cut off at the budget"),
        ({"hypothesis": HYPOTHESIS | {"estimand": "slope", "along": "data"}}, "levels digits, mnist: expected numbers"),
        ({"hypothesis": TIMED | {"target": {"digits": 0.9}}, "decision": {"across": ["data"]}}, "data=mnist too"),
        ({"hypothesis": WITHIN, "controls": {"negative": 1000}}, "no arm can differ from itself"),
        ({"id": "A b"}, "claim.id"),
        ({"hypothesis": HYPOTHESIS | {"measure": "dense_1.kernel.feeling"}}, "LAYER.TENSOR.STATISTIC.* sparsity_1e-3"),
    ],
)
def test_a_wrong_card_is_refused(change, words):
    with pytest.raises(StudyError, match=words):
        design.read_claim(CARD | change, FACTORS, "quick")


def test_a_claim_can_be_of_a_layers_statistic_which_a_failure_has_not(fresh, tmp_path):
    shutil.copy(fresh / "mlflow.db", tmp_path)
    stored(tmp_path, "layered", {"optimizer": ("adam", "sgd")}, {}, seeds=(0, 1, 2))
    levels = {
        f"laye-{place}-{seed}": {"optimizer": arm} for place, arm in enumerate(("adam", "sgd")) for seed in range(3)
    }
    measure = "dense_1.kernel.l2@7"
    asked = replace(study(read(measure=measure), {"optimizer": ("adam", "sgd")}, 3), name="layered")
    _, evidence = claims.judge(asked, tmp_path, levels, {})
    frame = load.layers("layered", tmp_path, statistics=["l2"])
    at = frame[(frame["layer"] == "dense_1") & (frame["tensor"] == "kernel") & (frame["epoch"] == 7)]
    assert evidence.trials.set_index("key")[measure].to_dict() == at.set_index("key")["l2"].to_dict()
    [found] = estimands.samples(asked.claim, evidence.trials, None, ["optimizer"])
    by = at.set_index("key")["l2"]
    assert found.numbers == pytest.approx([by[f"laye-0-{seed}"] - by[f"laye-1-{seed}"] for seed in range(3)])
    lost = evidence.trials["key"] == "laye-0-1"
    some = evidence.trials.assign(status=np.where(lost, "diverged", "finished")).drop(columns=measure)
    assert claims._with_layers(some, asked, tmp_path)[measure].isna().tolist() == lost.tolist()
    assert board.estimand(asked.claim) == f"{measure}: adam − sgd"


@pytest.mark.parametrize(
    ("looks", "words"),
    [
        ([6, 6, 12], "increase"),
        ([12, 6], "increase"),
        ([6, 10], "study.seeds=10"),
        ([1, 12], "from 2 on"),
        (6, "such as"),
        ([3, 6, 9, 12], "expected 3 looks at most, or alpha_look=0.0158"),
    ],
)
def test_wrong_looks_are_refused(looks, words):
    with pytest.raises(StudyError, match=words):
        design.read_looks(looks, tuple(range(12)), read())
    with pytest.raises(StudyError, match="no claim"):
        design.read_looks([6, 12], tuple(range(12)), None)


def test_the_card_is_another_when_anything_that_decides_is():
    one = study(read(), FACTORS, 6)
    others = [
        study(read(margin=0.01), FACTORS, 6),
        study(read(), FACTORS, 7),
        study(read(of={"optimizer": "rmsprop"}), FACTORS, 6),
    ]
    assert len({one.card, *(other.card for other in others)}) == 4
    assert replace(one, question="asked otherwise?").card == one.card
    assert replace(one, claim=None).card == ""
    assert replace(one, claim=replace(one.claim, number=13, chapter="Optimizers")).card == one.card


def test_each_estimand_that_a_card_can_name_is_computed():
    assert design.ESTIMANDS.keys() == estimands.ESTIMANDS.keys()
    assert set(design.DERIVED) == {*estimands.CLOCKS, *estimands.GAPS, "success"}


def sample(numbers, bounds=None):
    numbers = np.asarray(numbers, float)
    return estimands.Sample(
        "", np.arange(len(numbers)), numbers, np.zeros(len(numbers)) if bounds is None else np.array(bounds, float)
    )


@pytest.mark.parametrize(
    ("numbers", "direction"),
    [
        ([0.02, 0.03, 0.025, 0.031, 0.02, 0.028], SUPPORTED),
        ([-0.02, -0.03, -0.025, -0.031, -0.02, -0.028], NOT_SUPPORTED),
        ([0.02, -0.03, 0.025, -0.031, 0.02, -0.01], INCONCLUSIVE),
        ([0.01] * 6, SUPPORTED),  # alike: 6 of 6 ahead, p = 1/64
        ([0.01] * 5, INCONCLUSIVE),  # 1/32 is no .021
        ([0.0] * 6, INCONCLUSIVE),
        ([0.01], INCONCLUSIVE),
        ([], INCONCLUSIVE),
        ([np.nan] * 6, INCONCLUSIVE),
    ],
)
def test_a_direction_is_judged_by_one_sided_intervals_or_signs(numbers, direction):
    assert verdicts.judged(read(), sample(numbers)).direction == direction


def test_the_magnitude_is_judged_apart():
    claim = read(estimand="ratio", direction="below", margin=0.95, claimed_band=[0.6, 0.8])
    near = np.log([0.70, 0.72, 0.69, 0.71, 0.70, 0.71])
    for shift, direction, magnitude in [
        (1.0, SUPPORTED, SUPPORTED),
        (0.5, SUPPORTED, NOT_SUPPORTED),
        (1.12, SUPPORTED, INCONCLUSIVE),
        (1.6, NOT_SUPPORTED, NOT_SUPPORTED),
    ]:
        found = verdicts.judged(claim, sample(near + np.log(shift)))
        assert (found.direction, found.magnitude) == (direction, magnitude), shift
        assert found.low < found.estimate < found.high
        assert found.leads == (shift > 1.5)  # the ratio is above 1 at all seeds or at none
    assert found.estimate == pytest.approx(1.6 * 0.705, rel=0.01)


def test_what_was_cut_off_counts_for_the_side_it_is_surely_on():
    claim = read(estimand="ratio", direction="below", margin=0.95)
    fast = np.log([0.5] * 6)
    assert verdicts.judged(claim, sample(fast, [-1] * 6)).direction == SUPPORTED  # at most half, surely below
    assert verdicts.judged(claim, sample(fast, [1] * 6)).direction == INCONCLUSIVE  # at least half
    assert verdicts.judged(claim, sample(-fast, [1] * 6)).direction == NOT_SUPPORTED  # at least twice
    assert verdicts.judged(claim, sample(fast, [np.nan] * 6)).direction == INCONCLUSIVE
    found = verdicts.judged(claim, sample(fast, [-1, 0, 0, 0, 0, 0]))
    assert "1 of 6 seeds cut off" in found.note and np.isnan(found.low)


@pytest.mark.parametrize("direction", ["above", "below"])
def test_of_values_every_one_must_hold(direction):
    claim = replace(read(), estimand="value", direction=direction, margin=0.9)
    above, below = [0.95, 0.99, 0.91], [0.5, 0.7, 0.89]
    good, bad = (above, below) if direction == "above" else (below, above)
    assert verdicts.judged(claim, sample(good)).direction == SUPPORTED
    assert verdicts.judged(claim, sample([*good, bad[0]])).direction == NOT_SUPPORTED
    assert verdicts.judged(claim, sample([*good, np.nan])).direction == INCONCLUSIVE
    cut = verdicts.judged(claim, sample(good, [1, 0, 0])).direction  # the first is at least so much
    assert cut == (SUPPORTED if direction == "above" else INCONCLUSIVE)


def test_a_general_claim_must_hold_in_every_context():
    claim = replace(read(), across=("data",))
    good, open_, bad = ([0.02, 0.03, 0.025, 0.03], [0.02, -0.02, 0.03, -0.03], [-0.02, -0.03, -0.025, -0.03])
    judged = {
        name: verdicts.judged(claim, sample(some)) for name, some in (("good", good), ("open", open_), ("bad", bad))
    }

    def said(*names, controls=None):
        return verdicts.combined(claim, [judged[name] for name in names], (0, 1, 2, 3), controls or {}).verdict

    assert said("good", "good") == SUPPORTED
    assert said("good", "open") == INCONCLUSIVE
    assert said("good", "bad") == NOT_SUPPORTED
    assert said("good", controls={"negative": "failed: it differs"}) == INCONCLUSIVE
    assert said("good", controls={"negative": "passed: it does not"}) == SUPPORTED


def test_an_interaction_sets_the_ratio_here_beside_the_ratio_there():
    factors = {"data": ("digits", "mnist"), "optimizer": ("sgd", "adam"), "model": ("mlp", "cnn", "rnn")}
    gains = {"mlp": 0.8, "cnn": 0.4, "rnn": 0.1}
    made = pd.concat(
        [
            frame({"sgd": [0.5, 0.6], "adam": [0.5 * gain * size, 0.6 * gain * size]}).assign(data=data, model=model)
            for data, size in (("digits", 1), ("mnist", 0.5))
            for model, gain in gains.items()
        ],
        ignore_index=True,
    )
    card = {"estimand": "interaction_ratio", "direction": "below", "margin": 0.8, "beside": {"model": "mlp"}}
    node = CARD | {"hypothesis": HYPOTHESIS | card, "decision": {"across": ["data", "model"]}}
    claim = design.read_claim(node, factors, "quick")
    found = {each.context: np.exp(each.numbers) for each in estimands.samples(claim, made, None, list(factors))}
    assert list(found) == ["digits cnn", "digits rnn", "mnist cnn", "mnist rnn"]
    assert np.concatenate(list(found.values())) == pytest.approx([0.5, 0.5, 0.125, 0.125] * 2)
    assert board.estimand(claim) == "val accuracy: adam / sgd, over the same at mlp"
    assert study(claim, factors, 2).card != study(replace(claim, beside={"model": ["cnn"]}), factors, 2).card
    with pytest.raises(StudyError, match="beside names model: expected levels of"):
        design.read_claim(node | {"decision": {"across": ["data"]}}, factors, "quick")


def test_an_existential_claim_must_hold_in_one_context():
    claim = replace(read(), across=("data",), kind="existential")
    good, open_, bad = ([0.02, 0.03, 0.025, 0.03], [0.02, -0.02, 0.03, -0.03], [-0.02, -0.03, -0.025, -0.03])
    judged = {
        name: replace(verdicts.judged(claim, sample(some)), context=name)
        for name, some in (("good", good), ("open", open_), ("bad", bad))
    }

    def said(*names):
        return verdicts.combined(claim, [judged[name] for name in names], (0, 1, 2, 3), {})

    assert said("good", "bad", "open").verdict == SUPPORTED
    assert said("bad", "open").verdict == INCONCLUSIVE
    assert said("bad", "bad").verdict == NOT_SUPPORTED
    assert verdicts.deciding(claim, said("bad", "good", "open")).context == "good"
    weak = verdicts.judged(claim, sample([0.01, 0.02, 0.03, 0.015]))
    assert claim.alpha_look / 2 < weak.p_for < claim.alpha_look
    assert verdicts.combined(claim, [weak], (0,), {}).verdict == SUPPORTED
    assert verdicts.combined(claim, [weak, judged["open"]], (0,), {}).verdict == INCONCLUSIVE  # each is a chance more


def test_a_context_that_contradicts_by_its_size_decides_before_one_that_is_open():
    claim = replace(read(claimed_band=[0.02, 0.04]), across=("data",))
    large, open_ = (
        verdicts.judged(claim, sample(some)) for some in ([0.1, 0.11, 0.1, 0.09], [0.03, -0.03, 0.02, -0.02])
    )
    found = verdicts.combined(claim, [open_, large], (0, 1, 2, 3), {})
    assert found.verdict == NOT_SUPPORTED and verdicts.deciding(claim, found).estimate == pytest.approx(0.1)


def test_the_extreme_of_a_run_that_diverged_is_at_least_what_was_seen():
    made = frame({"sgd": [0.5] * 6, "adam": [0.5] * 6})
    made = made.assign(update_ratio_q999=np.where(made["optimizer"] == "adam", 0.05, 0.2))
    made.loc[made["optimizer"] == "sgd", "status"] = "diverged"
    claim = read(estimand="ratio", measure="update_ratio_q999", direction="below", margin=0.8)
    [found] = verdicts.verdict(study(claim, {"optimizer": ("sgd", "adam")}, 6), Evidence(made), 2).contexts
    assert found.direction == SUPPORTED and "6 of 6 seeds cut off as they diverged" in found.note
    made["update_ratio_q999"] = np.where(made["optimizer"] == "adam", 0.05, 0.02)  # what it came to is not known
    [found] = verdicts.verdict(study(claim, {"optimizer": ("sgd", "adam")}, 6), Evidence(made), 2).contexts
    assert found.direction == INCONCLUSIVE


def test_an_existential_claim_is_of_one_context_direction_and_magnitude_both():
    claim = replace(read(claimed_band=[0.0, 0.15]), kind="existential")
    spread = np.array([0.01, -0.01] * 3)
    small, large, worse = (verdicts.judged(claim, sample(centre + spread)) for centre in (0.1, 0.8, -0.2))
    found = verdicts.combined(claim, [large, small], (0,), {})
    assert (found.direction, found.magnitude, found.verdict) == (SUPPORTED,) * 3
    assert verdicts.deciding(claim, found).estimate == pytest.approx(0.1)
    assert verdicts.combined(claim, [large, worse], (0,), {}).magnitude == NOT_SUPPORTED
    assert verdicts.combined(replace(claim, kind="universal"), [large, small], (0,), {}).verdict == NOT_SUPPORTED
    wide = replace(claim, claimed_band=(-0.1, 0.15))
    none = verdicts.judged(wide, sample(spread))
    assert (none.direction, none.magnitude) == (INCONCLUSIVE, SUPPORTED)
    edge = verdicts.judged(wide, sample(spread - 0.1))
    assert (edge.direction, edge.magnitude) == (NOT_SUPPORTED, INCONCLUSIVE)
    said = [verdicts.combined(wide, [large, other], (0,), {}).verdict for other in (none, edge)]
    assert said == [INCONCLUSIVE, NOT_SUPPORTED]  # what is beyond the margin here is in the band nowhere


@pytest.mark.parametrize("contexts", [1, 5])
def test_chances_of_an_existential_claim_do_not_add_up(contexts):
    """Nothing is there, in any of the contexts: one is found as seldom as in a single one."""
    claim, rng = replace(read(), kind="existential"), np.random.default_rng(0)
    times = 600
    found = [
        verdicts.combined(claim, [verdicts.judged(claim, sample(x)) for x in rng.normal(size=(contexts, 6))], (), {})
        for _ in range(times)
    ]
    share = np.mean([each.verdict == SUPPORTED for each in found])
    assert abs(share - claim.alpha_look) < 3 * np.sqrt(claim.alpha_look / times)


def test_each_baseline_of_an_existential_claim_is_a_context():
    factors = {"data": ("digits",), "optimizer": ("sgd", "adam", "rmsprop")}
    claim = replace(read(factors=factors, against={"optimizer": ["sgd", "adam"]}), of={"optimizer": ["rmsprop"]})
    claim = replace(claim, across=("data",), kind="existential")
    rows = {"sgd": [0.5, 0.51, 0.52, 0.5], "adam": [0.9, 0.91, 0.9, 0.92], "rmsprop": [0.7, 0.72, 0.71, 0.7]}
    made = frame(rows).assign(data="digits")
    one, other = estimands.samples(claim, made, None, list(factors))
    assert (one.context, other.context) == ("digits against sgd", "digits against adam")
    assert one.numbers.mean() == pytest.approx(0.2) and other.numbers.mean() == pytest.approx(-0.2)
    asked = study(claim, factors, 4)
    design.check_arms(asked)
    with pytest.raises(StudyError, match="against: 2 arms match"):
        design.check_arms(replace(asked, claim=replace(claim, kind="universal")))
    again = frame({"sgd": [0.51, 0.5, 0.52, 0.51], "adam": [0.91, 0.9, 0.91, 0.91]}).assign(data="digits")
    found = verdicts.verdict(asked, Evidence(made, negative=again), 3)
    assert found.verdict == SUPPORTED and found.controls["negative"].count(",") == 1  # two arms, each against itself
    far = again.assign(val_accuracy=again["val_accuracy"].where(again["optimizer"] == "adam", 0.8))
    assert verdicts.verdict(asked, Evidence(made, negative=far), 3).controls["negative"].startswith("failed")


def test_the_estimands_are_what_they_are_called():
    rng = np.random.default_rng(0)
    base = rng.uniform(0.5, 0.6, 6)
    two = {"sgd": base, "adam": 1.2 * base}
    [found] = estimands.samples(read(factors={"optimizer": ("sgd", "adam")}), frame(two), None, ["optimizer"])
    assert found.numbers == pytest.approx(0.2 * base)
    ratio = read(factors={"optimizer": ("sgd", "adam")}, estimand="ratio")
    [found] = estimands.samples(ratio, frame(two), None, ["optimizer"])
    assert np.exp(found.numbers) == pytest.approx([1.2] * 6)

    deep = pd.concat(
        [
            frame({"sgd": base, "adam": base + gain * np.log2(d)}).assign(
                **{"model.depth": d}, key=lambda f, d=d: f["key"] + str(d)
            )
            for d, gain in ((2, 0.03), (8, 0.03))
        ]
    )
    factors = {"optimizer": ("sgd", "adam"), "model.depth": (2, 8)}
    slope = read(factors=factors, estimand="slope", along="model.depth")
    [found] = estimands.samples(slope, deep.reset_index(drop=True), None, list(factors))
    assert found.numbers == pytest.approx([0.03] * 6)

    spread = read(factors=factors, estimand="spread_ratio", along="model.depth")
    wide = deep.assign(val_accuracy=deep["val_accuracy"].where(deep["optimizer"] == "adam", base.tolist() * 4))
    wide.loc[(wide["optimizer"] == "sgd") & (wide["model.depth"] == 8), "val_accuracy"] += 0.12
    [found] = estimands.samples(spread, wide.reset_index(drop=True), None, list(factors))
    assert np.exp(found.numbers) == pytest.approx([0.5] * 6)


def test_the_largest_stable_rate_is_by_seed_and_bounded_at_the_last():
    factors = {"schedule.warmup": (0.0, 0.1), "rate": (1, 2, 4)}
    good = {
        (0.0, 1): [1, 1, 0],
        (0.0, 2): [1, 0, 1],
        (0.0, 4): [0, 0, 0],
        (0.1, 1): [1, 1, 1],
        (0.1, 2): [1, 1, 1],
        (0.1, 4): [0, 1, 0],
    }
    rows = [
        {
            "key": f"{warmup}{rate}{seed}",
            "status": "finished" if done else "diverged",
            "schedule.warmup": warmup,
            "rate": rate,
            "seed": seed,
        }
        for (warmup, rate), dones in good.items()
        for seed, done in enumerate(dones)
    ]
    claim = read(
        factors=factors,
        estimand="stable_ratio",
        measure="success",
        along="rate",
        of={"schedule.warmup": 0.1},
        against={"schedule.warmup": 0.0},
    )
    [found] = estimands.samples(claim, pd.DataFrame(rows), None, list(factors))
    assert np.exp(found.numbers) == pytest.approx([1, 4, 2])  # of none: at most the least
    assert found.bounds.tolist() == [0, 1, 1]


def test_times_to_a_target_are_cut_off_at_the_budget():
    trials = frame({"sgd": [0.9, 0.9], "adam": [0.9, 0.9]})
    curves = {"sgd": [0.1, 0.5, 0.9], "adam": [0.1, 0.9, 0.95]}
    epochs = pd.DataFrame(
        [
            {"key": key, "epoch": epoch, "val_accuracy": value, "examples": epoch, "seconds": 1.0}
            for key in trials["key"]
            for epoch, value in enumerate(curves[key.partition("-")[0]] if key != "sgd-1" else [0.1, 0.1, 0.1])
        ]
    )
    claim = read(factors={"optimizer": ("sgd", "adam")}, estimand="ratio", measure="time_to_target", target=0.5)
    [found] = estimands.samples(claim, trials.assign(epochs=2), epochs, ["optimizer"])
    assert found.bounds.tolist() == [0, -1]
    with pytest.raises(StudyError, match="no arm matches"):
        estimands.samples(claim, trials[trials["optimizer"] == "sgd"], epochs, ["optimizer"])


def test_of_several_arms_the_best_tuned_is_taken_by_tuning_seeds():
    factors = {"optimizer": ("sgd", "adam", "rmsprop")}
    claim = read(factors=factors, of={"optimizer": ["adam", "rmsprop"]}, best=True)
    trials = frame({"sgd": [0.5, 0.5], "adam": [0.6, 0.6], "rmsprop": [0.9, 0.9]})
    tuned = pd.DataFrame({"optimizer": ["sgd", "adam", "rmsprop"], "value": [0.5, 0.8, 0.7]})
    [found] = estimands.samples(claim, trials, None, ["optimizer"], tuned)
    assert found.numbers == pytest.approx([0.1, 0.1])  # adam, whatever the evaluation says of rmsprop
    with pytest.raises(StudyError, match="2 arms match"):
        estimands.samples(replace(claim, best=False), trials, None, ["optimizer"], tuned)


def test_missing_trials_are_no_verdict():
    claim, factors = read(factors={"optimizer": ("sgd", "adam")}), {"optimizer": ("sgd", "adam")}
    whole = frame({"sgd": [0.5] * 6, "adam": [0.61, 0.62, 0.6, 0.63, 0.6, 0.61]})
    asked = study(claim, factors, 6)
    assert verdicts.verdict(asked, Evidence(whole), 2).verdict == SUPPORTED
    for broken, words in [
        (whole.iloc[1:], "1 of its trials are missing"),
        (whole.assign(status=["crashed", *["finished"] * 11]), "1 of its trials crashed"),
        (whole[whole["seed"] < 3], "3 of 6 seeds"),
    ]:
        found = verdicts.verdict(asked, Evidence(broken), 2)
        assert found.verdict == INVALID and words in found.because and not found.contexts
    found = verdicts.verdict(asked, Evidence(whole), 2, {"negative": 3})
    assert found.verdict == INVALID and "negative" in found.because


def test_a_look_decides_and_later_seeds_change_nothing():
    factors, rng = {"optimizer": ("sgd", "adam")}, np.random.default_rng(1)
    asked = study(read(factors=factors), factors, 12, (6, 12))
    base = rng.normal(0.5, 0.01, 12)
    gain = np.array([0.1] * 6 + [-0.2] * 6) + rng.normal(0, 0.01, 12)
    whole = frame({"sgd": base, "adam": base + gain})
    found = verdicts.verdict(asked, Evidence(whole), 2)
    assert (found.verdict, found.look, found.seeds) == (SUPPORTED, 6, tuple(range(6)))
    assert verdicts.verdict(asked, Evidence(whole[whole["seed"] < 6]), 2).contexts == found.contexts


def test_controls_must_find_the_broken_arm_and_no_difference_of_an_arm_to_itself():
    factors, rng = {"optimizer": ("sgd", "adam")}, np.random.default_rng(2)
    asked = study(read(factors=factors), factors, 6)
    base = rng.normal(0.5, 0.01, 6)
    whole = frame({"sgd": base, "adam": base + 0.1 + rng.normal(0, 0.005, 6)})
    broken, fine = frame({"adam": [0.1] * 6}), frame({"adam": (base + 0.1).tolist()})
    again, other = frame({"sgd": base + rng.normal(0, 0.01, 6)}), frame({"sgd": base + 0.3 + rng.normal(0, 0.01, 6)})
    good = verdicts.verdict(asked, Evidence(whole, positive=broken, negative=again), 2)
    assert good.verdict == SUPPORTED and all(each.startswith("passed") for each in good.controls.values())
    for evidence in (Evidence(whole, positive=fine), Evidence(whole, negative=other)):
        found = verdicts.verdict(asked, evidence, 2)
        assert found.verdict == INCONCLUSIVE and "control failed" in found.because
        assert found.decided  # no seed can mend it


def test_a_broken_arm_must_be_found_in_every_context():
    """A wide gap on one dataset says nothing of another."""
    factors = {"data": ("digits", "mnist"), "optimizer": ("sgd", "adam")}
    asked = study(replace(read(factors=factors), across=("data",)), factors, 6)
    good = frame({"sgd": [0.5 + 0.01 * seed for seed in range(6)], "adam": [0.7 + 0.012 * seed for seed in range(6)]})
    whole = pd.concat([good.assign(data=name, key=name + good["key"]) for name in factors["data"]], ignore_index=True)
    broken, fine = frame({"adam": [0.1] * 6}), frame({"adam": [0.7 + 0.012 * seed for seed in range(6)]})

    def outcome(on_mnist):
        control = pd.concat([broken.assign(data="digits"), on_mnist.assign(data="mnist")], ignore_index=True)
        return verdicts.verdict(asked, Evidence(whole, positive=control), 4).controls["positive"]

    assert outcome(broken).startswith("passed: the broken arm's validation accuracy is 0.6")
    assert outcome(fine).startswith("failed: the broken arm's validation accuracy is 0.000 worse over 6 seeds at mnist")


def test_a_broken_arm_that_fails_scores_what_is_worst_in_its_own_context():
    factors = {"data": ("digits", "mnist"), "optimizer": ("sgd", "adam")}
    claim = replace(read(factors=factors, metric="val_loss"), across=("data",))
    own = frame({"adam": [0.9] * 6}).assign(val_loss=3.0)  # beyond a guess's
    broken = own.assign(val_loss=np.nan, status="diverged")
    trials = pd.concat([own.assign(data="mnist"), own.assign(data="digits", val_loss=5.0)], ignore_index=True)
    control = pd.concat([broken.assign(data="mnist"), own.assign(data="digits", val_loss=50.0)], ignore_index=True)
    said, worse = verdicts._worse(claim, trials, control)
    assert "loss is 0.000 worse over 6 seeds at mnist" in said and not worse


def test_equal_arms_are_told_apart_as_seldom_as_the_looks_allow():
    """.049 in either direction; by 1,000 studies in `make validate`."""
    found = claimed(0.0, np.random.default_rng(3), 200)
    assert found.get(SUPPORTED, 0) < 0.1 and found.get(NOT_SUPPORTED, 0) < 0.12
    assert claimed(1.0, np.random.default_rng(4), 80)[SUPPORTED] > 0.95


def test_the_controls_trials_are_of_the_arms_they_are_about():
    factors = {"optimizer": ("sgd", "adam"), "model.depth": (2, 8)}
    claim = replace(read(factors=factors), across=("model.depth",), positive={"optimizer.learning_rate": 1e-5})
    asked = replace(study(claim, factors, 6, (3, 6)), nuisance={"optimizer.learning_rate": (0.1, 0.01)})
    expanded = []

    def expand(part, chosen):
        expanded.append((part, chosen))
        return [Trial("k", "s", "scientific", {}, 0, {}, (), "")]

    chosen = [{"optimizer.learning_rate": n / 10} for n in range(4)]
    found = controls(asked, expand, chosen)
    (positive, at), (negative, other) = expanded
    assert {trial.role for some in found.values() for trial in some} == {"control"}
    assert positive.seeds == (0, 1, 2) and negative.seeds == (500, 501, 502)
    assert at == [{}, {}] and positive.nuisance == {}
    assert positive.settings == ({"when": {}, "set": {"optimizer.learning_rate": 1e-5}},)
    assert other == [chosen[0], chosen[1]] and [rule["optimizer"] for rule in negative.only] == [["sgd"], ["sgd"]]
    controls(asked, expand, None)  # as many, before anything is tuned, which some of these arms may not have
    assert [(part.seeds, part.nuisance, at) for part, at in expanded[2:]] == [
        (part.seeds, {}, None) for part in (positive, negative)
    ]
    controls(replace(asked, seeds=tuple(range(12)), looks=(6, 12)), expand, chosen)  # no more than it takes
    assert [part.seeds for part, _ in expanded[4:]] == [(0, 1, 2, 3, 4), (500, 501, 502, 503, 504)]


def test_a_record_is_json_whatever_is_missing_and_the_board_has_a_row_for_it():
    factors = {"optimizer": ("sgd", "adam")}
    asked = study(read(factors=factors), factors, 6)
    whole = frame({"sgd": [0.5] * 6, "adam": [0.61, 0.62, 0.6, 0.63, 0.6, 0.61]}).assign(role="scientific")
    records = []
    for some in (whole, whole.iloc[1:]):
        found = verdicts.verdict(asked, Evidence(some), 2)
        records.append(claims.record(asked, found, Evidence(some), {"mlflow.source.git.commit": "abc"}))
        assert board.said(asked, found)[0].startswith(found.verdict.upper())
    json.dumps(records, allow_nan=False)
    assert [record["verdict"] for record in records] == [SUPPORTED, INVALID]
    assert records[0]["estimate"] == pytest.approx(0.1116667) and records[1]["estimate"] is None
    assert "missing" in records[1]["invalid_because"]
    [context] = records[0]["contexts"]
    assert [(seed, bound) for seed, _, bound in context["numbers"]] == [(seed, 0) for seed in range(6)]
    assert np.mean([number for _, number, _ in context["numbers"]]) == pytest.approx(context["estimate"])
    values = {run["key"]: run["value"] for run in records[0]["runs"]}
    assert (
        values == dict(zip(whole["key"], whole["val_accuracy"], strict=True)) and not records[0]["runs"][0]["censored"]
    )
    assert {run["value"] for run in records[1]["runs"]} == {None}
    asked_for = "name quote kind scope estimand estimate low high direction magnitude verdict seeds trials failures "
    asked_for += "controls prediction card commit when seconds invalid_because"
    assert set(asked_for.split()) <= records[0].keys()
    for format in board.FORMATS:
        assert "adam" in board.board(records, format)


def test_every_claim_that_ships_is_on_the_board_before_it_has_run(fresh, tmp_path):
    shutil.copy(fresh / "mlflow.db", tmp_path)
    Store(tmp_path, "without an execution")
    assert load.studies(tmp_path) == ["without an execution"]
    rows = claims.rows(tmp_path)
    assert {row["name"] for row in rows} == {file.stem for file in cards.SHIPPED.glob("*.yaml")}
    assert all(row["verdict"] == "not run" for row in rows)
    places = [row["number"] for row in rows]
    assert places == sorted(places) and rows[0]["name"] == "weights_dominate"


def test_a_look_knows_nothing_of_later_seeds():
    """The worst that finished, which a failure scores, and the best level of all are those of the look's own seeds."""
    factors = {"optimizer": ("sgd", "adam")}
    asked = study(read(factors=factors), factors, 12, (6, 12))
    whole = frame({"sgd": [np.nan] * 12, "adam": [0.56, 0.58, 0.53, 0.57, 0.56, 0.51, *[0.01] * 6]})
    whole.loc[whole["optimizer"] == "sgd", "status"] = "diverged"
    early = verdicts.verdict(asked, Evidence(whole[whole["seed"] < 6]), 2)
    assert early.verdict == SUPPORTED and early.contexts[0].estimate == pytest.approx(0.4517, abs=1e-3)  # chance is .1
    assert verdicts.verdict(asked, Evidence(whole), 2).contexts == early.contexts


def test_the_better_end_is_known_where_it_was_reached():
    one = read(measure="time_to_target", target=0.5)
    claim = replace(one, estimand="ends_ratio", of={}, against={}, along="rate")
    trials = frame({0.1: [0.9, 0.9], 1.0: [0.9, 0.9], 10.0: [0.1, 0.1]}, factor="rate")
    reached = {"0.1-0": 3, "0.1-1": 99, "1.0-0": 1, "1.0-1": 1}  # the first epoch at the target
    rows = [(key, epoch, 0.9 if epoch >= reached.get(key, 99) else 0.1) for key in trials["key"] for epoch in range(11)]
    epochs = pd.DataFrame(rows, columns=["key", "epoch", "val_accuracy"])
    [found] = estimands.samples(claim, trials, epochs, ["rate"])
    assert found.bounds.tolist() == [0, 1]
    numbers = verdicts.judged(replace(claim, margin=2.0), found).numbers  # ratios, not their logarithms
    assert [number for _, number, _ in numbers] == pytest.approx(np.exp(found.numbers)) and numbers[1][2] == 1


def test_a_spread_is_not_taken_of_the_levels_that_are_left():
    factors = {"optimizer": ("sgd", "adam"), "rate": (1, 2, 3)}
    claim = read(factors=factors, estimand="spread_ratio", measure="accuracy_gap", along="rate")
    parts = [frame({"sgd": [0.5 + r / 10] * 2, "adam": [0.5 + r / 20] * 2}).assign(rate=r) for r in (1, 2, 3)]
    trials = pd.concat(parts, ignore_index=True).assign(train_accuracy=1.0)
    trials.loc[(trials["optimizer"] == "adam") & (trials["rate"] == 3) & (trials["seed"] == 1), "val_accuracy"] = np.nan
    [found] = estimands.samples(claim, trials, None, list(factors))
    assert np.exp(found.numbers[0]) == pytest.approx(0.5) and np.isnan(found.bounds).tolist() == [False, True]


def test_of_losses_the_least_tuned_is_the_best():
    factors = {"optimizer": ("sgd", "adam", "rmsprop")}
    claim = read(factors=factors, of={"optimizer": ["adam", "rmsprop"]}, best=True)
    asked = replace(study(claim, factors, 6), metric="val_loss")
    trials = frame({"sgd": [0.5] * 6, "adam": [0.4] * 6, "rmsprop": [0.9] * 6})
    tuned = pd.DataFrame({"optimizer": ["sgd", "adam", "rmsprop"], "value": [0.9, 0.8, 0.2]})
    assert verdicts.verdict(asked, Evidence(trials, tuned=tuned), 3).verdict == SUPPORTED  # by rmsprop


@pytest.mark.parametrize("name", ["positive", "negative"])
def test_a_control_that_crashed_is_no_verdict(name):
    factors = {"optimizer": ("sgd", "adam")}
    whole = frame({"sgd": [0.5] * 6, "adam": [0.61, 0.62, 0.6, 0.63, 0.6, 0.61]})
    control = frame({"adam" if name == "positive" else "sgd": [0.1, 0.11, 0.1, 0.12, 0.1, 0.1]})
    control.loc[0, ["status", "val_accuracy"]] = ["crashed", np.nan]
    found = verdicts.verdict(study(read(factors=factors), factors, 6), Evidence(whole, **{name: control}), 2)
    assert found.verdict == INVALID and f"{name} control" in found.because
    record = claims.record(study(read(factors=factors), factors, 6), found, Evidence(whole.assign(role="?")), {})
    assert record["saved"] == 0


def test_an_arm_against_itself_is_found_to_differ_as_seldom_over_many_contexts():
    factors = {"optimizer": ("sgd", "adam"), "model.depth": tuple(range(8))}
    asked = study(replace(read(factors=factors), across=("model.depth",)), factors, 6)
    ahead, even = np.array([0.01, 0.03, 0.02, 0.03, 0.005, 0.02]), np.array([0.01, -0.01] * 3)  # p .003 and .5
    arms, rows, again = {"sgd": [0.5] * 6, "adam": [0.6, 0.61, 0.62, 0.6, 0.61, 0.63]}, [], []
    for depth in range(8):
        rows.append(frame(arms).assign(**{"model.depth": depth}))
        again.append(frame({"sgd": 0.5 + (even if depth else ahead)}).assign(**{"model.depth": depth}))
    whole, other = (
        pd.concat(some, ignore_index=True).assign(key=range(6 * 8 * n)) for n, some in ((2, rows), (1, again))
    )
    alone = replace(asked, factors=factors | {"model.depth": (0,)})
    first = Evidence(whole[whole["model.depth"] == 0], negative=other[other["model.depth"] == 0])
    assert verdicts.verdict(alone, first, 2).controls["negative"].startswith("failed")
    assert verdicts.verdict(asked, Evidence(whole, negative=other), 16).verdict == SUPPORTED


def test_a_contradiction_that_holms_rule_leaves_open_is_nowhere_called_one():
    claim = replace(read(), across=("data",))
    good, bad = [0.02, 0.03, 0.025, 0.03], [-0.02, -0.05, -0.03, -0.06]
    judged = [verdicts.judged(claim, sample(some)) for some in (bad, good, good)]
    assert judged[0].direction == NOT_SUPPORTED
    found = verdicts.combined(claim, judged, (0, 1, 2, 3), {})
    assert found.verdict == INCONCLUSIVE and found.contexts[0].direction == INCONCLUSIVE


def test_what_lies_on_the_margin_but_for_rounding_is_on_neither_side():
    factors = {"optimizer": ("sgd", "adam")}
    counts = np.array([331, 347, 303, 352, 308, 344])  # of 360, of which adam gets one more right each time
    sgd, adam = (np.float32(some / 360).astype(float).tolist() for some in (counts, counts + 1))
    [found] = estimands.samples(read(factors=factors), frame({"sgd": sgd, "adam": adam}), None, ["optimizer"])
    assert 0 < np.ptp(found.numbers) < 1e-7
    assert verdicts.judged(read(margin=1 / 360), found).direction == INCONCLUSIVE
    assert "alike" in verdicts.judged(read(margin=1 / 360), found).note
    assert verdicts.judged(read(margin=0.001), found).direction == SUPPORTED
    three = replace(found, seeds=found.seeds[:3], numbers=found.numbers[:3], bounds=found.bounds[:3])
    assert verdicts.judged(read(margin=0.0), three).direction == INCONCLUSIVE  # 1/8


def test_successes_are_compared_by_the_sign_test():
    claim = replace(read(), measure="success")
    assert verdicts.judged(claim, sample([1, 1, 1, 1, 0, 0])).direction == INCONCLUSIVE  # Student's p is .0125
    assert verdicts.judged(claim, sample([1, 1, 1, 1, 1, 1])).direction == SUPPORTED


def test_success_has_a_target_for_each_level_and_nothing_is_gained_by_ending_early():
    two = [frame({"sgd": [0.6], "adam": [0.6]}).assign(data=name) for name in ("digits", "mnist")]
    trials = pd.concat(two, ignore_index=True)
    claim = replace(read(), measure="success", target={"digits": 0.5, "mnist": 0.7}, across=("data",))
    assert estimands._measured(claim, trials, None)["value"].tolist() == [1, 1, 0, 0]
    zero = replace(claim, target=0.0, metric="val_loss")
    assert estimands._measured(zero, trials.assign(val_loss=0.1), None)["value"].tolist() == [0] * 4
    fast = trials.assign(seconds_total=[9.0, 1.0, 9.0, 8.0], status=["finished", "diverged", "finished", "finished"])
    values = estimands._measured(replace(read(), measure="seconds_total"), fast, None)["value"]
    assert values.tolist() == [9, 9, 9, 8]  # the worst that finished


def test_the_band_is_judged_at_the_error_of_a_look():
    claim = read(estimand="ratio", direction="below", margin=0.95, claimed_band=[0.6, 0.8])
    numbers = np.log(0.7) + np.array([-0.1, 0.1, -0.1, 0.1, -0.1, 0.1])
    assert verdicts.judged(claim, sample(numbers)).magnitude == SUPPORTED
    assert verdicts.judged(replace(claim, alpha_look=0.015), sample(numbers)).magnitude == INCONCLUSIVE


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "of: 4 arms match"),
        ({"across": ("data",)}, "of: 2 arms match"),
        ({"across": ("data", "model.depth")}, ""),
        ({"best": True}, "tunes its arms"),
        ({"across": ("data", "model.depth"), "negative": 3}, "share 3, 4, 5"),
        ({"across": ("data", "model.depth"), "negative": 100}, "share 100, 101"),
    ],
)
def test_rules_that_do_not_mean_one_arm_are_refused_before_anything_trains(change, words):
    asked = replace(study(replace(read(), **change), FACTORS, 6), tuning_seeds=(100, 101))
    if not words:
        design.check_arms(asked)
        asked, words = replace(asked, skip=({"data": ["mnist"], "optimizer": ["adam"]},)), "of: 0 arms match"
    with pytest.raises(StudyError, match=words):
        design.check_arms(asked)


def test_the_card_is_another_when_what_trials_have_besides_is(config):
    words = ("+study=claims/he_for_relu",)
    cards = [read_study(config([*words, *more])).card for more in ([], ["training.epochs=40"], ["model.width=32"])]
    assert len(set(cards)) == 3 and all(cards)
    for same in ("engine.threads=2", "study.question=Why?"):
        assert read_study(config([*words, same])).card == cards[0]
    data = ["+study=claims/l2_overfitting"]
    assert read_study(config([*data, "data.root=here"])).card == read_study(config([*data, "data.root=there"])).card


@pytest.mark.parametrize("name", ["adam_saves_time", "lr_extremes", "init_matters"])
def test_a_trial_of_a_claim_can_be_composed_alone(config, name):
    words = [f"+study=claims/{name}", *UNCLAIMED, "seed=3"]
    factors = read_study(config(words[:1])).factors
    words += [f"{factor}={levels[0]}" for factor, levels in factors.items()]
    alone = read_study(config(words), {word.partition("=")[0] for word in words})
    assert alone.claim is None and alone.seeds == (3,) and not alone.factors


def test_the_board_has_the_latest_verdict_of_a_claim_whatever_its_study_is_called(monkeypatch, tmp_path):
    kept = {"a": ("supported", 2), "b": ("supported", 1), "c": ("invalid", 3)}
    execution = SimpleNamespace(tags={Tag.VERDICT: SUPPORTED})
    monkeypatch.setattr(claims.load, "studies", lambda root: list(kept))
    monkeypatch.setattr(claims.load, "executions", lambda name, root: [execution])
    cards = [
        {"name": "adam", "profile": "quick", "study": n, "verdict": v, "when": f"{w}"} for n, (v, w) in kept.items()
    ]
    texts = iter([json.dumps(card) for card in cards])
    monkeypatch.setattr(claims.load, "text", lambda *_: next(texts))
    [row] = [row for row in claims.rows(tmp_path) if row["name"] == "adam"]
    assert row["study"] == "a"


@pytest.mark.parametrize("more", [{}, {"direction": "within"}])
def test_a_band_is_contradicted_by_holms_rule_too(more):
    claim = replace(read(claimed_band=[0.0, 0.04], **more), across=("data",))
    beyond, inside = (sample(centre + np.array([0.01, -0.01] * 3)) for centre in (0.0533, 0.02))  # p .015 alone
    one, other = verdicts.judged(claim, beyond), verdicts.judged(claim, inside)
    assert (one.magnitude, other.magnitude) == (NOT_SUPPORTED, SUPPORTED) and 0.0105 < one.p_outside < 0.021
    alone = verdicts.combined(claim, [one], (0,), {})
    assert alone.verdict == NOT_SUPPORTED
    assert alone.contexts == [one]
    assert verdicts.combined(claim, [one, other], (0,), {}).verdict == INCONCLUSIVE
    assert verdicts.combined(claim, [one, one], (0,), {}).verdict == INCONCLUSIVE


def gaps(of, against, accuracies):
    """Trials of two arms with such generalization gaps, and of validation accuracies."""
    made = frame(
        {"sgd": [accuracies[1]] * 6, "adam": np.add(accuracies[0], [0.001, 0, -0.001, 0, 0.001, -0.001]).tolist()}
    )
    gap = np.where(made["optimizer"] == "adam", of, against) + np.tile([0.001, -0.001, 0.002], 4)
    return made.assign(train_accuracy=made["val_accuracy"] + gap)


@pytest.mark.parametrize(
    ("accuracies", "direction"),
    [((0.9, 0.9), SUPPORTED), ((0.899, 0.9), SUPPORTED), ((0.7, 0.9), NOT_SUPPORTED), ((0.895, 0.9), INCONCLUSIVE)],
)
def test_an_effect_that_is_bought_with_accuracy_is_none(accuracies, direction):
    claim = read(
        factors={"optimizer": ("sgd", "adam")},
        estimand="ratio",
        measure="accuracy_gap",
        direction="below",
        margin=0.95,
        guard=0.005,
    )
    [found] = estimands.samples(claim, gaps(0.05, 0.1, accuracies), None, ["optimizer"])
    said = verdicts.judged(claim, found)
    assert said.direction == direction and (direction == SUPPORTED) == ("accuracy" not in said.note)
    assert verdicts.judged(replace(claim, guard=None), found).direction == SUPPORTED


def test_what_is_paid_alike_at_every_seed_is_judged_by_signs():
    """No spread is no certainty: of two seeds nothing is known, and a guard that is met to the bit is not exceeded."""
    factors = {"optimizer": ("sgd", "adam")}
    claim = read(factors=factors, guard=0.005, measure="train_accuracy", direction="above")

    def said(paid, seeds):
        made = frame({"sgd": [0.9] * seeds, "adam": [0.9 - paid] * seeds})
        gained = made.assign(train_accuracy=(made["optimizer"] == "adam") * (0.1 + 0.001 * made["seed"]))
        [found] = estimands.samples(claim, gained, None, ["optimizer"])
        return verdicts.judged(claim, found)

    assert [said(0.0, seeds).direction for seeds in (3, 6)] == [INCONCLUSIVE, SUPPORTED]
    assert said(0.0, 3).p_for == 1 / 8
    assert said(0.1, 6).direction == NOT_SUPPORTED
    assert said(np.float64(np.float32(0.9) - np.float32(0.895)), 6).direction == INCONCLUSIVE


def test_signs_are_said_to_be_signs():
    """Differences all alike have no interval beyond the margin."""
    claim = read(factors={"optimizer": ("sgd", "adam")})
    [found] = estimands.samples(claim, frame({"sgd": [0.5] * 4, "adam": [0.51] * 4}), None, ["optimizer"])
    said = verdicts.judged(claim, found)
    assert said.by_signs and said.direction == INCONCLUSIVE and said.note.startswith("all differences alike")


def test_no_gap_at_all_is_below_any_share_of_one():
    claim = read(
        factors={"optimizer": ("sgd", "adam")}, estimand="ratio", measure="accuracy_gap", direction="below", margin=0.95
    )
    [found] = estimands.samples(claim, gaps(-0.05, 0.1, (0.9, 0.9)), None, ["optimizer"])
    assert found.bounds.tolist() == [-1] * 6 and verdicts.judged(claim, found).direction == SUPPORTED
    [found] = estimands.samples(claim, gaps(0.05, -0.1, (0.9, 0.9)), None, ["optimizer"])
    assert np.isnan(found.bounds).all() and verdicts.judged(claim, found).direction == INCONCLUSIVE


def test_a_broken_arm_that_bears_the_claim_out_fails_the_control():
    factors = {"optimizer": ("sgd", "adam")}
    claim = read(factors=factors, estimand="ratio", measure="accuracy_gap", direction="below", margin=0.95)
    broken = gaps(0.0, 0.1, (0.1, 0.9)).query("optimizer == 'adam'").reset_index(drop=True)
    evidence = Evidence(gaps(0.05, 0.1, (0.9, 0.9)), positive=broken)
    found = verdicts.verdict(study(claim, factors, 6), evidence, 2)
    assert found.verdict == INCONCLUSIVE and "bears the claim out" in found.because
    guarded = verdicts.verdict(study(replace(claim, guard=0.005), factors, 6), evidence, 2)
    assert guarded.verdict == SUPPORTED and guarded.controls["positive"].startswith("passed")


@pytest.mark.parametrize(("levels", "ratio"), [((0.01, 0.1, 1.0, 10.0), 3.0), ((0.1, 1.0, 2.0), None)])
def test_sides_are_a_decade_from_the_best_of_the_other_seeds(levels, ratio):
    times = {0.01: 9, 0.1: 6, 1.0: 2, 2.0: 4, 10.0: 8}
    rows = [
        {
            "key": f"{rate}{seed}",
            "status": "finished",
            "rate": rate,
            "seed": seed,
            "seconds_total": times[rate] * (1 + seed / 10),
        }
        for rate in levels
        for seed in range(3)
    ]
    claim = replace(read(), estimand="ends_ratio", measure="seconds_total", along="rate", margin=2.0, of={}, against={})
    [found] = estimands.samples(claim, pd.DataFrame(rows), None, ["rate"])
    known = np.exp(found.numbers).tolist() if ratio else np.isnan(found.bounds).all()
    assert known == (pytest.approx([ratio] * 3) if ratio else True)


def test_a_failure_on_one_dataset_scores_nothing_of_another():
    factors = {"data": ("hard", "easy"), "optimizer": ("sgd", "adam")}
    claim = replace(read(factors=factors), across=("data",))
    hard, easy = ({"sgd": [low] * 3, "adam": [low] * 3} for low in (0.05, 0.9))
    made = pd.concat([frame(hard).assign(data="hard"), frame(easy).assign(data="easy")], ignore_index=True)
    made.loc[(made["data"] == "easy") & (made["optimizer"] == "adam"), ["status", "val_accuracy"]] = [
        "diverged",
        np.nan,
    ]
    found = {sample.context: sample.numbers for sample in estimands.samples(claim, made, None, list(factors))}
    assert found["easy"] == pytest.approx([0.1 - 0.9] * 3)  # chance, not the .05 of the other dataset
