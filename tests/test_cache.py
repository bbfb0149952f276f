import multiprocessing
import os
import resource
import signal
import time

import numpy as np
import pytest

from studies.factors import cache
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
    assert not (folder / "name").exists() and not (folder / "name.partial").exists()


def keep_much(answers):
    """As on a disk that is full after some thousand bytes: numpy, zipfile and the system are the real ones."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))

    def write(path):
        with open(path, "wb") as file:
            np.savez(file, x=np.zeros(100_000), y=np.zeros(9))

    try:
        cache.kept("much", write)
    except StudyError as error:
        answers.put(str(error))


def keep_as_nobody(answers):
    if os.geteuid() == 0:
        os.setuid(65534)
    try:
        cache.kept("name", lambda path: path.write_text(""))
    except StudyError as error:
        answers.put(str(error))


def answer_of(function):
    """What a process of its own answers."""
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    process = context.Process(target=function, args=(answers,))
    process.start()
    answer = answers.get(timeout=30)
    process.join(30)
    return answer


def test_a_disk_that_fills_up_is_said_and_nothing_is_left_on_it(folder):
    answer = answer_of(keep_much)
    assert str(folder / "much") in answer and "make room" in answer and "STUDIES_CACHE=FOLDER" in answer
    assert [file.name for file in folder.iterdir()] == ["much.lock"]


def test_a_folder_that_may_not_be_written_is_said_unless_the_file_is_there(folder):
    cache.kept("there", lambda path: path.write_text("content"))
    folder.chmod(0o555)
    assert cache.kept("there", lambda path: path.write_text("other")).read_text() == "content"
    answer = answer_of(keep_as_nobody)
    assert "Permission denied" in answer and "STUDIES_CACHE=FOLDER" in answer
    folder.chmod(0o755)


def of_a_user_without_a_home(answers):
    for name in ("HOME", "STUDIES_CACHE"):
        os.environ.pop(name, None)
    if os.geteuid() == 0:
        os.setuid(54321)
    keep_as_nobody(answers)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user that nobody knows")
def test_without_a_home_folder_one_is_asked_for(folder):
    answer = answer_of(of_a_user_without_a_home)
    assert answer.startswith("STUDIES_CACHE=null") and "STUDIES_CACHE=FOLDER" in answer


def test_a_home_folder_that_there_is_not_is_said(monkeypatch):
    monkeypatch.setenv("STUDIES_CACHE", "~nobody-of-that-name/cache")
    with pytest.raises(StudyError, match="STUDIES_CACHE=~nobody-of-that-name/cache: there is no such home folder"):
        cache.kept("name", lambda path: path.write_text(""))


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STUDIES_CACHE", str(tmp_path / "file"))
    with pytest.raises(StudyError, match="STUDIES_CACHE=FOLDER"):
        cache.kept("name", lambda path: path.write_text(""))
