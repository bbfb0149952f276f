"""Signals that end a command, whoever swallows them; whole commands that are interrupted are in test_run.py."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from studies import terminal

ROOT = Path(__file__).parent.parent


def wait(seconds=5.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def as_before():
    before = [signal.getsignal(number) for number in terminal.ENDINGS]
    yield
    assert [signal.getsignal(number) for number in terminal.ENDINGS] == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@pytest.mark.parametrize("number", terminal.ENDINGS)
def test_a_signal_interrupts_and_is_the_exit_code(number):
    with terminal.interruptible():
        assert terminal.received() is None
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
            wait()
        assert (terminal.received(), terminal.code()) == (number, 128 + number)


def test_an_interruption_that_is_swallowed_comes_again(capsys):
    class Loses:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    with terminal.interruptible():
        thing = Loses()
        del thing
        assert terminal.received() and "Traceback" not in capsys.readouterr().err
        for _ in range(2):
            try:
                wait()
            except BaseException as lost:  # as some libraries do
                assert type(lost) is terminal.Interrupted
            else:
                pytest.fail("it did not come again")
        with pytest.raises(KeyboardInterrupt):
            wait()


def test_what_handles_an_interruption_or_what_became_of_it_is_not_interrupted():
    ended = []
    with terminal.interruptible(), pytest.raises(ImportError):
        try:
            try:
                signal.raise_signal(signal.SIGTERM)
                wait()
            except KeyboardInterrupt as error:
                raise ImportError("as NumPy has it") from error
        finally:
            wait(3 * terminal.AGAIN)
            signal.raise_signal(signal.SIGINT)
            wait(3 * terminal.AGAIN)
            ended.append(True)
            terminal.settle()
    assert ended


def test_signals_wait_while_they_are_held():
    made = []
    with terminal.interruptible(), pytest.raises(KeyboardInterrupt):
        with terminal.held():
            with terminal.held():
                signal.raise_signal(signal.SIGINT)
            wait(3 * terminal.AGAIN)
            made.append("whole")
        made.append("more")
    assert made == ["whole"]


def test_the_first_signal_asks_for_what_runs_to_be_finished_and_the_second_interrupts(monkeypatch):
    monkeypatch.setattr(terminal, "TOGETHER", 0.1)
    asked, done = [], []
    with terminal.interruptible():
        assert not terminal.asked()
        with pytest.raises(KeyboardInterrupt), terminal.finishing(lambda: asked.append(True)):
            for number in (signal.SIGTERM, signal.SIGINT):  # at once: they are one
                signal.raise_signal(number)
            wait(3 * terminal.AGAIN)
            assert terminal.received() is None and terminal.asked() == "SIGTERM"
            done.append("what ran")
        assert asked == [True] and done and terminal.code() == 143
    with terminal.interruptible(), pytest.raises(KeyboardInterrupt), terminal.finishing(lambda: None):
        signal.raise_signal(signal.SIGINT)
        wait(0.2)
        assert terminal.asked() == "Ctrl-C"
        signal.raise_signal(signal.SIGTERM)
        wait()
        done.append("more")
    assert done == ["what ran"] and terminal.code() == 143
    with terminal.interruptible(), pytest.raises(ZeroDivisionError), terminal.finishing(lambda: None):
        signal.raise_signal(signal.SIGINT)
        raise ZeroDivisionError  # what goes wrong meanwhile is not the user's wish
    assert terminal.received() is None


def test_after_it_is_settled_nothing_interrupts():
    with terminal.interruptible():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        terminal.settle()
        signal.raise_signal(signal.SIGTERM)
        wait(3 * terminal.AGAIN)
        assert terminal.code() == 130


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with terminal.interruptible():
            signal.raise_signal(signal.SIGHUP)
            assert terminal.received() is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_has_no_signals_and_goes_on():
    def enter():
        with terminal.interruptible(), terminal.held():
            terminal.settle()
            entered.append(True)

    entered = []
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered


@pytest.mark.parametrize("module", ["studies.run", "analysis.compare"])
def test_streams_that_are_closed_or_know_few_signs_are_printed_to_all_the_same(module, tmp_path):
    words = {"studies.run": ["study.question='how ± far?'", "plan=true"], "analysis.compare": ["± a"]}[module]
    command = [sys.executable, "-m", module, *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == (0 if module == "studies.run" else 2) and "Traceback" not in done.stderr
    assert ("how ? far?" in done.stdout) if module == "studies.run" else (r"\xb1 a" in done.stderr)
    closed = subprocess.run(
        command, cwd=tmp_path, env=environment, preexec_fn=lambda: [os.close(stream) for stream in range(3)]
    )
    assert closed.returncode == done.returncode and list(tmp_path.iterdir()) == []


def test_a_user_without_a_name_and_a_home_gets_the_folder_for_temporary_files(tmp_path):
    nameless = ["unshare", "--user", "--map-user=54321"]
    if not shutil.which("unshare") or subprocess.run([*nameless, "true"], capture_output=True).returncode:
        pytest.skip("no user can be made up here")
    code = "import sys; sys.argv[0] = '-m'; import studies, pathlib; print(pathlib.Path.home())"
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path)}
    command = [*nameless, sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == str(tmp_path), done.stderr
