"""What a study's networks come to on a device: `python -m analysis.footprint STUDY`.

Trains the first seed of each arm once more, in a process of its own, and exports, runs and times its network.
"""

import json
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import command, compare, load
from analysis.show import footprints, tables
from studies.record import Study, StudyError, arm_label, is_computed, listed, plain

PROCESS = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from studies.edge.__main__ import main
sys.exit(main(*sys.argv[2:]))
"""

TRAINING = re.compile(r"training \d+ of \d+ again: (.+)")
"""What the process says before it trains an arm."""

AGAIN = ("val_loss", "val_accuracy")
"""What must come out as it was when a trial is trained again."""

NUMBERS = (
    *("parameters", "kept", "flops", "effective_flops", "bytes", "compressed"),
    *("p50", "p95", "accuracy", "model_accuracy"),
)
TEXTS = ("in_floats", "notes")


def main(arguments: list[str] | None = None) -> int:
    """Print the table; gives the exit code, 2 for what the user can put right."""
    parser = command.parser(
        "footprint", "What a study's networks come to on a device: size, operations, time, accuracy."
    )
    parser.add_argument("study", help="its name, such as pruning_curve")
    command.add_execution(parser)
    parser.add_argument("--where", metavar="CONDITION", help='which trials, such as "depth >= 8" (default: all)')
    parser.add_argument("--seeds", type=int, default=1, help="so many of each arm are trained again (default: 1)")
    command.add_format(parser)
    parser.add_argument("--to", metavar="FOLDER", help="keep the exported files there")
    parser.add_argument(
        "--allow", action="append", default=[], metavar="PREFIX", help="a package of yours that may be called: mine."
    )
    options = parser.parse_args(arguments)

    def run():
        how = (options.seeds, options.where, options.format, options.to, options.execution or load.LATEST)
        command.say(footprint(options.study, options.root, *how, command.width(options), options.allow))

    return command.told(options, run)


def footprint(
    study: str,
    root: str | Path = "mlruns",
    seeds: int = 1,
    where: str | None = None,
    format: str = "terminal",
    to: str | Path | None = None,
    execution: str | int = load.LATEST,
    width: int | None = None,
    allow: Sequence[str] = (),
) -> str:
    """The footprint of a study's arms as text: a table, and what is to be said of it.

    Args:
        width: of the terminal that it is for, which the table is to fit; None for as wide as it is.
        allow: see `measured`.

    Raises:
        StudyError: see `measured`.
    """
    of = load.execution(study, root, execution=execution)
    design, found = measured(study, root, seeds, where, to, of, allow)
    by = list(design.factors)
    lines = footprints.notes(found, by)
    if format == "json":
        rows = tables.rows_of(found.drop(columns=["reference"]))
        whole = {"study": study, "by": by, "notes": lines, "of": compare.about(of, root).record, "networks": rows}
        return json.dumps(whole, indent=2, ensure_ascii=False)
    text = tables.noted(footprints.table(found, by, format, width), lines, format)
    return tables.noted(text, compare.about(of, root).lines, format)


def measured(
    study: str,
    root: str | Path = "mlruns",
    seeds: int = 1,
    where: str | None = None,
    to: str | Path | None = None,
    execution: str | int | load.Execution = load.LATEST,
    allow: Sequence[str] = (),
) -> tuple[Study, pd.DataFrame]:
    """A study, and one row for each network and kind of file of its arms, the mean over seeds.

    Args:
        seeds: so many finished trials of each arm are trained again, those of the first seeds.
        where: which trials, see `selection.Condition`.
        to: a folder in which the exported files are kept.
        execution: whose trials, as `load.execution` has it, or itself.
        allow: prefixes of one's own packages that may be called, each ending in a dot; what a stored config allows
            itself does not count.

    Returns:
        the factors, null where a dense reference has none; network, file, seeds; parameters, kept, flops,
        effective_flops, bytes, compressed; p50, p95 in seconds; of_dense: p50 over that of the dense network's file of
        that kind; accuracy of the file on the test set, model_accuracy of the network that it was made from; in_floats:
        operations of an int8 file that are none; notes.

    Raises:
        StudyError: there is no such study, arm or finished trial, the study is computed or of fits of one's own, or a
            part of it is refused.
    """
    if seeds < 1:
        raise StudyError(f"--seeds {seeds}: expected 1 or more")
    design, trials = compare.selected(study, root, where, execution=execution)
    chosen, configs = _chosen(study, root, trials, list(design.factors), seeds)
    asked = [
        {
            "key": row["key"],
            "seed": row["seed"],
            "arm": {factor: row[factor] for factor in design.factors},
            "config": configs[row["key"]] | {"targets": {"allow": list(allow)}},
        }
        for row in tables.rows_of(chosen[["key", "seed", *design.factors]])
    ]
    if wrong := [prefix for prefix in allow if not prefix.strip(".") or not prefix.endswith(".")]:
        raise StudyError(f"--allow {listed(wrong)}: expected prefixes that end in a dot, such as mine.")
    found = pd.DataFrame(_answered(asked, to))
    return design, _of_dense(_over_seeds(_as_frame(found, chosen, list(design.factors)), list(design.factors)))


def _chosen(study, root, trials, by, seeds) -> tuple[pd.DataFrame, dict[str, dict]]:
    """The trials to train again, the first seeds of each arm, and their configs by key."""
    finished = trials[trials["status"] == "finished"]
    if finished.empty:
        raise StudyError(
            f"{study}: none of these {len(trials)} trials has finished ({listed(dict.fromkeys(trials['status']))}): "
            f"what failed has no network to export. Run it again, or choose others with --where"
        )
    arms = pd.Series(
        [arm_label({factor: row[factor] for factor in by}, whole=True) for row in tables.rows_of(finished)],
        finished.index,
    )
    chosen = finished[finished.groupby(arms)["seed"].rank(method="first") <= seeds]
    kept = load.configs(study, root, list(chosen["key"]))
    if any("engine" not in config and not is_computed(config) for config in kept.values()):
        raise StudyError(
            f"{study} has fits of your own, which WeightRecorder has recorded: their code and data are not stored, and "
            f"they cannot be trained again. Name a study that python -m studies.run has trained, such as "
            f"init_comparison"
        )
    if any(is_computed(config) for config in kept.values()):
        raise StudyError(
            f"{study} computes: its trials have no trained network to export. Name a study that trains, such as "
            f"init_comparison"
        )
    return chosen, {
        key: {name: value for name, value in config.items() if name not in ("seed", "overrides")}
        for key, config in kept.items()
    }


def _answered(asked: list[dict], to: str | Path | None) -> list[dict]:
    """What the process with TensorFlow finds; what it does meanwhile is printed to stderr.

    Raises:
        StudyError: it refuses, or dies.
    """
    request = {
        "trials": asked,
        "threads": asked[0]["config"]["engine"]["threads"],
        "folder": None if to is None else str(to),
    }
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "errors", "w+", encoding="utf-8") as errors:
        files = [Path(folder) / name for name in ("asked.json", "answer.json")]
        files[0].write_text(json.dumps(request), encoding="utf-8")
        command = [sys.executable, "-c", PROCESS, json.dumps(sys.path), *map(str, files)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
            arm = None
            try:
                for line in process.stdout or ():
                    print(plain(line.rstrip()), file=sys.stderr, flush=True)
                    arm = TRAINING.match(line) or (None if line.startswith("timing ") else arm)
            except BaseException:
                process.kill()
                raise
        if not files[1].exists():
            errors.seek(0)
            last = " ".join(" ".join(errors.read().splitlines()[-3:]).split())
            raise StudyError(
                f"the process that trains and exports ended by itself (exit code {process.returncode}): "
                f"{last or 'it said nothing'}. "
                + (f"It was at {arm[1]}: leave that arm out with --where" if arm else "It was at no arm: run it again")
            )
        answer = json.loads(files[1].read_text(encoding="utf-8"))
    if "error" in answer:
        outside = "._target_=" in answer["error"]
        raise StudyError(
            answer["error"]
            + ". What a stored config allows does not count: --allow PREFIX does, for a package that is yours" * outside
        )
    return answer["found"]


def _as_frame(found: pd.DataFrame, chosen: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Records with a column for each factor, and a note where a trial did not come out as it is in the store.

    What is stored is in single precision.
    """
    stored = {row["key"]: row for row in chosen.to_dict("records")}
    notes = []
    for row in found.to_dict("records"):
        was = stored.get(row["key"], row)
        differs = any(np.float32(row[name]) != np.float32(was[name]) for name in AGAIN)
        again = (
            f"trained again it came out otherwise than in the store (val_accuracy {row['val_accuracy']:.4f}, and there "
            f"{was['val_accuracy']:.4f}), as on another processor or with other versions"
        )
        notes.append([*row["notes"], *([again] if differs else [])])
    levels = {factor: pd.Series([row.get(factor) for row in found["levels"]], dtype=object) for factor in by}
    return pd.DataFrame(
        levels | {name: found[name] for name in found if name not in ("levels", "key")} | {"notes": notes}
    )


def _over_seeds(frame: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """The mean over seeds of each network's numbers, in order of appearance."""
    places = pd.Series([json.dumps([row[name] for name in (*by, "network", "file")]) for _, row in frame.iterrows()])
    rows = []
    for place in dict.fromkeys(places):
        part = frame[(places == place).to_numpy()]
        row = {name: part[name].iloc[0] for name in (*by, "network", "reference", "file")} | {"seeds": len(part)}
        row |= {name: float(part[name].astype(float).mean()) for name in NUMBERS}
        row |= {name: list(dict.fromkeys(each for some in part[name] for each in some)) for name in TEXTS}
        rows.append(row)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return pd.DataFrame(columns | {name: pd.Series(columns[name], dtype=object) for name in by})


def _of_dense(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with each median time as a multiple of that of the dense network's file of the same kind."""
    dense = frame[frame["network"] == "dense"].drop_duplicates(["reference", "file"])
    times = dense.set_index(["reference", "file"])["p50"]
    ratios = [row["p50"] / times.get((row["reference"], row["file"]), math.nan) for row in frame.to_dict("records")]
    return frame.assign(of_dense=ratios)


if __name__ == "__main__":
    sys.exit(main())
