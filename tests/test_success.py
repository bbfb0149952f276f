"""Success rates against exact enumeration, statsmodels and values worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar

from analysis.estimate import success
from studies.record import StudyError

pytestmark = pytest.mark.filterwarnings("error")

NAN = float("nan")


def frame(**arms):
    """Trials of arms, a status and accuracy a seed: `finished .9`, or a status alone."""
    rows = [
        (arm, seed, word.split()[0], float(word.partition(" ")[2] or "nan"))
        for arm, words in arms.items()
        for seed, word in enumerate(words)
    ]
    return pd.DataFrame(rows, columns=["optimizer", "seed", "status", "val_accuracy"]).assign(classes=10, val_loss=0.5)


def test_a_trial_succeeds_when_it_finished_and_reaches_the_threshold():
    near = f"finished {float(np.float32(0.95))}"  # less than .95
    trials = frame(a=[near, "finished .94", "finished nan", "diverged .99", "timeout .99", "crashed"])
    np.testing.assert_array_equal(success.succeeded(trials), [1, 1, 1, 0, 0, NAN])
    np.testing.assert_array_equal(success.succeeded(trials, "val_accuracy"), [1, 1, 0, 0, 0, NAN])
    np.testing.assert_array_equal(success.succeeded(trials, "val_accuracy", 0.95), [1, 0, 0, 0, 0, NAN])
    np.testing.assert_array_equal(success.succeeded(trials, "val_loss", 0.4), [0, 0, 0, 0, 0, NAN])
    np.testing.assert_array_equal(success.succeeded(trials, "val_loss", 0.6), [1, 1, 1, 0, 0, NAN])


def test_rates_have_the_exact_interval():
    trials = frame(sgd=["finished 1"] * 5, adam=["finished 1"] * 3 + ["diverged"] * 7, bad=["diverged"] * 5)
    found = success.success_rates(trials, ["optimizer"]).set_index("optimizer")
    assert list(found.columns) == ["trials", "successes", "rate", "low", "high"]
    # Of all of n, low^n = .025; of three of ten by SciPy's.
    assert found.loc["sgd"].tolist() == pytest.approx([5, 5, 1, 0.025 ** (1 / 5), 1])
    assert found.loc["bad"].tolist() == pytest.approx([5, 0, 0, 0, 1 - 0.025 ** (1 / 5)])
    exact = stats.binomtest(3, 10).proportion_ci(method="exact")
    assert found.loc["adam"].tolist() == pytest.approx([10, 3, 0.3, exact.low, exact.high])


def test_crashes_are_missing_and_an_arm_of_them_is_known_nothing_of():
    trials = frame(b=["crashed"], a=["finished 1", "crashed"])
    found = success.success_rates(trials, ["optimizer"]).set_index("optimizer")
    assert found.index.tolist() == ["b", "a"]
    assert found.loc["a"].tolist() == pytest.approx([1, 1, 1, 0.025, 1])
    np.testing.assert_array_equal(found.loc["b"], [0, 0, NAN, 0, 1])
    assert success.success_rates(trials[:0], ["optimizer"]).empty


def test_seeds_that_are_one_run_are_one_seed_and_several_trials_at_a_seed_are_refused():
    trials = frame(a=["finished .9"] * 4 + ["diverged"]).assign(running_loss=0.25)
    assert success.success_rates(trials, ["optimizer"])[["trials", "successes"]].to_numpy().tolist() == [[2, 1]]
    twice = pd.concat([frame(a=["finished .9"]), frame(a=["finished .8"])])
    with pytest.raises(StudyError, match="arm a has several trials at seed 0"):
        success.success_rates(twice, ["optimizer"])


def test_unknown_metrics_are_refused():
    trials = frame(a=["finished .9"])
    with pytest.raises(StudyError, match="metric=best"):
        success.succeeded(trials, "best")
    with pytest.raises(StudyError, match="expected a metric too"):
        success.succeeded(trials, threshold=0.9)


@pytest.mark.parametrize(("won", "lost"), [(7, 1), (5, 5), (0, 8), (9, 0)])
def test_mcnemar_is_statsmodels(won, lost):
    first = np.array([1] * won + [0] * lost + [1] * 3 + [0] * 2)
    second = np.array([0] * won + [1] * lost + [1] * 3 + [0] * 2)
    expected = mcnemar([[3, won], [lost, 2]], exact=True).pvalue
    assert success.mcnemar_test(first, second).p == pytest.approx(expected)


def test_mcnemar_says_where_it_cannot_tell():
    five = success.mcnemar_test(np.ones(5), np.zeros(5))
    assert np.isnan(five.p) and five.least == 0.0625
    some = success.mcnemar_test(np.ones(10), np.array([1] * 7 + [0] * 3))
    assert some.p == 0.25 and "3 of 10 pairs differ" in some.note
    assert success.mcnemar_test(np.ones(10), np.ones(10)).p == 1
    with pytest.raises(StudyError, match="1 or 0"):
        success.mcnemar_test(np.full(6, 0.5), np.zeros(6))


def p_by_definition(won, lost, n, difference):
    """The largest probability of a score as extreme, by SciPy's optimizer and multinomial, over the other rate."""

    def score(b, c):
        low, high = max(0.0, -difference), (1 - difference) / 2

        def unlikely(q):
            cells = np.clip([q + difference, q, 1 - 2 * q - difference], 1e-300, 1)
            return -np.dot([b, c, n - b - c], np.log(cells))

        q = optimize.minimize_scalar(unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-10}).x
        variance = n * (2 * q + difference * (1 - difference))
        return abs(b - c - n * difference) / np.sqrt(variance)

    observed = score(won, lost)
    extreme = [(b, c) for b in range(n + 1) for c in range(n + 1 - b) if score(b, c) >= observed - 1e-4]
    rates = np.linspace(max(0.0, -difference), (1 - difference) / 2, 50)
    chance = [
        sum(stats.multinomial.pmf([b, c, n - b - c], n, [q + difference, q, max(1 - 2 * q - difference, 0)])
            for b, c in extreme)
        for q in rates
    ]  # fmt: skip
    return max(chance)


