import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

DIGITS, MNIST = (8, 8, 1), (28, 28, 1)
MLP = dict(depth=2, width=64, activation="relu", normalization="none", dropout=0.0)
CNN = dict(filters=[16, 32], kernel_size=5, padding="same", dense=64, activation="relu", dropout=0.0) | dict(
    normalization="none", spatial_dropout=0.0
)
VGG = dict(filters=[32, 64, 128], dense=128, activation="relu", normalization="none", spatial_dropout=0.0, dropout=0.0)
NORMALIZATIONS = ("none", "batch", "layer", "group", "rms", "weight")


@pytest.fixture(scope="session")
def models(tf):
    from studies.factors import models

    return models


def names(model):
    return [layer.name for layer in model.layers[1:]]


def test_lenet_300_100_has_the_parameters_of_the_paper(models):
    model = models.lenet_300_100(MNIST, 10, activation="relu")
    assert model.count_params() == 266_610
    assert [layer.units for layer in model.layers if hasattr(layer, "units")] == [300, 100, 10]


@settings(max_examples=10)
@given(st.integers(1, 6), st.integers(1, 20), st.integers(2, 5), st.booleans())
def test_an_mlp_has_a_matrix_between_each_two_layers(models, depth, width, classes, batch_norm):
    model = models.mlp(
        DIGITS, classes, **MLP | dict(depth=depth, width=width, normalization="batch" if batch_norm else "none")
    )
    sizes = [64, *[width] * depth, classes]
    kernels = sum(a * b for a, b in itertools.pairwise(sizes))
    own = 4 * width * depth if batch_norm else width * depth
    assert model.count_params() == kernels + own + classes


def test_a_cnn_has_a_kernel_for_each_filter(models):
    model = models.cnn(DIGITS, 10, **CNN)
    assert model.count_params() == (25 * 16 + 16) + (25 * 16 * 32 + 32) + (2 * 2 * 32 * 64 + 64) + (64 * 10 + 10)


def test_a_cnn_without_padding_shrinks_images_as_lenet_5_does(models):
    model = models.cnn(MNIST, 10, **CNN | dict(padding="valid"))
    assert [model.get_layer(f"pool_{i}").output.shape[1:] for i in (1, 2)] == [(12, 12, 16), (4, 4, 32)]


CIFAR = (32, 32, 3)
RESNET = dict(blocks=3, width=16, activation="relu", normalization="batch", shortcut=True, zero_last=False)
DEEP = dict(depth=3, width=8, activation="relu", normalization="none")
VIT = dict(patch=4, width=32, depth=2, heads=4, activation="gelu", zero_last=False)


@pytest.mark.parametrize(
    ("name", "shape", "settings", "parameters"),
    [
        ("lenet5", MNIST, dict(activation="relu"), 61_706),
        ("deep_cnn", CIFAR, DEEP, 9 * (3 * 8 + 2 * 8 * 8) + 3 * 8 + 8 * 8 * 8 * 10 + 10),
        ("c3d3", CIFAR, dict(activation="relu"), 895_210),
        ("vgg_small", CIFAR, VGG, 550_570),
        ("resnet", CIFAR, RESNET, 269_722),
        ("resnet", CIFAR, RESNET | dict(shortcut=False), 269_722),
        ("resnet", CIFAR, RESNET | dict(blocks=9), 853_018),
        ("row_rnn", MNIST, dict(cell="lstm", width=64), 4 * 64 * (28 + 64 + 1) + 650),
        ("row_rnn", MNIST, dict(cell="simple", width=64), 64 * (28 + 64 + 1) + 650),
        ("row_rnn", MNIST, dict(cell="gru", width=64), 3 * 64 * (28 + 64 + 2) + 650),
        ("row_rnn", MNIST, dict(cell="simple", width=64, pixels=7, activation="relu"), 64 * (7 + 64 + 1) + 650),
        ("vit", MNIST, VIT, 16 * 32 + 32 + 49 * 32 + 2 * (12 * 32**2 + 13 * 32) + 64 + 330),
    ],
)
def test_a_network_has_the_parameters_that_are_published(models, name, shape, settings, parameters):
    model = getattr(models, name)(shape, 10, **settings)
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == parameters
    assert model(np.zeros((2, *shape), np.float32)).shape == (2, 10)


