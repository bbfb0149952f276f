"""Arms that are alike by construction, through the whole path of a verdict: by frames, and by a store and its board."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from analysis import claims, load
from analysis.estimate import verdicts
from analysis.estimate.estimands import Sample
from analysis.estimate.verdicts import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from analysis.show import board
from benchmarks import alike

ALPHA = 0.049
"""Of three looks at .021 each, one-sided."""


def rng(seed=0):
    return np.random.default_rng(seed)


def seldom(found, studies, alpha=ALPHA):
    """Whether a verdict is given no more often than alpha allows, but for chance."""
    return found <= alpha * studies + 3 * np.sqrt(alpha * studies)


@pytest.mark.parametrize("name", alike.CASES)
def test_arms_that_are_alike_are_told_apart_as_seldom_as_alpha_allows(name):
    """By a few studies, which see no more than that a rule is wide of its mark; by 250 in `make validate`."""
    case = replace(alike.CASES[name], looks=(6, 12))
    studies = 3 if len(case.contexts) > 1 else 8
    found = alike.by_frames(case, rng(1), studies)
    assert all(seldom(found.count(each), studies) for each in (SUPPORTED, NOT_SUPPORTED))
    assert set(found) <= {SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE}


@pytest.mark.parametrize("kind", ["universal", "existential"])
def test_contexts_of_arms_that_are_alike_are_no_more_chances(kind):
    """Of one look, at its alpha; in four contexts a single one of which would decide 8 % of the studies."""
    claim = alike.Case("difference", "val_accuracy", "above", kind).study().claim
    draws, seeds, found = rng(2).normal(size=(500, 4, 8)), np.arange(8), []
    for study in draws:
        judged = [
            verdicts.judged(claim, Sample(name, seeds, numbers, np.zeros(8))) for name, numbers in zip("abcd", study)
        ]
        found.append(verdicts.combined(claim, judged, tuple(seeds), {}).verdict)
    assert all(seldom(found.count(each), len(draws), claim.alpha_look) for each in (SUPPORTED, NOT_SUPPORTED))


CASE = alike.Case("difference", "val_accuracy", "above", looks=(4, 6), contexts=("a", "b"))


@pytest.fixture(scope="module")
def store(fresh, tmp_path_factory):
    """Two such studies, and the board's rows of them."""
    root = tmp_path_factory.mktemp("alike")
    shutil.copy(fresh / "mlflow.db", root)
    return root, alike.by_board(CASE, rng(), 2, root, apart=2.0)


def test_a_store_and_its_board_come_to_the_verdicts_of_the_frames(store):
    root, rows = store
    found = [row["verdict"] for row in rows]
    assert found == alike.by_frames(CASE, rng(), 2, apart=2.0) and len(set(found)) > 1
    for row in rows:
        assert len(row["robustness"]) == 4 and not row["stale"] and row["failed_share"] == 0
        assert row["verdict"] == INCONCLUSIVE or row["needed"] is None
        values = load.trials(row["name"], root, [run["key"] for run in row["runs"] if run["role"] == "scientific"])
        for context in row["contexts"]:
            sides = [values[(values["dataset"] == context["context"]) & (values["arm"] == arm)] for arm in alike.NAMES]
            one, other = (side["val_accuracy"].to_numpy()[:, None] for side in sides)
            assert context["cliffs_delta"] == pytest.approx(np.sign(one - other.T).mean())


def test_what_was_kept_before_is_stressed_by_the_trials_of_the_store(store, capsys):
    root, _ = store
    kept = claims.stressed(root)
    assert len(kept) == 2 and all(each["robustness"] for each in kept)
    for each in kept:
        execution = load.execution(each["name"], root)
        record = json.loads(load.text(execution, claims.FILE, root))
        del record["robustness"]
        (execution.folder / claims.FILE).write_text(json.dumps(record))
    assert claims.main(["--root", str(root), "--stress", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == kept
    text = board.stress(kept, "terminal")
    assert "alike_0, full profile: " in text and text.count("without b") == 2
    assert text.endswith(board.CONTROLS)
