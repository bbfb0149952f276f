import warnings

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from studies.contract import QUANTILES, SPARSITY_THRESHOLDS, WEIGHT_STATISTICS
from studies.observe.weights import TABLE, Rows, densities, weight_statistics

REFERENCE = {
    "mean": lambda w, start: np.mean(w),
    "sd": lambda w, start: np.std(w),
    "min": lambda w, start: np.min(w),
    "max": lambda w, start: np.max(w),
    "l1": lambda w, start: np.linalg.norm(w, 1),
    "l2": lambda w, start: np.linalg.norm(w, 2),
    "max_norm": lambda w, start: np.linalg.norm(w, np.inf),
    "skew": lambda w, start: scipy.stats.skew(w),
    "kurtosis": lambda w, start: scipy.stats.kurtosis(w),
    **{f"q{round(100 * q):02d}": lambda w, start, q=q: np.quantile(w, q) for q in QUANTILES},
    **{
        f"sparsity_{t}": lambda w, start, t=t: np.mean(np.abs(w) <= float(t) * np.abs(w).max())
        for t in SPARSITY_THRESHOLDS
    },
    "distance": lambda w, start: np.linalg.norm(w - start) / np.linalg.norm(start) if start.any() else np.nan,
    "cosine_distance": lambda w, start: 1 - w @ start / np.linalg.norm(w) / np.linalg.norm(start),
}


def statistics(w, start):
    """Columns by name, of weights and what each row of them started from, `(rows, n)`."""
    w, start = w.astype(np.float32), start.astype(np.float32)
    table = np.concatenate([weight_statistics(row[None], began) for row, began in zip(w, start, strict=True)])
    return dict(zip(WEIGHT_STATISTICS, table.T, strict=True))


