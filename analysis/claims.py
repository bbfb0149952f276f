"""The board of claims and their verdicts: `python -m analysis.claims`."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from analysis import command, load
from analysis.estimate import columns, estimands, importance, verdicts
from analysis.estimate.estimands import CLOCKS
from analysis.estimate.verdicts import Evidence, Verdict
from analysis.show import board
from studies.contract import Tag
from studies.record import Claim, Study, StudyError

FILE = "verdict.json"
"""Its name among an execution's artifacts."""

NO_RULE = ("id", "version", "quote", "kind", "positive", "negative", "prediction", "profile", "number", "chapter")
"""Of a claim, what is no part of the rule that it is judged by."""

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""In C, where there is one: ten times as fast."""

SHIPPED = Path(__file__).parent.parent / "conf" / "study" / "claims"


def main(arguments: list[str] | None = None) -> int:
    """Print the board; gives the exit code, 2 for what the user can put right."""
    parser = command.parser("claims", "Show what has been decided of the claims.")
    parser.add_argument("--format", choices=board.FORMATS, default="terminal")
    parser.add_argument("--short", action="store_true", help="a small table in Markdown, as the README has it")
    parser.add_argument("--to", type=Path, metavar="FILE", help="write it there instead")
    options = parser.parse_args(arguments)

    def run():
        found = rows(options.root)
        text = board.short_form(found) if options.short else board.board(found, options.format)
        if options.to is None:
            print(text)
        else:
            options.to.write_text(f"{text}\n", encoding="utf-8")
            print(options.to)

    return command.ended(run)


def rows(root: str | Path = "mlruns") -> list[dict]:
    """One record a claim and profile in the order of the article: its latest verdict; of what ships and has none, so.

    An invalid verdict is shown only where there is no other. Each has the `command` that runs it.
    """
    try:
        names = load.studies(root)
    except StudyError:
        names = []
    found = {}
    for name in names:
        try:
            executions = load.executions(name, root)
        except StudyError:  # an experiment that is none of ours, or has no execution yet
            continue
        for execution in executions:
            if Tag.VERDICT in execution.tags:
                record = json.loads(load.text(execution, FILE, root))
                shipped = (SHIPPED / f"{record['name']}.yaml").exists()
                command = _command(record["name"], record["profile"]) if shipped else ""
                record["command"] = command or execution.tags.get("mlflow.source.name", "")
                place = record["name"], record["profile"]
                found[place] = max(found.get(place, record), record, key=_counts)
    for file in sorted(SHIPPED.glob("*.yaml")):
        card = yaml.load(file.read_text(encoding="utf-8"), Loader=LOADER).get("claim") or {}  # noqa: S506
        if card and not any(name == card["id"] for name, _ in found):
            found[card["id"], ""] = {
                "name": card["id"],
                "number": card.get("number"),
                "chapter": card.get("chapter", ""),
                "quote": card["quote"],
                "kind": card["kind"],
                "verdict": "not run",
                "command": _command(file.stem),
            }
    return sorted(found.values(), key=_place)


def _command(name: str, profile: str = "quick") -> str:
    """What runs a claim that ships alone."""
    return f"python -m studies.run +study=claims/{name}" + f" profile={profile}" * (profile != "quick")


def _place(record: dict) -> tuple:
    """Where the article has a claim; after all of its own those of others."""
    return record.get("number") or np.inf, record["name"], record.get("profile", "")


def _counts(record: dict) -> tuple[bool, str]:
    """How much a record counts: a verdict more than none, a later one more than an earlier."""
    return record["verdict"] != verdicts.INVALID, record["when"]


def told(execution: load.Execution, root: str | Path) -> list[str]:
    """What was said of an execution's claim, the verdict first; nothing if it has none, or was not judged."""
    if Tag.VERDICT not in execution.tags:
        return []
    return json.loads(load.text(execution, FILE, root))["said"]


def check_tools(claim: Claim) -> None:
    """See that what a claim is judged with is installed.

    Raises:
        StudyError: it is not.
    """
    if claim.estimand == "importance_lead":
        importance.check_installed()


