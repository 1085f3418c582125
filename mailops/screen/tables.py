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


def age(seconds: float) -> str:
    """A span of time to its first unit, as narrow as a column wants it."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(0, int(seconds))} s"


def size(count: int) -> str:
    """Bytes, as a person reads them."""
    if count < 1 << 10:
        return f"{count} B"
    return f"{count / (1 << 10):.0f} KiB" if count < 1 << 20 else f"{count / (1 << 20):.1f} MiB"


def clip(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
