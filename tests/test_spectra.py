from types import SimpleNamespace

import numpy as np
import pytest

from studies.observe import spectra
from studies.observe.tensors import NORM, Tensor, Watched

SHAPES = [(64, 64), (200, 30), (30, 200), (5, 1), (1, 5), (3, 4)]


def drawn(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_the_spectral_norm_is_the_greatest_singular_value_at_any_scale(shape, size):
    matrix = drawn(shape) * np.float32(size)
    norm, rank, _ = spectra.norms(matrix, np.random.default_rng(1).normal(size=shape[1]))
    values = np.linalg.svd(matrix.astype(float), compute_uv=False)
    assert norm == pytest.approx(values[0], rel=1e-5)
    assert rank == pytest.approx((values**2).sum() / values[0] ** 2, rel=1e-5)


def test_a_warm_start_follows_a_matrix_to_another_that_it_shares_no_direction_with():
    """As from one block of a pruned kernel to another."""
    first, second = np.zeros((2, 60, 60), np.float32)
    first[:30, :30], second[30:, 30:] = drawn((30, 30)), 3 * drawn((30, 30), 1)
    fresh = np.random.default_rng(2).normal(size=60)
    _, _, after = spectra.norms(first, fresh)
    assert np.abs(after[30:]).max() < 1e-3
    norm, _, _ = spectra.norms(first + second, after + 0.1 / np.sqrt(60) * fresh)
    assert norm == pytest.approx(np.linalg.norm(second, 2), rel=1e-4)


def test_a_warm_start_leaves_a_direction_that_another_one_overtakes():
    rng = np.random.default_rng(8)
    left, right = (np.linalg.qr(rng.normal(size=(100, 100)))[0] for _ in range(2))
    rows, expected = [], []
    for second in np.arange(0.97, 1.06, 0.01):
        values = np.r_[1.0, second, np.linspace(0.95, 0.01, 98)]
        rows.append(((left * values) @ right).astype(np.float32).ravel())
        expected.append(values.max())
    kernel = Tensor("dense_1", "kernel", slice(0, 100 * 100), (100, 100), layout=spectra.layout((100, 100)))
    watched, none = Watched([kernel], rows[0], rng), np.full((len(rows), 2, 1), np.nan)
    [(_, table, _)] = watched.tables(np.array(rows), none, charted=list(range(len(rows))))
    np.testing.assert_allclose(table[:, NORM], expected, rtol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_are_those_of_numpys_decomposition(shape):
    values = spectra.singular_values(drawn(shape))
    np.testing.assert_allclose(values[::-1], np.linalg.svd(drawn(shape), compute_uv=False), rtol=1e-4, atol=1e-5)


def test_ranks_and_condition_of_matrices_that_are_known():
    eye = spectra.ends(np.eye(7, dtype=np.float32))
    assert eye["effective_rank"] == pytest.approx(7) and eye["condition_number"] == pytest.approx(1)
    line = spectra.ends(np.outer(drawn(9), drawn(8, 1)))
    assert line["effective_rank"] == pytest.approx(1, abs=1e-4) and line["condition_number"] == np.inf
    assert spectra.ends(drawn((30, 2)) @ drawn((2, 20), 1))["condition_number"] == np.inf  # but for its rounding
    two = spectra.ends(np.diag(np.float32([3, 1])))
    assert two["effective_rank"] == pytest.approx(np.exp(-0.75 * np.log(0.75) - 0.25 * np.log(0.25)), rel=1e-5)
    assert two["condition_number"] == pytest.approx(3)


@pytest.mark.parametrize("alpha", [2.0, 3.5])
def test_the_exponent_of_a_power_law_is_found(alpha):
    places = (np.arange(1000) + 0.5) / 1000
    eigenvalues = places ** (-1 / (alpha - 1))  # its quantiles
    assert spectra.spectrum_alpha(np.sqrt(np.sort(eigenvalues))) == pytest.approx(alpha, rel=0.05)
    assert np.isnan(spectra.spectrum_alpha(np.sqrt(np.sort(eigenvalues[:49]))))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_of_entries_that_are_not_finite_there_is_no_statistic(bad):
    matrix = drawn((30, 40))
    matrix[2, 3] = bad
    norm, rank, after = spectra.norms(matrix, np.ones(40))
    assert np.isnan([norm, rank, *spectra.ends(matrix).values()]).all() and np.isfinite(after).all()


def test_zeros_have_a_norm_and_no_rank():
    norm, rank, _ = spectra.norms(np.zeros((30, 40), np.float32), np.ones(40))
    assert norm == 0 and np.isnan(rank) and np.isnan(list(spectra.ends(np.zeros((30, 40))).values())).all()


def test_a_failed_decomposition_is_missing(monkeypatch):
    def fails(matrix):
        raise np.linalg.LinAlgError("Eigenvalues did not converge")

    monkeypatch.setattr(np.linalg, "eigvalsh", fails)
    assert np.isnan(list(spectra.ends(drawn((30, 40))).values())).all()


@pytest.mark.parametrize(
    ("shape", "layer", "tensor", "expected"),
    [
        ((3, 4), None, "kernel", (3, 4)),
        ((3, 3, 5, 7), SimpleNamespace(), "kernel", (45, 7)),
        ((6, 2, 3), SimpleNamespace(equation="abc,cde->abde"), "kernel", (6, 6)),
        ((2, 3, 6), SimpleNamespace(equation="abcd,cde->abe"), "kernel", (6, 6)),
        ((3, 3, 5, 2), type("DepthwiseConv2D", (), {})(), "kernel", (9, 10)),
        ((3, 3, 5, 2), type("SeparableConv2D", (), {})(), "depthwise_kernel", (9, 10)),
        ((10, 4), None, "embeddings", (10, 4)),
    ],
)
def test_a_kernel_is_the_matrix_from_inputs_to_outputs(shape, layer, tensor, expected):
    layout = spectra.layout(shape, layer, tensor)
    assert layout.matrix(np.arange(np.prod(shape))).shape == expected
    assert layout.columns == expected[1]


def test_what_has_no_two_axes_is_no_matrix():
    assert spectra.layout((4,)) is None and spectra.layout(()) is None and spectra.layout((0, 3)) is None
