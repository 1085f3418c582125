"""SSH without the waits that it does not need: what can be said already is said, and acknowledged at once.

Paramiko awaits every answer. Of a call's eight round trips, four are answers that change nothing of what we say
next: that there is a login service, that the login is accepted, that a channel is open, that a program was started.
Here these are sent one behind the other. Nothing but the handshake itself is sent before the host key was checked.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

import paramiko
from paramiko.common import (
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_CHANNEL_OPEN,
    MSG_CHANNEL_OPEN_SUCCESS,
    MSG_CHANNEL_WINDOW_ADJUST,
)
from paramiko.packet import Packetizer

from mailops.ssh import eager
from mailops.ssh.tcp import PromptSocket

BANNER_TIMEOUT = 15  # seconds
# A server that was taken over keeps to no rule, and Paramiko to no bound. Ours, in bytes:
GREETING = 1 << 14  # of all that comes before SSH itself (RFC 4253, 4.2)
LARGEST = 1 << 18  # of one packet, as OpenSSH has it

# Paramiko logs the traceback of a connection that fails, and Python prints what nobody handles.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class _Greeted:
    """A socket, from which no more is read for a greeting than one may have."""

    def __init__(self, sock: Any) -> None:
        self.sock = sock
        self.greeting = False
        self.left = GREETING

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)

    def recv(self, size: int) -> bytes:
        piece: bytes = self.sock.recv(size)
        if self.greeting:
            self.left -= len(piece)
            if self.left < 0:
                raise paramiko.SSHException("its greeting has no end")
        return piece


class _Packets(Packetizer):
    """Packets of a size that a server may send, and no more in channels than they were granted (RFC 4254, 5.2)."""

    def __init__(self, sock: Any) -> None:
        self.from_server = _Greeted(sock)
        # By our numbers of the channels, bytes: what is granted is counted by who sends, and what came by who reads.
        self.granted: dict[int, int] = {}
        self.taken: dict[int, int] = {}
        self.ours: dict[int, int] = {}  # our numbers, by the server's
        super().__init__(self.from_server)  # type: ignore[arg-type]

    def readline(self, timeout: float) -> str:
        self.from_server.greeting = True
        try:
            return super().readline(timeout)
        finally:
            self.from_server.greeting = False

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        if n > LARGEST:
            raise paramiko.SSHException("it announces a packet that is too large")
        return super().read_all(n, check_rekey)

    def send_message(self, data: Any) -> None:
        """Notes what is granted before it is said; Paramiko says one thing at a time."""
        message = paramiko.Message(data.asbytes())
        kind = message.get_byte()[0]
        if kind == MSG_CHANNEL_OPEN:
            message.get_string()  # of which kind
            channel = message.get_int()
            self.taken[channel], self.granted[channel] = 0, message.get_int()
        elif kind == MSG_CHANNEL_WINDOW_ADJUST and (channel := self.ours.get(message.get_int(), -1)) >= 0:
            self.granted[channel] += message.get_int()
        super().send_message(data)

    def read_message(self) -> tuple[int, paramiko.Message]:
        kind, message = super().read_message()
        if kind in (MSG_CHANNEL_DATA, MSG_CHANNEL_EXTENDED_DATA, MSG_CHANNEL_OPEN_SUCCESS):
            channel = message.get_int()
            if kind == MSG_CHANNEL_EXTENDED_DATA:
                message.get_int()  # of which kind: it is stderr
            number = message.get_int()  # of bytes; or the server's own, of a channel
            message.rewind()
            if kind != MSG_CHANNEL_OPEN_SUCCESS:
                self.taken[channel] = self.taken.get(channel, 0) + number
                if self.taken[channel] > self.granted.get(channel, 0):
                    raise paramiko.SSHException("it sends more than it was granted")
            elif channel in self.granted:
                self.ours[number] = channel
        return kind, message


class Transport(paramiko.Transport):
    """A Paramiko transport that can shake hands early, and log in without awaiting an answer in between.

    What the server says is bounded. It gets no answer typed at its own questions, which could be for any password.
    """

    answered: threading.Event | None = None

    def __init__(self, sock: Any, **options: Any) -> None:
        super().__init__(sock, packetizer_class=_Packets, **options)

    def get_exception(self) -> Exception | None:
        """What ended the conversation, as callers expect it: Paramiko trips over odd messages in many ways."""
        error = super().get_exception()
        if error is None or isinstance(error, (paramiko.SSHException, OSError, EOFError)):
            return error
        return paramiko.SSHException(f"what it says is not SSH ({type(error).__name__})")

    def auth_interactive_dumb(self, *_: Any, **__: Any) -> list[str]:
        """Paramiko would print whatever the server likes, and read a line."""
        raise paramiko.AuthenticationException("it asks for more than a key, which is never answered")

    def prefer(self, host_key: str) -> None:
        """Ask for a host key of this type, so that a pinned key is not missed for another that the machine has."""
        wanted = ("rsa-sha2-512", "rsa-sha2-256") if host_key == "ssh-rsa" else (host_key,)
        options = self.get_security_options()
        options.key_types = sorted(options.key_types, key=lambda kind: kind not in wanted)

    def start_client(self, event: threading.Event | None = None, timeout: float | None = None) -> None:
        """The handshake, unless it was begun before."""
        if self.ident is None:
            super().start_client(event, timeout)

    def begin_login(self, username: str, key: paramiko.PKey) -> None:
        """Ask to be let in with `key`."""
        self.answered = threading.Event()
        self.auth_handler = eager.Login(self)
        self.auth_handler.auth_publickey(username, key, self.answered)

    def await_login(self) -> None:
        """AuthenticationException when `begin_login` was in vain: the key is refused, or is not enough."""
        answered, self.answered = self.answered, None
        if answered and self.auth_handler and self.auth_handler.wait_for_response(answered):
            raise paramiko.AuthenticationException("the key alone is not enough")


def shake_hands(sock: PromptSocket, host_key: str, timeout: float) -> Transport:
    """The handshake, asking for a host key of the type of `host_key` if there is one; `timeout` is in seconds.

    Raises what Paramiko raises, and OSError.
    """
    transport = Transport(sock)
    transport.banner_timeout = BANNER_TIMEOUT
    if host_key:
        transport.prefer(host_key.split(maxsplit=1)[0])
    transport.start_client(timeout=timeout)
    return transport


class OnlyKey:
    """A paramiko.AuthStrategy: one key, whose acceptance is not awaited."""

    def __init__(self, username: str, key: paramiko.PKey) -> None:
        self.username = username
        self.key = key

    def authenticate(self, transport: Transport) -> None:
        transport.begin_login(self.username, self.key)


def start(transport: Any, command: str) -> paramiko.Channel:
    """A channel on which `command` is being started, if the login succeeds.

    Other servers than OpenSSH's, and second programs, get their channel in the usual way.
    """
    if eager.known() and not transport.channels_seen and "OpenSSH" in transport.remote_version:
        return eager.start(transport, command)
    usual: paramiko.Channel = transport.open_session()
    usual.exec_command(command)
    return usual
