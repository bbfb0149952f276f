"""Whether a verdict that is kept is of the card, the settings and the code there are now; and what a board says."""

import json
import shutil
from dataclasses import replace

import pytest
import yaml
from test_claims import read, study

from analysis import claims
from analysis.read import cards
from analysis.show import board
from studies.command import compose
from studies.contract import Tag, card_source, settings
from studies.record import RESULTS_VERSION, RULES_VERSION
from studies.store import writer

SHIPPED = cards.shipped()
NAME = "he_for_relu"
CARD = SHIPPED[NAME]
CURRENT = {
    "name": NAME,
    "version": CARD.claim["version"],
    "profile": "quick",
    "file": f"claims/{NAME}",
    "source": card_source(CARD.content, "quick"),
    "settings": [],
    "results_version": RESULTS_VERSION,
    "rules_version": RULES_VERSION,
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ""),
        ({"source": "another"}, "card changed"),
        ({"version": 0}, f"card changed: version 0, now {CARD.claim['version']}"),
        ({"settings": ["training.epochs=3", "study.seeds=4"]}, "other settings: training.epochs=3, study.seeds=4"),
        ({"results_version": RESULTS_VERSION - 1}, f"RESULTS_VERSION {RESULTS_VERSION - 1}, now {RESULTS_VERSION}"),
        ({"profile": "nosuch"}, "other profile: nosuch, the card has quick, full"),
        ({"rules_version": 0}, f"RULES_VERSION 0, now {RULES_VERSION}"),
        ({"results_version": None, "source": None}, "kept by an earlier version of this package"),
        ({"source": "another", "results_version": 1}, f"card changed; RESULTS_VERSION 1, now {RESULTS_VERSION}"),
    ],
)
def test_a_verdict_is_stale_for_what_has_changed_since(change, words):
    assert cards.stale(CURRENT | change, CARD) == words


def test_a_claim_of_ones_own_is_held_against_its_own_file_or_none():
    own = CURRENT | {"name": "mine", "file": "", "settings": ["claim.id=mine"]}
    assert cards.card_of(own, SHIPPED) is None and cards.stale(own, None) == ""
    assert cards.card_of(CURRENT | {"name": "mine"}, SHIPPED) == CARD
    assert cards.card_of(CURRENT | {"file": "mine"}, SHIPPED) == CARD  # it has the name of one that ships


def test_only_what_decides_makes_another_card():
    text = (cards.SHIPPED / f"{NAME}.yaml").read_text()
    source = card_source(yaml.safe_load(text), "quick")
    same = yaml.safe_load("# a comment\n" + text)
    same["claim"] |= {"number": 11, "chapter": "Initialization"}
    same["claim"]["profiles"] = same["claim"]["profiles"] | {"full": {"training.epochs": 99}}
    same["study"] |= {"question": "Why?"}
    assert card_source(same, "quick") == source != card_source(same, "full")
    other = yaml.safe_load(text)
    other["claim"]["hypothesis"]["margin"] = 0.5
    assert card_source(other, "quick") != source


def test_the_run_and_the_board_read_the_same_cards():
    for name, card in SHIPPED.items():
        tags = compose.card_tags(card.option, "quick", [f"+study={card.option}", "profile=quick", "tracking.root=x"])
        assert tags[Tag.SOURCE] == card_source(card.content, "quick") and tags[Tag.SETTINGS] == "[]", name
    assert compose.card_tags(None, "quick", ["+claim.id=a"]) == {
        Tag.SETTINGS: '["+claim.id=a"]',
        Tag.RULES: str(RULES_VERSION),
    }
    assert settings(["study.seeds=3", "executor=serial", "data.root=/x", "hydra.verbose=true"]) == ["study.seeds=3"]


