"""What a command has to do with who started it: the signals that end it, and the streams that it prints to.

The packages' `__init__` imports it before anything else, so that Ctrl-C is answered while the rest is being imported;
it needs little of the standard library.
"""

import errno
import io
import os
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a machine that shuts down, a terminal that closes."""

AGAIN = 0.1
"""Seconds after which an interruption that was swallowed is raised once more."""

TOGETHER = 0.5
"""Seconds within which signals are one: `timeout` sends two at once, and so does a terminal that closes."""

SCRIPT = "weight-studies"
"""The command of an installed package."""


class Interrupted(KeyboardInterrupt):
    """A signal asks the command to end."""


class _State:
    received: int | None = None
    held = 0
    asked: int | None = None
    when = 0.0
    ask: Callable[[], None] | None = None


def begin() -> None:
    """Make a command's first moments safe: a signal ends it at once with a line, and no stream is missing.

    What a stream has no sign for is printed as a question mark. A user without a home, as containers have, gets the
    folder for temporary files, since MLflow makes no database without one.
    """
    for number in ENDINGS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup's, say
            signal.signal(number, _leave)
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # else the next file that is opened, such as a database, is printed to
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    sys.excepthook = _print_exception
    if os.path.expanduser("~") == "~":
        os.environ["HOME"] = os.environ.get("TMPDIR", "/tmp")  # noqa: S108


def _print_exception(kind, error, trace) -> None:
    """Print an error that nobody has met, as Python does; libraries' words may have an address with a password."""
    import traceback

    from studies.masking import masked

    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(masked("".join(traceback.format_exception(kind, error, trace))))


def is_installed_command() -> bool:
    """Whether this process is the installed command, rather than `python -m …`."""
    return os.path.basename(sys.argv[0]) == SCRIPT


def spoken(module: str, *words: str) -> str:
    """What calls `studies.run`, or another of our commands, from the shell that has called this one: a line to paste.

    It is called by what was typed: `.venv/bin/python -m analysis.compare`, or `weight-studies compare`.
    """
    if is_installed_command():
        found = shutil.which(SCRIPT)
        script = SCRIPT if found and found == shutil.which(sys.argv[0]) else sys.argv[0]
        called = [script, module.rpartition(".")[2]]
    else:
        called = [sys.orig_argv[0], "-m", module]
    return shlex.join([*called, *words])


@contextmanager
def interruptible() -> Iterator[None]:
    """Signals raise `Interrupted` in here, and go on doing so until it is handled, whoever swallows it.

    Keras, a destructor or a `finally` may meet it, and some of them lose it. While it is being handled, further signals
    change nothing, so what cleans up is not interrupted.
    """
    if not _has_signals():
        yield
        return
    before, hook = {number: signal.getsignal(number) for number in (*ENDINGS, signal.SIGALRM)}, sys.unraisablehook
    _State.received, _State.asked, _State.held = None, None, 0
    sys.unraisablehook = lambda lost: isinstance(lost.exc_value, Interrupted) or hook(lost)
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        yield
    finally:
        settle()
        sys.unraisablehook = hook
        for number, handler in before.items():
            # A command is over: what comes now must not give it another exit code.
            signal.signal(number, signal.SIG_IGN if handler is _leave else handler or signal.SIG_DFL)


@contextmanager
def held() -> Iterator[None]:
    """Signals wait in here, for what must not be left half made: a folder and the name of it, a trial's record."""
    _State.held += 1
    try:
        yield
    finally:
        _State.held -= 1
    if _State.received is not None and not _State.held and not _is_being_handled():
        raise Interrupted


@contextmanager
def finishing(ask: Callable[[], None]) -> Iterator[None]:
    """The first signal in here calls `ask`, in its handler, for what runs to be finished; the next interrupts.

    Raises:
        Interrupted: at the end of it, if there was a signal.
    """
    _State.ask = ask
    try:
        yield
    finally:
        _State.ask = None
    if _State.asked is not None:
        _State.received = _State.asked
        raise Interrupted


def asked() -> str:
    """The signal that asked for what runs to be finished, as one would send it again; empty if there was none."""
    if _State.asked is None:
        return ""
    return "Ctrl-C" if _State.asked == signal.SIGINT else signal.Signals(_State.asked).name


def settle() -> None:
    """Say that the interruption is seen to, or that nothing is left to interrupt: signals now change nothing."""
    if _has_signals():
        for number in ENDINGS:
            signal.signal(number, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)


def received() -> int | None:
    """The signal that has come, None if there was none."""
    return _State.received


def code() -> int:
    """The exit code after the signal, as shells have it: 130 after Ctrl-C."""
    return 128 + (_State.received or signal.SIGINT)


def unread() -> int:
    """The exit code where the reader, such as head, has seen enough; what is still to be printed goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE


def say(line: str) -> None:
    """Print a last line, if there is still somebody to read it."""
    with suppress(OSError):
        sys.stdout.flush()
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


@contextmanager
def unheard() -> Iterator[None]:
    """What libraries print to stderr in here, from C++ too, goes nowhere."""
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    heard, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(heard, 2)
        os.close(heard)
        os.close(nowhere)


def _has_signals() -> bool:
    return threading.current_thread() is threading.main_thread()


def _leave(number, _frame) -> None:
    """End at once: nothing has begun, so there is nothing to end well."""
    with suppress(OSError):
        os.write(2, b"interrupted\n")
    os._exit(128 + number)


def _interrupt(number, _frame) -> None:
    if _State.received is None:
        if number == signal.SIGALRM or _is_first(number):
            return
        _State.received = number
        signal.setitimer(signal.ITIMER_REAL, AGAIN, AGAIN)
    if not _State.held and not _is_being_handled():
        raise Interrupted


def _is_first(number: int) -> bool:
    """Whether a signal asks for what runs to be finished, or comes with the one that does."""
    if _State.asked is not None:
        return time.monotonic() - _State.when < TOGETHER
    if _State.ask is None:
        return False
    _State.asked, _State.when = number, time.monotonic()
    for stream in (1, 2):
        try:
            os.get_terminal_size(stream)
        except OSError as error:
            if error.errno == errno.EIO:  # a terminal that has closed: what is printed from now on goes nowhere
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    _State.ask()
    return True


def _is_being_handled() -> bool:
    """Whether an `except` or a `finally` that has an interruption, or what it became, is at work."""
    error = sys.exception()
    while error is not None and not isinstance(error, Interrupted):
        error = error.__context__
    return error is not None
