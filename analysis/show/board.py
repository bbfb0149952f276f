"""Verdicts in words, and the board of them all."""

import json
from collections.abc import Iterable, Mapping

import pandas as pd
from markupsafe import escape

from analysis.estimate.verdicts import INCONCLUSIVE, INVALID, NOT_SUPPORTED, SUPPORTED, Judged, Verdict
from analysis.show import escaped, sentences
from studies.record import Claim, Study, arm_label, listed, short

FORMATS = ("terminal", "markdown", "html", "json")

CONTROLS = "Controls are not judged anew under a change: what they came to stands."

COLUMNS = ("", "claim", "verdict", "robust", "estimate", "claimed", "predicted", "seeds", "trials", "scope")

SPARED = ("scope", "predicted", "trials", "robust", "claimed", "seeds")
"""Columns that a terminal without room for all goes without, the first ones first."""


def estimand(claim: Claim) -> str:
    """What is estimated, in words: `ratio of time_to_target, adam / sgd`."""
    sides = [_arms(rule) for rule in (claim.of, claim.against)]
    measure = claim.measure if "." in claim.measure else claim.measure.replace("_", " ")
    along = f" along {claim.along}" if claim.along else ""
    return {
        "value": f"{measure} of every arm",
        "mean": f"{measure} of each arm",
        "difference": f"{measure}: {sides[0]} − {sides[1]}",
        "ratio": f"{measure}: {sides[0]} / {sides[1]}",
        "interaction_ratio": f"{measure}: {sides[0]} / {sides[1]}, over the same at {_arms(claim.beside)}",
        "slope": f"{measure}: {sides[0]} − {sides[1]}, per doubling of {claim.along}",
        "spread_ratio": f"spread of {measure}{along}: {sides[0]} / {sides[1]}",
        "stable_ratio": f"largest {claim.along} that succeeds: {sides[0]} / {sides[1]}",
        "ends_ratio": f"{measure}{along}: the better end / the best",
        "importance_lead": f"importance of {claim.along} for {measure} − that of the most important other factor",
    }[claim.estimand]


def scope(study: Study, trials: pd.DataFrame, settings: Mapping[str, object] | None = None) -> str:
    """What the verdict is about, and no more: `mnist, mlp, 20 epochs, 12 seeds; quick profile`.

    Args:
        settings: the main values of a trial's config, by their keys.
    """
    claim, at = study.claim, setting(study, trials, settings)
    assert claim is not None  # noqa: S101
    across = [f"{factor.rpartition('.')[2]} {listed(dict.fromkeys(trials[factor]))}" for factor in claim.across]
    epochs = [f"{at['epochs']} epochs"] if at["epochs"] else []
    drawn = [points(study, claim.along)] if study.sampled else []
    count = trials["seed"].nunique()
    seeds = [f"{count} seeds"] * (count > 1 or claim.estimand != "value")  # what does not hang on chance has one
    parts = [*filter(None, (at["data"], at["model"])), *across, *drawn, *epochs, *seeds]
    return "; ".join(filter(None, (", ".join(parts), f"{claim.profile} profile")))


def setting(study: Study, trials: pd.DataFrame, settings: Mapping[str, object] | None = None) -> dict:
    """What every trial of a study has: `data` and `model`, empty for those that are factors; the most `epochs`.

    Args:
        settings: the main values of a trial's config, by their keys.
    """
    known = settings or {}
    of_trial = {"data": known.get("data.name", known.get("data")), "model": known.get("model")}
    named = {group: str(name) if name and group not in study.factors else "" for group, name in of_trial.items()}
    epochs = int(trials["epochs"].max()) if len(trials) and trials["epochs"].max() > 0 else 0
    return {**named, "epochs": epochs}


def points(study: Study, *factors: str) -> str:
    """How many points a design has, and what some factors are drawn from: `64 points of 8 ranges, width 8 to 256`."""
    count = len(study.factors[next(iter(study.sampled))])
    drawn = [f"{short(f, study.factors)} {study.sampled[f]}" for f in factors if f in study.sampled]
    return f"{count} points of {len(study.sampled)} ranges, {'; '.join(drawn)}"


