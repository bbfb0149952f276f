import functools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from studies.contract import STATISTICS
from studies.factors import targets

CONF = Path(__file__).parent.parent / "conf"
OPTIMIZERS = sorted(option.stem for option in (CONF / "optimizer").glob("*.yaml"))
COSINE, CONSTANT = "schedule=cosine schedule.warmup=0.3", "schedule=constant"
PENALTIES = {
    "none": "",
    "l1": "regularizer=l1 regularizer.l1=0.03",
    "l2": "regularizer=l2 regularizer.l2=0.05",
    "l1_l2": "regularizer=l1_l2 regularizer.l1=0.02 regularizer.l2=0.03",
    "decoupled": "regularizer=decoupled regularizer.decay=0.5",
    "l2 of all": "regularizer=l2 regularizer.l2=0.05 regularizer.applies_to=all",
    "decoupled of all": "regularizer=decoupled regularizer.decay=0.5 regularizer.applies_to=all",
    "max_norm": "regularizer=max_norm regularizer.limit=0.9",
    "unit_norm": "regularizer=unit_norm",
    "clip": "clipping=global_norm clipping.norm=0.2",
    "clip norm": "clipping=norm clipping.norm=0.1",
    "clip value": "clipping=value clipping.limit=0.02",
    "label smoothing": "regularizer=label_smoothing regularizer.smoothing=0.2",
    "class weights": "training.class_weight=[0.3,2,1.5]",
    "balanced smoothing": "training.class_weight=balanced regularizer=label_smoothing regularizer.smoothing=0.2",
    "l2 clip": "regularizer=l2 regularizer.l2=0.05 clipping=global_norm clipping.norm=0.2",
}
KERAS_CLIPPING = {"global_norm": "global_clipnorm", "norm": "clipnorm", "value": "clipvalue"}
EXAMPLES, CLASSES, STEPS, BATCH, SCALE, SHIFT = 60, 3, 5, 11, 1 / 16, -0.25

rng = np.random.default_rng(0)
X = rng.integers(0, 17, (EXAMPLES, 4, 4, 1)).astype(np.uint8)
IMAGES = X * np.float32(SCALE) + np.float32(SHIFT)
Y = rng.integers(0, CLASSES, EXAMPLES).astype(np.int32)
ORDER = rng.permutation(EXAMPLES)[: STEPS * BATCH].reshape(STEPS, BATCH).astype(np.int32)


def course(engine, rates, momenta=None, order=ORDER):
    """What the steps of an engine get besides their data."""
    from studies.train.engine import Course

    steps, batch = order.shape
    rates = np.full(steps, rates, np.float32) if np.isscalar(rates) else rates
    momenta = np.zeros(steps, np.float32) if momenta is None else momenta.astype(np.float32)
    random = {name: np.random.default_rng(1) for name in ("augment", "noise")}
    return Course(order, rates, momenta, engine.rules.draw(random, steps, batch))


def network(regularizer=None, last_layers=(), constraint=None, of_biases=None):
    """The engine gets it without a regularizer and a constraint, plain Keras with them in every layer."""
    from keras import Input, Sequential
    from keras.layers import Dense, Flatten

    added = dict(kernel_regularizer=regularizer, kernel_constraint=constraint, bias_regularizer=of_biases)
    hidden, logits = Dense(8, "relu", **added, name="dense_1"), Dense(CLASSES, **added, name="logits")
    return Sequential([Input(X.shape[1:]), Flatten(), hidden, logits, *last_layers])


def deep_network():
    from studies.factors.models import mlp

    return mlp(X.shape[1:], CLASSES, depth=2, width=8, activation="relu", normalization="batch", dropout=0.3)


def initial_values(model, seed=0):
    rng = np.random.default_rng(seed)
    return [
        np.array([seed, 0], v.dtype)
        if "seed_generator" in v.path
        else rng.uniform(-1, 1, v.shape).astype(np.float32) * 0.6 + ("variance" in v.path)
        for v in model.variables
    ]


@pytest.fixture(scope="session")
def compiled(tf):
    """A function from a model, rules and an engine's settings to the engine and its data, ready for an epoch."""
    from studies.train.engine import Engine
    from studies.train.steps import Rules

    def made(model, optimizer, *rules, **settings):
        engine = Engine(model, optimizer, Rules(rules), **settings)
        data = tf.constant(X), tf.constant(Y), tf.constant([SCALE]), tf.constant([SHIFT])
        engine.compile(*data, STEPS, BATCH)
        return engine, data

    return made


@pytest.fixture(scope="module")
def deep(compiled):
    """An engine with batch norm and dropout; a test that uses it resets it first."""
    import keras

    return compiled(deep_network(), keras.optimizers.Adam())


