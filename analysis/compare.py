"""Compare the arms of studies, or a study's executions: `python -m analysis.compare STUDY ...`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import pandas as pd

from analysis import command, load
from analysis.show import tables
from studies.contract import Tag
from studies.record import Study, StudyError, arm_label, listed

METRIC = (
    "any column of numbers of the trials frame, such as val_accuracy, seconds_train or parameters, or a layer's "
    "statistic, LAYER.TENSOR.STATISTIC[@EPOCH], such as dense_1.kernel.l2 or '*.kernel.update_ratio@10' (default: the "
    "study's own)"
)


def main(arguments: list[str] | None = None) -> int:
    """Print a comparison table; gives the exit code, 2 for what the user can put right."""
    parser = command.parser("compare", "Compare the arms of studies, or a study's executions.")
    parser.add_argument("studies", nargs="+", metavar="study", help="its name, such as init_comparison; or several")
    parser.add_argument("--by", help="factors, separated by commas; values are averaged over the others (default: all)")
    parser.add_argument("--metric", help=METRIC)
    parser.add_argument("--where", help="only such trials: \"model.depth >= 8 and optimizer == 'SGD'\"")
    parser.add_argument("--since", help="only trials that ended since: 2026-11-01, 2026-11-01T18:30, 12h, 7d, 2w")
    parser.add_argument(
        "--executions",
        action="store_true",
        help="a study's executions, and what changed from the last but one to the last",
    )
    parser.add_argument("--format", default="terminal", choices=tables.FORMATS)
    options = parser.parse_args(arguments)
    return command.ended(lambda: print(_asked(options)))


def _asked(options) -> str:
    """What the command's options ask for."""
    names = list(dict.fromkeys(options.studies))
    if options.executions:
        if len(names) > 1 or {options.by, options.where, options.since} != {None}:
            raise StudyError("--executions: expected one study, and besides only --metric, --format and --root")
        return executions(names[0], options.root, options.metric, options.format)
    by = options.by.split(",") if options.by else None
    which, how = (options.where, options.since), (by, options.metric, options.format)
    if len(names) == 1:
        return table(names[0], options.root, *how, *which)
    return across([selected(name, options.root, *which) for name in names], *how, options.root, *which)


def table(
    study: str,
    root: str | Path = "mlruns",
    by: list[str] | None = None,
    metric: str | None = None,
    format: str = "terminal",
    where: str | None = None,
    since: str | None = None,
) -> str:
    """The comparison table of a study's latest execution, or of those of its trials that `selected` gives.

    Raises:
        StudyError: there is no such study, factor or column, or no such trial.
    """
    from analysis import claims

    whole = where is None and since is None
    execution = load.execution(study, root)
    design, trials = selected(study, root, where, since)
    verdict = claims.told(execution, root)[:1] if whole and by is None and metric is None else []
    by = list(dict.fromkeys(factor_named(name, design.factors) for name in by or design.factors))
    return answer(design, trials, root, by, metric, format, len(execution.keys) * whole, where, since, verdict)


