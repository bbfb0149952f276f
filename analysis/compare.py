"""Compare the arms of studies, or a study's executions: `python -m analysis.compare STUDY ...`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from analysis import changes, command, load
from analysis.chosen import About, about, selected
from analysis.show import tables
from studies.record import Study, StudyError, arm_label, is_neutral, listed, nearest

METRIC = (
    "any column of numbers of the trials frame, such as val_accuracy, seconds_train or parameters, or a layer's "
    "statistic, LAYER.TENSOR.STATISTIC[@EPOCH], such as dense_1.kernel.l2 or '*.kernel.update_ratio@10' (default: the "
    "study's own)"
)


def main(arguments: list[str] | None = None) -> int:
    """Print a comparison table; gives the exit code, 2 for what the user can put right."""
    parser = command.parser("compare", "Compare the arms of studies, or a study's executions.")
    parser.add_argument("studies", nargs="+", metavar="study", help="its name, such as init_comparison; or several")
    command.add_execution(parser)
    parser.add_argument("--by", help="factors, separated by commas; values are averaged over the others (default: all)")
    parser.add_argument("--metric", help=METRIC)
    parser.add_argument("--where", help="only such trials: \"depth >= 8 and optimizer == 'SGD'\"")
    parser.add_argument("--since", help="only trials that ended since: 2026-11-01, 2026-11-01T18:30, 12h, 7d, 2w")
    parser.add_argument(
        "--executions",
        action="store_true",
        help="a study's executions, and what changed from the last but one to the last, or with --execution 1,3 from "
        "one to another",
    )
    command.add_format(parser)
    options = parser.parse_args(arguments)
    return command.told(options, lambda: command.say(_asked(options)))


def _asked(options) -> str:
    """What the command's options ask for."""
    names, width = list(dict.fromkeys(options.studies)), command.width(options)
    if options.executions:
        if len(names) > 1 or {options.by, options.where, options.since} != {None}:
            raise StudyError(
                "--executions: expected one study, and besides only --execution, --metric, --format, --wide and --root"
            )
        return changes.changes(names[0], options.root, options.metric, options.format, options.execution, width)
    by, execution = options.by.split(",") if options.by else None, options.execution or load.LATEST
    which, how = (options.where, options.since), (by, options.metric, options.format)
    if len(names) == 1:
        return table(names[0], options.root, *how, *which, execution, width)
    found = [load.execution(name, options.root, execution=execution) for name in names]
    parts = [selected(name, options.root, *which, each) for name, each in zip(names, found, strict=True)]
    abouts = [about(each, options.root) for each in found]
    return across(parts, *how, options.root, *which, abouts, width)


def table(
    study: str,
    root: str | Path = "mlruns",
    by: list[str] | None = None,
    metric: str | None = None,
    format: str = "terminal",
    where: str | None = None,
    since: str | None = None,
    execution: str | int = load.LATEST,
    width: int | None = None,
) -> str:
    """The comparison table of one of a study's executions, or of those of its trials that `selected` gives.

    Args:
        execution: which, as `load.execution` has it.
        width: of the terminal that it is for, see `answer`.

    Raises:
        StudyError: there is no such study, execution, factor or column, or no such trial.
    """
    from analysis import claims

    whole = where is None and since is None
    found = load.execution(study, root, execution=execution)
    design, trials = selected(study, root, where, since, found)
    verdict = claims.told(found, root)[:1] if whole and by is None and metric is None else []
    by = list(dict.fromkeys(factor_named(name, design.factors) for name in by or design.compared))
    planned = len(found.keys) * whole
    return answer(design, trials, root, by, metric, format, planned, where, since, verdict, about(found, root), width)


