"""A study behind a tracking server, held by one driver at a time: a tag of its experiment that its holder renews.

Nobody can lock anything through MLflow's REST interface. A driver writes who it is, waits, and looks whether it is
still there; then it writes again and again that it lives. What was not renewed for `SECONDS` is nobody's.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any

from studies import terminal, waiting
from studies.record import StudyError
from studies.store import holder
from studies.store.holder import Holder

TAG = "studies.holder"

SECONDS = 40.0
"""Without a sign of life after which a driver has lost its study."""

SETTLED = 0.5
"""Seconds after which one looks whether another has written at the same moment."""

HELD: dict[tuple[str, str], "Lease"] = {}
"""This process's, by the server's address and the study's name."""


class Lease:
    """One driver's hold on a study.

    Args:
        read: what the tag says now, None if there is none; write: makes it say something, None for nothing.
    """

    def __init__(self, study: str, place: object, read: Callable[[], str | None], write: Callable[[str | None], None]):
        self.study, self.place, self.read, self.write = study, place, read, write
        self.mine, self.lost, self.over = Holder(), "", threading.Event()
        self.renewed = 0.0

    @contextmanager
    def held(self, sweep: str, tell: Callable[[str], object]) -> Iterator[None]:
        """Hold the study in here.

        Raises:
            StudyError: another driver has it.
        """
        self.mine = holder.me(sweep)
        self._claim(tell)
        beat = threading.Thread(target=self._beat, daemon=True)
        beat.start()
        try:
            yield
        finally:
            self.over.set()
            beat.join(SETTLED)
            with waiting.impatient(), suppress(Exception):  # then it runs out
                if not sweep and self._is_mine(self.read()):  # other jobs of a sweep may live
                    self.write(None)

    def check(self) -> None:
        """See that the study is still this driver's.

        Raises:
            StudyError: another has taken it, since nothing was heard of this one for too long.
        """
        if not self.lost and _awake() - self.renewed > SECONDS / 3:  # asleep or stopped, in which another may have come
            self._renew()
        if self.lost:
            raise StudyError(
                f"{self.lost} has taken {self.study} in {self.place}, since nothing was heard of this process for "
                f"{SECONDS:g} s: what is finished is kept; wait for it, and the same command goes on"
            )

    def _claim(self, tell) -> None:
        while True:
            self._wait_for(self.read(), tell)
            looked = time.monotonic()
            if not self._is_free(self.read()):
                continue
            self.renewed = _awake()
            self.write(self._text())
            if time.monotonic() - looked > SETTLED / 2:  # another may have looked, written and settled meanwhile
                _pause(SETTLED)
            _pause(SETTLED)
            found = self.read()
            if self._is_mine(found):
                return
            self._wait_for(found, tell)

    def _wait_for(self, found: str | None, tell) -> None:
        """Wait until nobody lives who has the study.

        Raises:
            StudyError: somebody does.
        """
        if self._is_free(found):
            return
        other, beaten = holder.read(found), _beaten(found)
        age = time.time() - beaten
        left = f", for {SECONDS - age:.0f} s if it has died"
        if 0 <= age < SECONDS:  # by this machine's clock
            raise holder.refusal(self.study, self.place, other, "tracking.uri=ADDRESS", left)
        tell(f"{self.study} is held by a driver that seems to have died{other}: {SECONDS / 2:.0f} s to see if it has")
        until = time.monotonic() + SECONDS / 2
        while time.monotonic() < until:
            _pause(SETTLED)
            if (now := self.read()) != found:
                if self._is_free(now):
                    return
                raise holder.refusal(self.study, self.place, holder.read(now), "tracking.uri=ADDRESS")
        self.write(None)

    def _is_free(self, found: str | None) -> bool:
        return not found or self._is_mine(found) or holder.read(found).is_known_dead

    def _is_mine(self, found: str | None) -> bool:
        """Whether this process has written it, or another job of its sweep."""
        other = holder.read(found)
        same = (other.machine, other.pid, other.born) == (self.mine.machine, self.mine.pid, self.mine.born)
        return bool(found) and (same or bool(self.mine.sweep and other.sweep == self.mine.sweep))

    def _text(self) -> str:
        return json.dumps(asdict(self.mine) | {"beat": time.time()})

    def _beat(self) -> None:
        while not self.over.wait(SECONDS / 5):
            with suppress(Exception):  # the server is away: it is asked again
                self._renew()
            if self.lost:
                return

    def _renew(self) -> None:
        now, found = _awake(), self.read()
        if found and not self._is_mine(found):
            self.lost = f"another process{holder.read(found)}"
            return
        self.write(self._text())
        self.renewed = now


def _beaten(found: str | None) -> float:
    """When a holder was last heard of, by its own clock."""
    said: Any = None
    with suppress(ValueError):
        said = json.loads(found or "")
    return float(said.get("beat", 0.0)) if isinstance(said, dict) else 0.0


def _awake() -> float:
    """Seconds that go on while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _pause(seconds: float) -> None:
    time.sleep(seconds)
    if terminal.received() is not None:
        raise terminal.Interrupted
