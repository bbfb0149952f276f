"""Frames in, frames out: means, differences and their intervals."""

import itertools
from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from studies.record import METRICS, Study, StudyError, listed

LEVEL = 0.95
LEAST_PAIRS = 3
"""Of seeds that a difference is tested by."""

ROUNDING = 1e-9
"""Below which a difference of metrics is that of rounding."""

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
)
"""The columns of a comparison after the factors."""


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


def higher_is_better(metric: str) -> bool:
    """Whether a metric is an accuracy, and not a loss."""
    return metric.endswith("accuracy")


def paired_p(differences: np.ndarray) -> float:
    """The two-sided p of Student's t test that paired differences `(n,)` have a mean of zero; NaN for fewer than three.

    Differences that are all alike have no spread to test by: p is 1 if they are zero, else NaN. Accuracies are counted
    in images, so that two seeds often differ by nearly the same number of them by chance: too often to test two.
    """
    n = len(differences)
    if n < LEAST_PAIRS:
        return np.nan
    mean, error = np.mean(differences), np.std(differences, ddof=1) / np.sqrt(n)
    if error <= ROUNDING:
        return 1.0 if abs(mean) <= ROUNDING else np.nan
    return float(2 * stdtr(n - 1, -abs(mean / error)))


def holm(p: np.ndarray) -> np.ndarray:
    """One family's p-values `(m,)` adjusted for their number (Holm 1979); missing ones stay so and do not count.

    statsmodels has the same, and collects garbage at each call: 25 ms, where a study has a family for each panel.
    """
    p = np.asarray(p, float)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]
    steps = np.arange(len(order), 0, -1) * p[order]
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.maximum.accumulate(steps).clip(max=1)
    return adjusted


def by_seed(trials: pd.DataFrame, by: list[str], metric: str, over: Iterable[str] = ()) -> pd.DataFrame:
    """One row an arm and seed: the mean over what else varies, which is the unit that intervals are taken over.

    Args:
        over: factors that are averaged over, as `comparable` has it.

    Returns:
        the columns `by`, seed, value, trials, and failures: those of them that did not finish.
    """
    number, arms = arms_of(trials, by)
    failed = trials["status"] != "finished"
    frame = pd.DataFrame({"arm": number, "seed": trials["seed"], "value": scored(trials, metric), "failures": failed})
    frame = frame.loc[comparable(trials, by, over).index]
    units = frame.groupby(["arm", "seed"], sort=False).agg(
        value=("value", lambda values: values.mean(skipna=False)),
        trials=("value", "size"),
        failures=("failures", "sum"),
    )
    return labelled(units.reset_index(), arms, by)


def comparable(trials: pd.DataFrame, by: list[str], over: Iterable[str]) -> pd.DataFrame:
    """The trials that an average over some factors is taken of.

    At each seed, those combinations of the factors count that every arm has a trial of: no arm is then ahead for having
    been tried where it is easy.

    Args:
        by: the factors that make the arms.
        over: the factors averaged over; with none it is all the trials.
    """
    over = list(over)
    number, arms = arms_of(trials, by)
    cells = pd.DataFrame({"arm": number, "seed": trials["seed"], "context": arms_of(trials, over)[0]})
    return trials[cells.groupby(["seed", "context"])["arm"].transform("nunique") == len(arms)] if over else trials


