"""A claim's figures from its record alone: intervals against the margin, and the numbers that decided."""

import math
import statistics
from collections.abc import Callable

from analysis.estimate.arms import as_level
from analysis.show import drawing, sentences
from analysis.show.drawing import EDGE, WIDTH, Scale
from studies.record import arm_label

WIDE = 30
"""How many times as large the greatest number is as the least where an axis becomes logarithmic."""

MOST_LEVELS = 24
"""That a curve is drawn through."""

ROW, PANEL = 38, 118
"""The height of a context's row, and of its panel of curves."""

MARKS = {"of": "●", "against": "□"}

CUT = " ▸: the target was not reached by then."

Drawn = tuple[str, str]
"""A figure and the caption that says how to read it."""


def forest(record: dict) -> Drawn | None:
    """Each context's estimate and interval against the margin and the band; None where there is no number.

    Small dots are single seeds, or single trials of `value`.
    """
    rule, contexts = record["rule"], [c for c in record["contexts"] if c["estimate"] is not None]
    if not contexts:
        return None
    predicted = _predicted(record)
    scale = _scale_of(rule, contexts, predicted)
    if predicted is not None and scale.log and predicted <= 0:  # which such an axis has no place for
        predicted = None
    top, bottom = 36, 36 + ROW * len(contexts) + 4
    parts = _ground(rule, scale, top, bottom)
    parts += drawing.axis(scale, top, bottom, lambda number: _tick(rule, number), sentences.unit(rule).strip())
    for place, context in enumerate(contexts):
        parts += _row(rule, context, scale, top + ROW * place)
    if predicted is not None:
        parts.append(drawing.diamond(scale(predicted), bottom, "literature"))
    said = "; ".join(_in_words(rule, context) for context in contexts)
    description = f"{record['estimand']}: {said}. The claim: {sentences.asked(rule)}."
    beyond = predicted is not None and not scale.low <= predicted <= scale.high
    return drawing.figure(parts, bottom + 32, description), _caption(rule, contexts, predicted, beyond)


def _scale_of(rule: dict, contexts: list[dict], predicted: float | None) -> Scale:
    ends = [c[end] for c in contexts for end in ("estimate", "low", "high") if c[end] is not None]
    ends += [number for c in contexts for _, number, bound in c.get("numbers", ()) if number is not None and bound == 0]
    ends += [] if rule["direction"] == "within" else [rule["margin"]]
    ends += rule["claimed_band"] or ()
    positive = [end for end in ends if end > 0]
    log = rule["estimand"].endswith("ratio")
    if rule["estimand"] in ("value", "mean") and min(ends) >= 0 and positive:
        log = max(positive) > WIDE * min(positive)
    scale = drawing.scale(ends, log)
    if predicted is None or scale.low <= predicted <= scale.high:
        return scale
    wider = drawing.scale([*ends, predicted], log)
    narrowed = abs(wider(scale.high) - wider(scale.low)) < (scale.end - scale.start) / 2
    return scale if narrowed else wider  # where a prediction is far off, it is at the edge


def _ground(rule: dict, scale: Scale, top: float, bottom: float) -> list[str]:
    """What the estimates are held against: the margin, the side that the claim is on, the claimed band."""
    parts = []
    if rule["claimed_band"]:
        low, high = (scale(end) for end in rule["claimed_band"])
        parts.append(drawing.box(low, top, max(high, low + 2), bottom, "band"))
        ends = " to ".join(sentences.amount(rule, end) for end in rule["claimed_band"])
        parts.append(drawing.text((low + high) / 2, 12, f"claimed: {ends}", "ask", "middle"))
    if rule["direction"] != "within":
        x, above = scale(rule["margin"]), rule["direction"] == "above"
        parts.append(drawing.box(x, top, scale.end if above else scale.start, bottom, "side"))
        parts.append(drawing.line(x, top - 4, x, bottom, "margin"))
        words = f"{rule['direction']} {sentences.amount(rule, rule['margin'])}"
        words = f"{words} →" if above else f"← {words}"
        parts.append(drawing.text(x, 27, words, "ask", "" if above else "end"))
    return parts


