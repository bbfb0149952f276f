"""What a report's page is put together from."""

import re
from dataclasses import dataclass, field
from html import escape
from typing import Any

from analysis.show import style
from analysis.show.style import Figure

TELEPHONE = 270
"""Points of its screen's width."""

LONG = 60
"""Characters in a cell that is broken into lines."""


@dataclass(frozen=True)
class Block:
    """A piece of a section.

    Attributes:
        kind: `text`; `code`; `pairs` of names and values; `table`, in HTML; `figure`, in SVG; `chart`, which only a
            script can draw; `trials`, the place of their table.
        fold: if it is closed at first, what to press to open it.
        name: of a figure's file, or a chart.
        alt: what a figure says, for those who cannot see it.
        chart: from `charts`: what a script draws, in a figure's place if the block has one.
    """

    kind: str
    body: Any
    caption: str = ""
    fold: str = ""
    name: str = ""
    alt: str = ""
    chart: dict | None = None

    @property
    def wide(self) -> bool:
        """Whether a figure is wider than a telephone."""
        found = re.search(r' width="([\d.]+)pt"', self.body)
        return found is not None and float(found[1]) > TELEPHONE


@dataclass
class Section:
    """A part of the page under a heading; `name` is its address in the page."""

    name: str
    title: str
    blocks: list[Block] = field(default_factory=list)

    def text(self, words: str) -> None:
        """Add a paragraph."""
        self.blocks.append(Block("text", words))

    def table(self, html: str, title: str, caption: str = "", fold: str = "", heads: int = 1) -> None:
        """Add a table that `tables` rendered as HTML.

        Args:
            title: what is in it.
            caption: what goes under it.
            heads: how many of its columns say what a row is of.
        """
        self.blocks.append(Block("table", accessible(html, title, heads), caption, fold))

    def figure(self, name: str, figure: Figure, caption: str, alt: str, chart: dict | None = None) -> None:
        """Add a figure, which is kept as a file of that name too."""
        self.blocks.append(Block("figure", style.svg(figure), caption, name=name, alt=alt, chart=chart))

    def chart(self, name: str, chart: dict, caption: str, alt: str) -> None:
        """Add what is there only where scripts are."""
        self.blocks.append(Block("chart", "", caption, name=name, alt=alt, chart=chart))


def accessible(html: str, title: str, heads: int) -> str:
    """An HTML table of tabulate's with a caption, and its head and first columns marked as what they are."""
    html = html.replace("<table>", f"<table>\n<caption>{escape(title)}</caption>", 1)
    html = re.sub(r"<th(?=[ >])", '<th scope="col"', html)

    def row(found: re.Match) -> str:
        return re.sub(r"<td([^>]*)>(.*?)</td>", r'<th scope="row"\1>\2</th>', found[0], count=heads, flags=re.DOTALL)

    html = re.sub(rf"<td>([^<]{{{LONG},}}?)\s*</td>", r'<td class="text">\1</td>', html)
    return re.sub(r"<tr><td.*?</tr>", row, html, flags=re.DOTALL) if heads else html
