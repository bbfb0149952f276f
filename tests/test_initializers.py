"""The initializers that Keras lacks, against what defines them."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def initializers(tf):
    from studies.factors import initializers

    return initializers


def build(initializers, name, seed=3):
    settings = {
        "scaled": dict(initializer="he_normal", gain=0.5),
        "sparse": dict(connections=4, stddev=2.0),
        "delta_orthogonal": dict(gain=2.0),
        "LSUV": dict(tolerance=0.05, trials=10),
    }[name]
    return getattr(initializers, name)(**settings, seed=seed)


@pytest.mark.parametrize("name", ["scaled", "sparse", "delta_orthogonal", "LSUV"])
@pytest.mark.parametrize("shape", [(20, 30), (3, 3, 4, 8)])
def test_a_draw_has_its_shape_and_depends_on_its_seed_alone(initializers, name, shape):
    first, again, other = (np.asarray(build(initializers, name, seed)(shape)) for seed in (3, 3, 4))
    assert first.shape == shape and first.dtype == np.float32
    assert first.tobytes() == again.tobytes() != other.tobytes()


def test_a_scaled_draw_is_the_draw_times_its_gain(initializers):
    import keras

    whole = keras.initializers.HeNormal(seed=3)((20, 30))
    np.testing.assert_array_equal(build(initializers, "scaled")((20, 30)), 0.5 * np.asarray(whole))


@pytest.mark.parametrize("shape", [(50, 400), (5, 5, 2, 400)])
def test_a_sparse_unit_has_its_few_connections(initializers, shape):
    weights = build(initializers, "sparse")(shape).reshape(50, 400)
    assert ((weights != 0).sum(axis=0) == 4).all()
    assert weights[weights != 0].std() == pytest.approx(2, rel=0.1)
    assert (weights != 0).any(axis=1).all()
    assert (build(initializers, "sparse")((3, 10)) != 0).all()


@pytest.mark.parametrize("window", [(3, 3), (5, 5), (1, 1)])
def test_a_delta_orthogonal_convolution_keeps_norms(tf, initializers, window):
    kernel = build(initializers, "delta_orthogonal")((*window, 4, 8))
    images = np.random.default_rng(0).normal(size=(2, 6, 6, 4)).astype(np.float32)
    outputs = tf.nn.conv2d(images, kernel, 1, "SAME").numpy()
    np.testing.assert_allclose(np.linalg.norm(outputs, axis=-1), 2 * np.linalg.norm(images, axis=-1), rtol=1e-5)


def test_a_delta_orthogonal_matrix_is_orthogonal(initializers):
    matrix = build(initializers, "delta_orthogonal")((6, 9))
    np.testing.assert_allclose(matrix @ matrix.T, 4 * np.eye(6), atol=1e-5)


@pytest.mark.parametrize("make", ["mlp", "cnn"])
def test_lsuv_gives_every_layer_outputs_of_variance_one(tf, initializers, make):
    import keras

    from studies.factors import models

    if make == "mlp":
        settings = dict(depth=6, width=32, activation="relu", normalization="none", dropout=0.0)
    else:
        settings = dict(filters=[4, 8], kernel_size=3, padding="same", dense=16, activation="relu")
        settings |= dict(normalization="none", spatial_dropout=0.0, dropout=0.0)
    model = getattr(models, make)((8, 8, 1), 10, **settings)
    images = np.random.default_rng(0).normal(size=(200, 8, 8, 1)).astype(np.float32)
    for layer in model.layers:
        if layer.weights:
            layer.kernel.assign(5 * np.asarray(build(initializers, "LSUV")(layer.kernel.shape)))
    build(initializers, "LSUV").adapt(model, images)
    layers = [layer for layer in model.layers if layer.weights]
    assert all(layer.activation is keras.activations.relu for layer in layers[:-1])
    signal = keras.Model(model.inputs, [layer.input for layer in layers])(images)
    for layer, inputs in zip(layers, signal, strict=True):
        layer.activation = keras.activations.linear
        assert float(keras.ops.var(layer(inputs))) == pytest.approx(1, abs=0.06), layer.name
