"""How long trials take to a target: frames in and out, censored where it is not reached.

A trial that does not reach it takes longer than its budget, nobody knows how much: no mean of times is then defined,
but the restricted mean, the median and the share that reach it are.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from analysis.estimate import ratios
from analysis.estimate.arms import grouped, levels_of
from analysis.estimate.intervals import LEVEL, RESOLUTION, Estimate, Tested, reaches, share_interval
from studies.record import StudyError, listed

TIMES = ("time", "examples", "seconds")
"""The clocks: epochs, training examples seen, and seconds of wall time with validation."""


def times(
    trials: pd.DataFrame,
    epochs: pd.DataFrame,
    by: list[str],
    metric: str,
    target: float,
    budget: float | None = None,
    whole: bool = False,
    smooth: bool = False,
) -> pd.DataFrame:
    """The time at which each trial's metric first is at the target or better: at or above for accuracies, else below.

    A trial that does not get there is censored at the budget, and so is one that diverged or timed out, whatever it had
    reached: at the whole budget, not where it ended, so that no arm gains by dying early. What the clock of examples
    or seconds would show then is extrapolated from its own epochs. Of a pruned trial those before its last cut do not
    count: they are another network's.

    Args:
        trials, epochs: those frames, of the same trials; seconds are each epoch's own.
        by: columns of the trials to keep, the factors.
        metric: a column of the epochs frame, such as `val_accuracy`.
        budget: in epochs; by default the most that any of these trials trained.
        whole: count whole epochs; else the metric is taken to move linearly within an epoch.
        smooth: take the median of the last three epochs' values first, of so many as there are at the start.

    Returns:
        one row a trial: the columns `by`, seed, key, time (in epochs), examples, seconds, reached. All times are NaN
        for a trial that crashed or has no value, and examples and seconds where they are not known.

    Raises:
        StudyError: there is no such metric, the target is no number, or the budget not positive.
    """
    if metric not in epochs or not metric.endswith(("accuracy", "loss")):
        known = [name for name in epochs if name.endswith(("accuracy", "loss"))]
        raise StudyError(f"metric={metric}: expected a column of the epochs frame, one of {listed(known)}")
    budget = float(trials["epochs"].max() if budget is None else budget) if len(trials) else 1.0
    if not np.isfinite(target) or not 0 < budget < np.inf:
        raise StudyError(f"target={target}, budget={budget}: expected a finite target, and a budget of epochs above 0")
    table = epochs.pivot(index="key", columns="epoch", values=metric).reindex(trials["key"]).astype(float)
    if "sparsity" in epochs:  # of a pruned network, not of the one that it was cut out of
        gone = epochs.pivot(index="key", columns="epoch", values="sparsity").reindex(trials["key"]).astype(float)
        table = table.where(~gone.lt(gone.ffill(axis=1).iloc[:, -1], axis=0))
    if smooth:
        table = table.T.rolling(3, min_periods=1).median().T.where(table.notna())
    at = _first(table.to_numpy(float), table.columns.to_numpy(float), metric, target, whole)
    reached = (at <= budget) & (trials["status"] == "finished").to_numpy()
    lost = (trials["status"] == "crashed").to_numpy() | ~table.notna().any(axis=1).to_numpy()
    time = np.where(lost, np.nan, np.where(reached, at, budget))
    clocks = {name: _clock(epochs, trials["key"], name, time) for name in TIMES[1:]}
    found = pd.DataFrame({"time": time, **clocks, "reached": reached & ~lost}, index=trials.index)
    return pd.concat([trials[[*by, "seed", "key"]], found], axis=1).reset_index(drop=True)


def _first(values: np.ndarray, at: np.ndarray, metric: str, target: float, whole: bool) -> np.ndarray:
    """The first of the times `at` `(epochs,)` at which each row of `(trials, epochs)` is at the target, else infinity.

    What is missing in between, as at epochs that were not observed, is passed over.
    """
    if not values.size:
        return np.full(len(values), np.inf)
    there = ~np.isnan(values)
    good = reaches(values, target, metric)
    place, row = good.argmax(axis=1), np.arange(len(values))
    found = np.where(good.any(axis=1), at[place], np.inf)
    last = np.where(there, np.arange(len(at)), -1)
    before = np.maximum.accumulate(np.concatenate([np.full((len(values), 1), -1), last[:, :-1]], axis=1), axis=1)
    previous = before[row, place]
    start, end = values[row, previous], values[row, place]
    inside = (previous >= 0) & np.isfinite(found) & np.isfinite(start) & np.isfinite(end) & (start != end)
    if whole:
        return found
    share = np.divide(target - start, end - start, out=np.ones(len(values)), where=inside)
    return np.where(inside, at[previous] + np.clip(share, 0, 1) * (found - at[previous]), found)


def _clock(epochs: pd.DataFrame, keys: pd.Series, name: str, time: np.ndarray) -> np.ndarray:
    """What another clock shows at each trial's time in epochs, `(trials,)`; NaN where it was not kept."""
    if name not in epochs:
        return np.full(len(keys), np.nan)
    table = epochs.pivot(index="key", columns="epoch", values=name).reindex(keys).astype(float)
    at, shown = table.columns.to_numpy(float), table.to_numpy(float)
    if name == "seconds":  # each epoch's own; examples are counted from the start
        shown = np.where(np.isnan(shown), np.nan, np.nancumsum(shown, axis=1))
    found = np.full(len(time), np.nan)
    for row, when in enumerate(time):
        there = ~np.isnan(shown[row]) & (at > 0)
        if there.any() and not np.isnan(when):
            points, values = at[there], shown[row, there]
            beyond = values[-1] * when / points[-1]
            inside = np.interp(when, np.append(0, points), np.append(0, values))
            found[row] = inside if when <= points[-1] else beyond
    return found


