"""Each sign in a course that has it, and none in one that trains well."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from studies.contract import STATISTICS
from studies.observe.early_warnings import LAYERS, TABLE, early_warnings, stability
from studies.observe.tensors import NOT_FINITE
from studies.record import EpochRecord, LayerRecord

NAN = math.nan
GOOD = dict(
    running_loss=[NAN, 2.0, 1.0, 0.5, 0.3], running_accuracy=[NAN, 0.3, 0.6, 0.8, 0.9],
    val_loss=[2.35, 1.5, 0.8, 0.5, 0.4], val_accuracy=[0.1, 0.4, 0.7, 0.8, 0.9],
)  # fmt: skip
STEADY = {"dense": [(NAN, NAN)] + [(1.0, 1e-3)] * 4, "logits": [(NAN, NAN)] + [(0.5, 2e-3)] * 4}


def course(curves=None, kernels=None, tensor="kernel", rates=(0.1,) * 5, **more):
    """The records of a course: curves by field, and each layer's gradient norms and update ratios by epoch."""
    curves, kernels = GOOD | (curves or {}), STEADY | (kernels or {})
    epochs = [
        EpochRecord("k", e, 1000 * e, rates[e], *(curves[name][e] for name in GOOD), 0.1)
        for e in range(len(curves["val_loss"]))
    ]
    layers = []
    for layer, steps in kernels.items():
        for epoch, (gradient, ratio) in enumerate(steps[: len(epochs)]):
            layers.append(row(layer, tensor, epoch, l2=0.5, gradient_norm=gradient, update_ratio=ratio, **more))
    return epochs, layers


def row(layer, tensor, epoch, **statistics):
    """A layer record; what is not given was not observed."""
    return LayerRecord(
        "k", epoch, layer, tensor, tuple((dict.fromkeys(STATISTICS, NAN) | statistics)[n] for n in STATISTICS)
    )


def warned(*arguments, classes=10, chance=0.1, **settings):
    """The text of a course's warnings."""
    return early_warnings(*course(*arguments, **settings), classes, chance).text


def deep(norms, tensor="kernel", name="gradient_norm", epochs=2):
    """A course of so many layers, each with its value of a statistic in epoch 1."""
    found, _ = course({name: values[:epochs] for name, values in GOOD.items()})
    values = [row(f"l{n}", tensor, e, l2=0.5, **{name: v if e else NAN}) for n, v in enumerate(norms) for e in (0, 1)]
    kernels = [row(f"l{n}", "kernel", 0, l2=0.5) for n in range(len(norms))]  # layers are counted by their kernels
    return early_warnings(found, values + kernels * (tensor != "kernel"), 10, 0.1)


def test_a_course_that_is_well_has_no_warning():
    assert warned() == ""


def test_a_record_that_is_marked_keeps_all_else_that_it_has():
    found, layers = course(kernels={"dense": [(NAN, NAN)] + [(1.0, 0.2)] * 4})
    counted = [replace(record, density=(1, 2, 3)) for record in layers]
    marked = early_warnings(found, counted, 10, 0.1).layers
    assert [r.warning for r in marked[1:5]] == ["large updates"] * 4
    assert [replace(r, warning="") for r in marked] == counted


def test_a_pruned_trial_is_looked_at_from_its_last_cut_on():
    curves = {"running_loss": [NAN, 1.0, 2.0, 1.9, 1.8], "running_accuracy": [NAN, 0.9, 0.1, 0.5, 0.6]}
    found, layers = course(curves, {"dense": [(NAN, NAN)] + [(1.0, 0.2)] * 2 + [(1.0, 1e-3)] * 2})
    layers += [row("dense", "output", e, dead=0.9, l2=1.0) for e in range(5)]
    assert early_warnings(found, layers, 10, 0.1).text == (
        "dead units in layer 1 from epoch 0; large updates in layer 1 from epoch 1; at chance from epoch 2; "
        "loss rises from epoch 2"
    )
    cut = [replace(record, sparsity=share) for record, share in zip(found, (0, 0, 0.5, 0.9, 0.9), strict=True)]
    warnings = early_warnings(cut, layers, 10, 0.1)
    assert warnings.text == "" and [r.warning for r in warnings.layers] == [""] * len(layers)
    assert [(r.epoch, r.tensor) for r in warnings.layers] == [(r.epoch, r.tensor) for r in layers]