def test_a_residual_net_without_its_convolutions_passes_its_input_on(models):
    model = models.resnet(CIFAR, 10, **RESNET | dict(normalization="none"))
    image = np.random.default_rng(0).normal(size=(1, *CIFAR)).astype(np.float32)
    for layer in model.layers:
        if layer.name.startswith("conv_") and layer.name != "conv_0":
            layer.kernel.assign(np.zeros(layer.kernel.shape))
    first = np.asarray(model.get_layer("conv_0")(image))
    logits = np.asarray(model(image)) - model.get_layer("logits").bias.numpy()
    passed = first[:, ::4, ::4].mean(axis=(1, 2))
    np.testing.assert_allclose(logits, passed @ model.get_layer("logits").kernel.numpy()[:16], rtol=1e-4, atol=1e-5)


def test_a_transformers_tokens_attend_to_one_another_and_have_places(models):
    model = models.vit(MNIST, 10, **VIT)
    image = np.random.default_rng(0).normal(size=(1, *MNIST)).astype(np.float32)
    swapped = image.copy()
    swapped[:, :4, :4], swapped[:, 4:8, :4] = image[:, 4:8, :4], image[:, :4, :4]
    assert not np.allclose(model(image), model(swapped), atol=1e-4)
    model.get_layer("positions").embedding.assign(np.zeros((49, 32)))
    np.testing.assert_allclose(model(image), model(swapped), atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"dropout": 0.5}, {"dropout": 0.5, "normalization": "batch"}])
@pytest.mark.parametrize("name", ["mlp", "lenet_300_100", "cnn"])
def test_networks_give_logits(models, name, options):
    defaults = {"mlp": MLP, "lenet_300_100": dict(activation="relu"), "cnn": CNN}[name]
    taken = {key: value for key, value in options.items() if key in defaults}
    model = getattr(models, name)(DIGITS, 7, **defaults | taken)
    logits = model(np.random.default_rng(0).normal(size=(3, *DIGITS))).numpy()
    assert logits.shape == (3, 7) and (logits < 0).any()
    assert names(model)[-1] == "logits"
    assert not np.allclose(logits.sum(axis=1), 1)


