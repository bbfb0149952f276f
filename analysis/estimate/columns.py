"""The columns that arms can be compared by: those of the trials frame, one's own, and statistics of layers."""

import difflib
from fnmatch import fnmatchcase
from pathlib import Path

import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from analysis import load
from studies.contract import STATISTICS
from studies.record import METRICS, StudyError, listed

LAYER = "LAYER.TENSOR.STATISTIC[@EPOCH]"
"""How a statistic of a layer is named, such as `dense_1.kernel.l2`, `*.kernel.update_ratio@10`."""


def numbers(trials: pd.DataFrame) -> list[str]:
    """The columns of a trials frame that arms can be compared by, the metrics first."""
    found = [name for name in trials if is_numeric_dtype(trials[name]) and not is_bool_dtype(trials[name])]
    metrics = [name for name in METRICS if name in trials]
    return [*metrics, *(name for name in found if name != "seed" and name not in METRICS)]


def check(trials: pd.DataFrame, metric: str) -> None:
    """See that a metric is a column of numbers.

    Raises:
        StudyError: it is not; the error names those there are.
    """
    known = numbers(trials)
    if metric not in known and not (trials.empty and metric in trials):
        reason = "holds no numbers" if metric in trials else "there is no such column"
        raise StudyError(
            f"metric={metric}: {reason}: expected one of {listed(known)}; or of a study's layers {LAYER}"
            f"{_near(metric, known)}"
        )


def added(trials: pd.DataFrame, metric: str, study: str, root: str | Path) -> pd.DataFrame:
    """A trials frame with the column `metric`, which is read from the layers frame if it is a statistic of a layer.

    Args:
        metric: a column of numbers, or `LAYER`, see `layer_values`.
        study, root: the store to read it from.

    Raises:
        StudyError: there is no such column, layer, tensor, statistic or epoch.
    """
    if metric in trials or metric.partition("@")[0].count(".") < 2:
        check(trials, metric)
        return trials
    statistic = metric.partition("@")[0].rpartition(".")[2]
    if statistic not in STATISTICS:
        raise StudyError(
            f"metric={metric}: expected {LAYER} with a statistic among {listed(STATISTICS)}"
            f"{_near(statistic, STATISTICS)}"
        )
    layers = load.layers(study, root, list(trials["key"]), [statistic])
    return trials.assign(**{metric: trials["key"].map(layer_values(layers, metric)).astype(float)})


def layer_values(layers: pd.DataFrame, metric: str) -> pd.Series:
    """A statistic of a layer at an epoch, by trial.

    Args:
        layers: a layers frame with the statistic.
        metric: `LAYER.TENSOR.STATISTIC`, at each trial's last epoch that has it, or with `@EPOCH` at that one. `*` in
            the layer's or tensor's name stands for any text: the value is then the mean over those that have one.

    Returns:
        indexed by key; without the trials that have no value, such as those without that layer.

    Raises:
        StudyError: no trial has such a layer and tensor, or such an epoch.
    """
    name, _, epoch = metric.partition("@")
    layer, tensor, statistic = name.rsplit(".", 2)
    parts = layers[["layer", "tensor"]].drop_duplicates().itertuples(index=False)
    wanted = {(a, b) for a, b in parts if _fits(a, layer) and _fits(b, tensor)}
    if not wanted:
        there = (layers["layer"].astype(str) + "." + layers["tensor"].astype(str)).unique().tolist()
        raise StudyError(
            f"metric={metric}: no trial has {layer}.{tensor}: expected one of "
            f"{listed(there) or 'none, for no layer was observed'}{_near(f'{layer}.{tensor}', there)}"
        )
    rows = layers[[pair in wanted for pair in zip(layers["layer"], layers["tensor"], strict=True)]]
    rows = rows[rows[statistic].notna()]
    if epoch:
        epochs = sorted(rows["epoch"].unique().tolist())
        if not epoch.isdecimal() or int(epoch) not in epochs:
            raise StudyError(f"metric={metric}: expected one of the epochs {listed(epochs) or '(none has it)'}")
        rows = rows[rows["epoch"] == int(epoch)]
    rows = rows[rows["epoch"] == rows.groupby("key")["epoch"].transform("max")]
    return rows.groupby("key", sort=False)[statistic].mean()


def _fits(name, pattern) -> bool:
    return name == pattern or ("*" in pattern and fnmatchcase(name, pattern))


def _near(name, known) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f". Did you mean {near[0]}?" if near else ""
