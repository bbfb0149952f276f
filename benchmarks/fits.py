"""What the callback costs in Keras's own `fit`: `python -m benchmarks.fits REPEATS`, MNIST in STUDIES_DATA.

Fits with the callback and without take turns in one process, each from a fresh model, tracing and writing included. CPU
seconds in one thread, the least of all repeats: what else runs on the machine is not in them.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def digits_mlp():
    """Model, images, labels, batch and epochs: 2×64 on digits, 20 epochs."""
    import keras
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    layers = [keras.layers.Dense(64, "relu"), keras.layers.Dense(64, "relu"), keras.layers.Dense(10)]
    return keras.Sequential([keras.Input((64,)), *layers]), (x / 16).astype(np.float32), y, 32, 20


def mnist_cnn():
    """The same of two convolutions on 24,000 images of MNIST, 3 epochs."""
    import keras

    with np.load(Path(os.environ["STUDIES_DATA"]) / "mnist.npz") as arrays:
        x, y = arrays["x_train"][:24_000, ..., None].astype(np.float32) / 255, arrays["y_train"][:24_000].astype(int)
    layers = []
    for filters in (16, 32):
        layers += [keras.layers.Conv2D(filters, 5, activation="relu"), keras.layers.MaxPooling2D()]
    layers += [keras.layers.Flatten(), keras.layers.Dense(64, "relu"), keras.layers.Dense(10)]
    return keras.Sequential([keras.Input((28, 28, 1)), *layers]), x, y, 128, 3


def seconds(made, repeats: int, root: str) -> dict[str, float]:
    """The least CPU seconds of a fit without the callback, and with it."""
    import keras

    from studies.callback import WeightRecorder

    found: dict[str, list[float]] = {"without": [], "with": []}
    for repeat in range(repeats):
        for side, of_side in found.items():
            keras.utils.set_random_seed(repeat)
            model, x, y, batch, epochs = made()
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile(keras.optimizers.SGD(0.05, 0.9), loss, metrics=["accuracy"])
            callbacks = [WeightRecorder(made.__name__, root=root)] if side == "with" else []
            began = time.process_time()
            model.fit(x, y, batch, epochs, verbose=0, validation_split=0.1, callbacks=callbacks)
            of_side.append(time.process_time() - began)
    return {side: min(of_side) for side, of_side in found.items()}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        fits = {made.__name__: seconds(made, int(sys.argv[1]), folder) for made in (digits_mlp, mnist_cnn)}
    print(json.dumps(fits))
