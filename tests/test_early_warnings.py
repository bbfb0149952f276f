"""Each sign in a course that has it, and none in one that trains well."""

import math

import pytest

from studies.contract import STATISTICS
from studies.observe.early_warnings import TABLE, early_warnings
from studies.record import EpochRecord, LayerRecord

NAN = math.nan
GOOD = dict(
    running_loss=[NAN, 2.0, 1.0, 0.5, 0.3], running_accuracy=[NAN, 0.3, 0.6, 0.8, 0.9],
    val_loss=[2.35, 1.5, 0.8, 0.5, 0.4], val_accuracy=[0.1, 0.4, 0.7, 0.8, 0.9],
)  # fmt: skip
STEADY = {"dense": [(NAN, NAN)] + [(1.0, 1e-3)] * 4, "logits": [(NAN, NAN)] + [(0.5, 2e-3)] * 4}


def warned(curves=None, kernels=None, tensor="kernel", classes=10, chance=0.1):
    """The warnings of a course: curves by field, and each layer's gradient norms and update ratios by epoch."""
    curves, kernels = GOOD | (curves or {}), STEADY | (kernels or {})
    epochs = [
        EpochRecord("k", e, 1000 * e, 0.1, *(curves[name][e] for name in GOOD), 0.1)
        for e in range(len(curves["val_loss"]))
    ]
    layers = []
    for layer, steps in kernels.items():
        for epoch, (gradient, ratio) in enumerate(steps[: len(epochs)]):
            values = dict.fromkeys(STATISTICS, 0.5) | {"gradient_norm": gradient, "update_ratio": ratio}
            layers.append(LayerRecord("k", epoch, layer, tensor, tuple(values.values())))
    return early_warnings(epochs, layers, classes, chance)


def test_a_course_that_is_well_has_no_warning():
    assert warned() == ""


@pytest.mark.parametrize(
    ("curves", "kernels", "text"),
    [
        ({}, {"dense": [(NAN, NAN), (1, 1e-3), (1, 1e-3), (0, 1e-3), (0, 0)]}, "no gradient from epoch 3"),
        ({}, {n: [(NAN, NAN)] + [(1e-5, 1e-6)] * 4 for n in STEADY}, "tiny updates from epoch 1"),
        ({}, {"dense": [(NAN, NAN), (1, 0.01), (1, 0.2), (1, 0.01), (1, 0.01)]}, "large updates from epoch 2"),
        ({"running_accuracy": [NAN, 0.1, 0.11, 0.12, 0.3]}, {}, "at chance from epoch 2"),
        ({"val_loss": [9.0, 1.5, 0.8, 0.5, 0.4]}, {}, "worse than guessing from epoch 0"),
        ({"val_loss": [2.3, 1.5, 1.4, NAN, NAN]}, {}, ""),
        ({"running_loss": [NAN, 2.0, 1.0, 2.3, 2.5]}, {}, "loss rises from epoch 3"),
        ({"val_loss": [2.3, 0.5, 0.4, 0.7, 0.9]}, {}, "overfitting from epoch 4"),
    ],
)  # fmt: skip
def test_a_sign_is_given_with_the_first_epoch_at_which_it_is_seen(curves, kernels, text):
    assert warned(curves, kernels) == text


def test_several_signs_are_given_in_the_tables_order():
    curves = {"running_accuracy": [NAN, 0.1, 0.1, 0.1, 0.1], "val_loss": [9.0, 9.0, 9.0, 9.0, 9.0]}
    text = warned(curves, {"dense": [(NAN, NAN)] + [(0, 0)] * 4})
    assert text == "no gradient from epoch 1; at chance from epoch 2; worse than guessing from epoch 0"
    names = [part.partition(" from ")[0] for part in text.split("; ")]
    assert names == [name for name in TABLE if name in names]


def test_one_kernel_that_moves_is_enough():
    assert warned({}, {"dense": [(NAN, NAN)] + [(1e-5, 1e-6)] * 4}) == ""


def test_biases_may_have_no_gradient():
    assert warned({}, {"dense": [(NAN, NAN)] + [(0, 0)] * 4}, tensor="bias") == ""


def test_how_near_to_chance_an_accuracy_is_depends_on_the_examples_seen():
    # Of 1,000 examples 3 sd are .028: .12 could be guessed, .13 could not.
    assert "at chance" in warned({"running_accuracy": [NAN, 0.1, 0.12, 0.5, 0.9]})
    assert warned({"running_accuracy": [NAN, 0.1, 0.13, 0.5, 0.9]}) == ""


def test_chance_is_the_commonest_classs_share():
    stuck = {"running_accuracy": [NAN, 0.4, 0.41, 0.42, 0.41]}
    assert "at chance" in warned(stuck, chance=0.4) and "at chance" not in warned(stuck, chance=0.1)


@pytest.mark.parametrize("length", [0, 1, 2])
def test_a_trial_that_hardly_began_is_no_reason_to_fail(length):
    assert warned({name: values[:length] for name, values in GOOD.items()}) == ""
    assert early_warnings([], [], 0, NAN) == ""


def test_statistics_that_were_not_kept_give_no_sign():
    records = [EpochRecord("k", e, 1000 * e, 0.1, *(GOOD[name][e] for name in GOOD), 0.1) for e in range(5)]
    assert early_warnings(records, [], 10, 0.1) == ""


def test_what_is_read_back_is_what_was_given():
    from analysis.estimate.dynamics import WARNING

    text = warned({"running_accuracy": [NAN, 0.1, 0.1, 0.1, 0.1], "val_loss": [9.0] * 5})
    assert WARNING.findall(text) == [("at chance", "2"), ("worse than guessing", "0")]
    assert all(WARNING.fullmatch(f"{name} from epoch 12") for name in TABLE)
