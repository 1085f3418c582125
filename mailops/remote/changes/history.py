"""The machine's diary: who changed it, from where, with which revision of the site, and how it went.

A line of JSON each in /var/log/mailops/history.jsonl. Runs that found nothing to do are not in it. Who has mail here
is not either: addresses belong into the vault, so changes of accounts are counted, and a reason names domains alone.
"""

from __future__ import annotations

import contextlib
import grp
import json
import os
from collections import deque
from typing import TYPE_CHECKING

from ..shared.stored import lift, numbered

if TYPE_CHECKING:
    from ..shared.calls import History, HistoryArgs, Link
    from ..shared.forms import Entry

FOLDER = "/var/log/mailops"
PATH = f"{FOLDER}/history.jsonl"
PRIVATE = ("accounts", "dkim")  # rooms whose lines name domains and people
LOCAL_PART = r"[^\s<>\"',;:()]+@(?=[\w-]+\.[\w.-]*\w)"  # of a mail address; what follows is the domain
LARGEST = 1 << 20  # bytes; the diary before that is kept beside it


def call(args: HistoryArgs, link: Link) -> History:
    """The agent call behind `fab history`: the last `count` entries, oldest first."""
    found = entries(int(args["count"]))
    for entry in found:
        entry.pop("format", None)
    return {"entries": found}


def entries(count: int) -> list[Entry]:
    last: deque[Entry] = deque(maxlen=count)
    for path in (f"{PATH}.1", PATH):
        with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
            for line in file:
                with contextlib.suppress(ValueError):  # a line that a power cut left half written
                    last.append(json.loads(line))
    return [lift("entry", entry) for entry in last if isinstance(entry, dict)]


def append(entry: Entry, changes: dict[str, list[str]]) -> None:
    """Note a run. A full disk keeps it from being noted, and from nothing else."""
    import re  # a run that changes nothing notes nothing

    changed = {room: len(lines) if room in PRIVATE else lines for room, lines in changes.items()}
    why = re.sub(LOCAL_PART, "…@", entry["why"])
    line = json.dumps(numbered(entry) | {"why": why, "changed": changed}) + "\n"
    with contextlib.suppress(OSError):
        _make_folder()
        if os.path.exists(PATH) and os.path.getsize(PATH) > LARGEST:
            os.replace(PATH, f"{PATH}.1")
        descriptor = os.open(PATH, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o640)
        with os.fdopen(descriptor, "rb+") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else f"\n{line}"  # after a half one
            file.write(line.encode())
            os.fchown(file.fileno(), 0, _adm())
            file.flush()
            os.fsync(file.fileno())


def _make_folder() -> None:
    if not os.path.isdir(FOLDER):
        os.makedirs(FOLDER, mode=0o750)
        os.chown(FOLDER, 0, _adm())


def _adm() -> int:
    """Debian's group of those who may read the logs."""
    try:
        return grp.getgrnam("adm").gr_gid
    except KeyError:
        return 0
