"""The board as a page: what it says of each kind of claim, that it is whole, and that it fits."""

import re

import numpy as np
import pandas as pd
import pytest
from test_claims import CARD, HYPOTHESIS, frame, study
from test_report import Page

from analysis import claims
from analysis.estimate import verdicts
from analysis.estimate.verdicts import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED, Evidence
from analysis.show import board, drawing, evidence, sentences, story
from benchmarks import readme
from studies.design import claim as design

FACTORS = {"data": ("digits", "mnist"), "optimizer": ("sgd", "adam"), "rate": (0.01, 0.1, 1.0)}
SEEDS = 4


def record(gains=(0.1,), quote="Adam is better.", estimand="difference", **hypothesis) -> dict:
    """As a verdict is kept, of trials that are made up.

    Args:
        gains: of each dataset how much more accurate adam is.
    """
    needs = design.ESTIMANDS[estimand]
    factors = {"data": FACTORS["data"][: len(gains)]}
    factors |= {"optimizer": FACTORS["optimizer"]} if estimand != "ends_ratio" else {}
    factors |= {"rate": FACTORS["rate"]} if "along" in needs else {}
    rule = {name: asked for name, asked in HYPOTHESIS.items() if name in needs or name not in ("of", "against")}
    rule |= {"estimand": estimand, "margin": float(estimand.endswith("ratio"))} | hypothesis
    rule |= {"along": "rate"} if "along" in needs else {}
    card = CARD | {"hypothesis": rule, "quote": quote, "number": 13, "chapter": "Optimizers"}
    card |= {"decision": {"across": ["data"]}, "prediction": {"value": 0.09, "source": "a paper"}}
    claim = design.read_claim(card, factors, "quick")
    asked = study(claim, factors, SEEDS)
    trials = pd.concat([_trials(factors, data, gain) for data, gain in zip(factors["data"], gains, strict=True)])
    trials = trials.reset_index(drop=True).assign(key=lambda made: [f"{n:016x}" for n in made.index])
    some = Evidence(trials.assign(role="scientific"), _epochs(trials))
    found = verdicts.verdict(asked, some, len(trials) // SEEDS)
    return claims.record(asked, found, some, {"machine": "host x86_64, 2 cores"}, {"data": "digits", "model": "mlp"})


def _trials(factors, data, gain):
    noise, parts = np.random.default_rng(0).normal(0, 0.004, (2, 3, SEEDS)), []
    for place, rate in enumerate(factors.get("rate", (None,))):
        values = {
            arm: 0.6 + (gain if arm == "adam" else 0) - 0.08 * abs(place - 1) + noise[n, place]
            for n, arm in enumerate(factors.get("optimizer", ("sgd",)))
        }
        parts.append(frame(values).assign(data=data, rate=rate))
    return pd.concat(parts).drop(columns=[] if "rate" in factors else "rate")


def _epochs(trials):
    """Curves that rise to each trial's accuracy, so that the better ones are sooner at any target."""
    rows = [(t.key, epoch, t.val_accuracy * epoch / 10) for t in trials.itertuples() for epoch in range(11)]
    return pd.DataFrame(rows, columns=["key", "epoch", "val_accuracy"])


def examples() -> list[dict]:
    """One a kind of estimand, one whose datasets disagree, one that is stale, one that is not run."""
    kinds = {
        "value": {"margin": 0.5},
        "mean": {"margin": 0.5},
        "difference": {"margin": 0.02, "claimed_band": [0.05, 0.15]},
        "ratio": {"measure": "time_to_target", "target": 0.3, "direction": "below", "margin": 0.95},
        "slope": {"margin": 0.005},
        "spread_ratio": {"direction": "below"},
        "stable_ratio": {"measure": "success", "target": 0.55, "margin": 1.2},
        "interaction_ratio": {"beside": {"data": "digits"}, "margin": 1.01},
        "ends_ratio": {"measure": "time_to_target", "target": 0.3, "margin": 1.05},
    }
    made = [record((0.1, 0.12), estimand=kind, **asked) for kind, asked in kinds.items()]
    made = [one | {"name": one["rule"]["estimand"]} for one in made]
    lead = next(one for one in made if one["name"] == "slope")  # told and drawn as it is, whatever it is made of
    rule = lead["rule"] | {"estimand": "importance_lead", "of": {}, "against": {}}
    made.append(lead | {"name": "importance_lead", "rule": rule})
    both = record((0.1, -0.1), quote='<script>alert("!")</script> & | more') | {"name": "both", "estimand": 'a < "b"'}
    stale = record() | {"name": "old", "stale": "the card has changed since"}
    idle = {"name": "idle", "number": 14, "chapter": "Optimizers", "quote": "Sloth.", "kind": "universal"}
    return [*made, both, stale, idle | {"verdict": "not run", "command": "python -m studies.run +study=claims/idle"}]


@pytest.fixture(scope="module")
def records():
    return examples()


@pytest.fixture(scope="module")
def page(records):
    return story.page(records)


def test_a_page_is_whole_and_asks_for_nothing(page, records):
    told = Page(page)  # its elements are closed as they were opened
    names = re.findall(r' id="([^"]+)"', page)
    assert len(names) == len(set(names)) and {record["name"] for record in records} <= set(names)
    assert {link.removeprefix("#") for link in told.links} <= set(names)  # and no address elsewhere
    assert "http" not in page and "<script" not in page and "&lt;script&gt;" in page and 'a < "b"' not in page
    assert "None" not in told.text and "nan" not in told.text.split()
    assert len(page) / len(records) < 1.5e6 / 28


def test_each_estimand_is_told_and_drawn(records):
    assert design.ESTIMANDS.keys() <= sentences.PHRASES.keys()
    kinds = {record["name"]: record for record in records if record["name"] in design.ESTIMANDS}
    assert kinds.keys() == design.ESTIMANDS.keys()
    for kind, each in kinds.items():
        said = sentences.sentence(each)
        assert said.startswith(sentences.LEADS[each["verdict"]]) and "4 seeds; quick profile" in said
        assert "{" not in said and "  " not in said and "None" not in said and "=" not in said
        drawn = [evidence.forest(each), evidence.decisive(each)]
        assert (drawn[1] is None) == (kind in ("value", "mean"))
        for svg, caption in filter(None, drawn):
            [label] = re.findall(r'role="img" aria-label="([^"]+)"', svg)
            assert re.search(r"\d", label) and caption[-1] == "."
            places = re.findall(r'(?:\bx|cx|x1|x2)="([^"]+)"', svg)
            assert all(0 <= float(place) <= drawing.WIDTH for place in places)


@pytest.mark.parametrize(
    ("hypothesis", "words"),
    [
        (
            {"margin": 0.02},
            "the validation accuracy with adam is 9.47 points higher than with sgd; it has to be at least 2",
        ),
        ({"margin": -0.02}, "it has to be at most 2 points lower"),
        ({"margin": 0.0}, "it has to be higher ("),
        ({"direction": "within", "claimed_band": [0.05, 0.15]}, "it has to be 5 to 15 points higher ("),
        ({"estimand": "ratio", "margin": 1.25}, "is 18.2 % higher than with sgd; it has to be at least 25 % higher"),
    ],
)
def test_a_number_is_told_in_its_natural_unit(hypothesis, words):
    said = sentences.sentence(record(**hypothesis))
    assert words in said


@pytest.mark.parametrize(
    ("number", "words"),
    [(0.0, "0"), (174.588, "174.6"), (-0.0123, "−0.0123"), (8.36e-16, "8.4·10⁻¹⁶"), (1e-12, "1·10⁻¹²"), (3e6, "3·10⁶")],
)  # fmt: skip
def test_a_number_is_legible(number, words):
    assert sentences.plain(number) == words


def test_where_a_claim_holds_and_where_not_is_said_first(records, page):
    both = next(each for each in records if each["name"] == "both")
    assert both["verdict"] == NOT_SUPPORTED
    assert sentences.disagreement(both) == "holds for digits; does not hold for mnist"
    article = page[page.index('id="both"') :]
    assert article.index("It depends: holds for digits; does not hold for mnist.") < article.index("The claim does not")
    assert "supported in 1 of 2" in article and '(<a href="#both">' not in page.partition("<nav")[2]
    assert "both</a> (supported in 1 of 2)" in page.partition("<nav")[0]
    table = board.board(records, "terminal")
    assert "not supported, supported in 1 of 2" in table and "- both: holds for digits; does not hold" in table
    assert not sentences.disagreement(records[0]) and not sentences.tally(records[0])


def test_what_is_stale_is_no_verdict_and_what_is_not_run_says_how(page, records):
    text = Page(page).text
    assert "Stale, was supported: the card has changed since." in text
    assert "stale : 1" in text and "1 stale" in board.short_form(records)
    assert "To run it: python -m studies.run +study=claims/idle" in text


@pytest.mark.parametrize(
    ("value", "agrees"),
    [(0.1, True), (0.5, False), ("above 0.01", True), ("below 0.05 or so", False), ("above 0.1", None), ("some", None)],
)
def test_the_literature_is_held_against_what_was_measured(value, agrees):
    one = record()
    assert one["contexts"][0]["low"] < 0.1 < one["contexts"][0]["high"]
    assert sentences.literature(one | {"prediction": {"value": value, "source": "a paper"}})[2] is agrees


def test_why_a_claim_stays_open_and_how_far_a_verdict_bears_is_told():
    one = record(margin=0.1)
    changes = [{"change": "test accuracy", "verdict": INCONCLUSIVE}, {"change": "half", "verdict": SUPPORTED}]
    because = "open at 4 seeds: digits; about 40 seeds would decide it"
    assert one["because"] == because.rpartition(";")[0]
    assert sentences.because(one | {"because": because}) == "4 seeds do not settle it; about 40 seeds would decide it"
    text = Page(story.page([one | {"needed": 40, "robustness": changes}])).text
    assert one["verdict"] == INCONCLUSIVE and "Why it stays open: 4 seeds do not settle it." in text
    assert "about 40 seeds would be needed" in text
    assert "the same verdict under 1 of 2 changes half: supported" in text


@pytest.mark.parametrize(
    ("low", "high"), [(0.95, 1.05), (0.02, 900.0), (1e-17, 1e-6), (2.0, 40.0), (-0.03, 0.4), (5.0, 5.0)]
)
def test_an_axis_has_few_round_numbers_within_it(low, high):
    scale = drawing.scale([low, high], log=low > 0)
    assert 2 <= len(scale.ticks) <= 7 and all(scale.low <= tick <= scale.high for tick in scale.ticks)
    assert [scale(tick) for tick in scale.ticks] == sorted(scale(tick) for tick in scale.ticks)
    assert scale(low) >= scale.start and scale(high) <= scale.end and scale(scale.high * 9) == scale.end


def test_the_short_board_is_a_table_that_the_readme_holds(records, tmp_path, capsys, monkeypatch):
    lines = board.short_form(records).splitlines()
    cells = {len(re.findall(r"(?<!\\)\|", line)) for line in lines if line.startswith("|")}
    assert cells == {6} and len(lines) == len(records) + 4
    assert "1 not run" in lines[-1] and "✓ supported" in lines[2]
    copy = tmp_path / "README.md"
    copy.write_text(readme.README.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(readme, "README", copy)
    (tmp_path / "none").mkdir()
    assert readme.main(["--board", "--root", str(tmp_path / "none")]) == 0
    text = copy.read_text(encoding="utf-8")
    assert text.count(readme.BOARD) == 1 and "– not run" in text and "0 supported" not in text
    to = tmp_path / "board.html"
    assert claims.main(["--root", str(tmp_path / "none"), "--format", "html", "--to", str(to)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(to)
    assert to.read_text(encoding="utf-8").startswith("<!doctype html>")
