"""Messages of odd kinds, as the field sends them: name -> what stands between MAIL FROM and the end of the data.

Each is made for one sender and one recipient, and carries its token in the body, where nothing rewrites it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

Make = Callable[[str, str, str], bytes]  # From, To, token
HEAD = "From: {sender}\nTo: {to}\nSubject: odd\nDate: Fri, 27 Nov 2026 11:00:00 +0000\nMessage-ID: <{token}@odd.test>\n"
MIME = "MIME-Version: 1.0\n"


def head(
    *, without: str = "", more: str | bytes = "", body: str | bytes = "Hello.\n", subject: str | bytes = "odd"
) -> Make:
    """A message with the usual headers but those in `without`, and with `more` of them."""

    def make(sender: str, to: str, token: str) -> bytes:
        lines = HEAD.format(sender=sender, to=to, token=token).encode().splitlines(keepends=True)
        kept = [line for line in lines if line.split(b":")[0].decode() not in without.split()]
        text = b"".join(kept).replace(b"Subject: odd", b"Subject: " + _bytes(subject))
        return text + _bytes(more) + b"\n" + _bytes(body) + f"\n{token}\n".encode()

    return make


def parts(kind: str, *inner: str, end: bool = True) -> Make:
    """A multipart message; the last part has the token."""
    body = "".join(f"--edge\n{part}\n" for part in inner)
    tail = "--edge\nContent-Type: text/plain\n\n"
    more = f"{MIME}Content-Type: multipart/{kind}; boundary=edge\n"

    def make(sender: str, to: str, token: str) -> bytes:
        text = head(more=more, body=body + tail)(sender, to, token)
        return text + (b"--edge--\n" if end else b"")

    return make


def nested(levels: int) -> Make:
    """Multiparts in multiparts."""
    text = "".join(
        f"Content-Type: multipart/mixed; boundary=e{level}\n\n--e{level}\n" for level in range(levels)
    )  # the first of them is the message's own header

    def make(sender: str, to: str, token: str) -> bytes:
        first, _, rest = text.partition("\n")
        return head(more=f"{MIME}{first}\n", body=f"{rest.lstrip()}Content-Type: text/plain\n")(sender, to, token)

    return make


def encoded(content_type: str, data: bytes, encoding: str = "base64") -> Make:
    """One part that no text is in, and one with the token."""
    body = base64.encodebytes(data).decode() if encoding == "base64" else data.decode("latin-1")
    return parts("mixed", f"Content-Type: {content_type}\nContent-Transfer-Encoding: {encoding}\n\n{body}")


def raw(text: str) -> Make:
    return lambda sender, to, token: text.format(sender=sender, to=to, token=token).encode()


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


TEXT_8BIT = MIME + "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n"
KINDS: dict[str, Make] = {
    "plain": head(),
    # Bytes that are no ASCII
    "UTF-8 in the subject": head(subject="Grüße"),
    "Latin-1 in the subject": head(subject="Grüße".encode("latin-1")),
    "UTF-8 in a display name": lambda sender, to, token: head(without="From", more=f"From: Jürgen <{sender}>\n")(
        sender, to, token
    ),
    "UTF-8 in another header": head(more="X-Ort: Köln\n"),
    "UTF-8 in a name of a file": parts("mixed", 'Content-Type: text/plain; name="Köln.txt"\n\nx'),
    "8-bit body": head(more=TEXT_8BIT, body="Grüße\n"),
    "8-bit body without MIME": head(body="Grüße\n"),
    "Latin-1 body": head(more=TEXT_8BIT.replace("utf-8", "iso-8859-1"), body="Grüße\n".encode("latin-1")),
    "bytes of no charset": head(more=TEXT_8BIT, body=bytes(range(128, 256)) + b"\n"),
    "8-bit part of a 7-bit whole": parts("mixed", "Content-Type: text/plain\n\nGrüße"),
    "RFC 2047 words": head(subject="=?utf-8?q?Gr=C3=BC=C3=9Fe?= =?utf-8?b?8J+Yig==?="),
    "broken RFC 2047 words": head(subject="=?utf-8?q?=C3=?= =?nosuch?x?y?= =?"),
    "emoji": head(subject="👩‍👩‍👧", body="👩‍👩‍👧\n"),
    "byte order mark": head(body="\ufeffHello.\n"),
    # What is missing
    "no date": head(without="Date"),
    "no message id": head(without="Message-ID"),
    "no date, no message id": head(without="Date Message-ID"),
    "no to": head(without="To"),
    "no subject": head(without="Subject"),
    "no from": head(without="From"),
    "no header": raw("\n{token}\n"),
    "body alone": raw("{token}\n"),
    "no empty line": raw("From: {sender}\nTo: {to}\nX-Token: {token}\n"),
    "empty subject": head(subject=""),
    # What is long
    "line of 2,000": head(body="x" * 2000 + "\n"),
    "line of 100,000": head(body="x" * 100_000 + "\n"),
    "8-bit line of 3,000": head(more=TEXT_8BIT, body="ü" * 1500 + "\n"),
    "header of 30 KB, folded": head(more="X-Long: a\n" + " bcdefghij\n" * 3000),
    "header of 50 KB on a line": head(more="X-Long: " + "a" * 50_000 + "\n"),
    "subject of 3,000": head(subject="s" * 3000),
    "1,000 headers": head(more="".join(f"X-H{n}: {n}\n" for n in range(1000))),
    "300 to": head(more="Cc: " + ",\n ".join(f"u{n}@elsewhere.test" for n in range(300)) + "\n"),
    "30 received": head(more="Received: from a by b; Fri, 27 Nov 2026 11:00:00 +0000\n" * 30),
    "60 received": head(more="Received: from a by b; Fri, 27 Nov 2026 11:00:00 +0000\n" * 60),
    "1 MB": head(body=("x" * 70 + "\n") * 15_000),
    "20,000 lines": head(body="x\n" * 20_000),
    # Structures
    "alternative": parts("alternative", "Content-Type: text/plain\n\nx", "Content-Type: text/html\n\n<p>x"),
    "200 parts": parts("mixed", *["Content-Type: text/plain\n\nx"] * 200),
    "30 levels": nested(30),
    "message in a message": parts("mixed", "Content-Type: message/rfc822\n\nFrom: a@b.test\nSubject: inner\n\nx"),
    "20 messages in messages": head(more=MIME + "Content-Type: message/rfc822\n\n" * 20 + "Subject: core\n"),
    "no closing edge": parts("mixed", "Content-Type: text/plain\n\nx", end=False),
    "no boundary": head(more=MIME + "Content-Type: multipart/mixed\n"),
    "broken content type": head(more=MIME + "Content-Type: ;;;=\n"),
    "two content types": head(more=MIME + "Content-Type: text/plain\nContent-Type: text/html\n"),
    "broken base64": encoded("application/pdf", b"=" * 500 + b"%%%"),
    "broken quoted-printable": encoded("text/plain", b"=ZZ=\n==3\n", "quoted-printable"),
    "html": head(more=MIME + "Content-Type: text/html\n", body="<html><p>Hello.<p>\n"),
    "calendar": encoded("text/calendar; method=REQUEST", b"BEGIN:VCALENDAR\nEND:VCALENDAR\n"),
    "tnef": encoded("application/ms-tnef", b"\x78\x9f\x3e\x22" + bytes(60)),
    "delivery report": parts("report; report-type=delivery-status", "Content-Type: message/delivery-status\n\nx: y"),
    # Lines that mean something to programs
    "a dot on a line": head(body=".\n..\n.x\n"),
    "From at the start of a line": head(body="From here on\n>From there\n"),
    "mbox line first": lambda sender, to, token: b"From me Fri Nov 27 11:00:00 2026\n" + head()(sender, to, token),
    "form feeds and tabs": head(body="\f\t\v\n"),
    "escape sequences": head(subject="\x1b]0;x\x07", body="\x1b[2J\n"),
    "header without a name": head(more=": x\n"),
    "header with a space before its colon": head(more="X-Odd : x\n"),
    "white space at the ends": head(more="X-Odd:   x   \n", body="x   \n\n\n"),
    "two subjects": head(more="Subject: again\n"),
    # Headers that mean something to us
    "X-Spam of a stranger": head(more="X-Spam: Yes\nx-spam: yes\n"),
    "Delivered-To": lambda sender, to, token: head(more=f"Delivered-To: {to}\n")(sender, to, token),
    "Return-Path and Bcc": lambda sender, to, token: head(more=f"Return-Path: <>\nBcc: {to}\n")(sender, to, token),
    "Resent": lambda sender, to, token: head(more=f"Resent-From: {sender}\nResent-To: {to}\n")(sender, to, token),
    "list": head(more="List-Id: <l.elsewhere.test>\nPrecedence: list\n"),
    "automatic": head(more="Auto-Submitted: auto-generated\nX-Auto-Response-Suppress: All\n"),
    "receipt asked for": lambda sender, to, token: head(more=f"Disposition-Notification-To: {sender}\n")(
        sender, to, token
    ),
    "broken signature": head(more="DKIM-Signature: v=1; a=rsa-sha256; d=elsewhere.test; s=x; h=from; bh=x; b=x\n"),
}
