"""The table of who may write as whom, which Rspamd reads."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

import pytest

from mailops.remote.accounts import database, senders


@pytest.fixture
def accounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    me, mine = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    for module in (database, senders):
        monkeypatch.setattr(module, "OWNER", me)
        monkeypatch.setattr(module, "GROUP", mine)
    for name in ("db", "senders"):
        (tmp_path / name).mkdir()
    path = str(tmp_path / "db/mail.sqlite")
    database.create(
        path, lambda db: db.execute("INSERT INTO users(email, password) VALUES ('a@b.test', '{BLF-CRYPT}x')")
    )
    return path


def test_the_table_has_domains_mailboxes_and_aliases_and_no_password(accounts: str) -> None:
    with database.opened(accounts) as db, database.transaction(db):
        db.execute("INSERT INTO aliases(src, dst) VALUES ('c@b.test', 'a@b.test')")
        db.execute("INSERT INTO domains(name) VALUES ('b.test')")
        senders.keep(db, accounts)
    table = Path(senders.path_of(accounts))
    assert table.read_text() == "domain\tb.test\nuser\ta@b.test\nalias\tc@b.test\ta@b.test\n"
    assert table.stat().st_mode & 0o777 == 0o640


def test_a_domain_stands_there_as_people_read_it_too(accounts: str) -> None:
    with database.opened(accounts) as db, database.transaction(db):
        db.execute("INSERT INTO domains(name) VALUES ('xn--bcher-kva.test'), ('xn--99999999.test')")
        senders.keep(db, accounts)
    lines = Path(senders.path_of(accounts)).read_text().splitlines()
    assert lines[:2] == ["domain\txn--99999999.test", "domain\txn--bcher-kva.test\tbücher.test\tbu\u0308cher.test"]


def test_what_a_crash_left_stale_is_written_anew_and_what_is_right_is_left(accounts: str) -> None:
    table = Path(senders.path_of(accounts))
    table.write_text("user\told@b.test\n")
    senders.ensure(accounts)
    assert table.read_text() == "user\ta@b.test\n"
    before = table.stat().st_ino
    senders.ensure(accounts)
    assert table.stat().st_ino == before


def test_a_machine_that_has_no_place_for_it_gets_none(accounts: str) -> None:
    os.rmdir(os.path.dirname(senders.path_of(accounts)))
    senders.ensure(accounts)
    assert not os.path.exists(senders.path_of(accounts))
