"""What converge adds to a real SQLite file, and what it leaves alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mailops.remote.accounts import (
    listed,
    senders,
)
from mailops.remote.accounts import rows as account_rows
from mailops.remote.shared.errors import AgentError
from tests.unit.remote.accounts.pretend import HASH, OTHER, SECRET, WANTED, Link, hashing, rows

pytestmark = pytest.mark.usefixtures("me", "doveadm")


def test_converge_makes_the_database_with_its_mode_schema_and_rows(wanted: dict[str, Any]) -> None:
    link = hashing()
    lines = account_rows.converge(wanted, link)
    path = wanted["database"]
    assert lines[0] == f"database {path}"
    assert "user user1@example.test" in lines
    assert "alias info@second.test -> user2@second.test" in lines
    assert link.asked == [("hashes", wanted["users"])]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
    assert sorted(os.listdir(os.path.dirname(path))) == ["listed.json", "mail.sqlite"], "nothing is left lying about"
    assert stat.S_IMODE(os.stat(f"{os.path.dirname(path)}/listed.json").st_mode) == 0o600
    assert rows(wanted, "SELECT email, password, active FROM users WHERE id = 1") == [("admin@example.test", HASH, 1)]
    assert rows(wanted, "PRAGMA journal_mode") == [("delete",)]


def test_a_second_converge_changes_and_asks_nothing(wanted: dict[str, Any]) -> None:
    account_rows.converge(wanted, hashing())
    before = Path(wanted["database"]).read_bytes()
    link = hashing()
    assert account_rows.converge(wanted, link) == []
    assert link.asked == []
    assert Path(wanted["database"]).read_bytes() == before


def test_a_lost_table_of_senders_is_told(wanted: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(senders, "ids", lambda *_: (os.getuid(), os.getgid()))
    account_rows.converge(wanted, hashing())
    table = Path(senders.path_of(wanted["database"]))
    table.parent.mkdir()
    for dry_run in (True, False):
        assert account_rows.converge(wanted, hashing(), dry_run=dry_run) == [f"table {table}"]
    assert "user\t" in table.read_text()
    assert account_rows.converge(wanted, hashing()) == []


def test_converge_never_resets_a_password_and_asks_for_the_missing_alone(wanted: dict[str, Any]) -> None:
    account_rows.converge(wanted, hashing())
    link = Link(hashes=lambda emails: dict.fromkeys(emails, OTHER))
    grown = wanted | {"users": [*wanted["users"], "new@example.test"]}
    assert account_rows.converge(grown, link) == ["user new@example.test"]
    assert link.asked == [("hashes", ["new@example.test"])]
    assert rows(wanted, "SELECT DISTINCT password FROM users WHERE email <> 'new@example.test'") == [(HASH,)]


def test_a_dry_run_says_the_same_and_touches_nothing(wanted: dict[str, Any]) -> None:
    link = Link()
    said = account_rows.converge(wanted, link, dry_run=True)
    assert os.listdir(os.path.dirname(wanted["database"])) == []
    assert said == account_rows.converge(wanted, hashing())
    os.chmod(wanted["database"], 0o666)
    before = Path(wanted["database"]).read_bytes()
    grown = wanted | {"domains": [*wanted["domains"], "third.test"]}
    lines = account_rows.converge(grown, link, dry_run=True)
    assert lines == [f"permissions of {wanted['database']}", "domain third.test"]
    assert Path(wanted["database"]).read_bytes() == before
    assert stat.S_IMODE(os.stat(wanted["database"]).st_mode) == 0o666
    account_rows.converge(grown, hashing())
    assert stat.S_IMODE(os.stat(wanted["database"]).st_mode) == 0o640


def test_nothing_is_made_below_a_vault_that_is_not_open(tmp_path: Path) -> None:
    wanted = WANTED | {"database": str(tmp_path / "vault" / "db" / "mail.sqlite")}
    with pytest.raises(AgentError, match="locked") as caught:
        account_rows.converge(wanted, hashing())
    assert caught.value.code == 5
    assert len(account_rows.converge(wanted, Link(), dry_run=True)) == 1
    assert os.listdir(tmp_path) == []


def test_an_interrupted_first_run_leaves_no_database(wanted: dict[str, Any]) -> None:
    def gone(emails: list[str]) -> dict[str, str]:
        raise AgentError("the laptop went away before it answered")

    with pytest.raises(AgentError):
        account_rows.converge(wanted, Link(hashes=gone))
    with pytest.raises(AgentError, match=r"no password hash for admin@example\.test"):
        account_rows.converge(wanted, Link(hashes=lambda emails: dict.fromkeys(emails, "{PLAIN}" + SECRET)))
    assert not os.path.exists(wanted["database"])
    for leftover in (".new", ".new-journal"):  # what kill -9 leaves
        Path(wanted["database"] + leftover).write_bytes(b"half written")
    account_rows.converge(wanted, hashing())
    assert sorted(os.listdir(os.path.dirname(wanted["database"]))) == ["listed.json", "mail.sqlite"]


def test_what_hosts_toml_lists_is_kept_in_the_vault_and_told_when_nothing_else_is(wanted: dict[str, Any]) -> None:
    account_rows.converge(wanted, hashing())
    assert account_rows.converge(wanted, hashing()) == []
    path = wanted["database"]
    assert listed.load(path).now["aliases"] == {tuple(row) for row in wanted["aliases"]}
    fewer = wanted | {"users": wanted["users"][:-1]}
    line = ["note which accounts hosts.toml lists"]
    assert account_rows.converge(fewer, hashing(), dry_run=True) == line
    assert listed.load(path).now["users"] == {(email,) for email in wanted["users"]}
    assert account_rows.converge(fewer, hashing()) == line
    assert listed.load(path).now["users"] == {(email,) for email in fewer["users"]}
    more = wanted | {"users": [*wanted["users"], "new@example.test"]}
    assert account_rows.converge(more, hashing()) == ["user new@example.test"]
    assert listed.load(path).now["users"] == {(email,) for email in more["users"]}


def test_converge_leaves_out_an_alias_that_would_take_a_mailbox_or_loop(
    wanted: dict[str, Any], mailcfg: Callable[..., list[str]]
) -> None:
    mailcfg("adduser", "abuse@example.test")
    mailcfg("addalias", "b@example.test", "a@example.test")
    link = hashing()
    grown = wanted | {
        "aliases": [
            ["abuse@example.test", "admin@example.test"],
            ["a@example.test", "b@example.test"],
            ["c@example.test", "admin@example.test"],
        ]
    }
    assert account_rows.converge(grown, link) == ["alias c@example.test -> admin@example.test"]
    assert len([line for line in link.said if line.startswith("left out")]) == 2
    assert "abuse@example.test is a mailbox" in link.said[0]
    assert "loop" in link.said[1]
