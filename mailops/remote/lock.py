"""One run at a time: a lock that dies with its holder and says who holds it (flock(2))."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .errors import AgentError

RUN = "/run/mailops"
PATH = f"{RUN}/lock"
HELD = 5  # the exit code of a run that had to give way


@contextmanager
def held(who: str, doing: str, origin: str = "") -> Iterator[None]:
    """Hold the machine for one run; AgentError, naming the holder, when another run has it.

    `origin` is the address that the holder comes from, as the machine sees it.
    """
    os.makedirs(RUN, mode=0o700, exist_ok=True)
    # Never truncated on open: the holder's name must stay readable for whoever loses.
    with os.fdopen(os.open(PATH, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _refusal(file.read()) from None
        file.seek(0)
        file.truncate()
        json.dump({"who": who, "from": origin, "doing": doing, "since": time.time()}, file)
        file.flush()
        yield  # closing the file, or the death of this process, lets the lock go


def _refusal(text: str) -> AgentError:
    try:
        holder: dict[str, Any] = json.loads(text)
        since = time.strftime("%H:%M:%S", time.localtime(holder["since"]))
        seconds = int(time.time() - holder["since"])
        whence = f" (from {holder['from']})" if holder.get("from") else ""
        held_by = f"{holder['who']}{whence} is running {holder['doing']} on this machine since {since}, {seconds} s ago"
    except (ValueError, KeyError):
        held_by = "another run has just begun on this machine"
    return AgentError(held_by, hint="wait for it to end, then run this again", code=HELD)
