"""Whether names can be looked up (resolv.conf(5)): without that no mail leaves, and strangers are put off.

Asked of the name servers themselves (RFC 1035, 4), for the C library waits ten seconds for each that does not answer.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import socket
import struct
import time

RESOLV = "/etc/resolv.conf"
PATIENCE = 3.0  # seconds
AGAIN = 1.0  # seconds after which a question that may have been lost is repeated
ADDRESS, SERVERS = 1, 2  # types of record: of a name (A), and the root's own (NS), which every resolver knows
KNOWN = (0, 3)  # found, and known not to exist
PORT = 53


def fault(name: str, copy: str) -> str:
    """Why names cannot be looked up, and what to do; "" where one server answers. `name` is this machine's own; `copy`
    the file of those who live in a chroot, if there is one."""
    theirs = servers(copy) if os.path.exists(copy) else []
    asked = servers(RESOLV)
    if not answering(asked, name):
        why = (
            f"{RESOLV} is not there"
            if not os.path.exists(RESOLV)
            else f"{', '.join(asked)} of {RESOLV} does not answer"
        )
        return f"no name can be looked up, and mail waits: {why}; next, as root there: mend {RESOLV}"
    if theirs and set(theirs) != set(asked) and not answering(theirs, name):
        return (
            f"{copy} is not as {RESOLV}, and mail waits; next, as root there: systemctl start mailops-resolver.service"
        )
    return ""


def servers(path: str) -> list[str]:
    """The addresses of a resolv.conf; where it has none the C library asks this machine."""
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        words = [line.split() for line in file]
        return [line[1] for line in words if line[:1] == ["nameserver"] and line[1:]] or ["127.0.0.1"]
    return ["127.0.0.1"]


def answering(addresses: list[str], name: str) -> bool:
    """Whether one of the servers answers as one that looks names up; they are asked side by side."""
    questions = [question(name, ADDRESS), question("", SERVERS)]
    with contextlib.ExitStack() as stack:
        sockets = [opened for address in addresses if (opened := _socket(address, stack))]
        end, again = time.monotonic() + PATIENCE, 0.0
        while sockets and (now := time.monotonic()) < end:
            if now >= again:
                again = now + AGAIN
                sockets = [each for each in sockets if _sent(each, questions)]
            for ready in select.select(sockets, [], [], min(end, again) - now)[0]:
                try:
                    if is_answer(ready.recv(4096), questions):
                        return True
                except OSError:  # nobody listens there
                    sockets.remove(ready)
    return False


def question(name: str, kind: int) -> bytes:
    labels = b"".join(bytes([len(label)]) + label for label in name.encode().split(b".") if label)
    return (
        secrets.token_bytes(2)
        + struct.pack("!HHHHH", 0x0100, 1, 0, 0, 0)
        + labels
        + b"\0"
        + struct.pack("!HH", kind, 1)
    )


def is_answer(said: bytes, questions: list[bytes]) -> bool:
    return (
        len(said) >= 12 and said[:2] in [each[:2] for each in questions] and said[2] >= 0x80 and said[3] & 15 in KNOWN
    )


def _socket(address: str, stack: contextlib.ExitStack) -> socket.socket | None:
    try:
        family, kind, _, _, place = socket.getaddrinfo(
            address, PORT, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
        )[0]
        opened = stack.enter_context(socket.socket(family, kind))
        opened.connect(place)
    except OSError:
        return None
    return opened


def _sent(opened: socket.socket, questions: list[bytes]) -> bool:
    try:
        for each in questions:
            opened.send(each)
    except OSError:
        return False
    return True
