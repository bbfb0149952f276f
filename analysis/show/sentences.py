"""A claim's verdict in words that a student understands, from its record alone: see `analysis.claims.record`."""

import math
import re
from collections.abc import Callable

from analysis.estimate.measure import measure
from analysis.estimate.verdicts import INCONCLUSIVE, INVALID, NOT_SUPPORTED, SUPPORTED
from studies.record import shown

NOT_RUN, STALE = "not run", "stale"
SYMBOLS = {SUPPORTED: "✓", NOT_SUPPORTED: "✗", INCONCLUSIVE: "?", INVALID: "!", STALE: "↻", NOT_RUN: "–"}

LEADS = {SUPPORTED: "The claim holds", NOT_SUPPORTED: "The claim does not hold", INCONCLUSIVE: "It stays open"}
HOLDS = {SUPPORTED: "holds", NOT_SUPPORTED: "does not hold", INCONCLUSIVE: "stays open"}

MEASURES = {
    "time_to_target": "training time to the target",
    "examples_to_target": "number of training examples to the target",
    "seconds_to_target": "training time to the target by the clock",
    "accuracy_gap": "gap between training and validation accuracy",
    "loss_gap": "gap between validation and training loss",
    "success": "share of runs that succeed",
    "discrepancy": "deviation from the formula",
    "steepness": "growth or decay of gradients a layer (as a logarithm)",
    "agrees": "share of runs that end as theory says",
    "correlation": "rank correlation",
    "enabling": "gain that makes the deadline (1 is none)",
    "months": "training time",
    "millions": "number of weights",
    "billions": "number of weights",
    "share": "share that the claim is about",
}
"""Of a trial, in plain words; other names are told by `quantity`."""

UNITS = {
    "months": " months",
    "millions": " million",
    "billions": " billion",
    "time_to_target": " epochs",
    "seconds_to_target": " s",
}
"""Of measures that are no shares, where it is not the bare number."""

TOLD_ALONE = (
    *("data", "model", "optimizer", "initializer", "schedule", "regularizer", "pruning", "clipping"),
    *("activation", "layer", "network", "reading"),
)
"""Settings whose levels say what they are."""

MOST_NAMED = 4
"""Contexts that a sentence lists."""

NEARLY = 5e-3
"""How far a prediction may be from what was computed, relative to itself, to agree with it."""


def standing(record: dict) -> str:
    """A record's verdict, or `stale` if that is of another card, profile or code than there is now."""
    return STALE if record.get("stale") else record["verdict"]


def verdict_of(context: dict) -> str:
    """What one context of a record says, of the direction and, where a band is claimed, of how large it is."""
    both = [word for word in (context["direction"], context["magnitude"]) if word]
    if all(word == SUPPORTED for word in both):
        return SUPPORTED
    return NOT_SUPPORTED if NOT_SUPPORTED in both else INCONCLUSIVE


def contexts_by_verdict(record: dict) -> dict[str, list[str]]:
    """The names of a record's contexts by what each says, those that hold first."""
    found: dict[str, list[str]] = {word: [] for word in HOLDS}
    for context in record.get("contexts", ()):
        found[verdict_of(context)].append(place(context["context"]))
    return {word: names for word, names in found.items() if names}


def disagreement(record: dict) -> str:
    """Where a claim holds and where it does not, empty where its contexts agree."""
    found = contexts_by_verdict(record)
    if len(found) < 2:
        return ""
    every = len(record["contexts"])
    return "; ".join(f"{HOLDS[word]} for {_some(names, every)}" for word, names in found.items())


def tally(record: dict) -> str:
    """In how many contexts a claim holds, `supported in 2 of 3`, empty where they agree."""
    found, every = contexts_by_verdict(record), len(record.get("contexts", ()))
    return f"supported in {len(found.get(SUPPORTED, ()))} of {every}" if len(found) > 1 else ""


