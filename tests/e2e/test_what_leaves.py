"""What is signed is what leaves: the receiver's server, dkimpy and the lab's DNS are the judges."""

from __future__ import annotations

from collections.abc import Iterator
from email import message_from_bytes, policy

import pytest

from tests.e2e.house import House, token, until
from tests.e2e.test_dkim import NOW, publish, signature, signed_by, unpublish, verifies

USER1, STRANGER = "user1@example.test", "stranger@elsewhere.test"


@pytest.fixture
def published(up: House) -> Iterator[House]:
    publish(up, NOW)
    yield up
    unpublish(up, NOW)


@pytest.fixture
def no_8bit(published: House) -> Iterator[House]:
    """The stranger's server does not offer 8BITMIME."""
    published.run("outside", "postconf -e smtpd_discard_ehlo_keywords=8bitmime; postfix reload")
    yield published
    published.run("outside", "postconf -X smtpd_discard_ehlo_keywords; postfix reload")


def submit(house: House, raw: bytes, to: str = STRANGER) -> None:
    """As a program does that knows no MIME: these very bytes."""
    with house.submission() as client:
        client.login(USER1, house.password(USER1))
        client.sendmail(USER1, [to], raw)


def head(subject: str, *more: str) -> bytes:
    lines = [f"From: {USER1}", f"To: {STRANGER}", f"Subject: {subject}", "Date: Fri, 27 Nov 2026 11:00:00 +0000"]
    return "\r\n".join([*lines, f"Message-ID: <{token()}@x.test>", *more, "", ""]).encode()


MIME = ("MIME-Version: 1.0", "Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: 8bit")
ODD = {
    "8-bit": (MIME, "Grüße aus Köln\r\n".encode()),
    "8-bit without a word of MIME": ((), "Grüße aus Köln\r\n".encode()),
    "8-bit in a header": (("X-Greeting: Grüße",), b"Hello.\r\n"),
    "8-bit in a part": (
        ("MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=b"),
        ("--b\r\n" + "\r\n".join(MIME[1:]) + "\r\n\r\nGrüße\r\n--b--\r\n").encode(),
    ),
    "a long line": ((), b"word " * 2000 + b"\r\n"),
    "a long line without spaces": ((), b"x" * 5000 + b"\r\n"),
    "a long header": (("X-Long: " + "y" * 3000,), b"Hello.\r\n"),
    "white space at the ends": ((), b"Hello. \t \r\n\r\n \r\n\r\n\r\n"),
    "odd folds": (("X-Fold: a\r\n \t  b\r\n\tc  ", "Cc:\r\n other@elsewhere.test"), b"Hello.\r\n"),
    "lines with dots": ((), b".\x20\r\n..\r\n.hidden\r\n"),
    "no line end": ((), b"Hello."),
    "no body": ((), b""),
}


def test_every_signature_survives_a_server_without_8bitmime(no_8bit: House) -> None:
    subjects = {}
    for odd, (more, body) in ODD.items():
        subjects[odd] = token()
        submit(no_8bit, head(subjects[odd], *more) + body)
    raws = {odd: no_8bit.stranger_reads(subject) for odd, subject in subjects.items()}
    assert [odd for odd, raw in raws.items() if not verifies(no_8bit, raw)] == []
    assert "Grüße aus Köln" in message_from_bytes(raws["8-bit"], policy=policy.default).get_content()


@pytest.mark.parametrize("start", [f"From: {USER1}\r\nTo: {STRANGER}\r\n", f"From: {USER1}\r\n", ""])
def test_what_is_missing_is_added_before_the_signature(published: House, start: str) -> None:
    """RFC 6409, 8.2 and 8.3. A receiver that adds them by itself would break nothing: they are signed as absent."""
    subject = token()
    submit(published, f"{start}Subject: {subject}\r\n\r\nscan\r\n".encode())
    raw = published.stranger_reads(subject)
    message = message_from_bytes(raw)
    assert len(message.get_all("Date", [])) == len(message.get_all("Message-ID", [])) == 1
    assert {"from", "date", "message-id"} <= set(signature(raw)["h"].split(":"))
    assert verifies(published, raw)
    assert signed_by(raw)[0] == "example.test"


def test_our_own_word_that_mail_did_not_arrive_is_signed(published: House) -> None:
    """From MAILER-DAEMON of the server's own name, which the domain's policy holds for as well (sp=reject)."""
    subject = token()
    submit(published, head(subject) + b"Hello.\r\n", "ghost@elsewhere.test")

    def bounce() -> bytes:
        with published.imap(USER1) as client:
            client.select(readonly=True)
            numbers = client.search(None, "TEXT", f'"{subject}"', "FROM", '"MAILER-DAEMON"')[1][0].split()
            return client.fetch(numbers[0], "(BODY.PEEK[])")[1][0][1] if numbers else b""  # type: ignore[index,return-value]

    raw = until(bounce, 60, "the bounce")
    assert "mail.example.test" in message_from_bytes(raw)["From"]
    assert signed_by(raw)[0] == "example.test"
    assert verifies(published, raw)
