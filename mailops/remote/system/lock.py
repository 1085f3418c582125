"""One run at a time: a lock that dies with its holder and says who holds it (flock(2))."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from ..shared.errors import LOCKED, AgentError

if TYPE_CHECKING:
    from ..shared.forms import Holder

RUN = "/run/mailops"
PATH = f"{RUN}/lock"
WAIT = "wait for it to end, then run this again"
A_MOMENT = 2.0  # seconds in which a holder that has just come will have said who it is
LONG = 900.0  # seconds after which a person wonders whether it will ever end


@contextmanager
def held(who: str, doing: str, origin: str = "", since: float | None = None) -> Iterator[Holder]:
    """Hold the machine for one run; AgentError, naming the holder, when another run has it.

    `origin` is the address that the holder comes from, as the machine sees it; `since` a Unix time. Gives what a
    holder that was killed has left of itself, {} after an orderly end.
    """
    os.makedirs(RUN, mode=0o700, exist_ok=True)
    # Never truncated on open: the holder's name must stay readable for whoever loses.
    with os.fdopen(os.open(PATH, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8") as file:
        _take(file)
        before = _holder(_read(file))
        mine = {"who": who, "from": origin, "doing": doing, "since": since or time.time(), "pid": os.getpid()}
        _write(file, json.dumps(mine))
        try:
            yield before
        finally:
            _write(file, "")  # closing the file, or the death of this process, lets the lock go


def _take(file: TextIO) -> None:
    """The lock, or an AgentError that names who has it.

    Between a holder's flock and its name a moment passes, in which the file is empty or names one who was killed.
    """
    deadline = time.monotonic() + A_MOMENT
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            text = _read(file)
            if _is_alive(_holder(text)) or time.monotonic() > deadline:
                raise AgentError(_told(text), _way(text) or WAIT, LOCKED) from None
        time.sleep(0.01)


def _is_alive(holder: Holder) -> bool:
    return os.path.exists(f"/proc/{holder.get('pid', 'none')}")


def _read(file: TextIO) -> str:
    file.seek(0)
    return file.read()


def _write(file: TextIO, text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()


def _holder(text: str) -> Holder:
    try:
        found: Holder = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def holder() -> str:
    """Who holds the machine now, and what for; "" when nobody does.

    Read from proc_locks(5): to try the lock would be to hold it, in the way of whoever wants it in that moment.
    """
    try:
        inode = f":{os.stat(PATH).st_ino}"
        with open("/proc/locks", encoding="ascii") as locks:
            if not any(fields[1] == "FLOCK" and fields[5].endswith(inode) for fields in map(str.split, locks)):
                return ""
        with open(PATH, encoding="utf-8") as file:
            text = file.read()
        return f"{_told(text)}; next, {way}" if (way := _way(text)) else _told(text)
    except FileNotFoundError:
        return ""


def _told(text: str) -> str:
    held = _holder(text)
    if not _is_alive(held):
        return "another run has just begun on this machine"
    since = time.strftime("%H:%M:%S", time.localtime(held["since"]))
    seconds = int(time.time() - held["since"])
    whence = f" (from {held['from']})" if held.get("from") else ""
    told = f"{held['who']}{whence} is running {held['doing']} on this machine since {since}, {seconds} s ago"
    return told + (", and somebody has stopped it" if _is_stopped(held) else "")


def _way(text: str) -> str:
    """What to type on the machine where waiting may be in vain: the holder is stopped, or at it for very long."""
    held = _holder(text)
    if not _is_alive(held):
        return ""
    end = f"kill -KILL {held['pid']} ends it, and the next run undoes what it had begun"
    if _is_stopped(held):
        return f"as root there: kill -CONT {held['pid']} lets it go on; {end}"
    return f"if it hangs, as root there: {end}" if time.time() - held["since"] > LONG else ""


def _is_stopped(holder: Holder) -> bool:
    """By a signal (SIGSTOP), or a debugger: proc_pid_stat(5), whose third field comes after the name in brackets."""
    try:
        with open(f"/proc/{holder.get('pid', 'none')}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] in ("T", "t")
    except (OSError, IndexError):
        return False
