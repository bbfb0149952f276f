"""Penalties and their gradients, rules and clipping against NumPy."""

import numpy as np
import pytest

rng = np.random.default_rng(0)
KERNELS = [rng.normal(size=shape).astype(np.float32) for shape in ((6, 4), (4, 9), (3, 3, 2, 5), (3, 3, 1, 16))]


def columns(kernel):
    """A unit's incoming weights in a column."""
    return kernel.reshape(-1, kernel.shape[-1]).astype(np.float64)


@pytest.fixture(scope="session")
def regularizers(tf):
    from studies import regularizers

    return regularizers


@pytest.fixture(scope="session")
def optimizers(tf):
    from studies import optimizers

    return optimizers


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: str(kernel.shape))
def test_the_orthogonal_penalty_and_its_gradient(tf, regularizers, kernel):
    matrix = columns(kernel)
    matrix = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    gap = matrix.T @ matrix - np.eye(matrix.shape[1])
    gradient = 4 * 0.3 * matrix @ gap  # of tr((MᵀM − I)²)
    with tf.GradientTape() as tape:
        w = tf.constant(kernel)
        tape.watch(w)
        penalty = regularizers.orthogonal(0.3)(w)
    assert float(penalty) == pytest.approx(0.3 * np.sum(gap**2), rel=1e-5)
    actual = columns(tape.gradient(penalty, w).numpy())
    np.testing.assert_allclose(actual, gradient if actual.shape == gradient.shape else gradient.T, rtol=1e-4, atol=1e-5)


def test_orthogonal_weights_have_no_orthogonal_penalty(regularizers):
    square, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    for matrix in (square, square[:, :3], square[:3]):
        assert float(regularizers.orthogonal(1.0)(np.float32(matrix))) < 1e-10


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: str(kernel.shape))
def test_rules_follow_their_formulas(regularizers, kernel):
    norms = np.linalg.norm(columns(kernel), axis=0)
    limit = float(np.median(norms))
    expected = {
        regularizers.decoupled(0.5).before: kernel * (1 - 0.1 * 0.5),
        regularizers.proximal_l1(3.0).after: np.sign(kernel) * np.maximum(np.abs(kernel) - 0.1 * 3, 0),
        regularizers.max_norm(limit).after: kernel * np.minimum(1, limit / norms),
        regularizers.unit_norm().after: kernel / norms,
    }
    for change, changed in expected.items():
        np.testing.assert_allclose(change(kernel, 0.1), changed, rtol=1e-5, atol=1e-7)
    assert (np.asarray(regularizers.proximal_l1(3.0).after(kernel, 0.1)) == 0).any()


def test_rules_leave_a_dead_unit_at_zero(regularizers):
    dead = np.zeros((4, 2), np.float32)
    for rule in (regularizers.max_norm(1.0), regularizers.unit_norm()):
        np.testing.assert_array_equal(rule.after(dead, 0.1), dead)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: str(kernel.shape))
def test_adaptive_clipping_bounds_each_unit_by_its_weights(optimizers, kernel):
    gradient = kernel[..., ::-1] * np.geomspace(1e-4, 1, kernel.shape[-1]).astype(np.float32)
    [clipped] = optimizers.clip_adaptively(0.05, 0.001)([gradient], [kernel])
    limits = 0.05 * np.linalg.norm(columns(kernel), axis=0)
    norms = np.linalg.norm(columns(gradient), axis=0)
    assert (norms > limits).any() and (norms < limits).any()
    np.testing.assert_allclose(clipped, gradient * np.where(norms > limits, limits / norms, 1), rtol=1e-5)


def test_adaptive_clipping_lets_a_bias_at_zero_move(optimizers):
    [clipped] = optimizers.clip_adaptively(0.05, 0.001)([np.float32([3, 4])], [np.zeros(2, np.float32)])
    np.testing.assert_allclose(clipped, 0.05 * 0.001 * np.array([0.6, 0.8]), rtol=1e-5)
    [still] = optimizers.clip_adaptively(0.05, 0.001)([np.zeros(2, np.float32)], [np.ones(2, np.float32)])
    np.testing.assert_array_equal(still, [0, 0])
