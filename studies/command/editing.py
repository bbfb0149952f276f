"""What helps one write: completion of commands in a shell, and a JSON schema of studies for editors.

Both are made from the tables that check a command, so that they know what it knows.
"""

import argparse
import contextlib
import importlib
import io
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studies import terminal
from studies.command import compose
from studies.design import claim
from studies.design.study import PARTS, STUDY
from studies.factors import limits
from studies.record import FIGURES, METRICS, SEED_STREAMS, StudyError

SHELLS = ("bash", "zsh", "fish")

SOURCED = {
    "bash": 'eval "$({command} completion bash)"        in ~/.bashrc',
    "zsh": 'eval "$({command} completion zsh)"         in ~/.zshrc, after compinit',
    "fish": "{command} completion fish | source         in ~/.config/fish/config.fish",
}
"""How a shell is told, each time it starts."""

TRAINING = ("run", "plan")
"""The commands that take settings."""

OF_STUDIES = ("compare", "report", "export", "power", "foretell", "footprint", "figures", "confusion", "list", "replay")
"""Those that take the names of studies."""

HYDRAS = ("--help", "--plan", "--force", "--format", "--multirun", "--config-dir", "--cfg", "--info")

FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")

Commands = Mapping[str, tuple[str, str]]
"""A command's module and what it is for, by its name."""


def main(name: str, words: list[str], commands: Commands) -> int:
    """Print the schema, or a shell's completion; gives the exit code, 2 for what the user can put right."""
    called = terminal.SCRIPT if terminal.is_installed_command() else "python -m studies"
    if name == "schema":
        about = "A JSON schema of studies, for editors: those that ship and ./conf, whose options it knows."
    else:
        lines = [f"{shell:<5} {how.format(command=called)}" for shell, how in SOURCED.items()]
        about = "\n".join(["Completion for a shell; a line has it at each start:", "", *lines])
    parser = argparse.ArgumentParser(
        prog=f"{called} {name}", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if name == "schema":
        parser.add_argument("--to", type=Path, metavar="FILE", help="write it there instead")
    else:
        parser.add_argument("shell", choices=SHELLS)
    options = parser.parse_args(words)
    try:
        _say(json.dumps(schema()) if name == "schema" else completion(options.shell, commands), options)
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return terminal.unread()
    return 0


def _say(text: str, options: argparse.Namespace) -> None:
    to = getattr(options, "to", None)
    if to is None:
        print(text, flush=True)
        return
    try:
        to.write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise StudyError(f"--to {to}: {error.strerror}: name a file in a folder that there is") from error
    print(to)


def completion(shell: str, commands: Commands) -> str:
    """What a shell sources to complete `weight-studies`: its commands, their flags, settings, options and studies.

    Options and studies in `conf` of the folder one is in are looked for when a key is pressed.
    """
    cases = {name: _candidates(name, module) for name, (module, _) in commands.items()}
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](cases, commands)


def _candidates(name: str, module: str) -> list[str]:
    """The words that may follow a command."""
    if name in TRAINING:
        return [*HYDRAS, *_settings()]
    studies = compose.options("study")
    if name == "completion":
        return ["--help", *SHELLS]
    if name == "schema":
        return ["--help", "--to"]
    names = [study.rpartition("/")[2] for study in studies] if name in OF_STUDIES else []
    return [*_flags(module), *names]


def _settings() -> list[str]:
    """`group=option`, `group.setting=` and `+study=NAME`, all there are."""
    groups = [group for group in compose.groups() if group != "study"]
    words = [f"{group}={option}" for group in groups for option in compose.options(group)]
    words += [f"+study={option}" for option in compose.options("study")]
    return words + [f"{path}=" for path in limits.RULES] + [f"study.{name}=" for name in STUDY]


def _flags(module: str) -> list[str]:
    """A command's flags, as its help has them."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        importlib.import_module(module).main(["--help"])
    return list(dict.fromkeys(["--help", *FLAG.findall(printed.getvalue())]))


BASH = """\
_weight_studies_own() {{
    local file name
    for file in conf/*/*.yaml conf/study/*/*.yaml; do
        [ -e "$file" ] || continue
        name=${{file#conf/}}; name=${{name%.yaml}}; name=${{name/\\//=}}
        case $name in study=*) echo "+$name" ;; *) echo "$name" ;; esac
    done
}}

