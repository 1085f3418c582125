"""What was there before mailops is told of, before anything is made."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from mailops.remote.changes import before, generations
from mailops.remote.services import postfix
from mailops.remote.shared.errors import AgentError
from mailops.remote.system import dpkg, shell


def md5(text: bytes) -> str:
    return hashlib.md5(text, usedforsecurity=False).hexdigest()


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """By command, what programs say; the machine lies below tmp_path, and is not ours yet."""
    answers: dict[str, str] = {}
    monkeypatch.setattr(shell, "answer", lambda *command: answers.get(" ".join(command), ""))
    monkeypatch.setattr(before, "MAIL", str(tmp_path / "mail"))
    monkeypatch.setattr(before, "ALIASES", str(tmp_path / "aliases"))
    monkeypatch.setattr(before, "FORWARDS", (str(tmp_path / "home/*/.forward"),))
    monkeypatch.setattr(generations, "ACTIVE", str(tmp_path / "active"))
    monkeypatch.setattr(dpkg, "STATUS", str(tmp_path / "status"))
    monkeypatch.setattr(dpkg, "UCF", str(tmp_path / "ucf"))
    (tmp_path / "mail").mkdir()
    entry = "Package: {}\nStatus: install ok installed\nVersion: 1\n\n"
    text = "".join(entry.format(name) for name in ("postfix", "dovecot-core"))
    text += f"Conffiles:\n {tmp_path}/conffile {md5(b'as it came')}\n {tmp_path}/edited {md5(b'as it came')}\n"
    (tmp_path / "status").write_text(text)
    (tmp_path / "ucf").write_text(f"{md5(b'as it came')}  {tmp_path}/by-ucf\n")
    return answers


def wanted(tmp_path: Path, **contents: str) -> dict[str, Any]:
    files = [
        {"path": str(tmp_path / name), "sha256": hashlib.sha256(text.encode()).hexdigest()}
        for name, text in contents.items()
    ]
    return {"files": files, "services": [{"unit": "dovecot.service"}, {"unit": "postfix.service"}]}


def test_files_that_somebody_has_made_are_named_with_the_place_where_they_are_kept(
    tmp_path: Path, said: dict[str, str]
) -> None:
    names = {"conffile": "as it came", "by-ucf": "as it came", "edited": "by hand", "made": "by hand", "same": "ours"}
    for name, text in names.items():
        (tmp_path / name).write_text(text)
    ours = wanted(tmp_path, **dict.fromkeys([*names, "absent"], "ours"))
    lines = before.told(ours)
    kept = f"{generations.OBJECTS}/{hashlib.sha256(b'by hand').hexdigest()}"
    assert lines[:2] == [
        f"{tmp_path}/{name} was here before: it is replaced, and kept there as {kept}" for name in ("edited", "made")
    ]
    assert "/etc/mailops/local" in lines[2]
    assert len(lines) == 3
    (tmp_path / "active").write_text("1")
    assert before.told(ours) == []


def test_mailboxes_are_named_and_left(tmp_path: Path, said: dict[str, str]) -> None:
    assert before.told(wanted(tmp_path)) == []
    (tmp_path / "mail/root").write_text("From somebody")
    (tmp_path / "mail/empty").touch()
    said["postconf -hx home_mailbox"] = "Maildir/"
    said["doveconf -n"] = "# 2.4\nmail_driver = mbox\nmail_path = /srv/mail/%{user}\nprotocols = imap"
    places = f"{tmp_path}/mail (root); ~/Maildir/ of Unix users; "
    places += "Dovecot's mail_driver = mbox, mail_path = /srv/mail/%{user}"
    (line,) = before.told(wanted(tmp_path))
    assert line.startswith(f"mail from before may be in {places}: mailops leaves it there")


def test_mail_that_waits_in_a_queue_elsewhere_is_counted(
    tmp_path: Path, said: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postfix, "QUEUE", str(tmp_path / "spool"))
    for place in ("spool/deferred/A/A1", "elsewhere/deferred/A/A1", "elsewhere/hold/B2", "elsewhere/pid/master.pid"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    said["postconf -hx multi_instance_directories"] = "/etc/postfix-out"
    said["postconf -c /etc/postfix -hx queue_directory"] = f"{tmp_path}/spool"
    said["postconf -c /etc/postfix-out -hx queue_directory"] = f"{tmp_path}/elsewhere"
    (line,) = before.told(wanted(tmp_path))
    assert line.startswith(f"2 messages wait in {tmp_path}/elsewhere, where ours does not look;")
    assert line.endswith("postqueue -c /etc/postfix-out -f")


def test_a_program_that_hangs_or_is_not_there_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs(*command: str, **_: Any) -> Any:
        raise AgentError(f"{command[0]} did not end")

    monkeypatch.setattr(shell, "run", hangs)
    assert shell.answer("doveconf", "-n") == ""


def test_who_had_mail_sent_on_is_told_that_it_ends(tmp_path: Path, said: dict[str, str]) -> None:
    (tmp_path / "aliases").write_text(
        "# Debian's own\nmailer-daemon: postmaster\npostmaster: root\nnobody: root\n\n  more\n"
        'root: boss@elsewhere.test # away\n"Shop": |/usr/bin/shop --new\nold:/var/mail/old\nlist: :include:/etc/list\n'
    )
    (tmp_path / "home/ann").mkdir(parents=True)
    (tmp_path / "home/ann/.forward").write_text("ann@elsewhere.test\n")
    (line,) = before.told(wanted(tmp_path))
    places = f"{tmp_path}/aliases (list, old, root, shop); {tmp_path}/home/ann/.forward"
    assert line.startswith(f"mail is sent on by {places}: that ends")
    (tmp_path / "active").write_text("1")
    assert before.told(wanted(tmp_path)) == []
