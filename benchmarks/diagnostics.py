"""What a practitioner writes to watch a network: a Keras callback that pulls everything to NumPy after every epoch.

Run by `benchmarks.bench`, as `python -m benchmarks.diagnostics REPEATS`: the seconds that the callback takes of a `fit`
of the digits MLP, and that `diagnostics=standard` adds to the same training here, taking turns; prints both, the least
of each, as JSON. The callback knows less: no gradient or update of a step is to be had after an epoch.
"""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

CONF = Path(__file__).parent.parent / "conf"
EPOCHS, BATCH, PROBE = 20, 32, 256


def weights_of(layer, start: dict, charted: bool) -> None:
    """The statistics of `studies.observe.weights` of a layer's weights, each as NumPy and SciPy have it."""
    from scipy import stats

    for variable in layer.weights:
        kernel = variable.numpy()
        w, w0 = kernel.ravel(), start[variable.path].ravel()
        w.mean(), w.std(), w.min(), w.max(), np.abs(w).sum(), np.abs(w).max(), stats.skew(w), stats.kurtosis(w)
        norm, norm0 = np.linalg.norm(w), np.linalg.norm(w0)
        np.quantile(w, [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99])
        [(np.abs(w) <= share * np.abs(w).max()).mean() for share in (0, 1e-4, 1e-3, 1e-2)]
        with np.errstate(all="ignore"):
            np.linalg.norm(w - w0) / norm0, 1 - w @ w0 / (norm * norm0)
        if charted:
            np.histogram(w, 64)
            if kernel.ndim > 1:
                top = np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), 2)
                norm**2 / top**2


def outputs_of(model, images) -> None:
    """The statistics of `studies.observe.activations` of every layer's output."""
    import keras

    looking = keras.Model(model.inputs, [layer.output for layer in model.layers if layer.weights])
    for entries in looking.predict(images, verbose=0):
        entries.mean(), entries.std(), entries.min(), entries.max(), np.linalg.norm(entries), (entries == 0).mean()
        (entries == 0).all(axis=tuple(range(entries.ndim - 1))).mean()
        np.quantile(entries, [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99])


def fit_seconds(data) -> float:
    """Seconds that the callback takes of a whole `fit`."""
    import keras

    from studies.contract import charted

    (x, y), (x_val, y_val), (x_some, y_some) = data

    class Watching(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.seconds, self.start = 0.0, {v.path: v.numpy() for v in self.model.weights}
            self.charted = charted(list(range(EPOCHS + 1)))

        def on_epoch_end(self, epoch, logs=None):
            began = time.perf_counter()
            for layer in self.model.layers:
                weights_of(layer, self.start, epoch + 1 in self.charted)
            self.model.evaluate(x_some, y_some, verbose=0)
            if epoch + 1 in self.charted:
                outputs_of(self.model, x[:PROBE])
            self.seconds += time.perf_counter() - began

    keras.utils.clear_session()
    hidden = [keras.layers.Dense(64, "relu") for _ in range(2)]
    model = keras.Sequential([keras.Input(x.shape[1:]), keras.layers.Flatten(), *hidden, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss, metrics=["accuracy"])
    watching = Watching()
    model.fit(x, y, batch_size=BATCH, epochs=EPOCHS, validation_data=(x_val, y_val), callbacks=[watching], verbose=0)
    return watching.seconds


def main(repeats: int) -> None:
    """Print the seconds of both sides."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from studies.factors import limits
    from studies.record import Trial
    from studies.train import parts, trial

    trials = {}
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for tier in ("off", "standard"):
            words = [f"training.epochs={EPOCHS}", f"diagnostics={tier}"]
            config = OmegaConf.to_container(compose("config", overrides=words), resolve=True)
            del config["study"]
            trials[tier] = Trial("", "", "", {}, 0, limits.settled(config), (), tier)
    examples = parts.Parts(trials["off"]).examples
    data = [(examples.dataset.x[rows], examples.dataset.y[rows]) for rows in examples.parts.values()]
    train = examples.split.train
    data = [(examples.dataset.x[train], examples.dataset.y[train]), data[0], data[1]]
    ours, theirs = [], []
    for seed in range(repeats + 1):
        seconds = {tier: [*trial.run(replace(each, seed=seed))][-1].seconds_train for tier, each in trials.items()}
        ours.append(seconds["standard"] - seconds["off"])
        theirs.append(fit_seconds(data))
    print(json.dumps({"ours": min(ours[1:]), "theirs": min(theirs[1:])}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
