"""How a study is getting on: a live display on a terminal, plain lines elsewhere."""

import statistics
import time
from collections import Counter

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from studies.command import pulse
from studies.command.board import Board
from studies.record import Result, Study, Trial, plain

WARNED_ARMS = 10
"""So many arms have a line for an early warning of their own; the rest are counted."""


class Display:
    """Counts ended trials and says which arm has just been finished.

    Args:
        study: what runs.
        trials: those that will run.
        skipped: how many were finished before.
        console: where to print; its `is_terminal` decides between display and lines.
        board: the display over a sweep of claims that this is in, which is all that is said then.
    """

    def __init__(self, study: Study, trials: list[Trial], skipped: int, console: Console, board: Board | None = None):
        self.study, self.console, self.skipped, self.board = study, console, skipped, board
        self.total, self.done, self.failed = len(trials), 0, 0
        self.left = Counter(study.labelled(trial) for trial in trials)
        self.values: dict[str, list[float | None]] = {}
        self.warned: Counter[str] = Counter()
        self.started, self.at = time.monotonic(), ""
        name, columns = study.name, (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        if board:
            name, self.bar = "  tuning" if trials[0].role == "nuisance" else "  trials", board.bar
        else:
            state = TextColumn("{task.fields[state]}")
            self.bar = Progress(*columns, state, console=console, disable=not console.is_terminal)
        self.task = self.bar.add_task(name, total=self.total, state="starting workers")

    def __enter__(self):
        if not self.board:
            self.bar.start()
        return self

    def __exit__(self, *error):
        if len(self.warned) > WARNED_ARMS:
            arms, trials = len(self.warned) - WARNED_ARMS, self.warned.total()
            self._say(f"{arms} more arms with early warnings, {trials} of {self.done} trials in all: trial.warning")
        if self.board:
            self.bar.remove_task(self.task)
        else:
            self.bar.stop()

    def line(self) -> str:
        """How far it is, for where nothing is live."""
        state = f"{self._left()} left" if self.done else self.at or "while graphs are compiled"
        return f"{self.done} of {self.total} trials, {state}"

    def _left(self) -> str:
        elapsed = time.monotonic() - self.started
        return _duration(elapsed / self.done * (self.total - self.done))

    def epoch(self, trial: Trial, epoch: int) -> None:
        """A trial has got so far: shown while no trial has ended yet, so that long ones can be seen to move."""
        if not self.done:
            self.at = f"{self.study.labelled(trial)} seed={trial.seed}: epoch {epoch}"
            self.bar.update(self.task, state=self.at)

    def note(self, trial: Trial, text: str) -> None:
        """Something of a trial that is none of its results."""
        self._say(f"{self.study.labelled(trial)} seed={trial.seed} {text}")

    def ended(self, trial: Trial, result: Result, warning: str = "") -> None:
        """A trial has ended: after an arm's last the mean of those that finished is shown, and how many failed.

        Args:
            warning: its early warnings. The earliest of the arm's first trial that has any is shown, of `WARNED_ARMS`
                arms; of a claim, whose trials must not be judged between looks, none is.
        """
        self.done += 1
        self.failed += result.status != "finished"
        label, metric = self.study.labelled(trial), self.study.metric
        self.values.setdefault(label, []).append(result.value(metric) if result.status == "finished" else None)
        self.left[label] -= 1
        elapsed = time.monotonic() - self.started
        state = f"{self.failed} failed, {self.skipped} skipped, {60 * self.done / elapsed:.0f} a minute"
        if self.board:
            state = f"{self.done} of {self.total}, {state}"
        else:
            state += f", {self._left()} left"
        if result.status == "crashed":
            reason = result.error.partition("\n")[0]
            self.console.print(
                plain(f"{label} seed={trial.seed} crashed: {reason}"),
                style="red",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
        if warning and not self.study.claim:
            if label not in self.warned and len(self.warned) < WARNED_ARMS:
                first = min(warning.split("; "), key=lambda sign: int(sign.rpartition(" ")[2]))
                self._say(f"{label}: {first}")
            self.warned[label] += 1
        if self.left[label] == 0 and not self.board:
            # Of a claim no number is shown between looks, by which one might stop.
            line = f"{label}: done" if self.study.claim else f"{label}: {metric} {_came_to(self.values[label])}"
            place = "" if self.console.is_terminal else f"[{self.done}/{self.total}] "
            tail = "" if self.console.is_terminal else f"  ({state})"
            self._say(f"{place}{line}{tail}")
        self.bar.update(self.task, completed=self.done, state=state)

    def _say(self, line: str) -> None:
        pulse.heard()
        self.console.print(plain(line), markup=False, highlight=False, soft_wrap=True)


def _came_to(values) -> str:
    """The mean of an arm's values, None for what failed, and how many that are."""
    finished = [value for value in values if value is not None]
    there = [value for value in finished if value == value]
    if not finished:
        return "failed"
    mean = f"{statistics.fmean(there):.4f}" if there else "none"
    failed = len(values) - len(finished)
    return f"{mean}, {failed} of {len(values)} failed" if failed else mean


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
