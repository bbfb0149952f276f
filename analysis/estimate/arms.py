"""The arms of a frame, and what an average over other factors may be taken of."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from studies.record import Study

MOST_BLOCKS = 4000
"""So many combinations are looked through for the largest block, which is then the largest of these."""


def arms_of(trials: pd.DataFrame, by: list[str]) -> tuple[np.ndarray, list[tuple]]:
    """Each trial's arm as a number, `(trials,)`, and what the numbers stand for: the levels, in order of appearance."""
    # Not by Series.map, which makes a float of an integer beside a null.
    columns = [[as_level(level) for level in trials[factor]] for factor in by]
    levels = zip(*columns, strict=True) if by else [()] * len(trials)
    numbers = {}
    return np.array([numbers.setdefault(arm, len(numbers)) for arm in levels], dtype=int), list(numbers)


def labelled(frame: pd.DataFrame, arms: list[tuple], by: list[str]) -> pd.DataFrame:
    """A frame with the column `arm`, from `arms_of`, replaced by those of the factors."""
    levels = levels_of([arms[number] for number in frame["arm"]], by)
    return pd.concat([pd.DataFrame(levels, index=frame.index), frame.drop(columns="arm")], axis=1)


def levels_of(arms: list[tuple], by: list[str]) -> dict[str, pd.Series]:
    """Columns of arms' levels."""
    columns = {factor: [arm[place] for arm in arms] for place, factor in enumerate(by)}
    # An object where a level is null: else null and 3 would come back as NaN and 3.0.
    return {name: pd.Series(levels, dtype=object if None in levels else None) for name, levels in columns.items()}


def grouped(frame: pd.DataFrame, by: list[str]):
    """Each arm's levels and rows, in order of appearance."""
    number, arms = arms_of(frame, by)
    places = pd.Series(number).groupby(number, sort=False).indices
    for arm, levels in enumerate(arms):
        yield levels, frame.iloc[places[arm]]


def as_level(level: object) -> object:
    """A level as a key: a list as a tuple, pandas's NaN as the null it was."""
    if isinstance(level, list):
        return tuple(level)
    return None if level != level else level


def averaged_over(study: Study, by: list[str]) -> list[str]:
    """The factors of a study that an average by some of them is over: the others, but those that these determine.

    A factor that moves with some of them (`zip`) is determined if it has one level for each of theirs.
    """
    told = set(by)
    for group in study.zip:
        known = [factor for factor in group if factor in by]
        for factor in group if known else ():
            moves = set(zip(*(map(as_level, study.factors[name]) for name in (*known, factor)), strict=True))
            if len({move[:-1] for move in moves}) == len(moves):
                told.add(factor)
    return [factor for factor in study.factors if factor not in told]


def comparable(trials: pd.DataFrame, by: list[str], over: Iterable[str]) -> pd.DataFrame:
    """The trials that an average over some factors is taken of: the same combinations of their levels everywhere.

    Where there are several combinations, those count, at those seeds, that every arm has a trial of, each at each: no
    arm is then ahead for having been tried where it is easy, and no seed for having been run there. Of the ways to
    leave out combinations or seeds the one that keeps most is taken, and of those the one that keeps more seeds.

    Args:
        by: the factors that make the arms.
        over: the factors averaged over; with none it is all the trials.
    """
    return trials[counted(trials, by, over)]


def counted(trials: pd.DataFrame, by: list[str], over: Iterable[str]) -> np.ndarray:
    """Whether each trial is among the `comparable` ones, `(trials,)`."""
    context, contexts = arms_of(trials, list(over))
    if len(contexts) < 2:
        return np.full(len(trials), True)
    arm, arms = arms_of(trials, by)
    cells = pd.DataFrame({"arm": arm, "seed": trials["seed"].to_numpy(), "context": context})
    whole = cells.groupby(["seed", "context"])["arm"].nunique().eq(len(arms)).unstack(fill_value=False)
    seeds, kept = _block(whole.to_numpy())
    return (cells["seed"].isin(whole.index[seeds]) & cells["context"].isin(whole.columns[kept])).to_numpy()


def _block(there: np.ndarray) -> tuple[list[int], list[int]]:
    """The rows and columns of the largest block that is all true, of several the tallest; see `MOST_BLOCKS`."""
    rows = {frozenset(np.flatnonzero(row).tolist()) for row in there}
    blocks = {each: np.flatnonzero(there[:, list(each)].all(axis=1)).tolist() for each in _common(rows)}

    def size(columns):
        return len(columns) * len(blocks[columns]), len(blocks[columns]), sorted(-n for n in columns)

    columns = max(blocks, key=size, default=frozenset())
    return blocks.get(columns, []), sorted(columns)


def _common(rows: set[frozenset]) -> set[frozenset]:
    """What any number of the sets have in common, if anything; not all of it if that is more than `MOST_BLOCKS`."""
    found = {frozenset.intersection(*rows), *rows} if rows else set()
    for row in sorted(rows, key=sorted):
        if len(found) > MOST_BLOCKS:
            break
        found |= {row & other for other in found}
    return found - {frozenset()}


def repeats(trials: pd.DataFrame, by: list[str]) -> np.ndarray:
    """Whether each trial is, number for number, an earlier one of its arm at another seed, `(trials,)`.

    So are trials all of whose streams are pinned: they are one run, and one seed, however often it was done. Where
    nothing was learned equal numbers say nothing of what was drawn: outputs that stay uniform have the loss
    log(classes) at every seed, and those that always name one class its share of the examples.
    """
    if not {"running_loss", "val_loss"} <= set(trials):
        return np.full(len(trials), False)
    numbers = trials[["running_loss", "val_loss"]].astype(float)
    same = numbers.assign(arm=arms_of(trials, by)[0]).duplicated().to_numpy()
    return same & _learned(trials, numbers.to_numpy()) & (trials["status"] == "finished").to_numpy()


def _learned(trials: pd.DataFrame, losses: np.ndarray) -> np.ndarray:
    """Whether each trial's losses `(trials, 2)` are not the uniform guess's, nor its accuracy within reach of one."""
    unknown = pd.Series(np.nan, trials.index)
    classes = trials["classes"].astype(float).where(trials["classes"] > 0)
    uniform = np.isclose(losses, np.log(classes).to_numpy()[:, None], rtol=1e-5).any(axis=1)
    share = trials.get("chance_val", unknown).astype(float).fillna(1 / classes)
    guesses = trials.get("val_accuracy", unknown).astype(float) <= share
    return np.isfinite(losses).all(axis=1) & ~uniform & ~guesses.to_numpy()


def one_runs(trials: pd.DataFrame, by: list[str]) -> list[tuple[tuple, int]]:
    """The arms whose seeds are one run, see `repeats`, and how many seeds that is."""
    found = []
    for levels, part in grouped(trials, by):
        if len(part) > 1 and repeats(part, by).sum() == len(part) - 1:
            found.append((levels, len(part)))
    return found


def left_out(trials: pd.DataFrame, by: list[str], over: Iterable[str]) -> tuple[list[tuple], list[int], bool]:
    """What `comparable` leaves out: combinations of the levels of `over`, seeds; and whether that is everything."""
    over, kept = list(over), comparable(trials, by, over)
    contexts = set(arms_of(kept, over)[1])
    seeds = set(kept["seed"])
    return (
        [context for context in arms_of(trials, over)[1] if context not in contexts],
        sorted(set(trials["seed"]) - seeds),
        kept.empty and not trials.empty,
    )
