"""mailcfg on a real SQLite file: what each command does, refuses and says, and what converge adds."""

from __future__ import annotations

import contextlib
import dataclasses
import grp
import io
import json
import os
import pwd
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import mailops
from mailops import accounts as laptop
from mailops.errors import MailopsError
from mailops.remote import machine
from mailops.remote.accounts import (
    agree,
    commands,
    crypt,
    database,
    listed,
    past,
    senders,
    sessions,
)
from mailops.remote.accounts import (
    mailcfg as accounts,
)
from mailops.remote.accounts import (
    rows as account_rows,
)
from mailops.remote.accounts.commands import Place
from mailops.remote.shared import mailcfg as grammar
from mailops.remote.shared import passwords
from mailops.remote.shared.errors import AgentError
from mailops.remote.system import shell
from mailops.site.model import Secret, User

HASH = crypt.hash_password("initial")
OTHER = crypt.hash_password("other")
SECRET = "S3cret-pässword"
WANTED: dict[str, Any] = {
    "domains": ["example.test", "second.test"],
    "users": ["admin@example.test", "user1@example.test", "user2@second.test"],
    "aliases": [["postmaster@example.test", "admin@example.test"], ["info@second.test", "user2@second.test"]],
}


class Link:
    """A laptop that answers from a table and writes down what it was asked and told."""

    origin = "192.0.2.7"

    def __init__(self, **answers: Callable[[Any], Any]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, Any]] = []
        self.said: list[str] = []

    def ask(self, what: str, data: Any = None) -> Any:
        self.asked.append((what, data))
        return self.answers[what](data)

    def say(self, text: str) -> None:
        self.said.append(text)


def hashing() -> Link:
    return Link(hashes=lambda emails: dict.fromkeys(emails, HASH), hash=lambda email: OTHER)


