"""What the tables of several tasks have in common."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mailops.remote.shared.tables import table
from mailops.screen import paint

FEW = 2  # paths that fit into a line


LEAST = 12  # characters that a column of text keeps
BETWEEN = 2  # columns


def show(rows: list[dict[str, Any]]) -> None:
    """Print rows under their headings, set in below the line that names their machine."""
    for line in fitted(rows, paint.columns() - 2):
        print(f"  {line}")


def fitted(rows: Sequence[Mapping[str, object]], width: int) -> list[str]:
    """The lines of a table that is no wider: the widest texts go on below themselves. Not so for a width below 1."""
    if not rows or width < 1:
        return table(rows)
    widths = {key: max(len(str(row[key])) for row in [*rows, {key: key}] if key in row) for key in rows[0]}
    texts = {key for key, value in rows[0].items() if not isinstance(value, int)}
    for _ in range(sum(widths.values()) + BETWEEN * (len(widths) - 1) - width):
        wide = [key for key in texts if widths[key] > max(LEAST, len(key))]
        if not wide:
            break
        widths[max(wide, key=lambda key: widths[key])] -= 1
    return table([part for row in rows for part in _parts(row, widths)])


def _parts(row: Mapping[str, object], widths: Mapping[str, int]) -> Iterator[dict[str, object]]:
    """The row, as several of which each fits."""
    pieces: dict[str, list[object]] = {}
    for key, value in row.items():
        long = len(str(value)) > widths[key]
        pieces[key] = [*textwrap.wrap(str(value), widths[key], break_on_hyphens=False)] if long else [value]
    for number in range(max(map(len, pieces.values()))):
        yield {key: found[number] if number < len(found) else "" for key, found in pieces.items()}


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
