"""A comparison in words: what it says, and no more than its intervals allow.

*Clearly* better or worse is an arm whose paired t test, Holm-adjusted over all comparisons with the baseline, has
p ≤ 5 %. Where an arm or its baseline fails at some seeds and not at others, no t test holds: how often they finish
comes first, by the exact McNemar test in the same family, and the metric of what finished second.
"""

import numpy as np
import pandas as pd

from analysis.estimate.arms import arms_of, as_level
from analysis.estimate.history import Choices
from analysis.estimate.intervals import LEAST_PAIRS, LEVEL, RESOLUTION
from analysis.estimate.measure import measure
from analysis.show import holding
from analysis.show.tables import interval, rounded, success, words
from studies.record import arm_label, listed, numbered

MOST_CONTEXTS = 8
"""Of the combinations of other levels that are spoken of one by one."""

SURE = 1 - LEVEL

UNACCOUNTED = "p values do not account for that"
UNCOUNTED = "and only executions are counted as looks: tables that were asked for in between are not"


def answer(compared: pd.DataFrame, by: list[str], metric: str, baseline: dict) -> list[str]:
    """The answer in a sentence and notes.

    Where the baseline leaves factors open, that is which levels hold whatever those are (`holding.held`), and it is
    followed by a line for each combination of theirs.

    Args:
        compared: from `comparison.comparison`, of the same factors, metric and baseline.
    """
    if compared["mean"].isna().all():
        return [f"There is no answer: no arm has a {words(metric)} that can be compared."]
    if len(compared) == 1:
        finishes = f"It finishes at {_rate(compared.iloc[0])}. " if compared["erratic"].any() else ""
        return [f"{finishes}The {words(metric)} is {_estimate(compared.iloc[0])}.", *_failed(compared, metric)]
    anchors = [factor for factor in by if factor in baseline]
    notes = [*_failed(compared, metric), *_unequal(compared)]
    if not anchors:
        return [_ranked(compared, by, metric), *notes, *_spread(compared, by)]
    wanted = tuple(as_level(baseline[factor]) for factor in anchors)
    is_baseline = [tuple(map(as_level, arm)) == wanted for arm in zip(*(compared[f] for f in anchors), strict=True)]
    against = arm_label({factor: baseline[factor] for factor in anchors})
    contexts = [factor for factor in by if factor not in anchors]
    frame = compared.assign(is_baseline=is_baseline)
    groups = [frame.iloc[places] for places in _places(frame, contexts)]
    if len(groups) == 1:
        return [_against(frame, by, against, metric), *_two_tests(frame, by, against, metric), *notes]
    lines = [f"At {_where(part, contexts)}: {_against(part, anchors, against, metric)}" for part in groups]
    held = holding.held(frame, anchors, contexts, metric)
    counts = _counts(frame, by, against, metric, named=not held)
    return [
        *held,
        counts,
        *_two_tests(frame, by, against, metric, [(_where(part, contexts), part) for part in groups]),
        *notes,
        *(lines if len(lines) <= MOST_CONTEXTS else []),
    ]


def so_far(lines: list[str], done: int, planned: int) -> list[str]:
    """An answer that says how many of the planned trials it is from, if they are not all."""
    first, *others = lines
    return [f"So far, with {done} of {planned} trials: {first}", *others] if done < planned else lines


def unseen(compared: pd.DataFrame, metric: str) -> list[str]:
    """What seeds without a failure do not exclude, in a sentence, if an arm is said to be clearly better."""
    tested = compared[compared["test"] == "t"]
    better, _ = _clearly(tested, metric) if measure(metric).better else (tested[:0], None)
    seeds = int(better["pairs"].min()) if len(better) else 0
    most = f"{100 * (1 - SURE ** (1 / max(seeds, 1))):.0f} %"
    return [
        f"Clearly better is what does not fail: {seeds} seeds without a failure leave a failure rate of up to {most} "
        f"possible."
    ] * bool(seeds)


def chosen(lines: list[str], choices: Choices, metric: str) -> list[str]:
    """An answer that says what was chosen after the results were in sight, by filters, factors, metrics or looks.

    Args:
        metric: the study's own.
    """
    first, *others = lines
    if limits := _limits(choices):
        first = f"Of the trials {' and '.join(limits)}, chosen after the fact: {first}"
    return [first, *others, *caveats(choices, metric)]


