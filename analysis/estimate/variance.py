"""Where the variance is: factorial analysis of variance with the seed as a block, and its components."""

import itertools
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import fdtrc

from analysis.estimate.arms import arms_of, as_level, grouped
from analysis.estimate.comparison import by_seed
from analysis.estimate.intervals import RESOLUTION, difference_interval, holm, paired, paired_p, t_interval
from studies.record import StudyError

SEED, REST = "seed", "rest"
"""The terms besides the factors: the block, and what is left."""


class Interaction(NamedTuple):
    """Whether what one factor does depends on another.

    Attributes:
        test: the row of `anova` of the two factors' interaction.
        differences: of the first factor's levels to its first, at each level of the second.
    """

    test: pd.DataFrame
    differences: pd.DataFrame


def anova(
    trials: pd.DataFrame, by: list[str], metric: str, order: int = 2, log: bool = False, over: Iterable[str] = ()
) -> pd.DataFrame:
    """The analysis of variance of a metric by factors, their interactions and the seed, with type II sums of squares.

    A term's sum of squares is what the residual one falls by when it joins all terms that do not contain it (Yates
    1934; statsmodels's `anova_lm(typ=2)` gives the same where no cell is empty). Degrees of freedom are ranks, so that
    an unbalanced design and empty cells have an answer: of a term that cannot be told from others df is 0. It is valid
    where the residuals are alike in spread and roughly normal: not for arms that fail at some seeds, whose failures
    count as `comparison.scored` has it; take `log` for times.

    Args:
        by: the factors; values are averaged over others within a seed, as `comparison.by_seed` does with `over`.
        order: of how many factors interactions go up to.
        log: analyse the logarithms, so that effects are ratios.

    Returns:
        one row a term, the factors, their interactions (`a × b`), seed and rest: term; df; ss; share: of the total sum
        of squares; F; p; eta2: partial, ss / (ss + that of rest); omega2: partial (Olejnik and Algina 2003), not below
        0. F and p are NaN of rest, and where it has no df, as at one seed, or no spread; but of a term that explains
        nothing, where rest has df, F is 0 and p is 1. Trials that crashed are left out; where nothing has a value, or
        all is alike, the sums are 0.

    Raises:
        StudyError: there is no such column, or `log` of a value that is not above 0.
    """
    units = _units(trials, by, metric, log, over)
    blocks, values = _terms(units, by, order), units["value"].to_numpy(float)
    count, scale = len(values), 1.0 if log else np.abs(values).max(initial=0)
    least = count * (RESOLUTION * scale) ** 2
    residual, rank = _fit(blocks.values(), values)
    residual, freedom, rows = (residual if residual > least else 0.0), count - rank, []
    total = float(((values - values.mean()) ** 2).sum()) if count else 0.0
    for term in blocks:
        others = [block for other, block in blocks.items() if not set(term) <= set(other)]
        before, less = _fit(others, values)
        after, more = _fit([*others, blocks[term]], values)
        ss, df = max(before - after, 0.0), more - less
        ss = ss if ss > least and df else 0.0
        rows.append((" × ".join(term), df, ss, *_test(ss, df, residual, freedom, count)))
    rows.append((REST, freedom, residual, np.nan, np.nan, np.nan, np.nan))
    frame = pd.DataFrame(rows, columns=["term", "df", "ss", "F", "p", "eta2", "omega2"])
    frame.insert(3, "share", frame["ss"] / total if total > least else 0.0)
    return frame


def components(
    trials: pd.DataFrame, by: list[str], metric: str, order: int = 2, log: bool = False, over: Iterable[str] = ()
) -> pd.DataFrame:
    """How much of a metric's variance is the factors', the seed's and the rest's, without what chance adds to each.

    By the method of moments on `anova`'s sums of squares (Henderson 1953, method 3): a factor's levels are all that
    there are, and its component is their variance, (ss - df ms) / n with ms that of rest; seeds are a sample, and
    theirs is (ss - df ms) / trace, in a complete design the number of arms times df. None is below 0. It is valid for
    any distribution; that of few seeds is known poorly: five leave it uncertain by a factor of about 8.

    Returns:
        the columns term, df, variance, share: of the sum of all. All are 0 where all values are alike.

    Raises:
        StudyError: as `anova`, or nothing is left to tell the factors from chance by, as at one seed.
    """
    table = anova(trials, by, metric, order, log, over).set_index("term")
    freedom = table.loc[REST, "df"]
    if freedom < 1:
        raise StudyError(
            f"the variance of {metric} by {', '.join(by) or 'no factor'}: expected more values than the "
            f"{int(table['df'].sum())} that the terms explain; run the study at more seeds, or lower the order"
        )
    units = _units(trials, by, metric, log, over)
    noise = table.loc[REST, "ss"] / freedom
    blocks = _terms(units, by, order)
    seeds = blocks.pop((SEED,))
    others = np.hstack([np.ones((len(units), 1)), *blocks.values()])
    left = seeds - others @ np.linalg.lstsq(others, seeds, rcond=None)[0]
    scale = pd.Series(float(len(units)), table.index)
    scale[SEED] = float((left**2).sum())
    variance = ((table["ss"] - table["df"] * noise) / scale.where(scale > 1e-9, np.inf)).clip(lower=0.0)
    variance[REST] = noise
    share = variance / variance.sum() if variance.sum() > 0 else 0.0 * variance
    return pd.DataFrame({"df": table["df"], "variance": variance, "share": share}).reset_index()


