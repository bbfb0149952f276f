"""The sections of a report: a function each, one table of them."""

import itertools
from collections.abc import Iterable
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from analysis import load
from analysis.estimate import arms, dynamics, foretell
from analysis.estimate import comparison as estimates
from analysis.estimate.foretell import LEAST_ARMS
from analysis.estimate.tuning import extended, rate_curve, rate_range, tuned, tuning_curve
from analysis.show import alts, answers, charts, plots, tables
from analysis.show.findings import MOST_PANELS, Findings, split
from analysis.show.foretelling import MOST, SEED, foretell_table, foretell_words
from analysis.show.page import Block, Section
from analysis.show.tables import words
from studies.contract import Tag
from studies.record import Space, arm_label, short

MAPS = 6
"""Maps of two factors each."""

RATE, SPARSITY = "optimizer.learning_rate", "pruning.sparsity"

FAILURE = "A trial that diverged or timed out scores chance, or what the worst that finished does if that is worse."


def comparison(found: Findings) -> Section:
    """Every arm with its interval, and the table behind it."""
    study, section = found.study, Section("comparison", "Comparison")
    averaged, guess = len(found.views) > 1, estimates.guess(found.trials, study.metric)
    for view in found.views:
        over = f", averaged over {_rest(found, view.arms.by)} within a seed" if averaged else ""
        intervals = tables.interval_note(study.metric, False, bool(view.compared["erratic"].any()))
        section.figure(
            f"comparison{view.suffix}",
            plots.comparison(view.arms, view.compared, view.units, study.metric, guess),
            f"{words(study.metric)}{_by(view.arms.by)}{over}. {intervals} {FAILURE}{_left_out(found, view.arms.by)}",
            alts.comparison(view.arms, view.compared, study.metric),
            charts.dots(view.arms, view.compared, view.units, study.metric, guess, found.keys(view.arms.by)),
        )
    best = "best: of the arms with the same other levels; " if study.baseline else "best: of all; "
    notes = (
        f"{best}tied: a paired t test, Holm-adjusted over all pairs of arms, does not find it worse at 5 %; untested: "
        "too few seeds or no spread; all by the seeds that these arms share. The best of many is chosen for its luck "
        "too: expect its lead to shrink on fresh seeds."
    )
    for view in found.views if averaged else []:
        _table(section, found, view.compared, view.arms.by)
    fold = f"All {len(found.compared)} arms" if averaged else ""
    _table(section, found, found.compared, found.by, notes if len(found.compared) > 1 else "", fold)
    if study.metric.startswith("val_"):
        metric = study.metric.replace("val_", "test_")
        tested = estimates.comparison(found.trials, found.by, metric, study.baseline)
        if tested["mean"].notna().any():
            table = tables.comparison_table(tested, found.by, metric, study.baseline, "html")
            section.table(
                table,
                f"{words(metric)}{_by(found.by)}",
                "Test data is read once a trial, at its end; with early stopping, by the weights of the best epoch.",
                f"The same by {words(metric)}",
                len(found.by),
            )
    return section


def _table(section, found, compared, by, notes="", fold="") -> None:
    html = tables.comparison_table(compared, by, found.study.metric, found.study.baseline, "html")
    section.table(html, f"{words(found.study.metric)}{_by(by)}", notes, fold, len(by))


def interactions(found: Findings) -> Section:
    """The means over two factors as maps: over a third as small multiples, of more by pairs."""
    section, metric = Section("factors", "Factors together"), found.study.metric
    every = sorted(found.dimensions, key=found.levels, reverse=True)
    if len(every) in (2, 3):
        rows, columns, *others = every
        panels = [factor for d in others for factor in d]
        caption = f"Mean {words(metric)} by {_and(rows)} and {_and(columns)}"
        figure = plots.heat(found.compared, rows, columns, metric, panels)
        section.figure(
            "factors",
            figure,
            caption + (f", a map for each {_and(panels)}." if panels else "."),
            alts.heat(found.compared, found.by, metric),
        )
    for rows, columns in list(itertools.combinations(every, 2))[:MAPS] if len(every) > 3 else []:
        over = arms.averaged_over(found.study, rows + columns)
        compared = estimates.comparison(found.trials, rows + columns, metric, {}, over)
        section.figure(
            f"factors_{rows[0].replace('.', '_')}_{columns[0].replace('.', '_')}",
            plots.heat(compared, rows, columns, metric),
            f"Mean {words(metric)} by {_and(rows)} and {_and(columns)}, averaged over the other factors."
            f"{_left_out(found, rows + columns)}",
            alts.heat(compared, rows + columns, metric),
        )
    return section


