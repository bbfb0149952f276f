"""How a study is said to get on."""

import io

import pytest
from rich.console import Console

from studies.command.progress import WARNED_ARMS, Display
from studies.record import Result, Study, Trial


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((0.05, 0.15), "a: val_accuracy 0.1000"),
        ((0.05, "diverged"), "a: val_accuracy 0.0500, 1 of 2 failed"),
        (("diverged", "timeout"), "a: val_accuracy failed"),
        (("crashed", 0.3), "a: val_accuracy 0.3000, 1 of 2 failed"),
        ((float("nan"), float("nan")), "a: val_accuracy none"),
    ],
)
def test_an_arms_line_is_of_what_finished_and_says_what_did_not(values, said):
    trials = [Trial(str(n), "s", "scientific", {"x": "a"}, n, {}, (), "graph") for n in range(2)]
    console = Console(file=io.StringIO(), width=200)
    with Display(Study("s", "?", {"x": ("a",)}, (0, 1), {}, "val_accuracy"), trials, 0, console) as display:
        for trial, value in zip(trials, values, strict=True):
            failed = isinstance(value, str)
            display.ended(
                trial, Result(trial.key, value) if failed else Result(trial.key, "finished", val_accuracy=value)
            )
    *_, line = console.file.getvalue().splitlines()
    assert line.startswith(f"[2/2] {said}  (")


def said(warnings, claim=None):
    """The lines of a study whose trials, an arm each, end with these warnings."""
    trials = [Trial(str(n), "s", "scientific", {"x": f"arm{n}"}, 0, {}, (), "graph") for n in range(len(warnings))]
    console, study = (
        Console(file=io.StringIO(), width=200),
        Study("s", "?", {"x": ()}, (0,), {}, "val_loss", claim=claim),
    )
    with Display(study, trials, 0, console) as display:
        for trial, warning in zip(trials, warnings, strict=True):
            display.ended(trial, Result(trial.key, "finished", val_loss=1.0), warning)
    return [line for line in console.file.getvalue().splitlines() if not line.startswith("[")]


def test_the_earliest_warning_of_an_arm_is_said_as_its_trial_ends():
    text = "no gradient in every layer from epoch 12; gradients vanish from layer 9 down from epoch 1"
    assert said(["", text]) == ["arm1: gradients vanish from layer 9 down from epoch 1"]


def test_warnings_are_said_of_some_arms_and_counted_of_the_others():
    lines = said(["at chance from epoch 2"] * 30)
    assert len(lines) == WARNED_ARMS + 1 and lines[0] == "arm0: at chance from epoch 2"
    assert lines[-1].startswith("20 more arms with early warnings, 30 of 30 trials in all")


def test_an_arm_is_warned_of_once():
    trials = [Trial(str(n), "s", "scientific", {"x": "a"}, n, {}, (), "graph") for n in range(2)]
    console = Console(file=io.StringIO(), width=200)
    with Display(Study("s", "?", {"x": ()}, (0, 1), {}, "val_loss"), trials, 0, console) as display:
        for trial in trials:
            display.ended(trial, Result(trial.key, "finished", val_loss=1.0), "at chance from epoch 2")
    assert console.file.getvalue().count("at chance") == 1


def test_of_a_claim_nothing_is_said_between_looks():
    assert said(["at chance from epoch 2"], claim=True) == []
