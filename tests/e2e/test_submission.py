"""A user's mail client on 587 and 465: TLS, a login, and one's own addresses."""

from __future__ import annotations

import base64
import smtplib
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.house import House, token, unverified

ADMIN, USER1, USER2, RELAY = "admin@example.test", "user1@example.test", "user2@second.test", "relay@example.test"


@contextmanager
def logged_in(house: House, user: str) -> Iterator[smtplib.SMTP]:
    with house.submission() as client:
        client.login(user, house.password(user))
        yield client


def reply_to_sender(house: House, user: str, sender: str) -> int:
    """The code with which the server takes (250) or refuses `sender` of a logged-in user."""
    with logged_in(house, user) as client:
        code, _ = client.mail(sender)
        return code if code != 250 else client.rcpt(USER2)[0]


def implicit_tls(house: House) -> smtplib.SMTP_SSL:
    return smtplib.SMTP_SSL(house.address("mail"), 465, "laptop.test", timeout=30, context=unverified())


def test_587_takes_no_password_and_no_mail_without_tls(up: House) -> None:
    with up.submission(tls=False) as client:
        assert client.has_extn("starttls")
        assert not client.has_extn("auth")
        assert client.docmd("AUTH", "PLAIN AGEAYg==")[0] == 530
        assert client.mail(USER1)[0] == 530


def test_587_takes_mail_with_tls_and_login(up: House) -> None:
    subject = up.submit(USER1, USER2)
    received = up.arrives(USER2, subject).get_all("Received", [])
    assert any("with ESMTPSA" in line for line in received)  # RFC 3848: S for TLS, A for login
    told = " ".join(received).lower()
    for private in ("laptop", "10.213.", "authenticated sender"):
        assert private not in told


def test_465_is_tls_from_the_first_byte(up: House) -> None:
    subject = token()
    with implicit_tls(up) as client:
        client.ehlo()
        assert not client.has_extn("starttls")
        assert client.mail(USER1)[0] == 250
        assert client.rcpt(USER2)[0] >= 500, "not before the login"
        client.rset()
        client.login(USER1, up.password(USER1))
        client.sendmail(USER1, [USER2], f"From: {USER1}\r\nTo: {USER2}\r\nSubject: {subject}\r\n\r\nHello.\r\n")
    up.arrives(USER2, subject)


def test_465_says_nothing_in_clear(up: House) -> None:
    with socket.create_connection((up.address("mail"), 465), 30) as line:
        line.sendall(b"EHLO laptop.test\r\n")
        try:
            said = line.makefile("rb").read()
        except ConnectionResetError:
            said = b""
    assert b"220" not in said, "a TLS alert at most"
    assert b"250" not in said


@pytest.mark.parametrize("port", [465, 993])
def test_the_certificate_is_the_one_of_the_name_that_clients_use(up: House, port: int) -> None:
    context = ssl.create_default_context(cadata=up.run("mail", "cat /etc/mailops/tls/fullchain.pem"))
    with socket.create_connection((up.address("mail"), port), 30) as line:
        context.wrap_socket(line, server_hostname="mail.example.test").close()
    with socket.create_connection((up.address("mail"), port), 30) as line, pytest.raises(ssl.CertificateError):
        context.wrap_socket(line, server_hostname="imap.example.test")


def reply_to_login(house: House, user: str, password: str) -> int:
    """The code for one attempt; smtplib's own login() makes two when the first fails."""
    with house.submission() as client:
        return client.docmd("AUTH PLAIN", base64.b64encode(f"\0{user}\0{password}".encode()).decode())[0]


def test_a_wrong_password_does_not_log_in(up: House) -> None:
    for user, password in ((USER1, up.password(USER2)), ("' OR 1=1 --", "x")):
        assert reply_to_login(up, user, password) == 535, user
        # It was the password; and Dovecot makes an address that fails wait ever longer, until it succeeds.
        assert reply_to_login(up, USER1, up.password(USER1)) == 235


def test_without_login_nothing_is_taken_not_even_for_our_own_users(up: House) -> None:
    for to in (USER1, "stranger@elsewhere.test"):
        with up.submission() as client:
            client.mail("stranger@elsewhere.test")
            assert client.rcpt(to)[0] in (530, 554), to


@pytest.mark.parametrize(
    ("user", "sender"),
    [
        (USER1, ADMIN),
        (USER1, USER2),
        (USER1, "postmaster@example.test"),
        (USER1, "nobody@example.test"),
        (USER1, "user1@second.test"),
        (USER1, "stranger@elsewhere.test"),
        (USER1, "root@backup.example.test"),
        (USER2, "sales@example.test"),
        (RELAY, USER1),
    ],
)
def test_a_sender_address_that_is_not_the_users_own_is_refused(up: House, user: str, sender: str) -> None:
    assert reply_to_sender(up, user, sender) == 553


@pytest.mark.parametrize(
    ("user", "sender"),
    [
        (USER1, USER1),
        (USER1, "User1@Example.test"),
        (USER1, "user1+shop@example.test"),
        (USER1, "sales@example.test"),
        (USER1, "both@second.test"),
        (USER2, "both@second.test"),
        (ADMIN, "postmaster@second.test"),
        (RELAY, "root@backup.example.test"),
    ],
)
def test_a_user_may_send_as_their_addresses_aliases_and_details(up: House, user: str, sender: str) -> None:
    assert reply_to_sender(up, user, sender) == 250


def test_the_login_name_may_be_in_capitals(up: House) -> None:
    with up.submission() as client:
        assert client.login("User1@Example.TEST", up.password(USER1))[0] == 235


def test_a_users_mail_reaches_the_outside_world(up: House) -> None:
    subject = up.submit(USER1, "stranger@elsewhere.test")
    raw = up.stranger_reads(subject)
    assert f"Return-Path: <{USER1}>".encode() in raw
    assert b"Received: from mail.example.test" in raw