def said(study: Study, found: Verdict) -> list[str]:
    """A verdict in sentences, the verdict first."""
    claim = study.claim
    assert claim is not None  # noqa: S101
    lines = [f"{found.verdict.upper()}: “{claim.quote}”"]
    if found.verdict == INVALID:
        return [*lines, f"No verdict is given, since {found.because}."]
    if found.magnitude:
        lines.append(f"Direction: {found.direction}; how large: {found.magnitude}.")
    lines.append(f"{estimand(claim)}; claimed: {claimed(claim)}.")
    lines += [f"{points(study, *study.sampled)}."] if study.sampled else []
    lines += [_context(each) for each in found.contexts]
    if found.because:
        lines.append(f"Why: {found.because}.")
    if study.looks:
        saved = len(study.seeds) - found.look
        rest = f"; {saved} of {len(study.seeds)} seeds were not needed" if saved else ""
        lines.append(
            f"Judged at look {study.looks.index(found.look) + 1} of {len(study.looks)}, {found.look} seeds{rest}."
        )
    lines += [f"The {name} control {outcome}." for name, outcome in found.controls.items()]
    if claim.of:
        lines += [f"There is no {name} control." for name in ("positive", "negative") if name not in found.controls]
    if claim.prediction:
        lines.append(
            f"The literature: {claim.prediction.get('value')} ({claim.prediction.get('source', 'no source')})."
        )
    return lines


def board(records: list[dict], format: str, width: int | None = None) -> str:
    """The board: one row a claim; in HTML a page that tells of each.

    Args:
        width: letters that a terminal has room for; None: for all.
    """
    if format == "json":
        return json.dumps(records, indent=2)
    if format == "html":
        from analysis.show import story

        return story.page(records)
    frame = pd.DataFrame([_row(record) for record in records], columns=list(COLUMNS))
    table = _table(frame, width) if format == "terminal" else escaped.frame(frame, "github")
    parts = [table]
    heads = {"It depends": sentences.disagreement, "Open": _open, "Stale": _old, "Unlike machines": _unlike}
    for head, tell in heads.items():
        lines = [f"- {_named(record)}: {told}" for record in records if (told := tell(record))]
        lines = [*map(escaped.markdown if format == "markdown" else escaped.line, lines)]
        parts += ["\n".join((f"{head}:", "", *lines))] * bool(lines)
    return "\n\n".join((*parts, counted(records)))


def _table(frame: pd.DataFrame, width: int | None) -> str:
    """The rows, without the columns that there is no room for."""
    gone: list[str] = []
    while True:
        table = escaped.frame(frame.drop(columns=gone), "simple")
        if width is None or len(gone) == len(SPARED) or max(map(len, table.splitlines())) <= width:
            break
        gone.append(SPARED[len(gone)])
    return table + f"\n\nNot shown for want of room: {listed(gone)}. --format markdown has all." * bool(gone)


def short_form(records: list[dict]) -> str:
    """The board in Markdown, as a README opens with it: number, claim, verdict, what it came to, and of what."""
    quotes = [record["quote"] for record in records]
    rows = [
        (
            "" if record.get("number") is None else record["number"],
            record["quote"] + f" ({_named(record)})" * (quotes.count(record["quote"]) > 1),
            f"{sentences.SYMBOLS[sentences.standing(record)]} {_standing(record)}",
            sentences.came_to(record),
            sentences.scope(record).removesuffix("quick profile").removesuffix("; "),
        )
        for record in records
    ]
    heads = ("", "what is said", "verdict", "came to", "of what")
    lines = [_piped(heads), _piped([":--"] * len(heads)), *(_piped(row) for row in rows)]
    return "\n".join([*lines, "", counted(records)])


def counted(records: list[dict]) -> str:
    """How many claims have which verdict, `9 supported; 3 not run`, each profile by itself if there are several."""
    profiles = dict.fromkeys(record.get("profile", "") for record in records if record["verdict"] != sentences.NOT_RUN)
    parts = []
    for profile in profiles or ("",):
        some = [record for record in records if record.get("profile", profile) == profile]
        verdicts = [sentences.standing(record) for record in some]
        said = "; ".join(f"{verdicts.count(name)} {name}" for name in sentences.SYMBOLS if name in verdicts)
        parts.append(f"{profile}: {said}" if len(profiles) > 1 else said)
    return "\n".join(parts)


def _piped(cells: Iterable[object]) -> str:
    return f"| {' | '.join(escaped.markdown(str(cell)).replace('|', '&#124;') for cell in cells)} |"


def _standing(record: dict) -> str:
    stale = record.get("stale", "")
    return ", ".join(filter(None, (sentences.standing(record), stale or sentences.tally(record))))


