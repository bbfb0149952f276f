"""Criteria and schedules of pruning: closed forms, an independent gradient, and whole trials to the bit."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from studies.factors import criteria, limits, pruning, targets
from studies.record import EpochRecord, LayerRecord, Result, StudyError

CONF = Path(__file__).parent.parent / "conf"
OPTIONS = {path.stem: yaml.safe_load(path.read_text()) for path in (CONF / "pruning").glob("*.yaml")}
SMALL = ("model.width=12", "data.train_size=160", "engine.xla=false", "training.epochs=4")
TIMES = ("seconds", "seconds_build", "seconds_train", "seconds_total", "memory_mb")
SHAPES = ((5, 7), (7, 4), (3, 3, 2, 6))


def network(kernels, **asked):
    asked = {name: (lambda value=value: value) for name, value in asked.items()}
    return criteria.Network(
        kernels, *(asked.get(n) for n in ("gradients", "movement", "flow")), np.random.default_rng(0)
    )


@given(st.integers(0, 99), st.floats(0, 0.98), st.sampled_from(["global", "layer"]))
def test_every_pruned_weight_is_smaller_than_every_kept_one(seed, sparsity, scope):
    rng = np.random.default_rng(seed)
    kernels = [rng.normal(size=shape) * scale for shape, scale in zip(SHAPES, (1, 0.1, 3), strict=True)]
    before = [rng.random(shape) < 0.9 for shape in SHAPES]
    found = criteria.select(criteria.magnitude(network(kernels)), before, sparsity, scope, rng)
    groups = [range(3)] if scope == "global" else [[0], [1], [2]]
    for group in groups:
        weights, kept, there = (np.concatenate([each[n].ravel() for n in group]) for each in (kernels, found, before))
        weights = np.abs(weights)
        assert not (kept & ~there).any()
        assert kept.sum() == min(round((1 - sparsity) * kept.size), there.sum())
        gone = there & ~kept
        assert not gone.any() or not kept.any() or weights[gone].max() <= weights[kept].min()


def test_of_equal_scores_any_stay_and_what_is_no_number_goes_first():
    scores, all_there = [np.array([1.0, np.nan, 1.0, -2.0, np.inf, 1.0])], [np.ones(6, bool)]
    [kept] = criteria.select(scores, all_there, 0.5, "global", np.random.default_rng(0))
    assert kept.tolist() == [True, False, True, False, False, True]
    # Were it the first, layers whose scores are all zero would go or stay as a whole.
    same, there = [np.zeros((20, 30)), np.zeros((30, 20))], [np.ones((20, 30), bool), np.ones((30, 20), bool)]
    for mask in criteria.select(same, there, 0.5, "global", np.random.default_rng(0)):
        assert 0.4 < mask.mean() < 0.6 and 0.2 < mask[:10].mean() < 0.8


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_a_unit_of_each_layer_stays(scope):
    scores, kept = [np.array([0.1, 0.2, 0.3]), np.arange(10.0, 50)], [np.ones(3, bool), np.ones(40, bool)]
    few, many = criteria.select(scores, kept, 0.9, scope, np.random.default_rng(0), least=1)
    assert few.tolist() == [False, False, True] and many.sum() == (3 if scope == "global" else 4) and many[-3:].all()
    few, _ = criteria.select(scores, [np.zeros(3, bool), kept[1]], 0.9, scope, np.random.default_rng(0), least=1)
    assert not few.any()


def test_units_of_layers_with_many_inputs_are_worth_no_more():
    one, other = np.full((4, 3), 0.5), np.full((3, 3, 50, 3), 0.5)
    for criterion in (criteria.unit_l1, criteria.unit_l2):
        np.testing.assert_allclose(np.concatenate(criterion(network([one, other]))), 0.5)


def test_a_shuffled_mask_keeps_as_much_of_each_layer():
    rng = np.random.default_rng(1)
    masks = [rng.random(shape) < 0.3 for shape in SHAPES]
    found = criteria.shuffled(masks, rng)
    assert [m.sum() for m in found] == [m.sum() for m in masks]
    assert any((m != before).any() for m, before in zip(found, masks, strict=True))


def test_the_table_of_criteria_is_what_the_setting_takes():
    for name in criteria.CRITERIA:
        assert limits.LIMITS["pruning.criterion"](name) == name
    with pytest.raises(ValueError, match=", ".join(criteria.CRITERIA)):
        limits.LIMITS["pruning.criterion"]("size")


def test_a_gradual_plan_is_the_cubic_of_zhu_and_gupta():
    plan = pruning.gradual(0.8, "magnitude", begin=0.2, end="18 epochs").plan(20)
    for cut in plan.cuts:
        assert cut.sparsity == pytest.approx(0.8 + (0 - 0.8) * (1 - (cut.after - 4) / (1 * (18 - 4))) ** 3)
    assert [cut.after for cut in plan.cuts] == list(range(5, 19)) and plan.settled == 18
    assert plan.cuts[-1].sparsity == 0.8 and plan.length == 20


def test_an_iterative_plan_starts_each_round_where_it_rewinds_to():
    plan = pruning.iterative(1 - 0.8**3, "magnitude", rounds=3, rewind=1).plan(4 + 3 * 3)
    assert [cut.after for cut in plan.cuts] == [4, 7, 10] and all(cut.back for cut in plan.cuts)
    np.testing.assert_allclose([cut.sparsity for cut in plan.cuts], 1 - 0.8 ** np.arange(1, 4))
    assert plan.positions.tolist() == [0, 1, 2, 3, *[1, 2, 3] * 3] and plan.length == 4 and plan.settled == 11


def test_the_sparsities_of_synflow_leave_the_same_share_each_time():
    found = criteria.levels(0.2, 0.9, 100)
    np.testing.assert_allclose(np.diff(np.log(1 - np.array(found))), np.log(0.1 / 0.8) / 100, rtol=1e-6)
    assert found[-1] == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("given", "epochs", "words"),
    [
        (pruning.one_shot(0.5, "magnitude", at="9 epochs"), 8, ("pruning.at=9 epochs", "8 epochs at most")),
        (pruning.gradual(0.5, "magnitude", begin=0.5, end=0.4), 9, ("pruning.begin=0.5", "an end after")),
        (pruning.iterative(0.5, "magnitude", rounds=4), 21, ("training.epochs=21", "training.epochs=20 or 25")),
        (pruning.iterative(0.5, "magnitude", rounds=2, rewind=6), 8, ("training.epochs=8", "=9 or 12")),
    ],
)
def test_a_plan_that_does_not_fit_the_run_is_refused(given, epochs, words):
    with pytest.raises(StudyError) as error:
        given.plan(epochs)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("criterion", "size", "one of magnitude"),
        ("sparsity", 1, "from 0 below 1"),
        ("sparsity", -0.1, "from 0 below 1"),
        ("at", "99 epochs", "20 epochs at most"),
        ("at", 1.5, "a share of the run from 0 to 1"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_without_tensorflow(config, setting, value, words):
    nodes = {
        name: part for name, part in config(["pruning=one_shot"]).items() if name not in ("study", "claim", "compute")
    }
    nodes["pruning"][setting] = value
    with pytest.raises(StudyError, match=words):
        limits.settled(nodes)


def test_the_graph_knows_of_masks_and_not_of_what_they_are():
    graphs = {name: limits.GROUPS["pruning"].graph(targets.canonical(node)) for name, node in OPTIONS.items()}
    assert graphs.pop("none") == {} and graphs.pop("channels") == {"units": True, "movement": False}
    assert all(graph == {"units": False, "movement": False} for graph in graphs.values())


def test_what_is_drawn_follows_the_stream_of_noise(config):
    drawn = {
        name: "noise" in limits.drawn(config([f"pruning={name}"])) for name in ("none", "random", "lottery_shuffled")
    }
    assert drawn == {"none": False, "random": True, "lottery_shuffled": True}


# From here on with TensorFlow.


@pytest.fixture(scope="module")
def run(tf, trial_of):
    """A function from overrides to a trial's numbers: epochs, layers, result, all without times."""
    from studies.train import trial

    def ran(*overrides, seed=0):
        *records, result = trial.run(trial_of((*SMALL, *overrides), seed))
        epochs = [record for record in records if isinstance(record, EpochRecord)]
        layers = [row for record in records if isinstance(record, list) for row in record]
        assert isinstance(result, Result) and all(isinstance(row, LayerRecord) for row in layers)
        return epochs, layers, result

    return ran


