"""What weights say of inputs, against what is known of the inputs."""

import numpy as np
import pytest


@pytest.fixture(scope="module")
def importance(tf):
    from studies.compute import importance

    return importance


@pytest.fixture
def network(importance):
    """Weights, examples and classes of a network of one hidden layer that has no use for its last input."""
    rng = np.random.default_rng(0)
    weights = importance.networks.drawn(rng, (4, 6, 3))
    weights[0][-1] = 0
    weights[1] += rng.normal(size=6)
    return weights, rng.normal(size=(25, 4)), rng.integers(3, size=25)


def test_importance_is_the_mean_over_all_pairs_of_examples(importance, network, monkeypatch):
    weights, x, y = network
    monkeypatch.setattr(importance, "SHUFFLES", 800)
    found = importance.permutation_importance(np.random.default_rng(1), weights, x, y)
    whole = importance.networks.loss(weights, x, y)
    for place in range(4):
        losses = []
        for other in x[:, place]:
            changed = x.copy()
            changed[:, place] = other
            losses.append(importance.networks.loss(weights, changed, y))
        assert found[place] == pytest.approx(np.mean(losses) - whole, abs=0.005)
    assert found[-1] == 0 and np.abs(found[:-1]).max() > 0.1


def test_rescalings_leave_the_function_and_change_the_weights(importance, network):
    weights, x, _ = network
    logits = importance.networks.forward(weights, x)[-1]
    heavy = importance.outweighed(weights, np.arange(4.0))
    other, factors = importance.rescaled(np.random.default_rng(2), weights)
    np.testing.assert_allclose(importance.networks.forward(heavy, x)[-1], logits)
    np.testing.assert_allclose(importance.networks.forward(other, x * factors)[-1], logits)
    share = np.linalg.norm(heavy[0], axis=0) / np.linalg.norm(heavy[0])
    assert share.max() > 0.999 and np.ptp(np.log10(factors)) > 1
    ranked = [importance._ranked(np.abs(unit), np.arange(4.0)) for unit in weights[0].T]
    assert importance._ranked(np.linalg.norm(heavy[0], axis=1), np.arange(4.0)) == min(ranked)


def test_a_penalty_drops_inputs_that_know_nothing_before_those_that_do(importance):
    found = importance.rejection(np.random.default_rng(0), "l1", 0.01, width=16, epochs=20)
    assert found["rejected"] > 0.8 > 0.5 > found["missed"] and found["accuracy"] > 0.85 and found["zeros"] == 0
    plain = importance.rejection(np.random.default_rng(0), "none", 0.0, width=16, epochs=2)
    assert plain["rejected"] == plain["missed"] == 0