def interaction(
    trials: pd.DataFrame, a: str, b: str, metric: str, log: bool = False, over: Iterable[str] = ()
) -> Interaction:
    """Whether the differences that the levels of `a` make are the same at every level of `b`.

    "Who matters more with depth" is this question: not whether a difference is clear at one depth and not at another.

    Returns:
        the test, see `anova` for when it is valid; and the differences: one row a level of `b` and of `a` but its first
        (in order of appearance), paired by seed: the columns b, a, pairs, difference (with `log`, of logarithms), low,
        high: the t interval, NaN for one pair; p: of the paired t test, Holm-adjusted over the frame. A level without a
        pair has a difference of NaN and 0 pairs.
    """
    table = anova(trials, [a, b], metric, 2, log, over)
    units, rows = _units(trials, [a, b], metric, log, over), []
    cells = {levels: part.set_index("seed")["value"] for levels, part in grouped(units, [b, a])}
    firsts, others = (list(dict.fromkeys(map(as_level, units[factor]))) for factor in (b, a))
    nothing = pd.Series(dtype=float)
    for at, level in itertools.product(firsts, others[1:]):
        both = pd.concat([cells.get((at, each), nothing) for each in (level, others[0])], axis=1)
        gap = paired(both.iloc[:, 0].to_numpy(float), both.iloc[:, 1].to_numpy(float))
        ends = t_interval(gap) if log else difference_interval(gap, metric)
        rows.append((at, level, len(gap), gap.mean() if len(gap) else np.nan, *ends, paired_p(gap, scale=0)))
    frame = pd.DataFrame(rows, columns=[b, a, "pairs", "difference", "low", "high", "p"])
    frame["p"] = holm(frame["p"].to_numpy(float))
    return Interaction(table[table["term"] == f"{a} × {b}"].reset_index(drop=True), frame)


def _units(trials, by, metric, log, over) -> pd.DataFrame:
    units = by_seed(trials, by, metric, over)
    units = units[units["value"].notna()].reset_index(drop=True)
    if not log:
        return units
    if (units["value"] <= 0).any():
        raise StudyError(f"{metric}={units['value'].min():g}: expected values above 0 to take logarithms of")
    return units.assign(value=np.log(units["value"]))


def _terms(units, by, order) -> dict[tuple[str, ...], np.ndarray]:
    """Each term's indicator columns, `(values, levels)`."""
    sets = [some for size in range(1, order + 1) for some in itertools.combinations(by, size)]
    blocks = {some: np.eye(len(arms))[number] for some in sets for number, arms in [arms_of(units, list(some))]}
    number, seeds = pd.factorize(units["seed"])
    return blocks | {(SEED,): np.eye(len(seeds))[number]}


def _fit(blocks, values) -> tuple[float, int]:
    """The residual sum of squares of least squares with a constant, and its rank."""
    design = np.hstack([np.ones((len(values), 1)), *blocks])
    if not len(values):
        return 0.0, 0
    found, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
    return float(((values - design @ found) ** 2).sum()), int(rank)


def _test(ss, df, residual, freedom, count) -> tuple[float, float, float, float]:
    """A term's F, p, partial eta and omega squared."""
    eta = ss / (ss + residual) if ss else 0.0
    if not df or not freedom:
        return np.nan, np.nan, eta, np.nan
    if not ss:
        return 0.0, 1.0, 0.0, 0.0
    if not residual:
        return np.nan, np.nan, eta, 1.0
    ratio = (ss / df) / (residual / freedom)
    gain = max(ratio - 1, 0.0) * df
    return ratio, float(fdtrc(df, freedom, ratio)), eta, gain / (gain + count)