def training(found: Findings) -> Section:
    """Curves with bands, by arm."""
    section = Section("training", "Training")
    metrics = [metric for metric in ("val_accuracy", "running_loss") if metric in found.epochs]
    if found.study.metric in found.epochs and found.study.metric not in metrics:
        metrics.insert(0, found.study.metric)
    for metric, view in itertools.product(metrics, found.views):
        by = view.arms.by
        trials = arms.comparable(found.trials, by, arms.averaged_over(found.study, by))
        frame = dynamics.curves(trials, found.epochs, by, metric)
        if frame["mean"].notna().any():
            guess, ends = estimates.guess(trials, metric), dynamics.ends(trials, by)
            section.figure(
                f"{metric}{view.suffix}",
                plots.curves(view.arms, frame, metric, guess, ends),
                f"{words(metric)} by epoch: mean over seeds, and its 95 % t interval at each epoch alone. "
                f"{FAILURE[:-1]} from then on; one that stopped early keeps its last value.{_left_out(found, by)}",
                alts.curves(view.arms, frame, metric),
                charts.lines(view.arms, frame, "epoch", metric, guess, ends),
            )
    return section


def weights(found: Findings) -> Section:
    """Distributions, norms, updates and gradients by layer and epoch, of arms alike in all else; early warnings."""
    section = Section("weights", "Weights")
    if len(found.layers) and found.detailed:
        medians = dynamics.medians(found.trials, found.layers, found.by, list(plots.LAYER_STATISTICS))
        _explored(section, found, medians)
        _drawn(section, found, medians)
    elif len(found.epochs):
        section.text("No statistics of weights were kept: they are with diagnostics=standard.")
    else:
        section.text("No trial got as far as an epoch.")
    _warned(section, found)
    return section


def _explored(section, found, medians) -> None:
    """A chart of every kernel, for those who have scripts."""
    at = f" The arms in a chart are alike in {_and(found.alike[1])}." if found.alike[1] else ""
    section.chart(
        "kernels",
        charts.kernels(found.weighed, medians, plots.LAYER_STATISTICS),
        f"A kernel by epoch: norm, mean update ratio and gradient norm of its steps; medians over seeds.{at}",
        "Statistics of one kernel by epoch, a line an arm",
    )


def _drawn(section, found, medians) -> None:
    """Some arms' weights, all of them with the same levels of what is not compared."""
    detailed, others = found.detailed, found.alike[1]
    number, every = arms.arms_of(found.trials, found.by)
    shown = {tuple(arms.as_level(level) for level in arm.values()) for arm in detailed}
    mine = found.trials[[every[n] in shown for n in number]]
    at = arm_label({factor: detailed[0][factor] for factor in others}, whole=True) if detailed and others else ""
    alike = f"At {at}, where arms differ most. " if at else ""
    rivals = [arm for arm in every if all(arm[found.by.index(f)] == arms.as_level(detailed[0][f]) for f in others)]
    spaced = f"{alike}{'Arms are evenly spaced from best to worst. ' if len(rivals) > len(detailed) else ''}"
    named = "; ".join(arm_label(arm) or "all" for arm in detailed)
    if len(counts := load.densities(found.study.name, found.root, list(mine["key"]))):
        section.figure(
            "weights",
            plots.ridgelines(detailed, dynamics.densities(mine, plots.ridged(counts), found.by)),
            f"{spaced}Distribution of a kernel's weights, from the first epoch (top) to the last, all seeds' together.",
            f"How the weights' distributions move from the first epoch to the last, of {named}.",
        )
    table = medians[medians["epoch"] == medians["epoch"].max()]
    section.figure(
        "layers",
        plots.layer_maps(detailed, medians),
        f"{spaced}Each kernel by layer (input at the top) and epoch: norm, mean update ratio and gradient norm of "
        "its steps; medians over seeds. Orange is exactly zero: nothing reaches these weights. Blank is not finite "
        "or after the end. Norms are not comparable across layers that are normalized or rescaled.",
        f"Kernels by layer and epoch, of {named}. {alts.reach(detailed, table, found.by)}",
    )


def _warned(section, found) -> None:
    """What became of trials with early warnings: over all arms, and within each."""
    metric = found.study.metric
    given = dynamics.warnings(found.trials, metric)
    if not len(given):
        section.text("No trial gave an early warning.")
        return
    section.table(
        tables.warning_table(given, metric, "html"),
        "Early warnings, over all arms",
        "Early warnings are signs that a trial goes wrong. Shown: at which epoch they were first seen, by the median, "
        "and what became of the trials with and without them. Over all arms that tells mostly which arms they are of.",
    )
    if len(found.compared) > 1:
        within = dynamics.warnings_within(found.trials, found.by, metric)
        some = int((within["trials"] < within["of"]).sum())
        section.table(
            tables.warning_table(within, metric, "html", found.by),
            "Early warnings, within arms",
            "Trials of one arm differ by their seed alone. "
            + (
                f"{some} of {len(within)} rows are of a warning that some of an arm's trials have and others not: "
                "these tell whether it is the warning that goes with a worse end."
                if some
                else "Every warning is of all of an arm's trials, so none tells good seeds from bad ones."
            ),
            f"The same within each arm ({len(within)} rows)",
            len(found.by),
        )


