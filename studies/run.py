"""The entry: compose a study, train what is not finished yet, record it, print the comparison.

python -m studies.run +study=init_comparison
"""

import functools
import os
import re
import sys
from pathlib import Path

import hydra
from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from studies import data, design, driver, limits, store, targets
from studies.record import StudyError, listed

CONF = Path(__file__).parent.parent / "conf"
SELF_REFERENCE = re.compile(r"\$\{(?!oc\.env:)")
NOT_OF_A_TRIAL = ("plan=", "executor", "tracking", "study.seeds=", "seed=", "hydra.")


def main() -> int:
    """Run the command line; gives the exit code: 1 if a trial crashed, 2 for what the user can put right."""
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, and we say what is wrong in one paragraph
    codes, executors = [], {}

    def answered(function, *arguments) -> int:
        try:
            return function(*arguments) or 0
        except Exception as error:
            if wants_traceback or not _is_users(error):
                raise
            print(f"error: {explained(error)}", file=sys.stderr)
            return 2

    # Within Hydra as well: it prints a line of its own about an error that passes through it.
    composed = hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")

    def next_job(config) -> None:
        if driver.INTERRUPTED not in codes:
            codes.append(answered(job, config, executors))

    try:
        code = answered(composed(next_job))
    finally:
        for executor in executors.values():
            executor.close()
    return max(code, *codes, 0)


def job(composed, executors: dict) -> int:
    """One composed config: a study, or a study of one trial.

    Args:
        executors: those of the jobs before, by their configs: the jobs of a multirun share their workers.
    """
    config = _resolved(composed)
    hydra_config = HydraConfig.get()
    overrides = [o for o in hydra_config.overrides.task if not o.startswith(NOT_OF_A_TRIAL)]
    overridden = {override.lstrip("+~").partition("=")[0] for override in overrides}
    choices = hydra_config.runtime.choices
    config |= limits.settled({name: config[name] for name in ("seed", "plan") if name in config})
    study = design.read_study(config, overridden)
    compose = composer(config, overrides, choices)
    expand = functools.partial(
        design.expand, study, config, choices, overrides, compose, _settle, _refers_to_itself(composed)
    )
    trials = expand()
    seconds = driver.expected_seconds(trials)
    wanted = design.content_key(config["executor"])
    if wanted not in executors:
        executors[wanted] = targets.build(config["executor"], "executor", config["targets"]["allow"])
    executor = executors[wanted]

    root = config["tracking"]["root"]
    if config["plan"]:
        driver.plan(study, trials, seconds, executor.workers)
        return 0
    store.check_writable(root)
    try:
        with FileLock(Path(root) / f".{study.name}.lock", timeout=0):
            text = OmegaConf.to_yaml(composed)
            return driver.Driver(study, executor, root, text, Console()).drive(trials, seconds, expand)
    except Timeout:
        raise StudyError(
            f"another process runs {study.name} in {root}: wait for it, or name another store with tracking.root=FOLDER"
        ) from None


def _settle(config: dict) -> dict:
    """A trial's config checked, its values in their types, its data identified by content."""
    config = limits.settled(config)
    targets.refuse_unlisted(config, config["targets"]["allow"])
    return config | {"data": config["data"] | {"content": data.content(config["data"])}}


def composer(base: dict, overrides: list[str], choices: dict[str, str]) -> design.Compose:
    """What composes further configs: Hydra, in 100 ms; or the option's file, where nothing else has a say in its group.

    Args:
        base: what `overrides` compose to.
        choices: the option that each group has in it.
    """
    named = {override.lstrip("+~").partition("=")[0].partition(".")[0] for override in overrides}
    study = _body("study", choices.get("study")) or {}

    def plain(group: str, option: str) -> dict | None:
        body = _body(group, option)
        alone = group not in named and group not in study and base.get(group) == _body(group, choices.get(group))
        return body if alone and body is not None and not {"defaults", "hydra"} & (body or {}).keys() else None

    def compose(wanted: list[str]) -> dict:
        *others, last = wanted or [""]
        group, _, option = last.partition("=")
        if others == overrides and (body := plain(group, option)) is not None:
            return base | {group: body}
        return _resolved(hydra.compose(config_name="config", overrides=wanted))

    return compose