@pytest.fixture
def kept(fresh, tmp_path):
    """A function that keeps a record in a store as an execution of its own, and gives the board's rows then."""
    shutil.copy(fresh / "mlflow.db", tmp_path)
    asked = replace(study(read(), {"optimizer": ("sgd", "adam")}, 2), name=NAME)

    def keep(verdict, when, **change):
        numbers = {"estimate": 1.0, "low": None, "high": None, "claimed": "above 0", "seeds": 2, "trials": 4}
        record = CURRENT | numbers | {"scope": "digits", "verdict": verdict, "when": f"2026-01-0{when}"} | change
        execution = writer.Execution(tmp_path, asked, [], "study: x\n")
        execution.keep({claims.FILE: json.dumps(record)})
        execution.close("FINISHED", "", verdict)
        return [row for row in claims.rows(tmp_path) if row["name"] == NAME]

    return keep


def test_a_stale_verdict_never_stands_for_a_current_one(kept, tmp_path, capsys):
    [row] = kept("supported", 5, settings=["training.epochs=3"])
    assert row["command"] == f"python -m studies.run +study=claims/{NAME} tracking.root={tmp_path}"
    text = board.board([row], "terminal")
    assert "stale, was supported " in text and f"- {NAME}: other settings: training.epochs=3; python -m studies" in text
    assert text.endswith("\n1 stale")
    narrow = board.board([row], "terminal", 60)
    assert "scope" not in narrow.partition("Not shown")[0] and "stale, was supported" in narrow
    assert "Not shown for want of room: scope, " in narrow and "Not shown" not in text
    [row] = kept("invalid", 3)
    assert (row["verdict"], row["stale"]) == ("invalid", "")
    [row] = kept("not supported", 2)
    assert row["verdict"] == "not supported"
    [row] = kept("supported", 6, results_version=1)
    assert row["verdict"] == "not supported"
    full, quick = kept("supported", 7, profile="full", source=card_source(CARD.content, "quick"))
    assert full["stale"] == "card changed" and full["command"].endswith(f"profile=full tracking.root={tmp_path}")
    assert quick["verdict"] == "not supported" and not quick["stale"]

    assert claims.main(["--root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    rest = [row["file"] for row in claims.rows(tmp_path) if row["verdict"] == "not run"]
    assert set(rest) == {card.option for name, card in SHIPPED.items() if name != NAME}
    assert f"quick: 1 not supported; {len(rest)} not run" in out and f"full: 1 stale; {len(rest)} not run" in out
    assert f"{NAME} (full)" in out and f"Stale: {NAME}." in out
    assert f"-m studies.run -m +study={','.join(rest)} tracking.root={tmp_path}\n" in out
    assert f"-m studies.run +study=claims/{NAME} profile=full tracking.root={tmp_path}\n" in out


def test_a_verdict_whose_file_is_lost_is_named_and_ends_nothing(kept, tmp_path):
    [row] = kept("supported", 5)
    [file] = tmp_path.rglob("verdict.json")
    file.unlink()
    [row] = [row for row in claims.rows(tmp_path) if row["name"] == "adam"]  # by the execution's own claim
    assert row["verdict"] == "invalid" and "verdict.json" in row["because"]
    for format in board.FORMATS:
        assert "adam" in board.board([row], format)
    [row] = kept("not supported", 6)
    assert row["verdict"] == "not supported"


def test_a_board_without_a_store_is_an_error_and_of_an_empty_one_a_word(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").touch()
    for root in (tmp_path / "nosuch", tmp_path):
        assert claims.main(["--root", str(root)]) == 2 and claims.main(["--root", str(root), "--stress"]) == 2
        assert f"error: --root {root}: there is no store in" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns" / ".gitkeep").touch()
    assert claims.main([]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Nothing is run in mlruns yet. To run all {len(SHIPPED)} claims, in half an hour or so:")
    assert "not run" not in out
    assert claims.main(["--format", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(SHIPPED)
    assert claims.main(["--stress"]) == 0 and capsys.readouterr().out.startswith("No claim has a verdict yet.")
