"""The callback in one's own `fit`: what it measures, that it changes nothing, and where it keeps it."""

import contextlib
import functools
import importlib
import re
import shutil
import textwrap
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from analysis import compare, load
from studies.record import StudyError

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(64, 4)).astype(np.float32), RNG.integers(0, 3, 64)
HOOKS = {"train_step", "apply", "_backend_apply_gradients"}
STEPS = ["gradient_norm", "update_norm", "update_ratio"]


@pytest.fixture(scope="module")
def keras(tf):
    """TensorFlow is imported by the fixture, hence the classes that need it inside functions below."""
    import keras

    return keras


@pytest.fixture(scope="module")
def recorder(keras):
    from studies.callback import WeightRecorder

    return WeightRecorder


@pytest.fixture
def root(fresh, tmp_path, monkeypatch):
    """A store in the working folder, which is what is used where none is named."""
    monkeypatch.chdir(tmp_path)
    return copied(fresh, tmp_path / "mlruns")


@pytest.fixture
def tracked(root):
    """MLflow's own client at work in a store, with no run yet."""
    mlflow.set_tracking_uri(f"sqlite:///{root}/mlflow.db")
    mlflow.set_experiment(experiment_id="0")
    yield root
    while mlflow.active_run():
        mlflow.end_run()
    mlflow.set_tracking_uri(None)


def copied(fresh, folder):
    folder.mkdir(exist_ok=True)
    shutil.copy(fresh / "mlflow.db", folder)
    return folder


def sequential(keras):
    L = keras.layers
    return keras.Sequential([keras.Input((4,)), L.Dense(5, "tanh"), L.BatchNormalization(), L.Dropout(0.3), L.Dense(3)])


def subclassed(keras, own_step=False):
    """Has no weights before its first batch."""

    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.dropout = keras.layers.Dense(5, "relu"), keras.layers.Dropout(0.5)
            self.logits = keras.layers.Dense(3)

        def call(self, x, training=False):
            return self.logits(self.dropout(self.hidden(x), training=training))

    class OwnStep(Subclassed):
        def train_step(self, data):
            import tensorflow as tf

            x, y = data
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x, y, self(x, training=True))
            gradients = tape.gradient(self.optimizer.scale_loss(loss), self.trainable_variables)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
            return {"loss": loss}

    return OwnStep() if own_step else Subclassed()


def linear(keras):
    """One kernel."""
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, use_bias=False, name="only")])


def compiled(keras, model, optimizer=None, **settings):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or keras.optimizers.SGD(0.1), loss, **settings)
    return model


def fit(model, *callbacks, **settings):
    """In the order of the examples."""
    given = {"x": X, "y": Y, "batch_size": 32, "epochs": 2, "verbose": 0, "shuffle": False} | settings
    return model.fit(callbacks=list(callbacks), **given)


def quick(keras, *callbacks, model=None, **settings):
    """A fit of some milliseconds."""
    model = model or compiled(keras, linear(keras), run_eagerly=True)
    return fit(model, *callbacks, **{"epochs": 1} | settings)


def data_of(tf, case):
    """What `fit` is given, of each kind."""
    if case == "sequential":
        return {"validation_data": (X[:24], Y[:24])}
    return {"x": tf.data.Dataset.from_tensor_slices((X, Y)).batch(32), "y": None, "batch_size": None}


@pytest.fixture(scope="module", params=["sequential", "its own step"])
def both(request, keras, tf, recorder, fresh, tmp_path_factory):
    """A fit's weights and history without and with the callback, and what that recorded."""
    root, found, case = copied(fresh, tmp_path_factory.mktemp("store")), [], request.param
    for callbacks in ([], [recorder("mine", {"width": 5}, root=root)]):
        keras.utils.set_random_seed(3)
        if case == "sequential":
            model = compiled(keras, sequential(keras), keras.optimizers.Adam(0.01), metrics=["accuracy"])
        else:
            model = compiled(keras, subclassed(keras, own_step=True))
        history = fit(model, *callbacks, **data_of(tf, case)).history
        found.append((model.get_weights(), history))
    return *found, root, model


def test_training_is_the_same_to_the_bit_and_nothing_is_left_behind(both):
    (weights, history), (recorded, its_history), _, model = both
    assert history == its_history and len(weights) == len(recorded)
    assert all(np.array_equal(w, r) for w, r in zip(weights, recorded, strict=True))
    assert not HOOKS & (vars(model).keys() | vars(model.optimizer).keys())


