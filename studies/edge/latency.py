"""How long exported models take for one image, side by side in one process."""

import gc
import time

import numpy as np

from studies.edge.export import Runner

TURNS = 100
"""Of each model; in each all models run, in another order."""

CALLS = 10
"""That are timed in a turn, after one that is not, which brings the model's weights back into the cache."""

LEAST_TURNS = 3


def interleaved(runners: list[Runner], images: list[np.ndarray], seconds: float, seed: int = 0) -> np.ndarray:
    """The time of each call of each model, in seconds: `(models, calls)`.

    What else the machine does meanwhile hits all models alike, since each turn has a few calls of every one; what it
    takes of this thread's own time on its core is left out.

    Args:
        images: an input for each, as `Runner.give` takes it; setting it is not timed.
        seconds: after so many no further turn begins, but for the first `LEAST_TURNS`; at most `TURNS` are taken.
        seed: of the order within the turns.
    """
    order, times = np.random.default_rng(seed), []
    for runner, image in zip(runners, images, strict=True):
        runner.give(image)
    began, collected = time.perf_counter(), gc.isenabled()
    gc.disable()
    try:
        while len(times) < TURNS and (len(times) < LEAST_TURNS or time.perf_counter() - began < seconds):
            turn = np.empty((len(runners), CALLS))
            for place in order.permutation(len(runners)):
                turn[place] = _calls(runners[place])
            times.append(turn)
    finally:
        if collected:
            gc.enable()
    return np.concatenate(times, axis=1)


def _calls(runner: Runner) -> list[float]:
    invoke, clock, own = runner.invoke, time.perf_counter, time.thread_time
    invoke()
    times = []
    for _ in range(CALLS):
        own_began = own()
        began = clock()
        invoke()
        took = clock() - began
        # Another program had the core meanwhile, where that is more than this thread has worked, which counts half a
        # microsecond for its own clock: a wait of milliseconds that is not the model's.
        times.append(min(took, own() - own_began))
    return times


def percentiles(times: np.ndarray) -> np.ndarray:
    """The median and the 95th percentile of each model's times, `(models, calls)` -> `(models, 2)`."""
    return np.percentile(times, [50, 95], axis=1).T
