"""An SSH server that was taken over, with the host key that is pinned: what it can do before and below the agent.

One line, code 4, in a bounded time; nothing of it reaches the terminal as it is, and nobody is asked anything.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fabric
import paramiko
import pytest

from mailops import fleet, printable
from mailops.errors import UNREACHABLE, MailopsError
from mailops.health import status
from mailops.ssh import connection, wire
from mailops.ssh import machine as machines

HOST_KEY = paramiko.ECDSAKey.generate()
LOGIN_KEY = paramiko.ECDSAKey.generate()
ESCAPES = "\x1b]0;x\x07\x1b[2J\x9b1A\u202e"
VERSION = b"SSH-2.0-OpenSSH_9.2\r\n"
HELLO = b'{"t":"hello"}\n'

Behave = Callable[[socket.socket], None]


class Server(paramiko.ServerInterface):
    """Lets the right key in, or goes on to ask; what its program does is `program`."""

    def __init__(self, program: Callable[[paramiko.Channel], None], asks: bool = False) -> None:
        self.program, self.asks = program, asks
        self.typed: list[str] = []

    def get_allowed_auths(self, username: str) -> str:
        return "publickey,keyboard-interactive"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.AUTH_PARTIALLY_SUCCESSFUL if self.asks else paramiko.AUTH_SUCCESSFUL

    def check_auth_interactive(self, username: str, submethods: str) -> Any:
        return paramiko.InteractiveQuery(ESCAPES, ESCAPES, ("Passphrase of the vault: ", False))

    def check_auth_interactive_response(self, responses: list[str]) -> int:
        self.typed += responses
        return paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=self._run, args=(channel,), daemon=True).start()
        return True

    def _run(self, channel: paramiko.Channel) -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self.program(channel)


def speaks_ssh(program: Callable[[Any], None], window: int = 1 << 21, asks: bool = False) -> Behave:
    def behave(sock: socket.socket) -> None:
        with paramiko.Transport(sock, default_window_size=window) as far:
            far.local_version = VERSION.decode().strip()
            far.add_server_key(HOST_KEY)
            far.start_server(threading.Event(), Server(program, asks))
            far.join()

    return behave


def says(*pieces: bytes, times: int = 1) -> Behave:
    """Raw bytes, and then silence."""

    def behave(sock: socket.socket) -> None:
        for _ in range(times):
            for piece in pieces:
                sock.sendall(piece)
        while sock.recv(1 << 16):
            pass

    return behave


def packet(payload: bytes) -> bytes:
    padding = 16 - (len(payload) + 5) % 8
    return struct.pack(">IB", len(payload) + padding + 1, padding) + payload + b"\0" * padding


def floods_stderr(channel: Any) -> None:
    """Beyond any window, as OpenSSH's server never would."""
    piece = paramiko.Message()
    piece.add_byte(b"\x5f")  # SSH_MSG_CHANNEL_EXTENDED_DATA
    piece.add_int(channel.remote_chanid)
    piece.add_int(1)
    piece.add_string(b"x" * 30_000)
    while channel.transport.is_active():
        channel.transport._send_user_message(piece)


def opens_channels(channel: Any) -> None:
    """Everything that a server may try to get at the other side by (RFC 4254, 6.3 and 7.2; OpenSSH's PROTOCOL)."""
    opened = []
    for kind in ("auth-agent@openssh.com", "x11", "forwarded-tcpip", "direct-tcpip", "session"):
        with contextlib.suppress(paramiko.ChannelException):  # refused, as it should be
            opened.append(channel.transport.open_channel(kind, ("127.0.0.1", 22), ("127.0.0.1", 1), timeout=5))
    channel.sendall(HELLO + b'{"t":"error","message":"opened %d","hint":"","code":1}\n' % len(opened))


@contextlib.contextmanager
def serving(folder: Path, behave: Behave) -> Iterator[Any]:
    """A site whose machine behaves so; what a task is given."""
    login = folder / "key"
    LOGIN_KEY.write_private_key_file(str(login))

    def serve() -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            while True:
                behave(listener.accept()[0])

    with socket.create_server(("127.0.0.1", 0)) as listener:
        (folder / "hosts.toml").write_text(
            'domain = "example.test"\nadmin_email = "admin@example.test"\nmail_domains = ["example.test"]\n'
            'mail_users = [{ email = "admin@example.test", pw = { env = "X" } }]\ncryptdir_pw = { env = "X" }\n'
            f'[hosts.mail]\nrole = "mailhost"\naddress = "127.0.0.1"\nport = {listener.getsockname()[1]}\n'
            f'identity = "{login}"\nhost_key = "{HOST_KEY.get_name()} {HOST_KEY.get_base64()}"\n'
        )
        threading.Thread(target=serve, daemon=True).start()
        config = fabric.Config(lazy=True)
        config["mailops_hosts"] = "mail"
        yield type("Context", (), {"config": config})