def caveats(choices: Choices, metric: str) -> list[str]:
    """What an answer's p values do not account for, a line each; none for a first look at all of a study's trials.

    Args:
        metric: the study's own.
    """
    named = [f"the trials {' and '.join(limits)}"] if (limits := _limits(choices)) else []
    if choices.by is not None:
        named.append(f"to compare by {' and '.join(choices.by) or 'no factor'}, not all that the study varies")
    if choices.metric is not None:
        named.append(f"{words(choices.metric)}, not the study's own {words(metric)}")
    lines = [f"Chosen after the fact: {'; '.join(named)}; {UNACCOUNTED}"] * bool(named)
    if choices.looks:
        times = "" if len(choices.looks) == 1 else f" {len(choices.looks)} times"
        earlier = "; ".join(_look(look, choices.design) for look in choices.looks)
        lines.append(f"Looked at before{times}: {earlier}; {UNACCOUNTED}")
    return [*(f"{line}." for line in lines[:-1]), *(f"{line}, {UNCOUNTED}." for line in lines[-1:])]


def _limits(choices) -> list[str]:
    limits = [f"that have {choices.where}"] * (choices.where is not None)
    return limits + [f"that ended since {choices.since}"] * (choices.since is not None)


def _look(look, now) -> str:
    """An earlier look, by what sets it apart from the present one."""
    same_arms, same_seeds = look.arms == now.arms, look.seeds == now.seeds
    same_question = (look.metric, look.baseline) == (now.metric, now.baseline)
    said = [f"with {numbered(look.arms, 'arm')}"] * (not same_arms)
    said += [f"with {numbered(look.seeds, 'seed')}"] * (not same_seeds)
    said += ["with other trials besides"] * (same_arms and same_seeds and same_question)
    said += [f"by {words(look.metric)}"] * (look.metric != now.metric)
    against = arm_label(look.baseline) if look.baseline else "no baseline"
    said += [f"against {against}"] * (look.baseline != now.baseline)
    return f"{', '.join(said)} on {look.day}"


def spans(found: list[tuple[list[str], dict | None]]) -> list[str]:
    """How far each factor moves the metric, those that move it most first.

    Args:
        found: factors, and from `comparison.span` what their levels, averaged over the other factors, do.
    """
    lines = []
    for by, span in found:
        if span is not None and span["difference"] == span["difference"]:
            ends = " to ".join(arm_label(dict(zip(by, span[end], strict=True))) for end in ("lowest", "highest"))
            sure = (
                "untested, for trials fail at some seeds and not at others"
                if span["erratic"]
                else _untested(span["pairs"])
                if span["p"] != span["p"]
                else "clearly, whichever pair of levels one had looked at"
                if span["p"] <= SURE
                else "which may be the luck of the extremes"
            )
            moves = f"{' and '.join(by)} moves it by {_difference(span)}, from {ends}"
            lines.append((-span["difference"], f"Averaged over the others, {moves}: {sure}."))
    return [line for _, line in sorted(lines)]


def rates(ranges: pd.DataFrame, by: list[str]) -> list[str]:
    """What a range test says of the rates, an arm a line: from `tuning.rate_range`."""
    lines = []
    for row in ranges.to_dict("records"):
        of = f"Of {_named(row, by)} the" if len(ranges) > 1 else "The"
        said = [
            f"{words} {_rate_of(row, name)}"
            for name, words in (("steepest", "falls fastest at a rate of"), ("lowest", "is lowest at"))
            if row[name] == row[name]
        ]
        high = row["highest"]
        said.append(
            f"is back half way to where it began at {_rate_of(row, 'highest')}, beyond which nothing trains"
            if high == high
            else "does not come back by the highest rate tried"
        )
        lines.append(f"{of} loss {', '.join(said[:-1])}{' and ' * (len(said) > 1)}{said[-1]}.")
    return lines if len(lines) <= MOST_CONTEXTS else []


