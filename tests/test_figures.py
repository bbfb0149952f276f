"""A computed study's figure, from the frame to the file, and the command."""

import matplotlib.image
import pandas as pd
import pytest

from analysis import figures
from analysis.estimate import propagation
from studies.record import Study, StudyError

STUDY = Study(
    "made", "?", {"compute.depth": (2, 3), "compute.initializer": ("a", "b")}, (0, 1), {}, "x",
    figures=("variance_by_layer",),
)  # fmt: skip


def trials():
    rows = []
    for depth in (2, 3):
        for initializer in "ab":
            for seed in (0, 1):
                row = {"compute.depth": depth, "compute.initializer": initializer, "seed": seed, "status": "finished"}
                for layer in range(1, depth + 1):
                    for side in ("forward", "gradient"):
                        row |= {f"{side}__{layer}": layer + seed, f"predicted_{side}__{layer}": 2.0 * layer}
                rows.append(row)
    rows[-1]["status"] = "crashed"
    return pd.DataFrame(rows)


def test_each_layer_has_its_mean_its_range_and_its_prediction():
    frame = propagation.by_layer(trials(), list(STUDY.factors))
    assert len(frame) == 2 * 2 * (2 + 3)
    row = frame[(frame["compute.depth"] == 3) & (frame["compute.initializer"] == "a") & (frame["layer"] == 3)].iloc[0]
    assert row[["measured", "low", "high", "predicted"]].tolist() == [3.5, 3, 4, 6]
    alone = frame[(frame["compute.depth"] == 3) & (frame["compute.initializer"] == "b")]
    assert (alone["low"] == alone["high"]).all()


def test_the_figure_is_a_png_with_a_panel_a_direction(tmp_path):
    [path] = figures.write(STUDY, trials(), tmp_path / "figures")
    assert path == tmp_path / "figures" / "variance_by_layer.png"
    assert matplotlib.image.imread(path).shape[0] > 300


def test_a_study_that_measures_something_else_cannot_be_drawn(tmp_path):
    others = trials()[["compute.depth", "compute.initializer", "seed", "status"]].assign(slope=1.0)
    with pytest.raises(StudyError, match=r"studies\.compute\.propagation\.variances"):
        figures.write(STUDY, others, tmp_path)
