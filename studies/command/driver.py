"""One invocation of a study: tune, train what is not finished yet, record it, show what came out."""

import json
import math
import re
import shutil
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rich.console import Console

from studies import address, terminal, waiting
from studies.command import checks, cost, provenance, pulse, sweep
from studies.command.board import Board
from studies.command.checkpoints import Checkpoints
from studies.contract import Tag, run_page
from studies.design import arms, search
from studies.design.controls import Expand, controls
from studies.execute import pool
from studies.execute.task import Executor, Task
from studies.factors import data
from studies.record import (
    SERIES,
    Checkpoint,
    EpochRecord,
    LayerRecord,
    Note,
    Result,
    Started,
    Study,
    StudyError,
    Trial,
    arm_label,
    listed,
    numbered,
    plain,
)
from studies.store import database

TRIAL = "studies.train.trial:run"
COMPUTED = "studies.compute.trial:run"

TRAINS_OTHERWISE = ("-", "plan=", "executor", "engine.threads=")
"""Begins of words for something else than single-threaded trials in a pool."""

MOST_CHARTED = 100
"""Arms that MLflow charts the means of, of an execution."""


def foresee(words: list[str]) -> None:
    """Begin what workers import before the command line is composed, which takes as long, if it seems to need them."""
    if not any(word.startswith(TRAINS_OTHERWISE) for word in words):
        pool.expect(TRIAL)


def forget() -> None:
    """End what was begun for nothing."""
    pool.expect_no_more()


def judged(study: Study, trials: list[Trial], root: str | Path, card: dict[str, str]) -> Any:
    """The latest execution, of `analysis.load`, of this very study if its claim was judged, by trials that are all
    still there and are those planned; else None.

    Args:
        trials: all of them, or those that tune, whose outcome says which the others are.
        card: tags of the claim's card, see `compose.card_tags`.
    """
    from analysis import claims, load
    from analysis.estimate import verdicts

    try:
        executions = load.executions(study.name, root)
    except StudyError:  # there is none yet
        return None
    planned = {trial.key for trial in trials}
    for execution in reversed(executions):
        same = execution.tags.get(Tag.CARD) == study.card and card.items() <= execution.tags.items()
        if (
            not same
            or execution.status != "FINISHED"
            or execution.tags.get(Tag.VERDICT, verdicts.INVALID) == verdicts.INVALID
        ):
            continue
        try:
            needed = {run["key"] for run in json.loads(load.text(execution, claims.FILE, root))["runs"]}
            tuned = set(json.loads(load.text(execution, "tuning_trials.json", root))) if study.nuisance else set()
        except StudyError:  # a file is lost
            continue
        as_planned = planned <= tuned if study.nuisance else set(execution.keys) <= planned
        if as_planned and needed | tuned <= load.finished_keys(study.name, root):
            return execution
    return None


