"""Diffs of what a machine has: readable, masked, and harmless to the terminal."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest

from mailops import secrets
from mailops.screen import diffs
from mailops.screen.report import Report

SECRET = "correct horse"
LABELS = ("then", "now")
USUAL = "0644 root:root"


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_memory", secrets._Memory())
    secrets.remember(SECRET)


def entry(**more: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "path": "/etc/x",
        "before": None,
        "after": None,
        "secret": False,
        "was": USUAL,
        "now": USUAL,
    }
    base |= {"state": "changed"}
    for key in ("before", "after"):
        if more.get(key) is not None:
            more[key] = base64.b64encode(more[key]).decode()
    return base | more


def test_a_changed_line_is_told_with_its_file_and_times() -> None:
    found = diffs.unified("/etc/x", b"a\nb\nc\n", b"a\nB\nc\n", LABELS)
    assert found == "--- /etc/x (then)\n+++ /etc/x (now)\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n"


def test_equal_contents_are_no_diff() -> None:
    assert diffs.unified("/etc/x", b"a\n", b"a\n", LABELS) == ""


def test_an_absent_file_is_dev_null() -> None:
    assert diffs.unified("/etc/x", None, b"a\n", LABELS).startswith("--- /dev/null\n+++ /etc/x (now)\n")
    assert diffs.unified("/etc/x", b"a\n", None, LABELS).startswith("--- /etc/x (then)\n+++ /dev/null\n")


def test_a_missing_last_newline_is_told_as_diff_does() -> None:
    assert diffs.unified("/etc/x", b"a", b"b\n", LABELS).splitlines()[3:] == [
        "-a",
        "\\ No newline at end of file",
        "+b",
    ]


def test_no_machine_makes_us_compare_for_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each file every second line is in both, and each of these often: what difflib is slowest at."""
    monkeypatch.setattr(diffs, "MOST_WORK", 1 << 18)
    sides = [b"".join(b"%d\n%s%d\n" % (line % 5, side, line) for line in range(240)) for side in (b"u", b"v")]
    files = [entry(path=f"/etc/{number}", before=sides[0], after=sides[1]) for number in range(3)]
    found = diffs.all_shown([entry(before=None, after=sides[0] * 9, state="new"), *files], LABELS)
    assert [each["diff"].partition(" (")[0] for each in found[:2]] == ["--- /dev/null\n+++ /etc/x", "--- /etc/0"]
    assert found[-1]["diff"] == "/etc/2: (too much differs, not compared)\n"


def test_known_secrets_are_masked_on_both_sides() -> None:
    found = diffs.unified("/etc/x", f"pw = {SECRET}\n".encode(), f"pw = {SECRET}!\n".encode(), LABELS)
    assert SECRET not in found
    assert "-pw = ********\n" in found


def test_what_a_file_says_does_not_steer_the_terminal() -> None:
    found = diffs.unified("/etc/x", b"", b"\x1b[2Jgone\r\n\x9b1mx\ttab\n\xff\n", LABELS)
    assert "\x1b" not in found
    assert "\r" not in found
    assert "+\\x1b[2Jgone\\r\n" in found
    assert "x\ttab\n" in found


def test_a_form_feed_does_not_end_a_line() -> None:
    assert diffs.unified("/etc/x", b"a\x0cb\n", b"a\x0cc\n", LABELS).endswith("-a\\x0cb\n+a\\x0cc\n")


def test_an_entry_is_shown_without_its_contents() -> None:
    shown = diffs.shown(entry(before=b"a\n", after=f"{SECRET}\n".encode()), LABELS)
    assert set(shown) == {"path", "secret", "was", "now", "state", "diff"}
    assert shown["state"] == "changed"
    assert "+********\n" in shown["diff"]


def test_a_new_and_a_removed_file_have_their_contents_in_the_diff() -> None:
    new = diffs.shown(entry(state="new", was="absent", after=b"a\n"), LABELS)
    assert (new["state"], new["diff"]) == ("new", "--- /dev/null\n+++ /etc/x (now)\n@@ -0,0 +1 @@\n+a\n")
    assert diffs.line(new) == "new      /etc/x"
    removed = diffs.shown(entry(state="removed", now="absent", before=b"a\n"), LABELS)
    assert (removed["state"], removed["diff"].splitlines()[-1]) == ("removed", "-a")


def test_a_file_deleted_by_hand_is_a_line_without_a_diff() -> None:
    shown = diffs.shown(entry(state="missing", now="absent", before=b"a\n"), LABELS)
    assert (diffs.line(shown), shown["diff"]) == ("missing  /etc/x", "")


def test_a_change_of_mode_is_a_line() -> None:
    shown = diffs.shown(entry(state="mode", before=b"a\n", after=b"a\n", now="0600 root:root"), LABELS)
    assert (diffs.line(shown), shown["diff"]) == ("mode     /etc/x  0644 root:root → 0600 root:root", "")


def test_a_secret_file_is_named_and_not_shown() -> None:
    for more in ({}, {"before": b"one\n", "after": b"two\n"}):  # even if a machine sent it
        shown = diffs.shown(entry(secret=True, **more), LABELS)
        assert shown["diff"] == ""
        assert diffs.line(shown) == "changed  /etc/x  (its content is secret and not shown)"
    mode = diffs.shown(entry(secret=True, state="mode", now="0644 root:daemon"), LABELS)
    assert diffs.line(mode) == "mode     /etc/x  0644 root:root → 0644 root:daemon"


def test_a_file_that_became_a_link_is_a_line() -> None:
    shown = diffs.shown(entry(state="edited", before=b"a\n", now="a link to /tmp/x"), LABELS)
    assert (diffs.line(shown), shown["diff"]) == ("edited   /etc/x  0644 root:root → a link to /tmp/x", "")


def test_hand_edits_are_told_where_the_progress_is(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    diffs.show_edits("mail", Report("mail", stream), [entry(state="edited", before=b"a\n", after=b"b\n")])
    said = stream.getvalue()
    assert said.splitlines()[:3] == [
        "mail    somebody has changed files on this machine:",
        "mail  edited   /etc/x",
        "",
    ]
    assert "--- /etc/x (as mailops wrote it)\n+++ /etc/x (now)\n" in said
    assert capsys.readouterr() == ("", "")
