"""Who may import whom, by folder, held against the imports themselves, those inside functions too."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from studies.factors import targets

ROOT = Path(__file__).parent.parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(path.read_text())
    for package in ("studies", "analysis")
    for path in sorted((ROOT / package).rglob("*.py"))
}
WORDS = {
    *("studies.record", "studies.contract", "studies.terminal", "studies.origin", "studies.processor"),
    *("studies.masking", "studies.address", "studies.waiting"),
}
"""They need the standard library alone, so anybody may import them."""

WITHOUT_TENSORFLOW = {f"studies.factors.{name}" for name in ("targets", "limits", "data", "images", "cache")}
"""What the driver may know of the factors."""

FOLDERS = {
    "studies.design": set(),
    "studies.execute": set(),
    "studies.factors": set(),
    "studies.observe": set(),
    "studies.store": set(),
    "studies.train": {"studies.factors", "studies.observe"},
    "studies.edge": {"studies.factors", "studies.train"},
    "studies.compute": {"studies.factors", "studies.train", "studies.edge"},
    "studies.command": {"studies.design", "studies.execute", "studies.store", "studies.observe", *WITHOUT_TENSORFLOW},
    "analysis.read": set(),
    "analysis.estimate": {"analysis.read", "analysis.load"},
    "analysis.show": {"analysis.read", "analysis.load", "analysis.estimate"},
    "analysis.notebooks": {"analysis"},
}
"""What a folder may import of ours besides itself and `WORDS`: folders, or modules."""

COMMANDS = {"analysis.read", "analysis.estimate", "analysis.show", "analysis"}
MODULES_OWN = {
    "studies": WORDS,
    "analysis": WORDS,
    "studies.run": {
        "studies.run",
        "studies.command",
        "studies.design",
        "studies.store",
        "analysis",
        *WITHOUT_TENSORFLOW,
    },
    "studies.replay": {
        *("studies.replay", "studies.command", "studies.execute", "studies.factors.limits"),
        *("analysis", "analysis.read", "analysis.show"),
    },
    "studies.edge.__main__": {"studies.execute"},
    "studies.command.driver": FOLDERS["studies.command"] | {"analysis"},
    "studies.command.replay": FOLDERS["studies.command"] | {"analysis", "analysis.estimate"},
    "studies.command.plan": FOLDERS["studies.command"] | {"analysis"},
    "studies.callback": {"studies.train", "studies.observe", "studies.store", "studies.command.provenance"},
}
"""Modules that may import otherwise than their folder."""

IN_THE_GRAPH = {"studies.observe.activations", "studies.observe.curvature"}
"""What is observed with TensorFlow; the driver reads early warnings without it."""

ONLY_IN = {
    "mlflow": {"studies.store", "analysis.read"},
    "psycopg": {"studies.store", "analysis.read"},
    "optuna": {"analysis.estimate.importance"},
    "hydra": {"studies.run", "studies.command.compose", "studies.command.explain", "studies.command.trust"},
    "omegaconf": {"studies.run", "studies.command.compose", "studies.command.explain", "studies.command.trust"},
    "tensorflow": {"studies.train", "studies.factors", "studies.compute", "studies.edge", *IN_THE_GRAPH},
    "keras": {"studies.callback", "studies.train", "studies.factors", "studies.compute", "studies.edge", *IN_THE_GRAPH},
}
"""The folders or modules that may import a library."""


def imports(tree: ast.AST) -> Iterator[str]:
    """The modules that a tree imports, by their full names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in names)


def within(module: str, places: set[str]) -> bool:
    """Whether a module is one of the places, or in one that is a folder."""
    return any(module == place or module.startswith(f"{place}.") for place in places)


def allowed(module: str) -> set[str]:
    """What a module may import of ours, besides `WORDS`."""
    folder = next((folder for folder in FOLDERS if within(module, {folder})), None)
    if module in MODULES_OWN:
        return MODULES_OWN[module] | ({folder} if folder else set())
    if module in WORDS:
        return set()
    return FOLDERS[folder] | {folder} if folder else COMMANDS


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_those_it_may(module):
    ours = {name for name in imports(MODULES[module]) if name.partition(".")[0] in ("studies", "analysis")}
    assert {name for name in ours - WORDS if not within(name, allowed(module))} == set()


