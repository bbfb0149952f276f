"""What is drawn instead of listed: points of a space, and the extension of what is tuned over. Pure: no TensorFlow, no
MLflow."""

import math
from collections.abc import Mapping

from studies.design import arms
from studies.record import Space, Study, StudyError, listed, shown

SCRAMBLE = 0
"""Seeds the scrambling: all studies of as many dimensions draw from one sequence, of which more draws are more."""

DIGITS = 4
"""Significant ones of a drawn number; more where the range is narrower than a hundredth of its bounds."""

MOST_DIMENSIONS = 21_201
"""Of the Sobol sequence (Joe and Kuo 2008)."""

SIDES = ("low", "high")
KEYS = ("low", "high", "scale", "whole")
SCALES = ("linear", "log")
EXAMPLE = "{low: .001, high: 1, scale: log}"


def is_space(node: object) -> bool:
    """Whether something that a study varies or tunes over is meant as a range, not as a list of levels."""
    return isinstance(node, dict) and any(key in node for key in KEYS)


def space(path: str, node: dict) -> Space:
    """A range, named in errors by its path.

    Raises:
        StudyError: it is not one that can be drawn from.
    """
    if "." not in path.split(".", 2)[2]:
        raise StudyError(f"{path}={node}: expected a list of options; a range is for a setting, such as model.width")
    for key in node:
        if key not in KEYS:
            raise StudyError(f"{path}.{key}: there is no such key; a range has {listed(KEYS)}, such as {EXAMPLE}")
    for key in SIDES:
        if key not in node:
            raise StudyError(f"{path}.{key} is missing: expected {listed(SIDES)}, such as {EXAMPLE}")
        bound = node[key]
        if isinstance(bound, bool) or not isinstance(bound, int | float) or not abs(bound) <= 1e100:
            raise StudyError(f"{path}.{key}={shown(bound)}: expected a finite number, such as in {EXAMPLE}")
    low, high = float(node["low"]), float(node["high"])
    scale, whole = node.get("scale", SCALES[0]), node.get("whole", False)
    if not low < high:
        raise StudyError(f"{path}: low={shown(node['low'])} and high={shown(node['high'])}: expected low below high")
    if scale not in SCALES:
        raise StudyError(f"{path}.scale={shown(scale)}: expected one of {listed(SCALES)}")
    if scale == "log" and low <= 0:
        raise StudyError(f"{path}.low={shown(node['low'])}: expected a number above 0 on a log scale, or scale: linear")
    if not isinstance(whole, bool):
        raise StudyError(f"{path}.whole={shown(whole)}: expected true or false")
    if whole and math.ceil(low) > math.floor(high):
        raise StudyError(
            f"{path}: no whole number lies from {shown(node['low'])} to {shown(node['high'])}: widen the range, or "
            f"leave out whole"
        )
    return Space(low, high, scale, whole)


def draws(count: object, name: str = "study.draws") -> int:
    """How many points are drawn.

    Raises:
        StudyError: it is no count of them.
    """
    if type(count) is not int or not 1 <= count <= arms.MOST_TRIALS:
        raise StudyError(f"{name}={shown(count)}: expected a whole number from 1 to {arms.MOST_TRIALS:,}, such as 12")
    return count


def drawn(spaces: Mapping[str, Space | tuple], count: int) -> dict[str, tuple]:
    """The first points of the sequence over spaces: each dimension's values, as many as there are points.

    Args:
        spaces: a range, or a list of levels that is drawn from by its index, for each dimension.

    Raises:
        StudyError: there are more dimensions than the sequence has.
    """
    rows = [_point(spaces, place) for place in _sequence(len(spaces), count)]
    return {factor: tuple(row[factor] for row in rows) for factor in spaces}


def edges(study: Study, chosen: list[dict]) -> list[tuple[str, str]]:
    """The sides, pairs of a range and `low` or `high`, at whose last drawn value some arm does best.

    Args:
        chosen: each arm's best point, factor -> level, None where it has no such setting.
    """
    found = []
    for factor in _ranges(study):
        ends = min(study.nuisance[factor]), max(study.nuisance[factor])
        best = {point.get(factor) for point in chosen}
        found += [(factor, side) for side, end in zip(SIDES, ends, strict=True) if end in best and ends[0] < ends[1]]
    return found


def extension(study: Study, factor: str, side: str) -> list[dict]:
    """The points that extend a range on a side by half its width, on its own scale: half as many as were drawn.

    They go on in the study's sequence; each side of each range has its own part of it, so that a point stays the same
    whichever others are extended. All but the dimension extended are drawn from their whole range.
    """
    each = _each(study)
    start = study.draws + (2 * list(_ranges(study)).index(factor) + SIDES.index(side)) * each
    return [_point(study.space, place, factor, side) for place in _sequence(len(study.space), start + each)[start:]]


def reach(study: Study, factor: str, side: str) -> float:
    """The new bound of a range that is extended."""
    space = _ranges(study)[factor]
    bound = _at(space, -0.5 if side == "low" else 1.5)
    if space.whole:
        return math.floor(bound + 0.5) if side == "low" else math.ceil(bound - 0.5)
    return float(f"{bound:.{DIGITS}g}")


def most(study: Study) -> int:
    """How many points an extension adds at most: that of every range on both sides."""
    return 2 * len(_ranges(study)) * _each(study) if study.extend else 0


def _each(study: Study) -> int:
    return max(study.draws // 2, 2)


def _ranges(study: Study) -> dict[str, Space]:
    return {factor: dimension for factor, dimension in study.space.items() if isinstance(dimension, Space)}


def _sequence(dimensions: int, count: int) -> list[list[float]]:
    """The first points of the scrambled Sobol sequence, `(count, dimensions)`, each coordinate from 0 to below 1."""
    if dimensions > MOST_DIMENSIONS:
        raise StudyError(
            f"the study draws from {dimensions:,} dimensions: expected {MOST_DIMENSIONS:,} at most, which is what "
            f"the Sobol sequence has"
        )
    from scipy.stats import qmc  # takes a second, which only a study that draws is to pay

    power = max(count - 1, 0).bit_length()
    return qmc.Sobol(dimensions, scramble=True, rng=SCRAMBLE).random_base2(power)[:count].tolist()


def _point(spaces, place: list[float], extended: str = "", side: str = "") -> dict:
    point = {}
    for (factor, dimension), unit in zip(spaces.items(), place, strict=True):
        if isinstance(dimension, Space):
            beyond = factor == extended
            point[factor] = _value(dimension, (unit / 2 - 0.5 if side == "low" else 1 + unit / 2) if beyond else unit)
        else:
            point[factor] = dimension[int(unit * len(dimension))]
    return point


def _value(space: Space, unit: float) -> float | int:
    """A range's value at a coordinate: 0 to 1 is the range, what is beyond extends it; rounded to be read."""
    value = _at(space, unit)
    narrow = max(abs(space.low), abs(space.high)) / (space.high - space.low)
    digits = DIGITS + max(math.floor(math.log10(narrow)) - 1, 0)
    value = float(f"{round(value) if space.whole else value:.{digits}g}")
    if 0 <= unit <= 1:
        low, high = (math.ceil(space.low), math.floor(space.high)) if space.whole else (space.low, space.high)
        value = min(max(value, low), high)
    return int(value) if space.whole else value


def _at(space: Space, unit: float) -> float:
    low, high = space.low, space.high
    if space.whole:  # each number has as much of the range
        low, high = math.ceil(low) - 0.5, math.floor(high) + 0.5
    if space.scale == "log":
        return math.exp(math.log(low) + unit * (math.log(high) - math.log(low)))
    return low + unit * (high - low)
