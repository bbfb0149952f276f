"""The cards of the computed claims: a positive control is found to violate its statement, a negative one is not."""

import numpy as np
import pytest
import yaml

from studies.command import compose
from studies.command.compose import CONF
from studies.design import grid
from studies.design.study import read_study

STUDIES = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((CONF / "study" / "claims").glob("*.yaml"))}
CARDS = {name: study["claim"] for name, study in STUDIES.items() if "compute" in study}
KINDS = ("definitional", "arithmetic", "existential", "universal", "quantitative")
REFUTED = ("gpt3_months", "resnet_uses_he", "pruning_real_time")
"""What a base arm of theirs measures is no evidence for the statement."""

SLOW = ("weights_dominate",)
"""Base arms that take seconds, whose numbers other tests have."""


def holds(hypothesis, value):
    low, high = hypothesis.get("claimed_band") or (None, None)
    return {
        "above": lambda: value > hypothesis.get("margin"),
        "below": lambda: value < hypothesis.get("margin"),
        "within": lambda: low <= value <= high,
    }[hypothesis["direction"]]()


@pytest.fixture(scope="module")
def measured(tf):
    """A function from a claim and settings to what its measure is then, at each of the seeds."""
    from studies.compute.trial import ready

    def values(name, settings):
        node, seeds = dict(STUDIES[name]["compute"]), settings.get("study.seeds", [0])
        node |= {path.removeprefix("compute."): v for path, v in settings.items() if path.startswith("compute.")}
        return [ready(node, [], np.random.default_rng(s))()[CARDS[name]["hypothesis"]["measure"]] for s in seeds]

    return values


@pytest.mark.parametrize("name", CARDS)
def test_a_card_says_what_would_decide_it(name):
    card = CARDS[name]
    hypothesis = card["hypothesis"]
    assert card["id"] == name and card["kind"] in KINDS and hypothesis["estimand"] in ("value", "mean")
    assert (hypothesis.get("margin") is None) == (hypothesis["direction"] == "within")
    assert hypothesis["measure"] == STUDIES[name]["study"]["metric"] and hypothesis["why_margin"]
    assert card["prediction"].keys() == {"value", "source"}


@pytest.mark.parametrize("name", CARDS)
def test_a_positive_control_is_found_to_violate_the_statement(measured, name):
    hypothesis, control = CARDS[name]["hypothesis"], CARDS[name]["controls"]["positive"]
    assert not any(holds(hypothesis, value) for value in measured(name, control))


@pytest.mark.parametrize("name", [name for name in CARDS if CARDS[name]["controls"].get("negative")])
def test_a_negative_control_is_found_to_hold(measured, name):
    hypothesis, control = CARDS[name]["hypothesis"], CARDS[name]["controls"]["negative"]
    assert all(holds(hypothesis, value) for value in measured(name, control))


@pytest.mark.parametrize("name", [name for name in CARDS if name not in (*REFUTED, *SLOW)])
def test_what_is_claimed_holds_of_the_base(measured, name):
    assert all(holds(CARDS[name]["hypothesis"], value) for value in measured(name, {}))


@pytest.mark.parametrize("name", CARDS)
def test_every_arm_has_inputs_that_its_function_takes(config, tf, name):
    from studies.compute.trial import check

    overrides = [f"+study=claims/{name}"]
    base = config(overrides)
    trials = grid.expand(read_study(base), base, {}, overrides, config, compose.settle, exact=False)
    assert [reason for trial in trials for reason in check(trial.config)] == []
