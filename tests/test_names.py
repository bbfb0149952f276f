"""What trials are called in MLflow's pages: told apart by the twenty characters that these show."""

from itertools import product

import pytest

from studies.record import Trial
from studies.store.names import MOST, SHOWN, execution_name, run_name, sweep_name

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


def test_executions_are_named_by_what_they_set():
    sets = [[], ["optimizer=adam", "training.epochs=2"], ["optimizer=sgd", "training.epochs=2"], ["model.depth=4"]]
    names = [execution_name("init_comparison", each, 24) for each in sets]
    assert names[:2] == ["init_comparison (24 trials)", "optimizer=adam epochs=2 (24 trials)"]
    assert len({name[: SHOWN - 3] for name in names}) == len(names)  # the list of runs shows less than the charts
    mine = ["+study.factors={initializer:[zeros]}", "study.seeds=2", "training.epochs=3"]
    assert execution_name("s", mine, 2) == "epochs=3 seeds=2 factors={initializer:[zeros]} (2 trials)"
    assert execution_name("s", ["+study.factors={" + "x" * 400 + "}"], 1).endswith("xxx (1 trial)")
    assert len(execution_name("s", ["+study.factors={" + "x" * 400 + "}"], 1)) == MOST


def test_a_sweep_is_named_by_what_it_sweeps():
    assert sweep_name("executor=serial +study=init_comparison optimizer=sgd,adam") == "sweep optimizer=sgd,adam"
    assert sweep_name("+study=a,b") == "sweep +study=a,b"
