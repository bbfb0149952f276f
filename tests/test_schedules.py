"""Every schedule against its formula, step by step, and against Keras's where Keras has it."""

import inspect
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studies.factors import schedules

STEPS, EPOCH = 200, 20
BUILDERS = {
    name: found
    for name, found in vars(schedules).items()
    if callable(found)
    and not name.startswith("_")
    and found.__module__ == "studies.factors.schedules"
    and name != "in_steps"
}
WARMED = sorted(name for name, builder in BUILDERS.items() if "warmup" in inspect.signature(builder).parameters)
lengths = st.integers(1, 2000)


def factors(schedule, steps=STEPS, epoch=EPOCH):
    return schedule(np.arange(steps), steps, epoch)


def cosine_down(t, final):
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * t))


def restarts(step, period, growth, decay, final):
    number = 0
    while step >= period:
        step, period, number = step - period, period * growth, number + 1
    return decay**number * cosine_down(step / period, final)


def triangle(step, period):
    return 1 - abs(2 * (step % period) / period - 1)


FORMULAS = {
    "constant": ({}, lambda s: 1),
    "step": ({"factor": 0.2, "at": [0.25, "6 epochs"]}, lambda s: 0.2 ** ((s >= 50) + (s >= 120))),
    "exponential": ({"final": 0.05}, lambda s: 0.05 ** (s / STEPS)),
    "polynomial": ({"power": 2.0, "final": 0.1}, lambda s: 0.1 + 0.9 * (1 - s / STEPS) ** 2),
    "inverse_sqrt": ({"scale": "2 epochs"}, lambda s: (1 + s / 40) ** -0.5),
    "cosine": ({"final": 0.2}, lambda s: cosine_down(s / STEPS, 0.2)),
    "cosine_restarts": (
        {"period": "1 epoch", "growth": 2.0, "decay": 0.5, "final": 0.1},
        lambda s: restarts(s, 20, 2, 0.5, 0.1),
    ),
    "triangular": ({"period": 0.25, "low": 0.1}, lambda s: 0.1 + 0.9 * triangle(s, 50)),
    "triangular2": ({"period": 0.25, "low": 0.1}, lambda s: 0.1 + 0.9 * triangle(s, 50) / 2 ** (s // 50)),
    "exp_range": (
        {"period": "2 epochs", "low": 0.2, "final": 0.01},
        lambda s: 0.2 + 0.8 * triangle(s, 40) * 0.01 ** (s / STEPS),
    ),
    "one_cycle": (
        {"peak": 0.3, "start": 0.04, "final": 0.001},
        lambda s: 0.04 + 0.96 * (1 - math.cos(math.pi * s / 60)) / 2 if s < 60 else cosine_down((s - 60) / 139, 0.001),
    ),
    "plateau": ({}, lambda s: 1),
    "range_test": ({"low": 0.001}, lambda s: math.exp(math.log(0.001) * (1 - s / (STEPS - 1)))),
}


def test_every_schedule_has_its_formula_here():
    assert FORMULAS.keys() == BUILDERS.keys()


@pytest.mark.parametrize("name", FORMULAS)
def test_a_schedule_follows_its_formula(name):
    settings, formula = FORMULAS[name]
    expected = [formula(step) for step in range(STEPS)]
    np.testing.assert_allclose(factors(BUILDERS[name](**settings)), expected, atol=1e-12)


@pytest.mark.parametrize("growth", [1.0, 1.5, 2.0, 3.0])
def test_restarts_of_any_growth_follow_their_recursion(growth):
    expected = [restarts(step, 10, growth, 0.9, 0) for step in range(STEPS)]
    actual = factors(schedules.cosine_restarts(period=0.05, growth=growth, decay=0.9))
    np.testing.assert_allclose(actual, expected, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "settings", "keras_name", "keras_settings"),
    [
        ("exponential", {"final": 0.1}, "ExponentialDecay", {"decay_steps": STEPS, "decay_rate": 0.1}),
        (
            "polynomial",
            {"power": 1.5, "final": 0.2},
            "PolynomialDecay",
            {"decay_steps": STEPS, "end_learning_rate": 0.2, "power": 1.5},
        ),
        ("cosine", {"final": 0.1}, "CosineDecay", {"decay_steps": STEPS, "alpha": 0.1}),
        (
            "cosine_restarts",
            {"period": "1 epoch", "decay": 0.8, "final": 0.0},
            "CosineDecayRestarts",
            {"first_decay_steps": EPOCH, "t_mul": 2.0, "m_mul": 0.8},
        ),
    ],
)
def test_a_schedule_equals_that_of_keras(tf, name, settings, keras_name, keras_settings):
    import keras

    from studies.train.parts import fractions

    same = getattr(keras.optimizers.schedules, keras_name)(initial_learning_rate=1.0, **keras_settings)
    np.testing.assert_allclose(factors(BUILDERS[name](**settings)), fractions(same, STEPS, EPOCH), atol=2e-6)


def test_steps_equal_the_piecewise_constants_of_keras(tf):
    import keras

    from studies.train.parts import fractions

    same = keras.optimizers.schedules.PiecewiseConstantDecay([99, 149], [1.0, 0.1, 0.01])  # Keras counts up to and with
    np.testing.assert_allclose(factors(schedules.step()), fractions(same, STEPS, EPOCH), rtol=1e-6)


@pytest.mark.parametrize("warmup, final", [(0.25, 0), (0.5, 0.1)])
def test_a_warmed_cosine_equals_that_of_keras(tf, warmup, final):
    import keras

    steps, climb = 80, round(80 * warmup)
    same = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0, decay_steps=steps - climb, alpha=final, warmup_target=1.0, warmup_steps=climb
    )
    ours = factors(schedules.cosine(final, warmup=warmup), steps)
    # Keras starts its warmup at zero, and so trains nothing in the first step; ours is a step ahead until the top.
    theirs = [float(same(step + 1 if step < climb else step)) for step in range(steps)]
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("name", WARMED)
@pytest.mark.parametrize("warmup", [0.3, "3 epochs"])
def test_a_warmup_climbs_to_one_and_leaves_the_rest_to_the_schedule(name, warmup):
    settings, _ = FORMULAS[name]
    warm = factors(BUILDERS[name](**settings, warmup=warmup))
    climb = 60
    np.testing.assert_allclose(warm[:climb], np.arange(1, climb + 1) / climb)
    rest = factors(BUILDERS[name](**settings), STEPS - climb)
    np.testing.assert_array_equal(warm[climb:], rest)


