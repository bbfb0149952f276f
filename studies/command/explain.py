"""What is wrong with a command, in one paragraph: what was received, what is allowed, what to do."""

import codecs
import difflib
import re
import sys
import traceback

import yaml
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from studies.command import compose
from studies.record import StudyError, listed


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
    return " ".join((unread or explained(error)).split()) if unread or _is_users(error) else ""


def _unread(error: Exception) -> str:
    """What is wrong with the text of a config file, if Hydra fell over one."""
    words = {word.lstrip("+") for word in sys.argv[1:]}
    named = {
        path: path.relative_to(compose.CONF).with_suffix("").as_posix().replace("/", "=", 1) in words
        for path in compose.CONF.rglob("*.yaml")
    }
    for path in sorted(named, key=lambda path: named[path], reverse=True):
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
    if match := re.search(r"Could not (?:find|load) '(\w+)/([^']*)'", text):
        return _unknown_option(*match.groups())
    if "Config group override" in text:  # such as regularizer=null
        named = (argument.lstrip("+").partition("=") for argument in sys.argv[1:])
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
        words = " ".join(sys.argv[1:])
        return (
            f"{words}: cannot be read ({type(error).__name__}: {text or 'no reason given'}): expected words NAME=VALUE"
        )
    return text.partition(" Config search path:")[0]


def _unknown_option(group: str, option: str) -> str:
    known = compose.options(group)
    near = difflib.get_close_matches(option, known, 1)
    meant = f" (perhaps {near[0]})" if near else ""
    return f"{group}={option}: there is no such option{meant}; {group} has {listed(known)}"


def _unknown_key(path: str) -> str:
    group, _, name = path.partition(".")
    config = compose.defaults()
    settings = [key for key in config if key not in ("defaults", "hydra", *compose.groups())] + ["study"]
    if name and group in settings and OmegaConf.is_dict(config[group]):
        return f"{path}: there is no such setting; {group} has {listed(config[group])}"
    if name and group in compose.groups():
        takes = {option: OmegaConf.load(compose.CONF / group / f"{option}.yaml") for option in compose.options(group)}
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
    known = f"the groups {listed(compose.groups())} and the settings {listed(settings)}"
    return f"{path}: there is no such setting; there are {known}"
