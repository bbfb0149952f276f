"""Trained models that are kept: which, that they are those that were scored, and that Keras loads them."""

import dataclasses
from collections import OrderedDict

import numpy as np
import pytest

from analysis import load
from studies.factors import data
from studies.record import StudyError

WORDS = (
    "+study.factors={model.normalization:[none,weight],pruning:[none,one_shot],optimizer:[momentum,nesterov]}",
    "+study.only=[{optimizer:momentum,model.normalization:none},{optimizer:nesterov,model.normalization:weight,"
    "pruning:none}]",
    *("study.name=kept", "study.seeds=2", "model.width=16", "training.epochs=8", "diagnostics=none"),
    *("data.standardize=true", "training.early_stopping=1", "optimizer.ema=0.9", "optimizer.learning_rate=0.3"),
)
"""Three arms; of the optimizer, which is set too, every option is composed anew."""


@pytest.fixture(scope="module")
def root(trained, together):
    """A study of which no model was kept, then each arm's first, then all."""
    root, seen = together / "kept", []
    for models in ("none", "first", "all", "all"):
        said = trained(*WORDS, f"tracking.models={models}", f"tracking.root={root}")
        frame = load.trials("kept", root).sort_values("key")
        kept = [(folder / "model.keras").is_file() for folder in frame["folder"]]
        seen.append((said, frame, dict(zip(frame["key"], kept, strict=True))))
    return root, seen


def test_models_are_kept_of_the_trials_asked_for_and_finished_ones_are_trained_again_for_them(root):
    root, [none, first, every, again] = root
    assert not any(none[2].values()) and all(every[2].values())
    seeds = dict(zip(first[1]["key"], first[1]["seed"], strict=True))
    assert {key for key, kept in first[2].items() if kept} == {key for key, seed in seeds.items() if seed == 0}
    assert "3 that had finished are trained again, since their models were not kept" in first[0]
    assert "6 finished before, 0 to run" in again[0] and "trained again" not in again[0]
    assert not list(root.glob(".models*"))


def test_what_is_kept_changes_no_key_and_no_number(root):
    _, [none, _, every, _] = root
    columns = [name for name in none[1] if name != "folder" and not name.startswith(("seconds", "memory"))]
    left, right = (frame[columns].reset_index(drop=True) for frame in (none[1], every[1]))
    assert left.equals(right)


def test_a_kept_model_is_the_one_that_was_scored(root, tf):
    import keras

    import studies.factors.models  # noqa: F401  has the layers of weight standardization

    root, _ = root
    configs, trials = load.configs("kept", root), load.trials("kept", root)
    assert (trials["last_val_loss"] > trials["val_loss"]).any()  # early stopping went back
    for row in trials.to_dict("records"):
        model = keras.saving.load_model(load.model_path("kept", row["key"], root))
        dataset = data.digits()
        stream = np.random.default_rng(np.random.SeedSequence(row["seed"], spawn_key=(0,)))
        split = data.split(dataset, configs[row["key"]]["data"], stream)
        for name in ("val", "test"):
            examples = getattr(split, name)
            right = model.predict(dataset.x[examples], verbose=0).argmax(axis=1) == dataset.y[examples]
            assert np.mean(right) == pytest.approx(row[f"{name}_accuracy"], rel=1e-6)
        kernels = [weight.numpy() for weight in model.trainable_variables if weight.path.endswith("kernel")]
        zeros = sum((kernel == 0).sum() for kernel in kernels[:-1]) / sum(kernel.size for kernel in kernels[:-1])
        assert zeros == pytest.approx(row["sparsity"] if row["pruning"] == "one_shot" else 0, abs=1e-3)


def test_a_model_that_is_not_there_is_an_error_that_says_how_to_have_it(root, tmp_path):
    root, _ = root
    with pytest.raises(StudyError, match=r"no trial 0123 of kept .* load.trials\('kept'\)"):
        load.model_path("kept", "0123", root)
    run = load.trials("kept", root).iloc[0]
    (run["folder"] / "model.keras").rename(tmp_path / "model.keras")
    try:
        with pytest.raises(StudyError, match=r"run its study with tracking.models=all"):
            load.model_path("kept", run["key"], root)
        assert load.without_model("kept", root) == {run["key"]} == load.without_model("kept", root, [run["key"]])
        assert load.without_model("kept", root, []) == set()
    finally:
        (tmp_path / "model.keras").rename(run["folder"] / "model.keras")


def test_a_layer_that_keras_cannot_load_is_refused_before_anything_trains(tf, trial_of, tmp_path, monkeypatch):
    import keras

    from studies.train import parts, trial

    class Own(keras.layers.Layer):
        def call(self, x):
            return x

    def built(*_):
        inputs = keras.Input((8, 8, 1))
        return keras.Model(inputs, keras.layers.Dense(10)(Own()(keras.layers.Flatten()(inputs))))

    monkeypatch.setattr(parts, "build_model", built)
    monkeypatch.setattr(parts, "_engines", OrderedDict())
    asked = dataclasses.replace(trial_of(("training.epochs=1",)), model=str(tmp_path / "m.keras"))
    with pytest.raises(StudyError, match=r"the trained model cannot be kept: .*register_keras_serializable"):
        next(trial.run(asked))
    assert list(tmp_path.iterdir()) == []
