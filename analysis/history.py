"""The executions of a study, and what changed from one to another: frames."""

import itertools
from datetime import datetime

import pandas as pd
import yaml

from analysis import load
from studies.record import CIRCUMSTANCES, arm_label, listed

COMMIT = "mlflow.source.git.commit"


def listing(executions: list[load.Execution]) -> pd.DataFrame:
    """One row an execution: started (local time), seconds (missing while it runs), status, trials, commit, versions."""
    return pd.DataFrame(
        [
            {
                "started": f"{datetime.fromtimestamp(each.start_time / 1000):%Y-%m-%d %H:%M:%S}",
                "seconds": "–" if each.end_time is None else f"{(each.end_time - each.start_time) / 1000:.0f}",
                "status": each.status,
                "trials": str(len(each.keys)),
                "commit": each.tags.get(COMMIT, "–")[:12],
                "versions": ", ".join(
                    f"{name.removeprefix('version.')} {version}"
                    for name, version in sorted(each.tags.items())
                    if name.startswith("version.")
                ),
            }
            for each in executions
        ]
    )


def config_changes(old: str, new: str) -> pd.DataFrame:
    """One row a config key whose value changed, was added or removed (–), from two configs as YAML."""
    old, new = (dict(_flat(yaml.safe_load(text) or {})) for text in (old, new))
    rows = [
        (
            key,
            *(_yaml(config[key]) if key in config else "–" for config in (old, new)),
        )
        for key in dict.fromkeys([*old, *new])
        if key not in old or key not in new or old[key] != new[key]
    ]
    return pd.DataFrame(rows, columns=["config key", "before", "after"])


def mean_changes(old: pd.DataFrame, new: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """One row an arm that two comparisons have: its mean in either, and the difference.

    Args:
        old, new: from `estimates.comparison`, both by the factors `by`.
    """
    before = {_arm(row, by): row["mean"] for row in old.to_dict("records")}
    rows = [
        (_arm(row, by), before[_arm(row, by)], row["mean"], row["mean"] - before[_arm(row, by)])
        for row in new.to_dict("records")
        if _arm(row, by) in before
    ]
    return pd.DataFrame(rows, columns=["arm", "before", "after", "change"])


def mixed(trials: pd.DataFrame) -> list[str]:
    """Says what was not the same for all trials of a frame though it may change their numbers; nothing if all was."""
    unlike = []
    for name in CIRCUMSTANCES:
        known = trials[name][trials[name] != ""] if name in trials else pd.Series()
        if len(counts := known.value_counts()) > 1:
            unlike.append(f"{_called(name)} " + " and ".join(f"{value} ({n})" for value, n in counts.items()))
    if not unlike:
        return []
    return [
        f"The trials were not all trained by the same, {'; '.join(unlike)}: that alone changes last bits, and after "
        f"some epochs scores."
    ]


def changed(finished: list[dict[str, str]], now: dict[str, str]) -> str:
    """How trials that an execution would add to were trained otherwise than it would train, or nothing.

    Args:
        finished: the tags of those that are there.
        now: what `studies.provenance.circumstances` says.
    """
    unlike = {name: [] for name in CIRCUMSTANCES}
    for tags, name in itertools.product(finished, CIRCUMSTANCES):
        if tags.get(name) and now.get(name) and tags[name] != now[name]:
            unlike[name].append(tags[name])
    parts = [
        f"{len(values)} by {_called(name)} {listed(dict.fromkeys(values))}, now {now[name]}"
        for name, values in unlike.items()
        if values
    ]
    if not parts:
        return ""
    return (
        f"of the {len(finished)} trials that are finished, not all were trained as the others will be "
        f"({'; '.join(parts)}), which alone can change scores: study.name=ANOTHER trains all of them anew"
    )


def _called(name: str) -> str:
    return name.removeprefix("version.")


def _arm(row, by) -> str:
    return arm_label({factor: row[factor] for factor in by})


def _yaml(value) -> str:
    """A value as YAML has it in one line: null is not the text 'null'."""
    return yaml.safe_dump(value, default_flow_style=True, width=1e9, allow_unicode=True).removesuffix("...\n").strip()


def _flat(config, path=""):
    if isinstance(config, dict) and config:
        for name, value in config.items():
            yield from _flat(value, f"{path}.{name}" if path else str(name))
    else:
        yield path, config
