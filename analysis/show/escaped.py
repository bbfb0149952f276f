"""Texts of others, such as levels, class names and errors, as each format takes them: none is markup."""

import html
import re
from collections.abc import Callable, Sequence

import pandas as pd
from tabulate import tabulate

from studies.record import plain

TAG = re.compile(r"<(?=[A-Za-z/!?])")
"""Where Markdown would take what follows for HTML."""


def line(text: str) -> str:
    """A text as one line of nothing but text."""
    return " ".join(plain(text).split("\n"))


def markdown(text: str) -> str:
    """A line of Markdown without HTML of its own, links or images."""
    return TAG.sub("&lt;", line(text)).replace("](", "]\\(")


TITLES = {"markdown": markdown, "latex": line, "html": lambda text: html.escape(line(text))}
"""What a heading's text is in a format; LaTeX has it as a comment."""


def _cell(style: str) -> Callable[[str], str]:
    return {"simple": plain, "pipe": piped, "github": piped}.get(style, line)


def table(
    rows: Sequence[Sequence[str]], headers: Sequence[str], style: str, aligned: Sequence[str] | None = None
) -> str:
    """A table as text, which cells do not break out of.

    Args:
        style: one of tabulate's, which escapes what HTML and LaTeX take for markup.
    """
    cell = _cell(style)
    made = [[cell(str(each)) for each in row] for row in rows]
    return tabulate(made, [*map(cell, headers)], tablefmt=style, colalign=aligned, disable_numparse=True)


def frame(found: pd.DataFrame, style: str) -> str:
    """The same of a frame, whose numbers stay numbers."""
    cell = _cell(style)
    made = found.map(lambda each: cell(each) if isinstance(each, str) else each)
    return made.rename(columns=cell).to_markdown(index=False, tablefmt=style)


def piped(text: str) -> str:
    """A cell of a table in Markdown."""
    return markdown(text).replace("|", "\\|")
