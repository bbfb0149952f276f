"""Frames in, data of charts out: what a page's script draws, the same that `plots` draws; computed before, as there."""

import base64
import gzip
import json
import math
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from analysis.estimate.measure import measure
from analysis.show import plots, style
from analysis.show.plots import Arms
from analysis.show.tables import level_text, words
from studies.record import arm_label, short

DIGITS = 4
"""Of a number in a chart."""

MOST_NUMBERS = 150_000
"""Of all trials' layers together: of larger studies fewer epochs are in the page, of each trial's as many."""

DASHES = dict(zip(style.DASHES, ([], [7, 4], [2, 3], [8, 3, 2, 3], [9, 3, 2, 3, 2, 3]), strict=True))
"""A line's dashes and gaps, in pixels, as `plots` has them in points."""

TRIAL_CURVES = ("running_loss", "train_loss", "val_loss", "running_accuracy", "train_accuracy", "val_accuracy",
                "learning_rate")  # fmt: skip


def packed(data: object) -> str:
    """Data as text that holds nothing which HTML could take for its own: JSON, compressed, in base64."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()


def numbers(values: Iterable[float], digits: int = DIGITS) -> list[float | int | None]:
    """Numbers rounded to some digits; what is not finite is None."""
    found = np.asarray(values, dtype=float)
    finite = np.isfinite(found)
    sizes = np.where(finite & (found != 0), np.abs(found), 1.0)
    places = np.clip(digits - 1 - np.floor(np.log10(sizes)), -290, 290)
    up, down = 10.0 ** np.clip(places, 0, None), 10.0 ** np.clip(-places, 0, None)
    rounded = np.rint(np.where(finite, found, 0.0) * up / down) * down / up
    return [None if not is_finite else value for value, is_finite in zip(rounded.tolist(), finite, strict=True)]


def looks(arms: Arms) -> dict:
    """The arms that a chart tells apart, and which other charts tell apart the same ones."""
    told = [
        {"name": arms.name(arm) or "all", "colour": look.colour, "dash": DASHES[look.dashes], "marker": look.marker}
        for arm, look in arms.styles.items()
    ]
    return {"key": ", ".join(arms.colour), "arms": told}


def lines(
    arms: Arms,
    frame: pd.DataFrame,
    x: str,
    metric: str,
    guess: float = math.nan,
    ends: pd.DataFrame | None = None,
    y: str = "mean",
) -> dict:
    """A metric along something, an arm a line, its intervals a band; `plots.curves` says of what.

    Args:
        x, y: columns of the frame; `low` and `high` are the band, if it has them.
        guess, ends: as in `plots.curves`.
    """
    facets, numbered = plots.facets(arms), {arm: n for n, arm in enumerate(arms.styles)}
    columns = {"x": x, "y": y} | {name: name for name in ("low", "high") if name in frame}
    frame = frame[[*arms.by, *columns.values()]].sort_values(x, kind="stable", ignore_index=True)
    fails = {p: dict(arms.of(ends, p)) if ends is not None and len(ends) else {} for p in arms.panels}
    drawn: list[list[dict]] = []
    values = {name: numbers(frame[column]) for name, column in columns.items()}
    for panel in arms.panels:
        drawn.append([])
        for arm, part in arms.of(frame[[*arms.by]], panel):
            line = {"arm": numbered[arm]} | {name: [found[n] for n in part.index] for name, found in values.items()}
            if arm in fails[panel]:
                line["ends"] = numbers(fails[panel][arm]["epoch"])
            drawn[-1].append(line)
    places = {panel: n for n, panel in enumerate(arms.panels)}
    means = frame[y].astype(float)
    tried = frame[x].astype(float)
    return looks(arms) | {
        "kind": "lines",
        "x": words(short(x, [x])),
        "y": words(metric),
        "log": bool(measure(metric).better < 0 and (means > 0).any()),
        "logx": bool(x != "epoch" and x != "draws" and len(tried) and tried.min() > 0 and x.endswith("rate")),
        "guess": None if math.isnan(guess) else round(guess, 6),
        "lines": drawn,
        "panels": [
            {"title": title, "of": places[panel], "shown": [numbered[arm] for arm in shown]}
            for title, panel, shown in facets
        ],
    }


def dots(
    arms: Arms, compared: pd.DataFrame, units: pd.DataFrame, metric: str, guess: float, keys: Callable[..., str | None]
) -> dict:
    """Every arm's mean and interval, and every seed, as `plots.comparison` draws them.

    Args:
        keys: from an arm's levels, in the order of its factors, and a seed to the trial's key, None if it is not one.
    """
    panels = []
    numbered = {arm: n for n, arm in enumerate(arms.styles)}
    marks = list(zip(units["seed"].tolist(), numbers(units["value"]), (units["lost"] > 0).astype(int), strict=True))
    bands = compared[["low", "high"]].where(~compared["erratic"].astype(bool))  # no t interval holds
    means, lows, highs = (numbers(column) for column in (compared["mean"], bands["low"], bands["high"]))
    seeds = units[[*arms.by]].reset_index(drop=True)
    rows = compared[[*arms.by]].reset_index(drop=True)
    for panel in arms.panels:
        of_arm = {arm: part.index for arm, part in arms.of(seeds, panel)}
        drawn = []
        for arm, part in arms.of(rows, panel):
            [at] = part.index
            each = (marks[n] for n in of_arm.get(arm, ()) if marks[n][1] is not None)
            told = [[int(seed), value, int(lost), keys((*panel, *arm), seed)] for seed, value, lost in each]
            drawn.append({"arm": numbered[arm], "mean": means[at], "low": lows[at], "high": highs[at], "seeds": told})
        panels.append({"title": arms.title(panel), "rows": drawn})
    above = compared["mean"][np.isfinite(compared["mean"]) & (compared["mean"] > 0)]
    spread = measure(metric).better < 0 and len(above) and above.max() > 100 * above.min()
    return looks(arms) | {
        "kind": "dots",
        "x": words(metric),
        "log": bool(spread),
        "guess": None if math.isnan(guess) else round(guess, 6),
        "panels": panels,
    }


def kernels(arms: Arms, frame: pd.DataFrame, statistics: dict[str, str]) -> dict:
    """Statistics of kernels by epoch, those of one panel's arms and one kernel at a time.

    Args:
        frame: from `dynamics.medians`.
        statistics: columns of the frame, and what they are called.
    """
    panels = []
    numbered = {arm: n for n, arm in enumerate(arms.styles)}
    frame = frame.reset_index(drop=True)
    columns, epochs, kernel = (
        [numbers(frame[name]) for name in statistics],
        frame["epoch"].tolist(),
        list(frame["kernel"]),
    )
    for panel in arms.panels:
        names: dict[str, int] = {}
        drawn: list[dict] = []
        for arm, part in arms.of(frame[[*arms.by]], panel):
            places: dict[str, list[int]] = {}
            for row in part.index:
                places.setdefault(kernel[row], []).append(row)
            for name, rows in places.items():
                line: dict = {"arm": numbered[arm], "kernel": names.setdefault(name, len(names))}
                line |= {"x": [epochs[n] for n in rows], "y": [[column[n] for n in rows] for column in columns]}
                drawn.append(line)
        panels.append({"title": arms.title(panel), "kernels": list(names), "lines": drawn})
    return looks(arms) | {"kind": "kernels", "x": "epoch", "statistics": list(statistics.values()), "panels": panels}


def courses(epochs: pd.DataFrame) -> dict:
    """Every trial's curves: the columns that have values, and of each key its epochs and those."""
    there = [name for name in TRIAL_CURVES if name in epochs and epochs[name].notna().any()]
    columns = [epochs["epoch"].astype(int).tolist(), *(numbers(epochs[name]) for name in there)]
    places = epochs.groupby("key", sort=False).indices
    of = {str(key): [[column[n] for n in rows] for column in columns] for key, rows in places.items()}
    return {"names": [words(name) for name in there], "of": of}


