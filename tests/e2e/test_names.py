"""Names of oneself, raw 8-bit headers, bounces that bounce: nothing that a site's own machine sent is lost."""

from __future__ import annotations

import email
import email.utils
import os
import smtplib
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.house import House, token, until

ADMIN = "admin@example.test"

# Hands messages to a loopback's port 25: lines of sender, recipient, subject on stdin.
SEND = textwrap.dedent(
    """
    import smtplib, sys
    for line in sys.stdin:
        sender, to, subject = line.split()
        with smtplib.SMTP("127.0.0.1", 25, timeout=30) as smtp:
            smtp.sendmail(sender, [to], f"From: {sender}\\r\\nTo: {to}\\r\\nSubject: {subject}\\r\\n\\r\\nHello.\\r\\n")
    """
)


def _all_arrive(up: House, subjects: dict[str, str], sender: str) -> None:
    """Each of them, by its subject, in the administrator's mailbox."""

    def missing() -> list[str]:
        up.run(sender, "postqueue -f")
        with up.imap(ADMIN) as client:
            client.select("INBOX", readonly=True)
            return [what for subject, what in subjects.items() if client.search(None, "SUBJECT", subject)[1] == [b""]]

    try:
        until(lambda: not missing(), 60, "mail for the machine's own names")
    except AssertionError as late:
        raise AssertionError(f"{late}: {missing()}") from None


@pytest.mark.parametrize("name", ["mail", "backup", "web"])
def test_every_name_of_a_machine_is_the_administrators(up: House, name: str) -> None:
    fqdn = f"{name}.example.test"
    own = ["localhost", "localhost.localdomain", name, f"{name}.local", fqdn, fqdn.upper(), "[127.0.0.1]"]
    mails = [(f"root@{one}", f"root@{fqdn}") for one in own] + [(f"root@{fqdn}", f"www-data@{one}") for one in own]
    by_program = {token(): pair for pair in mails}
    script = "".join(
        f"printf 'Subject: {subject}\\n\\nHello.\\n' | sendmail -f '{sender}' '{to}'\n"
        for subject, (sender, to) in by_program.items()
    )
    up.run(name, script)
    by_smtp = {token(): pair for pair in mails}
    lines = "".join(f"{sender} {to} {subject}\n" for subject, (sender, to) in by_smtp.items())
    up.run(name, f"python3 -c '{SEND}'", stdin=lines)
    told = {subject: f"sendmail {pair}" for subject, pair in by_program.items()}
    _all_arrive(up, told | {subject: f"SMTP {pair}" for subject, pair in by_smtp.items()}, name)


def test_a_program_of_a_null_client_may_call_itself_what_it_likes(up: House) -> None:
    subject = token()
    text = f"From: Shop <shop@foreign.invalid>\nReply-To: buyer@elsewhere.test\nSubject: {subject}\n\nHello.\n"
    up.run("web", "sendmail -f shop@foreign.invalid user1@example.test stranger@elsewhere.test", stdin=text)
    message = up.arrives("user1@example.test", subject, sender="web")
    assert dict(message.raw_items())["From"] == "Shop <shop@web.example.test> (shop at foreign.invalid)"
    assert message["Reply-To"] == "buyer@elsewhere.test"
    assert message["Return-Path"] == "<shop@web.example.test>"
    assert b"Return-Path: <shop@web.example.test>" in up.stranger_reads(subject)


OURS = {
    "Shop <noreply@example.test>": "Shop <noreply@web.example.test> (noreply at example.test)",
    "<admin@example.test>": "<admin@web.example.test> (admin at example.test)",
    "shop@second.test": '"shop at second.test" <shop@web.example.test>',
    "shop@mail.example.test (Shop)": '"shop at mail.example.test" <shop@web.example.test> (Shop)',
    "shop@localhost (admin@example.test)": "shop@web.example.test",
    '"noreply@example.test" <noreply@example.test>': '"noreply at example.test" <noreply@web.example.test>',
    '"Shop <admin@example.test>" <root@localhost>': '"Shop <admin at example.test>" <root@web.example.test>',
    "root@web.example.test (admin@example.test)": "root@web.example.test",
    "Shop @ Home <root@web.example.test>": "Shop @ Home <root@web.example.test>",
    "=?utf-8?q?admin=40example.test?= <shop@foreign.invalid>": "<shop@web.example.test>",
    "=?utf-8?b?YWRtaW5AZXhhbXBsZS50ZXN0?= <root@web.example.test>": "<root@web.example.test>",
    "=?utf-8?b?IGFkbWluQGV4YW1wbGUudGVzdA==?= <root@localhost>": "<root@web.example.test>",
    "=?utf-8?b?ICBhZG1pbkBleGFtcGxlLnRlc3Q=?= <root@localhost>": "<root@web.example.test>",
    "root@localhost (=?utf-8?q?admin=40example.test?=)": "root@web.example.test",
    "=?utf-8?b?SsO8cmdlbg==?= <root@web.example.test>": "=?utf-8?b?SsO8cmdlbg==?= <root@web.example.test>",
}


