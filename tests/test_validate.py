"""Quick versions of `make validate`: the rows that matter most, and that its figures are what it says they are."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from analysis.estimate.intervals import holm, paired_p
from benchmarks import readme, validate

LEVEL = 0.95


def rng():
    return np.random.default_rng(0)


def near(share, simulations, errors=3.5):
    """A share within so many standard errors."""
    return pytest.approx(share, abs=errors * np.sqrt(share * (1 - share) / simulations))


@pytest.mark.parametrize("seeds", [5, 20])
@pytest.mark.parametrize(
    ("sample", "interval"),
    [
        ("normal", "mean, t"),
        ("steps", "mean, logit t of an accuracy"),
        ("normal", "paired difference, t"),
        ("steps", "paired difference, t"),
        ("lognormal", "ratio by seed, t of logarithms"),
    ],
)
def test_intervals_cover_as_often_as_they_say(sample, interval, seeds):
    [covered] = validate.coverage(sample, seeds, rng(), 800, only=interval).values()
    assert covered == near(LEVEL, 800)


@pytest.mark.parametrize(
    ("sample", "interval", "below"),
    [("lognormal", "ratio of means, bootstrap", 0.91), ("lognormal", "mean, t", 0.935)],
)
def test_an_interval_that_is_too_short_is_seen(sample, interval, below):
    [covered] = validate.coverage(sample, 5, rng(), 1500, only=interval).values()
    assert covered < below


def test_intervals_of_success_hold_at_the_worst_rates():
    assert validate.rate_coverage(5).min() >= LEVEL
    assert LEVEL <= validate.success_coverage(5).min() < LEVEL + 0.01


def test_tests_find_nothing_where_there_is_nothing():
    found = validate.false_positives(10, rng(), 500)
    assert max(share for name, share in found.items() if not name.startswith("log-rank")) < 0.05 + 0.03
    assert found["paired t, normal"] == near(0.05, 500)


def test_holm_holds_the_family_where_single_tests_do_not():
    arms = rng().normal(size=(11, 8, 2000))
    assert validate.family_error(arms) <= 0.05
    p = np.array([paired_p(arm - arms[0]) for arm in arms[1:]])
    assert np.mean(p.min(axis=0) <= 0.05) > 0.2 and holm(p[:, 0]).min() >= p[:, 0].min()


def test_three_looks_have_the_error_and_the_power_that_they_are_planned_with():
    for effect, planned in ((0.0, 0.049), (0.5, 0.59), (1.0, 0.988)):
        assert validate.looks(effect, rng(), 4000) == near(planned, 4000)


def test_power_is_as_computed():
    found = [(computed, share) for name, computed, share in validate.power(rng(), 2000) if name.startswith("one-sided")]
    assert len(found) == 4 and all(share == near(computed, 2000) and computed > 0.8 for computed, share in found)


def test_what_is_off_on_its_wrong_side_is_bold(monkeypatch):
    monkeypatch.setattr(validate, "SEEDS", (5,))
    monkeypatch.setattr(validate.alike, "CASES", dict([*validate.alike.CASES.items()][:1]))
    tables = validate.markdown(rng(), 250)
    lines = {tuple(cell.strip() for cell in line.split("|")[1:3]): line for line in tables.splitlines() if line}
    assert "**" in lines["ratio of means, bootstrap", "5"] and "**" not in lines["success rate", "5"]
    assert tables.count("\n\n") == 4


def test_the_documents_have_its_place(tmp_path):
    page = shutil.copy(validate.NUMBERS, tmp_path)
    readme.fill(Path(page), "new\n", validate.BEGIN, validate.END)
    assert f"{validate.BEGIN}new\n{validate.END}" in Path(page).read_text(encoding="utf-8")