def summary(found: pd.DataFrame, by: list[str], budget: float | None = None, clock: str = "time") -> pd.DataFrame:
    """Each arm's time to the target, over its trials.

    Args:
        found: from `times`.
        budget: up to which means are restricted, the same for all arms, in the clock's unit; by default as far as all
            arms are known, which is the budget of `times` in epochs unless all of them get there earlier.
        clock: one of `TIMES`.

    Returns:
        one row an arm, in order of appearance: the columns `by`; trials, that have a time; reached, share, share_low,
        share_high: that reached it, with the exact interval; median: infinite if not half do; mean, low, high: the
        `restricted_mean` up to budget, the last column.

    Raises:
        StudyError: as `restricted_mean`.
    """
    arms, rows = [], []
    budget = _known_until([part for _, part in grouped(found, by)], clock) if budget is None else budget
    for arm, part in grouped(found, by):
        _, reached = _known(part, clock)
        n, k = len(reached), int(reached.sum())
        mean = restricted_mean(part, budget, clock)
        share = (k / n, *share_interval(k, n)) if n else (np.nan, 0.0, 1.0)
        arms.append(arm)
        rows.append((n, k, *share, median_time(part, clock), mean.value, mean.low, mean.high, float(budget)))
    columns = ["trials", "reached", "share", "share_low", "share_high", "median", "mean", "low", "high", "budget"]
    frame = pd.DataFrame(rows, columns=columns)
    return pd.concat([pd.DataFrame(levels_of(arms, by), index=frame.index), frame], axis=1)


def _known_until(parts: list[pd.DataFrame], clock: str) -> float:
    """Up to when all arms' curves are known: to the last trial if it was censored, else to any; 1 for no trial."""
    ends = [curve.iloc[-1] for part in parts if not (curve := survival(part, clock)).empty]
    open_ = [end["time"] for end in ends if end["share"] > 0]
    return float(min(open_ or [max([end["time"] for end in ends], default=1.0)]) or 1.0)


def survival(found: pd.DataFrame, clock: str = "time") -> pd.DataFrame:
    """The share of trials that has not reached the target yet (Kaplan & Meier 1958).

    It is valid where censoring has nothing to do with how near a trial was, as a budget set beforehand.

    Args:
        found: of one arm, from `times`; trials without a time are left out.

    Returns:
        the columns time, share, at_risk (just before it), events: a row for each time at which a trial reached the
        target or was censored; no row for no trial.
    """
    from scipy import stats

    time, reached = _known(found, clock)
    columns = {"time": [], "share": [], "at_risk": [], "events": []}
    if len(time):
        curve = stats.ecdf(_censored(time, reached)).sf
        moments = curve.quantiles
        at_risk = len(time) - np.searchsorted(np.sort(time), moments)
        events = np.searchsorted(np.sort(time[reached]), moments, side="right")
        columns = {"time": moments, "share": curve.probabilities, "at_risk": at_risk}
        columns |= {"events": np.diff(events, prepend=0)}
    return pd.DataFrame(columns)


def median_time(found: pd.DataFrame, clock: str = "time") -> float:
    """The Kaplan–Meier median: the time by which half the trials have reached the target.

    It is the sample's median where all have; the middle of where the curve is at one half if it stays there for a while
    (Klein & Moeschberger 2003, section 4.5).

    Returns:
        infinity if the curve does not get below one half, so that it is not known how long half of them take; NaN for
        no trial.
    """
    curve = survival(found, clock)
    if curve.empty:
        return np.nan
    time, share = curve["time"].to_numpy(), curve["share"].to_numpy()
    at, below = (time[share <= 0.5 + slack] for slack in (1e-9, -1e-9))
    return float((at[0] + below[0]) / 2) if len(below) else np.inf


