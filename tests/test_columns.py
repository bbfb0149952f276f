"""Any column of numbers as a metric: what is better of it, what a failure scores, layers' statistics, and the words."""

import csv
import io
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_compare import stored

from analysis import compare, load
from analysis.estimate import columns, comparison, dynamics, intervals, measure
from analysis.show import answers, tables
from studies.record import METRICS, StudyError

NAN = float("nan")
pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def root(fresh, tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    shutil.copy(fresh / "mlflow.db", root)
    stored(root, "first", {"initializer": ("he", "zeros")}, {"initializer": "he"}, seeds=(0, 1, 2))
    return root


@pytest.fixture
def command(root, capsys):
    def call(*arguments):
        return compare.main(["first", *arguments, "--root", str(root)]), *capsys.readouterr()

    return call


def frame(**arms):
    """Trials of two or more arms: a value a seed, None for one that diverged."""
    rows = [
        (arm, seed, np.nan if value is None else value, "diverged" if value is None else "finished")
        for arm, values in arms.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=["arm", "seed", "mine", "status"])


def named(trials, name):
    return trials.rename(columns={"mine": name})


@pytest.mark.parametrize(
    ("name", "better", "bounds"),
    [
        ("val_accuracy", 1, (0, 1)), ("ema_test_loss", -1, (0, np.inf)), ("seconds_total", -1, (0, np.inf)),
        ("memory_mb", -1, (0, np.inf)), ("parameters", 0, (0, np.inf)), ("epochs", 0, (0, np.inf)),
        ("dense_1.kernel.l2@7", 0, (0, np.inf)), ("a.kernel.mean", 0, (-np.inf, np.inf)),
        ("a.kernel.sparsity_1e-3", 0, (0, 1)), ("val_accuracy@7", 1, (0, 1)), ("sharpness@0", 0, (-np.inf, np.inf)),
        ("a.output.dead@1", 0, (0, 1)), ("mine", 0, (-np.inf, np.inf)), ("top5_accuracy", 1, (0, 1)),
    ],
)  # fmt: skip
def test_a_name_says_what_is_better_and_between_which_bounds(name, better, bounds):
    known = measure.measure(name)
    assert (known.better, (known.low, known.high)) == (better, bounds)
    assert all(measure.measure(metric).guessed and measure.measure(metric).better for metric in METRICS)


def test_a_failure_scores_the_worst_that_finished_or_nothing():
    trials = frame(a=[3.0, None], b=[7.0, 5.0])
    for name, score in (("seconds_total", 7.0), ("top5_accuracy", None), ("mine", NAN)):
        if score is None:
            trials["mine"], score = trials["mine"] / 10, 0.3
        np.testing.assert_array_equal(comparison.scored(named(trials, name), name)[1], score)
    crashed = frame(a=[3.0, None]).assign(status=["finished", "crashed"])
    assert np.isnan(comparison.scored(named(crashed, "seconds_total"), "seconds_total")[1])
    nothing = named(frame(a=[None, None]), "seconds_total")
    assert comparison.scored(nothing, "seconds_total").isna().all()
    assert comparison.comparison(nothing, ["arm"], "seconds_total", {"arm": "a"})["mean"].isna().all()


def test_ones_own_column_is_compared_with_its_t_interval_and_no_bounds():
    trials = frame(a=[-3.0, -1.0, 2.0], b=[4.0, 9.0, 8.0])
    table = comparison.comparison(trials, ["arm"], "mine", {"arm": "a"}).set_index("arm")
    expected = stats.ttest_rel([4.0, 9.0, 8.0], [-3.0, -1.0, 2.0])
    assert tuple(table.loc["a", ["low", "high"]]) == pytest.approx(intervals.t_interval(np.array([-3.0, -1.0, 2.0])))
    assert tuple(table.loc["b", ["difference_low", "difference_high"]]) == pytest.approx(
        tuple(expected.confidence_interval(0.95))
    )
    assert table.loc["b", "p"] == pytest.approx(expected.pvalue) and set(table["standing"]) == {""}
    assert list(comparison.by_seed(trials, ["arm"], "mine")["value"]) == list(trials["mine"])


def said(trials, metric="mine", baseline=None, by=("arm",)):
    baseline = {"arm": "a"} if baseline is None else baseline
    compared = comparison.comparison(named(trials, metric), list(by), metric, baseline)
    return answers.answer(compared, list(by), metric, baseline)


def test_what_is_neither_better_nor_worse_differs():
    trials = frame(a=[1.0, 2.0, 3.0, 4.0], b=[3.1, 4.0, 5.0, 6.1], c=[0.9, 2.2, 2.9, 4.1])
    [text] = said(trials)
    assert text.startswith("From a (mine 2.5 [") and "1 of 2 clearly differ; most, b, by +2.050 [" in text
    [text, _] = said(trials, baseline={})
    assert text.startswith("The mine goes from 2.5") and text.endswith("of b, and neither more nor less is better.")
    [text] = said(trials[trials["arm"] != "b"])
    assert text.startswith("None clearly differs from a")
    [text] = said(trials[trials["seed"] == 0])
    assert text.endswith("one seed does not tell whether by chance.")
    two = pd.concat([trials.assign(depth=d, mine=trials["mine"] * d) for d in (1, 2)])
    [first, *_] = said(two, by=("arm", "depth"))
    assert first.startswith("From a, 2 of 4 arms clearly differ in mine; most, b 2, by +4.1")
    for text in (*said(trials), *said(trials, baseline={}), *said(two, by=("arm", "depth"))):
        assert "clearly better" not in text and "worse" not in text and "best" not in text


def test_fewer_seconds_are_better():
    [text] = said(frame(a=[5.0, 5.1, 5.2, 5.0], b=[2.0, 2.2, 2.1, 2.0]), "seconds_total")
    assert text.startswith("b (seconds total 2.08") and "is clearly better than a: -3.00" in text


def test_shares_that_are_none_and_columns_without_numbers_are_refused():
    percent = named(frame(a=[93.0, 94.0]), "top5_accuracy")
    with pytest.raises(StudyError, match=r"top5_accuracy: expected shares between 0 and 1.*received 93"):
        comparison.scored(percent, "top5_accuracy")
    with pytest.raises(StudyError, match="metric=status: holds no numbers: expected one of mine"):
        comparison.scored(frame(a=[1.0]), "status")
    with pytest.raises(StudyError, match=r"metric=mime: there is no such column.*Did you mean mine"):
        comparison.scored(frame(a=[1.0]), "mime")


def test_the_notes_say_the_bounds_of_any_column():
    assert "cut at 0" in tables.interval_note("seconds_total") and "logit" in tables.interval_note("a.b.sparsity_0")
    assert "cut" not in tables.interval_note("mine") and "logit" not in tables.interval_note("mine")
    assert tables.words("dense_1.kernel.update_ratio") == "dense_1.kernel.update_ratio"


@pytest.mark.parametrize(
    ("metric", "layer", "epoch"),
    [("dense_1.kernel.l2", ["dense_1"], 30), ("logits.kernel.skew@7", ["logits"], 7),
     ("*.kernel.l2", ["dense_1", "logits"], 30), ("dense*.kernel.mean@0", ["dense_1"], 0)],
)  # fmt: skip
def test_a_layers_statistic_is_a_column(root, command, metric, layer, epoch):
    code, out, _ = command("--metric", metric, "--format", "csv")
    statistic = metric.partition("@")[0].rpartition(".")[2]
    rows, trials = load.layers("first", root), load.trials("first", root)
    rows = rows[rows["layer"].isin(layer) & (rows["tensor"] == "kernel") & (rows["epoch"] == epoch)]
    means = rows.merge(trials, on="key").groupby("initializer")[statistic].mean()
    found = pd.DataFrame(csv.DictReader(io.StringIO(out))).set_index("initializer")["mean"].astype(float)
    assert code == 0 and dict(found) == pytest.approx(dict(means))


def test_a_column_of_the_epochs_frame_is_one_at_an_epoch_or_at_the_last_that_has_it(root, command):
    code, out, _ = command("--metric", "val_accuracy@7", "--format", "csv")
    epochs, trials = load.epochs("first", root), load.trials("first", root)
    means = epochs[epochs["epoch"] == 7].merge(trials[["key", "initializer"]]).groupby("initializer")["val_accuracy"]
    found = pd.DataFrame(csv.DictReader(io.StringIO(out))).set_index("initializer")["mean"].astype(float)
    assert code == 0 and dict(found) == pytest.approx(dict(means.mean()))
    rows = pd.DataFrame({"key": ["x", "x", "x", "y"], "epoch": [0, 4, 5, 1], "sharpness": [1.0, 3.0, NAN, 7.0]})
    assert dict(columns.epoch_values(rows, "sharpness")) == {"x": 3.0, "y": 7.0}
    assert dict(columns.epoch_values(rows, "sharpness@0")) == {"x": 1.0}
    with pytest.raises(StudyError, match="expected one of the epochs 0, 1, 4"):
        columns.epoch_values(rows, "sharpness@5")


def test_a_trials_last_epoch_is_its_own_and_layers_without_a_value_do_not_count():
    rows = pd.DataFrame(
        [("x", 1, "a", 1.0), ("x", 2, "a", 3.0), ("x", 2, "b", 5.0), ("y", 1, "a", 7.0), ("y", 2, "a", NAN)],
        columns=["key", "epoch", "layer", "l2"],
    ).assign(tensor="kernel")
    assert dict(columns.layer_values(rows, "*.kernel.l2")) == {"x": 4.0, "y": 7.0}
    assert dict(columns.layer_values(rows, "b.kernel.l2")) == {"x": 5.0}
    assert columns.layer_values(rows.assign(l2=NAN), "a.kernel.l2").empty
    with pytest.raises(StudyError, match="expected one of the epochs 1, 2"):
        columns.layer_values(rows, "a.kernel.l2@3")


def test_the_command_names_what_there_is(command):
    for metric, *words in (
        ("val_acuracy", "Did you mean val_accuracy?", "seconds_total", "LAYER.TENSOR.STATISTIC[@EPOCH]"),
        ("dense_2.kernel.l2", "no trial has dense_2.kernel", "logits.bias", "Did you mean dense_1.kernel?"),
        ("dense_1.kernel.update_ration", "a statistic among mean, sd", "Did you mean update_ratio?"),
        ("dense_1.kernel.l2@99", "expected one of the epochs 0, 1"),
        ("dense_1.kernel.l2@last", "expected one of the epochs 0, 1"),
        ("status", "holds no numbers"),
    ):
        code, out, error = command("--metric", metric)
        assert code == 2 and not out and error.count("\n") == 1 and all(word in error for word in words), error


def test_the_command_compares_seconds_and_parameters_in_every_view(command):
    for metric in ("seconds_total", "parameters", "memory_mb", "dense_1.kernel.l2"):
        for words in ([], ["--format", "json"], ["--format", "latex"], ["--executions"], ["other"]):
            code, out, error = command("--metric", metric, *[w for w in words if w != "other"])
            assert code == 0 and out and not error
    code, out, _ = command("--metric", "parameters")
    assert "None clearly differs from he (parameters 99" in out and "not the study's own val accuracy" in out


def test_warnings_are_counted_by_any_column():
    trials = frame(a=[1.0, 3.0]).assign(warning=["loss rises from epoch 2", ""])
    assert dynamics.warnings(trials, "mine")[["value", "others"]].to_numpy().tolist() == [[1.0, 3.0]]
