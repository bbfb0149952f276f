"""Costs against the built Keras models: every kernel's weights, once for each place where it is used."""

import dataclasses
import math

import pytest

from studies.command import cost
from studies.factors import targets
from studies.record import Work

SHAPES = [(28, 28, 1), (32, 32, 3)]


def counted(model, steps):
    """Multiply-adds of dense and of convolutional kernels, and how many layers have one."""
    dense = convolution = layers = 0
    for layer in model.layers:
        kernels = [v for v in layer.trainable_variables if v.path.endswith("kernel")]
        for kernel in kernels:
            weights = math.prod(kernel.shape)
            if len(kernel.shape) == 4:
                convolution += weights * math.prod(layer.output.shape[1:3])
            else:
                dense += weights * (steps if "rnn" in layer.name else math.prod(layer.output.shape[1:-1]))
        layers += bool(kernels)
    return layers, dense, convolution


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    "overrides",
    [
        "model=mlp model.depth=3",
        "model=lenet_300_100",
        "model=cnn",
        "model=cnn model.padding=valid model.filters=[4,8]",
        "model=deep_cnn model.depth=3",
        "model=lenet5",
        "model=c3d3",
        "model=vgg_small",
        "model=resnet20",
        "model=plain20 model.blocks=2 model.width=8",
        "model=row_rnn",
        "model=row_rnn model.cell=gru",
        "model=row_rnn model.cell=simple",
        "model=vit model.depth=2",
    ],
)
def test_multiply_adds_are_those_of_the_built_model(tf, config, overrides, shape):
    node = config(overrides.split())["model"]
    model = targets.build(node, "model", [], input_shape=shape, classes=10)
    layers, dense, convolution = counted(model, steps=shape[0])
    if "vit" in overrides:  # the tokens with one another: scores, and their sums of values
        dense += 2 * node["depth"] * (shape[0] // node["patch"]) ** 4 * node["width"]
    if "rnn" in overrides:
        layers += shape[0] - 1  # a step a row
    from studies.factors import models

    assert models.work(model) == Work(layers, dense, convolution)


def test_what_a_worker_counted_is_known_to_later_commands(config, monkeypatch):
    monkeypatch.setattr(cost, "_counted", {})
    ours = config(["model.width=77"])
    assert cost.known(ours) is None
    cost.keep(ours, Work(3, 1000, 20))
    assert cost.known(ours) == Work(3, 1000, 20) and cost.known(config(["model.width=78"])) is None
    monkeypatch.setattr(cost, "_counted", {})
    assert cost.known(ours) == Work(3, 1000, 20)


def test_more_of_anything_takes_longer(config):
    work = Work(3, 10_000, 100)

    def seconds(*overrides, work=work):
        return cost.trial_seconds(config(list(overrides)), 1797, work)

    base = seconds()
    assert seconds("training.batch_size=8") > base
    for field in ("layers", "dense", "convolution"):
        more = dataclasses.replace(work, **{field: 1_000_000})
        assert seconds(work=more) > base
    assert seconds("training.epochs=40") == pytest.approx(2 * base)