def test_accumulating_gradients_is_the_same_to_the_bit(keras, recorder, root):
    weights = []
    for callbacks in ([], [recorder("three", diagnostics="off")]):
        keras.utils.set_random_seed(1)
        L = keras.layers
        model = keras.Sequential([keras.Input((4,)), L.Dense(16, "relu"), L.Dense(3)])
        model = compiled(keras, model, keras.optimizers.SGD(0.1, gradient_accumulation_steps=3))
        fit(model, *callbacks, batch_size=8, epochs=3)
        weights.append(model.get_weights())
    assert all(np.array_equal(w, r) for w, r in zip(*weights, strict=True))


def test_curves_and_layers_have_the_names_of_a_study(both):
    _, (_, history), root, model = both
    trial, epochs, frame = (read("mine", root) for read in (load.trials, load.epochs, load.layers))
    assert trial["status"].tolist() == ["finished"] and trial["parameters"].tolist() == [model.count_params()]
    assert trial["width"].tolist() == [5] and trial["seed"].tolist() == [0]
    assert epochs["epoch"].tolist() == [0, 1, 2] and epochs["examples"].tolist() == [0, 64, 128]
    columns = {"loss": "running_loss", "accuracy": "running_accuracy", "val_loss": "val_loss"}
    for name, column in columns.items():
        expected = history.get(name, [np.nan] * 2)
        np.testing.assert_allclose(epochs[column], [np.nan, *expected], rtol=1e-6)
        np.testing.assert_allclose(trial[column], expected[-1], rtol=1e-6)
    kernels = frame[frame["tensor"] == "kernel"].set_index(["layer", "epoch"])
    assert set(kernels.index) == {(layer, epoch) for layer in ("dense", "dense_1") for epoch in range(3)}
    w = model.trainable_variables[0].numpy()
    last = kernels.loc[("dense", 2), ["l2", "mean"]].astype(float)
    np.testing.assert_allclose(last, [np.linalg.norm(w), w.mean()], rtol=1e-5)
    steps, untrained = kernels[STEPS], kernels.index.get_level_values("epoch") == 0
    assert steps[untrained].isna().all(axis=None) and (steps[~untrained] > 0).all(axis=None)


def softmax_gradient(w, x, y):
    """Of the mean cross-entropy of logits `x @ w`."""
    exps = np.exp(x @ w)
    return x.T @ (exps / exps.sum(axis=1, keepdims=True) - np.eye(3)[y]) / len(x)


def by_hand(w, rate, batches_an_update, norm, epochs=2, batch=16):
    """Root mean squared norms of gradients and updates in the last epoch of plain descent, in NumPy."""
    w, waiting = w.astype(np.float64), []
    for _ in range(epochs):
        squares = []
        for start in range(0, len(X), batch):
            waiting.append(softmax_gradient(w, X[start : start + batch], Y[start : start + batch]))
            if len(waiting) == batches_an_update:
                gradient, waiting = np.mean(waiting, axis=0), []
                update = rate * gradient * min(1, norm / np.linalg.norm(gradient))
                squares.append((np.square(gradient).sum(), np.square(update).sum()))
                w = w - update
    return np.sqrt(np.mean(squares, axis=0)), w


def settings_of(keras, case):
    """Arguments of `compile`, and by how much float16 is off."""
    plain, accumulating = (
        keras.optimizers.SGD(0.1),
        keras.optimizers.SGD(0.1, gradient_accumulation_steps=2, global_clipnorm=0.05),
    )
    return {
        "XLA, two steps at once": ({"optimizer": plain, "jit_compile": True, "steps_per_execution": 2}, 1, 1e-5),
        "accumulated, then clipped": ({"optimizer": accumulating}, 2, 1e-5),
        "a scaled loss": ({"optimizer": plain}, 1, 0.01),
        "eagerly": ({"optimizer": plain, "run_eagerly": True}, 1, 1e-5),
    }[case]


