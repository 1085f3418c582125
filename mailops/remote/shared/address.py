"""What counts as an address, a mailbox or a domain; the same judgement as hosts.toml gets."""

from __future__ import annotations

import re

from . import idn
from .errors import BAD_INPUT, AgentError

ATOM = r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+"  # RFC 5322, 3.2.3
DOT_ATOM = re.compile(rf"(?!-){ATOM}(\.{ATOM})*")  # a server refuses a leading "-"
# What can log in. It is also a folder below the vault, and a mask for sessions that are ended.
MAILBOX = re.compile(r"[a-z0-9_][a-z0-9_-]*(\.[a-z0-9_-]+)*")
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
WHOLE = "for what no mailbox and no other alias of the domain has, write {}"


def address(text: str) -> str:
    """`text` in lower case, its domain in ASCII; AgentError (2) when it is not user@domain."""
    local, _, host = text.lower().rpartition("@")
    host = idn.to_ascii(host)
    if not DOT_ATOM.fullmatch(local) or len(local) > 64 or len(local) + len(host) > 253 or not _is_domain(host):
        raise AgentError(f"{text!r} is not an address", hint="write user@domain", code=BAD_INPUT)
    return f"{local}@{host}"


def source(text: str) -> str:
    """What an alias may be of: an address, or @domain for what no mailbox and no other alias there has."""
    if text.startswith("*@"):
        raise AgentError(f"{text!r} is not an address", hint=WHOLE.format(text[1:]), code=BAD_INPUT)
    return f"@{domain(text[1:])}" if text.startswith("@") else address(text)


def domain(text: str) -> str:
    """`text` in lower case and ASCII; AgentError (2) when it is not a domain name of at least two labels."""
    name = idn.to_ascii(text.lower())
    if not _is_domain(name):
        hint = "write one like example.org" if text.isascii() else "write it in its ASCII form, xn--…"
        raise AgentError(f"{text!r} is not a domain", hint=hint, code=BAD_INPUT)
    return name


def can_log_in(email: str) -> bool:
    return bool(MAILBOX.fullmatch(email.rpartition("@")[0]))


def domain_of(email: str) -> str:
    return email.rpartition("@")[2]


def without_detail(email: str) -> str:
    """user+detail@domain is delivered to user@domain (RFC 5233)."""
    local, _, domain_part = email.rpartition("@")
    return f"{local.partition('+')[0]}@{domain_part}"


def _is_domain(text: str) -> bool:
    labels = text.split(".")
    well_formed = all(LABEL.fullmatch(label) for label in labels)
    # A last label of digits alone would be an IP address gone wrong.
    return len(labels) > 1 and len(text) <= 253 and well_formed and not labels[-1].isdigit()
