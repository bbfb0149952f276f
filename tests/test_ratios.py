"""Ratios and the interquartile mean against values worked out by hand and second implementations."""

import numpy as np
import pytest
from scipy import stats

from analysis.estimate import ratios
from studies.record import StudyError

pytestmark = pytest.mark.filterwarnings("error")

NAN = float("nan")


def rng():
    return np.random.default_rng(0)


def test_the_log_ratio_by_hand():
    # Ratios 2 and 8: the geometric mean is 4, t(.975, 1) = 12.7062 times half the distance of the logarithms.
    found = ratios.log_ratio(np.array([2.0, 8]), np.ones(2))
    half = 12.7062 * np.log(2)
    assert (found.value, found.low, found.high) == pytest.approx((4, 4 * np.exp(-half), 4 * np.exp(half)), rel=1e-4)
    expected = stats.ttest_1samp(np.log(np.arange(1.0, 8)), 0).confidence_interval()
    found = ratios.log_ratio(np.arange(1.0, 8), np.ones(7))
    assert (found.low, found.high) == pytest.approx(tuple(np.exp(expected)))


def test_the_log_ratio_the_other_way_is_its_inverse():
    values, others = rng().lognormal(size=(2, 9))
    one, other = ratios.log_ratio(values, others), ratios.log_ratio(others, values)
    assert (one.value, one.low, one.high) == pytest.approx((1 / other.value, 1 / other.high, 1 / other.low))


@pytest.mark.parametrize("of", [ratios.log_ratio, lambda a, b: ratios.mean_ratio(a, b, rng())])
def test_ratios_of_nothing_one_all_alike_and_missing(of):
    none = of(np.array([NAN, 1.0]), np.array([1.0, NAN]))
    assert np.isnan([none.value, none.low, none.high]).all() and none.n == 0
    one = of(np.array([3.0]), np.array([2.0]))
    assert one.value == 1.5 and np.isnan([one.low, one.high]).all() and "needs 2 pairs" in one.note
    alike = of(np.array([3.0, 6, 9]), np.array([1.0, 2, 3]))
    assert (alike.value, alike.low, alike.high) == pytest.approx((3, 3, 3)) and "no spread" in alike.note
    rounded = of(np.float64(np.float32([0.1, 0.2, 0.3])), np.array([0.1, 0.2, 0.3]))
    assert rounded.low == rounded.high
    whole, gaps = of(np.arange(1.0, 7), np.ones(6)), of(np.append(np.arange(1.0, 7), NAN), np.ones(7))
    assert whole == gaps
    for wrong in ([0.0, 1], [-1.0, 1], [np.inf, 1]):
        with pytest.raises(StudyError, match="above 0"):
            of(np.array(wrong), np.ones(2))
    with pytest.raises(StudyError, match="shapes"):
        of(np.ones(2), np.ones(3))


def test_the_ratio_of_means_is_bootstrapped_by_pairs():
    """Of pairs that share all their spread the ratio hardly moves: seeds drawn apart would make it move."""
    shared = rng().lognormal(size=30)
    found = ratios.mean_ratio(2 * shared * (1 + 0.001 * rng().normal(size=30)), shared, rng())
    assert found.value == pytest.approx(2, rel=1e-3) and found.high - found.low < 0.01
    assert found.low < found.value < found.high


def test_the_bootstrap_of_many_pairs_is_the_delta_methods():
    values, others = 1 + 0.1 * rng().normal(size=(2, 400))
    found = ratios.mean_ratio(values, others, rng())
    # Var(a / b) = var(a - r b) / (n b²)
    half = 1.96 * np.std(values - found.value * others, ddof=1) / np.sqrt(400) / others.mean()
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), abs=0.1 * half)


def test_the_bootstrap_is_by_the_generator_given():
    values, others = rng().lognormal(size=(2, 8))
    one, again, other = (ratios.mean_ratio(values, others, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one == again != other


def test_another_mean_can_be_bootstrapped():
    values, others = rng().lognormal(size=(2, 12))
    found = ratios.mean_ratio(values, others, rng(), ratios.interquartile_mean)
    assert found.value == stats.trim_mean(values, 0.25) / stats.trim_mean(others, 0.25)
    assert found.low < found.value < found.high


def test_the_interquartile_mean_by_hand():
    assert ratios.interquartile_mean(np.array([9.0, 1, 2, 3, -50, 4, 5, 100])) == (2 + 3 + 4 + 5) / 4
    assert ratios.interquartile_mean(np.array([0.9, 0.8, 0.1, 1.0, 0.7])) == pytest.approx(0.8)
    np.testing.assert_allclose(ratios.interquartile_mean(np.arange(8.0).reshape(2, 4), axis=1), [1.5, 5.5])
    assert ratios.interquartile_mean(np.array([3.0])) == 3
    assert np.isnan(ratios.interquartile_mean(np.array([])))
    assert np.isnan(ratios.interquartile_mean(np.empty((0, 2)))).tolist() == [True, True]
