"""What classes are taken for: made-up counts whose scores are known, scikit-learn's scores, and a trained network's."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from analysis import confusion, load
from analysis.estimate import classes
from analysis.show import confusions
from studies.contract import CONFUSION_COLUMNS
from studies.factors.data import DIGITS

CLASSES = 4
NAMES = {0: "cat", 1: "dog", 2: "a horse", 3: "frog"}


def made_up(size=60):
    """Labels and predictions of three trials of two arms; a class without examples, and one that is never named."""
    rng = np.random.default_rng(0)
    return {key: (rng.integers(0, 3, size), rng.choice([0, 1, 3], size)) for key in "abc"}


def counted(pairs, which="val"):
    rows = []
    for key, (labels, predicted) in pairs.items():
        matrix = metrics.confusion_matrix(labels, predicted, labels=range(CLASSES))
        rows += [(key, which, *pair, matrix[tuple(pair)], *map(NAMES.get, pair)) for pair in np.argwhere(matrix)]
    return pd.DataFrame(rows, columns=CONFUSION_COLUMNS)


TRIALS = pd.DataFrame({"key": list("abcd"), "classes": CLASSES, "initializer": ["zeros", None, "zeros", "zeros"]})


def test_scores_by_class_are_scikit_learns_means_over_an_arms_trials():
    pairs = made_up()
    found = classes.scores(counted(pairs), TRIALS, ["initializer"])
    assert found["trials"].tolist() == [2] * CLASSES + [1] * CLASSES
    assert found["class"].tolist() == 2 * list(range(CLASSES))
    for arm, keys in ((slice(0, CLASSES), "ac"), (slice(CLASSES, None), "b")):
        each = [
            metrics.precision_recall_fscore_support(*pairs[k], labels=range(CLASSES), zero_division=0) for k in keys
        ]
        precision, recall, f1, examples = np.mean(each, axis=0)
        rows = found[arm]
        np.testing.assert_allclose(rows["precision"], precision)
        np.testing.assert_allclose(rows["recall"], np.where(examples, recall, np.nan))
        np.testing.assert_allclose(rows["f1"], f1)
        np.testing.assert_allclose(rows["examples"], examples)


def test_shares_are_of_each_class_and_of_every_pair():
    pairs = made_up()
    found = classes.shares(counted(pairs), TRIALS, ["initializer"])
    assert len(found) == 2 * CLASSES**2
    expected = metrics.confusion_matrix(*pairs["b"], labels=range(CLASSES), normalize="true")
    own = found[found["initializer"].isna()]["share"].to_numpy().reshape(CLASSES, CLASSES)
    np.testing.assert_allclose(own[:3], expected[:3])
    assert np.isnan(own[3]).all()


def test_an_arm_whose_level_is_null_is_called_so():
    shown = [estimate(counted(made_up()), TRIALS, ["initializer"]) for estimate in (classes.scores, classes.shares)]
    titles = [
        line for line in confusions.matrices(*shown, ["initializer"], "val", "terminal").splitlines() if ":" in line
    ]
    assert titles == ["zeros: validation images, 2 trials", "null: validation images, 1 trial"]


def test_a_matrix_is_seen_and_of_many_classes_the_commonest_errors():
    pairs = {"a": (np.array([0] * 200 + [1] * 4), np.array([0] * 199 + [2] + [1, 1, 2, 0]))}
    counts, trials = counted(pairs), TRIALS[:1]
    shown = [estimate(counts, trials, []) for estimate in (classes.scores, classes.shares)]
    rows = [line.split() for line in confusions.matrices(*shown, [], "val", "terminal").splitlines()]
    assert rows[0] == ["all", "trials:", "validation", "images,", "1", "trial"]
    assert rows[2] == ["class", "0", "1", "2", "3", "precision", "F1"]
    assert rows[4][:5] == ["0", "100", ".", "<1", "."] and rows[5][:5] == ["1", "25", "50", "25", "."]
    assert rows[6][:5] == ["2", "–", "–", "–", "–"] and rows[6][5:] == ["0.000", "0.000"]
    assert rows[7][5:] == ["–", "–"]
    many = [estimate(counts, trials.assign(classes=11), []) for estimate in (classes.scores, classes.shares)]
    text = confusions.matrices(*many, [], "test", "markdown")
    assert "| 0 (25 %), 2 (25 %)" in text and "test images" in text and "examples" in text


@pytest.fixture(scope="module")
def root(trained, together):
    """A study of an unequal training set, and of a rate that diverges."""
    root = together / "classes"
    words = "data.imbalance=20 model.width=16 training.epochs=3 diagnostics=none training.early_stopping=1"
    factors = "+study.factors={optimizer.learning_rate:[.05,1.0e+9]}"
    trained(*words.split(), factors, "study.seeds=2", "study.name=classes", f"tracking.root={root}")
    return root


def test_a_studys_scores_by_class_are_those_of_its_networks(root):
    trials, counts = load.trials("classes", root), load.confusions("classes", root)
    good = trials[trials["status"] == "finished"]
    assert (
        len(good) == 2 and set(trials["status"]) == {"finished", "diverged"} and set(counts["key"]) == set(good["key"])
    )
    for row in good.to_dict("records"):
        for which in ("val", "test"):
            own = counts[(counts["key"] == row["key"]) & (counts["set"] == which)]
            labels, predicted = (np.repeat(own[name], own["count"]) for name in ("class", "predicted"))
            assert metrics.accuracy_score(labels, predicted) == pytest.approx(row[f"{which}_accuracy"], rel=1e-6)
            f1 = metrics.f1_score(labels, predicted, average="macro")
            assert f1 == pytest.approx(row[f"{which}_macro_f1"], rel=1e-6)
            balanced = metrics.balanced_accuracy_score(labels, predicted)
            assert balanced == pytest.approx(row[f"{which}_balanced_accuracy"], rel=1e-6)
        own = counts[(counts["key"] == row["key"]) & (counts["set"] == "test")]
        assert own.groupby("class")["count"].sum().tolist() == [round(0.2 * size) for size in DIGITS]
    assert trials.loc[trials["status"] == "diverged", "val_macro_f1"].isna().all()


def test_the_command_shows_each_arm_and_says_what_it_lacks(root, capsys):
    assert confusion.main(["classes", "--root", str(root)]) == 0
    text = capsys.readouterr().out
    assert text.count("validation images, 2 trials") == 1 and "2 of 4 trials have none" in text
    assert all(len(line) <= 80 for line in text.partition("\n\nOf 100")[0].splitlines())
    assert (
        confusion.main(["classes", "--root", str(root), "--set", "test", "--format", "json", "--by", "learning_rate"])
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert len(found["classes"]) == 10 and len(found["pairs"]) == 100 and found["set"] == "test"
    assert confusion.main(["classes", "--root", str(root), "--where", "status == 'diverged'"]) == 2
    assert "has kept what its classes are taken for" in capsys.readouterr().err


def test_classes_that_have_names_are_called_by_them():
    counts = counted(made_up())
    assert classes.names(counts) == NAMES
    shown = [estimate(counts, TRIALS, ["initializer"]) for estimate in (classes.scores, classes.shares)]
    text = confusions.matrices(*shown, ["initializer"], "val", "terminal", classes.names(counts))
    assert [line.split("  ")[0] for line in text.splitlines()[4:8]] == ["0 cat", "1 dog", "2 a horse", "3 frog"]