@pytest.fixture(scope="session")
def plain(tf, config):
    """A function that trains a model with Keras's `fit` on the batches of `ORDER`; gives weights and what fit says."""
    import keras

    @functools.cache
    def trained(overrides, make=network):
        nodes = config(overrides.split())
        regularizer, constraint, decay = keras_parts(nodes["regularizer"])
        whole = nodes["regularizer"].get("applies_to") == "all"
        of_biases = regularizer if whole else None
        model = make(regularizer, constraint=constraint, of_biases=of_biases) if make is network else make()
        for variable, value in zip(model.variables, initial_values(model), strict=True):
            variable.assign(value)
        kind = nodes["clipping"].get("_target_", "").partition("clip_by_")[2]
        clipping = {KERAS_CLIPPING[kind]: nodes["clipping"].get("norm", nodes["clipping"].get("limit"))} if kind else {}
        optimizer = targets.build(alone(nodes["optimizer"]) | decay, "optimizer", [], **clipping)
        if decay and not whole:
            optimizer.exclude_from_weight_decay(var_names=["bias"])
        smoothing = nodes["regularizer"].get("smoothing", 0.0)
        crossentropy = keras.metrics.CategoricalCrossentropy(
            "crossentropy", from_logits=True, label_smoothing=smoothing
        )
        model.compile(
            optimizer,
            keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing),
            metrics=["accuracy", crossentropy],
            run_eagerly=True,
        )
        rates = learning_rates(nodes)
        set_rate = keras.callbacks.LambdaCallback(
            on_train_batch_begin=lambda step, logs: setattr(optimizer, "learning_rate", rates[step])
        )
        order = ORDER.ravel()
        settings = dict(batch_size=BATCH, shuffle=False, verbose=0)
        one_hot = np.eye(CLASSES, dtype=np.float32)[Y[order]]
        weights = nodes["training"]["class_weight"]
        if weights == "balanced":
            weights = compute_class_weight("balanced", classes=np.arange(CLASSES), y=Y)
        if weights is not None:
            settings["class_weight"] = dict(enumerate(weights))
        history = model.fit(IMAGES[order], one_hot, callbacks=[set_rate], **settings).history
        loss = history["crossentropy" if weights is None else "loss"][0]
        return [v.numpy() for v in model.variables], loss, history["accuracy"][0]

    return trained


def alone(optimizer):
    """An optimizer's node without what goes around any."""
    from studies.factors.optimizers import AROUND

    return {name: value for name, value in optimizer.items() if name not in AROUND}


def keras_parts(node):
    """A regularizer as Keras has it: in a layer, as a layer's constraint, or as an optimizer's setting."""
    import keras

    match node.get("_target_", "").rpartition(".")[2]:
        case "decoupled":
            return None, None, {"weight_decay": node["decay"]}
        case "max_norm":
            return None, keras.constraints.MaxNorm(node["limit"]), {}
        case "unit_norm":
            return None, keras.constraints.UnitNorm(), {}
        case "label_smoothing":
            return None, None, {}
    return targets.build({n: v for n, v in node.items() if n != "applies_to"}, "regularizer", []), None, {}


def learning_rates(nodes):
    schedule = targets.build(nodes["schedule"], "schedule", [])
    return (nodes["optimizer"]["learning_rate"] * schedule(np.arange(STEPS), STEPS, STEPS)).astype(np.float32)


def assert_equals_fit(config, compiled, plain, optimizer, penalty, schedules, xla, make=network):
    from studies.train import steps

    overrides = f"optimizer={optimizer} {PENALTIES[penalty]}"
    nodes = config([*overrides.split(), *schedules[0].split()])
    optimizer = targets.build(alone(nodes["optimizer"]), "optimizer", [])
    engine, data = compiled(make(), optimizer, *steps.rules(nodes, [], np.bincount(Y)).rules, xla=xla)
    for schedule in schedules:
        engine.reset(initial_values(engine.model))
        rates = learning_rates(config([*overrides.split(), *schedule.split()]))
        done = engine.run_epoch(*data, course(engine, rates))
        expected, expected_loss, expected_accuracy = plain(f"{overrides} {schedule}", make)
        for variable, value in zip(engine.model.variables, expected, strict=True):
            np.testing.assert_allclose(variable.numpy(), value, atol=1e-5, err_msg=f"{schedule} {variable.path}")
        ends = [v.numpy().ravel() for v in engine.model.trainable_variables]
        np.testing.assert_array_equal(done.weights, np.concatenate(ends))
        assert float(done.loss) == pytest.approx(expected_loss, abs=1e-5)
        assert float(done.accuracy) == pytest.approx(expected_accuracy, abs=1e-6)
    return engine, data


def assert_repeats_itself(engine, data):
    """To the bit, whatever is trained between two resets."""

    def trained(seed):
        engine.reset(initial_values(engine.model, seed))
        for _ in range(2):
            done = engine.run_epoch(*data, course(engine, 0.01))
        return [*(np.asarray(value) for value in vars(done).values()), *engine.state()]

    first, other, again = trained(0), trained(1), trained(0)
    assert [value.tobytes() for value in first] == [value.tobytes() for value in again]
    assert not np.array_equal(first[3], other[3])


