"""The peer: what a competent practitioner writes today, one Hydra app around Keras `fit` that logs to MLflow.

A callback logs the curves and the weight statistics of every epoch to STORE/mlflow.db. A single run, and a grid:

    python benchmarks/peer.py initializer=he_normal seed=1
    python benchmarks/peer.py -m initializer=he_normal,glorot_uniform seed=0,1,2
"""

import logging
import os
import statistics
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from time import perf_counter
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import hydra
import keras
import mlflow
import numpy as np
from hydra.core.config_store import ConfigStore
from keras import initializers, layers
from omegaconf import OmegaConf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

EVALUATION_BATCH = 1024
QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
SPARSITY = (0, 1e-4, 1e-3, 1e-2)
INITIALIZERS = {
    "zeros": initializers.Zeros,
    "normal_small": partial(initializers.RandomNormal, stddev=0.01),
    "normal_large": partial(initializers.RandomNormal, stddev=1.0),
    "random_uniform": partial(initializers.RandomUniform, minval=-0.05, maxval=0.05),
    "glorot_uniform": initializers.GlorotUniform,
    "lecun_normal": initializers.LecunNormal,
    "he_normal": initializers.HeNormal,
    "orthogonal": initializers.Orthogonal,
}
QUIET = ["_self_", {"override hydra/job_logging": "none"}, {"override hydra/hydra_logging": "none"}]
NO_FOLDERS = {"output_subdir": None, "run": {"dir": "."}, "sweep": {"dir": "${store}", "subdir": "."}}

Split = tuple[np.ndarray, np.ndarray]


@dataclass
class Config:
    """One trial, and how Hydra runs it."""

    data: str = "digits"
    data_root: str = "${oc.env:STUDIES_DATA,data}"
    model: str = "mlp"
    initializer: str = "glorot_uniform"
    depth: int = 2
    width: int = 64
    learning_rate: float = 0.02
    momentum: float = 0.9
    epochs: int = 20
    batch_size: int = 32
    seed: int = 0
    store: str = "store"
    defaults: list[Any] = field(default_factory=lambda: QUIET)
    hydra: Any = field(default_factory=lambda: NO_FOLDERS)


@lru_cache
def read(data: str, root: str) -> list[Split]:
    """A data set's images in [0, 1] and labels, then those of its test set if it comes with one."""
    if data == "digits":
        digits = load_digits()
        return [((digits.images[..., None] / 16).astype("float32"), digits.target)]
    with np.load(Path(root) / f"{data}.npz") as file:
        return [(file[f"x_{part}"][..., None] / np.float32(255), file[f"y_{part}"]) for part in ("train", "test")]


def load(cfg: Config) -> tuple[Split, Split, Split]:
    """The training, validation and test sets of a trial."""

    def split(x: np.ndarray, y: np.ndarray, share: float) -> tuple[Split, Split]:
        x, x_held, y, y_held = train_test_split(x, y, test_size=share, stratify=y, random_state=cfg.seed)
        return (x, y), (x_held, y_held)

    sets = read(cfg.data, cfg.data_root)
    train, test = sets if len(sets) == 2 else split(*sets[0], share=0.2)
    return *split(*train, share=0.2 if cfg.data == "digits" else 0.1), test


def build(cfg: Config, shape: tuple[int, ...]) -> keras.Model:
    """The compiled model."""
    start = INITIALIZERS[cfg.initializer]  # called per layer: one instance would give equal shapes equal weights
    model = keras.Sequential([keras.Input(shape)])
    if cfg.model == "cnn":
        conv = partial(layers.Conv2D, kernel_size=5, activation="relu")
        for i, filters in enumerate((16, 32), start=1):
            model.add(conv(filters, kernel_initializer=start(), name=f"conv_{i}"))
            model.add(layers.MaxPooling2D())
    model.add(layers.Flatten())
    for i, width in enumerate({"mlp": [cfg.width] * cfg.depth, "cnn": [64]}[cfg.model], start=1):
        model.add(layers.Dense(width, "relu", kernel_initializer=start(), name=f"dense_{i}"))
    model.add(layers.Dense(10, kernel_initializer=start(), name="logits"))
    model.compile(
        keras.optimizers.SGD(cfg.learning_rate, cfg.momentum),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,  # "auto" on a CPU; XLA takes 16.5 CPU s a digits trial (depth 2, 30 epochs), this 12.4
    )
    return model


