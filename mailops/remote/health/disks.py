"""Room on the file systems that mail needs, and whether they can be written to. Sizes in bytes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..shared.forms import Vault

SCARCE = 100 << 20  # two messages of the largest size: with less no mail is taken
LEAST = 5 << 20  # for logs, locks, what a run keeps
FILES = 500  # that may still be made
OTHERS = ("/var/lib/mailops", "/var/log", "/etc", "/run")


def fault(vault: Vault | None, queue: str) -> str:
    """Which of them is full or cannot be written; "" for none. Each file system is told of once."""
    below = vault["cipherdir"] if vault else ""  # the vault shows the room of the disk under it
    hidden = (vault["mountpoint"], queue) if vault else ()
    places = [*((place, SCARCE) for place in (*hidden, below, queue)), *((other, LEAST) for other in OTHERS)]
    found: dict[int, str] = {}
    for place, least in places:
        if os.path.isdir(place):
            device = os.stat(below if place in hidden else place).st_dev
            if device not in found and (said := _of(place, least)):
                found[device] = said
    return "; ".join(found.values())


def _of(place: str, least: int) -> str:
    space = os.statvfs(place)
    free = space.f_bavail * space.f_frsize
    if space.f_flag & os.ST_RDONLY:
        return f"{place} is mounted read-only, and mail waits; next, as root there: dmesg; mount -o remount,rw {place}"
    if free < least:
        return f"{place} has {free >> 20} MiB left, and mail waits or is refused; next: make room there"
    if space.f_files and space.f_favail < FILES:
        return (
            f"{place} has room for {space.f_favail} more files (df -i), and mail waits; next: delete what is not needed"
        )
    return ""