def numbers(epochs, layers, result):
    records = [dataclasses.asdict(record) for record in (*epochs, *layers, result)]
    return [repr({name: value for name, value in record.items() if name not in TIMES}) for record in records]


@pytest.fixture(scope="module")
def engine_of(tf):
    """A function from a model to an engine with masks that is not compiled."""
    import keras

    from studies.train.engine import Engine

    def made(model, masked=("kernel",), **settings):
        for weight in model.trainable_variables:
            weight.assign(np.random.default_rng(len(weight.path)).normal(size=weight.shape) * 0.5)
        return Engine(model, keras.optimizers.SGD(0.1), masked=masked, observe=False, **settings)

    return made


def dense(*units, activation="relu"):
    import keras

    layers = [keras.layers.Dense(n, activation, name=f"dense_{i}") for i, n in enumerate(units[1:-1], start=1)]
    return keras.Sequential([keras.Input(units[:1]), *layers, keras.layers.Dense(units[-1], name="logits")])


@pytest.mark.parametrize(("units", "scale"), [((6, 5, 8, 3), 1), ((6, *[40] * 25, 3), 40)])
def test_synflow_conserves_what_flows_from_layer_to_layer(engine_of, units, scale):
    """Tanaka et al. 2020, theorem 2; of 26 layers of large weights too, whose flow is no float32."""
    engine = engine_of(dense(*units))
    kernels = engine.masks.weights
    before = [v.numpy() for v in engine.model.variables]
    flows = engine.sensitivity.flow(kernels, [k.numpy() * scale for k in kernels])
    sums = [flow.sum() for flow in flows]
    assert np.isfinite(sums).all() and sums[0] > 0
    np.testing.assert_allclose(sums, sums[0], rtol=1e-4)
    for variable, value in zip(engine.model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_snip_is_how_much_the_loss_would_change_per_share_of_a_weight(tf, engine_of):
    """Lee et al. 2019, eq. 3: the derivative of the loss by a weight's mask, by central differences in float64."""
    rng = np.random.default_rng(0)
    engine, x, y = engine_of(dense(4, 6, 3, activation="tanh")), rng.normal(size=(9, 4)), rng.integers(0, 3, 9)
    first, offset, last, shift = [v.numpy().astype(float) for v in engine.model.weights]
    picked = np.array([1, 3, 4, 8])

    def loss(first, last):
        logits = np.tanh(x[picked] @ first + offset) @ last + shift
        return np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(4), y[picked]])

    def by_mask(place, index):
        shares = [np.ones_like(first), np.ones_like(last)]
        ends = []
        for step in (1e-5, -1e-5):
            shares[place][index] = 1 + step
            ends.append(loss(first * shares[0], last * shares[1]))
        return abs(ends[0] - ends[1]) / 2e-5

    data = tf.constant(x, tf.float32), tf.constant(y, tf.int32), tf.ones(1), tf.zeros(1)
    kernels = engine.masks.weights
    gradients = engine.sensitivity.gradients(data, picked, kernels)
    scores = criteria.CRITERIA["snip"](network([k.numpy() for k in kernels], gradients=gradients))
    for place, score in enumerate(scores):
        expected = np.array([by_mask(place, index) for index in np.ndindex(score.shape)]).reshape(score.shape)
        np.testing.assert_allclose(score, expected, rtol=1e-3, atol=1e-6)


