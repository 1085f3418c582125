"""Whether the DNS serves a DKIM key: asked of every authoritative name server itself, past all caches."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.resolver
import dns.rrset

from mailops import printable
from mailops.remote.shared.records import record_name
from mailops.site.model import Site

if TYPE_CHECKING:
    from mailops.remote.shared.calls import Key

PORT = 53
UDP_TRIES = (2.0, 3.0)  # seconds
TCP_TRY = 5.0  # seconds
LOOKUP = 15.0  # seconds for the resolver to find a domain's name servers
PAYLOAD = 1232  # bytes over UDP that no path fragments (DNS flag day 2020)
HOPS = 4  # a record may be an alias (CNAME) for one in another zone
WORKERS = 16


@dataclass(frozen=True)
class Missing:
    """A name server that does not serve a key, and what it does instead; "" when none was found."""

    domain: str
    server: str
    serves: str

    def __str__(self) -> str:
        return printable.line(f"{self.domain}: {f'{self.server} {self.serves}'.strip()}")  # a stranger's words


def unpublished(site: Site, keys: Sequence[Key], selector: str) -> list[Missing]:
    """Every name server that does not serve the key of `selector` for its domain; empty when all do.

    Nothing is raised for a DNS that does not work: that, too, is a key which is not published.
    """
    wanted = [key for key in keys if key["selector"] == selector]
    resolver = _resolver(site)
    with ThreadPoolExecutor(WORKERS) as pool:
        found = pool.map(lambda key: _of_domain(resolver, key), wanted)
        return [missing for domain in found for missing in domain]


def tags(text: str) -> dict[str, str]:
    """The tags of a DKIM record (RFC 6376, 3.2), without any white space in their values."""
    pairs = (part.partition("=") for part in text.split(";") if part.strip())
    return {name.strip(): re.sub(r"\s", "", value) for name, _, value in pairs}


def _of_domain(resolver: dns.resolver.Resolver, key: Key) -> list[Missing]:
    name = dns.name.from_text(record_name(key["domain"], key["selector"]))
    try:
        return [Missing(key["domain"], *problem) for problem in _problems(resolver, name, key["value"], HOPS)]
    except dns.resolver.LifetimeTimeout:
        return [Missing(key["domain"], "", "the resolver did not find its name servers in time")]
    except (dns.exception.DNSException, OSError) as error:
        return [Missing(key["domain"], "", f"its name servers cannot be found ({error})")]


def _problems(resolver: dns.resolver.Resolver, name: dns.name.Name, value: str, hops: int) -> list[tuple[str, str]]:
    """(server, what it does instead) for each name server of `name`'s zone that does not serve `value`."""
    zone = dns.resolver.zone_for_name(name, resolver=resolver, lifetime=LOOKUP)
    if len(zone) <= 2:  # the root or a top-level domain answered for it
        return [("", "is not in the DNS")]
    servers = sorted(record.target for record in resolver.resolve(zone, "NS", lifetime=LOOKUP))
    with ThreadPoolExecutor(len(servers)) as pool:
        answers = list(pool.map(lambda server: _answers(resolver, server, name), servers))
    found: list[tuple[str, str]] = []
    for server, messages in zip(servers, answers, strict=True):
        shown = server.to_text(omit_final_dot=True)
        if not messages:
            found.append((shown, "does not answer"))
        for message in messages:
            chain = message.resolve_chaining() if message.rcode() == dns.rcode.NOERROR else None
            if chain and chain.answer is None and chain.canonical_name != name and hops:
                found += _problems(resolver, chain.canonical_name, value, hops - 1)
            elif said := _judge(message.rcode(), chain.answer if chain else None, value):
                found.append((shown, said))
    return list(dict.fromkeys(found))


def _answers(
    resolver: dns.resolver.Resolver, server: dns.name.Name, name: dns.name.Name
) -> list[dns.message.QueryMessage]:
    """What the addresses of `server` say. Those that say nothing are left out: not everybody has IPv6."""
    try:
        addresses = list(resolver.resolve_name(server, lifetime=LOOKUP).addresses())
    except dns.exception.DNSException:
        return []
    return [answer for address in addresses if (answer := _ask(address, name))]


def _ask(address: str, name: dns.name.Name) -> dns.message.QueryMessage | None:
    """One question, without recursion: over UDP, which may get lost, again, and then over TCP."""
    query = dns.message.make_query(name, "TXT", payload=PAYLOAD)
    query.flags &= ~dns.flags.RD
    for timeout in UDP_TRIES:
        with suppress(dns.exception.DNSException, OSError):
            answer, _ = dns.query.udp_with_fallback(
                query, address, timeout, PORT, ignore_unexpected=True, ignore_errors=True
            )
            return answer if isinstance(answer, dns.message.QueryMessage) else None
    with suppress(dns.exception.DNSException, OSError):
        answer = dns.query.tcp(query, address, TCP_TRY, PORT)
        return answer if isinstance(answer, dns.message.QueryMessage) else None
    return None


def _judge(code: dns.rcode.Rcode, records: dns.rrset.RRset | None, value: str) -> str:
    """What is wrong with this answer; "" when it is the key."""
    if code not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return f"answers {dns.rcode.to_text(code)}"
    texts = [b"".join(record.strings).decode(errors="replace") for record in records or ()]
    if not texts:
        return "has no such record"
    if len(texts) > 1:
        return f"has {len(texts)} records where one must be (RFC 6376, 3.6.2.2)"
    has, wants = tags(texts[0]), tags(value)
    if has.get("v", "DKIM1") != "DKIM1" or has.get("k", "rsa") != wants["k"]:
        return f"has a record that is not such a key: {_short(texts[0])}"
    if has.get("p") != wants["p"]:
        return f"has another key, p={_short(has.get('p', ''))} in place of p={_short(wants['p'])}"
    return ""


def _short(text: str) -> str:
    """Enough to recognise it by. Keys of one size begin alike, so both ends are shown."""
    return text if len(text) <= 48 else f"{text[:16]}…{text[-24:]}"


def _resolver(site: Site) -> dns.resolver.Resolver:
    if site.resolver is None:
        return dns.resolver.Resolver()
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers = [site.resolver]
    resolver.port = PORT
    return resolver
