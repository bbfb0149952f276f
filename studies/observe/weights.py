"""Statistics of weights: a function each, one table of them.

A statistic takes rows of weights and gives one number a row, or a column each for several names. A row is one tensor at
one epoch.
"""

from functools import cached_property

import numpy as np

from studies.contract import DENSITY_CELLS, QUANTILES, SPARSITY_THRESHOLDS, WEIGHT_STATISTICS


class Rows:
    """Rows of weights with what several statistics share, each computed once.

    Sums and moments are taken of `w` in units of each row's `unit`, a power of two near its largest weight: float32
    squares are zero below 1e-22 and infinite above 1e19.

    Args:
        w: `(rows, n)`.
        start: the same weights before training, `(n,)`.
    """

    def __init__(self, w: np.ndarray, start: np.ndarray):
        self.w, self.start = w, start

    @cached_property
    def unit(self) -> np.ndarray:
        """Of each row, float64."""
        return _unit(np.maximum(-self.min, self.max))

    @cached_property
    def scaled(self) -> np.ndarray:
        """W in its rows' units, to the bit: ±1 at most."""
        return self.w * (1 / self.unit)[:, None].astype(self.w.dtype)

    @cached_property
    def ordered(self) -> np.ndarray:
        """Each row in rising order."""
        return np.sort(self.w, axis=-1)

    @cached_property
    def min(self) -> np.ndarray:
        """Each row's smallest."""
        return self.w.min(axis=-1)

    @cached_property
    def max(self) -> np.ndarray:
        """Each row's largest."""
        return self.w.max(axis=-1)

    @cached_property
    def finite(self) -> np.ndarray:
        """Whether all of each row is."""
        return np.isfinite(self.min) & np.isfinite(self.max)  # NaN is either's, wherever it stands

    @cached_property
    def norm(self) -> np.ndarray:
        """√Σ w²."""
        return self.unit * np.sqrt(np.vecdot(self.scaled, self.scaled))

    @cached_property
    def mean(self) -> np.ndarray:
        """Σ w / n in units."""
        return self.scaled.mean(axis=-1)

    @cached_property
    def centred(self) -> np.ndarray:
        """W − mean w in units."""
        # A rounded mean can lie outside the row: equal weights then had a spread, and a skew of ±1.
        scale = (1 / self.unit).astype(self.w.dtype)
        return self.scaled - np.clip(self.mean, self.min * scale, self.max * scale)[:, None]

    @cached_property
    def squares(self) -> np.ndarray:
        """(w − mean w)² in units."""
        return np.square(self.centred)

    @cached_property
    def variance(self) -> np.ndarray:
        """Of the population, divided by n, in units; float64."""
        return np.vecdot(self.centred, self.centred).astype(np.float64) / self.w.shape[-1]


def mean(rows: Rows) -> np.ndarray:
    """Σ w / n."""
    return rows.unit * rows.mean


def sd(rows: Rows) -> np.ndarray:
    """Of the population: divided by n."""
    return rows.unit * np.sqrt(rows.variance)


def smallest(rows: Rows) -> np.ndarray:
    """Min w."""
    return rows.min


def largest(rows: Rows) -> np.ndarray:
    """Max w."""
    return rows.max


def l1(rows: Rows) -> np.ndarray:
    """Σ |w|."""
    return rows.unit * np.abs(rows.scaled).sum(axis=-1)


def l2(rows: Rows) -> np.ndarray:
    """√Σ w²."""
    return rows.norm


def max_norm(rows: Rows) -> np.ndarray:
    """Max |w|."""
    return np.maximum(-rows.min, rows.max)


def skew(rows: Rows) -> np.ndarray:
    """m₃ / m₂^1.5, with central moments mₖ."""
    return np.vecdot(rows.squares, rows.centred) / rows.w.shape[-1] / rows.variance**1.5


def kurtosis(rows: Rows) -> np.ndarray:
    """m₄ / m₂² − 3: in excess of the normal distribution."""
    return np.vecdot(rows.squares, rows.squares) / rows.w.shape[-1] / rows.variance**2 - 3


def quantiles(rows: Rows) -> np.ndarray:
    """By linear interpolation between order statistics (Hyndman & Fan 1996, type 7)."""
    last = rows.w.shape[-1] - 1
    position = np.array(QUANTILES) * last
    below = position.astype(int)
    part = (position - below).astype(np.float32)
    return (1 - part) * rows.ordered[:, below] + part * rows.ordered[:, np.minimum(below + 1, last)]


