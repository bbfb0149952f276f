"""Every YAML in conf/ says what it is, composes, keeps to the limits and builds; a study is what its header says."""

import functools
import itertools
import re
from pathlib import Path

import hydra
import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf
from PIL import Image

from studies.command import compose
from studies.design import grid
from studies.design.study import read_study
from studies.factors import limits, targets
from studies.factors.data import source

CONF = Path(__file__).parent.parent / "conf"
FILES = sorted(CONF.rglob("*.yaml"))
GROUPS = {
    folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
    for folder in sorted(CONF.iterdir())
    if folder.is_dir()
}
STUDIES = [*GROUPS.pop("study"), *(f"claims/{path.stem}" for path in sorted((CONF / "study/claims").glob("*.yaml")))]
OPTIONS = [(group, option) for group, options in GROUPS.items() for option in options]


@pytest.fixture(scope="session")
def composed(config):
    """A function from a group and an option to a whole config with it: the n-th one has every group's n-th option."""

    @functools.cache
    def nth(n):
        return config([f"{group}={options[n % len(options)]}" for group, options in GROUPS.items()])

    return lambda group, option: nth(GROUPS[group].index(option))


def leaves(node: dict, path: str = ""):
    for name, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{name}.")
        elif name != "_target_":
            yield f"{path}{name}", value


def header(path: Path) -> str:
    """The comments a file opens with, as one line."""
    lines = path.read_text().splitlines()
    end = next(place for place, line in enumerate(lines) if not line.startswith("#"))
    return " ".join(" ".join(line.lstrip("#").strip() for line in lines[:end]).split())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONF)))
def test_a_file_opens_with_a_comment(path):
    assert len(header(path)) > 5


def test_no_file_chooses_hydras_mode():
    """Else `compose.once` would have to look for it."""
    nodes = [(yaml.safe_load(path.read_text()) or {}).get("hydra") or {} for path in FILES]
    assert [node for node in nodes if "mode" in node] == [] and any(nodes)


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_an_option_keeps_to_the_limits(composed, group, option):
    parts = composed(group, option).items()
    config = {name: part for name, part in parts if name not in ("study", "claim", "compute")}
    settled = limits.settled(config)
    assert settled == config
    for path, value in leaves(config):
        if not isinstance(value, str):
            assert path in limits.RULES, f"{path}={value} has no rule"


def test_every_rule_is_of_a_setting(composed):
    settings = {path for group, option in OPTIONS for path, _ in leaves(composed(group, option))}
    assert limits.LIMITS.keys() <= settings


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_an_option_builds(composed, tf, tmp_path, group, option):
    node = composed(group, option)[group]
    arguments = {"model": {"input_shape": (32, 32, 3), "classes": 10}}.get(group, {})
    if group == "data":
        images, labels = np.zeros((30, 28, 28), np.uint8), np.arange(30) % 10
        file = tmp_path / f"{node.get('name', option)}.npz"
        np.savez(file, x_train=images, y_train=labels, x_test=images, y_test=labels)
        for place in range(6):
            picture = tmp_path / "train" / str(place % 2) / f"{place}.png"
            picture.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[place]).save(picture)
        found = {"path": str(tmp_path if option == "image_folder" else file), "root": str(tmp_path)}
        node = source(node) | {name: path for name, path in found.items() if name in node}
    if group == "optimizer":
        from studies.train.parts import build_optimizer

        assert build_optimizer(node, []) is not None
    elif group in ("regularizer", "clipping") and node:
        from studies.train.steps import option as rule

        assert rule(node, group, []) is not None
    elif "_target_" in node:
        assert targets.build(node, group, [], **arguments) is not None
    else:
        assert node == {} or group in limits.PLAIN


def test_every_initializer_of_keras_is_an_option(tf):
    from keras import initializers

    has = {getattr(initializers, name) for name in dir(initializers) if isinstance(getattr(initializers, name), type)}
    targets = [yaml.safe_load(path.read_text())["_target_"] for path in (CONF / "initializer").glob("*.yaml")]
    named = {getattr(initializers, t.rpartition(".")[2]) for t in targets if t.startswith("keras.")}
    assert has - {initializers.Initializer, initializers.STFT} == named


def test_every_optimizer_of_keras_is_an_option(tf):
    import keras

    base = keras.optimizers.Optimizer
    classes = {
        found for found in vars(keras.optimizers).values() if isinstance(found, type) and issubclass(found, base)
    }
    nodes = [yaml.safe_load(path.read_text()) for path in (CONF / "optimizer").glob("*.yaml")]
    named = {getattr(keras.optimizers, node["_target_"].rpartition(".")[2]) for node in nodes}
    assert classes - {base, keras.optimizers.LossScaleOptimizer, keras.optimizers.MultiOptimizer} == named


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_is_what_its_header_says(name):
    overrides = [f"+study={name}"]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        composed = hydra.compose("config", overrides, return_hydra_config=True)
        choices = OmegaConf.to_container(composed.hydra.runtime.choices)
        base = compose.resolved(OmegaConf.masked_copy(composed, [part for part in composed if part != "hydra"]))
        study, composed_by = read_study(base), compose.composer(base, overrides, choices)
        trials = grid.expand(study, base, choices, overrides, composed_by, compose.settle, exact=False)
    says = header(CONF / "study" / f"{name}.yaml")
    assert study.name == name.rpartition("/")[2]
    assert study.question in says
    assert int(re.search(r"Cost: ([\d,]+) trials?,", says)[1].replace(",", "")) == len(trials)
    assert "Expected: " in says
    assert f"Run: python -m studies.run +study={name}" in says


def test_claims_have_their_places_in_the_article():
    cards = [yaml.safe_load(path.read_text())["claim"] for path in (CONF / "study/claims").glob("*.yaml")]
    places = sorted((card["number"], card["chapter"]) for card in cards)
    assert all(1 <= number <= 27 for number, _ in places)
    chapters = [chapter for chapter, _ in itertools.groupby(places, key=lambda place: place[1])]
    assert len(chapters) == len(set(chapters))
