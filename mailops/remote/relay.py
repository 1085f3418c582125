"""A null client's mailhost, as its queue and a login tell of it."""

from __future__ import annotations

import base64
import glob
import os
import time
from typing import Any

from .files import read
from .probe_queue import messages
from .shell import run

DEFERRED = "/var/spool/postfix/deferred"
LOGIN = "/etc/postfix/sasl_passwd"  # "[mail.example.test]:587 relay@example.test:password"
CERTIFICATE = "/etc/mailops/mailhost.pem"
PATIENCE = 5.0  # seconds for an answer
LONG = 300.0  # seconds


def is_unknown(wanted: dict[str, Any]) -> bool:
    """Whether mail waits here because the mailhost does not know this machine (its `replies` in /etc/postfix)."""
    if wanted["vault"] or not is_waiting():
        return False
    return "not owned by user" in run("postqueue", "-p", check=False).stdout


def is_waiting() -> bool:
    return any(any(os.scandir(folder)) for folder in glob.iglob(f"{DEFERRED}/*/"))


def fault(wanted: dict[str, Any]) -> str:
    """Why mail for the mailhost waits, or would, and what to do; "" for nothing. It is asked as Postfix asks it."""
    if is_unknown(wanted):
        return "it does not know this machine, whose mail waits; next: fab push"
    host, port, user, password = _login()
    return refusal(host, port, user, password) if host else f"{LOGIN} names none; next: fab -H NAME bootstrap"


def refusal(host: str, port: int, user: str, password: str) -> str:
    """What the mailhost objects to; "" also where it is away for the moment, and mail waits for it as it should."""
    import smtplib
    import ssl

    known = CERTIFICATE if os.path.exists(CERTIFICATE) else None
    try:
        with smtplib.SMTP(host, port, timeout=PATIENCE) as client:
            client.starttls(context=ssl.create_default_context(cafile=known))
            client.ehlo_or_helo_if_needed()
            plain = base64.b64encode(f"\0{user}\0{password}".encode()).decode()  # RFC 4616, 2
            code, said = client.docmd("AUTH", f"PLAIN {plain}")
    except ssl.SSLCertVerificationError as error:
        why = f"its certificate is not the one that is known here ({error.verify_message})"
        return f"{why}, and mail waits; next: fab -H NAME push"
    except (OSError, smtplib.SMTPException) as error:
        return _away(str(error))
    if code // 100 == 5:
        why = f"it refuses the login of {user} ({code}), and mail waits"
        return f"{why}; next: mend the account or its password in hosts.toml, then fab bootstrap"
    return _away(said.decode(errors="replace")) if code // 100 == 4 else ""


def _away(why: str) -> str:
    """Nothing to worry about for a while."""
    since = [message.get("arrival_time", 0) for message in messages()] if is_waiting() else []
    if not since or time.time() - min(since) < LONG:
        return ""
    return f"it does not answer ({why}), and {len(since)} wait for it; next: fab status"


def _login() -> tuple[str, int, str, str]:
    """Host, port, user, password; nothing where there is none."""
    place, _, login = read(LOGIN).decode(errors="replace").strip().partition(" ")
    host, _, port = place.rpartition(":")
    user, _, password = login.strip().partition(":")
    return (host.strip("[]"), int(port), user, password) if port.isdigit() else ("", 0, "", "")
