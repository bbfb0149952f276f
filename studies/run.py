"""The entry: compose a study, train what is not finished yet, record it, print the comparison.

python -m studies.run +study=init_comparison
"""

import codecs
import functools
import math
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from studies import contract, driver, provenance, sweep, terminal
from studies.design import grid
from studies.design.study import read_study
from studies.factors import data, limits, targets
from studies.record import IDENTITY, StudyError, content_key, listed, shown
from studies.store import database

CONF = Path(__file__).parent.parent / "conf"
SELF_REFERENCE = re.compile(r"\$\{(?!oc\.env:)")
SIGNALLED = 128
"""Exit codes above it are a signal's: 130 Ctrl-C's."""

EXECUTORS: dict = {}
"""Those of this process's jobs, by their configs: jobs share workers."""

MAPPINGS = ("study.factors", "study.nuisance", "study.baseline")
"""Settings of a study that a mapping in the command is merged into."""

NOT_OF_A_TRIAL = ("plan=", "executor", "tracking", "study.seeds=", "seed=", "hydra.")


def main() -> int:
    """Run the command line; gives the exit code: 1 if a trial crashed, 2 for what the user can put right."""
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, and we say what is wrong in one paragraph
    with terminal.interruptible():
        try:
            return _command(wants_traceback)
        except KeyboardInterrupt:
            terminal.say("interrupted: what had ended is kept; the same command goes on from there")
            return terminal.code()
        except BrokenPipeError:
            return _unheard()


def _unheard() -> int:
    """The exit code where the reader, such as head, has seen enough; what is still to be printed goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return SIGNALLED + signal.SIGPIPE


def _command(wants_traceback: bool) -> int:
    """All jobs of the command line; gives the highest of their exit codes."""
    code = 1
    with sweep.begun(sys.argv[1:], wants_traceback) as jobs:
        try:
            hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(task)()
            sys.stdout.flush()
            code = 0
        except KeyboardInterrupt:
            code = terminal.code()
            raise
        except Exception as error:
            if terminal.received():  # which it was made of
                raise KeyboardInterrupt from None
            code = _refused(error, wants_traceback)
        finally:
            terminal.settle()
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
        what sweepers optimize: the mean of the study's metric over its trials, of validation data in place of test
        data; NaN if it has none.
    """
    jobs, hydra_config = sweep.current(), HydraConfig.get()
    if any(outcome.code > SIGNALLED for outcome in jobs.outcomes()):
        return math.nan
    swept = hydra_config.mode == RunMode.MULTIRUN
    # As they were written: an interpolation in one is for the config that it composes.
    overrides = OmegaConf.to_container(hydra_config.overrides.task, resolve=False)
    outcome = sweep.Outcome(overrides, swept)
    try:
        outcome = job(composed, outcome, jobs if swept else None)
    except BrokenPipeError:
        outcome = replace(outcome, code=_unheard())
    except Exception as error:  # here, since Hydra prints a line of its own about one that passes through it
        if terminal.received():  # which it was made of
            raise KeyboardInterrupt from None
        outcome = replace(outcome, code=_refused(error, jobs.wants_traceback))
    jobs.tell(hydra_config.job.num if swept else 0, outcome)
    return outcome.objective


def _refused(error: Exception, wants_traceback: bool) -> int:
    """The exit code for what the user can put right, which is said in one paragraph; else the error goes on."""
    unread = _unread(error)
    if wants_traceback or not (unread or _is_users(error)):
        raise error
    print("error:", *(unread or explained(error)).split(), file=sys.stderr)
    return 2


def _unread(error: Exception) -> str:
    """What is wrong with the text of a config file, if Hydra fell over one."""
    words = {word.lstrip("+") for word in sys.argv[1:]}
    named = {path: f"{path.parent.name}={path.stem}" in words for path in CONF.rglob("*.yaml")}
    for path in sorted(named, key=named.get, reverse=True):
        if named[path] and path.read_bytes().startswith(codecs.BOM_UTF8):
            return f"{path} begins with a byte-order mark, which hides its first line: save it as UTF-8 without one"
        if isinstance(error, UnicodeDecodeError | yaml.YAMLError):
            try:
                yaml.compose(path.read_text(encoding="utf-8"))
            except UnicodeDecodeError as reason:
                return f"{path} is not text in UTF-8 ({reason}): save it as that"
            except yaml.YAMLError as reason:
                return f"{path} is not YAML: {reason}"
    return ""


