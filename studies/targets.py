"""The one door from a config node to an object: `_target_` names it, an allow list guards it."""

import importlib
import inspect
from collections.abc import Iterator

from studies.record import StudyError, listed

ALLOWED = (
    "keras.initializers.",
    "keras.optimizers.",
    "keras.regularizers.",
    "keras.applications.",
    "studies.",
)


def nodes(config, path: str = "") -> Iterator[tuple[str, dict]]:
    """Every node of `config` that names a `_target_`, with its dotted path."""
    if isinstance(config, dict):
        if "_target_" in config:
            yield path, config
        for name, value in config.items():
            yield from nodes(value, f"{path}.{name}" if path else str(name))
    elif isinstance(config, list):
        for index, value in enumerate(config):
            yield from nodes(value, f"{path}[{index}]")


def refuse_unlisted(config: dict, allow: list[str]) -> None:
    """Refuse a config that names a target outside the allow list. Imports nothing.

    Raises:
        StudyError: with the target, the prefixes allowed, and how to add one.
    """
    prefixes = (*ALLOWED, *allow)
    for path, node in nodes(config):
        target = node["_target_"]
        if not isinstance(target, str) or not target.startswith(prefixes):
            raise StudyError(
                f"{path}._target_={target!r} is outside the allow list ({listed(prefixes)}). Use one of these, or "
                f"allow a package of your own with targets.allow=[mypackage.]"
            )


def build(node: dict | None, path: str, allow: list[str], **arguments):
    """The object that `node` describes, or None for an empty node.

    Args:
        node: `_target_` and its keyword arguments; nested nodes are built first.
        path: where the node stands in the config, for errors.
        allow: prefixes that the user allows besides `ALLOWED`.
        arguments: further keyword arguments; those that the target does not take are left out.

    Raises:
        StudyError: the target is refused, cannot be imported, or refuses its arguments.
    """
    if not node:
        return None
    if "_target_" not in node:
        raise StudyError(f"{path} has {listed(node)} and no _target_ that takes them: choose an option, {path}=NAME")
    refuse_unlisted({path: node}, allow)
    target = _find(node["_target_"], path)
    given = {
        name: build(value, f"{path}.{name}", allow) if isinstance(value, dict) and "_target_" in value else value
        for name, value in node.items()
        if name != "_target_"
    }
    given |= {name: value for name, value in arguments.items() if takes(target, name)}
    try:
        return target(**given)
    except (TypeError, ValueError, KeyError, AttributeError, NotImplementedError) as error:
        settings = listed(f"{name}={value!r}" for name, value in node.items() if name != "_target_")
        raise StudyError(
            f"{path}: {node['_target_']}({settings}) was refused: {_first_line(error)}. It takes "
            f"{inspect.signature(target)}; change the setting with {path}.NAME=VALUE"
        ) from error


def takes(target, name: str) -> bool:
    """Whether a callable accepts the keyword argument `name`."""
    parameters = inspect.signature(target).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _find(target: str, path: str):
    module_name, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's module may raise anything
        reason = f"the module {module_name} cannot be imported: {_first_line(error)}"
        raise StudyError(f"{path}._target_={target!r} was not found: {reason}") from error
    if callable(found := getattr(module, name, None)):
        return found
    own = [name for name in dir(module) if not name.startswith("_") and _is_of(module, getattr(module, name))]
    raise StudyError(
        f"{path}._target_={target!r} was not found: {module_name} has no such callable; it has {listed(own)}"
    )


def _is_of(module, found) -> bool:
    """Whether a module offers a callable, rather than having imported it from another package."""
    package = module.__name__.partition(".")[0]
    return callable(found) and str(getattr(found, "__module__", "")).partition(".")[0] == package


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")
