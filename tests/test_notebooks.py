"""The notebooks: as they are in git, and run anew on small studies in a copy of the project."""

import re
import shutil
from pathlib import Path

import jupytext
import nbformat
import pytest

from analysis.notebooks.__main__ import FOLDER, METADATA, executed

ROOT = Path(__file__).parent.parent
NAMES = sorted(script.stem for script in FOLDER.glob("[!_]*.py"))

SHORT = (
    ("your_own_study", '"optimizer=momentum",', '"optimizer=momentum", "training.epochs=2",'),
    ("from_sentence_to_verdict", "training: {epochs: 10}", "training: {epochs: 2}"),
    ("from_sentence_to_verdict", "draws: 6", "draws: 2"),
    ("from_sentence_to_verdict", "seeds: 12\n  looks: [6, 12]", "seeds: 4\n  looks: [2, 4]"),
    ("from_sentence_to_verdict", "0.1, 0.2, 0.5})", "0.2})"),
    (
        "from_sentence_to_verdict",
        '"+study=cyclical", *overrides',
        '"+study=cyclical", *overrides, "executor.workers=1"',
    ),
    ("your_own_study", '"studies.run", *overrides', '"studies.run", *overrides, "executor.workers=1"'),
)
"""What makes those short that train: a notebook, what is in it, and what is in its place; every worker compiles."""

MACHINE = re.compile(r"/tmp/|/dev/shm/|/home/|/root/|/Users/|site-packages|\x1b|a minute|s left")
"""Its paths, its terminal and its speed."""


def outputs(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def shown(notebook, kind):
    return [output.data[kind] for output in outputs(notebook) if kind in output.get("data", {})]


def check(notebook):
    """What holds of every executed notebook, whatever its studies."""
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in outputs(notebook))
    assert len(shown(notebook, "image/svg+xml")) >= 2
    assert len(shown(notebook, "image/png")) == len(shown(notebook, "image/svg+xml"))  # which needs no trust
    text = said(notebook) + "".join(text for output in outputs(notebook) for text in output.get("data", {}).values())
    text = re.sub(r"base64,[\w+/=\s]*", "", text)  # in which anything can be spelt
    assert not MACHINE.search(text), MACHINE.search(text)
    assert str(ROOT) not in text and str(Path.home()) not in text


def said(notebook):
    return "".join(output.text for output in outputs(notebook) if output.get("name") == "stdout")


def test_there_are_notebooks():
    assert {
        *("compare_initializers", "weights_through_training", "optimizers_and_schedules", "your_own_study"),
        "from_sentence_to_verdict",
    } <= {*NAMES}
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == {*NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_and_its_script_are_the_same_cells(name):
    script, notebook = jupytext.read(FOLDER / f"{name}.py"), nbformat.read(FOLDER / f"{name}.ipynb", 4)
    assert [(c.cell_type, c.source) for c in script.cells] == [(c.cell_type, c.source) for c in notebook.cells], (
        f"{name}.ipynb is not what {name}.py gives: run make notebooks"
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_executed_and_shows_nothing_of_the_machine(name):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", 4)
    check(notebook)
    assert notebook.metadata == METADATA and all(not cell.metadata for cell in notebook.cells)
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 1_500_000


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_finds_the_project_from_its_own_folder_and_from_the_projects(name, monkeypatch):
    lines = jupytext.read(FOLDER / f"{name}.py").cells[1].source.splitlines()
    find = [line for line in lines if line.startswith(("import os", "from pathlib", "os.chdir"))]
    assert len(find) == 3
    for start in (FOLDER, ROOT):
        monkeypatch.chdir(start)
        exec("\n".join(find), {})
        assert Path.cwd() == ROOT


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_reads_the_execution_that_it_has_named(name):
    """Not the latest of the user's store, which may be of another design."""
    source = (FOLDER / f"{name}.py").read_text()
    read = re.findall(r"load\.(?:trials|epochs|layers|densities|settings)\((.*?)\)", source)
    unpinned = [words for words in read if "keys=" not in words and not re.search(r"\bstore\b", words)]
    assert unpinned == [] and 'load.execution("' not in re.sub(r"load\.execution\([^)]*store\)", "", source)
    assert source.count("load.pinned(") == source.count("executions.pinned(execution)")


@pytest.fixture(scope="module")
def project(copy, shipped):
    """A copy of the project, with the notebooks' studies cut small in its store, and the one in a notebook too."""
    shutil.copytree(shipped, copy / "mlruns", dirs_exist_ok=True)
    for name, long, short in SHORT:
        script = copy / "analysis" / "notebooks" / f"{name}.py"
        text = script.read_text()
        assert text.count(long) == 1
        script.write_text(text.replace(long, short))
    return copy


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_from_top_to_bottom_and_leaves_the_project_as_it_was(name, project):
    before = {path for path in project.rglob("*") if "__pycache__" not in path.parts}
    notebook = executed(project / "analysis" / "notebooks" / f"{name}.py")
    check(notebook)
    assert {path for path in project.rglob("*") if "__pycache__" not in path.parts} == before
    if name == "your_own_study":
        assert "12 trials, 0 finished before, 12 to run" in said(notebook)
        assert "32 trials, 12 finished before, 20 to run" in said(notebook)
    if name == "from_sentence_to_verdict":
        assert re.search("^(NOT SUPPORTED|INCONCLUSIVE|SUPPORTED): “Cyclical", said(notebook), re.M)
        designs = [text for text in shown(notebook, "text/plain") if "baseline not tuned" in text]
        assert len(designs) == 1 and designs[0].count("itself: ") == 3
