"""What a trial is put together from, and what is refused."""

import dataclasses
import gc
import sys
import types
import weakref
from collections import OrderedDict

import numpy as np
import pytest

from studies.record import StudyError


@pytest.fixture(scope="module")
def parts(tf):
    from studies.train import parts

    return parts


@pytest.fixture(scope="module")
def own(tf):
    """A module of a user's own: builders of models that would not be trained as they are, and a schedule."""
    import keras

    def dense(shape, classes, name="logits", **settings):
        inputs = keras.Input(shape)
        return inputs, keras.layers.Dense(classes, name=name, **settings)(keras.layers.Flatten()(inputs))

    class OwnStep(keras.Model):
        def train_step(self, data):
            return {}

    def compiled(input_shape, classes):
        model = keras.Model(*dense(input_shape, classes))
        model.compile("adam", "mse")
        return model

    def softmax(input_shape, classes):
        return keras.Model(*dense(input_shape, classes, activation="softmax"))

    def of_softmax(input_shape, classes):
        inputs, outputs = dense(input_shape, classes, activation="softmax")
        return keras.Model(inputs, keras.ops.log(outputs))

    class Cycling:
        def __call__(self, step, steps, epoch):
            return np.ones(len(step))

        def momentum(self, step, steps, epoch, high):
            return np.full(len(step), 0.1)

    module = types.ModuleType("mine_of_parts")
    builders = {
        "compiled": compiled,
        "own_step": lambda input_shape, classes: OwnStep(*dense(input_shape, classes)),
        "too_wide": lambda input_shape, classes: keras.Model(*dense(input_shape, classes + 1)),
        "half": lambda input_shape, classes: keras.Model(*dense(input_shape, classes, dtype="mixed_float16")),
        "sigmoid": lambda input_shape, classes: keras.Model(*dense(input_shape, classes, activation="sigmoid")),
        "unbuilt": lambda input_shape, classes: keras.Sequential([keras.layers.Dense(classes)]),
        "no_model": lambda input_shape, classes: 7,
        "inside": lambda input_shape, classes: keras.Sequential(
            [keras.Input(input_shape), softmax(input_shape, classes)]
        ),
        "of_softmax": of_softmax,
        "softmax": softmax,
        "fine": lambda input_shape, classes: keras.Model(*dense(input_shape, classes)),
    }
    builders["shorten"] = lambda: lambda gradients, weights: ([0.5 * g for g in gradients], 1.0)
    builders["nothing"] = lambda: 3
    for name, made in {**builders, "cycling": Cycling}.items():
        made.__module__, made.__qualname__, made.__name__ = module.__name__, name, name
        setattr(module, name, made)
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("compiled", "a compiled model"),
        ("own_step", "train_step of its own"),
        ("too_wide", "(None, 11)"),
        ("half", "logits in float16"),
        ("sigmoid", "outputs of a sigmoid"),
        ("inside", "probabilities that do not come from a softmax in its last layer: expected logits, or keras"),
        ("of_softmax", "outputs that are no probabilities, after a softmax in its last layer"),
        ("unbuilt", "without weights yet"),
        ("no_model", "a int: expected a keras.Model"),
    ],
)
def test_a_model_that_fit_would_train_otherwise_is_refused(parts, own, config, name, words):
    dataset, _ = parts.dataset_of(config()["data"], [])
    with pytest.raises(StudyError) as refusal:
        parts.build_model({"_target_": f"mine_of_parts.{name}"}, dataset, ["mine_of_parts."])
    assert words in str(refusal.value)
    for allowed in ("fine", "softmax"):
        parts.build_model({"_target_": f"mine_of_parts.{allowed}"}, dataset, ["mine_of_parts."])


def test_an_error_in_a_users_own_model_is_checked_for_with_its_line_and_traceback(parts, config, tmp_path, monkeypatch):
    (tmp_path / "raising_of_parts.py").write_text("def build(input_shape, classes):\n    return {}['b']\n")
    monkeypatch.syspath_prepend(tmp_path)
    names = ("data", "initializer", "engine")
    own = {"model": {"_target_": "raising_of_parts.build"}, "targets": {"allow": ["raising_of_parts."]}}
    whole = config()
    [crash] = parts.check({name: whole[name] for name in names} | {"engine": whole["engine"] | {"device": "cpu"}} | own)
    said, *traceback = crash.error.splitlines()
    assert said.startswith("model: raising_of_parts.build raised KeyError: 'b' (")
    assert "raising_of_parts.py, line 2, in build), which is your own code: mend it there" in said
    assert any("return {}['b']" in line for line in traceback)


def test_what_a_users_own_data_is_has_to_be_a_dataset(parts, own):
    with pytest.raises(StudyError, match=r"data: mine_of_parts.nothing gives a int: expected a studies\..*Dataset"):
        parts.dataset_of({"_target_": "mine_of_parts.nothing"}, ["mine_of_parts."])


@pytest.mark.parametrize("given", ["use_ema=true", "ema_momentum=0.9", "decay=0.1", "lr=0.1"])
def test_an_argument_that_would_be_half_applied_is_refused(parts, config, given):
    node = config(["optimizer=adam", f"+optimizer.{given}"])["optimizer"]
    with pytest.raises(StudyError, match=f"optimizer.{given.partition('=')[0]}="):
        parts.build_optimizer(node, [])


def test_a_point_up_the_loss_of_accumulated_batches_is_refused(parts, config):
    node = config(["optimizer.sam=0.1", "+optimizer.gradient_accumulation_steps=2"])["optimizer"]
    with pytest.raises(StudyError, match="gradient_accumulation_steps=2"):
        parts.build_optimizer(node, [])