@pytest.fixture(autouse=True)
def me(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database belongs to whoever runs the tests: there is no group mailauth here."""
    monkeypatch.setattr(database, "OWNER", pwd.getpwuid(os.getuid()).pw_name)
    monkeypatch.setattr(database, "GROUP", grp.getgrgid(os.getgid()).gr_name)


@pytest.fixture(autouse=True)
def doveadm(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commands that Dovecot would have got; it is down, as it may be."""
    seen: list[str] = []

    def run(*command: str, **_: Any) -> SimpleNamespace:
        seen.append(" ".join(command[1:]))
        if command[1] == "kick":
            raise AgentError("doveadm did not end within 5 s")
        return SimpleNamespace(stdout="")

    monkeypatch.setattr(shell, "run", run)
    monkeypatch.setattr(sessions, "_processes", lambda _: iter(()))  # lest a mail server here loses its connections
    return seen


@pytest.fixture
def wanted(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "db").mkdir()
    return WANTED | {"database": str(tmp_path / "db" / "mail.sqlite")}


@pytest.fixture
def place(wanted: dict[str, Any], tmp_path: Path) -> Place:
    account_rows.converge(wanted, hashing())
    return Place(
        wanted["database"],
        str(tmp_path / "mail"),
        frozenset(wanted["domains"]),
        frozenset(wanted["users"]),
        frozenset((src, dst) for src, dst in wanted["aliases"]),
    )


@pytest.fixture
def mailcfg(place: Place) -> Callable[..., list[str]]:
    """Run a command as the laptop would; a refusal comes out as AgentError."""

    def run(*argv: str) -> list[str]:
        done = accounts.execute(accounts.parse(argv), place, lambda email: OTHER)
        return [*accounts.table(done.rows or []), *done.lines]

    return run


def rows(place: Place | dict[str, Any], query: str) -> list[Any]:
    path = place["database"] if isinstance(place, dict) else place.database
    db = sqlite3.connect(path)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def refused(run: Callable[..., list[str]], *argv: str, code: int = 1) -> AgentError:
    with pytest.raises(AgentError) as caught:
        run(*argv)
    assert caught.value.code == code
    return caught.value


# --- converge --------------------------------------------------------------------------------------------


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


# --- the commands ----------------------------------------------------------------------------------------


def test_every_command_of_the_help_exists_and_no_other() -> None:
    helped = {line.split()[0] for line in grammar.HELP.splitlines() if line.startswith(" ")}
    assert helped == set(grammar.USAGE_OF) == {*commands.HANDLERS, "help"}


def test_adduser(mailcfg: Callable[..., list[str]], place: Place, doveadm: list[str]) -> None:
    assert mailcfg("adduser", "New@Example.TEST") == ["added new@example.test"]
    assert rows(place, "SELECT password, active FROM users WHERE email = 'new@example.test'") == [(OTHER, 1)]
    assert "already" in mailcfg("adduser", "new@example.test")[0]
    assert doveadm == ["auth cache flush new@example.test"] * 2
    unknown = refused(mailcfg, "adduser", "x@third.test")
    assert unknown.hint == "mailcfg adddom third.test"
    assert "+detail" in refused(mailcfg, "adduser", "new+shop@example.test").message
    assert "log in" in refused(mailcfg, "adduser", "o'hara@example.test").message


def test_adduser_of_a_name_with_a_past(mailcfg: Callable[..., list[str]], place: Place) -> None:
    Path(place.mail, "example.test", "old").mkdir(parents=True)
    assert "of an earlier time" in mailcfg("adduser", "old@example.test")[1]
    assert "instead" in mailcfg("adduser", "postmaster@example.test")[1]


def test_an_existing_user_stays_as_it_is(mailcfg: Callable[..., list[str]], place: Place) -> None:
    assert "stays as it is" in mailcfg("adduser", "user1@example.test")[0]
    assert rows(place, "SELECT password FROM users WHERE email = 'user1@example.test'") == [(HASH,)]


def test_passwd_ends_sessions(mailcfg: Callable[..., list[str]], place: Place, doveadm: list[str]) -> None:
    mailcfg("passwd", "user1@example.test")
    changed = rows(place, f"SELECT email FROM users WHERE password = '{OTHER}'")
    assert changed == [("user1@example.test",)]
    assert doveadm[:2] == ["auth cache flush user1@example.test", "kick user1@example.test"]


def test_disable_and_enable(mailcfg: Callable[..., list[str]], place: Place, doveadm: list[str]) -> None:
    assert mailcfg("disable", "user1@example.test")[0] == "disabled user1@example.test"
    assert "kick user1@example.test" in doveadm
    assert mailcfg("disable", "user1@example.test") == ["user1@example.test is disabled already"]
    assert rows(place, "SELECT active FROM users WHERE email = 'user1@example.test'") == [(0,)]
    assert "disabled" in next(line for line in mailcfg("lsuser") if "user1@" in line)
    assert mailcfg("enable", "user1@example.test") == ["enabled user1@example.test"]
    assert mailcfg("enable", "user1@example.test") == ["user1@example.test is enabled already"]


@pytest.mark.parametrize("command", ["passwd", "disable", "enable", "rmuser"])
def test_an_unknown_user_is_refused(mailcfg: Callable[..., list[str]], command: str, doveadm: list[str]) -> None:
    assert "no user nobody@example.test" in refused(mailcfg, command, "nobody@example.test").message
    assert doveadm == []


def test_rmuser_says_where_the_mail_is_and_what_points_there(
    mailcfg: Callable[..., list[str]], place: Place, doveadm: list[str]
) -> None:
    folder = Path(place.mail, "second.test", "user2")
    folder.mkdir(parents=True)
    said = mailcfg("rmuser", "user2@second.test")
    assert said[0] == "removed user2@second.test"
    assert said[1] == f"its mail stays in {folder}"
    assert "the alias info@second.test (id 2) still points there" in said[2]
    assert said[3] == "note: hosts.toml still lists it; it stays away until somebody adds it by hand"
    assert "kick user2@second.test" in doveadm


def test_addalias(mailcfg: Callable[..., list[str]]) -> None:
    argv = ("addalias", "Sales@example.test", "user1@example.test")
    assert mailcfg(*argv) == ["added sales@example.test -> user1@example.test"]
    assert "already" in mailcfg(*argv)[0]
    assert mailcfg("addalias", "sales@example.test", "someone@elsewhere.example") == [
        "added sales@example.test -> someone@elsewhere.example"
    ]
    assert "does not exist here" in mailcfg("addalias", "sales@example.test", "nobody@example.test")[1]
    assert len(mailcfg("addalias", "lists@example.test", "user1+lists@example.test")) == 1
    unknown = refused(mailcfg, "addalias", "x@third.test", "user1@example.test")
    assert unknown.hint == "mailcfg adddom third.test"


def test_addalias_refuses_loops(mailcfg: Callable[..., list[str]]) -> None:
    mailcfg("addalias", "a@example.test", "b@example.test")
    mailcfg("addalias", "b@example.test", "c@second.test")
    assert "loop" in refused(mailcfg, "addalias", "c@second.test", "a@example.test").message
    assert "loop" in refused(mailcfg, "addalias", "c@second.test", "a+x@example.test").message
    assert "itself" in refused(mailcfg, "addalias", "d@example.test", "d@example.test").message


def test_an_alias_does_not_take_a_mailbox_away_unless_a_copy_stays(mailcfg: Callable[..., list[str]]) -> None:
    argv = ("addalias", "user1@example.test", "user2@second.test")
    assert refused(mailcfg, *argv).hint.endswith("mailcfg addalias user1@example.test user1@example.test")
    mailcfg("addalias", "user1@example.test", "user1@example.test")
    assert mailcfg(*argv) == ["added user1@example.test -> user2@second.test"]
    number = next(line.split()[0] for line in mailcfg("lsalias") if line.endswith("user1@example.test"))
    assert "keeps no copy" in mailcfg("rmalias", "-id", number)[1]


def test_an_alias_for_a_whole_domain_leads_to_somebody_and_ends_what_would_bounce(
    mailcfg: Callable[..., list[str]], place: Place
) -> None:
    whole, user1, user2 = "@second.test", "user1@example.test", "user2@second.test"
    assert refused(mailcfg, "addalias", "*@second.test", user1, code=2).hint.endswith(f"write {whole}")
    assert refused(mailcfg, "addalias", whole, "ghost@second.test").hint == "mailcfg adduser ghost@second.test"
    assert mailcfg("addalias", "@Second.test", user1)[0] == f"added {whole} -> {user1}"
    assert len(mailcfg("addalias", "sales@second.test", "whoever@second.test")) == 1
    mailcfg("addalias", "away@example.test", "whoever@second.test")
    mailcfg("rmalias", whole)
    assert "loop" in refused(mailcfg, "addalias", whole, "away@example.test").message
    mailcfg("addalias", whole, user1)
    said = mailcfg("rmuser", user2)
    assert f"note: what comes for {user2} goes to {user1} from now on (alias {whole})" in said
    assert "comes there, too" in said[2]
    assert mailcfg("rmalias", "sales@second.test")[1].startswith("note: what comes for sales@second.test goes to user1")
    assert mailcfg("rmalias", whole) == [f"removed {whole} -> {user1}"]
    rows_of = sqlite3.connect(place.database)
    rows_of.execute("INSERT INTO aliases(src, dst) VALUES ('*@second.test', 'user1@example.test')")
    rows_of.commit()
    rows_of.close()
    assert mailcfg("rmalias", "*@second.test") == ["removed *@second.test -> user1@example.test"]


def test_converge_adds_an_alias_for_a_whole_domain_after_those_that_it_leads_to(wanted: dict[str, Any]) -> None:
    pairs = [["@second.test", "info@second.test"], ["info@second.test", "user2@second.test"]]
    link = hashing()
    assert "alias @second.test -> info@second.test" in account_rows.converge(wanted | {"aliases": pairs}, link)
    assert link.said == []


# --- hosts.toml and the accounts -------------------------------------------------------------------------


MOVED = ["info@second.test", "user1@example.test"]


def test_what_left_hosts_toml_is_told_until_it_goes_or_is_to_stay(
    wanted: dict[str, Any], mailcfg: Callable[..., list[str]]
) -> None:
    fewer = wanted | {
        "domains": ["example.test"],
        "users": wanted["users"][:-1],
        "aliases": [wanted["aliases"][0], MOVED],
    }
    told = [
        "second.test left hosts.toml, and its mail is still taken; next: fab domain.rm second.test",
        "user2@second.test left hosts.toml, and still has a mailbox and a login; next: fab user.rm user2@second.test",
        "the alias info@second.test -> user2@second.test left hosts.toml, and still delivers; "
        "next: fab alias.rm info@second.test user2@second.test",
    ]
    path = wanted["database"]
    assert agree.look(path, fewer)[:3] == told
    for dry_run in (True, False, True, False):
        link = hashing()
        account_rows.converge(fewer, link, dry_run)
        assert link.said == told
    assert agree.look(path, None) == told
    mailcfg("rmalias", "info@second.test", "user2@second.test")
    assert rows({"database": path}, "SELECT dst FROM aliases WHERE src = 'info@second.test'") == [(MOVED[1],)]
    assert agree.look(path, fewer) == told[:2]
    mailcfg("rmuser", "user2@second.test")
    assert mailcfg("adddom", "second.test")[1] == "it stays, although it left hosts.toml"
    assert agree.look(path, fewer) == []
    assert account_rows.converge(fewer, hashing()) == []


def test_a_leaver_does_not_come_back_with_the_first_password(
    wanted: dict[str, Any], mailcfg: Callable[..., list[str]]
) -> None:
    mailcfg("rmuser", "user1@example.test")
    mailcfg("rmalias", "info@second.test")
    told = [
        "user1@example.test stands in hosts.toml, and was removed here by hand: it stays away; "
        "next: take it out of hosts.toml, or fab user.add user1@example.test",
        "the alias info@second.test -> user2@second.test stands in hosts.toml, and was removed here by hand: it stays "
        "away; next: take it out of hosts.toml, or fab alias.add info@second.test user2@second.test",
    ]
    for _ in range(2):
        link = hashing()
        assert account_rows.converge(wanted, link) == []
        assert (link.asked, link.said) == ([], told)
    assert agree.look(wanted["database"], wanted) == told
    mailcfg("adduser", "user1@example.test")
    account_rows.converge(wanted | {"aliases": wanted["aliases"][:1]}, link := hashing())
    assert link.said == []
    assert "alias info@second.test -> user2@second.test" in account_rows.converge(wanted, hashing())


def test_many_aliases_that_left_go_at_once(wanted: dict[str, Any], place: Place) -> None:
    more = wanted | {
        "aliases": [*wanted["aliases"], *([f"a{n}@example.test", "admin@example.test"] for n in range(30))]
    }
    account_rows.converge(more, hashing())
    account_rows.converge(wanted, link := hashing())
    assert link.said[0] == "30 aliases left hosts.toml; next: fab alias.rm --left, for all of them"
    assert len(link.said) == agree.MOST + 1
    known = listed.load(wanted["database"])
    command = accounts.parse(["rmalias", "-left"])
    left = dataclasses.replace(place, left=frozenset(known.left["aliases"]))
    assert len(accounts.execute(command, left, lambda email: OTHER).lines) == 30
    assert agree.look(wanted["database"], wanted) == []
    with pytest.raises(AgentError, match="no alias has left"):
        accounts.execute(command, place, lambda email: OTHER)


def test_an_alias_to_nobody_here_is_told(wanted: dict[str, Any], mailcfg: Callable[..., list[str]]) -> None:
    path = wanted["database"]
    mailcfg("addalias", "sales@example.test", "gost@second.test")
    assert agree.look(path, wanted) == [
        "mail for sales@example.test bounces: its alias leads to gost@second.test, which does not exist here; "
        "next: fab user.add gost@second.test, or fab alias.rm sales@example.test gost@second.test"
    ]
    mailcfg("addalias", "@second.test", "user1@example.test")
    assert agree.look(path, wanted) == []


def test_what_is_not_there_yet_is_counted(wanted: dict[str, Any], place: Place) -> None:
    more = wanted | {"users": [*wanted["users"], "new@example.test"]}
    told = "hosts.toml lists 1 account that is not here yet; next: fab -H NAME bootstrap"
    assert agree.look(wanted["database"], more) == [told]


def test_rmalias(mailcfg: Callable[..., list[str]], place: Place) -> None:
    mailcfg("addalias", "all@example.test", "admin@example.test")
    mailcfg("addalias", "all@example.test", "user1@example.test")
    assert mailcfg("rmalias", "-id", "3") == ["removed all@example.test -> admin@example.test"]
    mailcfg("addalias", "all@example.test", "admin@example.test")
    assert len(mailcfg("rmalias", "all@example.test")) == 3
    assert rows(place, "SELECT count(*) FROM aliases") == [(2,)]
    assert refused(mailcfg, "rmalias", "all@example.test").hint == "mailcfg lsalias"
    assert "id 99" in refused(mailcfg, "rmalias", "-id", "99").message
    assert "stays away" in mailcfg("rmalias", "info@second.test")[1]


def test_domains(mailcfg: Callable[..., list[str]], place: Place) -> None:
    assert mailcfg("adddom", "Third.Test")[0] == "added third.test"
    assert mailcfg("adddom", "third.test") == ["third.test is there already"]
    said = mailcfg("rmdom", "second.test")
    assert said[1] == "dormant until it is added again: 1 user, 1 alias"
    assert rows(place, "SELECT count(*) FROM users") == [(3,)]
    assert "dormant" in mailcfg("lsuser", "second.test")[1]
    assert "in use again" in mailcfg("adddom", "second.test")[1]
    assert "not a domain" in refused(mailcfg, "rmdom", "fourth.test").message


def test_lists_are_aligned_tables_without_hashes(mailcfg: Callable[..., list[str]]) -> None:
    assert mailcfg("lsdom") == [
        "DOMAIN        USERS  ALIASES",
        "example.test      2        1",
        "second.test       1        1",
    ]
    assert mailcfg("lsuser", "example.test") == [
        "EMAIL               STATE   ALIASES",
        "admin@example.test  active        1",
        "user1@example.test  active        0",
    ]
    assert mailcfg("lsalias", "second.test")[1] == " 2  info@second.test  user2@second.test"
    assert "not a domain" in refused(mailcfg, "lsuser", "third.test").message
    mailcfg("adddom", "third.test")
    assert mailcfg("lsalias", "third.test") == ["no aliases"]


# --- what is refused before anything is opened -----------------------------------------------------------

BAD = [
    ("nonsense",),
    ("adduser",),
    ("adduser", "a@example.test", SECRET, SECRET),
    ("adduser", SECRET, "a@example.test"),
    ("adduser", "a@example.test", ""),
    ("passwd", "a@example.test", SECRET * 9),
    ("passwd", "a", SECRET),
    ("addalias", "a@example.test"),
    ("addalias", "a@example.test", "nowhere"),
    ("addalias", "*@example.test", "a@example.test"),
    ("addalias", "a@example.test", "@example.test"),
    ("addalias", "@localhost", "a@example.test"),
    ("addalias", "a@example.test", "b@example.test,c@example.test"),
    ("adddom", "localhost"),
    ("adddom", "-x.test"),
    ("adddom", "straße.test"),
    ("adddom", "192.0.2.1"),
    ("rmalias", "-id"),
    ("rmalias", "-id", "x"),
    ("rmalias", "-id", "1", "2"),
    ("rmalias", "a@example.test", "b@example.test", "c@example.test"),
    ("rmalias", "-left", "b@example.test"),
    ("disable", "../../etc@example.test/.."),
    ("lsdom", "example.test"),
    ("help", "me"),
]


@pytest.mark.parametrize("argv", BAD)
def test_a_wrong_command_line_is_one_clear_line_without_the_password(argv: tuple[str, ...]) -> None:
    with pytest.raises(AgentError) as caught:
        accounts.parse(argv)
    assert caught.value.code == 2
    assert "\n" not in caught.value.message
    assert SECRET not in caught.value.message + caught.value.hint
    with pytest.raises(MailopsError):
        laptop.parse(argv)


def test_a_command_never_shows_its_password() -> None:
    command = accounts.parse(["adduser", "a@example.test", SECRET])
    assert command.pw == SECRET
    assert SECRET not in repr(command)


# --- the history -----------------------------------------------------------------------------------------


def test_who_changed_whom_is_noted_in_the_vault_and_no_password(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def do(*argv: str) -> None:
        with contextlib.suppress(AgentError):
            accounts.perform(accounts.parse(argv), place, {"who": "me@here", "from": "192.0.2.7"}, lambda _: OTHER)

    monkeypatch.setattr(os, "fchown", lambda *_: None)
    do("adduser", "ann@example.test")
    do("adduser", "ann@example.test")  # changes nothing
    do("passwd", "ann@example.test")
    do("lsuser")
    do("rmuser", "ghost@example.test")
    file = Path(past.path_of(place.database))
    found = past.entries(place.database, 10)
    assert [(entry["task"], entry["outcome"], entry["why"], entry["changed"]) for entry in found] == [
        ("mailcfg adduser", "done", "", {"accounts": ["added ann@example.test"]}),
        ("mailcfg passwd", "done", "", {"accounts": ["changed the password of ann@example.test"]}),
        ("mailcfg rmuser", "refused", "there is no user ghost@example.test", {}),
    ]
    assert {(entry["who"], entry["from"]) for entry in found} == {("me@here", "192.0.2.7")}
    assert OTHER not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


# --- the machine's door ----------------------------------------------------------------------------------


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, wanted: dict[str, Any], place: Place) -> dict[str, Any]:
    """This computer as a bootstrapped machine with an open vault."""
    applied: dict[str, Any] = {"role": "mailhost", "accounts": wanted, "users": [], "open": True}
    monkeypatch.setattr(machine, "manifest", lambda: applied)
    monkeypatch.setattr(machine, "vault_is_open", lambda manifest: manifest["open"])
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return applied


def test_main_prints_and_returns_exit_codes(here: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert accounts.main([]) == 0
    assert " rmalias -id <num>" in capsys.readouterr().out
    assert accounts.main(["lsuser"]) == 0
    assert capsys.readouterr().out.startswith("EMAIL ")
    assert accounts.main(["rmuser", "nobody@example.test"]) == 1
    assert "no user nobody@example.test" in capsys.readouterr().err
    assert accounts.main(["adduser", "a@example.test", SECRET, SECRET]) == 2
    assert accounts.main(["adduser", "a@example.test", SECRET]) == 0
    assert accounts.main(["passwd", "a@example.test", SECRET + "2"]) == 0
    output = capsys.readouterr()
    assert SECRET not in output.out + output.err


def test_main_reads_one_line_when_there_is_no_terminal(
    here: dict[str, Any], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("pass word \nmore\n"))
    assert accounts.main(["adduser", "a@example.test"]) == 0
    hashed = rows(place, "SELECT password FROM users WHERE email = 'a@example.test'")[0][0]
    setting = hashed.removeprefix(passwords.SCHEME)
    assert crypt._crypt(b"pass word ", setting.encode()) == setting
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert accounts.main(["passwd", "a@example.test"]) == 2


def test_main_asks_twice_and_only_when_it_is_worth_it(
    here: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = iter(["one", "two", "three", "three"])
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(typed))
    assert accounts.main(["passwd", "nobody@example.test"]) == 1
    assert accounts.main(["adduser", "user1@example.test"]) == 0
    assert accounts.main(["adduser", "a@example.test"]) == 1
    assert "differ" in capsys.readouterr().err
    assert accounts.main(["adduser", "a@example.test"]) == 0
    assert next(typed, None) is None


def test_main_when_locked_not_set_up_or_not_root(
    here: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here["open"] = False
    assert accounts.main(["lsuser"]) == 5
    assert "mailboot" in capsys.readouterr().err
    here["open"] = True
    os.unlink(here["accounts"]["database"])
    assert accounts.main(["lsuser"]) == 1
    assert "no mail database" in capsys.readouterr().err
    assert not os.path.exists(here["accounts"]["database"])
    here["accounts"] = None
    assert accounts.main(["lsuser"]) == 1
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert accounts.main(["lsuser"]) == 1
    assert "root only" in capsys.readouterr().err
    assert accounts.main(["help"]) == 0


# --- the laptop's door -----------------------------------------------------------------------------------


class Machine:
    """ssh.machine.Machine, with the agent called directly; every byte of JSON that travels is kept."""

    def __init__(self) -> None:
        self.travelled = ""

    def call(self, name: str, args: dict[str, Any], answers: dict[str, Any]) -> dict[str, Any]:
        assert name == "mailcfg"
        link = Link(**answers)
        answer = accounts.call(json.loads(json.dumps(args)), link)
        self.travelled += json.dumps([args, link.asked, answer])
        return answer


def test_the_laptop_hashes_and_the_password_does_not_travel(
    here: dict[str, Any], place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    far: Any = Machine()
    monkeypatch.setattr(sys, "stdin", io.StringIO(SECRET + "\n"))
    laptop.mailcfg(far, laptop.parse(["adduser", "a@example.test"]))
    assert capsys.readouterr().out == "added a@example.test\n"
    assert SECRET not in far.travelled
    hashed = rows(place, "SELECT password FROM users WHERE email = 'a@example.test'")[0][0]
    setting = hashed.removeprefix(passwords.SCHEME)
    assert crypt._crypt(SECRET.encode(), setting.encode()) == setting


@pytest.mark.parametrize("command", ["adduser", "passwd"])
@pytest.mark.parametrize("words", [(SECRET,), (SECRET, "again")])
def test_the_laptop_takes_no_password_as_a_word(command: str, words: tuple[str, ...]) -> None:
    with pytest.raises(MailopsError) as caught:
        laptop.parse([command, "a@example.test", *words])
    assert caught.value.code == 2
    assert SECRET not in f"{caught.value}{caught.value.hint}"
    assert "asks for it" in caught.value.hint


def test_the_laptop_asks_only_when_the_machine_needs_it(
    here: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    far: Any = Machine()
    typed = iter([SECRET, SECRET])
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(typed))
    laptop.mailcfg(far, laptop.parse(["adduser", "user1@example.test"]))
    with pytest.raises(MailopsError) as caught:
        laptop.mailcfg(far, laptop.parse(["passwd", "nobody@example.test"]))
    assert caught.value.code == 1
    laptop.mailcfg(far, laptop.parse(["passwd", "user1@example.test"]))
    assert SECRET not in far.travelled + capsys.readouterr().out
    assert next(typed, None) is None


def test_json_has_rows_codes_and_no_hash(here: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    far: Any = Machine()
    laptop.mailcfg(far, laptop.parse(["lsuser", "second.test"]), as_json=True)
    output = capsys.readouterr().out
    assert json.loads(output)["rows"] == [{"email": "user2@second.test", "state": "active", "aliases": 1}]
    assert "$2b$" not in output
    with pytest.raises(MailopsError):
        laptop.mailcfg(far, laptop.parse(["rmdom", "fourth.test"]), as_json=True)
    assert json.loads(capsys.readouterr().out)["code"] == 1


@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        (["addalias", "a@third.test", "a@example.test"], "fab domain.add third.test"),
        (["addalias", "user1@example.test", "a@b.test"], "first: fab alias.add user1@example.test user1@example.test"),
        (["rmuser", "nobody@example.test"], "fab user.ls"),
        (["rmalias", "nobody@example.test"], "fab alias.ls"),
        (["rmdom", "third.test"], "fab domain.ls"),
    ],
)
def test_what_to_type_next_is_a_task_on_the_laptop(here: dict[str, Any], argv: list[str], hint: str) -> None:
    far: Any = Machine()
    with pytest.raises(MailopsError) as caught:
        laptop.mailcfg(far, laptop.parse(argv))
    assert caught.value.hint.endswith(hint)


def test_a_remark_names_the_task_too(here: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    far: Any = Machine()
    for end in ("a@b.test", "c@d.test"):
        laptop.mailcfg(far, laptop.parse(["addalias", "all@example.test", end]))
    laptop.mailcfg(far, laptop.parse(["rmalias", "all@example.test"]))
    assert "`fab alias.rm <num>` removes one" in capsys.readouterr().out


def test_what_comes_from_the_laptop_is_checked(here: dict[str, Any]) -> None:
    answer = accounts.call({"argv": ["adduser", "a@example.test", SECRET], "who": "me@here"}, Link())
    assert answer["code"] == 2
    assert SECRET not in json.dumps(answer)
    answer = accounts.call({"argv": ["adduser", "a@example.test"], "who": "me@here"}, Link(hash=lambda email: SECRET))
    assert answer["code"] == 1
    assert SECRET not in json.dumps(answer)
    here["open"] = False
    with pytest.raises(AgentError) as caught:
        accounts.call({"argv": ["lsdom"], "who": "me@here"}, Link())
    assert caught.value.code == 5


def test_hashes_fetches_the_wanted_secrets_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW_A", SECRET)
    users = (
        User("a@example.test", Secret("env", "PW_A", "mail_users[1].pw")),
        User("b@example.test", Secret("env", "PW_THAT_IS_NOT_SET", "mail_users[2].pw")),
    )
    site: Any = SimpleNamespace(mail_users=users)
    assert passwords.is_hash(laptop.hashes(site, ["a@example.test"])["a@example.test"])
    with pytest.raises(MailopsError, match=r"mail_users\[2\]"):
        laptop.hashes(site, ["b@example.test"])


# --- SQLite's bad days -----------------------------------------------------------------------------------


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


@pytest.mark.parametrize("pw", ["plain", "q'u\"o`t$e\\n", "Áñßü", "end-of-password", "--json", " blanks "])
def test_a_password_in_the_command_line_goes_on_whole(tmp_path: Path, pw: str) -> None:
    done = _command_line(tmp_path, pw)
    assert done.stdout == f"mailcfg passwd ann@example.test\n{pw}\n"


@pytest.mark.parametrize("pw", ["one\ntwo", "one\n", "one\r", "a\nend-of-password\nb"])
def test_a_password_that_a_pipe_would_cut_is_refused(tmp_path: Path, pw: str) -> None:
    done = _command_line(tmp_path, pw)
    assert (done.returncode, done.stdout) == (2, "")
    assert "one" not in done.stderr


def _command_line(folder: Path, pw: str) -> subprocess.CompletedProcess[str]:
    """/usr/bin/mailcfg, with an agent that shows what reaches it."""
    (folder / "agent").write_text("import sys; print(*sys.argv[1:]); print(sys.stdin.read(), end='')")
    script = Path(mailops.__file__).parent / "templates/accounts/any/usr/bin/mailcfg"
    text = script.read_text().replace("/usr/lib/mailops/agent.pyz", f"{folder}/agent")
    return subprocess.run(
        ["sh", "-c", text, "mailcfg", "passwd", "ann@example.test", pw], capture_output=True, text=True, check=False
    )
