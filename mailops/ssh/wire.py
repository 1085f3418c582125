"""SSH without the waits that it does not need: what can be said already is said, and acknowledged at once.

Paramiko awaits every answer. Of a call's eight round trips, four are answers that change nothing of what we say
next: that there is a login service, that the login is accepted, that a channel is open, that a program was started.
Here these are sent one behind the other. Nothing but the handshake itself is sent before the host key was checked.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import paramiko
from paramiko.auth_handler import AuthHandler
from paramiko.common import MSG_CHANNEL_DATA, MSG_CHANNEL_EXTENDED_DATA, cMSG_CHANNEL_OPEN, cMSG_CHANNEL_REQUEST
from paramiko.packet import Packetizer

from mailops.ssh.tcp import PromptSocket

# OpenSSH's server numbers the channels of a connection from 0, and grants one 2 MiB as soon as its program runs.
FIRST = 0
CREDIT = 1 << 16  # bytes that are sent before we are told so; a tenth more than granted is forgiven
PACKET = 1 << 15  # bytes in one message
BANNER_TIMEOUT = 15  # seconds
# A server that was taken over keeps to no rule, and Paramiko to no bound. Ours, in bytes:
GREETING = 1 << 14  # of all that comes before SSH itself (RFC 4253, 4.2)
LARGEST = 1 << 18  # of one packet, as OpenSSH has it

# Paramiko logs the traceback of a connection that fails, and Python prints what nobody handles.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class _Packets(Packetizer):
    """Packets of a size that a server may send."""

    _greeting = GREETING

    def _read_timeout(self, timeout: float) -> bytes:
        piece: bytes = super()._read_timeout(timeout)  # type: ignore[misc]
        self._greeting -= len(piece)
        if self._greeting < 0:
            raise paramiko.SSHException("its greeting has no end")
        return piece

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        if n > LARGEST:
            raise paramiko.SSHException("it announces a packet that is too large")
        return super().read_all(n, check_rekey)


def _bounded(feed: Callable[[Any, paramiko.Message], None]) -> Callable[[Any, paramiko.Message], None]:
    """What a channel is sent and nobody has read yet is no more than was granted."""

    def take(channel: Any, message: paramiko.Message) -> None:
        feed(channel, message)
        if len(channel.in_buffer) + len(channel.in_stderr_buffer) > 2 * channel.transport.default_window_size:
            raise paramiko.SSHException("it sends more than it was granted")

    return take


class Transport(paramiko.Transport):
    """A Paramiko transport that can shake hands early, and log in without awaiting an answer in between.

    What the server says is bounded. It gets no answer typed at its own questions, which could be for any password.
    """

    answered: threading.Event | None = None
    _channel_handler_table = paramiko.Transport._channel_handler_table | {  # type: ignore[attr-defined]
        kind: _bounded(paramiko.Transport._channel_handler_table[kind])  # type: ignore[attr-defined]
        for kind in (MSG_CHANNEL_DATA, MSG_CHANNEL_EXTENDED_DATA)
    }

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
        self.auth_handler = _EagerLogin(self)
        self.auth_handler.auth_publickey(username, key, self.answered)

    def await_login(self) -> None:
        """AuthenticationException when `begin_login` was in vain: the key is refused, or is not enough."""
        answered, self.answered = self.answered, None
        if answered and self.auth_handler and self.auth_handler.wait_for_response(answered):
            raise paramiko.AuthenticationException("the key alone is not enough")

    def forget_channels(self) -> None:
        """Those begun behind a login that was in vain: the server knows of none, and must not hear of their end."""
        channels: Any = self._channels  # type: ignore[attr-defined]
        for channel in channels.values():
            channel._unlink()


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
    if transport.channels_seen or "OpenSSH" not in transport.remote_version:
        usual: paramiko.Channel = transport.open_session()
        usual.exec_command(command)
        return usual
    channel = _first_channel(transport)
    size = transport.default_window_size
    transport._send_user_message(_message(cMSG_CHANNEL_OPEN, "session", channel.chanid, size, PACKET))
    transport._send_user_message(_message(cMSG_CHANNEL_REQUEST, FIRST, "exec", False, command))
    return channel


def _first_channel(transport: Any) -> paramiko.Channel:
    """As Paramiko's `open_channel` makes it, with what the server is going to say of it."""
    with transport.lock:
        channel: Any = paramiko.Channel(transport._next_channel())
        transport._channels.put(channel.chanid, channel)
        transport.channel_events[channel.chanid] = threading.Event()
        transport.channels_seen[channel.chanid] = True
        channel._set_transport(transport)
        channel._set_window(transport.default_window_size, PACKET)
        channel._set_remote_channel(FIRST, CREDIT, PACKET)
    made: paramiko.Channel = channel
    return made


class _EagerLogin(AuthHandler):
    """Sends the login right behind the request for the login service, whose acceptance has no news for us."""

    def _request_auth(self) -> None:
        super()._request_auth()  # type: ignore[misc]
        super()._parse_service_accept(  # type: ignore[misc]
            paramiko.Message(_message(b"", "ssh-userauth").asbytes())
        )

    def _parse_service_accept(self, m: paramiko.Message) -> None:
        """It is accepted, as was to be expected; a refusal is a disconnection (RFC 4253, 10)."""


def _message(kind: bytes, *parts: str | int | bool) -> paramiko.Message:
    message = paramiko.Message()
    message.add_byte(kind)
    for part in parts:
        match part:
            case bool():
                message.add_boolean(part)
            case int():
                message.add_int(part)
            case str():
                message.add_string(part)
    return message
