"""What no linter holds: hints on what is public, and examples in docstrings that are true."""

import ast
import doctest
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path.read_text(encoding="utf-8")
    for package in ("studies", "analysis")
    for path in sorted((ROOT / package).rglob("*.py"))
}
HINTED = 0.9
"""Of public functions, at least."""


def public(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    """The functions of a module, and the methods of its classes, whose names are public."""
    for node in tree.body:
        for each in node.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_") else [node]:
            if isinstance(each, ast.FunctionDef) and not each.name.startswith("_"):
                yield each


def is_hinted(function: ast.FunctionDef) -> bool:
    """Whether every argument and what is returned have hints."""
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    arguments = [argument for argument in named if argument is not None and argument.arg not in ("self", "cls")]
    return function.returns is not None and all(argument.annotation for argument in arguments)


def test_a_function_is_hinted_if_all_it_takes_and_gives_is():
    texts = ("(x: int, *y: int, **z: int) -> int", "(x: int, *y, **z: int) -> int", "(x: int)", "() -> None")
    assert [is_hinted(*public(ast.parse(f"def f{text}: ..."))) for text in texts] == [True, False, False, True]
    [method] = public(
        ast.parse("class A:\n def f(self, x: int) -> int: ...\n def _g(self): ...\nclass _B:\n def f(): ...")
    )
    assert is_hinted(method)


@pytest.mark.parametrize("package", ["studies", "analysis"])
def test_public_functions_have_hints(package):
    functions = {
        f"{module}.{function.name}": is_hinted(function)
        for module, text in SOURCES.items()
        if module.partition(".")[0] == package
        for function in public(ast.parse(text))
    }
    bare = [name for name, hinted in functions.items() if not hinted]
    assert len(functions) > 50
    assert len(bare) <= (1 - HINTED) * len(functions), bare


def test_there_are_examples_in_docstrings():
    assert "studies.contract" in EXAMPLES


EXAMPLES = [module for module, text in SOURCES.items() if ">>> " in text]


@pytest.mark.parametrize("module", EXAMPLES)
def test_examples_in_docstrings_are_true(module):
    done = doctest.testmod(importlib.import_module(module))
    assert done.attempted and not done.failed
