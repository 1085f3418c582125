"""The secret by which /usr/lib/mailops/srs knows the addresses that it made: made once, in the vault."""

from __future__ import annotations

import os
import secrets

from .files import ids
from .shell import write_atomic

OWNER, GROUP, MODE = "root", "mailops-srs", 0o640
LENGTH = 32


def path_of(accounts: str) -> str:
    """Where it lies, by the path of the database `accounts`; its folder is made by bootstrap."""
    return f"{os.path.dirname(os.path.dirname(accounts))}/srs/secret"


def converge(accounts: str, dry_run: bool = False) -> list[str]:
    """Make it where there is none: bounces to addresses that another one has made would be refused."""
    path = path_of(accounts)
    if os.path.exists(path) and os.path.getsize(path) >= LENGTH:
        return []
    if not dry_run:
        write_atomic(path, secrets.token_bytes(LENGTH), MODE, *ids(OWNER, GROUP))
    return [f"secret {path}"]
