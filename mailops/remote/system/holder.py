"""Who holds the machine: what its lock says of a process, what a person is told of it, and how it is ended."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..shared.errors import LOCKED, AgentError

if TYPE_CHECKING:
    from ..shared.forms import Holder

LONG = 900.0  # seconds after which a person wonders whether it will ever end
DEATH = 10.0  # seconds for a killed process to be gone
TAKE_OVER = "{} with --take-over: that run ends, and what it had begun is undone"


def myself(who: str, doing: str, origin: str, since: float) -> str:
    """What the lock's file says of its holder. Its number goes to another process one day; to none that began then."""
    process = {"pid": os.getpid(), "started": _stat(os.getpid())[1]}
    return json.dumps({"who": who, "from": origin, "doing": doing, "since": since, **process})


def parse(text: str) -> Holder:
    """What the lock's file says of its holder; {} where it does not say it whole."""
    try:
        found: Holder = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def is_alive(holder: Holder) -> bool:
    """Whether the process that the file names is there, and is that one still."""
    state, started = _stat(holder.get("pid", 0))
    return state != "" and holder.get("started", started) == started


def end(holder: Holder) -> None:
    """Kill the run that the file names, wherever it is, and await its end. AgentError when it does not come.

    A handle (pidfd_open(2)) stays with the process: nobody who gets its number meanwhile is killed in its place.
    """
    with contextlib.suppress(ProcessLookupError), _handle(holder["pid"]) as handle:
        if not is_alive(holder):
            return
        if "started" not in holder:
            by_hand = f"it is of an older mailops; as root there: kill -KILL {holder['pid']} ends it"
            raise AgentError(told(holder), by_hand, LOCKED)
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        if not select.select([handle], [], [], DEATH)[0]:
            text = (
                f"{holder['who']}'s {holder['doing']} was killed, and is still there: it waits for the vault or a disk"
            )
            raise AgentError(
                text, "fab -H NAME lock, which lets go of whoever waits for the vault, or a reboot", LOCKED
            )


@contextlib.contextmanager
def _handle(pid: int) -> Iterator[int]:
    handle = os.pidfd_open(pid)
    try:
        yield handle
    finally:
        os.close(handle)


def described(holder: Holder, path: str, task: str = "type the same") -> tuple[str, str]:
    """Who has the lock on `path`, what for and since when; and how to take over, "" where waiting is not in vain."""
    return (told(holder), _way(holder, task)) if is_alive(holder) else _nameless(holder, path)


def told(holder: Holder) -> str:
    since = time.strftime("%H:%M:%S", time.localtime(holder["since"]))
    seconds = int(time.time() - holder["since"])
    whence = f" (from {holder['from']})" if holder.get("from") else ""
    said = f"{holder['who']}{whence} is running {holder['doing']} on this machine since {since}, {seconds} s ago"
    return said + (", and somebody has stopped it" if _is_stopped(holder) else "")


def _way(holder: Holder, task: str) -> str:
    take_over = TAKE_OVER.format(task)
    if _is_stopped(holder):
        return f"{take_over}; or, to let it go on, as root there: kill -CONT {holder['pid']}"
    return f"if it hangs, {take_over}" if time.time() - holder["since"] > LONG else ""


def _nameless(holder: Holder, path: str) -> tuple[str, str]:
    """It has not said yet who it is; or a program has the lock that a run started which has ended since."""
    if not (others := with_lock(path)):
        return "another run has just begun on this machine", ""
    process = f"{others[0][1]} holds this machine"
    said = (
        f"{holder['who']}'s {holder['doing']} has ended, and {process}"
        if holder
        else f"{process} for nobody knows whom"
    )
    return said, f"as root there: kill -KILL {others[0][0]} ends that"


def with_lock(path: str) -> list[tuple[int, str]]:
    """The processes that have the lock on `path` (flock(2)), be it inherited, by number and name. Who tries has none.

    Seen by its name and in proc_pid_fdinfo(5): to look at an open file itself could be to wait for a vault that hangs.
    """
    found = []
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        with contextlib.suppress(OSError):
            for number in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{number}") == path:
                    with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii") as file:
                        found += [(pid, f"{_name(pid)} (process {pid})")] if "FLOCK" in file.read() else []
    return found


def _is_stopped(holder: Holder) -> bool:
    """By a signal (SIGSTOP), or a debugger."""
    return _stat(holder["pid"])[0] in ("T", "t")


def _stat(pid: int) -> tuple[str, int]:
    """The state of a process, and when it began, in ticks since the boot: proc_pid_stat(5), whose third field comes
    after the name in brackets. ("", 0) for none, and for what is left of one that has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        return ("", 0) if fields[0] in ("Z", "X") and int(fields[17]) <= 1 else (fields[0], int(fields[19]))
    except (OSError, IndexError):
        return "", 0


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "a program"
