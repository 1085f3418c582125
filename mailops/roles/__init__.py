"""Roles: what belongs on a machine. A role is pure: the same site, host and facts give the same bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from mailops.errors import BAD_INPUT, MailopsError
from mailops.manifest import Manifest
from mailops.site import Host, Secret, Site


def manifest_for(site: Site, host: Host, facts: dict[str, Any], secrets: Callable[[Secret], str]) -> Manifest:
    """What `host` should be.

    `facts` is what the machine says of itself: "release" (12 or 13, of Debian) and, for a mailnull machine,
    "mailhost_certificate" (PEM text, "" when not known). `secrets` gives a password for its reference.
    Raises `MailopsError` for a role that cannot be made.
    """
    from mailops.roles import mailhost, mailnull

    site = site.seen_by(host)
    if host.role == "mailhost":
        return mailhost.manifest(site, host, facts)
    if host.role == "mailnull":
        return mailnull.manifest(site, host, facts, secrets)
    raise MailopsError(f"{host.name}: the role {host.role} is not made by mailops yet", code=BAD_INPUT)


def own_literals(host: Host) -> list[str]:
    """Its addresses, as they stand behind an @."""
    address = host.address or ""
    v4 = [address] if address.replace(".", "").isdigit() else []
    v6 = [address] if ":" in address else []
    return [*(f"[{ip}]" for ip in ("127.0.0.1", *v4)), *(f"[ipv6:{ip}]" for ip in ("::1", *v6))]


def pattern(texts: Iterable[str]) -> str:
    """A regular expression (regexp_table(5)) for any of these names or addresses."""
    return "|".join(re.sub(r"[][.+*?^$(){}|/]", lambda found: "\\" + found[0], text) for text in texts)


def variables(site: Site, host: Host, facts: dict[str, Any]) -> dict[str, Any]:
    """The names that a template may use: the Site's own, `host`, `release` and `fqdn`, the variables of the role."""
    from mailops.roles.defaults import values

    names = {name: getattr(site, name) for name in site.__dataclass_fields__}
    names |= {"host": host, "release": facts["release"], "fqdn": site.name_of(host)}
    names |= {"own_names": site.own_names(host), "own_literals": own_literals(host), "pattern": pattern}
    return names | values(site, host)