def _end_sweep(jobs: sweep.Sweep, outcomes: list[sweep.Outcome], code: int) -> None:
    """Print how the jobs of a multirun compare, and end their runs in the stores."""
    if not any(outcome.swept and outcome.seeds for outcome in outcomes):
        return
    from analysis import tables
    from studies.store import writer

    rows = [
        dict(override.lstrip("+").partition("=")[::2] for override in outcome.overrides) | asdict(outcome)
        for outcome in outcomes
    ]
    if len(rows) > 1:
        print(f"\n{tables.sweep_table(rows)}\n")
    for same in _alike(outcomes):
        print(f"note: the jobs {same} have the same trials, which read nothing of what sets those jobs apart")
    status = "KILLED" if code > SIGNALLED else "FAILED" if code else "FINISHED"
    for root, study in dict.fromkeys((o.root, o.study) for o in outcomes if o.study):
        writer.end_sweep(root, study, jobs.id, status, tables.sweep_table(rows, format="markdown"))


def _alike(outcomes: list[sweep.Outcome]) -> list[str]:
    """The numbers of jobs that come to the same trials, a text for each such group."""
    groups: dict[str, list[int]] = {}
    for number, outcome in enumerate(outcomes):
        if outcome.trials:
            groups.setdefault(outcome.trials, []).append(number)
    return [listed(numbers) for numbers in groups.values() if len(numbers) > 1]


def job(composed, outcome: sweep.Outcome, jobs: sweep.Sweep | None) -> sweep.Outcome:
    """One composed config: a study, or a study of one trial.

    Args:
        outcome: what is known before it has run.
        jobs: those of the multirun that it belongs to; those in one process share their workers.
    """
    config = _resolved(composed)
    overrides = [o for o in outcome.overrides if not o.startswith(NOT_OF_A_TRIAL)]
    overridden = {override.lstrip("+~").partition("=")[0] for override in outcome.overrides}
    remarks = _merged(outcome.overrides, config)
    choices = HydraConfig.get().runtime.choices
    if (named := choices.get("study")) and _body("study", named) == {}:
        raise StudyError(
            f"+study={named}: its file is empty: expected a study, such as {CONF}/study/init_comparison.yaml"
        )
    config |= limits.settled({name: config[name] for name in ("seed", "plan") if name in config})
    study = read_study(config, overridden, remarks.append)
    compose = composer(config, overrides, choices)
    expand = functools.partial(
        grid.expand, study, config, choices, overrides, compose, _settle, _refers_to_itself(composed)
    )
    trials = expand()
    remarks += grid.remarks(study, trials)
    if (workers := config["executor"].get("workers") or 0) > len(trials):
        remarks.append(f"executor.workers={workers}: {len(trials)} are started, one a trial")
    for remark in remarks:
        print(f"note: {remark}", flush=True)
    outcome = replace(outcome, trials=content_key([trial.key for trial in trials]))
    driver.check_sizes(trials)
    driver.say_notes(trials)
    wanted = content_key(config["executor"])
    if wanted not in EXECUTORS:
        EXECUTORS[wanted] = targets.build(config["executor"], "executor", config["targets"]["allow"])
    executor = EXECUTORS[wanted]

    root = _root(config["tracking"]["root"])
    if config["plan"]:
        driver.plan(study, trials, executor)
        return outcome
    database.check_writable(root)
    with terminal.held():  # the driver's own imports take as long as a worker's
        executor.start(driver.TRIAL, 1, trials[0].config["engine"]["threads"])
    with database.claimed(root, study.name, jobs.id if jobs else ""):
        drive = driver.Driver(study, executor, root, OmegaConf.to_yaml(composed), _Console(), jobs)
        code, summary = drive.drive(trials, expand)
    return replace(outcome, code=code, study=study.name, root=str(root), metric=study.metric, **summary)


def _root(named: str) -> Path:
    try:
        return contract.folder(named)
    except StudyError as error:
        raise StudyError(f"tracking.root={error}") from error


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Rich would end the process here."""
        raise BrokenPipeError


def _merged(overrides: list[str], config: dict) -> list[str]:
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
        kept = [name for name in _at(config, path) or () if f"{path}.{name}" not in given]
        if kept and any(name.startswith(f"{path}.") for name in given):
            remarks.append(f"{path} keeps {listed(kept)} of the study besides; {path}=null before it leaves all out")
    if given.get("seed") is not None and given.get("study.seeds") is not None:
        raise StudyError(f"seed={given['seed']} and study.seeds={shown(given['study.seeds'])}: expected one of them")
    return remarks


def _at(config: dict, path: str):
    """What a config has at a path, None if there is no such place."""
    for name in path.split("."):
        config = config.get(name) if isinstance(config, dict) else None
    return config


def _leaves(path: str, value) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(f"{path}.{name}", inner)
    else:
        yield path, value


def _settle(config: dict) -> tuple[dict, dict, dict]:
    """A trial's config checked, its values in their types, all that it names identified; its identity; its graph."""
    config = limits.settled(config)
    allow = config["targets"]["allow"]
    targets.refuse_unlisted(config, allow)
    config = targets.canonical(config)
    sources = {name: provenance.source(name) for name in targets.users({p: config[p] for p in IDENTITY}, allow)}
    config |= {
        "data": config["data"] | {"content": data.content(config["data"])},
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
    text = path.read_text(encoding="utf-8")
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