def _rate_of(row, name) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return f"{row[name]:.2g}{f' [{low:.2g}, {high:.2g}]' if low == low else ''}"


def one_runs(found: list[tuple[tuple, int]], by: list[str]) -> list[str]:
    """That seeds are one run, in a sentence, if any are: from `arms.one_runs`."""
    named = [(arm_label(dict(zip(by, levels, strict=True)), whole=True), count) for levels, count in found]
    return [
        f"The {count} seeds of {arm} are the same run, number for number, and count as one." for arm, count in named
    ]


def left_out(contexts: list[tuple], seeds: list[int], everything: bool, over: list[str]) -> list[str]:
    """What averages are not of, in a sentence, if anything: from `arms.left_out`, over these factors."""
    if everything:
        return [
            f"No combination of {listed(over)} was tried with all arms at one seed, and so no average would be fair to "
            f"them: compare by {listed(over)} too."
        ]
    parts = [f"seed{'s' * (len(seeds) > 1)} {_some([str(seed) for seed in seeds])}"] if seeds else []
    if contexts:
        parts.insert(0, _some([arm_label(dict(zip(over, context, strict=True)), whole=True) for context in contexts]))
    why = "Averages are of what all arms have at the same seeds"
    return [f"{why}; left out, for not every arm has it: {'; '.join(parts)}."] if parts else []


def folds(over: list[str]) -> list[str]:
    """What a mean over folds is, in a sentence, if averages are over them among others."""
    if "data.fold" not in over:
        return []
    return [
        "A seed's value is the mean over its folds (data.fold), and intervals are over seeds, which deal the folds "
        "anew: folds are no seeds, since what they train on overlaps (Bengio & Grandvalet 2004)."
    ]


def _places(frame, factors) -> list:
    """Where the rows of each combination of the factors' levels are."""
    number, arms = arms_of(frame, factors)
    return [np.flatnonzero(number == arm) for arm in range(len(arms))]


def _where(part, factors) -> str:
    return arm_label({factor: part[factor].iloc[0] for factor in factors}, whole=True)


def _named(row, by) -> str:
    return arm_label({factor: row[factor] for factor in by})


def _estimate(row) -> str:
    if row["low"] != row["low"]:
        return f"{rounded(row['mean'])} at one seed, which has no interval"
    if row["erratic"]:
        return f"{rounded(row['mean'])} ({_seeds(row['seeds'])}; no t interval holds where some fail)"
    half = (row["high"] - row["low"]) / 2
    bounds = interval(row["mean"], row["low"], row["high"])
    return f"{rounded(row['mean'], half)} {bounds} ({100 * LEVEL:g} % t interval, {row['seeds']} seeds)"


def _difference(row) -> str:
    names = ("difference", "low", "high") if "lowest" in row else ("difference", "difference_low", "difference_high")
    difference, low, high = (row[name] for name in names)
    if low != low:
        return rounded(difference, sign=True)
    return f"{rounded(difference, (high - low) / 2, sign=True)} {interval(difference, low, high, sign=True)}"


def _paired(row) -> str:
    return f"{_difference(row)} (paired, {_seeds(row['pairs'])})"


def _untested(pairs: int) -> str:
    """Why there is no test of a difference."""
    if pairs < LEAST_PAIRS:
        return f"{'two seeds do' if pairs == 2 else 'one seed does'} not tell whether by chance"
    return "alike at every seed, which no test can judge"


def _others(count: int) -> str:
    return f"the {count} others" if count > 1 else "the other"


def _ranked(part, by, metric) -> str:
    """How often those arms finish that fail at some seeds, and the best arm."""
    unsteady = part[part["erratic"]]
    if len(unsteady):
        rates = _some([f"{_named(row, by)} at {_rate(row)}" for row in unsteady.to_dict("records")], "; ")
        return f"Trials fail at some seeds: {rates} finish. {_best(part, by, metric)}"
    return _best(part, by, metric)


