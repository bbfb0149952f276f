"""The board of claims and their verdicts: `python -m analysis.claims`."""

import io
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import command, load
from analysis.estimate import columns, estimands, history, importance, robustness, verdicts
from analysis.estimate.estimands import CLOCKS
from analysis.estimate.verdicts import Evidence, Verdict
from analysis.read import cards
from analysis.show import board
from analysis.show.width import width_here
from studies import contract, terminal
from studies.address import is_address
from studies.contract import Tag
from studies.record import PLACE, RESULTS_VERSION, RULES_VERSION, Claim, Study, StudyError, listed

FILE = "verdict.json"
"""Its name among an execution's artifacts."""

NOT_RUN = "not run"

SOURCE = "mlflow.source.name"
"""An execution's tag with the command that it was run by."""

PASSING = ("when", "seconds")
"""What of a record differs between two runs of a claim on one machine: all else is equal, but for a claim about seconds
or milliseconds its numbers. Another machine has another `machine`, and last bits; another checkout another `commit`."""

NO_PART_OF_RULE = ("id", "version", "quote", "kind", "positive", "negative", "prediction", "profile", *PLACE)
"""Of a claim, what is no part of the rule that it is judged by."""


def main(arguments: list[str] | None = None) -> int:
    """Print the board; gives the exit code, 2 for what the user can put right."""
    parser = command.parser("claims", "Show what has been decided of the claims.")
    parser.add_argument("--format", choices=board.FORMATS, default="terminal")
    parser.add_argument("--short", action="store_true", help="a small table in Markdown, as the README has it")
    parser.add_argument("--stress", action="store_true", help="whether each verdict would change by another choice")
    parser.add_argument("--to", type=Path, metavar="FILE", help="write it there instead")
    options = parser.parse_args(arguments)
    if options.short and (options.stress or options.format not in ("terminal", "markdown")):
        parser.error("--short is a table in Markdown: leave out --format and --stress")
    if options.stress and options.format == "html":
        parser.error("--stress --format html: the page has what each verdict hangs on; take terminal, markdown or json")

    def run():
        text = _text(options)
        if options.to is None:
            command.say(text)
        else:
            try:
                options.to.write_text(f"{text}\n", encoding="utf-8")
            except OSError as error:
                raise StudyError(
                    f"--to {options.to}: {error.strerror}: name a file in a folder that there is"
                ) from error
            command.say(options.to)

    return command.ended(run)


def _text(options) -> str:
    """What the command prints."""
    if options.stress:
        return board.stress(stressed(options.root), options.format)
    records = rows(options.root)
    if options.short:
        return board.short_form(records)
    if options.format not in ("terminal", "markdown"):
        return board.board(records, options.format)
    some = any(record["verdict"] != NOT_RUN for record in records)
    width = width_here() if options.to is None else None
    return "\n\n".join([board.board(records, options.format, width)] * some + remedies(records, options.root))


def rows(root: str | Path = "mlruns") -> list[dict]:
    """One record a claim and profile, in the order of the article: its latest verdict; and what ships and has none.

    Each has `stale`: why it is not of the card, the settings or the code that there are now, empty if it is; and the
    `command` that runs it. A stale one stands where there is no other, and an invalid one where there is no verdict.

    Raises:
        StudyError: there is no store at `root`.
    """
    known = cards.shipped()
    found = {place: record for place, (record, _) in _selected(root, known).items()}
    for name, card in known.items():
        if not any(name == other for other, _ in found):
            found[name, ""] = {
                "name": name,
                "number": card.claim.get("number"),
                "chapter": card.claim.get("chapter", ""),
                "quote": card.claim["quote"],
                "kind": card.claim["kind"],
                "verdict": NOT_RUN,
                "stale": "",
                "file": card.option,
                "command": card.command(root=root),
            }
    return sorted(found.values(), key=_place)


