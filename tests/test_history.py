"""What an answer was preceded by: looks with fewer seeds, filters, another metric; said wherever the answer is."""

import json
import re
import shutil
from dataclasses import replace

import pandas as pd
import pytest
from test_report import CONFIG, Page, grid, records

from analysis import changes, compare, load, report
from analysis.estimate import comparison, history
from analysis.show import tables
from studies.record import Result, Study, Trial
from studies.store import writer

STUDY = Study(
    "looked", "Which is best?", {"initializer": ("he", "zeros"), "model.depth": (2, 8)}, (0, 1, 2),
    {"initializer": "he"}, "val_accuracy",
)  # fmt: skip
NOT_SAID = re.compile("after the fact|Looked at before|account")
DAY = r"\d{4}-\d\d-\d\d"


@pytest.fixture
def root(fresh, tmp_path):
    shutil.copy(fresh / "mlflow.db", tmp_path)
    return tmp_path


def executed(root, table="| a table |", ended=None, status="FINISHED", better=0.0, broken=(), **changed):
    """Execute a made-up design as the driver does: what is finished before is not run again, its table is kept.

    Args:
        ended: how many of its trials ended before it was interrupted; None for all.
        better: what is added to the metrics of the trials run.
        broken: keys of trials that crash.
    """
    study = replace(STUDY, **changed)
    trials = [
        Trial(f"{'-'.join(map(str, arm.values()))}-{seed}", study.name, "scientific", arm, seed, CONFIG, (), "graph")
        for arm in grid(initializer=study.factors["initializer"], model__depth=study.factors["model.depth"])
        for seed in study.seeds
    ]
    execution = writer.Execution(root, study, trials, "model: {depth: 2}\n")
    known = load.finished_keys(study.name, root)
    for number, trial in enumerate(trials[:ended]):
        if trial.key not in known:
            epochs, layers, result = records(trial, number)
            result = replace(result, val_accuracy=result.val_accuracy + better)
            if trial.key in broken:
                epochs, layers, result = [], [], Result(trial.key, "crashed", error="it broke")
            execution.write(trial, epochs, layers, result)
    execution.close(status, table)
    return study


def said(root, *words, format="terminal"):
    """What `compare` prints under the table."""
    compared = compare.table(STUDY.name, root, *words, format=format)
    return compared.partition("\n\n")[2]


def everywhere(root, *words):
    """The answer in every format that has words, and in the report if the study is asked for as it is."""
    texts = {format: said(root, *words, format=format) for format in ("terminal", "markdown")}
    texts |= {format: compare.table(STUDY.name, root, *words, format=format) for format in ("html", "latex")}
    texts["json"] = "\n".join(json.loads(compare.table(STUDY.name, root, *words, format="json"))["answer"])
    if not words:
        execution = load.execution(STUDY.name, root)
        html = report.report(execution, load.trials(STUDY.name, root), root).html
        texts["report"] = Page(html).text.partition("Comparison")[0]
    return texts


def test_a_first_look_has_nothing_to_say(root):
    executed(root)
    executed(root)  # the same again is the same look
    for format, text in everywhere(root).items():
        assert not NOT_SAID.search(text), format
    assert "chosen_after_the_fact" in compare.table(STUDY.name, root, format="json")


def test_seeds_that_grew_are_said_with_the_looks_before(root):
    executed(root)
    executed(root, seeds=tuple(range(5)))
    for format, text in everywhere(root).items():
        assert re.search(
            rf"Looked at before: with 3 seeds on {DAY}; p values do not account for that, and only", text
        ), format
        assert text.count("only executions are counted as looks") == 1, format
    executed(root, seeds=tuple(range(10)))
    for format, text in everywhere(root).items():
        assert re.search(rf"Looked at before 2 times: with 3 seeds on {DAY}; with 5 seeds on {DAY}; p", text), format
    looks = json.loads(compare.table(STUDY.name, root, format="json"))["chosen_after_the_fact"]["looks"]
    assert [(look["seeds"], look["arms"]) for look in looks] == [(3, 4), (5, 4)]


def test_an_execution_that_showed_no_table_is_no_look(root):
    executed(root, table="", ended=5, status="KILLED")
    executed(root, seeds=tuple(range(5)))
    assert not NOT_SAID.search(said(root))


def test_other_trials_are_no_look_at_these(root):
    executed(root)
    executed(root, seeds=(10, 11, 12))  # fresh ones, none of which was seen
    assert not NOT_SAID.search(said(root))


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ({"factors": {"initializer": ("he", "zeros", "lsuv"), "model.depth": (2, 8)}}, "with 6 arms on"),
        ({"factors": {"initializer": ("he", "zeros"), "model.depth": (8,)}, "seeds": (0, 1)}, "with 2 arms, with 2 s"),
        ({"seeds": (1, 2, 3)}, "with other trials besides on"),
        ({"metric": "test_accuracy"}, "by test accuracy on"),
        ({"baseline": {"initializer": "zeros"}}, "against zeros on"),
        ({"baseline": {}, "seeds": (0, 1)}, "with 2 seeds, against no baseline on"),
    ],
)
def test_whatever_else_was_shown_of_the_same_trials_is_a_look(root, before, words):
    executed(root, **before)
    executed(root)
    assert f"Looked at before: {words}" in said(root)


