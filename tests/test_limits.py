"""The rules of settings: what they take, in which type they give it back, what they say of the rest."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studies.factors import limits
from studies.record import COMPUTED, IDENTITY, StudyError

anything = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers()), st.just({}),
)  # fmt: skip
numbers = st.integers() | st.floats()


def taken(rule, value) -> bool:
    try:
        rule(value)
    except ValueError:
        return False
    return True


@given(numbers, st.floats(-10, 10), st.floats(-10, 10))
def test_a_number_is_taken_between_its_bounds_and_becomes_a_float(value, a, b):
    low, high = sorted((a, b))
    for rule, is_inside in (
        (limits.number(low, high), low <= value <= high),
        (limits.number(above=low, below=high), low < value < high),
        (limits.number(low), low <= value < math.inf),
    ):
        assert taken(rule, value) == is_inside
        if is_inside:
            assert type(rule(value)) is float and rule(value) == value


@given(anything)
def test_rules_take_nothing_of_another_type(value):
    kind = type(value)
    assert taken(limits.number(), value) == (kind in (int, float) and abs(value) < math.inf)
    assert taken(limits.whole(3), value) == (kind is int and value >= 3)
    assert taken(limits.flag, value) == (kind is bool)
    assert taken(limits.text, value) == (kind is str and value != "")
    assert taken(limits.many(limits.whole(0)), value) == (kind is list and value != [] and min(value) >= 0)
    assert taken(limits.optional(limits.flag), value) == (value is None or kind is bool)


def test_a_number_too_large_for_a_float_is_refused():
    assert not taken(limits.number(0), 10**400)


def test_one_of_some_names_tells_true_from_one():
    rule = limits.one_of("auto", True, False)
    assert [taken(rule, value) for value in ("auto", True, False, 1, 0, "true", None)] == [True] * 3 + [False] * 4
    with pytest.raises(ValueError, match="one of auto, true, false"):
        rule(1)


def test_a_share_is_less_than_one():
    assert [taken(limits.share, value) for value in (0, 0.999, 1, -0.001)] == [True, True, False, False]


@pytest.mark.parametrize(("value", "good"), [("mine.", True), ("a.b.", True), ("os", False), (".", False), ("", False)])
def test_an_allowed_prefix_ends_in_a_dot(value, good):
    assert taken(limits.LIMITS["targets.allow"], [value]) == good


def test_an_allow_list_may_be_empty_but_is_no_text():
    assert taken(limits.LIMITS["targets.allow"], []) and not taken(limits.LIMITS["targets.allow"], "os.")


def test_settled_gives_settings_their_types_and_keeps_what_it_does_not_know():
    around = {"sam": 0, "lookahead": 0, "slow_step": 0.5, "ema": 0}
    own = {"learning_rate": 1, "momentum": 0, "mine": 1, "deep": {"x": [1]}}
    optimizer = {"_target_": "mine.Optimizer", **own, **around}
    settled = limits.settled({"optimizer": optimizer, "model": {"_target_": "m", "depth": 2}, "pruning": {}})
    assert settled["optimizer"] == optimizer
    types = [type(settled["optimizer"][name]) for name in ("learning_rate", "momentum", "mine")]
    assert types == [float, float, int]
    assert type(settled["model"]["depth"]) is int and settled["pruning"] == {}


def test_settling_twice_is_settling_once(config):
    settled = limits.settled({name: part for name, part in config().items() if name != "study"})
    assert limits.settled(settled) == settled


@pytest.mark.parametrize(
    ("part", "node", "received", "allowed"),
    [
        ("model", {"_target_": "m", "depth": -1}, "model.depth=-1", "a whole number of 1 or more"),
        ("model", {"_target_": "m", "depth": True}, "model.depth=true", "a whole number of 1 or more"),
        ("model", {"_target_": "m", "depth": {"x": 1}}, "model.depth={'x': 1}", "a whole number of 1 or more"),
        ("model", {"_target_": "m", "dropout": 1}, "model.dropout=1", "a number from 0 below 1"),
        ("model", {"_target_": "m", "filters": []}, "model.filters=[]", "a list of 1 or more"),
        ("model", {"_target_": "m", "activation": "rellu"}, "model.activation=rellu", "relu, relu6"),
        ("model", {"_target_": "m", "deep": {"x": math.inf}}, "model.deep.x=inf", "a finite number"),
        ("optimizer", {"_target_": "o", "learning_rate": "abc"}, "optimizer.learning_rate=abc", "a number above 0"),
        ("optimizer", {"_target_": "o"}, "optimizer.learning_rate is missing", "optimizer.learning_rate=VALUE"),
        ("targets", {"allow": "os."}, "targets.allow=os.", "a list"),
        ("targets", {"allow": ["os"]}, "targets.allow=['os']", "[mypackage.]"),
        ("diagnostics", {"observe": 1}, "diagnostics.observe=1", "observe_every"),
        ("diagnostics", {}, "diagnostics.observe_every is missing", "diagnostics.observe_every=VALUE"),
        ("engine", None, "engine=null", "threads, xla"),
        ("tracking", {"root": None}, "tracking.root=null", "a text"),
        ("regularizer", {"l2": 0.1}, "regularizer is none", "regularizer=NAME"),
    ],
)
def test_a_wrong_setting_is_refused(part, node, received, allowed):
    with pytest.raises(StudyError) as error:
        limits.settled({part: node})
    assert received in str(error.value) and allowed in str(error.value)


def test_the_table_has_every_part_of_the_identity(config):
    parts = config().keys() - {"study", "seed", "plan", "force", "claim"}
    assert limits.GROUPS.keys() == parts and set(IDENTITY) == parts - {
        "checkpoints",
        "compute",
        "profile",
        "executor",
        "tracking",
        "targets",
    }
    assert set(COMPUTED) == {"compute", "engine"}


def test_settings_that_any_optimizer_takes_have_their_types():
    optimizer = {"_target_": "o", "learning_rate": 1, "sam": 0, "lookahead": 0, "slow_step": 1, "ema": 0}
    settled = limits.settled({"optimizer": optimizer | {"loss_scale_factor": 1024, "clipnorm": 1}})["optimizer"]
    assert type(settled["loss_scale_factor"]) is type(settled["clipnorm"]) is float
    with pytest.raises(StudyError, match=r"gradient_accumulation_steps=4.0: expected a whole number"):
        limits.settled({"optimizer": optimizer | {"gradient_accumulation_steps": 4.0}})


def test_a_schedule_of_the_users_own_may_set_the_momentum_and_so_shapes_the_graph(config):
    def graph(**schedule):
        return limits.graph(config() | {"schedule": schedule})

    ours = [{"_target_": "studies.schedules.one_cycle", "peak": peak, "low_momentum": None} for peak in (0.1, 0.2)]
    mine = [{"_target_": "mine.cycle", "low": low} for low in (0.1, 0.2)]
    assert graph(**ours[0]) == graph(**ours[1]) != graph(**ours[0] | {"low_momentum": 0.8})
    assert graph(**mine[0]) != graph(**mine[1]) != graph(**ours[0])
    wanted = [{"schedule", "optimizer", "targets"}, {"schedule", "targets"}]
    for schedule, parts in zip((mine[0], ours[0]), wanted, strict=True):
        assert parts in [set(check) for check in limits.checks(config() | {"schedule": schedule})]


def test_a_schedules_length_beyond_the_run_is_refused(config):
    def settled(*overrides):
        return limits.settled({name: part for name, part in config(overrides).items() if name != "study"})

    assert settled("schedule.warmup='20 epochs'")
    for name, value in (("warmup", "'21 epochs'"), ("at", "[0.5, '30 epochs']")):
        with pytest.raises(StudyError, match=rf"schedule.{name}=.* 20 epochs at most"):
            settled(f"schedule={'step' if name == 'at' else 'constant'}", f"schedule.{name}={value}")


def test_a_place_counts_where_no_content_does(config):
    parts = {name: part for name, part in config([]).items() if name != "study"}

    def identity(**node):
        return limits.identity(parts | {"data": parts["data"] | node})

    assert identity(path="a", content="") != identity(path="b", content="")
    assert identity(path="a", content="c") == identity(path="b", content="c") != identity(path="a", content="d")


@pytest.mark.parametrize("value", [0, 0.0, "0 epochs", 1.0])
def test_a_period_is_not_nothing(value):
    assert not taken(limits.LIMITS["schedule.period"], value) and taken(limits.LIMITS["schedule.period"], 0.1)
    assert taken(limits.LIMITS["schedule.warmup"], value) == (value != 1.0)