def averaged_over(study: Study, by: list[str]) -> list[str]:
    """The factors of a study that an average by some of them is over: the others, but those that move with these."""
    fixed = {factor for group in study.zip if set(group) & set(by) for factor in group} | set(by)
    return [factor for factor in study.factors if factor not in fixed]


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
        the columns `by`; seeds (with a value); failures; mean, sd, low, high: the t interval over seeds;
        difference, difference_low, difference_high: to the baseline, paired by seed, NaN for the baseline itself;
        pairs: their number; p: of the paired t test, Holm-adjusted over the frame, NaN where there is no test;
        standing: `best` for the arm with the best mean among those that share the levels of the factors which the
        baseline leaves open; of these, by paired t tests, Holm-adjusted, `tied` for those that are not found to be
        worse at 5 %, `untested` for those that cannot be tested, and empty for those that are worse; `failed` for those
        none of whose trials finished, which are not compared with the best.
    """
    units = by_seed(trials, by, metric, over)
    parts = dict(_grouped(units.set_index("seed"), by))
    nothing = units.iloc[:0].set_index("seed").astype({"value": float})
    parts = {arm: parts.get(arm, nothing) for arm in arms_of(trials, by)[1]}
    arms = {arm: part["value"] for arm, part in parts.items()}
    anchors = {factor: as_level(level) for factor, level in baseline.items() if factor in by}
    rows = []
    for arm, values in arms.items():
        anchor = tuple(anchors.get(factor, level) for factor, level in zip(by, arm, strict=True))
        pairs = _pairs(values, arms[anchor]) if anchors and anchor != arm and anchor in arms else np.array([])
        there = values.dropna().to_numpy()
        difference = (pairs.mean() if len(pairs) else np.nan, *t_interval(pairs), len(pairs), paired_p(pairs))
        rows.append(
            (
                *arm,
                len(there),
                int(parts[arm]["failures"].sum()),
                values.mean(),
                values.std(),
                *t_interval(there),
                *difference,
                "",
            )
        )
    frame = pd.DataFrame(rows, columns=[*by, *OUTCOME])
    frame["p"] = holm(frame["p"].to_numpy(float))
    lost = {arm for arm, part in parts.items() if len(part) and part["failures"].sum() == part["trials"].sum()}
    frame["standing"] = _standing(
        arms, lost, [by.index(factor) for factor in by if anchors and factor not in anchors], metric
    )
    return frame.assign(**_levels(list(arms), by))


def _standing(arms: dict[tuple, pd.Series], lost: set[tuple], shared: list[int], metric: str) -> list[str]:
    """Each arm's standing among those with the same levels at the places `shared`; `lost` are those that failed."""
    sign = 1 if higher_is_better(metric) else -1
    rivals = {}
    for arm, values in arms.items():
        if values.notna().any():
            rivals.setdefault(tuple(arm[place] for place in shared), []).append(arm)
    standing = dict.fromkeys(arms, "")
    standing |= dict.fromkeys(lost, "failed")
    for group in rivals.values():
        able = [arm for arm in group if arm not in lost]
        if not able:
            continue
        best = max(able, key=lambda arm: sign * arms[arm].mean())
        others = [arm for arm in able if arm != best]
        standing[best] = "best" if len(group) > 1 else ""
        pairs = [sign * _pairs(arms[arm], arms[best]) for arm in others]
        for arm, ahead, p in zip(others, pairs, holm(np.array([paired_p(pair) for pair in pairs])), strict=True):
            worse = p <= 1 - LEVEL and ahead.mean() < 0
            standing[arm] = "untested" if np.isnan(p) else "" if worse else "tied"
    return list(standing.values())


def span(units: pd.DataFrame, by: list[str]) -> dict | None:
    """How far a factor moves a metric: from the arm with the least mean to that with the greatest.

    Args:
        units: from `by_seed`.

    Returns:
        lowest, highest: these arms, by the seeds that all of them have, if there are any; difference, low, high: paired
        by seed; pairs: their number; p: of the paired t test, times the number of pairs of arms that these were picked
        from (Bonferroni). None for fewer than two arms with a value.
    """
    arms = {arm: part.set_index("seed")["value"] for arm, part in _grouped(units, by) if part["value"].notna().any()}
    if len(arms) < 2:
        return None
    shared = pd.DataFrame(arms.values()).dropna(axis="columns")
    means = dict(zip(arms, shared.mean(axis="columns") if shared.size else map(pd.Series.mean, arms.values())))
    lowest, highest = (pick(arms, key=means.get) for pick in (min, max))
    pairs = _pairs(arms[highest], arms[lowest])
    low, high = t_interval(pairs)
    p = min(paired_p(pairs) * len(arms) * (len(arms) - 1) / 2, 1.0)
    difference = pairs.mean() if len(pairs) else np.nan
    return {
        "lowest": lowest, "highest": highest, "difference": difference, "low": low, "high": high, "pairs": len(pairs),
        "p": p,
    }  # fmt: skip


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
    for arm, part in _grouped(curve, by):
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
    slopes = np.gradient(losses[falling], np.log(rates[falling])) if len(losses) > 1 else np.zeros(1)
    steepest = int(np.argmin(np.nan_to_num(slopes, nan=np.inf)))
    half_way = (losses[0] + losses[lowest]) / 2
    above = np.flatnonzero((np.arange(len(losses)) > lowest) & ~(losses < half_way))
    return rates[steepest], rates[lowest], rates[above[0]] if len(above) else np.nan


