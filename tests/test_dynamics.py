"""Curves, layers and densities of made-up trials whose answers are known."""

import numpy as np
import pandas as pd
import pytest

from analysis.estimate import dynamics, intervals

pytestmark = pytest.mark.filterwarnings("error")

NAN = float("nan")


def trials(*rows):
    """Trials from rows of arm, seed, status and epochs trained; keys a0, a1, b0, …"""
    frame = pd.DataFrame(rows, columns=["initializer", "seed", "status", "epochs"])
    return frame.assign(key=frame["initializer"] + frame["seed"].astype(str), classes=10, val_accuracy=0.5, warning="")


def epochs(**curves):
    """An epochs frame from each trial's course of val_accuracy, from epoch 0 on."""
    return pd.DataFrame(
        [(key, epoch, value) for key, values in curves.items() for epoch, value in enumerate(values)],
        columns=["key", "epoch", "val_accuracy"],
    )


def course(frame, arm):
    return frame[frame["initializer"] == arm].set_index("epoch")


def test_a_curve_is_the_mean_over_seeds_with_their_t_interval():
    some = trials(("a", 0, "finished", 1), ("a", 1, "finished", 1), ("b", 0, "finished", 1))
    frame = dynamics.curves(some, epochs(a0=[0.1, 0.8], a1=[0.2, 0.9], b0=[0.1, 0.3]), ["initializer"], "val_accuracy")
    at = course(frame, "a").loc[1]
    assert (at["seeds"], at["mean"]) == (2, pytest.approx(0.85))
    assert (at["low"], at["high"]) == pytest.approx(intervals.mean_interval(np.array([0.8, 0.9]), "val_accuracy"))
    alone = course(frame, "b").loc[1]
    assert alone["mean"] == pytest.approx(0.3) and np.isnan(alone["low"])


def test_no_trial_drops_out_when_it_ends():
    some = trials(("a", 0, "finished", 3), ("a", 1, "diverged", 2), ("b", 0, "finished", 1), ("c", 0, "crashed", 1))
    every = epochs(a0=[0.1, 0.5, 0.7, 0.9], a1=[0.1, 0.6, NAN], b0=[0.1, 0.4], c0=[0.1, 0.2])
    frame = dynamics.curves(some, every, ["initializer"], "val_accuracy")
    # Diverged in epoch 2: chance from there on. Stopped early: its last value. Crashed: no value.
    assert list(course(frame, "a")["mean"]) == pytest.approx([0.1, 0.55, 0.4, 0.5])
    assert list(course(frame, "b")["mean"]) == pytest.approx([0.1, 0.4, 0.4, 0.4])
    assert course(frame, "c")["mean"].isna().all() and (course(frame, "a")["seeds"] == 2).all()


def test_a_metric_observed_at_some_epochs_is_joined_by_straight_lines():
    some = trials(("a", 0, "finished", 4), ("a", 1, "finished", 3), ("a", 2, "diverged", 3))
    every = epochs(a0=[0.1, 0.5, NAN, NAN, 0.8], a1=[0.1, 0.5, NAN, 0.7], a2=[0.1, 0.5, NAN, NAN])
    curve = course(dynamics.curves(some, every, ["initializer"], "val_accuracy"), "a")
    assert list(curve["seeds"]) == [3, 3, 2, 3, 3]  # nothing says where the third was before it failed
    assert list(curve["mean"]) == pytest.approx(
        [0.1, 0.5, (0.6 + 0.6) / 2, (0.7 + 0.7 + 0.1) / 3, (0.8 + 0.7 + 0.1) / 3]
    )


def test_other_factors_are_averaged_within_a_seed():
    some = trials(("a", 0, "finished", 0), ("b", 0, "finished", 0), ("a", 1, "finished", 0), ("b", 1, "finished", 0))
    frame = dynamics.curves(some, epochs(a0=[0.1], b0=[0.3], a1=[0.5], b1=[0.7]), [], "val_accuracy")
    assert list(frame["seeds"]) == [2] and frame["mean"][0] == pytest.approx(0.4)
    assert frame["low"][0] == pytest.approx(intervals.mean_interval(np.array([0.2, 0.6]), "val_accuracy")[0])


def test_a_seed_without_one_of_its_trials_has_no_value():
    some = trials(("a", 0, "finished", 0), ("a", 0, "crashed", 0), ("a", 1, "finished", 0)).assign(key=["x", "y", "z"])
    frame = dynamics.curves(some, epochs(x=[0.9], y=[0.1], z=[0.7]), ["initializer"], "val_accuracy")
    assert list(frame["seeds"]) == [1] and list(frame["mean"]) == [0.7]


def test_no_epochs_give_no_curve():
    frame = dynamics.curves(trials(("a", 0, "crashed", 0)), epochs(), ["initializer"], "val_accuracy")
    assert frame.empty and list(frame.columns) == ["initializer", "epoch", "seeds", "mean", "low", "high"]


def layers(keys, kernels, statistic, counts=3):
    """A layers frame: `statistic(key, kernel, epoch)` gives the value of l2 for each."""
    rows = [(key, e, *kernel, statistic(key, kernel, e)) for key in keys for kernel in kernels for e in range(counts)]
    return pd.DataFrame(rows, columns=["key", "epoch", "layer", "tensor", "l2"])


