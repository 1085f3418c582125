"""fab history as a person meets it, with agents on paper."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mailops.changes import history
from mailops.errors import BAD_INPUT, MailopsError
from tests.unit import pretend

RUN: dict[str, Any] = {
    "when": 1_790_000_000,
    "who": "ann@laptop",
    "from": "192.0.2.7",
    "task": "push",
    "revision": "a1b2c3d",
    "generation": 7,
    "changed": {"files": ["/etc/a"], "services": ["reload postfix.service"]},
    "seconds": 1.25,
    "outcome": "done",
    "why": "",
}


def test_a_run_is_a_line_with_who_what_and_how_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        RUN,
        RUN | {"changed": {"packages": 31, "files": ["a", "b", "c"]}, "task": "bootstrap"},
        RUN | {"changed": {"files": ["/etc/a"]}, "outcome": "rolled back", "why": "no answer from postfix.service"},
        RUN | {"changed": {}, "outcome": "refused", "why": "postconf: unused parameter: x", "revision": ""},
        RUN | {"changed": {"agent": ["agent /usr/x.pyz"], "users": ["user vmail"], "certificates": ["c"]}},
        {key: RUN[key] for key in RUN if key != "seconds"} | {"outcome": "undone", "why": "it was interrupted"},
    ]
    history.show(pretend.site(monkeypatch, tmp_path, lambda *_: {"entries": runs}, "mail"), "20")
    head, columns, *rows = capsys.readouterr().out.splitlines()
    assert head == "mail  the last runs that changed something, or tried to"
    assert columns.split() == ["WHEN", "WHO", "FROM", "TASK", "REVISION", "SECONDS", "OUTCOME", "CHANGED"]
    assert re.match(r"  2026-09-\d\d \d\d:\d\d  ann@laptop  192.0.2.7  push       a1b2c3d   1.[23] +done  ", rows[0])
    assert rows[0].endswith("done         files /etc/a; services reload postfix.service")
    assert rows[1].endswith("done         packages 31; files 3 changes")
    assert rows[2].endswith("rolled back  files /etc/a; no answer from postfix.service")
    assert rows[3].endswith("refused      postconf: unused parameter: x")
    assert rows[4].endswith("done         agent /usr/x.pyz; user vmail; certificates c")
    assert rows[5].endswith("it was interrupted")


def test_the_count_goes_to_every_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def agent(host: str, name: str, args: dict[str, Any], _: Any) -> Any:
        asked.append((host, name, args))
        return {"entries": []}

    history.show(pretend.site(monkeypatch, tmp_path, agent), "5")
    assert asked == [("mail", "history", {"count": 5}), ("backup", "history", {"count": 5})]
    assert capsys.readouterr().out == "mail  no run is recorded yet\nbackup  no run is recorded yet\n"


@pytest.mark.parametrize("count", ["all", "0", "-3", ""])
def test_a_count_is_a_number(count: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MailopsError) as caught:
        history.show(pretend.site(monkeypatch, tmp_path, lambda *_: {"entries": []}), count)
    assert caught.value.code == BAD_INPUT


def test_json_is_what_the_machine_has_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    history.show(pretend.site(monkeypatch, tmp_path, lambda *_: {"entries": [RUN]}, "mail"), "20", True)
    assert json.loads(capsys.readouterr().out) == {"mail": {"entries": [RUN]}}
