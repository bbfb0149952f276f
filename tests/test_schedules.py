import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studies.schedules import constant, cosine

shares = st.floats(0, 1)
lengths = st.integers(1, 2000)


@given(lengths)
def test_constant_is_one_throughout(steps):
    np.testing.assert_array_equal(constant()(np.arange(steps), steps), np.ones(steps))


@pytest.mark.parametrize("warmup, final", [(0, 0), (0.1, 0), (0.25, 0.2)])
def test_cosine_follows_its_formula(warmup, final):
    steps, climb = 200, round(200 * warmup)
    rising = [(step + 1) / climb for step in range(climb)]
    falling = [
        final + (1 - final) * 0.5 * (1 + np.cos(np.pi * (step - climb) / (steps - climb)))
        for step in range(climb, steps)
    ]
    np.testing.assert_allclose(cosine(warmup, final)(np.arange(steps), steps), rising + falling, atol=1e-12)


@pytest.mark.parametrize("warmup, final", [(0, 0), (0, 0.1), (0.25, 0), (0.5, 0.1)])
def test_cosine_equals_that_of_keras(tf, warmup, final):
    import keras

    steps, climb = 80, round(80 * warmup)
    same = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if climb else 1.0,
        decay_steps=steps - climb,
        alpha=final,
        warmup_target=1.0 if climb else None,
        warmup_steps=climb,
    )
    ours = cosine(warmup, final)(np.arange(steps), steps)
    # Keras starts its warmup at zero, and so trains nothing in the first step; ours is a step ahead until the top.
    theirs = [float(same(step + 1 if step < climb else step)) for step in range(steps)]
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@given(lengths, shares.filter(lambda share: share < 1), shares)
def test_cosine_climbs_to_one_then_falls_and_stays_within_bounds(steps, warmup, final):
    factors = cosine(warmup, final)(np.arange(steps), steps)
    climb = round(warmup * steps)
    assert factors.shape == (steps,)
    assert (factors >= 0).all() and (factors <= 1).all() and (factors[climb:] >= final - 1e-12).all()
    assert (np.diff(factors[:climb]) > 0).all() and (np.diff(factors[climb:]) <= 0).all()
    assert factors[max(0, climb - 1)] == 1


@given(lengths, shares)
def test_cosine_ends_just_above_its_final_factor(steps, final):
    end = cosine(0.0, final)(np.array([steps - 1, steps]), steps)
    assert end[1] == pytest.approx(final)
    assert end[0] >= end[1]