_weight_studies() {{
    local line=${{COMP_LINE:0:COMP_POINT}} words
    local current=${{line##*[[:space:]]}}
    case "${{COMP_WORDS[1]}}" in
{cases}
        *) words="{commands}" ;;
    esac
    [ "$COMP_CWORD" -eq 1 ] && words="{commands}"
    case "${{COMP_WORDS[1]}}" in run|plan) [ "$COMP_CWORD" -gt 1 ] && words="$words $(_weight_studies_own)" ;; esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
    case "${{COMPREPLY[0]}}" in *=) [ "${{#COMPREPLY[@]}}" -eq 1 ] && compopt -o nospace 2>/dev/null ;; esac
    case "$current" in *=*) COMPREPLY=("${{COMPREPLY[@]#"${{current%"${{current##*=}}"}}"}}") ;; esac
}}

complete -o default -F _weight_studies weight-studies
"""
"""Readline breaks words at `=`, and puts what is after it alone."""

ZSH = """\
_weight_studies() {{
    local -a candidates own
    local file name
    if (( CURRENT == 2 )); then
        candidates=({commands})
    else
        case $words[2] in
{cases}
        esac
        if [[ $words[2] == (run|plan) ]]; then
            for file in conf/*/*.yaml(N) conf/study/*/*.yaml(N); do
                name=${{${{file#conf/}}%.yaml}}; name=${{name/\\//=}}
                [[ $name == study=* ]] && name="+$name"
                own+=("$name")
            done
        fi
    fi
    candidates+=($own)
    compadd -S '' -- ${{(M)candidates:#*=}}
    compadd -- ${{candidates:#*=}}
    (( CURRENT == 2 )) || [[ $words[2] == (run|plan) ]] || _files
}}

compdef _weight_studies weight-studies
"""

FISH = """\
function __weight_studies_own
    for file in conf/*/*.yaml conf/study/*/*.yaml
        set -l name (string replace -r '^conf/' '' -- $file | string replace -r '\\.yaml$' '' | string replace / =)
        string match -q 'study=*' -- $name; and echo "+$name"; or echo $name
    end
end

complete -c weight-studies -e
{cases}
complete -c weight-studies -n '__fish_seen_subcommand_from run plan' -f -a '(__weight_studies_own)'
"""


def _bash(cases: Mapping[str, list[str]], commands: Commands) -> str:
    lines = "\n".join(f'        {name}) words="{" ".join(words)}" ;;' for name, words in cases.items())
    return BASH.format(cases=lines, commands=" ".join([*commands, "--help", "--version"]))


def _zsh(cases: Mapping[str, list[str]], commands: Commands) -> str:
    lines = "\n".join(f"            {name}) candidates=({' '.join(words)}) ;;" for name, words in cases.items())
    return ZSH.format(cases=lines, commands=" ".join([*commands, "--help", "--version"]))


def _fish(cases: Mapping[str, list[str]], commands: Commands) -> str:
    lines = []
    for name, (_, what) in commands.items():
        said = what.replace("'", "\\'")
        lines.append(f"complete -c weight-studies -n __fish_use_subcommand -f -a {name} -d '{said}'")
        flags = [word[2:] for word in cases[name] if word.startswith("--")]
        seen = f"-n '__fish_seen_subcommand_from {name}'"
        lines += [f"complete -c weight-studies {seen} -l {flag}" for flag in flags]
        others = " ".join(word for word in cases[name] if not word.startswith("--"))
        if others:
            lines.append(f"complete -c weight-studies {seen} {'-f ' * (name in TRAINING)}-a '{others}'")
    return FISH.format(cases="\n".join(lines))


def schema() -> dict:
    """A JSON schema of a study's file that begins with `# @package _global_`.

    Options of groups are those that ship and those of `conf` in the working folder. A setting of a user's own target is
    known only where the file names the target too.
    """
    groups = [group for group in compose.groups() if group != "study"]
    parts = {part: _part(part) for part in limits.GROUPS}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "a study of weight-studies",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "defaults": {"type": "array", "items": _default(groups)},
            "study": _study(groups),
            "claim": _claim(),
            "compute": {"type": ["object", "null"], "required": ["_target_"]},
            **{part: parts[part] for part in PARTS if part in parts},
            "seed": limits.schema_of(limits.LIMITS["seed"]),
            "hydra": {},
        },
    }


def _default(groups: list[str]) -> dict:
    """An item of the defaults: an option of a group."""
    chosen = {f"override /{group}": {"enum": compose.options(group)} for group in groups}
    named = {"type": "object", "properties": chosen, "patternProperties": {"hydra/": {}}, "additionalProperties": False}
    return {"anyOf": [{"const": "_self_"}, named]}


def _part(part: str) -> dict:
    """The settings of a part: those of the table, and whatever a target of the user's own takes."""
    group = limits.GROUPS[part]
    settings = {name: limits.schema_of(rule) for name, rule in (group.settings | group.more).items()}
    known: dict[str, Any] = {"type": "object", "properties": settings, "additionalProperties": False}
    return known if group.plain else {"if": {"required": ["_target_"]}, "then": {"type": "object"}, "else": known}


def _study(groups: list[str]) -> dict:
    """The settings of `study`."""
    whole: dict[str, Any] = {"type": "integer", "minimum": 1}
    seeds = {"type": "array", "items": {"type": "integer", "minimum": 0}}
    factors = _factors(groups)
    rules = {"type": "array", "items": {"type": "object"}}
    of = {
        "name": {"type": "string", "pattern": r"^[A-Za-z0-9][\w .-]{0,99}$"},
        "question": {"type": ["string", "null"]},
        "factors": factors,
        "nuisance": factors,
        "zip": {"type": "array", "items": {"type": "array", "items": {"type": "string"}}},
        "skip": rules,
        "only": rules,
        "settings": {"type": "array", "items": {"type": "object", "required": ["when", "set"]}},
        "points": {"type": ["integer", "null"], "minimum": 1},
        "draws": {"type": ["integer", "null"], "minimum": 1},
        "seeds": {"anyOf": [whole, seeds]},
        "tuning_seeds": {"anyOf": [whole, seeds]},
        "extend": {"type": "boolean"},
        "baseline": {"type": ["object", "null"]},
        "metric": {"anyOf": [{"enum": list(METRICS)}, {"type": "string", "description": "a quantity of compute"}]},
        "figures": {"type": "array", "items": {"enum": list(FIGURES)}},
        "looks": {"type": "array", "items": whole},
    }
    return {"type": "object", "properties": {name: of.get(name, {}) for name in STUDY}, "additionalProperties": False}


def _factors(groups: list[str]) -> dict:
    """Factors and their levels: options of a group, or values of a setting, or a range of them."""
    within = {
        "type": "object",
        "properties": {
            "low": {"type": "number"},
            "high": {"type": "number"},
            "scale": {"enum": ["linear", "log"]},
            "whole": {"type": "boolean"},
        },
        "required": ["low", "high"],
        "additionalProperties": False,
    }
    known = {group: {"type": "array", "items": {"enum": compose.options(group)}} for group in groups}
    settings = {
        path: {"anyOf": [{"type": "array", "items": limits.schema_of(rule)}, within]}
        for path, rule in limits.RULES.items()
    }
    streams = {f"seeds.{stream}": {"type": "array"} for stream in SEED_STREAMS}
    own = "|".join([*(group for group in groups), "compute", "targets"])
    return {
        "type": ["object", "null"],
        "properties": known | streams | settings,
        "patternProperties": {rf"^({own})\.[A-Za-z_]": {"type": ["array", "object"]}},
        "additionalProperties": False,
    }


def _claim() -> dict:
    """A claim's card."""
    inner = {
        "hypothesis": {
            "type": "object",
            "required": ["estimand", "measure"],
            "properties": {
                "estimand": {"enum": list(claim.ESTIMANDS)},
                "direction": {"enum": list(claim.DIRECTIONS)},
                "margin": {"type": ["number", "null"]},
            },
        },
        "kind": {"enum": list(claim.KINDS)},
        "version": {"type": "integer", "minimum": 1},
        "id": {"type": "string", "pattern": "^[a-z0-9_]+$"},
    }
    return {
        "type": ["object", "null"],
        "properties": {name: inner.get(name, {}) for name in claim.CARD},
        "required": ["id", "version", "quote", "kind", "hypothesis"],
        "additionalProperties": False,
    }
