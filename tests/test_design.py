"""A study's trials: which ones there are, what identifies them, and what is refused."""

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import hydra
import numpy as np
import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from studies.command import compose
from studies.design import grid
from studies.design.study import STUDYS, _fixed, read_study
from studies.factors import limits
from studies.record import IDENTITY, RESULTS_VERSION, Study, StudyError

ROOT = Path(__file__).parent.parent
BASE = {
    "study": {
        "name": "s",
        "question": "?",
        "factors": {},
        "seeds": 1,
        "baseline": {},
        "metric": "val_accuracy",
        "figures": [],
        "looks": [],
    }
    | {"zip": [], "skip": [], "only": [], "settings": []}
    | {"points": None, "nuisance": {}, "draws": None, "extend": True, "tuning_seeds": [100, 101]},
    "data": {"_target_": "studies.data.npz", "path": "a.npz", "root": None, "content": "c0ffee"},
    "model": {"_target_": "mlp", "depth": 2, "width": 64, "zero_last": False},
    "initializer": {"_target_": "HeNormal"},
    "optimizer": {"_target_": "SGD", "learning_rate": 0.02, "momentum": 0.9},
    "schedule": {"_target_": "studies.schedules.cosine", "warmup": 0.1},
    "regularizer": {},
    "clipping": {"_target_": "clip", "norm": 1.0},
    "pruning": {},
    "diagnostics": {"observe_every": 1, "ends": False},
    "training": {"epochs": 20, "batch_size": 32, "timeout": None},
    "seeds": {"split": None, "init": None},
    "engine": {"threads": 1, "xla": "auto"},
    "targets": {"allow": []},
    "executor": {"_target_": "Pool", "workers": None},
    "checkpoints": {"epochs": None, "minutes": 10},
    "tracking": {"root": "mlruns"},
    "compute": None,
    "claim": None,
    "seed": None,
    "plan": False,
    "force": False,
    "profile": {"name": "quick"},
}
OPTIONS = {
    "initializer": {"HeNormal": {}, "Zeros": {}, "Constant": {"value": 1}},
    "optimizer": {"SGD": {"learning_rate": 0.02, "momentum": 0.9}, "Adam": {"learning_rate": 0.001, "beta_1": 0.9}},
}


