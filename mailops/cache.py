"""What makes the next command quicker and is missed by nobody: facts that machines told, where a command line led,
compiled templates.

No secret is kept here. What cannot be trusted or read is as good as not there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mailops.remote.shared.stored import FORMAT, numbered

if TYPE_CHECKING:
    from mailops.remote.shared.calls import Facts
    from mailops.site.model import Host, Site


def folder(name: str) -> Path | None:
    """A folder below $XDG_CACHE_HOME/mailops that nobody else can write to; None where there is no such thing."""
    try:
        ours = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mailops"
        for path in (ours, ours / name):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            state = path.lstat()
            if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid() or state.st_mode & 0o022:
                return None
    except (OSError, RuntimeError):  # a full disk, no home
        return None
    return ours / name


def facts(site: Site, host: Host) -> Facts | None:
    """What the machine said of itself last time; None where that is nothing that it could have said."""
    from mailops.ssh import protocol, shapes

    try:
        known: Facts = protocol.FACTS(recall("facts", _machine(site, host)))
    except shapes.Odd:
        return None
    return known


def remember_facts(site: Site, host: Host, facts: Facts) -> None:
    keep("facts", _machine(site, host), facts)


def untold(site: Site, mailhost: Host) -> list[str]:
    """The null clients that the mailhost has not been told of yet."""
    names = (recall("untold", _machine(site, mailhost)) or {}).get("names")
    return [name for name in site.hosts if name in names] if isinstance(names, list) else []


def remember_untold(site: Site, mailhost: Host, names: list[str]) -> None:
    if names != untold(site, mailhost):
        keep("untold", _machine(site, mailhost), {"names": names})


def recall(kind: str, name: str) -> dict[str, Any] | None:
    """The note that was kept; `kind` is a folder, `name` the name of a file."""
    place = folder(kind)
    try:
        known = json.loads((place / f"{name}.json").read_bytes()) if place else None
    except (OSError, ValueError, RecursionError):
        return None
    return known if isinstance(known, dict) and known.pop("format", 0) == FORMAT else None


def keep(kind: str, name: str, note: Mapping[str, Any]) -> None:
    """Keep a note for `recall`, where there is a place for it."""
    if place := folder(kind):
        with contextlib.suppress(OSError):
            new = place / f"{name}.{os.getpid()}"
            new.write_text(json.dumps(numbered(note)))
            new.replace(place / f"{name}.json")


def _machine(site: Site, host: Host) -> str:
    return hashlib.sha256(f"{site.path.resolve()}\n{host.name}".encode()).hexdigest()[:32]
