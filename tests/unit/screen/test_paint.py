"""What comes to a terminal: colours, and lines that fit; into a pipe it goes as it is."""

from __future__ import annotations

import io
import os
import re
import sys
from typing import Any

import pytest

from mailops.screen import paint, planned, tables
from mailops.screen.report import Report

STATUS = """\
mail         ✓ up           Debian 13  mailhost  mail.example.test  queue 3, oldest 2 h (1 on hold)  up 12 d
             vault 12.5 GiB free  certificate mail.example.test, imap.example.test 80 d left  postfix 3.10.4
             ✗ port 25: nothing answers; next: fab -H mail bootstrap
             ● edited on the machine: /etc/postfix/main.cf; see fab -H mail drift"""
DIFF = "--- a (now)\n+++ a (planned)\n@@ -1 +1 @@\n-" + "x" * 150 + "\n+✓ y\n \n same ✗ \n"


class Screen(io.StringIO):
    """A terminal of so many columns."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(params=[80, 100])
def screen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Screen:
    found = Screen()
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "__stdout__", found)
    monkeypatch.setattr(paint.shutil, "get_terminal_size", lambda *_: os.terminal_size((request.param, 24)))
    return found


def plain(text: str) -> str:
    return re.sub(r"\x1b\[\d*m", "", text)


def test_lines_fit_and_go_on_where_their_text_began(screen: Screen) -> None:
    lines = plain(paint.page(STATUS, screen)).split("\n")
    assert max(map(len, lines)) <= paint.columns()
    assert " ".join(" ".join(lines).split()) == " ".join(STATUS.split())
    assert all(line.startswith((" " * 13, "mail ")) for line in lines)


def test_marks_and_diffs_are_coloured_as_in_a_bootstrap(screen: Screen) -> None:
    page = paint.page(f"{STATUS}\n\n{DIFF}", screen)
    assert "\x1b[32m✓\x1b[0m up" in page
    assert "\x1b[31m✗\x1b[0m port 25" in page
    assert "\x1b[33m●\x1b[0m edited" in page
    assert "\x1b[36m@@ -1 +1 @@\x1b[0m\n\x1b[31m-" + "x" * 150 + "\x1b[0m\n\x1b[32m+✓ y\x1b[0m\n \n same ✗ " in page
    assert plain(page).endswith(DIFF)


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_who_wants_no_colour_gets_none(name: str, value: str, screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert "\x1b" not in paint.page(f"{STATUS}\n{DIFF}", screen)
    report = Report("mail", screen)
    report.step("files", "changed", ["/etc/a"])
    assert "\x1b[3" not in screen.getvalue()


def test_a_pipe_gets_it_as_it_is(screen: Screen) -> None:
    assert paint.page(f"{STATUS}\n{DIFF}", io.StringIO()) == f"{STATUS}\n{DIFF}"


ROWS: list[dict[str, Any]] = [
    {"id": "4D37E2B2092", "size": 12345, "from": "a.long.name@a-long-name.example.test", "why": "it waits " * 20},
    {"id": "5FDFA6225C3", "size": 1, "from": "b@b.test", "why": ""},
]


@pytest.mark.parametrize("width", [80, 100, 400])
def test_a_table_fits_and_loses_nothing(width: int) -> None:
    lines = tables.fitted(ROWS, width)
    assert max(map(len, lines)) <= width
    words = [word for row in ROWS for value in row.values() for word in str(value).split()]
    assert sorted("".join(lines[1:]).replace(" ", "")) == sorted("".join(words))
    assert tables.fitted(ROWS, 0) == tables.table(ROWS)
    assert (tables.fitted(ROWS, width) == tables.table(ROWS)) is (width == 400)


def test_a_table_that_cannot_fit_is_as_narrow_as_it_gets() -> None:
    rows = [{f"column {number}": "x" * 30 for number in range(10)}]
    assert max(map(len, tables.fitted(rows, 80))) == 10 * 12 + 9 * 2


def test_changes_are_counted_with_verbs() -> None:
    assert planned.count({}) == ""
    assert planned.count({"files": ["/etc/a"]}) == "1 change: change 1 file"
    changes = {"packages": ["a", "b"], "agent": ["c"], "vault": ["d"], "files": ["e", "f"]}
    assert planned.count(changes) == "6 changes: install 2 packages, change 2 files, 2 more"
    assert planned.count({"agent": ["a"]}) == "1 change: of the machine itself"


def test_a_bootstrap_ends_with_what_to_type() -> None:
    first = {"mail": {"changes": {"vault": ["made"], "dkim": ["key"]}, "locked": False}}
    assert [line.split("  ")[0].removeprefix("next:").strip() or line.split()[0] for line in planned.next_steps(first)]
    assert "fab dkim.ls" in "\n".join(planned.next_steps(first))
    assert planned.next_steps({"mail": {"changes": {}, "locked": True}}) == [
        "next: fab -H mail unlock  opens the vault, and starts mail"
    ]
    assert planned.next_steps({"mail": {"changes": {}, "locked": False}}) == []
