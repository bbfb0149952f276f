"""Who may import whom: DESIGN.md's rules, held against the imports themselves, those inside functions too."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text())
    for package in ("studies", "analysis")
    for path in sorted((ROOT / package).rglob("*.py"))
}
OURS = {name for name in MODULES if name.startswith("studies.")}
NOTEBOOKS = {name for name in MODULES if name.startswith("analysis.notebooks")}
ANALYSIS = {name for name in MODULES if name.startswith("analysis")} - NOTEBOOKS

TRAINING = {
    f"studies.{name}"
    for name in ("trial", "engine", "models", "initializers", "optimizers", "regularizers", "augmentation")
}
"""They import TensorFlow, so the driver must not import them."""

DRIVER = {
    f"studies.{name}"
    for name in (
        "run",
        "design",
        "arms",
        "executors",
        "worker",
        "compiled",
        "machine",
        "tracking",
        "store",
        "progress",
        "limits",
        "cost",
        "driver",
        "sweep",
        "contract",
        "early_warnings",
        "provenance",
        "terminal",
    )
}

MAY_IMPORT = {
    "studies.design": {"studies.arms"},
    "studies.data": {"studies.images", "studies.cache"},
    "studies.compiled": {"studies.cache", "studies.machine"},
    "studies.worker": {"studies.compiled", "studies.machine"},
    "studies.executors": {"studies.worker", "studies.machine"},
    "studies.engine": {"studies.diagnostics"},
    "studies.initializers": {"studies.targets"},
    "studies.store": {"studies.contract"},
    "studies.tracking": {"studies.contract", "studies.store"},
    "studies.targets": {"studies.limits"},
    "studies.trial": OURS - DRIVER,
    "studies.driver": OURS - TRAINING - {"studies.run"} | ANALYSIS,
    "studies.run": OURS - TRAINING | ANALYSIS,
} | dict.fromkeys(ANALYSIS | NOTEBOOKS, ANALYSIS | {"studies.contract"})
"""What a module may import of ours besides `studies.record` and `studies.terminal`; nothing for those not here."""

ONLY_IN = {
    "mlflow": {"studies.tracking", "analysis.runs"},
    "hydra": {"studies.run"},
    "omegaconf": {"studies.run"},
    "tensorflow": TRAINING,
    "keras": TRAINING,
}


def imports(tree: ast.AST) -> Iterator[str]:
    """The modules that a tree imports, by their full names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in names)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_those_it_may(module):
    ours = {name for name in imports(MODULES[module]) if name.partition(".")[0] in ("studies", "analysis")}
    assert ours <= MAY_IMPORT.get(module, set()) | {"studies.record", "studies.terminal"}


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_imported_only_where_it_belongs(library):
    users = {module for module, tree in MODULES.items() if library in {n.partition(".")[0] for n in imports(tree)}}
    assert users and users <= ONLY_IN[library]


def test_record_imports_only_the_standard_library():
    assert set(imports(MODULES["studies.record"])) <= sys.stdlib_module_names


def test_a_command_is_safe_to_interrupt_before_it_imports_anything_else():
    assert {name.partition(".")[0] for name in imports(MODULES["studies.terminal"])} <= sys.stdlib_module_names
    for package in ("studies", "analysis"):
        tree = ast.parse((ROOT / package / "__init__.py").read_text())
        assert list(imports(tree)) == ["sys", "studies.terminal"]


def test_the_driver_does_not_import_tensorflow():
    code = (
        "import sys, studies.run, studies.tracking, studies.executors, studies.design, studies.progress\n"
        "import analysis.compare, analysis.report\n"
        "assert not {'tensorflow', 'keras'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
