"""In whose name a logged-in user may write: From and Sender are held to the table that holds MAIL FROM."""

from __future__ import annotations

import smtplib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.house import House, token, unverified

ADMIN, USER1, USER2, RELAY = "admin@example.test", "user1@example.test", "user2@second.test", "relay@example.test"
WEB = "relay-web@example.test"
TABLE = "/vault/senders/table"


def reply(house: House, login: str, headers: str, sender: str | None = None, port: int = 587) -> tuple[int, str]:
    """The server's words on a message of `login` with these headers; its envelope's sender is the login's own."""
    if port == 465:
        client: smtplib.SMTP = smtplib.SMTP_SSL(house.address("mail"), 465, "laptop.test", context=unverified())
    else:
        client = house.submission()
    with client:
        client.login(login, house.password(RELAY if login == WEB else login))
        client.mail(login if sender is None else sender)
        code, said = client.rcpt(USER2)
        if code == 250:
            code, said = client.data(f"{headers}\r\nSubject: {token()}\r\n\r\nPay now.\r\n".encode())
    return code, said.decode()


@pytest.mark.parametrize(
    ("login", "headers"),
    [
        (USER1, "From: The Boss <admin@example.test>"),
        (USER1, "From: ADMIN@Example.TEST"),
        (USER1, f"From: {USER1}, {ADMIN}"),
        (USER1, f"From: {USER1}\r\nFrom: {ADMIN}"),
        (USER1, f"From: {USER1}\r\nSender: {ADMIN}"),
        (USER1, f"From: {USER1}\r\nResent-From: {ADMIN}"),
        (USER1, f"From: all: {USER1}, {ADMIN};"),
        (USER1, f'From: "{ADMIN}" <{USER1}>'),
        (USER1, f"From: =?utf-8?q?admin=40example.test?= <{USER1}>"),
        (USER1, f'From: "admin\uff20example.test" <{USER1}>'),
        (USER1, f'From: "admin@exam\u200bple.test" <{USER1}>'),
        (USER1, "From: admin(of us)@example.test"),
        (USER1, 'From: "admin"@example.test'),
        (USER1, "From: <@elsewhere.test:admin@example.test>"),
        (USER1, "From: nobody@example.test"),
        (USER1, "From: stranger@elsewhere.test"),
        (USER1, "From: root@backup.example.test"),
        (USER1, "From: user1@sub.example.test"),
        (USER1, "From: (nobody)"),
        (USER2, "From: sales@example.test"),
        (RELAY, f"From: {ADMIN}"),
    ],
)
def test_nobody_writes_in_somebody_elses_name(up: House, login: str, headers: str) -> None:
    code, said = reply(up, login, headers)
    assert code == 554, said
    if headers in ("From: The Boss <admin@example.test>", f"From: {ADMIN}"):
        assert said == f"5.7.1 From {ADMIN} is not an address of {login}"


def test_two_addresses_of_ones_own_are_refused_and_told_why(up: House) -> None:
    """Receivers refuse more than one (RFC 7489, 6.6.1), and no signature could speak for both."""
    code, said = reply(up, USER1, f"From: {USER1}, sales@example.test\r\nSender: {USER1}")
    assert (code, said) == (554, "5.7.1 From must have one address: other servers refuse more (RFC 7489, 6.6.1)")


def test_an_empty_envelope_does_not_help_and_465_is_no_other(up: House) -> None:
    assert reply(up, RELAY, f"From: {ADMIN}", sender="")[0] >= 500
    assert reply(up, USER1, f"From: {ADMIN}", port=465)[0] == 554
    assert reply(up, RELAY, "From: MAILER-DAEMON@backup.example.test", sender="")[0] == 250


@pytest.mark.parametrize(
    ("login", "headers"),
    [
        (USER1, f"From: {USER1}"),
        (USER1, "From: One User <User1+shop@Example.test>"),
        (USER1, "From: Sales <sales@example.test>"),
        (USER1, "From: both+x@second.test\r\nSender: user1@example.test"),
        (USER1, f"From: =?utf-8?q?J=C3=BCrgen?= <{USER1}>"),
        (ADMIN, "From: postmaster@second.test"),
        (RELAY, "From: Cron Daemon <root@backup.example.test>"),
    ],
)
def test_a_user_writes_as_their_addresses_aliases_and_details(up: House, login: str, headers: str) -> None:
    code, said = reply(up, login, headers)
    assert code == 250, said


def test_a_change_counts_at_once_and_without_the_table_one_is_told_to_wait(up: House) -> None:
    assert up.run("mail", f"stat -c '%a %U %G' {TABLE}") == "640 root _rspamd\n"
    assert "$2" not in up.run("mail", f"cat {TABLE}")
    boss = "From: boss@example.test"
    up.run("mail", f"mailcfg addalias boss@example.test {USER1}")
    try:
        assert reply(up, USER1, boss)[0] == 250
    finally:
        up.run("mail", "mailcfg rmalias boss@example.test")
    assert reply(up, USER1, boss)[0] == 554
    up.run("mail", f"mv {TABLE} {TABLE}.away")
    try:
        assert reply(up, USER1, boss)[0] == 451
        assert reply(up, USER1, f"From: {USER1}")[0] == 250
    finally:
        up.run("mail", f"mv {TABLE}.away {TABLE}")


@pytest.fixture
def apart(up: House, site: Callable[[Callable[[Any], None]], Path]) -> Iterator[House]:
    """The machine `web` logs in with an account of its own; its password is the other one's."""

    def edit(document: Any) -> None:
        relay = next(user for user in document["mail_users"] if user["email"] == RELAY)
        document["mail_users"].append({"email": WEB, "pw": dict(relay["pw"])})
        document["hosts"]["web"]["override"] = {"relay_email": WEB}

    try:
        up.fab("-H", "mail", "bootstrap", site=site(edit))
        yield up
    finally:
        up.fab("-H", "mail", "push")
        up.run("mail", f"mailcfg --yes rmuser {WEB}", check=False)


def test_machines_with_an_account_each_do_not_write_as_each_other(apart: House) -> None:
    """Whoever has broken into one says to the mailhost what they like."""
    backup, web = "root@backup.example.test", "root@web.example.test"
    for login, own, other in ((WEB, web, backup), (RELAY, backup, web)):
        for port in (587, 465):

            def say(headers: str, sender: str, login: str = login, port: int = port) -> int:
                return reply(apart, login, headers, sender, port)[0]

            assert say(f"From: {own}", own) == 250
            assert say(f"From: {own}", other) == 553
            assert say(f"From: {other}", own) == say(f"From: {other}", "") == 554
            assert say(f"From: {own}\r\nSender: {other}", own) == 554
            assert say(f'From: "{other}" <{own}>', own) == 554
