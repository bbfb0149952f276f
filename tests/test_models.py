import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

DIGITS, MNIST = (8, 8, 1), (28, 28, 1)
MLP = dict(depth=2, width=64, activation="relu", batch_norm=False, dropout=0.0)
CNN = dict(filters=[16, 32], kernel_size=5, padding="same", dense=64, activation="relu", dropout=0.0)


@pytest.fixture(scope="session")
def models(tf):
    from studies import models

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
    model = models.mlp(DIGITS, classes, **MLP | dict(depth=depth, width=width, batch_norm=batch_norm))
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
RESNET = dict(blocks=3, width=16, activation="relu", batch_norm=True, shortcut=True)
VIT = dict(patch=4, width=32, depth=2, heads=4, activation="gelu")


@pytest.mark.parametrize(
    ("name", "shape", "settings", "parameters"),
    [
        ("lenet5", MNIST, dict(activation="relu"), 61_706),
        ("c3d3", CIFAR, dict(activation="relu"), 895_210),
        ("vgg_small", CIFAR, dict(filters=[32, 64, 128], dense=128, activation="relu", dropout=0.0), 550_570),
        ("resnet", CIFAR, RESNET, 269_722),
        ("resnet", CIFAR, RESNET | dict(shortcut=False), 269_722),
        ("resnet", CIFAR, RESNET | dict(blocks=9), 853_018),
        ("row_rnn", MNIST, dict(cell="lstm", width=64), 4 * 64 * (28 + 64 + 1) + 650),
        ("row_rnn", MNIST, dict(cell="simple", width=64), 64 * (28 + 64 + 1) + 650),
        ("row_rnn", MNIST, dict(cell="gru", width=64), 3 * 64 * (28 + 64 + 2) + 650),
        ("vit", MNIST, VIT, 16 * 32 + 32 + 49 * 32 + 2 * (12 * 32**2 + 13 * 32) + 64 + 330),
    ],
)
def test_a_network_has_the_parameters_that_are_published(models, name, shape, settings, parameters):
    model = getattr(models, name)(shape, 10, **settings)
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == parameters
    assert model(np.zeros((2, *shape), np.float32)).shape == (2, 10)


def test_a_residual_net_without_its_convolutions_passes_its_input_on(models):
    model = models.resnet(CIFAR, 10, **RESNET | dict(batch_norm=False))
    image = np.random.default_rng(0).normal(size=(1, *CIFAR)).astype(np.float32)
    for layer in model.layers:
        if layer.name.startswith("conv_") and layer.name != "conv_0":
            layer.kernel.assign(np.zeros(layer.kernel.shape))
    first = np.asarray(model.get_layer("activation_0")(model.get_layer("conv_0")(image)))
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


@pytest.mark.parametrize("options", [{}, {"dropout": 0.5}, {"dropout": 0.5, "batch_norm": True}])
@pytest.mark.parametrize("name", ["mlp", "lenet_300_100", "cnn"])
def test_networks_give_logits(models, name, options):
    defaults = {"mlp": MLP, "lenet_300_100": dict(activation="relu"), "cnn": CNN}[name]
    taken = {key: value for key, value in options.items() if key in defaults}
    model = getattr(models, name)(DIGITS, 7, **defaults | taken)
    logits = model(np.random.default_rng(0).normal(size=(3, *DIGITS))).numpy()
    assert logits.shape == (3, 7) and (logits < 0).any()
    assert names(model)[-1] == "logits"
    assert not np.allclose(logits.sum(axis=1), 1)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_deeper_mlp_keeps_the_names_of_a_shallow_one(models, batch_norm, dropout):
    shallow, deep = (
        names(models.mlp(DIGITS, 10, **MLP | dict(depth=depth, batch_norm=batch_norm, dropout=dropout)))
        for depth in (2, 5)
    )
    assert deep[: len(shallow) - 1] == shallow[:-1] and deep[-1] == shallow[-1]
    assert len(set(deep)) == len(deep)


def test_a_deeper_cnn_keeps_the_names_of_a_shallow_one(models):
    shallow, deep = (set(names(models.cnn(MNIST, 10, **CNN | dict(filters=filters)))) for filters in ([4], [4, 4, 4]))
    assert deep - shallow == {"conv_2", "pool_2", "conv_3", "pool_3"} and shallow < deep


def test_batch_norm_stands_between_the_matrix_and_the_activation(models):
    model = models.mlp(DIGITS, 10, **MLP | dict(depth=1, batch_norm=True, dropout=0.5))
    assert names(model) == ["flatten", "dense_1", "norm_1", "activation_1", "dropout_1", "logits"]
    assert [v.path for v in model.get_layer("dense_1").variables] == ["dense_1/kernel"]
