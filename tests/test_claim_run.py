"""A claim through the command: looks, controls, a verdict that is kept, a card that must not change."""

import json
import shutil

import pytest

from analysis import claims, load
from studies.contract import Tag

SMALL = ["training.epochs=3", "study.seeds=4", "study.looks=[2,4]", "model.width=16"]
SMALL += ["study.baseline=null", "study.zip=[]", "study.skip=[]", "study.settings=[]", "study.factors=null"]
SMALL += [
    "claim.decision.across=[model.activation]",
    "study.factors={model.activation:[relu],optimizer.learning_rate:[0.001,0.3,100.0]}",
]
CLAIM = ["+study=claims/lr_extremes", "claim.version=1", *SMALL, "claim.hypothesis.target=0.5"]


@pytest.mark.slow
def test_a_claim_is_judged_at_a_look_kept_and_not_run_again(here, made):
    def run(*words):
        return here(*CLAIM, f"tracking.root={made}", *words)

    code, first, error = run()
    assert code == 0, error
    execution = load.execution("lr_extremes", made)
    record = json.loads(load.text(execution, claims.FILE, made))
    assert execution.tags[Tag.VERDICT] == record["verdict"] and execution.tags[Tag.CARD] == record["card"]
    assert f"{record['verdict'].upper()}: “A high learning rate" in first
    before = first[: first.index(record["verdict"].upper())]
    assert "val_accuracy" not in before and "done" in before  # no number is shown until it is decided
    assert record["look"] in (2, 4) and record["seeds"] == record["look"]
    trials = load.trials("lr_extremes", made)
    assert len(trials) == 3 * record["seeds"] and set(trials["role"]) == {"scientific"}
    roles = [run["role"] for run in record["runs"]]
    assert roles.count("control") == 6 and record["controls"]["positive"].startswith(("passed", "failed"))
    assert record["verdict"].upper() in (execution.folder / "report.html").read_text()

    code, again, _ = run()
    assert (code == 0 and "0 to run" in again) or "to run" not in again
    assert len(load.executions("lr_extremes", made)) == 1
    [row] = [row for row in claims.rows(made) if row["name"] == "lr_extremes"]
    assert {name: row[name] for name in record} == record
    assert row["command"].startswith("python -m studies.run +study=claims/lr_extremes")
    assert row["stale"] == f"other settings: {', '.join(json.loads(execution.tags[Tag.SETTINGS]))}"

    code, _, error = run("claim.hypothesis.margin=1.0")
    assert code == 2 and "has changed since its version 1" in error
    assert len(load.ended("lr_extremes", made)) == len(trials) + 6

    _, other, _ = run("claim.hypothesis.margin=1.0", "claim.version=2")
    assert "note: another card was judged by this study's trials before, lr_extremes, version 1" in other


def test_two_runs_of_a_claim_keep_one_record_whatever_else_a_store_has(here, fresh, tmp_path):
    """The second store has a run with settings besides, which is no part of the claim's own and keeps none from it."""
    stores, records = [shutil.copytree(fresh, tmp_path / name) for name in ("one", "two")], []
    words = ["+study=claims/linear_map", f"tracking.root={stores[1]}"]
    code, _, error = here(*words, "study.seeds=2", "claim.controls.negative=null")
    assert code == 0, error
    [row] = [row for row in claims.rows(stores[1]) if row["name"] == "linear_map"]
    assert row["stale"] == "other settings: study.seeds=2, claim.controls.negative=null" and row["seeds"] == 2
    for store in stores:
        code, _, error = here("+study=claims/linear_map", f"tracking.root={store}")
        assert code == 0, error
        [row] = [row for row in claims.rows(store) if row["name"] == "linear_map"]
        records.append(row)
    assert not records[1]["stale"] and records[1]["seeds"] == 20
    passing = (*claims.PASSING, "command")  # which names the store
    one, two = ({name: value for name, value in row.items() if name not in passing} for row in records)
    assert one == two and list(one) == list(two) and set(claims.PASSING) < set(records[0])
    code, _, error = here(*words, "study.seeds=2")
    assert code == 2 and "with study.seeds=2" in error  # results are in sight now


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["claim.hypothesis.margin=null"], "claim.hypothesis.margin is missing"),
        (["study.looks=[4,2]"], "increase"),
        (["~claim"], "claim is missing"),
        (["claim=3"], "claim=3: expected a mapping"),
        (["claim.hypothesis.measure=feeling"], "measure=feeling"),
    ],
)
def test_a_card_that_cannot_be_right_is_refused_before_anything_trains(cli, words, said, tmp_path):
    code, _, error = cli(*CLAIM, *words, "tracking.root=store")
    assert code == 2 and said in error and error.count("\n") < 4
    assert not (tmp_path / "store" / "mlflow.db").exists()
