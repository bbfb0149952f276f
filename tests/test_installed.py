"""The package as pip installs it: one wheel, one command, run in a folder that has nothing of the checkout."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from studies import __main__ as entry
from studies import terminal

ROOT = Path(__file__).parent.parent

STUDY = """\
# @package _global_
study: {factors: {compute.x: [1, 2]}, metric: twice}
compute: {_target_: mymodule.double, x: 1}
targets: {allow: [mymodule.]}
"""


@pytest.fixture(scope="module")
def wheel(copy):
    """Built of what git has or would take, by the tools that are here."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", "dist", "."]
    subprocess.run(command, cwd=copy, check=True, capture_output=True)
    [built] = (copy / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A function that runs the installed command in a folder; dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True)
    [packages] = folder.glob("lib/*/site-packages")
    (packages / "shared.pth").write_text(sysconfig.get_path("purelib"))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PATH"] = f"{folder / 'bin'}:{environment['PATH']}"

    def run(*words, cwd):
        return subprocess.run(
            ["weight-studies", *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
        )

    return run


def test_the_wheel_has_every_file_of_the_packages(wheel):
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "studies", "analysis", "conf"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    there = [name for name in files if (ROOT / name).exists() and not name.startswith("analysis/notebooks/")]
    wanted = {f"studies/{name}" if name.startswith("conf/") else name for name in there}
    has = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert has == wanted


def test_an_installed_command_works_in_any_folder(installed, tmp_path):
    (tmp_path / "conf" / "study").mkdir(parents=True)
    (tmp_path / "conf" / "study" / "doubles.yaml").write_text(STUDY)
    (tmp_path / "mymodule.py").write_text('def double(x): return {"twice": 2.0 * x}\n')
    done = installed("run", "+study=doubles", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 trials, 0 finished before, 2 to run" in done.stdout
    assert "\ntables    weight-studies compare doubles\n" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} >= {"conf", "mlruns", "mymodule.py"}

    plan = json.loads(installed("plan", "+study=doubles", "--format", "json", cwd=tmp_path).stdout)
    assert (plan["finished"], plan["to_run"]) == (2, 0)
    [listed] = json.loads(installed("list", "doubles", "--format", "json", cwd=tmp_path).stdout)
    assert (listed["own"], listed["finished"], listed["executions"]) == (True, 2, 1)
    assert "init_comparison\n    Which initializers" in installed("list", cwd=tmp_path).stdout
    assert installed("compare", "--help", cwd=tmp_path).stdout.startswith("usage: weight-studies compare ")


def called(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["studies", *words])
    return entry.main(), *capsys.readouterr()


def test_the_command_says_what_there_is(monkeypatch, capsys):
    for words in ([], ["--help"], ["-h"]):
        code, output, error = called(monkeypatch, capsys, *words)
        assert (code, error) == (0, "") and output.startswith("usage: python -m studies COMMAND")
        assert all(f"\n  {name} " in output for name in entry.COMMANDS)
        assert max(map(len, output.splitlines())) <= 80
    code, _, error = called(monkeypatch, capsys, "comprae")
    assert code == 2 and "did you mean compare?" in error
    code, _, error = called(monkeypatch, capsys, "+study=x")
    assert code == 2 and "python -m studies run +study=x" in error


@pytest.mark.parametrize("name", sorted(entry.COMMANDS.keys() - {"run", "plan"}))
def test_each_command_helps(monkeypatch, capsys, name):
    for word in ("--help", "-h"):
        with pytest.raises(SystemExit) as ended:
            called(monkeypatch, capsys, name, word)
        output, error = capsys.readouterr()
        assert (ended.value.code, error) == (0, "") and output.startswith("usage: ") and name in output.splitlines()[0]


def test_what_is_to_be_pasted_is_called_as_this_command_was(monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", [".venv/bin/python", "-m", "studies.run"])
    monkeypatch.setattr(sys, "argv", ["/x/studies/run.py"])
    assert terminal.spoken("analysis.compare", "a b") == ".venv/bin/python -m analysis.compare 'a b'"
    monkeypatch.setattr(sys, "argv", ["/nowhere/bin/weight-studies", "run"])
    assert terminal.spoken("analysis.compare", "a") == "/nowhere/bin/weight-studies compare a"
    monkeypatch.setattr(terminal.shutil, "which", lambda name: "/nowhere/bin/weight-studies")
    assert terminal.spoken("studies.run", "+study=a") == "weight-studies run +study=a"
