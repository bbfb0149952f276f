"""What it would take to decide what is open: by the effect that was seen, or why no number of seeds would."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from test_claims import frame, read, study

from analysis.estimate import verdicts
from analysis.estimate.outlook import _of_claim, outlook, sign_seeds
from analysis.estimate.verdicts import INCONCLUSIVE, Evidence

FACTORS = {"optimizer": ("sgd", "adam")}
PATTERN = np.array([1, -1, 1, -1, 1, -1]) * np.sqrt(5 / 6)  # of sd 1 and mean 0
ALPHA = 0.021


def open_(gains, across=(), **hypothesis):
    """The outlook of a claim by differences of two arms, of each context so many, and its study."""
    claim = read(factors=FACTORS, **hypothesis)
    factors = FACTORS | ({"data": tuple(gains)} if across else {})
    parts = [
        frame({"sgd": [0.5] * len(some), "adam": 0.5 + np.asarray(some)}).assign(data=name)
        for name, some in gains.items()
    ]
    whole = pd.concat(parts, ignore_index=True).assign(key=lambda every: range(len(every)))
    asked = study(replace(claim, across=across), factors, len(next(iter(gains.values()))))
    found = verdicts.verdict(asked, Evidence(whole), 2 * len(gains))
    assert found.verdict == INCONCLUSIVE
    return outlook(asked, Evidence(whole), found)


def power(effect, seeds, alpha=ALPHA):
    from statsmodels.stats.power import TTestPower

    return TTestPower().power(effect, seeds, alpha, alternative="larger")


@pytest.mark.parametrize("side", [1, -1])
def test_the_seeds_are_those_that_would_find_the_effect_seen(side):
    found = open_({"d": 0.002 + side * 0.003 + 0.01 * PATTERN}, margin=0.002)
    assert power(0.3, found.needed) >= 0.8 > power(0.3, found.needed - 1)
    assert found.because.endswith(f"about {found.needed} seeds would decide it (80 % power at the effect seen)")


def test_of_several_contexts_the_last_counts_unless_one_contradicts():
    last = open_({"a": 0.004 + 0.01 * PATTERN, "b": 0.003 + 0.01 * PATTERN}, ("data",))
    assert power(0.3, last.needed) >= 0.8 > power(0.3, last.needed - 1)
    lone = open_({name: m + 0.01 * PATTERN for name, m in (("a", 0.002), ("b", -0.005), ("c", -0.003))}, ("data",))
    assert power(0.5, lone.needed, ALPHA / 3) >= 0.8 > power(0.5, lone.needed - 1, ALPHA / 3)  # after Holm's rule


def test_no_number_of_seeds_decides_what_is_on_the_margin():
    found = open_({"d": 0.01 * PATTERN})
    assert found.needed is None and "no number of seeds will do" in found.because
    alike = open_({"d": np.zeros(6)})
    assert alike.needed is None and "no number of seeds will do" in alike.because


def test_very_many_seeds_are_said_to_be_so():
    found = open_({"d": 0.0005 + 0.01 * PATTERN})
    assert found.needed > 1000 and "more than 1,000 seeds" in found.because


def test_a_failed_control_is_not_mended_by_seeds():
    whole, again = frame({"sgd": [0.5] * 6, "adam": 0.51 + 0.001 * PATTERN}), frame({"sgd": 0.7 + 0.001 * PATTERN})
    asked, evidence = study(read(factors=FACTORS), FACTORS, 6), Evidence(whole, negative=again)
    found = outlook(asked, evidence, verdicts.verdict(asked, evidence, 2))
    assert found.needed is None
    assert "the negative control failed" in found.because and "more seeds do not mend a control" in found.because


@pytest.mark.parametrize(("centre", "effect"), [(0.055, 0.5), (-0.004, 0.4)])
def test_how_large_it_is_needs_seeds_too(centre, effect):
    near = open_({"d": centre + 0.01 * PATTERN}, direction="within", claimed_band=[0.0, 0.06])
    assert power(effect, near.needed) >= 0.8 > power(effect, near.needed - 1)
    narrow = open_({"d": 0.005 + 0.01 * PATTERN}, direction="within", claimed_band=[0.0, 0.01])
    assert 2 * power(0.5, narrow.needed) - 1 >= 0.8 > 2 * power(0.5, narrow.needed - 1) - 1  # at both ends


def test_an_accuracy_that_may_be_paid_needs_seeds_too():
    factors = FACTORS
    claim = read(factors=factors, measure="accuracy_gap", direction="below", guard=0.005)
    made = frame({"sgd": [0.9] * 6, "adam": 0.9 + 0.01 * PATTERN})
    gap = np.where(made["optimizer"] == "adam", 0.05, 0.1) + 0.001 * np.tile(PATTERN, 2)
    evidence = Evidence(made.assign(train_accuracy=made["val_accuracy"] + gap))
    asked = study(claim, factors, 6)
    found = outlook(asked, evidence, verdicts.verdict(asked, evidence, 2))
    assert power(0.5, found.needed) >= 0.8 > power(0.5, found.needed - 1)


def test_of_an_existential_claim_one_context_is_enough():
    claim = replace(read(factors=FACTORS), kind="existential", across=("data",))
    parts = [frame({"sgd": [0.5] * 6, "adam": 0.5 + m + 0.01 * PATTERN}).assign(data=m) for m in (0.002, 0.005, -0.001)]
    whole = pd.concat(parts, ignore_index=True).assign(key=range(36))
    asked = study(claim, FACTORS | {"data": (0.002, 0.005, -0.001)}, 6)
    found = outlook(asked, Evidence(whole), verdicts.verdict(asked, Evidence(whole), 6))
    assert power(0.5, found.needed, ALPHA / 3) >= 0.8 > power(0.5, found.needed - 1, ALPHA / 3)


@pytest.mark.parametrize("share", [1.0, 0.9, 0.75])
def test_the_sign_test_finds_a_share_with_so_many_seeds(share):
    from scipy.stats import binom

    def found(seeds):
        ahead = np.arange(seeds + 1)
        return binom.pmf(ahead, seeds, share)[binom.sf(ahead - 1, seeds, 0.5) <= ALPHA].sum()

    needed = sign_seeds(share, ALPHA)
    assert found(needed) >= 0.8 and found(needed // 2) < 0.8


def test_successes_are_planned_for_by_the_sign_test():
    wins = open_({"d": [0.4, 0.4, 0.4, 0.4, 0.4, -0.4]}, measure="success", target=0.6, metric="val_accuracy")
    assert wins.needed == sign_seeds(5 / 6, ALPHA)


def test_an_existential_claim_does_not_wait_for_a_context_that_can_no_longer_bear_it_out():
    claim = replace(read(factors=FACTORS), kind="existential")
    assert _of_claim(claim, [([(1, 55.0)], True), ([(1, 80.0)], False)]) == 80
    assert _of_claim(claim, [([(1, 55.0)], False), ([(1, 80.0)], False)]) == 55
