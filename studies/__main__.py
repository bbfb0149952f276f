"""All commands under one name: `weight-studies COMMAND …` where it is installed, `python -m studies COMMAND …` here."""

import difflib
import importlib
import os
import sys
from importlib.metadata import PackageNotFoundError, version

from studies import terminal

COMMANDS = {
    "run": ("studies.run", "run a study, or one trial: run +study=init_comparison"),
    "plan": ("studies.run", "what that would train, what is finished, how long the rest takes"),
    "list": ("analysis.catalogue", "the studies there are, what they cost, and what is in the store"),
    "replay": ("studies.replay", "train a stored trial again: do its numbers come out equal?"),
    "compare": ("analysis.compare", "a study's table, or several studies in one, or its executions"),
    "report": ("analysis.report", "a study's report, one HTML file"),
    "confusion": ("analysis.confusion", "what a study's networks take each class for"),
    "claims": ("analysis.claims", "the board of claims and their verdicts"),
    "ui": ("analysis.ui", "browse the store in MLflow"),
    "export": ("analysis.export", "a study's frames as Parquet, each column explained"),
    "power": ("analysis.power", "how many seeds a study needs to show a difference"),
    "foretell": ("analysis.foretell", "what, seen early, foretells how trials end"),
    "footprint": ("analysis.footprint", "a study's networks on a device"),
    "figures": ("analysis.figures", "the figures of a computed study, as PNG"),
    "schema": ("studies.command.editing", "a JSON schema of studies, for editors"),
    "completion": ("studies.command.editing", "completion for a shell: bash, zsh or fish"),
}
"""What there is: its module, and what it is for."""

SETTINGS = {"plan": ["--plan"]}
"""Words that a command has besides those given."""

NAMED = ("schema", "completion")
"""Commands whose module has several, and is told which."""


def main() -> int:
    """Run the command that is named; gives its exit code."""
    name, *words = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help", "help"):
        return _printed(_help())
    if name == "--version":
        return _printed(_version())
    if name not in COMMANDS:
        print(f"error: {_unknown(name)}", file=sys.stderr)
        return 2
    if os.getcwd() not in sys.path:  # one's own packages, after all that is installed
        sys.path.append(os.getcwd())
    sys.argv[1:] = [*words, *SETTINGS.get(name, ())]
    module = importlib.import_module(COMMANDS[name][0])
    return module.main(name, words, COMMANDS) if name in NAMED else module.main()


def _help() -> str:
    called = _called()
    lines = [f"  {name:<11} {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {called} COMMAND …",
            "",
            "Turn a sentence about training into a study, and a study into a table with",
            "intervals.",
            "",
            *lines,
            "",
            f"{called} COMMAND --help says what each takes. Studies and options are",
            "found in ./conf beside those that ship, and the store is ./mlruns.",
        ]
    )


def _called() -> str:
    """What this command goes by."""
    return terminal.SCRIPT if terminal.is_installed_command() else "python -m studies"


def _unknown(name: str) -> str:
    if "=" in name:
        return f"{name}: expected a command first, such as {_called()} run {name}"
    near = difflib.get_close_matches(name, COMMANDS, 1)
    meant = f"did you mean {near[0]}? " if near else ""
    return f"{name}: there is no such command; {meant}There are {', '.join(COMMANDS)}"


def _version() -> str:
    try:
        return f"{terminal.SCRIPT} {version(terminal.SCRIPT)}"
    except PackageNotFoundError:
        return f"{terminal.SCRIPT}, not installed: {os.path.dirname(os.path.dirname(os.path.abspath(__file__)))}"


def _printed(text: str) -> int:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        return terminal.unread()
    return 0


if __name__ == "__main__":
    sys.exit(main())
