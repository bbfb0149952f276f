"""What only the command line decides, since a file may be a stranger's: a study is data, and starts no code of its own.

Of a config's files these are refused: targets that a file allows itself, but of packages in one's own folders; settings
of Hydra's that call, log, or write somewhere; variables of the environment other than those of places.
"""

import functools
import os
import re
from collections.abc import Iterator
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import DictConfig, OmegaConf

from studies.command import provenance, sweep
from studies.record import StudyError, listed

DISABLED = {"version": 1, "root": {"level": "ERROR"}, "disable_existing_loggers": True}

SETTLED = {
    "callbacks": {},
    "job_logging": DISABLED,
    "hydra_logging": DISABLED,
    "job.env_set": {},
    "job.env_copy": [],
    "run.dir": ".",
    "sweep.dir": "${oc.env:STUDIES_SWEEP,.}",
    "sweep.subdir": ".",
    "output_subdir": None,
}
"""Settings of Hydra's that call what they name, write where they say or change the environment, and what they are."""

BASIC, SAMPLERS = "hydra._internal.core_plugins.basic_", "optuna.samplers."
CALLS = ("_target_", "custom_search_space")
"""What within a sweeper or a launcher of Hydra's names what is called when it is built; those that it has by itself."""

PLACES = ("HOME", "USER", "LOGNAME", "HOSTNAME", "PWD", "TMPDIR", "SCRATCH", "WORK")
OURS = "STUDIES_"
ADDRESS = re.compile(r"(?!file:|sqlite:)[A-Za-z][\w+.-]*://")
"""Variables that a config may read: those that say where things are, and those whose names begin so."""


def allow_only_own(allow: list[str]) -> None:
    """See that what a config allows was asked for on the command line, or is in one's own folders.

    Raises:
        StudyError: a file allows something else.
    """
    for prefix in allow:
        package = prefix.partition(".")[0]
        if not _is_commanded("targets", prefix) and not provenance.is_own(package):
            raise StudyError(
                f"targets.allow has {prefix}, which no word of the command does: a file may allow packages of the "
                f"folder that the command is started in, and {package} is none. Whoever trusts it adds "
                f"targets.allow=[{','.join(allow)}] to the command"
            )


def _is_commanded(part: str, text: str) -> bool:
    """Whether a word of the command sets a part of the config, and names this in it."""
    ours = [word.lstrip("+~") for word in sweep.words()]
    given = [word.partition("=")[2] for word in ours if re.match(rf"{part}[.=]", word)]
    return any(text in re.split(r"[\s\[\]{},:'\"]+", value) for value in given)


def reach_only_commanded(config: dict) -> None:
    """See that a cluster's or a server's address in a config is one that the command has to do with.

    Raises:
        StudyError: a file names one, and no word of the command its part.
    """
    for part, name in (("executor", "address"), ("tracking", "uri"), ("tracking", "root")):
        node = config.get(part)
        value = node.get(name) if isinstance(node, dict) else None
        foreign = isinstance(value, str) and (ADDRESS.match(value) or (name == "address" and value != "auto"))
        if foreign and not any(re.match(rf"{part}[.=]", word.lstrip("+~")) for word in sweep.words()):
            raise StudyError(
                f"{part}.{name} is set by a file to an address: whoever is there would be sent what is trained, and a "
                f"cluster runs code. Whoever trusts it adds {part}.{name}=ADDRESS, or {part}=OPTION, to the command"
            )


def refuse_reach(composed: DictConfig) -> None:
    """See that the files of a config leave Hydra's settings that reach outside of it as they are.

    Raises:
        StudyError: one does not.
    """
    words = [word.lstrip("+~").replace("/", ".") for word in sweep.words()]
    for setting, value in SETTLED.items():
        found = OmegaConf.select(composed.get("hydra"), setting, default=value) if "hydra" in composed else value
        node = OmegaConf.to_container(found, resolve=False) if OmegaConf.is_config(found) else found
        if setting == "sweep.dir":  # which `select` has resolved
            node = OmegaConf.to_container(composed.hydra.sweep, resolve=False)["dir"]
        named = f"hydra.{setting}"
        if (node or None) != (value or None) and not any(_is_of(word, named) for word in words):
            raise _outside(named)
    for part in ("launcher", "sweeper"):
        node = OmegaConf.select(composed, f"hydra.{part}")
        held = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else None
        for path, called in _called(held, f"hydra.{part}"):
            given = [word for word in words if _is_of(word, path)]
            own = path == f"hydra.{part}._target_"
            if not (own or called.startswith(SAMPLERS)):  # no more is meant by who chooses the part's option
                given = [word for word in given if word.partition("=")[0] != f"hydra.{part}"]
            if not (given or (own and called.startswith(BASIC))):
                raise _outside(path)


def _outside(setting: str) -> StudyError:
    return StudyError(
        f"{setting} is set by a file: it may call, write or set something outside of the study, "
        f"and is taken from the command line alone. Take it out of the file"
    )


def _called(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """The settings within a part of a config that name what is called, and what they name."""
    if isinstance(node, list):
        node = dict(enumerate(node))
    for name, value in node.items() if isinstance(node, dict) else ():
        if name in CALLS and value is not None:
            yield f"{path}.{name}", str(value)
        yield from _called(value, f"{path}.{name}")


def _is_of(word: str, setting: str) -> bool:
    """Whether a word sets a setting, a part of it, or all around it."""
    name = word.partition("=")[0]
    return name == setting or name.startswith(f"{setting}.") or setting.startswith(f"{name}.")


def variable(name: str, *default: str | None) -> str | None:
    """What `${oc.env:NAME,DEFAULT}` is.

    Raises:
        StudyError: it is not to be read, or is not there and has no default.
    """
    if name not in PLACES and not name.startswith(OURS):
        raise StudyError(
            f"${{oc.env:{name}}}: a config reads no such variable, whose value would be in every table: expected "
            f"{listed(PLACES)}, or a name that begins with {OURS}"
        )
    if name not in os.environ and not default:
        raise StudyError(f"${{oc.env:{name}}}: there is no such variable: set it, or give a default after a comma")
    found = os.environ.get(name, *default)
    return None if found in (None, "null") else str(found)


def begin() -> None:
    """Have all that Hydra composes in this process held to this."""
    OmegaConf.register_new_resolver("oc.env", variable, replace=True)
    load = ConfigLoaderImpl.load_configuration
    if hasattr(load, "__wrapped__"):
        return

    @functools.wraps(load)
    def loaded(*arguments, **settings):
        composed = load(*arguments, **settings)
        refuse_reach(composed)
        return composed

    ConfigLoaderImpl.load_configuration = loaded  # type: ignore[method-assign]


begin()
