"""Comparing studies, some of their trials, and their executions: what the command prints, on real stores."""

import csv
import io
import json
import shlex
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from test_writer import CONFIG, records

from analysis import compare, load
from analysis.estimate import comparison, history
from analysis.read import runs, selection
from studies.command import driver
from studies.record import Study, StudyError, Trial
from studies.store import writer

ROOT = Path(__file__).parent.parent
NOW = datetime(2026, 11, 20, 12, tzinfo=timezone(timedelta(hours=1)))

pytestmark = pytest.mark.filterwarnings("error")


def stored(root, name, factors, baseline, config=None, seeds=(0, 1), metric="val_accuracy"):
    """Run a made-up study: every arm of a grid at every seed; an arm's number and its seed make its numbers."""
    study = Study(name, "Which is best?", factors, seeds, baseline, metric)
    arms = [dict(zip(factors, levels)) for levels in pd.MultiIndex.from_product(factors.values())]
    trials = [
        Trial(f"{name[:4]}-{place}-{seed}", name, "scientific", arm, seed, CONFIG | (config or {}), (), "graph")
        for place, arm in enumerate(arms)
        for seed in seeds
    ]
    text = yaml.safe_dump({"study": {"name": name, "seeds": list(seeds)}, **CONFIG, **(config or {})})
    execution = writer.Execution(root, study, trials, text)
    for place, trial in enumerate(trials):
        execution.write(trial, *records(replace(trial, seed=100 * place + trial.seed)))
    execution.close("FINISHED")
    return execution


@pytest.fixture(scope="module")
def root(fresh, tmp_path_factory):
    """Two studies that share a factor, one that has another, one by another metric; the first was run twice."""
    root = tmp_path_factory.mktemp("store")
    shutil.copy(fresh / "mlflow.db", root)
    depths = {"model.depth": (1, 2)}
    stored(root, "first", {"initializer": ("he", "zeros"), **depths}, {"initializer": "he", "model.depth": 1})
    mnist = {"data": {"_target_": "studies.data.mnist", "train_size": None, "content": ""}}
    stored(root, "second", {**depths, "optimizer": ("sgd", "adam")}, {"model.depth": 1}, mnist)
    stored(root, "other", {"schedule": ("step", "cosine")}, {"schedule": "step"})
    stored(root, "by loss", depths, {"model.depth": 2}, metric="val_loss")
    stored(
        root,
        "first",
        {"initializer": ("he", "zeros"), **depths},
        {"initializer": "he", "model.depth": 1},
        mnist,
        (0, 1, 2),
    )
    return root


@pytest.fixture
def command(root, capsys):
    """A function from arguments to what `python -m analysis.compare` answers: exit code, stdout, stderr."""

    def call(*arguments):
        return compare.main([*arguments, "--root", str(root)]), *capsys.readouterr()

    return call


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_several_studies_are_each_compared_within_themselves_by_what_they_share(root, command):
    code, out, _ = command("first", "second", "--format", "csv")
    table = rows(out)
    assert code == 0 and list(table[0])[:2] == ["study", "model.depth"]
    assert [(row["study"], row["model.depth"]) for row in table] == [
        (study, depth) for study in ("first", "second") for depth in "12"
    ]
    for name in ("first", "second"):
        alone = comparison.comparison(
            load.trials(name, root), ["model.depth"], "val_accuracy", load.execution(name, root).study.baseline
        )
        mine = [row for row in table if row["study"] == name]
        np.testing.assert_array_equal([float(row["mean"]) for row in mine], alone["mean"])
        assert float(mine[1]["difference"]) == alone["difference"][1]
    assert "difference to depth=1" in command("first", "second")[1]


