"""Networks for devices: exported files against the networks they are of, dead units taken out, counts, times."""

import functools
import itertools
import sys

import numpy as np
import pytest

from studies.record import StudyError

SHAPE = (8, 8, 1)
PLAIN = {"normalization": "none", "dropout": 0.0}


@pytest.fixture(scope="module")
def nets(tf):
    """A function from a name to a small network with weights drawn at random, biases and statistics too."""
    import keras

    from studies.factors import models

    conv = {"filters": [4, 6], "kernel_size": 3, "dense": 8, "spatial_dropout": 0.0, "dropout": 0.1}
    makers = {
        "mlp": lambda: models.mlp(SHAPE, 3, depth=2, width=8, activation="sigmoid", normalization="batch", dropout=0.1),
        "padded": lambda: models.cnn(SHAPE, 3, **conv, padding="same", activation="relu", normalization="none"),
        "unpadded": lambda: models.cnn(
            (12, 12, 1), 3, **conv, padding="valid", activation="sigmoid", normalization="batch"
        ),
        "mixed": lambda: models.cnn((12, 12, 1), 3, **conv, padding="valid", activation="relu", normalization="group"),
        "wide": lambda: models.mlp(SHAPE, 3, depth=1, width=4096, activation="relu", **PLAIN),
        "elu": lambda: models.mlp(SHAPE, 3, depth=1, width=8, activation="elu", **PLAIN),
        "recurrent": lambda: models.row_rnn((3, 4, 1), 3, cell="simple", width=4),
        "residual": lambda: models.resnet(
            SHAPE, 3, blocks=1, width=4, activation="relu", normalization="none", shortcut=True, zero_last=False
        ),
        "softmax": lambda: keras.Sequential(
            [
                keras.Input((4,)),
                *(keras.layers.Dense(5, activation=name, name=f"{name}_1") for name in ("relu", "softmax")),
                keras.layers.Dense(2),
            ]
        ),
    }

    def made(name):
        model, rng = makers[name](), np.random.default_rng(0)
        for variable in model.weights:
            values = rng.normal(size=variable.shape) / 2
            variable.assign(np.abs(values) + 0.1 if "variance" in variable.name else values)
        return model

    return made


def images(model, count=8):
    return np.random.default_rng(1).normal(size=(count, *model.input_shape[1:])).astype(np.float32)


def outputs(model, x):
    return np.array(model(x, training=False))


def kill(model, units):
    """Zero a layer's units: `units` is by the layer's name."""
    for name, dead in units.items():
        layer = model.get_layer(name)
        layer.set_weights([np.where(np.isin(np.arange(w.shape[-1]), dead), 0, w) for w in layer.get_weights()])


@pytest.mark.parametrize(
    ("name", "units", "shapes"),
    [
        ("mlp", {"dense_1": [0, 3], "dense_2": [1]}, [(64, 6), (6, 7), (7, 3)]),
        ("padded", {"conv_1": [2], "conv_2": [0, 5], "dense_1": [7]}, [(3, 3, 1, 3), (3, 3, 3, 4), (16, 7), (7, 3)]),
        (
            "unpadded",
            {"conv_1": [2], "conv_2": [0]},
            [(3, 3, 1, 3), (3, 3, 3, 5)],
        ),  # they give .5, or what a norm makes
        ("mixed", {"conv_1": [1], "dense_1": [0, 1]}, [(3, 3, 1, 4), (3, 3, 4, 6)]),  # a channel that a group needs
        ("softmax", {"relu_1": [0], "softmax_1": [1]}, [(4, 4), (4, 5), (5, 2)]),
    ],
)
def test_dead_units_are_taken_out_and_the_outputs_stay(nets, name, units, shapes):
    from studies.edge.shrink import shrunk

    model = nets(name)
    kill(model, units)
    x = images(model)
    small, removed = shrunk(model)
    np.testing.assert_allclose(outputs(small, x), outputs(model, x), atol=2e-6)
    kernels = [w.shape for w in small.get_weights() if w.ndim > 1]
    assert kernels[: len(shapes)] == shapes and small.count_params() < model.count_params()
    assert removed == sum(
        a.shape[-1] - b.shape[-1]
        for a, b in zip(*([w for w in each.get_weights() if w.ndim > 1] for each in (model, small)), strict=True)
    )


