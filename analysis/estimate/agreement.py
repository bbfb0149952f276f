"""How two records of one trial differ, number by number, to the last bit."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

PLACES = {
    "epochs": ("epoch",),
    "layers": ("epoch", "layer", "tensor"),
    "densities": ("epoch", "layer", "tensor"),
    "confusions": ("set", "class", "predicted"),
}
"""What tells the rows of each frame apart."""

CLOCKS = ("key", "seconds")
"""Columns that are no part of what was computed."""


@dataclass(frozen=True)
class Difference:
    """Numbers that are not the same in both.

    Attributes:
        table: a frame's name, or `results`.
        column: the statistic; empty where rows are in one of them alone.
        count: so many differ.
        epoch: the first at which one does; None where there are no epochs.
        largest: the largest relative difference, |a - b| / max(|a|, |b|); NaN where that is none.
    """

    table: str
    column: str
    count: int
    epoch: int | None
    largest: float


@dataclass(frozen=True)
class Agreement:
    """What came of comparing.

    Attributes:
        numbers: so many were compared.
        tables: of which, by the frames' names and `results`.
        differences: all there are.
        unstored: `TABLE.COLUMN` that one of them has not at all, as of an earlier version: they are not compared.
    """

    numbers: int
    tables: dict[str, int]
    differences: tuple[Difference, ...]
    unstored: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether all that was compared is equal to the bit."""
        return not self.differences


def agreement(
    there: Mapping[str, pd.DataFrame],
    here: Mapping[str, pd.DataFrame],
    results: tuple[Mapping[str, float], Mapping[str, float]],
    until: int | None = None,
) -> Agreement:
    """The frames of a trial and its results, as they were stored and as they are now.

    Two NaN are equal, two zeros of unlike signs are not.

    Args:
        there, here: frames by their names, see `analysis.load.frames`.
        results: numbers by name; what is not finite is as if it were not there.
        until: the last epoch that counts, for a trial that the clock has ended; None for all.
    """
    tables, differences, unstored = {}, [], []
    for name, places in PLACES.items():
        if name not in there or name not in here:
            unstored += [name] * ((name in there) != (name in here))
            continue
        count, found, lacking = _frames(name, places, there[name], here[name], until)
        tables[name] = count
        differences += found
        unstored += lacking
    was, now = ({n: v for n, v in each.items() if np.isfinite(v)} for each in results)
    both = [name for name in was if name in now]
    tables["results"] = len(both)
    for name in both:
        same, relative = _compared(np.array([was[name]], float), np.array([now[name]], float))
        if not same.all():
            differences.append(Difference("results", name, 1, None, float(relative[0])))
    unstored += [f"results.{name}" for name in {**was, **now} if name not in both]
    return Agreement(sum(tables.values()), tables, tuple(differences), tuple(unstored))


def _frames(name, places, there, here, until) -> tuple[int, list[Difference], list[str]]:
    """How many numbers were compared, what differs, and the columns that one has not."""
    if until is not None and "epoch" in places:
        there, here = (frame[frame["epoch"] <= until] for frame in (there, here))
    was, now = (frame.set_index(list(places)) for frame in (there, here))
    alone = was.index.symmetric_difference(now.index)
    found = [Difference(name, "", len(alone), _first(alone, places), np.nan)] * bool(len(alone))
    index = was.index.intersection(now.index)
    was, now = was.loc[index], now.loc[index]
    count, lacking = 0, []
    for column in (column for column in was if column in now and column not in CLOCKS):
        old, new = (_numbers(frame[column]) for frame in (was, now))
        if old.shape != new.shape:
            found.append(Difference(name, column, len(index), _first(index, places), np.nan))
            continue
        there_is = [not np.isnan(each).all() for each in (old, new)]
        if not any(there_is):
            continue
        if not all(there_is):
            lacking.append(f"{name}.{column}")
            continue
        same, relative = _compared(old, new)
        in_numbers = not isinstance(was[column].iloc[0], str)
        count += int((~np.isnan(old) | ~np.isnan(new)).sum()) * in_numbers
        if not same.all():
            rows = ~same.reshape(len(index), -1).all(axis=1)
            known = relative[~same & np.isfinite(relative)]
            largest = float(known.max()) if len(known) and in_numbers else np.nan
            found.append(Difference(name, column, int((~same).sum()), _first(index[rows], places), largest))
    return count, found, lacking


def _first(index: pd.Index, places: tuple[str, ...]) -> int | None:
    return int(index.get_level_values("epoch").min()) if "epoch" in places and len(index) else None


def _numbers(column: pd.Series) -> np.ndarray:
    """A column as float64, of lists `(rows, cells)`; texts by their equality, as numbers that stand for them."""
    if len(column) and isinstance(column.iloc[0], list | np.ndarray):
        lengths = {len(each) for each in column}
        return np.array([*map(np.asarray, column)], float) if len(lengths) == 1 else np.empty((0, 0))
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(float)
    return np.array([_hash(str(text)) for text in column], float)


def _hash(text: str) -> float:
    """A text as a whole number below 2^48; NaN for an empty one."""
    digest = hashlib.sha256(text.encode("utf-8", "replace")).digest()
    return float(int.from_bytes(digest[:6])) if text else np.nan


def _compared(old: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where they are equal to the bit, and their relative differences, NaN where one is not finite."""
    neither = np.isnan(old) & np.isnan(new)
    same = neither | (np.ascontiguousarray(old).view(np.int64) == np.ascontiguousarray(new).view(np.int64))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        relative = np.abs(old - new) / np.maximum(np.abs(old), np.abs(new))
    return same, np.where(np.isfinite(relative), relative, np.nan)