def test_movement_adds_up_how_far_weights_were_pulled_from_zero(tf, engine_of):
    """Under SGD the gradient is the step over the rate, which the weights tell."""
    from studies.train.engine import Course

    engine = engine_of(dense(4, 3), movement=True)
    rng, rate = np.random.default_rng(0), np.float32(0.25)
    data = tf.constant(rng.normal(size=(6, 4)), tf.float32), tf.constant([0, 1, 2, 0, 1, 2]), tf.ones(1), tf.zeros(1)
    engine.epoch, [kernel], expected = engine._epoch, engine.masks.weights, 0
    for batch in np.split(np.arange(6, dtype=np.int32), 3):
        before = kernel.numpy()
        engine.run_epoch(*data, Course(batch[None], np.array([rate]), np.zeros(1, np.float32), []))
        expected = expected + before * (kernel.numpy() - before) / rate
    np.testing.assert_allclose(engine.masks.moved[0].numpy(), expected, rtol=1e-4, atol=1e-6)


def name_of(variable):
    return "/".join(variable.path.split("/")[-2:])


def narrow(model, units):
    """The weights of a model whose units are gone, cut out: kernel, bias, norm, and what the next layer takes."""
    values, rest = {name_of(v): v.numpy() for v in model.weights}, None
    for name, kept in units.items():
        kernel = values[f"conv_{name}/kernel"][..., kept]
        values[f"conv_{name}/kernel"] = kernel if rest is None else kernel[:, :, rest]
        for tensor in ("gamma", "beta", "moving_mean", "moving_variance"):
            values[f"norm_{name}/{tensor}"] = values[f"norm_{name}/{tensor}"][kept]
        rest = kept
    kernel = values["dense_1/kernel"]
    values["dense_1/kernel"] = kernel.reshape(-1, len(rest), kernel.shape[-1])[:, rest].reshape(-1, kernel.shape[-1])
    return values


