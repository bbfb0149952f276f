"""Which setting matters most: functional analysis of variance, by Optuna, and how sure that is.

A random forest is fitted to what the points of a design score; the importance of a setting is the share of the
forest's variance over the whole space that its own average curve has (Hutter et al. 2014, sections 3 and 4). What
settings do together counts for none of them, so that importances add up to 1 at most. It is of the space that was
drawn from: the wider a setting's range, the more it matters.
"""

import importlib.util

import numpy as np
import pandas as pd

from studies.record import StudyError

TREES = 64
"""Of the forest that an importance is from, Optuna's own number."""

REFITS = 100

REFITS_OF_CONTROL = 40
"""Enough to see a factor that ranks first in 95 % of them."""

REFIT_TREES = 8
"""Of a refit's: 100 take 7 s of a core; with 64 trees they take 45, and their quantiles change by .02 (simulated)."""


def check_installed() -> None:
    """See that Optuna is there, without importing it.

    Raises:
        StudyError: it is not.
    """
    if importlib.util.find_spec("optuna") is None:
        raise StudyError(
            "claim.hypothesis.estimand=importance_lead, which Optuna computes, and it is not installed: install the "
            "extra importance, pip install 'weight-studies[importance]', or optuna alone"
        )


def places(points: pd.DataFrame) -> np.ndarray:
    """Where each point lies in the space it was drawn from, `(points, settings)`, between 0 and 1.

    By rank among the points, so that the space is as evenly filled as the points were drawn: the logarithm of a
    setting drawn on a log scale. Optuna's evaluator integrates over values as they are, to which of a rate from .0001
    to 1 nine tenths lie above .1. Levels that are no numbers are taken in their order of appearance.

    Args:
        points: a column a setting.
    """
    ranks = [
        (column if pd.api.types.is_numeric_dtype(column) else pd.Series(pd.factorize(column)[0])).rank().to_numpy()
        for _, column in points.items()
    ]
    return (np.stack(ranks, axis=1) - 0.5) / len(points)


def importances(places: np.ndarray, scores: np.ndarray, trees: int = TREES, seed: int = 0) -> np.ndarray:
    """The importance of each setting, `(settings,)`, a share of the variance; all 0 where all points score alike.

    The same to the bit at each call: the forest is grown from `seed` alone.

    Args:
        places: `(points, settings)`, from 0 to 1.
        scores: `(points,)`.
    """
    if np.ptp(scores) == 0:
        return np.zeros(places.shape[1])
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    names = [f"{column:05d}" for column in range(places.shape[1])]
    unit: dict = dict.fromkeys(names, optuna.distributions.FloatDistribution(0.0, 1.0))
    study = optuna.create_study()
    study.add_trials(
        optuna.trial.create_trial(
            params=dict(zip(names, map(float, row), strict=True)), distributions=unit, value=float(score)
        )
        for row, score in zip(places, scores, strict=True)
    )
    found = optuna.importance.FanovaImportanceEvaluator(n_trees=trees, seed=seed).evaluate(study)
    return np.array([float(found[name]) for name in names])


def lead(shares: np.ndarray, which: int) -> float:
    """The importance of one setting less that of the most important other."""
    return float(shares[which] - np.delete(shares, which).max())


def refits(places: np.ndarray, scores: np.ndarray, which: int, count: int = REFITS) -> np.ndarray:
    """The leads of a setting, `(count,)`, in refits to as many points, drawn from them with replacement.

    In how many it is above 0 is how often it ranks first. The draws and the forests are the same at each call.
    """
    draws = np.random.default_rng(0).integers(len(scores), size=(count, len(scores)))
    return np.array(
        [lead(importances(places[row], scores[row], REFIT_TREES, seed), which) for seed, row in enumerate(draws)]
    )
