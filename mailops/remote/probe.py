"""Questions that a working mail server answers, asked over its own ports as a client would ask them.

Each probe returns nothing, or raises ProbeFailed (or OSError) with what was wrong.
"""

from __future__ import annotations

import imaplib
import smtplib
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

from .errors import AgentError

HERE = "127.0.0.1"
PATIENCE = 5.0  # seconds for one conversation


class ProbeFailed(Exception):
    """A daemon answered, but not as it should."""


def await_all(probes: list[dict[str, Any]], seconds: float = 60.0) -> None:
    """Ask every probe until it is satisfied; AgentError names the first that is not within `seconds`."""
    deadline = time.monotonic() + seconds
    for probe in probes:
        while reason := ask(probe):
            if time.monotonic() > deadline:
                raise AgentError(f"{probe['kind']} on port {probe['port']} does not answer as it should: {reason}")
            time.sleep(0.2)


def ask(probe: dict[str, Any]) -> str:
    """One question; "" when the answer is right, else what was wrong."""
    try:
        KINDS[probe["kind"]](probe["port"], probe["options"])
    except (OSError, ProbeFailed, smtplib.SMTPException, imaplib.IMAP4.error) as error:
        return str(error) or type(error).__name__
    return ""


def _smtp(port: int, options: dict[str, str]) -> None:
    """A stranger's conversation up to RCPT (RFC 5321), ended before any message exists."""
    with smtplib.SMTP(HERE, port, local_hostname="localhost", timeout=PATIENCE) as smtp:
        smtp.ehlo()
        _need(smtp.has_extn("starttls"), "STARTTLS is not offered")
        if "recipient" in options:
            smtp.mail("")
            code, text = smtp.rcpt(options["recipient"])
            _need(code == 250, f"{options['recipient']} is refused: {code} {text.decode(errors='replace')}")


def _submission(port: int, options: dict[str, str]) -> None:
    """RFC 6409: login is offered behind STARTTLS, and not before."""
    with smtplib.SMTP(HERE, port, local_hostname="localhost", timeout=PATIENCE) as smtp:
        smtp.ehlo()
        _need(not smtp.has_extn("auth"), "a login is offered without TLS")
        smtp.starttls(context=_unverified())
        smtp.ehlo()
        _need(smtp.has_extn("auth"), "no login is offered")


def _submissions(port: int, options: dict[str, str]) -> None:
    """RFC 8314: TLS from the first byte."""
    with smtplib.SMTP_SSL(HERE, port, local_hostname="localhost", timeout=PATIENCE, context=_unverified()) as smtp:
        smtp.ehlo()
        _need(smtp.has_extn("auth"), "no login is offered")


def _imaps(port: int, options: dict[str, str]) -> None:
    client = imaplib.IMAP4_SSL(HERE, port, ssl_context=_unverified(), timeout=PATIENCE)
    try:
        _need("AUTH=PLAIN" in client.capabilities, "AUTH=PLAIN is not offered")
    finally:
        client.logout()


def _managesieve(port: int, options: dict[str, str]) -> None:
    """RFC 5804: the greeting lists capabilities and ends in OK."""
    with socket.create_connection((HERE, port), PATIENCE) as connection:
        greeting = connection.makefile("rb")
        lines = iter(greeting.readline, b"")
        _need(any(line.startswith(b"OK") for line in lines), "no ManageSieve greeting")


def _milter(port: int, options: dict[str, str]) -> None:
    with socket.create_connection((HERE, port), PATIENCE):
        pass


def _unverified() -> ssl.SSLContext:
    """On loopback the question is whether TLS is served, not to whom the certificate belongs."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _need(fact: bool, otherwise: str) -> None:
    if not fact:
        raise ProbeFailed(otherwise)


KINDS: dict[str, Callable[[int, dict[str, str]], None]] = {
    "smtp": _smtp,
    "submission": _submission,
    "submissions": _submissions,
    "imaps": _imaps,
    "managesieve": _managesieve,
    "milter": _milter,
}