def sparsity(rows: Rows) -> np.ndarray:
    """Share of weights no larger than a fraction of the largest: exact zeros at fraction 0."""
    limits = max_norm(rows)[:, None] * np.array(SPARSITY_THRESHOLDS, np.float32)
    limits = np.column_stack([limits, np.nextafter(-limits, np.float32(-np.inf))])
    places = np.array([row.searchsorted(limit, "right") for row, limit in zip(rows.ordered, limits, strict=True)])
    upper, lower = np.split(places, 2, axis=1)
    return (upper - lower) / np.float32(rows.w.shape[-1])


def distance(rows: Rows) -> np.ndarray:
    """‖w − w₀‖ / ‖w₀‖; missing (NaN) for weights that start at zero."""
    start = _norm(rows.start)
    if not start:
        return np.full(len(rows.w), np.nan)
    gaps = rows.w - rows.start
    squares = np.vecdot(gaps, gaps)
    found = np.sqrt(squares).astype(np.float64)
    unsafe = ~((squares > 1e-25) & (squares < 1e30))  # in single precision
    found[unsafe] = _norm(gaps[unsafe])
    return found / start


def cosine_distance(rows: Rows) -> np.ndarray:
    """1 − cos(w, w₀), the layer rotation (Carbonnelle & De Vleeschouwer 2019).

    Taken as half the squared distance of the unit vectors, which keeps its digits where 1 − cos would lose them.
    """
    (unit, scaled), norm = _in_units(rows.start), _norm(rows.start)
    directions = rows.scaled * (rows.unit / rows.norm)[:, None].astype(np.float32)
    gap = directions - scaled * np.float32(unit / norm)
    return np.vecdot(gap, gap) / 2


TABLE = (
    (("mean",), mean),
    (("sd",), sd),
    (("min",), smallest),
    (("max",), largest),
    (("l1",), l1),
    (("l2",), l2),
    (("max_norm",), max_norm),
    (("skew",), skew),
    (("kurtosis",), kurtosis),
    (tuple(f"q{round(100 * q):02d}" for q in QUANTILES), quantiles),
    (tuple(f"sparsity_{t}" for t in SPARSITY_THRESHOLDS), sparsity),
    (("distance",), distance),
    (("cosine_distance",), cosine_distance),
)
assert tuple(name for names, _ in TABLE for name in names) == WEIGHT_STATISTICS


def weight_statistics(w: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Every statistic of the table.

    Args:
        w: rows of weights, `(rows, n)`.
        start: the same weights before training, `(n,)`.

    Returns:
        `(rows, number of statistics)`, in the table's order; NaN throughout for a row that is not all finite.
    """
    return statistics(Rows(w, start))


def statistics(rows: Rows) -> np.ndarray:
    """As `weight_statistics`, of rows that others use too."""
    with np.errstate(all="ignore"):  # what has no result is NaN
        table = np.column_stack([statistic(rows) for _, statistic in TABLE])
    table[~rows.finite] = np.nan
    return table


def densities(rows: Rows, some: list[int]) -> dict[int, tuple[int, ...]]:
    """How many entries of some rows lie in each of `DENSITY_CELLS` equal cells from the row's least to its greatest.

    A cell has its lower edge and not its upper one, but for the last. Empty for a row that is not all finite.
    """
    found: dict[int, tuple[int, ...]] = dict.fromkeys(some, ())
    if finite := [row for row in some if rows.finite[row]]:
        ends = rows.min[finite], rows.max[finite]
        edges = np.linspace(*ends, DENSITY_CELLS + 1, axis=-1, dtype=np.float32)[:, 1:-1]
        below = [rows.ordered[row].searchsorted(limits) for row, limits in zip(finite, edges, strict=True)]
        counts = np.diff(below, prepend=0, append=rows.w.shape[1])
        found |= zip(finite, map(tuple, counts.tolist()), strict=True)
    return found


def _norm(w):
    unit, scaled = _in_units(w)
    return unit * np.sqrt(np.vecdot(scaled, scaled))


def _in_units(w):
    """The unit of rows, float64, and the rows in it."""
    unit = _unit(np.maximum(w.max(axis=-1), -w.min(axis=-1)))
    return unit, w * (1 / unit)[..., None].astype(w.dtype)


def _unit(largest):
    """The power of two above; 1 where that is no unit: for zeros, infinity and NaN."""
    _, exponent = np.frexp(largest)
    return np.where((largest > 0) & np.isfinite(largest), np.ldexp(1.0, np.maximum(exponent, -125)), 1.0)
