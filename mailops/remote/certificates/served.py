"""Which certificates the daemons have been told of. One that has changed since, by whose hand ever, is new to them.

What they were told of last is kept as a digest beside the generations: the certificate itself is in none of them.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING

from ..machine import STATE
from ..shared.errors import REFUSED, AgentError
from ..shared.stored import lift, numbered
from ..system.files import read_json, remove
from ..system.shell import write_atomic

if TYPE_CHECKING:
    from ..shared.forms import Certificate, Served

TOLD = f"{STATE}/certificates.json"


def unseen(wanted: list[Certificate]) -> list[str]:
    """The certificates that have changed since the daemons were told of them."""
    told = _told()
    now = _digests(wanted)
    return [path for path in now if told.get(path, now[path]) != now[path] or os.path.exists(_mark(path))]


def require_pairs(wanted: list[Certificate], paths: list[str]) -> None:
    """AgentError for a certificate of `paths` whose key is another one's: no daemon would speak TLS any more."""
    import ssl

    for item in wanted:
        if item["cert"] in paths:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(item["cert"], item["key"])
            except (OSError, ssl.SSLError) as error:
                why = getattr(error, "reason", None) or error.strerror or str(error)
                told = f"{item['cert']} cannot be served with {item['key']} ({why}); the daemons go on with the old one"
                raise AgentError(told, "put both in their places, and type the same again", outcome=REFUSED) from None


def seen(wanted: list[Certificate]) -> None:
    """The daemons have been told of them as they are now."""
    now = _digests(wanted)
    if now != _told():
        os.makedirs(STATE, mode=0o700, exist_ok=True)
        write_atomic(TOLD, json.dumps(numbered({"told": now})).encode(), 0o600)
    for path in now:
        remove(_mark(path))


def remember(path: str) -> None:
    """As `seen`, for one that is about to be made anew on a machine that knows nothing of it yet."""
    if path not in (told := _told()) and os.path.exists(path):
        write_atomic(TOLD, json.dumps(numbered({"told": told | {path: _digest(path)}})).encode(), 0o600)


def _digests(wanted: list[Certificate]) -> dict[str, str]:
    return {item["cert"]: _digest(item["cert"]) for item in wanted if os.path.exists(item["cert"])}


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def _told() -> dict[str, str]:
    nothing: Served = {"told": {}}
    return lift("certificates", read_json(TOLD, f"as root there: rm {TOLD}", nothing))["told"]


def _mark(path: str) -> str:
    """As an earlier mailops noted it."""
    return f"{path}.unseen"