def _best(part, by, metric) -> str:
    """The best arm, and which of the others cannot be told from it."""
    scored = part[part["mean"].notna()]
    if (scored["standing"] == "failed").all():
        return "No arm can be told from another: not one trial finished."
    if not measure(metric).better:
        least, most = (scored.loc[scored["mean"].agg(end)] for end in ("idxmin", "idxmax"))
        ends = f"from {_estimate(least)} of {_named(least, by)} to {_estimate(most)} of {_named(most, by)}"
        return f"The {words(metric)} goes {ends}, and neither more nor less is better."
    if len(scored) == 1:
        return f"Only {_named(scored.iloc[0], by)} has a {words(metric)}: {_estimate(scored.iloc[0])}."
    if not (scored["standing"] == "best").any():
        return "No arm can be told from another: there is no seed that all of them have."
    [best] = scored[scored["standing"] == "best"].to_dict("records")
    extreme = "highest" if measure(metric).better > 0 else "lowest"
    by_seeds = f" at the {_seeds(best['blocks'])} that the arms share" if len(_unequal(scored)) else ""
    text = f"{_named(best, by)} has the {extreme} {words(metric)}{by_seeds}: {_estimate(best)}"
    tied, untested = (
        [_named(row, by) for row in scored[scored["standing"] == standing].to_dict("records")]
        for standing in ("tied", "untested")
    )
    others = int((scored["standing"] != "failed").sum()) - 1
    if not others:
        return f"{text}; all the others failed."
    if len(untested) == others:
        return f"{text}; what it leads by may be chance."
    said = [f"{len(untested)} of {_others(others)} cannot be tested"] if untested else []
    if tied:
        said.insert(0, f"{_of(len(tied), others)} cannot be told from it ({_some(tied)})")
    return f"{text}; {'; '.join(said) or f'it is clearly ahead of {_others(others)}'}."


def _of(count: int, others: int) -> str:
    return _others(others) if count == others else f"{count} of {_others(others)}"


def _some(names: list[str], between: str = ", ") -> str:
    return between.join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _rate(row) -> str:
    return f"{round(row['success'] * row['tried'])} of {_seeds(row['tried'])} ({success(row)})"


def _failed(compared, metric) -> list[str]:
    count, known = int(compared["failures"].sum()), measure(metric)
    score = "count as chance, or as the worst that finished if that is worse"
    if not known.guessed:
        score = "count as the worst that finished" if known.better else f"have no {words(metric)} and are left out"
    scores = f"those that diverged or timed out {score}"
    return [f"Trials that did not finish: {count}; {scores}."] if count else []


def _unequal(compared) -> list[str]:
    """That arms stand by fewer seeds than they have."""
    stand = compared[(compared["standing"] != "failed") & (compared["seeds"] > 0) & (compared["blocks"] > 0)]
    if (stand["seeds"] == stand["blocks"]).all():
        return []
    return [
        "Not all arms have the same seeds: best, tied and untested are by those that all arms with three or more have."
    ]


def _seeds(count: int) -> str:
    return f"{count} seed{'' if count == 1 else 's'}"


def _spread(compared, by) -> list[str]:
    """Between which arms the spread over seeds differs most."""
    known = compared[compared["sd"].notna() & (compared["standing"] != "failed")]
    if len(known) < 2 or np.ptp(known["sd"]) <= RESOLUTION * known["mean"].abs().max():
        return []
    least, most = (known.loc[index] for index in (known["sd"].idxmin(), known["sd"].idxmax()))
    return [
        f"Over seeds it varies least for {_named(least, by)} (sd {rounded(least['sd'])}) and most for "
        f"{_named(most, by)} (sd {rounded(most['sd'])})."
    ]


