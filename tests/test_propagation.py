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
