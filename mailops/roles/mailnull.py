"""A machine that only sends: Postfix as a null client of the site's mailhost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mailops import render, roles
from mailops.errors import BAD_INPUT, MailopsError
from mailops.manifest import File, Manifest, Probe, Service
from mailops.roles.mailhost import POSTFIX_CHECKS, POSTFIX_DEBCONF, POSTFIX_LOCAL, places_for
from mailops.site import Host, Secret, Site

PACKAGES = ("postfix", "libsasl2-modules", "ca-certificates", "python3")
PASSWORD_FILE = "/etc/postfix/sasl_passwd"  # noqa: S105 - a path
CERTIFICATE = "/etc/mailops/mailhost.pem"


def manifest(site: Site, host: Host, facts: dict[str, Any], secrets: Callable[[Secret], str]) -> Manifest:
    """The null client, for Debian `facts["release"]`.

    `facts["mailhost_certificate"]`, when it is known, is the only authority that the mailhost's certificate
    is checked against; else the system's are. Raises `MailopsError` when the relay account has no password.
    """
    certificate = str(facts.get("mailhost_certificate") or "")
    names = roles.variables(site, host, facts) | {"mailhost_certificate": certificate}
    tree = render.tree(("postfix", "mailnull", f"mailnull-debian{facts['release']}"), names)
    files = [_file(path, content) for path, content in tree.items()]
    if certificate:
        files.append(File(CERTIFICATE, certificate.encode()))
    files.append(File(PASSWORD_FILE, _login(site, secrets), 0o600, secret=True))
    return Manifest(
        role="mailnull",
        hostname=site.name_of(host),
        release=facts["release"],
        packages=PACKAGES,
        debconf=POSTFIX_DEBCONF,
        directories=places_for(POSTFIX_LOCAL),
        files=tuple(sorted(files, key=lambda file: file.path)),
        services=(
            Service(
                "postfix.service",
                ("/etc/postfix", CERTIFICATE),
                "restart",
                mail=False,  # nothing on this machine waits for a vault
                checks=POSTFIX_CHECKS,
            ),
        ),
        probes=(Probe("relay", 25, {"recipient": f"root@{site.name_of(host)}"}, "postfix.service"),),
    )


def _file(path: str, content: bytes) -> File:
    local, merge = POSTFIX_LOCAL.get(path, ("", "append"))
    return File(path, content, local=local, merge=merge)


def _login(site: Site, secrets: Callable[[Secret], str]) -> bytes:
    """The line of sasl_passwd (texthash, see DATABASE_README): a key, white space, the rest as it is."""
    account = next((user for user in site.mail_users if user.email == site.relay_email), None)
    if account is None:
        raise MailopsError(
            f"{site.path.name}: relay_email: {site.relay_email} is not among mail_users",
            "mailnull machines log in with it; give it a mailbox and a password.",
            BAD_INPUT,
        )
    password = secrets(account.pw)
    if password != password.strip() or not password.isprintable() or not password:
        raise MailopsError(
            f"{site.path.name}: {account.pw.where}: Postfix cannot send a password that is empty, that has "
            "control characters, or that starts or ends with a space",
            code=BAD_INPUT,
        )
    return f"[{site.mail_server_hostname}]:587 {site.relay_email}:{password}\n".encode()