def _against(part, by, against, metric) -> str:
    """What the other arms are to the baseline."""
    scored = part[part["mean"].notna()]
    if scored.empty:
        return f"No trial has a {words(metric)}."
    base, others = scored[scored["is_baseline"]], scored[~scored["is_baseline"]]
    if base.empty:
        return f"{against}, the baseline, has no {words(metric)} here. {_ranked(part, by, metric)}"
    if others.empty:
        return f"Only {against}, the baseline, has a {words(metric)}: {_estimate(base.iloc[0])}."
    if (base["standing"] == "failed").all():
        return f"{against}, the baseline, failed: not one of its trials finished. {_ranked(part, by, metric)}"
    unsteady = others[others["test"] == "success"]
    if len(unsteady):
        rest = part.drop(unsteady.index)
        steady = (
            f" {_against(rest, by, against, metric)}" if (rest["mean"].notna() & ~rest["is_baseline"]).any() else ""
        )
        return f"{_by_success(base.iloc[0], unsteady, by, against, metric)}{steady}"
    own = f"{words(metric)} {_estimate(base.iloc[0])}"
    able = others[others["standing"] != "failed"]
    if able.empty:
        return f"Nothing is better than {against}, the baseline: {own}; {_others(len(others))} failed."
    gains = _gain(able, metric)
    if gains.isna().all():
        return f"No arm shares a seed with {against}, the baseline, and so none can be compared with it."
    if not measure(metric).better:
        return _differ(able, by, against, own)
    top = able.loc[gains.idxmax()]
    better, worse = _clearly(others, metric)
    tail = f"; {len(worse)} of {len(others)} {'is' if len(worse) == 1 else 'are'} clearly worse" if len(worse) else ""
    if gains.max() <= 0:
        nearest = f"the nearest, {_named(top, by)}, differs by {_paired(top)}"
        return f"Nothing is better than {against}, the baseline: {own}; {nearest}{tail}."
    if able["p"].isna().all():
        lead = f"The best is {_lead(top, by, metric)}, which differs from {against} by {_paired(top)}"
        return f"{lead}: {_untested(top['pairs'])}."
    if len(better):
        top = better.loc[_gain(better, metric).idxmax()]
        too = f"; so {'is' if len(better) == 2 else 'are'} {len(better) - 1} more" if len(better) > 1 else ""
        return f"{_lead(top, by, metric)} is clearly better than {against}: {_paired(top)}{too}{tail}."
    lead = f"the best of the others, {_lead(top, by, metric)}, differs by {_paired(top)}"
    return f"Nothing is clearly better than {against}: {lead}{tail}."


def _by_success(base, others, by, against, metric) -> str:
    """How often arms finish of which some, or the baseline, fail at some seeds; then what finished."""
    rates, gaps = [], []
    for row in others.to_dict("records"):
        often = "more" if row["success_difference"] > 0 else "less"
        sure = f"clearly {often} often" if row["p"] <= SURE else "which may be chance"
        rates.append(f"{_named(row, by)} at {_rate(row)}, {sure} (exact McNemar, p = {rounded(row['p'], 0.01)})")
        if row["finished_pairs"]:
            gap = {name: row[f"finished_{name}"] for name in ("difference", "low", "high")} | {"lowest": None}
            gaps.append(f"{_named(row, by)} differs by {_difference(gap)} (paired, {_seeds(row['finished_pairs'])})")
    lead = f"Trials fail at some seeds, and success comes first: {against}, the baseline, finishes at {_rate(base)}"
    if not gaps:
        return f"{lead}; {_some(rates, '; ')}. There is no seed at which both finished."
    return (
        f"{lead}; {_some(rates, '; ')}. Of the {words(metric)} at seeds at which both finished: {_some(gaps, '; ')}; "
        f"the t interval does not hold where trials fail."
    )


def _differ(others, by, against, own) -> str:
    """How arms differ from the baseline in what is neither better nor worse."""
    clear = others[others["p"] <= SURE]
    far = _farthest(clear if len(clear) else others)
    if len(clear):
        count = f"{len(clear)} of {len(others)} clearly differ"
        return f"From {against} ({own}) {count}; most, {_named(far, by)}, by {_paired(far)}."
    why = f": {_untested(far['pairs'])}" if others["p"].isna().all() else ""
    return f"None clearly differs from {against} ({own}); most, {_named(far, by)}, by {_paired(far)}{why}."


def _farthest(others) -> pd.Series:
    return others.loc[others["difference"].abs().idxmax()]


def _lead(row, by, metric) -> str:
    return f"{_named(row, by)} ({words(metric)} {rounded(row['mean'], (row['high'] - row['low']) / 2)})"


def _gain(others, metric) -> pd.Series:
    return others["difference"] * measure(metric).sign