class Compose:
    """A small Hydra: takes GROUP=OPTION and PATH=VALUE, and remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, overrides):
        self.asked.append(list(overrides))
        config = copy.deepcopy(BASE)
        for name, value in sorted((o.split("=", 1) for o in overrides), key=lambda pair: "." in pair[0]):
            *parents, last = name.split(".")
            node = config
            for parent in parents:
                node = node[parent]
            node[last] = yaml.safe_load(value) if parents else {"_target_": value} | OPTIONS[name][value]
        return config


def counted(config):
    """A config that is taken as it is, with what of it counts."""
    return config, limits.identity(config), limits.graph(config)


def expand(
    factors,
    seeds=(0,),
    *,
    base=BASE,
    overrides=(),
    compose=None,
    settle=lambda config: counted(config),
    exact=False,
    chosen=None,
    **rules,
):
    levels = {factor: tuple(levels) for factor, levels in factors.items()}
    study = Study("s", "?", levels, seeds, {}, "val_accuracy", **rules)
    return grid.expand(study, base, {}, list(overrides), compose or Compose(), settle, exact, chosen)


def only(config=BASE, seed=0, **options):
    """The one trial of a config."""
    [trial] = expand({}, (seed,), base=config, **options)
    return trial


def leaves(node, path=()):
    for name, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, name))
        else:
            yield (*path, name), value


def changed(config, path, value):
    config = copy.deepcopy(config)
    node = config
    for name in path[:-1]:
        node = node[name]
    node[path[-1]] = value
    return config


def test_the_grid_is_in_the_order_of_the_levels_with_an_arms_seeds_together():
    trials = expand({"initializer": ["Zeros", "HeNormal"], "model.depth": [8, 2, 4]}, (7, 0))
    arms = [(name, depth) for name in ("Zeros", "HeNormal") for depth in (8, 2, 4)]
    assert [(*t.arm.values(), t.seed) for t in trials] == [(*arm, seed) for arm in arms for seed in (7, 0)]
    assert [t.config["model"]["depth"] for t in trials[::2]] == [8, 2, 4, 8, 2, 4]
    assert len({t.key for t in trials}) == len(trials)


def test_a_level_of_a_group_is_composed_once_and_a_path_never():
    compose = Compose()
    factors = {"optimizer": ["SGD", "Adam"], "initializer": ["Zeros", "HeNormal"], "model.depth": [1, 2, 3, 4]}
    assert len(expand(factors, range(5), compose=compose)) == 80
    assert sorted(compose.asked) == sorted(
        [f"{group}={name}"] for group in list(factors)[:2] for name in factors[group]
    )


def test_a_group_changes_before_a_path_into_it():
    for factors in (
        {"optimizer": ["Adam"], "optimizer.beta_1": [0.5]},
        {"optimizer.beta_1": [0.5], "optimizer": ["Adam"]},
    ):
        [trial] = expand(factors)
        assert trial.config["optimizer"] == {"_target_": "Adam", "learning_rate": 0.001, "beta_1": 0.5}


def test_keys_stay_the_same_in_another_process_and_another_order():
    def reversed_order(node):
        return {name: reversed_order(node[name]) for name in reversed(node)} if isinstance(node, dict) else node

    key = only().key
    assert re.fullmatch("[0-9a-f]{16}", key)
    assert only(reversed_order(BASE)).key == key
    code = "import sys, json; from tests.test_design import only; print(only(json.load(sys.stdin)).key)"
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, input=json.dumps(BASE), text=True, capture_output=True, check=True,
        env=os.environ | {"PYTHONHASHSEED": "1"},
    )  # fmt: skip
    assert process.stdout.strip() == key


@pytest.mark.parametrize(
    "path",
    [("executor", "workers"), ("executor", "_target_"), ("tracking", "root"), ("data", "path"), ("data", "root")],
)
def test_where_a_trial_runs_is_no_part_of_its_key(path):
    assert only(changed(BASE, path, "elsewhere")).key == only().key


def test_every_setting_and_the_seed_are_part_of_the_key(monkeypatch):
    keys = {only().key, only(seed=1).key}
    parts = {name: BASE[name] for name in IDENTITY}
    settings = [(path, value) for path, value in leaves(parts) if path[-1] not in ("path", "root")]
    for path, value in settings:
        keys.add(only(changed(BASE, path, {"_target_": "another"} if value == {} else "another")).key)
    assert len(keys) == 2 + len(settings)
    monkeypatch.setattr(grid, "RESULTS_VERSION", RESULTS_VERSION + 1)
    assert only().key not in keys


def test_trials_that_differ_in_seed_rate_or_initializer_share_a_graph():
    graph = only().graph_key
    shared = [("optimizer", "learning_rate"), ("initializer", "_target_"), ("schedule", "warmup"), ("seeds", "init")]
    shared += [("diagnostics", "observe_every"), ("diagnostics", "ends")]
    own = [("optimizer", "momentum"), ("model", "depth"), ("training", "batch_size"), ("clipping", "norm")]
    assert only(seed=1).graph_key == graph
    assert {only(changed(BASE, path, 0.5)).graph_key for path in shared} == {graph}
    assert len({only(changed(BASE, path, 0.5)).graph_key for path in own} - {graph}) == len(own)


def test_data_is_known_by_its_content_wherever_it_is(config, tmp_path):
    x, y = np.zeros((30, 4, 4), np.uint8), np.arange(30) % 3
    keys = []
    for name, images in (("a", x), ("b", x), ("c", x + 1)):
        np.savez(tmp_path / f"{name}.npz", x=images, y=y)
        base = config(["data=npz", f"data.path={tmp_path}/{name}.npz"])
        keys.append(only(base, settle=compose.settle).key)
    assert keys[0] == keys[1] != keys[2]


def test_more_seeds_keep_the_trials_there_are(config):
    five, ten = ([t.key for t in expand({"model.depth": [1, 2]}, tuple(range(n)))] for n in (5, 10))
    assert ten[:5] + ten[10:15] == five


@pytest.mark.parametrize(
    ("overrides", "factors"),
    [
        ([], {"optimizer": ["sgd", "adam"], "optimizer.learning_rate": [0.1, 1], "model.depth": [1, 8]}),
        (["optimizer=adam", "model.depth=5"], {"optimizer": ["adam", "rmsprop"], "training.batch_size": [16, 64]}),
        (["+study=init_comparison"], {"regularizer": ["none", "l2"], "clipping": ["global_norm", "none"]}),
        (
            ["regularizer=l2", "model=cnn"],
            {"regularizer": ["none", "l2"], "model": ["cnn", "mlp"], "engine.xla": [True]},
        ),
        (["model=cnn"], {"model.filters": [[8], [8, 16]], "seeds.init": [None, 3], "initializer": ["zeros"]}),
    ],
)
def test_a_trial_has_the_config_that_hydra_composes_for_its_arm(config, overrides, factors):
    options = {"base": config(overrides), "overrides": overrides, "compose": config, "settle": compose.settle}
    trials = expand(factors, (0, 3), **options)
    for trial in trials[::2]:
        assignments = [f"{factor}={grid.written(level)}" for factor, level in trial.arm.items()]
        whole = config(overrides + assignments)
        settled, *_ = compose.settle({n: part for n, part in whole.items() if n not in STUDYS})
        assert trial.config == settled
    assert expand(factors, (0, 3), **options, exact=True) == trials


@pytest.mark.parametrize(
    "overrides",
    [[], ["+study=init_comparison", "initializer=zeros"], ["model.activation=tanh", "optimizer.learning_rate=0.02"]],
)
def test_what_is_read_from_a_levels_own_file_is_what_hydra_composes(overrides):
    levels = ["data=npz", "model=cnn", "initializer=orthogonal", "optimizer=sgd", "regularizer=l1"]
    with hydra.initialize_config_dir(str(compose.CONF), version_base="1.3"):
        composed = hydra.compose("config", overrides, return_hydra_config=True)
        choices = OmegaConf.to_container(composed.hydra.runtime.choices)
        composed_by = compose.composer(compose.resolved(hydra.compose("config", overrides)), overrides, choices)
        for level in levels:
            wanted = [*overrides, level]
            assert composed_by(wanted) == compose.resolved(hydra.compose("config", wanted))


def test_a_trials_overrides_compose_it_alone(config):
    overrides = ["+study=init_comparison", "training.epochs=3"]
    trials = expand(
        {"initializer": ["zeros", "he_normal"], "model.depth": [2, 8]}, (0, 4), base=config(overrides),
        overrides=overrides, compose=config, settle=compose.settle,
    )  # fmt: skip
    for trial in trials[1:4:2]:
        alone = config(trial.overrides)
        study = read_study(alone, {override.partition("=")[0] for override in trial.overrides})
        [same] = grid.expand(study, alone, {}, [], config, compose.settle, exact=False)
        assert (same.key, same.seed, same.config) == (trial.key, trial.seed, trial.config)


scalars = st.one_of(
    st.text(st.characters(codec="utf-8")).filter(lambda text: "${" not in text),  # an interpolation is Hydra's to keep
    st.sampled_from(
        [
            "null",
            "True",
            "nan",
            "Inf",
            "1",
            "-1e3",
            "1_000",
            "it's",
            "a\\",
            "\\'",
            "a b",
            "[x]",
            "a,b",
            "=",
            "",
            "\u212a",
        ]
    ),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
)


@given(scalars | st.lists(scalars | st.lists(scalars, max_size=2), max_size=3))
def test_hydra_reads_a_written_level_as_the_same_value(level):
    def same(read):
        assert json.dumps(read) == json.dumps(level)  # 1, 1.0 and true differ

    parse = OverridesParser.create().parse_override
    same(parse(f"a={grid.written(level)}").value())
    same(parse(f"a={{model.b:[{grid.written(level)}]}}").value()["model.b"][0])


@pytest.mark.parametrize(
    "level", ["two words", "it's", "back\\slash", "1", "null", "he_normal", 3, 0.1, False, None, [1, "a b"]]
)
def test_hydra_composes_a_written_level(config, level):
    assert config([f"study.question={grid.written(level)}"])["study"]["question"] == level


@pytest.mark.parametrize(
    ("study", "received", "allowed"),
    [
        ({"factors": {"model.depth": []}}, "study.factors.model.depth=[]", "[2, 8, 16]"),
        ({"factors": {"model.depth": 3}}, "study.factors.model.depth=3", "a list"),
        ({"factors": 3}, "study.factors=3", "a mapping"),
        ({"factors": {"model": {"depth": [2]}}}, "{'depth': [2]}", "{model.depth: "),
        ({"factors": {"model.depth": [2, 8, 2]}}, "the level 2 twice", "leave one out"),
        ({"factors": {"model.zero_last": [True, True]}}, "the level true twice", "leave one out"),
        ({"factors": {"model.depth": [{"a": 1}]}}, "{'a': 1}", "a number"),
        ({"factors": {"model.depth": [[1, [{"a": 1}]]]}}, "{'a': 1}", "a number"),
        ({"factors": {"model.width": [float("nan")]}}, "nan", "a number"),
        ({"factors": {"initializer": [3]}}, "study.factors.initializer has the level 3", "an option of initializer"),
        ({"factors": {"nosuch": [1]}}, "nosuch", "data, model, initializer"),
        ({"factors": {"executor": ["Pool"]}}, "executor", "data, model, initializer"),
        ({"factors": {"training": ["x"]}}, "training", "training, engine, seeds, such as model.depth"),
        ({"factors": {"model.nosuch": [1]}}, "model.nosuch", "depth, width, zero_last"),
        ({"factors": {"model.depth": [2]}, "baseline": {"model.depth": 3}}, "study.baseline.model.depth=3", "levels 2"),
        ({"factors": {"model.depth": [2]}, "baseline": {"nosuch": 3}}, "nosuch", "factors model.depth"),
        ({"baseline": 3}, "study.baseline=3", "a mapping"),
        ({"metric": "nosuch"}, "study.metric=nosuch", "val_accuracy"),
        ({"figures": ["nosuch"]}, "study.figures=['nosuch']", "loss_by_rate"),
        ({"figures": "loss_by_rate"}, "study.figures=loss_by_rate", "a list"),
        ({"name": "a/b"}, "'a/b'", "letters"),
        ({"name": ""}, "''", "letters"),
        ({"sedds": 5}, "study.sedds", "seeds"),
        ({"seeds": 0}, "study.seeds=0", "1 or more"),
        ({"seeds": -1}, "study.seeds=-1", "1 or more"),
        ({"seeds": True}, "study.seeds=true", "1 or more"),
        ({"seeds": []}, "study.seeds=[]", "a list of seeds"),
        ({"seeds": "a"}, "study.seeds=a", "a list of seeds"),
        ({"seeds": [0, -1]}, "study.seeds=[0, -1]", "a list of seeds"),
        ({"seeds": [1, 1]}, "study.seeds=[1, 1]", "leave one out"),
    ],
)
def test_a_wrong_study_is_refused(study, received, allowed):
    with pytest.raises(StudyError) as error:
        read_study(BASE | {"study": BASE["study"] | study})
    assert received in str(error.value) and allowed in str(error.value)


def test_a_study_is_read_as_it_is_written():
    node = {"factors": {"model.depth": [2, 8]}, "seeds": [3, 1], "baseline": {"model.depth": 8}, "metric": "test_loss"}
    study = read_study(BASE | {"study": BASE["study"] | node})
    assert study == Study("s", "?", {"model.depth": (2, 8)}, (3, 1), {"model.depth": 8}, "test_loss")
    assert read_study(BASE | {"study": BASE["study"] | {"seeds": 3, "factors": None}}).seeds == (0, 1, 2)


def test_one_seed_takes_the_place_of_the_studys_and_is_no_other_part_of_a_trials_identity():
    study = read_study(BASE | {"seed": 1, "study": BASE["study"] | {"seeds": 3}})
    assert study.seeds == (1,)
    assert only(BASE | {"seed": 1}, seed=1) == only(seed=1)


def test_a_factor_that_the_user_set_is_none_and_so_is_one_that_the_chosen_option_lacks(config):
    factors = {"initializer": ["zeros", "ones"], "model.depth": [2, 8], "model.activation": ["relu", "tanh"]}
    baseline = {"initializer": "ones", "model.depth": 2, "model.activation": "relu"}
    base = config(["model=lenet_300_100", "initializer=he_normal"])
    base["study"] |= {"factors": factors, "baseline": baseline}
    study = read_study(base, overridden={"model", "initializer"})
    assert (study.factors, study.baseline) == ({"model.activation": ("relu", "tanh")}, {"model.activation": "relu"})
    with pytest.raises(StudyError, match="model has no depth"):
        read_study(base, overridden={"initializer"})


def test_unknown_and_missing_parts_are_refused():
    with pytest.raises(StudyError, match=r"trainin: .* training, "):
        read_study(BASE | {"trainin": {"epochs": 3}})
    with pytest.raises(StudyError, match="model is missing"):
        read_study({name: part for name, part in BASE.items() if name != "model"})


def test_a_path_that_a_group_does_not_have_is_refused_with_what_it_has():
    with pytest.raises(
        StudyError, match=r"optimizer.beta_1=0.5 does not fit optimizer=SGD, which has learning_rate, mom"
    ):
        expand({"optimizer": ["Adam", "SGD"], "optimizer.beta_1": [0.5]})


def test_arms_that_come_to_the_same_trial_are_refused():
    with pytest.raises(StudyError, match=r"depth=2 and depth=2.0 come to the same trial"):
        expand({"model.depth": [2, 2.0]}, settle=lambda c: counted(json.loads(json.dumps(c).replace("2.0", "2"))))


GRID = {"optimizer": ["SGD", "Adam"], "optimizer.learning_rate": [0.1, 0.01], "model.depth": [2, 8]}


def read(**node):
    return read_study(BASE | {"study": BASE["study"] | node})


def arms(**node):
    node = {"factors": GRID} | node
    study = read(**node)
    rules = dict(zip=study.zip, skip=study.skip, only=study.only, settings=study.settings)
    return [tuple(trial.arm.values()) for trial in expand(study.factors, **rules)]


def test_zipped_factors_move_together():
    zipped = arms(zip=[["optimizer.learning_rate", "optimizer"]])
    assert zipped == [("SGD", 0.1, 2), ("SGD", 0.1, 8), ("Adam", 0.01, 2), ("Adam", 0.01, 8)]
    factors = {"optimizer": ["SGD", "SGD", "Adam"], "optimizer.learning_rate": [0.1, 0.01, 0.01]}
    assert arms(factors=factors, zip=[list(factors)]) == [("SGD", 0.1), ("SGD", 0.01), ("Adam", 0.01)]


def test_skip_and_only_choose_arms_of_the_grid():
    whole = [(o, r, d) for o in ("SGD", "Adam") for r in (0.1, 0.01) for d in (2, 8)]
    assert arms() == whole
    skipped = arms(skip=[{"optimizer": "SGD", "model.depth": 8}, {"optimizer.learning_rate": [0.1], "model.depth": 2}])
    assert skipped == [a for a in whole if not ((a[0] == "SGD" and a[2] == 8) or (a[1] == 0.1 and a[2] == 2))]
    kept = arms(only=[{"optimizer": "Adam"}, {"model.depth": [2, 8], "optimizer.learning_rate": 0.01}])
    assert kept == [a for a in whole if a[0] == "Adam" or a[1] == 0.01]
    both = arms(only=[{"optimizer": "Adam"}], skip=[{"model.depth": 2}])
    assert both == [("Adam", 0.1, 8), ("Adam", 0.01, 8)]


@pytest.mark.parametrize("exact", [False, True])
def test_settings_change_the_arms_they_match_and_are_part_of_their_trials(exact):
    settings = (
        {"when": {"optimizer": ["Adam"]}, "set": {"optimizer.learning_rate": 0.003, "initializer": "Zeros"}},
        {"when": {"optimizer": ["Adam"], "model.depth": [8]}, "set": {"optimizer.learning_rate": 0.0005}},
    )
    factors = {"optimizer": ["SGD", "Adam"], "model.depth": [2, 8]}
    trials = expand(factors, settings=settings, exact=exact)
    assert [t.config["optimizer"]["learning_rate"] for t in trials] == [0.02, 0.02, 0.003, 0.0005]
    assert [t.config["initializer"]["_target_"] for t in trials] == ["HeNormal", "HeNormal", "Zeros", "Zeros"]
    assert [t.config["model"]["depth"] for t in trials] == [2, 8, 2, 8]
    for trial in trials:
        assignments = [o for o in trial.overrides if not o.startswith("seed=")]
        assert Compose()(assignments)["optimizer"] == trial.config["optimizer"]


def test_what_the_user_set_counts_more_than_a_studys_settings():
    node = {
        "factors": {"optimizer": ["SGD", "Adam"]},
        "settings": [{"when": {"optimizer": "Adam"}, "set": {"optimizer.learning_rate": 0.003, "model.width": 8}}],
    }
    config = BASE | {"study": BASE["study"] | node}
    study = read_study(config, overridden={"optimizer.learning_rate"})
    assert study.settings == ({"when": {"optimizer": ["Adam"]}, "set": {"model.width": 8}},)
    assert read_study(config, overridden={"optimizer.learning_rate", "model.width"}).settings == ()


def test_a_baseline_has_the_levels_that_move_along_with_those_it_names(config=BASE):
    factors = {"optimizer": ["SGD", "SGD", "Adam"], "optimizer.learning_rate": [0.1, 0.01, 0.01]}
    study = BASE["study"] | {"factors": factors, "zip": [list(factors)]}

    def baseline(named):
        return read_study(BASE | {"study": study | {"baseline": named}}).baseline

    assert baseline({"optimizer": "Adam"}) == {"optimizer": "Adam", "optimizer.learning_rate": 0.01}
    assert baseline({"optimizer": "SGD", "optimizer.learning_rate": 0.1}) == {
        "optimizer": "SGD",
        "optimizer.learning_rate": 0.1,
    }
    with pytest.raises(
        StudyError, match=r"optimizer=SGD, which study.zip has 2 times: name optimizer.learning_rate too"
    ):
        baseline({"optimizer": "SGD"})


def test_what_the_user_fixed_leaves_zips_and_voids_rules(config):
    base = config(["optimizer.learning_rate=0.3"])
    base["study"] |= {
        "factors": {"optimizer": ["sgd", "adam"], "optimizer.learning_rate": [0.1, 0.01], "model.depth": [2, 8]},
        "zip": [["optimizer", "optimizer.learning_rate"]],
        "skip": [{"optimizer.learning_rate": 0.1, "model.depth": 8}],
    }
    study = read_study(base, overridden={"optimizer.learning_rate"})
    assert study.factors.keys() == {"optimizer", "model.depth"} and study.zip == () and study.skip == ()


RATES = {"optimizer.learning_rate": (0.1, 0.01), "model.width": (8, 16, 32)}


def test_every_arm_is_tuned_with_the_same_budget_and_then_trained_at_what_was_chosen():
    tuned = dict(nuisance=RATES, tuning_seeds=(100, 101))
    first = expand({"optimizer": ["SGD", "Adam"]}, (0, 1, 2), **tuned)
    assert {trial.role for trial in first} == {"nuisance"} and len(first) == 2 * 6 * 2
    cells = [(t.arm["optimizer"], *t.nuisance.values(), t.seed) for t in first]
    assert cells == [
        (o, r, w, s) for o in ("SGD", "Adam") for r in (0.1, 0.01) for w in (8, 16, 32) for s in (100, 101)
    ]
    for trial in first:
        rate, width = trial.nuisance.values()
        assert (trial.config["optimizer"]["learning_rate"], trial.config["model"]["width"]) == (rate, width)
    chosen = [dict(zip(RATES, values, strict=True)) for values in ((0.01, 8), (0.1, 32))]
    final = expand({"optimizer": ["SGD", "Adam"]}, (0, 1, 2), chosen=chosen, **tuned)
    assert [(t.role, t.arm["optimizer"], t.nuisance, t.seed) for t in final] == [
        ("scientific", o, c, s) for o, c in zip(("SGD", "Adam"), chosen, strict=True) for s in (0, 1, 2)
    ]
    alone = expand({"optimizer": ["Adam"], "optimizer.learning_rate": [0.1], "model.width": [32]}, (0, 1, 2))
    assert [t.key for t in alone] == [t.key for t in final[3:]]  # tuning is no part of a trial's identity


def test_nuisance_factors_are_read_like_factors_and_come_before_settings():
    node = {"factors": {"optimizer": ["SGD", "Adam"]}, "nuisance": {f: list(levels) for f, levels in RATES.items()}}
    node["settings"] = [{"when": {"optimizer": "SGD"}, "set": {"optimizer.learning_rate": 3, "model.depth": 1}}]
    study = read(**node)
    assert (study.nuisance, study.tuning_seeds) == (RATES, (100, 101))
    assert [entry["set"] for entry in study.settings] == [{"model.depth": 1}]
    config = BASE | {"study": BASE["study"] | node}
    study = read_study(config, overridden={"optimizer.learning_rate", "model.width"})
    assert (study.nuisance, study.tuning_seeds) == ({}, ())


def test_settings_may_be_of_an_option_that_is_tuned():
    """Such as a schedule of pruning that needs a longer run."""
    node = {"factors": {"model.width": [8, 64]}, "nuisance": {"optimizer": ["SGD", "Adam"]}}
    settings = read(**node, settings=[{"when": {"optimizer": "Adam"}, "set": {"model.depth": 5}}]).settings
    tuned = dict(nuisance={"optimizer": ("SGD", "Adam")}, tuning_seeds=(100,), settings=settings)
    first = expand(node["factors"], (0,), **tuned)
    chosen = [{"optimizer": "Adam"}, {"optimizer": "SGD"}]
    final = expand(node["factors"], (0,), chosen=chosen, **tuned)
    plain = BASE["model"]["depth"]
    assert [t.config["model"]["depth"] for t in first] == [plain, 5, plain, 5]
    assert [t.config["model"]["depth"] for t in final] == [5, plain]
    part = Study("s", "?", node["factors"], (0,), {}, "val_accuracy", settings=settings)  # as controls have it
    assert len(grid.arms.of(part)) == 2
    with pytest.raises(StudyError, match="expected some of its levels SGD, Adam"):
        read(**node, settings=[{"when": {"optimizer": "Lion"}, "set": {"model.depth": 5}}])


def test_an_arm_that_is_not_tuned_is_as_its_settings_have_it():
    node = {"factors": {"optimizer": ["SGD", "Adam"]}, "nuisance": {f: list(levels) for f, levels in RATES.items()}}
    rule = {"when": {"optimizer": "SGD"}, "set": {"optimizer.learning_rate": 3}, "tune": False}
    settings = read(**node, settings=[rule]).settings
    tuned = dict(nuisance=RATES, tuning_seeds=(100,), settings=settings)
    first = expand(node["factors"], (0, 1), **tuned)
    assert [(t.arm["optimizer"], len(t.nuisance)) for t in first] == [("SGD", 0)] + [("Adam", 2)] * 6
    chosen = [dict.fromkeys(RATES), {"optimizer.learning_rate": 0.01, "model.width": 8}]
    final = expand(node["factors"], (0, 1), chosen=chosen, **tuned)
    assert [t.config["optimizer"]["learning_rate"] for t in final] == [3, 3, 0.01, 0.01]
    assert [t.config["model"]["width"] for t in final] == [64, 64, 8, 8]
    study = Study("s", "?", node["factors"], (0,), {}, "val_accuracy", nuisance=RATES, settings=settings)
    assert grid.remarks(study, final, lambda _: {"init"}) == ["not tuned, by study.settings: SGD"]


@pytest.mark.parametrize("exact", [False, True])
def test_a_nuisance_factor_applies_where_there_is_such_a_setting(exact):
    nuisance = {"optimizer.learning_rate": (0.1, 0.01), "optimizer.momentum": (0.5, 0.8)}
    tuned = dict(nuisance=nuisance, tuning_seeds=(100, 101), exact=exact)
    first = expand({"optimizer": ["SGD", "Adam"]}, **tuned)
    assert [(t.arm["optimizer"], *t.nuisance.values()) for t in first[::2]] == [
        *(("SGD", rate, momentum) for rate in (0.1, 0.01) for momentum in (0.5, 0.8)),
        *(("Adam", rate) for rate in (0.1, 0.01)),
    ]
    assert len({t.key for t in first}) == len(first) == 12
    assert all(t.config["optimizer"].get("momentum") == t.nuisance.get("optimizer.momentum") for t in first)
    # What tuning gives an arm that lacks it is null.
    chosen = [{"optimizer.learning_rate": 0.01, "optimizer.momentum": m} for m in (0.8, None)]
    final = expand({"optimizer": ["SGD", "Adam"]}, chosen=chosen, **tuned)
    assert [t.nuisance for t in final] == [chosen[0], {"optimizer.learning_rate": 0.01}]
    study = Study("s", "?", {"optimizer": ("SGD", "Adam")}, (0,), {}, "val_accuracy", nuisance=nuisance)
    assert grid.remarks(study, final, limits.drawn) == [
        "optimizer.momentum is tuned where there is such a setting, so not for Adam"
    ]


def test_a_nuisance_factor_of_a_nuisance_option_applies_to_that_option():
    nuisance = {"optimizer.momentum": (0.5, 0.8), "optimizer": ("SGD", "Adam")}
    trials = expand({"model.depth": [2]}, nuisance=nuisance, tuning_seeds=(100,))
    tried = [(t.nuisance["optimizer"], t.nuisance.get("optimizer.momentum")) for t in trials]
    assert tried == [("SGD", 0.5), ("Adam", None), ("SGD", 0.8)]


def test_a_nuisance_factor_that_no_arm_has_is_refused():
    with pytest.raises(StudyError, match=r"study.nuisance names optimizer.nosuch, and no arm has such a setting"):
        expand({"optimizer": ["SGD", "Adam"]}, nuisance={"optimizer.nosuch": (1, 2)}, tuning_seeds=(100,))


def test_what_is_drawn_of_a_seed_depends_on_what_is_trained(config):
    always = {"split", "init", "order"}
    for overrides, streams in [
        ([], set()),
        (["model.dropout=0.1"], {"dropout"}),
        (["data.crop=1"], {"augment"}),
        (["data.label_noise=0.1"], {"noise"}),
        (["regularizer=mixup"], {"noise"}),
        (["regularizer=l2"], set()),
        (["model=application"], {"dropout"}),
        (["+regularizer._target_=mine.rule"], {"noise"}),
    ]:
        assert limits.drawn(config(overrides)) == always | streams
    assert limits.drawn(config(["seeds.init=0", "seeds.dropout=0", "model.dropout=0.1"])) == {"split", "order"}


def test_seeds_that_are_one_run_are_said_to_be_and_refused_if_all_are(config):
    pins = ["seeds.split=0", "seeds.init=0"]
    options = {"base": config(pins), "overrides": pins, "compose": config, "settle": compose.settle}
    study = Study("s", "?", {"seeds.order": (None, 0)}, (0, 1), {}, "val_accuracy")
    trials = expand(study.factors, study.seeds, **options)
    [said] = grid.remarks(study, trials, limits.drawn)
    assert "2 seeds of order=0 are one run" in said
    assert grid.remarks(study, trials[2:3], limits.drawn) == []
    with pytest.raises(StudyError, match=r"2 seeds are one run.*seeds.init=null.*study.seeds=1"):
        grid.remarks(study, trials[2:], limits.drawn)


@pytest.mark.parametrize(
    ("metric", "by"),
    [
        ("test_accuracy", "val_accuracy"),
        ("train_loss", "val_loss"),
        ("running_loss", "val_loss"),
        ("val_loss", "val_loss"),
        ("last_val_loss", "val_loss"),
        ("best_val_accuracy", "val_accuracy"),
        ("ema_test_loss", "ema_val_loss"),
    ],
)
def test_tuning_is_on_validation_only(metric, by):
    assert read(metric=metric).tuning_metric == by


@pytest.mark.parametrize(
    ("node", "received", "allowed"),
    [
        ({"nuisance": 3}, "study.nuisance=3", "a mapping"),
        ({"nuisance": {"nosuch": [1]}}, "study.nuisance names nosuch", "data, model"),
        ({"nuisance": {"model.width": []}}, "study.nuisance.model.width=[]", "one level or more"),
        ({"nuisance": {"model": {"width": [8]}}}, "study.nuisance.model", "'+study.nuisance={model.width: [2, 8]}'"),
        ({"nuisance": {"model.width": [8, 8]}}, "study.nuisance.model.width has the level 8 twice", "leave one out"),
        ({"nuisance": {"model.depth": [2]}}, "names model.depth, and so does study.factors", "leave it out of one"),
        ({"nuisance": {"model.width": [8]}, "tuning_seeds": 2}, "share 0", "[100, 101, 102]"),
        ({"nuisance": {"model.width": [8]}, "seeds": [7, 101]}, "share 101", "measured afresh"),
        ({"tuning_seeds": []}, "study.tuning_seeds=[]", "a list of seeds"),
        ({"baseline": {"model.width": 8}, "nuisance": {"model.width": [8]}}, "baseline names model.width", "factors"),
        ({"skip": [{"model.width": 8}], "nuisance": {"model.width": [8]}}, "skip[0] names model.width", "factors"),
    ],
)
def test_wrong_nuisance_factors_are_refused(node, received, allowed):
    with pytest.raises(StudyError) as error:
        arms(**node)
    assert received in str(error.value) and allowed in str(error.value)


@pytest.mark.parametrize(
    ("node", "received", "allowed"),
    [
        ({"zip": "optimizer"}, "study.zip=optimizer", "a list, such as [[optimizer"),
        (
            {"zip": [["optimizer", "model.width"]]},
            "study.zip names model.width",
            "optimizer.learning_rate, model.depth",
        ),
        ({"zip": [["optimizer", "optimizer"]]}, "a factor twice", "one group at most"),
        (
            {"factors": GRID | {"model.depth": [1, 2, 3]}, "zip": [["optimizer", "model.depth"]]},
            "optimizer (2), model.depth (3)",
            "as many levels",
        ),
        ({"skip": {"optimizer": "SGD"}}, "study.skip={", "a list, such as"),
        ({"skip": [{}]}, "study.skip[0] is empty", "such as"),
        ({"skip": [{"model.width": 3}]}, "study.skip[0] names model.width", "factors of the study"),
        ({"only": [{"model.depth": 3}]}, "study.only[0] names model.depth=3", "its levels 2, 8"),
        ({"only": [{"model.depth": [2, "8"]}]}, "study.only[0] names model.depth=8", "its levels 2, 8"),
        ({"settings": [{"optimizer": "SGD"}]}, "study.settings[0]", "when and set"),
        ({"settings": [{"when": {"optimizer": "SGD"}, "set": {}, "tune": 1}]}, "study.settings[0].tune=1", "false"),
        (
            {"settings": [{"when": {"optimizer": "SGD"}, "set": {"optimiser.learning_rate": 1}}]},
            "study.settings[0].set names optimiser.learning_rate",
            "optimizer",
        ),
        (
            {"settings": [{"when": {"optimizer": "SGD"}, "set": {"model.width": [{"a": 1}]}}]},
            "study.settings[0].set.model.width=",
            "a name, a number or a list",
        ),
        (
            {"settings": [{"when": {"optimizer": "SGD"}, "set": {"optimizer.beta_1": 1}}]},
            "optimizer.beta_1=1 does not fit optimizer=SGD",
            "learning_rate, momentum",
        ),
        (
            {"zip": [["optimizer", "model.depth"]], "skip": [{"optimizer": "SGD", "model.depth": 8}]},
            "study.skip has a rule that matches no arm",
            "Leave it out",
        ),
        ({"skip": [{"model.depth": [2, 8]}]}, "leave no arm", "leave a rule out"),
    ],
)
def test_a_wrong_rule_is_refused(node, received, allowed):
    with pytest.raises(StudyError) as error:
        arms(**node)
    assert received in str(error.value) and allowed in str(error.value)


def test_settings_of_data_that_came_later_leave_a_claims_card_as_it_was():
    later = {"resize": "stretch", "unreadable": "refuse", "folds": None, "fold": 0}
    before = _fixed(BASE)
    assert _fixed(BASE | {"data": BASE["data"] | later}) == before
    assert _fixed(BASE | {"data": BASE["data"] | later | {"folds": 5}}) != before


def folded(**node):
    return BASE | {"data": BASE["data"] | {"folds": 3, "fold": 0}, "study": BASE["study"] | node}


def test_folds_are_no_arms_and_folds_left_out_are_said():
    study = read_study(folded(question=None, factors={"data.fold": [0, 1, 2], "model.depth": [2, 4]}))
    assert study.compared == ["model.depth"] and list(study.factors) == ["data.fold", "model.depth"]
    assert study.question == "How does val accuracy depend on model.depth?"
    for levels, said in (([0, 1, 2], []), ([0, 2], ["data.fold takes 2 of 3 folds: the images of the others never"])):
        study = read_study(folded(factors={"data.fold": levels}))
        trials = expand(study.factors, base=folded())
        lines = grid.remarks(study, trials, lambda _: {"init"})
        assert [line.removesuffix(" validate") for line in lines] == said


@pytest.mark.parametrize(
    ("node", "use"),
    [
        ({"factors": {"model.depth": [2, 4]}, "nuisance": {"data.fold": [0, 1]}}, "tuned"),
        ({"factors": {"data.fold": [0, 1]}, "baseline": {"data.fold": 0}}, "a baseline"),
        (
            {"factors": {"data.fold": [0, 1], "model.depth": [2, 4]}, "zip": [["data.fold", "model.depth"]]},
            "moved along with another factor",
        ),
    ],
)
def test_folds_are_refused_where_they_would_be_compared(node, use):
    with pytest.raises(StudyError, match=rf"data\.fold is {use}: expected it among study\.factors alone"):
        read_study(folded(**node))


def test_a_study_that_asks_nothing_is_given_a_question():
    def question(**settings):
        return read_study(BASE | {"study": BASE["study"] | settings}).question

    assert question(question=None) == "How does one network train?"
    factors = {"optimizer": ["SGD"], "model.depth": [2], "model.width": [8]}
    assert question(question=None, factors=factors) == (
        "How does val accuracy depend on optimizer, model.depth and model.width?"
    )
    assert question(question="Why?", factors=factors) == "Why?"
