"""Postfix on a machine that only sends: a null client of the site's mailhost."""

from __future__ import annotations

from mailops.errors import BAD_INPUT, MailopsError
from mailops.manifest import File, Probe, Unit
from mailops.services import postfix
from mailops.services.service import At, Service

PASSWORD_FILE = "/etc/postfix/sasl_passwd"  # noqa: S105 - a path
CERTIFICATE = "/etc/mailops/mailhost.pem"


def service(at: At) -> Service:
    """`at.facts["mailhost_certificate"]`, when it is known, is the only authority that the mailhost's certificate is
    checked against; else the system's are. Raises `MailopsError` when the relay account has no password.
    """
    certificate = str(at.facts.get("mailhost_certificate") or "")
    pinned = (File(CERTIFICATE, certificate.encode()),) if certificate else ()
    return Service(
        packages=("postfix", "libsasl2-modules", "ca-certificates", "python3"),
        debconf=postfix.DEBCONF,
        units=(
            Unit(
                postfix.UNIT,
                ("/etc/postfix", CERTIFICATE),
                "restart",
                checks=postfix.CHECKS,
            ),
        ),
        probes=(
            Probe("relay", 25, {"recipient": f"root@{at.site.name_of(at.host)}"}, postfix.UNIT),
            postfix.queue_probe(("cleanup",), ("smtp",)),
        ),
        files=(*pinned, File(PASSWORD_FILE, _login(at), 0o600, secret=True)),
        additions=postfix.ADDITIONS,
        names={"mailhost_certificate": certificate},
    )


def _login(at: At) -> bytes:
    """The line of sasl_passwd (texthash, see DATABASE_README): a key, white space, the rest as it is."""
    site = at.site
    account = next((user for user in site.mail_users if user.email == site.relay_email), None)
    if account is None:
        raise MailopsError(
            f"{site.path.name}: relay_email: {site.relay_email} is not among mail_users",
            "mailnull machines log in with it; give it a mailbox and a password.",
            BAD_INPUT,
        )
    password = at.secret(account.pw)
    if password != password.strip() or not password.isprintable() or not password:
        raise MailopsError(
            f"{site.path.name}: {account.pw.where}: Postfix cannot send a password that is empty, that has "
            "control characters, or that starts or ends with a space",
            code=BAD_INPUT,
        )
    return f"[{site.mail_server_hostname}]:587 {site.relay_email}:{password}\n".encode()
