"""Frames in, frames out: means, differences and their intervals."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from analysis.estimate import columns
from analysis.estimate.arms import arms_of, as_level, counted, grouped, labelled, levels_of, repeats
from analysis.estimate.intervals import (
    LEAST_PAIRS,
    LEVEL,
    RESOLUTION,
    difference_interval,
    holm,
    mcnemar_p,
    mean_interval,
    paired,
    paired_p,
    pairs_with,
    settled,
    share_interval,
)
from analysis.estimate.measure import measure
from studies.record import StudyError

OUTCOME = (
    "seeds",
    "failures",
    "mean",
    "sd",
    "low",
    "high",
    "difference",
    "difference_low",
    "difference_high",
    "pairs",
    "p",
    "standing",
    "blocks",
)
"""The columns of a comparison after the factors."""

SUCCESS = (
    "tried",
    "success",
    "success_low",
    "success_high",
    "erratic",
    "test",
    "success_difference",
    "finished_difference",
    "finished_low",
    "finished_high",
    "finished_pairs",
    "chance",
)
"""Those after them: which trials finished, what that makes of the differences, and what a guess would score."""


SAME_CHANCE = 0.02
"""How far apart the scores of a guess may be, at splits by unlike seeds, and still be one."""


def scored(trials: pd.DataFrame, metric: str) -> pd.Series:
    """Each trial's value, with failures counted: what did not finish has a failure's score, a crash none.

    A finished trial whose value, such as a loss, is not finite counts as a failure here.

    Args:
        metric: any column of numbers; what is better of it, and its bounds, are `measure.measure`'s.

    Raises:
        StudyError: there is no such column of numbers, or it is named as a share and has other values.
    """
    columns.check(trials, metric)
    values = trials[metric].astype(float)
    crashed = trials["status"] == "crashed"
    scores = values.where(~lost(trials, metric), failure_scores(trials, metric)).where(~crashed)
    known = measure(metric)
    if known.share and not known.guessed and not scores.dropna().between(0, 1).all():
        found = scores[~scores.between(0, 1)].dropna().iloc[0]
        raise StudyError(
            f"metric={metric}: expected shares between 0 and 1, as its name says, received {found:g}. Divide "
            f"percentages by 100, or give the column a name that does not end in accuracy or macro_f1"
        )
    return scores


def lost(trials: pd.DataFrame, metric: str) -> pd.Series:
    """Whether each trial diverged or timed out, or finished with a value that is not finite."""
    return trials["status"].isin(["diverged", "timeout"]) | _infinite(trials[metric].astype(float))


def failure_scores(trials: pd.DataFrame, metric: str) -> pd.Series:
    """What each trial scores if it diverges or times out: chance, or the worst that finished, whichever is worse.

    The worst is that of all the trials in the frame, so that no failure is ahead of anything that finished. Chance is
    the accuracy of the guess that always names the largest class, its share of the examples (`chance_train`,
    `chance_val`, `chance_test`, where the store has them, else 1 / classes), its balanced accuracy, 1 / classes, and
    its macro F1, 2 p / (1 + p) / classes of a share p; and the loss of the uniform guess, log(classes). Of a column
    that a guess has no score in, such as seconds, it is the worst that finished; of one in which nothing is better,
    such as a norm, it is NaN.
    """
    finished = trials[metric].astype(float)[succeeded(trials, metric)]
    if len(finished) and finished.isna().all():
        return pd.Series(np.nan, trials.index)  # a metric that this study has not
    known = measure(metric)
    if not known.guessed:
        worst = {1: finished.min(), -1: finished.max(), 0: np.nan}[known.better]
        return pd.Series(worst, trials.index, dtype=float)
    guess = chance(trials, metric)
    if known.better < 0:
        return guess.fillna(finished.max()).clip(lower=finished.max())
    return guess.fillna(finished.min()).clip(upper=finished.min())


def chance(trials: pd.DataFrame, metric: str) -> pd.Series:
    """What a guess scores in each trial, as `failure_scores` has it; NaN of a metric that it has no score in."""
    known = measure(metric)
    if not known.guessed or "classes" not in trials:
        return pd.Series(np.nan, trials.index)
    classes = trials["classes"].astype(float).where(trials["classes"] > 0)
    if known.better < 0:
        return np.log(classes)
    of = "test" if "test" in metric else "val" if "val" in metric else "train"
    share = trials.get(f"chance_{of}", pd.Series(np.nan, trials.index)).astype(float).fillna(1 / classes)
    if metric.endswith("macro_f1"):
        return 2 * share / (1 + share) / classes
    return 1 / classes if metric.endswith("balanced_accuracy") else share


def guess(trials: pd.DataFrame, metric: str) -> float:
    """What a guess scores, see `chance`; NaN where that is nothing, or not the same for all trials."""
    scores = chance(trials, metric)
    return scores.mean() if scores.max() - scores.min() < SAME_CHANCE else np.nan


def succeeded(trials: pd.DataFrame, metric: str) -> pd.Series:
    """Whether each trial finished, and its metric, if there is such a one, is finite."""
    return (trials["status"] == "finished") & ~_infinite(trials[metric].astype(float))


def _infinite(values: pd.Series) -> pd.Series:
    """Whether values are beyond float32, such as what MLflow keeps for an infinity."""
    return values.abs() > float(np.finfo(np.float32).max)


def by_seed(trials: pd.DataFrame, by: list[str], metric: str, over: Iterable[str] = ()) -> pd.DataFrame:
    """One row an arm and seed: the mean over what else varies, which is the unit that intervals are taken over.

    Args:
        over: factors that are averaged over, as `comparable` has it.

    Seeds that are one run, see `repeats`, are one seed.

    Returns:
        the columns `by`, seed, value; trials; failures: those of them that did not finish; crashed, lost: those that
        crashed, and those that `lost` says.
    """
    trials = trials[~repeats(trials, [*by, *over])]
    chosen = counted(trials, by, list(over))
    values, some = scored(trials, metric)[chosen], trials[chosen]
    arms = arms_of(trials, by)[1]
    place = {arm: n for n, arm in enumerate(arms)}
    number, there = arms_of(some, by)
    seed, seeds = pd.factorize(some["seed"])
    arm = np.array([place[levels] for levels in there], dtype=int)[number]
    unit, units = pd.factorize(arm * len(seeds) + seed)
    count = np.bincount(unit, minlength=len(units))
    frame = pd.DataFrame(
        {
            "arm": units // max(len(seeds), 1),
            "seed": seeds[units % max(len(seeds), 1)],
            "value": np.bincount(unit, values, len(units)) / count,  # missing if one of them is
            "trials": count,
            "failures": np.bincount(unit, some["status"] != "finished", len(units)).astype(int),
            "crashed": np.bincount(unit, some["status"] == "crashed", len(units)).astype(int),
            "lost": np.bincount(unit, lost(some, metric), len(units)).astype(int),
        }
    )
    return labelled(frame, arms, by)


def comparison(
    trials: pd.DataFrame, by: list[str], metric: str, baseline: dict, over: Iterable[str] = ()
) -> pd.DataFrame:
    """One row an arm, in the order the arms appear; a level that is a list comes back as a tuple.

    Args:
        trials: a trials frame.
        by: the factors that make the arms; values are averaged over the others within a seed.
        over: those others, see `by_seed` and `averaged_over`.
        metric: any column of numbers, see `scored`.
        baseline: factor -> level; each arm is compared, seed by seed, with the arm that has these levels and its own
            elsewhere.

    Returns:
        the columns `by`; seeds (with a value); failures; mean, sd; low, high: the interval over seeds, see
        `intervals.bounded`; difference, difference_low, difference_high: to the baseline, paired by seed, with the
        t interval, NaN for the baseline itself; pairs: their number; p: of the test, see below, Holm-adjusted over the
        frame, NaN where there is none; standing, blocks: see `_stand`; tried: seeds at which nothing crashed; success:
        the share of them at which every trial finished, with its exact interval, success_low, success_high, NaN if none
        was tried; erratic: whether more of its trials are lost at some seeds than at others; test: `t`, the paired t
        test, or `success`, the exact McNemar test, where the arm or its baseline is erratic; of the latter also
        success_difference, of the shares at seeds at which both were tried; and
        finished_difference, finished_low, finished_high, finished_pairs: at the seeds at which both finished; chance:
        what a guess would score, the mean over the arm's trials.

        Of an erratic arm no t interval holds: of one that scores .1 at a fifth of the seeds and .95 elsewhere it
        covers, at n = 5, in 67 % of studies. At one seed there are means and no interval; where all seeds are alike
        the interval is that one number.
    """
    units = by_seed(trials, by, metric, over)
    arms = arms_of(trials, by)[1]
    place = {arm: n for n, arm in enumerate(arms)}
    values, failures, failed, gone = blocks(units, by, place)
    finished, erratic = np.where(np.isnan(failures), np.nan, failures == 0), varies(failures)
    anchors = {factor: as_level(level) for factor, level in baseline.items() if factor in by}
    number, guesses = arms_of(trials, by)[0], chance(trials, metric)
    guess = [guesses[number == n].mean() for n in range(len(arms))]
    rows = []
    for arm, n in place.items():
        anchor = place.get(tuple(anchors.get(factor, level) for factor, level in zip(by, arm, strict=True)), n)
        there = values[~np.isnan(values[:, n]), n]
        there = settled(there, np.abs(there).max(initial=0))
        row = (*arm, len(there), failed[n], *_moments(there), *mean_interval(there, metric))
        if anchor == n:
            tested = (np.nan, np.nan, np.nan, 0, np.nan), ("", np.nan, np.nan, np.nan, np.nan, 0)
        else:
            tested = _tested(values[:, [n, anchor]], finished[:, [n, anchor]], bool(erratic[[n, anchor]].any()), metric)
        rows.append((*row, *tested[0], "", 0, *_success(finished[:, n]), erratic[n], *tested[1], guess[n]))
    frame = pd.DataFrame(rows, columns=[*by, *OUTCOME, *SUCCESS])
    frame["p"] = holm(frame["p"].to_numpy(float))
    shared = [place for place, factor in enumerate(by) if anchors and factor not in anchors]
    standing = {}
    for rivals in _rivals(arms, shared):
        standing |= zip(rivals, _stand(values[:, rivals], finished[:, rivals], erratic[rivals], gone[rivals], metric))
    frame["standing"], frame["blocks"] = ([standing[n][part] for n in range(len(arms))] for part in (0, 1))
    return frame.assign(**levels_of(arms, by))


def _tested(values: np.ndarray, finished: np.ndarray, erratic: bool, metric: str) -> tuple[tuple, tuple]:
    """An arm's difference to its baseline, their columns being `(seeds, 2)`: `comparison`'s from difference to p, and
    from test on.
    """
    pairs = paired(*values.T)
    difference = (_moments(pairs)[0], *difference_interval(pairs, metric), len(pairs))
    if not erratic:
        return (*difference, paired_p(pairs, scale=0)), ("t", np.nan, np.nan, np.nan, np.nan, 0)
    some = paired(*values[(finished == 1).all(axis=1)].T)
    rest = (_moments(paired(*finished.T))[0], _moments(some)[0], *difference_interval(some, metric), len(some))
    return (*difference, mcnemar_p(*finished.T)), ("success", *rest)


def blocks(units: pd.DataFrame, by: list[str], place: dict[tuple, int]) -> tuple[np.ndarray, ...]:
    """Of seeds and arms, `(seeds, arms)`, the values, NaN where there is none, and how many trials were lost, NaN where
    one crashed; of each arm its failures, and whether nothing of it finished.
    """
    number, there = arms_of(units, by)
    columns = np.array([place[arm] for arm in there], dtype=int)[number]
    rows, seeds = pd.factorize(units["seed"])
    values, gone = np.full((2, len(seeds), len(place)), np.nan)
    values[rows, columns] = units["value"]
    gone[rows, columns] = units["lost"].where(units["crashed"] == 0)
    failed, trials = (
        np.bincount(columns, units[name].to_numpy(float), len(place)).astype(int) for name in ("failures", "trials")
    )
    return values, gone, failed, (failed == trials) & (trials > 0)


def varies(failures: np.ndarray) -> np.ndarray:
    """Whether each arm's failures, `(seeds, arms)`, are not as many at one seed as at another."""
    there = ~np.isnan(failures)
    least = np.where(there, failures, np.inf).min(axis=0, initial=np.inf)
    return np.where(there, failures, -np.inf).max(axis=0, initial=-np.inf) > least


