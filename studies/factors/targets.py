"""The one door from a config node to an object: `_target_` names it, the table of groups says what may be named.

A target has one canonical name, whatever folder its module stands in: `studies.MODULE.NAME` for ours. Keys hash it, and
YAML may give it or the full address.
"""

import functools
import importlib
import inspect
import os
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

from studies import origin
from studies.factors.limits import GROUPS, INNER
from studies.record import StudyError, listed, shown

PLACES = {
    f"studies.{name}": f"studies.factors.{name}"
    for name in ("clipping", "data", "initializers", "models", "optimizers", "pruning", "regularizers", "schedules")
} | {f"studies.{name}": f"studies.execute.{name}" for name in ("pool", "ray", "serial")}
"""Canonical name -> where it stands: of a module of ours, or of one thing in it, which goes before."""

FORMER = {
    "studies.executors.Pool": "studies.pool.Pool",
    "studies.executors.Serial": "studies.serial.Serial",
    **{
        f"studies.optimizers.{name}": f"studies.clipping.{name}"
        for name in ("clip_by_value", "clip_by_norm", "clip_by_global_norm", "clip_adaptively")
    },
}
"""Earlier name -> canonical name, for what users' files may still call so."""

KINDS = {
    "keras.initializers": "Initializer",
    "keras.optimizers": "Optimizer",
    "keras.optimizers.schedules": "LearningRateSchedule",
    "keras.regularizers": "Regularizer",
}
"""The base of what a public module of Keras offers; one that is not here offers functions."""

READERS = ("get", "deserialize", "serialize", "from_config")
"""What in Keras's modules gives what it is told to find, and is no option itself."""

SERIALIZED = ("class_name", "module", "registered_name")
"""The keys by which Keras would import something and call it, if it were given such a mapping."""

REFUSALS = (TypeError, ValueError, KeyError, AttributeError, NotImplementedError)
"""How what a target names refuses arguments."""


def nodes(config: object, path: str = "") -> Iterator[tuple[str, dict]]:
    """Every node of `config` that names a `_target_`, with its dotted path."""
    if isinstance(config, dict):
        if "_target_" in config:
            yield path, config
        for name, value in config.items():
            yield from nodes(value, f"{path}.{name}" if path else str(name))
    elif isinstance(config, list):
        for index, value in enumerate(config):
            yield from nodes(value, f"{path}[{index}]")


def canonical(config: Any) -> Any:
    """A config whose targets, the inner ones too, have their canonical names."""
    if isinstance(config, dict):
        return {
            name: canonical_name(value) if name == "_target_" and isinstance(value, str) else canonical(value)
            for name, value in config.items()
        }
    return [canonical(item) for item in config] if isinstance(config, list) else config


def canonical_name(target: str) -> str:
    """One target's canonical name: `studies.models.mlp`, wherever `mlp` stands."""
    module, _, name = target.rpartition(".")
    if target in FORMER:
        return FORMER[target]
    for known, place in PLACES.items():
        if target == place:
            return known
        if module == place:
            return f"{known}.{name}"
    return target


def place_of(target: str) -> str:
    """The full address of a target, from its canonical name or from that address."""
    target = canonical_name(target)
    module, _, name = target.rpartition(".")
    return PLACES.get(target) or f"{PLACES.get(module, module)}.{name}"


def refuse_unlisted(config: dict, allow: list[str]) -> None:
    """Refuse a config that names a target which its group does not allow. Imports nothing.

    Raises:
        StudyError: with the target, what its group allows, and how to add to it; or with an argument that Keras would
            take for a description of something to import.
    """
    for path, node in nodes(config):
        target = node["_target_"]
        if _is_users(target, allow):
            continue
        groups = _groups(path)
        if not any(_is_option(target, group) for group in groups):
            raise StudyError(
                f"{path}._target_={target!r} is outside what {groups[0]} may be ({listed(_offers(groups))}). Use "
                f"one of these, or allow a package of your own with targets.allow=[mypackage.]"
            )
        _refuse_serialized(node, path, allow)
        if target.startswith("keras.applications.") and node.get("weights", "imagenet") is not None:
            raise StudyError(
                f"{path}.weights={shown(node.get('weights', 'imagenet'))}: expected null, an untrained network: "
                f"trained weights would be read or downloaded. Give {path}.weights=null, with a plus if it is not there"
            )


