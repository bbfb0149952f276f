"""The entry: compose a study, train what is not finished yet, record it, print the comparison.

python -m studies.run +study=init_comparison
"""

import functools
import math
import os
import re
import sys
import traceback
from dataclasses import asdict, replace
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from studies import contract, data, design, driver, limits, store, sweep, targets
from studies.record import StudyError, listed

CONF = Path(__file__).parent.parent / "conf"
SELF_REFERENCE = re.compile(r"\$\{(?!oc\.env:)")
EXECUTORS: dict = {}
"""Those of this process's jobs, by their configs: jobs share workers."""

NOT_OF_A_TRIAL = ("plan=", "executor", "tracking", "study.seeds=", "seed=", "hydra.")


def main() -> int:
    """Run the command line; gives the exit code: 1 if a trial crashed, 2 for what the user can put right."""
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, and we say what is wrong in one paragraph
    code = 1
    with sweep.begun(sys.argv[1:], wants_traceback) as jobs:
        try:
            hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(task)()
            code = 0
        except KeyboardInterrupt:
            code = driver.INTERRUPTED
        except Exception as error:
            code = _refused(error, wants_traceback)
        finally:
            for executor in EXECUTORS.values():
                executor.close()
            EXECUTORS.clear()
            outcomes = jobs.outcomes()
            code = max([code, *(outcome.code for outcome in outcomes)])
            _end_sweep(jobs, outcomes, code)
    return code


def task(composed) -> float:
    """What Hydra calls for each job, in this process or in another.

    Returns:
        the mean of the study's metric over its trials, for sweepers to optimize; NaN if it has none.
    """
    jobs, hydra_config = sweep.current(), HydraConfig.get()
    if any(outcome.code == driver.INTERRUPTED for outcome in jobs.outcomes()):
        return math.nan
    swept = hydra_config.mode == RunMode.MULTIRUN
    # As they were written: an interpolation in one is for the config that it composes.
    overrides = OmegaConf.to_container(hydra_config.overrides.task, resolve=False)
    outcome = sweep.Outcome(overrides, swept)
    try:
        outcome = job(composed, outcome, jobs if swept else None)
    except Exception as error:  # here, since Hydra prints a line of its own about one that passes through it
        outcome = replace(outcome, code=_refused(error, jobs.wants_traceback))
    jobs.tell(hydra_config.job.num if swept else 0, outcome)
    return outcome.mean


def _refused(error: Exception, wants_traceback: bool) -> int:
    """The exit code for what the user can put right, which is said in one paragraph; else the error goes on."""
    if wants_traceback or not _is_users(error):
        raise error
    print("error:", *explained(error).split(), file=sys.stderr)
    return 2


def _end_sweep(jobs: sweep.Sweep, outcomes: list[sweep.Outcome], code: int) -> None:
    """Print how the jobs of a multirun compare, and end their runs in the stores."""
    if not any(outcome.swept and outcome.seeds for outcome in outcomes):
        return
    from analysis import tables
    from studies import tracking

    rows = [
        dict(override.lstrip("+").partition("=")[::2] for override in outcome.overrides) | asdict(outcome)
        for outcome in outcomes
    ]
    if len(rows) > 1:
        print(f"\n{tables.sweep_table(rows)}\n")
    status = {0: "FINISHED", driver.INTERRUPTED: "KILLED"}.get(code, "FAILED")
    for root, study in dict.fromkeys((o.root, o.study) for o in outcomes if o.study):
        tracking.end_sweep(root, study, jobs.id, status, tables.sweep_table(rows, format="markdown"))


def job(composed, outcome: sweep.Outcome, jobs: sweep.Sweep | None) -> sweep.Outcome:
    """One composed config: a study, or a study of one trial.

    Args:
        outcome: what is known before it has run.
        jobs: those of the multirun that it belongs to; those in one process share their workers.
    """
    config = _resolved(composed)
    overrides = [o for o in outcome.overrides if not o.startswith(NOT_OF_A_TRIAL)]
    overridden = {override.lstrip("+~").partition("=")[0] for override in overrides}
    choices = HydraConfig.get().runtime.choices
    config |= limits.settled({name: config[name] for name in ("seed", "plan") if name in config})
    study = design.read_study(config, overridden)
    compose = composer(config, overrides, choices)
    expand = functools.partial(
        design.expand, study, config, choices, overrides, compose, _settle, _refers_to_itself(composed)
    )
    trials = expand()
    seconds = driver.expected_seconds(trials)
    driver.say_notes(trials)
    wanted = design.content_key(config["executor"])
    if wanted not in EXECUTORS:
        EXECUTORS[wanted] = targets.build(config["executor"], "executor", config["targets"]["allow"])
    executor = EXECUTORS[wanted]

    root = _root(config["tracking"]["root"])
    if config["plan"]:
        driver.plan(study, trials, seconds, executor.workers)
        return outcome
    store.check_writable(root)
    with store.claimed(root, study.name, jobs.id if jobs else ""):
        drive = driver.Driver(study, executor, root, OmegaConf.to_yaml(composed), Console(), jobs)
        code, summary = drive.drive(trials, seconds, expand)
    return replace(outcome, code=code, study=study.name, root=str(root), metric=study.metric, **summary)


def _root(named: str) -> Path:
    try:
        return contract.folder(named)
    except StudyError as error:
        raise StudyError(f"tracking.root={error}") from error


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
    return isinstance(error, StudyError | HydraException | OmegaConfBaseException) or _is_of_composing(error)


def _is_of_composing(error: Exception) -> bool:
    """Whether Hydra fell over the command: it meets some words with a failed assertion or a KeyError of its own."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals.get("__name__", "").partition(".")[0] in ("hydra", "omegaconf", "antlr4")


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
    if match := re.search(r"Error merging override [+~]*([^=]*)=(.*)", text):
        default = OmegaConf.select(_defaults(), match[1])
        return f"{match[1]}={match[2]}: expected a value of the same kind as the default, {match[1]}={default}"
    if match := re.search(r"Sweep parameters '(.*)' requires --multirun", text):
        return f"{match[1]}: several values for one setting; to run them one after the other, start with -m"
    if match := re.search(r"Could not (?:find|load) '(\w+)/([^'/]*)'", text):
        return _unknown_option(*match.groups())
    if "Config group override" in text:  # such as regularizer=null
        named = (argument.lstrip("+").partition("=") for argument in sys.argv[1:])
        for group, _, option in named:
            if group in groups() and option not in options(group):
                return _unknown_option(group, option)
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
    if not isinstance(error, StudyError | HydraException | OmegaConfBaseException):
        words = " ".join(sys.argv[1:])
        return (
            f"{words}: cannot be read ({type(error).__name__}: {text or 'no reason given'}): expected words NAME=VALUE"
        )
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
    from studies import run  # under its name, by which launchers send `task` to other processes

    sys.exit(run.main())