def observed(engine, flats, squares, start):
    """Layer, tensor and statistics of each trained weight at each epoch."""
    from studies.observe.tensors import Watched, tensors

    trained = [tensor for tensor in tensors(engine.model) if tensor.place.stop <= len(start)]
    watched = Watched(trained, start.numpy(), np.random.default_rng(0))
    rows = np.stack([flat.numpy() for flat in flats])
    return [(tensor.layer, tensor.tensor, table) for tensor, table, _ in watched.tables(rows, np.stack(squares))]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_an_epoch_equals_keras_fit_and_a_reset_engine_repeats_itself(config, compiled, plain, optimizer):
    assert_repeats_itself(*assert_equals_fit(config, compiled, plain, optimizer, "none", [CONSTANT], xla=False))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_each_optimizers_regularized_and_clipped_epoch_equals_keras_fit_under_one_schedule_after_another(
    config, compiled, plain, optimizer
):
    """With XLA where the steps of an optimizer are of a kind of their own."""
    xla = optimizer in ("adam", "adamw", "momentum", "muon", "schedule_free_adamw")
    schedules = [COSINE, CONSTANT]
    assert_repeats_itself(*assert_equals_fit(config, compiled, plain, optimizer, "l2 clip", schedules, xla=xla))


@pytest.mark.parametrize("penalty", [name for name in PENALTIES if name not in ("none", "l2 clip")])
def test_a_penalty_or_clipping_alone_equals_keras_fit(config, compiled, plain, penalty):
    assert_equals_fit(config, compiled, plain, "sgd", penalty, [COSINE], xla=False)


@pytest.mark.parametrize("settings", ["", " optimizer.lookahead=5"])
def test_an_optimizers_own_decay_of_kernels_alone_is_the_decoupled_one(config, compiled, settings):
    """Keras decays before its update too."""
    from studies.factors.optimizers import exempt
    from studies.train import steps
    from studies.train.parts import build_optimizer

    decay, ends = "optimizer=momentum +optimizer.weight_decay=0.5", []
    for overrides in (
        f"{decay} optimizer.weight_decay_on=kernels",
        "optimizer=momentum regularizer=decoupled regularizer.decay=0.5",
        decay,
    ):
        nodes, model = config((overrides + settings).split()), network()
        optimizer = build_optimizer(nodes["optimizer"], [])
        exempt(optimizer, nodes["optimizer"], model.trainable_variables)
        engine, data = compiled(model, optimizer, *steps.rules(nodes, []).rules)
        engine.reset(initial_values(engine.model))
        engine.run_epoch(*data, course(engine, 0.1))
        ends.append([v.numpy() for v in model.trainable_variables])
    kernels, decoupled, all_weights = ends
    for one, other in zip(kernels, decoupled, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(kernels, all_weights, strict=True) if a.ndim == 1)


def test_batch_norm_and_dropout_equal_keras_fit_under_one_schedule_after_another(config, compiled, plain):
    schedules = [COSINE, CONSTANT]
    engine, data = assert_equals_fit(config, compiled, plain, "adam", "none", schedules, xla=False, make=deep_network)
    assert_repeats_itself(engine, data)


def test_the_penalties_and_the_clipping_of_these_tests_matter(plain):
    # As the tests before this one call it, so that what is trained already is not trained again.
    ends = [plain(f"optimizer=sgd {overrides} {COSINE}", network)[0] for overrides in PENALTIES.values()]
    for place, one in enumerate(ends):
        for other in ends[:place]:
            assert max(np.abs(a - b).max() for a, b in zip(one, other, strict=True)) > 2e-4


def test_evaluation_equals_keras_evaluate_whatever_the_chunks(tf, deep):
    import keras

    from studies.train.engine import chunked

    engine, data = deep
    engine.reset(initial_values(engine.model))
    some = np.arange(5, 45)
    engine.model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    expected = engine.model.evaluate(IMAGES[some], Y[some], verbose=0)
    for batch in (1, 7, 20, 1000):
        np.testing.assert_allclose(engine.evaluate(*data, *chunked(some, batch=batch))[0], expected, rtol=1e-5)


@given(st.integers(1, 5000), st.integers(1, 1000))
def test_padding_keeps_every_index_once(tf, count, batch):
    from studies.train.engine import chunked

    order, weight, member = chunked(np.arange(count) + 3, batch=batch)
    assert (member == 1).all()
    assert order.shape == weight.shape and order.shape[1] <= batch
    np.testing.assert_array_equal(order[weight == 1], np.arange(count) + 3)
    assert weight.sum() == count and order.size - count < order.shape[0]


@pytest.mark.parametrize(("counts", "size", "chunks"), [((287, 287, 359), 287, 4), ((20, 20, 9999), 125, 82)])
def test_chunks_fit_what_is_evaluated_most_and_are_never_many(tf, counts, size, chunks):
    from studies.train.engine import chunked

    order, weight, member = chunked(*map(np.arange, counts))
    assert order.shape == weight.shape == (chunks, size)
    assert member.shape == (chunks, 3) and (weight.sum(axis=1) @ member).tolist() == list(counts)


