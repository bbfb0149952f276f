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


def trial_seconds(config: dict, examples: int, shape: tuple[int, ...]) -> float:
    """About how long a trial trains on one core; models that are not ours count as a million multiply-adds.

    Args:
        examples: of the whole dataset.
        shape: of an image, `(height, width, channels)`.
    """
    data, training = config["data"], config["training"]
    train = examples * (1 - (data.get("test_fraction") or 1 / 7)) * (1 - data.get("validation_fraction", 0))
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
    """Layers, and multiply-adds of dense and of convolutional ones for one example (10 classes)."""
    name = model["_target_"].rpartition(".")[2]
    pixels = math.prod(shape)
    if name == "mlp":
        return _dense([pixels, *[model["width"]] * model["depth"], 10])
    if name == "lenet_300_100":
        return _dense([pixels, 300, 100, 10])
    if name == "cnn":
        height, width, channels = shape
        work = 0
        for filters in model["filters"]:
            if model["padding"] == "valid":
                height, width = height - model["kernel_size"] + 1, width - model["kernel_size"] + 1
            work += height * width * model["kernel_size"] ** 2 * channels * filters
            height, width, channels = height // 2, width // 2, filters
        layers, dense, _ = _dense([height * width * channels, model["dense"], 10])
        return layers + len(model["filters"]), dense, work
    return 10, 1_000_000, 0


def _dense(widths):
    return len(widths) - 1, sum(a * b for a, b in zip(widths, widths[1:], strict=False)), 0
