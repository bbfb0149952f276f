"""Whatever is put together on the command line is answered: with a plan, or with one paragraph on what is wrong."""

import math
import re

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studies.command import compose
from studies.design.grid import written
from studies.design.study import STUDY
from studies.factors import data, limits
from studies.record import FIGURES, IDENTITY, METRICS, StudyError

GROUPS = {group: compose.options(group) for group in compose.groups() if group != "study"}
OPTIONS = [(group, option) for group, options in GROUPS.items() for option in options]
SETTINGS = [path for path in limits.LIMITS if path not in ("plan", "force")]

names = st.sampled_from(
    [*GROUPS, *SETTINGS, "study", "model", "optimizer._target_", "nosuch", "model.nosuch", "a.b.c", "hydra.nosuch", ""]
)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.sampled_from([10**30, -1e-9, 0.1, 0.5, 1.0, 1e308, math.nan, math.inf]),
    st.sampled_from(["relu", "he_normal", "zeros", "sgd", "adam", "auto", "5 epochs", "none", "val_loss", "os.system"]),
    texts,
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=2), max_leaves=4
)
raw = st.one_of(
    texts,
    st.sampled_from(
        ["${nosuch}", "${model.depth}", "${oc.env:NOSUCH}", "???", "[", "{a", "'", "1,2", "range(3)", "x y"]
    ),
)
options = st.sampled_from(OPTIONS)


def spelled(value) -> str:
    """A value in Hydra's grammar, whatever it holds."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{spelled(str(k))}:{spelled(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return f"[{','.join(map(spelled, value))}]"
    return str(value) if isinstance(value, float) and not math.isfinite(value) else written(value)


def one_of_a_group(factor):
    return st.sampled_from(GROUPS[factor]) if factor in GROUPS else scalars


mostly_right = st.sampled_from(
    ["initializer", "optimizer", "regularizer", "model.depth", "model.width", "optimizer.learning_rate", "seeds.init"]
)
factors = mostly_right | names
levels = {
    "model.depth": st.integers(1, 4),
    "model.width": st.integers(1, 4),
    "optimizer.learning_rate": st.sampled_from([0.1, 0.01, 1]),
    "seeds.init": st.sampled_from([None, 0, 3]),
}


def level_of(factor):
    return levels[factor] if factor in levels else one_of_a_group(factor)


ranges = st.fixed_dictionaries(
    {"low": st.sampled_from([0.001, 1, 2])},
    optional={"high": scalars, "scale": st.sampled_from(["log", "linear", "ln"]), "whole": st.booleans()},
)
rules = mostly_right.flatmap(
    lambda f: st.fixed_dictionaries({f: level_of(f) | st.lists(level_of(f), max_size=2)})
) | st.dictionaries(factors, values, max_size=2)
designs = {
    role: st.lists(factors, max_size=3, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: st.lists(level_of(name), max_size=3) | ranges for name in names})
    )
    for role in ("factors", "nuisance")
} | {
    "zip": st.lists(st.lists(factors, max_size=3), max_size=2),
    "skip": st.lists(rules, max_size=2),
    "only": st.lists(rules, max_size=2),
    "settings": st.lists(st.fixed_dictionaries({"when": rules, "set": rules}), max_size=2),
    "baseline": rules,
    "seeds": st.sampled_from([1, 3, [0, 7], [100], 10**9]),
    "draws": st.sampled_from([None, 0, 1, 3, 10**9]),
    "points": st.sampled_from([None, 0, 1, 3, 10**9]),
    "extend": st.sampled_from([True, False, None, 1]),
    "tuning_seeds": st.sampled_from([2, [0], [100, 101], [], 10**9]),
    "metric": st.sampled_from(METRICS),
    "figures": st.lists(st.sampled_from(FIGURES), max_size=2),
    "looks": st.sampled_from([[], [3], [6, 3], [1], "x"]),
    "name": texts,
    "question": texts,
}
assert designs.keys() == set(STUDY)


@st.composite
def right(draw):
    """A word of a command line that is right by itself, or nearly."""
    kind = draw(st.sampled_from(["option", "setting", "design", "design", "design"]))
    if kind == "option":
        return "=".join(draw(options))
    if kind == "setting":
        return f"{draw(st.sampled_from(SETTINGS))}={spelled(draw(scalars))}"
    part = draw(st.sampled_from(STUDY))
    return f"++study.{part}={spelled(draw(designs[part]))}"


@st.composite
def wrong(draw):
    """A word that is wrong in some way: its name, its value or its grammar."""
    kind = draw(st.sampled_from(["option", "design", "study", "anything", "broken"]))
    plus = draw(st.sampled_from(["", "+", "++", "~"]))
    if kind == "option":
        return f"{plus}{draw(options)[0]}={draw(raw)}"
    if kind == "design":
        return f"++study.{draw(st.sampled_from(STUDY))}={spelled(draw(values))}"
    if kind == "study":
        return f"{plus}study={draw(st.sampled_from(compose.options('study')) | raw)}"
    if kind == "anything":
        return f"{plus}{draw(names | texts)}={draw(raw | values.map(spelled))}"
    return f"{plus}{draw(names | texts)}{draw(texts)}"


@st.composite
def commands(draw):
    """Words of a command line; one that starts with a dash is an option, and argparse's to answer."""
    words = draw(st.lists(st.sampled_from([f"+study={name}" for name in compose.options("study")]), max_size=1))
    words += draw(st.lists(right(), max_size=4)) + draw(st.lists(wrong(), max_size=1))
    return [word for word in words if not word.startswith("-")]


