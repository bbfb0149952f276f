"""One computed trial: calls the function that its config names and gives what that measured. Runs in a worker.

Such a function takes its inputs, and `rng` if it draws, and gives quantities: a dictionary of numbers by name. An input
annotated with a rule of `limits`, such as `Annotated[int, whole(1)]`, is held to it before anything runs.
"""

import functools
import inspect
import json
import math
import re
import time
import typing
from collections.abc import Iterator

import numpy as np
from threadpoolctl import threadpool_limits

from studies.contract import TAG_LENGTH, TRIAL_COLUMNS
from studies.factors import targets
from studies.record import Result, StudyError, Trial, listed, shown
from studies.train import parts  # noqa: F401  which sets what a user's keras.json may set otherwise


def run(trial: Trial) -> Iterator[Result]:
    """Compute one trial and give its result."""
    started = time.perf_counter()
    function = ready(trial.config["compute"], trial.config["targets"]["allow"], np.random.default_rng(trial.seed))
    with threadpool_limits(trial.config["engine"]["threads"]):  # else NumPy rounds by how many cores there are
        found = quantities(function())
    yield Result(trial.key, "finished", quantities=found, seconds_total=time.perf_counter() - started)


def check(config: dict) -> Iterator[str]:
    """Find a config's function and hold its inputs to their rules, but call nothing: gives why they are refused."""
    try:
        ready(config["compute"], config["targets"]["allow"], np.random.default_rng(0))
    except StudyError as error:
        yield str(error)


def ready(node: dict, allow: list[str], rng: np.random.Generator) -> functools.partial:
    """The function that a compute node names, with its inputs.

    Raises:
        StudyError: it is not there, or is not to be used, or an input is missing, unknown or against its rule.
    """
    call = targets.bound(node, "compute", allow, rng=rng)
    try:
        inspect.signature(call.func).bind(**call.keywords)
    except TypeError as error:
        takes = [name for name in inspect.signature(call.func).parameters if name != "rng"]
        raise StudyError(
            f"compute: {node['_target_']} was refused: {error}. It takes {listed(takes) or 'nothing'}; give it an "
            f"input with +compute.NAME=VALUE, or take one away with ~compute.NAME"
        ) from error
    hints = typing.get_type_hints(call.func, include_extras=True)
    settled = {}
    for name, value in call.keywords.items():
        for rule in getattr(hints.get(name), "__metadata__", ()):
            try:
                value = rule(value)
            except ValueError as expected:
                raise StudyError(f"compute.{name}={shown(value)}: expected {expected}") from None
        settled[name] = value
    return functools.partial(call.func, **settled)


def quantities(found: object) -> dict[str, float]:
    """What a function gave, as floats.

    Raises:
        StudyError: it is no dictionary of numbers, or one that cannot be kept.
    """
    if not isinstance(found, dict) or not found:
        raise StudyError(f"compute gave {type(found).__name__}: expected a dictionary of numbers by name, not empty")
    for name, value in found.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z]\w*", name) or name in TRIAL_COLUMNS:
            raise StudyError(
                f"compute gave the quantity {name!r}: expected letters, digits and _, and none of the trials' own "
                f"columns, such as {listed(TRIAL_COLUMNS[:4])}: call it otherwise"
            )
        if isinstance(value, str) or np.ndim(value) or math.isnan(float(value)):
            raise StudyError(f"compute gave {name}={value!r}: expected a number")
    numbers = {name: float(value) for name, value in found.items()}
    if len(json.dumps(numbers)) > TAG_LENGTH - 100:
        raise StudyError(f"compute gave {len(numbers)} quantities: expected no more than a tag can hold, about 150")
    return numbers
