"""A TCP connection without the delays that TCP makes by itself. It loads next to nothing: it is begun first of all."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from typing import Any

MAPPED = "0000000000000000FFFF0000"  # ::ffff:, an IPv4 address as a socket for IPv6 has it


class PromptSocket(socket.socket):
    """A TCP socket that neither holds back what it sends nor delays its acknowledgements (tcp(7)).

    OpenSSH's server holds small messages back until the one before is acknowledged (Nagle), as long as nobody is
    logged in; a delayed acknowledgement then costs 40 ms, each time. Linux forgets TCP_QUICKACK by itself.
    """

    def send(self, data: Any, flags: int = 0) -> int:
        sent = super().send(data, flags)
        self._acknowledge()
        return sent

    def recv(self, size: int, flags: int = 0) -> bytes:
        data = super().recv(size, flags)
        self._acknowledge()
        return data

    def _acknowledge(self) -> None:
        if hasattr(socket, "TCP_QUICKACK"):  # Linux
            self.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def connect(address: str, port: int, timeout: float) -> PromptSocket:
    """A TCP connection. Raises OSError; `timeout` is in seconds, for each address of the name."""
    host = address.encode() if address.isascii() else address  # text would load the codec for foreign names first
    plain = socket.create_connection((host, port), timeout)  # type: ignore[arg-type]
    prompt = PromptSocket(plain.family, plain.type, plain.proto, plain.detach())
    prompt.settimeout(timeout)
    prompt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return prompt


def is_strangers(client: socket.socket) -> bool:
    """Whether another user of this computer has made this connection to it.

    Linux tells (proc_pid_net(5), `tcp`), elsewhere nobody does. Root may do anything, and is the owner of relays.
    """
    friends = {os.getuid(), 0, int(os.environ.get("SUDO_UID", "0"))}
    with contextlib.suppress(OSError):  # no such table, or the other end has left
        ends = [_as_proc_has_it(*end) for end in (client.getpeername(), client.getsockname())]
        return bool({*_owners("tcp", ends), *_owners("tcp6", [MAPPED + end for end in ends])} - friends)
    return False


def _owners(table: str, ends: list[str]) -> list[int]:
    """The user of each socket with these ends, its own first."""
    with open(f"/proc/net/{table}", encoding="ascii") as rows:
        return [int(fields[7]) for fields in map(str.split, rows) if fields[1:3] == ends]


def _as_proc_has_it(address: str, port: int) -> str:
    number = int.from_bytes(socket.inet_aton(address), sys.byteorder)
    return f"{number:08X}:{port:04X}"