@pytest.mark.parametrize("case", ["XLA, two steps at once", "accumulated, then clipped", "a scaled loss", "eagerly"])
def test_gradients_and_updates_are_those_of_the_steps(keras, recorder, root, case):
    keras.utils.set_random_seed(4)
    given, batches, off = settings_of(keras, case)
    keras.config.set_dtype_policy("mixed_float16" if case == "a scaled loss" else "float32")
    try:
        model = compiled(keras, linear(keras), **given)
    finally:
        keras.config.set_dtype_policy("float32")
    w = model.get_weights()[0]
    fit(model, recorder("true"), batch_size=16)
    if case == "a scaled loss":
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    expected, after = by_hand(w, 0.1, batches, 0.05 if batches > 1 else np.inf)
    np.testing.assert_allclose(model.get_weights()[0], after, atol=off)
    row = load.layers("true", root).set_index(["tensor", "epoch"]).loc["kernel", 2]
    np.testing.assert_allclose(row[["gradient_norm", "update_norm"]].astype(float), expected, rtol=max(off, 1e-4))


def test_fits_outside_a_run_become_a_study_that_is_compared(keras, recorder, root):
    for rate in (0.1, 0.2):
        for seed in (0, None):  # the next one
            keras.utils.set_random_seed(seed or 9)
            callback = recorder("mine", {"rate": np.float32(rate).round(1)}, seed)
            quick(keras, callback, model=compiled(keras, linear(keras), keras.optimizers.SGD(rate), run_eagerly=True))
    trials, execution = load.trials("mine"), load.execution("mine")
    assert trials.groupby("rate")["seed"].agg(list).tolist() == [[0, 1], [0, 1]]
    assert execution.study.factors == {"rate": (0.1, 0.2)} and execution.study.seeds == (0, 1)
    assert execution.study.metric == "running_loss" and len(load.executions("mine")) == 1
    table = compare.table("mine")
    assert "running loss" in table and all(rate in table for rate in ("0.1 ", "0.2 "))

    quick(keras, recorder("mine", {"rate": 0.1}, 0))  # again: takes its place
    assert len(load.trials("mine")) == 4 and len(load.ended("mine")) == 5
    quick(keras, recorder("mine", {"width": 3}))  # other factors
    arms = load.trials("mine")[["rate", "width"]].astype(object)
    assert arms.where(arms.notna(), None).to_numpy().tolist() == [[0.1, None]] * 2 + [[0.2, None]] * 2 + [[None, 3]]
    assert len(load.execution("mine").study.only) == 3


def test_a_fit_goes_into_the_active_run_and_a_second_into_one_in_it(keras, recorder, tracked):
    mlflow.set_experiment("mine")
    with mlflow.start_run() as run:
        mlflow.log_param("seed", "my own")
        quick(keras, recorder(arm={"a": 1}))
        quick(keras, recorder(arm={"a": 2}))
    client = MlflowClient()
    data = client.get_run(run.info.run_id).data
    assert data.params["seed"] == "my own" and data.params["a"] == "1"
    assert {"weights/only/l2", "gradients/only/norm", "updates/only/ratio", "running_loss"} <= data.metrics.keys()
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert files == {"epochs.parquet", "layers.parquet", "densities.parquet", "config.yaml"}
    trials = load.trials("mine", tracked)
    assert trials["a"].tolist() == [1, 2] and trials["status"].tolist() == ["finished"] * 2
    assert len(load.layers("mine", tracked)) == 8 and load.epochs("mine", tracked)["epoch"].tolist() == [0, 1] * 2


def test_a_run_of_mlflows_own_making_is_used_too(keras, recorder, tracked):
    mlflow.set_experiment("logged")
    mlflow.keras.autolog(log_models=False, log_datasets=False)
    try:
        quick(keras, recorder(arm={"a": 1}), epochs=2)
    finally:
        mlflow.keras.autolog(disable=True)
    trials = load.trials("logged", tracked)
    [run] = [run for run in MlflowClient().search_runs([trials_experiment("logged")]) if "loss" in run.data.metrics]
    assert run.data.params["optimizer_name"].startswith("sgd") and run.data.params["optimizer"] == "SGD"
    assert trials["running_loss"].tolist() == pytest.approx([run.data.metrics["loss"]])


def trials_experiment(name):
    return MlflowClient().get_experiment_by_name(name).experiment_id


def test_a_name_that_stands_for_something_else_is_refused(keras, recorder, tracked):
    quick(keras, recorder("first", root=tracked))
    mlflow.set_experiment("elsewhere")
    with mlflow.start_run():
        quick(keras, recorder("second"))
        with pytest.raises(StudyError, match="is in the experiment elsewhere, which holds the study second"):
            quick(keras, recorder("third"))
    mlflow.set_experiment("third")
    with mlflow.start_run(), pytest.raises(StudyError, match="that study is in the experiment first"):
        quick(keras, recorder("first"))
    assert load.trials("second", tracked)["status"].tolist() == ["finished"]