def test_a_program_of_a_null_client_that_writes_as_one_of_ours_is_not_refused(up: House) -> None:
    """The mailhost holds to its table whatever a header shows as an address of ours."""
    subjects = {says: token() for says in OURS}
    for says, subject in subjects.items():
        up.run("web", "sendmail stranger@elsewhere.test", stdin=f"From: {says}\nSubject: {subject}\n\nHello.\n")
    raws = {says: up.stranger_reads(subject) for says, subject in subjects.items()}
    assert {says: email.message_from_bytes(raw)["From"].strip() for says, raw in raws.items()} == OURS


def test_what_a_machine_says_is_not_taken_for_spam(up: House) -> None:
    """However odd: there is nobody else to read it."""
    subjects = {token(): head for head in ("Resent-From: boss@foreign.invalid", "Resent-Sender: root")}
    for subject, head in subjects.items():
        up.run("web", f"sendmail {ADMIN}", stdin=f"{head}\nSubject: {subject}\n\nHello.\n")
    _all_arrive(up, subjects, "web")


@pytest.mark.parametrize(
    ("says", "goes_as"),
    [
        ("shop@foreign.invalid", "shop@mail.example.test"),
        ("+x@foreign.invalid", "root@mail.example.test"),
        ("info@second.test", "info@second.test"),
        ("root@backup.example.test", "root@backup.example.test"),
    ],
)
def test_bounces_to_a_program_of_the_mailhost_stay_here(up: House, says: str, goes_as: str) -> None:
    subject = token()
    up.run("mail", f"sendmail -f '{says}' stranger@elsewhere.test", stdin=f"Subject: {subject}\n\nHello.\n")
    assert f"Return-Path: <{goes_as}>".encode() in up.stranger_reads(subject)


def test_a_bounce_to_a_program_of_a_null_client_is_read(up: House) -> None:
    """Of the three that could be asked to take it, no account www-data has a mailbox."""
    nobody = f"{token()}@elsewhere.test"
    up.run("web", f"sendmail -f www-data@web.local {nobody}", stdin="Subject: lost\n\nHello.\n")
    _all_arrive_text(up, nobody)
    remote = up.swaks("--from", "<>", "--to", "www-data@web.example.test", "--quit-after", "RCPT")
    assert remote.returncode == 0, remote.stdout
    subject = token()  # of another server, which has taken the message before it could not deliver it
    text = f"From: MAILER-DAEMON@mx.elsewhere.test\nSubject: {subject}\n\nNo such user.\n"
    up.run("outside", "sendmail -f '<>' www-data@web.example.test", stdin=text)
    up.arrives(ADMIN, subject, sender="outside")
    stranger = up.swaks("--to", "www-data@web.example.test", "--quit-after", "RCPT")
    assert "550 5.1.1" in stranger.stdout


def test_a_bounce_that_bounces_is_the_administrators(up: House) -> None:
    for name in ("mail", "backup"):
        nobody = f"{token()}@example.test"
        up.run(name, f"sendmail -f nobody-{nobody} {nobody}", stdin="Subject: lost\n\nHello.\n")
        _all_arrive_text(up, nobody)


GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"  # refused as spam whoever sends it


@pytest.mark.parametrize("name", ["mail", "backup", "web"])
def test_what_the_filter_refuses_a_machine_comes_back_once(up: House, name: str) -> None:
    """The bounce is not refused for what it quotes, and is no mail that would bounce again and again."""
    subject = token()
    up.run(name, "sendmail stranger@elsewhere.test", stdin=f"Subject: {subject}\n\n{GTUBE}\n")
    _all_arrive_text(up, subject)
    with up.imap(ADMIN) as client:
        client.select("INBOX", readonly=True)
        (number,) = client.search(None, "TEXT", f'"{subject}"')[1][0].split()
        bounce = email.message_from_bytes(client.fetch(number, "(BODY.PEEK[])")[1][0][1])  # type: ignore[index]
    assert (bounce["Return-Path"], bounce.get_content_type()) == ("<>", "multipart/report")
    assert up.run(name, "postqueue -j") == ""


def _all_arrive_text(up: House, text: str) -> None:
    def there() -> bool:
        up.run("web", "postqueue -f")
        with up.imap(ADMIN) as client:
            client.select("INBOX", readonly=True)
            return client.search(None, "TEXT", f'"{text}"')[1] != [b""]

    until(there, 60, f"{text} in the administrator's mailbox")


