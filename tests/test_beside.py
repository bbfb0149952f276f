"""Work in a second process meanwhile: its result, whatever happens to it."""

import os
import signal
import time
from pathlib import Path

import pytest

from analysis.show import beside

needs_two_cores = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core: all is done here")


@needs_two_cores
def test_work_is_done_in_another_process():
    result = beside.begun(os.getpid)
    assert result() != os.getpid()


def test_where_there_is_one_core_it_is_done_here(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert beside.begun(os.getpid)() == os.getpid()


@pytest.mark.parametrize("sent", [None, lambda: 1], ids=["killed", "not to be pickled"])
def test_what_the_other_process_does_not_give_is_made_here(sent):
    here = os.getpid()

    def work():
        if os.getpid() != here:
            if sent is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return sent
        return "made here"

    assert beside.begun(work)() == "made here"


@needs_two_cores
def test_an_error_is_met_here_and_no_process_is_left():
    def work():
        raise ValueError("a fault")

    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = children.read_text() if children.exists() else ""  # other tests' pools
    with pytest.raises(ValueError, match="a fault"):
        beside.begun(work)()
    assert not children.exists() or children.read_text() == before


@needs_two_cores
def test_one_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr(beside, "PATIENCE", 0.2)
    here, began = os.getpid(), time.monotonic()
    assert beside.begun(lambda: time.sleep(60) if os.getpid() != here else "made here")() == "made here"
    assert time.monotonic() - began < 30


@needs_two_cores
def test_one_that_is_forgotten_ends_by_itself():
    """As where an error is met before its result is asked for: what it sends is more than a pipe holds."""
    seen, told = os.pipe()
    result = beside.begun(lambda: os.write(told, str(os.getpid()).encode()) and "x" * 10**7)
    pid = int(os.read(seen, 20))
    del result
    for _ in range(600):
        if os.waitpid(pid, os.WNOHANG) != (0, 0):
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    pytest.fail("it waits for ever")
