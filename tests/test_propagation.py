"""Gradients through untrained networks against closed forms."""

import math

import numpy as np
import pytest


@pytest.fixture(scope="module")
def slope(tf):
    from studies.compute.propagation import gradient_slope

    return lambda seed=0, **inputs: gradient_slope(np.random.default_rng(seed), **inputs)


def test_orthogonal_linear_layers_leave_the_norm_of_gradients_as_it_is(slope):
    found = slope(initializer="orthogonal", activation="linear", depth=8)
    assert found["slope"] == pytest.approx(0, abs=1e-6) and found["predicted"] == 0


@pytest.mark.parametrize(
    ("sd", "initializer"), [(0.01, "normal"), (1.0, "normal"), (0.5, "he_normal"), (0.5, "lecun_normal")]
)
def test_relu_layers_have_the_gain_that_is_predicted(slope, sd, initializer):
    found = [slope(seed, sd=sd, initializer=initializer, depth=20) for seed in range(4)]
    mean = np.mean([each["slope"] for each in found])
    assert mean == pytest.approx(found[0]["predicted"], abs=0.05)
    expected = {"normal": sd * math.sqrt(32), "he_normal": 1, "lecun_normal": math.sqrt(0.5)}[initializer]
    assert found[0]["predicted"] == pytest.approx(-math.log(expected))


def test_nothing_is_predicted_of_tanh_and_seeds_draw_others(slope):
    one, same, other = slope(1, activation="tanh"), slope(1, activation="tanh"), slope(2, activation="tanh")
    assert "predicted" not in one and one == same != other


@pytest.fixture(scope="module")
def variances(tf):
    from studies.compute.propagation import variances

    return lambda seed=0, **inputs: variances(np.random.default_rng(seed), **inputs)


@pytest.mark.parametrize(
    ("initializer", "activation", "gain"),
    [
        ("normal", "relu", 128 * 0.05**2 / 2),
        ("he_normal", "relu", 1.0),
        ("glorot_normal", "relu", 0.5),
        ("normal", "linear", 128 * 0.05**2),
        ("he_normal", "linear", 2.0),
    ],
)
def test_a_layers_factor_is_predicted_in_closed_form_and_measured(variances, initializer, activation, gain):
    found = [variances(seed, initializer=initializer, activation=activation, depth=12) for seed in range(3)]
    for name in ("forward_gain", "gradient_gain"):
        assert found[0][f"predicted_{name}"] == pytest.approx(gain, rel=1e-6), name
        assert np.exp(np.mean([np.log(each[name]) for each in found])) == pytest.approx(gain, rel=0.08), name


def test_orthogonal_layers_follow_the_prediction_of_tanh_layer_by_layer(variances):
    found = variances(initializer="orthogonal", activation="tanh", depth=20)
    assert found["forward_off"] < 0.02 and found["gradient_off"] < 0.03
    small = variances(initializer="normal", sd=1e-4, activation="tanh", depth=6)
    assert small["predicted_forward_gain"] == pytest.approx(128e-8, rel=1e-3)  # near linear
    assert found["forward__1"] == pytest.approx(0, abs=0.02) and found["gradient__20"] == 0


def test_gradients_that_are_zero_and_variances_of_no_size_are_numbers_still(variances):
    found = variances(initializer="normal", sd=1e-9, activation="relu", depth=30)
    assert np.isfinite(list(found.values())).all()