@pytest.mark.parametrize(
    ("won", "lost", "difference"), [(3, 0, 0.2), (1, 2, 0.3), (0, 0, 0.4), (3, 0, 0.0), (0, 3, 0.0)]
)
def test_the_unconditional_p_by_its_definition(won, lost, difference):
    states = np.array([(b, c) for b in range(5) for c in range(5 - b)]).T
    [here] = np.flatnonzero((states[0] == won) & (states[1] == lost))
    found = success._unconditional_p(*states, 4, difference)[here]
    assert found == pytest.approx(p_by_definition(won, lost, 4, difference), abs=2e-3)


@pytest.mark.parametrize("n", [1, 5, 10, 20])
def test_the_paired_difference_is_covered_as_often_as_it_says_whatever_the_rates(n):
    limits = success._difference_limits(n, 0.95)
    won, lost = np.nonzero(~np.isnan(limits[..., 0]))
    low, high = limits[won, lost].T
    steps = np.linspace(0, 1, 26)
    for win in steps:
        for loss in steps[steps <= 1 - win + 1e-9]:
            counts, rates = np.stack([won, lost, n - won - lost], axis=1), [win, loss, max(1 - win - loss, 0.0)]
            chance = stats.multinomial.pmf(counts, n, rates)
            assert chance[(low <= win - loss + 1e-9) & (win - loss <= high + 1e-9)].sum() >= 0.95


def test_the_paired_difference_of_what_is_alike_missing_or_one():
    alike = success.success_difference(np.ones(5), np.ones(5))
    assert (alike.value, alike.low, alike.high) == (0, -alike.high, pytest.approx(0.455, abs=0.006))
    all_apart = success.success_difference(np.ones(10), np.zeros(10))
    assert all_apart.value == 1 and 0.3 < all_apart.low < 0.5 and all_apart.high == 1
    swapped = success.success_difference(np.zeros(10), np.ones(10))
    assert (swapped.low, swapped.high) == pytest.approx((-1, -all_apart.low))
    one = success.success_difference(np.array([1, NAN]), np.array([0, 1.0]))
    assert (one.value, one.n, one.high) == (1, 1, 1) and one.low < 0
    none = success.success_difference(np.array([NAN]), np.array([1.0]))
    assert np.isnan(none.value) and (none.low, none.high, none.n) == (-1, 1, 0)
    with pytest.raises(StudyError, match="3 and 2 seeds"):
        success.success_difference(np.ones(3), np.ones(2))
