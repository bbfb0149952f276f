"""How a sweep of claims gets on: one display over all of them, and a line for each as it is decided."""

import textwrap
import time
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from studies.command import pulse
from studies.command.cost import Extent
from studies.command.sweep import Outcome
from studies.record import plain

MARKS = {"supported": "✓", "not supported": "✗", "inconclusive": "?"}
"""Of verdicts; of others, and of claims that could not be judged, `!`."""

QUIET = 120.0
"""Seconds after which a line is printed where there is no terminal."""

PRIOR = 30.0
"""So many seconds of what is expected count as if they had passed as expected: the first trials are no measure."""

QUOTED = 60
"""Characters of a claim's quote in its line."""


@dataclass
class Course:
    """A job of the sweep.

    Attributes:
        name: of its study.
        extent: what it comes to at most; nothing where it was judged before.
        trials: how many of these are done, or were before.
        seconds: what those done now were expected to take.
        before: what those done before would have taken.
        took: how long it has taken; None until it has ended.
    """

    name: str
    extent: Extent = field(default_factory=Extent)
    trials: int = 0
    seconds: float = 0.0
    before: float = 0.0
    took: float | None = None

    @property
    def expected(self) -> float:
        """Seconds that all of it was expected to take now, at most."""
        return max(self.extent.seconds - self.before, 0.0)


class Board:
    """The display over the jobs of a sweep: `claim 7 of 28 adam_saves_time, 312 of ~2,900 trials, 11 min left`.

    A live line on a terminal, above that of the study at hand; elsewhere a line now and then.

    Args:
        names: of the jobs' studies, in their order.
        live: whether it is shown at all, where there is a terminal.

    Attributes:
        workers: how many train at once.
    """

    def __init__(self, names: list[str], console: Console, live: bool = True):
        self.courses, self.console, self.workers = [Course(name) for name in names], console, 1
        self.at, self.since, self.spoke = 0, time.monotonic(), time.monotonic()
        short = Column(no_wrap=True, overflow="ellipsis")
        self.bar = Progress(
            TextColumn("{task.description}", table_column=short),
            BarColumn(20),
            TextColumn("{task.fields[state]}", table_column=short),
            console=console,
            disable=not (live and console.is_terminal),
        )
        self.task: TaskID = self.bar.add_task("", total=1.0, state="")
        self.bar.start()

    def foresee(self, number: int, extent: Extent) -> None:
        """What a job comes to that has not begun."""
        self.courses[number].extent = extent

    def begin(self, number: int) -> None:
        """A job's turn has come."""
        self.at, self.since = number, time.monotonic()
        self._show()

    def did(self, trials: int, seconds: float, before: bool = False) -> None:
        """So many more trials of the job at hand are done, or were before it began.

        Args:
            seconds: of one worker, that they were expected to take.
        """
        course = self.courses[self.at]
        course.trials += trials
        if before:
            course.before += seconds / self.workers
        else:
            course.seconds += seconds / self.workers
            if not self.console.is_terminal and time.monotonic() - self.spoke > QUIET:
                self._say(self.line())
        self._show()

    def ended(self, outcome: Outcome) -> None:
        """The job at hand has ended: its line is printed."""
        course = self.courses[self.at]
        course.took = time.monotonic() - self.since
        said = outcome.verdict or "not judged"
        quote = textwrap.shorten(outcome.quote if outcome.verdict else outcome.error, QUOTED, placeholder=" …")
        when = f" ({duration(course.took) if outcome.trained else 'judged before'})" if outcome.verdict else ""
        tail = f"  [{self._state()}]" if course.trials and not self.console.is_terminal else ""
        self._say(f"{MARKS.get(said, '!')} {said:<13}  {course.name:<20}  {quote}{when}{tail}")
        self._show()

    def close(self) -> None:
        """Take the display away."""
        self.bar.update(self.task, visible=False)
        self.bar.stop()

    def left(self) -> float:
        """Seconds that it will still take: what is expected of the rest, as much longer as what has passed took.

        Claims end early at looks, which what has passed shows too.
        """
        now, passed, expected, rest = time.monotonic(), PRIOR, PRIOR, 0.0
        for number, course in enumerate(self.courses):
            took = course.took if course.took is not None else now - self.since if number == self.at else None
            done = course.expected if course.took is not None else min(course.seconds, course.expected)
            if took is not None and course.seconds:
                passed, expected = passed + took, expected + done
            if course.took is None:
                rest += course.expected - done
        return rest * passed / expected

    def line(self) -> str:
        """What it shows, as a line."""
        return f"{self._at()}, {self._state()}"

    def _at(self) -> str:
        return f"claim {self.at + 1} of {len(self.courses)} {self.courses[self.at].name}"

    def _state(self) -> str:
        done = sum(course.trials for course in self.courses)
        every = sum(max(c.trials, c.extent.trials * (c.took is None)) for c in self.courses)
        return f"{done:,} of ~{every:,} trials, {duration(self.left())} left"

    def _show(self) -> None:
        ended, left = sum(c.took or 0.0 for c in self.courses), self.left()
        passed = ended + (time.monotonic() - self.since) * (self.courses[self.at].took is None)
        share = passed / (passed + left) if left else 1.0
        self.bar.update(self.task, description=self._at(), completed=share, state=self._state())

    def _say(self, line: str) -> None:
        self.spoke = time.monotonic()
        pulse.heard()
        self.console.print(plain(line), markup=False, highlight=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """`11 min`, `1 h 5 min`, `40 s`: no more digits than an estimate has."""
    minutes, hours = round(seconds / 60), round(seconds / 60) // 60
    if hours:
        return f"{hours} h {minutes - 60 * hours} min"
    return f"{minutes} min" if seconds >= 90 else f"{seconds:.0f} s"