def sentence(record: dict) -> str:
    """What was found, where, and how much it came to, in one sentence."""
    if record["verdict"] == NOT_RUN:
        return "It has not been put to the test in this store yet."
    if record["verdict"] == INVALID or not record.get("contexts"):
        return f"No verdict: {record.get('because') or record.get('invalid_because')}."
    if record.get("stale"):
        return f"What there is of it is stale, {record['stale']}: {finding(record)} ({scope(record)})."
    lead = LEADS[record["verdict"]]
    if record["verdict"] == NOT_SUPPORTED and tally(record):
        lead = "The claim does not hold everywhere"
    if record["verdict"] == SUPPORTED and tally(record):  # of an existential claim
        lead = "The claim holds somewhere, which is all that it says"
    return f"{lead}: {finding(record)} ({scope(record)})."


def finding(record: dict) -> str:
    """What it came to, from the least to the greatest of its contexts."""
    rule, known = record.get("rule"), [c for c in record["contexts"] if c["estimate"] is not None]
    if not known:
        return "no number could be measured"
    if not rule:  # of a record of before rules were kept
        return f"{record['estimand']} came to {record['estimate']:.3g}"
    ends = [known[0]] if len(known) == 1 else [min(known, key=_estimate), max(known, key=_estimate)]
    template, tell = PHRASES[rule["estimand"]]
    words = [tell(rule, each["estimate"]) for each in ends]
    if len(set(words)) > 1:
        said = " to ".join(f"{word} ({place(end['context'])})" for (word, _), end in zip(words, ends, strict=True))
    else:
        said = words[0][0] + (f" in each of {len(known)} cases" if len(known) > 1 else "")
    varies = any(each["low"] != each["high"] for each in known)
    worst = "at worst " if rule["estimand"] == "value" and varies else ""
    told = template(rule).format(amount=worst + said, link=words[-1][1])
    return f"{told}; it has to be {had_to_be(rule)}"


def because(record: dict) -> str:
    """Why it stays open, empty if it does not."""
    said = record.get("because", "") if record["verdict"] == INCONCLUSIVE else ""
    few, rest = (
        re.match(r"open at (\d+) seeds", said),
        re.search(r"; (about|more than|more seeds|the estimate) .*", said),
    )
    return f"{few[1]} seeds do not settle it{rest[0] if rest else ''}" if few else said


def scope(record: dict) -> str:
    """What a verdict is about, and no more: `digits, mlp, 20 epochs, 12 seeds; quick profile`."""
    one = re.sub(r"\b1 (seed|epoch)s", r"1 \1", record.get("scope", ""))
    return re.sub(r"(^|, )(?:data|model) ", r"\1", one)


def amount(rule: dict, number: float | None) -> str:
    """A number of a claim's own in a unit that says what it is: `+0.5 points`, `97.9 %`, `0.96 times`."""
    if number is None or not math.isfinite(number):
        return "–"
    changes = rule["estimand"] in ("difference", "slope", "importance_lead")
    words = plain(100 * number if unit(rule) in (" points", " %") else number)
    return f"{'+' * (changes and number > 0 and words != '0')}{words}{unit(rule)}"


def unit(rule: dict) -> str:
    """What a claim's own number is in, with a space before it; empty for a bare number."""
    if rule["estimand"].endswith("ratio"):
        return " times"
    if rule["estimand"] == "importance_lead":
        return " points"
    if is_share(rule["measure"]):
        return " points" if rule["estimand"] in ("difference", "slope") else " %"
    return UNITS.get(rule["measure"], "")


def span(rule: dict, low: float | None, high: float | None) -> str:
    """An interval in that unit, in brackets; empty where there is none."""
    if low is None or high is None or low == high:
        return ""
    return f"[{', '.join(amount(rule, end).removesuffix(unit(rule)) for end in (low, high))}]"


def asked(rule: dict) -> str:
    """What the claim has to come to: `below 0.85 times and 0.6 to 0.8 times`."""
    band = rule["claimed_band"]
    beyond = "" if rule["direction"] == "within" else f"{rule['direction']} {amount(rule, rule['margin'])}"
    within = "" if not band else f"{amount(rule, band[0])} to {amount(rule, band[1])}"
    return " and ".join(part for part in (beyond, within) if part)


