"""SQLite's bad days."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mailops.remote.accounts import database
from mailops.remote.accounts import mailcfg as accounts
from mailops.remote.accounts import rows as account_rows
from mailops.remote.accounts.commands import Place
from tests.unit.remote.accounts.pretend import OTHER, hashing, refused, rows

pytestmark = pytest.mark.usefixtures("me", "doveadm")


def test_two_admins_at_once(place: Place) -> None:
    """Each writer waits for the other; nothing is lost and nothing is there twice."""

    def add(number: int) -> None:
        for name in (f"u{number}", "both"):
            accounts.execute(accounts.parse(["adduser", f"{name}@example.test"]), place, lambda email: OTHER)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rows(place, "SELECT count(*) FROM users") == [(3 + 8 + 1,)]


def test_a_writer_that_does_not_let_go(
    place: Place, mailcfg: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY", 0.1)
    holder = sqlite3.connect(place.database, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    assert "in use" in refused(mailcfg, "adddom", "third.test", code=5).message
    holder.close()


def test_a_password_that_is_being_typed_keeps_nobody_waiting(place: Place) -> None:
    def ask(email: str) -> str:
        accounts.execute(accounts.parse(["adddom", "third.test"]), place, ask)
        return OTHER

    accounts.execute(accounts.parse(["adduser", "a@example.test"]), place, ask)
    assert rows(place, "SELECT count(*) FROM domains") == [(3,)]


def test_a_damaged_database_is_said_so(place: Place, mailcfg: Callable[..., list[str]]) -> None:
    Path(place.database).write_bytes(b"this is no database" * 100)
    assert "damaged" in refused(mailcfg, "lsuser").message


CRASH = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA cache_size=1")
db.execute("PRAGMA cache_spill=1")
db.execute("BEGIN IMMEDIATE")
db.execute("DELETE FROM users")
db.executemany("INSERT INTO aliases(src, dst) VALUES (?, ?)", ((f"{n}" * 90, "x") for n in range(5000)))
print("now", flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_hot_journal_is_rolled_back_by_the_next_one(place: Place) -> None:
    subprocess.run([sys.executable, "-c", CRASH, place.database], check=False, stdout=subprocess.DEVNULL)
    assert os.path.exists(place.database + "-journal"), "the crash left a journal"
    database.recover(place.database)
    assert not os.path.exists(place.database + "-journal")
    assert rows(place, "SELECT count(*) FROM users") == [(3,)]
    assert rows(place, "PRAGMA integrity_check") == [("ok",)]


def test_creation_killed_at_any_time_never_shows_a_half_filled_database(wanted: dict[str, Any]) -> None:
    script = (
        "import sys, json; from mailops.remote.accounts import rows, database;"
        "database.OWNER, database.GROUP = sys.argv[2:4];"
        "database.create(sys.argv[1], lambda db: [rows._fill(db, json.loads(sys.argv[4]), {}),"
        "                                         print('now', flush=True), sys.stdin.read()])"
    )
    names = [wanted["database"], database.OWNER, database.GROUP, json.dumps(wanted)]
    with subprocess.Popen(
        [sys.executable, "-c", script, *names], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"now\n"
        process.kill()
    assert not os.path.exists(wanted["database"])
    started = time.monotonic()
    account_rows.converge(wanted, hashing())
    assert time.monotonic() - started < 2
