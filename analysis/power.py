"""How many seeds a study needs, by the trials it has: `python -m analysis.power STUDY --margin .01`."""

import json
import sys
from pathlib import Path

import yaml

from analysis import command, compare, load
from analysis.show import tables
from studies.record import StudyError


def main(arguments: list[str] | None = None) -> int:
    """Print what the seeds there are can show, and those that a margin needs; gives the exit code, 2 for an error."""
    parser = command.parser("power", "How many seeds a study needs to show a difference, by the trials it has.")
    parser.add_argument("study", help="its name, such as init_comparison")
    parser.add_argument(
        "--margin", help="the least difference that matters, in the metric's unit (default: .01 of what is a share)"
    )
    parser.add_argument("--metric", help=compare.METRIC)
    parser.add_argument("--by", help="factors, separated by commas; values are averaged over the others (default: all)")
    parser.add_argument("--format", default="terminal", choices=tables.FORMATS)
    options = parser.parse_args(arguments)
    by = options.by.split(",") if options.by else None
    return command.ended(
        lambda: print(planned(options.study, options.root, by, options.metric, options.margin, options.format))
    )


def planned(
    study: str,
    root: str | Path = "mlruns",
    by: list[str] | None = None,
    metric: str | None = None,
    margin: str | float | None = None,
    format: str = "terminal",
) -> str:
    """What the trials of a study's latest execution say of the seeds that it needs: a table, and in words.

    Raises:
        StudyError: there is no such study, factor or column, no trial, no two arms, or the margin is not above 0.
    """
    from analysis.estimate import arms, columns, power
    from analysis.estimate.measure import measure
    from analysis.show import plans

    design, trials = compare.selected(study, root)
    by = list(dict.fromkeys(compare.factor_named(name, design.factors) for name in by or design.factors))
    metric = metric or design.metric
    trials = columns.added(trials, metric, study, root)
    if margin is not None:
        margin = plans.margin_of(str(margin))
    elif measure(metric).share:
        margin = 0.01
    found = power.plan(trials, by, metric, design.baseline, margin, over=arms.averaged_over(design, by))
    lines = plans.plan_words(found, metric, margin, power.seconds_a_seed(trials), _workers(study, root))
    if format == "json":
        whole = {"study": study, "metric": metric, "by": by, "margin": margin, "plan": lines}
        return json.dumps(whole | {"comparisons": tables.rows_of(found)}, indent=2, ensure_ascii=False)
    return tables.noted(plans.plan_table(found, margin, format), lines, format)


def _workers(study: str, root: str | Path) -> int:
    """Those that a study's latest execution asked for; 1 where it left them to the machine."""
    try:
        config = yaml.safe_load(load.text(load.execution(study, root), "study.yaml", root)) or {}
    except StudyError:
        return 1
    executor = config.get("executor") if isinstance(config, dict) else None
    workers = executor.get("workers") if isinstance(executor, dict) else None
    return workers if isinstance(workers, int) and workers > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
