"""Arms that are alike by construction, through the whole path of a verdict: by frames, and by a store and its board."""

import json
import shutil

import numpy as np
import pytest

from analysis import claims, load
from analysis.estimate.verdicts import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from benchmarks import alike

ALPHA = 0.049
"""Of three looks at .021 each, one-sided."""


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", alike.CASES)
def test_arms_that_are_alike_are_told_apart_as_seldom_as_alpha_allows(name):
    """By few studies, of one look more than the rule's alpha would show; by 500 in `make validate`."""
    case = alike.CASES[name]
    studies = 12 if len(case.contexts) > 1 else 25
    found = alike.by_frames(case, rng(1), studies)
    most = ALPHA * studies + 3.5 * np.sqrt(ALPHA * studies)
    assert found.count(SUPPORTED) <= most and found.count(NOT_SUPPORTED) <= most
    assert set(found) <= {SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE}


@pytest.fixture(scope="module")
def store(fresh, tmp_path_factory):
    root = tmp_path_factory.mktemp("alike")
    shutil.copy(fresh / "mlflow.db", root)
    return root


CASE = alike.Case("difference", "val_accuracy", "above", looks=(4, 8), contexts=("a", "b"))


def test_a_store_and_its_board_come_to_the_verdicts_of_the_frames(store):
    rows = alike.by_board(CASE, rng(), 3, store, apart=1.5)
    verdicts = [row["verdict"] for row in rows]
    assert verdicts == alike.by_frames(CASE, rng(), 3, apart=1.5) and len(set(verdicts)) > 1
    for row in rows:
        assert len(row["robustness"]) == 4 and not row["stale"] and row["failed_share"] == 0
        assert (row["needed"] is None) == (row["verdict"] != INCONCLUSIVE or "no number" in row["because"])
        for context in row["contexts"]:
            values = {
                arm: [
                    load_value(row, store, run["key"])
                    for run in row["runs"]
                    if (run["dataset"], run["arm"], run["role"]) == (context["context"], arm, "scientific")
                ]
                for arm in alike.NAMES
            }
            one, other = (np.array(values[arm])[:, None] for arm in alike.NAMES)
            assert context["cliffs_delta"] == pytest.approx(np.sign(one - other.T).mean())


def load_value(row, store, key):
    return load.trials(row["name"], store, [key])["val_accuracy"].iloc[0]


def test_what_was_kept_before_is_stressed_by_the_trials_of_the_store(store, capsys):
    kept = [row for row in claims.stressed(store)]
    for row in kept:
        execution = load.execution(row["name"], store)
        record = json.loads(load.text(execution, claims.FILE, store))
        del record["robustness"]
        (execution.folder / claims.FILE).write_text(json.dumps(record))
    assert claims.stressed(store) == kept and len(kept) == 3
    assert claims.main(["--root", str(store), "--stress"]) == 0
    out = capsys.readouterr().out
    assert "alike_0, full profile: " in out and out.count("without b") == 3
    assert "Controls are not judged anew" in out
    assert claims.main(["--root", str(store), "--stress", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == kept
