"""A null client's mailhost, as its queue and a login tell of it."""

from __future__ import annotations

import base64
import glob
import os
import time
from typing import TYPE_CHECKING

from ..system.files import read
from ..system.shell import run
from .queue import QUEUE, messages

if TYPE_CHECKING:
    from ..shared.forms import Manifest

DEFERRED = f"{QUEUE}/deferred"
LOGIN = "/etc/postfix/sasl_passwd"  # "[mail.example.test]:587 relay@example.test:password"
CERTIFICATE = "/etc/mailops/mailhost.pem"
PATIENCE = 5.0  # seconds for an answer
LONG = 300.0  # seconds


def is_unknown(wanted: Manifest) -> bool:
    """Whether mail waits here because the mailhost does not know this machine (its `replies` in /etc/postfix)."""
    if wanted["vault"] or not is_waiting():
        return False
    return "not owned by user" in run("postqueue", "-p", check=False).stdout


def is_waiting() -> bool:
    return any(any(os.scandir(folder)) for folder in glob.iglob(f"{DEFERRED}/*/"))


def fault(wanted: Manifest) -> str:
    """Why mail for the mailhost waits, or would, and what to do; "" for nothing, also where it is away for a while."""
    if is_unknown(wanted):
        return "it does not know this machine, whose mail waits; next: fab push"
    host, port, user, password = _login()
    if not host:
        return f"{LOGIN} names none; next: fab -H NAME bootstrap"
    return refusal(host, port, user, password) or _waits()


def refusal(host: str, port: int, user: str, password: str) -> str:
    """What the mailhost and we have against each other, asked as Postfix asks; "" where it does not answer now."""
    import smtplib
    import ssl

    context = ssl.create_default_context(cafile=CERTIFICATE if os.path.exists(CERTIFICATE) else None)
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN  # what is pinned need not be a root
    context.verify_flags &= ~ssl.VerifyFlags.VERIFY_X509_STRICT
    try:
        with smtplib.SMTP(host, port, timeout=PATIENCE) as client:
            client.starttls(context=context)
            client.ehlo()
            plain = base64.b64encode(f"\0{user}\0{password}".encode()).decode()  # RFC 4616, 2
            code, _ = client.docmd("AUTH", f"PLAIN {plain}")
    except ssl.SSLCertVerificationError as error:
        why = f"its certificate is not the one that is known here ({error.verify_message})"
        return f"{why}, and mail waits; next: fab -H NAME push"
    except (OSError, smtplib.SMTPException):
        return ""
    if code // 100 != 5:
        return ""
    why = f"it refuses the login of {user} ({code}), and mail waits"
    return f"{why}; next: mend the account or its password in hosts.toml, then fab bootstrap"


def _waits() -> str:
    """A mailhost that is locked is nothing to worry about for a while."""
    waiting = messages() if is_waiting() else []
    old = [message for message in waiting if message.get("arrival_time", 0) < time.time() - LONG]
    if not old:
        return ""
    why = (old[-1].get("recipients") or [{}])[0].get("delay_reason", "no reason given")
    return f"{len(old)} wait for it ({why}); next: fab status"


def _login() -> tuple[str, int, str, str]:
    """Host, port, user, password; nothing where there is none."""
    place, _, login = read(LOGIN).decode(errors="replace").strip().partition(" ")
    host, _, port = place.rpartition(":")
    user, _, password = login.strip().partition(":")
    return (host.strip("[]"), int(port), user, password) if port.isdigit() else ("", 0, "", "")