def selected(
    study: str, root: str | Path = "mlruns", where: str | None = None, since: str | None = None
) -> tuple[Study, pd.DataFrame]:
    """A study, and the trials frame of its latest execution, or of some of its trials.

    Args:
        where: a condition on the columns of the trials frame and of `load.settings`, see `selection.Condition`.
        since: when the trials ended at the earliest, see `selection.since`.

    Raises:
        StudyError: there is no such study, column or time, or no such trial.
    """
    execution = load.execution(study, root)
    trials = ended = load.trials(study, root, execution.arms)
    if ended.empty:
        raise StudyError(f"no trial of {study} in {root} has ended yet: run it again to go on")
    if where is not None or since is not None:
        from analysis.read import selection

        if since is not None:
            earliest = selection.since(since, datetime.now().astimezone())
            late = {run.tags[Tag.KEY] for run in load.ended(study, root) if (run.end_time or 0) >= earliest}
            trials = trials[trials["key"].isin(late)]
        if where is not None:
            condition = selection.Condition(where)
            columns = trials.drop(columns="folder")
            if not set(condition.columns) <= set(columns):
                settings = load.settings(study, root, list(trials["key"]))
                columns = columns.merge(settings[["key", *(n for n in settings if n not in columns)]], on="key")
            trials = trials[condition.holds(columns.set_axis(trials.index))]
        if trials.empty:
            given = {"--where": where, "--since": since}
            asked = " and ".join(f"{name} {text}" for name, text in given.items() if text is not None)
            raise StudyError(f"{asked}: none of the {len(ended)} trials of {study} that have ended is such a one")
    return execution.study, trials.reset_index(drop=True)


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
) -> str:
    """The comparison of some of a study's trials, a frame: the table and, for readers, what it says in words.

    After a range test also what that says of the rates. Whatever was chosen with results in sight, filters and looks
    among it, is said in every format but CSV, which is numbers alone.

    Args:
        planned: how many trials the study has, if these are to be all of them.
        where, since: how these trials were selected, see `selected`.
        verdict: on the study's claim, in words, which then comes first.
    """
    from analysis.estimate import arms, columns, comparison, history, tuning
    from analysis.show import answers

    by, metric = list(study.factors) if by is None else by, metric or study.metric
    trials = columns.added(trials, metric, study.name, root)
    over = arms.averaged_over(study, by)
    compared = comparison.comparison(trials, by, metric, study.baseline, over)
    chosen = _choices(study, trials, root, by, metric, where, since, planned)
    lines = answers.answer(compared, by, metric, study.baseline)
    lines += answers.left_out(*arms.left_out(trials, by, over), over)
    lines += answers.one_runs(arms.one_runs(trials, by), by) + answers.unseen(compared, metric)
    lines = answers.chosen(answers.so_far(lines, len(trials), planned), chosen, study.metric)
    ranges = None
    if "loss_by_rate" in study.figures:
        curve = tuning.rate_curve(trials, load.epochs(study.name, root, list(trials["key"])), by)
        ranges = tuning.rate_range(curve, by)
        lines = answers.rates(ranges, by) + lines
    lines = [*verdict, *lines]
    notes = history.renamed(trials, metric) + history.mixed(trials)
    common = trained(study, trials, root)
    if format == "json":
        return _json(study, by, metric, lines + notes, chosen, compared, common)
    text = tables.comparison_table(compared, by, metric, study.baseline, format)
    if format in ("terminal", "markdown"):
        item = "\n- " if format == "markdown" else "\n  "
        text += f"\n\n{item.join(lines + notes)}"
        paired = any(factor in study.baseline for factor in by)
        text += f"\n\n{tables.interval_note(metric, paired, compared['erratic'].any())}"
        text += f"\n\n{item.join(common)}" * bool(common)
    else:
        text = tables.noted(
            text, answers.caveats(chosen, study.metric) + answers.unseen(compared, metric) + notes, format
        )
    if ranges is not None and format != "csv":
        text += f"\n\n{tables.rate_table(ranges, by, format)}"
    return text


def trained(study: Study, trials: pd.DataFrame, root: str | Path) -> list[str]:
    """What was trained of some of a study's trials, and how, from `show.trained`."""
    from analysis.show import trained

    if "key" not in trials:  # of no store
        return []
    factors, images = [*study.factors, *study.nuisance], None
    settings = load.settings(study.name, root, list(trials["key"]))
    if "training.epochs" in settings and not any(factor.startswith(("data", "training")) for factor in factors):
        first = load.epochs(study.name, root, list(trials["key"][:1]))
        images = first["examples"].max() / first["epoch"].max() if len(first) > 1 else None
    return trained.trained(settings, factors, trials, images)


def _choices(study, trials, root, by, metric, where, since, planned=0):
    """What was chosen with results in sight; of a single arm nothing is tested, so that no look at it counts."""
    from analysis.estimate import history

    executions = load.executions(study.name, root) if study.factors else []
    latest = executions and (planned or where is not None or since is not None)
    keys = executions[-1].keys if latest else tuple(trials["key"])
    return history.choices(study, executions, keys, root, by, metric, where, since, tuple(trials["key"]))


