"""Messages that are hard to take apart, and their like: small ones, and ones as large as may be sent."""

from __future__ import annotations

import base64
from collections.abc import Callable

HEAD = "From: a@nowhere.test\r\nTo: user1@example.test\r\nSubject: {}\r\nMIME-Version: 1.0\r\n"
MIXED = "Content-Type: multipart/mixed; boundary=b\r\n\r\n"


def _message(subject: str, headers_and_body: str) -> bytes:
    return (HEAD.format(subject) + headers_and_body).encode()


def _nested(kind: str, end: str = "\r\n", count: int = 20000) -> str:
    return f"Content-Type: {kind}{end}{end}" * count + "Subject: core\r\n\r\nhello\r\n"


LINKS = f"<a href='http://x.example.com/'>link{'y' * 90}\r\n" * 2000

# Refused for good: no program sends them.
ABSURD: dict[str, str] = {
    "messages in messages": _nested("message/rfc822"),
    "of a type cut short": _nested("MESSAGE"),
    "behind a false border": "Content-Type: message/rfc822\r\n\r\n" + _nested("message/rfc822\r\n\r\n--b"),
    "a little deeper and 20 MB large": _nested("message/rfc822", count=90) + "word and another word\r\n" * 900_000,
    "parts": MIXED + "--b\r\nContent-Type: text/plain\r\n\r\nx\r\n" * 10000 + "--b--\r\n",
    "parts without headers": MIXED + "--b\r\n\r\nx\r\n" * 100_000 + "--b--\r\n",
    "messages side by side": MIXED + "--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\nx\r\n" * 10000,
    "encoded messages in messages": "Content-Type: message/rfc822\r\nContent-Transfer-Encoding:"
    " quoted-printable\r\n\r\n" + "=43ontent-Type: message/rfc822=0D=0A=\r\n=0D=0A=\r\n" * 15_000,
    "the same in base64": "Content-Transfer-Encoding: BASE64\r\nContent-Type: message/rfc822\r\n\r\n"
    + base64.encodebytes(_nested("message/rfc822", count=15_000).encode()).decode().replace("\n", "\r\n"),
    "behind many blanks": ("--x: y\r\nContent-Type:" + "\r\n  " * 75 + "message/rfc822\r\n\r\n") * 990
    + "word\r\n" * 100_000,
    "the same header in a message": "Content-Type: message/rfc822\r\n\r\nSubject: x\r\n" + "X-H: v\r\n" * 500_000,
    "headers in a part": MIXED + "--b\r\n" + "".join(f"X-H{n}: v\r\n" for n in range(300_000)) + "\r\nx\r\n--b--\r\n",
    "links in links": f"Content-Type: text/html\r\n\r\n{LINKS}",
    "the same behind comments": "Content-Type: text/html\r\n\r\n" + LINKS.replace("link", "<!--</a>-->"),
    "the same encoded": "Content-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    + base64.encodebytes(LINKS.encode("utf-16-le")).decode().replace("\n", "\r\n"),
    "headers in many parts": MIXED + ("--b\r\n" + "".join(f"X-H{n}: v\r\n" for n in range(15_000)) + "\r\nx\r\n") * 60,
    "headers behind a border in pieces": "Content-Type: multipart/mixed; boundary*0=ab; boundary*1=cd\r\n\r\n--abcd\r\n"
    + "X-H: v\r\n" * 100_000
    + "\r\nx\r\n--abcd--\r\n",
    "headers": "".join(f"X-H{number}: v\r\n" for number in range(10000)) + "\r\nx\r\n",
    "the same header": "X-H: v\r\n" * 10000 + "\r\nx\r\n",
}
# Delivered, or refused for what they say: much, but a scanner's daily work.
HARD: dict[str, str] = {
    "between bare carriage returns": "Content-Type: message/rfc822\r\n\r\n" + _nested("message/rfc822", "\r"),
    "a signature with 4 KB for a hash": "DKIM-Signature: v=1; a=ed25519-sha256; d=elsewhere.test; s=s; h=from:to;"
    f" bh={'A' * 4096}; b={'A' * 86}==\r\n\r\nx\r\n",
    "multiparts in multiparts": "Content-Type: multipart/mixed; boundary=b0\r\n\r\n"
    + "".join(f"--b{n}\r\nContent-Type: multipart/mixed; boundary=b{n + 1}\r\n\r\n" for n in range(90)),
    "a giant header": "X-Big: " + ("a" * 70 + "\r\n ") * 100_000 + "b\r\n\r\nx\r\n",
    "a giant line": "\r\n" + "a" * 20_000_000 + "\r\n",
    "giant HTML": "Content-Type: text/html\r\n\r\n" + "<div><a href='http://x.example.com/y'>t\r\n" * 500_000,
    "links": "\r\n" + "".join(f"http://h{n}.example{n}.com/\r\n" for n in range(500_000)),
    "recipients": "Cc: " + ",\r\n ".join(f"u{n}@h{n}.test" for n in range(10000)) + "\r\n\r\nx\r\n",
    "numbers": "\r\n" + "1234 5678 9012 3456\r\n" * 220_000,
    "parts of text": MIXED + f"--b\r\nContent-Type: text/plain\r\n\r\n{'w0rd ' * 1000}\r\n" * 900 + "--b--\r\n",
    "words": "\r\n" + "word and another word, 12.5 someone@example.com\r\n" * 400_000,
}
LOG = "02:51:30 copied a file\r\nINFO: copied a file\r\n" * 15_000
# Delivered: long lists of what looks like headers.
USUAL: dict[str, str] = {
    "a log": "Content-Type: text/plain\r\n\r\n" + LOG,
    "a log behind a line of dashes": "Content-Type: text/plain\r\n\r\n-- Report\r\n" + LOG,
    "an attached log": f"{MIXED}--b\r\n\r\nHello.\r\n--b\r\nContent-Type: text/x-log\r\n\r\n{LOG}--b--\r\n",
    "a forwarded log": "Content-Type: message/rfc822\r\n\r\nSubject: x\r\nContent-Type: text/plain\r\n\r\n" + LOG,
    "styles in one line": "Content-Type: text/html\r\n\r\n" + "<p style='color:#fff;margin:1px'>x</p>" * 15_000,
}
# As large as the largest of them, and nothing to do about it.
OCTETS = (
    "Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n" + f"{'A' * 76}\r\n" * 250_000
)


def all_of(kinds: dict[str, str], subject: Callable[[], str]) -> dict[str, bytes]:
    return {name: _message(subject(), rest) for name, rest in kinds.items()}
