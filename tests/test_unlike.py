"""Trials of unlike machines: what is said of them, in each format, and whether arms are confounded with machines."""

import itertools
import json
import sqlite3

import pandas as pd
import pytest
from test_writer import STUDY, records

from analysis import compare, export, load, report
from analysis.estimate import history
from analysis.show import board
from studies.record import Trial
from studies.store import writer

SEEN = {"processor": "A (avx2)", "device": "cpu", "version.keras": "3.15.1"}
SAID = "The trials were not all trained by the same, processor "


def frame(kinds):
    """Trials of two arms at three seeds, by the kind of processor of each."""
    cells = itertools.product(("he_normal", "zeros"), range(3))
    rows = [
        {"initializer": arm, "seed": seed, "processor": kind} for (arm, seed), kind in zip(cells, kinds, strict=True)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("kinds", "counts", "ending"),
    [
        (
            "AAABBB",
            "A (3) and B (3)",
            "confounded with it, he_normal by A alone, zeros by B alone: what sets these apart",
        ),
        ("AAAABB", "A (4) and B (2)", "confounded with it, he_normal by A alone: what sets these apart"),
        ("AABAAB", "A (4) and B (2)", "At each seed all arms were trained by the same, so that differences at a seed"),
        ("AABABB", "A (3) and B (3)", "At 1 of 3 seeds the arms were not all trained by the same"),
    ],
)
def test_it_is_said_whether_arms_are_confounded_with_machines(kinds, counts, ending):
    [said] = history.mixed(frame(kinds), ["initializer"])
    assert said.startswith(f"{SAID}{counts}: that alone changes") and ending in said
    assert history.mixed(frame("AAAAAA"), ["initializer"]) == []
    [of_one] = history.mixed(frame(kinds))
    assert of_one.endswith("after some epochs scores.")


@pytest.fixture
def root(made):
    """A store whose trials of one arm have the tags of another processor."""
    trials = [
        Trial(f"{d}{s}" * 8, STUDY.name, "scientific", {"model.depth": d}, s, {"engine": {"threads": 1}}, (), "graph")
        for d in (1, 2)
        for s in (0, 1)
    ]
    execution = writer.Execution(made, STUDY, trials, "study: made up\n", None, SEEN)
    for trial in trials:
        execution.write(trial, *records(trial))
    execution.close("FINISHED", "| a table |")
    with sqlite3.connect(made / "mlflow.db") as connection:
        connection.execute(
            "UPDATE tags SET value = 'B (sve)' WHERE key = 'processor' AND run_uuid IN "
            "(SELECT run_uuid FROM tags WHERE key = 'trial.arm' AND value LIKE '%2%')"
        )
    return made


def test_every_table_says_so(root, tmp_path):
    expected = f"{SAID}A (avx2) (2) and B (sve) (2)"
    for form in ("terminal", "markdown", "latex", "html", "json"):
        text = compare.table(STUDY.name, root, format=form)
        assert expected in text and "depth=1 by A (avx2) alone, depth=2 by B (sve) alone" in text, form
        assert (form != "latex") or f"% {expected}" in text
    assert any(expected in line for line in json.loads(compare.table(STUDY.name, root, format="json"))["answer"])
    assert expected not in compare.table(STUDY.name, root, format="csv")  # numbers alone
    both = [(load.execution(STUDY.name, root).study, load.trials(STUDY.name, root))] * 2
    assert f"made up: {expected}" in compare.across(both, root=root)
    execution = load.execution(STUDY.name, root)
    assert expected in report.report(execution, load.trials(STUDY.name, root), root).html
    export.write(STUDY.name, tmp_path / "out", root)
    assert expected in (tmp_path / "out" / "dictionary.md").read_text()


def test_studies_that_are_each_of_one_machine_are_unlike_together(root):
    design, trials = load.execution(STUDY.name, root).study, load.trials(STUDY.name, root)
    parts = [(design, trials[trials["processor"] == kind]) for kind in ("A (avx2)", "B (sve)")]
    assert SAID in compare.across(parts, root=root)
    assert SAID not in compare.across(parts[:1] * 2, root=root)


def test_a_board_says_so_of_a_verdict():
    record = {"name": "mine", "number": None, "chapter": "", "quote": "It is.", "kind": "", "verdict": "not run"}
    record |= {"stale": "", "file": "", "command": "", "unlike": [f"{SAID}A (1) and B (1)."]}
    for form in ("terminal", "markdown", "html", "json"):
        assert f"{SAID}A (1) and B (1)." in board.board([record], form), form
        assert "not all trained" not in board.board([record | {"unlike": []}], form)
