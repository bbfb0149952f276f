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
    frame = frame.sort_values(x, kind="stable", ignore_index=True)
    fails = {p: dict(arms.of(ends, p)) if ends is not None and len(ends) else {} for p in arms.panels}
    drawn = []
    for panel in arms.panels:
        drawn.append([])
        for arm, part in arms.of(frame, panel):
            line = {"arm": numbered[arm], "x": numbers(part[x]), "y": numbers(part[y])}
            line |= {name: numbers(part[name]) for name in ("low", "high") if name in part}
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
        keys: from an arm's levels, in the order of `arms.by`, and a seed to the trial's key, None if it is not one.
    """
    panels = []
    for panel in arms.panels:
        seeds = dict(arms.of(units, panel))
        rows = []
        for n, arm in enumerate(arms.styles):
            found = dict(arms.of(compared, panel)).get(arm)
            if found is None:
                continue
            [row] = found.to_dict("records")
            part = seeds.get(arm, pd.DataFrame(columns=["seed", "value", "lost"]))
            mean, low, high = numbers([row["mean"], *([np.nan] * 2 if row["erratic"] else [row["low"], row["high"]])])
            each = zip(part["seed"].tolist(), numbers(part["value"]), part["lost"].tolist(), strict=True)
            marks = [
                [int(seed), value, int(lost > 0), keys((*panel, *arm), seed)]
                for seed, value, lost in each
                if value is not None
            ]
            rows.append({"arm": n, "mean": mean, "low": low, "high": high, "seeds": marks})
        panels.append({"title": arms.title(panel), "rows": rows})
    means = compared["mean"][np.isfinite(compared["mean"]) & (compared["mean"] > 0)]
    spread = measure(metric).better < 0 and len(means) and means.max() > 100 * means.min()
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
    for panel in arms.panels:
        names, drawn = {}, []
        for arm, part in arms.of(frame, panel):
            for kernel, rows in part.groupby("kernel", sort=False):
                line = {"arm": numbered[arm], "kernel": names.setdefault(kernel, len(names))}
                line["x"] = numbers(rows["epoch"])
                drawn.append(line | {"y": [numbers(rows[name]) for name in statistics]})
        panels.append({"title": arms.title(panel), "kernels": list(names), "lines": drawn})
    return looks(arms) | {"kind": "kernels", "x": "epoch", "statistics": list(statistics.values()), "panels": panels}


def courses(epochs: pd.DataFrame) -> dict:
    """Every trial's curves: the columns that have values, and of each key its epochs and those."""
    there = [name for name in TRIAL_CURVES if name in epochs and epochs[name].notna().any()]
    of = {
        str(key): [part["epoch"].astype(int).tolist(), *(numbers(part[name]) for name in there)]
        for key, part in epochs.groupby("key", sort=False)
    }
    return {"names": [words(name) for name in there], "of": of}


def layers(frame: pd.DataFrame, statistics: dict[str, str]) -> dict:
    """Statistics of every trial's kernels: of each key the epochs, and of each kernel a list a statistic.

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
        trial = of.setdefault(str(key), [[at[row] for row in rows], {}])
        trial[1][names.setdefault(str(kernel), len(names))] = [[column[row] for row in rows] for column in columns]
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
