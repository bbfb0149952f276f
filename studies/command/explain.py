"""What is wrong with a command, in one paragraph: what was received, what is allowed, what to do."""

import codecs
import re
import sys
import traceback

import yaml
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from studies.command import compose, sweep
from studies.factors import limits
from studies.masking import masked
from studies.record import StudyError, listed, meant


def refused(error: Exception, wants_traceback: bool) -> int:
    """The exit code for what the user can put right, which is said in one paragraph; else the error goes on."""
    words = "" if wants_traceback else paragraph(error)
    if not words:
        raise error
    sys.stderr.write(f"error: {words}\n")  # at once: jobs in other processes print too
    return 2


def paragraph(error: Exception) -> str:
    """What the user can put right, in one paragraph; empty for another error."""
    unread = _unread(error)
    return masked(" ".join((unread or explained(error)).split())) if unread or _is_users(error) else ""


def _unread(error: Exception) -> str:
    """What is wrong with the text of a config file, if Hydra fell over one."""
    if said := _is_no_yaml(error):
        return said
    words = {word.lstrip("+") for word in sweep.words()}
    named = {
        path: path.relative_to(folder).with_suffix("").as_posix().replace("/", "=", 1) in words
        for folder in compose.places()
        for path in folder.rglob("*.yaml")
    }
    for path in sorted(named, key=lambda path: named[path], reverse=True):
        if named[path] and path.read_bytes().startswith(codecs.BOM_UTF8):
            return f"{path} begins with a byte-order mark, which hides its first line: save it as UTF-8 without one"
        if isinstance(error, UnicodeDecodeError):
            try:
                path.read_text(encoding="utf-8")
            except UnicodeDecodeError as reason:
                return f"{path} is not text in UTF-8 ({reason}): save it as that"
    return ""


def _is_no_yaml(error: BaseException) -> str:
    """Where a file is no YAML, and why."""
    if not isinstance(error, yaml.MarkedYAMLError) or not (mark := error.problem_mark):
        return ""
    began = f", {error.context} in line {error.context_mark.line + 1}" if error.context and error.context_mark else ""
    remedy = ": indent with spaces, not with tabs" * ("'\\t'" in str(error.problem))
    return f"{mark.name}, line {mark.line + 1}: is not YAML: {error.problem}{began}{remedy}"


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
        default = OmegaConf.select(compose.defaults(), match[1])
        return f"{match[1]}={match[2]}: expected a value of the same kind as the default, {match[1]}={default}"
    if match := re.search(r"Sweep parameters '(.*)' requires --multirun", text):
        return f"{match[1]}: several values for one setting; to run them one after the other, start with -m"
    if said := compose.unheaded(_study_named()):
        return said
    if match := re.search(r"Could not (?:find|load) '(\w+)/([^']*)'", text):
        return _unknown_option(*match.groups())
    if match := re.search(r"In '([^']*)': .*Cannot merge DictConfig with ListConfig", text):
        return f"conf/{match[1]}.yaml has a list: expected settings, NAME: VALUE, a line each"
    if "Config group override" in text:  # such as regularizer=null
        named = (argument.lstrip("+").partition("=") for argument in sweep.words())
        for group, _, option in named:
            if group in compose.groups() and option not in compose.options(group):
                return _unknown_option(group, option)
    if match := re.search(r"^(\w+) appears more than once", text):
        return f"+{match[1]}: there is an option of it already; choose another without a plus, {match[1]}=NAME"
    if "Could not override 'study'" in text:
        return f"a study is named with a plus: +study=NAME, where NAME is one of {listed(compose.options('study'))}"
    if match := re.search(r"Could not override '(study\.(?:factors|nuisance|baseline))'.*use (\+.*)", text):
        return f"{match[1]} is added to with a plus, and quotes: '{match[2]}'"
    if match := re.search(r"Could not override '([^']*)'", text):
        return _unknown_key(match[1])
    if match := re.match(r"(.*?) full_key: (\S+)", text):
        return f"{match[2]}: {match[1]}"
    if not isinstance(error, StudyError | HydraException | OmegaConfBaseException):
        words = " ".join(sweep.words())
        return (
            f"{words}: cannot be read ({type(error).__name__}: {text or 'no reason given'}): expected words NAME=VALUE"
        )
    return text.partition(" Config search path:")[0]


def _study_named() -> str:
    """The study that the command names."""
    words = (word.lstrip("+") for word in sweep.words())
    return next((word.removeprefix("study=") for word in words if word.startswith("study=")), "")


def _unknown_option(group: str, option: str) -> str:
    known = compose.options(group)
    inner, _, name = option.partition("/")
    if inner in compose.groups():  # Hydra takes it for a path beside the file that names it
        return (
            f"conf/{group}/{_study_named() or 'NAME'}.yaml names {inner}: {name} among its defaults: expected "
            f"`- override /{inner}: {name}`"
        )
    if any((folder / group / f"{option}.yml").is_file() for folder in compose.places()):
        return f"{group}={option}: its file ends in .yml: rename it {option}.yaml"
    known.sort(key=lambda name: "/" in name)
    return f"{group}={option}: there is no such option; {meant(option, known)}{group} has {listed(known)}"


def _unknown_key(path: str) -> str:
    group, _, name = path.partition(".")
    config = compose.defaults()
    settings = [key for key in config if key not in ("defaults", "hydra", *compose.groups())] + ["study"]
    if name and group in settings and OmegaConf.is_dict(config[group]):
        return f"{path}: there is no such setting; {meant(name, config[group])}{group} has {listed(config[group])}"
    if name and group in compose.groups():
        takes = {o: OmegaConf.load(file) for o in compose.options(group) if (file := compose.file_of(group, o))}
        known = "; ".join(
            f"{option}: {listed(key for key in node if key != '_target_') or 'nothing'}"
            for option, node in takes.items()
        )
        if group in config:
            known += f"; all of them: {listed(config[group])}"
        near = meant(name, ({key for node in takes.values() for key in node} | set(config.get(group, ()))) - {name})
        return (
            f"{path}: the chosen {group} has no such setting; {near}options and what they take: {known}. Another "
            f"argument of what its _target_ names is given with a plus: +{path}=VALUE"
        )
    ends = [setting for setting in limits.LIMITS if setting.rpartition(".")[2] == path]
    near = meant(path, [*compose.groups(), *settings, *limits.LIMITS]) if not ends else f"did you mean {ends[0]}? "
    known = f"the groups {listed(compose.groups())} and the settings {listed(settings)}"
    return f"{path}: there is no such setting; {near}there are {known}"
