"""Explanations against gradients, deletion curves against those by hand."""

import numpy as np
import pytest
from scipy.stats import spearmanr


@pytest.fixture(scope="module")
def attribution(tf):
    from studies.compute import attribution

    return attribution


@pytest.mark.parametrize("sizes", [(4, 3), (4, 5, 3), (4, 5, 6, 3)])
def test_weight_times_input_is_gradient_times_input(attribution, tf, sizes):
    rng = np.random.default_rng(0)
    weights, x = attribution.networks.drawn(rng, sizes), rng.normal(size=(9, 4))
    classes = rng.integers(3, size=9)
    for bias in weights[1::2]:
        bias += rng.normal(size=bias.shape)
    found, inputs = attribution.weight_times_input(weights, x, classes), tf.Variable(x)
    with tf.GradientTape() as tape:
        y = inputs
        for place in range(0, len(weights), 2):
            y = (tf.nn.relu(y) if place else y) @ weights[place] + weights[place + 1]
        chosen = tf.gather(y, classes, axis=1, batch_dims=1)
    np.testing.assert_allclose(found, tape.gradient(chosen, inputs) * x, atol=1e-12)


def test_without_biases_the_explanation_adds_up_to_the_logit(attribution):
    rng = np.random.default_rng(1)
    weights, x, classes = attribution.networks.drawn(rng, (4, 5, 3)), rng.normal(size=(9, 4)), rng.integers(3, size=9)
    logits = attribution.networks.forward(weights, x)[-1][np.arange(9), classes]
    np.testing.assert_allclose(attribution.weight_times_input(weights, x, classes).sum(axis=1), logits)


def test_the_area_is_that_of_the_curve_by_hand(attribution):
    weights, x = [np.array([[2.0, 0.0], [1.0, 0.0]]), np.zeros(2)], np.ones((1, 2))

    def share(z):
        return np.exp(z) / (np.exp(z) + 1)

    first, second = np.array([[2.0, 1.0]]), np.array([[1.0, 2.0]])
    zeros = np.zeros(1, int)
    by_hand = (share(3) / 2 + share(1) + share(0) / 2) / 2, (share(3) / 2 + share(2) + share(0) / 2) / 2
    assert attribution.area_under(weights, x, zeros, first) == pytest.approx(by_hand[0])
    assert attribution.area_under(weights, x, zeros, second) == pytest.approx(by_hand[1])


def test_what_the_weights_add_is_no_part_of_what_the_inputs_say(attribution):
    own, other = (
        attribution.deletion(np.random.default_rng(0), depth=0, epochs=2, explained_by=by)
        for by in ("own", "randomized")
    )
    for found in (own, other):
        assert found["beyond_input"] == found["area_input"] - found["area"]
    assert own["area_random"] - own["area_input"] > 0.1  # without any weight
    assert own["beyond_input"] > 0.1 > 0 > other["beyond_input"]


def test_rows_are_correlated_as_scipy_does(attribution):
    rng = np.random.default_rng(2)
    one, two = rng.integers(4, size=(5, 12)), rng.normal(size=(5, 12))
    theirs = [spearmanr(a, b).statistic for a, b in zip(one, two, strict=True)]
    assert attribution._correlated(one, two) == pytest.approx(theirs)