def _clearly(others, metric) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The arms that are clearly better, and clearly worse, than the baseline."""
    clear, gain = others["p"] <= SURE, _gain(others, metric)
    return others[clear & (gain > 0)], others[clear & (gain < 0)]


def _two_tests(frame, by, against, metric, groups=()) -> list[str]:
    """Why standings and comparisons with the baseline seem to contradict each other, if they do: two families of tests.

    Args:
        groups: the names of the combinations of other levels, if there are several, and the rows of each.
    """
    better, worse = _clearly(frame[~frame["is_baseline"] & (frame["test"] == "t")], metric)
    tied = [_named(row, by) for row in worse[worse["standing"] == "tied"].to_dict("records")]
    behind = [
        f" at {where}" * bool(where)
        for where, part in groups or [("", frame)]
        if (part["is_baseline"] & (part["standing"] == "worse")).any()
        and (part.loc[~part["is_baseline"], "test"] == "t").all()
        and part.index.intersection(better.index).empty
    ]
    if not (tied or behind) or not measure(metric).better:
        return []
    are = "is" if len(tied) == 1 else "are"
    said = [f"{_some(tied)} {are} tied with the best and yet clearly worse than {against}"] * bool(tied)
    said += [f"{against} is worse than the best{_some(behind, ',')} and yet nothing is clearly better than it"] * bool(
        behind
    )
    return [
        f"{'; '.join(said)}: the first test is of all pairs of arms that differ in nothing else, the second of all "
        f"arms against {against}, and each is held to 5 % over all that it asks."
    ]


def _counts(frame, by, against, metric, named=True) -> str:
    """How many arms are clearly better and worse than the baseline; and, if it is to be named, by how much the best."""
    others = frame[~frame["is_baseline"] & frame["difference"].notna()]
    if others.empty:
        return f"No arm shares a seed with {against}, the baseline, and so none can be compared with it."
    unsteady = others["test"] == "success"
    if unsteady.any():
        return _counts_by_success(frame, others, unsteady, by, against, metric, named)
    if not measure(metric).better:
        clear = others[others["p"] <= SURE]
        far = _farthest(clear if len(clear) else others)
        count = f"{len(clear)} of {len(others)} arms clearly differ in {words(metric)}"
        return f"From {against}, {count}; most, {_named(far, by)}, by {_difference(far)}."
    gain = _gain(others, metric)
    if others["p"].isna().all():
        return (
            f"{(gain > 0).sum()} of {len(others)} arms have a better {words(metric)} than {against}; no test can "
            f"tell whether by chance."
        )
    better, worse = _clearly(others, metric)
    equals = others[gain >= gain.max() - RESOLUTION * others["mean"].abs().max()]
    top = equals.loc[(equals["difference_high"] - equals["difference_low"]).fillna(np.inf).idxmin()]
    most = f"the best, {_named(top, by)}, differs by {_difference(top)}" if gain.max() > 0 else "none is ahead of it"
    clear = f"{len(better)} of {len(others)} arms are clearly better and {len(worse)} clearly worse"
    return f"Against {against}, {clear}; {most}." if named else f"Against {against}, {clear}."


def _counts_by_success(frame, others, unsteady, by, against, metric, named) -> str:
    """The counts where some arms fail at some seeds: theirs by how often they finish, and those of the others."""
    gaps, many = others.loc[unsteady & (others["p"] <= SURE), "success_difference"], unsteady.sum() > 1
    lead = (
        f"Trials fail at some seeds, and success comes first: {unsteady.sum()} of {len(others)} arms "
        f"{'are' if many else 'is'} compared with {against} by how often they finish, {(gaps > 0).sum()} clearly more "
        f"often and {(gaps < 0).sum()} clearly less; no t interval holds there."
    )
    rest = frame.drop(others.index[unsteady])
    if not named and not unsteady.all():
        often = f"{(gaps > 0).sum()} clearly more often and {(gaps < 0).sum()} clearly less"
        which = f"{unsteady.sum()} more, at whose seeds trials fail, {'are' if many else 'is'} compared"
        return f"{_counts(rest, by, against, metric, named)[:-1]}; {which} by how often they finish: {often}."
    return f"{lead} {_counts(rest, by, against, metric, named)}" if not unsteady.all() else lead
