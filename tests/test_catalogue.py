"""The list of studies, those that ship, the user's own, and those that a store has alone."""

import json
from pathlib import Path

import pytest
from test_writer import STUDY, made_up_trials, records

from analysis import catalogue
from studies.store import writer

OPTIONS = {path.stem for path in (Path(__file__).parent.parent / "conf" / "study").rglob("*.yaml")}


def listed(capsys, *words):
    code = catalogue.main(list(words))
    output, error = capsys.readouterr()
    assert (code, error) == (0, "")
    return output


def test_every_study_is_there_with_question_and_cost_in_80_columns(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = json.loads(listed(capsys, "--format", "json"))
    assert {row["name"] for row in rows} == OPTIONS and all(row["question"] and row["cost"] for row in rows)
    text = listed(capsys)
    assert max(map(len, text.splitlines())) <= 80
    assert "\n\ninit_comparison\n    Which initializers let" in text and text.count("    not run") == len(rows)
    assert list(tmp_path.iterdir()) == []


def test_ones_own_are_there_and_one_that_cannot_be_read_is_said_to_be(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "study").mkdir(parents=True)
    (tmp_path / "conf" / "study" / "mine.yaml").write_text("question: Is it?\n")
    (tmp_path / "conf" / "study" / "broken.yaml").write_text("a: [\n")
    assert listed(capsys, "mine") == "mine  (yours)\n    Is it?\n    not run\n"
    assert "cannot be read: " in listed(capsys, "broken")
    assert catalogue.main(["mien"]) == 2 and "did you mean mine?" in capsys.readouterr().err


def test_what_a_store_has_is_counted(made, capsys):
    trials = made_up_trials()
    execution = writer.Execution(made, STUDY, trials, "study: made up\n")
    execution.write(trials[0], *records(trials[0]))
    execution.close("FINISHED")
    text = listed(capsys, "--root", str(made), STUDY.name)
    assert text.startswith(f"{STUDY.name}\n    {STUDY.question}\n    1 trial finished in 1 execution, the latest 20")


@pytest.mark.parametrize("name", ["claims", "claims/", "claims/he_for_relu", "he_for_relu"])
def test_claims_are_chosen_by_their_folder_or_name(name):
    found = catalogue.chosen(catalogue.entries("nowhere"), [name])
    assert found and all(entry.option.startswith("claims/") for entry in found)