def test_units_that_nothing_reads_are_taken_out_and_those_that_only_they_read(nets):
    from studies.edge.shrink import shrunk

    model = nets("mlp")
    last, second = model.get_layer("logits"), model.get_layer("dense_2")
    kernel, bias = last.get_weights()
    kernel[[0, 4]] = 0
    last.set_weights([kernel, bias])
    kernel, *bias = second.get_weights()
    kernel[2, 1:4] = kernel[2, 5:] = 0  # unit 2 of the first layer feeds the units 0 and 4 of the second alone
    second.set_weights([kernel, *bias])
    small, removed = shrunk(model)
    assert removed == 3 and [w.shape for w in small.get_weights() if w.ndim > 1] == [(64, 7), (7, 6), (6, 3)]
    np.testing.assert_allclose(outputs(small, images(model)), outputs(model, images(model)), atol=2e-6)


def test_a_network_is_left_as_it_is_where_nothing_is_dead_and_refused_where_layers_share(nets):
    from studies.edge.shrink import shrunk

    model = nets("padded")
    assert shrunk(model) == (model, 0)
    with pytest.raises(StudyError, match=r"channels cannot be removed: .* expected a chain of layers"):
        shrunk(nets("residual"))


def test_a_constant_beside_padding_stays(nets):
    from studies.edge.shrink import shrunk

    model = nets("padded")
    kernel, bias = model.get_layer("conv_1").get_weights()
    kernel[..., :2], bias[:2] = 0, (1, -1)  # after ReLU 1, and 0: at the image's edge the next layer sees zeros
    model.get_layer("conv_1").set_weights([kernel, bias])
    small, removed = shrunk(model)
    assert removed == 1
    np.testing.assert_allclose(outputs(small, images(model)), outputs(model, images(model)), atol=2e-6)


@pytest.mark.parametrize("name", ["unpadded", "recurrent", "residual"])
def test_an_exported_file_gives_what_its_network_gives(nets, name):
    from studies.edge.export import Runner, exported

    model = nets(name)
    x = images(model, 32)
    wanted, file, small = outputs(model, x), exported(model), exported(model, x)
    np.testing.assert_allclose(Runner(file).outputs(x), wanted, atol=1e-4 * np.abs(wanted).max())
    np.testing.assert_allclose(Runner(small).outputs(x), wanted, atol=0.1 * np.ptp(wanted))
    assert small.fallen == () and Runner(small).input["dtype"] is np.int8 and Runner(small).output["dtype"] is np.int8
    labels = wanted.argmax(axis=1)
    assert Runner(file).accuracy(x, labels) == 1 and Runner(file).accuracy(x, (labels + 1) % 3) == 0
    assert not any(getattr(layer, "unroll", False) for layer in model.layers)


def test_an_int8_file_says_which_operations_work_in_floats(nets):
    from studies.edge.export import exported

    model = nets("elu")
    assert exported(model, images(model)).fallen == ("ELU",)


def test_what_only_tensorflow_can_run_is_not_exported(tf):
    import keras

    from studies.edge.export import exported

    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.ops.erfinv(keras.layers.Dense(2)(inputs)))
    for x in (None, images(model)):
        with pytest.raises(StudyError, match=r"cannot be exported: .*Choose a model"):
            exported(model, x)


def test_zeros_shrink_a_file_only_when_it_is_compressed(nets):
    from studies.edge.export import exported

    model = nets("mlp")
    dense = exported(model)
    model.set_weights([np.where(np.abs(w) < 0.5, 0, w) for w in model.get_weights()])
    masked = exported(model)
    assert len(masked.content) == len(dense.content) and masked.compressed < 0.8 * dense.compressed