class Driver:
    """Drives one study in one store.

    Args:
        executor: runs the trials; closed when it is left in the middle of something.
        root: the store.
        config: the study's composed config, as text.
        jobs: the sweep that this is a job of, if it is.
        card: tags of the claim's card, see `compose.card_tags`.
        board: the display over it, if it is of claims: nothing else is said then but what one has to know.
        force: whether trials that are finished are run again, each once; the new runs take their places.
        tags: what else its execution is to be tagged with.
        models: whose trained models are kept: `none`, of each arm's `first` seed, or `all`.
        checkpoints: how often long trials have one, by the settings of the config's `checkpoints`; None: never.
    """

    def __init__(
        self,
        study: Study,
        executor: Executor,
        root: str | Path,
        config: str,
        console: Console,
        jobs: sweep.Sweep | None = None,
        card: dict[str, str] | None = None,
        board: Board | None = None,
        force: bool = False,
        tags: dict[str, str] | None = None,
        models: str = "none",
        checkpoints: dict | None = None,
    ):
        self.study, self.executor, self.root, self.config, self.console = study, executor, root, config, console
        self.jobs, self.card, self.board, self.tags = jobs, card or {}, board, tags or {}
        self.force, self.again, self.kept = force, set[str](), models
        self.checkpoints = Checkpoints(address.folder(root), study.name, checkpoints)
        self.counted: set[str] = set()
        self.statuses: Counter[str] = Counter()
        self.noted: set[tuple[str, str]] = set()
        self.files: dict[str, str] = {}
        self.design: list[Trial] = []
        self.execution: Any = None  # a `writer.Execution`, whose module is imported while the workers start
        self.compared: list[Trial] | None = None
        self.recorded: Any = None  # an execution of `analysis.load`
        self.tuned: Any = None  # a frame, each arm's best levels
        self.models: Path | None = None  # where workers save them
        self.verdict: Any = None  # a `verdicts.Verdict` and its `Evidence`

    def drive(self, trials: list[Trial], expand: Expand) -> tuple[int, dict]:
        """Run what is not finished yet.

        Args:
            trials: all of them, or those that tune.
            expand: a study and what was chosen for each of its arms -> the trials of the arms at that; or, with
                `points=`, combinations of nuisance levels -> the trials that tune at them.

        Returns:
            the exit code; and seeds, failures, mean and sd over the seeds of the study's metric, nothing if it was
            interrupted.
        """
        from analysis import load

        self.design = self.trials = trials
        status, table, chosen, numbers = "FAILED", "", None, {}
        self._tell(f"{self.study.name}: {self.study.question}")
        try:
            self._refuse_changed_card()
            self._refuse_without_tools()
            controls(self.study, expand, None)  # what cannot be right in them is refused before anything trains
            if self.study.nuisance:
                chosen = self._tune(trials, expand)
                trials = expand(self.study, chosen)
                self._compare(trials)
            if self.study.claim:
                trials = self._decide(trials, controls(self.study, expand, chosen))
            else:
                self._train(trials, self.study)
            self._record(trials)
            self._keep_verdict()
            frame = load.trials(self.study.name, self.root, {trial.key: trial.levels for trial in trials})
            table = "" if self.board and self.recorded else self._answer(frame, "markdown")
            numbers = charted(self.study, frame) if self.execution else {}
            status = "FAILED" if self.statuses["crashed"] else "FINISHED"
        except KeyboardInterrupt:
            terminal.settle()
            status = "KILLED"
            self.executor.close()
            with waiting.impatient():
                self._say_what_is_kept()
            return terminal.code(), {}
        except BaseException:
            self.executor.close()
            raise
        finally:
            if self.models:
                shutil.rmtree(self.models, ignore_errors=True)
            if self.execution:
                failing = status == "KILLED" or sys.exception() is not None
                with waiting.impatient() if failing else nullcontext():
                    self._close(failing, status, table, self.verdict[0].verdict if self.verdict else "", numbers)
        if not self.board:
            self._print_results(frame)
        return int(self.statuses["crashed"] > 0), {} if self.board else self._summary(frame)

    def _tell(self, line: str) -> None:
        """Say how it gets on, unless the board does."""
        if not self.board:
            pulse.heard()
            self.console.print(plain(line), markup=False, highlight=False, soft_wrap=True)

    def _doing(self, what: Callable[[], str] | str) -> None:
        """Say what is being done from now on, unless the board does."""
        if not self.board:
            pulse.doing(what)

    def _refuse_changed_card(self) -> None:
        """See that the claim's card is the one that earlier executions were judged by, if its version is theirs; others
        are told of.

        Raises:
            StudyError: it is another.
        """
        from analysis import load

        claim, executions = self.study.claim, []
        with suppress(StudyError):  # there is none yet
            executions = load.executions(self.study.name, self.root) if claim else []
        for execution in executions:
            tags = execution.tags
            same = (tags.get(Tag.CLAIM), tags.get(Tag.VERSION), tags.get(Tag.PROFILE))
            ours = claim and same == (claim.id, str(claim.version), claim.profile)
            if claim and ours and tags[Tag.CARD] != self.study.card and not self._as_it_ships(tags):
                raise StudyError(
                    f"the card of {claim.id}, or a setting of its trials, has changed since its version "
                    f"{claim.version} was run ({tags[Tag.CARD]}{_with(tags)}, now {self.study.card}"
                    f"{_with(self.card)}): a rule is not to be changed with results in sight. Give the changed card a "
                    f"new claim.version, or put it back"
                )
            if claim and Tag.VERDICT in tags and tags[Tag.CARD] != self.study.card:
                said = f"{tags[Tag.CLAIM]}, version {tags[Tag.VERSION]}, {tags[Tag.PROFILE]} profile"
                print(f"note: another card was judged by this study's trials before, {said}: {tags[Tag.VERDICT]}")

    def _as_it_ships(self, tags: dict[str, str]) -> bool:
        """Whether the card is that of its file, which stood before an execution that was run with settings besides."""
        return self.card.get(Tag.SETTINGS) == "[]" and tags.get(Tag.SETTINGS, "[]") != "[]"

    def _refuse_without_tools(self) -> None:
        """See that what the claim will be judged with is installed.

        Raises:
            StudyError: it is not.
        """
        from analysis import claims

        if self.study.claim:
            claims.check_tools(self.study.claim)

    def _compare(self, trials: list[Trial]) -> None:
        """Have these trials be what the execution compares."""
        self.compared = trials
        if self.execution:
            self.execution.keep_design(trials)

    def _decide(self, trials: list[Trial], control: dict[str, list[Trial]]) -> list[Trial]:
        """Train up to the look at which the claim's rule decides; gives the trials up to there."""
        from analysis import claims

        study = self.study
        keys = {name: {trial.key: trial.levels for trial in some} for name, some in control.items()}
        every = [trial for some in control.values() for trial in some]
        for look in study.looks or (len(study.seeds),):
            some = [trial for trial in trials if trial.seed in study.seeds[:look]]
            self._train(list({trial.key: trial for trial in (*every, *some)}.values()), study)
            levels = {trial.key: trial.levels for trial in some}
            self.verdict = claims.judge(study, self.root, levels, keys, self.tuned)
            if self.verdict[0].decided:
                break
            if look < len(study.seeds):
                self._tell(f"look at {look} seeds: nothing is decided yet, the study goes on")
        self._compare(some)
        return some

    def _keep_verdict(self) -> None:
        """Keep what was decided with the execution."""
        from analysis import claims, load

        if self.verdict and self.execution:
            found, evidence = self.verdict
            settings = load.settings(self.study.name, self.root, list(evidence.trials["key"][:1]))
            main = settings.iloc[0].to_dict() if len(settings) else {}
            record = claims.record(self.study, found, evidence, self.execution.provenance, main)
            self._keep({claims.FILE: json.dumps(record, indent=2, allow_nan=False)})

    def _pending(self, trials, study) -> tuple[list[Trial], set[str]]:
        """The trials that are to run now, and the keys of those that need not; told."""
        from analysis import load

        finished = load.finished_keys(study.name, self.root) & {trial.key for trial in trials}
        if broken := load.damaged(study.name, self.root, finished):
            self._tell(
                f"{len(broken)} that had finished are trained again, since files of theirs are cut short or lost"
            )
            finished -= broken
        known = finished & self.again if self.force else finished
        lacking = {trial.key for trial in trials if self._keeps_model(trial)} & known
        if lacking := lacking and load.without_model(study.name, self.root, lacking):
            self._tell(f"{len(lacking)} that had finished are trained again, since their models were not kept")
        known, finished = known - lacking, finished - lacking
        pending = [trial for trial in trials if trial.key not in known]
        self.checkpoints.drop({trial.key for trial in pending} - self.again if self.force else known)
        self.again |= {trial.key for trial in pending}
        kind = "tuning trial" if trials[0].role == "nuisance" else "trial"
        again = " again" * bool(self.force and finished)
        self._tell(f"{numbered(len(trials), kind)}, {len(finished)} finished before, {len(pending)} to run{again}")
        if self.board:
            before = [trial for trial in trials if trial.key in known and trial.key not in self.counted]
            self.board.did(len(before), sum(cost.expected_seconds(before).values()), before=True)
        self.counted |= {trial.key for trial in trials}
        return pending, known

    def _train(self, trials, study) -> None:
        """Check every part of the pending trials in the workers, then train them and write what comes back."""
        from analysis import load

        self.trials = trials
        pending, known = self._pending(trials, study)
        if not pending:
            return
        warn_of_mixing = self._warner_of_mixing(known)
        with terminal.held():
            self.executor.start(TRIAL, len(pending), pending[0].config["engine"]["threads"])
        self._open(pending, [trial for trial in trials if trial.key in known])
        seconds = cost.expected_seconds(pending)
        tasks = self._tasks(pending, seconds)

        from studies.command import progress

        shown = progress.Display(study, pending, len(trials) - len(pending), self.console, self.board)
        epochs, layers, there, computed = {}, {}, {}, defaultdict(list)

        def ask():
            self.executor.drain()
            pulse.tell(lambda: terminal.say(_finishing(len(epochs))))
            self._doing(lambda: _finishing(len(epochs)))

        with pulse.displayed(self.console.is_terminal), shown as display, terminal.finishing(ask):
            self._doing(display.line)
            for task, record in self.executor.run(COMPUTED if pending[0].computed else TRIAL, tasks):
                trial = task.payload
                match record:
                    case Started():
                        epochs[trial.key], layers[trial.key] = [], []
                        there[trial.key] = record.circumstances
                        warn_of_mixing(record.circumstances or provenance.circumstances())
                    case EpochRecord():
                        epochs[trial.key].append(record)
                        display.epoch(trial, record.epoch)
                    case list():
                        layers[trial.key] += record
                    case Checkpoint():
                        with terminal.held():
                            self._note(display, trial, self.checkpoints.keep(record))
                    case Note():
                        self._note(display, trial, record.text)
                    case Result():
                        course = epochs.pop(trial.key)
                        seen = watched(trial, course, layers.pop(trial.key), record)
                        with terminal.held():
                            self.execution.write(trial, course, seen.layers, record, seen.text, there[trial.key])
                        if record.status != "crashed":  # which the same command tries again
                            self.checkpoints.drop([trial.key])
                        self.statuses[record.status] += 1
                        if trial.computed and record.status == "finished":
                            computed[cost.function_of(trial.config)].append(record.seconds_total)
                        display.ended(trial, record, seen.text)
                        if self.board:
                            self.board.did(1, seconds[trial.key])
        cost.keep_seconds(computed)
        load.forget()
        self._doing("reading the results")

    def _tasks(self, pending: list[Trial], seconds: dict[str, float]) -> list[Task]:
        """What workers get; a trial goes on from its newest checkpoint whenever it is given to one."""
        compiling = cost.COMPILE / len(self.study.seeds)
        return [
            Task(
                *(t.key, t.graph_key, t.config["engine"]["threads"], self._sent(t), seconds[t.key] + compiling),
                renewed=None if t.computed else self.checkpoints.given,
                reads=checks.reading(t.config.get("data")),
            )
            for t in pending
        ]

    def _note(self, display, trial: Trial, text: str) -> None:
        """Show something of a trial, once."""
        if text and (trial.key, text) not in self.noted:
            self.noted.add((trial.key, text))
            display.note(trial, text)

    def _keeps_model(self, trial: Trial) -> bool:
        """Whether a trial's model is to be kept; never of one that tunes, or of a claim's controls."""
        wanted = self.kept == "all" or (self.kept == "first" and trial.seed == self.study.seeds[0])
        return wanted and trial.role == "scientific" and not trial.computed

    @property
    def _models(self) -> str:
        """What the name of the folder begins with that models are in until their trials are written."""
        return f".models-{self.study.name}-"

    def _delete_models(self) -> None:
        """Delete those that a killed driver of this study has left."""
        folder, left = address.folder(self.root), re.compile(re.escape(self._models) + r"\w+")
        for each in folder.iterdir() if folder.is_dir() and not self.jobs else ():  # its other jobs may live
            if left.fullmatch(each.name) and each != self.models:
                shutil.rmtree(each, ignore_errors=True)

    def _sent(self, trial: Trial) -> Trial:
        """A trial as a worker gets it: with the file to save its model in, if that is to be kept."""
        if not self._keeps_model(trial):
            return trial
        if self.models is None:
            folder = address.folder(self.root)
            folder.mkdir(parents=True, exist_ok=True)
            self.models = Path(tempfile.mkdtemp(prefix=self._models, dir=folder))
        return replace(trial, model=str((self.models / f"{trial.key}.keras").resolve()))

    def _warner_of_mixing(self, finished: set[str]) -> Callable[[dict[str, str]], None]:
        """What is told the circumstances of each trial that begins, and says, of each kind once, that what is finished
        was trained by other versions, or elsewhere.
        """
        from analysis import load
        from analysis.estimate import history

        runs = load.ended(self.study.name, self.root) if finished else []
        tags = [run.tags for run in {run.tags[Tag.KEY]: run for run in runs}.values() if run.tags[Tag.KEY] in finished]
        told = set[str]()

        def warn(now: dict[str, str]) -> None:
            if (kind := json.dumps(now)) not in told and (said := history.changed(tags, now)):
                self.console.print(f"warning: {plain(said)}", markup=False, highlight=False, soft_wrap=True)
            told.add(kind)

        return warn

    def _open(self, pending, ended) -> None:
        """Have what is pending checked, and this execution in the store, both while the workers start."""
        from analysis import report  # noqa: F401  a second, which is had while the workers start
        from studies.store import writer  # noqa: F401

        self._doing(f"starting workers, which check the parts of {numbered(len(pending), 'trial')}")
        checks.checked(pending, self.executor, ended)
        self._doing("opening the store")
        database.make(self.root)
        if self.execution is None:
            self._begin()

    def _begin(self) -> None:
        """Begin this execution in the store."""
        from studies.store import writer

        tags = provenance.tags(sweep.current().command) | self.card | self.tags
        with terminal.held():
            self.execution = writer.Execution(
                self.root, self.study, self.design, self.config, self.jobs, tags, data.entry, self.compared
            )
        self.execution.keep(self.files)
        self._delete_models()

    def _record(self, trials) -> None:
        """See that the store has an execution of this design that has ended, though there was nothing left to train.

        An earlier one is the latest again, which is what tables and reports are made of; in a sweep, whose jobs are
        executions of one study, it need only be there.
        """
        from analysis import load
        from studies.store import writer

        if self.execution:
            return
        try:
            executions = load.executions(self.study.name, self.root)
        except StudyError:  # none is left
            executions = []
        design = json.dumps(asdict(self.study))
        for execution in executions:
            same = execution.keys == tuple(t.key for t in trials) and json.dumps(asdict(execution.study)) == design
            judged = not self.study.claim or (
                Tag.VERDICT in execution.tags and self.card.items() <= execution.tags.items()
            )
            if same and judged and execution.status in ("FINISHED", "FAILED"):
                self.recorded = execution
        if self.recorded is None:
            self._begin()
        elif self.jobs:
            writer.join(self.root, self.study.name, self.recorded.run_id, self.jobs.id)
        elif self.recorded.run_id != load.execution(self.study.name, self.root).run_id:
            writer.ask(self.root, self.study.name, self.recorded.run_id)

    def _keep(self, files: dict[str, str]) -> None:
        """Files of the execution, in the store as soon as there is something to write."""
        self.files |= files
        if self.execution:
            self.execution.keep(self.files)

    def _tune(self, trials, expand) -> list[dict]:
        """Each arm's best nuisance levels, of ranges that are extended if they have to be."""
        study = replace(self.study, metric=self.study.tuning_metric)
        self._train(trials, study)
        chosen, said = self._choose(trials)
        if study.extend and (sides := search.edges(study, chosen)):
            trials = expand(self.study, points=self._extended(sides, expand))
            self._train(trials, study)
            chosen, said = self._choose(trials)
        self._tell(said)
        return chosen

    def _extended(self, sides, expand) -> list[dict]:
        """The points drawn and those by which ranges are extended, but for what a setting cannot have; told."""
        from analysis import load

        study, points = self.study, arms.nuisance_of(self.study)
        known = load.finished_keys(study.name, self.root)
        for factor, side in sides:
            before, refusal = len(points), ""
            for point in search.extension(study, factor, side):
                try:
                    more = [trial for trial in expand(self.study, points=[point]) if trial.key not in known]
                    checks.check_sizes(more)
                    checks.checked(more, self.executor)
                    points += [point] * (point not in points)
                except StudyError as error:
                    refusal = f", without what a setting cannot have ({error})"
            count, to = len(points) - before, f"extended to {search.reach(study, factor, side):.15g} for all arms"
            self._tell(
                f"an arm does best at the {side} end of {factor}, {study.space[factor]}: "
                f"{f'{to}, {count} draws more' if count else 'no more is drawn'}{refusal}"
            )
        return points

    def _choose(self, trials) -> tuple[list[dict], str]:
        """Each arm's best nuisance levels, kept; and their table."""
        from analysis import load
        from analysis.estimate import tuning
        from analysis.show import tables
        from analysis.show.width import width_here

        study, by, nuisance = self.study, list(self.study.factors), list(self.study.nuisance)
        frame = load.trials(study.name, self.root, {trial.key: trial.levels for trial in trials})
        tuned = tuning.tuned(frame, by, study.nuisance, study.tuning_metric, study.space)
        notes = tables.tuning_notes(frame, tuning.extended(frame, study.space))
        table, markdown = (
            tables.tuning_table(tuned, by, nuisance, study.tuning_metric, format, notes, fit)
            for format, fit in (("terminal", width_here()), ("markdown", None))
        )
        self._keep(
            {
                "tuning.json": tuned.to_json(orient="records", double_precision=15, indent=2),
                "tuning.md": markdown,
                "tuning_trials.json": json.dumps({trial.key: trial.levels for trial in trials}),
            }
        )
        self.tuned = tuned
        if tuned["value"].isna().any():
            print(plain(f"\n{table}\n"))
            raise StudyError(
                "at every combination of some arm's nuisance levels a tuning trial crashed: nothing can be chosen for "
                "it. The same command tries them again; study.skip leaves an arm out"
            )
        return tuned[nuisance].to_dict("records"), f"\n{table}\n"

    def _close(self, failing: bool, *how) -> None:
        """End this execution in the store; where the command fails anyway, that may be left to the next one."""
        try:
            self.execution.close(*how)
        except StudyError:
            if not failing:
                raise

    def _say_what_is_kept(self) -> None:
        from analysis import load

        keys = {trial.key for trial in self.trials}
        try:
            load.forget()
            finished = load.finished_keys(self.study.name, self.root)
        except StudyError as error:  # the store is away
            terminal.say(f"interrupted: {error}; what is finished is kept, and the same command goes on from there")
            return
        done = len(keys & finished)
        where = f" in {self.study.name}" * bool(self.board)
        kept = f"{done} of {len(self.trials)} trials are kept{', and what was decided before' * bool(self.board)}"
        if begun := self.checkpoints.count(keys - finished):
            kept += f", and {begun} more as far as {'its checkpoint' if begun == 1 else 'their checkpoints'}"
        terminal.say(f"interrupted{where}: {kept}; the same command goes on from there")

    @property
    def _computed(self) -> bool:
        return any(trial.computed for trial in self.design)

    def _answer(self, frame, format: str) -> str:
        """The comparison; of a computed study the quantities.

        Raises:
            StudyError: the metric is none of the quantities.
        """
        from analysis import chosen, compare, load
        from analysis.estimate import history
        from analysis.show import quantities, tables
        from analysis.show.width import width_here

        if not self._computed:
            width = width_here() if format == "terminal" else None
            source = chosen.about(self._stored(), self.root) if self.recorded or self.execution else None
            return compare.answer(self.study, frame, self.root, format=format, source=source, width=width)
        names = load.quantities(frame, self.study)
        if names and self.study.metric not in names:
            raise StudyError(
                f"study.metric={self.study.metric}: expected one of the quantities that compute gave, {listed(names)}. "
                f"What was computed is kept: name one with study.metric=NAME"
            )
        names = [name for name in names if SERIES not in name]  # a number for each layer is for figures
        names.sort(key=lambda name: name != self.study.metric)
        width, by = width_here() if format == "terminal" else None, list(self.study.factors)
        return tables.noted(quantities.table(frame, by, names, format, width), history.mixed(frame, by), format)

    def _stored(self) -> Any:
        """The execution as the store has it: this one, or the earlier one that left nothing to train."""
        from analysis import load

        return self.recorded or load.execution(self.study.name, self.root, self.execution.parent)

    def _print_results(self, frame) -> None:
        study = self.study
        if self.verdict:
            from analysis.show import board

            print(plain("\n" + "\n  ".join(board.said(study, self.verdict[0]))))
        print(plain(f"\n{self._answer(frame, 'terminal')}\n"))
        where = address.where(self.root)
        print(f"results   {self.root if address.is_address(self.root) else Path(self.root).resolve()}")
        if not self._computed:
            self._doing("drawing the report")
            print(f"report    {self._report(frame)}")
        elif study.figures:
            for path in self._figures(frame):
                print(f"figure    {path}")
        print(f"tables    {terminal.spoken('analysis.compare', study.name, *where)}")
        print(f"browse    {self.root if address.is_server(self.root) else terminal.spoken('analysis.ui', *where)}")

    def _figures(self, frame) -> list[Path | str]:
        """Where a computed study's figures are, which are drawn at the end of every command."""
        from analysis import figures
        from studies.store import writer

        def draw(folder: Path) -> list[Path]:
            return figures.write(self.study, frame, folder / figures.FOLDER)

        with terminal.held():
            return writer.filled(self.root, self.study.name, self._stored().run_id, draw)

    def _report(self, frame) -> Path | str:
        """Where the report is: written at the end of an execution, and for a finished study if it has none."""
        from analysis import load, report
        from studies.store import writer

        execution = self._stored()
        if self.recorded and load.has(execution, report.FILE, self.root):
            if address.is_server(self.root):
                return run_page(self.root, execution.experiment_id, execution.run_id, report.FILE)
            return execution.folder / report.FILE
        page = report.report(execution, frame, self.root)
        with terminal.held():  # a page cut short would be taken for the report from now on
            return writer.filled(self.root, self.study.name, execution.run_id, page.write)

    def _summary(self, frame) -> dict:
        """What all trials come to, over the seeds; the objective is of validation data, whatever the metric.

        Where nothing finished there is no mean, and the objective is infinitely bad.
        """
        from analysis import load
        from analysis.estimate import comparison
        from analysis.estimate.measure import measure

        if self._computed:
            known = self.study.metric in load.quantities(frame, self.study)
            values = frame[self.study.metric].dropna().to_numpy() if known else []
            mean, sd = (fmean(values) if known else math.nan), (stdev(values) if len(values) > 1 else math.nan)
            failures = int((frame["status"] != "finished").sum())
            return {"seeds": len(values), "failures": failures, "mean": mean, "sd": sd, "objective": mean}
        metric, objective = self.study.metric, self.study.tuning_metric
        means = {m: comparison.comparison(frame, [], m, {}).to_dict("records")[0] for m in {metric, objective}}
        if self.jobs and objective != metric:
            self._tell(
                f"a sweeper is given the mean of {objective}, not of {metric}: choices are made by validation data"
            )
        whole = {name: means[metric][name] for name in ("seeds", "failures", "mean", "sd")}
        if not comparison.succeeded(frame, objective).any():  # chance would be ahead of a poor job that finished
            worst = -math.inf * measure(objective).sign
            return whole | {"mean": math.nan, "sd": math.nan, "objective": worst}
        return whole | {"objective": means[objective]["mean"]}


