"""The zones of a lab, as text. Pure: no I/O.

The site's domains and the stranger's, the addresses backwards, and an empty root, so that every other
name does not exist, and is said not to at once: a resolver that is silent makes each lookup wait 20 s.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from mailops.lab.layout import LabError
from mailops.site.model import Site

STRANGER_DOMAIN = "elsewhere.test"
STRANGER_MX = f"mx.{STRANGER_DOMAIN}"
# Zones that the name server has and cannot answer for: SERVFAIL, as while somebody's name servers are away.
BROKEN = ("broken.test", f"_domainkey.broken.{STRANGER_DOMAIN}")

# A short life: nobody should wait for yesterday's answer.
HEADER = """$TTL 5
{zone}. SOA ns.{zone}. hostmaster.{zone}. {serial} 3600 600 86400 5
{zone}. NS ns.{zone}.
"""

SERVER_CONF = """# Written by mailops' lab.
server:
    rundir: "/run/knot"
    user: knot:knot
    listen: 0.0.0.0@53

log:
  - target: syslog
    any: warning

database:
    storage: "/var/lib/knot"

template:
  - id: default
    storage: "/etc/knot/zones"
    zonefile-load: whole
    zonefile-sync: -1
    journal-content: none

zone:
"""


class Record(NamedTuple):
    """One DNS record. `text` is as in a zone file, but for TXT it is the bare text."""

    name: str
    type: str
    text: str

    @property
    def key(self) -> tuple[str, str]:
        return plain(self.name), self.type.upper()


def plain(name: str) -> str:
    """A name without its last dot, in lower case; the root is the empty string."""
    return name.lower().rstrip(".")


def site_zones(site: Site) -> list[str]:
    """The zones that published records may go to: the site's domains and the stranger's."""
    host_domain = site.mail_server_hostname.partition(".")[2]
    return list(dict.fromkeys([site.domain, host_domain, *site.mail_domains, STRANGER_DOMAIN]))


def all_zones(site: Site, network: str) -> list[str]:
    """Every zone of a lab whose addresses begin with the three numbers of `network`."""
    return [*site_zones(site), backwards(network), ""]


def home(name: str, zones: Iterable[str]) -> str | None:
    """The zone that `name` lives in, which is the longest that it ends with."""
    name = plain(name)
    fits = [zone for zone in zones if not zone or name == zone or name.endswith(f".{zone}")]
    return max(fits, key=len, default=None)


def name_servers(zones: Iterable[str], address: str) -> list[Record]:
    return [Record(plain(f"ns.{zone}"), "A", address) for zone in zones]


def addresses(hosts: Mapping[str, str]) -> list[Record]:
    """Both ways: `hosts` is full host name -> address."""
    forward = [Record(name, "A", address) for name, address in hosts.items()]
    return forward + [Record(backwards(address), "PTR", f"{name}.") for name, address in hosts.items()]


def mail(domain: str, mail_server: str) -> list[Record]:
    """What a mail domain has from the start: mail comes and goes through `mail_server` alone."""
    return [
        Record(domain, "MX", f"10 {mail_server}."),
        Record(domain, "TXT", "v=spf1 mx -all"),
        Record(f"_dmarc.{domain}", "TXT", "v=DMARC1; p=reject; sp=reject"),
    ]


def senders(names: Iterable[str], mail_server: str, mail_domains: Iterable[str]) -> list[Record]:
    """What machines have by their own names (docs/how-to/dns.md): they all send through `mail_server`,
    which takes the bounces for them."""
    others = [name for name in names if name not in set(mail_domains)]
    servers = {name: "a" if name == mail_server else f"a:{mail_server}" for name in others}
    spf = [Record(name, "TXT", f"v=spf1 {server} -all") for name, server in servers.items()]
    return spf + [Record(name, "MX", f"10 {mail_server}.") for name in others if name != mail_server]


def replace(records: Iterable[Record], new: Iterable[Record]) -> list[Record]:
    """`records` and `new`, without those records whose name and type a new one has."""
    new = list(new)
    replaced = {record.key for record in new}
    return [record for record in records if record.key not in replaced] + new


def zone_files(zones: list[str], records: Iterable[Record], serial: int) -> dict[str, str]:
    """Zone -> the text of its file."""
    files = {zone: HEADER.format(zone=zone, serial=serial).replace("..", ".") for zone in zones}
    for record in sorted(set(records)):
        zone = home(record.name, zones)
        if zone is not None:
            files[zone] += line(record)
    return files


def line(record: Record) -> str:
    """A record as a line of a zone file."""
    if not re.fullmatch(r"[\w*][\w*./-]*", record.name, re.ASCII) or "\n" in record.text:
        raise LabError(f"{record.name} {record.type} {record.text!r} is not a record that a zone can hold")
    text = quoted(record.text) if record.type.upper() == "TXT" else record.text
    return f"{plain(record.name)}. {record.type.upper()} {text}\n"


def quoted(text: str) -> str:
    """TXT in strings of 255 bytes, as many as one can hold (RFC 1035, 3.3). Quoted already: as it is."""
    if text.startswith('"'):
        return text
    parts = [text[start : start + 255] for start in range(0, len(text), 255)] or [""]
    return " ".join('"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"' for part in parts)


def backwards(address: str) -> str:
    """192.0.2.1 -> 1.2.0.192.in-addr.arpa; a network of three numbers works too."""
    return ".".join(reversed(address.split("."))) + ".in-addr.arpa"


def server_conf(zones: Iterable[str]) -> str:
    """knot.conf: serve the zone files, keep nothing else."""
    return SERVER_CONF + "".join(
        f'  - domain: "{zone}."\n    file: "{file_name(zone)}"\n' for zone in (*zones, *BROKEN)
    )


def file_name(zone: str) -> str:
    return f"{zone or 'root'}.zone"