def _row(rule: dict, context: dict, scale: Scale, top: float) -> list[str]:
    """A context: its name and number above, its interval below."""
    y, kind = top + 26, sentences.verdict_of(context).replace(" ", "-")
    number = sentences.amount(rule, context["estimate"])
    interval = "" if rule["estimand"] == "value" else sentences.span(rule, context["low"], context["high"])
    name = sentences.place(context["context"]) if context["context"] else ""
    right = f"{sentences.SYMBOLS[sentences.verdict_of(context)]} {number} {interval}".rstrip()
    room = int((WIDTH - 2 * EDGE) / drawing.LETTER) - 2
    if len(name) + len(right) > room:
        right = right.removesuffix(interval).rstrip()
    name = _fitting(name, len(right) + 2)
    parts = [drawing.text(EDGE, top + 14, name, "name"), drawing.text(WIDTH - EDGE, top + 14, right, "sum", "end")]
    for _, single, bound in context.get("numbers", ()):
        if single is None or bound is None:
            continue
        x = scale(single)
        parts.append(drawing.dot(x, y, "seed", 2) if bound == 0 else drawing.arrow(x, y, "seed", int(bound), 2.5))
    if context["low"] is not None and context["high"] is not None:
        low, high = scale(context["low"]), scale(context["high"])
        parts.append(drawing.line(low, y, high, y, f"interval {kind}"))
        parts += [drawing.line(end, y - 4, end, y + 4, f"interval {kind}") for end in (low, high)]
    parts.append(drawing.dot(scale(context["estimate"]), y, f"estimate {kind}", 4.5))
    return parts


def _in_words(rule: dict, context: dict) -> str:
    interval = sentences.span(rule, context["low"], context["high"])
    where = f"{sentences.place(context['context'])}: " if context["context"] else ""
    return f"{where}{sentences.amount(rule, context['estimate'])} {interval}, {sentences.verdict_of(context)}"


def _caption(rule: dict, contexts: list[dict], predicted: float | None, beyond: bool) -> str:
    each = "Dot: the worst; bar: from the least to the greatest; small dots: runs."
    means = "Dot and bar: the estimate and its 95 % interval; small dots: seeds."
    parts = [each if rule["estimand"] == "value" else means]
    if rule["estimand"] == "value" and all(context["n"] == 1 for context in contexts):
        parts = []
    if any(bound in (1, -1) for c in contexts for _, _, bound in c.get("numbers", ())):
        parts.append("Triangles: so far or further, since a run was cut off.")
    if rule["direction"] != "within":
        parts.append("Dashed: the margin; shaded: the claim's side.")
    if rule["claimed_band"]:
        parts.append("Band: what is claimed.")
    if predicted is not None:
        parts.append(f"◇: the literature{', which is further off' * beyond}.")
    return " ".join(parts)


def _predicted(record: dict) -> float | None:
    value = (record.get("prediction") or {}).get("value")
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return None
    return None if record["rule"]["estimand"].endswith("ratio") and value <= 0 else float(value)


def decisive(record: dict) -> Drawn | None:
    """What the estimates are made of: the arms' runs, seed by seed, or their curves; None where a forest has it all."""
    if record["rule"]["estimand"] in ("value", "mean"):
        return None
    by_context = _runs(record)
    known = [run for runs in by_context.values() for side in runs.values() for run in side]
    if not known:
        return None
    return _curves(record, by_context) if record["rule"]["along"] else _pairs(record, by_context)


def _runs(record: dict) -> dict[str, dict[str, list[dict]]]:
    """By context and side, `of` or `against`, the runs whose value is known; without sides all are `of`."""
    rule = record["rule"]
    found: dict[str, dict[str, list[dict]]] = {}
    for run in record["runs"]:
        if run["role"] == "control" or run["value"] is None:
            continue
        side = next((s for s in ("of", "against") if _matches(rule[s], run)), None) if rule["of"] else "of"
        context = arm_label({factor: run[factor] for factor in rule["across"]}) if rule["across"] else ""
        if side:
            found.setdefault(context, {"of": [], "against": []})[side].append(run)
    return found


def _matches(rule: dict, run: dict) -> bool:
    return all(as_level(run[factor]) in map(as_level, levels) for factor, levels in rule.items())


