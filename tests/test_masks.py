"""What a mask leaves out is zero in the weights and in what optimizers keep, whatever happens in the step."""

from pathlib import Path

import numpy as np
import pytest

CONF = Path(__file__).parent.parent / "conf"
OPTIMIZERS = sorted(option.stem for option in (CONF / "optimizer").glob("*.yaml"))
AROUND = {
    "averages": ["optimizer=muon", "optimizer.lookahead=2", "optimizer.ema=0.9"],
    "noise": ["optimizer=momentum", "optimizer.sam=0.05", "regularizer=gradient_noise"],
    "accumulated": ["optimizer=adam", "+optimizer.gradient_accumulation_steps=3", "regularizer=decoupled"],
    "norms": ["optimizer=adam", "clipping=global_norm", "regularizer=unit_norm", "+optimizer.weight_decay=0.1"],
}
STEPS, BATCH, CLASSES = 4, 8, 3

rng = np.random.default_rng(0)
X, Y = rng.random((40, 5), np.float32), rng.integers(0, CLASSES, 40).astype(np.int32)


@pytest.fixture(scope="module")
def prune(tf, config):
    """A function from overrides to an engine that trained, was pruned at random and trained on, and its masks."""
    import keras

    from studies.train import engine, parts, steps

    def made(overrides, compiled=False):
        nodes = config(tuple(overrides))
        layers = [keras.layers.Dense(units, name=name) for units, name in ((5, "dense_1"), (CLASSES, "logits"))]
        model = keras.Sequential([keras.Input((5,)), *layers])
        for weight in model.weights:
            weight.assign(rng.uniform(0.1, 1, weight.shape))
        rules, optimizer = steps.rules(nodes, []), parts.build_optimizer(nodes["optimizer"], [])
        trained = engine.Engine(model, optimizer, rules, masked=("kernel",), observe=False)
        trained.epoch = tf.function(trained._epoch, autograph=False) if compiled else trained._epoch
        data = tf.constant(X), tf.constant(Y), tf.ones(1), tf.zeros(1)
        order = rng.permutation(40)[: STEPS * BATCH].reshape(STEPS, BATCH).astype(np.int32)
        drawn = rules.draw({"noise": rng}, STEPS, BATCH)
        course = engine.Course(order, np.full(STEPS, 0.05, np.float32), np.zeros(STEPS, np.float32), drawn)
        trained.run_epoch(*data, course)
        kept = [np.arange(w.numpy().size).reshape(w.shape) % 4 == 0 for w in trained.masks.weights]
        before = [w.numpy() for w in trained.masks.weights]
        trained.mask(kept)
        for weight, value, mask in zip(trained.masks.weights, before, kept, strict=True):
            np.testing.assert_array_equal(weight.numpy(), value * mask)
        trained.run_epoch(*data, course)
        return trained, kept

    return made


def remembered(engine, kept) -> int:
    """Check weights and slots; gives the number of slots that have a weight's shape."""
    for weight, mask in zip(engine.masks.weights, kept, strict=True):
        assert (weight.numpy()[~mask] == 0).all() and (weight.numpy()[mask] != 0).all()
    for total, mask in zip(engine.waiting.sums[::2] if engine.waiting else (), kept):
        assert (total.numpy()[~mask] == 0).all()
    count = 0
    for slot, start in zip(engine.optimizer.variables, engine.fresh_slots, strict=True):
        for weight, mask in zip(engine.masks.weights, kept, strict=True):
            if slot.shape == weight.shape and weight.path.replace("/", "_") in slot.path:
                copied = any(start is w for w in engine.weights)
                fresh = 0 if copied else np.broadcast_to(start, slot.shape)[~mask]
                np.testing.assert_array_equal(slot.numpy()[~mask], fresh, err_msg=slot.path)
                assert "accumulator" in slot.path or np.all(fresh == 0), slot.path
                count += 1
    return count


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_is_pruned_stays_zero_and_forgotten_under_every_optimizer(prune, optimizer):
    engine, kept = prune([f"optimizer={optimizer}"])
    assert remembered(engine, kept) >= (0 if optimizer == "sgd" else 2)


@pytest.mark.parametrize("around", AROUND)
def test_and_with_what_goes_around_an_optimizer(prune, around):
    engine, kept = prune(AROUND[around], compiled=True)
    assert remembered(engine, kept) >= 2


def test_layers_that_are_called_alike_in_nested_models_have_their_own_slots(tf):
    import keras

    from studies.train.engine import Engine

    def block(units):
        inputs = keras.Input((6,))
        return keras.Model(inputs, keras.layers.Dense(6, name="dense")(inputs), name=f"block_{units}")

    inputs = keras.Input((6,))
    blocks = [block(1), block(2)]
    for each in blocks:
        for weight in each.weights:
            weight._path = f"dense/{weight.name}"  # as of models that are built apart from the whole
    model = keras.Model(inputs, keras.layers.Dense(CLASSES, name="logits")(blocks[1](blocks[0](inputs))))
    engine = Engine(model, keras.optimizers.SGD(momentum=0.9), masked=("kernel",), observe=False)
    first, second, _ = engine.masks.weights
    assert first.path == second.path
    slots = {place: slot for slot, place, _ in engine.masks.slots}
    assert len({id(slot) for slot in slots.values()}) == 3
    order = [id(slot) for slot in engine.optimizer.variables]
    assert order.index(id(slots[0])) < order.index(id(slots[1]))
