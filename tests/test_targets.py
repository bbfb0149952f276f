"""The door from a config node to an object: what it builds, and what it does not let through."""

import contextlib
import importlib
import inspect
import itertools
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from studies import origin
from studies.execute.pool import Pool
from studies.factors import limits, targets
from studies.record import StudyError

MINE = """
class Thing:
    def __init__(self, part=None, size=1):
        if size < 0:
            raise ValueError("size is negative\\nand so on")
        self.part, self.size = part, size

def unreadable():
    raise OSError("no such disk")

def anything(**arguments):
    return arguments

def typed(rate: float = 0.5, count=3, free=None):
    return {"rate": rate, "count": count, "free": free}

number = 3
"""
ROOT = Path(__file__).parent.parent


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
    further = {"workers": 2, "seed": 3}
    assert targets.build({"_target_": "studies.executors.Pool"}, "executor", [], **further).workers == 2
    assert targets.build({"_target_": "mine_of_tests.anything"}, "model", ["mine_of_tests."], **further) == further


def test_a_target_outside_its_groups_list_is_refused_at_any_depth_and_imports_nothing():
    hidden = {"_target_": "studies.models.mlp", "filters": [{"x": {"_target_": "mine_of_tests.Thing"}}]}
    message = refusal({"_target_": "mine_of_tests.Thing"}, allow=())
    for part in ("model._target_='mine_of_tests.Thing'", "studies.factors.models.mlp, ", "targets.allow=[mypackage.]"):
        assert part in message
    assert "model.filters[0].x._target_='mine_of_tests.Thing'" in refusal(hidden, allow=())
    assert "mine_of_tests" not in sys.modules


@pytest.mark.parametrize(
    ("group", "target"),
    [
        ("optimizer", "os.system"),
        ("optimizer", "keras.optimizers"),
        ("optimizer", "kerasx.optimizers.SGD"),
        ("optimizer", "keras.optimizers.schedules.CosineDecay"),
        ("optimizer", "keras.optimizers.legacy.SGD"),
        ("optimizer", "keras.initializers.Zeros"),
        ("optimizer", 3),
        ("optimizer", None),
        ("model", "keras.utils.get_file"),
        ("model", "keras.applications.resnet.decode_predictions"),
        ("model", "studies.models.standardized"),
        ("initializer", "keras.initializers.get"),
        ("initializer", "keras.initializers.deserialize"),
        ("initializer", "keras.initializers.Zeros.from_config"),
        ("initializer", "studies.initializers.targets.build"),
        ("initializer", "studies.initializers.Drawing"),
        ("regularizer", "keras.regularizers.serialize"),
        ("executor", "studies.task.resolve"),
        ("executor", "studies.pool.subprocess.Popen"),
        ("data", "studies.data._download"),
        ("data", "studies.executors.Pool"),
        ("clipping", "studies.optimizers.Lookahead"),
        ("schedule", "studies.schedules.in_steps"),
        ("training", "studies.models.mlp"),
    ],
)
def test_only_a_groups_own_options_are_let_through(group, target):
    with pytest.raises(StudyError, match=f"outside what {group} may be"):
        targets.refuse_unlisted({group: {"_target_": target}}, [])


def test_what_a_group_does_not_offer_itself_may_stand_inside_only_if_keras_takes_it():
    def refuse(inner):
        targets.refuse_unlisted({"model": {"_target_": "studies.models.mlp", "part": inner}}, [])

    refuse({"_target_": "keras.initializers.HeNormal"})
    for other in ("studies.data.npz", "studies.executors.Pool"):
        with pytest.raises(StudyError, match="outside what model may be"):
            refuse({"_target_": other})


@pytest.mark.parametrize(
    "argument",
    [
        {"class_name": "HeNormal", "config": {}},
        {"module": "builtins", "class_name": "eval", "config": {"expression": "1"}, "registered_name": None},
        [{"deep": {"registered_name": "x"}}],
    ],
)
def test_what_keras_would_import_is_refused_but_in_the_users_own(argument):
    with pytest.raises(StudyError, match="Keras would import"):
        targets.refuse_unlisted({"optimizer": {"_target_": "keras.optimizers.SGD", "x": argument}}, [])
    targets.refuse_unlisted({"optimizer": {"_target_": "mine_of_tests.anything", "x": argument}}, ["mine_of_tests."])


@pytest.mark.parametrize("weights", [{"weights": "imagenet"}, {"weights": "/etc/passwd"}, {}])
def test_trained_weights_are_neither_read_nor_downloaded(weights):
    with pytest.raises(StudyError, match="expected null"):
        targets.refuse_unlisted({"model": {"_target_": "keras.applications.MobileNet"} | weights}, [])