def test_a_batch_larger_than_the_training_set_is_refused(parts, trial_of):
    with pytest.raises(StudyError, match=r"training.batch_size=101: expected at most 100"):
        parts.Parts(trial_of(["data.train_size=100", "training.batch_size=101"]))


def test_a_users_schedule_with_momentum_has_a_graph_of_its_own(parts, own, trial_of):
    settings = ["model.width=8", "optimizer=momentum", "engine.xla=false", "training.epochs=1"]
    plain = trial_of(settings)
    schedule = {"_target_": "mine_of_parts.cycling"}
    config = plain.config | {"schedule": schedule, "targets": {"allow": ["mine_of_parts."]}}
    constant, cycled = parts.Parts(plain), parts.Parts(dataclasses.replace(plain, config=config))
    assert constant.engine.cycle is None and set(cycled.momenta) == {0.1}
    [course] = cycled.courses()
    weights = cycled.engine.run_epoch(*cycled.data, course).weights.numpy()
    slow = parts.Parts(trial_of([*settings, "optimizer.momentum=0.1"]))
    np.testing.assert_array_equal(slow.engine.run_epoch(*slow.data, course).weights.numpy(), weights)


def test_folds_share_a_graph_but_where_they_have_another_number_of_steps(parts, trial_of, monkeypatch):
    monkeypatch.setattr(parts, "_engines", OrderedDict())
    small = ["model.width=8", "training.batch_size=137", "training.epochs=1", "engine.xla=false", "data.folds=3"]
    trials = [trial_of([*small, f"data.fold={fold}"]) for fold in range(3)]
    assert len({trial.graph_key for trial in trials}) == 1 and len({trial.key for trial in trials}) == 3
    made = [parts.Parts(trial) for trial in trials]
    assert [len(each.examples.split.train) for each in made] == [958, 959, 959]
    assert [each.steps for each in made] == [6, 7, 7]
    assert made[0].engine is not made[1].engine and made[1].engine is made[2].engine
    for each in made[:2]:
        [course] = each.courses()
        assert np.isfinite(each.engine.run_epoch(*each.data, course).loss)


def test_a_graph_that_is_no_longer_kept_is_freed(parts, trial_of, monkeypatch):
    monkeypatch.setattr(parts, "_engines", OrderedDict())
    monkeypatch.setattr(parts, "ENGINES_KEPT", 1)
    small, graphs = ["training.epochs=1", "data.train_size=64", "engine.xla=false", "model.depth=1"], []
    for width in (3, 5):
        made = parts.Parts(trial_of([*small, f"model.width={width}"]))
        graphs.append(weakref.ref(made.engine.epoch.graph))
    gc.collect()
    assert [graph() is None for graph in graphs] == [True, False]


def test_a_schedule_counts_updates_and_waiting_batches_have_the_rate_of_theirs(parts, trial_of):
    settings = ["model.width=8", "schedule=cosine", "training.epochs=2", "data.train_size=480", "engine.xla=false"]
    whole = parts.Parts(trial_of([*settings, "training.batch_size=32"]))
    accumulated = parts.Parts(
        trial_of([*settings, "training.batch_size=8", "+optimizer.gradient_accumulation_steps=4"])
    )
    np.testing.assert_array_equal(accumulated.rates, np.repeat(whole.rates, 4))


def test_the_training_set_is_evaluated_on_as_much_as_is_held_out_with_every_class_in_proportion(parts, trial_of):
    examples = parts.Parts(trial_of(["model.width=8", "engine.xla=false"])).examples
    some = examples.parts["train"]
    assert len(some) == len(set(some)) == len(examples.split.val) and set(some) <= set(examples.split.train)
    counts = np.bincount(examples.dataset.y[some])
    assert counts.min() >= len(some) // 10 - 2


def test_chance_is_the_share_of_the_commonest_class(parts, tf):
    from studies.factors.data import Dataset, Split

    y = np.array([0, 0, 0, 1, 2, 0, 1, 1], np.int32)
    split = Split(*map(np.array, ([0, 3], [0, 1, 2, 3, 4], [5, 6, 7])))
    examples = parts.Examples(Dataset(np.zeros((8, 2, 2, 1)), y, 1.0, 0), split, (None, tf.constant(y)))
    assert examples.chance("val") == 3 / 5 and examples.chance("test") == 2 / 3 and examples.chance("train") == 1 / 2


def test_a_function_of_a_users_own_is_what_its_group_takes(own, parts):
    from studies.train import pruner, steps

    clip = steps.option({"_target_": "mine_of_parts.shorten"}, "clipping", ["mine_of_parts."])
    assert clip.clip and not clip.penalty
    with pytest.raises(StudyError, match=r"clipping\._target_=mine_of_parts\.nothing gives a"):
        steps.option({"_target_": "mine_of_parts.nothing"}, "clipping", ["mine_of_parts."])
    with pytest.raises(StudyError, match=r"pruning._target_=mine_of_parts.shorten gives a .* expected a .*\.Pruning"):
        pruner.pruning_of({"_target_": "mine_of_parts.shorten"}, ["mine_of_parts."])


def test_an_update_of_more_batches_than_there_are_is_refused(trial_of):
    from studies.command.checks import check_sizes

    settings = ["data.train_size=100", "training.batch_size=10", "training.epochs=3"]
    check_sizes([trial_of([*settings, "+optimizer.gradient_accumulation_steps=30"])])
    with pytest.raises(StudyError, match="gradient_accumulation_steps=31: expected at most 30"):
        check_sizes([trial_of([*settings, "+optimizer.gradient_accumulation_steps=31"])])
