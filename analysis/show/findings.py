"""What a report is made of: an execution's trials, compared, and how its arms are shown."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from analysis import load
from analysis.estimate import arms, dynamics
from analysis.estimate import comparison as estimates
from analysis.estimate.measure import measure
from analysis.show import plots
from studies.record import Study

MOST_PANELS = 12
MOST_ARMS = 60
"""Of a figure's panels and a page's arms: where there are more, the factors are shown one by one."""

ARMS_IN_DETAIL = 5
"""Arms whose weights are drawn."""

SHAPING = ("model", "data")
"""Groups of settings that change which layers a network has, or how large they are."""


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
    def layers(self) -> pd.DataFrame:
        """What is shown of the kernels of all trials."""
        return load.layers(self.study.name, self.root, list(self.trials["key"]), plots.LAYER_STATISTICS)

    @cached_property
    def reasons(self) -> dict[str, str]:
        """Why each trial that did not finish did not, by its key."""
        lost = self.trials[self.trials["status"] != "finished"]
        told = {row["key"]: row for row in dynamics.breakdowns(lost, self.epochs).to_dict("records")}
        return {
            row["key"]: reason(row["status"], row["error"], row["warning"], row["seconds_total"], told.get(row["key"]))
            for row in lost.to_dict("records")
        }

    def keys(self, by: list[str]) -> Callable[[tuple, int], str | None]:
        """A function from levels of some factors and a seed to the key of the one trial that has them."""
        number, levels = arms.arms_of(self.trials, by)
        found: dict[tuple, list[str]] = {}
        for n, seed, key in zip(number, self.trials["seed"], self.trials["key"], strict=True):
            found.setdefault((levels[n], int(seed)), []).append(key)
        return lambda arm, seed: keys[0] if len(keys := found.get((arm, int(seed)), [])) == 1 else None

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
    def alike(self) -> tuple[list[str], list[str]]:
        """The factors by which the arms' weights are compared, and those of which one combination is shown at a time.

        The former are not those that change the network's shape, if there are others.
        """
        shaping = [d for d in self.dimensions if any(factor.partition(".")[0] in SHAPING for factor in d)]
        colour, _ = split([d for d in self.dimensions if d not in shaping] or self.dimensions, self.study.baseline)
        return colour, [factor for d in self.dimensions for factor in d if factor not in colour]

    @cached_property
    def weighed(self) -> plots.Arms:
        """All arms, told apart so that those in a panel can be compared by their weights."""
        colour, others = self.alike
        return plots.Arms(self.compared, colour, others)

    @cached_property
    def detailed(self) -> list[dict]:
        """Arms whose weights are drawn: evenly from the best to the worst of those with the same levels of all else,
        at the levels where they differ most; the best one's baseline is among them.
        """
        sign = measure(self.study.metric).sign
        number, panels = arms.arms_of(self.compared, self.alike[1])
        spread = self.compared["mean"].groupby(number).std().fillna(0).reindex(range(len(panels)), fill_value=0)
        widest = len(panels) - 1 - int(spread[::-1].to_numpy().round(3).argmax()) if panels else 0
        failed = self.compared["standing"] == "failed"
        ranked = self.compared.assign(failed=failed, rank=-sign * self.compared["mean"])[number == widest]
        ranked = ranked.dropna(subset="mean").sort_values(["failed", "rank"], kind="stable")
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


def reason(status: str, error: str, warning: str, seconds: float, breakdown: dict | None) -> str:
    """Why a trial did not finish, in a line.

    Args:
        breakdown: a row of `dynamics.breakdowns`.
    """
    if status == "crashed":
        return error.partition("\n")[0]
    if status == "timeout":
        return f"out of time after {seconds:.0f} s"
    if not breakdown:
        return ""
    of = {"running_loss": "training loss", "val_loss": "validation loss"}.get(breakdown["loss"], "loss")
    last = breakdown["last"]
    before = f"; the validation loss was {last:.3g} after epoch {breakdown['before']:g}" if last == last else ""
    sign = next((each for each in warning.split("; ") if each and not each.startswith("not finite")), "")
    return f"{of} not finite in epoch {breakdown['epoch']:g}{before}{f'; first sign: {sign}' if sign else ''}"
