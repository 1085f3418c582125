"""What Paramiko keeps private, and we need in order to say things before the last one is answered. All of it is here.

Another Paramiko may have it otherwise. So it is touched where the version is one that the tests know and nothing is
missing; else `known` is false, and whoever asks takes the public way, which awaits each answer and says the same.
"""

from __future__ import annotations

import threading
from typing import Any

import paramiko
from paramiko.auth_handler import AuthHandler
from paramiko.common import cMSG_CHANNEL_OPEN, cMSG_CHANNEL_REQUEST

TESTED = ("5.1",)  # versions of Paramiko, up to their second number
PRIVATE: dict[type, tuple[str, ...]] = {
    AuthHandler: ("_request_auth", "_parse_service_accept"),
    paramiko.Transport: ("_next_channel", "_send_user_message"),
    paramiko.Channel: ("_set_transport", "_set_window", "_set_remote_channel", "_unlink"),
    paramiko.SSHClient: ("_auth",),
}
OF_TRANSPORTS = ("_channels",)  # which a transport has from its making on

# OpenSSH's server numbers the channels of a connection from 0, and grants one 2 MiB as soon as its program runs.
FIRST = 0
CREDIT = 1 << 16  # bytes that are sent before we are told so; a tenth more than granted is forgiven
PACKET = 1 << 15  # bytes in one message


def known() -> bool:
    """Whether this Paramiko is one whose private parts are as they are used here."""
    version = ".".join(paramiko.__version__.split(".")[:2])
    return version in TESTED and all(hasattr(kind, name) for kind, names in PRIVATE.items() for name in names)


class Login(AuthHandler):
    """Sends the login right behind the request for the login service, whose acceptance has no news for us."""

    def _request_auth(self) -> None:
        super()._request_auth()  # type: ignore[misc]
        super()._parse_service_accept(  # type: ignore[misc]
            paramiko.Message(_message(b"", "ssh-userauth").asbytes())
        )

    def _parse_service_accept(self, m: paramiko.Message) -> None:
        """It is accepted, as was to be expected; a refusal is a disconnection (RFC 4253, 10)."""


def try_keys(client: paramiko.SSHClient, user: str, files: list[str], agent_too: bool, look_for_keys: bool) -> None:
    """Log in with the keys in files, of ssh-agent and of ~/.ssh, over the connection that `client` has already."""
    client._auth(user, None, None, files, agent_too, look_for_keys, None)  # type: ignore[attr-defined]


def start(transport: Any, command: str) -> paramiko.Channel:
    """The first channel of a connection to an OpenSSH server, on which `command` is being started."""
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


def forget_channels(transport: Any) -> None:
    """Those begun behind a login that was in vain: the server knows of none, and must not hear of their end."""
    for channel in transport._channels.values():
        channel._unlink()


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