def _body(group: str, option: str | None) -> dict | None:
    """An option's own file and what config.yaml gives every option, resolved; None if it speaks of other groups too."""
    path = CONF / group / f"{option}.yaml"
    if not path.is_file():
        return None
    text = path.read_text()
    if group == "study":
        return OmegaConf.to_container(OmegaConf.load(path))
    if "@package" in text or SELF_REFERENCE.search(text):
        return None
    return OmegaConf.to_container(OmegaConf.merge(OmegaConf.load(path), _defaults().get(group, {})), resolve=True)


@functools.cache
def _defaults():
    """config.yaml as it is written."""
    return OmegaConf.load(CONF / "config.yaml")


def _resolved(composed) -> dict:
    return OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)


def _refers_to_itself(composed) -> bool:
    """Whether a value is taken from another by interpolation, so that a level may change more than its own key."""
    return bool(SELF_REFERENCE.search(OmegaConf.to_yaml(composed, resolve=False)))


def _is_users(error: Exception) -> bool:
    hydras = isinstance(error, HydraException | OmegaConfBaseException) or "Config group override" in str(error)
    return isinstance(error, StudyError) or hydras


def explained(error: Exception) -> str:
    """An error of Hydra, OmegaConf or ours as one paragraph: what was received, what is allowed, what to do."""
    text = " ".join(str(error).split())
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override}: cannot be read ({str(error).splitlines()[0]}): expected NAME=VALUE, and quotes around "
            f"what holds spaces, commas or brackets, such as 'model.filters=[16, 32]'"
        )
    if match := re.search(r"Ambiguous value for argument '([^=]*)=(.*?)' 1\.", text):
        name, values = match.groups()
        return (
            f"{name}={values}: several values for one setting. A list is written '{name}=[{values}]', a factor "
            f"'+study.factors={{{name}: [{values}]}}', and several studies, one after the other, start with -m"
        )
    if match := re.search(r"Sweep parameters '(.*)' requires --multirun", text):
        return f"{match[1]}: several values for one setting; to run them one after the other, start with -m"
    if match := re.search(r"Could not (?:find|load) '(\w+)/([^'/]*)'", text):
        return _unknown_option(*match.groups())
    if "Config group override" in text:  # such as regularizer=null
        named = (argument.lstrip("+").partition("=") for argument in sys.argv[1:])
        return next(_unknown_option(g, option) for g, _, option in named if g in groups() and option not in options(g))
    if match := re.search(r"^(\w+) appears more than once", text):
        return f"+{match[1]}: there is an option of it already; choose another without a plus, {match[1]}=NAME"
    if "Could not override 'study'" in text:
        return f"a study is named with a plus: +study=NAME, where NAME is one of {listed(options('study'))}"
    if match := re.search(r"Could not override '(study\.(?:factors|nuisance|baseline))'.*use (\+.*)", text):
        return f"{match[1]} is added to with a plus, and quotes: '{match[2]}'"
    if match := re.search(r"Could not override '([^']*)'", text):
        return _unknown_key(match[1])
    if match := re.match(r"(.*?) full_key: (\S+)", text):
        return f"{match[2]}: {match[1]}"
    return text.partition(" Config search path:")[0]


def groups() -> list[str]:
    """The config groups."""
    return sorted(folder.name for folder in CONF.iterdir() if folder.is_dir())


def options(group: str) -> list[str]:
    """The options of a config group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def _unknown_option(group: str, option: str) -> str:
    return f"{group}={option}: there is no such option; {group} has {listed(options(group))}"


def _unknown_key(path: str) -> str:
    group, _, name = path.partition(".")
    config = _defaults()
    settings = [key for key in config if key not in ("defaults", "hydra", *groups())] + ["study"]
    if name and group in settings and OmegaConf.is_dict(config[group]):
        return f"{path}: there is no such setting; {group} has {listed(config[group])}"
    if name and group in groups():
        takes = {option: OmegaConf.load(CONF / group / f"{option}.yaml") for option in options(group)}
        known = "; ".join(
            f"{option}: {listed(key for key in node if key != '_target_') or 'nothing'}"
            for option, node in takes.items()
        )
        if group in config:
            known += f"; all of them: {listed(config[group])}"
        return (
            f"{path}: the chosen {group} has no such setting. Options and what they take: {known}. Another argument of "
            f"what its _target_ names is given with a plus: +{path}=VALUE"
        )
    return (
        f"{path}: there is no such setting; there are the groups {listed(groups())} and the settings {listed(settings)}"
    )


if __name__ == "__main__":
    sys.exit(main())
