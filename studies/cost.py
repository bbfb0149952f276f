"""How long trials take, roughly, from their configs alone: for `plan=true`, and to start long ones first."""

import math

START = 8.0
"""Seconds until the workers have imported TensorFlow."""

COMPILE = 3.0
"""Seconds to compile a graph."""

STEP = 60e-6
STEP_LAYER = 25e-6
DENSE_FLOPS = 20e9
CONVOLUTION_FLOPS = 50e9
"""Measured on one core of 2.8 GHz: seconds a step, and a layer in a step; floating-point operations a second."""


def trial_seconds(config: dict, train: int, shape: tuple[int, ...]) -> float:
    """About how long a trial trains on one core.

    Args:
        train: training examples.
        shape: of an image, `(height, width, channels)`.
    """
    training = config["training"]
    layers, dense, convolution = multiply_adds(config["model"], shape)
    step = STEP + STEP_LAYER * layers
    # Two operations a multiply-add, three passes: forward, to the weights, to the inputs.
    example = 6 * (dense / DENSE_FLOPS + convolution / CONVOLUTION_FLOPS)
    return training["epochs"] * (train / training["batch_size"] * step + train * example)


def total_seconds(seconds: list[float], graphs: int, workers: int) -> float:
    """About how long a study takes, from its trials' seconds."""
    workers = min(workers, len(seconds)) or 1
    return START + math.ceil(graphs / workers) * COMPILE + sum(seconds) / workers if seconds else 0.0


def multiply_adds(model: dict, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Layers with kernels, and multiply-adds of dense and of convolutional ones for one example (10 classes).

    Models that are not of `studies.models` count as ten layers of a million multiply-adds.
    """
    height, width, channels = shape
    count = MODELS.get(model["_target_"].removeprefix("studies.models."))
    return count(model, height, width, channels) if count else (10, 1_000_000, 0)


def _mlp(model, height, width, channels):
    return _dense(height * width * channels, *[model["width"]] * model["depth"])


def _lenet_300_100(model, height, width, channels):
    return _dense(height * width * channels, 300, 100)


def _cnn(model, height, width, channels):
    lost = model["kernel_size"] - 1 if model["padding"] == "valid" else 0
    stack = [(count, model["kernel_size"], lost, 2) for count in model["filters"]]
    return _stack(height, width, channels, stack, model["dense"])


def _lenet5(model, height, width, channels):
    return _stack(height, width, channels, [(6, 5, 0, 2), (16, 5, 4, 2)], 120, 84)


def _c3d3(model, height, width, channels):
    return _stack(height, width, channels, [(64, 5, 4, -2), (96, 3, 2, -2), (128, 3, 0, -2)], 512, 256)


def _vgg_small(model, height, width, channels):
    stack = [(count, 3, 0, pooled) for count in model["filters"] for pooled in (1, 2)]
    return _stack(height, width, channels, stack, model["dense"])


def _resnet(model, height, width, channels):
    layers, work, count = 1, height * width * 9 * channels * model["width"], model["width"]
    for stage in range(3):
        before, count = count, model["width"] * 2**stage
        height, width = (height, width) if stage == 0 else (-(-height // 2), -(-width // 2))
        work += height * width * 9 * count * (before + (2 * model["blocks"] - 1) * count)
        layers += 2 * model["blocks"]
    return layers + 1, 10 * count, work


def _row_rnn(model, height, width, channels):
    gates, units = {"simple": 1, "gru": 3, "lstm": 4}[model["cell"]], model["width"]
    # Every row is a step of its own.
    return height + 1, height * gates * units * (width * channels + units) + 10 * units, 0


def _vit(model, height, width, channels):
    units, tokens = model["width"], (height // model["patch"]) * (width // model["patch"])
    block = tokens * 12 * units**2 + 2 * tokens**2 * units
    return 1 + 6 * model["depth"] + 1, model["depth"] * block + 10 * units, height * width * channels * units


MODELS = {
    "mlp": _mlp,
    "lenet_300_100": _lenet_300_100,
    "cnn": _cnn,
    "lenet5": _lenet5,
    "c3d3": _c3d3,
    "vgg_small": _vgg_small,
    "resnet": _resnet,
    "row_rnn": _row_rnn,
    "vit": _vit,
}


def _stack(height, width, channels, convolutions, *dense):
    """Convolutions, `(maps, window, rows lost at the borders, pooling)` each, then dense layers.

    A pooling of 2 halves the rows, one of -2 does and keeps an odd one, one of 1 keeps all.
    """
    work = 0
    for maps, window, lost, pooling in convolutions:
        height, width = height - lost, width - lost
        work += height * width * window**2 * channels * maps
        up = pooling < 0
        height, width = ((size + up) // abs(pooling) for size in (height, width))
        channels = maps
    layers, flat, _ = _dense(height * width * channels, *dense)
    return layers + len(convolutions), flat, work


def _dense(*widths):
    widths = (*widths, 10)
    return len(widths) - 1, sum(a * b for a, b in zip(widths, widths[1:], strict=False)), 0
