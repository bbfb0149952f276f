"""A comparison in words: what it says, and no more than its intervals allow."""

import pandas as pd

from analysis.estimates import LEVEL, higher_is_better
from analysis.tables import interval, rounded
from studies.record import arm_label

MOST_CONTEXTS = 8
"""Of the combinations of other levels that are spoken of one by one."""


def answer(compared: pd.DataFrame, by: list[str], metric: str, baseline: dict) -> list[str]:
    """The answer in a sentence, and, where the baseline leaves factors open, one for each combination of their levels.

    A difference is called clear when its paired t test, Holm-adjusted over all comparisons with the baseline, has
    p ≤ 5 %.

    Args:
        compared: from `estimates.comparison`, of the same factors, metric and baseline.
    """
    scored = compared[compared["mean"].notna()]
    if scored.empty:
        return [f"There is no answer: no trial has a {_words(metric)}."]
    if len(compared) == 1:
        return [f"The {_words(metric)} is {_estimate(scored.iloc[0])}."]
    anchors = [factor for factor in by if factor in baseline]
    if not anchors:
        return [_without_baseline(scored, by, metric)]
    contexts = [factor for factor in by if factor not in anchors]
    against = arm_label({factor: baseline[factor] for factor in anchors})
    groups = [part for _, part in scored.groupby(_labels(scored, contexts), sort=False)] if contexts else [scored]
    if len(groups) == 1:
        text = _against(groups[0], by, against, metric)
        return [text if text.startswith(tuple(_labels(scored, by))) else text[0].upper() + text[1:]]
    where = [arm_label({factor: part[factor].iloc[0] for factor in contexts}) for part in groups]
    lines = [
        f"At {place}: {_against(part, anchors, against, metric)}" for place, part in zip(where, groups, strict=True)
    ]
    return [_counts(scored, by, against, metric), *(lines if len(lines) <= MOST_CONTEXTS else [])]


def spans(compared: list[tuple[list[str], pd.DataFrame]], metric: str) -> list[str]:
    """How far each factor moves a metric, those that move it most first.

    Args:
        compared: factors, and their comparison, averaged over the others.
    """
    lines = []
    for by, frame in compared:
        frame = frame.dropna(subset="mean")
        if len(frame) > 1:
            low, high = frame.loc[frame["mean"].idxmin()], frame.loc[frame["mean"].idxmax()]
            names = " and ".join(by)
            span, ends = high["mean"] - low["mean"], f"from {_named(low, by)} to {_named(high, by)}"
            lines.append((-span, f"{names} moves it by {rounded(span)}, {ends}, averaged over the others."))
    return [line for _, line in sorted(lines)]


def _words(metric) -> str:
    return metric.replace("_", " ")


def _extreme(metric) -> str:
    return f"the {'highest' if higher_is_better(metric) else 'lowest'} {_words(metric)}"


def _labels(frame, factors) -> list[str]:
    return [arm_label(dict(zip(factors, arm, strict=True))) for arm in zip(*(frame[f] for f in factors), strict=True)]


def _named(row, by) -> str:
    return arm_label({factor: row[factor] for factor in by})


def _seeds(frame) -> str:
    low, high = int(frame["seeds"].min()), int(frame["seeds"].max())
    count = f"{high}" if low == high else f"{low} to {high}"
    return f"{count} seed{'s' * (high != 1)}"


def _estimate(row) -> str:
    if row["low"] != row["low"]:
        return f"{rounded(row['mean'])} at one seed, which has no interval"
    half = (row["high"] - row["low"]) / 2
    bounds = interval(row["mean"], row["low"], row["high"])
    return f"{rounded(row['mean'], half)} {bounds} ({100 * LEVEL:g} % t interval, {row['seeds']} seeds)"


def _difference(row) -> str:
    difference, low, high = row["difference"], row["difference_low"], row["difference_high"]
    if low != low:
        return rounded(difference, sign=True)
    return f"{rounded(difference, (high - low) / 2, sign=True)} {interval(difference, low, high, sign=True)}"


def _without_baseline(scored, by, metric) -> str:
    [best] = scored[scored["standing"] == "best"].to_dict("records")
    text = f"{_named(best, by)} has {_extreme(metric)}: {_estimate(best)}"
    if (scored["seeds"] < 2).all():
        return f"{text}; what it leads by may be chance."
    tied = [_named(row, by) for row in scored[scored["standing"] == "tied"].to_dict("records")]
    others = len(scored) - 1
    if not tied:
        return f"{text}; it is clearly ahead of the other{'s' * (others > 1)}."
    if len(tied) == others:
        return f"{text}; {_seeds(scored)} do not tell any of the {others} other{'s' * (others > 1)} from it."
    return f"{text}; {len(tied)} of the {others} others cannot be told from it ({_some(tied)})."


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _against(part, by, against, metric) -> str:
    words = _words(metric)
    [best] = part[part["standing"] == "best"].to_dict("records") or [part.iloc[0].to_dict()]
    others = part[part["difference"].notna()]
    if others.empty:
        return f"{against} alone has a {words}: {_estimate(best)}."
    worse = others[(others["p"] <= 1 - LEVEL) & (_gain(others, metric) < 0)]
    tail = f"; {len(worse)} of {len(others)} {'is' if len(worse) == 1 else 'are'} clearly worse" if len(worse) else ""
    if best["difference"] != best["difference"]:
        rest = f"none of {len(others)} other{'s' * (len(others) > 1)} does better"
        return f"{against}, the baseline, has {_extreme(metric)}, {_estimate(best)}: {rest}{tail}."
    lead = f"{_named(best, by)} ({words} {rounded(best['mean'], (best['high'] - best['low']) / 2)})"
    if (others["p"].isna()).all():
        return f"the best is {lead}, {_difference(best)} from {against}: with one seed that may be chance."
    if best["p"] <= 1 - LEVEL:
        return f"{lead} is clearly better than {against}: {_difference(best)}, paired over {_seeds(part)}{tail}."
    return (
        f"nothing is clearly better than {against}; the best, {lead}, is {_difference(best)} from it, paired over "
        f"{_seeds(part)}{tail}."
    )


def _gain(others, metric) -> pd.Series:
    return others["difference"] * (1 if higher_is_better(metric) else -1)


def _counts(scored, by, against, metric) -> str:
    compared = scored[scored["difference"].notna()]
    if compared["p"].isna().all():
        ahead = int((_gain(compared, metric) > 0).sum())
        return (
            f"Against {against}, at one seed, {ahead} of {len(compared)} arms have a better {_words(metric)}; one seed "
            f"cannot tell whether by chance."
        )
    clear = compared[compared["p"] <= 1 - LEVEL]
    better, worse = (clear[sign * _gain(clear, metric) > 0] for sign in (1, -1))
    extreme = compared.loc[_gain(compared, metric).idxmax()]
    return (
        f"Against {against}, {len(better)} of {len(compared)} arms are clearly better and {len(worse)} clearly worse; "
        f"the largest gain is {_difference(extreme)}, of {_named(extreme, by)}."
    )