def _place(record: dict) -> tuple:
    """Where the article has a claim; after all of its own those of others."""
    return record.get("number") or np.inf, record["name"], record.get("profile", "")


def stressed(root: str | Path = "mlruns") -> list[dict]:
    """Of each claim and profile that has a verdict: its name, profile, verdict, `stale`, and `robustness`.

    What was kept before there was such a thing is worked out from the store's trials.

    Raises:
        StudyError: there is no store at `root`.
    """
    found = list(_selected(root, cards.shipped()).values())
    asked = ("name", "profile", "verdict", "stale", "robustness")
    for record, execution in found:
        if "robustness" not in record:
            record["robustness"] = _recomputed(record, execution, root)
    records = sorted((record for record, _ in found), key=_place)
    return [{name: record[name] for name in asked} for record in records]


def remedies(records: list[dict], root: str | Path = "mlruns") -> list[str]:
    """What a board lacks, and the lines to paste that run it, one a profile."""
    lacking = [record for record in records if record["verdict"] == NOT_RUN]
    old = [record for record in records if record["stale"]]
    if len(lacking) == len(records):
        return [
            f"Nothing is run in {root} yet. To run all {len(records)} claims, in half an hour or so:",
            *_lines(records, root),
        ]
    said = [
        f"{word}: {listed(r['name'] for r in some)}." for word, some in (("Not run", lacking), ("Stale", old)) if some
    ]
    return [f"{' '.join(said)} To run them:", *_lines([*lacking, *old], root)] if said else []


def _lines(records: list[dict], root: str | Path) -> Iterator[str]:
    profiles = [record.get("profile") or cards.QUICK for record in records]
    for profile in dict.fromkeys(profiles):
        some = [r["file"] for r, of in zip(records, profiles, strict=True) if of == profile and r.get("file")]
        if some:
            yield f"    {terminal.spoken('studies.run', *cards.words_of(some, profile, root))}"


def _selected(root: str | Path, known: dict[str, cards.Card]) -> dict[tuple[str, str], tuple[dict, load.Execution]]:
    """The record that counts of each claim and profile, and the execution that keeps it."""
    found: dict[tuple[str, str], tuple[dict, load.Execution]] = {}
    for execution, record in _kept(root):
        card = cards.card_of(record, known)
        record["stale"] = cards.stale(record, card)
        record["command"] = card.command(record["profile"], root) if card else execution.tags.get(SOURCE, "")
        record["file"] = card.option if card else record.get("file", "")
        place = record["name"], record["profile"]
        if place not in found or _counts(record) >= _counts(found[place][0]):
            found[place] = record, execution
    return found


def _kept(root: str | Path) -> Iterator[tuple[load.Execution, dict]]:
    """Every verdict in a store, the oldest of a study first."""
    _refuse_no_store(root)
    for name in load.studies(root):
        try:
            executions = load.executions(name, root)
        except StudyError:  # an experiment that is none of ours, or has no execution yet
            continue
        for execution in executions:
            if Tag.VERDICT in execution.tags:
                yield execution, _read(execution, root)


def _read(execution: load.Execution, root: str | Path) -> dict:
    """A verdict as it was kept; what there is of it where its file is lost: an invalid one."""
    try:
        return json.loads(load.text(execution, FILE, root))
    except StudyError as error:
        claim = execution.study.claim
        if claim is None:
            raise
        numbers = dict.fromkeys(("estimate", "low", "high"))
        counts = dict.fromkeys(("seeds", "look", "trials", "failures", "seconds"), 0)
        lists = {"looks": [], "contexts": [], "runs": [], "robustness": []}
        said = {"verdict": verdicts.INVALID, "because": str(error), "scope": "", "when": "", "controls": {}}
        return _of_card(claim) | _circumstances(execution.tags) | numbers | counts | lists | said