def restricted_mean(found: pd.DataFrame, budget: float, clock: str = "time", level: float = LEVEL) -> Estimate:
    """The mean of the times, those beyond a budget counted as it: the area below `survival` (Irwin 1949).

    The interval is Student's t with the curve's own standard error (Klein & Moeschberger 2003, section 4.5, with n - 1
    for n): where nothing is censored before the budget, exactly that of a mean.
    It is too short at few seeds: with a fifth censored one of 95 % covers in 93, 94 to 95 and 94 to 96 % of
    normal and lognormal samples at 5, 10 and 20, and in 90, 92 and 93 % of those with a long tail of fast trials (`make
    validate`). There compare arms by `paired_ratio` or `paired.permutation_test`.

    Args:
        found: of one arm, from `times`.

    Returns:
        the budget, with no interval, where no trial reached the target before it; without an interval for one trial;
        NaN for none. Where all take equally long both ends are that time.

    Raises:
        StudyError: the budget is not positive, or a trial was censored before it and nothing later is known.
    """
    if not 0 < budget < np.inf:
        raise StudyError(f"budget={budget}: expected a time above 0, the same for all arms")
    curve, n = survival(found, clock), len(_known(found, clock)[0])
    if not n:
        return Estimate(np.nan, np.nan, np.nan, 0, "no trial has a time")
    end = curve.iloc[-1]
    if end["time"] < budget * (1 - RESOLUTION) and end["share"] > 0:
        raise StudyError(
            f"budget={budget:g}: nothing is known after {end['time']:.4g}, where one was censored: expected no more"
        )
    early = curve[curve["time"] < budget]
    edges = np.concatenate([[0.0], early["time"], [budget]])
    areas = np.diff(edges) * np.concatenate([[1.0], early["share"]])
    mean, after = float(areas.sum()), np.cumsum(areas[::-1])[::-1][1:]
    if n == 1:
        return Estimate(mean, np.nan, np.nan, 1, "an interval needs 2 trials: there is 1")
    if not early["events"].sum():
        return Estimate(mean, np.nan, np.nan, n, f"none of {n} trials reached the target before {budget:g}")
    left = (early["at_risk"] - early["events"]).to_numpy()
    hazard = np.divide(early["events"], early["at_risk"] * left, out=np.zeros(len(left)), where=left > 0)
    half = stdtrit(n - 1, (1 + level) / 2) * np.sqrt(np.sum(after**2 * hazard) * n / (n - 1))
    return Estimate(mean, float(max(mean - half, 0)), float(min(mean + half, budget)), n)


def logrank_test(first: pd.DataFrame, second: pd.DataFrame, clock: str = "time") -> Tested:
    """The log-rank test that two arms take equally long (Mantel 1966), unpaired, two-sided.

    It is valid for many trials: with a fifth censored it finds at 5 % what is not there in 7, 6 and 6 % of samples at
    5, 10 and 20 of each (`make validate`). At fewer than 20 use `paired.permutation_test` of the times, which is exact;
    where nearly all reach the target, `paired_ratio` says how much longer one takes.

    Args:
        first, second: of one arm each, from `times`; trials without a time are left out.

    Returns:
        p is NaN for fewer than two trials in either; 1 if none reaches the target, or all do at one time.
    """
    from scipy import stats

    (time, reached), (other, other_reached) = _known(first, clock), _known(second, clock)
    n = min(len(time), len(other))
    if n < 2:
        return Tested(np.nan, n, 0.0, f"{len(time)} and {len(other)} trials: 2 of each are needed")
    with np.errstate(invalid="ignore", divide="ignore"):
        p = stats.logrank(_censored(time, reached), _censored(other, other_reached)).pvalue
    if np.isnan(p):  # no variance: at each time at which one did, all at risk did, or only one arm was at risk
        return Tested(1.0, n, 0.0, "no trial is known to be ahead of another")
    return Tested(float(p), n, 0.0)


def paired_ratio(first: pd.DataFrame, second: pd.DataFrame, clock: str = "time", level: float = LEVEL) -> Estimate:
    """How many times as long one arm takes as another, paired by seed where both reach the target: `ratios.log_ratio`.

    It is valid for arms of which nearly all trials do: the others are left out, and the note says how many.

    Args:
        first, second: of one arm each, from `times`, with one trial a seed.

    Returns:
        as `ratios.log_ratio`: NaN if there is no seed at which both reach it.

    Raises:
        StudyError: several trials of an arm have a seed; one reached the target before it was trained.
    """
    for part in (first, second):
        if part["seed"].duplicated().any():
            raise StudyError(
                "several trials of an arm have one seed: expected one arm, one trial a seed, in each frame"
            )
    both = first.merge(second, on="seed", suffixes=("", "_other"))
    there = both[both["reached"] & both["reached_other"]]
    found = ratios.log_ratio(there[clock].to_numpy(float), there[f"{clock}_other"].to_numpy(float), level)
    if len(there) == len(both):
        return found
    left = f"{len(both) - len(there)} of {len(both)} seeds are left out, where one did not reach the target"
    return Estimate(found.value, found.low, found.high, found.n, "; ".join(filter(None, (left, found.note))))


def _known(found: pd.DataFrame, clock: str) -> tuple[np.ndarray, np.ndarray]:
    """The times and whether the target was reached then, of trials that have a time."""
    if clock not in TIMES:
        raise StudyError(f"clock={clock}: expected one of {listed(TIMES)}")
    time, reached = found[clock].to_numpy(float), found["reached"].to_numpy(bool)
    return time[~np.isnan(time)], reached[~np.isnan(time)]


def _censored(time: np.ndarray, reached: np.ndarray) -> Any:
    from scipy import stats

    return stats.CensoredData.right_censored(time, ~reached)
