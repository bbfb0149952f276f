"""Tables that fit the terminal: what can be told without is left out, and said to be. Computes nothing."""

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence

from analysis.show import escaped
from studies.record import plain

GAP = 2
"""Signs between columns, and those that tabulate adds to the longest line of a header."""

LEAST_HEADER = 8
"""Of a header that is broken into lines."""

LEAST = 12
"""Of a column whose cells are broken into lines."""

OF_A_RUN = "COLUMNS=400 before the command shows all, and so does output to a file"
"""How to see what is left out of a table that no command of analysis makes."""

ADVICE = "The commands of analysis show all with --wide, or --format csv or json"


def width_here() -> int | None:
    """The columns of the terminal that stdout is, or that `COLUMNS` says; None where it is none, such as a file."""
    named = os.environ.get("COLUMNS", "")
    if named.isdecimal() and int(named):
        return int(named)
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def fitted(
    rows: list[list[str]],
    headers: list[str],
    style: str,
    aligned: Sequence[str] = (),
    width: int | None = None,
    spare: Sequence[str | int] = (),
    advice: str = ADVICE,
) -> str:
    """A table as text, no wider than `width` if that can be done: headers are broken into lines, then columns left
    out, which a line under it says, then texts broken.

    Args:
        style: one of tabulate's; only `simple` is fitted.
        aligned: `left` or `right` a column; all left if empty.
        width: None for as wide as it is.
        spare: headers of the columns that may be left out, or their places, the first one first.
        advice: how to see what is left out.
    """
    aligned = list(aligned) or ["left"] * len(headers)
    rows, headers = [[plain(cell) for cell in row] for row in rows], [plain(header) for header in headers]
    table = [list(column) for column in zip(headers, *rows, strict=True)] or [[header] for header in headers]
    gone: list[int] = []
    if width is not None and style == "simple" and _wide(table) > width:
        table = [[_broken(head, max(LEAST_HEADER, _size(["", *cells]) - GAP)), *cells] for head, *cells in table]
        gone = _left_out(table, width, [n if isinstance(n, int) else headers.index(n) for n in spare])
        table = [column for place, column in enumerate(table) if place not in gone]
        aligned = [each for place, each in enumerate(aligned) if place not in gone]
        table = _narrowed(table, width)
    made = [list(row) for row in zip(*table, strict=True)]
    text = escaped.table(made[1:], made[0], style, aligned if rows else None)
    if not gone:
        return text
    named = ", ".join(_named(headers, place) for place in sorted(gone))
    return f"{text}\n\nLeft out to fit {width} columns: {named}. {advice}."


def _named(headers: list[str], place: int) -> str:
    """A column's header; of one that others have too, with the column that it is of before it."""
    name = headers[place]
    before = [header for header in headers[:place] if headers.count(header) == 1]
    return f"{name} of {before[-1]}" if before and headers.count(name) > 1 else name


def _left_out(table, width: int, spare: list[int]) -> list[int]:
    """The places of the columns to leave out: of the spare ones so many that it fits, and none that has room."""
    gone: list[int] = []
    for place in spare:
        if _wide(table, gone) > width:
            gone.append(place)
    for place in reversed(gone.copy()):
        rest = [each for each in gone if each != place]
        if _wide(table, rest) <= width:
            gone = rest
    return gone


def _narrowed(table, width: int) -> list[list[str]]:
    """The table with the cells of its widest columns broken into lines, where there are spaces to break them at."""
    table = [list(column) for column in table]
    while (over := _wide(table) - width) > 0:
        sizes = [_size(column) for column in table]
        for place in sorted(range(len(table)), key=lambda n: -sizes[n]):
            cells = [_broken(cell, max(sizes[place] - over, LEAST)) for cell in table[place]]
            if _size(cells) < sizes[place]:
                table[place] = cells
                break
        else:
            return table
    return table


def _broken(text: str, size: int) -> str:
    lines = textwrap.wrap(" ".join(text.split()), max(size, 1), break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines) or text


def _wide(table, gone: Sequence[int] = ()) -> int:
    sizes = [_size(column) for place, column in enumerate(table) if place not in gone]
    return sum(sizes) + GAP * (len(sizes) - 1)


def _size(column: list[str]) -> int:
    head, *cells = ([len(line) for line in cell.split("\n")] for cell in column)
    return max(max(head) + GAP, *map(max, cells), 0)
