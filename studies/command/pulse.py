"""A line where a command would else be silent for long: what it is at.

A command whose output goes to a file or another program has no live display, and it has none while it reads, checks or
draws. A thread of its own then says what is being done, whenever nothing else has been said for some seconds.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

QUIET = 4.5
"""Seconds without a line, at most."""


TICK = 0.25


TOLD: deque[Callable[[], object]] = deque()
"""What says what cannot wait."""


class _State:
    doing: Callable[[], str] | str = ""
    spoke = 0.0
    silent = False
    say: Callable[[str], object] | None = None


@contextmanager
def beating(say: Callable[[str], object], first: str) -> Iterator[None]:
    """Have `say` be given a line whenever nothing was heard for some seconds in here.

    Args:
        first: what the command is at until it is told otherwise.
    """
    over = threading.Event()
    _State.say, _State.silent, _State.doing = say, False, first
    TOLD.clear()
    heard()

    def beat():
        while not over.wait(TICK):
            try:
                tick()
            except OSError:  # nobody reads any more, which the command finds out by itself
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        _State.say = None


def doing(what: Callable[[], str] | str) -> None:
    """Say what the command is at from now on, or what tells it."""
    _State.doing = what


def tell(say: Callable[[], object]) -> None:
    """Have the thread say something at once, whatever the command does: a signal's handler must not print."""
    TOLD.append(say)


def heard() -> None:
    """Something was said."""
    _State.spoke = time.monotonic()


@contextmanager
def displayed(live: bool = True) -> Iterator[None]:
    """A live display is there, in which one sees the command move; unless it is not live."""
    before, _State.silent = _State.silent, _State.silent or live
    try:
        yield
    finally:
        _State.silent = before
        heard()


def silence() -> None:
    """What is printed is for a program."""
    _State.silent = True


def tick() -> None:
    """Say what is to be told, and what is being done, if it is time to."""
    while TOLD:
        TOLD.popleft()()
        heard()
    if _State.say and not _State.silent and time.monotonic() - _State.spoke > QUIET:
        what = _State.doing if isinstance(_State.doing, str) else _State.doing()
        _State.say(f"… {what}")
        heard()
