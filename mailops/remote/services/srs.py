"""The secret by which /usr/lib/mailops/srs knows the addresses that it made: made once, in the vault."""

from __future__ import annotations

import os
import secrets

from ..system.access import READ, obstacle
from ..system.files import ids, read
from ..system.shell import write_atomic

OWNER, GROUP, MODE = "root", "mailops-srs", 0o640
LENGTH = 32


def path_of(accounts: str) -> str:
    """Where it lies, by the path of the database `accounts`; its folder is made by bootstrap."""
    return f"{os.path.dirname(os.path.dirname(accounts))}/srs/secret"


def fault(accounts: str) -> str:
    """What keeps the addresses from being made and known, and what to do; "" for nothing."""
    path = path_of(accounts)
    why = obstacle(GROUP, path, READ) or ("" if os.path.getsize(path) >= LENGTH else f"{path} is too short")
    return f"{why}, and what is forwarded waits; next: fab -H NAME bootstrap" if why else ""


def converge(accounts: str, dry_run: bool = False) -> list[str]:
    """Make it where there is none: bounces to addresses that another one has made would be refused."""
    path = path_of(accounts)
    there = os.path.exists(path) and os.path.getsize(path) >= LENGTH
    if there and not obstacle(GROUP, path, READ):
        return []
    if not dry_run:
        write_atomic(path, read(path) if there else secrets.token_bytes(LENGTH), MODE, *ids(OWNER, GROUP))
    return [f"permissions of {path}" if there else f"secret {path}"]
