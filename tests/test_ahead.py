"""A sweep of claims: read ahead, shown on one board, a line each, and passed over where they were judged."""

import io
import re
import sqlite3
from types import SimpleNamespace

import pytest
from rich.console import Console

from analysis import load
from studies.command import board, compose, driver
from studies.command.cost import Extent
from studies.command.sweep import Outcome

SUPPORTED = Outcome([], True, quote="It helps.", verdict="supported")


@pytest.fixture
def clock(monkeypatch):
    """The board's clock, in seconds, which stands still."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(board, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def shown(names="abc", terminal=False):
    made = board.Board(list(names), Console(file=io.StringIO(), width=120, force_terminal=terminal))
    made.workers = 2
    for number in range(len(names)):
        made.foresee(number, Extent(100, 60.0))
    return made


def test_what_is_left_is_what_is_expected_times_what_that_has_come_to(clock):
    made = shown()
    made.begin(0)
    assert made.left() == 180
    clock.seconds = 60
    made.did(50, 60.0)  # of one worker, so that half of the claim has taken twice as long as was expected
    assert made.left() == pytest.approx((30 + 60 + 60) * (board.PRIOR + 60) / (board.PRIOR + 30))
    made.ended(SUPPORTED)  # at a look: the other half need not be trained, which makes up for it
    assert made.left() == pytest.approx(120)
    assert made.console.file.getvalue().startswith("✓ supported      a")
    assert "It helps. (60 s)  [50 of ~250 trials, 2 min left]" in made.console.file.getvalue()


def test_what_was_trained_before_is_done_and_takes_no_time(clock):
    made = shown("ab")
    made.begin(0)
    made.did(75, 90.0, before=True)
    assert made.left() == pytest.approx(15 + 60)
    clock.seconds = 15
    made.did(25, 30.0)
    made.ended(SUPPORTED)
    assert made.left() == pytest.approx(60)


def test_without_a_terminal_a_line_is_printed_now_and_then(clock):
    made = shown()
    made.begin(1)
    for clock.seconds in range(0, 300, 10):
        made.did(1, 1.0)
    lines = made.console.file.getvalue().splitlines()
    assert len(lines) == 2 and lines[0].startswith("claim 2 of 3 b, ") and "of ~300 trials" in lines[0]


def test_a_terminal_has_one_line_for_all_above_that_of_the_study(clock):
    made = shown(terminal=True)
    made.begin(1)
    made.bar.refresh()
    made.ended(Outcome([], True, error="its data are not there"))
    made.close()
    text = re.sub(r"\x1b\[[0-9;?]*\w", "", made.console.file.getvalue())
    assert re.search(r"claim 2 of 3 b +━+ +0 of ~300 trials, 3 min left", text)
    assert "! not judged     b                     its data are not there\n" in text


@pytest.mark.parametrize(
    ("seconds", "said"), [(4, "4 s"), (89.4, "89 s"), (90, "2 min"), (3599, "1 h 0 min"), (8000, "2 h 13 min")]
)
def test_a_duration_has_the_digits_of_an_estimate(seconds, said):
    assert board.duration(seconds) == said


def test_only_a_study_with_a_card_that_the_command_leaves_alone_is_a_claim():
    assert compose.claim(["+study=claims/linear_map", "profile=quick"]) == "linear_map"
    for words in (["+study=init_comparison"], ["optimizer=adam"], ["+study=claims/linear_map", "~claim"]):
        assert compose.claim(words) == ""


EXACT = ("-m", "+study=claims/linear_map,claims/million_weights")


def test_claims_have_a_line_each_and_are_passed_over_once_they_are_judged(here, made):
    code, first, error = here(*EXACT, f"tracking.root={made}")
    assert code == 0, error
    lines = [line for line in first.splitlines() if not line.startswith("… ")]
    assert [line.split()[:3] for line in lines[:2]] == [
        ["✓", "supported", name] for name in ("linear_map", "million_weights")
    ]
    assert "2 of 2 claims are judged: 2 supported" in first and len(lines) < 8

    code, again, error = here(*EXACT, f"tracking.root={made}")
    assert (code, error) == (0, "") and again.count("(judged before)") == 2 and "trials" not in again
    execution, *others = load.executions("linear_map", made)
    assert others == []
    plan = [SimpleNamespace(key=key) for key in execution.keys]
    assert driver.judged(execution.study, plan, made, {}).run_id == execution.run_id
    assert driver.judged(execution.study, plan[1:], made, {}) is None
    assert driver.judged(execution.study, plan, made, {"claim.source": "another"}) is None

    with sqlite3.connect(made / "mlflow.db") as connection:  # one of its trials is lost
        gone = "UPDATE tags SET value = 'crashed' WHERE key = 'trial.status' AND run_uuid IN (SELECT run_uuid FROM "
        connection.execute(gone + "tags WHERE key = 'trial.key' AND value = ?)", (execution.keys[0],))
    connection.close()
    code, mended, _ = here(*EXACT, f"tracking.root={made}")
    assert code == 0 and mended.count("(judged before)") == 1


def test_an_error_in_one_claim_does_not_stop_the_others_and_is_said_again_in_the_end(here, made):
    code, output, error = here(*EXACT, "++compute.inputs=784", f"tracking.root={made}")
    assert (code, error) == (2, "")
    first, second = (line for line in output.splitlines() if line.startswith(("!", "✓")))
    assert first.startswith("! not judged     linear_map            compute: ") and len(first) < 120
    assert second.startswith("✓ supported      million_weights")
    [whole] = re.findall("1 of 2 claims are judged: 1 supported\n  linear_map: compute: (.*)", output)
    assert "takes transposed" in whole and "takes transposed" not in first


def test_a_plan_of_claims_ends_in_what_all_of_them_cost(planned, tmp_path):
    code, output, error = planned(*EXACT)
    assert (code, error) == (0, "") and list(tmp_path.iterdir()) == []
    claims = re.findall(r"^(\w+) +(\d+) trials  \d+ s$", output, re.M)
    assert [name for name, _ in claims] == ["linear_map", "million_weights"]
    total = sum(int(trials) for _, trials in claims)
    assert total == 20 + 20 + 5 + 6 + 2 and f"2 claims: {total} trials at most, about" in output


def test_a_claim_that_tunes_is_passed_over_by_the_trials_that_tuned_it(here, made):
    words = ["+study=claims/he_for_relu", "study.factors={data:[digits],model:[mlp],model.depth:[1,2]}"]
    words += ["study.zip=[]", "study.skip=[]", "study.settings=[]", "study.draws=1", "study.extend=false"]
    words += ["study.tuning_seeds=[100]", "study.seeds=2", "study.looks=[2]", "training.epochs=1", "data.train_size=64"]
    code, output, error = here("-m", *words, "claim.version=1,2", f"tracking.root={made}")
    assert code == 0, error
    assert "(judged before)" not in output  # the second is another card, judged by the same trials
    assert here("-m", *words, "claim.version=1,2", f"tracking.root={made}")[1].count("(judged before)") == 2
