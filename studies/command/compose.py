"""Configs from the command's words: Hydra composes them, and what it merges in silence is said."""

import functools
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict

from studies import contract
from studies.command import provenance
from studies.contract import Tag
from studies.design import grid
from studies.design.claim import profile_values
from studies.factors import data, limits, targets
from studies.record import IDENTITY, RULES_VERSION, StudyError, identity_parts, is_computed, listed, shown

CONF = Path(__file__).parent.parent.parent / "conf"
SELF_REFERENCE = re.compile(r"\$\{(?!oc\.env:)")

Composed: TypeAlias = DictConfig

IN_TURN = ("basic_sweeper.BasicSweeper", "basic_launcher.BasicLauncher")
"""Hydra's own, which run jobs one after another in this process."""

MAPPINGS = ("study.factors", "study.nuisance", "study.baseline")
"""Settings of a study that a mapping in the command is merged into."""


def merged(overrides: list[str], config: dict) -> list[str]:
    """What of the command's words does not count, or is not all that counts, a line each: Hydra merges in silence.

    Raises:
        StudyError: one changes nothing, or two exclude each other.
    """
    remarks, given = [], {}
    for override in OverridesParser.create().parse_overrides(overrides):
        path, value = override.key_or_group, None if override.is_delete() else override.value()
        for name, leaf in _leaves(path, value):
            if given.get(name) is not None and leaf is not None and given[name] != leaf:
                remarks.append(f"{name} is given twice: {shown(leaf)} counts, not {shown(given[name])}")
            given[name] = leaf
        if value == {} and (there := _at(config, path)):
            remedy = (
                f"{path}=null takes all of it away" if path in MAPPINGS else "name what is to change, or leave it out"
            )
            raise StudyError(
                f"{override.input_line}: changes nothing, since a mapping is merged into what there is "
                f"({listed(there)}): {remedy}"
            )
    for path in MAPPINGS:
        inside = [name for name in given if name.startswith(f"{path}.")]
        whole = _at(config, path) if isinstance(_at(config, path), dict) else {}
        kept = [name for name in whole if not _is_given(f"{path}.{name}", inside)]
        if kept and inside:
            remarks.append(f"{path} keeps {listed(kept)} of the study besides; {path}=null before it leaves all out")
        for factor, node in whole.items():
            named = [name for name in inside if name.startswith(f"{path}.{factor}.")]
            kept = [key for key in node if f"{path}.{factor}.{key}" not in named] if isinstance(node, dict) else []
            if named and (there := [f"{key}: {shown(node[key])}" for key in kept]):
                remarks.append(f"{path}.{factor} keeps {listed(there)} of the study besides")
    if given.get("seed") is not None and given.get("study.seeds") is not None:
        raise StudyError(f"seed={given['seed']} and study.seeds={shown(given['study.seeds'])}: expected one of them")
    return remarks


def profiled(composed: Composed, overrides: list[str]) -> tuple[Composed, list[str]]:
    """A config with what its claim's profile sets, but for what the command sets; and the overrides that set it."""
    card = OmegaConf.select(composed, "claim")
    card = OmegaConf.to_container(card, resolve=True) if OmegaConf.is_config(card) else {}
    extra = _of_profile(card, OmegaConf.select(composed, "profile.name") or "", overrides)
    return (hydra.compose(config_name="config", overrides=[*overrides, *extra]) if extra else composed), extra


def _of_profile(card: object, profile: str, overrides: list[str]) -> list[str]:
    """The overrides that a card's profile adds to those that are given."""
    given = {
        name
        for override in OverridesParser.create().parse_overrides(overrides)
        for name, _ in _leaves(override.key_or_group, None if override.is_delete() else override.value())
    }
    return [
        f"{name}={grid.written(value)}" for name, value in profile_values(card, profile).items() if name not in given
    ]


def jobs(words: list[str]) -> list[list[str]]:
    """The overrides of each job of a multirun, in order; none if it is not this process that runs them in turn."""
    chosen = HydraConfig.get()
    plugins = (chosen.sweeper._target_, chosen.launcher._target_)
    if not all(map(str.endswith, plugins, IN_TURN)) or chosen.sweeper.params:
        return []
    parser = OverridesParser.create(GlobalHydra.instance().config_loader())
    try:
        parsed = parser.parse_overrides([word for word in words if not word.startswith("-")])
        choices = {
            each.get_key_element(): [f"{each.get_key_element()}={value}" for value in _values(each)]
            for each in parsed
            if not each.key_or_group.startswith(("hydra.", "hydra/"))
        }
    except HydraException:  # words for something else among them
        return []
    return [list(job) for job in itertools.product(*choices.values())]


def claim(overrides: list[str]) -> str:
    """The id of the claim that a job's overrides name the study of; empty if they name none, or make another of it."""
    given = _given(overrides)
    card = (body("study", given.get("study")) or {}).get("claim") or {}
    other = any(name in ("claim", "claim.id") or f"{name}.".startswith("claim.profiles.") for name in given)
    return "" if other else card.get("id", "")


def _values(override) -> list[str]:
    swept = override.is_sweep_override()
    return list(override.sweep_string_iterator()) if swept else [override.get_value_element_as_str()]