def test_a_target_has_one_name_wherever_its_module_stands(monkeypatch):
    monkeypatch.setattr(targets, "PLACES", {"studies.data.npz": "studies.arrays.npz", **targets.PLACES})
    names = {
        "studies.models.mlp": "studies.factors.models.mlp",
        "studies.data.npz": "studies.arrays.npz",
        "studies.data.digits": "studies.factors.data.digits",
        "keras.optimizers.SGD": "keras.optimizers.SGD",
    }
    for name, place in names.items():
        assert targets.canonical_name(name) == targets.canonical_name(place) == name
        assert targets.place_of(name) == targets.place_of(place) == place
    assert targets.canonical_name("studies.executors.Pool") == "studies.pool.Pool"
    assert targets.canonical_name("studies.optimizers.clip_by_norm") == "studies.clipping.clip_by_norm"
    long, short = ({"a": [{"_target_": name, "b": {"_target_": name}}]} for name in next(iter(names.items()))[::-1])
    assert targets.canonical(long) == targets.canonical(short) == short
    targets.refuse_unlisted({"model": {"_target_": "studies.factors.models.mlp"}}, [])


def test_every_place_is_there():
    for name, place in targets.PLACES.items():
        parts = place.split(".") if name.count(".") == 1 else place.split(".")[:-1]
        assert Path(ROOT, *parts).with_suffix(".py").is_file(), place


def offered():
    """Every group with every module it allows."""
    return [(group, module) for group, table in limits.GROUPS.items() for module in table.targets]


def reachable(group, module) -> dict:
    """What the door finds in a module for a group: each name that it has, tried."""
    found = {}
    for name in dir(importlib.import_module(targets.place_of(f"{module}.x").rpartition(".")[0])):
        try:
            targets.refuse_unlisted({group: {"_target_": f"{module}.{name}", "weights": None}}, [])
            found[name] = targets._find(f"{module}.{name}", group, [])
        except StudyError:
            continue
    return found


@pytest.mark.parametrize(("group", "module"), offered())
def test_what_the_door_finds_is_an_option_of_the_module_itself(tf, group, module):
    found = reachable(group, module)
    names = limits.GROUPS[group].targets[module]
    assert found and (not names or set(names) == set(found))
    assert targets.KINDS.get(module) not in found
    for name, target in found.items():
        assert not name.startswith("_") and name not in targets.READERS
        place = targets.place_of(f"{module}.{name}").rpartition(".")[0]
        assert target.__module__.replace("keras.src.", "keras.").startswith(place)
        assert target.__name__[0].isupper() or not module.startswith("keras.")


@pytest.mark.parametrize(("group", "module"), offered())
def test_no_target_acts_on_what_it_is_told(tf, tmp_path, group, module):
    """Whatever an option is given, nothing is imported, written, read, started, evaluated or asked of the network."""
    if module == "studies.data":
        pytest.skip("reads the user's files, which is its work")
    (tmp_path / "trap_of_tests.py").write_text("import pathlib; pathlib.Path(__file__).with_name('sprung').touch()")
    lures = ["trap_of_tests.x", "__import__('trap_of_tests')", f"{tmp_path}/trap_of_tests.py", {"config": {}}]
    acts = []
    with watched(acts):
        exec("'trap_of_tests'")
    assert len(acts) > 0  # the watch works
    acts.clear()
    with watched(acts):
        for name, target in reachable(group, module).items() if module != "keras.applications" else ():
            parameters = [p for p in inspect.signature(target).parameters.values() if p.kind is not p.VAR_KEYWORD]
            needed = {p.name: 1 for p in parameters if p.default is p.empty}
            for parameter, lure in itertools.product(parameters, lures):
                node = {"_target_": f"{module}.{name}"} | needed | {parameter.name: lure}
                with contextlib.suppress(Exception):  # refused, or made and of no use
                    made = targets.build(node, group, [])
                    if group == "initializer":
                        made((4, 4))
    assert acts == [] and not (tmp_path / "sprung").exists() and "trap_of_tests" not in sys.modules


def test_a_network_of_kerass_own_touches_no_file(tf):
    acts = []
    node = {"_target_": "keras.applications.MobileNet", "weights": None, "classifier_activation": None}
    with watched(acts):
        targets.build(node, "model", [], input_shape=(32, 32, 3), classes=3)
    assert acts == []


@contextlib.contextmanager
def watched(acts: list):
    """Collects what the interpreter is asked for meanwhile that an option has no business with."""
    WATCHERS.append(acts)
    try:
        yield
    finally:
        WATCHERS.remove(acts)


WATCHERS = []


def watch(event, arguments):
    if WATCHERS and event in ("open", "exec", "compile", "subprocess.Popen", "os.system", "socket.connect", "import"):
        place = str(arguments[0])
        own = event in ("open", "exec", "compile", "import") and "trap_of_tests" not in place
        if not own or (event == "open" and set(str(arguments[1])) & set("wax+")):
            WATCHERS[-1].append((event, place))


sys.addaudithook(watch)


@pytest.mark.parametrize(("given", "meant"), [(1, 1.0), (2.0, 2)])
def test_a_number_reaches_its_target_in_the_type_that_is_meant(given, meant):
    node = {"_target_": "mine_of_tests.typed", "rate": given, "count": given, "free": given}
    made = targets.build(node, "model", ["mine_of_tests."])
    assert (type(made["rate"]), type(made["count"]), type(made["free"])) == (float, int, type(given))
    half = targets.build({"_target_": "mine_of_tests.typed", "count": 0.5}, "model", ["mine_of_tests."])
    assert half["count"] == 0.5