def answer(
    study: Study,
    trials: pd.DataFrame,
    root: str | Path,
    by: list[str] | None = None,
    metric: str | None = None,
    format: str = "terminal",
    planned: int = 0,
    where: str | None = None,
    since: str | None = None,
    verdict: Sequence[str] = (),
    source: About | None = None,
    width: int | None = None,
) -> str:
    """The comparison of some of a study's trials, a frame: the table and, for readers, what it says in words.

    After a range test also what that says of the rates. Whatever was chosen with results in sight, filters and looks
    among it, is said in every format but CSV, which is numbers alone.

    Args:
        planned: how many trials the study has, if these are to be all of them.
        where, since: how these trials were selected, see `selected`.
        verdict: on the study's claim, in words, which then comes first.
        source: which execution they are of, which is said last; None for one that is at hand.
        width: of the terminal that it is for, which tables are to fit; None for as wide as they are.
    """
    from analysis.estimate import arms, columns, comparison, history
    from analysis.show import answers

    by, metric = study.compared if by is None else by, metric or study.metric
    trials = columns.added(trials, metric, study.name, root)
    over = arms.averaged_over(study, by)
    compared = comparison.comparison(trials, by, metric, study.baseline, over)
    chosen = _choices(study, trials, root, by, metric, where, since, planned, source)
    lines = answers.answer(compared, by, metric, study.baseline)
    lines += answers.left_out(*arms.left_out(trials, by, over), over)
    lines += answers.folds(over) + answers.one_runs(arms.one_runs(trials, by), by) + answers.unseen(compared, metric)
    lines = answers.chosen(answers.so_far(lines, len(trials), planned), chosen, study.metric)
    ranges = _ranges(study, trials, root, by)
    lines = [*verdict, *([] if ranges is None else answers.rates(ranges, by)), *lines]
    notes = history.renamed(trials, metric) + history.mixed(trials, by)
    common = trained(study, trials, root)
    if format == "json":
        return _json(study, by, metric, lines + notes, chosen, compared, common, source)
    text = tables.comparison_table(compared, by, metric, study.baseline, format, width)
    if format in ("terminal", "markdown"):
        paired = any(factor in study.baseline for factor in by)
        intervals = tables.interval_note(metric, paired, compared["erratic"].any())
        for part in (lines + notes, [intervals], common):
            text = tables.noted(text, part, format)
    else:
        text = tables.noted(
            text, answers.caveats(chosen, study.metric) + answers.unseen(compared, metric) + notes, format
        )
    if ranges is not None and format != "csv":
        text += f"\n\n{tables.rate_table(ranges, by, format, width)}"
    return tables.noted(text, source.lines, format) if source else text


def _ranges(study, trials, root, by) -> pd.DataFrame | None:
    """What a range test says of the rates; None of another study."""
    from analysis.estimate import tuning

    if "loss_by_rate" not in study.figures:
        return None
    return tuning.rate_range(tuning.rate_curve(trials, load.epochs(study.name, root, list(trials["key"])), by), by)


def trained(study: Study, trials: pd.DataFrame, root: str | Path) -> list[str]:
    """What was trained of some of a study's trials, and how, from `show.trained`."""
    from analysis.show import trained

    if "key" not in trials:  # of no store
        return []
    factors, images = [*study.factors, *study.nuisance], None
    settings = load.settings(study.name, root, list(trials["key"]))
    of_epochs = [name for name in settings if name.startswith(("data", "training"))]
    kinds = [{str(None if is_neutral(name, each) else each) for each in settings[name]} for name in of_epochs]
    if "training.epochs" in settings and all(len(kind) == 1 for kind in kinds):
        first = load.epochs(study.name, root, list(trials["key"][:1]))
        images = first["examples"].max() / first["epoch"].max() if len(first) > 1 else None
    return trained.trained(settings, factors, trials, images)


def _choices(study, trials, root, by, metric, where, since, planned=0, source=None):
    """What was chosen with results in sight; of a single arm nothing is tested, so that no look at it counts."""
    from analysis.estimate import history

    executions = load.executions(study.name, root) if study.factors else []
    keys = tuple(trials["key"])
    if source and study.factors:
        keys, last = source.execution.keys, (source.execution.parts or (source.execution,))[-1]
        executions = [each for each in executions if each.number <= last.number and each.study.factors]
    elif executions and (planned or where is not None or since is not None):
        keys = executions[-1].keys
    return history.choices(study, executions, keys, root, by, metric, where, since, tuple(trials["key"]))


def _json(study, by, metric, lines, choices, compared, common, source) -> str:
    """A comparison with its answer as one JSON object; a number that does not exist is null."""
    whole = {
        "study": study.name,
        "question": study.question,
        "metric": metric,
        "by": by,
        "baseline": study.baseline,
        "answer": lines,
        "trained": common,
        "chosen_after_the_fact": {
            name: value for name, value in asdict(choices).items() if name != "design" and value not in (None, ())
        },
        **({"of": source.record} if source else {}),
        "arms": tables.rows_of(compared),
    }
    return json.dumps(whole, indent=2, ensure_ascii=False)


