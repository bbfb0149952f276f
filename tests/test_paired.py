"""Exact tests, effect sizes and equivalence against published examples, SciPy and values worked out by hand."""

import numpy as np
import pytest
from scipy import stats

from analysis.estimate import intervals, paired
from studies.record import StudyError

pytestmark = pytest.mark.filterwarnings("error")

NAN = float("nan")
ZERO = np.zeros(100)
DARWIN = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48.0])
"""Heights of crossed less self-fertilized maize, in eighths of an inch (Fisher 1935, section 17)."""


def stored(values):
    """Numbers as the store has them, which were float32."""
    return np.float64(np.float32(values))


def test_the_permutation_test_is_fishers():
    # Fisher 1935, section 21: 863 of the 2^15 sums are at least 314.
    one = paired.permutation_test(DARWIN, ZERO[:15], "greater")
    assert one.p * 2**15 == pytest.approx(863)
    assert paired.permutation_test(DARWIN, ZERO[:15]).p * 2**15 == pytest.approx(2 * 863)
    assert paired.permutation_test(ZERO[:15], DARWIN, "less") == one


@pytest.mark.parametrize("alternative", paired.ALTERNATIVES)
@pytest.mark.parametrize("n", [6, 9, 12, 13])
def test_the_permutation_test_is_scipys(n, alternative):
    values = np.random.default_rng(n).normal(0.5, size=n)
    null = {"permutation_type": "samples", "alternative": alternative, "n_resamples": np.inf}
    expected = stats.permutation_test((values,), np.sum, **null).pvalue
    assert paired.permutation_test(values, ZERO[:n], alternative).p == pytest.approx(expected)


def test_as_many_pairs_as_are_counted_exactly_agree_with_those_flipped_at_random(monkeypatch):
    values = np.random.default_rng(5).normal(0.4, size=paired.MOST_EXACT)
    exact = paired.permutation_test(values, ZERO[: len(values)]).p
    monkeypatch.setattr(paired, "MOST_EXACT", 0)
    drawn = paired.permutation_test(values, ZERO[: len(values)], rng=np.random.default_rng(0)).p
    assert 0.01 < exact < 0.3 and drawn == pytest.approx(exact, abs=4 * np.sqrt(exact / paired.FLIPS) * 2)


def test_many_pairs_are_flipped_at_random_by_the_generator_given():
    values = np.random.default_rng(3).normal(0.3, size=40)
    drawn = [paired.permutation_test(values, ZERO[:40], rng=np.random.default_rng(seed)).p for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0] == pytest.approx(stats.ttest_1samp(values, 0).pvalue, abs=0.02)
    sure = paired.permutation_test(values + 100, ZERO[:40], rng=np.random.default_rng(0))
    assert sure.p == pytest.approx(2 / (paired.FLIPS + 1))  # the sample itself is one of them
    with pytest.raises(StudyError, match="expected rng"):
        paired.permutation_test(values, ZERO[:40])


@pytest.mark.parametrize("test", [paired.permutation_test, paired.sign_test])
def test_five_pairs_say_that_they_are_too_few_instead_of_giving_a_p(test):
    found = test(np.arange(1.0, 6), ZERO[:5])
    assert np.isnan(found.p) and (found.n, found.least) == (5, 0.0625)
    assert found.note == "5 pairs cannot give a p below 0.0625"
    assert test(np.arange(1.0, 7), ZERO[:6]).p == 0.03125
    assert test(np.arange(1.0, 6), ZERO[:5], "greater").p == 0.03125


@pytest.mark.parametrize("test", [paired.permutation_test, paired.sign_test])
def test_what_is_missing_alike_or_too_little_has_a_defined_answer(test):
    assert np.isnan(test(np.array([]), np.array([])).p)
    assert np.isnan(test(np.array([1.0]), np.array([0.0])).p)
    alike = test(np.full(8, 0.97), np.full(8, 0.97))
    assert (alike.p, alike.least) == (1.0, 2 / 2**8) and "0 of 8 pairs differ" in alike.note
    values = np.arange(1.0, 9)
    gaps, others = np.append(values, [NAN, 3.0]), np.append(ZERO[:8], [1.0, NAN])
    assert test(gaps, others) == test(values, ZERO[:8])
    assert test(np.full(8, NAN), ZERO[:8]).n == 0


