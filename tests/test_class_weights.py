"""Weights of classes: their formulas, what they do to a trial, and what of them is refused before anything trains."""

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from studies.command import checks
from studies.factors import limits
from studies.record import EpochRecord, StudyError

COUNTS = np.array([500, 120, 30, 4])
SMALL = ("model.width=16", "training.epochs=3", "diagnostics=none", "engine.xla=false", "data.imbalance=50")


@pytest.fixture(scope="module")
def class_weights(tf):
    from studies.factors.class_weights import class_weights

    return lambda value, counts=COUNTS, **node: class_weights({"class_weight": value, **node}, counts)


@pytest.fixture(scope="module")
def run(tf, trial_of):
    """A function from Hydra overrides to a trial's epochs and result."""
    from studies.train import trial

    def ran(*overrides):
        *records, result = trial.run(trial_of(overrides))
        return [record for record in records if isinstance(record, EpochRecord)], result

    return ran


def test_balanced_weights_are_scikit_learns(class_weights):
    labels = np.repeat(np.arange(4), COUNTS)
    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    np.testing.assert_allclose(class_weights("balanced"), expected)
    assert np.average(class_weights("balanced"), weights=COUNTS) == pytest.approx(1)


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999, 0.9999])
def test_effective_weights_go_from_alike_to_balanced(class_weights, beta):
    """As the authors' code has them."""
    inverse = (1 - beta) / (1 - np.power(beta, COUNTS))
    found = class_weights("effective", class_weight_beta=beta)
    np.testing.assert_allclose(found, inverse / inverse.sum() * 4)
    assert np.ptp(found) < 1e-12 if beta == 0 else (np.diff(found) > 0).all()
    close = class_weights("effective", class_weight_beta=1 - 1e-9)
    np.testing.assert_allclose(close, 1 / COUNTS / np.mean(1 / COUNTS), rtol=1e-4)


def test_a_class_without_examples_has_no_weight_and_changes_none(class_weights):
    without = np.delete(COUNTS, 1)
    for value in ("balanced", "effective"):
        found = class_weights(value, np.where(COUNTS == 120, 0, COUNTS))
        assert found[1] == 0
        np.testing.assert_allclose(np.delete(found, 1), class_weights(value, without))


def test_of_mixed_targets_the_largest_share_counts(tf):
    from studies.factors.class_weights import rules

    [rule] = rules({"class_weight": [1.0, 2.0, 4.0]}, np.ones(3))
    weights = tf.constant(rule.draw(None, 2, 8)[1], tf.float32)
    np.testing.assert_array_equal(rule.weigh(tf.constant([2, 0, 1]), weights), [4, 1, 2])
    np.testing.assert_array_equal(rule.weigh(tf.constant([[0.1, 0.6, 0.3], [0.8, 0.2, 0]]), weights), [2, 1])


def test_equal_weights_are_none_at_all_and_the_validation_loss_is_not_weighted(run):
    ones = f"training.class_weight=[{','.join('1' * 10)}]"
    (plain, result), (ones, alike) = run(*SMALL), run(*SMALL, ones)
    for one, other in zip(plain, ones, strict=True):
        assert one.val_loss == pytest.approx(other.val_loss, rel=1e-5)
    assert result.test_loss == pytest.approx(alike.test_loss, rel=1e-5)
    still = ("optimizer=sgd", "optimizer.learning_rate=1.0e-30")
    (plain, _), (weighted, _) = run(*SMALL, *still), run(*SMALL, *still, "training.class_weight=balanced")
    assert plain[-1].val_loss == weighted[-1].val_loss and plain[-1].train_loss == weighted[-1].train_loss
    assert plain[-1].running_loss != weighted[-1].running_loss


def test_weights_are_of_a_seeds_own_classes_on_one_graph_for_all(run, trial_of):
    """Other weights are other numbers, not another graph; none, nor the neutral one, is in a key."""
    weighted = [trial_of((*SMALL, f"training.class_weight={value}")) for value in ("balanced", "effective")]
    plain = trial_of(SMALL)
    assert len({trial.graph_key for trial in weighted} | {plain.graph_key}) == 2
    assert len({trial.key for trial in (*weighted, plain)}) == 3
    bare = {name: value for name, value in plain.config["training"].items() if not name.startswith("class_weight")}
    assert limits.identity(plain.config)["training"] == bare
    # A sample of the classes' last: with its weight 0 it is not learned.
    weights = ",".join(["1"] * 9 + ["0"])
    _, without = run(*SMALL[:-1], f"training.class_weight=[{weights}]")
    recalls = [count for label, predicted, count in without.confusions["val"] if label == 9 == predicted]
    assert recalls == []


@pytest.mark.parametrize(
    "value, expected",
    [
        ("other", "null, balanced, effective, or a list"),
        ("[1]", "null, balanced, effective, or a list"),
        ("[0,0,0]", "null, balanced, effective, or a list"),
        ("[1,-1]", "null, balanced, effective, or a list"),
        ("[1,2,3]", "expected 10 numbers, one for each class"),
    ],
)
def test_what_are_no_weights_is_refused_before_anything_trains(trial_of, value, expected):
    with pytest.raises(StudyError, match=expected):
        checks.check_sizes([trial_of((f"training.class_weight={value}",))])
