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
    command.add_execution(parser)
    parser.add_argument(
        "--margin", help="the least difference that matters, in the metric's unit (default: .01 of what is a share)"
    )
    parser.add_argument("--metric", help=compare.METRIC)
    parser.add_argument("--by", help="factors, separated by commas; values are averaged over the others (default: all)")
    command.add_format(parser)
    options = parser.parse_args(arguments)
    by, execution = options.by.split(",") if options.by else None, options.execution or load.LATEST
    how = (by, options.metric, options.margin, options.format, execution)
    return command.told(
        options, lambda: command.say(planned(options.study, options.root, *how, command.width(options)))
    )


def planned(
    study: str,
    root: str | Path = "mlruns",
    by: list[str] | None = None,
    metric: str | None = None,
    margin: str | float | None = None,
    format: str = "terminal",
    execution: str | int = load.LATEST,
    width: int | None = None,
) -> str:
    """What the trials of one of a study's executions say of the seeds that it needs: a table, and in words.

    Args:
        execution: which, as `load.execution` has it.
        width: of the terminal that it is for, which the table is to fit; None for as wide as it is.

    Raises:
        StudyError: there is no such study, execution, factor or column, no trial, no two arms, or the margin is not
            above 0.
    """
    from analysis.estimate import arms, columns, history, power
    from analysis.estimate.measure import measure
    from analysis.show import plans

    chosen = load.execution(study, root, execution=execution)
    design, trials = compare.selected(study, root, execution=chosen)
    by = list(dict.fromkeys(compare.factor_named(name, design.factors) for name in by or design.compared))
    metric = metric or design.metric
    trials = columns.added(trials, metric, study, root)
    if margin is not None:
        margin = plans.margin_of(str(margin))
    elif measure(metric).share:
        margin = 0.01
    found = power.plan(trials, by, metric, design.baseline, margin, over=arms.averaged_over(design, by))
    lines = plans.plan_words(found, metric, margin, power.seconds_a_seed(trials), _workers(chosen, root))
    lines += history.mixed(trials, by)
    if format == "json":
        whole: dict = {"study": study, "metric": metric, "by": by, "margin": margin, "plan": lines}
        whole |= {"of": compare.about(chosen, root).record, "comparisons": tables.rows_of(found)}
        return json.dumps(whole, indent=2, ensure_ascii=False)
    text = tables.noted(plans.plan_table(found, margin, format, width), lines, format)
    return tables.noted(text, compare.about(chosen, root).lines, format)


def _workers(execution: load.Execution, root: str | Path) -> int:
    """Those that an execution asked for; 1 where it left them to the machine."""
    try:
        config = yaml.safe_load(load.text(execution, "study.yaml", root)) or {}
    except StudyError:
        return 1
    executor = config.get("executor") if isinstance(config, dict) else None
    workers = executor.get("workers") if isinstance(executor, dict) else None
    return workers if isinstance(workers, int) and workers > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
