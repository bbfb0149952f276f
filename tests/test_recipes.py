"""The commands that the README and the documents show: each is planned or run as it is written."""

import importlib
import io
import re
import shlex
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from conftest import lasting_executors
from PIL import Image

from analysis import load
from studies import run

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

SHORTER = ("study.seeds=1", "study.tuning_seeds=[100]", "training.epochs=1", "model.depth=1")
"""What ends a command that is run here; of a setting that is given twice the later counts."""

OF_OPTIMIZERS = ("study.factors={optimizer:[momentum,adam]}", "study.settings=[]")
"""What besides ends one of the study that compares them all: each has a graph of its own."""

TESTED = ("analysis.ui", "analysis.notebooks", "analysis.footprint")
"""What has slow tests of its own, which run it as it is written."""


def recipes(page):
    """The commands of a page, a list of words each: indented lines, which a backslash goes on."""
    text = re.sub(r"\\\n +", "", page.read_text(encoding="utf-8"))
    lines = [line.strip() for line in text.splitlines() if line.startswith("    python -m ")]
    return [shlex.split(line, comments=True)[2:] for line in lines]


def commands(module, pages=PAGES):
    """Those of a module, each once, as text and without it."""
    found = dict.fromkeys(shlex.join(words[1:]) for page in pages for words in recipes(page) if words[0] == module)
    return list(found)


@pytest.fixture(scope="module")
def executors():
    """Their workers start in the folder of a test here, which has `mine`."""
    with lasting_executors() as made:
        yield made


@pytest.fixture
def here(cli, executors, mine, monkeypatch):
    """As elsewhere, with workers of these tests alone."""
    monkeypatch.setattr(run, "EXECUTORS", executors)
    return cli


@pytest.fixture
def planned(here):
    return lambda *arguments: here("plan=true", *arguments)


@pytest.fixture
def mine(tmp_path):
    """The user's images and arrays that the recipes name, in the working folder."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (60, 8, 8), dtype=np.uint8), np.arange(60) % 3
    np.savez(tmp_path / "mine.npz", x=images, y=labels)
    with tarfile.open(tmp_path / "mine.tar.xz", "w:xz") as archive:
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            Image.fromarray(image).save(png := io.BytesIO(), format="png")
            member = tarfile.TarInfo(f"mine/{'abc'[label]}/{number}.png")
            member.size = len(png.getvalue())
            archive.addfile(member, io.BytesIO(png.getvalue()))
    return tmp_path


def test_there_are_recipes_and_every_module_that_they_name_is_there():
    named = {words[0] for page in PAGES for words in recipes(page)}
    assert {"studies.run", "analysis.compare", "analysis.report", "analysis.claims"} <= named
    assert len(commands("studies.run")) > 30 and len(recipes(ROOT / "README.md")) >= 9
    for module in named:
        assert importlib.util.find_spec(module), module


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in commands("studies.run") if "--help" not in c and "joblib" not in c])
def test_what_is_trained_is_planned_as_it_is_written(planned, mine, mnist_root, cifar10_root, command):
    code, said, error = planned(*shlex.split(command))
    assert code == 0, error
    assert "trial" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [c for c in commands("studies.run", PAGES[:1]) if "plan=true" not in c and "claims/" not in c]
)
def test_the_readmes_studies_run(here, mine, fresh, command):
    shutil.copytree(fresh, mine / "mlruns")
    words = [*shlex.split(command), *SHORTER, *OF_OPTIMIZERS * ("+study=optimizer_comparison" in command)]
    code, said, error = here(*words)
    assert code == 0, error
    assert "report    " in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "command"),
    [
        (module, command)
        for module in sorted({words[0] for page in PAGES for words in recipes(page)})
        if module.startswith("analysis.") and module not in TESTED
        for command in commands(module)
    ],
)
def test_what_is_read_is_run_as_it_is_written(shipped, monkeypatch, tmp_path, capsys, module, command):
    words = shlex.split(command)
    if named := [word for word in words[:1] if not word.startswith("-") and word not in load.studies(shipped)]:
        pytest.skip(f"{named[0]} is a study of a page's own, which its tests make")
    shutil.copytree(shipped, tmp_path / "mlruns")
    monkeypatch.chdir(tmp_path)
    assert importlib.import_module(module).main(words) == 0, capsys.readouterr().err
    assert capsys.readouterr().out.strip()
