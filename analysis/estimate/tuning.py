"""What a search found: each arm's best nuisance levels, and the rates between which a network learns."""

import itertools

import numpy as np
import pandas as pd

from analysis.estimate.arms import as_level, grouped
from analysis.estimate.comparison import scored
from analysis.estimate.intervals import RESOLUTION, t_interval
from analysis.estimate.measure import measure
from analysis.estimate.profiles import draw_weights
from studies.record import Space


def rate_curve(trials: pd.DataFrame, epochs: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """The training loss at each learning rate of a range test: the columns `by`, seed, learning_rate, loss."""
    rows = epochs[epochs["epoch"] > 0].merge(trials[["key", *by, "seed"]], on="key")
    return rows[[*by, "seed", "learning_rate", "running_loss"]].rename(columns={"running_loss": "loss"})


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
    for arm, part in grouped(curve, by):
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
    if not finite.any():
        return np.nan, np.nan, rates[0] if len(rates) else np.nan
    lowest = int(np.nanargmin(np.where(finite, losses, np.nan)))
    falling = slice(0, max(lowest + 1, 2))
    with np.errstate(divide="ignore", invalid="ignore"):  # of rates that do not rise
        slopes = np.gradient(losses[falling], np.log(rates[falling])) if len(losses) > 1 else np.zeros(1)
    steepest = int(np.argmin(np.nan_to_num(slopes, nan=np.inf)))
    half_way = (losses[0] + losses[lowest]) / 2
    above = np.flatnonzero((np.arange(len(losses)) > lowest) & ~(losses < half_way))
    return rates[steepest], rates[lowest], rates[above[0]] if len(above) else np.nan


def tuned(
    trials: pd.DataFrame,
    by: list[str],
    nuisance: dict[str, tuple],
    metric: str,
    space: dict[str, Space | tuple] | None = None,
) -> pd.DataFrame:
    """One row an arm, in the order the arms appear: the combination of nuisance levels with the best mean.

    Trials that diverged or timed out have a failure's score, see `failure_scores`; a combination with a trial that
    crashed is not chosen. Of equals, but for rounding, the one with the fewest failures is, and of those the first in
    the order of the levels; of drawn ones in that of the trials.

    Args:
        trials: a trials frame with a column for each nuisance factor.
        by: the factors that make the arms.
        nuisance: nuisance factor -> its levels.
        metric: one of `studies.record.METRICS`, on validation data.
        space: what the levels are drawn from, a study's; the trials may have others besides, of an extension.

    Returns:
        the columns `by` and those of `nuisance`, null where nothing can be chosen; value: the best mean, NaN there;
        edge: the nuisance factors whose best level is the least or the greatest of several numbers, of a range of all
        that were drawn.
    """
    levels = _levels(trials, nuisance, space) if space else nuisance
    frame = trials.assign(value=scored(trials, metric), failed=trials["status"] != "finished")
    rows = []
    for arm, part in grouped(frame, by):
        tried = dict(grouped(part, list(nuisance)))
        # None: it has no such one
        order = tried if space else itertools.product(*((*each, None) for each in nuisance.values()))
        found = [
            (point, some["value"].mean(skipna=False), some["failed"].sum())
            for point in order
            if (some := tried.get(tuple(map(as_level, point)))) is not None
        ]
        best, best_value = _best(found, len(nuisance), metric)
        edge = [factor for factor, level in zip(nuisance, best, strict=True) if _on_edge(level, levels[factor])]
        rows.append((*arm, *best, best_value, edge))
    names = [*by, *nuisance, "value", "edge"]
    return pd.DataFrame(
        {
            name: pd.Series([row[place] for row in rows], dtype=float if name == "value" else object)
            for place, name in enumerate(names)
        }
    )


def _best(found: list[tuple], count: int, metric: str) -> tuple[tuple, float]:
    """Of combinations, their means and failures the best combination and its mean; nulls where there is none."""
    sign = measure(metric).sign
    found = [(levels, mean, failed) for levels, mean, failed in found if mean == mean]
    top = max((sign * mean for _, mean, _ in found), default=np.nan)
    equals = [each for each in found if sign * each[1] >= top - RESOLUTION * abs(top)]
    best = min(equals, key=lambda each: each[2], default=((None,) * count, np.nan, 0))
    return best[:2]


def _on_edge(level, levels) -> bool:
    if not all(isinstance(other, int | float) and not isinstance(other, bool) for other in levels):
        return False
    return len(set(levels)) > 1 and level in (min(levels), max(levels))


def _levels(trials, nuisance, space) -> dict[str, tuple]:
    """Between which levels a best one lies: of a range all that were drawn."""
    return {
        factor: tuple(trials[factor].dropna().tolist()) if isinstance(space[factor], Space) else space[factor]
        for factor in nuisance
    }


def extended(trials: pd.DataFrame, space: dict[str, Space | tuple]) -> list[tuple[str, str, float, float]]:
    """The ranges that were extended, by the trials: factor, `below` or `above`, the bound, and the last value drawn."""
    found = []
    for factor, dimension in space.items():
        if isinstance(dimension, Space) and len(values := trials[factor].dropna().astype(float)):
            found += [(factor, "below", dimension.low, values.min())] * bool(values.min() < dimension.low)
            found += [(factor, "above", dimension.high, values.max())] * bool(values.max() > dimension.high)
    return found


def expected_best(values: np.ndarray, higher: bool = True) -> np.ndarray:
    """The best of n draws that one may expect, for n = 1, …, N, `(N,)`, from the scores of N draws, `(N,)`.

    Dodge et al. 2019, eq. 2: draws are taken from those at hand, with replacement.

    Args:
        higher: whether a higher score is better.
    """
    values = np.sort(np.asarray(values, float))
    return (values if higher else values[::-1]) @ draw_weights(len(values), np.arange(1, len(values) + 1))


def tuning_curve(trials: pd.DataFrame, by: list[str], nuisance: dict[str, tuple], metric: str) -> pd.DataFrame:
    """The best mean over the tuning seeds that so many draws are expected to find: the columns `by`, draws, best.

    Only points drawn at first count: those of an extension were drawn because of what these gave. Where a trial crashed
    there is no mean, and the point is left out.

    Args:
        nuisance: nuisance factor -> the levels drawn, in turn.
    """
    frame, drawn = trials.assign(value=scored(trials, metric)), list(zip(*nuisance.values(), strict=True))
    rows = []
    for arm, part in grouped(frame, by):
        means = [
            some["value"].mean(skipna=False) for point, some in grouped(part, list(nuisance)) if _is_of(point, drawn)
        ]
        curve = expected_best(np.array(means)[np.isfinite(means)], measure(metric).better > 0)
        rows += [(*arm, n, best) for n, best in enumerate(curve, 1)]
    return pd.DataFrame(rows, columns=[*by, "draws", "best"])


def _is_of(point: tuple, drawn: list[tuple]) -> bool:
    """Whether a point is one of those drawn, but for settings that its arm does not have."""
    return any(
        all(level is None or level == as_level(other) for level, other in zip(point, each, strict=True))
        for each in drawn
    )