def test_studies_that_share_no_factor_have_arms_by_their_labels(command):
    code, out, _ = command("first", "other", "first", "--format", "csv")
    assert code == 0 and [row["arm"] for row in rows(out)] == [
        "he depth=1", "he depth=2", "zeros depth=1", "zeros depth=2", "step", "cosine",
    ]  # fmt: skip
    assert "difference" not in command("first", "other")[1]  # whose baseline would it be to


def test_what_several_studies_do_not_share_is_refused(command):
    for words, said in (
        (["first", "by loss"], "first by val_accuracy, by loss by val_loss): name one with --metric"),
        (["first", "second", "--by", "initializer"], "expected factors of all the studies: model.depth"),
        (["first", "nosuch"], "no study 'nosuch'"),
    ):
        code, out, error = command(*words)
        assert code == 2 and said in error and error.count("\n") == 1 and not out
    code, out, _ = command("first", "by loss", "--metric", "val_loss")
    assert code == 0 and "difference" not in out  # their baselines are not the same


@pytest.mark.parametrize(
    ("condition", "chosen"),
    [
        ("model.depth == 2", lambda t: t["model.depth"] == 2),
        ("`model.depth` > 1 and seed in [0, 2]", lambda t: (t["model.depth"] > 1) & t["seed"].isin([0, 2])),
        ("not initializer == 'he' or 0 < seed < 2", lambda t: (t["initializer"] != "he") | (t["seed"] == 1)),
        ("initializer not in ('he', 'ones')", lambda t: t["initializer"] == "zeros"),
        ("val_accuracy >= 0.5 and val_loss > -1", lambda t: t["val_accuracy"] >= 0.5),
        ("ema_val_loss > 0 or ema_val_loss <= 0 or seed == 1", lambda t: t["seed"] == 1),
        ("data == 'mnist' and optimizer.learning_rate == 0.1", lambda t: t["seed"] >= 0),
        ("data.train_size == null and data.train_size != 3 and seed < 1", lambda t: t["seed"] == 0),
        ("not data.train_size < 3 and seed < 1", lambda t: t["seed"] == 0),
        ("error == '' and status == \"finished\" and initializer != '`model.depth`'", lambda t: t["seed"] >= 0),
    ],
)
def test_where_chooses_trials_by_any_column_and_setting(root, condition, chosen):
    trials = load.trials("first", root)
    expected = trials[chosen(trials)]
    assert len(expected) > 0
    pd.testing.assert_frame_equal(compare.selected("first", root, condition)[1], expected.reset_index(drop=True))


def test_where_compares_levels_that_are_lists_or_null():
    frame = pd.DataFrame({"data.widths": pd.Series([[8, 16], None, (8, 16), 3], dtype=object)})
    for condition, held in {
        "data.widths == [8, 16]": [True, False, True, False],
        "data.widths in [[8, 16], 3]": [True, False, True, True],
        "data.widths == null": [False, True, False, False],
        "data.widths != null": [True, False, True, True],
    }.items():
        assert selection.Condition(condition).holds(frame).tolist() == held
    with pytest.raises(StudyError, match="is neither less nor greater than 3"):
        selection.Condition("data.widths > 3").holds(frame)


@pytest.mark.parametrize(
    "condition",
    [
        "", "(", "seed = 3", "seed", "seed == 1 and seed", "not seed", "'he'", "@seed == 1", "seed + 1 == 2",
        "len(initializer) == 2", "__import__('os').system('true') == 0", "().__class__ == 1", "initializer[0] == 'h'",
        "[s for s in seed] == 1", "(lambda: 1) == 1", "f'{seed}' == '1'", "(seed := 1) == 1", "initializer in 'zeros'",
        "seed == 1 & seed == 2", "seed is 1", "seed == 1; seed == 2", "'a'.x == 1", "(" * 500 + "seed == 1" + ")" * 500,
        "seed == (1 if seed else 2)", "seed == *seed", "initializer < 3",
    ],
)  # fmt: skip
def test_where_evaluates_nothing_but_comparisons(command, condition):
    code, out, error = command("first", "--where", condition)
    assert code == 2 and error.startswith("error: --where") and error.count("\n") == 1 and not out
    with pytest.raises(StudyError, match="expected columns compared with values"):
        selection.Condition(condition).holds(pd.DataFrame({"seed": [0], "initializer": ["he"]}))


