"""Counts against counts made otherwise: by hand, by Keras, as published."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def census(tf):
    from studies.compute import census

    return census


@pytest.fixture
def toy(census, monkeypatch):
    """A function from layers and an input's shape to the name of a network of them."""

    def named(*kinds, inputs):
        monkeypatch.setitem(census.TOYS, "toy", lambda: census._toy(*kinds, inputs=inputs))
        return "toy"

    return named


def test_a_biased_dense_layer_of_fan_in_three_is_three_quarters_weights(census):
    found = census.application("tiny_dense")
    assert (found["weights"], found["biases"], found["total"], found["share"]) == (24, 8, 32, 0.75)


def test_parameters_are_told_apart_by_what_they_do(census, toy):
    from keras import layers

    images = toy(
        layers.SeparableConv2D(5, 3), layers.BatchNormalization(), layers.Flatten(), layers.Dense(2), inputs=(4, 4, 3)
    )
    weights = 3 * 9 + 3 * 5 + 2 * 2 * 5 * 2
    assert census.application(images) == {
        **{"weights": weights, "biases": 5 + 2, "norms": 10, "statistics": 10, "others": 0, "total": weights + 27},
        **{"share": weights / (weights + 27), "share_trainable": weights / (weights + 17)},
    }
    words = toy(layers.Embedding(11, 4), layers.LSTM(3), inputs=(6,))
    found = census.application(words)
    assert (found["weights"], found["biases"]) == (11 * 4 + 4 * 3 * (4 + 3), 4 * 3)


def test_mobilenet_has_the_parameters_that_are_published(census):
    found = census.application("MobileNetV2")
    assert found["total"] == 3_538_984 and found["share"] == pytest.approx(0.9804, abs=5e-5)
    assert sum(found[kind] for kind in ("weights", "biases", "norms", "statistics", "others")) == found["total"]
    assert found["share_trainable"] > found["share"]


def test_kernels_are_told_apart_by_the_variance_that_they_are_drawn_with(census, toy):
    from keras import initializers, layers

    assert census.initializers("tiny_he")["share"] == 1
    drawn = [
        initializers.VarianceScaling(2.0, "fan_in"),
        initializers.VarianceScaling(2.0, "fan_in", "uniform"),
        initializers.VarianceScaling(2.0, "fan_out"),
        initializers.VarianceScaling(1.0, "fan_avg"),
        initializers.GlorotNormal(),
    ]
    kinds = [layers.Dense(2, kernel_initializer=each) for each in drawn]
    assert census.initializers(toy(*kinds, inputs=(2,))) == {
        **{"kernels": 5, "he": 2, "glorot": 2},
        **{"share": 0.4, "share_glorot": 0.4},
    }
    separable = layers.SeparableConv2D(2, 3, depthwise_initializer="he_normal")
    assert census.initializers(toy(separable, inputs=(4, 4, 3)))["share"] == 0.5


@pytest.mark.parametrize(
    ("reading", "sizes"),
    [
        ("three_hidden", (7, 5, 5, 5, 3)),
        ("two_hidden", (7, 5, 5, 3)),
        ("no_classes", (7, 5, 5, 5)),
        ("one_hidden", (7, 5, 3)),
    ],
)
def test_a_dense_network_has_a_matrix_between_each_two_layers(census, reading, sizes):
    found = census.dense(7, reading, width=5, classes=3)
    assert found["weights"] == sum(a * b for a, b in itertools.pairwise(sizes))
    assert found["biases"] == sum(sizes[1:]) and found["total"] == found["weights"] + found["biases"]


def test_a_thousand_neurons_a_layer_have_two_million_weights(census):
    assert census.dense(64, "three_hidden")["weights"] == 2_074_000
    assert census.dense(784, "three_hidden")["millions"] == 2.794


def gpt(blocks, heads, width, vocabulary, context):
    """The parameters of a GPT that Keras's layers make."""
    import keras
    from keras import layers

    tokens = keras.Input((context,), dtype="int32")
    x, positions = layers.Embedding(vocabulary, width)(tokens), layers.Embedding(context, width)
    positions.build((context,))
    for _ in range(blocks):
        y = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(heads, width // heads)(y, y)
        y = layers.LayerNormalization()(x)
        x = x + layers.Dense(width)(layers.Dense(4 * width, activation="gelu")(y))
    model = keras.Model(tokens, layers.LayerNormalization()(x))
    variables = [*model.variables, *positions.variables]
    weights = sum(v.value.shape.num_elements() for v in variables if v.name in ("kernel", "embeddings"))
    return weights, sum(v.value.shape.num_elements() for v in variables)


@pytest.mark.parametrize("sizes", [(1, 1, 4, 9, 3), (2, 2, 8, 13, 5)])
def test_a_transformer_has_the_parameters_of_one_built_by_keras(census, sizes):
    blocks, _, width, vocabulary, context = sizes
    found = census.transformer(blocks, width, vocabulary, context)
    assert (found["weights"], found["total"]) == gpt(*sizes)


def test_gpt_3_has_the_size_and_the_work_that_are_published(census):
    """Brown et al. 2020, tables 2.1 and D.1: 3.64e3 petaflop/s-days for 300 billion tokens."""
    sizes = {"blocks": 96, "width": 12_288, "vocabulary": 50_257, "context": 2048}
    assert round(census.transformer(**sizes)["billions"]) == 175
    found = census.training_time(devices=1024, teraflops=140.0, tokens=3e11, **sizes)
    assert found["petaflop_days"] == pytest.approx(3640, rel=2e-3)
    assert found["days"] == pytest.approx(25.4, abs=0.05) and found["months"] == pytest.approx(25.4 / 30.44, abs=2e-3)


@settings(max_examples=20)
@given(st.integers(1, 10_000), st.floats(0.1, 1e4), st.integers(2, 5))
def test_twice_the_hardware_halves_the_time(census, devices, teraflops, times):
    sizes = {"tokens": 1e9, "blocks": 2, "width": 8, "vocabulary": 10, "context": 4}
    one = census.training_time(devices, teraflops, **sizes)["days"]
    for other in ((devices * times, teraflops), (devices, teraflops * times)):
        assert census.training_time(*other, **sizes)["days"] * times == pytest.approx(one)
