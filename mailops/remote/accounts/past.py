"""Who changed which account, from where: mailcfg's part of the history. It names people, so it lies in the vault.

A line of JSON for each command that changed something, or was refused; never a password, never a hash.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import time
from typing import TYPE_CHECKING

from ..shared.errors import DONE, REFUSED
from ..shared.stored import lift, numbered
from ..system import diary

if TYPE_CHECKING:
    from ..shared.forms import Author, Entry

NOBODY = 0xFFFFFFFF  # the kernel's login user of a process that nobody's login has led to (proc_pid_loginuid(5))


def path_of(database: str) -> str:
    return f"{os.path.dirname(database)}/history.jsonl"


def entries(database: str, count: int) -> list[Entry]:
    return [lift("entry", entry) for entry in diary.last(path_of(database), count)]


def note(database: str, command: str, by: Author, done: list[str], why: str = "") -> None:
    """Note what `command` has `done`, in words, or `why` it was refused. A full disk keeps it from nothing else."""
    entry: Entry = {
        "when": time.time(),
        "who": by["who"],
        "from": by["from"],
        "task": f"mailcfg {command}",
        "outcome": REFUSED if why else DONE,
        "why": why,
        "changed": {"accounts": done} if done else {},
    }
    with contextlib.suppress(OSError):
        diary.append(path_of(database), numbered(entry), 0, 0o600)


def typist() -> Author:
    """Who typed this on the machine itself, and where they sit: whose login it was, also after sudo and su."""
    name = os.environ.get("SUDO_USER") or "root"
    with contextlib.suppress(OSError, ValueError, KeyError):
        with open("/proc/self/loginuid", encoding="ascii") as file:
            number = int(file.read())
        if number != NOBODY:
            name = pwd.getpwuid(number).pw_name
    address = os.environ.get("SSH_CONNECTION", "").partition(" ")[0]
    return {"who": f"{name} on the machine", "from": address or "its console"}
