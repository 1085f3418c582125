"""Managed files that somebody has changed on this machine, and local additions that were not pushed yet."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from .. import machine
from ..system.files import digest, is_secret, observe, read, same, told
from . import generations, transaction

if TYPE_CHECKING:
    from ..shared.calls import Drift, Edit, Link, Nothing
    from ..shared.forms import Generation, Manifest, State


def call(args: Nothing, link: Link) -> Drift:
    """The agent call behind `fab drift`. AgentError on a machine that was never set up."""
    applied = machine.manifest()
    active = generations.active()
    opened = machine.vault_is_open(applied)
    return {
        "files": edits(applied, active, opened),
        "unpushed": _unpushed(applied, active),
        "generation": active["number"],
        "locked": not opened,  # what lies in the vault was not looked at
    }


def edits(applied: Manifest, active: Generation, opened: bool) -> list[Edit]:
    """An entry for each managed file that is not as it was written; those in the vault only while that is `opened`."""
    found = []
    for path, written in active["files"].items():
        if path == machine.MANIFEST or (not opened and path.startswith(machine.mountpoint(applied) + "/")):
            continue
        if not same(now := observe(path), written) and not transaction.is_its_work(path, now):
            found.append(entry(path, written, now))
    return found


def entry(path: str, written: State, now: State) -> Edit:
    """How a path differs from what mailops wrote; a secret file's content stays here.

    One that the edit itself has closed to others has become a secret.
    """
    secret = is_secret(written, now)
    edited = bool(now) and (now or {}).get("sha256") != (written or {}).get("sha256")
    return {
        "path": path,
        "state": "edited" if edited else "mode" if now else "missing",
        "secret": secret,
        "before": None if secret else encoded(generations.content(written)),
        "after": encoded(read(path)) if now and "sha256" in now and not secret else None,
        "was": told(written),
        "now": told(now),
    }


def difference(path: str, was: State, now: State, secret: bool, contents: list[bytes | None]) -> Edit:
    """How one of our files differs from another time of it; the contents are those of then and now."""
    said = [(state.get("sha256"), state.get("link")) for state in (was, now) if state]
    before, after = [None if secret else encoded(content) for content in contents]
    return {
        "path": path,
        "state": "new" if not was else "removed" if not now else "mode" if said[0] == said[1] else "changed",
        "secret": secret,
        "before": before,
        "after": after,
        "was": told(was),
        "now": told(now),
    }


def encoded(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()


def _unpushed(applied: Manifest, active: Generation) -> list[str]:
    paths = dict.fromkeys(file["local"] for file in applied["files"] if file.get("local"))
    now = {path: digest(text) if (text := read(path)) else None for path in paths}
    return [path for path, found in now.items() if found != active["locals"].get(path)]
