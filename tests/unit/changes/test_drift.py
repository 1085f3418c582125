"""fab drift as a person and a script meet it, with agents on paper."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mailops.changes import drift
from mailops.errors import DIFFERENT, UNREACHABLE, MailopsError
from tests.unit import pretend

CLEAN: dict[str, Any] = {"files": [], "unpushed": [], "generation": 4, "locked": False}
EDITED = pretend.entry("/etc/a", "one\n", "two\n", state="edited", now="0600 root:root")
MISSING = pretend.entry("/etc/b", "one\n", None, state="missing", now="absent")
MODE = pretend.entry("/etc/c", "one\n", "one\n", state="mode", now="0600 root:root")
HIDDEN = pretend.entry("/etc/d", None, None, state="edited", secret=True)


def test_no_drift_is_code_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drift.show(pretend.site(monkeypatch, tmp_path, lambda *_: CLEAN))
    assert capsys.readouterr().out.splitlines() == [
        "mail  every file is as mailops wrote it",
        "backup  every file is as mailops wrote it",
    ]


def test_each_kind_of_drift_is_a_line_and_contents_are_diffs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = CLEAN | {"files": [EDITED, MISSING, MODE, HIDDEN]}
    with pytest.raises(MailopsError, match="4 files differ from what mailops wrote") as caught:
        drift.show(pretend.site(monkeypatch, tmp_path, lambda *_: found, "mail"))
    assert caught.value.code == DIFFERENT
    assert "drop it: fab -H mail push --overwrite" in caught.value.hint
    assert "[override]" in caught.value.hint
    assert capsys.readouterr().out.splitlines() == [
        "mail  edited   /etc/a  0644 root:root → 0600 root:root",
        "mail  missing  /etc/b",
        "mail  mode     /etc/c  0644 root:root → 0600 root:root",
        "mail  edited   /etc/d  (its content is secret and not shown)",
        "",
        "--- /etc/a (as mailops wrote it)",
        "+++ /etc/a (now)",
        "@@ -1 +1 @@",
        "-one",
        "+two",
    ]


def test_every_machine_is_looked_at_before_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    c = pretend.site(monkeypatch, tmp_path, lambda host, *_: CLEAN | {"files": [EDITED] * (host == "mail")})
    with pytest.raises(MailopsError, match="1 file differs") as caught:
        drift.show(c)
    assert "-H mail push" in caught.value.hint
    assert "backup  every file is" in capsys.readouterr().out


def test_a_machine_that_cannot_be_asked_has_the_last_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = MailopsError("backup: no connection", code=UNREACHABLE)
    c = pretend.site(monkeypatch, tmp_path, lambda host, *_: CLEAN | {"files": [EDITED]} if host == "mail" else gone)
    with pytest.raises(MailopsError) as caught:
        drift.show(c)
    assert caught.value.code == UNREACHABLE
    said = capsys.readouterr()
    assert "mail  edited   /etc/a" in said.out
    assert "backup  ✗ backup: no connection" in said.err


def test_local_additions_that_wait_are_told_and_are_no_drift(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = CLEAN | {"unpushed": ["/etc/mailops/local/postfix/main.cf"]}
    drift.show(pretend.site(monkeypatch, tmp_path, lambda *_: found, "mail"))
    assert capsys.readouterr().out.splitlines()[1] == (
        "mail  /etc/mailops/local/postfix/main.cf was changed and is not in use yet; next: fab -H mail push"
    )


def test_json_has_diffs_and_no_contents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MailopsError):
        drift.show(pretend.site(monkeypatch, tmp_path, lambda *_: CLEAN | {"files": [EDITED, HIDDEN]}, "mail"), True)
    found = json.loads(capsys.readouterr().out)["mail"]
    assert (found["unpushed"], found["generation"]) == ([], 4)
    assert [(file["state"], bool(file["diff"])) for file in found["files"]] == [("edited", True), ("edited", False)]
    assert not any({"before", "after"} & set(file) for file in found["files"])