@pytest.mark.parametrize(
    ("curves", "kernels", "text"),
    [
        ({}, {"dense": [(NAN, NAN), (1, 1e-3), (1, 1e-3), (0, 1e-3), (0, 0)]}, "no gradient in layer 1 from epoch 3; "
         "tiny updates in layer 1 from epoch 4"),
        ({}, {n: [(NAN, NAN)] + [(1e-5, 1e-6)] * 4 for n in STEADY}, "tiny updates in every layer from epoch 1"),
        ({}, {"logits": [(NAN, NAN), (1, 0.01), (1, 0.2), (1, 0.01), (1, 0.01)]}, "large updates in layer 2 "
         "from epoch 2"),
        ({"running_accuracy": [NAN, 0.1, 0.11, 0.12, 0.3]}, {}, "at chance from epoch 2"),
        ({"val_loss": [9.0, 1.5, 0.8, 0.5, 0.4]}, {}, "worse than guessing from epoch 0"),
        ({"val_loss": [2.3, 1.5, 1.4, NAN, NAN]}, {}, ""),
        ({"running_loss": [NAN, 2.0, 1.0, 2.3, 2.5]}, {}, "loss rises from epoch 3"),
        ({"val_loss": [2.3, 0.4, 0.3, 0.9, 0.9]}, {}, "overfitting from epoch 4"),
        ({"val_loss": [2.3, 0.4, 0.3, 0.9, 0.4]}, {}, ""),
    ],
)  # fmt: skip
def test_a_sign_is_given_with_the_first_epoch_at_which_it_is_seen(curves, kernels, text):
    assert warned(curves, kernels) == text


@pytest.mark.parametrize(
    ("norms", "text"),
    [
        ([1e-9, 1e-6, 2e-4, 0.1], "gradients vanish from layer 2 down from epoch 1"),
        ([1e-9, 1, 1, 0.1], "gradients vanish in layer 1 from epoch 1"),
        ([1, 1e-9, 1e-9, 1e-9, 1, 1e-9, 1], "gradients vanish in layers 2, 3, 4 and 1 more from epoch 1"),
        ([1e6, 1e5, 1, 0.1], "gradients explode from layer 2 down from epoch 1"),
        ([2.0, 1, math.inf, math.inf], "gradients explode from layer 3 up from epoch 1"),
        ([1e-3, 3e-4, 1e-3, 0.1], ""),
        ([0.0, 0.0, 0.0], "no gradient in every layer from epoch 1"),
        ([0.0, 0.0, 0.1], "no gradient from layer 2 down from epoch 1"),
    ],
)
def test_gradients_are_held_against_the_last_layers(norms, text):
    found = deep(norms)
    assert found.text == text
    marked = [record.warning for record in found.layers if record.epoch == 1]
    sign = next((name for name in LAYERS if text.startswith(name)), "")
    flagged = [n for n, warning in enumerate(marked) if warning]
    assert {warning for warning in marked if warning} == {sign} - {""}
    assert len(flagged) in (0, *range(1, len(norms) + 1)) and bool(flagged) == bool(text)
    assert all(record.warning == "" for record in found.layers if record.epoch == 0)


def test_gradients_of_activations_are_judged_alike():
    assert deep([1e-9, 1e-6, 0.1, 0.1], "output").text == "gradients vanish from layer 2 down from epoch 1"


@pytest.mark.parametrize(("name", "sign"), [("dead", "dead units"), ("saturated", "saturated")])
def test_units_are_looked_at_where_more_than_half_are_gone(name, sign):
    found = deep([0.4, 0.6, 0.7, 0.1], "output", name)
    assert found.text == f"{sign} in layers 2, 3 from epoch 1"
    assert [record.layer for record in found.layers if record.warning == sign] == ["l1", "l2"]
    assert deep([NAN] * 3, "output", name).text == ""


def test_the_last_layer_may_be_sure_but_not_dead():
    assert deep([0, 0, 0.9], "output", "saturated").text == ""
    assert deep([0, 0, 0.9], "output", "dead").text == "dead units in layer 3 from epoch 1"


def test_a_layer_without_a_kernel_goes_by_its_name():
    epochs, layers = course()
    layers += [row("relu", "output", e, l2=1.0, dead=0.8) for e in range(5)]
    assert early_warnings(epochs, layers, 10, 0.1).text == "dead units in layer relu from epoch 0"


def test_weights_that_are_no_numbers_are_said_to_be():
    epochs, layers = course()
    layers[3] = replace(row("dense", "kernel", 3, l2=NAN), warning=NOT_FINITE)  # as who observed it says
    layers[4] = row("dense", "output", 4, l2=NAN)
    found = early_warnings(epochs, layers, 10, 0.1)
    assert found.text == "not finite in layer 1 from epoch 3"
    assert [record.warning for record in found.layers[2:6]] == ["", NOT_FINITE, NOT_FINITE, ""]