def test_an_unknown_column_or_no_trial_is_an_error_that_says_what_there_is(command):
    error = command("first", "--where", "model.nosuch == 3")[2]
    assert "no column model.nosuch" in error and all(
        name in error for name in ("model.depth", "seed", "optimizer.learning_rate")
    )
    assert "--where seed == 9: none of the 12 trials of first" in command("first", "--where", "seed == 9")[2]


def test_since_is_a_date_a_time_or_a_length_before_now():
    milliseconds = {
        text: 1000 * (NOW - length).timestamp()
        for text, length in {"0d": timedelta(0), "12h": timedelta(hours=12), "2w": timedelta(14)}.items()
    }
    milliseconds["2026-11-01T18:30+02:00"] = 1000 * datetime(2026, 11, 1, 16, 30, tzinfo=UTC).timestamp()
    milliseconds["2026-11-01"] = 1000 * datetime(2026, 11, 1).timestamp()  # local
    assert {text: selection.since(text, NOW) for text in milliseconds} == milliseconds
    for text in ("yesterday", "7", "7 d", "2026-13-01", "-1d", "9999999999999w", ""):
        with pytest.raises(StudyError, match=f"--since {text}: expected a date"):
            selection.since(text, NOW)


def test_since_leaves_only_trials_that_ended_since(root, command):
    ends = sorted(run.end_time for run in load.ended("first", root))
    middle = datetime.fromtimestamp(ends[-3] / 1000).isoformat()
    assert len(compare.selected("first", root, since=middle)[1]) == sum(end >= ends[-3] for end in ends)
    assert len(compare.selected("first", root, since="1d")[1]) == 12
    code, _, error = command("first", "--since", "2100-01-01")
    assert code == 2 and "--since 2100-01-01: none of the 12 trials of first" in error


def test_executions_says_what_changed_between_the_last_two(root, command):
    with sqlite3.connect(root / "mlflow.db") as connection:
        tag = "INSERT OR REPLACE INTO tags (key, value, run_uuid) VALUES (?, 'abcdef123456789', ?)"
        connection.execute(
            tag,
            (
                "mlflow.source.git.commit",
                load.execution("first", root).run_id,
            ),
        )
    code, out, _ = command("first", "--executions")
    listing, counts, config, _, means = out.split("\n\n")
    assert code == 0 and listing.count("FINISHED") == 2 and "abcdef123456 " in listing and "keras" in listing
    assert counts == "From execution 1 to 2: 4 trials added, 0 removed, 8 kept"
    changed = {line.split("  ")[0]: line.split()[1:] for line in config.splitlines()[2:]}
    assert changed["data._target_"] == ["made.up", "studies.data.mnist"]
    assert changed["data.path"] == ["/made/up.npz", "–"] and "study.seeds" in changed and "model.depth" not in changed
    found = sorted(runs.opened(root).runs("first", ["val_accuracy"]), key=lambda run: run.end_time)
    for depth in (1, 2):
        arm = {"initializer": "he", "model.depth": depth}
        mine = [run for run in found if json.loads(run.tags.get("trial.arm", "{}")) == arm]
        values = [run.metrics["val_accuracy"] for run in mine if run.tags["trial.seed"] in "01"]  # those that both had
        old, new = np.mean(values[:2]), np.mean(values[2:])  # each as it was then
        assert len(values) == 4
        [line] = [line.split() for line in means.splitlines() if line.startswith(f"he depth={depth}")]
        assert line[2:] == [f"{old:.4f}", f"{new:.4f}", f"{new - old:+.4f}"]


