"""The sections of a report: a function each, one table of them."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis import load
from analysis.estimate import arms, dynamics, foretell
from analysis.estimate import comparison as estimates
from analysis.estimate.foretell import LEAST_ARMS
from analysis.estimate.measure import measure
from analysis.estimate.tuning import extended, rate_curve, rate_range, tuned, tuning_curve
from analysis.show import answers, plots, style, tables
from analysis.show.foretelling import MOST, SEED, foretell_table, foretell_words
from analysis.show.tables import words
from studies.contract import Tag
from studies.record import Space, Study, short

MOST_PANELS = 12
MOST_ARMS = 60
"""Of a figure's panels and a page's arms: where there are more, the factors are shown one by one."""

ARMS_IN_DETAIL = 5
MAPS = 6
"""Arms whose weights are shown, and maps of two factors each."""

RATE, SPARSITY = "optimizer.learning_rate", "pruning.sparsity"

FAILURE = "A trial that diverged or timed out scores chance, or what the worst that finished does if that is worse."


@dataclass(frozen=True)
class Block:
    """A piece of a section.

    Attributes:
        kind: `text`; `code`; `pairs` of names and values; `table`, in HTML; `figure`, in SVG.
        fold: if it is closed at first, what to press to open it.
        name: of a figure's file.
    """

    kind: str
    body: Any
    caption: str = ""
    fold: str = ""
    name: str = ""


@dataclass
class Section:
    """A part of the page under a heading; `name` is its address in the page."""

    name: str
    title: str
    blocks: list[Block] = field(default_factory=list)

    def text(self, words: str) -> None:
        """Add a paragraph."""
        self.blocks.append(Block("text", words))

    def table(self, html: str, caption: str = "", fold: str = "") -> None:
        """Add a table that `tables` rendered as HTML."""
        self.blocks.append(Block("table", html, caption, fold))

    def figure(self, name: str, figure: Figure, caption: str) -> None:
        """Add a figure, which is kept as a file of that name too."""
        self.blocks.append(Block("figure", style.svg(figure), caption, name=name))


@dataclass(frozen=True)
class View:
    """Arms that are shown together: all of a study, or the levels of some factors, averaged over the others."""

    arms: plots.Arms
    compared: pd.DataFrame
    units: pd.DataFrame
    suffix: str = ""


@dataclass(frozen=True)
class Findings:
    """What a report is made of.

    Attributes:
        execution: from `analysis.load`.
        trials: those of its trials that have ended, one at least.
        root: the store.
    """

    execution: load.Execution
    trials: pd.DataFrame
    root: str | Path

    @property
    def study(self) -> Study:
        """The study."""
        return self.execution.study

    @property
    def by(self) -> list[str]:
        """Its factors, but those that a seed's value is the mean over."""
        return self.study.compared

    @cached_property
    def compared(self) -> pd.DataFrame:
        """All arms, by the study's metric."""
        over = arms.averaged_over(self.study, self.by)
        return estimates.comparison(self.trials, self.by, self.study.metric, self.study.baseline, over)

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """The epochs of all trials."""
        return load.epochs(self.study.name, self.root, list(self.trials["key"]))

    @cached_property
    def dimensions(self) -> list[list[str]]:
        """The factors that have several levels, those that move together as one."""
        together = [list(group) for group in self.study.zip]
        alone = [[factor] for factor in self.by if not any(factor in group for group in together)]
        order = sorted(together + alone, key=lambda factors: self.by.index(factors[0]))
        return [factors for factors in order if self.levels(factors) > 1]

    def levels(self, factors: list[str]) -> int:
        """How many combinations of the factors' levels there are."""
        return len(arms.arms_of(self.compared, factors)[1])

    @cached_property
    def views(self) -> list[View]:
        """One of all arms; one a factor if they are too many."""
        colour, panels = split(self.dimensions, self.study.baseline)
        if len(self.compared) <= MOST_ARMS and self.levels(panels) <= MOST_PANELS:
            return [self.view(colour, panels)]
        return [self.view(d, [], f"_{d[0].replace('.', '_')}") for d in self.dimensions]

    def view(self, colour: list[str], panels: list[str], suffix: str = "") -> View:
        """The arms that factors make, told apart by colour and panel."""
        by = panels + colour
        over = arms.averaged_over(self.study, by)
        compared = estimates.comparison(self.trials, by, self.study.metric, self.study.baseline, over)
        units = estimates.by_seed(self.trials, by, self.study.metric, over)
        return View(plots.Arms(compared, colour, panels), compared, units, suffix)

    @cached_property
    def detailed(self) -> list[dict]:
        """Arms whose weights are shown: evenly from the best to the worst, the best one's baseline among them."""
        sign = measure(self.study.metric).sign
        failed = self.compared["standing"] == "failed"
        ranked = self.compared.assign(failed=failed, rank=-sign * self.compared["mean"]).dropna(subset="mean")
        ranked = ranked.sort_values(["failed", "rank"], kind="stable")
        ranking = [dict(zip(self.by, arm, strict=True)) for arm in arms.arms_of(ranked, self.by)[1]]
        some = plots.some(ranking, ARMS_IN_DETAIL)
        if ranking and self.study.baseline:
            baseline = {f: arms.as_level(self.study.baseline.get(f, level)) for f, level in ranking[0].items()}
            if baseline in ranking and baseline not in some:
                some = sorted([some[0], *some[2:], baseline], key=ranking.index)
        return some


