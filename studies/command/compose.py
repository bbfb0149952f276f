"""Configs from the command's words: Hydra composes them, and what it merges in silence is said."""

import functools
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import hydra
import yaml
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf, open_dict

from studies import contract, terminal
from studies.command import provenance, sweep, trust
from studies.contract import Tag
from studies.design import grid
from studies.design.claim import profile_values
from studies.design.study import PARTS, STUDY
from studies.factors import data, limits, targets
from studies.record import IDENTITY, RULES_VERSION, StudyError, identity_parts, is_computed, listed, shown

CONF = contract.CONF
GLOBAL = re.compile(r"\s*#\s*@package\s+_global_\s*$", re.M)
"""The first line by which Hydra takes a file's settings for those of all parts; further down it does not count."""

SELF_REFERENCE = re.compile(r"\$\{(?!oc\.env:)")

Composed: TypeAlias = DictConfig

IN_TURN = ("basic_sweeper.BasicSweeper", "basic_launcher.BasicLauncher")
"""Hydra's own, which run jobs one after another in this process."""

MAPPINGS = ("study.factors", "study.nuisance", "study.baseline")
"""Settings of a study that a mapping in the command is merged into."""


FLAGS = {"--plan": "plan=true", "--force": "force=true"}
"""Settings that may be written as other commands have them."""

RERUN = "--experimental-rerun"

WITH_VALUE = (
    *("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--cfg", "-c", "--package", "-p"),
    *("--info", "-i"),
)
"""Hydra's flags that a word follows."""


def as_settings(words: list[str]) -> list[str]:
    """The command's words with its flags as settings: `--force` is `force=true`, `--plan --format json` is `plan=json`.

    Hydra's own flags go to the front, since it takes none between settings.

    Raises:
        StudyError: a format without a plan, or one that there is not.
    """
    form, flags, rest, waiting = "", [], [], iter(words)
    for word in waiting:
        flag, _, value = word.partition("=")
        if flag == "--format":
            form = value or next(waiting, "")
        elif flag == RERUN:
            raise StudyError(f"{RERUN}: it reads a pickle, which is code: give the command that made it")
        elif word.startswith("-") and word not in FLAGS:
            flags.append(word)
            if flag in WITH_VALUE and not value:
                flags += [following for following in (next(waiting, ""),) if following]
        else:
            rest.append(FLAGS.get(word, word))
    if not form:
        return flags + rest
    if form not in ("terminal", "json"):
        raise StudyError(f"--format {form}: expected terminal or json")
    if "plan=true" not in rest:
        raise StudyError(
            f"--format {form}: expected it with plan=true; what a study came to is had with "
            f"{terminal.spoken('analysis.compare', 'STUDY', '--format', form)}"
        )
    return flags + ["plan=json" if word == "plan=true" and form == "json" else word for word in rest]


class OwnConf(SearchPathPlugin):
    """Has Hydra find options in `conf` of the working folder too, after those that ship."""

    def manipulate_search_path(self, search_path) -> None:
        """Add the folder."""
        if folder := contract.own_conf():
            search_path.append("own", f"file://{folder}")


Plugins.instance().register(OwnConf)


@contextmanager
def once(words: list[str]) -> Iterator[None]:
    """Spare a command the 80 ms in which Hydra composes it to look for `hydra.mode`, and then once more to run it.

    Nothing that ships sets it; a command that names options elsewhere, or speaks of Hydra, is looked through.
    """
    look = Hydra.get_mode
    if places() == [CONF] and not any("hydra" in word or word.partition("=")[0] in WITH_VALUE for word in words):
        Hydra.get_mode = lambda self, config_name, overrides: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        Hydra.get_mode = look  # type: ignore[method-assign]


def places() -> list[Path]:
    """The folders that have options: those that ship, the working folder's, that of `--config-dir`."""
    given = [folder for folder in (contract.own_conf(), _config_dir()) if folder]
    return list(dict.fromkeys([CONF, *given]))


def _config_dir() -> Path | None:
    """The folder that the command names for Hydra."""
    words = sweep.words()
    for place, word in enumerate(words):
        flag, _, value = word.partition("=")
        if flag in ("--config-dir", "-cd"):
            folder = Path(value or "".join(words[place + 1 : place + 2])).resolve()
            return folder if folder.is_dir() else None
    return None