def layers(frame: pd.DataFrame, statistics: dict[str, str]) -> dict:
    """Statistics of every trial's kernels: of each key the epochs, and of each kernel, in the network's order, its
    number and a list a statistic.

    Args:
        frame: from `dynamics.kernels`; of large studies some epochs are left out, see `MOST_NUMBERS`.
    """
    epochs = np.unique(frame["epoch"])
    each = max(len(frame) // max(len(epochs), 1), 1) * len(statistics)
    kept = plots.some(epochs.tolist(), max(MOST_NUMBERS // each, 2))
    if len(kept) < len(epochs):
        frame = frame[frame["epoch"].isin(kept)]
    columns = [numbers(frame[name], 3) for name in statistics]
    at, of, names = frame["epoch"].tolist(), {}, {}
    for (key, kernel), rows in frame.groupby(["key", "kernel"], sort=False).indices.items():
        trial = of.setdefault(str(key), [[at[row] for row in rows], []])
        values = ([column[row] for row in rows] for column in columns)
        trial[1].append([names.setdefault(str(kernel), len(names)), *values])
    return {"statistics": list(statistics.values()), "kernels": list(names), "of": of}


def settings(frame: pd.DataFrame) -> dict:
    """What is the same in all trials' configs, and what is not, by key.

    Args:
        frame: from `load.settings`.
    """
    texts = {name: [level_text(value) for value in frame[name]] for name in frame if name != "key"}
    same = {name: column[0] for name, column in texts.items() if len(set(column)) == 1}
    own = {name: column for name, column in texts.items() if name not in same}
    of = {key: [column[n] for column in own.values()] for n, key in enumerate(frame["key"].tolist())}
    return {"same": same, "names": list(own), "of": of}


def trials(frame: pd.DataFrame, by: list[str], metric: str, reasons: dict[str, str]) -> dict:
    """What a table of all trials, and each one's page, says.

    Args:
        reasons: why trials failed, by key.
    """
    rows = frame.to_dict("records")
    told = [
        {
            "key": row["key"],
            "arm": arm_label({factor: row[factor] for factor in by}),
            "levels": [level_text(row[factor]) for factor in by],
            "seed": int(row["seed"]),
            "status": row["status"],
            "epochs": None if math.isnan(row["epochs"]) else int(row["epochs"]),
            "value": numbers([row[metric]])[0],
            "scores": {words(n): v for n, v in zip(SCORES, numbers([row.get(n, math.nan) for n in SCORES])) if v},
            "seconds": numbers([row["seconds_total"]], 3)[0],
            "warnings": [sign for sign in row["warning"].split("; ") if sign],
            "reason": reasons.get(row["key"], ""),
            "run": row["folder"].parent.name if hasattr(row["folder"], "parent") else "",
        }
        for row in rows
    ]
    return {"factors": [short(factor, by) for factor in by], "metric": words(metric), "rows": told}


SCORES = ("val_accuracy", "val_loss", "test_accuracy", "test_loss", "train_accuracy", "train_loss")