def _json(study, by, metric, lines, choices, compared, common) -> str:
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
) -> str:
    """One table of the comparisons of several studies, each within itself.

    Arms are made by the factors that all the studies have; if they have none in common, an arm is all its own factors.
    The differences are shown if all have the same baseline. Under it stands what was chosen with results in sight.

    Args:
        where, since: how the trials were selected, see `selected`.

    Raises:
        StudyError: a factor is not in all of them, or they have no metric in common.
    """
    from analysis.estimate import arms, columns, comparison, history
    from analysis.show import answers

    studies = [study for study, _ in chosen]
    shared = [factor for factor in studies[0].factors if all(factor in study.factors for study in studies)]
    asked, given = by, metric
    by = list(dict.fromkeys(factor_named(name, shared, "all the studies") for name in by or shared))
    metric = metric or _own_metric(studies)
    parts, notes = [], []
    for study, trials in chosen:
        factors = by or list(study.factors)
        over = arms.averaged_over(study, factors)
        trials = columns.added(trials, metric, study.name, root)
        part = comparison.comparison(trials, factors, metric, study.baseline, over)
        if not by:
            labels = [arm_label({factor: row[factor] for factor in factors}) for row in part.to_dict("records")]
            part = part.drop(columns=factors)
            part.insert(0, "arm", labels)
        part.insert(0, "study", study.name)
        parts.append(part)
        notes += [f"{study.name}: {line}" for line in answers.left_out(*arms.left_out(trials, factors, over), over)]
    baselines = [{factor: study.baseline[factor] for factor in by if factor in study.baseline} for study in studies]
    baseline = baselines[0] if all(other == baselines[0] for other in baselines) else {}
    whole = pd.concat(parts, ignore_index=True)
    text = tables.comparison_table(whole, ["study", *(by or ["arm"])], metric, baseline, format)
    lines = []
    for study, trials in chosen:
        found = _choices(study, trials, root, asked and by, given, where, since)
        caveats = answers.caveats(found, study.metric) + history.renamed(trials, metric)
        lines += [f"{study.name}: {line}" for line in caveats]
    if format == "json":
        return json.dumps({"metric": metric, "chosen_after_the_fact": lines, "arms": json.loads(text)}, indent=2)
    notes.append(tables.interval_note(metric, bool(baseline), bool(whole["erratic"].any())))
    return "\n\n".join([tables.noted(text, lines, format), *(notes if format in ("terminal", "markdown") else [])])


def _own_metric(studies: list[Study]) -> str:
    if len({study.metric for study in studies}) > 1:
        own = listed(f"{study.name} by {study.metric}" for study in studies)
        raise StudyError(f"the studies are compared by different metrics ({own}): name one with --metric")
    return studies[0].metric


def executions(study: str, root: str | Path = "mlruns", metric: str | None = None, format: str = "terminal") -> str:
    """A study's executions, and what changed from the last but one to the last; as CSV or JSON the executions only.

    Means are those of when each of the two ended, over the arms and seeds whose trials both had then.

    Raises:
        StudyError: there is no such study or metric.
    """
    from analysis.estimate import arms, columns, comparison, history

    found = load.executions(study, root)
    parts = [tables.frame_table(history.listing(found), format)]
    if len(found) == 1 or format in tables.PLAIN:
        return parts[0]
    old, new = found[-2:]
    before, after = set(old.keys), set(new.keys)
    parts += [f"{len(after - before)} trials added, {len(before - after)} removed, {len(after & before)} kept"]
    changes = history.config_changes(*(load.text(each, "study.yaml", root) for each in (old, new)))
    parts += ["the config is the same" if changes.empty else tables.frame_table(changes, format)]
    by = [factor for factor in new.study.factors if factor in old.study.factors]
    frames = [load.trials(study, root, each.arms, each.end_time) for each in (old, new)]
    shared = history.shared(frames[0], frames[1], by) if all(len(frame) for frame in frames) else frames
    if all(len(frame) for frame in shared):
        metric = metric or new.study.metric
        means = [
            comparison.comparison(
                columns.added(frame, metric, study, root), by, metric, {}, arms.averaged_over(each.study, by)
            )
            for each, frame in zip((old, new), shared, strict=True)
        ]
        changed = tables.frame_table(history.mean_changes(means[0], means[1], by), format)
        parts += [f"{tables.words(metric)}, mean over the seeds that both had", changed]
    return "\n\n".join(parts)


def factor_named(name: str, factors, of: str = "the study") -> str:
    """The factor that a name, or its last part, stands for.

    Raises:
        StudyError: there is none, or several.
    """
    matches = [factor for factor in factors if name in (factor, factor.rpartition(".")[2])]
    if len(matches) != 1:
        raise StudyError(f"--by {name}: expected factors of {of}: {listed(factors) or 'there are none'}")
    return matches[0]


if __name__ == "__main__":
    sys.exit(main())
