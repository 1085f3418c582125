"""A self-signed certificate, so that TLS works from the first minute, in the form that telephones accept.

Apple's rules for a server (support.apple.com/103769, the strictest known): extendedKeyUsage serverAuth, the name in
subjectAltName, 825 days at most. As it is no CA, whoever trusts it trusts nothing else with it.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from ..system.shell import run, write_atomic
from . import served

if TYPE_CHECKING:
    from ..shared.calls import Dated
    from ..shared.forms import Certificate

DAY = 86400
DAYS = 820  # that ours lasts
DAYS_MAX = 825  # that telephones take
SOON = 14  # days before the end at which another's is told of
DAYS_LEFT = 60  # from then on it is made anew, by the next bootstrap

EXTENSIONS = (
    "basicConstraints=critical,CA:FALSE",
    "keyUsage=critical,digitalSignature,keyEncipherment",
    "extendedKeyUsage=serverAuth",
)

# Pieces of DER (X.690; RFC 5280, 4.1). In a certificate the two times stand between issuer and subject.
COMMON_NAME = rb"0.1.0.\x06\x03\x55\x04\x03\x0c.[ -~]{1,64}"
TIME = rb"(?:\x17\x0d\d{12}Z|\x18\x0f\d{14}Z)"
TIMES = re.compile(rb"0[\x1e\x20\x22](" + TIME + rb")(" + TIME + rb")", re.DOTALL)
OURS = re.compile(rb"(" + COMMON_NAME + rb")" + TIMES.pattern + rb"\1", re.DOTALL)
ALTERNATIVES = re.compile(rb"\x06\x03\x55\x1d\x11(?:\x01\x01\xff)?(?=\x04)")
DNS_NAME = 0x82
IS_CA = re.compile(rb"\x06\x03\x55\x1d\x13(?:\x01\x01\xff)?\x04.0.\x01\x01\xff", re.DOTALL)
SERVER_AUTH = bytes.fromhex("06082b06010505070301")


class Leaf(NamedTuple):
    """What is to be known of a certificate; times in seconds since 1970."""

    ours: bool  # self-signed, by a name that has nothing but the host's
    starts: float
    ends: float
    der: bytes

    @property
    def names(self) -> list[str]:
        """The dNSNames of subjectAltName (RFC 5280, 4.2.1.6)."""
        found = ALTERNATIVES.search(self.der)
        try:
            names = _elements(_elements(_elements(self.der[found.end() :], 1)[0][1])[0][1]) if found else []
        except IndexError:
            return []
        return [name.decode(errors="replace").lower() for tag, name in names if tag == DNS_NAME]

    def is_for(self, name: str) -> bool:
        """Whether it is for this name, or for all that are beside it ("*", RFC 6125, 6.4.3)."""
        return bool({name.lower(), "*." + name.lower().partition(".")[2]} & {*self.names})


def read(path: str) -> Leaf | None:
    """The first certificate of a PEM file; None where there is none to be understood."""
    try:
        with open(path, "rb") as file:
            text = file.read().partition(b"-----BEGIN CERTIFICATE-----")[2].partition(b"-----END")[0]
        der = base64.b64decode(text)
    except (OSError, binascii.Error):
        return None
    times = TIMES.search(der)
    return Leaf(bool(OURS.search(der)), _seconds(times[1]), _seconds(times[2]), der) if times else None


def _elements(der: bytes, count: int = 1000) -> list[tuple[int, bytes]]:
    """The first `count` elements of DER: tag and content (X.690, 8.1). IndexError where it is cut off."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while at < len(der) and len(found) < count:
        tag, size, start = der[at], der[at + 1], at + 2
        if size & 0x80:
            start += size & 0x7F
            size = int.from_bytes(der[at + 2 : start])
        found.append((tag, der[start : start + size]))
        at = start + size
    return found


def _seconds(der_time: bytes) -> float:
    digits = der_time[2:-1].decode()
    if len(digits) == 12:  # UTCTime: 50 to 99 are of the last century (RFC 5280, 4.1.2.5.1)
        digits = ("19" if digits >= "50" else "20") + digits
    year, *others = digits[:4], *(digits[start : start + 2] for start in range(4, 14, 2))
    month, day, hour, minute, second = map(int, others)
    return datetime(int(year), month, day, hour, minute, second, tzinfo=UTC).timestamp()


def fault(leaf: Leaf, names: list[str], now: float) -> str:
    """Why a certificate of ours has to be made anew; "" when it is good."""
    if not all(leaf.is_for(name) for name in names):
        return "the old one is for another name"
    if IS_CA.search(leaf.der) or SERVER_AUTH not in leaf.der or leaf.ends - leaf.starts > DAYS_MAX * DAY:
        return "telephones refuse the old one's form"
    return f"the old one ends on {_day(leaf.ends)}" if leaf.ends - now < DAYS_LEFT * DAY else ""