def test_a_run_that_has_ended_or_a_store_that_is_closed_is_said_before_training(keras, recorder, tracked):
    with mlflow.start_run():
        callback = recorder()
    model = compiled(keras, linear(keras), run_eagerly=True)
    with pytest.raises(StudyError, match="has ended: make the callback and fit inside"):
        quick(keras, callback, model=model)
    file = tracked / "file"
    file.touch()
    with pytest.raises(StudyError, match=r"root=.*cannot be written"):
        quick(keras, recorder(root=file), model=model)
    with mlflow.start_run():
        with pytest.raises(StudyError, match="cannot be written"):
            (tracked / "mlflow.db").rename(file)
            quick(keras, recorder(), model=model)
        file.rename(tracked / "mlflow.db")
    assert model.optimizer.iterations.numpy() == 0 and "train_step" not in vars(model)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"study": "a/b"}, "study='a/b': expected up to 100 letters"),
        ({"seed": -1}, "seed=-1: expected a whole number from 0 on"),
        ({"arm": {"seed": 1}}, "arm names 'seed'"),
        ({"arm": {"a": float("nan")}}, "arm has a=nan"),
        ({"arm": {"a": [1, -float("inf")]}}, "arm has a="),
        ({"arm": {"a": object()}}, "arm has a="),
        ({"observe_every": 0}, "observe_every=0: expected a number of epochs"),
        ({"diagnostics": "none"}, "diagnostics=none: expected one of off, standard, full"),
    ],
)
def test_what_cannot_be_kept_is_refused(recorder, settings, words):
    with pytest.raises(StudyError, match=words):
        recorder(**settings)


def test_two_callbacks_in_one_fit_are_refused(keras, recorder, root):
    model = compiled(keras, linear(keras), run_eagerly=True)
    with pytest.raises(StudyError, match="two callbacks record the same fit"):
        quick(keras, recorder(), recorder(), model=model)
    assert "train_step" not in vars(model)


def test_a_fit_that_an_exception_ends_leaves_nothing_behind(keras, recorder, root):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    model = compiled(keras, linear(keras), run_eagerly=True)
    model.compute_loss, usual = interrupt, model.compute_loss
    first = recorder("cut", seed=0)
    with pytest.raises(KeyboardInterrupt):
        quick(keras, first, model=model)  # in a step
    assert "train_step" not in vars(model) and "apply" not in vars(model.optimizer)
    [error] = load.trials("cut")["error"]
    assert load.trials("cut")["status"].tolist() == ["crashed"] and error.startswith("KeyboardInterrupt")

    model.compute_loss = usual
    kept, stop = recorder("cut", seed=1), keras.callbacks.LambdaCallback(on_epoch_end=interrupt)
    with pytest.raises(KeyboardInterrupt):
        quick(keras, kept, stop, model=model)  # between two
    quick(keras, recorder("cut", seed=2), model=model)
    assert "train_step" not in vars(model) and "apply" not in vars(model.optimizer)
    assert not isinstance(model.train_function, functools.partial)  # which measures
    assert load.trials("cut")["seed"].tolist() == [0, 2]


@pytest.mark.parametrize("then", ["a fit", "a fit compiled anew", "a batch", "an update"])
def test_a_fit_that_was_interrupted_is_over_with_the_next_one(keras, recorder, root, then):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    model = compiled(keras, linear(keras), run_eagerly=True)
    quick(keras, recorder("cut", seed=0), model=model)
    callback = recorder("cut", seed=0)
    with pytest.raises(KeyboardInterrupt) as held:  # with the traceback its frames, as in a notebook
        quick(keras, callback, keras.callbacks.LambdaCallback(on_epoch_end=interrupt), model=model)
    optimizer = model.optimizer
    assert vars(model).keys() | vars(optimizer).keys() >= HOOKS
    if then == "an update":
        optimizer.apply([w * 0 for w in model.get_weights()], model.trainable_variables)
    elif then == "a batch":
        model.train_on_batch(X, Y)
    else:
        if then == "a fit compiled anew":
            model.compile(optimizer, model.loss, run_eagerly=True)
        with pytest.raises(Exception, match="incompatible"):
            quick(keras, model=model, x=X[:, :2])
    assert not HOOKS & (vars(model).keys() | vars(optimizer).keys()) and held.tb and callback.recording
    assert load.trials("cut")["status"].tolist() == ["finished"] and len(load.ended("cut")) == 1
    quick(keras, model=model)