def _pairs(record: dict, by_context: dict) -> Drawn:
    """Two rows of dots a context, one an arm; a line joins what one seed came to."""
    rule = record["rule"]
    values = [run["value"] for sides in by_context.values() for runs in sides.values() for run in runs]
    log = min(values) > 0 and max(values) > WIDE / 3 * min(values)
    scale, high = drawing.scale(values, log), 58
    bottom = 6 + high * len(by_context)
    parts = drawing.axis(scale, 6, bottom, lambda number: _level(rule, number), _level_unit(rule))
    said, one_each = [], all(_one_each(runs) for sides in by_context.values() for runs in sides.values())
    for place, (context, sides) in enumerate(by_context.items()):
        rows = {"of": 6 + high * place + 26, "against": 6 + high * place + 44}
        ends = {run["seed"]: scale(run["value"]) for run in sides["against"]} if one_each else {}
        parts += [
            drawing.line(scale(run["value"]), rows["of"], ends[run["seed"]], rows["against"], "pair")
            for run in sides["of"]
            if run["seed"] in ends
        ]
        for side, runs in sides.items():
            parts += [_mark(side, scale(run["value"]), rows[side], run["censored"]) for run in runs]
        means = {side: _mean(rule, runs) for side, runs in sides.items() if runs}
        name, y = sentences.place(context) if context else "", 6 + high * place + 13
        words = "  ".join(f"{MARKS[side]} {mean}" for side, mean in means.items())
        parts.append(drawing.text(EDGE, y, _fitting(name, len(words) + 2), "name"))
        parts.append(drawing.text(WIDTH - EDGE, y, words, "sum", "end"))
        told = ", ".join(f"{sentences.arms(rule[side])} {mean}" for side, mean in means.items())
        said.append(f"{name}: {told}" if name else told)
    description = f"{sentences.quantity(rule['measure'])}, means: {'; '.join(said)}."
    cut = any(run["censored"] for sides in by_context.values() for runs in sides.values() for run in runs)
    caption = (
        f"{_title(rule)} of each run, {MARKS['of']} {sentences.arms(rule['of'])} and {MARKS['against']} "
        f"{sentences.arms(rule['against'])}, with the means; "
        f"{'a line joins the two of a seed' if one_each else 'the best tuned of several is judged'}.{CUT * cut}"
    )
    return drawing.figure(parts, bottom + 32, description), caption


def _one_each(runs: list[dict]) -> bool:
    """Whether there is one arm, so that each seed has one run."""
    return len({run["seed"] for run in runs}) == len(runs)


def _curves(record: dict, by_context: dict) -> Drawn:
    """A panel a context: the measure over the factor along which it is taken, a line an arm, a dot a run."""
    rule, along = record["rule"], record["rule"]["along"]
    runs = [run for sides in by_context.values() for some in sides.values() for run in some]
    levels = list(dict.fromkeys(run[along] for run in runs))
    numbers = all(isinstance(level, int | float) and not isinstance(level, bool) for level in levels)
    levels = sorted(levels) if numbers else levels
    log = numbers and min(levels) > 0 and max(levels) >= 8 * min(levels)
    places = {level: level if numbers else place for place, level in enumerate(levels)}
    x = drawing.scale(places.values(), log, 52, WIDTH - EDGE)
    values = [run["value"] for run in runs]
    tall = min(values) > 0 and max(values) > WIDE * min(values)
    parts, said = [], []
    for number, (context, sides) in enumerate(by_context.items()):
        top = 20 + (PANEL + 40) * number
        y = drawing.scale(values, tall, top + PANEL, top)
        parts += _panel(rule, x, y, places, None if numbers else levels)
        parts.append(drawing.text(EDGE, top - 7, _fitting(sentences.place(context) if context else ""), "name"))
        for side, some in ((side, some) for side, some in sides.items() if some):
            parts += _curve(side, some, along, lambda level: x(places[level]), y)
        said.append(f"{sentences.place(context) if context else ''} {_ends(rule, sides, along, levels)}".strip())
    name = along.rpartition(".")[2].replace("_", " ")
    description = f"{sentences.quantity(rule['measure'])} over {name}: {'; '.join(said)}."
    of, against = (f"{MARKS[side]} {sentences.arms(rule[side])}" for side in MARKS)
    keys = f": {of}, {against} (dashed)" if rule["of"] else ""
    cut = any(run["censored"] for run in runs)
    lines = " Lines: means over the seeds; dots: runs." if len(levels) <= MOST_LEVELS else " Each dot is a run."
    caption = f"{_title(rule)} over the {name}{keys}.{lines}"
    return (
        drawing.figure(parts, 20 + (PANEL + 40) * len(by_context) - 6, description),
        caption + CUT * cut,
    )


