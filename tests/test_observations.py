import functools

import numpy as np
import pytest

from studies.contract import STATISTICS, charted
from studies.record import EpochRecord

TINY = ("model.depth=1", "model.width=8", "data.train_size=300", "training.epochs=2")
NOISY = ("model.normalization=batch", "model.dropout=0.3", "optimizer=adam", "regularizer=l2")
RNN = ("model=row_rnn", "model.cell=lstm", "model.width=4", "data.train_size=200", "training.epochs=1")
ONE_STEP = ("training.batch_size=200",)


@pytest.fixture(scope="module")
def run(tf, trial_of):
    """A function from Hydra overrides to a trial's epochs, layers and result, and all that it ends with."""
    from studies.train import parts, trial

    @functools.cache
    def ran(*overrides):
        made = trial_of(overrides)
        *records, result = trial.run(made)
        epochs = [record for record in records if isinstance(record, EpochRecord)]
        layers = [row for record in records if isinstance(record, list) for row in record]
        engine, _ = next(reversed(parts._engines.values()))
        return epochs, layers, result, [variable.numpy() for variable in engine.variables]

    return ran


def rows(layers):
    """(layer, tensor, epoch) -> statistics by name."""
    return {(r.layer, r.tensor, r.epoch): dict(zip(STATISTICS, r.statistics, strict=True)) for r in layers}


def trained(epochs, result):
    """All numbers that training makes, as text, in which NaN equals NaN."""
    curves = [(e.running_loss, e.running_accuracy, e.val_loss, e.val_accuracy) for e in epochs]
    ends = {name: value for name, value in vars(result).items() if name.endswith(("loss", "accuracy"))}
    return repr((curves, ends))


@pytest.mark.parametrize(
    "settings",
    [(*TINY, *NOISY, "engine.xla=false"), (*TINY, "engine.xla=true")],
    ids=["dropout and batch normalization", "xla"],
)
def test_a_trial_trains_alike_to_the_bit_whatever_is_observed(run, settings):
    without, layers, result, state = run(*settings, "diagnostics=off")
    assert layers == []
    for tier in ("standard", "full"):
        epochs, layers, other, ends = run(*settings, f"diagnostics={tier}")
        assert trained(epochs, other) == trained(without, result) and layers
        for one, another in zip(state, ends, strict=True):
            np.testing.assert_array_equal(one, another)


def test_the_extremes_of_steps_are_those_of_all_epochs_and_change_nothing(run):
    settings = (*TINY, *NOISY, "engine.xla=false", "diagnostics=off")
    without, _, result, state = run(*settings)
    epochs, layers, other, ends = run(*settings, "+diagnostics.extremes=true")
    assert trained(epochs, other) == trained(without, result) and layers == []
    assert all(np.array_equal(one, another) for one, another in zip(state, ends, strict=True))
    most = [epoch.update_ratio_max for epoch in epochs]
    assert np.isnan(most[0]) and max(most[1:]) > other.update_ratio_q999 > 0
    assert np.isnan([without[-1].update_ratio_max, result.update_ratio_q999]).all()


def test_steps_that_are_not_finite_are_no_extremes(run):
    wild = ("optimizer=sgd", "optimizer.learning_rate=1e12", "diagnostics=off", "+diagnostics.extremes=true")
    epochs, _, result, _ = run(*TINY, *wild)
    assert result.status == "diverged" and 1e3 < result.update_ratio_q999 <= epochs[-1].update_ratio_max < np.inf


def test_the_tiers_agree_on_what_both_observe_and_full_adds_the_ends(run):
    standard, full = (run(*TINY, *NOISY, "engine.xla=false", f"diagnostics={tier}") for tier in ("standard", "full"))
    added = {"effective_rank", "condition_number", "spectrum_alpha"}
    few, many = rows(standard[1]), rows(full[1])
    assert few.keys() == many.keys()
    for place, row in few.items():
        _, tensor, epoch = place
        for name, value in row.items():
            gained = epoch in (0, 2) and (name in added if tensor == "kernel" else name == "gradient_norm")
            if not gained or tensor not in ("kernel", "output"):
                np.testing.assert_equal(many[place][name], value, err_msg=f"{place} {name}")
    kernel, output = many["dense_1", "kernel", 2], many["activation_1", "output", 2]
    assert kernel["spectral_norm"] > 0 and 1 <= kernel["effective_rank"] <= 8 and output["gradient_norm"] > 0
    assert ("norm_1", "moving_variance", 2) in many and ("dropout_1", "output", 2) not in many
    first, middle, last = full[0]
    for name in ("sharpness", "jacobian_max", "jacobian_median", "jacobian_min"):
        assert getattr(first, name) > 0 and getattr(last, name) > 0 and np.isnan(getattr(middle, name)), name
    assert all(np.isnan(epoch.sharpness) for epoch in standard[0])