def test_parts_evaluated_together_have_each_their_own(deep):
    from studies.train.engine import chunked

    engine, data = deep
    engine.reset(initial_values(engine.model))
    parts = [np.arange(20), np.arange(20, 37), np.arange(40, 60)]
    for batch in (6, 1000):
        together = engine.evaluate(*data, *chunked(*parts, batch=batch))
        alone = [engine.evaluate(*data, *chunked(part, batch=batch))[0] for part in parts]
        np.testing.assert_allclose(together, alone, rtol=1e-6)
        assert together[0] == engine.evaluate(*data, *chunked(*parts[:2], batch=batch))[0]


@pytest.mark.parametrize("xla", [False, True])
def test_a_part_has_the_same_bits_whatever_is_evaluated_with_it(tf, compiled, xla):
    import keras

    from studies.train.engine import chunked

    engine, (_, y, scale, shift) = compiled(network(), keras.optimizers.SGD(), xla=xla)
    engine.reset(initial_values(engine.model))
    sizes = np.where(np.arange(EXAMPLES) < 40, 16, 3e38).astype(np.float32)  # logits beyond float32
    data = tf.constant(sizes[:, None, None, None] * (X > 8)), y, scale * 16, shift
    engine.compile(*data, STEPS, BATCH)
    for batch in (6, 1000):
        order, weight, member = chunked(*np.split(np.arange(EXAMPLES), [20, 40]), batch=batch)
        ends = [0, *np.cumsum(member.sum(axis=0)).astype(int)]
        first, second, ruined = engine.evaluate(*data, order, weight, member)
        assert np.isfinite([first, second]).all() and not np.isfinite(ruined[0])
        for place, part in enumerate((first, second)):
            assert engine.evaluate(*data, order, weight, member, (ends[place], ends[place + 1])) == [part]
        assert engine.evaluate(*data, order, weight, member, (0, ends[2])) == [first, second]


@pytest.mark.parametrize("end", ["logits", "activation", "Activation", "Softmax"])
def test_a_network_may_end_in_logits_or_probabilities(tf, end):
    import keras

    from studies.train.engine import Engine

    layers = {"Activation": [keras.layers.Activation("softmax")], "Softmax": [keras.layers.Softmax()]}
    model, logits = network(last_layers=layers.get(end, [])), network()
    if end == "activation":
        model.layers[-1].activation = keras.activations.softmax
    model.set_weights(logits.get_weights())
    images = IMAGES
    engine = Engine(model, keras.optimizers.SGD())
    np.testing.assert_allclose(engine.probe._logits(images), logits(images), rtol=1e-6)
    loss = engine.loss(Y, model(images))
    log_odds = tf.nn.log_softmax(logits(images)).numpy()
    assert float(loss) == pytest.approx(-log_odds[np.arange(EXAMPLES), Y].mean(), rel=1e-5)


def by_hand(tf, step, images=None, targets=None):
    """A plain loop over the batches of `ORDER`, with `step(gradients_now, weights, place)` at each; gives the model."""
    import keras

    model, loss = network(), keras.losses.CategoricalCrossentropy(from_logits=True)
    for variable, value in zip(model.variables, initial_values(model), strict=True):
        variable.assign(value)
    weights = model.trainable_variables
    images = IMAGES[ORDER] if images is None else images
    targets = np.eye(CLASSES, dtype=np.float32)[Y[ORDER]] if targets is None else targets
    for place in range(STEPS):

        def gradients_now(place=place):
            with tf.GradientTape() as tape:
                objective = loss(targets[place], model(images[place], training=True))
            return tape.gradient(objective, [v.value for v in weights])

        step(gradients_now, weights, place)
    return model


def assert_same_weights(engine, model, **close):
    for ours, theirs in zip(engine.weights, model.trainable_variables, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), **({"atol": 1e-6} | close))


@pytest.mark.parametrize("xla", [False, True])
def test_sharpness_aware_steps_go_by_the_gradient_up_the_hill(tf, compiled, xla):
    import keras

    from studies.factors.optimizers import sharpness_aware

    engine, data = compiled(network(), keras.optimizers.SGD(), sharpness_aware(0.3), xla=xla)
    engine.reset(initial_values(engine.model))
    done = engine.run_epoch(*data, course(engine, 0.1))

    def step(gradients_now, weights, place):
        start = [w.numpy() for w in weights]
        uphill = gradients_now()
        norm = np.sqrt(sum(np.sum(np.square(g)) for g in uphill))
        for weight, gradient in zip(weights, uphill, strict=True):
            weight.assign_add(0.3 * gradient / norm)
        for weight, value, gradient in zip(weights, start, gradients_now(), strict=True):
            weight.assign(value - 0.1 * gradient)

    assert_same_weights(engine, by_hand(tf, step))
    assert np.isfinite(done.loss)


