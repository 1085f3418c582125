"""A TCP connection without the delays that TCP makes by itself. It loads next to nothing: it is begun first of all."""

from __future__ import annotations

import socket
from typing import Any


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
