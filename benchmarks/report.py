"""Figures as tables, and their place in docs/performance.md: a section for each benchmark, between two markers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mailops.lab.layout import LabError, write

DOCUMENT = Path(__file__).parents[1] / "docs/performance.md"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that reads well as plain text, too; the first column to the left, figures to the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    return "".join(_line(row, widths) for row in (head, rule, *rows))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    return f"| {' | '.join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)])} |\n"


def write_section(name: str, text: str) -> None:
    """Replace what is between the two markers of the section; LabError when they are gone."""
    write(DOCUMENT, with_section(DOCUMENT.read_text(encoding="utf-8"), name, text))


def with_section(document: str, name: str, text: str) -> str:
    begin, end = f"<!-- {name}: script/bench writes from here -->", f"<!-- {name}: to here -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(document):
        raise LabError(f"{DOCUMENT.name} has no lines `{begin}` and `{end}` to write the figures between")
    return pattern.sub(lambda _: f"{begin}\n\n{text.strip()}\n\n{end}", document, count=1)
