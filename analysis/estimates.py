"""Frames in, frames out: means, differences and their intervals."""

import itertools

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from studies.record import METRICS, StudyError, listed

LEVEL = 0.95


def scored(trials: pd.DataFrame, metric: str) -> pd.Series:
    """Each trial's value, with failures counted: diverged and timed-out ones score chance, crashed ones are missing.

    Chance is an accuracy of 1 / classes and a loss of log(classes), that of the uniform guess.

    Raises:
        StudyError: there is no such metric.
    """
    if metric not in METRICS:
        raise StudyError(f"metric={metric}: expected one of {listed(METRICS)}")
    chance = np.log(trials["classes"]) if metric.endswith("loss") else 1 / trials["classes"]
    values = trials[metric].astype(float).where(~trials["status"].isin(["diverged", "timeout"]), chance)
    return values.where(trials["status"] != "crashed")


def t_interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Student's t interval for a mean of independent values `(n,)`; NaN for fewer than two."""
    n = len(values)
    if n < 2:
        return np.nan, np.nan
    centre, half = np.mean(values), stdtrit(n - 1, (1 + level) / 2) * np.std(values, ddof=1) / np.sqrt(n)
    return centre - half, centre + half


def by_seed(trials: pd.DataFrame, by: list[str], metric: str) -> pd.DataFrame:
    """One row an arm and seed: the mean over what else varies, which is the unit that intervals are taken over.

    Returns:
        the columns `by`, seed, value, and failures: trials that did not finish.
    """
    levels = {factor: trials[factor].map(_level) for factor in by}
    failures = (trials["status"] != "finished").astype(int)
    frame = trials.assign(**levels, value=scored(trials, metric), failures=failures)
    groups = frame.groupby([*by, "seed"], sort=False, dropna=False, observed=True)
    return groups.agg(value=("value", lambda v: v.mean(skipna=False)), failures=("failures", "sum")).reset_index()


def comparison(trials: pd.DataFrame, by: list[str], metric: str, baseline: dict) -> pd.DataFrame:
    """One row an arm, in the order the arms appear; a level that is a list comes back as a tuple.

    Args:
        trials: a trials frame.
        by: the factors that make the arms; values are averaged over the others within a seed.
        metric: one of `studies.record.METRICS`.
        baseline: factor -> level; each arm is compared, seed by seed, with the arm that has these levels and its own
            elsewhere.

    Returns:
        the columns `by`; seeds (with a value); failures; mean, sd, low, high: the t interval over seeds;
        difference, difference_low, difference_high: to the baseline, paired by seed, NaN for the baseline itself.
    """
    units = by_seed(trials, by, metric)
    arms = {arm: part.set_index("seed") for arm, part in _grouped(units, by)}
    anchors = {factor: _level(level) for factor, level in baseline.items() if factor in by}
    rows = []
    for arm, part in arms.items():
        values = part["value"].dropna()
        low, high = t_interval(values.to_numpy())
        anchor = tuple(anchors.get(factor, level) for factor, level in zip(by, arm, strict=True))
        difference = (
            differences(part["value"], arms[anchor]["value"])
            if anchors and anchor != arm and anchor in arms
            else (np.nan,) * 3
        )
        rows.append(
            (*arm, len(values), int(part["failures"].sum()), values.mean(), values.std(), low, high, *difference)
        )
    columns = ["seeds", "failures", "mean", "sd", "low", "high", "difference", "difference_low", "difference_high"]
    frame = pd.DataFrame(rows, columns=[*by, *columns])
    for place, factor in enumerate(by):
        levels = [row[place] for row in rows]
        if None in levels:
            frame[factor] = pd.Series(levels, dtype=object)  # else null and 3 would come back as NaN and 3.0
    return frame


