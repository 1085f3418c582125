"""Roles: what belongs on a machine. A role is pure: the same site, host and facts give the same bytes."""

from __future__ import annotations

from collections.abc import Callable
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


def host_name(site: Site, host: Host) -> str:
    """The name that a machine goes by in mail: the mailhost's is the one its clients connect to."""
    if host.role == "mailhost":
        return site.mail_server_hostname
    return host.name if "." in host.name else f"{host.name}.{site.domain}"


def variables(site: Site, host: Host, facts: dict[str, Any]) -> dict[str, Any]:
    """The names that a template may use: the Site's own, `host`, `release` and `fqdn`, the variables of the role."""
    from mailops.roles.defaults import values

    names = {name: getattr(site, name) for name in site.__dataclass_fields__}
    names |= {"host": host, "release": facts["release"], "fqdn": host_name(site, host)}
    return names | values(site, host)
