"""What a study's trials have in common, in two lines."""

import pandas as pd

from analysis.show.trained import trained

SETTINGS = {
    **{"key": ["k", "l"], "seed": 0, "data": "digits", "data.test_fraction": 0.2, "data.train_size": None},
    **{"data.imbalance": 1.0, "data.label_noise": 0.0, "model": "mlp", "model.depth": [2, 8], "model.width": 64},
    **{"initializer": "HeNormal", "optimizer": "SGD", "optimizer.learning_rate": 0.02, "optimizer.momentum": [0, 0.9]},
    **{"optimizer.nesterov": True, "optimizer.slow_step": 0.5, "schedule": "cosine", "schedule.warmup": 0.0},
    **{"training.epochs": 20, "training.batch_size": 32, "training.early_stopping": 5, "engine.xla": "auto"},
    **{"optimizer.weight_decay_on": "all", "training.class_weight": None, "training.class_weight_beta": 0.999},
}


def said(factors=(), images=1120, **changed):
    settings = pd.DataFrame(SETTINGS | {name.replace("__", "."): values for name, values in changed.items()})
    return trained(settings, list(factors), pd.DataFrame({"parameters": [8970.0, 67210.0]}), images)


def test_what_is_on_is_said_and_what_differs_from_to():
    assert said() == [
        "Data: digits, test fraction 0.2, 1,120 images an epoch. Model: mlp, depth 2 to 8, width 64, 8,970 to 67,210 "
        "parameters.",
        "Training: HeNormal weights; SGD, learning rate 0.02, momentum 0.9 in some trials, nesterov on; "
        "cosine schedule; 20 epochs, batches of 32, early stopping 5.",
    ]
    lists = said(model__filters=[[8, 16], [8]], data__label_noise=[0.1, 0.2])
    assert "clip_by_norm in some trials" in said(clipping=["none", "clip_by_norm"])[1]
    assert "label noise 0.1 to 0.2," in lists[0] and "filters [8, 16], [8]" in lists[0]


def test_factors_are_left_out_with_what_is_an_options_own_but_for_its_rate():
    data, training = said(
        ["model.depth", "optimizer"], optimizer=["SGD", "Adam"], optimizer__learning_rate=[0.1, 0.001]
    )
    assert "depth" not in data and "momentum" not in training and "learning rate 0.001 to 0.1" in training
    assert said(["data", "schedule"], images=None, schedule__warmup=0.1)[0].startswith("Model: mlp, depth")
    assert "cosine schedule, warmup 0.1; 20 epochs" in said(schedule__warmup=0.1)[1]
    assert "; 1 epoch, batches of 32" in said(training__epochs=1)[1]
    assert "SGD" not in training and "learning rate" not in said(["optimizer.learning_rate"])[1]


def test_of_what_was_not_trained_here_nothing_is_said():
    assert trained(pd.DataFrame({"key": ["k"], "rate": [0.1]}), ["rate"], pd.DataFrame({"parameters": []})) == []