def _success(finished: np.ndarray) -> tuple[int, float, float, float]:
    """Of seeds, `(seeds,)`, how many were tried, the share that finished, and its interval."""
    there = finished[~np.isnan(finished)]
    return len(there), there.mean() if len(there) else np.nan, *share_interval(int(there.sum()), len(there))


def _moments(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation, NaN where there are too few."""
    return np.mean(values) if len(values) else np.nan, np.std(values, ddof=1) if len(values) > 1 else np.nan


def _rivals(arms: list[tuple], shared: list[int]) -> list[list[int]]:
    """The places of the arms that have the same levels at the places `shared`."""
    groups = {}
    for place, arm in enumerate(arms):
        groups.setdefault(tuple(arm[level] for level in shared), []).append(place)
    return list(groups.values())


def _stand(
    values: np.ndarray, finished: np.ndarray, erratic: np.ndarray, gone: np.ndarray, metric: str
) -> list[tuple[str, int]]:
    """How arms stand that share the levels which the baseline leaves open, and the number of seeds that it is by.

    These are the seeds that all of them have: all that have three or more, if any has, and did not fail. Of equal means
    the first is best.

    Args:
        values: `(seeds, arms)`, NaN where there is none.
        finished: whether each is without a failure, NaN where it crashed.
        erratic, gone: whether an arm fails at some seeds, and whether none of its trials finished.

    Returns:
        of each arm `best` for the best mean; `tied` if `pairs_with`, Holm-adjusted over all pairs of arms, does not
        find it worse at 5 %, and `worse` if it does; `untested` if it cannot be tested; `failed` if it is gone, which
        has nothing to do with the others; nothing if it has no value or no rival, or if neither more nor less of the
        metric is better.
    """
    standing = [("failed", 0) if failed else ("", 0) for failed in gone]
    better = measure(metric).better
    counts = (~np.isnan(values)).sum(axis=0)
    able = np.flatnonzero((counts > 0) & ~gone & (better != 0))
    tested = able[counts[able] >= LEAST_PAIRS] if (counts[able] >= LEAST_PAIRS).any() else able
    whole = ~np.isnan(values[:, tested]).any(axis=1)
    block, done = values[whole][:, tested], finished[whole][:, tested]
    if np.count_nonzero(counts) < 2:
        return standing
    for place in able:
        standing[place] = ("untested", len(block))
    if not len(tested) or not len(block):
        return standing
    means, rates = block.mean(axis=0) * better, done.mean(axis=0)
    best = int(np.argmax(means >= means.max() - RESOLUTION * abs(means.max())))
    found = pairs_with(block, best, done, erratic[tested])
    for place, mean, rate, p in zip(tested, means, rates, found, strict=True):
        by_rate = erratic[place] or erratic[tested[best]]
        worse = p <= 1 - LEVEL and mean < means[best] and (rate < rates[best] or not by_rate)
        standing[place] = ("untested" if np.isnan(p) else "worse" if worse else "tied", len(block))
    standing[tested[best]] = ("best", len(block))
    return standing


def span(units: pd.DataFrame, by: list[str], metric: str = "") -> dict | None:
    """How far a factor moves a metric: from the arm with the least mean to that with the greatest.

    Args:
        units: from `by_seed`.
        metric: of which they are, for the interval's bounds.

    Returns:
        lowest, highest: these arms, by the seeds that all of them have, if there are any; difference, low, high: paired
        by seed; pairs: their number; p: of the paired t test, times the number of pairs of arms that these were picked
        from (Bonferroni); erratic: whether trials of any of the arms fail at some seeds, where the test does not hold.
        None for fewer than two arms with a value.
    """
    arms = [arm for arm, part in grouped(units, by) if part["value"].notna().any()]
    if len(arms) < 2:
        return None
    place = {arm: n for n, arm in enumerate(arms)}
    units = units[[arm in place for arm in zip(*(map(as_level, units[factor]) for factor in by), strict=True)]]
    values, gone, *_ = blocks(units, by, place)
    shared = values[~np.isnan(values).any(axis=1)]
    means = shared.mean(axis=0) if len(shared) else np.nanmean(values, axis=0)  # of each arm some are there
    lowest, highest = int(means.argmin()), int(means.argmax())
    pairs = paired(values[:, highest], values[:, lowest])
    low, high = difference_interval(pairs, metric)
    p = min(paired_p(pairs, scale=0) * len(arms) * (len(arms) - 1) / 2, 1.0)
    return {
        "lowest": arms[lowest], "highest": arms[highest], "difference": _moments(pairs)[0], "low": low, "high": high,
        "pairs": len(pairs), "p": p, "erratic": bool(varies(gone).any()),
    }  # fmt: skip


def failures(trials: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """What did not finish: one row an arm and status, in the order they appear.

    Returns:
        the columns `by`, status, trials, seeds: theirs, epochs: the median of those trained, error: the first one's
        reason, if it crashed.
    """
    failed = trials[trials["status"] != "finished"]
    rows = []
    for (*arm, status), part in grouped(failed, [*by, "status"]):
        reason = part["error"].iloc[0].partition("\n")[0]
        rows.append((*arm, status, len(part), tuple(part["seed"]), part["epochs"].median(), reason))
    columns = ["status", "trials", "seeds", "epochs", "error"]
    frame = pd.DataFrame(rows, columns=[*by, *columns])
    return frame.assign(**levels_of([row[: len(by)] for row in rows], by))