def test_what_layers_give_and_train_scores_are_had_at_a_dozen_epochs_and_the_last(run):
    epochs, layers, _, _ = run(*TINY, "engine.xla=false", "training.epochs=16", "diagnostics.observe_every=2")
    outputs = [r.epoch for r in layers if (r.layer, r.tensor) == ("dense_1", "output")]
    kernels = {r.epoch: r for r in layers if (r.layer, r.tensor) == ("dense_1", "kernel")}
    assert outputs == sorted(charted([*range(0, 16, 2), 16])) and list(kernels) == [*range(0, 17, 2)]
    assert [e.epoch for e in epochs if np.isfinite(e.train_loss)] == outputs
    for record in kernels.values():
        assert sum(record.density) == 64 * 8


def test_gates_have_the_norms_of_their_part_of_the_kernel(run):
    _, layers, _, _ = run(*RNN, *ONE_STEP)
    found = rows(layers)
    for tensor in ("kernel", "recurrent_kernel"):
        whole = found["rnn_1/lstm_cell", tensor, 1]
        gates = [found["rnn_1/lstm_cell", f"{tensor}.{gate}", 1] for gate in ("input", "forget", "cell", "output")]
        for name in ("gradient_norm", "update_norm", "l2"):
            assert np.linalg.norm([gate[name] for gate in gates]) == pytest.approx(whole[name], rel=1e-5)
        starts = [found["rnn_1/lstm_cell", f"{tensor}.{gate}", 0] for gate in ("input", "forget", "cell", "output")]
        moved = [gate["distance"] * start["l2"] for gate, start in zip(gates, starts, strict=True)]  # in the one step
        np.testing.assert_allclose([gate["update_norm"] for gate in gates], moved, rtol=1e-4)
        assert all(gate["spectral_norm"] < whole["spectral_norm"] for gate in gates)
    assert ("rnn_1", "output", 1) in found


def test_a_trial_that_diverges_has_flags_and_no_numbers(run):
    epochs, layers, result, _ = run(*TINY, "engine.xla=false", "optimizer.learning_rate=1e30", "diagnostics=full")
    assert result.status == "diverged"
    last = [record for record in layers if record.epoch == epochs[-1].epoch]
    flagged = [record for record in last if record.warning == "not finite"]
    assert {record.tensor for record in flagged} >= {"kernel", "output"}
    step = {STATISTICS.index(name) for name in ("gradient_norm", "update_norm")}
    for record in flagged:
        assert all(np.isnan(v) for place, v in enumerate(record.statistics) if place not in step)
        assert record.density == ()
    assert np.isnan([epochs[-1].sharpness, epochs[-1].noise_scale, epochs[-1].jacobian_max]).all()
    assert not any(record.warning for record in layers if record.epoch == 0)


def test_networks_with_large_outputs_are_looked_at_with_fewer_examples(run, trial_of, monkeypatch):
    from studies.train import observations, parts

    made = trial_of((*TINY, "engine.xla=false"))
    each = 4 * (8 + 10)  # a layer of 8, and logits
    monkeypatch.setattr(observations, "PROBE_BYTES", 100 * each + 1)
    monkeypatch.setattr(observations, "LOSS_BYTES", 40 * each)
    built = parts.Parts(made)
    seen = observations.Observations(made, built)
    assert (len(seen.order), len(seen.many)) == (100, 40)
    assert set(seen.order) <= set(built.examples.split.train)


def test_weights_are_taken_at_the_epochs_due_however_few_fit(run, monkeypatch):
    from studies.train import observations

    monkeypatch.setattr(observations, "OBSERVATION_BYTES", 0)
    _, layers, _, _ = run(*TINY, "engine.xla=false", "training.epochs=5", "diagnostics.observe_every=2")
    assert [r.epoch for r in layers if (r.layer, r.tensor) == ("dense_1", "kernel")] == [0, 2, 4, 5]


def test_a_layer_that_counts_its_calls_is_put_back(tf):
    import keras

    from studies.train.engine import Engine

    class Counts(keras.layers.Layer):
        def build(self, shape):
            self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False, name="calls")

        def call(self, x):
            self.calls.assign_add(1.0)
            return x

    model = keras.Sequential([keras.Input((4,)), Counts(), keras.layers.Dense(3, "relu"), keras.layers.Dense(2)])
    engine, rng = Engine(model, keras.optimizers.SGD()), np.random.default_rng(0)
    x, y = tf.constant(rng.normal(size=(80, 4)).astype(np.float32)), tf.constant(rng.integers(0, 2, 80))
    model.layers[0].calls.assign(5.0)
    data, order = (tf.ones(4), tf.zeros(4)), np.arange(70, dtype=np.int32)
    engine.probe.look(x, *data, order)
    engine.probe.gradients(x, y, *data, order)
    found = engine.probe.surroundings(x, y, *data, order, rng)
    assert float(model.layers[0].calls.numpy()) == 5 and np.isfinite(found["sharpness"])


def test_the_key_tells_the_tiers_apart_and_not_their_names(trial_of):
    keys = {tier: trial_of((f"diagnostics={tier}",)).key for tier in ("off", "none", "standard", "full")}
    assert keys["off"] == keys["none"] and len(set(keys.values())) == 3
    assert keys["standard"] == trial_of(()).key
