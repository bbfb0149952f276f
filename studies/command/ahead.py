"""The claims of a multirun, read before the first of them runs, so that it is known how long all of them will take."""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from studies import address, terminal
from studies.command import checks, compose, cost, driver, job, plan
from studies.command.board import Board, duration
from studies.command.sweep import Outcome
from studies.execute.task import Executor
from studies.record import StudyError


@dataclass
class Ahead:
    """The claims of a multirun.

    Attributes:
        board: the display over them.
        ready: the job of each; None for one that cannot be right, which is said when its turn comes.
        judged: the execution of each that was judged before, by trials that are all still there; else None.
        expected: whether it is known how long they will take.
    """

    board: Board
    ready: list[job.Job | None]
    judged: list[Any]

    expected: bool = False

    def expect(self, executor: Executor) -> None:
        """Find how long each will take that was not judged before; models that were never built are, to be counted."""
        if self.expected:
            return
        self.expected = True
        left = [(n, j) for n, j in enumerate(self.ready) if j and not self.judged[n]]
        trials = [trial for _, each in left for trial in each.trials if not trial.computed]
        with suppress(StudyError):  # which is said when its turn comes
            checks.checked(cost.uncounted(trials), executor)
        self.board.workers = executor.workers
        for number, each in left:
            with suppress(StudyError):
                self.board.foresee(number, plan.extent(each.study, each.trials, each.expand, executor.workers))

    def plan(self, number: int, executor: Executor) -> None:
        """Print what a claim would train at most, and how long that would take."""
        one = self.ready[number]
        assert one is not None  # noqa: S101
        plan.count(one.trials, executor)
        extent = plan.extent(one.study, one.trials, one.expand, executor.workers)
        self.board.workers = executor.workers
        self.board.foresee(number, extent)
        print(f"{one.study.name:<20}  {extent.trials:>6,} trials  {duration(extent.seconds)}", flush=True)

    def summary(self, outcomes: list[Outcome], interrupted: bool) -> str:
        """What became of the claims: how many have which verdict, and why others have none; the cost of a plan."""
        lacking = [(o, course) for o, course in zip(outcomes, self.board.courses, strict=False) if o.error]
        lines = [f"  {course.name}: {outcome.error}" for outcome, course in lacking]
        if any(one and one.config["plan"] for one in self.ready):
            return "\n".join([self._cost(), *lines])
        counts = Counter(outcome.verdict for outcome in outcomes if outcome.verdict)
        done = f"{sum(counts.values())} of {len(self.ready)} claims are judged"
        decided = "; ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
        lines = [f"{done}{f': {decided}' * bool(decided)}", *lines]
        if lacking:
            lines.append("The same command tries those again that are not.")
        if counts and not interrupted:
            lines.append(
                "A claim's table: "
                + "; its report: ".join(
                    terminal.spoken(f"analysis.{name}", "NAME", *self._where()) for name in ("compare", "report")
                )
            )
        return "\n".join(lines)

    def _where(self) -> list[str]:
        return address.where(next(address.tracked(one.config["tracking"]) for one in self.ready if one))

    def _cost(self) -> str:
        extents = [course.extent for course in self.board.courses]
        trials, seconds = sum(e.trials for e in extents), cost.START + sum(e.seconds for e in extents)
        claims, workers = sum(e.trials > 0 for e in extents), self.board.workers
        return (
            f"{claims} claims: {trials:,} trials at most, about {duration(seconds)} on {workers} "
            f"worker{'s' * (workers > 1)} if no look ends one early and none is finished before"
        )


def read(words: list[list[str]], console: Console) -> Ahead | None:
    """The claims of a multirun.

    Args:
        words: the overrides of each job, see `compose.jobs`.

    Returns:
        None if there are fewer than two, or one of them is no claim.
    """
    if len(words) < 2 or not all(map(compose.claim, words)):
        return None
    ready, judged = [], []
    for overrides in words:
        one = before = None
        with suppress(Exception):  # which is said when its turn comes
            one = job.read(*compose.ahead(overrides), overrides)
            root = address.tracked(one.config["tracking"])
            if not (one.config["plan"] or one.config["force"]):
                before = driver.judged(one.study, one.trials, root, one.card)
        ready.append(one)
        judged.append(before)
    plans = any(one and one.config["plan"] for one in ready)
    names = [one.study.name if one else compose.claim(each) for one, each in zip(ready, words, strict=True)]
    return Ahead(Board(names, console, live=not plans), ready, judged)
