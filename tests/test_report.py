"""Reports of studies that are ordinary, tiny, large, failed or badly named; in a browser in test_explore.py."""

import base64
import gzip
import hashlib
import json
import math
import re
import shutil
import tomllib
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest
import test_writer as tracked

from analysis import compare, load, report
from analysis.estimate import foretell
from studies.contract import DENSITY_CELLS, STATISTICS
from studies.record import EpochRecord, LayerRecord, Result, Study, StudyError, Trial
from studies.store import writer

pytestmark = pytest.mark.filterwarnings("error")

EPOCHS = 4
CONFIG = tracked.CONFIG | {"training": {"epochs": EPOCHS, "batch_size": 32}}
PLACES = [
    STATISTICS.index(name) for name in ("min", "q01", "q05", "q10", "q25", "q50", "q75", "q90", "q95", "q99", "max")
]


class Page(HTMLParser):
    """What a page consists of, and whether its elements are closed as they were opened."""

    VOID = ("meta", "br", "img", "link", "hr", "input")

    def __init__(self, html):
        super().__init__()
        self.open, self.elements, self.words, self.links = [], [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href", "action")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data.strip())

    @property
    def text(self):
        return " ".join(word for word in self.words if word)


def trials_of(study, arms):
    return [
        Trial(f"{n:08x}{seed:08x}", study.name, "scientific", arm, seed, CONFIG, (), "graph")
        for n, arm in enumerate(arms)
        for seed in study.seeds
    ]


def tuning_trials_of(study, arms):
    return [
        Trial(f"{n:06x}{seed:06x}{m:04x}", study.name, "nuisance", arm, seed, CONFIG, (), "graph", {factor: level})
        for n, arm in enumerate(arms)
        for factor, levels in study.nuisance.items()
        for m, level in enumerate(levels)
        for seed in study.tuning_seeds
    ]


def records(trial, number, status="finished"):
    rng = np.random.default_rng([number, trial.seed])
    last = EPOCHS if status == "finished" else 1
    curve = np.linspace(0.1, 0.8 + rng.normal(0, 0.02), EPOCHS + 1)
    epochs = [
        EpochRecord(trial.key, e, 100 * e, 0.1, math.nan if e == 0 else 3 / e, curve[e], 3 / (e + 1), curve[e], 0.1)
        for e in range(last + 1)
    ]
    layers = []
    for layer in ("dense_1", "logits"):
        for epoch in range(last + 1):
            row = rng.uniform(0.1, 1, len(STATISTICS))
            row[PLACES] = np.sort(rng.normal(size=len(PLACES)))
            layers.append(
                LayerRecord(trial.key, epoch, layer, "kernel", tuple(row), density=tuple(range(DENSITY_CELLS)))
            )
    value = curve[-1] if status == "finished" else math.nan
    numbers = dict(val_accuracy=value, test_accuracy=value, running_loss=0.5 + trial.seed, train_loss=0.5, val_loss=0.5)
    error = "ValueError: <b>boom</b>\nTraceback" if status == "crashed" else ""
    return epochs, layers, Result(trial.key, status, last, classes=10, seconds_total=1.0, error=error, **numbers)


def island(html, name):
    """What a page's script is given."""
    [text] = re.findall(rf'<script[^>]* id="{name}">([^<]*)</script>', html)
    return json.loads(gzip.decompress(base64.b64decode(text)))


def write(root, arms, seeds=3, status=lambda arm, seed: "finished", weights=True, missing=0, **settings):
    """Write a study of made-up trials into a store."""
    factors = {factor: tuple(dict.fromkeys(arm[factor] for arm in arms)) for factor in arms[0]}
    study = Study("made up", settings.pop("question", "Does it?"), factors, tuple(range(seeds)), **{
        "baseline": {}, "metric": "val_accuracy", **settings})  # fmt: skip
    trials = trials_of(study, arms)
    execution = writer.Execution(root, study, trials, "model: {depth: 2}\n")
    tuning = tuning_trials_of(study, arms)
    execution.keep({"tuning_trials.json": json.dumps([trial.key for trial in tuning])} if tuning else {})
    for number, trial in enumerate(trials[: len(trials) - missing] + tuning):
        epochs, layers, result = records(trial, number // seeds, status(trial.arm, trial.seed))
        epochs = [] if result.status == "crashed" else epochs
        execution.write(trial, epochs, layers if weights else [], result)
    execution.close("FINISHED")


@pytest.fixture
def made(fresh, tmp_path, monkeypatch):
    """A function that writes a study of made-up trials and gives its report as a page, from few resamples."""
    shutil.copy(fresh / "mlflow.db", tmp_path)
    for number in ("RESAMPLES", "PERMUTATIONS"):
        monkeypatch.setattr(foretell, number, 50)

    def make(arms, **settings):
        write(tmp_path, arms, **settings)
        assert report.main(["made up", "--root", str(tmp_path), "--to", str(tmp_path / "page.html")]) == 0
        html = (tmp_path / "page.html").read_text()
        return html, Page(html)

    return make


def grid(**levels):
    arms = [{}]
    for factor, values in levels.items():
        arms = [{**arm, factor.replace("__", "."): value} for arm in arms for value in values]
    return arms


def headings(html):
    return re.findall(r"<h2[^>]*>(.*?)</h2>", html)


def test_a_report_has_its_sections_in_order_and_needs_no_network(made):
    html, page = made(grid(initializer=("zeros", "he"), model__depth=(2, 8)), baseline={"initializer": "zeros"})
    assert headings(html) == [
        "Comparison", "Factors together", "Training", "Weights", "Failures", "Trials", "How to reproduce it",
    ]  # fmt: skip
    assert html.index('class="answer"') < html.index("<h2")
    assert "Against zeros" in page.text and "At depth=2" in page.text
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in page.links)
    assert not re.search(r"url\((?!#)|@import|<script[^>]* src", html)
    assert page.elements.count("figure") == page.elements.count("figcaption") == 7
    assert "viewport" in html and "prefers-color-scheme: dark" in html and "@media print" in html


def test_what_foretells_the_end_is_shown_where_there_are_arms_enough(made):
    html, page = made(grid(initializer=("zeros", "he", "lecun"), model__depth=(2, 8)), seeds=2)
    assert headings(html)[4] == "What foretells the end"
    assert "Epoch 1: 12 trials of 6 arms had not ended" in page.text and "Spearman" in page.text


def test_the_numbers_of_a_report_are_those_of_the_comparison(made, tmp_path):
    _, page = made(grid(initializer=("zeros", "he")), baseline={"initializer": "zeros"})
    trials = load.trials("made up", tmp_path)
    [row] = [line for line in compare.table("made up", tmp_path).splitlines() if line.startswith("he ")]
    assert row.split()[:2] == ["he", "3"] and all(word in page.text for word in re.split(r"  +", row.strip()))
    assert f"{trials.loc[trials['initializer'] == 'he', 'val_accuracy'].mean():.3f}"[:4] in page.text


@pytest.mark.parametrize("seeds", [1, 3])
def test_one_arm(made, seeds):
    html, page = made([{}], seeds=seeds)
    assert headings(html) == ["Comparison", "Training", "Weights", "Failures", "Trials", "How to reproduce it"]
    assert ("which has no interval" in page.text) == (seeds == 1)


@pytest.mark.parametrize("status", ["diverged", "timeout", "crashed"])
def test_all_trials_failed(made, status):
    html, page = made(grid(initializer=("zeros", "he")), status=lambda arm, seed: status)
    assert "6 of 6 trials did not finish." in page.text and f"{status} 3 0, 1, 2" in page.text
    if status == "crashed":
        assert "There is no answer: no arm has a val accuracy that can be compared." in page.text
        assert "ValueError: <b>boom</b>" in page.text and "<b>boom" not in html
    else:
        assert "0.1000" in page.text


def test_some_trials_failed(made):
    _, page = made(
        grid(initializer=("zeros", "he")),
        status=lambda arm, seed: "diverged" if arm["initializer"] == "zeros" else "finished",
    )
    assert "3 of 6 trials did not finish." in page.text and "zeros diverged 3" in page.text
    assert "he has the highest val accuracy" in page.text


@pytest.mark.parametrize("baseline", [{}, {"initializer": "zeros"}, {"initializer": "he"}])
def test_one_of_two_arms_crashed(made, baseline):
    status = {"zeros": "crashed", "he": "finished"}
    _, page = made(
        grid(initializer=("zeros", "he")), status=lambda arm, seed: status[arm["initializer"]], baseline=baseline
    )
    assert "nly he" in page.text and "has a val accuracy" in page.text and "3 of 6 trials did not finish." in page.text


@pytest.mark.parametrize("status", ["finished", "diverged", "crashed"])
def test_a_range_test(made, status):
    _, page = made(grid(optimizer=("sgd", "adam")), status=lambda arm, seed: status, figures=("loss_by_rate",))
    assert ("Range test" in page.text) == (status != "crashed")


def test_a_study_that_is_not_over_says_so(made, tmp_path):
    _, page = made(grid(initializer=("zeros", "he")), missing=2)
    assert "So far, with 4 of 6 trials: " in page.text and "2 more have not ended yet" in page.text
    assert "So far, with 4 of 6 trials: " in compare.table("made up", tmp_path)
    assert "So far" not in compare.table("made up", tmp_path, where="initializer == 'zeros'")


def test_forty_arms_and_a_thousand_trials_fit_in_three_megabytes(made):
    """By what forty trials more add to forty arms' report."""
    arms = grid(initializer=tuple(f"arm_{n}" for n in range(40)))
    (few, _), (more, page) = (made(arms, seeds=seeds) for seeds in (2, 3))
    assert "120 of 120 trials" in page.text
    assert 0 < len(more) - len(few) < (3e6 - len(more)) / (1000 - 120) * 40
    for n in (0, 7, 39):
        assert page.words.count(f"arm_{n}") >= 3  # in the table, beside its dots and in a legend


def test_more_arms_than_panels_can_hold_are_averaged_over_each_other(made):
    html, page = made(grid(initializer=tuple(f"arm_{n}" for n in range(31)), model__depth=(2, 8)), seeds=1)
    assert "All 62 arms" in html and page.text.count("Averaged over the others, ") == 2


def test_more_arms_than_a_page_can_hold_are_shown_factor_by_factor(made):
    arms = grid(
        initializer=("a", "b", "c", "d"), optimizer=("e", "f", "g", "h"), schedule=("i", "j"), clipping=("k", "l")
    )
    html, page = made(arms, seeds=1)
    assert "All 64 arms" in html and page.text.count("Averaged over the others, ") == 4
    assert len(re.findall("averaged over the other factors", html)) >= 6  # a map for each pair


def test_a_page_runs_its_own_script_alone_and_the_library_is_the_published_one(made):
    html, _ = made([{}], seeds=1)
    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    [script] = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy
    folder = report.SHOW / "uplot"
    declared = tomllib.loads((folder / "package.toml").read_text())
    assert (declared["name"], declared["licence"]) == ("uplot", "MIT") and f"(v{declared['version']})" in script[:200]
    assert declared["sha256"].keys() == {path.name for path in folder.iterdir()} - {"package.toml"}
    for name, expected in declared["sha256"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == expected
    assert (folder / "uPlot.iife.min.js").read_text() in html


def test_what_a_script_draws_are_the_numbers_of_the_figures(made, tmp_path):
    status = {"zeros": "diverged", "he": "finished"}
    html, _ = made(grid(initializer=("zeros", "he"), model__depth=(2, 8)), seeds=2, baseline={"initializer": "he"},
                   status=lambda arm, seed: status[arm["initializer"]])  # fmt: skip
    data, trials = island(html, "data"), load.trials("made up", tmp_path)
    assert set(data["charts"]) == {"comparison", "val_accuracy", "running_loss", "kernels"}
    chart = data["charts"]["comparison"]
    assert [arm["name"] for arm in chart["arms"]] == ["zeros", "he"]
    assert [panel["title"] for panel in chart["panels"]] == ["depth=2", "depth=8"]
    he = trials[(trials["initializer"] == "he") & (trials["model.depth"] == 8)]
    row = chart["panels"][1]["rows"][1]
    assert row["mean"] == pytest.approx(he["val_accuracy"].mean(), rel=1e-3)
    assert [(seed, key) for seed, _, _, key in row["seeds"]] == list(zip(he["seed"], he["key"], strict=True))
    assert [failed for _, _, failed, _ in chart["panels"][0]["rows"][0]["seeds"]] == [1, 1]
    line = data["charts"]["val_accuracy"]["lines"][1][0]
    assert (line["arm"], line["ends"], line["y"][-1]) == (0, [1], 0.1)
    told = {row["key"]: row for row in data["trials"]["rows"]}
    assert set(told) == set(trials["key"]) and told[he["key"].iloc[0]]["value"] == row["seeds"][0][1]
    assert "not finite in epoch 1" in told[trials["key"].iloc[0]]["reason"]
    epochs, *_ = data["trials"]["curves"]["of"][he["key"].iloc[0]]
    assert epochs == list(range(EPOCHS + 1))
    layers = island(html, "layers")
    assert [layers["kernels"][kernel] for kernel, *_ in layers["of"][he["key"].iloc[0]][1]] == ["dense_1", "logits"]


def test_why_trials_diverged_is_said(made):
    _, page = made(grid(initializer=("zeros", "he")), status=lambda arm, seed: "diverged")
    assert page.text.count("not finite in epoch 1; the validation loss was") == 2


def test_tables_have_captions_and_scopes_and_figures_say_what_they_show(made):
    html, page = made(grid(initializer=("zeros", "he"), model__depth=(2, 8)), baseline={"initializer": "zeros"})
    assert page.elements.count("table") == page.elements.count("caption") > 1
    heads = re.findall(r"<th(?=[ >])( scope=\"\w+\")?", html)
    assert len(heads) > 20 and all(heads)
    assert re.search(r'<th scope="row">he\s*</th><th scope="row">\s*8\s*</th>', html)
    alts = re.findall(r'<svg [^>]*aria-label="([^"]*)"', html)
    assert len(alts) == 6 and len(set(alts)) == 6
    assert re.match(r"val accuracy. depth=2: \w+ is best, 0\.\d+; \w+ worst, 0\.\d+. depth=8: ", alts[0])


def test_weights_are_compared_at_one_depth(made):
    html, page = made(grid(model__depth=(2, 8), initializer=("zeros", "he", "lecun")), seeds=2)
    chart = island(html, "data")["charts"]["kernels"]
    assert [arm["name"] for arm in chart["arms"]] == ["zeros", "he", "lecun"]
    assert [panel["title"] for panel in chart["panels"]] == ["depth=2", "depth=8"]
    assert re.search(r"At depth=[28], where arms differ most\.", page.text)


NASTY = ("<script>alert(1)</script>", "$x_1$", "a & b", '"quoted"', "{{ 7 * 7 }}", "naïve — 数")


def test_names_are_shown_as_they_are_written(made):
    question = "Is <img src=x onerror=alert(1)> & {{ 7 * 7 }} $x_1$?"
    _, page = made(grid(initializer=NASTY, model__depth=(2, "</svg>")), question=question)
    assert page.elements.count("script") == 3 and "img" not in page.elements
    for name in (*NASTY, question, "</svg>"):
        assert name in page.text


def test_every_figure_is_also_a_file_that_can_be_read(made, tmp_path):
    made(grid(initializer=("zeros", "he")))
    assert report.main(["made up", "--root", str(tmp_path)]) == 0
    folder = load.execution("made up", tmp_path).folder
    assert "<figure>" in (folder / report.FILE).read_text()
    names = {path.name for path in (folder / "figures").iterdir()}
    assert names == {"comparison.svg", "val_accuracy.svg", "running_loss.svg", "weights.svg", "layers.svg"}
    for name in names:
        assert ET.parse(folder / "figures" / name).getroot().tag.endswith("svg")


def test_rates_that_vary_are_shown(made):
    arms = grid(optimizer=("sgd", "adam"), optimizer__learning_rate=(0.001, 0.1))
    html, page = made(arms, baseline={"optimizer": "sgd"})
    assert "Learning rate" in headings(html) and "val accuracy by learning rate" in page.text


def test_tuning_is_shown_with_what_was_chosen_and_the_rates_tried(made):
    rates = {"optimizer.learning_rate": (0.001, 0.01, 0.1)}
    html, page = made(grid(optimizer=("sgd", "adam")), nuisance=rates, tuning_seeds=(100, 101))
    assert "Tuning" in headings(html)
    assert "Each arm was trained at every combination of optimizer.learning_rate at seeds 100, 101" in page.text
    assert re.search(r"sgd 0\.\d+ 0\.\d{4}", page.text) and "val accuracy by learning rate" in page.text


def test_a_study_with_nothing_kept_of_its_weights_says_so(made):
    _, page = made(grid(initializer=("zeros", "he")), weights=False)
    assert "No statistics of weights were kept" in page.text


def test_what_cannot_be_reported_is_one_line(made, tmp_path, capsys):
    assert report.main(["nosuch", "--root", str(tmp_path)]) == 2
    assert "no study 'nosuch'" in capsys.readouterr().err
    made(grid(initializer=("zeros", "he")))
    assert report.main(["made up", "--root", str(tmp_path), "--to", str(tmp_path / "no" / "page.html")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    execution = load.execution("made up", tmp_path)
    with pytest.raises(StudyError, match=r"no trial of made up .* has ended yet"):
        report.report(execution, load.trials("made up", tmp_path, []), tmp_path)
