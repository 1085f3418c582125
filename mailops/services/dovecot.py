"""Dovecot: delivery (LMTP, sieve), IMAP, ManageSieve, and the passwords of whoever sends."""

from __future__ import annotations

from mailops.manifest import Check, Directory, Probe, Unit, User
from mailops.services import accounts, certificate, queue
from mailops.services.service import LOCAL, At, Service, Tie
from mailops.site.model import Site

UNIT = "dovecot.service"
CONF = "/etc/dovecot/dovecot.conf"
# Its sockets for Postfix, below the queue directory.
AUTH = "private/auth"
LMTP = "private/dovecot-lmtp"
# Where it hands over what sieve scripts send; on loopback alone.
RESEND_PORT = 10025


def service(at: At) -> Service:
    site = at.site
    checks = (Check("dovecot", {"vault": site.vault}),)
    sieve: tuple[int, str, str] = (0o644, "vmail", "vmail")
    return Service(
        packages=(
            "dovecot-core",
            "dovecot-imapd",
            "dovecot-lmtpd",
            "dovecot-sieve",
            "dovecot-managesieved",
            "dovecot-sqlite",
        ),
        # It may read the accounts.
        users=(User("dovecot", groups=("mailauth",)),),
        directories=(
            # For messages that are too large to be kept in memory while they come in.
            Directory(f"{site.vault}/temp", 0o700, "vmail", "vmail"),
            Directory(site.sieve_root, 0o755, "vmail", "vmail"),
            Directory(f"{site.sieve_root}/before.d", 0o755, "vmail", "vmail"),
            Directory(f"{site.sieve_root}/after.d", 0o755, "vmail", "vmail"),
        ),
        units=(Unit(UNIT, ("/etc/dovecot", certificate.FOLDER), "reload", checks=checks),),
        ties=(Tie("dovecot.socket"), Tie(UNIT, queue=True)),
        probes=_probes(site),
        # Dovecot compiles the scripts as vmail and puts the result beside them.
        attributes={f"{site.sieve_root}/": sieve},
        additions={CONF: (f"{LOCAL}/dovecot/dovecot.conf", "append")},
        places={"/vault/sieve/": f"{site.sieve_root}/"},
        names={"auth_socket": AUTH, "lmtp_socket": LMTP, "resend_port": RESEND_PORT},
    )


def _probes(site: Site) -> tuple[Probe, ...]:
    tls = {"certificate": certificate.CHAIN}
    return (
        Probe("imaps", 993, tls, UNIT),
        Probe("login", 993, tls, UNIT, when=UNIT),  # takes 2 s
        Probe("managesieve", 4190, tls, UNIT),
        Probe(
            "lmtp",
            options=accounts.local(site) | {"socket": f"{queue.FOLDER}/{LMTP}", "user": "postfix"},
            service=UNIT,
        ),
    )
