"""A file of JSON lines that runs add to, each line whole after a power cut, and that is read from its end."""

from __future__ import annotations

import contextlib
import json
import os
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..shared.forms import Entry

LARGEST = 1 << 20  # bytes; what was before that is kept beside it


def append(path: str, entry: Mapping[str, object], group: int, mode: int = 0o640) -> None:
    """OSError when there is no room for it. The folder is there."""
    line = json.dumps(entry) + "\n"
    if os.path.exists(path) and os.path.getsize(path) > LARGEST:
        os.replace(path, f"{path}.1")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, mode)
    with os.fdopen(descriptor, "rb+") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else f"\n{line}"  # after a half one
        file.write(line.encode())
        os.fchown(file.fileno(), 0, group)
        file.flush()
        os.fsync(file.fileno())


def last(path: str, count: int) -> list[Entry]:
    """The last `count` entries, oldest first."""
    found: deque[Entry] = deque(maxlen=count)
    for each in (f"{path}.1", path):
        with contextlib.suppress(FileNotFoundError), open(each, encoding="utf-8") as file:
            for line in file:
                with contextlib.suppress(ValueError):  # a line that a power cut left half written
                    found.append(json.loads(line))
    return [entry for entry in found if isinstance(entry, dict)]