def across(
    chosen: list[tuple[Study, pd.DataFrame]],
    by: list[str] | None = None,
    metric: str | None = None,
    format: str = "terminal",
    root: str | Path = "mlruns",
    where: str | None = None,
    since: str | None = None,
    sources: Sequence[About] = (),
    width: int | None = None,
) -> str:
    """One table of the comparisons of several studies, each within itself.

    Arms are made by the factors that all the studies have; if they have none in common, an arm is all its own factors.
    The differences are shown if all have the same baseline. Under it stands what was chosen with results in sight.

    Args:
        where, since: how the trials were selected, see `selected`.
        sources: which executions they are of, one a study, or nothing.
        width: see `answer`.

    Raises:
        StudyError: a factor is not in all of them, or they have no metric in common.
    """
    from analysis.estimate import arms, columns, comparison, history
    from analysis.show import answers

    studies = [study for study, _ in chosen]
    shared = [factor for factor in studies[0].compared if all(factor in study.factors for study in studies)]
    asked, given = by, metric
    by = list(dict.fromkeys(factor_named(name, shared, "all the studies") for name in by or shared))
    metric = metric or _own_metric(studies)
    parts, notes = [], []
    for study, trials in chosen:
        factors = by or study.compared
        over = arms.averaged_over(study, factors)
        trials = columns.added(trials, metric, study.name, root)
        part = comparison.comparison(trials, factors, metric, study.baseline, over)
        parts.append(_of_study(study, part, factors, labelled=not by))
        notes += [f"{study.name}: {line}" for line in answers.left_out(*arms.left_out(trials, factors, over), over)]
    baselines = [{factor: study.baseline[factor] for factor in by if factor in study.baseline} for study in studies]
    baseline = baselines[0] if all(other == baselines[0] for other in baselines) else {}
    whole = pd.concat(parts, ignore_index=True)
    text = tables.comparison_table(whole, ["study", *(by or ["arm"])], metric, baseline, format, width)
    lines = []
    said = [f"{each.execution.study.name}: {line}" for each in sources for line in each.lines]
    for study, trials in chosen:
        source = next((each for each in sources if each.execution.study == study), None)
        found = _choices(study, trials, root, asked and by, given, where, since, 0, source)
        caveats = answers.caveats(found, study.metric) + history.renamed(trials, metric)
        lines += [f"{study.name}: {line}" for line in caveats]
    lines += _unlike(chosen, by)
    if format == "json":
        of = {each.execution.study.name: each.record for each in sources}
        found = {"metric": metric, "chosen_after_the_fact": lines, "of": of, "arms": json.loads(text)}
        return json.dumps(found, indent=2)
    notes.append(tables.interval_note(metric, bool(baseline), bool(whole["erratic"].any())))
    text = "\n\n".join([tables.noted(text, lines, format), *(notes if format in ("terminal", "markdown") else [])])
    return tables.noted(text, said, format)


def _unlike(chosen: list[tuple[Study, pd.DataFrame]], by: list[str]) -> list[str]:
    """What is said of each study's trials that were not all trained by the same, or of all if only studies differ."""
    from analysis.estimate import history

    each = [f"{study.name}: {line}" for study, part in chosen for line in history.mixed(part, by or study.compared)]
    return each or history.mixed(pd.concat([part.assign(study=study.name) for study, part in chosen]), ["study"])


def _of_study(study: Study, part: pd.DataFrame, factors: list[str], labelled: bool) -> pd.DataFrame:
    """A study's part of a table of several: with its name, and with labels in the place of its factors if asked for."""
    if labelled:
        labels = [arm_label({factor: row[factor] for factor in factors}) for row in part.to_dict("records")]
        part = part.drop(columns=factors)
        part.insert(0, "arm", labels)
    part.insert(0, "study", study.name)
    return part


def _own_metric(studies: list[Study]) -> str:
    if len({study.metric for study in studies}) > 1:
        own = listed(f"{study.name} by {study.metric}" for study in studies)
        raise StudyError(f"the studies are compared by different metrics ({own}): name one with --metric")
    return studies[0].metric


def factor_named(name: str, factors, of: str = "the study") -> str:
    """The factor that a name, or its last part, stands for.

    Raises:
        StudyError: there is none, or several.
    """
    matches = [factor for factor in factors if name in (factor, factor.rpartition(".")[2])]
    if len(matches) != 1:
        known = listed(factors) or "there are none"
        if not matches and (near := nearest(name, factors)):
            raise StudyError(f"--by {name}{near} Expected factors of {of}: {known}")
        raise StudyError(f"--by {name}: expected factors of {of}: {known}")
    return matches[0]


if __name__ == "__main__":
    sys.exit(main())