def test_a_crash_does_not_take_the_place_of_a_trial_that_ended(keras, recorder, root, capsys):
    def fails(*_, **__):
        raise ValueError("no")

    model = compiled(keras, linear(keras), run_eagerly=True)
    usual, model.compute_loss = model.compute_loss, fails
    for loss, status in ((fails, "crashed"), (usual, "finished"), (fails, "finished")):
        model.compute_loss = loss
        with pytest.raises(ValueError, match="no") if loss is fails else contextlib.nullcontext():
            quick(keras, recorder("cut", seed=0), model=model)
        assert load.trials("cut")["status"].tolist() == [status]
    assert "came to its end is there and stays" in capsys.readouterr().err


def test_a_metric_of_several_numbers_is_left_out_and_said_once(keras, recorder, root, capsys):
    metrics = [keras.metrics.F1Score(average=None), keras.metrics.F1Score(name="mean_f1", average="macro")]
    model = linear(keras)
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True), metrics=metrics, run_eagerly=True)
    history = quick(keras, recorder("several"), model=model, y=np.eye(3)[Y], epochs=2).history
    assert len(history["f1_score"][-1]) == 3
    trials = load.trials("several")
    assert trials["mean_f1"].tolist() == pytest.approx(history["mean_f1"][-1:]) and "f1_score" not in trials
    assert capsys.readouterr().err.count("f1_score: not recorded") == 1


def test_singular_values_are_those_of_the_ends_however_seldom_weights_fit(keras, recorder, root, monkeypatch):
    monkeypatch.setattr("studies.train.watch.OBSERVATION_BYTES", 100)  # two epochs' are more
    quick(keras, recorder("ends", diagnostics="full"), epochs=5)
    frame = load.layers("ends").query("tensor == 'kernel'").set_index("epoch")
    assert frame["condition_number"].dropna().index.tolist() == [0, 5] and len(frame) == 6


@pytest.mark.parametrize("changed", [False, True])
def test_the_last_epoch_is_looked_at_whoever_ends_the_fit(keras, recorder, root, capsys, changed):
    def stop(epoch, logs):
        model.stop_training = epoch == 12  # of 100, of which few are looked at
        if changed and model.stop_training:
            model.set_weights([w * 0 for w in model.get_weights()])

    model = compiled(keras, linear(keras), run_eagerly=True)
    later = keras.callbacks.LambdaCallback(on_epoch_end=stop)
    quick(keras, recorder("stopped"), later, model=model, epochs=100, batch_size=64)
    frame = load.layers("stopped").query("epoch == 13").set_index("tensor")
    assert ("output" in frame.index) != changed and frame.loc["kernel", "spectral_norm"] > 0
    assert ("weights were changed after epoch 13" in capsys.readouterr().err) == changed


@pytest.mark.parametrize(
    ("case", "labels", "classes"), [("subclassed", Y, 3), ("mse", np.eye(3)[Y], 0), ("a loss in a dict", {"a": Y}, 0)]
)
def test_signs_are_seen_of_any_model_and_loss(keras, recorder, root, case, labels, classes):
    model, loss = linear(keras), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if case == "a loss in a dict":
        model, loss = keras.Model(model.inputs[0], {"a": model.outputs[0]}), {"a": loss}
    model = subclassed(keras) if case == "subclassed" else model
    model.compile(keras.optimizers.SGD(1e4), "mse" if case == "mse" else loss, run_eagerly=True)
    quick(keras, recorder("any"), model=model, y=labels)
    trials, seen = load.trials("any"), load.layers("any").query("epoch == 1 and tensor == 'kernel'")["warning"]
    assert trials["classes"].tolist() == [classes] and "large updates" in trials["warning"][0]
    assert seen.str.contains("large updates").all()


def test_chance_is_the_commonest_classs_share_of_the_labels(keras, recorder, root):
    model, y = compiled(keras, linear(keras), keras.optimizers.SGD(0.0), metrics=["accuracy"], run_eagerly=True), Y * 0
    y[:16] = 1  # of 64, of which 16 are to validate by
    model.set_weights([np.zeros((4, 3))])
    fit(model, recorder("uneven"), y=y, validation_split=0.25)
    trial = load.trials("uneven").iloc[0]
    assert trial["chance_train"] == pytest.approx(32 / 48) and "at chance from epoch 2" in trial["warning"]
    model = linear(keras)
    model.compile("sgd", keras.losses.CategoricalCrossentropy(), run_eagerly=True)
    quick(keras, recorder("hot"), model=model, y=np.eye(3)[y])
    assert load.trials("hot")["chance_train"].tolist() == [0.75]


