"""Whether intervals and tests keep their word, by simulation: `make validate` writes docs/numbers.md.

Samples are of two arms that share part of each seed's luck, in three kinds: normal; lognormal, skewed as times are; and
accuracies near one, in steps of an image of 360, stored as float32. What is discrete is enumerated, not simulated.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import command
from analysis.estimate import paired, ratios, success, verdicts
from analysis.estimate import time_to_target as times
from analysis.estimate.intervals import (
    LEVEL,
    Estimate,
    difference_interval,
    holm,
    mean_interval,
    paired_p,
    t_interval,
)
from benchmarks import alike, readme
from studies.design.claim import read_claim
from studies.record import Study
from studies.store import database

BEGIN, END = "<!-- made by make validate, not by hand -->\n", "<!-- end of validate -->\n"
NUMBERS = readme.ROOT / "docs" / "numbers.md"
SEEDS = (5, 10, 20)
TOLERANCE = 0.015
LOOKS, ALPHA_LOOK, LOOKS_ERROR = (6, 12, 20), 0.021, 0.049
IMAGES = 360
RATES = np.linspace(0, 1, 51)
"""Success rates, and shares of pairs, that coverage is worked out at."""

Draw = Callable[..., tuple[np.ndarray, np.ndarray]]
"""From a generator, a shape and how far the arms are apart, 1 or 0, to both arms' values of that shape."""