@pytest.mark.parametrize("normalization", ["none", "batch"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_deeper_mlp_keeps_the_names_of_a_shallow_one(models, normalization, dropout):
    shallow, deep = (
        names(models.mlp(DIGITS, 10, **MLP | dict(depth=depth, normalization=normalization, dropout=dropout)))
        for depth in (2, 5)
    )
    assert deep[: len(shallow) - 1] == shallow[:-1] and deep[-1] == shallow[-1]
    assert len(set(deep)) == len(deep)


def test_a_deeper_cnn_keeps_the_names_of_a_shallow_one(models):
    shallow, deep = (set(names(models.cnn(MNIST, 10, **CNN | dict(filters=filters)))) for filters in ([4], [4, 4, 4]))
    assert deep - shallow == {"conv_2", "pool_2", "conv_3", "pool_3"} and shallow < deep


def test_batch_norm_stands_between_the_matrix_and_the_activation(models):
    model = models.mlp(DIGITS, 10, **MLP | dict(depth=1, normalization="batch", dropout=0.5))
    assert names(model) == ["flatten", "dense_1", "norm_1", "activation_1", "dropout_1", "logits"]
    assert [v.path for v in model.get_layer("dense_1").variables] == ["dense_1/kernel"]


@pytest.mark.parametrize(
    ("normalization", "axes", "groups", "epsilon"),
    [("batch", (0, 1, 2), None, 1e-3), ("layer", (1, 2, 3), None, 1e-5), ("group", (1, 2, 4), 8, 1e-5)],
)
def test_a_norm_standardizes_what_it_says(models, normalization, axes, groups, epsilon):
    model = models.cnn(MNIST, 10, **CNN | dict(normalization=normalization))
    maps = np.random.default_rng(0).normal(0.3, 0.2, (5, 28, 28, 16)).astype(np.float32)
    maps *= np.geomspace(0.1, 9, 16).astype(np.float32)
    split = maps if groups is None else maps.reshape(5, 28, 28, groups, 2)
    expected = (split - split.mean(axes, keepdims=True)) / np.sqrt(split.var(axes, keepdims=True) + epsilon)
    normed = np.asarray(model.get_layer("norm_1")(maps, training=True))
    np.testing.assert_allclose(normed, expected.reshape(maps.shape), rtol=1e-4, atol=1e-4)
    assert model.get_layer("conv_1").bias is None


def test_rms_normalization_divides_by_the_root_mean_square_and_keeps_the_bias(models):
    model = models.mlp(DIGITS, 10, **MLP | dict(normalization="rms"))
    values = np.random.default_rng(0).normal(3, 2, (5, 64)).astype(np.float32)
    expected = values / np.sqrt(np.mean(values**2, axis=1, keepdims=True))
    np.testing.assert_allclose(model.get_layer("norm_1")(values), expected, rtol=1e-4)
    assert model.get_layer("dense_1").bias is not None


def test_groups_divide_the_channels(models):
    for width, groups in ((64, 8), (12, 4), (7, 1)):
        norm = models.mlp(DIGITS, 10, **MLP | dict(width=width, normalization="group")).get_layer("norm_1")
        assert norm.groups == groups


@pytest.mark.parametrize("name", ["dense_1", "conv_1"])
def test_weight_standardization_uses_each_units_weights_standardized(models, name):
    make, settings, shape = (models.mlp, MLP, DIGITS) if name == "dense_1" else (models.cnn, CNN, MNIST)
    layer = make(shape, 10, **settings | dict(normalization="weight")).get_layer(name)
    rng = np.random.default_rng(0)
    kernel = rng.normal(0.3, 5, layer.kernel.shape).astype(np.float32)
    layer.kernel.assign(kernel)
    layer.bias.assign(rng.normal(size=layer.bias.shape))
    axes = tuple(range(kernel.ndim - 1))
    fan_in = np.prod(kernel.shape[:-1])
    used = (kernel - kernel.mean(axes)) / (kernel.std(axes) * np.sqrt(fan_in)) * np.sqrt(2 / (1 - 1 / np.pi))
    np.testing.assert_allclose(used.mean(axes), 0, atol=1e-6)
    plain = make(shape, 10, **settings).get_layer(name)
    plain.kernel.assign(used)
    plain.bias.assign(layer.bias)
    values = rng.normal(size=(3, *layer.input.shape[1:])).astype(np.float32)
    np.testing.assert_allclose(layer(values), plain(values), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_a_long_run_of_an_mlp_is_compiled_under_every_normalization(models, normalization):
    from studies.train.engine import XLA_STEPS, wants_xla
    from studies.train.steps import Rules

    assert wants_xla("auto", models.mlp(DIGITS, 10, **MLP | dict(normalization=normalization)), XLA_STEPS, Rules())


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_a_standardized_kernel_of_equal_weights_gives_zeros_and_finite_gradients(tf, models, value):
    kernel = tf.Variable(np.full((9, 4), value, np.float32))
    with tf.GradientTape() as tape:
        used = models.standardized(kernel, 1.0)
        loss = tf.reduce_sum(used * np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32))
    assert np.abs(used).max() < 1e-4
    assert np.isfinite(tape.gradient(loss, kernel)).all()


def test_weight_standardization_keeps_the_signal_through_many_layers(models):
    model = models.mlp(DIGITS, 10, **MLP | dict(depth=20, width=256, normalization="weight"))
    x = np.random.default_rng(0).normal(size=(200, *DIGITS)).astype(np.float32)
    for layer in model.layers[1:-1]:
        x = layer(x)
    assert 0.3 < float(np.var(x)) < 3


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_a_residual_net_that_ends_its_branches_at_zero_starts_as_its_shortcuts(models, normalization):
    import keras

    from studies.factors.initializers import Drawing
    from studies.observe.tensors import weight_name

    image = np.random.default_rng(0).normal(size=(2, *CIFAR)).astype(np.float32)
    node, stream = {"_target_": "keras.initializers.HeNormal"}, np.random.SeedSequence(0)
    blocks = []
    for zero_last in (True, False):
        model = models.resnet(CIFAR, 10, **RESNET | dict(blocks=1, normalization=normalization, zero_last=zero_last))
        values = Drawing(model, lambda variable, model=model: weight_name(variable, model)).draw(
            node, [], stream, stream
        )
        for variable, value in zip(model.variables, values, strict=True):
            variable.assign(value)
        inside = keras.Model(model.input, [model.get_layer(name).output for name in ("pool", "activation_1_1_2")])
        pooled, block = (np.asarray(output) for output in inside(image))
        start = model.get_layer("activation_0" if normalization not in ("none", "weight") else "conv_0").output
        first = np.asarray(keras.Model(model.input, start)(image))
        blocks.append(np.array_equal(block, first) and np.allclose(pooled[:, :16], first[:, ::4, ::4].mean((1, 2))))
    assert blocks == [True, False]


def test_a_plain_net_cannot_end_its_branches_at_zero(models):
    with pytest.raises(ValueError, match="shortcut=True"):
        models.resnet(CIFAR, 10, **RESNET | dict(shortcut=False, zero_last=True))


def test_a_transformer_that_ends_its_branches_at_zero_starts_as_its_tokens(models):
    model = models.vit(MNIST, 10, **VIT | dict(zero_last=True))
    zeros = [v.path for v in model.trainable_variables if v.path.endswith("kernel") and not np.any(v)]
    assert zeros == ["attention_1/kernel", "dense_1_2/kernel", "attention_2/kernel", "dense_2_2/kernel"]


@pytest.mark.parametrize("name", ["cnn", "vgg_small"])
def test_spatial_dropout_drops_whole_maps(models, name):
    settings = CNN if name == "cnn" else VGG
    model = getattr(models, name)(CIFAR, 10, **settings | dict(spatial_dropout=0.5))
    layer = model.get_layer("spatial_dropout_1")
    dropped = np.asarray(layer(np.ones((8, 4, 4, 32), np.float32), training=True))
    means = dropped.mean(axis=(1, 2))
    assert set(np.unique(means)) == {0.0, 2.0}


def test_a_recurrent_layer_reads_pixels_from_the_upper_left_on(models):
    model = models.row_rnn((2, 4, 3), 5, cell="simple", width=4, pixels=2)
    image = np.arange(24, dtype=np.float32).reshape(1, 2, 4, 3)
    rows = np.asarray(model.get_layer("rows")(image))
    assert rows.shape == (1, 4, 6) and rows.ravel().tolist() == list(range(24))
    with pytest.raises(ValueError, match="pixels=3 must divide the 8 of an image"):
        models.row_rnn((2, 4, 3), 5, cell="simple", width=4, pixels=3)


@pytest.mark.parametrize("normalization", ["none", "rms", "weight"])
def test_without_biases_a_relu_network_gives_zero_for_zero_and_scales_with_its_input(models, normalization):
    settings = {"normalization": normalization, "use_bias": False}
    small = dict(depth=1, width=8), dict(filters=[3], kernel_size=3, dense=4)
    image = np.random.default_rng(0).uniform(size=(2, *DIGITS)).astype(np.float32)
    for build, given_ in ((models.mlp, MLP | small[0]), (models.cnn, CNN | small[1])):
        model = build(DIGITS, 3, **given_ | settings)
        assert [v.path for v in model.variables if v.name == "bias"] == []
        assert not np.asarray(model(np.zeros_like(image))).any()
        if normalization != "rms":  # which divides the scale out
            np.testing.assert_allclose(model(3 * image), 3 * np.asarray(model(image)), rtol=1e-4, atol=1e-5)
    assert models.lenet_300_100(MNIST, 10, activation="relu", use_bias=False).count_params() == 266_610 - 410
    offset = models.mlp(DIGITS, 3, **MLP | {"normalization": "batch", "use_bias": False})
    assert any(v.name == "beta" for v in offset.variables) and not any(v.name == "bias" for v in offset.variables)
