"""Work in a second process meanwhile, where there is a core for it."""

import os
import pickle
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from typing import TypeVar

Found = TypeVar("Found")

PATIENCE = 60
"""Seconds to wait for the second process, before its work is done here."""


def begun(work: Callable[[], Found]) -> Callable[[], Found]:
    """Begin `work` in a fork of this process; gives what waits for its result, which must be one to pickle.

    Where there is one core, or forking is not safe (anywhere but on Linux), and where the fork comes to nothing, the
    work is done here when its result is asked for.
    """
    if sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2:
        return work
    here, there = Pipe(duplex=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: those of libraries, which wait for work
        try:
            pid = os.fork()
        except OSError:  # no memory for it
            return work
    if not pid:
        here.close()  # else what is sent waits for ever where the first process has ended, or has forgotten it
        _send(work, there)
    there.close()

    def result():
        found = None
        with suppress(EOFError, OSError, pickle.UnpicklingError), here:
            if here.poll(PATIENCE):
                found = here.recv()
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
        with suppress(OSError):
            os.waitpid(pid, 0)
        return work() if found is None else found[0]

    return result


def _send(work, there) -> None:
    """Be the second process, whose errors are for the first one to meet, and end it."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        there.send((work(),))
    finally:
        os._exit(0)