@pytest.fixture
def answered(planned, monkeypatch, tmp_path_factory):
    """A function that gives words to the command line, and holds its answer against the rule."""
    folder = tmp_path_factory.mktemp("datasets")
    images, labels = np.zeros((30, 28, 28), np.uint8), np.arange(30) % 10
    for name in ("mnist", "fashion_mnist", "cifar10", "cifar100"):
        pictures = images if "mnist" in name else np.zeros((30, 32, 32, 3), np.uint8)
        np.savez(folder / f"{name}.npz", x_train=pictures, y_train=labels, x_test=pictures, y_test=labels)
    monkeypatch.setenv("STUDIES_DATA", str(folder))
    monkeypatch.setattr(data.subprocess, "run", lambda *_, **__: pytest.fail("it would have gone to the network"))
    elsewhere = tmp_path_factory.mktemp("nothing_is_written_here")
    monkeypatch.chdir(elsewhere)

    def call(words):
        code, output, error = planned(*words)
        assert list(elsewhere.iterdir()) == []
        if code == 0:
            assert error == "" and re.search(r"^ *estimated time: about ", output, re.MULTILINE)
        else:
            assert code == 2 and re.fullmatch(r"error: \S[^\n]*\n", error), error
        return code, error

    return call


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(commands())
def test_any_command_line_is_answered_by_a_plan_or_by_one_paragraph(answered, words):
    answered(words)


def wrong_values(value):
    """What cannot stand in the place of a setting's value, whatever its limits."""
    kinds = {"a text": "wrong", "a number": math.nan, "a list": [[]], "a mapping": {"a": 1}, "too much": 1e400}
    return [wrong for wrong in kinds.values() if wrong != "wrong" or not isinstance(value, str | None)]


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_a_wrong_value_of_any_options_setting_is_refused_by_its_name(config, group, option):
    base = {name: part for name, part in config().items() if name != "study"}
    base[group] = compose.body(group, option)
    for name, value in base[group].items():
        path = f"{group}.{name}"
        if path not in limits.LIMITS:
            continue
        for wrong in wrong_values(value):
            with pytest.raises(StudyError) as error:
                limits.settled(base | {group: base[group] | {name: wrong}})
            assert str(error.value).startswith(f"{path}="), (path, wrong, str(error.value))


@pytest.mark.parametrize("group", sorted(set(GROUPS) & set(IDENTITY)))
def test_the_command_line_refuses_a_wrong_value_by_the_settings_name(answered, group):
    for option in GROUPS[group][:1]:
        node = yaml.safe_load((compose.CONF / group / f"{option}.yaml").read_text()) or {}
        for name in node:
            if f"{group}.{name}" in limits.LIMITS:
                code, error = answered([f"{group}={option}", f"{group}.{name}=[[]]"])
                assert code == 2 and f"{group}.{name}=" in error