def test_a_network_without_units_is_the_narrow_one(tf, engine_of):
    from studies.factors.models import cnn
    from studies.train.prunable import OF_UNITS, prunable, spread

    settings = {"kernel_size": 3, "padding": "same", "dense": 5, "activation": "relu", "normalization": "batch"}
    settings |= {"spatial_dropout": 0.0, "dropout": 0.0}
    model = cnn((8, 8, 1), 3, filters=[4, 6], **settings)
    engine = engine_of(model, masked=OF_UNITS)
    asked = pruning.one_shot(0.5, "unit_l1", keep=["dense_1"])
    kernels = prunable(model, asked)
    units = {"1": np.array([1, 0, 1, 1], bool), "2": np.array([0, 1, 1, 0, 1, 0], bool)}
    values = narrow(model, units)
    engine.mask(spread(model, kernels, list(units.values()), engine.masks.weights))
    small = cnn((8, 8, 1), 3, filters=[3, 3], **settings)
    for variable in small.weights:
        variable.assign(values[name_of(variable)])
    images = np.random.default_rng(0).normal(size=(5, 8, 8, 1)).astype(np.float32)
    np.testing.assert_allclose(model(images), small(images), rtol=1e-4, atol=1e-5)
    left = sum(np.count_nonzero(k.numpy()) for k in engine.masks.kept)
    assert left == sum(v.numpy().size for v in small.trainable_variables)


def test_a_plan_and_a_criterion_may_be_ones_own(engine_of):
    from studies.train.pruner import Pruner

    engine = engine_of(dense(4, 6, 3))
    own = pruning.Pruning(
        lambda epochs: pruning.straight(epochs, pruning.Cut(epochs - 1, 0.5)),
        lambda network: [np.arange(kernel.size).reshape(kernel.shape) for kernel in network.kernels],
        scope="layer",
        keep_last=False,
    )
    pruner = Pruner(own, 3, engine, None, None, np.random.default_rng(0))
    assert [pruner.after(epoch) for epoch in range(4)] == [False, False, True, False] and not pruner.before(3)
    for kernel in engine.masks.weights:
        half = kernel.numpy().size // 2
        assert (kernel.numpy().ravel()[:half] == 0).all() and (kernel.numpy().ravel()[half:] != 0).all()
    assert pruner.shares == {"sparsity": 0.5, "parameters_kept": 1 - 21 / 51}


