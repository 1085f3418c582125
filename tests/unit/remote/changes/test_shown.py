"""What a run on a machine on paper shows of secret files and of people: in a plan, a report, the history."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from mailops.remote import bootstrap, machine
from mailops.remote.accounts import past
from mailops.remote.changes import drift, history
from mailops.remote.services import srs
from mailops.remote.shared.errors import REFUSED, AgentError
from mailops.remote.system.files import observe
from tests.unit.remote.changes.paper import Paper

# Secrets


def shown(files: list[dict[str, Any]]) -> str:
    return json.dumps([entry | {"before": _plain(entry["before"]), "after": _plain(entry["after"])} for entry in files])


def _plain(text: str | None) -> str:
    return base64.b64decode(text or "").decode()


def test_an_edit_that_closed_its_file_shows_in_no_plan_and_in_no_report(paper: Paper) -> None:
    paper.push(paper.file("dovecot.conf", b"a\n"))
    (paper.etc / "dovecot.conf").write_bytes(b"a\npassword = hunter2\n")
    (paper.etc / "dovecot.conf").chmod(0o600)
    planned = bootstrap.plan(paper.manifest(paper.file("dovecot.conf", b"b\n")), paper)
    assert [entry["secret"] for entry in (*planned["files"], *planned["edited"])] == [True, True]
    assert "hunter2" not in shown(planned["files"]) + shown(planned["edited"])
    paper.bad_once()
    assert "hunter2" not in paper.refused(paper.file("dovecot.conf", b"b\n"), overwrite=True).message
    assert b"hunter2" in (paper.read("dovecot.conf") or b"")


def test_a_plan_shows_nothing_of_what_was_secret_until_now(paper: Paper) -> None:
    addition = paper.root / "local"
    addition.write_bytes(b"requirepass hunter2\n")
    addition.chmod(0o600)
    redis = paper.file("redis.conf", b"base\n", local=str(addition))
    login = paper.file("login", b"relay:hunter2\n", 0o600, secret=True)
    paper.push(redis, login)
    addition.unlink()
    planned = bootstrap.plan(paper.manifest(redis), paper)
    assert sorted(entry["path"] for entry in planned["files"]) == [login["path"], redis["path"]]
    assert "hunter2" not in shown(planned["files"])


def test_an_edit_that_closed_its_file_to_others_is_not_shown(paper: Paper) -> None:
    paper.push(paper.file("dovecot.conf", b"a\n"))
    (paper.etc / "dovecot.conf").write_bytes(b"a\npassword = hunter2\n")
    (paper.etc / "dovecot.conf").chmod(0o600)
    (entry,) = drift.call({}, None)["files"]
    assert (entry["state"], entry["secret"], entry["after"]) == ("edited", True, None)


def test_a_refused_run_has_the_daemons_words_in_the_history() -> None:
    words = ["postfix: main.cf, line 3: missing '='"]
    assert history.reason(AgentError("refused by checks", outcome=REFUSED, more=words)).endswith(f"; {words[0]}")
    assert history.reason(AgentError("no answer", more=words)) == "no answer"
    assert len(history.reason(AgentError("no", outcome=REFUSED, more=["x" * 5000]))) <= history.REASON


def test_history_has_what_mailcfg_did_while_the_vault_is_open(
    paper: Paper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paper.push(paper.file("main.cf", b"1"))
    database, by = str(tmp_path / "mail.sqlite"), {"who": "ann on the machine", "from": "its console"}
    monkeypatch.setattr(os, "fchown", lambda *_: None)
    past.note(database, "passwd", by, ["changed the password of bob@example.test"])
    monkeypatch.setattr(machine, "manifest", lambda: {"accounts": {"database": database}, "vault": {}})
    monkeypatch.setattr(machine, "vault_is_open", lambda _: True)
    assert [entry["task"] for entry in history.call({"count": 5}, None)["entries"]] == ["push", "mailcfg passwd"]
    assert [entry["task"] for entry in history.call({"count": 1}, None)["entries"]] == ["mailcfg passwd"]
    monkeypatch.setattr(machine, "vault_is_open", lambda _: False)
    closed = history.call({"count": 5}, None)
    assert ([entry["task"] for entry in closed["entries"]], closed["unseen"]) == (["push"], True)


def test_history_names_no_mailbox(paper: Paper) -> None:
    paper.push(paper.file("main.cf", b"1"))
    paper.bad_once()
    assert "ann@example.test" in paper.refused(paper.file("main.cf", b"2")).message
    (entry,) = history.entries(1)
    assert entry["why"] == "smtp 25: 451 for …@example.test"
    assert entry["who"] == "me@here"


def test_a_clock_that_is_set_back_makes_no_run_shorter_than_nothing(
    paper: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(range(1_800_000_000, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(times)))
    paper.push(paper.file("main.cf", b"1"))
    (entry,) = history.entries(1)
    assert 0 <= entry["seconds"] < 60


def test_the_manifest_that_is_kept_names_nobody(paper: Paper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(srs, "converge", lambda *_, **__: [])
    accounts = {"database": "/vault/db/mail.sqlite", "domains": [], "users": ["ann@example.test"], "aliases": []}
    paper.push(paper.file("main.cf", b"1"), accounts=accounts)
    assert machine.manifest()["accounts"] == {"database": "/vault/db/mail.sqlite"}
    kept = [path.read_bytes() for path in (paper.root / "state").rglob("*") if path.is_file()]
    assert not [content for content in kept if b"ann@" in content]
    assert observe(str(paper.etc / "main.cf"))
