"""Compare a study's arms: `python -m analysis.compare STUDY`."""

import argparse
import sys

from analysis import load, tables
from studies.record import METRICS, Study, StudyError, listed


def main(arguments: list[str] | None = None) -> int:
    """Print a study's comparison table; gives the exit code, 2 for what the user can put right."""
    parser = argparse.ArgumentParser(prog="python -m analysis.compare", description="Compare a study's arms.")
    parser.add_argument("study", help="its name, such as init_comparison")
    parser.add_argument("--by", help="factors, separated by commas; values are averaged over the others (default: all)")
    parser.add_argument("--metric", help=f"one of {listed(METRICS)} (default: the study's own)")
    parser.add_argument("--format", default="terminal", choices=tables.FORMATS)
    parser.add_argument("--root", default="mlruns", help="the store's folder (default: mlruns)")
    options = parser.parse_args(arguments)
    try:
        by = options.by.split(",") if options.by else None
        print(table(options.study, options.root, by, options.metric, options.format))
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def table(
    study: str, root="mlruns", by: list[str] | None = None, metric: str | None = None, format: str = "terminal"
) -> str:
    """The comparison table of a study's latest execution.

    Raises:
        StudyError: there is no such study, factor or metric.
    """
    execution = load.execution(study, root)
    factors = execution.study.factors
    by = list(dict.fromkeys(_factor(name, factors) for name in by or factors))
    trials = load.trials(study, root, execution.keys)
    if trials.empty:
        raise StudyError(f"no trial of {study} in {root} has ended yet: run it again to go on")
    return answer(execution.study, trials, root, by, metric, format)


def answer(study: Study, trials, root, by=None, metric: str | None = None, format: str = "terminal") -> str:
    """The comparison table of some of a study's trials, a frame, and after a range test what it says of the rates."""
    from analysis import estimates

    by, metric = list(study.factors) if by is None else by, metric or study.metric
    compared = estimates.comparison(trials, by, metric, study.baseline)
    text = tables.comparison_table(compared, by, metric, study.baseline, format)
    if "loss_by_rate" in study.figures and format != "csv":
        curve = estimates.rate_curve(trials, load.epochs(study.name, root, list(trials["key"])), by)
        text += f"\n\n{tables.rate_table(estimates.rate_range(curve, by), by, format)}"
    return text


def _factor(name: str, factors) -> str:
    matches = [factor for factor in factors if name in (factor, factor.rpartition(".")[2])]
    if len(matches) != 1:
        raise StudyError(f"--by {name}: expected factors of the study: {listed(factors) or 'it has none'}")
    return matches[0]


if __name__ == "__main__":
    sys.exit(main())
