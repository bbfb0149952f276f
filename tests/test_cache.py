import multiprocessing
import os
import signal
import time

import pytest

from studies import cache
from studies.record import StudyError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("STUDIES_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_slowly(file):
    """Leaves a file of one line for each process that wrote."""
    with open(file.parent / "makers", "a") as makers:
        makers.write(f"{os.getpid()}\n")
    with open(file, "w") as half:
        half.write("half ")
        half.flush()
        time.sleep(0.3)
        half.write("whole")


def keep_and_tell(answers):
    answers.put(cache.kept("slow", write_slowly).read_text())


def test_a_file_is_made_once(folder):
    made = []
    for _ in range(2):
        file = cache.kept("name", lambda path: made.append(path.write_text("content")))
        assert file == folder / "name" and file.read_text() == "content"
    assert len(made) == 1


def test_processes_at_once_get_one_whole_file(folder):
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    processes = [context.Process(target=keep_and_tell, args=(answers,)) for _ in range(4)]
    for process in processes:
        process.start()
    assert [answers.get(timeout=30) for _ in processes] == ["half whole"] * 4
    for process in processes:
        process.join(30)
    assert len((folder / "makers").read_text().splitlines()) == 1


def test_one_that_is_killed_leaves_no_file_and_the_next_makes_it(folder):
    context = multiprocessing.get_context("fork")
    process = context.Process(target=keep_and_tell, args=(context.Queue(),))
    process.start()
    until = time.monotonic() + 30
    while not (folder / "slow.partial").exists() and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    assert not (folder / "slow").exists()
    assert cache.kept("slow", write_slowly).read_text() == "half whole"


def test_a_maker_that_fails_leaves_no_file(folder):
    def fail(path):
        path.write_text("half")
        raise StudyError("no good")

    with pytest.raises(StudyError, match="no good"):
        cache.kept("name", fail)
    assert not (folder / "name").exists()


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STUDIES_CACHE", str(tmp_path / "file"))
    with pytest.raises(StudyError, match="STUDIES_CACHE=FOLDER"):
        cache.kept("name", lambda path: path.write_text(""))
