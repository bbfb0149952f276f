import numpy as np
import pytest

from studies.contract import STATISTICS

X = np.random.default_rng(0).normal(size=(16, 8, 8, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def activations(tf):
    from studies.observe import activations

    return activations


def columns(activations, entries, bounds=None):
    return dict(zip(STATISTICS, activations.statistics([activations.measured(entries, bounds)])[0], strict=True))


@pytest.mark.parametrize("size", [1.0, 1e-30, 1e30])
@pytest.mark.parametrize("shape", [(32, 6), (4, 5, 5, 3), (7,)])
def test_every_statistic_equals_its_definition(activations, shape, size):
    entries = np.maximum(np.random.default_rng(1).normal(size=shape), 0).astype(np.float32) * np.float32(size)
    found, wide = columns(activations, entries), entries.astype(float)
    expected = {"mean": wide.mean(), "sd": wide.std(), "min": wide.min(), "max": wide.max(), "l2": np.linalg.norm(wide)}
    expected |= {"max_norm": wide.max(), "q50": np.quantile(wide, 0.5), "q95": np.quantile(wide, 0.95)}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-4, abs=1e-6 * size), name
    assert found["sparsity_0"] == pytest.approx((entries == 0).mean())
    assert np.isnan([found[name] for name in ("saturated", "distance", "gradient_norm", "spectral_norm")]).all()


def test_a_unit_is_dead_that_gives_zero_everywhere(activations):
    entries = np.random.default_rng(0).random((8, 3, 3, 4)).astype(np.float32)
    entries[..., 1] = 0
    entries[:7, ..., 2] = 0  # alive for one example
    assert columns(activations, entries)["dead"] == 0.25


def test_saturated_is_what_lies_within_a_hundredth_of_the_range_of_a_bound(activations):
    entries = np.float32([[-1, -0.981, -0.979, 0, 0.5, 0.979, 0.99, 1]])
    assert columns(activations, entries, (-1, 1))["saturated"] == pytest.approx(4 / 8)
    assert columns(activations, entries, (0, 1))["saturated"] == pytest.approx(6 / 8)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_not_finite_have_no_statistics(activations, bad):
    entries = np.ones((4, 3), np.float32)
    entries[2, 1] = bad
    assert np.isnan(list(columns(activations, entries).values())).all()


def test_a_sample_meets_every_unit_alike(activations):
    count = 256 * 24 * 24 * 32
    step = activations.stride(count)
    units = np.arange(0, count, step) % 32
    assert len(units) <= activations.SAMPLE
    shares = np.bincount(units, minlength=32) / len(units)
    assert np.ptp(shares) < 1e-3


@pytest.fixture(scope="module")
def nested(tf):
    """A model with a layer of every kind, some of them inside others, and a residual."""
    import keras
    from keras import layers

    inputs = keras.Input((8, 8, 1))
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(inputs)
    x = layers.Conv2D(4, 3, activation="tanh", name="conv")(x)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(x))
    x = layers.Reshape((-1, 4))(x)
    x = x + layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = layers.LSTM(5, return_sequences=True, unroll=True, name="lstm")(x)
    x = layers.Bidirectional(layers.GRU(3, name="gru"), name="both")(x)
    inner = keras.Sequential(
        [keras.Input((6,)), layers.Dense(3, "sigmoid", name="gate"), layers.Dropout(0.5)], name="inner"
    )
    return keras.Model(inputs, layers.Dense(2, name="logits")(inner(x)))


def given(tf, activations, model):
    """Layer -> what it gives for X, from a graph."""
    outputs, names = activations.Outputs(model), []

    def look(x):
        found = outputs(x)
        names[:] = [output.layer for output in found]
        return [output.tensor for output in found]

    return dict(zip(names, tf.function(look, autograph=False)(X), strict=True))


def test_the_outputs_of_nested_models_loops_and_attention_are_there_in_order(tf, activations, nested):
    expected = nested(X, training=False)
    before = {layer.name: dict(vars(layer)) for layer in nested._flatten_layers()}
    found = given(tf, activations, nested)
    for layer in nested._flatten_layers():  # listening leaves the model as it was
        assert "call" not in vars(layer) and vars(layer).keys() == before[layer.name].keys()
    assert list(found) == [
        *("depthwise", "conv", "norm", "relu"),
        *(f"attention/{part}" for part in ("query", "key", "value", "attention_output")),
        *("lstm", "both/forward_gru", "both/backward_gru", "inner/gate", "logits"),
    ]
    np.testing.assert_allclose(found["logits"], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["relu"], np.maximum(found["norm"], 0))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_is_measured_too(tf, activations, policy):
    import keras

    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(5, "tanh", name="first", dtype=policy),
            keras.layers.Dense(2, name="last", dtype="float32"),
        ]
    )
    found = given(tf, activations, model)
    assert found["first"].dtype == policy.removeprefix("mixed_")
    entries = tf.cast(found["first"], tf.float32).numpy()
    kernel, bias = (v.numpy() for v in model.layers[1].variables)
    exact = np.tanh(X.reshape(16, -1) @ kernel + bias)
    assert columns(activations, entries, (-1, 1))["sd"] == pytest.approx(exact.std(), rel=0.02)


def test_a_subclassed_model_is_watched(tf, activations):
    import keras

    class Own(keras.Model):
        def __init__(self):
            super().__init__(name="own")
            self.first, self.last = keras.layers.Dense(3, "relu", name="first"), keras.layers.Dense(2, name="last")

        def call(self, x):
            return self.last(self.first(keras.ops.reshape(x, (-1, 64))))

    model = Own()
    model(X)
    assert list(given(tf, activations, model)) == ["first", "last"]


def test_recurrent_kernels_have_a_row_a_gate_and_running_statistics_come_last(nested):
    from studies.observe.tensors import running, tensors

    found = tensors(nested)
    by_name = {(t.layer, t.tensor): t for t in found}
    flat = np.concatenate([v.numpy().ravel() for v in (*nested.trainable_variables, *running(nested))])[None]
    lstm = next(layer for layer in nested.layers if layer.name == "lstm").cell
    for place, gate in enumerate(("input", "forget", "cell", "output")):
        entries = by_name["lstm/lstm_cell", f"recurrent_kernel.{gate}"].of(flat)[0]
        np.testing.assert_array_equal(entries, lstm.recurrent_kernel.numpy()[:, 5 * place : 5 * place + 5].ravel())
    gru = next(v for v in nested.variables if v.path.endswith("forward_gru/gru_cell/kernel")).numpy()
    reset = by_name["both/forward_gru/gru_cell", "kernel.reset"]
    np.testing.assert_array_equal(reset.of(flat)[0], gru[:, 3:6].ravel())
    assert [(t.layer, t.tensor) for t in found[-2:]] == [("norm", "moving_mean"), ("norm", "moving_variance")]
    np.testing.assert_array_equal(by_name["norm", "moving_variance"].of(flat)[0], 1)
    shapes = {name: t.layout and (len(t.layout.matrix(t.of(flat)[0])), t.layout.columns) for name, t in by_name.items()}
    assert shapes["attention/query", "kernel"] == (4, 6) and shapes["attention/attention_output", "kernel"] == (6, 4)
    assert shapes["depthwise", "kernel"] == (9, 2) and shapes["lstm/lstm_cell", "kernel.cell"] == (4, 5)
    assert shapes["norm", "gamma"] is None and shapes["both/forward_gru/gru_cell", "bias"] is None