def stress(claims: list[dict], format: str) -> str:
    """Of each claim its verdict, and what each change of the analysis would make of it, one row a change.

    Args:
        claims: `name`, `profile`, `verdict`, `stale` and `robustness`, of each.
    """
    if format == "json":
        return json.dumps(claims, indent=2)
    parts = [_stressed(claim, format) for claim in claims] or ["No claim has a verdict yet."]
    return "\n\n".join([*parts, CONTROLS])


def _stressed(claim: dict, format: str) -> str:
    stale = f", stale: {claim['stale']}" * bool(claim["stale"])
    head = f"{claim['name']}, {claim['profile']} profile{stale}: {claim['verdict']}"
    rows = [
        (each["change"], each["verdict"] if each["verdict"] != claim["verdict"] else "the same", _interval(each))
        for each in claim["robustness"]
    ]
    title = {"markdown": f"**{head}**", "html": f"<h2>{escape(head)}</h2>"}.get(format, head)
    if not rows:
        return f"{title}: nothing can be changed"
    style = {"markdown": "github", "html": "html"}.get(format, "simple")
    table = escaped.frame(pd.DataFrame(rows, columns=["change", "verdict", "estimate"]), style)
    return f"{title}\n\n{table}"


def robust(record: dict) -> str:
    """How many changes leave a verdict as it is, and what it hangs on: `6 of 7; test accuracy: inconclusive`."""
    changes = record.get("robustness") or []
    other = [each for each in changes if each["verdict"] != record["verdict"]]
    opposite = [each for each in other if {each["verdict"], record["verdict"]} == {SUPPORTED, NOT_SUPPORTED}]
    named = opposite[:1] or other * (len(other) == 1)
    words = [f"{len(changes) - len(other)} of {len(changes)}"] * bool(changes)
    return "; ".join(words + [f"{each['change']}: {each['verdict']}" for each in named])


def _interval(numbers: dict) -> str:
    """An estimate with its interval, and the context that it is of."""
    if numbers["estimate"] is None:
        return ""
    known = numbers["low"] is not None and numbers["low"] < numbers["high"]
    interval = f" [{numbers['low']:.3g}, {numbers['high']:.3g}]" if known else ""
    where = numbers.get("context", "")
    return f"{numbers['estimate']:.3g}{interval}{f' at {where}' if where else ''}"


def _row(record: dict) -> tuple:
    number = "" if record.get("number") is None else record["number"]
    if record["verdict"] == sentences.NOT_RUN:
        return (number, record["name"], sentences.NOT_RUN, *[""] * (len(COLUMNS) - 3))
    return (
        number,
        _named(record),
        f"stale, was {record['verdict']}" if record.get("stale") else _standing(record),
        robust(record),
        _interval(record),
        record["claimed"],
        str((record.get("prediction") or {}).get("value", "")),
        record["seeds"],
        record["trials"],
        sentences.scope(record),
    )


def _named(record: dict) -> str:
    """A claim's name, with its profile if that is not the quick one."""
    profile = record.get("profile", "")
    return f"{record['name']} ({profile})" if profile not in ("", "quick") else record["name"]


def _open(record: dict) -> str:
    """Why a current verdict is inconclusive, and what it would take."""
    return "" if record.get("stale") or record["verdict"] != INCONCLUSIVE else record.get("because", "")


def _unlike(record: dict) -> str:
    """That a verdict's trials were not all trained by the same."""
    return " ".join(record.get("unlike", ()))


def _old(record: dict) -> str:
    """What is not current of a verdict, and how it is made anew."""
    return f"{record['stale']}; {record.get('command', '')}".removesuffix("; ") if record.get("stale") else ""


def claimed(claim: Claim) -> str:
    """What the claim says of it: `below 0.85`, `above 0 and 0.4 to 0.6`."""
    beyond = "" if claim.direction == "within" else f"{claim.direction} {claim.margin:g}"
    band = "" if claim.claimed_band is None else f"{claim.claimed_band[0]:g} to {claim.claimed_band[1]:g}"
    return " and ".join(part for part in (beyond, band) if part)


def _context(each: Judged) -> str:
    interval = f" [{each.low:.4g}, {each.high:.4g}]" if each.low == each.low else ""
    note = f" ({each.note})" if each.note else ""
    where = f"{each.context}: " if each.context not in ("", "defaults") else ""
    return f"{where}{each.estimate:.4g}{interval}, {each.n} seeds: {each.direction}{note}"


def _arms(rule: dict) -> str:
    return " ".join(" or ".join(arm_label({factor: level}) for level in levels) for factor, levels in rule.items())
