"""The studies there are, what they cost, and what is in the store: `python -m studies list`."""

import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import yaml

from analysis import claims, command, load
from analysis.read import cards
from studies import contract, terminal
from studies.record import StudyError, meant

WIDTH = 80
"""Columns of a terminal that is narrow."""

COST = re.compile(r"Cost: (.*?)\.(?: |$)")


@dataclass(frozen=True)
class Entry:
    """A study: one that has a file, or is in the store alone.

    Attributes:
        option: what `+study=` calls it, such as `claims/he_for_relu`; empty for one without a file.
        cost: as its file's head says it, empty if it does not.
        own: whether its file is the user's, in `conf` of the working folder.
        finished: how many trials the store has that need not run again.
        executions: how many there were.
        latest: when the latest began, empty for none.
        verdict: of its claim, empty if it has none or was not judged; `stale` where it is of another card.
    """

    name: str
    option: str
    question: str
    cost: str = ""
    own: bool = False
    finished: int = 0
    executions: int = 0
    latest: str = ""
    verdict: str = ""


def main(arguments: list[str] | None = None) -> int:
    """Print the list; gives the exit code, 2 for what the user can put right."""
    parser = command.parser("list", "The studies there are, what they cost, and what is in the store.")
    parser.prog = terminal.spoken("studies", "list") if not terminal.is_installed_command() else parser.prog
    parser.add_argument("studies", nargs="*", metavar="study", help="these alone, by their names; claims: the claims")
    parser.add_argument("--format", default="terminal", choices=("terminal", "json"))
    options = parser.parse_args(arguments)

    def run():
        found = chosen(entries(options.root), options.studies)
        command.say(json.dumps([asdict(e) for e in found], indent=2) if options.format == "json" else told(found))

    return command.ended(run)


def entries(root: str | Path = "mlruns") -> list[Entry]:
    """Those that ship and the user's own, studies before claims; then those that the store has besides."""
    stored = set(load.studies(root))
    judged = _verdicts(root) if stored else {}
    found = [_with_store(entry, root, judged) if entry.name in stored else entry for entry in _files()]
    known = {entry.name for entry in found}
    return [*found, *(_stored(name, root) for name in sorted(stored - known))]


def chosen(found: list[Entry], names: list[str]) -> list[Entry]:
    """Those of some names, or all.

    Raises:
        StudyError: there is no such study.
    """
    for name in names:
        if not any(_is_called(entry, name) for entry in found):
            known = [entry.name for entry in found]
            raise StudyError(f"{name}: there is no such study; {meant(name, known)}without a name, all are listed")
    return [entry for entry in found if not names or any(_is_called(entry, name) for name in names)]


def told(found: list[Entry]) -> str:
    """A few lines a study, no wider than 80 columns."""
    return "\n\n".join("\n".join(_lines(entry)) for entry in found)


def _is_called(entry: Entry, name: str) -> bool:
    return name in (entry.name, entry.option) or entry.option.startswith(f"{name.rstrip('/')}/")


def _lines(entry: Entry) -> Iterator[str]:
    yield (entry.option or entry.name) + "  (yours)" * entry.own
    state = "not run"
    if entry.executions:
        times = f"{entry.executions} execution{'s' * (entry.executions > 1)}, the latest {entry.latest}"
        state = f"{entry.finished:,} trial{'s' * (entry.finished != 1)} finished in {times}"
    verdict = f"{entry.verdict}; " * bool(entry.verdict)
    for text in (entry.question, entry.cost, f"{verdict}{state}"):
        yield from textwrap.wrap(text, WIDTH, initial_indent="    ", subsequent_indent="      ")


def _files() -> Iterator[Entry]:
    """A study a file, those that ship first."""
    folders = [folder / "study" for folder in (contract.CONF, contract.own_conf()) if folder]
    for folder in folders:
        files = sorted(folder.rglob("*.yaml"), key=lambda file: (len(file.relative_to(folder).parts), file))
        for file in files:
            option = file.relative_to(folder).with_suffix("").as_posix()
            if contract.option_file("study", option) == file:
                yield _read(file, option, own=folder != folders[0])


def _read(file: Path, option: str, own: bool) -> Entry:
    """A study's file; of one that cannot be read what is wrong, in the place of its question."""
    try:
        text = file.read_text(encoding="utf-8")
        content = yaml.load(text, Loader=cards.LOADER)  # noqa: S506
        node = content.get("study", content)
        name, question = node.get("name") or file.stem, node.get("question") or ""
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError) as error:
        return Entry(file.stem, option, f"cannot be read: {' '.join(str(error).split())}", own=own)
    said = _head(text)
    cost = COST.search(said)
    quote = (content.get("claim") or {}).get("quote")
    return Entry(str(name), option, str(quote or question), cost[1] if cost else "", own)


def _head(text: str) -> str:
    """The comments that a file opens with, as one line."""
    lines = text.splitlines()
    end = next((place for place, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return " ".join(" ".join(line.lstrip("# ") for line in lines[:end]).split())


def _with_store(entry: Entry, root, judged: dict[str, str]) -> Entry:
    of_store = asdict(_stored(entry.name, root)) | {"verdict": judged.get(entry.name, "")}
    kept = ("finished", "executions", "latest", "verdict")
    return Entry(**asdict(entry) | {name: of_store[name] for name in kept})


def _stored(name: str, root) -> Entry:
    """What a store has of a study, which may be an experiment that is none of ours."""
    try:
        executions = load.executions(name, root)
    except StudyError:
        return Entry(name, "", "an experiment of MLflow's that is no study")
    latest = datetime.fromtimestamp(executions[-1].start_time / 1000).astimezone().strftime("%Y-%m-%d %H:%M")
    finished = len(load.finished_keys(name, root))
    return Entry(name, "", executions[-1].study.question, "", False, finished, len(executions), latest)


def _verdicts(root) -> dict[str, str]:
    """The verdict of each claim that has one, `stale` of one that is of another card."""
    rows = [row for row in claims.rows(root) if row["verdict"] != claims.NOT_RUN]
    return {row["name"]: f"stale, was {row['verdict']}" if row["stale"] else row["verdict"] for row in rows}
