"""Frames in, frames out: means, differences and their intervals."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from analysis.estimate.arms import arms_of, as_level, counted, grouped, labelled, levels_of, repeats
from analysis.estimate.intervals import (
    LEAST_PAIRS,
    LEVEL,
    RESOLUTION,
    difference_interval,
    higher_is_better,
    holm,
    mean_interval,
    paired,
    paired_p,
    pairs_with,
    settled,
)
from studies.record import METRICS, StudyError, listed

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


def scored(trials: pd.DataFrame, metric: str) -> pd.Series:
    """Each trial's value, with failures counted: what did not finish has a failure's score, a crash none.

    A finished trial whose loss is not finite counts as a failure here.

    Raises:
        StudyError: there is no such metric.
    """
    if metric not in METRICS:
        raise StudyError(f"metric={metric}: expected one of {listed(METRICS)}")
    values = trials[metric].astype(float)
    lost = trials["status"].isin(["diverged", "timeout"]) | _infinite(values)
    return values.where(~lost, failure_scores(trials, metric)).where(trials["status"] != "crashed")


def failure_scores(trials: pd.DataFrame, metric: str) -> pd.Series:
    """What each trial scores if it diverges or times out: chance, or the worst that finished, whichever is worse.

    The worst is that of all the trials in the frame, so that no failure is ahead of anything that finished. Chance is
    the accuracy of the guess that always names the largest class, its share of the examples (`chance_train`,
    `chance_val`, `chance_test`, where the store has them, else 1 / classes), and the loss of the uniform guess,
    log(classes).
    """
    finished = trials[metric].astype(float)[succeeded(trials, metric)]
    if len(finished) and finished.isna().all():
        return pd.Series(np.nan, trials.index)  # a metric that this study has not
    classes = trials["classes"].astype(float).where(trials["classes"] > 0)
    if not higher_is_better(metric):
        return np.log(classes).fillna(finished.max()).clip(lower=finished.max())
    of = "test" if "test" in metric else "val" if "val" in metric else "train"
    share = trials.get(f"chance_{of}", pd.Series(np.nan, trials.index))
    return share.astype(float).fillna(1 / classes).fillna(finished.min()).clip(upper=finished.min())


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
        the columns `by`, seed, value, trials, and failures: those of them that did not finish.
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
        metric: one of `studies.record.METRICS`.
        baseline: factor -> level; each arm is compared, seed by seed, with the arm that has these levels and its own
            elsewhere.

    Returns:
        the columns `by`; seeds (with a value); failures; mean, sd; low, high: the interval over seeds, see
        `intervals.bounded`; difference, difference_low, difference_high: to the baseline, paired by seed, with the
        t interval, NaN for the baseline itself; pairs: their number; p: of the paired t test, Holm-adjusted over the
        frame, NaN where there is no test; standing, blocks: see `_stand`.
    """
    units = by_seed(trials, by, metric, over)
    arms = arms_of(trials, by)[1]
    place = {arm: n for n, arm in enumerate(arms)}
    values, failed, lost = _blocks(units, by, place)
    anchors = {factor: as_level(level) for factor, level in baseline.items() if factor in by}
    rows = []
    for arm, n in place.items():
        anchor = place.get(tuple(anchors.get(factor, level) for factor, level in zip(by, arm, strict=True)), n)
        pairs = paired(values[:, n], values[:, anchor]) if anchor != n else np.array([])
        there = values[~np.isnan(values[:, n]), n]
        there = settled(there, np.abs(there).max(initial=0))
        row = (*arm, len(there), failed[n], *_moments(there), *mean_interval(there, metric))
        row += (_moments(pairs)[0], *difference_interval(pairs, metric), len(pairs), paired_p(pairs, scale=0))
        rows.append(row)
    frame = pd.DataFrame(rows, columns=[*by, *OUTCOME[:-2]])
    frame["p"] = holm(frame["p"].to_numpy(float))
    shared = [place for place, factor in enumerate(by) if anchors and factor not in anchors]
    standing = {}
    for rivals in _rivals(arms, shared):
        standing |= zip(rivals, _stand(values[:, rivals], lost[rivals], metric), strict=True)
    frame["standing"], frame["blocks"] = ([standing[n][part] for n in range(len(arms))] for part in (0, 1))
    return frame.assign(**levels_of(arms, by))