def foretelling(found: Findings) -> Section:
    """What, seen early, foretells how trials end; nothing of so few arms that there are no intervals."""
    study, section = found.study, Section("foretelling", "What foretells the end")
    at = foretell.observed(found.trials, study.name, found.root)[:2] if len(found.compared) >= LEAST_ARMS else []
    if at:
        layers, rng = load.layers(study.name, found.root, found.trials["key"], epochs=at), np.random.default_rng(SEED)
        shown = foretell.foretold(found.trials, found.epochs, layers, found.by, study.metric, at, rng, MOST)
        counts = foretell.counts(found.trials, found.epochs, found.by, study.metric, at)
        first, *notes = foretell_words(shown, counts, study.metric)
        section.text(" ".join([first, *notes[: len(at) - 1]]))
        section.table(
            foretell_table(shown, study.metric, "html"),
            f"What foretells {words(study.metric)}",
            " ".join(notes[len(at) - 1 :]),
            heads=2,
        )
    return section


def rates(found: Findings) -> Section:
    """Sensitivity to the learning rate, where it varies."""
    study, section = found.study, Section("rates", "Learning rate")
    if "loss_by_rate" in study.figures:
        curve = rate_curve(found.trials, found.epochs, found.by)
        ranges = rate_range(curve, found.by)
        if len(curve):
            section.figure(
                "loss_by_rate",
                plots.loss_by_rate(plots.Arms(ranges, found.by), curve, ranges),
                "Range test: the training loss while the learning rate rises, a line a seed (Smith 2017, section 3.3).",
                alts.ranges(ranges, found.by),
            )
            section.table(tables.rate_table(ranges, found.by, "html"), "Rates of the range test", heads=len(found.by))
    _along(section, found, RATE, "sensitivity")
    return section


def pruned(found: Findings) -> Section:
    """How the metric depends on how much is pruned, where that varies."""
    section = Section("pruned", "Sparsity")
    _along(section, found, SPARSITY, "sparsity")
    return section


def _along(section, found, factor, name) -> None:
    if [factor] in found.dimensions and found.trials[factor].map(lambda level: isinstance(level, int | float)).all():
        _sensitivity(section, found, found.trials, found.study.metric, name, factor)


def _sensitivity(section, found, trials, metric, name, along=RATE) -> None:
    """The metric along a factor of numbers, by the others; averaged over those that are nuisance, or too many.

    Drawn ones are not averaged over: they have one combination at each rate.
    """
    colour, panels = split([d for d in found.dimensions if d != [along]], found.study.baseline)
    if found.levels(panels) > MOST_PANELS:
        panels = []
    by, others = [*panels, *colour, along], () if found.study.draws else found.study.nuisance
    over = [f for f in (*arms.averaged_over(found.study, by), *others) if f in trials and f not in by]
    compared = estimates.comparison(trials, by, metric, {}, over)
    levels = words(short(along, [along]))
    averaged = f"averaged over {_and(over)} and " if over else ""
    if compared["mean"].isna().all():
        section.text(f"Nothing to show by {levels}: no combination of {_and(over)} was tried with all arms.")
        return
    told = plots.Arms(compared, colour, panels)
    section.figure(
        name,
        plots.sensitivity(told, compared, along, metric),
        f"{words(metric)} by {levels}, the mean {averaged}over seeds, with its 95 % t interval over seeds."
        + " What else is drawn differs from point to point." * (len(found.study.space) > 1),
        alts.along(told, compared, along, metric),
        charts.lines(told, compared, along, metric, estimates.guess(trials, metric)),
    )


def failures(found: Findings) -> Section:
    """What failed, and how."""
    section = Section("failures", "Failures")
    failed = estimates.failures(found.trials, found.by)
    missing = len(found.execution.keys) - len(found.trials)
    count = int(failed["trials"].sum())
    section.text(
        (f"{count} of {_trials(found)} did not finish." if count else f"{_trials(found)} finished, none failed.")
        + (f" {missing} more have not ended yet: the same command goes on with them." if missing else "")
    )
    if count:
        reasons = found.reasons
        lost = found.trials[found.trials["status"] != "finished"]
        first = [reasons.get(part["key"].iloc[0], "") for _, part in arms.grouped(lost, [*found.by, "status"])]
        section.table(
            tables.failure_table(failed.assign(error=first), found.by, "html"),
            "Trials that did not finish, and why",
            f"{FAILURE} One that crashed has no score. Reasons are of the first of the trials.",
            heads=len(found.by),
        )
    return section