TICKET = ("pruning=lottery_ticket", "pruning.rounds=1", "pruning.rewind=1", "training.epochs=5", "pruning.sparsity=0.7")


def parts_of(trial_of, *overrides):
    from studies.train.parts import Parts

    return Parts(trial_of((*SMALL, *overrides)))


def test_a_ticket_goes_back_to_the_bit_weights_optimizer_and_rate(tf, trial_of):
    parts = parts_of(trial_of, *TICKET, "schedule=cosine", "optimizer=adam", "model.normalization=batch")
    rates, early = [], []
    for epoch, course in enumerate(parts.courses(), start=1):
        rates.append(course.rates)
        if epoch == 4:
            kept = {id(w): m.numpy() for w, m in zip(parts.engine.masks.weights, parts.engine.masks.kept, strict=True)}
            for variable, value in zip(parts.engine.model.variables, early, strict=False):
                np.testing.assert_array_equal(variable.numpy(), value * kept.get(id(variable), 1))
            [(moment, value)] = [
                (variable, value)
                for variable, value in zip(parts.engine.variables, early, strict=True)
                if getattr(variable, "path", "").endswith("dense_1_kernel_velocity")
            ]
            mask = kept[id(parts.engine.masks.weights[0])]
            np.testing.assert_array_equal(moment.numpy(), value * mask)
            assert value.any() and 0 < mask.mean() < 0.5
            break
        parts.after(epoch, parts.engine.run_epoch(*parts.data, course))
        if epoch == 1:
            early = parts.engine.state()
    np.testing.assert_array_equal(rates[3], rates[1])
    assert rates[2][0] < rates[1][0] and epoch == 4


@pytest.mark.parametrize(
    ("option", "same_mask", "same_draw"), [("reinitialized", True, False), ("shuffled", False, True)]
)
def test_a_control_of_the_ticket_differs_in_one_thing(tf, trial_of, option, same_mask, same_draw):
    found = []
    for name in ("ticket", option):
        parts = parts_of(trial_of, f"pruning=lottery_{name}", "pruning.rounds=1", "training.epochs=2")
        kernel = parts.engine.masks.weights[0]
        draw, courses = kernel.numpy(), parts.courses()
        parts.after(1, parts.engine.run_epoch(*parts.data, next(courses)))
        next(courses)
        mask = parts.engine.masks.kept[0].numpy() > 0
        found.append((mask, kernel.numpy(), np.array_equal(kernel.numpy(), draw * mask)))
    (ticket, *_, back), (mask, values, control_back) = found
    assert back and control_back == same_draw and np.array_equal(mask, ticket) == same_mask
    assert mask.sum() == ticket.sum() and (values[~mask] == 0).all() and (values[mask] != 0).all()


def test_pruned_trials_repeat_themselves_to_the_bit_and_share_a_trace(run, monkeypatch):
    from collections import OrderedDict

    from studies.train import parts

    monkeypatch.setattr(parts, "_engines", OrderedDict())
    options = ["snip", "lottery_shuffled pruning.rounds=1", "synflow", "random pruning.at=0.25"]
    first = [numbers(*run("diagnostics=none", *f"pruning={option}".split())) for option in options]
    assert len(parts._engines) == 1
    parts._engines.clear()
    again = [numbers(*run("diagnostics=none", *f"pruning={option}".split())) for option in reversed(options)]
    assert again[::-1] == first and len({str(each) for each in first}) == len(options)


def test_a_trial_records_what_is_left_of_its_network(run):
    epochs, layers, result = run("pruning=one_shot", "pruning.sparsity=0.75", "pruning.keep=[dense_2]")
    assert [record.sparsity for record in epochs] == [0, 0, 0.75, 0.75, 0.75] and result.sparsity == 0.75
    gone = 0.75 * 64 * 12
    assert result.parameters_kept == epochs[-1].parameters_kept == pytest.approx(1 - gone / result.parameters)
    places = [row.statistics for row in layers if row.layer == "dense_1" and row.tensor == "kernel" and row.epoch == 2]
    from studies.contract import STATISTICS

    assert places[0][STATISTICS.index("sparsity_0")] == pytest.approx(0.75)
    assert result.best_val_accuracy == max(record.val_accuracy for record in epochs[2:])
    dense, _, plain = run()
    assert all(np.isnan(record.sparsity) for record in dense) and np.isnan(plain.parameters_kept)


