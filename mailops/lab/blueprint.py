"""A site read as a plan of machines, and its hosts.toml copied for the replica. Pure: no I/O.

The copy is the same site, comments and all. Only what ties it to real machines and real passwords is
another: addresses, keys, and where each secret comes from.
"""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.items import InlineTable

from mailops.errors import BAD_INPUT
from mailops.lab.layout import OUTSIDE, LabError
from mailops.roles import is_central
from mailops.site.model import Site

NEWEST = 13  # the Debian of a host that does not say

SECRET_KINDS = {"prompt", "env", "command", "keyring"}

# mailops writes these itself while keys rotate; the site's own file would set the rotation back.
OWN_VALUES = ("dkim_selector", "dkim_selector_next")

HEADER = "# The replica of a site. `fab lab.up` writes it anew from the site's own file each time.\n\n"


@dataclass(frozen=True)
class Plan:
    """One machine to be."""

    name: str
    role: str
    image: str
    user: str
    hostname: str


@dataclass(frozen=True)
class Place:
    """Where a host of the replica is, and how to know it."""

    address: str
    host_key: str


def plans(site: Site) -> list[Plan]:
    """A machine for each host of the site."""
    if OUTSIDE in site.hosts:
        problem = f'{site.path}: the lab has a machine "{OUTSIDE}" of its own'
        raise LabError(problem, "give the host of that name another", BAD_INPUT)
    return [
        Plan(
            name=name,
            role=host.role,
            image=f"debian{host.debian or NEWEST}",
            user=host.user or "root",
            hostname=site.mail_server_hostname if is_central(host.role) else f"{name}.{site.domain}",
        )
        for name, host in site.hosts.items()
    ]


def with_whole_paths(text: str, folder: Path) -> str:
    """The text of a site in `folder`, whose key files can be found from anywhere."""
    site: Any = tomlkit.parse(text)
    upstream = site.get("rspamd_upstream", {})
    if "key" in upstream:
        upstream["key"] = str(folder.resolve() / Path(upstream["key"]).expanduser())
    return tomlkit.dumps(site)


def secret_names(text: str) -> list[str]:
    """A name for each secret reference of a site: "cryptdir_pw", "mail_users.admin@example.test.pw"…"""
    return [name for name, _, _ in _references(tomlkit.parse(text))]


def _references(table: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Each secret reference, as its name and the table and key that hold it."""
    items = table.items() if isinstance(table, Mapping) else enumerate(table)
    for key, value in list(items):
        label = value.get("email", key) if isinstance(value, Mapping) else key
        name = f"{path}.{label}" if path else str(label)
        if isinstance(value, Mapping) and len(value) == 1 and set(value) <= SECRET_KINDS:
            yield name, table, key
        elif isinstance(value, Mapping | list):
            yield from _references(value, name)


def copy(text: str, places: Mapping[str, Place], identity: Path, resolver: str, secrets: Path) -> str:
    """The replica's hosts.toml, made from the text of the site's."""
    site: Any = tomlkit.parse(text)
    for name, holder, key in list(_references(site)):
        holder[key] = _command(f"cat {shlex.quote(str(secrets / name))}")
    for name, place in places.items():
        host = site["hosts"][name]
        host.setdefault("user", "root")
        host["address"] = place.address
        host["port"] = 22
        host["host_key"] = place.host_key
        host["identity"] = str(identity)
    site["resolver"] = resolver
    return HEADER + tomlkit.dumps(site)


def _command(line: str) -> InlineTable:
    """A secret reference: { command = "…" }"""
    reference = tomlkit.inline_table()
    reference.append("command", line)
    return reference


def keep_own_values(new: str, replica: str, source_then: str, source_now: str) -> str:
    """Carry over what mailops wrote into the last `replica`, unless the site itself has changed it since."""
    site = tomlkit.parse(new)
    there, then, now = (tomllib.loads(text) for text in (replica, source_then, source_now))
    for key in OWN_VALUES:
        if then.get(key) != now.get(key):
            continue
        if key in there:
            site[key] = there[key]
        else:
            site.pop(key, None)
    return tomlkit.dumps(site)
