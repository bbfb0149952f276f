"""The columns that arms can be compared by: those of the trials and epochs frames, one's own, statistics of layers."""

from fnmatch import fnmatchcase
from pathlib import Path

import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from analysis import load
from studies.contract import EPOCH_COLUMNS, STATISTICS
from studies.record import METRICS, StudyError, listed, nearest

LAYER = "LAYER.TENSOR.STATISTIC[@EPOCH]"
"""How a statistic of a layer is named, such as `dense_1.kernel.l2`, `*.kernel.update_ratio@10`."""


EPOCH = "COLUMN[@EPOCH]"
"""How a column of the epochs frame is named, such as `sharpness@0`, `val_accuracy@10`."""

OF_EPOCHS = tuple(name for name in EPOCH_COLUMNS if name not in ("key", "epoch"))


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
        near = nearest(metric.replace(" ", "_"), [*known, *OF_EPOCHS])
        raise StudyError(
            f"metric={metric}: {reason}{near or ':'} {'E' if near else 'e'}xpected one of {listed(known)}; of the "
            f"epochs {EPOCH} with one of {listed(OF_EPOCHS)}; or of a study's layers {LAYER}"
        )


def added(trials: pd.DataFrame, metric: str, study: str, root: str | Path) -> pd.DataFrame:
    """A trials frame with the column `metric`, read from the frames of epochs or layers if it is a column of theirs.

    Args:
        metric: a column of numbers; `EPOCH`, see `epoch_values`; or `LAYER`, see `layer_values`.
        study, root: the store to read it from.

    Raises:
        StudyError: there is no such column, layer, tensor, statistic or epoch.
    """
    if metric not in trials and metric.partition("@")[0] in OF_EPOCHS:
        epochs = load.epochs(study, root, list(trials["key"]))
        return trials.assign(**{metric: trials["key"].map(epoch_values(epochs, metric)).astype(float)})
    if metric in trials or metric.partition("@")[0].count(".") < 2:
        check(trials, metric)
        return trials
    statistic = metric.partition("@")[0].rpartition(".")[2]
    if statistic not in STATISTICS:
        near = nearest(statistic, STATISTICS) or "."
        raise StudyError(
            f"metric={metric}: there is no such statistic{near} Expected {LAYER} with a statistic among "
            f"{listed(STATISTICS)}"
        )
    layers = load.layers(study, root, list(trials["key"]), [statistic])
    return trials.assign(**{metric: trials["key"].map(layer_values(layers, metric)).astype(float)})


def epoch_values(epochs: pd.DataFrame, metric: str) -> pd.Series:
    """A column of the epochs frame, by trial.

    Args:
        epochs: an epochs frame with the column.
        metric: `COLUMN`, at each trial's last epoch that has it, or with `@EPOCH` at that one.

    Returns:
        indexed by key; without the trials that have no value.

    Raises:
        StudyError: no trial has it, or not at that epoch.
    """
    name, _, epoch = metric.partition("@")
    rows = _at(epochs[epochs[name].notna()], epoch, metric)
    return rows.groupby("key", sort=False)[name].last()


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
        near = nearest(f"{layer}.{tensor}", there)
        raise StudyError(
            f"metric={metric}: no trial has {layer}.{tensor}{near or ':'} {'E' if near else 'e'}xpected one of "
            f"{listed(there) or 'none, for no layer was observed'}"
        )
    rows = layers[[pair in wanted for pair in zip(layers["layer"], layers["tensor"], strict=True)]]
    rows = _at(rows[rows[statistic].notna()], epoch, metric)
    return rows.groupby("key", sort=False)[statistic].mean()


def _at(rows, epoch, metric) -> pd.DataFrame:
    """The rows of an epoch, a text, or of each trial's last if it is empty."""
    if epoch:
        epochs = sorted(rows["epoch"].unique().tolist())
        if not epoch.isdecimal() or int(epoch) not in epochs:
            raise StudyError(f"metric={metric}: expected one of the epochs {listed(epochs) or '(none has it)'}")
        return rows[rows["epoch"] == int(epoch)]
    return rows[rows["epoch"] == rows.groupby("key")["epoch"].transform("max")]


def _fits(name, pattern) -> bool:
    return name == pattern or ("*" in pattern and fnmatchcase(name, pattern))