def came_to(record: dict) -> str:
    """The estimate of the context that bears a claim out least, with its interval."""
    rule = record.get("rule")
    if not rule or record.get("estimate") is None:
        return ""
    where = f" ({place(record['context'])})" if record.get("context") else ""
    interval = span(rule, record["low"], record["high"])
    return f"{amount(rule, record['estimate'])}{' ' * bool(interval)}{interval}{where}"


def heading(record: dict) -> str:
    """What is estimated, as the head of a figure: `Training time to the target: adam against sgd`."""
    rule = record["rule"]
    what, along = quantity(rule["measure"]), _along(rule)
    words = {
        "slope": f"{what}: gain per doubling of the {along}",
        "spread_ratio": f"how much {what} varies with the {along}",
        "stable_ratio": f"largest {along} that still trains",
        "ends_ratio": f"{what}, far from the best {along}",
        "importance_lead": f"how far the {along} leads in importance",
    }.get(rule["estimand"], what)
    sides = f": {arms(rule['of'])} against {arms(rule['against'])}" if rule["of"] else ""
    return f"{words[0].upper()}{words[1:]}{sides}"


def literature(record: dict) -> tuple[str, str, bool | None]:
    """What is predicted, by whom, and whether what was measured agrees; None where that cannot be told by a number."""
    prediction = record.get("prediction") or {}
    if "value" not in prediction:
        return "", "", None
    value, rule = prediction["value"], record.get("rule")
    known = [c for c in record.get("contexts", ()) if c["estimate"] is not None]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    said = amount(rule, value) if number and rule else str(value)
    if not rule or not known:
        return said, str(prediction.get("source", "")), None
    if number:
        return said, str(prediction.get("source", "")), _agrees(rule, float(value), known)
    beyond = re.match(r"(above|below) (\d*\.?\d+)", str(value))
    side = [] if beyond is None else [_beyond(beyond[1], float(beyond[2]), context) for context in known]
    agrees = side[0] if side and len(set(side)) == 1 else None
    return said, str(prediction.get("source", "")), agrees


def _agrees(rule: dict, value: float, contexts: list[dict]) -> bool | None:
    """Whether a predicted number lies in the intervals: in all, in none; None for some, or where there are none."""
    room = NEARLY * abs(value) or abs(rule["margin"]) / 10 or NEARLY * is_share(rule["measure"])
    inside = {c["low"] - room <= value <= c["high"] + room for c in contexts if c["low"] is not None}
    if rule["estimand"] == "value" and True in inside:  # a prediction is of one of them
        return True
    return inside.pop() if len(inside) == 1 else None


def _beyond(side: str, value: float, context: dict) -> bool | None:
    low, high = (context[end] if context[end] is not None else context["estimate"] for end in ("low", "high"))
    if side == "below":
        low, high, value = -high, -low, -value
    return True if low > value else False if high < value else None


def robust(record: dict) -> str:
    """Under how many changes of the design the verdict is the same, `4 of 5`; empty where none was tried."""
    changes = record.get("robustness") or []
    return f"{sum(each['verdict'] == record['verdict'] for each in changes)} of {len(changes)}" if changes else ""


def place(context: str) -> str:
    """A context in plain words: `digits standardized=true rate=28.0` as `digits standardized rate 28`."""
    if context in ("", "defaults"):
        return "all of it"
    return " ".join(_setting(*word.partition("=")[::2]) for word in context.split()).replace("_", " ")


def _setting(name: str, level: str) -> str:
    if level in ("", "true"):
        return name
    if level == "false":
        return f"not {name}"
    if name in TOLD_ALONE:
        return level
    level = level.removesuffix(".0")
    return f"{level} {name}" if name.endswith("s") else f"{name} {level}"  # 64 inputs, but depth 8