def normal(rng: np.random.Generator, shape: tuple[int, ...], apart: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Two arms of mean 1.1 and 1, sd .14, correlation .5."""
    shared, own, other = 0.1 * rng.normal(size=(3, *shape))
    return 1 + 0.1 * apart + shared + own, 1 + shared + other


def lognormal(rng: np.random.Generator, shape: tuple[int, ...], apart: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Two arms whose logarithms have sd .5 and correlation .5 and differ by .2; their skewness is 1.75."""
    shared, own, other = np.sqrt(0.125) * rng.normal(size=(3, *shape))
    return np.exp(0.2 * apart + shared + own), np.exp(shared + other)


def steps(rng: np.random.Generator, shape: tuple[int, ...], apart: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Two arms' accuracies, .97 and .96 with an sd of .02, counted in images; a seed's share is beta-distributed."""
    spread = 0.97 * 0.03 / 0.02**2 - 1
    share = rng.beta(0.97 * spread, 0.03 * spread, size=shape)
    counts = rng.binomial(IMAGES, share), rng.binomial(IMAGES, share * (1 - 0.01 * apart))
    one, other = (np.float64(np.float32(np.maximum(count, 1) / IMAGES)) for count in counts)
    return one, other


SAMPLES: dict[str, Draw] = {"normal": normal, "lognormal": lognormal, "steps": steps}


def _ends(found: Estimate) -> tuple[float, float]:
    return found.low, found.high


def _restricted(values: np.ndarray, budget: float) -> tuple[float, float]:
    found = pd.DataFrame({"time": np.minimum(values, budget), "reached": values < budget})
    return _ends(times.restricted_mean(found, budget))


def intervals(draw: Draw, rng: np.random.Generator) -> dict[str, tuple[Callable, float, int]]:
    """Each interval of two arms' values by seed, what it should cover, and how much slower it is."""
    values, others = draw(rng, (300, 1000))
    budget = float(np.quantile(values, 0.8))
    metric = "val_accuracy" if draw is steps else "val_loss"
    return {
        "mean, t": (lambda a, b: t_interval(a), values.mean(), 1),
        "mean, logit t of an accuracy": (lambda a, b: mean_interval(a, metric), values.mean(), 1),
        "paired difference, t": (
            lambda a, b: difference_interval(paired.differences(a, b)[0], metric),
            np.mean(values - others),
            1,
        ),
        "ratio by seed, t of logarithms": (
            lambda a, b: _ends(ratios.log_ratio(a, b)),
            np.exp(np.mean(np.log(values / others))),
            1,
        ),
        "ratio of means, bootstrap": (
            lambda a, b: _ends(ratios.mean_ratio(a, b, rng, resamples=999)),
            values.mean() / others.mean(),
            5,
        ),
        "restricted mean time, a fifth censored": (
            lambda a, b: _restricted(a, budget),
            np.minimum(values, budget).mean(),
            5,
        ),
    }


def coverage(
    sample: str, seeds: int, rng: np.random.Generator, simulations: int, only: str | None = None
) -> dict[str, float]:
    """How often each interval has what it should cover, over so many samples; NaN where it is not meant for them."""
    draw = SAMPLES[sample]
    found = {}
    for name, (interval, truth, slower) in intervals(draw, rng).items():
        if only not in (None, name):
            continue
        if "logit" in name and sample != "steps":
            found[name] = np.nan
            continue
        low, high = np.array([interval(*pair) for pair in zip(*draw(rng, (simulations // slower, seeds)))]).T
        found[name] = float(np.mean((low <= truth) & (truth <= high)))
    return found


def rate_coverage(seeds: int) -> np.ndarray:
    """How often the exact interval covers a success rate, `(rates,)`, worked out from all outcomes."""
    from scipy import stats

    trials = pd.DataFrame(
        [(wins, seed, "finished" if seed < wins else "diverged") for wins in range(seeds + 1) for seed in range(seeds)],
        columns=["wins", "seed", "status"],
    )
    found = success.success_rates(trials, ["wins"])
    low, high = found[["low", "high"]].to_numpy().T[..., None]
    chance = stats.binom.pmf(np.arange(seeds + 1)[:, None], seeds, RATES)
    return (chance * ((low - RATES <= 1e-12) & (high - RATES >= -1e-12))).sum(axis=0)


def success_coverage(seeds: int) -> np.ndarray:
    """How often the interval covers a paired difference of rates, over the shares of pairs that differ either way."""
    from scipy import stats

    outcomes = np.array([(won, lost) for won in range(seeds + 1) for lost in range(seeds + 1 - won)])
    ends = []
    for won, lost in outcomes:
        first = np.arange(seeds) < won
        second = (np.arange(seeds) >= won) & (np.arange(seeds) < won + lost)
        ends.append(_ends(success.success_difference(first, second)))
    low, high = np.array(ends).T
    counts = np.column_stack([outcomes, seeds - outcomes.sum(axis=1)])
    found = []
    for win in RATES:
        for loss in RATES[RATES + win <= 1 + 1e-9]:
            chance = stats.multinomial.pmf(counts, seeds, [win, loss, max(1 - win - loss, 0.0)])
            inside = (low <= win - loss + 1e-9) & (win - loss <= high + 1e-9)
            found.append((chance * inside).sum())
    return np.array(found)


def rejections(test: Callable, one: np.ndarray, other: np.ndarray) -> float:
    """The share of samples, the rows of both arms, in which a test's p is at most 5 %."""
    found = [test(*pair) for pair in zip(one, other, strict=True)]
    return float(np.mean([each.p <= 1 - LEVEL for each in found]))


def false_positives(seeds: int, rng: np.random.Generator, simulations: int) -> dict[str, float]:
    """How often each test finds at 5 % what is not there: arms that are alike, or just the margin apart."""
    few, found = (simulations // 5, seeds), {}
    for name, draw in SAMPLES.items():
        one, other = draw(rng, (seeds, simulations), apart=0)
        found[f"paired t, {name}"] = float(np.mean(paired_p(one - other) <= 1 - LEVEL))
    for name in ("lognormal", "steps"):
        found[f"permutation, {name}"] = rejections(paired.permutation_test, *SAMPLES[name](rng, few, apart=0))
    found["sign, steps"] = rejections(paired.sign_test, *steps(rng, few, apart=0))
    found["McNemar, both arms succeed at .7"] = rejections(success.mcnemar_test, *(rng.random((2, *few)) < 0.7))

    def equivalent(one, other):
        return paired.equivalence_test(one, other, 0.1)

    def differ(one, other):
        return times.logrank_test(
            *(pd.DataFrame({"time": np.minimum(a, 1.5), "reached": a < 1.5}) for a in (one, other))
        )

    found["equivalence (TOST) at the margin, normal"] = rejections(equivalent, *normal(rng, few))
    apart = rng.lognormal(sigma=0.5, size=(2, *few))
    found["log-rank, lognormal, unpaired, a fifth censored"] = rejections(differ, *apart)
    arms = normal(rng, (11, seeds, simulations), apart=0)[0]
    arms[1:] += normal(rng, (seeds, simulations))[0]  # of the seeds, shared by all arms but the baseline
    found["Holm, ten arms against a baseline, normal"] = family_error(arms - arms.mean(axis=(1, 2), keepdims=True))
    return found


def family_error(arms: np.ndarray) -> float:
    """How often any arm of `(arms, seeds, samples)` that are all alike is found to differ from the first."""
    p = np.array([paired_p(arm - arms[0]) for arm in arms[1:]])
    return float(np.mean([np.nanmin(holm(family)) <= 1 - LEVEL for family in p.T]))


def looks(effect: float, rng: np.random.Generator, simulations: int) -> float:
    """How often a study that looks at 6, 12 and 20 seeds declares an effect, in standard deviations of differences."""
    values = effect + rng.normal(size=(LOOKS[-1], simulations))
    return float(np.mean(np.any([one_sided_p(values[:seeds]) <= ALPHA_LOOK for seeds in LOOKS], axis=0)))


def one_sided_p(values: np.ndarray) -> np.ndarray:
    """The p of Student's t test that differences `(seeds, samples)` have a mean above zero, `(samples,)`."""
    two_sided = paired_p(values)
    return np.where(values.mean(axis=0) > 0, two_sided / 2, 1 - two_sided / 2)


def power(rng: np.random.Generator, simulations: int) -> Iterator[tuple[str, float, float]]:
    """What is computed or planned for, and what is found: of one-sided t tests, and of three looks."""
    from statsmodels.stats.power import TTestPower

    for effect, seeds in ((0.5, 27), (1.0, 8), (1.5, 5), (2.0, 4)):
        computed = TTestPower().power(effect, seeds, 1 - LEVEL, alternative="larger")
        share = np.mean(one_sided_p(effect + rng.normal(size=(seeds, simulations))) <= 1 - LEVEL)
        yield f"one-sided t at d = {effect:g}, {seeds} seeds", float(computed), float(share)
    for effect, planned in ((0.0, 0.049), (0.5, 0.59), (1.0, 0.988)):
        yield f"looks at 6, 12 and 20 seeds, d = {effect:g}", planned, looks(effect, rng, simulations)


def claimed(effect: float, rng: np.random.Generator, studies: int) -> dict[str, float]:
    """How often a study with looks supports "one arm is better", and how often not, through the whole verdict path.

    Accuracies of two arms at 6, 12 and 20 seeds, in whole images, stored as float32; differences have an sd of .01.

    Args:
        effect: the true difference in sds.
    """
    factors, seeds = {"arm": ("one", "other")}, tuple(range(LOOKS[-1]))
    hypothesis = {
        "estimand": "difference",
        "measure": "val_accuracy",
        "of": {"arm": "one"},
        "against": {"arm": "other"},
    }
    hypothesis |= {"direction": "above", "margin": 0.0, "why_margin": "any gain is a gain"}
    card = {"id": "better", "version": 1, "quote": "One is better.", "kind": "universal", "hypothesis": hypothesis}
    claim = read_claim(card, factors, "full")
    study = Study("simulated", "?", factors, seeds, {}, "val_accuracy", looks=LOOKS, claim=claim)
    trials = pd.DataFrame([{"arm": arm, "seed": seed} for arm in factors["arm"] for seed in seeds])
    trials = trials.assign(key=[f"{n}" for n in range(len(trials))], status="finished", classes=10, epochs=1)
    counts: Counter[str] = Counter()
    for _ in range(studies):
        shared, own = rng.normal(0.95, 0.01, len(seeds)), rng.normal(0, 0.01 / np.sqrt(2), (2, len(seeds)))
        accuracies = np.clip(shared + own + 0.01 * np.array([[effect], [0]]), 0, 1)
        stored = (np.round(accuracies * IMAGES) / IMAGES).astype(np.float32).astype(float)
        evidence = verdicts.Evidence(trials.assign(val_accuracy=stored.ravel()))
        counts[verdicts.verdict(study, evidence, len(factors["arm"])).verdict] += 1
    return {verdict: count / studies for verdict, count in counts.items()}


def alike_arms(rng: np.random.Generator, studies: int, root: Path | None = None) -> list[tuple[str, float, float]]:
    """How often a claim about arms that are alike is found supported, and how often not, by the whole verdict path.

    Args:
        root: a folder that a store is made in, through which a twentieth of the studies go, and the board; None for
            frames alone.

    Returns:
        a name and both shares, a row a kind of claim.
    """
    found = {name: alike.by_frames(case, rng, studies) for name, case in alike.CASES.items()}
    if root is not None:
        database.make(root)
        name, case = next(iter(alike.CASES.items()))
        rows = alike.by_board(case, rng, studies // 20, root)
        found[f"{name}, by a store and its board"] = [row["verdict"] for row in rows]
    both = (verdicts.SUPPORTED, verdicts.NOT_SUPPORTED)
    return [(name, *(some.count(each) / len(some) for each in both)) for name, some in found.items()]


def markdown(rng: np.random.Generator, simulations: int, root: Path | None = None) -> str:
    """The tables: what is not within `TOLERANCE` of what it should be, on its wrong side, is bold.

    Args:
        root: as in `alike_arms`.
    """

    def said(share: float, least: float = 0.0, most: float = 1.0) -> str:
        text = "" if np.isnan(share) else f"{100 * share:.1f}"
        return f"**{text}**" if share < least - TOLERANCE or share > most + TOLERANCE else text

    covered = {(n, name): coverage(name, n, rng, simulations) for n in SEEDS for name in SAMPLES}
    names = list(covered[SEEDS[0], "normal"])
    rows = [
        [name, n, *(said(covered[n, sample][name], LEVEL, LEVEL) for sample in SAMPLES)]
        for name in names
        for n in SEEDS
    ]
    exact = [
        [name, n, said(found.min(), LEVEL), said(found.mean(), LEVEL)]
        for name, of in (("success rate", rate_coverage), ("paired difference of success rates", success_coverage))
        for n in SEEDS
        for found in [of(n)]
    ]
    errors = [false_positives(n, rng, simulations) for n in SEEDS]
    tests = [[name, *(said(each[name], most=1 - LEVEL) for each in errors)] for name in errors[0]]
    powers = [[name, said(due), said(is_, due, due)] for name, due, is_ in power(rng, 5 * simulations)]
    for effect, due in ((0.0, 0.049), (1.0, 0.988)):
        found = claimed(effect, rng, simulations // 10).get(verdicts.SUPPORTED, 0.0)
        powers.append([f"a claim's verdict, supported, d = {effect:g}", said(due), said(found, due, due)])
    false = [
        [name, *(said(share, most=LOOKS_ERROR) for share in both)]
        for name, *both in alike_arms(rng, simulations // 40, root)
    ]
    tables = (
        (["coverage of 95 % intervals, in %", "seeds", *SAMPLES], rows),
        (["the same, of all outcomes", "seeds", "worst rates", "mean over rates"], exact),
        (["found at 5 % where there is nothing, in %", *(f"{n} seeds" for n in SEEDS)], tests),
        (["found where there is something, in %", "computed", "simulated"], powers),
        (["said of a claim about arms that are alike, at three looks, in %", "supported", "not supported"], false),
    )
    return "\n".join(
        pd.DataFrame(rows, columns=head).to_markdown(index=False, disable_numparse=True) + "\n" for head, rows in tables
    )


def main(arguments: list[str] | None = None) -> int:
    """Simulate, print the tables and write them into the documents; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.validate", description="Validate the statistics.")
    parser.add_argument("--simulations", type=int, default=10_000, help="samples a cell, the slow ones fewer")
    parser.add_argument("--seed", type=int, default=0, help="of the generator")
    options = parser.parse_args(arguments)

    def run():
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            tables = markdown(np.random.default_rng(options.seed), options.simulations, Path(folder))
        print(tables)
        readme.fill(NUMBERS, f"\n{tables}\n", BEGIN, END)
        print(f"in {time.perf_counter() - began:.0f} s")

    return command.ended(run)


if __name__ == "__main__":
    sys.exit(main())
