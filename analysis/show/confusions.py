"""Scores of each class and confusion matrices as tables: renders what `analysis.estimate.classes` gave."""

from collections.abc import Mapping

import pandas as pd

from analysis.estimate.arms import as_level
from analysis.show import escaped, tables
from studies.record import arm_label, plain

WIDE = 10
"""So many classes make a matrix that a terminal of 80 columns shows; of more each class's commonest errors are."""

ERRORS = 3

NAMES = {"val": "validation images", "test": "test images"}

TITLES = {
    "terminal": "{}\n\n{}",
    "markdown": "{}\n\n{}",
    "latex": "% {}\n{}",
    "html": "<p>{}</p>\n{}",
}
"""What a table stands under, by format."""

MEANT = (
    "Of 100 examples of a class, how many are taken for each, the recall on the diagonal; F1 = 2 right / (examples + "
    "named so); means over the trials."
)


def matrices(
    scores: pd.DataFrame,
    shares: pd.DataFrame,
    by: list[str],
    which: str,
    format: str,
    names: Mapping[int, str] | None = None,
) -> str:
    """Each arm's classes as a table under its name: what they are taken for, and how well they are told.

    Args:
        scores, shares: what `classes.scores` and `classes.shares` gave.
        which: `val` or `test`.
        format: one of `tables.STYLES`.
        names: of the classes, where they have some.
    """
    texts, called = [], {label: f"{label} {name}" for label, name in (names or {}).items() if name}
    levels = scores[by].drop_duplicates().to_dict("records") if by else [{}]
    for row in levels:
        arm = {factor: as_level(level) for factor, level in row.items()}
        own, cells = (_of(frame, arm) for frame in (scores, shares))
        matrix = cells.pivot(index="class", columns="predicted", values="share")
        wide = len(own) > WIDE
        headers = ["class", *(["examples", "recall"] if wide else map(str, matrix.columns)), "precision", "F1"]
        rows = [
            [
                called.get(row["class"], str(row["class"])),
                *([f"{row['examples']:g}", _score(row["recall"])] if wide else map(_percent, matrix.loc[row["class"]])),
                *(_score(row[name]) for name in ("precision", "f1")),
                *([_errors(matrix.loc[row["class"]], called)] if wide else []),
            ]
            for row in own.to_dict("records")
        ]
        headers += ["taken for"] * wide
        aligned = ["left" if called else "right", *["right"] * (len(headers) - wide - 1), *["left"] * wide]
        table = escaped.table(rows, headers, tables.STYLES[format], aligned)
        trials = int(own["trials"].iloc[0])
        title = f"{arm_label(arm) if by else 'all trials'}: {NAMES[which]}, {trials} trial{'s' * (trials > 1)}"
        texts.append(TITLES[format].format(escaped.TITLES.get(format, plain)(title), table))
    return "\n\n".join(texts)


def _of(frame: pd.DataFrame, arm: dict) -> pd.DataFrame:
    """The rows of an arm."""
    for factor, level in arm.items():
        frame = frame[[as_level(other) == level for other in frame[factor]]]
    return frame


def _percent(share: float) -> str:
    """A share in percent; a dot where there is nothing, so that a matrix is seen at a glance."""
    if share != share:
        return "–"
    whole = f"{100 * share:.0f}"
    return "." if share == 0 else "<1" if whole == "0" else whole


def _score(value: float) -> str:
    return "–" if value != value else f"{value:.3f}"


def _errors(of_class: pd.Series, called: Mapping[int, str]) -> str:
    """What a class is most often taken for besides itself: `8 (4 %), 3 (1 %)`."""
    others = of_class.drop(of_class.name).sort_values(ascending=False, kind="stable")
    return ", ".join(
        f"{called.get(label, label)} ({_percent(share)} %)" for label, share in others[others > 0].head(ERRORS).items()
    )
