"""Small networks as arrays: trained as NumPy would, whatever was trained before, and looked at as they are."""

import numpy as np
import pytest


@pytest.fixture(scope="module")
def networks(tf):
    from studies.compute import networks

    return networks


def table(examples=96, inputs=3, classes=2):
    rng = np.random.default_rng(5)
    return rng.normal(size=(examples, inputs)), rng.integers(classes, size=examples)


@pytest.mark.parametrize(("penalty", "strength"), [("none", 0.0), ("l1", 0.05), ("l2", 0.05), ("proximal_l1", 0.5)])
def test_training_is_sgd_with_momentum_under_a_cosine_and_a_penalty(networks, penalty, strength):
    examples = networks.examples(np.random.default_rng(0), *table(), standardized=True)
    start = networks.drawn(np.random.default_rng(1), (3, 2))
    found = networks.trained(np.random.default_rng(2), start, examples, 2, 0.1, penalty, strength)

    rng, (w, b), steps = np.random.default_rng(2), [each.copy() for each in start], 2
    moved, number = [np.zeros_like(w), np.zeros_like(b)], 0
    for _ in range(2):
        for rows in rng.permutation(64).reshape(steps, 32):
            x, y = examples.x[rows], examples.y[rows]
            shares = np.exp(x @ w + b) / np.exp(x @ w + b).sum(axis=1, keepdims=True)
            delta = (shares - np.eye(2)[y]) / 32
            pull = {"l1": strength * np.sign(w), "l2": 2 * strength * w}.get(penalty, 0)
            rate = 0.1 * (1 + np.cos(np.pi * number / 4)) / 2
            moved = [0.9 * moved[0] - rate * (x.T @ delta + pull), 0.9 * moved[1] - rate * delta.sum(axis=0)]
            w, b, number = w + moved[0], b + moved[1], number + 1
            if penalty == "proximal_l1":
                w = np.sign(w) * np.maximum(np.abs(w) - rate * strength, 0)
    np.testing.assert_allclose(found[0], w, atol=1e-6)
    np.testing.assert_allclose(found[1], b, atol=1e-6)


def test_a_network_is_trained_the_same_after_another(networks):
    examples = networks.examples(np.random.default_rng(0), *table(), standardized=True)

    def made(seed):
        rng = np.random.default_rng(seed)
        return networks.trained(rng, networks.drawn(rng, (3, 4, 2)), examples, 2)

    first, other, again = made(1), made(2), made(1)
    assert all((one == two).all() for one, two in zip(first, again, strict=True))
    assert (first[0] != other[0]).any()


def test_inputs_are_scaled_by_what_is_trained_on_and_the_constant_ones_left_out(networks):
    x, y = table(90, 4)
    x[:, 2] = 7.0
    for standardized in (True, False):
        found = networks.examples(np.random.default_rng(0), x, y, standardized)
        assert found.inputs.tolist() == [0, 1, 3] and len(found.held_x) == 30 and len(found.x) == 60
        if standardized:
            assert found.x.mean(axis=0) == pytest.approx(0) and found.x.std(axis=0) == pytest.approx(1)
        else:
            assert found.x.min(axis=0) == pytest.approx(0) and found.x.max(axis=0) == pytest.approx(1)
        both = np.concatenate([found.held_x, found.x])
        back = np.corrcoef(both[:, 0], x[np.random.default_rng(0).permutation(90), 0])[0, 1]
        assert back == pytest.approx(1)


def test_logits_loss_and_accuracy_are_what_keras_has(networks, tf):
    rng = np.random.default_rng(3)
    weights, x, y = networks.drawn(rng, (3, 5, 4)), rng.normal(size=(20, 3)), rng.integers(4, size=20)
    weights[1] += rng.normal(size=5)
    logits = tf.nn.relu(x @ weights[0] + weights[1]).numpy() @ weights[2] + weights[3]
    np.testing.assert_allclose(networks.forward(weights, x)[-1], logits)
    theirs = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)(y, logits)
    assert networks.loss(weights, x, y) == pytest.approx(float(theirs))
    assert networks.accuracy(weights, x, y) == np.mean(logits.argmax(axis=1) == y)


def test_tables_inside_scikit_learn_are_theirs(networks):
    from sklearn.datasets import load_breast_cancer

    x, y = networks.TABLES["breast_cancer"]()
    theirs = load_breast_cancer()
    assert (x == theirs.data).all() and (y == theirs.target).all()
