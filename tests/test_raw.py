"""Raw runs that others publish, as trials and epochs."""

import numpy as np
import pytest

from analysis import load
from analysis.estimate import comparison, success
from analysis.estimate import time_to_target as times
from analysis.load import NUMBERS
from studies.contract import CIRCUMSTANCES, EPOCH_COLUMNS
from studies.record import StudyError

HEAD = "optimizer,depth,seed,epoch,val_accuracy,val_loss,custom_loss"


@pytest.fixture
def write(tmp_path):
    """A function from lines to the file that has them."""

    def written(*lines):
        (tmp_path / "runs.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return tmp_path / "runs.csv"

    return written


def test_the_frames_are_the_stores(write):
    path = write(
        HEAD, "sgd,2,1,1,.6,.5,7", "sgd,2,1,0,.1,2,9", "sgd,2,1,2,.5,.6,8", "adam,2,1,0,.1,2,9", "adam,2,1,1,.9,.3,1"
    )
    trials, epochs = load.raw_runs(path)
    assert set(NUMBERS) | set(CIRCUMSTANCES) <= set(trials)
    assert list(trials)[:7] == ["key", "study", "role", "status", "optimizer", "depth", "seed"]
    assert tuple(epochs)[: len(EPOCH_COLUMNS)] == EPOCH_COLUMNS and epochs["custom_loss"].tolist() == [9, 7, 8, 9, 1]
    row = trials.iloc[0]
    assert row[["optimizer", "depth", "seed", "status", "epochs", "study"]].tolist() == [
        "sgd", 2, 1, "finished", 2, "runs",
    ]  # fmt: skip
    ends = ["val_accuracy", "last_val_accuracy", "best_val_accuracy", "val_loss", "best_val_loss", "custom_loss"]
    assert row[ends].tolist() == [0.5, 0.5, 0.6, 0.6, 0.5, 8]
    assert trials["key"].nunique() == 2 and epochs.groupby("key")["epoch"].apply(list).to_dict() == {
        row["key"]: [0, 1, 2],
        trials["key"][1]: [0, 1],
    }
    assert np.isnan(row["seconds_train"]) and row["device"] == row["error"] == ""


def test_keys_are_of_levels_and_seed_alone(write):
    one = load.raw_runs(write(HEAD, "sgd,2,1,0,.1,2,9", "sgd,2,2,0,.1,2,9"))[0]["key"]
    other = load.raw_runs(write(HEAD, "sgd,2,2,0,.7,1,9", "sgd,2,2,1,.9,1,9"))[0]["key"]
    assert one[1] == other[0] and one[0] != one[1]


def test_public_functions_work_on_them(write):
    lines = [f"{name},2,{seed},{n},{value + n / 10},1,1" for name, value in (("sgd", 0.5), ("adam", 0.6))
             for seed in range(3) for n in range(4)]  # fmt: skip
    trials, epochs = load.raw_runs(write(HEAD, *lines))
    table = comparison.comparison(trials, ["optimizer"], "val_accuracy", {"optimizer": "sgd"})
    assert table["difference"].tolist()[1] == pytest.approx(0.1)
    assert success.success_rates(trials, ["optimizer"], "val_accuracy", 0.85)["rate"].tolist() == [0, 1]
    reached = times.times(trials, epochs, ["optimizer"], "val_accuracy", 0.75)
    assert times.summary(reached, ["optimizer"], 3)["median"].tolist() == pytest.approx([2.5, 1.5])


def test_what_has_no_number_at_its_end_has_diverged(write):
    lines = [
        "a,2,0,0,.1,2,9",
        "a,2,0,1,.2,,9",
        "b,2,0,0,.1,,9",
        "b,2,0,1,.2,1,9",
        "c,2,0,0,.1,inf,9",
        "d,2,0,0,.1,nan,9",
    ]
    trials, _ = load.raw_runs(write(HEAD, *lines))
    assert trials["status"].tolist() == ["diverged", "finished", "diverged", "diverged"]


def test_levels_keep_their_types_and_may_be_missing(write):
    head = "schedule,rate,nesterov,seed,epoch,loss"
    trials, _ = load.raw_runs(write(head, "cosine,.1,True,0,0,1", ",1,False,0,0,1", "cosine,.1,True,1,0,1"))
    assert trials["schedule"].tolist() == ["cosine", None, "cosine"]
    assert trials["rate"].tolist() == [0.1, 1, 0.1] and trials["nesterov"].tolist() == [True, False, True]
    bare, _ = load.raw_runs(write("seed,epoch,loss", "0,0,1", "1,0,2"))
    assert bare["seed"].tolist() == [0, 1] and bare["key"].nunique() == 2


def test_clocks_are_no_factors(write):
    trials, epochs = load.raw_runs(write("seed,epoch,examples,seconds,val_loss", "0,0,0,0,2", "0,1,100,3,1"))
    assert len(trials) == 1 and epochs["examples"].tolist() == [0, 100] and epochs["seconds"].tolist() == [0, 3]
    found = times.times(trials, epochs, [], "val_loss", 1)
    assert found[["time", "examples", "seconds"]].to_numpy().tolist() == [[1, 100, 3]]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([""], "no CSV file"),
        ([HEAD], "no rows"),
        (["optimizer,epoch,loss", "a,0,1"], "seed missing"),
        (["optimizer,seed,loss", "a,0,1"], "epoch missing"),
        (["a,seed,epoch", "1,0,0"], "expected a metric"),
        ([HEAD, "a,2,0,0,.1,1,1", "a,2,0,0,.2,1,1"], "two rows for optimizer=a, depth=2, seed=0, epoch=0"),
        ([HEAD, "a,2,0,0,high,1,1"], "val_accuracy=high: expected a number"),
        ([HEAD, "a,2,zero,0,.1,1,1"], "seed=zero"),
        ([HEAD, "a,2,0,.5,.1,1,1"], "epoch=0.5: expected whole numbers"),
        ([HEAD, "a,2,,0,.1,1,1"], "seed=nan"),
        ([HEAD, "a,2,-1,0,.1,1,1"], "seed=-1"),
        ([HEAD, "a,2,0,0,91.2,1,1"], "divide percent by 100"),
        (["status,seed,epoch,loss", "a,0,0,1"], "no factor can be called status"),
        (["seed,seed,epoch,loss", "0,0,0,1"], "several of seed"),
        ([HEAD, "a,2,0,0,.1,1,1", "a,2,0,1,.1,1,1,9,9"], "no CSV file"),
    ],
)
def test_bad_files_are_refused(write, lines, said):
    with pytest.raises(StudyError, match=said):
        load.raw_runs(write(*lines))


def test_what_is_no_file_or_no_text_is_refused(tmp_path):
    with pytest.raises(StudyError, match="cannot be read"):
        load.raw_runs(tmp_path / "none.csv")
    with pytest.raises(StudyError, match="cannot be read"):
        load.raw_runs(tmp_path)
    (tmp_path / "runs.csv").write_bytes(b"\xff\xfe\x00seed,epoch")
    with pytest.raises(StudyError, match="no CSV file"):
        load.raw_runs(tmp_path / "runs.csv")
