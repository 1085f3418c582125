"""hosts.toml and the accounts: where they agree, and what is told where they do not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from mailops.remote.accounts import (
    agree,
    listed,
)
from mailops.remote.accounts import mailcfg as accounts
from mailops.remote.accounts import rows as account_rows
from mailops.remote.accounts.commands import Place
from mailops.remote.shared.errors import AgentError
from tests.unit.remote.accounts.pretend import OTHER, hashing, refused, rows

pytestmark = pytest.mark.usefixtures("me", "doveadm")


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


def test_what_machines_and_the_administrator_depend_on_is_not_taken_away_unasked(
    wanted: dict[str, Any], place: Place
) -> None:
    admin, relay = "admin@example.test", "user1@example.test"
    account_rows.converge(wanted | {"needed": [(relay, "backup, web"), (admin, "")]}, hashing())
    needed = listed.load(wanted["database"]).needed
    careful = dataclasses.replace(place, needed=needed)

    def do(*argv: str, place: Place = careful) -> list[str]:
        return accounts.execute(accounts.parse(argv), place, lambda email: OTHER).lines

    for argv in (
        ("rmuser", relay),
        ("disable", relay),
        ("passwd", relay),
        ("rmuser", admin),
        ("rmdom", "example.test"),
    ):
        with pytest.raises(accounts.Depends, match=r"log in with: mail from there waits|gets root's mail"):
            do(*argv)
    assert do("passwd", admin)
    do("rmuser", admin, place=place)
    do("addalias", admin, "ann@elsewhere.test")
    with pytest.raises(accounts.Depends, match="gets root's mail"):  # whatever names it
        do("rmalias", "-id", "3")
    do("addalias", admin, "bob@elsewhere.test")
    assert do("rmalias", admin, "ann@elsewhere.test")[0].startswith("removed")
    assert listed.load(wanted["database"]).needed == needed


def test_nor_does_one_whom_hosts_toml_lists_since_the_last_bootstrap(
    wanted: dict[str, Any], mailcfg: Callable[..., list[str]]
) -> None:
    mailcfg("adduser", "ann@example.test")
    mailcfg("rmuser", "ann@example.test")
    mailcfg("adduser", "bob@example.test")
    mailcfg("rmuser", "bob@example.test")
    more = wanted | {"users": [*wanted["users"], "ann@example.test"]}
    account_rows.converge(more, link := hashing())
    assert link.asked == []
    assert [line.partition(",")[0] for line in link.said] == ["ann@example.test stands in hosts.toml"]
    more["users"].append("bob@example.test")  # the bootstrap has forgotten who was never listed
    assert account_rows.converge(more, hashing()) == ["user bob@example.test"]


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
