"""Rows under headings, as both halves print them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def table(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """Rows under their headings, a line each; numbers to the right. No rows, no lines."""
    if not rows:
        return []
    cells = [[key.upper() for key in rows[0]], *([str(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    right = [isinstance(value, int) for value in rows[0].values()]
    if not all(right[-1:]):
        widths[-1] = 0  # nothing stands beside the last
    return [
        "  ".join(
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in cells
    ]
