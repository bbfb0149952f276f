"""Frames in, frames out: how variances change from layer to layer, as measured and as predicted."""

import pandas as pd

from analysis.estimate.arms import arms_of, labelled
from studies.record import SERIES

DIRECTIONS = ("forward", "gradient")


def by_layer(trials: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """The variances that `studies.compute.propagation.variances` gives, over the seeds of an arm that finished.

    Args:
        trials: a trials frame with its quantities.
        by: the factors that make the arms.

    Returns:
        one row an arm, direction and layer: the columns `by`, direction, layer, measured, low, high, predicted: powers
        of ten, the mean over the seeds, the least and the greatest; empty if the trials have no such quantities.
    """
    done = trials[trials["status"] == "finished"]
    names = [f"{kind}{direction}{SERIES}" for kind in ("", "predicted_") for direction in DIRECTIONS]
    number, arms = arms_of(done, by)
    if f"{names[0]}1" not in done:
        return pd.DataFrame(columns=[*by, "direction", "layer", "measured", "low", "high", "predicted"])
    series = done[[name for name in done if str(name).startswith(tuple(names))]].astype(float)
    tidy = series.assign(arm=number).melt("arm").dropna()
    tidy[["name", "layer"]] = tidy["variable"].str.split(SERIES, expand=True).reindex(columns=[0, 1])
    tidy["layer"] = tidy["layer"].astype(int)
    tidy["direction"] = tidy["name"].str.removeprefix("predicted_")
    place, foretold = ["arm", "direction", "layer"], tidy["name"].str.startswith("predicted_")
    spans = tidy[~foretold].groupby(place)["value"].agg(measured="mean", low="min", high="max")
    frame = spans.join(tidy[foretold].groupby(place)["value"].mean().rename("predicted")).reset_index()
    return labelled(frame, arms, by)
