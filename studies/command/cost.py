"""How long trials take, roughly: for `plan=true`, and to start long ones first."""

import functools
import json
import math
import statistics
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

from studies import contract
from studies.design import arms
from studies.factors import cache, data
from studies.record import RESULTS_VERSION, Study, StudyError, Trial, Work, content_key

GUESS = Work(layers=4, dense=10_000, convolution=0)
"""Where nothing is known."""

_counted: dict[str, Work] = {}

COMPUTED = 0.5
"""Seconds of a trial that computes, where none of its function has been measured."""

_measured: dict[str, float] = {}

START = 4.0
"""Seconds until the workers have imported TensorFlow and checked a study's parts, and for its report."""

COMPILE = 3.0
"""Seconds to compile a graph of which nothing was kept."""

STEP = 60e-6
STEP_LAYER = 25e-6
DENSE_FLOPS = 20e9
CONVOLUTION_FLOPS = 50e9
"""Measured on one core of 2.8 GHz: seconds a step, and a layer in a step; floating-point operations a second."""


def trial_seconds(config: dict, train: int, work: Work) -> float:
    """About how long a trial trains on one core.

    Args:
        train: training examples.
        work: what one of them costs its model.
    """
    training = config["training"]
    step = STEP + STEP_LAYER * work.layers
    # Two operations a multiply-add, three passes: forward, to the weights, to the inputs.
    example = 6 * (work.dense / DENSE_FLOPS + work.convolution / CONVOLUTION_FLOPS)
    return training["epochs"] * (train / training["batch_size"] * step + train * example)


@dataclass(frozen=True)
class Extent:
    """What a study comes to at most, if no look ends it, without the ranges that may be extended.

    Attributes:
        trials: how many.
        seconds: how long, by workers that have started.
    """

    trials: int = 0
    seconds: float = 0.0


def extent(study: Study, trials: list[Trial], controls: int, workers: int) -> Extent:
    """What a study comes to.

    Args:
        trials: all of them, or those that tune.
        controls: how many its claim's controls have besides.
    """
    seconds = list(expected_seconds(trials).values())
    more = controls + (len(arms.of(study)) * len(study.seeds) if study.nuisance else 0)
    seconds += [statistics.fmean(seconds)] * more
    graphs = len({trial.graph_key for trial in trials if not trial.computed})
    return Extent(len(seconds), total_seconds(seconds, graphs, workers) - START)


def expected_seconds(trials: list[Trial]) -> dict[str, float]:
    """About how long each trial trains, by key; one whose model no worker has built yet as the mean of the others."""
    trained = [trial for trial in trials if not trial.computed]
    sizes, counted = {}, works(trained)
    expected = {trial.key: computed_seconds(trial.config) for trial in trials if trial.computed}
    for trial in trained:
        node = trial.config["data"]
        if (key := content_key(node)) not in sizes:
            sizes[key], _ = data.size(node)
        expected[trial.key] = trial_seconds(trial.config, sizes[key], counted[trial.key])
    return expected


def computed_seconds(config: dict) -> float:
    """About how long a trial computes, as those of its function did for this command or another."""
    key = function_of(config)
    if key not in _measured:
        try:
            _measured[key] = float(_noted(f"seconds-{key}.json"))
        except (OSError, ValueError, TypeError, StudyError):  # nowhere to keep it, or not whole
            return COMPUTED
    return _measured[key]


def _noted(name: str) -> Any:
    """What a file of the cache says; one that is not whole is deleted, so that it is written anew."""
    text = (contract.cache_folder() / name).read_text()
    try:
        return json.loads(text)
    except ValueError:
        cache.forget(name)
        raise


def keep_seconds(seconds: dict[str, list[float]]) -> None:
    """Remember how long trials computed.

    Args:
        seconds: of the trials of each function, by `function_of`.
    """
    for key, each in seconds.items():
        _measured[key] = statistics.fmean(each)
        with suppress(StudyError):
            cache.kept(f"seconds-{key}.json", functools.partial(Path.write_text, data=json.dumps(_measured[key])))


def function_of(config: dict) -> str:
    """What identifies the function that a trial computes."""
    return content_key([RESULTS_VERSION, config["compute"]["_target_"]])


def total_seconds(seconds: list[float], graphs: int, workers: int) -> float:
    """About how long a study takes, from its trials' seconds."""
    workers = min(workers, len(seconds)) or 1
    return START + math.ceil(graphs / workers) * COMPILE + sum(seconds) / workers if seconds else 0.0


def known(config: dict) -> Work | None:
    """What one example costs a config's model, if a worker has counted it, for this command or another."""
    key = _key(config)
    if key not in _counted:
        try:
            _counted[key] = Work(**_noted(f"work-{key}.json"))
        except (OSError, ValueError, TypeError, StudyError):  # nowhere to keep it, or not whole
            return None
    return _counted[key]


def uncounted(trials: list[Trial]) -> list[Trial]:
    """One trial of each model that no worker has counted."""
    found = {_key(trial.config): trial for trial in reversed(trials) if known(trial.config) is None}
    return list(found.values())[::-1]


def works(trials: list[Trial]) -> dict[str, Work]:
    """What one example costs each trial's model, by the trial's key; where it is not known, the mean of the others."""
    found = {trial.key: known(trial.config) for trial in trials}
    counted = [astuple(work) for work in found.values() if work] or [astuple(GUESS)]
    mean = Work(*(round(statistics.fmean(column)) for column in zip(*counted, strict=True)))
    return {key: work or mean for key, work in found.items()}


def keep(config: dict, work: Work) -> None:
    """Remember what a worker has counted; where nothing can be kept, for this command alone."""
    key = _key(config)
    _counted[key] = work
    with suppress(StudyError):
        cache.kept(f"work-{key}.json", lambda file: file.write_text(json.dumps(asdict(work))))


def _key(config: dict) -> str:
    """Of what a model is built by: its node, the data that give it its shape, the user's own code."""
    parts = [RESULTS_VERSION, config["model"], data.source(config["data"]), config["targets"]]
    return content_key(parts)