def users(config: dict, allow: list[str]) -> list[str]:
    """The top-level modules and packages of the user's own that a config's targets are in."""
    named = (node["_target_"] for _, node in nodes(config))
    return sorted({target.partition(".")[0] for target in named if _is_users(target, allow) and not _is_known(target)})


def build(node: dict | None, path: str, allow: list[str], **arguments: object) -> Any:
    """The object that `node` describes, or None for an empty node.

    Args:
        node: `_target_` and its keyword arguments; nested nodes are built first.
        path: where the node stands in the config, for errors.
        allow: prefixes that the user allows besides what the group of `path` does.
        arguments: further keyword arguments; those that the target does not take are left out.

    Raises:
        StudyError: the target is refused, cannot be imported, or refuses its arguments; or code of the user's own
            raises, whatever it is.
    """
    if not node:
        return None
    call = bound(node, path, allow, **arguments)
    try:
        return call()
    except StudyError:
        raise
    except Exception as error:
        if origin.place(error):
            raise own_fault(node, path, error) from error
        if not isinstance(error, REFUSALS):
            raise
        settings = listed(f"{name}={value!r}" for name, value in node.items() if name != "_target_")
        raise StudyError(
            f"{path}: {node['_target_']}({settings}) was refused: {_first_line(error)}. It takes "
            f"{_arguments(call.func)}; {_remedy(node, path, call.func, allow)}"
        ) from error


def _remedy(node: dict, path: str, target: Callable, allow: list[str]) -> str:
    """What to do about arguments that a target refuses: of a user's own those may be another option's."""
    unknown = [name for name in node if name != "_target_" and not takes(target, name)]
    if not _is_users(node["_target_"], allow) or not unknown:
        return f"change the setting with {path}.NAME=VALUE"
    words = " ".join(f"'~{path}.{name}'" for name in unknown)
    return (
        f"what it does not take is left out with {words}, or by an option of your own: conf/{path}/NAME.yaml with "
        f"_target_: {node['_target_']}, chosen by {path}=NAME"
    )


def own_fault(node: dict, path: str, error: Exception) -> StudyError:
    """What is said of an error that a node's target raised in code of the user's own."""
    said = f"{path}: {node['_target_']} raised {origin.summary(error)}"
    return StudyError(f"{said}, which is your own code: mend it there")


def bound(node: dict, path: str, allow: list[str], **arguments: object) -> functools.partial:
    """What `node` describes, not called yet: its target with its keyword arguments. For the arguments see `build`.

    Raises:
        StudyError: the target is refused or cannot be imported.
    """
    if "_target_" not in node:
        raise StudyError(f"{path} has {listed(node)} and no _target_ that takes them: choose an option, {path}=NAME")
    refuse_unlisted({path: node}, allow)
    target = _find(node["_target_"], path, allow)
    given = {
        name: build(value, f"{path}.{name}", allow) if isinstance(value, dict) and "_target_" in value else value
        for name, value in node.items()
        if name != "_target_"
    }
    given = {name: _typed(target, name, value) for name, value in given.items()}
    given |= {name: value for name, value in arguments.items() if takes(target, name)}
    return functools.partial(target, **given)


def _arguments(target) -> str:
    return str(inspect.signature(target).replace(return_annotation=inspect.Signature.empty))


