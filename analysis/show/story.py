"""The board as a page: the article claim by claim, from the records of verdicts alone, with no file beside it."""

import itertools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from analysis.show import evidence, sentences
from analysis.show.sentences import NOT_RUN, SYMBOLS, duration

OTHERS = "Other claims"
"""The chapter of those that are none of the article's."""

AGREES = {
    True: "agrees with what was measured here",
    False: "does not agree with what was measured here",
    None: "no single number that this could be held against everywhere",
}


@dataclass(frozen=True)
class Told:
    """A claim as the page tells it.

    Attributes:
        record: see `analysis.claims.record`.
        address: in the page.
        title: what is said, with the claim's name where two claims say the same.
        cases: of several contexts each one's verdict, name, number and note, where they differ or there is a note.
        figures: SVGs with their captions, each under a heading.
        facts: names and lines of what else is known.
    """

    record: dict
    title: str
    address: str
    verdict: str
    symbol: str
    tally: str
    sentence: str
    disagreement: str
    because: str
    cases: list[dict]
    figures: list[tuple[str, Markup, str]]
    facts: list[tuple[str, list[str]]]


def page(records: list[dict]) -> str:
    """The page of all claims, in their order, by chapters."""
    quotes = Counter(record["quote"] for record in records)
    told = [_told(record, quotes[record["quote"]] > 1) for record in records]
    chapters = [
        (name, list(some))
        for name, some in itertools.groupby(told, key=lambda each: each.record.get("chapter") or OTHERS)
    ]
    profiles = dict.fromkeys(each.record.get("profile", "") for each in told if each.verdict != NOT_RUN) or [""]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("board.html.jinja").render(
        chapters=chapters,
        counts={profile: _counts(told, profile) for profile in profiles},
        mixed=[each for each in told if each.tally],
    )


def _counts(told: list[Told], profile: str) -> list[tuple[str, str, int]]:
    """How many claims have which verdict in a profile, those among them that are not run in any."""
    found = Counter(each.verdict for each in told if each.record.get("profile", profile) == profile)
    return [(verdict, symbol, found[verdict]) for verdict, symbol in SYMBOLS.items() if found[verdict]]


def _told(record: dict, twice: bool) -> Told:
    verdict = sentences.standing(record)
    profile = record.get("profile", "")
    named = f"{record['name']}, {profile} profile" if profile not in ("", "quick") else record["name"]
    return Told(
        record=record,
        title=f"{record['quote']} ({named})" if twice else record["quote"],
        address=f"{record['name']}-{profile}" if profile not in ("", "quick") else record["name"],
        verdict=verdict,
        symbol=SYMBOLS[verdict],
        tally=sentences.tally(record),
        sentence=sentences.sentence(record),
        disagreement=sentences.disagreement(record),
        because=sentences.because(record),
        cases=_cases(record),
        figures=_figures(record),
        facts=_facts(record),
    )


def _cases(record: dict) -> list[dict]:
    contexts, rule = record.get("contexts") or [], record.get("rule")
    if len(contexts) < 2 or not rule or not (sentences.tally(record) or any(c["note"] for c in contexts)):
        return []
    cases = []
    for context in contexts:
        verdict = sentences.verdict_of(context)
        interval = sentences.span(rule, context["low"], context["high"])
        cases.append(
            {
                "verdict": verdict,
                "symbol": SYMBOLS[verdict],
                "name": sentences.place(context["context"]),
                "number": f"{sentences.amount(rule, context['estimate'])} {interval}".rstrip(),
                "note": context["note"],
            }
        )
    return cases


def _figures(record: dict) -> list[tuple[str, Markup, str]]:
    """Under each heading a figure and its caption."""
    if not record.get("rule") or not record.get("contexts"):
        return []
    drawn = {sentences.heading(record): evidence.forest(record), "What it is made of": evidence.decisive(record)}
    return [(title, Markup(each[0]), each[1]) for title, each in drawn.items() if each]  # noqa: S704  escaped there


def _facts(record: dict) -> list[tuple[str, list[str]]]:
    if record["verdict"] == NOT_RUN:
        return []
    rule, needed = record.get("rule"), record.get("needed")
    facts = [
        ("Asked for", [f"{sentences.asked(rule)}: {rule['why_margin']}"] if rule else [record["claimed"]]),
        ("The literature", _literature(record)),
        ("To decide it", [f"about {needed} seeds would be needed"] if needed else []),
        ("Robustness", _robustness(record)),
        ("Controls", [f"{name} control {outcome}" for name, outcome in record["controls"].items()] or ["none"]),
        ("Effort", [_effort(record)]),
        ("Made on", [_made(record)]),
    ]
    return [(name, lines) for name, lines in facts if lines]


def _literature(record: dict) -> list[str]:
    said, source, agrees = sentences.literature(record)
    if not said:
        return []
    numbered = isinstance(record["prediction"]["value"], int | float)
    verdict = f": {AGREES[agrees]}" if agrees is not None or numbered else ""
    return [f"{said}{f' ({source})' if source else ''}{verdict}"]


def _robustness(record: dict) -> list[str]:
    changes = record.get("robustness") or []
    other = [f"{each['change']}: {each['verdict']}" for each in changes if each["verdict"] != record["verdict"]]
    return [f"the same verdict under {sentences.robust(record)} changes", *other] if changes else []


def _effort(record: dict) -> str:
    looks = record["looks"]
    parts = [f"{record['seeds']} seed{'s' * (record['seeds'] != 1)}"]
    if looks and record["look"] in looks:
        parts[0] += f", decided at look {looks.index(record['look']) + 1} of {len(looks)}"
    parts.append(f"{record['trials']:,} trials")
    parts += [f"{record['failures']} failed"] if record["failures"] else []
    return ", ".join([*parts, f"{duration(record['seconds'])} of computing"])


def _made(record: dict) -> str:
    machine = record["machine"].partition(" ")[2] or record["machine"]
    commit = f", at commit {record['commit'][:7]}" if record["commit"] else ""
    return f"{machine or 'an unknown machine'}, {record['when'][:10]}, version {record['version']} of its card{commit}"