def test_only_the_users_own_modules_are_named_as_theirs():
    inner = {"_target_": "others_of_tests.deep.x"}
    config = {
        "model": {"_target_": "mine_of_tests.Thing", "part": inner},
        "data": {"_target_": "studies.data.digits"},
        "optimizer": {"_target_": "keras.optimizers.SGD"},
    }
    allow = ["mine_of_tests.", "others_of_tests.", "keras.", "unused."]
    assert targets.users(config, allow) == ["mine_of_tests", "others_of_tests"]
    assert "mine_of_tests" not in sys.modules


def test_a_prefix_of_the_users_own_is_let_through():
    node = {"model": {"_target_": "mine_of_tests.Thing"}}
    targets.refuse_unlisted(node, ["mine_of_tests."])
    assert targets.build(node["model"], "model", ["mine_of_tests."]).size == 1


def test_what_cannot_be_found_is_refused_with_what_there_is():
    assert "mine_of_tests has no such callable; it has Thing, anything, typed, unreadable" in refusal(
        {"_target_": "mine_of_tests.Thng"}
    )
    assert "mine_of_tests has no such callable" in refusal({"_target_": "mine_of_tests.number"})
    assert "No module named 'mine_of_tests.nosuch'" in refusal({"_target_": "mine_of_tests.nosuch.Thing"})
    assert "cannot be imported: RuntimeError: broken as it is (" in refusal({"_target_": "broken_of_tests.Thing"})


def test_refused_arguments_are_named_with_those_the_target_takes():
    unknown = refusal({"_target_": "mine_of_tests.Thing", "foo": 1})
    assert "foo=1" in unknown and "(part=None, size=1)" in unknown and "'~model.foo'" in unknown
    missing = refusal({"_target_": "nosuch_of_tests.Thing"}, ["nosuch_of_tests."])
    assert f"in the folder that the command is started in, {Path.cwd()}, in those that PYTHONPATH names" in missing


def test_an_error_in_a_users_own_code_is_said_with_its_line_and_blames_no_setting(packages, tmp_path, monkeypatch):
    def said(node):
        monkeypatch.chdir(tmp_path)
        text = refusal(node)
        assert "was refused" not in text and "change the setting" not in text
        return text

    inner = said({"_target_": "mine_of_tests.Thing", "size": -1})
    assert "raised ValueError: size is negative and so on (mine_of_tests.py, line 5, in __init__)" in inner
    assert "OSError: no such disk (mine_of_tests.py, line 9, in unreadable)" in said(
        {"_target_": "mine_of_tests.unreadable"}
    )
    assert "RuntimeError: broken as it is (broken_of_tests.py, line 1, in <module>)" in said(
        {"_target_": "broken_of_tests.Thing"}
    )
    (tmp_path / "unparsed_of_tests.py").write_text("x = 1\ndef f(:\n")
    with pytest.raises(StudyError, match=r"SyntaxError: invalid syntax \(unparsed_of_tests.py, line 2\)$"):
        targets.build({"_target_": "unparsed_of_tests.f"}, "model", ["unparsed_of_tests."])


def test_the_line_of_a_users_own_is_found_behind_other_errors(tmp_path, monkeypatch):
    def raised(size):
        try:
            targets.build({"_target_": "mine_of_tests.Thing", "size": size}, "model", ["mine_of_tests."])
        except StudyError as error:
            return error

    monkeypatch.setattr(origin, "OURS", (*origin.OURS, f"{Path(__file__).parent}/"))
    assert origin.place(raised(-1)) == f"{tmp_path / 'mine_of_tests.py'}, line 5, in __init__"
    assert origin.place(raised("three")) == f"{tmp_path / 'mine_of_tests.py'}, line 4, in __init__"
    with pytest.raises(StudyError) as ours:
        targets.build({"_target_": "keras.Model"}, "model", [])
    assert origin.place(ours.value) == "" and origin.summary(KeyError()) == "KeyError"


def test_of_a_layer_that_keras_calls_its_own_error_is_said():
    import keras

    class Broken(keras.layers.Layer):
        def call(self, inputs):
            return inputs / self.nowhere

    for inputs in (keras.Input((3,)), keras.ops.ones((1, 3))):
        with pytest.raises(AttributeError) as error:
            Broken()(inputs)
        assert origin.summary(error.value).startswith("AttributeError: 'Broken' object has no attribute 'nowhere'")


def test_settings_that_a_users_own_does_not_take_are_to_be_left_out(monkeypatch, tmp_path):
    (tmp_path / "bare_of_tests.py").write_text("def build(input_shape, classes): return None\n")
    monkeypatch.syspath_prepend(tmp_path)
    node = {"_target_": "bare_of_tests.build", "depth": 2, "width": 64}
    with pytest.raises(StudyError, match=r"left out with '~model\.depth' '~model\.width', or .* conf/model/NAME\.yaml"):
        targets.build(node, "model", ["bare_of_tests."], input_shape=(3,), classes=2)


def test_settings_without_a_target_are_refused():
    assert "model has depth and no _target_" in refusal({"depth": 3})