def quantity(name: str) -> str:
    """What a measure is, in plain words: `validation accuracy`."""
    if name in MEASURES:
        return MEASURES[name]
    if name.count(".") >= 2:
        layer, _, rest = name.partition(".")
        statistic = rest.partition(".")[2].replace("_", " ")
        near = re.fullmatch(r"sparsity (\S+?)(@.*)?", statistic)
        word = f"share of weights within {near[1]} of the largest" if near else statistic
        return f"{word} in {'every layer' if layer == '*' else layer.replace('_', ' ')}"
    return re.sub(r"\bval\b", "validation", name.replace("_", " "))


def arms(rule: dict) -> str:
    """The arms that a rule means: `adam`, `batch normalization`, `l1 0.003`, `triangular or triangular2`.

    An option is not named beside its settings, nor a strength of 0 beside another.
    """
    told = {factor: levels for factor, levels in rule.items() if not any(f.startswith(f"{factor}.") for f in rule)}
    some = {factor: levels for factor, levels in told.items() if not all(_is_zero(level) for level in levels)}
    rule = some or told
    return ", ".join(" or ".join(_level(factor, level) for level in levels) for factor, levels in rule.items())


def _is_zero(level: object) -> bool:
    return isinstance(level, int | float) and not isinstance(level, bool) and level == 0


def _level(factor: str, level: object) -> str:
    name = factor.rpartition(".")[2].replace("_", " ")
    if level is None or level == "none":
        return f"no {name}"
    if isinstance(level, bool):
        return f"{'with' if level else 'without'} {name}"
    if isinstance(level, str):
        words = level.replace("_", " ")
        return f"{words} {name}" if "." in factor else words
    return f"{name} {shown(level).removesuffix('.0')}"


def had_to_be(rule: dict) -> str:
    """What the claim has to come to, in a sentence: `at least 15 % lower`, `above 90 %`."""
    direction, margin, band = rule["direction"], rule["margin"], rule["claimed_band"]
    tells = PHRASES[rule["estimand"]][1]
    nothing = 1.0 if rule["estimand"].endswith("ratio") else 0.0
    compared = PHRASES[rule["estimand"]][1] is not _itself
    if not compared:
        beyond = "" if direction == "within" else f"{direction} {amount(rule, margin)}"
    elif margin == nothing:
        beyond = tells(rule, nothing + (0.5 if direction == "above" else -0.5))[0].rpartition(" ")[2]
    else:
        least = "at least" if (margin > nothing) == (direction == "above") else "at most"
        beyond = f"{least} {tells(rule, margin)[0]}"
    if direction == "within":
        beyond = ""
    within = ""
    if band:
        near, far = sorted(band, key=lambda end: abs(end - nothing)) if compared else band
        within = f"{_shared(tells(rule, near)[0], tells(rule, far)[0])}"
    return f"{beyond}, and as claimed {within}" if beyond and within else beyond or within


def _shared(first: str, last: str) -> str:
    """Two amounts as a range, with what they end in said once: `20 to 40 % lower`."""
    number, _, unit = first.partition(" ")
    return f"{number} to {last}" if unit and last.endswith(f" {unit}") else f"{first} to {last}"


def _more(rule: dict, ratio: float) -> tuple[str, str]:
    """A ratio as what it changes: `12 % lower` than, `3.4 times as high` as."""
    words = {"spread_ratio": ("more", "less", "much")}.get(rule["estimand"], ("higher", "lower", "high"))
    if ratio >= 2:
        return f"{plain(ratio)} times as {words[2]}", "as"
    percent = plain(abs(100 * (ratio - 1)))
    return ("the same", "as") if percent == "0" else (f"{percent} % {words[ratio < 1]}", "than")


def _ahead(rule: dict, number: float) -> tuple[str, str]:
    size = amount(rule, abs(number)).lstrip("+")
    return (f"{size} {'higher' if number > 0 else 'lower'}", "than") if number else ("the same", "as")


def _explained(rule: dict, number: float) -> tuple[str, str]:
    return f"{plain(abs(100 * number))} points of 100 {'more' if number > 0 else 'less'}", "than"