def split(dimensions: list[list[str]], baseline: dict) -> tuple[list[str], list[str]]:
    """The factors told apart by colour, the one that has the baseline or else the first, and those told by panel."""
    compared = [d for d in dimensions if any(factor in baseline for factor in d)]
    colour = (compared if len(compared) == 1 else dimensions)[:1]
    return [f for d in colour for f in d], [f for d in dimensions if d not in colour for f in d]


def comparison(found: Findings) -> Section:
    """Every arm with its interval, and the table behind it."""
    study, section = found.study, Section("comparison", "Comparison")
    averaged = len(found.views) > 1
    for view in found.views:
        over = f", averaged over {_rest(found, view.arms.by)} within a seed" if averaged else ""
        intervals = tables.interval_note(study.metric, False, bool(view.compared["erratic"].any()))
        section.figure(
            f"comparison{view.suffix}",
            plots.comparison(view.arms, view.compared, view.units, study.metric),
            f"{words(study.metric)}{_by(view.arms.by)}{over}. {intervals} {FAILURE}{_left_out(found, view.arms.by)}",
        )
    best = "best: of the arms with the same other levels; " if study.baseline else "best: of all; "
    notes = (
        f"{best}tied: a paired t test, Holm-adjusted over all pairs of arms, does not find it worse at 5 %; untested: "
        "too few seeds or no spread; all by the seeds that these arms share. The best of many is chosen for its luck "
        "too: expect its lead to shrink on fresh seeds."
    )
    for view in found.views if averaged else []:
        section.table(_table(found, view.compared, view.arms.by))
    whole = _table(found, found.compared, found.by)
    section.table(
        whole, notes if len(found.compared) > 1 else "", f"All {len(found.compared)} arms" if averaged else ""
    )
    if study.metric.startswith("val_"):
        metric = study.metric.replace("val_", "test_")
        tested = estimates.comparison(found.trials, found.by, metric, study.baseline)
        if tested["mean"].notna().any():
            table = tables.comparison_table(tested, found.by, metric, study.baseline, "html")
            section.table(
                table,
                "Test data is read once a trial, at its end; with early stopping, by the weights of the best epoch.",
                f"The same by {words(metric)}",
            )
    return section


def _table(found, compared, by) -> str:
    return tables.comparison_table(compared, by, found.study.metric, found.study.baseline, "html")