def _finishing(count: int) -> str:
    """What a signal has come to, while so many trials run."""
    runs = f", and what runs, {numbered(count, 'trial')}, is finished first" if count else ""
    return f"interrupted: no other trial is begun{runs}; {terminal.asked()} again stops now"


def _with(tags: dict[str, str]) -> str:
    """The settings that an execution of a claim had besides its card."""
    settings = json.loads(tags.get(Tag.SETTINGS, "[]"))
    return f" with {' '.join(settings)}" if settings else ""


def watched(trial: Trial, epochs: list[EpochRecord], layers: list[LayerRecord], result: Result) -> Any:
    """The early warnings of an ended trial, see `studies.observe.early_warnings`; none of a computed one."""
    from studies.observe import early_warnings

    if trial.computed:
        return early_warnings.Warnings("", layers)
    stable = early_warnings.stability(trial.config["optimizer"])
    return early_warnings.early_warnings(epochs, layers, result.classes, result.chance_train, stable)


def charted(study: Study, frame: Any) -> dict[str, float]:
    """What MLflow charts of an execution: its trials, and the mean of each arm, as its table has it.

    Args:
        frame: the trials, from `load.trials`.
    """
    from analysis.estimate import arms as made
    from analysis.estimate import comparison

    numbers = {
        "trials": len(frame),
        "trials failed": (frame["status"] != "finished").sum(),
        "seconds of training": frame["seconds_total"].sum(),
    }
    by = study.compared
    if study.metric not in frame:
        return numbers
    compared = comparison.comparison(frame, by, study.metric, {}, made.averaged_over(study, by)).to_dict("records")
    if not by:
        return numbers | {study.metric: compared[0]["mean"]}
    means = {arm_label({factor: row[factor] for factor in by}): row["mean"] for row in compared}
    named = {f"{study.metric} of arms/{arm.replace('/', '_')}": mean for arm, mean in means.items()}
    return numbers | dict(list(named.items())[:MOST_CHARTED])
