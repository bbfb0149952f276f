"""The figures that a computed study asks for, as PNG: `python -m analysis.figures STUDY`."""

import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from analysis import chosen, command, load
from analysis.estimate import propagation
from analysis.read import runs
from analysis.show import plots
from analysis.show.style import Figure
from studies import terminal
from studies.record import Study, StudyError, listed

FOLDER = "figures"
"""Where they are among a study's artifacts."""

DPI = 150


def variance_by_layer(study: Study, trials: pd.DataFrame) -> Figure:
    """Measured and predicted variances layer by layer.

    Raises:
        StudyError: the study computes something else.
    """
    by = list(study.factors)
    frame = propagation.by_layer(trials, by)
    if frame.empty:
        raise StudyError(
            f"study.figures=[variance_by_layer], and no trial of {study.name} has measured variances by layer: it is a "
            f"figure for compute._target_=studies.compute.propagation.variances"
        )
    return plots.variance_by_layer(frame, by)


TABLE: dict[str, Callable[[Study, pd.DataFrame], Figure]] = {"variance_by_layer": variance_by_layer}
"""By their names in `study.figures`; those of studies that train are in their reports."""


def write(study: Study, trials: pd.DataFrame, folder: Path) -> list[Path]:
    """Draw what a study asks for and is in the table, each as `NAME.png` in a folder; gives their paths."""
    paths = []
    for name in study.figures:
        if draw := TABLE.get(name):
            folder.mkdir(parents=True, exist_ok=True)
            draw(study, trials).savefig(path := folder / f"{name}.png", dpi=DPI)
            paths.append(path)
    return paths


def main(arguments: list[str] | None = None) -> int:
    """Write a study's figures and say which; gives the exit code, 2 for what the user can put right."""
    parser = command.parser("figures", "Write the figures that a computed study asks for, as PNG.")
    parser.add_argument("study", help="its name, such as signal_propagation")
    command.add_execution(parser)
    parser.add_argument("--to", metavar="FOLDER", help=f"where to (default: {FOLDER} among the study's artifacts)")
    options = parser.parse_args(arguments)

    def run():
        if runs.is_server(options.root) and not options.to:
            raise StudyError(
                f"--root {options.root} is a server, whose artifacts are not written here: add --to FOLDER"
            )
        execution = load.execution(options.study, options.root, execution=options.execution or load.LATEST)
        if execution.parts and not options.to:
            raise StudyError(
                f"--execution {options.execution}: several executions have no folder of their own: add --to FOLDER"
            )
        folder = Path(options.to) if options.to else chosen.folder_of(execution, options.root) / FOLDER
        trials = load.trials(options.study, options.root, execution.arms)
        paths = write(execution.study, trials, folder)
        if not paths:
            again = terminal.spoken("analysis.report", options.study)
            raise StudyError(
                f"{options.study} asks for no figure of its own: study.figures takes {listed(TABLE)} in a computed "
                f"study; the figures of one that trains are in its report, {again}"
            )
        for path in paths:
            command.say(path)

    return command.told(options, run)


if __name__ == "__main__":
    sys.exit(main())
