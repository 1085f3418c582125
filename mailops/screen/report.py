"""What a person sees while a machine is being worked on: one line per step, the running one kept alive."""

from __future__ import annotations

import shutil
import sys
import threading
from typing import TextIO

from mailops import secrets
from mailops.screen import paint

MARKS = {"ok": "✓", "changed": "●", "failed": "✗"}
COLOURS = {state: paint.MARKS[mark] for state, mark in MARKS.items()}
STRIDE = 20.0  # per cent between two progress lines where there is no terminal
WIDTH = 100
LONGEST = 2000  # characters of one line


class Report:
    """A listener that prints; several machines may share the terminal, a line is never torn."""

    _writing = threading.Lock()

    def __init__(self, name: str, stream: TextIO | None = None) -> None:
        self.name = name
        self.stream = stream or sys.stdout
        self.live = self.stream.isatty()
        self._last = 0.0

    def step(self, name: str, state: str, lines: list[str]) -> None:
        self._last = 0.0
        if state == "start" or (state == "ok" and not lines):  # what is as it should be needs no line
            self._passing(f"… {name}")
            return
        mark = paint.colour(MARKS[state], COLOURS[state]) if paint.coloured(self.stream) else MARKS[state]
        self._line(f"{mark} {name:<12} {_short(lines)}".rstrip())

    def progress(self, name: str, percent: float, detail: str) -> None:
        if self.live:
            self._passing(f"… {name:<12} {percent:3.0f} %  {detail}")
        elif percent - self._last >= STRIDE:
            self._last = percent
            self._line(f"… {name:<12} {percent:3.0f} %  {detail}")

    def say(self, text: str) -> None:
        self._line(f"  {text}")

    def _line(self, text: str) -> None:
        start = "\r\x1b[K" if self.live else ""
        line = paint.wrapped(f"{self.name}  {secrets.mask(text)}", paint.columns() if self.live else 0)
        with self._writing:
            print(f"{start}{line}", file=self.stream, flush=True)

    def _passing(self, text: str) -> None:
        if self.live:
            line = f"{self.name}  {secrets.mask(text)}"[: shutil.get_terminal_size().columns - 1]  # it must not wrap
            with self._writing:
                print(f"\r\x1b[K{line}", end="", file=self.stream, flush=True)


def _short(lines: list[str]) -> str:
    """A long list of changes by its first few and their number; `--json` has them all."""
    text = ", ".join(lines)
    few = len(text) <= WIDTH or len(lines) < 4
    shown = text if few else ", ".join(lines[:3])
    shown = shown if len(shown) <= LONGEST else f"{shown[:LONGEST]} …"
    return shown if few else f"{shown} and {len(lines) - 3} more"