def ahead(overrides: list[str]) -> tuple[Composed, list[str], dict[str, str]]:
    """What will be composed for a claim's job that is still to come, in 100 ms: what `profiled` gives, and the option
    that each group has in it.
    """
    given = _given(overrides)
    [profile] = [each["profile"] for each in defaults()["defaults"] if "profile" in each]
    card = (body("study", given["study"]) or {})["claim"]
    extra = _of_profile(card, given.get("profile", profile), overrides)
    composed = hydra.compose(config_name="config", overrides=[*overrides, *extra], return_hydra_config=True)
    choices = OmegaConf.to_container(composed.hydra.runtime.choices)
    with open_dict(composed):
        del composed["hydra"]
    return composed, extra, choices


def _given(overrides: list[str]) -> dict[str, str]:
    return {name.lstrip("+~"): value for name, _, value in (override.partition("=") for override in overrides)}


def _is_given(path: str, given: Iterable[str]) -> bool:
    """Whether a path, or one inside it, is among those given."""
    return any(name == path or name.startswith(f"{path}.") for name in given)


def _at(config: dict, path: str):
    """What a config has at a path, None if there is no such place."""
    found: Any = config
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _leaves(path: str, value) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(f"{path}.{name}", inner)
    else:
        yield path, value


def settle(config: dict) -> tuple[dict, dict, dict]:
    """A trial's config checked, its values in their types, all that it names identified; its identity; its graph.

    What plays no part in a trial is not of its config: of a computed one, what a network would be trained by.
    """
    parts = identity_parts(config)
    config = limits.settled({p: node for p, node in config.items() if p in parts or p not in (*IDENTITY, "compute")})
    allow = config["targets"]["allow"]
    targets.refuse_unlisted(config, allow)
    config = targets.canonical(config)
    sources = {name: provenance.source(name) for name in targets.users({p: config[p] for p in parts}, allow)}
    if not is_computed(config):
        config["data"] = config["data"] | {"content": data.content(config["data"])}
    config |= {
        "engine": config["engine"] | provenance.engine(),
        "targets": config["targets"] | {"source": sources},
    }
    return config, limits.identity(config), limits.graph(config)


def composer(base: dict, overrides: list[str], choices: dict[str, str]) -> grid.Compose:
    """What composes further configs: Hydra, in 100 ms; or the option's file, where nothing else has a say in its group.

    Args:
        base: what `overrides` compose to.
        choices: the option that each group has in it.
    """
    named = {override.lstrip("+~").partition("=")[0].partition(".")[0] for override in overrides}
    study = body("study", choices.get("study")) or {}

    def plain(group: str, option: str) -> dict | None:
        found = body(group, option)
        alone = group not in named and group not in study and base.get(group) == body(group, choices.get(group))
        return found if alone and found is not None and not {"defaults", "hydra"} & found.keys() else None

    def compose(wanted: list[str]) -> dict:
        *others, last = wanted or [""]
        group, _, option = last.partition("=")
        if others == overrides and (body := plain(group, option)) is not None:
            return base | {group: body}
        return resolved(hydra.compose(config_name="config", overrides=wanted))

    return compose


def body(group: str, option: str | None) -> dict | None:
    """An option's own file and what config.yaml gives every option, resolved; None if it speaks of other groups too."""
    path = CONF / group / f"{option}.yaml"
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8")
    if group == "study":
        return OmegaConf.to_container(OmegaConf.load(path))
    if "@package" in text or SELF_REFERENCE.search(text):
        return None
    return OmegaConf.to_container(OmegaConf.merge(OmegaConf.load(path), defaults().get(group, {})), resolve=True)


def card_tags(option: str | None, profile: str, overrides: list[str]) -> dict[str, str]:
    """What an execution of a claim is tagged with, by which a board knows whether it is of the card that ships.

    Args:
        option: the study's, such as `claims/he_for_relu`; None for a claim of the command's own.
    """
    tags = {Tag.SETTINGS: json.dumps(contract.settings(overrides)), Tag.RULES: str(RULES_VERSION)}
    path = CONF / "study" / f"{option}.yaml"
    if option is None or not path.is_file():
        return tags
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return tags | {Tag.FILE: option, Tag.SOURCE: contract.card_source(content, profile)}


@functools.cache
def defaults() -> DictConfig:
    """config.yaml as it is written."""
    return OmegaConf.load(CONF / "config.yaml")


def resolved(composed: DictConfig) -> dict:
    """A composed config as plain dictionaries and lists."""
    return OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)


def text(composed: Composed) -> str:
    """A composed config as YAML."""
    return OmegaConf.to_yaml(composed)


def refers_to_itself(composed: DictConfig) -> bool:
    """Whether a value is taken from another by interpolation, so that a level may change more than its own key."""
    return bool(SELF_REFERENCE.search(OmegaConf.to_yaml(composed, resolve=False)))


def groups() -> list[str]:
    """The config groups."""
    return sorted(folder.name for folder in CONF.iterdir() if folder.is_dir())


def options(group: str) -> list[str]:
    """The options of a config group."""
    return sorted(str(path.relative_to(CONF / group).with_suffix("")) for path in (CONF / group).rglob("*.yaml"))
