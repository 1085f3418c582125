"""What a line of Postfix says of a message: from whom, to whom, what became of it (in 3.7 and 3.10 alike)."""

from __future__ import annotations

import re
from typing import NamedTuple

# A queue ID as it stands before what is said of it: the short form, or that of `enable_long_queue_ids`.
LINE = re.compile(r"([0-9A-F]{6,}|[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-z]{10,}|NOQUEUE): (.*)", re.DOTALL)
NONE = "NOQUEUE"
CLIENT = re.compile(r"client=([^,]+)(?:.*, sasl_username=([^,]+))?")
LOCAL = re.compile(r"uid=(\d+) from=<(.*)>")
TAKEN = re.compile(r"from=<(.*)>, size=(\d+), nrcpt=\d+")
DELIVERY = re.compile(
    r"to=<(.*?)>, (?:orig_to=<(.*?)>, )?relay=([^,]+), .*?\bdsn=[\d.]+, status=(\w+)(?: \((.*)\))?$", re.DOTALL
)
REFUSAL = re.compile(
    r"(?:milter-)?reject: (?:header .*|body .*|\S+) from (?P<host>\S+?\[[^\]]*\])(?P<said>.*)", re.DOTALL
)
ENVELOPE = re.compile(r"; from=<(.*?)>(?: to=<(.*?)>)? proto=")
LOGIN = re.compile(r" sasl_username=(\S+)")
QUEUED = re.compile(r"queued as (\w+)")
NOTICE = re.compile(r"(?:sender|postmaster) (?:non-delivery|delivery status) notification: (\w+)")
# How a message came, by the syslog name of who took it (master.cf).
DOORS = {
    "postfix/smtpd": "port 25",
    "postfix/submission/smtpd": "port 587",
    "postfix/submissions/smtpd": "port 465",
    "postfix/resend/smtpd": "a user's sieve script",
    "postfix/forward/smtpd": "an alias that leads to another server",
}
LONG = 1000  # characters of what another server says


class Client(NamedTuple):
    door: str
    host: str
    login: str


class MessageId(NamedTuple):
    text: str


class Taken(NamedTuple):
    """Into the queue; said again whenever delivery is tried."""

    sender: str
    size: int


class Attempt(NamedTuple):
    to: str
    orig: str
    relay: str
    status: str
    text: str
    queued: str


class Refusal(NamedTuple):
    door: str
    host: str
    login: str
    sender: str
    to: str
    text: str


class Notice(NamedTuple):
    """A bounce, by its own ID."""

    name: str


class Removed(NamedTuple):
    by_hand: bool


class Hold(NamedTuple):
    held: bool


class Expired(NamedTuple):
    """It was tried long enough."""


Said = Client | MessageId | Taken | Attempt | Refusal | Notice | Removed | Hold | Expired


def said(program: str, text: str) -> Said | None:
    """What the part of a line after the queue ID means; None for what tells nothing of the message's way."""
    if found := CLIENT.match(text):
        return Client(DOORS.get(program, program.removeprefix("postfix/")), found[1], found[2] or "")
    if found := LOCAL.match(text):
        return Client(f"a program here (uid {found[1]})", "", "")
    if text.startswith("message-id="):
        return MessageId(text.partition("=")[2])
    if found := TAKEN.match(text):
        return Taken(found[1], int(found[2]))
    return _way(program, text) or _end(program, text)


def _way(program: str, text: str) -> Said | None:
    if found := DELIVERY.match(text):
        to, orig, relay, status, reason = found.groups(default="")
        queued = QUEUED.search(reason)
        return Attempt(to, orig, relay, status, reason[:LONG], queued[1] if queued else "")
    if found := REFUSAL.match(text):
        return _refusal(DOORS.get(program, ""), found["host"], found["said"])
    if found := NOTICE.match(text):
        return Notice(found[1])
    return None


def _end(program: str, text: str) -> Said | None:
    if text.startswith("removed"):
        return Removed(program == "postfix/postsuper")
    if program == "postfix/postsuper" and text in ("placed on hold", "released from hold"):
        return Hold(text == "placed on hold")
    return Expired() if text.endswith("status=expired, returned to sender") else None


def _refusal(door: str, host: str, text: str) -> Refusal:
    """The answer comes before the envelope, or for a header at the line's end."""
    envelope = ENVELOPE.search(text)
    login = LOGIN.search(text)
    answer = text[: envelope.start()] if envelope else text
    answer = answer.removeprefix(": ") or text.rpartition(": ")[2]
    sender, to = envelope.groups(default="") if envelope else ("", "")
    return Refusal(door, host, login[1] if login else "", sender, to, answer[:LONG])
