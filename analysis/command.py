"""What the commands of this package have in common."""

import argparse
import sys
from collections.abc import Callable

from studies import terminal
from studies.record import StudyError


def parser(name: str, description: str, root: str = "a folder, or a server's address") -> argparse.ArgumentParser:
    """A parser for `python -m analysis.NAME`, with `--root`.

    Args:
        root: what the store may be.
    """
    made = _Parser(prog=terminal.spoken(f"analysis.{name}"), description=description)
    made.add_argument("--root", default="mlruns", help=f"the store: {root} (default: mlruns)")
    return made


class _Parser(argparse.ArgumentParser):
    def print_help(self, file=None) -> None:
        """As of any parser, also where its reader has gone."""
        try:
            super().print_help(file)
            sys.stdout.flush()
        except BrokenPipeError:
            sys.exit(terminal.unheard())


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
        except BrokenPipeError:
            return terminal.unheard()
        return 0