def file_of(group: str, option: str | None) -> Path | None:
    """The file of an option, the first there is."""
    files = (folder / group / f"{option}.yaml" for folder in places())
    return next((file for file in files if file.is_file()), None)


def refuse_hidden(choices: dict[str, str]) -> None:
    """See that no chosen option has another file of its name, which would not be read.

    Raises:
        StudyError: one has.
    """
    for group, option in choices.items():
        files = [folder / group / f"{option}.yaml" for folder in places()]
        first, *others = [file for file in files if file.is_file()] or [CONF]
        for other in others:
            if other.read_bytes() != first.read_bytes():
                raise StudyError(
                    f"{group}={option}: there are two, and {other} would not be read, since {first} comes first: give "
                    f"it another name, such as {other.with_stem(f'my_{other.stem}').name}"
                )


def named(composed: Composed, study: str | None, overridden: Set[str]) -> Composed:
    """A config whose study has a name, that of its file if nothing gives it one.

    Args:
        study: the option that it comes from, None if it comes from none.

    Raises:
        StudyError: its file is empty, or has settings of other parts and no line that says so to Hydra.
    """
    path = file_of("study", study)
    if study is None or path is None:
        return composed
    content = OmegaConf.to_container(OmegaConf.load(path))
    if not content or not isinstance(content, dict):
        raise StudyError(
            f"+study={study}: its file {path} is empty: expected a study, such as {CONF}/study/init_comparison.yaml"
        )
    if said := unheaded(study):
        raise StudyError(said)
    own = content.get("study") or {} if _is_global(path) else content
    if "name" not in own and "study.name" not in overridden:
        with open_dict(composed):
            composed.study.name = study.rpartition("/")[2]
    return composed


def _is_global(file: Path) -> bool:
    return bool(GLOBAL.match(file.read_text(encoding="utf-8")))


def unheaded(study: str) -> str:
    """What is wrong with a study's file that has settings of other parts and no line that says so to Hydra."""
    path = file_of("study", study)
    content = OmegaConf.to_container(OmegaConf.load(path)) if path else None
    if path is None or not isinstance(content, dict) or _is_global(path):
        return ""
    others = [name for name in content if name in (*PARTS, "defaults") and name not in STUDY]
    return (
        f"{path} has {listed(others)}, and no line that says that it is more than the settings of study: expected "
        f"`# @package _global_` as its first line"
        if others
        else ""
    )


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


def settle(config: dict, trusted: bool = False) -> tuple[dict, dict, dict]:
    """A trial's config checked, its values in their types, all that it names identified; its identity; its graph.

    What plays no part in a trial is not of its config: of a computed one, what a network would be trained by.

    Args:
        trusted: whether what it allows is from the command line, and from no file.
    """
    parts = identity_parts(config)
    config = limits.settled({p: node for p, node in config.items() if p in parts or p not in (*IDENTITY, "compute")})
    allow = config["targets"]["allow"]
    if not trusted:
        trust.allow_only_own(allow)
    targets.refuse_unlisted(config, allow)
    config = targets.canonical(config)
    sources = {name: provenance.source(name) for name in targets.users({p: config[p] for p in parts}, allow)}
    if not is_computed(config):
        config["data"] = config["data"] | {"content": data.content(config["data"])}
    config |= {
        "engine": config["engine"] | provenance.engine(config.get("executor")),
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
    path = file_of(group, option)
    if path is None:
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
    path = file_of("study", option)
    if option is None or path is None:
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
    """A composed config as YAML, without what is of the command and not of the study."""
    return OmegaConf.to_yaml(OmegaConf.masked_copy(composed, [name for name in composed if name != "force"]))


def refers_to_itself(composed: DictConfig) -> bool:
    """Whether a value is taken from another by interpolation, so that a level may change more than its own key."""
    return bool(SELF_REFERENCE.search(OmegaConf.to_yaml(composed, resolve=False)))


def groups() -> list[str]:
    """The config groups that ship."""
    return sorted(folder.name for folder in CONF.iterdir() if folder.is_dir())


def options(group: str) -> list[str]:
    """The options of a config group, the user's own among them."""
    folders = [folder / group for folder in places()]
    return sorted({str(path.relative_to(f).with_suffix("")) for f in folders for path in f.rglob("*.yaml")})