def converge(wanted: list[Certificate], dry_run: bool = False) -> list[str]:
    """Make each certificate that does not exist, or that is ours and not good any more; those of others are left alone.

    The key stays: whoever knows the server by that goes on knowing it.
    """
    found = []
    for item in wanted:
        whole = os.path.exists(item["cert"]) and os.path.exists(item["key"])
        why = _why_anew(item) if whole else ""
        if whole and not why:
            continue
        anew = f" made anew, as {why}" if why else ""
        found.append(f"self-signed certificate for {', '.join(item['names'])}{anew}")
        if not dry_run:
            (_renew if whole else _make)(item)
    return found


def look(wanted: list[Certificate]) -> list[str]:
    """What is to be done about them before clients refuse them, each with the next step."""
    found = [said for item in wanted if (leaf := read(item["cert"])) for said in _faults(item, leaf, time.time())]
    return found + [
        f"{path} is new, and the old one is served; next: fab -H NAME push" for path in served.unseen(wanted)
    ]


def _faults(item: Certificate, leaf: Leaf, now: float) -> list[str]:
    if leaf.ours:
        why = fault(leaf, item["names"], now)
        bootstrap = "next: fab -H NAME bootstrap"
        return [f"the certificate for {item['names'][0]} is to be made anew: {why}; {bootstrap}"] if why else []
    told, missing = [], [name for name in item["names"] if not leaf.is_for(name)]
    replace = f"next: put a new one, and its key, in its place ({item['cert']}); then fab -H NAME push"
    if missing:
        told.append(f"the certificate is for {', '.join(leaf.names) or 'no name'}, not {', '.join(missing)}; {replace}")
    if now < leaf.ends < now + SOON * DAY:
        told.append(f"the certificate for {item['names'][0]} ends on {_day(leaf.ends)}; {replace}")
    return told


def shown(wanted: list[Certificate]) -> list[Dated]:
    """The names of each, and when it ends (Unix time)."""
    leaves = [leaf for item in wanted if (leaf := read(item["cert"]))]
    return [{"names": leaf.names, "ends": leaf.ends} for leaf in leaves if leaf.names]


def refused(item: Certificate, now: float) -> str:
    """Why clients refuse the certificate that is served, whoever made it; "" when they take it, by its dates."""
    leaf = read(item["cert"])
    if leaf is None or leaf.starts <= now < leaf.ends:  # what cannot be read is not served either
        return ""
    said = f"ended on {_day(leaf.ends)}" if now >= leaf.ends else f"is good from {_day(leaf.starts)} on, by this clock"
    remedy = "fab -H NAME bootstrap" if leaf.ours else f"put a new one there, and its key: {item['cert']}"
    return f"the one for {item['names'][0]} {said}, and mail programs refuse it; next: {remedy}"


def _day(when: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(when))


def _why_anew(item: Certificate) -> str:
    leaf = read(item["cert"])
    return fault(leaf, item["names"], time.time()) if leaf and leaf.ours else ""


def _renew(item: Certificate) -> None:
    import tempfile

    with tempfile.TemporaryDirectory(dir="/run") as folder:
        _sign(item, f"{folder}/cert", "-key", item["key"])
        served.remember(item["cert"])
        _place(f"{folder}/cert", item["cert"], 0o644)


def _make(item: Certificate) -> None:
    """The key is born in a folder that only root can enter."""
    import tempfile

    os.makedirs(os.path.dirname(item["key"]), mode=0o755, exist_ok=True)
    with tempfile.TemporaryDirectory(dir="/run") as folder:
        key, cert = f"{folder}/key", f"{folder}/cert"
        _sign(item, cert, "-newkey", "rsa:2048", "-nodes", "-keyout", key)
        for lone in (item["key"], item["cert"]):  # half a pair fits no other half; its owner finds it beside
            if os.path.exists(lone):
                os.replace(lone, f"{lone}.old")
        _place(key, item["key"], 0o600)
        _place(cert, item["cert"], 0o644)


def _sign(item: Certificate, out: str, *key: str) -> None:
    """openssl-req(1)."""
    alternatives = ",".join(f"DNS:{name}" for name in item["names"])
    command = ["openssl", "req", "-x509", "-sha256", "-days", str(DAYS), "-subj", f"/CN={item['names'][0]}", *key]
    for extension in (f"subjectAltName={alternatives}", *EXTENSIONS):
        command += ["-addext", extension]
    run(*command, "-out", out)


def _place(source: str, target: str, mode: int) -> None:
    with open(source, "rb") as file:
        write_atomic(target, file.read(), mode)
