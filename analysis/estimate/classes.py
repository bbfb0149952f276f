"""Frames in, frames out: scores of each class, and what classes are taken for."""

import pandas as pd

from analysis.estimate.arms import as_level

CELL = ["class", "predicted"]


def shares(confusions: pd.DataFrame, trials: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """How often an arm's networks take each class for each: every pair, those that never occur too.

    Args:
        confusions: of one set, `studies.contract.CONFUSION_COLUMNS`.
        trials: a trials frame; those without rows in `confusions` have no part.
        by: the factors that make the arms.

    Returns:
        one row an arm, class and predicted class: the columns `by`, class, predicted; trials; count, their mean; share
        of the class's examples, a mean over the trials, NaN where the class has none.
    """
    whole = _whole(confusions, trials, by)
    of_class = whole.groupby(["key", "class"])["count"].transform("sum")
    whole["share"] = (whole["count"] / of_class.where(of_class > 0)).astype(float)
    return _means(whole, by, CELL, ["count", "share"])


def scores(confusions: pd.DataFrame, trials: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Each class's scores in each arm, means over its trials. For the arguments see `shares`.

    Returns:
        one row an arm and class: the columns `by`, class; trials; examples; recall, the share of them that is named so;
        precision, the share of what is named so that is of the class; f1 = 2 right / (examples + named so). A recall
        is NaN without examples; a precision of a class that a trial never names is 0, as scikit-learn has it, NaN if
        it has no examples either.
    """
    whole = _whole(confusions, trials, by)
    right = whole[whole["class"] == whole["predicted"]].set_index(["key", "class"])
    named = whole.groupby(["key", "predicted"])["count"].sum().rename_axis(["key", "class"]).reindex(right.index)
    examples = whole.groupby(["key", "class"])["count"].sum().reindex(right.index)
    there, seen = examples > 0, examples + named > 0
    each = right[by].assign(
        examples=examples.astype(float),
        recall=(right["count"] / examples.where(there)).astype(float),
        precision=(right["count"] / named.clip(lower=1)).where(seen).astype(float),
        f1=(2 * right["count"] / (examples + named).where(seen)).astype(float),
    )
    return _means(each.reset_index(), by, ["class"], ["examples", "recall", "precision", "f1"])


def names(confusions: pd.DataFrame) -> dict[int, str]:
    """What classes are called, by their labels; empty texts where the data has no names."""
    named = zip(
        [*confusions["class"], *confusions["predicted"]], [*confusions["class_name"], *confusions["predicted_name"]]
    )
    return dict(sorted({int(label): name for label, name in named}.items()))


def _whole(confusions: pd.DataFrame, trials: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Each trial's count of every pair of classes, with its levels."""
    some = trials[trials["key"].isin(set(confusions["key"]))]
    size = int(max(some["classes"].max(), confusions[CELL].to_numpy().max(initial=-1) + 1)) if len(some) else 0
    index = pd.MultiIndex.from_product([some["key"], range(size), range(size)], names=["key", *CELL])
    counts = confusions.set_index(["key", *CELL])["count"].reindex(index, fill_value=0).reset_index()
    levels = some[["key", *by]].assign(**{factor: some[factor].map(as_level) for factor in by})
    return counts.merge(levels, on="key", how="left")


def _means(frame: pd.DataFrame, by: list[str], per: list[str], names: list[str]) -> pd.DataFrame:
    """Over the trials of each arm, arms in the order in which they appear."""
    groups = frame.groupby([*by, *per], sort=False, dropna=False)
    means = groups[names].mean().reset_index()
    means.insert(len(by) + len(per), "trials", groups["key"].nunique().to_numpy())
    return means
