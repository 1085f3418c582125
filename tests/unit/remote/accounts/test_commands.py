"""mailcfg on a real SQLite file: what each command does, refuses and says."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mailops import accounts as laptop
from mailops.errors import MailopsError
from mailops.remote.accounts import (
    commands,
    past,
)
from mailops.remote.accounts import mailcfg as accounts
from mailops.remote.accounts import rows as account_rows
from mailops.remote.accounts.commands import Place
from mailops.remote.shared import mailcfg as grammar
from mailops.remote.shared.errors import AgentError
from tests.unit.remote.accounts.pretend import HASH, OTHER, SECRET, hashing, refused, rows

pytestmark = pytest.mark.usefixtures("me", "doveadm")


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


# What is refused before anything is opened

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


# The history


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