@st.composite
def weights(draw, rows=3):
    """Rows of weights with some exact zeros and a few tiny values, and rows that they may have started from."""
    n = draw(st.sampled_from([1, 2, 3, 8, 101, 1000]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    w = draw(st.sampled_from([0.01, 1.0, 30.0])) * (rng.normal(size=(rows, n)) ** 2 - draw(st.floats(0, 2)))
    w *= rng.choice([0, 5e-5, 5e-4, 5e-3, 1], size=(rows, n), p=[0.1, 0.05, 0.05, 0.1, 0.7])
    start = w + draw(st.sampled_from([0, 0.01, 1])) * rng.normal(size=(rows, n))
    return w.astype(np.float32), start.astype(np.float32)


def referred(w, start):
    """The reference's columns, in double precision; missing where a division has no result."""
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
        pairs = list(zip(w.astype(np.float64), start.astype(np.float64), strict=True))
        return {name: np.array([of(*pair) for pair in pairs]) for name, of in REFERENCE.items()}


def assert_same(actual, expected, w):
    """To single precision: of the largest weight, or of one for what has no unit."""
    size = np.abs(w).max(axis=1)
    for name in WEIGHT_STATISTICS:
        unitless = name.startswith(("distance", "cosine", "sparsity"))
        near = 1e-3 if name in ("skew", "kurtosis") else 2e-6 * (1 if unitless else size)
        gap = np.nan_to_num(np.abs(actual[name] - expected[name]))
        np.testing.assert_array_equal(np.isnan(actual[name]), np.isnan(expected[name]), err_msg=name)
        assert (gap <= 1e-4 * np.nan_to_num(np.abs(expected[name])) + near).all(), name


def test_the_columns_are_those_of_the_table_in_its_order():
    assert tuple(name for names, _ in TABLE for name in names) == WEIGHT_STATISTICS
    assert tuple(REFERENCE) == WEIGHT_STATISTICS


@given(weights())
def test_every_statistic_equals_its_definition(pair):
    assert_same(statistics(*pair), referred(*pair), pair[0])


def test_a_row_of_zeros_has_no_shape_and_no_angle():
    zeros, ones = np.zeros((1, 6)), np.ones((1, 6))
    still = statistics(zeros, zeros)
    for name in ("skew", "kurtosis", "distance", "cosine_distance"):
        assert np.isnan(still[name]), name
    for name in ("mean", "sd", "min", "max", "l1", "l2", "max_norm", "q01", "q50", "q99"):
        assert still[name] == 0, name
    assert all(still[f"sparsity_{t}"] == 1 for t in SPARSITY_THRESHOLDS)
    assert statistics(zeros, ones)["distance"] == 1
    assert np.isnan(statistics(ones, zeros)["distance"])


@pytest.mark.parametrize("value", [0.01, 0.05, 1 / 3, 1.0, -7.3])
@pytest.mark.parametrize("n", [1, 10, 640, 4096, 235_200])
def test_a_row_of_one_value_has_no_spread_and_no_shape(value, n):
    same = np.full((1, n), value)
    columns = statistics(same, same)
    assert columns["sd"] == 0
    assert np.isnan(columns["skew"]) and np.isnan(columns["kurtosis"])


@given(weights(), st.integers(-80, 90))
def test_scaling_leaves_shapes_and_scales_norms(pair, power):
    w, start = pair
    one, scaled = statistics(w, start), statistics(w * 2.0**power, start)
    for name in ("skew", "kurtosis", "cosine_distance", *(f"sparsity_{t}" for t in SPARSITY_THRESHOLDS)):
        np.testing.assert_allclose(scaled[name], one[name], rtol=1e-5, atol=1e-6, err_msg=name)
    for name in ("mean", "sd", "l1", "l2", "max_norm", "q05", "q75"):
        np.testing.assert_allclose(scaled[name], one[name] * 2.0**power, rtol=1e-6, err_msg=name)


def test_rows_together_equal_each_alone():
    rng = np.random.default_rng(0)
    w, start = rng.normal(size=(4, 200)).astype(np.float32), rng.normal(size=200).astype(np.float32)
    together = weight_statistics(w, start)
    assert together.tobytes() == np.concatenate([weight_statistics(row[None], start) for row in w]).tobytes()


@given(weights())
def test_quantiles_rise_between_the_extremes(pair):
    columns = statistics(*pair)
    rising = [columns[name] for name in ("min", *(f"q{round(100 * q):02d}" for q in QUANTILES), "max")]
    assert (np.diff(rising, axis=0) >= 0).all()


@given(weights())
def test_sparsity_counts_exact_zeros_and_rises_with_its_threshold(pair):
    w, _ = pair
    columns = statistics(*pair)
    np.testing.assert_allclose(columns["sparsity_0"], (w == 0).mean(axis=1), rtol=1e-6)
    assert (np.diff([columns[f"sparsity_{t}"] for t in SPARSITY_THRESHOLDS], axis=0) >= 0).all()


@given(weights())
def test_nothing_has_moved_at_the_start(pair):
    w, _ = pair
    columns = statistics(w, w)
    moves = w.any(axis=1)
    assert (columns["distance"][moves] == 0).all() and (columns["cosine_distance"][moves] == 0).all()
    assert np.isnan(columns["distance"][~moves]).all()


def test_a_small_rotation_keeps_its_digits():
    rng = np.random.default_rng(0)
    start = rng.normal(size=(1, 500)).astype(np.float32)
    w = (start + 1e-4 * rng.normal(size=(1, 500))).astype(np.float32)
    expected = referred(w, start)["cosine_distance"]
    assert expected < 1e-8
    np.testing.assert_allclose(statistics(w, start)["cosine_distance"], expected, rtol=1e-2)


@given(weights())
def test_a_density_counts_every_entry_in_its_cell(pair):
    w, start = (np.asarray(part, np.float32) for part in pair)
    for row in range(len(w)):
        counts = densities(Rows(w, start), [row])[row]
        edges = np.linspace(w[row].min(), w[row].max(), 65, dtype=np.float32)
        if (np.diff(edges) > 0).all():
            np.testing.assert_array_equal(counts, np.histogram(w[row], edges)[0])
        assert sum(counts) == w.shape[1] and len(counts) == 64


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_has_no_statistics_and_spoils_no_other(bad):
    rng = np.random.default_rng(0)
    w, start = rng.normal(size=(3, 50)).astype(np.float32), rng.normal(size=50).astype(np.float32)
    spoilt = w.copy()
    spoilt[1, 7] = bad
    table = weight_statistics(spoilt, start)
    assert np.isnan(table[1]).all() and densities(Rows(spoilt, start), [1])[1] == ()
    np.testing.assert_array_equal(table[[0, 2]], weight_statistics(w, start)[[0, 2]])


def test_an_entry_on_an_edge_is_in_the_cell_above_it_but_for_the_last():
    whole = np.arange(65, dtype=np.float32)[None]
    assert densities(Rows(whole, whole[0]), [0])[0] == (*[1] * 63, 2)