def _panel(rule: dict, x: Scale, y: Scale, places: dict, names: list | None) -> list[str]:
    """The axes of a panel of curves."""
    if names:
        steps = max(1, math.ceil(len(names) / 5))
        parts = [drawing.line(x.start, y.start, x.end, y.start, "axis")]
        parts += [drawing.text(x(places[n]), y.start + 13, str(n), "tick", "middle") for n in names[::steps]]
    else:
        parts = drawing.axis(x, y.end, y.start, sentences.plain)
    ticks = y.ticks if len(y.ticks) < 5 else y.ticks[::2]
    for tick in ticks:
        parts.append(drawing.line(x.start, y(tick), x.end, y(tick), "grid"))
        parts.append(drawing.text(x.start - 5, y(tick) + 4, _level(rule, tick) + _percent(rule), "tick", "end"))
    return parts


def _curve(side: str, runs: list[dict], along: str, x: Callable, y: Scale) -> list[str]:
    by_level: dict = {}
    for run in runs:
        by_level.setdefault(run[along], []).append(run)
    parts = [_mark(f"{side} single", x(run[along]), y(run["value"]), run["censored"], 1.8) for run in runs]
    means = [(x(level), y(statistics.fmean(run["value"] for run in some))) for level, some in by_level.items()]
    if len(means) > MOST_LEVELS:  # which were drawn, not chosen
        return parts
    means.sort()
    parts.append(drawing.path(means, f"curve {side}"))
    return parts + [_mark(side, *point, False) for point in means]


def _mark(side: str, x: float, y: float, censored: bool, size: float = 3) -> str:
    if censored:
        return drawing.arrow(x, y, side, 1, size + 0.5)
    return drawing.dot(x, y, side, size) if side.startswith("of") else drawing.square(x, y, side, size)


def _ends(rule: dict, sides: dict, along: str, levels: list) -> str:
    """The means at the first and the last level, for who cannot see the curves."""
    told = []
    for side, runs in sides.items():
        at_ends = [[run for run in runs if run[along] == level] for level in (levels[0], levels[-1])]
        if all(at_ends):
            name = f"{sentences.arms(rule[side])} " if rule[side] else ""
            told.append(f"{name}from {_mean(rule, at_ends[0])} to {_mean(rule, at_ends[1])}")
    return ", ".join(told)


def _mean(rule: dict, runs: list[dict]) -> str:
    return _level(rule, statistics.fmean(run["value"] for run in runs)) + _percent(rule)


def _title(rule: dict) -> str:
    words = f"{sentences.quantity(rule['measure'])}{sentences.UNITS.get(rule['measure'], '').replace(' ', ', in ')}"
    return words[0].upper() + words[1:]


def _fitting(words: str, beside: int = 0) -> str:
    """As much of some words as there is room for, with so many letters beside them."""
    room = int((WIDTH - 2 * EDGE) / drawing.LETTER) - beside
    return words if len(words) <= room else f"{words[: room - 1]}…"


def _level(rule: dict, number: float) -> str:
    """What a run measured, without its unit."""
    return sentences.plain(100 * number if sentences.is_share(rule["measure"]) else number)


def _percent(rule: dict) -> str:
    return " %" * sentences.is_share(rule["measure"])


def _level_unit(rule: dict) -> str:
    return "%" if sentences.is_share(rule["measure"]) else ""


def _tick(rule: dict, number: float) -> str:
    """What a claim comes to, without its unit."""
    return sentences.amount(rule, number).removesuffix(sentences.unit(rule))
