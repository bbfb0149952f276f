"""Small figures as SVG for a page, drawn without Matplotlib: 28 of them in some milliseconds, legible on a telephone.

Sizes are in pixels of a figure `WIDTH` wide, which a page shows at that width or larger. Colours, dashes and sizes of
text are the page's, by class.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

WIDTH = 360
EDGE = 14
"""Left and right of what is drawn."""

LETTER = 6.4
"""The width of a letter of 11 pixels, about."""

TICKS = 5
"""Numbers on an axis, at most."""


@dataclass(frozen=True)
class Scale:
    """From numbers to places along an axis.

    Attributes:
        low, high: the numbers at its ends.
        start, end: the places of its ends, in pixels.
        log: whether equal ratios are equally far apart.
    """

    low: float
    high: float
    start: float = EDGE
    end: float = WIDTH - EDGE
    log: bool = False

    def __call__(self, number: float) -> float:
        """The place of a number; what is beyond an end is at it."""
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            share = (math.log(number) - low) / (high - low) if number > 0 else 0.0
        else:
            share = (number - self.low) / (self.high - self.low)
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """Round numbers between the ends, two to five if there are such."""
        if not self.log or self.high < 3 * self.low:
            return _round(self.low, self.high)
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for steps in ((1, 2, 5), (1, 3), (1,)):
            found = [s * 10.0**p for p in powers for s in steps if self.low <= s * 10.0**p <= self.high * (1 + 1e-9)]
            if 2 <= len(found) <= TICKS:
                return found
        found = [10.0**p for p in powers if self.low <= 10.0**p <= self.high * (1 + 1e-9)]
        return found[:: -(-len(found) // TICKS)] if len(found) > TICKS else found or _round(self.low, self.high)


def scale(numbers: Iterable[float], log: bool = False, start: float = EDGE, end: float = WIDTH - EDGE) -> Scale:
    """A scale that holds all numbers, with some room; a logarithmic one holds those above zero."""
    known = [number for number in numbers if math.isfinite(number) and (number > 0 or not log)]
    if not known:
        known = [1.0, 2.0]
    low, high = min(known), max(known)
    if log:
        room = max((high / low) ** 0.06, 1.02)
        return Scale(low / room, high * room, start, end, True)
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return Scale(low - room, high + room, start, end)


def _round(low: float, high: float) -> list[float]:
    raw = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) if step > 1e-9 else n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def figure(parts: Iterable[str], height: float, description: str) -> str:
    """The SVG of what was drawn.

    Args:
        description: what it shows, for those who cannot see it.
    """
    return (
        f'<svg viewBox="0 0 {WIDTH} {at(height)}" role="img" aria-label="{escape(description)}">{"".join(parts)}</svg>'
    )


def at(number: float) -> str:
    """A place with a tenth of a pixel."""
    return f"{number:.1f}".removesuffix(".0")


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "") -> str:
    """A line of text, kept within the figure.

    Args:
        kind: its class.
        anchor: `middle` or `end`, of which part the place is; else of its start.
    """
    wide = LETTER * len(words)
    before = {"middle": wide / 2, "end": wide}.get(anchor, 0)
    x = min(max(x, before + 2), WIDTH - wide + before - 2)
    anchored = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text x="{at(x)}" y="{at(y)}"{_class(kind)}{anchored}>{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line."""
    return f'<line x1="{at(x1)}" y1="{at(y1)}" x2="{at(x2)}" y2="{at(y2)}"{_class(kind)}/>'


def box(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A rectangle between two corners."""
    wide, high = abs(x2 - x1), abs(y2 - y1)
    return f'<rect x="{at(min(x1, x2))}" y="{at(min(y1, y2))}" width="{at(wide)}" height="{at(high)}"{_class(kind)}/>'


def dot(x: float, y: float, kind: str, size: float = 3.2) -> str:
    """A filled dot."""
    return f'<circle cx="{at(x)}" cy="{at(y)}" r="{at(size)}"{_class(kind)}/>'


def square(x: float, y: float, kind: str, size: float = 3) -> str:
    """A square around a place."""
    return box(x - size, y - size, x + size, y + size, kind)


def diamond(x: float, y: float, kind: str, size: float = 5) -> str:
    """A square that stands on its corner."""
    return path([(x - size, y), (x, y - size), (x + size, y), (x, y + size)], kind, closed=True)


def arrow(x: float, y: float, kind: str, way: int = 1, size: float = 4) -> str:
    """A triangle that points to the right, or with `way` -1 to the left: what is there, or further."""
    return path([(x - way * size, y - size), (x + way * size, y), (x - way * size, y + size)], kind, closed=True)


def path(points: Iterable[tuple[float, float]], kind: str, closed: bool = False) -> str:
    """A line through some points."""
    joined = "L".join(f"{at(x)} {at(y)}" for x, y in points)
    return f'<path d="M{joined}{"Z" if closed else ""}"{_class(kind)}/>'


def axis(along: Scale, top: float, bottom: float, label, unit: str = "") -> list[str]:
    """A horizontal axis at the bottom with lines up from its numbers.

    Args:
        label: number -> text.
        unit: what the numbers are of, at the right below them.
    """
    parts = [line(along.start, bottom, along.end, bottom, "axis")]
    free = -math.inf
    for number in along.ticks:
        x, words = along(number), label(number)
        half = LETTER * len(words) / 2
        parts.append(line(x, top, x, bottom, "grid"))
        if max(x - half, 2) > free:
            parts.append(text(x, bottom + 13, words, "tick", "middle"))
            free = x + half + 4
    if unit:
        parts.append(text(along.end, bottom + 27, unit, "tick", "end"))
    return parts


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
