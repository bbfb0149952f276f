"""What classes are taken for, and how well each is told: `python -m analysis.confusion STUDY`."""

import json
import sys
from pathlib import Path

from analysis import command, compare, load
from analysis.chosen import about, selected
from analysis.show import tables
from studies.record import StudyError

SETS = ("val", "test")


def main(arguments: list[str] | None = None) -> int:
    """Print each arm's confusion matrix; gives the exit code, 2 for what the user can put right."""
    parser = command.parser("confusion", "Which classes a study's networks take for which, arm by arm.")
    parser.add_argument("study", help="its name, such as init_comparison")
    command.add_execution(parser)
    parser.add_argument("--set", default="val", choices=SETS, help="which images (default: val)")
    parser.add_argument("--by", help="factors, separated by commas; arms that differ in others are one (default: all)")
    parser.add_argument("--where", help="only such trials: \"depth >= 8 and optimizer == 'SGD'\"")
    parser.add_argument("--since", help="only trials that ended since: 2026-11-01, 2026-11-01T18:30, 12h, 7d, 2w")
    parser.add_argument("--format", default="terminal", choices=tables.FORMATS)
    options = parser.parse_args(arguments)
    by, execution = options.by.split(",") if options.by else None, options.execution or load.LATEST
    how = (options.set, by, options.format, options.where, options.since, execution)
    return command.told(options, lambda: command.say(confusion(options.study, options.root, *how)))


def confusion(
    study: str,
    root: str | Path = "mlruns",
    which: str = "val",
    by: list[str] | None = None,
    format: str = "terminal",
    where: str | None = None,
    since: str | None = None,
    execution: str | int = load.LATEST,
) -> str:
    """The confusion matrix of each arm of one of a study's executions, with each class's recall, precision and F1.

    CSV has a row an arm, class and predicted class; JSON has the scores besides.

    Args:
        which: `val`, or `test`.
        where, since: see `chosen.selected`.
        execution: which, as `load.execution` has it.

    Raises:
        StudyError: there is no such study, execution, factor or trial, or none that has kept what its classes are taken
            for.
    """
    from analysis.estimate import classes, history
    from analysis.show import confusions

    found = load.execution(study, root, execution=execution)
    design, trials = selected(study, root, where, since, found)
    by = list(dict.fromkeys(compare.factor_named(name, design.factors) for name in by or design.compared))
    counts = load.confusions(study, root, list(trials["key"]))
    counts = counts[counts["set"] == which]
    if counts.empty:
        raise StudyError(
            f"--set {which}: none of these {len(trials)} trials of {study} has kept what its classes are taken for: "
            f"they have no such scores, or were run before these were kept, or have not finished. The study's command "
            f"with --force trains them again"
        )
    scores, shares = (estimate(counts, trials, by) for estimate in (classes.scores, classes.shares))
    source = about(found, root)
    if format == "csv":
        return tables.frame_table(shares, format)
    if format == "json":
        rows = {"names": classes.names(counts), "classes": tables.rows_of(scores), "pairs": tables.rows_of(shares)}
        whole = {"study": study, "set": which, "by": by, "notes": history.mixed(trials, by), "of": source.record}
        return json.dumps(whole | rows, indent=2)
    lacking = len(set(trials["key"]) - set(counts["key"]))
    lacks = [f"{lacking} of {len(trials)} trials have none: they did not finish, or are of an earlier version."]
    notes = [confusions.MEANT, *lacks * bool(lacking)]
    notes += history.mixed(trials, by)
    text = tables.noted(confusions.matrices(scores, shares, by, which, format, classes.names(counts)), notes, format)
    return tables.noted(text, source.lines, format)


if __name__ == "__main__":
    sys.exit(main())