def test_operations_are_counted_as_by_hand(nets):
    from studies.edge.counts import counts

    model = nets("padded")
    found = counts(model)
    assert found.parameters == found.kept == (9 * 4 + 4) + (9 * 4 * 6 + 6) + (2 * 2 * 6 * 8 + 8) + (8 * 3 + 3)
    assert found.flops == found.effective == 2 * (64 * 9 * 4 + 16 * 9 * 4 * 6 + 24 * 8 + 8 * 3)
    kill(model, {"conv_2": [0, 1, 2]})
    less = counts(model)
    assert less.flops == found.flops and less.effective == found.flops - 2 * 16 * 9 * 4 * 3
    assert less.kept == found.kept - 9 * 4 * 3 - 3


@pytest.mark.parametrize(
    ("layer", "shape", "multiplied"),
    [
        (lambda layers: layers.Bidirectional(layers.LSTM(5)), (7, 3), 2 * 7 * (3 * 20 + 5 * 20)),
        (lambda layers: layers.Conv2DTranspose(6, 3, strides=2, padding="same"), (8, 8, 4), 64 * 9 * 4 * 6),
        (lambda layers: layers.Conv2D(6, 3, padding="same", trainable=False), (8, 8, 4), 64 * 9 * 4 * 6),
    ],
    ids=["both ways", "transposed", "frozen"],
)
def test_a_kernel_counts_where_it_is_used(tf, layer, shape, multiplied):
    import keras

    from studies.edge.counts import counts

    inputs = keras.Input(shape)
    assert counts(keras.Model(inputs, layer(keras.layers)(inputs))).flops == 2 * multiplied


@pytest.mark.parametrize(
    ("node", "parameters"),
    [
        ({"_target_": "studies.models.lenet_300_100", "activation": "relu"}, 2_700),
        ({"_target_": "studies.models.mlp", "depth": 2, "width": 64, "activation": "relu", **PLAIN}, 1_000),
    ],
)
def test_a_narrow_network_has_about_as_many_parameters(tf, node, parameters):
    from studies.edge.narrow import OWN, narrowed
    from studies.factors import targets

    def build(node):
        return targets.build(node, "model", [OWN], input_shape=SHAPE, classes=10)

    narrow, wide = build(narrowed(node, parameters, build, [])), build(node)
    assert narrow.count_params() == pytest.approx(parameters, rel=0.05)
    assert [layer.name for layer in narrow.layers[1:]] == [layer.name for layer in wide.layers[1:]]
    assert narrow.output_shape == wide.output_shape


def test_a_network_that_cannot_be_narrower_is_refused(tf):
    from studies.edge.narrow import scaled

    settings = {"blocks": 1, "width": 4, "activation": "relu", "normalization": "none", "shortcut": True}
    with pytest.raises(StudyError, match="cannot be made narrower"):  # of itself: its shortcuts pad to a fixed number
        scaled(SHAPE, 3, builder="studies.models.resnet", factor=0.5, allow=[], **settings, zero_last=False)


def test_times_are_of_calls_in_turns(nets):
    from studies.edge import latency
    from studies.edge.export import Runner, exported

    calls, runners, inputs = [], [], []
    for name in ("mlp", "wide"):
        runner, model = Runner(exported(nets(name))), nets(name)
        runner.invoke = functools.partial(lambda name, real: calls.append(name) or real(), name, runner.invoke)
        runners.append(runner)
        inputs.append(images(model)[0])
    times = latency.interleaved(runners, inputs, seconds=0.02)
    turns, rest = divmod(times.shape[1], latency.CALLS)
    assert rest == 0 and latency.LEAST_TURNS <= turns <= latency.TURNS
    assert calls.count("mlp") == calls.count("wide") == turns * (latency.CALLS + 1)
    assert max(len(list(some)) for _, some in itertools.groupby(calls)) <= 2 * (latency.CALLS + 1)
    narrow, wide = latency.percentiles(times)
    assert 0 < narrow[0] <= narrow[1] and wide[0] > 2 * narrow[0]
    assert runners[0].interpreter.get_tensor(runners[0].input["index"])[0] == pytest.approx(inputs[0])


def test_what_the_interpreter_needs_is_said(monkeypatch):
    from studies.edge import export

    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(StudyError, match=r"pip install 'weight-studies\[edge\]'"):
        export.interpreters()
