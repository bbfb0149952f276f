"""What MLflow's pages call runs: told from the others of its study within what they show of a name."""

from collections.abc import Mapping, Sequence

from studies.contract import UNSAID
from studies.record import Trial, short, shown

SHOWN = 20
"""The characters that MLflow's charts and legends show of a name."""

MOST = 250
"""And those that it keeps."""

LEAST = 4
"""Those that are left of a level's, at least."""


def run_name(trial: Trial, factors: Mapping[str, tuple], seeds: tuple[int, ...] = ()) -> str:
    """A trial's levels and seed: `he_normal seed=1`, and in a study where some are too long `he_norm d=16 s=1`.

    Args:
        factors, seeds: the study's. A level that is a text keeps as much as there is room for, or as tells it from
            the factor's others.
    """
    whole = f"{trial.label()} seed={trial.seed}"
    tried = {factor: [shown(each) for each in levels] for factor, levels in factors.items() if factor in trial.levels}
    if not tried or (len(whole) <= SHOWN and _widest(tried, seeds, " seed=") <= SHOWN):
        return whole
    texts = [factor for factor, levels in factors.items() if factor in tried and isinstance(levels[0], str)]
    prefixes = {factor: "" if "." not in factor else f"{_initials(factor, tried)}=" for factor in tried}
    rest = sum(len(prefixes[f]) + (0 if f in texts else max(map(len, tried[f]))) + 1 for f in tried)
    room = (SHOWN - rest - len(f"s={max(seeds, default=0)}")) // max(len(texts), 1)
    words = []
    for factor, level in trial.levels.items():
        text = shown(level)
        cut = _told(text, tried.get(factor, []), room) if factor in texts else text
        words.append(f"{prefixes.get(factor, '')}{cut}")
    name = " ".join([*words, f"s={trial.seed}"])
    return name if len(name) <= SHOWN else f"{trial.key[:LEAST]} {name}"


def execution_name(study: str, sets: Sequence[str], trials: int) -> str:
    """What an execution sets, in short, and its size: `optimizer=adam epochs=5 (24 trials)`.

    What is trained comes before what is compared. The study's name, which its experiment has already, stands for what
    is run as it comes.

    Args:
        sets: from `studies.contract.set_by_command`.
    """
    ordered = sorted(sets, key=lambda word: (word.lstrip("+").startswith("study."), "{" in word))
    words = [word.partition("=") for word in ordered]
    short_words = [f"{name.lstrip('+').rpartition('.')[2]}{sign}{value}" for name, sign, value in words]
    counted = f"({trials} trial{'s' * (trials != 1)})"
    return f"{' '.join(short_words)[: MOST - len(counted) - 1] or study} {counted}"


def sweep_name(overrides: str) -> str:
    """A sweep's overrides but for the study, which its experiment is called, and for how it is run."""
    words = overrides.split(" ")
    others = [word for word in words if not word.lstrip("+").startswith(UNSAID)]
    return " ".join(["sweep", *(others or words)])[:MOST]


def _widest(tried: dict[str, list[str]], seeds, seed: str) -> int:
    """The length of the longest whole name."""
    named = (len(f"{short(f, tried)}=") * ("." in f) + max(map(len, levels)) for f, levels in tried.items())
    return sum(named) + len(tried) - 1 + len(f"{seed}{max(seeds, default=0)}")


def _initials(factor: str, factors) -> str:
    """`lr` for `optimizer.learning_rate`, if that tells it from the other factors and from the seed."""
    initials = {each: "".join(word[:1] for word in short(each, factors).split("_")) for each in factors}
    return initials[factor] if [*initials.values(), "s"].count(initials[factor]) == 1 else short(factor, factors)


def _told(text: str, among: list[str], room: int) -> str:
    """As much of a text as there is room for, and as tells it from the others that it is among."""
    others = [other for other in among if other != text]
    lengths = range(max(room, LEAST), len(text))
    return next((text[:n] for n in lengths if all(other[:n] != text[:n] for other in others)), text)
