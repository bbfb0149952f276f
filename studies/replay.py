"""Train a stored trial again, and say whether its numbers come out equal: `python -m studies.replay RUN_ID`."""

import argparse
import json
import os
import sys
from contextlib import suppress

from analysis import command, stored
from analysis.read.runs import Run
from analysis.show import replays
from studies import terminal
from studies.command import replay
from studies.contract import Tag
from studies.execute.pool import Pool
from studies.factors import limits
from studies.record import RESULTS_VERSION, StudyError, numbered, plain

FORMATS = ("terminal", "json")


def main(arguments: list[str] | None = None) -> int:
    """Replay trials; gives the exit code: 1 if one differs, 2 for what the user can put right."""
    parser = command.Parser(
        prog=terminal.spoken("studies.replay"),
        description="Train stored trials again, and say whether their numbers come out equal to the bit.",
    )
    parser.add_argument(
        "trials", nargs="*", metavar="TRIAL", help="an MLflow run's id, or a trial's key, or four signs or more of one"
    )
    parser.add_argument("--root", default="mlruns", help="the store: a folder, or a server's address (default: mlruns)")
    parser.add_argument("--all", metavar="STUDY", help="all trials of a study's latest execution")
    parser.add_argument("--sample", type=int, metavar="N", help="of --all so many, the same ones each time")
    parser.add_argument(
        "--allow", action="append", default=[], metavar="PREFIX", help="a package of yours that may be called: mine."
    )
    parser.add_argument("--data", metavar="PLACE", help="where the trials' data are now: data.path, or data.root")
    parser.add_argument("--workers", type=int, help="processes that train (default: what the machine allows)")
    parser.add_argument("--format", default="terminal", choices=FORMATS)
    options = parser.parse_args(arguments)
    codes = []
    return command.ended(lambda: codes.append(_run(options))) or codes[0]


def _run(options: argparse.Namespace) -> int:
    """Replay what is asked for; gives 1 if a trial differs, else 0."""
    allow = _allowed(options.allow)
    if allow and not sys.flags.safe_path and {"", os.getcwd()}.isdisjoint(sys.path):
        sys.path.append(os.getcwd())  # where a user's own package is, whichever way the command was started
    asked = _asked(options)
    ready = [replay.ready(stored.read(run, options.root), allow, options.data) for run in asked]
    found, pool = [], Pool(options.workers)
    try:
        for each in replay.replayed(ready, pool, lambda line: print(plain(line), file=sys.stderr, flush=True)):
            found.append(each)
            if options.format == "terminal":
                command.say("\n".join(replays.lines(_outcome(each))))
    finally:
        with suppress(OSError):
            pool.close()
    same = sum(each.equal for each in found)
    if options.format == "json":
        records = [replays.record(_outcome(each)) for each in found]
        print(json.dumps(records, indent=2, ensure_ascii=False, allow_nan=False))
    elif len(found) > 1:
        print(f"{same} of {numbered(len(found), 'trial')} came out equal to the bit")
    return int(same < len(found))


def _outcome(each: replay.Replayed) -> replays.Outcome:
    """What words and records are made of."""
    was = each.stored
    return replays.Outcome(
        key=was.key,
        run_id=was.run.run_id,
        label=was.label,
        equal=each.equal,
        found=each.agreement,
        status=(was.run.tags[Tag.STATUS], each.status),
        error=each.error,
        versions=(each.version, RESULTS_VERSION),
        surroundings=each.surroundings,
        accuracy=each.accuracy,
    )


def _allowed(prefixes: list[str]) -> list[str]:
    try:
        return [limits.prefix(each) for each in prefixes]
    except ValueError as expected:
        raise StudyError(f"--allow {' '.join(prefixes)}: expected {expected}") from None


def _asked(options: argparse.Namespace) -> list[Run]:
    """The runs that are meant.

    Raises:
        StudyError: none is, or the words do not go together.
    """
    if options.sample is not None and (options.all is None or options.sample < 1):
        raise StudyError(f"--sample {options.sample}: expected 1 or more, with --all STUDY")
    if bool(options.trials) == bool(options.all):
        raise StudyError("expected trials, by the ids of their runs or by their keys; or --all STUDY, and not both")
    if options.all:
        return stored.of_study(options.all, options.root, options.sample)
    return list({run.run_id: run for run in (stored.found(each, options.root) for each in options.trials)}.values())


if __name__ == "__main__":
    sys.exit(main())
