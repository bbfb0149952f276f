"""A study's report, one page that answers its question: `python -m analysis.report STUDY`."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup

from analysis import chosen, claims, command, compare, load
from analysis.estimate import arms, comparison, history
from analysis.estimate.tuning import rate_curve, rate_range
from analysis.read import runs
from analysis.show import answers, beside, style
from analysis.show.sections import SECTIONS, Findings, weights
from studies.record import StudyError

FILE = "report.html"
"""Its name among a study's artifacts."""


def main(arguments: list[str] | None = None) -> int:
    """Write a study's report; gives the exit code, 2 for what the user can put right."""
    parser = command.parser("report", "Write a study's report.")
    parser.add_argument("study", help="its name, such as init_comparison")
    command.add_execution(parser)
    parser.add_argument("--to", metavar="FILE", help=f"where to (default: {FILE} among the study's artifacts)")
    options = parser.parse_args(arguments)

    def run():
        if runs.is_server(options.root) and not options.to:
            raise StudyError(f"--root {options.root} is a server, whose artifacts are not written here: add --to FILE")
        execution = load.execution(options.study, options.root, execution=options.execution or load.LATEST)
        if execution.parts and not options.to:
            raise StudyError(
                f"--execution {options.execution}: several executions have no folder of their own: add --to FILE"
            )
        _, trials = chosen.selected(options.study, options.root, execution=execution)
        made = report(execution, trials, options.root)
        try:
            path = made.copy(Path(options.to)) if options.to else made.write(execution.folder)
        except OSError as error:
            raise StudyError(
                f"{error.filename}: cannot be written ({error.strerror}): name a file with --to"
            ) from error
        print(path)

    return command.told(options, run)


@dataclass(frozen=True)
class Report:
    """A page that needs nothing else, and its figures as SVG, by the names of their files."""

    html: str
    figures: dict[str, str]

    def copy(self, file: Path) -> Path:
        """Write the page alone; gives its path."""
        file.write_text(self.html, encoding="utf-8")
        return file

    def write(self, folder: Path) -> Path:
        """Write the page into a folder, and the figures into `figures/` there; gives the page's path."""
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        for name, svg in self.figures.items():
            (folder / "figures" / name).write_text(svg, encoding="utf-8")
        return self.copy(folder / FILE)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without collections of garbage, which walk through all that the figures keep: a tenth of the time."""
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()


@_uncollected()
def report(execution: load.Execution, trials: pd.DataFrame, root: str | Path) -> Report:
    """The report of an execution.

    Args:
        execution: from `analysis.load`.
        trials: those of its trials that have ended.
        root: the store.

    Raises:
        StudyError: no trial has ended.
    """
    study = execution.study
    if trials.empty:
        raise StudyError(f"no trial of {study.name} in {root} has ended yet: run it again to go on")
    found = Findings(execution, trials, root)
    of_weights = beside.begun(lambda: weights(found))  # more than half of the time
    made = {make: make(found) for make in SECTIONS if make is not weights}
    facts = (
        f"{len(found.compared)} arm{'s' * (len(found.compared) > 1)}, {len(study.seeds)} "
        f"seed{'s' * (len(study.seeds) > 1)}, {len(trials)} of {len(execution.keys)} trials; metric: {study.metric}"
    )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "show"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    answer = answers.answer(found.compared, found.by, study.metric, study.baseline)
    if "loss_by_rate" in study.figures:
        answer = answers.rates(rate_range(rate_curve(trials, found.epochs, found.by), found.by), found.by) + answer
    if len(found.views) > 1:
        spans = [(view.arms.by, comparison.span(view.units, view.arms.by, study.metric)) for view in found.views]
        answer += answers.spans(spans)
    answer += answers.folds(arms.averaged_over(study, found.by)) + answers.one_runs(
        arms.one_runs(trials, found.by), found.by
    )
    answer += answers.unseen(found.compared, study.metric)
    answer = answers.so_far(answer, len(trials), len(execution.keys))
    source = chosen.about(execution, root)
    last = (execution.parts or (execution,))[-1]
    before = [each for each in source.executions if each.number < last.number or (execution.parts and each == last)]
    choices = history.choices(study, before, execution.keys, root)
    answer = answers.chosen(answer, choices, study.metric)
    answer += history.renamed(trials, study.metric) + history.mixed(trials)
    made[weights] = of_weights()
    sections = [made[make] for make in SECTIONS if made[make].blocks]
    figures = {f"{b.name}.svg": b.body for section in sections for b in section.blocks if b.kind == "figure"}
    answer = [*claims.told(execution, root), *answer]
    page = environment.get_template("report.html.jinja").render(
        study=study,
        answer=answer,
        trained=compare.trained(study, trials, root),
        facts=facts,
        source=source.lines,
        sections=[replace(section, blocks=[_marked(block) for block in section.blocks]) for section in sections],
    )
    return Report(page, figures)


def _marked(block):
    """A block with what is HTML already marked as such; all else will be escaped."""
    if block.kind == "figure":
        return replace(block, body=Markup(style.inline(block.body, block.caption)))  # noqa: S704  its own svg
    return replace(block, body=Markup(block.body)) if block.kind == "table" else block  # noqa: S704


if __name__ == "__main__":
    sys.exit(main())