def test_all_but_those_with_a_rise_of_their_own_take_a_warmup():
    assert BUILDERS.keys() - WARMED == {"one_cycle", "range_test"}


@given(
    st.sampled_from(sorted(BUILDERS)), lengths, st.integers(1, 100), st.sampled_from([0.0, 0.3, "2 epochs", "9 epochs"])
)
def test_factors_stay_between_zero_and_one_however_short_the_run(name, steps, epoch, warmup):
    settings = {"warmup": warmup} if name in WARMED else {}
    values = factors(BUILDERS[name](**settings), steps, epoch)
    assert values.shape == (steps,)
    assert (values >= 0).all() and (values <= 1 + 1e-12).all()


@given(lengths.filter(lambda steps: steps > 2))
def test_a_cycle_is_full_at_its_peak_and_ends_at_its_end(steps):
    values = factors(schedules.one_cycle(peak=0.3, final=0.001), steps)
    assert values.max() == pytest.approx(1) and values[-1] == pytest.approx(0.001)


@given(lengths.filter(lambda steps: steps > 2), st.sampled_from([0.0, 0.85]))
def test_momentum_mirrors_the_rate_of_a_cycle(steps, low):
    schedule = schedules.one_cycle(peak=0.3, start=0.0, final=0.0, low_momentum=low)
    momenta = schedule.momentum(np.arange(steps), steps, EPOCH, 0.95)
    np.testing.assert_allclose((0.95 - momenta) / (0.95 - low), factors(schedule, steps), atol=1e-12)
    assert not hasattr(schedules.one_cycle(), "momentum")


@given(
    st.lists(st.floats(0, 3).map(lambda loss: round(loss, 1)), max_size=40),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.1, 0.25]),
    st.sampled_from([0.0, 0.3]),
)
def test_a_plateau_lowers_the_rate_when_keras_does(tf, losses, patience, threshold, warmup):
    import keras

    schedule = schedules.plateau(factor=0.5, patience=patience, threshold=threshold, warmup=warmup)
    settings = dict(factor=0.5, patience=patience, min_delta=threshold, min_lr=0.0)
    callback = keras.callbacks.ReduceLROnPlateau(**settings)
    callback.set_model(keras.Sequential())
    callback.model.optimizer = keras.optimizers.SGD(1.0)
    callback.on_train_begin()
    factor = 1.0
    for epoch, loss in enumerate(losses):
        callback.on_epoch_end(epoch, {"val_loss": loss})
        factor *= schedule.feedback(loss)
        assert factor == pytest.approx(float(callback.model.optimizer.learning_rate.numpy()))
