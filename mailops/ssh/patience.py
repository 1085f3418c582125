"""How long a machine may take for a call, and what a person is told of a step that takes long."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mailops.remote.shared.calls import Event

# Seconds of a step without news. What comes every few seconds from whoever hangs is none: a sign of life, a word.
# A package that takes long to set itself up takes minutes.
IDLE = 1800.0
# Seconds of a call: of one that changes the machine, of which one may fetch packages, and of one that looks.
LONGEST = {"bootstrap": 3 * 3600.0} | dict.fromkeys(("push", "rollback", "unlock", "lock"), 3600.0)
LOOK = 900.0
FIRST = 60.0  # seconds without news that a person is told of; then those after twice as many


class TooLong(TimeoutError):
    """What a machine has been doing for longer than anybody waits, as the end of a sentence about it."""


class Patience:
    """With one call. What a person takes to answer a question is not the machine's time."""

    def __init__(self, task: str) -> None:
        self._longest = LONGEST.get(task, LOOK)
        self._began = self._news = time.monotonic()
        self._step = ""
        self._progress: tuple[str, float] | None = None
        self._next = FIRST

    def hear(self, event: Event | None) -> None:
        """An event, or what is none, has come. TooLong when it has been enough."""
        now = time.monotonic()
        if event and self._is_news(event):
            self._news, self._next = now, FIRST
        if now - self._news > IDLE:
            raise TooLong(f"has done nothing new{self._where()} for {_minutes(IDLE)}")
        if now - self._began > self._longest:
            raise TooLong(f"has come to no end in {_minutes(self._longest)}")

    def word(self) -> str:
        """What to tell a person who waits; "" where that was told, or there is nothing to tell."""
        waited = time.monotonic() - self._news
        if waited < self._next:
            return ""
        self._next *= 2
        return f"nothing new{self._where()} for {_minutes(waited)}; Ctrl-C ends the wait"

    def pause(self, seconds: float) -> None:
        """So long a person was asked."""
        self._began += seconds
        self._news += seconds

    def _is_news(self, event: Event) -> bool:
        if event["t"] == "step":
            self._step = "" if event["state"] != "start" else event["name"]
        if event["t"] == "progress":
            before, self._progress = self._progress, (event["name"], event["percent"])
            return before != self._progress
        return event["t"] not in ("beat", "say")

    def _where(self) -> str:
        return f" in {self._step}" if self._step else ""


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min"
