"""A study's report, one page that answers its question: `python -m analysis.report STUDY`."""

import base64
import gc
import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup

from analysis import chosen, claims, command, compare, load
from analysis.estimate import arms, comparison, dynamics, history
from analysis.estimate.tuning import rate_curve, rate_range
from analysis.read import runs
from analysis.show import answers, beside, charts, plots, style
from analysis.show.findings import Findings
from analysis.show.page import Section
from analysis.show.sections import SECTIONS, weights
from analysis.show.sections import comparison as arms_compared
from studies.record import StudyError

FILE = "report.html"
"""Its name among a study's artifacts."""

SHOW = Path(__file__).parent / "show"


def _script(*names: str) -> tuple[Markup, str]:
    """Files of ours as one script or style, and its hash, by which a page's policy lets it run."""
    text = "\n".join((SHOW / name).read_text(encoding="utf-8") for name in names)
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Markup(text), f"sha256-{digest}"  # noqa: S704  ours


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
            path = made.copy(Path(options.to)) if options.to else made.write(chosen.folder_of(execution, options.root))
        except OSError as error:
            raise StudyError(
                f"{error.filename}: cannot be written ({error.strerror}): name a file with --to"
            ) from error
        command.say(path)

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
    aside = beside.begun(lambda: _aside(found))  # half of the time
    made = {make: make(found) for make in SECTIONS if make not in ASIDE}
    source = chosen.about(execution, root)
    answer, trials_data = _answer(found, source), _trials_data(found)
    others, of_layers = aside()
    made |= zip(ASIDE, others, strict=True)
    sections = [made[make] for make in SECTIONS if made[make].blocks]
    figures = {f"{b.name}.svg": b.body for section in sections for b in section.blocks if b.kind == "figure"}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(SHOW),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script, script_hash = _script("uplot/uPlot.iife.min.js", "explore.js")
    library_css, _ = _script("uplot/uPlot.min.css")
    page = environment.get_template("report.html.jinja").render(
        study=study,
        answer=answer,
        trained=compare.trained(study, trials, root),
        facts=_facts(found),
        source=source.lines,
        sections=[replace(section, blocks=[_marked(block) for block in section.blocks]) for section in sections],
        script=script,
        script_hash=script_hash,
        library_css=library_css,
        data=charts.packed({"charts": _charts(sections), "trials": trials_data}),
        layers=of_layers,
    )
    return Report(page, figures)


def _answer(found: Findings, source: chosen.About) -> list[str]:
    """The answer to the study's question, the sentence that comes first and all others."""
    study, trials, execution = found.study, found.trials, found.execution
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
    last = (execution.parts or (execution,))[-1]
    before = [each for each in source.executions if each.number < last.number or (execution.parts and each == last)]
    choices = history.choices(study, before, execution.keys, found.root)
    answer = answers.chosen(answer, choices, study.metric)
    answer += history.renamed(trials, study.metric) + history.mixed(trials, found.by)
    return [*claims.told(execution, found.root), *answer]


def _facts(found: Findings) -> str:
    several, seeds = len(found.compared), len(found.study.seeds)
    return (
        f"{several} arm{'s' * (several > 1)}, {seeds} seed{'s' * (seeds > 1)}, {len(found.trials)} of "
        f"{len(found.execution.keys)} trials; metric: {found.study.metric}"
    )


ASIDE = (arms_compared, weights)
"""Sections that are made in a second process."""


def _aside(found: Findings) -> tuple[list[Section], str]:
    """Those sections, and what the trials' pages show of their layers."""
    kernels = dynamics.kernels(found.layers, list(plots.LAYER_STATISTICS))
    return [make(found) for make in ASIDE], charts.packed(charts.layers(kernels, plots.LAYER_STATISTICS))


def _trials_data(found: Findings) -> dict:
    """What the table of trials, and each one's page but for its layers, shows."""
    keys = list(found.trials["key"])
    return charts.trials(found.trials, found.by, found.study.metric, found.reasons) | {
        "curves": charts.courses(found.epochs),
        "settings": charts.settings(load.settings(found.study.name, found.root, keys)),
    }


def _charts(sections: list[Section]) -> dict:
    return {block.name: block.chart for section in sections for block in section.blocks if block.chart}


def _marked(block):
    """A block with what is HTML already marked as such; all else will be escaped."""
    if block.kind == "figure":
        return replace(block, body=Markup(style.inline(block.body, block.alt)))  # noqa: S704  its own svg
    return replace(block, body=Markup(block.body)) if block.kind == "table" else block  # noqa: S704


if __name__ == "__main__":
    sys.exit(main())