def test_pruning_nothing_is_the_dense_trial(run):
    left = ("val_loss", "test_loss", "running_loss", "best_val_loss")
    dense, nothing = run()[2], run("pruning=one_shot", "pruning.sparsity=0.0")[2]
    assert [getattr(dense, name) for name in left] == [getattr(nothing, name) for name in left]


def test_a_plateau_begins_anew_with_what_is_left(trial_of):
    """Else the dense network's loss, which the pruned one does not reach, would take the rate down for ever."""
    trained = parts_of(
        trial_of, "pruning=one_shot", "pruning.sparsity=0.9", "schedule=plateau", "schedule.patience=1", "data=digits"
    )
    courses = trained.courses()
    for epoch, loss in ((1, 0.5), (2, 0.9), (3, 0.8)):
        course = next(courses)
        trained.after(epoch, trained.engine.run_epoch(*trained.data, course))
        trained.hear(loss)
    assert trained.pruner.cuts and max(trained.pruner.cuts) == 2 and trained.kept == 1


def test_early_stopping_waits_for_the_last_cut(run):
    """The cut makes all worse: the epochs before it, of another network, are none to go back to."""
    settings = ("training.early_stopping=1", "training.epochs=8", "diagnostics=none")
    epochs, _, result = run(*settings, "pruning=one_shot", "pruning.sparsity=0.95", "pruning.at=0.5")
    assert min(record.val_loss for record in epochs[1:4]) < epochs[4].val_loss
    assert result.sparsity > 0.94 and result.epochs >= 5 and result.val_loss in [r.val_loss for r in epochs[4:]]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["pruning=one_shot", "pruning.keep=[conv_*]"], ("pruning.keep=conv_*", "dense_1, dense_2, logits")),
        (["pruning=one_shot", "pruning.keep=[dense_*]"], ("no layer that may be pruned", "dense_1, dense_2, logits")),
        (["pruning=channels", "model=row_rnn"], ("no layer whose units may go", "rnn_1/lstm_cell, logits")),
        (["pruning=lottery_ticket", "training.epochs=6"], ("training.epochs=6", "training.epochs=5 or 10")),
        (
            ["pruning=lottery_ticket", "training.epochs=20", "schedule=cosine", "schedule.warmup=5 epochs"],
            ("schedule.warmup=5 epochs", "4 epochs at most"),
        ),
        (
            ["pruning=lottery_shuffled", "pruning.restart=continue", "pruning.rounds=3", "training.epochs=20"],
            ("pruning.shuffled=true with pruning.restart=continue",),
        ),
        (["pruning=snip", "pruning.criterion=movement"], ("pruning.criterion=movement", "nothing has moved yet")),
        (["pruning=one_shot", "model.normalization=weight"], ("standardizes its kernel", "model.normalization")),
        (["pruning=synflow", "model.activation=tanh"], ("activation tanh", "relu, leaky_relu")),
        (["pruning=synflow", "model.normalization=layer"], ("GroupNormalization", "no sum over paths")),
    ],
)
def test_what_does_not_fit_the_model_or_the_run_is_refused_before_anything_trains(tf, config, overrides, words):
    from studies.train import parts

    nodes = config(tuple(overrides))
    [checked] = [part for part in limits.checks(nodes) if "pruning" in part]
    [found] = parts.check(checked)
    assert all(word in found for word in words), found


def test_synflow_of_probabilities_is_refused(tf):
    import keras

    from studies.train import pruner

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5), keras.layers.Dense(3, "softmax")])
    with pytest.raises(StudyError, match="ends in a softmax"):
        pruner.check(pruning.one_shot(0.5, "synflow"), 2, model, from_logits=False)