def takes(target: Callable, name: str) -> bool:
    """Whether a callable accepts the keyword argument `name`."""
    parameters = inspect.signature(target).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _find(target: str, path: str, allow: list[str]):
    place = target if _is_users(target, allow) else place_of(target)
    module_name, _, name = place.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's module may raise anything
        reason = origin.summary(error) if origin.place(error) else _first_line(error)
        if isinstance(error, ModuleNotFoundError) and error.name == module_name.partition(".")[0]:
            reason += (
                f". Modules of your own are looked for in the folder that the command is started in, {os.getcwd()}, in "
                f"those that PYTHONPATH names, and among installed ones"
            )
        raise StudyError(
            f"{path}._target_={target!r} was not found: the module {module_name} cannot be imported: {reason}"
        ) from error
    is_wanted: Callable[[object], bool]
    if _is_users(target, allow):
        is_wanted, what = callable, "callable"
    else:
        is_wanted, what = functools.partial(_is_of_its_kind, module), "option"
    if is_wanted(found := getattr(module, name, None)):
        return found
    own = [name for name in dir(module) if not name.startswith("_") and _is_of(module, getattr(module, name))]
    options = _names(canonical_name(target)) or [name for name in own if is_wanted(getattr(module, name))]
    raise StudyError(
        f"{path}._target_={target!r} was not found: {module_name} has no such {what}; it has {listed(options)}"
    )


def _is_of(module, found) -> bool:
    """Whether a module offers a callable, rather than having imported it from another package."""
    package = module.__name__.partition(".")[0]
    return callable(found) and str(getattr(found, "__module__", "")).partition(".")[0] == package


def _is_of_its_kind(module, found) -> bool:
    """Whether a class or function is defined in the module that offers it, and is what the module is there for.

    Keras's public modules offer what is defined below `keras.src`, under the same name.
    """
    if not isinstance(found, type | FunctionType):
        return False
    name = module.__name__
    if not name.startswith("keras."):
        return found.__module__ == name
    if not found.__module__.startswith(name.replace("keras.", "keras.src.", 1)):
        return False
    if name in KINDS:
        base = getattr(module, KINDS[name])
        return isinstance(found, type) and issubclass(found, base) and found is not base
    return isinstance(found, FunctionType)


def _is_users(target, allow: list[str]) -> bool:
    return isinstance(target, str) and target.startswith(tuple(allow))


def _is_known(target: str) -> bool:
    """Whether a target is in the table, or of a library whose version says what it does."""
    return target.partition(".")[0] in ("keras", "tensorflow") or any(_is_option(target, group) for group in GROUPS)


def _groups(path: str) -> tuple[str, ...]:
    """The groups whose targets may stand at a path, its own first."""
    group, *inner = path.replace("[", ".").split(".")
    return tuple(dict.fromkeys((group, *(INNER if inner else ()))))


def _is_option(target, group: str) -> bool:
    if not isinstance(target, str) or group not in GROUPS:
        return False
    module, _, name = canonical_name(target).rpartition(".")
    names = GROUPS[group].targets.get(module)
    return names is not None and (name in names if names else name.isidentifier() and name not in READERS)


def _offers(groups: tuple[str, ...]) -> list[str]:
    """What groups allow, for an error: our own by their addresses, Keras's by their module."""
    tables = [GROUPS[group].targets for group in groups if group in GROUPS]
    return [
        place_of(f"{module}.{name}")
        for table in tables
        for module, names in table.items()
        for name in sorted(names) or ("NAME",)
    ]


def _names(target: str) -> tuple[str, ...]:
    module = target.rpartition(".")[0]
    return next((names for group in GROUPS.values() if (names := group.targets.get(module))), ())


def _refuse_serialized(node, path: str, allow: list[str]) -> None:
    """Refuse mappings by which Keras would import something, but in what is the user's own."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in inner:
        where = f"{path}.{name}" if isinstance(node, dict) else f"{path}[{name}]"
        if isinstance(value, dict) and _is_users(value.get("_target_"), allow):
            continue
        if isinstance(value, dict) and (keys := [key for key in SERIALIZED if key in value]):
            raise StudyError(
                f"{where} has {listed(keys)}, by which Keras would import and call what they name: expected a "
                f"value, or a node with a _target_ and its arguments"
            )
        _refuse_serialized(value, where, allow)


def _typed(target, name: str, value):
    """A number as the target's own default or annotation has it, so that 1 and 1.0 are the same to it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    try:
        parameter = inspect.signature(target).parameters.get(name)
    except ValueError:  # some of what is built in has none
        return value
    kinds = {type(parameter.default), parameter.annotation} if parameter else set()
    if kinds & {float, "float"}:
        return float(value)
    if kinds & {int, "int"} and value == int(value):
        return int(value)
    return value


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")
