"""The door from a config node to an object: what it builds, and what it does not let through."""

import sys
from datetime import timedelta

import pytest

from studies import targets
from studies.data import Split
from studies.executors import Pool
from studies.record import StudyError

MINE = """
class Thing:
    def __init__(self, part=None, size=1):
        if size < 0:
            raise ValueError("size is negative\\nand so on")
        self.part, self.size = part, size

def anything(**arguments):
    return arguments

number = 3
"""


@pytest.fixture(autouse=True)
def packages(tmp_path, monkeypatch):
    """Two packages of the user's own, the second of which cannot be imported."""
    (tmp_path / "mine_of_tests.py").write_text(MINE)
    (tmp_path / "broken_of_tests.py").write_text("raise RuntimeError('broken as it is')")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("mine_of_tests", None)


def refusal(node, allow=("mine_of_tests.", "broken_of_tests."), **arguments) -> str:
    with pytest.raises(StudyError) as error:
        targets.build(node, "model", list(allow), **arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_node_becomes_an_object_and_an_empty_one_none():
    pool = targets.build({"_target_": "studies.executors.Pool", "workers": 3}, "executor", [])
    assert type(pool) is Pool and pool.workers == 3
    assert targets.build({}, "pruning", []) is None and targets.build(None, "pruning", []) is None


def test_nested_nodes_are_built_first():
    inner = {"_target_": "datetime.timedelta", "days": 2}
    node = {"_target_": "mine_of_tests.Thing", "part": inner, "size": 2}
    thing = targets.build(node, "model", ["mine_of_tests.", "datetime."])
    assert thing.part == timedelta(days=2) and thing.size == 2


def test_further_arguments_reach_only_those_who_take_them():
    further = {"train": 1, "seed": 3}
    split = targets.build({"_target_": "studies.data.Split", "val": 2, "test": 3}, "data", [], **further)
    assert split == Split(1, 2, 3)
    assert targets.build({"_target_": "mine_of_tests.anything"}, "model", ["mine_of_tests."], **further) == further


def test_a_target_outside_the_allow_list_is_refused_at_any_depth_and_imports_nothing():
    hidden = {"_target_": "studies.data.Split", "train": [{"x": {"_target_": "mine_of_tests.Thing"}}]}
    message = refusal({"_target_": "mine_of_tests.Thing"}, allow=())
    for part in ("model._target_='mine_of_tests.Thing'", "keras.optimizers., ", "targets.allow=[mypackage.]"):
        assert part in message
    assert "model.train[0].x._target_='mine_of_tests.Thing'" in refusal(hidden, allow=())
    assert "mine_of_tests" not in sys.modules


@pytest.mark.parametrize(
    "target", ["os.system", "keras.optimizers", "kerasx.optimizers.SGD", "keras.utils.get_file", 3, None]
)
def test_only_what_starts_with_an_allowed_prefix_is_let_through(target):
    with pytest.raises(StudyError, match="outside the allow list"):
        targets.refuse_unlisted({"optimizer": {"_target_": target}}, [])


def test_a_prefix_of_the_users_own_is_let_through():
    node = {"model": {"_target_": "mine_of_tests.Thing"}}
    targets.refuse_unlisted(node, ["mine_of_tests."])
    assert targets.build(node["model"], "model", ["mine_of_tests."]).size == 1


def test_what_cannot_be_found_is_refused_with_what_there_is():
    assert "mine_of_tests has no such callable; it has Thing, anything" in refusal({"_target_": "mine_of_tests.Thng"})
    assert "mine_of_tests has no such callable" in refusal({"_target_": "mine_of_tests.number"})
    assert "No module named 'studies.nosuch'" in refusal({"_target_": "studies.nosuch.Thing"})
    assert "cannot be imported: broken as it is" in refusal({"_target_": "broken_of_tests.Thing"})


def test_refused_arguments_are_named_with_those_the_target_takes():
    unknown = refusal({"_target_": "mine_of_tests.Thing", "foo": 1})
    assert "foo=1" in unknown and "(part=None, size=1)" in unknown and "model.NAME=VALUE" in unknown
    assert "Thing(size=-1) was refused: size is negative." in refusal({"_target_": "mine_of_tests.Thing", "size": -1})


def test_settings_without_a_target_are_refused():
    assert "model has depth and no _target_" in refusal({"depth": 3})