def rate_curve(trials: pd.DataFrame, epochs: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """The training loss at each learning rate of a range test: the columns `by`, seed, learning_rate, loss."""
    rows = epochs[epochs["epoch"] > 0].merge(trials[["key", *by, "seed"]], on="key")
    return rows[[*by, "seed", "learning_rate", "train_loss"]].rename(columns={"train_loss": "loss"})


def rate_range(curve: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """What a learning-rate range test says of each arm (Smith 2017, section 3.3).

    Args:
        curve: from `rate_curve`; each seed's rates rise.

    Returns:
        the columns `by`; seeds; steepest: the rate at which the loss falls fastest, by the logarithm of the rate;
        lowest: at which it is lowest; highest: from which on it is back half way to where it began, or not finite, NaN
        if it never is. Geometric means over the seeds; each also with its t interval on logarithms, `_low` and `_high`.
    """
    rows = []
    for arm, part in _grouped(curve.assign(**{factor: curve[factor].map(_level) for factor in by}), by):
        points = np.log([_rates(line) for _, line in part.groupby("seed")])
        row = [*arm, len(points)]
        for column in points.T:
            there = column[np.isfinite(column)]
            row += np.exp([there.mean() if len(there) else np.nan, *t_interval(there)]).tolist()
        rows.append(row)
    names = [f"{name}{end}" for name in ("steepest", "lowest", "highest") for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=[*by, "seeds", *names])


def _rates(line: pd.DataFrame) -> tuple[float, float, float]:
    """One seed's steepest, lowest and highest rate."""
    rates, losses = line["learning_rate"].to_numpy(), line["loss"].to_numpy()
    finite = np.isfinite(losses)
    lowest = int(np.nanargmin(np.where(finite, losses, np.nan)))
    falling = slice(0, max(lowest + 1, 2))
    steepest = int(np.argmin(np.gradient(losses[falling], np.log(rates[falling])))) if len(losses) > 1 else 0
    half_way = (losses[0] + losses[lowest]) / 2
    above = np.flatnonzero((np.arange(len(losses)) > lowest) & ~(losses < half_way))
    return rates[steepest], rates[lowest], rates[above[0]] if len(above) else np.nan


def differences(values: pd.Series, baseline: pd.Series) -> tuple[float, float, float]:
    """Mean difference, paired by index, and its t interval; NaN where no pair is."""
    pairs = (values - baseline).dropna().to_numpy()
    return (pairs.mean() if len(pairs) else np.nan, *t_interval(pairs))


def tuned(trials: pd.DataFrame, by: list[str], nuisance: dict[str, tuple], metric: str) -> pd.DataFrame:
    """One row an arm, in the order the arms appear: the combination of nuisance levels with the best mean.

    Diverged trials count as chance; a combination with a trial that crashed is not chosen. Of equals the first in the
    order of the levels is.

    Args:
        trials: a trials frame with a column for each nuisance factor.
        by: the factors that make the arms.
        nuisance: nuisance factor -> its levels.
        metric: one of `studies.record.METRICS`, on validation data.

    Returns:
        the columns `by` and those of `nuisance`, null where nothing can be chosen; value: the best mean, NaN there;
        edge: the nuisance factors whose best level is the least or the greatest of several numbers.
    """
    sign = 1 if metric.endswith("accuracy") else -1
    frame = trials.assign(value=scored(trials, metric), **{f: trials[f].map(_level) for f in (*by, *nuisance)})
    rows = []
    for arm, part in _grouped(frame, by):
        means = {
            tuple(_level(level) for level in levels): values["value"].mean(skipna=False)
            for levels, values in _grouped(part, list(nuisance))
        }
        best, best_value = (None,) * len(nuisance), np.nan
        for levels in itertools.product(*nuisance.values()):
            value = means.get(tuple(map(_level, levels)), np.nan)
            if value == value and not sign * value <= sign * best_value:
                best, best_value = levels, value
        edge = [factor for factor, level in zip(nuisance, best, strict=True) if _on_edge(level, nuisance[factor])]
        rows.append((*arm, *best, best_value, edge))
    names = [*by, *nuisance, "value", "edge"]
    return pd.DataFrame(
        {
            name: pd.Series([row[place] for row in rows], dtype=float if name == "value" else object)
            for place, name in enumerate(names)
        }
    )


def _on_edge(level, levels) -> bool:
    numbers = [other for other in levels if isinstance(other, int | float) and not isinstance(other, bool)]
    return len(numbers) == len(levels) > 1 and level in (min(numbers), max(numbers))


def _grouped(units, by):
    if by:
        for arm, part in units.groupby(by, sort=False, dropna=False):
            yield tuple(_level(level) for level in arm), part
    elif len(units):
        yield (), units


def _level(level):
    """A level as a key: a list as a tuple, pandas's NaN as the null it was."""
    if isinstance(level, list):
        return tuple(level)
    return None if level != level else level