@pytest.mark.parametrize("charset", ["utf-8", "latin-1"])
def test_raw_8_bit_headers_are_delivered(up: House, charset: str) -> None:
    for name in ("mail", "backup", "web"):
        subject = token()
        text = f"Subject: {subject} grüße\nTo: admin@example.test\nFrom: Jürgen <root>\n\nHello.\n".encode(charset)
        octal = "".join(f"\\{byte:03o}" for byte in text)
        up.run(name, f"printf '{octal}' | sendmail -i {ADMIN}")
        message = up.arrives(ADMIN, subject, sender=name)
        assert message["Subject"].startswith(subject)
    subject = token()
    head = f"From: stranger@elsewhere.test\nTo: {ADMIN}\nDate: {email.utils.formatdate()}\n"
    head += f"Message-ID: <{subject}@elsewhere.test>\n"
    raw = f"{head}Subject: {subject} grüße\n\nHello.\n".encode(charset)
    taken = up.swaks("--from", "stranger@elsewhere.test", "--to", ADMIN, "--data", os.fsdecode(raw))
    assert taken.returncode == 0, taken.stdout
    up.arrives(ADMIN, subject)
    subject = token()
    raw = f"From: user1@example.test\r\nTo: {ADMIN}\r\nSubject: {subject} grüße\r\n\r\nHello.\r\n".encode(charset)
    with up.submission() as client:
        assert "smtputf8" not in client.esmtp_features
        client.login("user1@example.test", up.password("user1@example.test"))
        client.sendmail("user1@example.test", [ADMIN], raw)
    up.arrives(ADMIN, subject)


def test_a_null_client_waits_for_the_mailhost_to_know_it(
    up: House, site: Callable[[Callable[[Any], None]], Path]
) -> None:
    subject = token()
    try:
        up.fab("-H", "mail", "push", site=site(lambda document: document["hosts"].pop("web")))
        up.run("web", "sendmail root", stdin=f"Subject: {subject}\n\nHello.\n")
        until(lambda: "not owned by user" in up.run("web", "postqueue -p"), 30, "the mail to wait")
        assert "does not know this machine" in up.fab("-H", "web", "status").stdout
        allowed = site(lambda document: document["hosts"]["web"].update(senders=["shop@second.test"]))
        said = up.fab("-H", "web", "bootstrap", site=allowed)
        assert "is told of web" in said.stdout + said.stderr
        up.arrives(ADMIN, subject, sender="web")
        subject = token()
        text = f"From: Shop <shop@second.test>\nSubject: {subject}\n\nHello.\n"
        up.run("web", "sendmail -f shop@second.test user1@example.test", stdin=text)
        message = up.arrives("user1@example.test", subject, sender="web")
        assert (message["From"], message["Return-Path"]) == ("Shop <shop@second.test>", "<shop@second.test>")
    finally:
        up.fab("push")


def test_a_mailhost_that_could_not_be_told_of_a_null_client_is_told_by_the_next_run(
    up: House, site: Callable[[Callable[[Any], None]], Path]
) -> None:
    allowed = site(lambda document: document["hosts"]["web"].update(senders=["shop@second.test"]))
    try:
        up.run("mail", "systemctl stop ssh.socket ssh 2>/dev/null; systemctl stop ssh")
        try:
            done = up.fab("-H", "web", "bootstrap", site=allowed, check=False)
            assert done.returncode
            assert "it is to be told of web, whose mail waits until then" in done.stderr
        finally:
            up.run("mail", "systemctl start ssh")
        said = up.fab("-H", "web", "bootstrap", site=allowed)
        assert "nothing changed" in said.stdout
        assert "is told of web" in said.stdout + said.stderr
        subject = token()
        up.run("web", "sendmail -f shop@second.test user1@example.test", stdin=f"Subject: {subject}\n\nHello.\n")
        up.arrives("user1@example.test", subject, sender="web")
        said = up.fab("-H", "web", "bootstrap", site=allowed)
        assert "is told of web" not in said.stdout + said.stderr
    finally:
        up.fab("push")


def test_addresses_in_utf_8_are_refused_while_their_sender_waits(up: House) -> None:
    with smtplib.SMTP(up.address("mail"), 25, local_hostname="mx.elsewhere.test", timeout=30) as client:
        client.ehlo()
        assert "smtputf8" not in client.esmtp_features
        client.command_encoding = "utf-8"
        assert client.docmd("MAIL", "FROM:<jürgen@elsewhere.test>")[0] == 250  # judged with the first recipient
        code, text = client.docmd("RCPT", "TO:<user1@example.test>")
        assert (code, b"xn--" in text) == (553, True)
        client.docmd("RSET")
        client.docmd("MAIL", "FROM:<stranger@elsewhere.test>")
        assert client.docmd("RCPT", "TO:<jürgen@example.test>")[0] == 553
        assert client.docmd("RCPT", "TO:<user1@müller.test>")[0] == 501  # no syntax of a domain at all
