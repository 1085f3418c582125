"""The names that every template may use: the Site's own, and what is worked out of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from mailops.services.service import At
from mailops.site.defaults import values
from mailops.site.model import Host


def names(at: At) -> dict[str, Any]:
    """The Site's keys, `host`, `release` and `fqdn`, what the machine calls itself, and the variables of the role."""
    site, host = at.site, at.host
    known = {name: getattr(site, name) for name in site.__dataclass_fields__}
    known |= {"host": host, "release": at.release, "fqdn": site.name_of(host)}
    known |= {"own_names": site.own_names(host), "own_literals": _own_literals(host), "pattern": pattern}
    return known | values(site, host)


def _own_literals(host: Host) -> list[str]:
    """Its addresses, as they stand behind an @."""
    address = host.address or ""
    v4 = [address] if address.replace(".", "").isdigit() else []
    v6 = [address] if ":" in address else []
    return [*(f"[{ip}]" for ip in ("127.0.0.1", *v4)), *(f"[ipv6:{ip}]" for ip in ("::1", *v6))]


def pattern(texts: Iterable[str]) -> str:
    """A regular expression (regexp_table(5)) for any of these names or addresses."""
    return "|".join(re.sub(r"[][.+*?^$(){}|/]", lambda found: "\\" + found[0], text) for text in texts)
