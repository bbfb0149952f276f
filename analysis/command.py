"""What the commands of this package have in common."""

import argparse
import sys
from collections.abc import Callable

from analysis.read import server
from studies import address, terminal
from studies.record import StudyError, plain

LIST = "list"
"""What `--execution` takes for a list of the executions there are."""

EXECUTION = (
    "which execution: latest (the default), a number of those that --execution list lists, the beginning of an MLflow "
    "run's id, own (the last of the study's own design), all or sweep (all, or the jobs of the last sweep, as one), or "
    "several of these, separated by commas"
)


class Parser(argparse.ArgumentParser):
    """One whose help may be read by what has seen enough."""

    def print_help(self, file=None):
        """Print the help; if nobody reads on, that is no error."""
        try:
            super().print_help(file)
            sys.stdout.flush()
        except BrokenPipeError:
            sys.exit(terminal.unread())


def parser(name: str, description: str, root: str = "a folder, or an address") -> argparse.ArgumentParser:
    """A parser for `python -m analysis.NAME`, with `--root`.

    Args:
        root: what the store may be.
    """
    made = Parser(prog=terminal.spoken(f"analysis.{name}"), description=description)
    made.add_argument("--root", default="mlruns", type=address.named, help=f"the store: {root} (default: mlruns)")
    return made


def add_execution(made: argparse.ArgumentParser) -> None:
    """Have a parser take `--execution`; what is then given, None for nothing, is for `told` and `load.execution`."""
    made.add_argument("--execution", metavar="WHICH", help=EXECUTION)


def add_format(made: argparse.ArgumentParser) -> None:
    """Have a parser take `--format` and `--wide`."""
    from analysis.show import tables

    made.add_argument("--format", default="terminal", choices=tables.FORMATS)
    made.add_argument("--wide", action="store_true", help="do not fit tables to the terminal (COLUMNS sets its width)")


def width(options: argparse.Namespace) -> int | None:
    """The columns that tables are to fit; None for as wide as they are."""
    from analysis.show.width import width_here

    return None if options.wide else width_here()


def say(text: object) -> None:
    """Print what may have texts of others, none of which steers the terminal."""
    print(plain(str(text)), flush=True)


def told(options: argparse.Namespace, run: Callable[[], None]) -> int:
    """Run a command of a study, or list its executions if that is asked for; gives its exit code, as `ended` does."""

    def asked():
        if options.execution != LIST:
            return run()
        from analysis import changes
        from analysis.show.width import width_here

        wide, format = getattr(options, "wide", False), getattr(options, "format", "terminal")
        studies = getattr(options, "studies", None) or [options.study]
        for study in studies:
            if len(studies) > 1 and format == "terminal":
                print(f"\n{study}\n")
            say(changes.listing(study, options.root, format, None if wide else width_here()))

    return ended(asked)


def ended(run: Callable[[], None]) -> int:
    """Run a command; gives its exit code, 2 with one paragraph for what the user can put right."""
    with terminal.interruptible():
        try:
            with server.kept():
                run()
            sys.stdout.flush()
        except StudyError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            terminal.say("interrupted")
            return terminal.code()
        except BrokenPipeError:
            return terminal.unread()
        return 0