def _blocks(units: pd.DataFrame, by: list[str], place: dict[tuple, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values `(seeds, arms)`, NaN where there is none; each arm's failures; and whether nothing of it finished."""
    number, there = arms_of(units, by)
    columns = np.array([place[arm] for arm in there], dtype=int)[number]
    rows, seeds = pd.factorize(units["seed"])
    values = np.full((len(seeds), len(place)), np.nan)
    values[rows, columns] = units["value"]
    failed, trials = (
        np.bincount(columns, units[name].to_numpy(float), len(place)).astype(int) for name in ("failures", "trials")
    )
    return values, failed, (failed == trials) & (trials > 0)


def _moments(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation, NaN where there are too few."""
    return np.mean(values) if len(values) else np.nan, np.std(values, ddof=1) if len(values) > 1 else np.nan


def _rivals(arms: list[tuple], shared: list[int]) -> list[list[int]]:
    """The places of the arms that have the same levels at the places `shared`."""
    groups = {}
    for place, arm in enumerate(arms):
        groups.setdefault(tuple(arm[level] for level in shared), []).append(place)
    return list(groups.values())


def _stand(values: np.ndarray, lost: np.ndarray, metric: str) -> list[tuple[str, int]]:
    """How arms stand that share the levels which the baseline leaves open, and the number of seeds that it is by.

    These are the seeds that all of them have: all that have three or more, if any has, and did not fail. Of equal means
    the first is best.

    Args:
        values: `(seeds, arms)`, NaN where there is none.
        lost: whether none of an arm's trials finished.

    Returns:
        of each arm `best` for the best mean; `tied` if paired t tests, Holm-adjusted over all pairs of arms, do not
        find it worse at 5 %, and nothing if they do; `untested` if it cannot be tested; `failed` if it is lost, which
        has nothing to do with the others; nothing if it has no value or no rival.
    """
    standing = [("failed", 0) if gone else ("", 0) for gone in lost]
    counts = (~np.isnan(values)).sum(axis=0)
    able = np.flatnonzero((counts > 0) & ~lost)
    tested = able[counts[able] >= LEAST_PAIRS] if (counts[able] >= LEAST_PAIRS).any() else able
    block = values[~np.isnan(values[:, tested]).any(axis=1)][:, tested]
    if np.count_nonzero(counts) < 2:
        return standing
    for place in able:
        standing[place] = ("untested", len(block))
    if not len(tested) or not len(block):
        return standing
    means = block.mean(axis=0) * (1 if higher_is_better(metric) else -1)
    best = int(np.argmax(means >= means.max() - RESOLUTION * abs(means.max())))
    for place, mean, p in zip(tested, means, pairs_with(block, best), strict=True):
        worse = p <= 1 - LEVEL and mean < means[best]
        standing[place] = ("untested" if np.isnan(p) else "" if worse else "tied", len(block))
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
        from (Bonferroni). None for fewer than two arms with a value.
    """
    arms = [arm for arm, part in grouped(units, by) if part["value"].notna().any()]
    if len(arms) < 2:
        return None
    units = units[units["value"].notna()]
    values, *_ = _blocks(units, by, {arm: n for n, arm in enumerate(arms)})
    shared = values[~np.isnan(values).any(axis=1)]
    means = shared.mean(axis=0) if len(shared) else np.nanmean(values, axis=0)
    lowest, highest = int(means.argmin()), int(means.argmax())
    pairs = paired(values[:, highest], values[:, lowest])
    low, high = difference_interval(pairs, metric)
    p = min(paired_p(pairs, scale=0) * len(arms) * (len(arms) - 1) / 2, 1.0)
    return {
        "lowest": arms[lowest], "highest": arms[highest], "difference": _moments(pairs)[0], "low": low, "high": high,
        "pairs": len(pairs), "p": p,
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