def test_executions_of_a_study_that_was_run_once_are_one_line(command):
    code, out, _ = command("other", "--executions")
    assert code == 0 and len(out.splitlines()) == 3
    assert [row["trials"] for row in rows(command("first", "--executions", "--format", "csv")[1])] == ["8", "12"]
    for words in (["--by", "initializer"], ["second"], ["--since", "7d"], ["--where", "seed == 1"]):
        code, _, error = command("first", *words, "--executions")
        assert code == 2 and "--executions: expected one study" in error


def test_means_that_changed_are_shown_with_their_change():
    old, new = (pd.DataFrame({"initializer": ["he", "zeros"], "mean": means}) for means in ([0.8, 0.1], [0.9, 0.1]))
    found = history.mean_changes(old, new.assign(initializer=["he", "lsuv"]), ["initializer"])
    assert found.to_dict("records") == [{"arm": "he", "before": 0.8, "after": 0.9, "change": pytest.approx(0.1)}]


def test_null_is_not_the_text_null():
    [row] = history.config_changes("a: null", "a: 'null'").to_dict("records")
    assert (row["before"], row["after"]) == ("null", "'null'")


def test_a_setting_of_before_it_came_is_its_neutral_one():
    before, after = "data: {size: 1}", "data: {size: 1, folds: null, fold: %d}"
    assert history.config_changes(before, after % 0).empty and history.config_changes(after % 0, before).empty
    [row] = history.config_changes(before, after % 2).to_dict("records")
    assert (row["config key"], row["before"], row["after"]) == ("data.fold", "–", "2")