def test_an_ascent_leaves_running_statistics_to_the_weights_themselves(tf, compiled):
    import keras

    from studies.factors.optimizers import sharpness_aware

    def statistics(*rules):
        engine, data = compiled(deep_network(), keras.optimizers.SGD(), *rules)
        engine.reset(initial_values(engine.model))
        engine.run_epoch(*data, course(engine, 0.0))
        return {v.path: v.numpy() for v in engine.model.non_trainable_weights if v.path.startswith("norm_1")}

    plain, sharp = statistics(), statistics(sharpness_aware(0.5))
    assert len(plain) == 2
    for path, value in plain.items():
        np.testing.assert_allclose(sharp[path], value, rtol=1e-5, err_msg=path)


def test_lookahead_goes_back_part_of_the_way(tf, compiled):
    import keras

    from studies.factors.optimizers import Lookahead

    engine, data = compiled(network(), Lookahead(keras.optimizers.Adam(), every=2, slow_step=0.3))
    engine.reset(initial_values(engine.model))
    engine.run_epoch(*data, course(engine, 0.1))
    optimizer, slow = keras.optimizers.Adam(0.1), []

    def step(gradients_now, weights, place):
        slow[:] = slow or [w.numpy() for w in weights]
        optimizer.apply(gradients_now(), weights)
        if place % 2 == 1:
            slow[:] = [s + 0.3 * (w.numpy() - s) for s, w in zip(slow, weights, strict=True)]
            for weight, value in zip(weights, slow, strict=True):
                weight.assign(value)

    assert_same_weights(engine, by_hand(tf, step), atol=1e-5)


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_a_cycled_momentum_is_that_of_each_step(tf, compiled, name, xla):
    import keras

    from studies.factors.optimizers import Cycle

    settings = {"momentum": 0.9, "nesterov": True} if name == "SGD" else {}
    ours, theirs = (getattr(keras.optimizers, name)(0.05, **settings) for _ in range(2))
    cycle = Cycle(ours)
    engine, data = compiled(network(), ours, cycle=cycle, xla=xla)
    engine.reset(initial_values(engine.model))
    momenta = np.linspace(0.95, 0.5, STEPS)
    engine.run_epoch(*data, course(engine, 0.05, momenta))

    def step(gradients_now, weights, place):
        setattr(theirs, cycle.name, float(momenta[place]))
        theirs.apply(gradients_now(), weights)

    assert_same_weights(engine, by_hand(tf, step), atol=1e-5)


def test_the_average_of_the_weights_is_that_of_keras_and_leaves_them_alone(tf, compiled, config):
    import keras

    from studies.train.engine import chunked
    from studies.train.parts import build_optimizer

    ours = build_optimizer(config(["optimizer=sgd", "optimizer.ema=0.6"])["optimizer"], [])
    engine, data = compiled(network(), ours)
    engine.reset(initial_values(engine.model))
    engine.run_epoch(*data, course(engine, 0.3))
    theirs, averages = keras.optimizers.SGD(0.3), []

    def step(gradients_now, weights, place):
        theirs.apply(gradients_now(), weights)
        now = [w.numpy() for w in weights]
        averages[:] = [0.6 * a + 0.4 * w for a, w in zip(averages, now, strict=True)] if averages else now

    raw = by_hand(tf, step)
    every = chunked(np.arange(EXAMPLES), batch=7)
    [found] = engine.evaluate(*data, *every, average=True)
    assert_same_weights(engine, raw)
    for weight, average in zip(raw.trainable_variables, averages, strict=True):
        weight.assign(average)
    raw.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    np.testing.assert_allclose(found, raw.evaluate(IMAGES, Y, verbose=0), rtol=1e-5)
    assert abs(found[0] - engine.evaluate(*data, *every)[0][0]) > 1e-3


def test_random_changes_to_a_batch_are_those_of_its_numbers(tf, compiled):
    import keras

    from studies.factors import augmentation, regularizers

    rule, [change] = regularizers.mixup(1.0), augmentation.rules({"flip": True, "crop": 1, "cutout": 0})
    engine, data = compiled(network(), keras.optimizers.SGD(), change, rule)
    engine.reset(initial_values(engine.model))
    given = course(engine, 0.1)
    done = engine.run_epoch(*data, given)
    images, targets = [], []
    for batch, drawn, noise in zip(ORDER, *given.drawn, strict=True):
        changed = change.images(IMAGES[batch], drawn)
        image, target = rule.examples(changed, np.eye(CLASSES, dtype=np.float32)[Y[batch]], noise)
        images.append(image)
        targets.append(target)
    optimizer = keras.optimizers.SGD(0.1)
    model = by_hand(tf, lambda now, weights, _: optimizer.apply(now(), weights), images=images, targets=targets)
    assert_same_weights(engine, model)
    assert np.isfinite(done.loss)