def _refuse_no_store(root: str | Path) -> None:
    """See that a folder is a store, or an empty one that is to be."""
    if is_address(root):
        return
    folder = contract.folder(root)
    there = folder.is_dir() and not any(not path.name.startswith(".") for path in folder.iterdir())
    if not there and not (folder / "mlflow.db").is_file():
        raise StudyError(
            f"--root {root}: there is no store in {folder}: name the folder of one with --root FOLDER, or run a claim "
            f"into it, such as {cards.command(['claims/linear_map'], root=root)}"
        )


def _counts(record: dict) -> tuple[bool, bool, str]:
    """How much a record counts: a current one more than a stale one, a verdict more than none, a later one more."""
    return not record["stale"], record["verdict"] != verdicts.INVALID, record["when"]


def _recomputed(record: dict, execution: load.Execution, root: str | Path) -> list[dict]:
    """The robustness of a verdict by the trials that the store has."""
    study = execution.study
    try:
        tuned = pd.read_json(io.StringIO(load.text(execution, "tuning.json", root)), orient="records")
    except StudyError:  # it does not tune
        tuned = None
    _, evidence = judge(study, root, execution.arms, {}, tuned)
    found = verdicts.at(study, evidence, study.seeds[: record["seeds"]], record["controls"])
    return _robustness(study, evidence, found)


def _robustness(study: Study, evidence: Evidence, found: Verdict) -> list[dict]:
    return _plain([asdict(change) for change in robustness.robustness(study, evidence, found)])


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
    if found.verdict == verdicts.INCONCLUSIVE:
        from analysis.estimate import outlook  # and SciPy's distributions with it, half a second

        found = outlook.outlook(study, evidence, found)
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
    unlike = history.mixed(pd.concat([used, *sides], ignore_index=True), levels)
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
            "failed_share": float((used["status"] != "finished").mean()) if len(used) else None,
            "controls": found.controls,
            **({"unlike": unlike} if unlike else {}),
            "card": study.card,
            **_circumstances(tags),
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(float(every["seconds_total"].sum()), 1),
            **_reasons(study, evidence, found),
            "contexts": _contexts(study, evidence, found),
            "tuning": [] if evidence.tuned is None else json.loads(evidence.tuned.to_json(orient="records")),
            "runs": every[["key", "role", "status", "seed", *levels, "value", "censored"]].to_dict("records"),
        }
    )


def _reasons(study: Study, evidence: Evidence, found: Verdict) -> dict:
    """Why a verdict is what it is, what it would take to decide it, and what it hangs on."""
    return {
        "invalid_because": found.because if found.verdict == verdicts.INVALID else "",
        "because": found.because,
        "needed": found.needed,
        "robustness": _robustness(study, evidence, found),
        "said": board.said(study, found),
    }


def _contexts(study: Study, evidence: Evidence, found: Verdict) -> list[dict]:
    """Each context as it was judged, with Cliff's delta where two arms are compared."""
    contexts, deltas = found.record()["contexts"], [np.nan] * len(found.contexts)
    if contexts and study.claim and study.claim.estimand in ("difference", "ratio"):
        deltas = [each.numbers[0] for each in verdicts.numbers(study, evidence, found.seeds, estimands.dominance)]
    return [each | {"cliffs_delta": delta} for each, delta in zip(contexts, deltas, strict=True)]


def _circumstances(tags: Mapping[str, str]) -> dict:
    """What a verdict was judged by and on: the card's file, the code, the machine."""
    return {
        "file": tags.get(Tag.FILE, ""),
        "source": tags.get(Tag.SOURCE),
        "settings": json.loads(tags.get(Tag.SETTINGS, "[]")),
        "results_version": RESULTS_VERSION,
        "rules_version": RULES_VERSION,
        "lock": tags.get("lock.hash", ""),
        "commit": tags.get("mlflow.source.git.commit", ""),
        "machine": tags.get("machine", ""),
    }


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
        "rule": {name: value for name, value in asdict(claim).items() if name not in NO_PART_OF_RULE},
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