def tuning(found: Findings) -> Section:
    """How nuisance factors were tuned."""
    study, section = found.study, Section("tuning", "Tuning")
    trials = load.tuning_trials(found.execution, found.root) if study.nuisance else pd.DataFrame()
    if len(trials):
        chosen = tuned(trials, found.by, study.nuisance, study.tuning_metric, study.space)
        have = " that it has" if chosen[list(study.nuisance)].isna().any(axis=None) else ""
        ranges = (f"{f} from {s if isinstance(s, Space) else tables.level_text(s)}" for f, s in study.space.items())
        tried = f"the same {study.draws} draws" if study.draws else "every combination"
        section.text(
            f"Each arm was trained at {tried} of {_and(study.nuisance)}{have} at seeds "
            f"{', '.join(map(str, study.tuning_seeds))}; the best by {words(study.tuning_metric)} was then measured "
            f"at the study's own seeds.{f' Drawn were {_and(ranges)}.' if study.draws else ''}"
        )
        notes = tables.tuning_notes(trials, extended(trials, study.space))
        table = tables.tuning_table(chosen, found.by, list(study.nuisance), study.tuning_metric, "html", notes)
        section.table(table, "What tuning chose", heads=len(found.by))
        if study.draws > 1:
            _tuning_curve(section, found, trials)
        if RATE in study.nuisance:
            _sensitivity(section, found, trials, study.tuning_metric, "tuning")
    return section


def _tuning_curve(section, found, trials) -> None:
    """What a budget of draws buys each arm."""
    study, (colour, panels) = found.study, split(found.dimensions, found.study.baseline)
    curve = tuning_curve(trials, found.by, study.nuisance, study.tuning_metric)
    if len(curve) and found.levels(panels) <= MOST_PANELS:
        told = plots.Arms(curve, colour, panels)
        section.figure(
            "tuning_curve",
            plots.tuning_curve(told, curve, study.tuning_metric),
            f"The best {words(study.tuning_metric)} that so many draws are expected to find (Dodge et al. 2019), from "
            f"the means over the tuning seeds of the {study.draws} draws; those of an extension are left out.",
            f"The best {words(study.tuning_metric)} by the number of draws, a line an arm.",
            charts.lines(told, curve, "draws", study.tuning_metric, y="best"),
        )


def reproduction(found: Findings) -> Section:
    """How to get the same numbers."""
    section, tags = Section("reproduction", "How to reproduce it"), found.execution.tags
    commit = tags.get("mlflow.source.git.commit", "unknown")
    changed = ", with uncommitted changes" if tags.get("git.dirty") == "true" else ""
    versions = {name.removeprefix("version."): value for name, value in tags.items() if name.startswith("version.")}
    seconds = found.trials["seconds_total"].sum()
    key = "its study, arm and seed" if Tag.FITS in tags else "all that can change its numbers"
    pairs = {
        "command": tags.get("mlflow.source.name", "unknown"),
        "commit": commit + changed,
        "versions": ", ".join(f"{name} {value}" for name, value in sorted(versions.items())),
        "lock": tags.get("lock.hash", "unknown"),
        "machine": tags.get("machine", "unknown"),
        "started": _moment(found.execution.start_time),
        "ended": _moment(found.execution.end_time),
        "training": f"{seconds:.0f} s over all workers, {_trials(found)}",
        "design": f"hash {found.execution.hash}; a trial's key is the hash of {key}",
    }
    section.blocks.append(Block("pairs", list(pairs.items())))
    section.blocks.append(Block("code", load.text(found.execution, "study.yaml", found.root), fold="The whole config"))
    return section


def trials(found: Findings) -> Section:
    """A table of all trials, which a script makes, with a page for each."""
    section = Section("trials", "Trials")
    section.blocks.append(Block("trials", ""))
    return section


SECTIONS = (
    comparison,
    pruned,
    interactions,
    training,
    weights,
    foretelling,
    rates,
    failures,
    tuning,
    trials,
    reproduction,
)
"""A report's sections in their order; one without blocks is left out."""


def _moment(milliseconds: int | None) -> str:
    if milliseconds is None:
        return "not yet"
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _and(names: Iterable[str]) -> str:
    *first, last = list(names) or [""]
    return f"{', '.join(first)} and {last}" if first else last


def _trials(found: Findings) -> str:
    return f"{len(found.trials)} trial{'s' * (len(found.trials) > 1)}"


def _by(factors: list[str]) -> str:
    return f" by {_and(factors)}" if factors else ""


def _left_out(found: Findings, by: list[str]) -> str:
    """What an average by some factors leaves out, for the end of a caption."""
    over = arms.averaged_over(found.study, by)
    return "".join(f" {line}" for line in answers.left_out(*arms.left_out(found.trials, by, over), over))


def _rest(found: Findings, by: list[str]) -> str:
    return _and(factor for factor in found.by if factor not in by)
