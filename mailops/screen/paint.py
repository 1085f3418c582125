"""Colours, and lines that fit: how what a task says comes to a terminal. Into a pipe it goes as it is."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from typing import TextIO

MARKS = {"✓": "32", "●": "33", "✗": "31"}  # green, yellow, red, as escape sequences number them (ECMA-48, SGR)
MARK = re.compile("|".join(f"(?<![^ ]){mark}(?= )" for mark in MARKS))
DIFF = {"+": "32", "-": "31", "@": "36"}
NARROWEST = 40  # columns; a narrower terminal wraps by itself


def coloured(stream: TextIO) -> bool:
    """Whether a person sees it, who has not asked for none (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def columns() -> int:
    """Of the terminal that stdout is; 0 where it is none, and nothing has to fit."""
    real = sys.__stdout__
    wide = shutil.get_terminal_size().columns if real and real.isatty() else 0
    return wide if wide >= NARROWEST else 0


def colour(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m"


def page(text: str, stream: TextIO) -> str:
    """What a task says of a machine, diffs included."""
    if not stream.isatty():
        return text
    lines = list(_wrapped(text.split("\n"), columns()))
    return "\n".join(_line(line, of_diff) if coloured(stream) else line for line, of_diff in lines)


def wrapped(line: str, width: int) -> str:
    """A line that fits, the rest of it set in below its second column; a single word is never cut."""
    if not width or len(line) <= width:
        return line
    start = re.match(r" *(?:\S+ {2,})?", line)
    indent = " " * min(start.end() if start else 0, width // 2)
    return "\n".join(
        textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    )


def _wrapped(lines: list[str], width: int) -> Iterator[tuple[str, bool]]:
    """Each line, and whether it belongs to a diff, which stays as it is."""
    of_diff = False
    for number, line in enumerate(lines):
        if line.startswith("--- ") and lines[number + 1 : number + 2] and lines[number + 1].startswith("+++ "):
            of_diff = True
        elif not line.startswith((" ", "+", "-", "@@", "\\")):
            of_diff = False
        if of_diff:
            yield line, True
        else:
            yield from ((part, False) for part in wrapped(line, width).split("\n"))


def _line(line: str, of_diff: bool) -> str:
    if of_diff:
        return colour(line, DIFF[line[0]]) if line[:1] in DIFF else line
    return MARK.sub(lambda found: colour(found[0], MARKS[found[0]]), line, count=1)