def _itself(rule: dict, number: float) -> tuple[str, str]:
    return amount(rule, number), ""


def _sides(rule: dict) -> str:
    return f"with {arms(rule['of'])} is {{amount}} {{link}} with {arms(rule['against'])}"


Phrase = tuple[Callable[[dict], str], Callable[[dict, float], tuple[str, str]]]

PHRASES: dict[str, Phrase] = {
    "value": (lambda rule: f"the {quantity(rule['measure'])} is {{amount}}", _itself),
    "mean": (lambda rule: f"the {quantity(rule['measure'])} is {{amount}} on average", _itself),
    "difference": (lambda rule: f"the {quantity(rule['measure'])} {_sides(rule)}", _ahead),
    "ratio": (lambda rule: f"the {quantity(rule['measure'])} {_sides(rule)}", _more),
    "slope": (
        lambda rule: (
            f"what {arms(rule['of'])} gains over {arms(rule['against'])} in {quantity(rule['measure'])} with every "
            f"doubling of the {_along(rule)} is {{amount}}"
        ),
        _itself,
    ),
    "spread_ratio": (
        lambda rule: (
            f"when the {_along(rule)} changes, the {quantity(rule['measure'])} with {arms(rule['of'])} varies "
            f"{{amount}} {{link}} with {arms(rule['against'])}"
        ),
        _more,
    ),
    "stable_ratio": (lambda rule: f"the largest {_along(rule)} that still trains {_sides(rule)}", _more),
    "ends_ratio": (
        lambda rule: (
            f"at a tenth or ten times the best {_along(rule)}, whichever is kinder, the {quantity(rule['measure'])} is "
            f"{{amount}} that of the best"
        ),
        _itself,
    ),
    "interaction_ratio": (
        lambda rule: (
            f"the {quantity(rule['measure'])} with {arms(rule['of'])} over that with {arms(rule['against'])} is "
            f"{{amount}} {{link}} with {arms(rule['beside'])}"
        ),
        _more,
    ),
    "importance_lead": (
        lambda rule: (
            f"the {_along(rule)} explains {{amount}} of what moves the {quantity(rule['measure'])} {{link}} the most "
            f"important other setting"
        ),
        _explained,
    ),
}
"""Of each estimand a sentence with a place for the amount; and how an amount is said, with what links it on."""


def _along(rule: dict) -> str:
    return rule["along"].rpartition(".")[2].replace("_", " ")


def _estimate(context: dict) -> float:
    return context["estimate"]


def is_share(name: str) -> bool:
    """Whether a measure is a share, which is told in percent."""
    return measure(name).share or name in ("accuracy_gap", "success", "share", "agrees")


def duration(seconds: float) -> str:
    """Seconds in the unit that reads best.

    >>> [duration(each) for each in (0.5, 90, 5400, 360000)]
    ['0.5 s', '90 s', '90 min', '100 h']
    """
    unit, name = next((each for each in ((3600, "h"), (60, "min")) if seconds >= 2 * each[0]), (1, "s"))
    unit, name = (60, "min") if name == "h" and seconds < 3 * 3600 else (unit, name)
    return f"{seconds / unit:.3g} {name}"


def plain(number: float) -> str:
    """Three digits, and one after the point; powers of ten below a ten thousandth and from a million on."""
    if number == 0:
        return "0"
    size = abs(number)
    if size >= 1e6 or size < 1e-4:
        mantissa, _, power = f"{number:.1e}".partition("e")
        raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"{mantissa.removesuffix('.0')}·10{raised}".replace("-", "−")
    digits = max(1, 2 - math.floor(math.log10(size)))
    words = f"{number:,.{digits}f}"
    words = words.rstrip("0").rstrip(".") if "." in words else words
    return words.replace("-", "−")


def _some(names: list[str], of: int) -> str:
    if len(names) > MOST_NAMED:
        return f"{len(names)} of {of}, such as {names[0]}"
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
