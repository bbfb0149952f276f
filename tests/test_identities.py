"""What is said to be exact comes out so, and what is made wrong is seen."""

import itertools

import numpy as np
import pytest
import yaml

from studies.command.compose import CONF


@pytest.fixture(scope="module")
def identities(tf):
    from studies.compute import identities

    return identities


def test_a_dense_layer_multiplies_by_its_transposed_kernel(identities):
    found = [identities.linear_map(np.random.default_rng(seed)) for seed in range(5)]
    assert max(each["discrepancy"] for each in found) < 1e-13
    assert len({(each["outputs"], each["inputs"]) for each in found}) == 5


def test_its_kernel_is_not_w_itself(identities):
    found = identities.linear_map(np.random.default_rng(0), transposed=False)
    assert found["outputs"] == found["inputs"] and found["discrepancy"] > 0.1


@pytest.mark.parametrize("layer", ["dense", "convolution", "depthwise_convolution"])
def test_biases_alone_are_what_a_layer_gives_for_zeros(identities, layer):
    found = identities.bias_offset(np.random.default_rng(4), layer)
    assert found["offset"] == found["without"] == 0 and found["scaling"] < 1e-14
    firing = [identities.bias_offset(np.random.default_rng(seed), layer)["firing"] for seed in range(4, 9)]
    assert found["at_zero"] > 0 and 0.1 < np.mean(firing) < 0.9
    lacking = identities.bias_offset(np.random.default_rng(4), layer, use_bias=False)
    assert lacking["at_zero"] == lacking["firing"] == 0 and lacking["discrepancy"] == 1


@pytest.mark.parametrize("layer", ["convolution", "gru", "embedding"])
def test_backpropagation_is_what_differences_are(identities, layer):
    found = identities.chain_rule(np.random.default_rng(3), layer)
    assert found["discrepancy"] < 1e-8 and found["checked"] > 10


def test_a_backward_formula_that_is_wrong_by_a_thousandth_is_seen(identities):
    found = identities.chain_rule(np.random.default_rng(3), "dense", wrong_by=1e-3)
    assert 1e-5 < found["discrepancy"] < 1e-2


def test_the_errors_of_each_kind_of_layer_in_our_models_are_checked(identities):
    from studies.factors import targets

    rng = np.random.default_rng(0)
    checked = {type(identities.LAYERS[name](rng)[1]).__name__ for name in identities.LAYERS} | {"MultiHeadAttention"}
    shrunk = {"depth": 1, "width": 16, "blocks": 1}
    kinds = set()
    for name in ("mlp", "cnn", "row_rnn", "vit"):
        node = yaml.safe_load((CONF / "model" / f"{name}.yaml").read_text())
        node |= {setting: value for setting, value in shrunk.items() if setting in node}
        for normalization, cell in itertools.product(("batch", "layer", "rms", "weight"), ("simple", "gru", "lstm")):
            varied = {"normalization": normalization, "cell": cell}
            given = node | {setting: value for setting, value in varied.items() if setting in node}
            if given == node and cell != "simple":
                continue
            model = targets.build(given, "model", [], input_shape=(8, 8, 1), classes=3)
            kinds |= {type(layer).__name__ for layer in model.layers if layer.trainable_variables}
    assert kinds - checked == set() and {"GRU", "StandardizedDense", "Positions", "RMSNormalization"} <= kinds


def test_plain_sgd_alone_steps_down_the_gradient(identities):
    off = {
        name: identities.update_rule(np.random.default_rng(1), name)["discrepancy"] for name in identities.OPTIMIZERS
    }
    assert off.pop("sgd") < 1e-6
    assert min(off.values()) > 1e-3, off


def test_momentum_begins_as_plain_sgd_does(identities):
    assert identities.update_rule(np.random.default_rng(1), "momentum", steps=1)["discrepancy"] < 1e-6


def test_the_gradient_by_hand_is_that_of_the_loss(identities):
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape) for shape in ((3, 4), (4,), (4, 2), (2,))]
    x, y = rng.normal(size=(5, 3)), rng.integers(2, size=5)

    def loss():
        logits = np.tanh(x @ weights[0] + weights[1]) @ weights[2] + weights[3]
        return np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(5), y])

    for weight, gradient in zip(weights, identities._gradient(weights, x, y), strict=True):
        for place in range(weight.size):
            value, ends = weight.flat[place], []
            for moved in (value + 1e-6, value - 1e-6):
                weight.flat[place] = moved
                ends.append(loss())
            weight.flat[place] = value
            assert gradient.flat[place] == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-8)