def test_weights_that_are_not_finite_are_missing_values_of_a_trial_that_diverged(keras, recorder, root):
    keras.utils.set_random_seed(0)
    model = compiled(keras, linear(keras), keras.optimizers.SGD(1e38), run_eagerly=True)
    fit(model, recorder("far"), x=X * 1e4)
    assert load.trials("far")["status"].tolist() == ["diverged"]
    frame = load.layers("far").query("tensor == 'kernel'").set_index("epoch")
    assert (
        frame.loc[2, "warning"] == "not finite"
        and frame.loc[2, ["l2", "mean", "update_norm"]].isna().all()
        and frame.loc[0, "l2"] > 0
    )
    assert not np.isfinite(load.epochs("far")["running_loss"].iloc[-1])


def test_two_fits_of_one_model_go_on_from_each_other(keras, recorder, root):
    model, callback = compiled(keras, linear(keras), run_eagerly=True), recorder("twice", observe_every=2)
    fit(model, callback, epochs=1)
    fit(model, callback, epochs=4, initial_epoch=1)
    frame = load.layers("twice").query("tensor == 'kernel'").pivot_table("l2", "epoch", "key", sort=False)
    first, second = load.trials("twice")["key"]
    assert frame[first].dropna().index.tolist() == [0, 1] and sorted(frame[second].dropna().index) == [1, 3, 4]
    assert frame.loc[1, first] == frame.loc[1, second]


def test_several_optimizers_and_a_layer_of_the_models_own(keras, tf, recorder, root):
    class Pair(keras.Model):
        def __init__(self):
            super().__init__()
            self.slow, self.logits = keras.optimizers.SGD(0.01), keras.layers.Dense(3, use_bias=False)

        def build(self, shape):
            self.own = self.add_weight(shape=(4, 4), name="kernel")
            self.logits.build((None, 4))

        def call(self, x):
            return self.logits(x @ self.own)

        def train_step(self, data):
            with tf.GradientTape() as tape:
                loss = self.compute_loss(*data, self(data[0]))
            own, logits = tape.gradient(loss, [self.own, *self.logits.trainable_variables])
            self.slow.apply([own], [self.own])
            self.optimizer.apply([logits], self.logits.trainable_variables)
            return {"loss": loss}

    model = compiled(keras, Pair(), run_eagerly=True)
    quick(keras, recorder("pair"), model=model)
    frame = load.layers("pair").query("epoch == 1 and tensor == 'kernel'").set_index("layer")
    ratio = frame["update_norm"] / frame["gradient_norm"]
    np.testing.assert_allclose(ratio[[model.name, "dense"]], [0.01, 0.1], rtol=1e-5)


def test_layers_that_keras_named_are_numbered_from_the_first(keras, recorder, root):
    keras.utils.clear_session()
    for _ in range(2):
        L = keras.layers
        model = keras.Sequential([keras.Input((4,)), L.Dense(4), L.Dense(3, name="dense_7")])
        quick(keras, recorder("names"), model=compiled(keras, model, run_eagerly=True))
    assert model.layers[0].name != "dense"
    assert set(load.layers("names")["layer"]) == {"dense", "dense_7"}


def test_what_layers_give_for_the_probe_batch_is_recorded(both):
    *_, root, model = both
    frame = load.layers("mine", root)
    frame = frame[frame["tensor"] == "output"].set_index(["layer", "epoch"])
    if model.name.startswith("own"):  # of a dataset nothing is taken
        assert frame.empty
        return
    hidden = model.layers[0](X).numpy()
    row = frame.loc[("dense", 2), ["mean", "sd", "saturated"]].astype(float)
    near = (np.abs(hidden) >= 0.98).mean()
    np.testing.assert_allclose(row, [hidden.mean(), hidden.std(), near], rtol=1e-4)
    assert set(frame.index) >= {(layer, epoch) for layer in ("dense", "batch_normalization") for epoch in range(3)}


