"""The reader of raw runs that others publish: a CSV with one row a run and epoch, as trials and epochs."""

import csv
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd

from studies.contract import CIRCUMSTANCES
from studies.record import Result, StudyError, content_key, listed

CLOCKS = ("examples", "seconds")
"""Columns of the epochs frame, besides metrics, that a file may have."""

TAKEN = {"study", "role", "warning", "folder", *CIRCUMSTANCES, *(field.name for field in fields(Result))}
"""What columns of the trials frame are called, which no factor can be."""


def frames(path: str | Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The trials and the epochs of a file of raw runs; columns that they need besides are left to the caller.

    The file has the columns seed and epoch, metrics (any name that ends in accuracy or loss; accuracies as shares of
    one), perhaps `examples` (so far) and `seconds` (of the epoch), and factors: all others. A row is an epoch of a
    trial, which is a combination of the factors' levels at a seed.

    Returns:
        trials: key, study (the file's name), role, status, the factors, seed, the metrics of the last epoch, the last
        and best of validation, epochs, error, warning, folder. A trial has diverged if a metric is missing or infinite
        at its last epoch. epochs: key, epoch, metrics and clocks, in the order of epochs.

    Raises:
        StudyError: the file cannot be read, or is not of that format.
    """
    rows = _rows(Path(path))
    metrics = [name for name in rows if name.endswith(("accuracy", "loss"))]
    clocks = [name for name in rows if name in CLOCKS]
    factors = [name for name in rows if name not in ("seed", "epoch", *metrics, *clocks)]
    if not metrics:
        raise StudyError(f"{path}: expected a metric, a column whose name ends in accuracy or loss")
    if taken := TAKEN & set(factors):
        raise StudyError(f"{path}: no factor can be called {listed(sorted(taken))}: give the column another name")
    for name in ("seed", "epoch"):
        rows[name] = _whole(rows[name], path)
    for name in (*metrics, *clocks):
        rows[name] = _numbers(rows[name], path)
    cell = rows.groupby([*factors, "seed"], dropna=False, sort=False).ngroup()
    if (twice := pd.DataFrame({"cell": cell, "epoch": rows["epoch"]}).duplicated()).any():
        row = rows[twice].iloc[0]
        where = listed(f"{name}={row[name]}" for name in (*factors, "seed", "epoch"))
        raise StudyError(
            f"{path}: there are two rows for {where}: expected one; a column that tells them apart is missing"
        )
    rows = rows.assign(cell=cell).sort_values(["cell", "epoch"], kind="stable", ignore_index=True)
    last = rows.groupby("cell", sort=True).tail(1).reset_index(drop=True)
    trials = _trials(Path(path), last, factors, metrics)
    validation = [name for name in metrics if name in ("val_accuracy", "val_loss")]
    trained = rows[rows["epoch"] > 0].groupby("cell")
    for name in validation:
        best = trained[name].agg("max" if name.endswith("accuracy") else "min")
        trials[f"last_{name}"], trials[f"best_{name}"] = last[name], best.reindex(last["cell"]).to_numpy()
    epochs = rows[["epoch", *clocks, *metrics]].copy()
    epochs.insert(0, "key", trials["key"].to_numpy()[rows["cell"]])
    return trials, epochs


def _trials(path: Path, last: pd.DataFrame, factors: list[str], metrics: list[str]) -> pd.DataFrame:
    """A row for each last row."""
    levels = {name: _levels(last[name]) for name in factors}
    named = [
        dict(zip((*factors, "seed"), map(_plain, row), strict=True)) for row in zip(*levels.values(), last["seed"])
    ]
    finite = np.isfinite(last[metrics]).all(axis=1)
    return pd.DataFrame(
        {
            "key": [content_key(name) for name in named],
            "study": path.stem,
            "role": "scientific",
            "status": np.where(finite, "finished", "diverged"),
            **levels,
            "seed": last["seed"],
            **{name: last[name] for name in metrics},
            "epochs": last["epoch"],
            "error": "",
            "warning": "",
            "folder": path.parent,
        }
    )


def _rows(path: Path) -> pd.DataFrame:
    """The file's rows, as pandas reads them."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            names = next(csv.reader(file), [])
        rows = pd.read_csv(path, encoding="utf-8-sig")
    except OSError as error:
        raise StudyError(f"{path} cannot be read ({error.strerror}): expected a CSV file of raw runs") from error
    except (ValueError, csv.Error) as error:  # of pandas's, and of what is no text
        raise StudyError(
            f"{path} is no CSV file ({error}): expected a line of names, then one a run and epoch"
        ) from error
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise StudyError(f"{path}: expected one column of each name: there are several of {listed(repeated)}")
    if missing := [name for name in ("seed", "epoch") if name not in rows]:
        raise StudyError(f"{path}: expected the columns seed and epoch: {listed(missing)} missing of {listed(rows)}")
    if rows.empty:
        raise StudyError(f"{path} has no rows: expected one a run and epoch")
    return rows


def _numbers(values: pd.Series, path) -> pd.Series:
    """A column as numbers."""
    numbers = pd.to_numeric(values, errors="coerce").astype(float)
    wrong = values[numbers.isna() & values.notna()]
    if len(wrong):
        raise StudyError(f"{path}: {values.name}={wrong.iloc[0]}: expected a number, or nothing")
    if values.name.endswith("accuracy") and ((numbers < 0) | (numbers > 1) & np.isfinite(numbers)).any():
        raise StudyError(
            f"{path}: {values.name} is up to {numbers.max():g}: expected shares from 0 to 1; divide percent by 100"
        )
    return numbers


def _whole(values: pd.Series, path) -> pd.Series:
    numbers = _numbers(values, path)
    wrong = values[~((numbers >= 0) & (numbers == numbers.round()) & np.isfinite(numbers))]
    if len(wrong):
        raise StudyError(f"{path}: {values.name}={wrong.iloc[0]}: expected whole numbers from 0 on")
    return numbers.astype(int)


def _levels(values: pd.Series) -> pd.Series:
    """A factor's levels, null where there is none."""
    return values.astype(object).where(values.notna(), None) if values.isna().any() else values


def _plain(value):
    """A level without NumPy's type, which JSON has no word for."""
    return value.item() if isinstance(value, np.generic) else value