def test_a_reader_that_has_seen_enough_is_no_error(root):
    words = [sys.executable, "-m", "analysis.compare", "first", "--root", str(root)]
    done = subprocess.run(f"{shlex.join(words)} | true", shell=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == ""


def test_trials_that_were_not_trained_by_the_same_are_said_so():
    frame = pd.DataFrame({"seed": range(3), "version.keras": "3.15.1", "processor": "A (avx2)", "device": "cpu"})
    assert history.mixed(frame) == history.mixed(frame[["seed"]]) == []
    assert history.mixed(frame.assign(processor=["", "A (avx2)", "A (avx2)"])) == []  # not known of the first
    [said] = history.mixed(
        frame.assign(**{"version.keras": ["3.15.1", "3.14.0", "3.15.1"], "device": [*list("ab"), "a"]})
    )
    assert "keras 3.15.1 (2) and 3.14.0 (1); device a (2) and b (1):" in said


def test_trials_that_will_not_be_trained_as_those_before_are_said_so():
    now = {"version.keras": "3.15.1", "device": "cpu"}
    assert history.changed([], now) == history.changed([now, {}, {"device": "cpu", "processor": "A"}], now) == ""
    said = history.changed([now, now | {"version.keras": "3.14.0"}, {"device": "gpu"}, {"device": "gpu"}], now)
    assert "of the 4 trials" in said and "(1 by keras 3.14.0, now 3.15.1; 2 by device gpu, now cpu)" in said


def frame(rows, factors, metric="test_accuracy"):
    """Trials from rows of levels, seed and value; None is one that diverged, and a text one that crashed."""
    trials = pd.DataFrame(rows, columns=[*factors, "seed", metric])
    value = trials[metric]
    crashed, diverged = value.map(lambda v: isinstance(v, str)), value.isna()
    status = np.where(crashed, "crashed", np.where(diverged, "diverged", "finished"))
    return trials.assign(
        **{metric: value.where(~crashed).astype(float)}, status=status, classes=np.where(crashed, 0, 10)
    )


@pytest.fixture
def unseen(monkeypatch):
    """These trials are in no store, so nobody has looked at them before."""
    monkeypatch.setattr(compare, "_choices", lambda *arguments: history.Choices())


@pytest.mark.usefixtures("unseen")
def test_arms_that_were_tried_with_another_factor_too_are_not_merged_by_their_name():
    """Dropout was tried without a penalty alone: `none` without it is what the penalties are compared with."""
    factors = {"regularizer": ("none", "none", "l1", "l2"), "model.dropout": (0.0, 0.5, 0.0, 0.0)}
    study = Study("x", "?", factors, tuple(range(5)), {"regularizer": "none", "model.dropout": 0.0}, "test_accuracy",
                  zip=(tuple(factors),))  # fmt: skip
    luck = 0.002 * np.random.default_rng(0).normal(size=(4, 5))
    arms = zip(*factors.values(), (0.95, 0.7, 0.95, 0.9), luck)
    trials = frame([(name, rate, s, mean + more[s]) for name, rate, mean, more in arms for s in range(5)], factors)
    whole = comparison.comparison(trials, list(factors), "test_accuracy", study.baseline).drop(index=1)
    text = compare.answer(study, trials, None, ["regularizer"])
    table = rows(compare.answer(study, trials, None, ["regularizer"], format="csv"))
    assert [row["regularizer"] for row in table] == ["none", "l1", "l2"]
    for column in ("mean", "low", "high", "difference", "difference_low", "difference_high"):
        np.testing.assert_allclose([float(row[column] or "nan") for row in table], whole[column])
    assert "Nothing is clearly better than none" in text or "Nothing is better than none" in text
    assert "left out, for not every arm has it: dropout=0.5." in text
    assert "left out" not in compare.answer(study, trials, None)


@pytest.mark.usefixtures("unseen")
def test_seeds_that_are_one_run_are_one_seed():
    study = Study("x", "?", {"x": ("a", "b")}, tuple(range(5)), {"x": "a"}, "test_accuracy")
    values = [("a", s, 0.9 + 0.01 * s) for s in range(5)] + [("b", s, 0.99) for s in range(5)]
    trials = frame(values, ["x"]).assign(running_loss=[*map(float, range(5)), *[7.5] * 5], val_loss=0.25)
    trials = trials.assign(val_accuracy=0.9, chance_val=0.11)
    text = compare.answer(study, trials, None)
    table = rows(compare.answer(study, trials, None, format="csv"))
    assert [row["seeds"] for row in table] == ["5", "1"] and table[1]["low"] == ""
    assert "The 5 seeds of x=b are the same run, number for number, and count as one." in text
    assert "clearly" not in text and "pinned" not in text
    assert "same run" not in compare.answer(study, trials.assign(running_loss=np.arange(10.0)), None)


@pytest.mark.usefixtures("unseen")
@pytest.mark.parametrize(
    ("loss", "accuracy", "chance"),
    [(np.float32(np.log(10)), 0.0956, 0.1125), (np.float32(np.log(10)), 0.2, 0.1125), (14.5, 0.1125, 0.1125),
     (14.5, 0.0956, float("nan"))],
)  # fmt: skip
def test_seeds_at_which_nothing_was_learned_are_not_taken_for_one_run(loss, accuracy, chance):
    """Outputs that stay uniform, or name one class for sure, have the same loss whatever was drawn."""
    study = Study("x", "?", {"x": ("zeros", "he")}, tuple(range(5)), {"x": "he"}, "val_accuracy")
    values = [("zeros", s, accuracy) for s in range(5)] + [("he", s, 0.9 + 0.01 * s) for s in range(5)]
    trials = frame(values, ["x"], "val_accuracy").assign(chance_val=chance)
    trials = trials.assign(running_loss=[float(loss)] * 5 + [*map(float, range(5))], val_loss=float(loss))
    table = rows(compare.answer(study, trials, None, format="csv"))
    assert [row["seeds"] for row in table] == ["5", "5"] and table[0]["p"]
    assert "same run" not in compare.answer(study, trials, None)


@pytest.mark.usefixtures("unseen")
def test_factors_that_always_move_together_are_one():
    factors = {"optimizer": ("sgd", "adam"), "optimizer.learning_rate": (0.1, 0.001)}
    study = Study("x", "?", factors, (0, 1, 2), {"optimizer": "sgd"}, "test_accuracy", zip=(tuple(factors),))
    trials = frame([(*arm, seed, 0.9) for arm in zip(*factors.values()) for seed in range(3)], factors)
    text = compare.answer(study, trials, None, ["optimizer"])
    assert "0.9000" in text and "left out" not in text
    apart = replace(study, zip=())
    assert "No combination of optimizer.learning_rate was tried with all" in compare.answer(
        apart, trials, None, ["optimizer"]
    )


@pytest.mark.usefixtures("unseen")
@pytest.mark.parametrize("metric", ["test_loss", "val_loss"])
def test_a_rate_that_blows_up_is_not_better_than_one_that_learns_wrong_labels(metric):
    """With most labels wrong the loss of what finished is above that of chance."""
    study = Study("x", "?", {"rate": (0.05, 1e7)}, tuple(range(5)), {"rate": 0.05}, metric)
    trials = frame([(r, s, 2.8 + 0.05 * s if r < 1 else None) for r in (0.05, 1e7) for s in range(5)], ["rate"], metric)
    text = compare.answer(study, trials, None)
    assert "clearly better" not in text and "Nothing is better than 0.05, the baseline" in text
    assert "the other failed." in text and "[" in text and "95 % intervals" in text


@pytest.mark.usefixtures("unseen")
def test_an_arm_that_crashed_gives_no_warning():
    study = Study("x", "?", {"x": ("a", "b", "c"), "y": (1, 2)}, (0, 1, 2), {"x": "b"}, "val_loss")
    values = {
        ("a", 1): "crashed",
        ("a", 2): "crashed",
        ("b", 1): 0.5,
        ("b", 2): "crashed",
        ("c", 1): None,
        ("c", 2): 0.7,
    }
    made = [(*arm, seed, value) for arm, value in values.items() for seed in range(3)]
    for by in (["x"], ["y"], ["x", "y"], []):
        for metric in ("val_loss", "val_accuracy"):
            for format in ("terminal", "markdown", "latex", "csv"):
                assert compare.answer(study, frame(made, ["x", "y"], metric), None, by, metric, format)


def test_folds_are_averaged_over_within_a_seed_and_are_no_look_at_results(made):
    """Three folds at two seeds are two units, not six."""
    stored(made, "cv", {"optimizer": ("sgd", "adam"), "data.fold": (0, 1, 2)}, {"optimizer": "sgd"})
    found = json.loads(compare.table("cv", made, format="json"))
    assert found["by"] == ["optimizer"] and [arm["seeds"] for arm in found["arms"]] == [2, 2]
    frame = load.trials("cv", made)
    units = frame.groupby(["optimizer", "seed"], sort=False)["val_accuracy"].mean().unstack()
    for arm in found["arms"]:
        assert arm["mean"] == pytest.approx(units.loc[arm["optimizer"]].mean())
        assert arm["sd"] == pytest.approx(units.loc[arm["optimizer"]].std())
    assert sum("folds are no seeds" in line for line in found["answer"]) == 1
    assert not any("after the fact" in line for line in found["answer"])
    lacking = load.execution("cv", made).study, frame.drop(index=0)  # as where a fold crashed
    charted = driver.charted(*lacking)
    told = {arm["optimizer"]: arm["mean"] for arm in json.loads(compare.answer(*lacking, made, format="json"))["arms"]}
    assert {name: charted[f"val_accuracy of arms/{name}"] for name in told} == told
    looked = json.loads(compare.table("cv", made, by=["fold"], format="json"))
    assert looked["by"] == ["data.fold"] and not any("folds are no seeds" in line for line in looked["answer"])
    assert any("after the fact: to compare by data.fold" in line for line in looked["answer"])