def interactions(found: Findings) -> Section:
    """The means over two factors as maps: over a third as small multiples, of more by pairs."""
    section, metric = Section("factors", "Factors together"), found.study.metric
    every = sorted(found.dimensions, key=found.levels, reverse=True)
    if len(every) in (2, 3):
        rows, columns, *others = every
        panels = [factor for d in others for factor in d]
        caption = f"Mean {words(metric)} by {_and(rows)} and {_and(columns)}"
        figure = plots.heat(found.compared, rows, columns, metric, panels)
        section.figure("factors", figure, caption + (f", a map for each {_and(panels)}." if panels else "."))
    for rows, columns in list(itertools.combinations(every, 2))[:MAPS] if len(every) > 3 else []:
        over = arms.averaged_over(found.study, rows + columns)
        compared = estimates.comparison(found.trials, rows + columns, metric, {}, over)
        section.figure(
            f"factors_{rows[0].replace('.', '_')}_{columns[0].replace('.', '_')}",
            plots.heat(compared, rows, columns, metric),
            f"Mean {words(metric)} by {_and(rows)} and {_and(columns)}, averaged over the other factors."
            f"{_left_out(found, rows + columns)}",
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
            section.figure(
                f"{metric}{view.suffix}",
                plots.curves(view.arms, frame, metric),
                f"{words(metric)} by epoch: mean over seeds, and its 95 % t interval at each epoch alone. "
                f"{FAILURE[:-1]} from then on; one that stopped early keeps its last value.{_left_out(found, by)}",
            )
    return section


def weights(found: Findings) -> Section:
    """Distributions, norms, updates and gradients by layer and epoch; early warnings."""
    section = Section("weights", "Weights")
    trials, detailed = found.trials, found.detailed
    number, every = arms.arms_of(trials, found.by)
    shown = {tuple(arms.as_level(level) for level in arm.values()) for arm in detailed}
    mine = trials[[every[n] in shown for n in number]]
    keys = list(mine["key"])
    layers = load.layers(found.study.name, found.root, keys, plots.LAYER_STATISTICS)
    if len(layers):
        spaced = "Arms are evenly spaced from best to worst. " if len(found.compared) > len(detailed) else ""
        if len(counts := load.densities(found.study.name, found.root, keys)):
            section.figure(
                "weights",
                plots.ridgelines(detailed, dynamics.densities(mine, counts, found.by)),
                f"{spaced}Distribution of a kernel's weights, from the first epoch (top) to the last, all seeds' "
                "together.",
            )
        section.figure(
            "layers",
            plots.layer_maps(detailed, dynamics.medians(mine, layers, found.by, list(plots.LAYER_STATISTICS))),
            f"{spaced}Each kernel by layer (input at the top) and epoch: norm, mean update ratio and gradient norm of "
            "its steps; medians over seeds. Orange is exactly zero: nothing reaches these weights. Blank is not finite "
            "or after the end. Norms are not comparable across layers that are normalized or rescaled.",
        )
    elif len(found.epochs):
        section.text("No statistics of weights were kept: they are with diagnostics=standard.")
    else:
        section.text("No trial got as far as an epoch.")
    given = dynamics.warnings(trials, found.study.metric)
    if len(given):
        section.table(
            tables.warning_table(given, found.study.metric, "html"),
            "Early warnings are signs that a trial goes wrong. Shown: at which epoch they were first seen, by the "
            "median, and what became of the trials with and without them, over all arms.",
        )
    else:
        section.text("No trial gave an early warning.")
    return section


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
        section.table(foretell_table(shown, study.metric, "html"), " ".join(notes[len(at) - 1 :]))
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
            )
            section.table(tables.rate_table(ranges, found.by, "html"))
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
    section.figure(
        name,
        plots.sensitivity(plots.Arms(compared, colour, panels), compared, along, metric),
        f"{words(metric)} by {levels}, the mean {averaged}over seeds, with its 95 % t interval over seeds."
        + " What else is drawn differs from point to point." * (len(found.study.space) > 1),
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
        section.table(
            tables.failure_table(failed, found.by, "html"),
            f"{FAILURE} One that crashed has no score.",
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
        section.table(tables.tuning_table(chosen, found.by, list(study.nuisance), study.tuning_metric, "html", notes))
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
        section.figure(
            "tuning_curve",
            plots.tuning_curve(plots.Arms(curve, colour, panels), curve, study.tuning_metric),
            f"The best {words(study.tuning_metric)} that so many draws are expected to find (Dodge et al. 2019), from "
            f"the means over the tuning seeds of the {study.draws} draws; those of an extension are left out.",
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


SECTIONS = (comparison, pruned, interactions, training, weights, foretelling, rates, failures, tuning, reproduction)
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
