"""What is found wrong with what a mail server needs on its disk and around it."""

from __future__ import annotations

import os
import pwd
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mailops.remote.accounts import senders
from mailops.remote.health import disks, mailboxes, resolver
from mailops.remote.health import look as health
from mailops.remote.services import queue, relay, srs
from mailops.remote.shared.errors import AgentError
from mailops.remote.system import access

ME = pwd.getpwuid(os.getuid()).pw_name
FOLDERS = ("", "/Maildir", "/Maildir/cur", "/Maildir/new", "/Maildir/tmp", "/Maildir/.Junk")


@pytest.fixture
def wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A vault that is well, on a machine where everything belongs to whoever runs the tests."""
    for module in (mailboxes, senders, srs):
        monkeypatch.setattr(module, "OWNER", ME)
    monkeypatch.setattr(senders, "GROUP", ME)
    monkeypatch.setattr(srs, "GROUP", ME)
    vault = tmp_path / "vault"
    for folder in ("db", "senders", "srs", *(f"mail/example.test/a{name}" for name in FOLDERS)):
        (vault / folder).mkdir(parents=True, exist_ok=True)
    path = vault / "db/mail.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE domains(name TEXT)")
        db.execute("CREATE TABLE aliases(src TEXT, dst TEXT)")
        db.execute("CREATE TABLE users(email TEXT)")
        db.executemany("INSERT INTO users VALUES (?)", [(f"{number}@example.test",) for number in range(2000)])
        db.execute("INSERT INTO users VALUES ('a@example.test')")
        (vault / "senders/table").write_bytes(senders.table(db))
    (vault / "srs/secret").write_bytes(b"x" * 32)
    place = {"mountpoint": str(vault), "cipherdir": str(tmp_path), "directories": []}
    return {"vault": place, "accounts": {"database": str(path)}, "dkim": None, "files": [], "certificates": []}


def seen(wanted: dict[str, Any]) -> dict[str, str]:
    """By those of the looks that need nothing of a real machine."""
    names = ("accounts", "mailboxes", "senders", "SRS", "DKIM", "folders", "certificate")
    return {name: said for name in names if (said := health._said(health.MAILHOST[name], wanted).words)}


def test_all_is_well(wanted: dict[str, Any]) -> None:
    assert seen(wanted) == {}


@pytest.mark.parametrize("at", [0, 8192])
def test_a_damaged_database_is_told_once(wanted: dict[str, Any], at: int) -> None:
    with open(wanted["accounts"]["database"], "r+b") as file:
        file.seek(at)
        file.write(b"\xff" * 4096)
    assert "damaged" in seen(wanted)["accounts"]


def test_a_missing_database_is_told(wanted: dict[str, Any]) -> None:
    os.unlink(wanted["accounts"]["database"])
    assert list(seen(wanted)) == ["accounts"]
    assert "there is no mail database" in seen(wanted)["accounts"]


@pytest.mark.parametrize("what", ["", "/Maildir/new", "/Maildir/.Junk", "/Maildir/dovecot-uidlist", "/.."])
def test_a_mailbox_that_cannot_be_written_is_told_and_mended(wanted: dict[str, Any], what: str) -> None:
    path = Path(f"{wanted['vault']['mountpoint']}/mail/example.test/a{what}")
    if path.suffix or not path.exists():
        path.write_text("x")
    path.chmod(0)
    assert seen(wanted)["mailboxes"].startswith("no mail can be stored for ")
    assert "a@example.test" in mailboxes._barred(wanted)
    mailboxes.converge(wanted)
    assert seen(wanted) == {}
    assert mailboxes.converge(wanted) == []


def test_many_mailboxes_are_counted(wanted: dict[str, Any]) -> None:
    Path(wanted["vault"]["mountpoint"], "mail").chmod(0o500)
    assert " and 1998 more, and it waits; next: fab -H NAME bootstrap" in seen(wanted)["mailboxes"]


def test_a_table_of_senders_that_is_away_or_old_is_told(wanted: dict[str, Any]) -> None:
    table = Path(wanted["vault"]["mountpoint"], "senders/table")
    table.write_text("user\tgone@example.test\n")
    assert "does not say what the accounts do" in seen(wanted)["senders"]
    table.unlink()
    assert "senders/table is not there" in seen(wanted)["senders"]


def test_a_secret_that_is_away_or_cut_is_told_and_only_then_made(wanted: dict[str, Any]) -> None:
    accounts, secret = wanted["accounts"]["database"], Path(wanted["vault"]["mountpoint"], "srs/secret")
    assert srs.converge(accounts) == []
    assert secret.read_bytes() == b"x" * 32
    secret.write_bytes(b"x" * 31)
    assert "secret is too short" in seen(wanted)["SRS"]
    secret.unlink()
    assert "secret is not there" in seen(wanted)["SRS"]
    assert srs.converge(accounts) == [f"secret {secret}"]
    assert seen(wanted) == {}


def test_what_cannot_be_looked_at_does_not_pass_for_well() -> None:
    def refuses(error: Exception) -> Callable[[dict[str, Any]], str]:
        def look(_: dict[str, Any]) -> str:
            raise error

        return look

    broken = health._said(refuses(OSError(5, "Input/output error", "/vault/x")), {})
    assert broken == ("/vault/x: Input/output error", False)
    assert health._said(refuses(AgentError("it is damaged", "mend it")), {}) == ("it is damaged; next: mend it", True)
    assert health._said(refuses(AgentError("come next week")), {}) == ("come next week", False)
    assert "KeyError" in health._said(refuses(KeyError("x")), {}).words


# Who may do what


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "bits", "may"),
    [
        (0o600, 7, 1, access.READ, True),
        (0o060, 7, 8, access.READ, False),  # the owner's bits count for the owner
        (0o060, 1, 8, access.WRITE, True),
        (0o060, 1, 9, access.READ, True),
        (0o006, 1, 8, access.READ, False),
        (0o006, 1, 1, access.READ | access.WRITE, True),
        (0o750, 1, 9, access.READ | access.ENTER, True),
        (0o750, 1, 1, access.ENTER, False),
    ],
)
def test_permissions_are_read_as_the_kernel_reads_them(mode: int, uid: int, gid: int, bits: int, may: bool) -> None:
    found: Any = SimpleNamespace(st_mode=mode, st_uid=uid, st_gid=gid)
    assert access.allows(found, (7, [8, 9]), bits) is may
    assert access.allows(found, (0, [0]), bits)


def test_an_obstacle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "folder/file"
    path.parent.mkdir()
    assert access.obstacle(ME, str(path), access.READ) == f"{path} is not there"
    path.write_text("x")
    assert access.obstacle(ME, str(path), access.READ | access.WRITE) == ""
    assert access.obstacle("nobody-here", str(path), access.READ) == "there is no user nobody-here"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can look as somebody else")
def test_a_folder_on_the_way_is_an_obstacle(tmp_path: Path) -> None:
    for parent in [*tmp_path.parents][:-2]:
        parent.chmod(0o755)
    tmp_path.chmod(0o700)
    path = tmp_path / "file"
    path.write_text("x")
    path.chmod(0o644)
    assert f"nobody may not use {tmp_path} (0700 root:root)" == access.obstacle("nobody", str(path), access.READ)


# Disks


def space(free: int = 1 << 30, files: int = 1000, left: int = 1000, flag: int = 0) -> SimpleNamespace:
    return SimpleNamespace(f_bavail=free, f_frsize=1, f_files=files, f_favail=left, f_flag=flag)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (space(), ""),
        (space(10 << 20), "has 10 MiB left"),
        (space(left=3), "has room for 3 more files"),
        (space(files=0, left=0), ""),  # a file system that does not count them
        (space(flag=os.ST_RDONLY), "is mounted read-only"),
    ],
)
def test_a_disk_is_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: SimpleNamespace, words: str
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: state)
    monkeypatch.setattr(disks, "OTHERS", (str(tmp_path), "/nothere"))
    vault = {"mountpoint": str(tmp_path), "cipherdir": str(tmp_path)}
    said = disks.fault(vault, str(tmp_path))
    assert (said.count(words), said.startswith(str(tmp_path))) == (1, True) if words else said == ""
    assert bool(disks.fault(None, str(tmp_path))) == bool(words)


# Names


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], str]]:
    """Makes a name server that answers everything with one code; the address it has."""
    sockets = []

    def make(code: int) -> str:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        sockets.append(sock)
        monkeypatch.setattr(resolver, "PORT", sock.getsockname()[1])

        def serve() -> None:
            while True:
                try:
                    asked, whence = sock.recvfrom(512)
                except OSError:
                    return
                sock.sendto(asked[:2] + bytes([0x81, 0x80 | code]) + asked[4:], whence)

        threading.Thread(target=serve, daemon=True).start()
        return "127.0.0.1"

    yield make
    for sock in sockets:
        sock.close()


@pytest.mark.parametrize(("code", "good"), [(0, True), (3, True), (2, False), (5, False)])
def test_a_name_server_counts_that_looks_names_up(
    server: Callable[[int], str], monkeypatch: pytest.MonkeyPatch, code: int, good: bool
) -> None:
    monkeypatch.setattr(resolver, "PATIENCE", 0.3)
    assert resolver.answering([server(code)], "mail.example.test") is good


def test_one_server_of_several_is_enough(server: Callable[[int], str]) -> None:
    assert resolver.answering(["::1", "not-an-address", server(0)], "mail.example.test")


def test_a_resolv_conf_that_is_away_or_names_nobody_who_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Callable[[int], str]
) -> None:
    path, copy = tmp_path / "resolv.conf", tmp_path / "copy"
    monkeypatch.setattr(resolver, "RESOLV", str(path))
    monkeypatch.setattr(resolver, "PATIENCE", 0.3)
    address = server(0)
    path.write_text(f"# ours\nsearch x.test\nnameserver {address}\n")
    assert resolver.fault("mail.example.test", str(copy)) == ""
    copy.write_text("nameserver ::1\n")  # what Postfix lives by in its chroot
    assert "systemctl start mailops-resolver.service" in resolver.fault("mail.example.test", str(copy))
    path.write_text("nameserver ::1\n")
    assert f"::1 of {path} does not answer" in resolver.fault("mail.example.test", str(copy))
    monkeypatch.setattr(resolver, "PORT", 1)
    path.unlink()
    assert f"{path} is not there" in resolver.fault("mail.example.test", str(copy))


# Mail that waits


def test_mail_that_waits_for_a_mailbox_here_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "QUEUE", str(tmp_path))
    (tmp_path / "deferred/A").mkdir(parents=True)
    reason = "host mail.example.test[private/dovecot-lmtp] said: 451 4.2.0 Internal error"
    kept = [
        {"arrival_time": 10, "recipients": [{"address": "a@example.test", "delay_reason": reason}]},
        {"arrival_time": 990, "recipients": [{"address": "b@example.test", "delay_reason": reason}]},
        {"arrival_time": 10, "recipients": [{"address": "x@elsewhere.test", "delay_reason": "connect: timed out"}]},
        {"arrival_time": 10, "recipients": [{"address": "y@elsewhere.test"}]},
    ]
    monkeypatch.setattr(queue, "messages", lambda: kept)
    assert queue.left(1000.0, 300.0) == ""
    (tmp_path / "deferred/A/A1").write_text("x")
    assert queue.left(1000.0, 300.0) == f"1 wait for a mailbox here: {reason}"


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (
            b"[mail.example.test]:587 relay@example.test:a:b c\n",
            ("mail.example.test", 587, "relay@example.test", "a:b c"),
        ),
        (b"", ("", 0, "", "")),
        (b"rubbish", ("", 0, "", "")),
    ],
)
def test_a_null_clients_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: bytes, found: Any) -> None:
    (tmp_path / "sasl_passwd").write_bytes(line)
    monkeypatch.setattr(relay, "LOGIN", str(tmp_path / "sasl_passwd"))
    assert relay._login() == found


def test_mail_that_waits_long_for_the_mailhost_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "is_waiting", lambda: True)
    now = time.time()
    fresh = {"arrival_time": now - 10, "recipients": [{"address": "a@example.test", "delay_reason": "not yet"}]}
    old = {"arrival_time": now - 400, "recipients": [{"address": "a@example.test", "delay_reason": "refused"}]}
    for kept, said in (([fresh], ""), ([old, fresh], "1 wait for it (refused); next: fab status")):
        monkeypatch.setattr(relay, "messages", lambda kept=kept: kept)
        assert relay._waits() == said
