"""What a command says where it would else be silent."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from studies.command import pulse

ROOT = Path(__file__).parent.parent


@pytest.fixture
def said(monkeypatch):
    monkeypatch.setattr(pulse, "QUIET", 0.2)
    monkeypatch.setattr(pulse, "TICK", 0.01)
    return []


def test_a_command_that_says_nothing_for_long_says_what_it_is_at(said):
    with pulse.beating(said.append, "reading"):
        time.sleep(0.3)
        done = 3
        pulse.doing(lambda: f"{done} of 8")
        time.sleep(0.5)
    assert said[0] == "… reading" and set(said[1:]) == {"… 3 of 8"}
    count = len(said)
    time.sleep(0.3)
    assert len(said) == count


def test_it_says_nothing_while_something_else_is_said_or_seen(said):
    with pulse.beating(said.append, "reading"):
        for _ in range(20):
            time.sleep(0.02)
            pulse.heard()
        with pulse.displayed():
            time.sleep(0.3)
        assert said == []
        with pulse.displayed(live=False):
            time.sleep(0.4)
        assert said
        pulse.silence()
        said.clear()
        time.sleep(0.4)
    assert said == []


@pytest.mark.parametrize(
    "words",
    [
        ["studies.run", "--help"],
        ["studies.run", "+study=init_comparison", "plan=true"],
        ["studies.run", "-m", "+study=init_comparison", "model.depth=2,4", "plan=true"],
        ["studies.run", "--cfg", "job"],
        ["studies", "list"],
        ["studies", "schema"],
        ["studies", "--help"],
        ["analysis.compare", "--help"],
        ["analysis.claims", "--root", "."],
    ],
    ids=" ".join,
)
def test_a_reader_that_has_gone_ends_a_command_without_a_traceback(words, tmp_path):
    command = [sys.executable, "-m", *words]
    here = os.environ | {"HYDRA_FULL_ERROR": "0", "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True, env=here) as process:
        process.stdout.close()
        error = process.stderr.read()
    assert process.returncode in (141, 0 if "analysis.compare" in words else 141) and error == "", error
