"""A null client's mailhost, as its queue tells of it."""

from __future__ import annotations

import glob
import os
from typing import Any

from .shell import run

DEFERRED = "/var/spool/postfix/deferred"


def is_unknown(wanted: dict[str, Any]) -> bool:
    """Whether mail waits here because the mailhost does not know this machine (its `replies` in /etc/postfix)."""
    if wanted["vault"] or not any(any(os.scandir(folder)) for folder in glob.iglob(f"{DEFERRED}/*/")):
        return False
    return "not owned by user" in run("postqueue", "-p", check=False).stdout
