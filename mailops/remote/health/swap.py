"""Swap that a thief of the disk could read: what the machine's other programs had in memory, of the mail among it."""

from __future__ import annotations

import os
from collections.abc import Iterator

SWAPS = "/proc/swaps"
SYS = "/sys"


def in_clear() -> list[str]:
    """The swap areas on a disk that nothing encrypts, by their names; those in memory (zram) are on none."""
    return [name for name, kind in _areas() if not os.path.basename(name).startswith("zram") and _is_clear(name, kind)]


def _areas() -> Iterator[tuple[str, str]]:
    try:
        with open(SWAPS, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()[1:]
    except OSError:  # a kernel without swap
        return
    for line in lines:
        name, kind = line.split()[:2]
        yield name.replace("\\040", " "), kind


def _is_clear(name: str, kind: str) -> bool:
    try:
        found = os.stat(name)
    except OSError:  # removed since: its blocks are still there
        return True
    device = found.st_dev if kind == "file" else found.st_rdev
    return not _is_encrypted(f"{SYS}/dev/block/{os.major(device)}:{os.minor(device)}")


def _is_encrypted(device: str) -> bool:
    """Whether dm-crypt is there, or below all that this device is made of (LVM, RAID)."""
    try:
        with open(f"{device}/dm/uuid", encoding="ascii") as file:
            if file.read().startswith("CRYPT-"):
                return True
    except OSError:
        pass
    try:
        parts = os.listdir(f"{device}/slaves")
    except OSError:  # a partition, or no block device
        return False
    return bool(parts) and all(_is_encrypted(f"{device}/slaves/{part}") for part in parts)
