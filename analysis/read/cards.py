"""The cards of claims as their files have them now, and whether a verdict that is kept is of them."""

import shlex
from dataclasses import dataclass
from pathlib import Path

import yaml

from studies import address, contract
from studies.record import RESULTS_VERSION, RULES_VERSION, listed

SHIPPED = contract.CONF / "study" / "claims"

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""In C, where there is one: ten times as fast."""

QUICK = "quick"
"""The profile of a command that names none."""


@dataclass(frozen=True)
class Card:
    """A claim's file.

    Attributes:
        option: what `+study=` calls it.
        content: all that it says.
    """

    option: str
    content: dict

    @property
    def claim(self) -> dict:
        """The card itself."""
        return self.content["claim"]

    def command(self, profile: str = QUICK, root: str | Path = "mlruns") -> str:
        """What runs it."""
        return command([self.option], profile, root)


def command(options: list[str], profile: str = QUICK, root: str | Path = "mlruns") -> str:
    """What runs claims, by their options, one line."""
    return shlex.join(["python", "-m", "studies.run", *words_of(options, profile, root)])


def words_of(options: list[str], profile: str = QUICK, root: str | Path = "mlruns") -> list[str]:
    """The words of what runs claims."""
    words = ["-m"] * (len(options) > 1) + [f"+study={','.join(options)}"]
    words += [f"profile={profile}"] * (profile not in ("", QUICK))
    return words + address.setting(root)


def shipped() -> dict[str, Card]:
    """Those that ship, by the claim's id."""
    cards = [_read(f"{SHIPPED.name}/{file.stem}") for file in sorted(SHIPPED.glob("*.yaml"))]
    return {card.claim["id"]: card for card in cards if card}


def _read(option: str) -> Card | None:
    file = contract.option_file("study", option)
    content = yaml.load(file.read_text(encoding="utf-8"), Loader=LOADER) if file else None  # noqa: S506
    return Card(option, content) if isinstance(content, dict) and content.get("claim") else None


def card_of(record: dict, known: dict[str, Card]) -> Card | None:
    """The card that a verdict should be of: the one that ships under its name, else its own file, if it has any."""
    return known.get(record["name"]) or (_read(record["file"]) if record.get("file") else None)


def stale(record: dict, card: Card | None) -> str:
    """Why a verdict that was kept is not of what there is now; empty if it is."""
    reasons = []
    if card is not None:
        reasons += _of_another(record, card)
    if (version := record.get("results_version")) is None:
        reasons.append("kept by an earlier version of this package")
    elif version != RESULTS_VERSION:
        reasons.append(f"RESULTS_VERSION {version}, now {RESULTS_VERSION}")
    if (rules := record.get("rules_version", 1)) != RULES_VERSION:
        reasons.append(f"RULES_VERSION {rules}, now {RULES_VERSION}")
    return "; ".join(reasons)


def _of_another(record: dict, card: Card) -> list[str]:
    if settings := record.get("settings"):
        return [f"other settings: {listed(settings)}"]
    profiles = card.claim.get("profiles") or {}
    if profiles and record["profile"] not in profiles:
        return [f"other profile: {record['profile']}, the card has {listed(profiles)}"]
    if record["version"] != card.claim["version"]:
        return [f"card changed: version {record['version']}, now {card.claim['version']}"]
    source = record.get("source")
    changed = source is not None and source != contract.card_source(card.content, record["profile"])
    return ["card changed"] if changed else []