def test_noise_is_added_to_clipped_gradients(tf, compiled):
    import keras

    from studies.factors import clipping, regularizers
    from studies.factors.rules import Step

    rule, clip = regularizers.gradient_noise(0.1, 0.55), clipping.clip_by_global_norm(0.2)
    engine, data = compiled(network(), keras.optimizers.SGD(), clip, rule)
    engine.reset(initial_values(engine.model))
    given = course(engine, 0.1)
    done = engine.run_epoch(*data, given)
    optimizer, shares = keras.optimizers.SGD(0.1), []

    def step(gradients_now, weights, place):
        gradients, share = clip.clip(gradients_now(), weights)
        shares.append(float(share))
        noisy = rule.gradients(gradients, Step(weights, place, given.drawn[1][place], gradients_now))
        optimizer.apply(noisy, weights)

    assert_same_weights(engine, by_hand(tf, step), atol=1e-5)
    assert float(done.clipped) == pytest.approx(np.mean(shares))


@pytest.mark.parametrize("xla", [False, True])
def test_norms_of_gradients_and_updates_equal_those_of_a_plain_loop(tf, compiled, xla):
    import keras

    from studies.factors.clipping import clip_by_global_norm
    from studies.factors.rules import Rule

    penalty, norm = keras.regularizers.L2(0.01), 0.2
    engine, data = compiled(
        network(),
        keras.optimizers.SGD(momentum=0.9),
        Rule(penalty=penalty),
        clip_by_global_norm(norm),
        xla=xla,
        extremes=True,
    )
    engine.reset(initial_values(engine.model))
    start = engine.flat_weights()
    done = engine.run_epoch(*data, course(engine, 0.1))

    model, optimizer = network(penalty), keras.optimizers.SGD(0.1, momentum=0.9)
    for variable, value in zip(model.variables, initial_values(model), strict=True):
        variable.assign(value)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    gradient_squares, update_squares, ratios = [], [], []
    for batch in ORDER:
        with tf.GradientTape() as tape:
            objective = loss(Y[batch], model(IMAGES[batch], training=True)) + sum(model.losses)
        gradients = tape.gradient(objective, [v.value for v in model.trainable_variables])
        before = [v.numpy() for v in model.trainable_variables]
        optimizer.apply(tf.clip_by_global_norm(gradients, norm)[0], model.trainable_variables)
        gradient_squares.append([np.sum(np.square(g)) for g in gradients])
        update_squares.append([np.sum((v - w) ** 2) for v, w in zip(model.trainable_variables, before, strict=True)])
        ratios.append(np.sqrt(sum(update_squares[-1][::2]) / sum(np.sum(w**2) for w in before[::2])))  # of kernels
    np.testing.assert_allclose(done.ratios, ratios, rtol=1e-5)
    gradient_norms, update_norms = (np.sqrt(np.mean(s, axis=0)) for s in (gradient_squares, update_squares))

    missing = np.full((2, len(engine.kernels)), np.nan, np.float32)
    tables = observed(engine, [start, done.weights], np.stack([missing, done.squares]), start)
    assert [(layer, tensor) for layer, tensor, _ in tables] == [
        (layer, tensor) for layer in ("dense_1", "logits") for tensor in ("kernel", "bias")
    ]
    step_statistics = [STATISTICS.index(name) for name in ("gradient_norm", "update_norm", "update_ratio")]
    for place, (_, tensor, table) in enumerate(tables):
        untrained, trained = table[:, step_statistics]
        assert np.isnan(untrained).all()
        if tensor == "bias":
            assert np.isnan(trained).all()
        else:
            ratio = update_norms[place] / np.linalg.norm(model.trainable_variables[place].numpy())
            np.testing.assert_allclose(trained, [gradient_norms[place], update_norms[place], ratio], rtol=1e-4)


def test_statistics_are_those_of_each_weight_at_each_epoch(deep):
    from studies.observe.weights import weight_statistics

    engine, _ = deep
    flats, weights = [], []
    for seed in range(3):
        engine.reset(initial_values(engine.model, seed))
        flats.append(engine.flat_weights())
        weights.append([v.numpy() for v in engine.model.trainable_variables])
    squares = np.zeros((3, 2, len(engine.kernels)), np.float32)
    tables = observed(engine, flats, squares, flats[0])
    paths = [v.path for v in engine.model.trainable_variables]
    assert [f"{layer}/{tensor}" for layer, tensor, _ in tables] == paths
    for place, (_, _, table) in enumerate(tables):
        rows = np.stack([epoch[place].ravel() for epoch in weights])
        expected = weight_statistics(rows, rows[0])
        np.testing.assert_allclose(table[:, : expected.shape[1]], expected, rtol=1e-6)


AROUND_ADAM = "adam optimizer.lookahead=3 optimizer.ema=0.9"


@pytest.mark.parametrize(("optimizer", "xla"), [("adam", True), (AROUND_ADAM, False)])
def test_a_reset_engine_repeats_itself_with_xla_and_with_what_goes_around_an_optimizer(
    config, compiled, optimizer, xla
):
    from studies.train.parts import build_optimizer

    node = config(f"optimizer={optimizer}".split())["optimizer"]
    assert_repeats_itself(*compiled(deep_network(), build_optimizer(node, []), xla=xla))


