"""What, seen early, foretells how a study's trials end: `python -m analysis.foretell STUDY`."""

import json
import sys
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import command, compare, load
from analysis.estimate import history
from analysis.show import foretelling, tables
from analysis.show.foretelling import MOST, SEED
from studies.record import Study, StudyError, listed


def main(arguments: list[str] | None = None) -> int:
    """Print what foretells the end, and how well; gives the exit code, 2 for what the user can put right."""
    parser = command.parser("foretell", "What, seen early, foretells how a study's trials end.")
    parser.add_argument("study", help="its name, such as init_comparison")
    command.add_execution(parser)
    parser.add_argument(
        "--epoch", help="observed ones, separated by commas (default: 0, the untrained network, and the first after it)"
    )
    parser.add_argument("--metric", help="what is foretold: any column of numbers of the trials (default: the study's)")
    parser.add_argument(
        "--most", type=int, help=f"rows an epoch, the strongest first (default: {MOST}, all in CSV and JSON)"
    )
    command.add_format(parser)
    options = parser.parse_args(arguments)

    def run():
        how = (options.epoch, options.metric, options.most, options.format, options.execution or load.LATEST)
        command.say(table(options.study, options.root, *how, command.width(options)))

    return command.told(options, run)


def table(
    study: str,
    root: str | Path = "mlruns",
    epochs: str | None = None,
    metric: str | None = None,
    most: int | None = None,
    format: str = "terminal",
    execution: str | int = load.LATEST,
    width: int | None = None,
) -> str:
    """What foretells the end of the trials of one of a study's executions: a table, and in words.

    Args:
        epochs: observed ones, separated by commas; None for the first two.
        most: rows an epoch; None for `MOST`, of CSV and JSON for all.
        execution: which, as `load.execution` has it.
        width: of the terminal that it is for, which the table is to fit; None for as wide as it is.

    Raises:
        StudyError: there is no such study, execution, epoch or metric; nothing was trained, or kept of its layers; or
            nothing is left to foretell.
    """
    if most is not None and most < 1:
        raise StudyError(f"--most {most}: expected a number of rows, 1 at least")
    of = load.execution(study, root, execution=execution)
    design, trials = compare.selected(study, root, execution=of)
    metric, at = metric or design.metric, chosen(study, trials, root, epochs)
    rows = most or (None if format in tables.PLAIN else MOST)
    found, counts = foretold(design, trials, load.epochs(study, root, list(trials["key"])), root, metric, at, rows)
    lines = foretelling.foretell_words(found, counts, metric) + history.mixed(trials, design.compared)
    if format == "json":
        whole: dict = {"study": study, "metric": metric, "epochs": tables.rows_of(counts), "words": lines}
        whole |= {"of": compare.about(of, root).record, "statistics": tables.rows_of(found)}
        return json.dumps(whole, indent=2, ensure_ascii=False)
    text = tables.noted(foretelling.foretell_table(found, metric, format, width), lines, format)
    return tables.noted(text, compare.about(of, root).lines, format)


def foretold(
    study: Study,
    trials: pd.DataFrame,
    epochs: pd.DataFrame,
    root: str | Path,
    metric: str,
    at: Collection[int],
    most: int | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What `foretell.foretold` and `foretell.counts` give for a study's trials at some epochs.

    Raises:
        StudyError: there is no such metric.
    """
    from analysis.estimate import columns, foretell

    trials = columns.added(trials, metric, study.name, root)
    layers = load.layers(study.name, root, list(trials["key"]), epochs=at)
    by, rng = study.compared, np.random.default_rng(SEED)
    found = foretell.foretold(trials, epochs, layers, by, metric, at, rng, most)
    return found, foretell.counts(trials, epochs, by, metric, at)


def chosen(study: str, trials: pd.DataFrame, root: str | Path, epochs: str | None = None) -> list[int]:
    """The epochs that are asked for, or the first two observed, before the last.

    Raises:
        StudyError: see `table`.
    """
    from analysis.estimate import foretell

    last = int(trials["epochs"].max())
    if not last:
        raise StudyError(
            f"{study}: its trials are computed, or none got through an epoch: there is nothing to foretell"
        )
    known = foretell.observed(trials, study, root)
    if not known:
        raise StudyError(
            f"{study}: nothing was kept of its layers: run it with diagnostics=standard, which trains its trials again"
        )
    if epochs is None:
        return known[:2]
    asked = [part.strip() for part in epochs.split(",")]
    if unknown := [part for part in asked if not part.isdecimal() or int(part) not in known]:
        raise StudyError(
            f"--epoch {epochs}: {listed(unknown)} {'was' if len(unknown) == 1 else 'were'} not observed before the "
            f"trials' last epoch, {last}: expected some of {listed(known)}"
        )
    return sorted({int(part) for part in asked})


if __name__ == "__main__":
    sys.exit(main())
