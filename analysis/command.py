"""What the commands of this package have in common."""

import argparse
import os
import sys
from collections.abc import Callable

from studies import terminal
from studies.record import StudyError


def parser(name: str, description: str, root: str = "a folder, or a server's address") -> argparse.ArgumentParser:
    """A parser for `python -m analysis.NAME`, with `--root`.

    Args:
        root: what the store may be.
    """
    made = argparse.ArgumentParser(prog=f"python -m analysis.{name}", description=description)
    made.add_argument("--root", default="mlruns", help=f"the store: {root} (default: mlruns)")
    return made


def ended(run: Callable[[], None]) -> int:
    """Run a command; gives its exit code, 2 with one paragraph for what the user can put right."""
    with terminal.interruptible():
        try:
            run()
            sys.stdout.flush()
        except StudyError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            terminal.say("interrupted")
            return terminal.code()
        except BrokenPipeError:  # the reader, such as head, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