def test_no_arrow_between_folders_runs_back_up():
    def reached(folder, seen=()):
        assert folder not in seen, f"{folder} imports itself by way of {seen}"
        for other in FOLDERS.get(folder, ()):
            if other in FOLDERS and other != folder:
                reached(other, (*seen, folder))

    for folder in FOLDERS:
        reached(folder)


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_imported_only_where_it_belongs(library):
    users = {module for module, tree in MODULES.items() if library in {n.partition(".")[0] for n in imports(tree)}}
    assert users and all(within(user, ONLY_IN[library]) for user in users)
    if library in ("tensorflow", "keras"):
        assert not users & WITHOUT_TENSORFLOW


@pytest.mark.parametrize("module", sorted(WORDS))
def test_the_words_that_all_share_need_the_standard_library_alone(module):
    assert {name.partition(".")[0] for name in set(imports(MODULES[module])) - WORDS} <= sys.stdlib_module_names


def test_a_command_is_safe_to_interrupt_before_it_imports_anything_else():
    for package in ("studies", "analysis"):
        assert list(imports(MODULES[package])) == ["sys", "studies.terminal"]


def test_the_driver_does_not_import_tensorflow_nor_what_tests_need():
    code = (
        "import sys, studies.run, studies.store.writer, studies.execute.pool, studies.command.progress\n"
        "import analysis.compare, analysis.report, analysis.claims\n"
        "from analysis.estimate import paired, ratios, success, time_to_target\n"
        "assert not {'tensorflow', 'keras', 'statsmodels', 'scipy.stats', 'optuna'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_no_function_is_longer_than_a_screen():
    long = [
        f"{module}.{function.name}"
        for module, tree in MODULES.items()
        for function in functions(tree)
        if function.end_lineno - function.lineno >= 60
    ]
    assert long == []


def test_the_loop_names_no_factor():
    groups = [group for group in (ROOT / "conf").iterdir() if group.is_dir() and group.name != "profile"]
    options = {path.stem for group in groups for path in group.glob("*.yaml")}
    groups = {"initializer", "optimizer", "schedule", "regularizer", "clipping", "pruning", "augmentation"}
    words = {node.id for node in ast.walk(MODULES["studies.train.trial"]) if isinstance(node, ast.Name)}
    words |= {node.attr for node in ast.walk(MODULES["studies.train.trial"]) if isinstance(node, ast.Attribute)}
    words |= {str(n.value) for n in ast.walk(MODULES["studies.train.trial"]) if isinstance(n, ast.Constant)}
    assert not words & (groups | options)


CONFIG = {"study", "data", "targets"}
"""Modules that are called as a part of a config is."""

NO_ADDRESSES = (".yaml", ".md", ".html", ".json", ".parquet", ".db", ".NAME")


def addresses(tree) -> Iterator[str]:
    """The addresses of ours in a module's docstrings."""
    ours = {"studies", "analysis", "estimates"} | {module.rpartition(".")[2] for module in MODULES}
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            for address in re.findall(r"`([a-z_]+(?:\.[A-Za-z_]+)+)`", text):
                if address.partition(".")[0] in ours - CONFIG and not address.endswith(NO_ADDRESSES):
                    yield address


def missing(address: str) -> bool:
    """Whether there is no such module, by the end of its path, and no such name in one."""
    path, _, name = address.rpartition(".")
    path = targets.PLACES.get(path, path)
    if any(f".{module}".endswith(f".{address}") for module in MODULES):
        return False
    return not any(name in named(tree) for module, tree in MODULES.items() if f".{module}".endswith(f".{path}"))


def named(tree) -> set[str]:
    """What a module's body names."""
    assigned = [node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
    names = {each.id for node in assigned for each in ast.walk(node) if isinstance(each, ast.Name)}
    return names | {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


@pytest.mark.parametrize("module", MODULES)
def test_what_a_docstring_points_to_is_there(module):
    assert [address for address in addresses(MODULES[module]) if missing(address)] == []


def test_an_address_that_moved_is_seen():
    tree = ast.parse("def f():\n    'From `estimates.comparison`, `comparison.scored` or `nowhere.at_all`.'")
    assert [missing(address) for address in addresses(tree)] == [True, False]
