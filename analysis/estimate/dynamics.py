"""Frames in, frames out: how training went, epoch by epoch and layer by layer."""

import re

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from analysis.estimate.arms import arms_of, labelled
from analysis.estimate.comparison import failure_scores, scored
from analysis.estimate.intervals import LEVEL, bounded
from studies.contract import DENSITY_CELLS

DENSITY_EPOCHS = 8

LOSSES = ("running_loss", "val_loss")
"""Those that a trial diverges by, in the order in which they are seen."""


def curves(trials: pd.DataFrame, epochs: pd.DataFrame, by: list[str], metric: str) -> pd.DataFrame:
    """A metric's course as an arm scores it: no trial drops out of the mean when it ends.

    A trial that diverged or timed out has a failure's score (`comparison.failure_scores`) from its last epoch on; one
    that stopped early keeps its last value; between the epochs at which a metric was observed, as `train_loss` is at a
    dozen, a trial's is on the straight line that joins them. Values are averaged over the other factors within a seed,
    which has none where one of its trials crashed.

    Args:
        trials, epochs: those frames, of the same trials.
        by: the factors that make the arms.
        metric: a column of the epochs frame, such as `val_accuracy`.

    Returns:
        one row an arm and epoch: the columns `by`, epoch, seeds (with a value), mean, low, high: the interval over
        the seeds at that epoch alone (`intervals.bounded`), NaN for fewer than two.
    """
    table = epochs.pivot(index="key", columns="epoch", values=metric).reindex(trials["key"])
    table = table.astype(float).interpolate("index", axis=1, limit_area="inside")
    at, last = table.columns.to_numpy(float), trials["epochs"].to_numpy(float)[:, None]
    failed = trials["status"].isin(["diverged", "timeout"]).to_numpy()[:, None] & (at >= last)
    lowest = failure_scores(trials, metric).to_numpy()[:, None]
    values = np.where(failed, lowest, table.where(at <= last, table.ffill(axis=1)).to_numpy(float))
    values[(trials["status"] == "crashed").to_numpy()] = np.nan
    arm, arms = arms_of(trials, by)
    groups = pd.DataFrame(values, columns=table.columns).groupby([arm, trials["seed"].to_numpy()], sort=False)
    units = groups.mean().where(groups.count().eq(groups.size(), axis=0))
    tidy = units.rename_axis(["arm", "seed"]).melt(ignore_index=False, value_name="value").reset_index()
    groups = tidy.groupby(["arm", "epoch"], sort=False)["value"]
    frame = groups.agg(seeds="count", mean="mean", sd="std").reset_index().sort_values(["arm", "epoch"])
    half = stdtrit((frame["seeds"] - 1).clip(1), (1 + LEVEL) / 2) * frame["sd"] / np.sqrt(frame["seeds"])
    low, high = bounded(frame["mean"], half, metric)
    frame = frame.assign(low=low, high=high).drop(columns="sd")
    return labelled(frame.reset_index(drop=True), arms, by)


def medians(trials: pd.DataFrame, layers: pd.DataFrame, by: list[str], statistics: list[str]) -> pd.DataFrame:
    """Statistics of kernels by arm and epoch: the median of the arm's trials that got so far.

    Returns:
        the columns `by`, kernel, epoch, and a column for each of `statistics`; kernels in the network's order.
    """
    return _over_trials(trials, layers, by, statistics, "median")


def kernels(layers: pd.DataFrame, statistics: list[str]) -> pd.DataFrame:
    """Statistics of each trial's kernels: the columns key, kernel, epoch, and those of `statistics`."""
    rows = layers[layers["tensor"].str.endswith("kernel")]
    return _named(rows).reindex(columns=["key", "kernel", "epoch", *statistics])


def densities(trials: pd.DataFrame, counts: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """How each kernel's weights are distributed, of all an arm's trials together, at some of the epochs they have.

    Args:
        counts: from `load.densities`; within a cell weights count as spread evenly.

    Returns:
        the columns `by`, kernel, epoch, weight, density: the outline of `DENSITY_CELLS` cells from the least to the
        greatest weight, two points each; nothing for a kernel whose weights are all alike.
    """
    there = np.unique(counts["epoch"])
    wanted = there[np.unique(np.linspace(0, max(len(there) - 1, 0), DENSITY_EPOCHS).round().astype(int))[: len(there)]]
    rows, arms = _kernels(trials, counts[counts["epoch"].isin(wanted)], by)
    parts = []
    groups = rows.sort_values(["arm", "place", "epoch"], kind="stable").groupby(["arm", "kernel", "epoch"], sort=False)
    for (arm, kernel, epoch), group in groups:
        low, high = group["low"].min(), group["high"].max()
        if not low < high:
            continue
        edges = np.linspace(low, high, DENSITY_CELLS + 1)
        tensors = zip(group["low"], group["high"], group["counts"], strict=True)
        each = [_below(least, most, cells, edges) for least, most, cells in tensors]
        below = np.sum(each, axis=0)
        cells = np.diff(below) / np.diff(edges) / below[-1]
        outline = {"weight": np.repeat(edges, 2)[1:-1], "density": np.repeat(cells, 2)}
        parts.append(pd.DataFrame({"arm": arm, "kernel": kernel, "epoch": epoch} | outline))
    columns = ["arm", "kernel", "epoch", "weight", "density"]
    return labelled(pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns), arms, by)