def test_a_report_of_before_is_preceded_only_by_what_came_before_it(root):
    executed(root)
    executed(root, seeds=tuple(range(5)))
    first = load.executions(STUDY.name, root)[0]
    assert "Looked at before" not in report.report(first, load.trials(STUDY.name, root, first.arms), root).html


def test_a_filter_is_said_in_the_sentence_that_it_made(root):
    executed(root)
    for (where, since), limits in {
        ("model.depth >= 8", None): "that have model.depth >= 8",
        (None, "1d"): "that ended since 1d",
        ("seed < 2", "1d"): "that have seed < 2 and that ended since 1d",
    }.items():
        for format in ("terminal", "markdown", "json", "html", "latex"):
            text = compare.table(STUDY.name, root, format=format, where=where, since=since)
            text = json.loads(text)["answer"] if format == "json" else text.replace("&gt;", ">").replace("&lt;", "<")
            text = "\n".join(text) if format == "json" else text
            assert (
                f"Chosen after the fact: the trials {limits}; p values do not account for that, and only executions"
                in text
            )
            if format in ("terminal", "markdown", "json"):
                assert f"Of the trials {limits}, chosen after the fact: " in text
    assert "Looked at before" not in compare.table(STUDY.name, root, where="seed < 2")


def test_trials_that_no_look_was_at_are_fresh_however_they_are_chosen(root):
    executed(root)
    executed(root, seeds=tuple(range(5)))
    assert "Looked at before: with 3 seeds" in compare.table(STUDY.name, root, where="seed >= 2")
    fresh = compare.table(STUDY.name, root, where="seed >= 3")
    assert "Looked at before" not in fresh and "Chosen after the fact" in fresh


def test_factors_and_a_metric_that_are_not_the_studys_own_are_said(root):
    executed(root)
    for text in everywhere(root, ["initializer"], "test_accuracy").values():
        expected = (
            "Chosen after the fact: to compare by initializer, not all that the study varies; test accuracy, not the "
            "study's own val accuracy; p values"
        )
        assert expected in text.replace("&#x27;", "'")
    assert not NOT_SAID.search(said(root, ["model.depth", "initializer"], "val_accuracy"))  # in another order


def test_several_studies_say_it_each_of_itself(root, capsys):
    executed(root)
    executed(root, seeds=tuple(range(5)))
    executed(root, name="other")
    names = [STUDY.name, "other", "--root", str(root)]
    assert compare.main(names) == 0
    assert re.search(rf"\n\nlooked: Looked at before: with 3 seeds on {DAY}; p [^\n]*\n", capsys.readouterr().out)
    assert compare.main([*names, "--where", "seed < 2", "--format", "json"]) == 0
    lines = json.loads(capsys.readouterr().out)["chosen_after_the_fact"]
    assert sum("the trials that have seed < 2" in line for line in lines) == 2 and len(lines) == 3


def test_json_has_every_number_in_full_and_null_for_none(root):
    executed(root)
    found = json.loads(compare.table(STUDY.name, root, format="json"))
    assert found["study"] == STUDY.name and found["baseline"] == STUDY.baseline and found["answer"]
    trials = load.trials(STUDY.name, root)
    compared = comparison.comparison(trials, list(STUDY.factors), STUDY.metric, STUDY.baseline)
    for row, own in zip(found["arms"], compared.to_dict("records"), strict=True):
        assert row == {name: None if value != value else value for name, value in own.items()}
    tiny = pd.DataFrame({"mean": [5.4321e-21, float("inf"), float("nan")], "arm": [(8, 16), None, "a"]})
    assert json.loads(tables.frame_table(tiny, "json")) == [
        {"mean": 5.4321e-21, "arm": [8, 16]}, {"mean": None, "arm": None}, {"mean": None, "arm": "a"},
    ]  # fmt: skip


def test_csv_is_numbers_alone(root):
    executed(root)
    executed(root, seeds=tuple(range(5)))
    assert not NOT_SAID.search(compare.table(STUDY.name, root, format="csv", where="seed < 2"))


def test_executions_shows_an_interrupted_one_as_it_was(root):
    """Two of twelve trials had ended, and one of them crashed; later all of them did, that one with another number."""
    executed(root, table="", ended=2, status="KILLED", broken=("he-2-1",))
    executed(root, better=0.1)
    means = changes.changes(STUDY.name, root).split("\n\n")[-1].splitlines()
    assert [line.split()[:2] for line in means[2:]] == [["he", "depth=2"]]
    old, new = load.executions(STUDY.name, root)
    was = load.trials(STUDY.name, root, old.arms, old.end_time)
    assert was["status"].tolist() == ["finished", "crashed"]
    now = load.trials(STUDY.name, root, new.arms)
    value = now.set_index("key").loc["he-2-0", "val_accuracy"]  # the only seed that both had
    assert means[2].split()[2:] == [f"{value:.4f}", f"{value:.4f}", "+0.0000"]


def test_means_are_of_the_seeds_that_an_arm_has_in_both():
    old = pd.DataFrame({"a": ["x", "x", "y"], "seed": [0, 1, 0]})
    new = pd.DataFrame({"a": ["x", "y", "y"], "seed": [1, 0, 1]})
    before, after = history.shared(old, new, ["a"])
    assert before.to_dict("list") == {"a": ["x", "y"], "seed": [1, 0]} == after.to_dict("list")
