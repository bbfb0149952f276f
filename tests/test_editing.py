"""The schema holds for every study that ships and for no typo; completion is what a shell is told."""

import json
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from studies import __main__ as entry
from studies.command import editing

CONF = Path(__file__).parent.parent / "conf"


@pytest.fixture(scope="module")
def schema():
    made = editing.schema()
    jsonschema.Draft202012Validator.check_schema(made)
    return jsonschema.Draft202012Validator(made)


@pytest.mark.parametrize("path", sorted((CONF / "study").rglob("*.yaml")), ids=lambda path: path.stem)
def test_a_study_that_ships_holds(schema, path):
    assert [error.message for error in schema.iter_errors(yaml.safe_load(path.read_text()))] == []


@pytest.mark.parametrize(
    "typo",
    [
        "studdy: {}",
        "study: {factrs: {}}",
        "study: {factors: {modle.depth: [1]}}",
        "study: {factors: {model.depth: [0]}}",
        "study: {factors: {initializer: [he_nrmal]}}",
        "study: {factors: {optimizer.learning_rate: {low: .1, hihg: 2}}}",
        "study: {seeds: 0}",
        "study: {figures: [loss]}",
        "training: {epoch: 3}",
        "optimizer: {learning_rate: -1}",
        "optimizer: {lerning_rate: 1}",
        "model: {activation: rleu}",
        "defaults: [override /model: mpl]",
        "defaults: [override /modl: mlp]",
        "claim: {id: a}",
    ],
)
def test_a_typo_does_not(schema, typo):
    assert not schema.is_valid(yaml.safe_load(typo))


def test_ones_own_holds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "tiny.yaml").write_text("_target_: mine.tiny\n")
    made = jsonschema.Draft202012Validator(editing.schema())
    for text in ("study: {factors: {model: [mlp, tiny], model.spread: [1, 2]}}", "model: {_target_: mine.x, y: 1}"):
        assert made.is_valid(yaml.safe_load(text)), text


@pytest.fixture(scope="module")
def bash(tmp_path_factory):
    """A function from the words so far to what bash offers next."""
    file = tmp_path_factory.mktemp("bash") / "completion"
    file.write_text(editing.completion("bash", entry.COMMANDS))

    def offered(line, cwd):
        words = " ".join(f'"{word}"' for word in line.replace("=", " = ").split(" ") if word or line.endswith(" "))
        lines = [f". {file}", f'COMP_LINE="{line}"; COMP_POINT=${{#COMP_LINE}}; COMP_WORDS=({words})']
        lines += ["COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 )); _weight_studies", 'printf "%s\\n" "${COMPREPLY[@]}"']
        done = subprocess.run(["bash", "-c", "\n".join(lines)], cwd=cwd, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout.split()

    return offered


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("weight-studies ", ["run", "list", "compare"]),
        ("weight-studies re", ["report"]),
        ("weight-studies run +study=init", ["init_comparison"]),
        ("weight-studies run initializer=he", ["he_normal", "he_uniform"]),
        ("weight-studies plan model.de", ["model.depth="]),
        ("weight-studies run +study=mi", ["mine"]),
        ("weight-studies run model=ti", ["tiny"]),
        ("weight-studies compare init_c", ["init_comparison"]),
        ("weight-studies compare init_comparison --wh", ["--where"]),
        ("weight-studies replay --all init_c", ["init_comparison"]),
        ("weight-studies completion f", ["fish"]),
    ],
)
def test_bash_offers_what_there_is(bash, tmp_path, line, some):
    for group, option in (("study", "mine"), ("model", "tiny")):
        (tmp_path / "conf" / group).mkdir(parents=True)
        (tmp_path / "conf" / group / f"{option}.yaml").touch()
    assert set(some) <= set(bash(line, tmp_path))


@pytest.mark.parametrize("shell", editing.SHELLS)
def test_every_shell_is_told_every_command_and_option(shell, monkeypatch, capsys):
    monkeypatch.setattr(editing, "_flags", lambda module: ["--help", "--root"])
    assert editing.main("completion", [shell], entry.COMMANDS) == 0
    text = capsys.readouterr().out
    for word in (*entry.COMMANDS, "+study=init_comparison", "initializer=he_normal", "model.depth="):
        assert word in text


def test_the_schema_goes_to_a_file(tmp_path, capsys):
    file = tmp_path / "schema.json"
    assert editing.main("schema", ["--to", str(file)], entry.COMMANDS) == 0
    assert json.loads(file.read_text())["title"] == "a study of weight-studies"
    assert editing.main("schema", ["--to", str(tmp_path / "no" / "x")], entry.COMMANDS) == 2
    assert "name a file in a folder that there is" in capsys.readouterr().err
