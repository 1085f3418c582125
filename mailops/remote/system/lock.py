"""One run at a time: a lock that dies with its holder and says who holds it (flock(2))."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from ..shared.errors import LOCKED, AgentError
from . import holder as holders

if TYPE_CHECKING:
    from ..shared.forms import Holder

RUN = "/run/mailops"
PATH = f"{RUN}/lock"
WAIT = "wait for it to end, then run this again"
A_MOMENT = 2.0  # seconds in which a holder that has just come will have said who it is


@contextmanager
def held(
    who: str, doing: str, origin: str = "", since: float | None = None, take_over: bool = False
) -> Iterator[Holder]:
    """Hold the machine for one run; AgentError, naming the holder, when another run has it.

    `origin` is the address that the holder comes from, as the machine sees it; `since` a Unix time. With `take_over`
    another run is killed. Gives what a holder that was killed has left of itself, {} after an orderly end; and `by`
    whom, where it was us.
    """
    os.makedirs(RUN, mode=0o700, exist_ok=True)
    # Never truncated on open: the holder's name must stay readable for whoever loses.
    with os.fdopen(os.open(PATH, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8") as file:
        killed = _take(file, take_over)
        before = holders.parse(_read(file))
        if killed and before:
            before["by"] = who
        _write(file, holders.myself(who, doing, origin, since or time.time()))
        try:
            yield before
        finally:
            _write(file, "")  # closing the file, or the death of this process, lets the lock go


def _take(file: TextIO, take_over: bool) -> bool:
    """The lock, or an AgentError that names who has it. Returns whether a holder was killed for it: one at most, for
    who comes between that one and us has been asked for by nobody.

    Between a holder's flock and its name a moment passes, in which the file is empty or names one who was killed.
    """
    deadline, killed = time.monotonic() + A_MOMENT, False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return killed
        except BlockingIOError:
            found = holders.parse(_read(file))
            if take_over and not killed and holders.is_alive(found):
                holders.end(found)
                killed = True
            elif holders.is_alive(found) or time.monotonic() > deadline:
                said, way = holders.described(found, PATH)
                raise AgentError(said, way or WAIT, LOCKED) from None
        time.sleep(0.01)


def _read(file: TextIO) -> str:
    file.seek(0)
    return file.read()


def _write(file: TextIO, text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()


def holder() -> str:
    """Who holds the machine now, and what for; "" when nobody does.

    Read from proc_locks(5): to try the lock would be to hold it, in the way of whoever wants it in that moment.
    """
    try:
        if not _is_held():
            return ""
        with open(PATH, encoding="utf-8") as file:
            said, way = holders.described(holders.parse(file.read()), PATH, "a task")
    except FileNotFoundError:
        return ""
    return f"{said}; next, {way}" if way else said


def _is_held() -> bool:
    inode = f":{os.stat(PATH).st_ino}"
    with open("/proc/locks", encoding="ascii") as locks:
        return any(fields[1] == "FLOCK" and fields[5].endswith(inode) for fields in map(str.split, locks))