def _below(low: float, high: float, counts: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """How many entries of a tensor lie below each of some edges, those of a cell spread over it."""
    if low == high:
        return np.where(edges > low, sum(counts), 0.0) + np.where(edges == low, sum(counts) / 2, 0.0)
    return np.interp(edges, np.linspace(low, high, len(counts) + 1), np.concatenate([[0], np.cumsum(counts)]))


def _over_trials(trials, layers, by, statistics, how) -> pd.DataFrame:
    rows, arms = _kernels(trials, layers, by)
    groups = rows.groupby(["arm", "kernel", "epoch"], sort=False)
    frame = groups[statistics].agg(how).assign(place=groups["place"].max()).reset_index()
    frame = frame.sort_values(["arm", "place", "epoch"], ignore_index=True)
    return labelled(frame[["arm", "kernel", "epoch", *statistics]], arms, by)


def _kernels(trials, layers, by) -> tuple[pd.DataFrame, list]:
    """The rows of kernels with their arm's number, their kernel's name and its place in the network; and the arms."""
    rows = _named(layers[layers["tensor"].str.endswith("kernel")])
    number, arms = arms_of(trials, by)
    arm = rows["key"].map(dict(zip(trials["key"], number, strict=True)))
    rows = rows.assign(arm=arm).dropna(subset="arm").astype({"arm": int})
    rows["place"] = rows.groupby("key")["kernel"].transform(lambda names: pd.factorize(names)[0])
    return rows, arms


def _named(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of kernels with their names: the layer's, and the tensor's if that says more than that it is a kernel."""
    rows = rows.astype({"key": str, "layer": str, "tensor": str})
    kernel = (rows["layer"] + " " + rows["tensor"].str.removesuffix("kernel").str.rstrip("_")).str.strip()
    return rows.assign(kernel=kernel)


WARNING = re.compile(r"(.+?)(?: from layer \d+ (?:down|up)| in every layer| in layers? .+?)? from epoch (\d+)(?:; |$)")
"""A sign in a trial's warning, and its epoch; where it is seen differs from trial to trial."""


def warnings(trials: pd.DataFrame, metric: str) -> pd.DataFrame:
    """What became of the trials that each early warning was given for, the most frequent first.

    Returns:
        the columns warning; trials: that have it; epoch: the median of those at which it was first seen; failed: how
        many of them did not finish; value, others: the mean of the metric with the warning, and without.
    """
    return warnings_within(trials, [], metric).drop(columns="of")


def warnings_within(trials: pd.DataFrame, by: list[str], metric: str) -> pd.DataFrame:
    """What became of the trials with an early warning beside those of the same arm without: an arm and warning a row.

    Over all arms a warning tells mostly which arm a trial is of; within one it tells of the trial.

    Returns:
        the columns `by`, warning; trials: of the arm that have it; of: how many it has; epoch: the median of those at
        which it was first seen; failed: how many of those with it did not finish; value, others: the mean of the
        metric with it, and without.
    """
    values, finished = scored(trials, metric).to_numpy(float), (trials["status"] == "finished").to_numpy()
    number, arms = arms_of(trials, by)
    found: dict[tuple, list] = {}
    for place, text in enumerate(trials["warning"]):
        for name, epoch in WARNING.findall(text):
            found.setdefault((number[place], name), []).append((place, int(epoch)))
    rows = []
    for (arm, name), seen in found.items():
        mine = np.flatnonzero(number == arm)
        has = np.isin(mine, [place for place, _ in seen])
        count, failed = int(has.sum()), int((~finished[mine[has]]).sum())
        epoch = float(np.median([epoch for _, epoch in seen]))
        means = (_mean(values[mine[has]]), _mean(values[mine[~has]]))
        rows.append((arm, name, count, len(mine), epoch, failed, *means))
    columns = ["arm", "warning", "trials", "of", "epoch", "failed", "value", "others"]
    frame = pd.DataFrame(rows, columns=columns).sort_values(
        ["arm", "trials", "warning"], ascending=[True, False, True], ignore_index=True
    )
    return labelled(frame, arms, by)


def _mean(values: np.ndarray) -> float:
    """The mean of the values that are not NaN; NaN of none."""
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else np.nan


def ends(trials: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Where trials diverged or timed out: the columns `by`, epoch and trials, a row an arm and epoch."""
    failed = trials[trials["status"].isin(["diverged", "timeout"])]
    arm, arms = arms_of(failed, by)
    counts = failed.groupby([arm, failed["epochs"].to_numpy()]).size()
    frame = counts.rename_axis(["arm", "epoch"]).rename("trials").reset_index()
    return labelled(frame, arms, by)


def breakdowns(trials: pd.DataFrame, epochs: pd.DataFrame) -> pd.DataFrame:
    """How the loss of each diverged trial went out of bounds.

    Returns:
        the columns key; loss: the first column of `LOSSES` that is not finite at its last epoch; epoch: that one; last,
        before: the last validation loss that was finite, NaN if none was, and its epoch.
    """
    rows = []
    courses = dict(list(epochs.groupby("key", sort=False)))
    for key in trials["key"][trials["status"] == "diverged"]:
        if key not in courses:
            continue
        course = courses[key]
        end = course.iloc[-1]
        lost = [name for name in LOSSES if not np.isfinite(end[name])]
        sound = course[np.isfinite(course["val_loss"].astype(float))]
        last = (sound["val_loss"].iloc[-1], sound["epoch"].iloc[-1]) if len(sound) else (np.nan, np.nan)
        rows.append((key, lost[0] if lost else "", end["epoch"], *last))
    return pd.DataFrame(rows, columns=["key", "loss", "epoch", "last", "before"])
