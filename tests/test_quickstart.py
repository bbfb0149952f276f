"""The README's commands, in a copy of the repository made of what git would give a newcomer."""

import os
import platform
import re
import subprocess
import textwrap
from pathlib import Path

import pytest

from analysis import compare, load
from benchmarks import readme
from studies.record import StudyError

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
MAIN_JOB = readme.MAIN_JOB.read_text()


def make(copy, target, **environment):
    return subprocess.run(
        ["make", target],
        cwd=copy,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def labels(text):
    """The columns of the first table of arms in a text, and the labels of its rows; without the numbers."""
    start = text.index(next(line for line in text.splitlines() if line.strip().startswith("initializer ")))
    header, rule, *rows = textwrap.dedent(text[start:].partition("\n\n")[0]).splitlines()
    assert set(rule) == {"-", " "}
    return re.split("  +", header.strip()), [row.split()[:2] for row in rows]


def parts(text):
    """A document's text before, between and after the marks of what is made."""
    return re.split(f"{readme.BEGIN}|{readme.END}", text)


@pytest.mark.slow
def test_make_study_runs_the_main_job(copy, monkeypatch, capsys):
    done = make(copy, "study")
    assert done.returncode == 0, done.stderr
    trials = load.trials("init_comparison", copy / "mlruns")
    assert len(trials) == 120 and not (trials["status"] == "crashed").any()
    mean = trials[trials["status"] == "finished"].groupby(["initializer", "model.depth"])["val_accuracy"].mean()
    # The story that the study's head tells.
    assert mean["he_normal", 2] > 0.93 and mean["normal_large", 2] > 0.8
    for unscaled in ("zeros", "normal_small", "random_uniform"):
        assert mean[unscaled, 8] < 0.2
    assert (
        trials[trials["initializer"] == "normal_large"].set_index("model.depth").loc[16, "status"] == "diverged"
    ).all()
    for scaled in ("glorot_uniform", "lecun_normal", "he_normal", "orthogonal"):
        assert mean[scaled, 8] > 0.85 and mean[scaled, 16] > 0.2
    assert "95 % interval" in done.stdout and "difference to glorot_uniform" in done.stdout

    monkeypatch.chdir(copy)
    assert compare.main(["init_comparison", "--format", "markdown"]) == 0
    assert capsys.readouterr().out.count("\n| ") >= 24

    printed = next(part for part in done.stdout.split("\n\n") if part.startswith("initializer "))
    assert labels(readme.part(copy / "mlruns")) == labels(printed) == labels(MAIN_JOB)
    command = [".venv/bin/python", "-m", "benchmarks.readme", "--root", "mlruns"]
    subprocess.run(command, cwd=copy, check=True, capture_output=True)
    page = copy / "docs" / "main_job.md"
    monkeypatch.setattr(readme, "MAIN_JOB", page)
    for again in (False, True):  # the second time nothing changes
        assert not again or readme.main(command[3:]) == 0
        after = page.read_text()
        assert textwrap.indent(printed, "    ") in after
        for place in (0, -1):
            assert parts(after)[place] == parts(MAIN_JOB)[place]
    assert "Made on " in after and f"{platform.machine()}, " in after and platform.node() not in after


@pytest.mark.slow
def test_make_test_lints_and_runs_the_tests(copy):
    few = "tests/test_names.py --maxprocesses 1"
    done = make(copy, "test", PYTEST_ADDOPTS=few)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All checks passed" in done.stdout and "Success: no issues found" in done.stdout and " passed" in done.stdout

    (copy / "studies" / "badly_written.py").write_text("import os\n")
    assert make(copy, "test", PYTEST_ADDOPTS=few).returncode != 0


def test_the_readme_names_the_two_commands_first():
    first = [line.split("#")[0].strip() for line in README.splitlines() if line.startswith("    ")][:2]
    assert first == ["make study", "make test"]


def test_only_what_is_between_a_documents_marks_is_made_anew(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(MAIN_JOB)
    readme.fill(page, "\n    new\n\n", readme.BEGIN, readme.END)
    assert "    new\n" in page.read_text() and "normal_large" not in parts(page.read_text())[1]
    readme.fill(page, parts(MAIN_JOB)[1], readme.BEGIN, readme.END)
    assert page.read_text() == MAIN_JOB
    for broken in ("", *(MAIN_JOB.replace(mark, "") for mark in (readme.BEGIN, readme.END)), MAIN_JOB + readme.BEGIN):
        page.write_text(broken)
        with pytest.raises(StudyError, match=r"page.md: expected one line <!-- made by"):
            readme.fill(page, "new", readme.BEGIN, readme.END)


def test_every_place_of_the_map_is_there_and_every_folder_and_module_above_them_is_in_it():
    lines = (ROOT / "docs" / "map.md").read_text().splitlines()
    named = " ".join(line for line in lines if line.startswith("    "))
    for place in re.findall(r"\b(?:conf|studies|analysis|benchmarks|tests)/[\w./]*", named):
        assert (ROOT / place.rstrip(".")).exists(), place
    words = set(re.findall(r"\w+", named))
    for package in ("studies", "analysis"):
        for place in (ROOT / package).iterdir():
            if place.is_dir() and any(place.glob("*.py")):
                assert f"{package}/{place.name}/" in named, place
            elif place.suffix == ".py" and place.stem not in ("__init__", "command"):
                assert place.stem in words, place


def test_the_readme_is_a_page_and_every_link_of_the_documents_leads_somewhere():
    assert len(README.splitlines()) <= 120
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        text = page.read_text()
        headings = {
            re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-")
            for line in text.splitlines()
            if line.startswith("#")
        }
        for target, anchor in re.findall(r"\]\(([\w./]*)#?([\w-]*)\)", text):
            assert (page.parent / target).exists() and (target or anchor in headings), (page, target, anchor)
    named = set(re.findall(r"docs/(\w+)\.md", README))
    assert named == {page.stem for page in (ROOT / "docs").glob("*.md")}


def test_the_lock_names_no_registry():
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock and "--hash=sha256:" in lock and "tensorflow==" in lock