def told(folder: Path, behave: Behave) -> MailopsError:
    with serving(folder, behave) as context, pytest.raises(MailopsError) as caught:
        status.show(context)
    return caught.value


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("MAILOPS_SITE", str(tmp_path / "hosts.toml"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("SSH_AUTH_SOCK", "")
    monkeypatch.setattr(connection, "PATIENCE", 2)
    monkeypatch.setattr(machines, "SILENCE", 2.0)
    fleet._load.cache_clear()
    yield
    fleet._load.cache_clear()


BEHAVIOURS: dict[str, Behave] = {
    "silence": says(),
    "a greeting without a line's end": says(b"x" * 4096, times=10_000),
    "a greeting without end": says(b"welcome\r\n" * 500, times=10_000),
    "a greeting of escapes": says(ESCAPES.encode() + b"\r\n", times=200),
    "a greeting that is no text": says(b"\xff\xfe\r\n"),
    "another protocol": says(b"220 mail.example.test ESMTP\r\n", times=200),
    "a version of escapes": says(b"SSH-1.5-" + ESCAPES.encode() + b"\r\n"),
    "a packet of 4 GB": says(VERSION, b"\xff\xff\xff\xfc\x04" + b"x" * 60_000),
    "a packet of nothing": says(VERSION, bytes(64)),
    "packets of noise": says(VERSION, bytes(range(256)) * 16, times=20),
    "a key exchange of nothing": says(VERSION, packet(b"\x14")),
    "a key exchange of noise": says(VERSION, packet(b"\x14" + b"\xff" * 400)),
    "a farewell of escapes": says(
        VERSION, packet(b"\x01\0\0\0\x02" + struct.pack(">I", 9) + b"\x1b]0;x\x07\x9b1\0\0\0\0")
    ),
    "questions at the login": speaks_ssh(lambda channel: None, asks=True),
    "more on stderr than was granted": speaks_ssh(floods_stderr),
    "a window of a byte": speaks_ssh(lambda channel: channel.transport.join(), window=1),
    "an end at once": speaks_ssh(lambda channel: channel.transport.close()),
}

BOUNDS = {
    "a greeting without a line's end": "its greeting has no end",
    "a packet of 4 GB": "it announces a packet that is too large",
    "a key exchange of noise": "what it says is not SSH",
    "more on stderr than was granted": "it sends more than it was granted",
}


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_a_hostile_server_is_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    began = time.monotonic()
    error = told(tmp_path, BEHAVIOURS[name])
    out, err = capsys.readouterr()
    assert (out, err) == ("", "")
    assert error.code == UNREACHABLE
    assert re.match("mail: (no connection|root@127.0.0.1 lets none|the connection was lost)", error.message), error
    assert error.message == printable.line(error.message)
    assert len(error.message) < 500
    assert BOUNDS.get(name, "") in error.message
    assert time.monotonic() - began < 15


def test_questions_at_the_login_are_named_and_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As with several keys, or by a ProxyJump: there Paramiko itself logs in, and would ask."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    monkeypatch.setattr(connection.PinnedConnection, "_only_key", lambda _: None)
    error = told(tmp_path, BEHAVIOURS["questions at the login"])
    assert error.message.endswith("lets none of our keys in (it asks for more than a key, which is never answered)")
    assert capsys.readouterr() == ("", "")


def test_a_server_opens_no_channel_to_us(tmp_path: Path) -> None:
    assert told(tmp_path, speaks_ssh(opens_channels)).message == "mail: opened 0"


def test_what_is_sent_is_taken_or_the_machine_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    class Slow:
        taken = 0

        def send(self, data: bytes) -> int:
            now[0] += 59.0
            self.taken += 1
            return 1

    monkeypatch.setattr(machines.time, "monotonic", lambda: now[0])
    slow: Any = Slow()
    with pytest.raises(TimeoutError):
        machines._send(slow, b"x" * 100_000)
    assert slow.taken < 10


def test_a_key_that_is_shown_comes_through_the_same_bounds(tmp_path: Path) -> None:
    with serving(tmp_path, BEHAVIOURS["a packet of 4 GB"]) as context:
        site = fleet.load()
        with pytest.raises(MailopsError, match="a packet that is too large"):
            connection.PinnedConnection(site, site.hosts["mail"], context.config).read_key()
    assert wire.LARGEST >= 35_000  # RFC 4253, 6.1
