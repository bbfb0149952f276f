"""Gradient descent on linear regression against what linear algebra says of its course."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studies.compute import descent


def drawn(seed, examples=30, inputs=4):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(examples, inputs)), rng.normal(size=examples)
    hessian = x.T @ x / examples
    return x, y, hessian, np.linalg.solve(hessian, x.T @ y / examples)


@settings(max_examples=20)
@given(st.integers(0, 100), st.floats(0.01, 1.0), st.integers(1, 8))
def test_after_some_steps_it_is_where_the_closed_form_says(seed, rate, steps):
    """w(t) - w* = (I - ηH)^t (w(0) - w*)."""
    x, y, hessian, solution = drawn(seed)
    w, made = descent.descend(x, y, rate, 0.0, steps, solution)
    expected = solution - np.linalg.matrix_power(np.eye(4) - rate * hessian, made) @ solution
    assert np.allclose(w, expected, atol=1e-9 * max(1, np.abs(expected).max()))


def test_momentum_goes_on_with_a_part_of_the_last_step():
    x, y, hessian, solution = drawn(0)
    first, _ = descent.descend(x, y, 0.1, 0.5, 1, solution)
    second, made = descent.descend(x, y, 0.1, 0.5, 2, solution)
    assert made == 2 and np.allclose(second, first + 0.5 * first - 0.1 * hessian @ (first - solution))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.98, 1.02, 1.2])
def test_it_converges_below_the_threshold_and_not_above(rate):
    for seed in range(3):
        found = descent.linear_regression(np.random.default_rng(seed), rate)
        assert found["converged"] == (rate < 1) and found["agrees"] == 1
        assert found["excess"] >= 0 and found["condition"] > 1
        assert (found["distance"] < 1e-6) == (rate < 1) and found["steps_made"] < 5000


@pytest.mark.parametrize(("rate", "converged"), [(1.2, 1), (1.85, 1), (1.95, 0)])
def test_the_heavy_ball_is_stable_up_to_one_and_beta_times_that(rate, converged):
    found = descent.linear_regression(np.random.default_rng(0), rate, momentum=0.9)
    assert found["converged"] == converged and found["agrees"] == 1 - converged


def test_what_has_not_got_there_has_not_converged():
    found = descent.linear_regression(np.random.default_rng(0), 0.1, steps=3)
    assert (found["steps_made"], found["converged"], found["agrees"]) == (3, 0, 0)
