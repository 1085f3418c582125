"""DKIM's records in the DNS: how they are named, and written."""

from __future__ import annotations

import re

LONGEST_STRING = 255  # bytes in one string of a TXT record (RFC 1035, 3.3.14)
LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
DOMAIN = re.compile(rf"{LABEL}(\.{LABEL})*")
SELECTOR = re.compile(rf"(?=.{{1,63}}\Z){LABEL}(\.{LABEL})*")  # RFC 6376, 3.1; also part of a file name


def record_name(domain: str, selector: str) -> str:
    return f"{selector}._domainkey.{domain}"


def zone_lines(name: str, value: str) -> str:
    """The record in the form of a BIND zone file (RFC 1035, 5.1), its text cut where a string must end."""
    tags, key = value[: value.index("p=")], value[value.index("p=") :]
    pieces = [tags, *(key[at : at + LONGEST_STRING] for at in range(0, len(key), LONGEST_STRING))]
    return f"{name}. IN TXT (\n" + "".join(f'\t"{piece}"\n' for piece in pieces) + ")\n"
