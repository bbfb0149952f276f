"""Claims about arms that are alike by construction: how often the rule that decides a claim is wrong of them.

`make validate` puts the shares into docs/numbers.md. Accuracies are in whole images of 360, stored as float32; times
are epochs to a target, a fifth of them cut off at the budget.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import claims
from analysis.estimate import verdicts
from analysis.estimate.verdicts import Evidence
from studies.contract import Tag
from studies.design.claim import APART, read_claim
from studies.design.controls import SEEDS
from studies.record import EpochRecord, Result, Study, Trial
from studies.store import writer

LOOKS, IMAGES, BUDGET, TARGET = (6, 12, 20), 360, 10, 0.9
CONTEXTS = ("a", "b", "c", "d")
NAMES = ("one", "other")


@dataclass(frozen=True)
class Case:
    """A kind of claim.

    Attributes:
        estimand, measure, direction, kind: as a card has them; the margin is no effect.
        contexts: what it must hold across.
        failing: the share of trials that diverge.
    """

    estimand: str
    measure: str
    direction: str
    kind: str = "universal"
    contexts: tuple[str, ...] = CONTEXTS[:1]
    failing: float = 0.0
    looks: tuple[int, ...] = LOOKS

    def study(self, name: str = "alike") -> Study:
        """A study of two arms, in each context."""
        factors: dict[str, tuple] = {"dataset": self.contexts, "arm": NAMES}
        hypothesis = {
            "estimand": self.estimand,
            "measure": self.measure,
            "of": {"arm": NAMES[0]},
            "against": {"arm": NAMES[1]},
            "direction": self.direction,
            "margin": 1.0 if self.estimand == "ratio" else 0.0,
            "why_margin": "any effect is one",
        }
        if self.measure.endswith("target"):
            hypothesis["target"] = TARGET
        card = {"id": name, "version": 1, "quote": "One is better.", "kind": self.kind, "hypothesis": hypothesis}
        claim = read_claim(card | {"decision": {"across": ["dataset"]}}, factors, "full")
        return Study(
            name, "?", factors, tuple(range(self.looks[-1])), {}, "val_accuracy", looks=self.looks, claim=claim
        )


CASES = {
    "difference of accuracies": Case("difference", "val_accuracy", "above"),
    "difference, where one trial in five fails": Case("difference", "val_accuracy", "above", failing=0.2),
    "ratio of losses": Case("ratio", "val_loss", "below"),
    "ratio of times to a target, a fifth cut off": Case("ratio", "time_to_target", "below"),
    "difference, in all of four contexts": Case("difference", "val_accuracy", "above", contexts=CONTEXTS),
    "difference, in any of four contexts": Case("difference", "val_accuracy", "above", "existential", CONTEXTS),
}


def results(rng: np.random.Generator, trials: list[Trial], failing: float, apart: float) -> list[Result]:
    """What trials come to whose numbers are drawn alike, but for what they share by seed.

    Args:
        failing: the share that diverges.
        apart: how far the first arm is ahead, in the sd of either.
    """
    keys, seeds = [trial.key for trial in trials], np.array([trial.seed for trial in trials])
    shared = dict(zip(np.unique(seeds), rng.normal(size=len(np.unique(seeds))), strict=True))
    luck = np.array([shared[seed] for seed in seeds]) + rng.normal(size=len(seeds))
    luck += [apart * (trial.arm["arm"] == NAMES[0]) for trial in trials]
    failed = rng.random(len(seeds)) < failing
    accuracies = np.round(np.clip(0.95 + 0.007 * luck, 0, 1) * IMAGES) / IMAGES
    return [
        Result(
            key,
            "diverged" if bad else "finished",
            BUDGET,
            val_loss=np.nan if bad else float(np.float32(np.exp(0.3 * z - 1))),
            val_accuracy=np.nan if bad else float(np.float32(accuracy)),
            classes=10,
            seconds_total=1.0,
        )
        for key, accuracy, z, bad in zip(keys, accuracies, luck, failed, strict=True)
    ]


def courses(rng: np.random.Generator, trials: list[Trial]) -> dict[str, list[EpochRecord]]:
    """Validation accuracies by epoch that cross the target at lognormal times."""
    times = np.exp(np.log(0.6 * BUDGET) + 0.6 * rng.normal(size=len(trials)))
    return {
        trial.key: [
            EpochRecord(trial.key, e, e, 0.1, np.nan, np.nan, np.nan, float(np.float32(TARGET + 0.01 * (e - at))), 1.0)
            for e in range(BUDGET + 1)
        ]
        for trial, at in zip(trials, times, strict=True)
    }


def trials_of(study: Study) -> tuple[list[Trial], list[Trial]]:
    """A study's trials, and its negative control's: the other arm at other seeds."""
    made = {
        role: [
            Trial(
                f"{study.name}-{context}-{arm}-{seed}",
                study.name,
                role,
                {"dataset": context, "arm": arm},
                seed,
                {},
                (),
                "",
            )
            for context in study.factors["dataset"]
            for arm in arms
            for seed in seeds
        ]
        for role, arms, seeds in (
            ("scientific", NAMES, study.seeds),
            ("control", NAMES[1:], [seed + APART for seed in study.seeds[:SEEDS]]),
        )
    }
    return made["scientific"], made["control"]


def by_frames(case: Case, rng: np.random.Generator, studies: int, apart: float = 0.0) -> list[str]:
    """The verdicts on such studies by their frames alone, and no store.

    Args:
        apart: as in `results`.
    """
    study, found = case.study(), []
    trials, control = trials_of(study)
    every = [*trials, *control]
    base = pd.DataFrame([trial.arm | {"seed": trial.seed} for trial in every])
    names = ["key", "status", "epochs", "val_loss", "val_accuracy", "classes"]
    for _ in range(studies):
        ended = results(rng, every, case.failing, apart)
        frame = base.join(pd.DataFrame([[getattr(result, name) for name in names] for result in ended], columns=names))
        epochs = None
        if case.measure.endswith("target"):
            rows = [record for course in courses(rng, every).values() for record in course]
            epochs = pd.DataFrame({n: [getattr(r, n) for r in rows] for n in ("key", "epoch", "val_accuracy")})
            epochs = epochs.assign(examples=epochs["epoch"], seconds=1.0)
        negative = frame[len(trials) :].assign(seed=lambda part: part["seed"] - APART)
        evidence = Evidence(frame[: len(trials)], epochs, negative=negative)
        found.append(verdicts.verdict(study, evidence, len(trials) // len(study.seeds)).verdict)
    return found


def by_board(case: Case, rng: np.random.Generator, studies: int, root: Path, apart: float = 0.0) -> list[dict]:
    """The board's rows of such studies, written by the store's own writer and judged look by look as the driver does.

    Args:
        root: the folder of a store, which has none of them yet.
        apart: as in `results`.
    """
    for number in range(studies):
        study = case.study(f"alike_{number}")
        trials, control = trials_of(study)
        every = [*trials, *control]
        ended = {result.key: result for result in results(rng, every, case.failing, apart)}
        epochs = courses(rng, every) if case.measure.endswith("target") else {}
        _written(root, study, trials, control, ended, epochs)
    rows = {row["name"]: row for row in claims.rows(root)}
    return [rows[f"alike_{number}"] for number in range(studies)]


def _written(root, study, trials, control, ended, epochs) -> None:
    """One study in a store, up to the look at which it is decided."""
    execution = writer.Execution(root, study, trials, "study: alike\n", provenance={Tag.SETTINGS: "[]"})
    controls, before = {"negative": {trial.key: trial.arm for trial in control}}, 0
    for trial in control:
        execution.write(trial, epochs.get(trial.key, []), [], ended[trial.key])
    for look in study.looks:
        for trial in trials:
            if trial.seed in study.seeds[before:look]:
                execution.write(trial, epochs.get(trial.key, []), [], ended[trial.key])
        some = {trial.key: trial.arm for trial in trials if trial.seed in study.seeds[:look]}
        found, evidence = claims.judge(study, root, some, controls)
        if found.decided:
            break
        before = look
    record = claims.record(study, found, evidence, execution.provenance)
    execution.keep({claims.FILE: json.dumps(record, allow_nan=False)})
    execution.close("FINISHED", "", found.verdict)