def test_a_probe_is_named_or_found_or_refused(keras, tf, recorder, root, capsys):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(32)
    for study, settings, rows in (("without", {}, 0), ("named", {"probe": X[:8], "diagnostics": "full"}, 2)):
        quick(keras, recorder(study, **settings), x=data, y=None, batch_size=None)
        frame = load.layers(study)
        assert (frame["tensor"] == "output").sum() == rows
    assert "name a batch of inputs with probe=" in capsys.readouterr().err
    w = frame.query("tensor == 'kernel'")
    assert (w["condition_number"] >= 1).all() and (w["spectral_norm"] > 0).all()
    model = compiled(keras, linear(keras), run_eagerly=True)
    with pytest.raises(StudyError, match="probe: the model does not take it"):
        quick(keras, recorder(probe=X[:, :2]), model=model)
    assert "train_step" not in vars(model)


def test_layers_that_draw_when_they_infer_draw_what_they_would(keras, recorder, root):
    class Noisy(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.seeds = keras.random.SeedGenerator(3)

        def call(self, x):
            return x + keras.random.normal(keras.ops.shape(x), seed=self.seeds)

    weights = []
    for callbacks in ([], [recorder("noisy")]):
        keras.utils.set_random_seed(3)
        model = keras.Sequential([keras.Input((4,)), Noisy(), keras.layers.Dense(3)])
        quick(keras, *callbacks, model=compiled(keras, model, run_eagerly=True))
        weights.append(model.get_weights()[0])
    assert np.array_equal(*weights)


def test_gates_of_recurrent_kernels_are_rows_of_their_own(keras, recorder, root):
    model = keras.Sequential([keras.Input((4, 1)), keras.layers.LSTM(2, name="lstm"), keras.layers.Dense(3)])
    model, before = compiled(keras, model, run_eagerly=True), model.get_weights()[1]
    quick(keras, recorder("gates"), model=model, batch_size=64)  # one step
    frame = load.layers("gates").query("epoch == 1 and layer == 'lstm/lstm_cell'").set_index("tensor")
    gates = frame.loc[[f"recurrent_kernel.{name}" for name in ("input", "forget", "cell", "output")]]
    updates = (model.get_weights()[1] - before).reshape(2, 4, 2)
    expected = np.linalg.norm(updates, axis=(0, 2))
    np.testing.assert_allclose(gates["update_norm"], expected, rtol=1e-3)
    np.testing.assert_allclose(gates["gradient_norm"], expected / 0.1, rtol=1e-3)
    np.testing.assert_allclose(frame.loc["recurrent_kernel", "update_norm"], np.linalg.norm(updates), rtol=1e-3)


def test_the_documents_fits_become_a_study_with_a_report(keras, recorder, root, capsys):
    text = (Path(__file__).parent.parent / "docs" / "callback.md").read_text()
    code = textwrap.dedent(text[text.index("    import keras") :].partition("\n\nThen")[0])
    assert "range(5)" in code and "epochs=20" in code
    exec(code.replace("range(5)", "range(1)").replace("epochs=20", "epochs=1, verbose=0"))
    commands = re.findall(r"python -m analysis\.(\w+) (\w+)", text)
    assert {name for name, _ in commands} == {"compare", "report"}
    for name, study in commands:
        assert importlib.import_module(f"analysis.{name}").main([study]) == 0
    table, page = capsys.readouterr().out.strip().rpartition("\n")[::2]
    assert table.count("0.01") and table.count("0.1 ")
    html = Path(page).read_text()
    assert "<svg" in html and all(layer in html for layer in ("dense", "dense_1"))
    assert "the hash of its study, arm and seed" in html


def test_a_study_that_was_declared_is_not_added_to(keras, recorder, root):
    from studies.record import Study
    from studies.store import writer

    study = Study("declared", "Is it?", {"a": (1, 2)}, (0,), {}, "val_loss")
    writer.Execution(root, study, [], "").close("FINISHED")
    with pytest.raises(StudyError, match="study=declared: a study of that name is there"):
        quick(keras, recorder("declared"))


def test_early_warnings_are_those_of_a_trial(keras, recorder, root):
    model = compiled(keras, linear(keras), keras.optimizers.SGD(1e-5), metrics=["accuracy"], run_eagerly=True)
    quick(keras, recorder("still"), model=model)
    assert load.trials("still")["warning"].tolist()[0].startswith("tiny updates")
    assert "tiny updates" in load.layers("still").query("epoch == 1 and tensor == 'kernel'")["warning"].iloc[0]
