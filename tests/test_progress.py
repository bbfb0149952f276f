"""How a study is said to get on."""

import io

import pytest
from rich.console import Console

from studies.command.progress import Display
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