def test_the_sign_test_by_hand():
    # Two of nine pairs that differ are negative: 2 (1 + 9 + 36) / 2^9; the tie is left out.
    values = np.array([1, 2, 3, 4, 5, 6, 7, -1, -2, 0.0])
    assert paired.sign_test(values, ZERO[:10]).p == pytest.approx(2 * 46 / 512)
    assert paired.sign_test(values, ZERO[:10], "greater").p == pytest.approx(46 / 512)


def test_what_differs_by_rounding_is_a_tie_and_sums_that_do_are_as_extreme():
    """Differences of 1/360 and 2/360, as float32 leaves them, make sums that tie with the observed one."""
    base = stored(np.array([351, 350, 349, 352, 353, 354, 340, 331]) / 360)
    ahead = stored(np.array([352, 352, 350, 354, 354, 356, 339, 329]) / 360)
    apart = np.array([1, 2, 1, 2, 1, 2, -1, -2.0])
    assert paired.permutation_test(ahead, base).p == paired.permutation_test(apart, ZERO[:8]).p
    tied = np.append(ahead, base[0] * (1 + 1e-7)), np.append(base, base[0])
    assert paired.sign_test(*tied).p == paired.sign_test(ahead, base).p
    assert paired.probability_better(*tied) == pytest.approx((6 + 0.5) / 9)


def test_least_p():
    assert [paired.least_p(n) for n in (0, 1, 2, 5, 6)] == [1, 1, 0.5, 0.0625, 0.03125]
    assert paired.least_p(5, "less") == 0.03125
    with pytest.raises(StudyError, match="expected one of two-sided, greater, less"):
        paired.least_p(5, "better")


def test_effect_sizes_by_hand():
    values, others = np.array([1.0, 2, 3]), np.array([2.0, 2, 1])
    assert paired.probability_better(values, others) == pytest.approx((1 + 0.5) / 3)
    # Of nine pairs 2 > 1, 3 > 2, 3 > 2 and 3 > 1; 1 < 2 and 1 < 2.
    assert paired.cliffs_delta(values, others) == pytest.approx((4 - 2) / 9)


def test_cliffs_delta_is_the_mann_whitney_u():
    values, others = np.random.default_rng(0).integers(0, 8, size=(2, 15)).astype(float)
    u = stats.mannwhitneyu(values, others).statistic
    assert paired.cliffs_delta(values, others) == pytest.approx(2 * u / 15**2 - 1)


@pytest.mark.parametrize(("of", "alike"), [(paired.probability_better, 0.5), (paired.cliffs_delta, 0.0)])
def test_effect_sizes_of_nothing_one_and_all_alike(of, alike):
    assert np.isnan(of(np.array([NAN, 1.0]), np.array([1.0, NAN])))
    assert of(np.array([2.0]), np.array([1.0])) == 1
    assert of(np.full(5, 0.9), stored(np.full(5, 0.9))) == alike


def test_equivalence_is_the_90_percent_interval_within_the_margin():
    rng, seen = np.random.default_rng(1), set()
    for _ in range(40):
        values = rng.normal(0.1, 0.3, size=8)
        low, high = intervals.t_interval(values, 0.9)
        found = paired.equivalence_test(values, ZERO[:8], 0.3)
        assert (found.p < 0.05) == (max(-low, high) < 0.3)
        seen.add(found.p < 0.05)
    assert seen == {True, False}


def test_equivalence_by_hand():
    # Mean 1, sd 1, n = 4: the upper side has t = (1 - 3) / (1 / 2) = -4, the lower +8.
    values = 1 + np.array([-1, -1, 1, 1]) * np.sqrt(3 / 4)
    assert paired.equivalence_test(values, ZERO[:4], 3).p == pytest.approx(stats.t.cdf(-4, 3))


def test_equivalence_needs_pairs_and_a_spread_and_a_margin():
    assert "2 pairs: 3 are needed" in paired.equivalence_test(np.array([0.1, 0.2]), ZERO[:2], 1).note
    alike = paired.equivalence_test(stored(np.full(6, 0.95)), stored(np.full(6, 0.9)), 1)
    assert np.isnan(alike.p) and "no spread" in alike.note
    with pytest.raises(StudyError, match="margin=0"):
        paired.equivalence_test(DARWIN, ZERO[:15], 0)


def test_arrays_that_are_not_pairs_are_refused():
    with pytest.raises(StudyError, match="shapes"):
        paired.sign_test(DARWIN, ZERO)
    with pytest.raises(StudyError, match="infinite"):
        paired.cliffs_delta(np.array([1, np.inf]), ZERO[:2])