def test_statistics_of_kernels_are_medians_over_trials_in_the_networks_order():
    some = trials(("a", 0, "finished", 2), ("a", 1, "finished", 2), ("a", 2, "finished", 2), ("b", 0, "finished", 2))
    kernels = [
        ("stem", "kernel"),
        ("rnn", "kernel"),
        ("rnn", "recurrent_kernel"),
        ("stem", "bias"),
        ("alpha", "kernel"),
    ]
    frame = layers(some["key"], kernels, lambda key, kernel, epoch: {"a0": 1, "a1": 100, "a2": 3, "b0": 7}[key] + epoch)
    middle = dynamics.medians(some, frame, ["initializer"], ["l2"])
    assert list(dict.fromkeys(middle["kernel"])) == ["stem", "rnn", "rnn recurrent", "alpha"]
    rows = middle[(middle["kernel"] == "alpha")].set_index(["initializer", "epoch"])["l2"]
    assert list(rows["a"]) == [3, 4, 5] and list(rows["b"]) == [7, 8, 9]


def test_a_deeper_arms_layers_are_in_their_own_order():
    some = trials(("a", 0, "finished", 0), ("b", 0, "finished", 0))
    shallow = layers(["a0"], [("dense_1", "kernel"), ("logits", "kernel")], lambda *_: 1.0, 1)
    deep = layers(["b0"], [("dense_1", "kernel"), ("dense_2", "kernel"), ("logits", "kernel")], lambda *_: 1.0, 1)
    middle = dynamics.medians(some, pd.concat([shallow, deep]), ["initializer"], ["l2"])
    assert list(middle.loc[middle["initializer"] == "b", "kernel"]) == ["dense_1", "dense_2", "logits"]


def test_warnings_are_counted_with_what_became_of_their_trials():
    some = trials(*(("a", seed, "finished", 9) for seed in range(3)), ("a", 3, "diverged", 2))
    some["val_accuracy"] = [0.9, 0.2, 0.3, NAN]
    some["warning"] = [
        "",
        "loss rises from epoch 4",
        "at chance from epoch 2; loss rises in layers 1, 2 from epoch 6",
        "at chance from epoch 1",
    ]
    rows = dynamics.warnings(some, "val_accuracy").to_dict("records")
    assert [(r["warning"], r["trials"], r["epoch"], r["failed"]) for r in rows] == [
        ("at chance", 2, 1.5, 1),
        ("loss rises", 2, 5.0, 0),
    ]
    assert rows[0]["value"] == pytest.approx(0.2) and rows[0]["others"] == pytest.approx(0.55)
    assert dynamics.warnings(some.assign(warning=""), "val_accuracy").empty


def test_densities_are_those_of_all_weights_of_an_arm_together():
    rng = np.random.default_rng(0)
    trials = pd.DataFrame({"key": ["a", "b", "c"], "initializer": ["x", "x", "y"]})
    rows, drawn = [], {}
    for key in trials["key"]:
        for epoch in range(12):
            w = rng.normal(epoch / 10, 1, 5000) if key != "c" else np.zeros(10)
            counts, _ = np.histogram(w, 64)
            rows.append((key, epoch, "dense_1", "kernel", w.min(), w.max(), counts))
            drawn[key, epoch] = w
    counts = pd.DataFrame(rows, columns=["key", "epoch", "layer", "tensor", "low", "high", "counts"])
    found = dynamics.densities(trials, counts, ["initializer"])
    assert set(found["initializer"]) == {"x"} and found["epoch"].nunique() == dynamics.DENSITY_EPOCHS  # y is all zeros
    for epoch, part in found.groupby("epoch"):
        edges, cells = np.append(part["weight"].to_numpy()[::2], part["weight"].iloc[-1]), part["density"][::2]
        assert (np.diff(edges) * cells).sum() == pytest.approx(1)
        both = np.concatenate([drawn["a", epoch], drawn["b", epoch]])
        expected, _ = np.histogram(both, edges, density=True)
        np.testing.assert_allclose(cells, expected, atol=0.06)
        assert np.abs(cells - expected).mean() < 0.01
    assert dynamics.densities(trials, counts[:0], ["initializer"]).empty


def test_warnings_within_arms_are_of_the_arms_own_trials():
    frame = pd.DataFrame(
        {
            "key": list("abcd"), "initializer": ["he", "he", "zeros", "zeros"], "seed": [0, 1, 0, 1],
            "status": ["finished", "diverged", "finished", "finished"], "classes": 10,
            "val_accuracy": [0.9, 0.1, 0.2, 0.4],
            "warning": ["", "loss rises from epoch 3", "at chance from epoch 2", "at chance from epoch 4"],
        }
    )  # fmt: skip
    rows = dynamics.warnings_within(frame, ["initializer"], "val_accuracy").set_index("initializer")
    assert rows[["warning", "trials", "of", "epoch", "failed"]].to_numpy().tolist() == [
        ["loss rises", 1, 2, 3, 1],
        ["at chance", 2, 2, 3, 0],
    ]
    assert rows.loc["he", ["value", "others"]].tolist() == [0.1, 0.9]
    assert rows.loc["zeros", "value"] == pytest.approx(0.3) and np.isnan(rows.loc["zeros", "others"])


def test_a_breakdown_is_the_first_loss_that_was_lost_and_the_last_that_was_not():
    frame = pd.DataFrame({"key": ["a", "b", "c"], "status": ["diverged", "diverged", "finished"]})
    rows = [
        ("a", 0, np.nan, 2.0),
        ("a", 1, 1.5, 3.0),
        ("a", 2, 9e9, np.nan),
        ("b", 0, np.nan, np.inf),
        ("b", 1, np.inf, np.nan),
    ]
    epochs = pd.DataFrame([*rows, ("c", 0, 1.0, 1.0)], columns=["key", "epoch", "running_loss", "val_loss"])
    found = dynamics.breakdowns(frame, epochs).to_dict("records")
    assert found[0] == {"key": "a", "loss": "val_loss", "epoch": 2, "last": 3.0, "before": 1}
    assert (found[1]["loss"], found[1]["epoch"]) == ("running_loss", 1) and np.isnan(found[1]["last"])
    assert len(found) == 2
