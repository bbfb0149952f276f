"""Which trials are meant: a condition on their columns, or a time since."""

import ast
import operator
import re
from collections.abc import Collection, Iterator
from datetime import datetime, timedelta
from itertools import pairwise

import pandas as pd

from studies.record import StudyError, listed, nearest

UNITS = {"h": "hours", "d": "days", "w": "weeks"}

RELATIONS = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda value, several: value in several,
    ast.NotIn: lambda value, several: value not in several,
}

WORD = r"\b(?!(?:and|or|not|in|is|if|else|for|lambda)\b)[A-Za-z_][\w.]*"
PHRASE = rf"{WORD}(?: +{WORD})+"
"""Words of which a metric's name is made, as tables have it."""

WORDS = {"null": None, "true": True, "false": False}
"""Names that are values, as YAML has them; Python's own are values anyway."""


class Condition:
    """A condition on trials: columns compared with constants, joined by `and`, `or`, `not`; nothing is ever called.

    A column is written as it is called, dots and all, or in backticks; or as tables have it: `depth` for `model.depth`
    if nothing else ends so, `val accuracy` for `val_accuracy`.

    Args:
        text: such as `model.depth >= 8 and initializer in ['he_normal', 'orthogonal']`.

    Raises:
        StudyError: it is something else.
    """

    def __init__(self, text: str):
        self.text, self._quoted = text, {}
        try:
            self._tree = ast.parse(
                re.sub(rf"('[^']*'|\"[^\"]*\")|`([^`]*)`|({PHRASE})", self._plain, text).strip(), mode="eval"
            ).body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise self._refused("it cannot be read") from error
        self._check_compares(self._tree)
        for node in self._nodes(self._tree):
            self._check(node)

    def knows(self, known: Collection[str]) -> bool:
        """Whether all the columns it asks for are among these."""
        return all(self._meant(name, known) for name in self.columns)

    @property
    def columns(self) -> list[str]:
        """The columns it asks for."""
        named = [self._column(node) for node in self._nodes(self._tree) if isinstance(node, ast.Name | ast.Attribute)]
        return [name for name in dict.fromkeys(named) if name not in WORDS]

    def check_columns(self, known: Collection[str]) -> None:
        """Refuse columns that are not among these.

        Raises:
            StudyError: lists those that are.
        """
        for name in self.columns:
            several = self._candidates(name, known)
            if len(several) > 1:
                raise StudyError(f"--where {self.text}: {name} is short for {listed(several)}: name one of them")
            if not several:
                near = nearest(name, known)
                raise StudyError(
                    f"--where {self.text}: no column {name}{near or ':'} {'E' if near else 'e'}xpected some of "
                    f"{listed(known)}"
                )

    def holds(self, trials: pd.DataFrame) -> pd.Series:
        """For which rows of a frame it is true; what is null or NaN is neither less nor greater than anything.

        Raises:
            StudyError: the frame has no such column, or its values cannot be compared so.
        """
        self.check_columns(list(trials))
        names = self.columns
        rows = zip(*(trials[self._meant(name, trials)] for name in names), strict=True) if names else [()] * len(trials)
        return pd.Series(
            [bool(self._value(self._tree, dict(zip(names, row, strict=True)))) for row in rows],
            trials.index,
            dtype=bool,
        )

    @staticmethod
    def _candidates(name: str, known: Collection[str]) -> list[str]:
        """The columns that a name may stand for: as tables have it, a factor without its group, words for a metric."""
        if name in known:
            return [name]
        name = name.replace(" ", "_")
        return [name] if name in known else [each for each in known if each.rpartition(".")[2] == name and "." in each]

    def _meant(self, name: str, known: Collection[str]) -> str:
        """The column that a name stands for; empty if there is none, or several."""
        found = self._candidates(name, known)
        return found[0] if len(found) == 1 else ""

    def _plain(self, match) -> str:
        if match[1]:
            return match[1]
        if match[3]:
            return "_".join(match[3].split())
        name = f"_quoted_{len(self._quoted)}"
        self._quoted[name] = match[2]
        return f" {name} "

    def _nodes(self, node) -> Iterator[ast.expr]:
        """The expressions of a tree; what a dotted name is made of is part of it."""
        yield node
        for child in () if isinstance(node, ast.Attribute) else ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                yield from self._nodes(child)

    def _check_compares(self, node) -> None:
        if isinstance(node, ast.Constant | ast.Name | ast.Attribute):
            raise self._refused(f"{self._column(node)} alone is compared with nothing")

    def _check(self, node) -> None:
        match node:
            case ast.BoolOp(values=parts) | ast.UnaryOp(op=ast.Not(), operand=parts):
                for part in parts if isinstance(parts, list) else [parts]:
                    self._check_compares(part)
                return
            case ast.Constant() | ast.List() | ast.Tuple() | ast.Name():
                return
            case ast.Attribute() if re.fullmatch(r"\w+(\.\w+)+", ast.unparse(node)):
                return
            case ast.UnaryOp(ast.USub(), ast.Constant(int() | float())):
                return
            case ast.Compare(ops=ops, comparators=sides) if all(type(op) in RELATIONS for op in ops):
                for op, side in zip(ops, sides, strict=True):
                    if isinstance(op, ast.In | ast.NotIn) and not isinstance(side, ast.List | ast.Tuple):
                        raise self._refused(f"{ast.unparse(side)} is no list")
                return
        raise self._refused(f"{ast.unparse(node)} is not allowed")

    def _column(self, node) -> str:
        name = ast.unparse(node)
        return self._quoted.get(name, name)

    def _value(self, node, row):
        match node:
            case ast.Constant(value):
                return value
            case ast.Name() | ast.Attribute():
                name = self._column(node)
                value = row[name] if name in row else WORDS[name]
                return list(value) if isinstance(value, tuple) else value
            case ast.List(elts) | ast.Tuple(elts):
                return [self._value(each, row) for each in elts]
            case ast.UnaryOp(ast.Not(), operand):
                return not self._value(operand, row)
            case ast.UnaryOp(_, operand):
                return -self._value(operand, row)
            case ast.BoolOp(op, values):
                return (all if isinstance(op, ast.And) else any)(self._value(each, row) for each in values)
        sides = [self._value(side, row) for side in (node.left, *node.comparators)]
        return all(self._compared(op, *pair) for op, pair in zip(node.ops, pairwise(sides), strict=True))

    def _compared(self, op, left, right) -> bool:
        if (left is None or right is None) and isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE):
            return False
        try:
            return RELATIONS[type(op)](left, right)
        except TypeError as error:
            raise self._refused(f"{left!r} is neither less nor greater than {right!r}") from error

    def _refused(self, why: str) -> StudyError:
        return StudyError(
            f"--where {self.text}: {why}: expected columns compared with values (==, !=, <, <=, >, >=, in, not in), "
            f"joined by and, or, not, such as \"model.depth >= 8 and data == 'mnist'\"; a name with other signs than "
            f"letters and dots goes in `backticks`"
        )


def since(text: str, now: datetime) -> int:
    """A time in milliseconds since 1970, UTC, from an ISO date or time, local unless it says otherwise, or `7d`.

    Args:
        now: what `7d` is seven days before of; knows its time zone.

    Raises:
        StudyError: it is neither.
    """
    try:
        if length := re.fullmatch(r"(\d+)([hdw])", text):
            then = now - timedelta(**{UNITS[length[2]]: int(length[1])})
        else:
            then = datetime.fromisoformat(text).astimezone()
        return int(then.timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        raise StudyError(
            f"--since {text}: expected a date or a time, such as 2026-11-01 or 2026-11-01T18:30, or a length before "
            f"now, such as 12h, 7d or 2w"
        ) from error
