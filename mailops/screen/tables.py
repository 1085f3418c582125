"""What the tables of several tasks have in common."""

from __future__ import annotations

import time
from typing import Any

from mailops.remote.shared.tables import table

FEW = 2  # paths that fit into a line


def show(rows: list[dict[str, Any]]) -> None:
    """Print rows under their headings, set in below the line that names their machine."""
    for line in table(rows):
        print(f"  {line}")


def when(seconds: float) -> str:
    """A moment (s since 1970) by this computer's clock, to the minute."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def few(items: list[str], noun: str) -> str:
    """The items themselves while they are few, else how many `noun`s."""
    return ", ".join(items) if len(items) <= FEW else f"{len(items)} {noun}s"