def _pairs(values: pd.Series, others: pd.Series) -> np.ndarray:
    """The differences of what is paired by index."""
    return (values - others).dropna().to_numpy()


def failures(trials: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """What did not finish: one row an arm and status, in the order they appear.

    Returns:
        the columns `by`, status, trials, seeds: theirs, epochs: the median of those trained, error: the first one's
        reason, if it crashed.
    """
    failed = trials[trials["status"] != "finished"]
    rows = []
    for (*arm, status), part in _grouped(failed, [*by, "status"]):
        reason = part["error"].iloc[0].partition("\n")[0]
        rows.append((*arm, status, len(part), tuple(part["seed"]), part["epochs"].median(), reason))
    columns = ["status", "trials", "seeds", "epochs", "error"]
    frame = pd.DataFrame(rows, columns=[*by, *columns])
    return frame.assign(**_levels([row[: len(by)] for row in rows], by))


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
    sign = 1 if higher_is_better(metric) else -1
    frame = trials.assign(value=scored(trials, metric))
    rows = []
    for arm, part in _grouped(frame, by):
        means = {levels: values["value"].mean(skipna=False) for levels, values in _grouped(part, list(nuisance))}
        best, best_value = (None,) * len(nuisance), np.nan
        for levels in itertools.product(*nuisance.values()):
            value = means.get(tuple(map(as_level, levels)), np.nan)
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


def arms_of(trials: pd.DataFrame, by: list[str]) -> tuple[np.ndarray, list[tuple]]:
    """Each trial's arm as a number, `(trials,)`, and what the numbers stand for: the levels, in order of appearance."""
    # Not by Series.map, which makes a float of an integer beside a null.
    columns = [[as_level(level) for level in trials[factor]] for factor in by]
    levels = zip(*columns, strict=True) if by else [()] * len(trials)
    numbers = {}
    return np.array([numbers.setdefault(arm, len(numbers)) for arm in levels], dtype=int), list(numbers)


def labelled(frame: pd.DataFrame, arms: list[tuple], by: list[str]) -> pd.DataFrame:
    """A frame with the column `arm`, from `arms_of`, replaced by those of the factors."""
    levels = _levels([arms[number] for number in frame["arm"]], by)
    return pd.concat([pd.DataFrame(levels, index=frame.index), frame.drop(columns="arm")], axis=1)


def _levels(arms: list[tuple], by: list[str]) -> dict[str, pd.Series]:
    """Columns of arms' levels."""
    columns = {factor: [arm[place] for arm in arms] for place, factor in enumerate(by)}
    # An object where a level is null: else null and 3 would come back as NaN and 3.0.
    return {name: pd.Series(levels, dtype=object if None in levels else None) for name, levels in columns.items()}


def _grouped(frame: pd.DataFrame, by: list[str]):
    """Each arm's levels and rows, in order of appearance."""
    number, arms = arms_of(frame, by)
    places = pd.Series(number).groupby(number, sort=False).indices
    for arm, levels in enumerate(arms):
        yield levels, frame.iloc[places[arm]]


def as_level(level):
    """A level as a key: a list as a tuple, pandas's NaN as the null it was."""
    if isinstance(level, list):
        return tuple(level)
    return None if level != level else level
