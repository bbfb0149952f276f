"""What trials are called in MLflow's pages: told apart by the twenty characters that these show."""

from itertools import product

import pytest

from studies.record import Trial
from studies.store.names import SHOWN, run_name

INITIALIZERS = ("zeros", "normal_small", "normal_large", "glorot_uniform", "glorot_normal", "he_normal")


def named(factors, seeds=(0, 1, 10)):
    """The names of all the trials of a study."""
    arms = [dict(zip(factors, levels, strict=True)) for levels in product(*factors.values())]
    trials = [Trial(f"{n:04x}", "", "s", arm, seed, {}, (), "") for n, (arm, seed) in enumerate(product(arms, seeds))]
    return [run_name(trial, factors, seeds) for trial in trials]


@pytest.mark.parametrize(
    "factors",
    [
        {"initializer": INITIALIZERS, "model.depth": (2, 8, 16)},
        {"optimizer": ("sgd", "adam"), "optimizer.learning_rate": (0.001, 0.01)},
        {"schedule": ("cosine", "cosine_restarts"), "optimizer.learning_rate": (0.03, 0.2)},
        {"initializer": INITIALIZERS, "optimizer": ("momentum", "adam"), "schedule": ("cosine", "constant")},
        {"model.filters": ([8, 16], [8, 16, 32, 64, 128]), "model.stride": (1, 2), "model.size": (3, 5)},
        {"initializer": INITIALIZERS, "model.depth": (None, 2)},
    ],
    ids=str,
)
def test_trials_are_told_apart_by_what_is_shown_of_their_names(factors):
    names = [name[:SHOWN] for name in named(factors)]
    assert len(set(names)) == len(names)


def test_names_say_levels_and_seed_in_one_form_for_a_study():
    assert named({"initializer": ("he_normal", "orthogonal")}, (0, 1))[0] == "he_normal seed=0"
    names = named({"initializer": INITIALIZERS, "model.depth": (2, 16)}, (0,))
    assert names[0] == "zeros d=2 s=0" and "glorot_unif d=16 s=0" in names


def test_a_trial_without_factors_is_called_by_what_it_is_run_with():
    trial = Trial("k", "", "single", {}, 0, {}, ("initializer=he_normal", "+model.depth=8", "seed=0"), "")
    assert run_name(trial, {}) == "he_normal depth=8 seed=0"
    assert run_name(Trial("k", "", "single", {}, 3, {}, ("seed=3",), ""), {}) == "defaults seed=3"