def ratio(a: float, b: float) -> float:
    """`a / b`, or nan where that is undefined."""
    return a / b if b else float("nan")


def kernel_statistics(w: np.ndarray, first: np.ndarray, previous: np.ndarray) -> dict[str, float]:
    """The statistics of a kernel's weights, and how far they are from the first and the previous ones."""
    magnitude, norm, first_norm = np.abs(w), np.linalg.norm(w), np.linalg.norm(first)
    mean, max_norm = w.mean(), magnitude.max()
    centred = w - mean
    squares = centred * centred
    variance = squares.mean()
    return {
        "mean": mean,
        "sd": np.sqrt(variance),
        "min": w.min(),
        "max": w.max(),
        "l1": magnitude.sum(),
        "l2": norm,
        "max_norm": max_norm,
        "skew": ratio((squares * centred).mean(), variance**1.5),
        "kurtosis": ratio((squares * squares).mean(), variance**2) - 3,
        **{f"q{q:g}": value for q, value in zip(QUANTILES, np.quantile(w, QUANTILES), strict=True)},
        **{f"sparsity_{share:g}": (magnitude <= share * max_norm).mean() for share in SPARSITY},
        "distance": ratio(np.linalg.norm(w - first), first_norm),
        "cosine_distance": 1 - ratio(w @ first, norm * first_norm),
        "update_ratio": ratio(np.linalg.norm(w - previous), norm),
    }


class Logger(keras.callbacks.Callback):
    """Logs the curves and the weight statistics of every epoch to the active MLflow run."""

    def __init__(self):
        super().__init__()
        self.seconds: list[float] = []

    def weights(self) -> dict[str, list[np.ndarray]]:
        """Each layer's kernel and bias, flat."""
        return {a.name: [w.ravel().astype("float64") for w in a.get_weights()] for a in self.model.layers if a.weights}

    def measure(self) -> dict[str, float]:
        """The statistics of every layer, as they are now."""
        metrics, now = {}, self.weights()
        with np.errstate(over="ignore", invalid="ignore"):
            for name, (w, b) in now.items():
                kernel = kernel_statistics(w, self.first[name][0], self.previous[name][0])
                bias = {"mean": b.mean(), "sd": b.std(), "l2": np.linalg.norm(b)}
                metrics |= {f"{name}/kernel/{key}": value for key, value in kernel.items()}
                metrics |= {f"{name}/bias/{key}": value for key, value in bias.items()}
        self.previous = now
        return metrics

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Log the initial weights as step 0."""
        self.first = self.previous = self.weights()
        mlflow.log_metrics(self.measure(), step=0)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Start the epoch's clock."""
        self.started = perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Stop the clock and log the epoch, counted from 1."""
        self.seconds.append(perf_counter() - self.started)
        mlflow.log_metrics(logs | self.measure(), step=epoch + 1)


@lru_cache
def open_store(store: str) -> None:
    """Have MLflow log to the store."""
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.WARNING)
    Path(store).mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(f"sqlite:///{Path(store).resolve()}/mlflow.db")
    mlflow.set_experiment("peer")


@hydra.main(version_base="1.3", config_path=None, config_name="peer")
def main(cfg: Config) -> None:
    """Train one model and log it."""
    open_store(cfg.store)
    start = perf_counter()
    keras.utils.clear_session()
    keras.utils.set_random_seed(cfg.seed)
    train, validation, test = load(cfg)
    model = build(cfg, train[0].shape[1:])
    logger = Logger()
    with mlflow.start_run():
        mlflow.log_params(OmegaConf.to_container(cfg, resolve=True))
        history = model.fit(
            *train,
            batch_size=cfg.batch_size,
            epochs=cfg.epochs,
            verbose=0,
            callbacks=[logger],
            validation_data=validation,
            validation_batch_size=EVALUATION_BATCH,
            shuffle=True,
        ).history
        _, accuracy = model.evaluate(*test, batch_size=EVALUATION_BATCH, verbose=0)
        mlflow.log_metric("test_accuracy", accuracy, step=cfg.epochs)
    trial = f"{cfg.data} {cfg.model} {cfg.initializer} seed={cfg.seed}"
    accuracy, epoch = history["val_accuracy"][-1], statistics.median(logger.seconds)
    print(f"{trial}: val accuracy {accuracy:.4f}, {epoch:.3f} s/epoch, {perf_counter() - start:.2f} s", flush=True)


if __name__ == "__main__":
    ConfigStore.instance().store("peer", Config)
    main()