def judge(
    study: Study,
    root: str | Path,
    trials: Mapping[str, dict | None],
    controls: Mapping[str, Mapping[str, dict | None]],
    tuned: pd.DataFrame | None = None,
) -> tuple[Verdict, Evidence]:
    """The verdict on a study's claim by the trials that its store has, and what it is by.

    Args:
        trials: those planned, key -> levels.
        controls: those of each control.
        tuned: each arm's nuisance levels and the `value` it was tuned to.
    """
    claim = study.claim
    assert claim is not None  # noqa: S101
    frame = load.trials(study.name, root, trials)
    keys = [*trials, *(key for some in controls.values() for key in some)]
    timed = claim.measure in CLOCKS
    epochs = load.epochs(study.name, root, keys) if timed else None
    sides = {name: load.trials(study.name, root, some) for name, some in controls.items()}
    if claim.measure.partition("@")[0].count(".") >= 2:  # of a layer
        frame, *others = (_with_layers(part, study, root) for part in (frame, *sides.values()))
        sides = dict(zip(sides, others, strict=True))
    if "negative" in sides and isinstance(claim.negative, int):
        sides["negative"]["seed"] -= claim.negative
    evidence = Evidence(frame, epochs, tuned, **sides)
    short = {name: len(sides[name]) for name in sides if len(sides[name]) < len(controls[name])}
    seeds, lost = frame["seed"].nunique() or 1, len(set(trials) - set(frame["key"]))
    found = verdicts.verdict(study, evidence, len(trials) // seeds, short, lost)
    return found, evidence


def _with_layers(trials: pd.DataFrame, study: Study, root: str | Path) -> pd.DataFrame:
    """The trials with what is measured of their layers, which of one that failed is not known."""
    assert study.claim is not None  # noqa: S101
    measure = study.claim.measure
    if trials.empty:
        return trials.assign(**{measure: np.empty(0)})
    found = columns.added(trials, measure, study.name, root)
    return found.assign(**{measure: found[measure].where(found["status"] == "finished")})


def record(
    study: Study,
    found: Verdict,
    evidence: Evidence,
    tags: Mapping[str, str],
    settings: Mapping[str, object] | None = None,
) -> dict:
    """A verdict as it is kept and as the board's JSON has it.

    Args:
        settings: the main values of a trial's config, by their keys.
        tags: the execution's, which name the commit and the machine.
    """
    claim = study.claim
    assert claim is not None  # noqa: S101
    used = evidence.trials[evidence.trials["seed"].isin(found.seeds)] if found.seeds else evidence.trials
    sides = [side for side in (evidence.positive, evidence.negative) if side is not None]
    every = pd.concat([_of_record(claim, found, part, evidence.epochs) for part in (used, *sides)], ignore_index=True)
    main_context = verdicts.deciding(claim, found)
    numbers = {name: getattr(main_context, name) if main_context else np.nan for name in ("estimate", "low", "high")}
    levels = list(study.factors)
    return _plain(
        {
            **_of_card(claim),
            "scope": board.scope(study, used, settings),
            "setting": board.setting(study, used, settings),
            "context": main_context.context if main_context and len(found.contexts) > 1 else "",
            **numbers,
            "direction": found.direction,
            "magnitude": found.magnitude,
            "verdict": found.verdict,
            "seeds": len(found.seeds),
            "look": found.look,
            "looks": study.looks,
            "trials": len(every),
            "saved": (len(study.seeds) - found.look) * (len(used) // len(found.seeds)) if found.look else 0,
            "failures": int((used["status"] != "finished").sum()),
            "controls": found.controls,
            "card": study.card,
            "commit": tags.get("mlflow.source.git.commit", ""),
            "machine": tags.get("machine", ""),
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(float(every["seconds_total"].sum()), 1),
            "invalid_because": found.because if found.verdict == verdicts.INVALID else "",
            "because": found.because,
            "said": board.said(study, found),
            "contexts": found.record()["contexts"],
            "tuning": [] if evidence.tuned is None else json.loads(evidence.tuned.to_json(orient="records")),
            "runs": every[["key", "role", "status", "seed", *levels, "value", "censored"]].to_dict("records"),
        }
    )


def _of_card(claim: Claim) -> dict:
    """What a record has of the card."""
    return {
        "name": claim.id,
        "version": claim.version,
        "number": claim.number,
        "chapter": claim.chapter,
        "quote": claim.quote,
        "kind": claim.kind,
        "profile": claim.profile,
        "estimand": board.estimand(claim),
        "claimed": board.claimed(claim),
        "rule": {name: value for name, value in asdict(claim).items() if name not in NO_RULE},
        "prediction": claim.prediction,
    }


def _of_record(claim: Claim, found: Verdict, trials: pd.DataFrame, epochs: pd.DataFrame | None) -> pd.DataFrame:
    """The trials with their `value` and whether it is `censored`; of an invalid verdict nothing is known."""
    if found.verdict == verdicts.INVALID:
        return trials.assign(value=np.nan, censored=False)
    return estimands.measured(claim, trials, epochs)


def _plain(value):
    """What JSON can keep: no NumPy, no NaN."""
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


if __name__ == "__main__":
    sys.exit(main())
