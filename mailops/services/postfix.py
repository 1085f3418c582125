"""Postfix as the site's mail server: mail from strangers, from users, from the site's other machines."""

from __future__ import annotations

from typing import Any

from mailops.manifest import Check, Probe, Unit, User
from mailops.roles import runs
from mailops.services import accounts, certificate, dovecot, queue
from mailops.services.service import LOCAL, At, Service, Tie
from mailops.site.model import Host, Site

UNIT = "postfix.service"
# Where it sends once more to itself what an alias leads elsewhere; on loopback alone.
FORWARD_PORT = 10026
# Its own programs that mail passes, as master.cf has them: who takes it, who delivers, who never ends.
CLEANUPS = ("cleanup", "cleanup-submission", "cleanup-local", "cleanup-forward")
AGENTS = ("lmtp", "smtp", "forward")
PROCESSES = ("pickup", "qmgr")
# Its package leaves main.cf to us, now and when it is upgraded. (To write one of its own takes it seven seconds.)
DEBCONF = ("postfix postfix/main_mailer_type select No configuration",)
ADDITIONS = {
    "/etc/postfix/main.cf": (f"{LOCAL}/postfix/main.cf", "main.cf"),
    "/etc/postfix/master.cf": (f"{LOCAL}/postfix/master.cf", "master.cf"),
}
CHECKS = (Check("postfix"),)


def service(at: At) -> Service:
    return Service(
        packages=("postfix", "postfix-sqlite"),
        debconf=DEBCONF,
        # It may read the accounts.
        users=(User("postfix", groups=("mailauth",)),),
        units=(Unit(UNIT, ("/etc/postfix", certificate.FOLDER), "reload", checks=CHECKS),),
        ties=tuple(Tie(unit, queue=True) for unit in _units(at.release)),
        probes=_probes(at.site),
        additions=ADDITIONS,
        names=_names(at),
    )


def _units(release: int) -> tuple[str, ...]:
    """On Debian 12 its daemons run in an instance, for which the unit of its name only stands."""
    return (UNIT, "postfix@.service") if release == 12 else (UNIT,)


def _names(at: At) -> dict[str, Any]:
    site = at.site
    others = [other for other in site.hosts.values() if runs(other.role, "nullclient")]
    relays = {site.name_of(other): site.seen_by(other).relay_email for other in others}
    host_names = [name for name in (site.mail_server_hostname,) if name not in site.mail_domains] + [*relays]
    at_home = {name for host in site.hosts.values() for name in site.own_names(host)}
    return {
        "forward_port": FORWARD_PORT,
        # Postfix 3.7 lacks later mendings of BDAT.
        "not_offered": ["chunking"] if at.release == 12 else [],
        "relays": relays,  # other machine -> the account that it logs in with
        "senders": _senders(site, others),
        "host_names": host_names,
        "nicknames": sorted(at_home - {*host_names, *site.mail_domains}),
        # RFC 5321 wants a postmaster, and what a machine sends comes from root and bounces to it.
        "host_locals": sorted({"root", "postmaster", *site.mail_local_admin_aliases}),
    }


def _senders(site: Site, others: list[Host]) -> dict[str, str]:
    """What the machines' programs may write as, in the site's own domains -> the accounts that they log in with."""
    logins: dict[str, dict[str, None]] = {}
    for other in others:
        for email in other.senders:
            logins.setdefault(email, {})[site.seen_by(other).relay_email] = None
    return {email: ",".join(names) for email, names in sorted(logins.items())}


def _probes(site: Site) -> tuple[Probe, ...]:
    tls = {"certificate": certificate.CHAIN}
    login = tls | {"login": f"{queue.FOLDER}/{dovecot.AUTH}"}
    return (
        Probe("smtp", 25, tls | accounts.local(site) | {"srs": site.domain}, UNIT),
        Probe("submission", 587, login, UNIT),
        Probe("submissions", 465, login, UNIT),
        queue_probe(CLEANUPS, AGENTS),
    )


def queue_probe(cleanups: tuple[str, ...], agents: tuple[str, ...]) -> Probe:
    """What is between the ports and the mailboxes."""
    options = {
        "cleanups": " ".join(f"public/{name}" for name in cleanups),
        "agents": " ".join(f"private/{name}" for name in agents),
        "processes": " ".join(PROCESSES),
    }
    return Probe("queue", options=options, service=UNIT)
