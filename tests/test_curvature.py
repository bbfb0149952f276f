import numpy as np
import pytest

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(96, 6)).astype(np.float32), RNG.integers(0, 3, 96)


@pytest.fixture(scope="module")
def net(tf):
    """A small network's weights, a function to its logits, and its objective."""
    weights = [tf.Variable(RNG.normal(size=shape).astype(np.float32)) for shape in ((6, 4), (4, 3))]

    def logits(x):
        return tf.tanh(x @ weights[0]) @ weights[1]

    def objective(x, y):
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits(x)))

    return weights, logits, objective


def hessian(tf, weights, objective):
    """All of it, by the definition: the Jacobian of the gradient."""
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            loss = objective(X, Y)
        flat = tf.concat([tf.reshape(g, [-1]) for g in inner.gradient(loss, weights)], 0)
    return np.hstack([j.numpy().reshape(len(flat), -1) for j in outer.jacobian(flat, weights)])


def products(tf, net, seed=1):
    from studies.observe import curvature

    weights, _, objective = net
    start = [tf.constant(np.random.default_rng(seed).normal(size=w.shape).astype(np.float32)) for w in weights]
    found = tf.function(lambda: curvature.hessian_products(objective, weights, tf.constant(X), tf.constant(Y), start))
    return [part.numpy() for part in found()]


def test_sharpness_is_the_greatest_eigenvalue_of_the_whole_hessian(tf, net):
    from studies.observe import curvature

    whole = hessian(tf, net[0], net[2])
    assert curvature.sharpness(*products(tf, net)) == pytest.approx(np.linalg.eigvalsh(whole)[-1], rel=1e-3)


@pytest.mark.parametrize(("eigenvalues", "greatest"), [([-5, 2, 1], 2), ([-5, -2, -1], -1), ([0, 0, 0], 0)])
def test_the_greatest_eigenvalue_is_not_the_one_greatest_in_size(tf, eigenvalues, greatest):
    """A power iteration would find −5; and three directions are soon exhausted."""
    from studies.observe import curvature

    weights = [tf.Variable(np.zeros(3, np.float32))]
    found = products(tf, (weights, None, lambda x, y: tf.reduce_sum(np.float32(eigenvalues) * weights[0] ** 2) / 2))
    assert curvature.sharpness(*found) == pytest.approx(greatest, rel=1e-4, abs=1e-6)


def test_noise_scale_is_that_of_the_gradients_covariance(tf, net):
    """McCandlish et al. 2018, by its definition, over all batches; the estimate from them is without bias."""
    from studies.observe import curvature

    weights, _, objective = net
    small, large = curvature.gradient_squares(objective, weights, tf.constant(X), tf.constant(Y))
    gradients = []
    for place in range(3):
        part = slice(32 * place, 32 * place + 32)
        with tf.GradientTape() as tape:
            loss = objective(X[part], Y[part])
        gradients.append(np.concatenate([g.numpy().ravel() for g in tape.gradient(loss, weights)]))
    gradients = np.array(gradients, float)
    variance = gradients.var(axis=0, ddof=1).sum()
    square = (gradients.mean(axis=0) ** 2).sum() - variance / 3
    assert curvature.noise_scale(float(small), float(large), 96) == pytest.approx(32 * variance / square, rel=1e-3)
    assert np.isnan(curvature.noise_scale(2.0, 0.1, 96)) and np.isnan(curvature.noise_scale(1.0, 1.0, 32))


def test_the_jacobians_singular_values_are_those_of_the_network(tf, net):
    from studies.observe import curvature

    _, logits, _ = net
    found = curvature.jacobian_spectrum(curvature.jacobian_products(logits, tf.constant(X[:5]), 3).numpy())
    first, last = (w.numpy().astype(float) for w in net[0])
    values = []
    for x in X[:5]:
        slopes = 1 - np.tanh(x @ first) ** 2
        values.append(np.linalg.svd((first * slopes) @ last, compute_uv=False))
    largest, median, least = np.mean(values, axis=0)
    expected = {"jacobian_max": largest, "jacobian_median": median, "jacobian_min": least}
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_slope_is_taken_from_the_last_output_of_each_layer_but_the_network_s():
    from studies.observe import curvature

    # dense, norm, activation; dense, activation; dense with its own activation; logits
    values = np.array([9.0, 9.0, 2.0, 9.0, 4.0, 8.0, 9.0])
    opens = [True, False, False, True, False, True, True]
    assert curvature.slope(values, opens) == pytest.approx(np.log(2))
    for bad in (0.0, np.nan, np.inf):
        assert np.isnan(curvature.slope(np.where(values == 4, bad, values), opens))
    assert np.isnan(curvature.slope(values[:4], opens[:4]))


def test_a_network_that_is_not_finite_has_no_curvature():
    from studies.observe import curvature

    assert np.isnan(curvature.sharpness(np.full(3, np.nan), np.ones(3)))
    assert np.isnan(list(curvature.jacobian_spectrum(np.full((2, 3, 3), np.inf)).values())).all()