def test_small_steps_are_no_sign_once_the_data_are_fitted_or_the_rate_is_annealed():
    small = {name: [(NAN, NAN), (1, 1e-3), (1, 1e-3), (1, 1e-3), (1, 1e-5)] for name in STEADY}
    assert warned({}, small) == "tiny updates in every layer from epoch 4"
    assert warned({"running_accuracy": [NAN, 0.3, 0.6, 0.9, 0.99]}, small) == ""
    assert warned({}, small, rates=(0.1, 0.1, 0.1, 0.1, 0.005)) == ""


@pytest.mark.parametrize(
    ("option", "limit"), [("sgd", 2.0), ("momentum", 3.8), ("nesterov", 3.8 / 2.8), ("adam", NAN), ("rmsprop", NAN)]
)
def test_sharpness_is_held_against_what_the_optimizer_bears(option, limit):
    node = yaml.safe_load((Path(__file__).parent.parent / "conf" / "optimizer" / f"{option}.yaml").read_text())
    stable = stability(node)
    assert stable == pytest.approx(limit, nan_ok=True)
    epochs, layers = course()
    for factor, text in ((0.99, ""), (1.01, "too sharp for the rate from epoch 2")):
        sharp = [EpochRecord(**vars(e) | {"sharpness": factor * limit / 0.1 if e.epoch == 2 else NAN}) for e in epochs]
        assert early_warnings(sharp, layers, 10, 0.1, stable).text == (text if limit == limit else "")


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_what_it_bears_is_where_its_steps_on_a_quadratic_begin_to_grow(momentum, nesterov):
    def grows(sharpness):
        w, m = 1.0, 0.0
        for _ in range(2000):
            m = momentum * m - sharpness * w
            w += momentum * m - sharpness * w if nesterov else m
        return not abs(w) < 1

    limit = stability({"_target_": "keras.optimizers.SGD", "momentum": momentum, "nesterov": nesterov})
    assert not grows(0.98 * limit) and grows(1.02 * limit)


def test_several_signs_are_given_in_the_tables_order():
    curves = {"running_accuracy": [NAN, 0.1, 0.1, 0.1, 0.1], "val_loss": [9.0, 9.0, 9.0, 9.0, 9.0]}
    text = warned(curves, {"dense": [(NAN, NAN)] + [(0, 1e-3)] * 4})
    assert text == "no gradient in layer 1 from epoch 1; at chance from epoch 2; worse than guessing from epoch 0"


def test_biases_may_have_no_gradient():
    assert warned({}, {"dense": [(NAN, NAN)] + [(0, 0)] * 4}, tensor="bias") == ""
    assert warned({}, {"dense": [(NAN, NAN)] + [(0, 0)] * 4}, tensor="kernel.forget") == ""


def test_how_near_to_chance_an_accuracy_is_depends_on_the_examples_seen():
    # Of 1,000 examples 3 sd are .028: .12 could be guessed, .13 could not.
    assert "at chance" in warned({"running_accuracy": [NAN, 0.1, 0.12, 0.5, 0.9]})
    assert warned({"running_accuracy": [NAN, 0.1, 0.13, 0.5, 0.9]}) == ""


def test_chance_is_the_commonest_classs_share():
    stuck = {"running_accuracy": [NAN, 0.4, 0.41, 0.42, 0.41]}
    assert "at chance" in warned(stuck, chance=0.4) and "at chance" not in warned(stuck, chance=0.1)


def test_without_classes_nothing_is_held_against_guessing_and_the_rest_is_seen():
    rising = {"running_accuracy": [NAN] * 5, "val_loss": [9.0] * 5, "running_loss": [NAN, 1.0, 1.5, 1.5, 1.5]}
    assert warned(rising, classes=0, chance=NAN) == "loss rises from epoch 2"


@pytest.mark.parametrize("length", [0, 1, 2])
def test_a_trial_that_hardly_began_is_no_reason_to_fail(length):
    assert warned({name: values[:length] for name, values in GOOD.items()}) == ""
    assert early_warnings([], [], 0, NAN).text == ""


def test_statistics_that_were_not_kept_give_no_sign():
    assert early_warnings(course()[0], [], 10, 0.1).text == ""
    assert early_warnings(course()[0], [row("dense", "kernel", 1, l2=1.0)], 10, 0.1).text == ""


def test_what_is_read_back_is_what_was_given():
    from analysis.estimate.dynamics import WARNING

    text = warned({"running_accuracy": [NAN, 0.1, 0.1, 0.1, 0.1], "val_loss": [9.0] * 5})
    assert WARNING.findall(text) == [("at chance", "2"), ("worse than guessing", "0")]
    places = (
        "",
        " from layer 9 down",
        " from layer 3 up",
        " in every layer",
        " in layer a_b",
        " in layers 2, c and 4 more",
    )
    for name in TABLE:
        assert all(WARNING.fullmatch(f"{name}{where} from epoch 12").groups() == (name, "12") for where in places)