def test_batch_norm_and_dropout_have_state_that_a_reset_restores(deep):
    engine, data = deep
    states = [v for v in engine.model.variables if "moving" in v.path or "seed_generator" in v.path]
    assert len(states) == 6
    values = initial_values(engine.model)
    engine.reset(values)
    before = [v.numpy() for v in states]
    engine.run_epoch(*data, course(engine, 0.01))
    for variable, value in zip(states, before, strict=True):
        assert (variable.numpy() != value).any(), variable.path
    assert [int(v.value[1]) for v in states if "seed_generator" in v.path] == [STEPS, STEPS]
    engine.reset(values)
    for variable, value in zip(states, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_dropout_follows_its_seed(deep):
    engine, data = deep
    values, ends = initial_values(engine.model), []
    for seed in (1, 1, 2):
        for place, variable in enumerate(engine.model.variables):
            if "seed_generator" in variable.path:
                values[place] = np.array([seed, 0])
        engine.reset(values)
        ends.append(engine.run_epoch(*data, course(engine, 0.1)).weights.numpy().tobytes())
    assert ends[0] == ends[1] != ends[2]


def test_auto_compiles_long_runs_of_dense_networks_alone(tf):
    from studies.factors.models import cnn
    from studies.factors.regularizers import gradient_noise, mixup
    from studies.train.engine import XLA_STEPS, wants_xla
    from studies.train.steps import Rules

    dense = deep_network()
    convolutional = cnn(
        (4, 4, 1),
        CLASSES,
        filters=[2],
        kernel_size=3,
        padding="same",
        dense=4,
        activation="relu",
        normalization="none",
        spatial_dropout=0.0,
        dropout=0.0,
    )
    gpu = bool(tf.config.list_physical_devices("GPU"))
    none = Rules()
    assert wants_xla("auto", dense, XLA_STEPS, none) and not wants_xla("auto", dense, XLA_STEPS - 1, none)
    assert wants_xla("auto", convolutional, XLA_STEPS, none) == gpu
    assert wants_xla(True, convolutional, 1, none) and not wants_xla(False, dense, XLA_STEPS, none)
    assert wants_xla("auto", dense, XLA_STEPS, Rules([mixup(0.2)]))
    assert wants_xla("auto", dense, XLA_STEPS, Rules([gradient_noise(0.1, 0.5)])) == gpu


@pytest.mark.parametrize("size", [1e-21, 1e30])
@pytest.mark.parametrize("xla", [False, True])
def test_norms_of_the_smallest_and_the_largest_gradients_are_kept(tf, compiled, size, xla):
    import keras

    engine, data = compiled(network(), keras.optimizers.SGD(), xla=xla)
    values = initial_values(engine.model)
    values[2] *= np.float32(size)
    engine.reset(values)
    done = engine.run_epoch(*data, course(engine, 0.0))
    squares = []

    def step(gradients_now, weights, place):
        if not place:
            for weight, value in zip(weights, values, strict=True):
                weight.assign(value)
        squares.append([np.sum(np.square(np.float64(g))) for g in gradients_now()[::2]])

    by_hand(tf, step)
    expected = np.mean(squares, axis=0)
    assert 0.01 < np.sqrt(expected[0]) / size < 100
    np.testing.assert_allclose(done.squares[0], expected, rtol=1e-4)


@pytest.mark.parametrize("size", [1e-21, 1e25])
def test_a_rule_measures_the_smallest_and_the_largest_norms(tf, size):
    from studies.factors import clipping, optimizers, regularizers
    from studies.factors.rules import Step

    rng = np.random.default_rng(0)
    gradients = [(size * rng.normal(size=shape)).astype(np.float32) for shape in ((6, 4), (4,))]
    joint = np.sqrt(sum(np.sum(np.square(np.float64(g))) for g in gradients))
    clipped, share = clipping.clip_by_global_norm(float(joint / 2)).clip(gradients, gradients)
    assert float(share) == 1
    for after, before in zip(clipped, gradients, strict=True):
        np.testing.assert_allclose(after, before / 2, rtol=1e-5)
    for after, before in zip(clipping.clip_by_norm(size).clip(gradients, gradients)[0], gradients, strict=True):
        np.testing.assert_allclose(np.linalg.norm(np.float64(after)), size, rtol=1e-5)
        assert np.linalg.norm(np.float64(before)) > size
    weights = [tf.Variable(np.zeros_like(g)) for g in gradients]
    variables = [type("Weight", (), {"value": w, "assign": w.assign, "assign_add": w.assign_add}) for w in weights]
    step = Step(variables, 0, None, lambda: [w.numpy() for w in weights])
    for there, gradient in zip(optimizers.sharpness_aware(0.05).gradients(gradients, step), gradients, strict=True):
        np.testing.assert_allclose(there, 0.05 * np.float64(gradient) / joint, rtol=1e-5)
    units = regularizers.unit_norm().after(gradients[0], 0.1)
    np.testing.assert_allclose(np.linalg.norm(units, axis=0), 1, rtol=1e-5)


RULES = {
    "none": "optimizer=momentum",
    "decay and clipping": "optimizer=momentum regularizer=decoupled regularizer.decay=0.5 clipping=global_norm "
    "clipping.norm=0.2",
    "proximal": "optimizer=adam regularizer=proximal_l1 regularizer.l1=0.03",
    "Keras's own": "optimizer=sgd +optimizer.weight_decay=0.3 +optimizer.clipnorm=0.1",
    "lookahead": "optimizer=adam optimizer.lookahead=2 optimizer.ema=0.9",
}


@pytest.fixture(scope="module")
def in_batches(tf, config):
    """A function that trains by some rules in batches of a size, once; gives each epoch's numbers and a loss."""
    from studies.train import steps
    from studies.train.engine import Engine, chunked
    from studies.train.parts import build_optimizer

    @functools.cache
    def trained(rules, batch, *more, xla=False):
        node = config([*RULES[rules].split(), *more])
        engine = Engine(network(), build_optimizer(node["optimizer"], []), steps.rules(node, []), xla=xla)
        data = tf.constant(X), tf.constant(Y), tf.constant([SCALE]), tf.constant([SHIFT])
        order = ORDER.ravel()[:48].reshape(-1, batch)
        engine.compile(*data, *order.shape)
        engine.reset(initial_values(engine.model))
        ends = []
        for _ in range(2):
            done = engine.run_epoch(*data, course(engine, 0.1, order=order))
            ends.append([done.weights.numpy(), done.squares.numpy(), np.float32(done.clipped)])
        [evaluation] = engine.evaluate(*data, *chunked(order.ravel()), average=engine.averages)
        return ends, evaluation

    return trained


@pytest.mark.parametrize(
    ("rules", "xla"), [*((name, False) for name in RULES), ("decay and clipping", True), ("lookahead", True)]
)
def test_accumulated_batches_equal_one_as_large(in_batches, rules, xla):
    ends, evaluation = in_batches(rules, 12)
    accumulated, evaluation_accumulated = in_batches(rules, 3, "+optimizer.gradient_accumulation_steps=4", xla=xla)
    for one, other in zip(ends, accumulated, strict=True):
        for value, expected in zip(other, one, strict=True):
            np.testing.assert_allclose(value, expected, rtol=2e-4, atol=1e-5)
    assert evaluation_accumulated == pytest.approx(evaluation, rel=1e-4)


def test_batches_that_wait_at_an_epochs_end_are_of_the_next_ones_first_update(tf):
    import keras

    from studies.train.engine import Engine

    data = tf.constant(X), tf.constant(Y), tf.constant([SCALE]), tf.constant([SHIFT])

    def trained(order):
        engine = Engine(network(), keras.optimizers.Adam(gradient_accumulation_steps=4))
        engine.compile(*data, *order[0].shape)
        engine.reset(initial_values(engine.model))
        return [engine.run_epoch(*data, course(engine, 0.01, order=batches)).weights.numpy() for batches in order]

    whole, [first, second] = trained(ORDER[None, :4]), trained(ORDER[:4].reshape(2, 2, BATCH))
    np.testing.assert_array_equal(second, whole[0])
    assert (first != second).any()


def with_an_unused_branch(regularizer=None, constraint=None):
    """Its second branch comes to nothing that the loss sees."""
    import keras

    inputs = keras.Input(X.shape[1:])
    flat = keras.layers.Flatten()(inputs)
    used = keras.layers.Dense(CLASSES, name="used")(flat)
    unused = keras.layers.Dense(CLASSES, name="unused")(flat)
    return keras.Model(inputs, used + keras.ops.stop_gradient(unused) * 0)


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_a_weight_that_the_loss_does_not_reach_stays_as_in_keras_fit(config, compiled, plain, xla):
    assert_equals_fit(config, compiled, plain, "adamw", "none", [CONSTANT], xla=xla, make=with_an_unused_branch)


def test_a_weight_that_the_loss_does_not_reach_has_a_gradient_of_zero(compiled):
    import keras

    engine, data = compiled(with_an_unused_branch(), keras.optimizers.SGD())
    engine.reset(initial_values(engine.model))
    start = engine.flat_weights()
    done = engine.run_epoch(*data, course(engine, 0.1))
    rows = {
        layer: t for layer, tensor, t in observed(engine, [done.weights], [done.squares], start) if tensor == "kernel"
    }
    place = STATISTICS.index("gradient_norm")
    assert rows["unused"][0, place] == 0 < rows["used"][0, place]


@pytest.mark.parametrize("argument", ["loss_scale_factor=1024", "loss_scale_factor=1024.0", "clipvalue=0.02"])
def test_an_argument_of_an_optimizer_does_what_it_does_in_keras_fit(config, compiled, plain, argument):
    overrides = f"adam +optimizer.{argument}"
    assert_equals_fit(config, compiled, plain, overrides, "none", [CONSTANT], xla=False)


def test_a_scaled_loss_is_clipped_and_observed_as_it_is(config, compiled, plain):
    overrides = "sgd +optimizer.loss_scale_factor=1024"
    assert_equals_fit(config, compiled, plain, overrides, "l2 clip", [CONSTANT], xla=False)
