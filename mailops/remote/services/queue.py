"""Postfix's own programs between the ports and the mailboxes, whom no client ever speaks to (architecture: OVERVIEW).

No message comes into being: cleanup(8) is told of one and then left alone, as smtpd(8) does with one that is refused;
the agents that deliver are asked for their greeting.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
from typing import TYPE_CHECKING, NamedTuple

from ..system.access import ENTER, READ, WRITE, obstacle
from ..system.shell import run

if TYPE_CHECKING:
    from typing import TypedDict

    from ..shared.calls import Oldest

    class Recipient(TypedDict, total=False):
        address: str
        delay_reason: str

    class Queued(TypedDict, total=False):
        """A message as postqueue(1) -j has it."""

        queue_name: str
        queue_id: str
        arrival_time: int  # Unix time
        message_size: int  # bytes
        sender: str
        recipients: list[Recipient]


QUEUE = "/var/spool/postfix"
POSTDROP = "/usr/sbin/postdrop"
FOLDERS = ("incoming", "active", "deferred", "defer", "bounce", "maildrop")
AGAIN = "postqueue -f"
PROMPT = 5.0  # seconds for a program to start
BETWEEN = 2.0  # seconds in which master(8) starts again what a reload has ended
NO_FLAGS = b"flags\x000\x00\x00"  # what cleanup(8) is to do with the message that does not come
# Why a message waits that is for a mailbox of this machine, or that waits for this machine itself.
OWN = re.compile(
    r"dovecot-lmtp|mail transport unavailable|unknown mail transport|deferred transport|Server configuration error"
)


class Message(NamedTuple):
    """As its file in the queue is."""

    folder: str
    since: float  # Unix time
    complete: bool


def queue(port: int, options: dict[str, str]) -> None:
    """`agents` and `cleanups` answer, `processes` run, and what they write to can be written."""
    from . import conversation  # a glance does not need it

    kind, why = fault(options)
    if why:
        raise getattr(conversation, kind)(why)


def fault(options: dict[str, str]) -> tuple[str, str]:
    """What is wrong, after the name of its kind in `conversation`; "" for nothing."""
    for folder in FOLDERS:
        if why := obstacle("postfix", f"{QUEUE}/{folder}", READ | WRITE | ENTER):
            return "Wrong", f"{why}, and mail waits"
    drop = os.stat(POSTDROP) if os.path.exists(POSTDROP) else None
    if not drop or drop.st_mode & 0o2001 != 0o2001:
        return "Wrong", f"{POSTDROP} is not there, or not setgid, and nothing can be sent here with sendmail"
    return _answers(options["agents"].split(), options["cleanups"].split()) or _runs(options["processes"].split())


def _answers(agents: list[str], cleanups: list[str]) -> tuple[str, str] | None:
    opened: list[tuple[str, socket.socket]] = []
    name = ""
    with contextlib.ExitStack() as stack:
        try:
            for name in (*agents, *cleanups):  # all first: they start side by side
                opened.append((name, stack.enter_context(socket.socket(socket.AF_UNIX))))
                opened[-1][1].settimeout(PROMPT)
                opened[-1][1].connect(f"{QUEUE}/{name}")
            for name, program in opened:
                _greet(program, name in cleanups)
        except (FileNotFoundError, ConnectionRefusedError):
            return "Silence", f"nobody answers at {QUEUE}/{name}, and mail waits"
        except TimeoutError:
            return "NotYet", f"{name} does not answer, and mail waits"
        except OSError:
            return "Wrong", f"{name} hangs up, and mail waits"
    return None


def _greet(program: socket.socket, cleanup: bool) -> None:
    _until_null(program)
    if cleanup:
        program.sendall(NO_FLAGS)
        program.shutdown(socket.SHUT_WR)
        _until_null(program)


def _until_null(program: socket.socket) -> None:
    """The end of a list of attributes; ConnectionError when there is none."""
    said = b""
    while not said.endswith(b"\0\0"):
        said += (more := program.recv(4096))
        if not more:
            raise ConnectionAbortedError


def _runs(names: list[str]) -> tuple[str, str]:
    """As children of master(8), which starts those as soon as it is up."""
    deadline = time.monotonic() + BETWEEN
    while missing := [name for name in names if name not in _children()]:
        if time.monotonic() > deadline:
            return "NotYet", f"{', '.join(missing)} does not run, and mail waits"
        time.sleep(0.1)
    return "", ""


def _children() -> list[str]:
    names: list[str] = []
    children: list[str] = []
    with contextlib.suppress(OSError):
        with open(f"{QUEUE}/pid/master.pid", encoding="ascii") as file:
            master = file.read().strip()
        with open(f"/proc/{master}/task/{master}/children", encoding="ascii") as file:
            children = file.read().split()
    for child in children:
        with contextlib.suppress(OSError), open(f"/proc/{child}/comm", encoding="utf-8") as file:
            names.append(file.read().strip())
    return names


def left(now: float, patience: float) -> str:
    """Why mail waits that need not go to anybody else's server, with the number of messages; "" for none."""
    if not any(any(os.scandir(entry.path)) for entry in os.scandir(f"{QUEUE}/deferred") if entry.is_dir()):
        return ""
    reasons: list[str] = []
    for message in messages():
        said = [str(recipient.get("delay_reason", "")) for recipient in message.get("recipients", [])]
        own = next(filter(OWN.search, said), "")
        if own and message.get("arrival_time", now) < now - patience:
            reasons.append(own)
    return f"{len(reasons)} wait for a mailbox here: {reasons[-1]}" if reasons else ""


def oldest() -> Oldest | None:
    """Since when (Unix time) the oldest message waits that could not be delivered yet, and why; None for none."""
    waiting = [(message.get("arrival_time", 0), message) for message in messages()]
    reasons = (
        (since, recipient["delay_reason"])
        for since, message in sorted(waiting, key=lambda pair: pair[0])
        for recipient in message.get("recipients", [])
        if recipient.get("delay_reason")
    )
    since, reason = next(reasons, (0.0, ""))
    return {"since": float(since), "reason": reason} if reason else None


def messages() -> list[Queued]:
    """As postqueue(1) -j has them."""
    found = []
    for line in run("postqueue", "-j", check=False).stdout.splitlines():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def listed() -> list[Message]:
    """Each message in the queue, while Postfix is down, too."""
    folders = [f"{QUEUE}/{name}" for name in ("deferred", "active", "incoming", "hold", "maildrop")]
    found = run("find", *folders, "-type", "f", "-printf", r"%H %C@ %m\n", check=False)
    lines = map(str.split, found.stdout.splitlines())
    return [
        Message(os.path.basename(folder), float(since), bool(int(mode, 8) & 0o100)) for folder, since, mode in lines
    ]


def untouched(queue: list[Message], now: float, patience: float) -> str:
    """What is wrong when nobody takes up new mail: that is a matter of a moment, or of a minute after the unlock."""
    new = [message for message in queue if message.folder in ("incoming", "maildrop") and message.complete]
    old = [message for message in new if message.since < now - patience]
    said = f"{len(old)} new in it that nobody takes up; next, as root there: systemctl restart postfix.service"
    return said if old else ""
