"""SSH without waits: what is sent ahead of its answer, and what becomes of it when the answer is no."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import paramiko
import pytest
from paramiko.common import MSG_CHANNEL_DATA, MSG_CHANNEL_EXTENDED_DATA
from paramiko.packet import Packetizer

from mailops.ssh import eager, tcp, wire
from mailops.ssh.background import Background

KEY = paramiko.ECDSAKey.generate()


class Server(paramiko.ServerInterface):
    """An SSH server in this process; `log` has what it was asked, in order."""

    def __init__(self, answer: int, delay: float) -> None:
        self.answer, self.delay = answer, delay
        self.log: list[str] = []
        self.started = threading.Event()

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        time.sleep(self.delay)
        self.log.append(f"login {username}")
        return self.answer if key == KEY else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        self.log.append(f"channel {kind}")
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self.log.append(f"exec {command.decode()}")
        threading.Thread(target=self._echo, args=(channel, command), daemon=True).start()
        return True

    def _echo(self, channel: paramiko.Channel, command: bytes) -> None:
        channel.sendall(channel.recv(100))
        if command == b"flood":
            channel.sendall(bytes(3 << 20))
        channel.send_exit_status(0)
        channel.close()


@contextmanager
def connected(answer: int = paramiko.AUTH_SUCCESSFUL, delay: float = 0.0, openssh: bool = True) -> Iterator[Any]:
    """A client's transport, its handshake done, and the server at the other end."""
    ours, theirs = socket.socketpair()
    server = Server(answer, delay)
    with paramiko.Transport(theirs) as far, wire.Transport(ours) as near:
        if openssh:
            far.local_version = "SSH-2.0-OpenSSH_9.2"
        far.add_server_key(KEY)
        far.start_server(threading.Event(), server)
        near.start_client(timeout=10)
        yield near, server


@pytest.fixture(params=["5.1.0", "5.99.0"])
def paramikos(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Paramiko that we know, and one whose private parts may be other ones."""
    monkeypatch.setattr(paramiko, "__version__", request.param)


@pytest.mark.usefixtures("paramikos")
@pytest.mark.parametrize("openssh", [True, False])
def test_a_program_is_started_and_fed(openssh: bool) -> None:
    with connected(openssh=openssh) as (near, server):
        near.begin_login("ann", KEY)
        if not (openssh and eager.known()):
            near.await_login()
        channel = wire.start(near, "cat")
        channel.settimeout(10)
        channel.sendall(b"hello")
        near.await_login()
        assert channel.makefile("rb").read() == b"hello"
        assert server.log == ["login ann", "channel session", "exec cat"]


def test_nothing_waits_for_the_login_to_be_answered() -> None:
    with connected(delay=1.0) as (near, _):
        began = time.monotonic()
        near.begin_login("ann", KEY)
        channel = wire.start(near, "cat")
        channel.sendall(b"hello")
        assert time.monotonic() - began < 0.5
        near.await_login()
        channel.settimeout(10)
        assert channel.recv(10) == b"hello"


@pytest.mark.parametrize("answer", [paramiko.AUTH_FAILED, paramiko.AUTH_PARTIALLY_SUCCESSFUL])
def test_a_refused_login_is_told_of(answer: int) -> None:
    with connected(answer) as (near, server):
        near.begin_login("ann", KEY)
        with pytest.raises(paramiko.AuthenticationException):
            near.await_login()
        assert server.log == ["login ann"]


def test_the_second_program_gets_a_channel_of_its_own() -> None:
    with connected() as (near, server):
        near.begin_login("ann", KEY)
        for word in (b"one", b"two"):
            channel = wire.start(near, "cat")
            channel.settimeout(10)
            channel.sendall(word)
            assert channel.makefile("rb").read() == word
        assert server.log.count("exec cat") == 2


def test_a_login_is_awaited_once() -> None:
    with connected() as (near, _):
        near.await_login()  # none was begun
        near.begin_login("ann", KEY)
        near.await_login()
        near.await_login()


@pytest.mark.parametrize(
    ("pinned", "first"), [("ssh-ed25519", "ssh-ed25519"), ("ecdsa-sha2-nistp256",) * 2, ("ssh-rsa", "rsa-sha2-512")]
)
def test_the_pinned_type_of_host_key_is_asked_for_first(pinned: str, first: str) -> None:
    transport = wire.Transport(socket.socketpair()[0])
    every = set(transport.get_security_options().key_types)
    transport.prefer(pinned)
    assert transport.get_security_options().key_types[0] == first
    assert set(transport.get_security_options().key_types) == every


def test_acknowledgements_are_not_delayed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address, port = server.getsockname()
        with tcp.connect(address, port, 5.0) as client, server.accept()[0] as other:
            assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert client.gettimeout() == 5.0
            client.send(b"ping")
            assert other.recv(4) == b"ping"
            other.send(b"pong")
            assert client.recv(4) == b"pong"


@pytest.mark.skipif(os.getuid() != 0, reason="another user is needed")
@pytest.mark.parametrize(("uid", "strangers"), [(0, False), (12345, True)])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_another_user_of_this_computer_is_known(uid: int, strangers: bool, family: socket.AddressFamily) -> None:
    """Also by a socket for IPv6, which reaches an IPv4 address as well."""
    program = "import os, socket, sys; os.setuid(int(sys.argv[1])); s = socket.socket(int(sys.argv[2]))\n"
    program += "s.connect((sys.argv[3], int(sys.argv[4]))); sys.stdin.read()"
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = ("::ffff:127.0.0.1" if family == socket.AF_INET6 else "127.0.0.1", server.getsockname()[1])
        words = [sys.executable, "-c", program, *map(str, (uid, int(family), *there))]
        with subprocess.Popen(words, stdin=subprocess.PIPE) as other, server.accept()[0] as client:
            assert tcp.is_strangers(client) == strangers
            other.communicate()


def test_nobody_there_is_an_oserror() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(OSError, match="refused"):
        tcp.connect("127.0.0.1", port, 5.0)
    with pytest.raises(OSError, match=r"(?i)name|address"):
        tcp.connect("nowhere.invalid", port, 5.0)


def _fails() -> None:
    raise ValueError("no")


def test_work_in_the_background_has_a_result_or_an_error() -> None:
    work: Callable[[], int] = lambda: 7  # noqa: E731
    background = Background(work)
    assert [background.result(), background.result()] == [7, 7]
    with pytest.raises(ValueError, match="no"):
        Background(_fails).result()


@pytest.mark.parametrize("kind", [MSG_CHANNEL_DATA, MSG_CHANNEL_EXTENDED_DATA])
def test_single_bytes_count_as_well(kind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The window is filled by the byte, however many messages they come in."""
    message = paramiko.Message()
    for part in [0] if kind == MSG_CHANNEL_DATA else [0, 1]:
        message.add_int(part)
    message.add_string(b"x")
    monkeypatch.setattr(Packetizer, "read_message", lambda _: (kind, paramiko.Message(message.asbytes())))
    packets = wire._Packets(socket.socketpair()[0])
    packets.granted[0] = 2
    packets.granted[1] = 9  # another channel's are its own
    taken = [packets.read_message()[1] for _ in range(2)]
    assert taken[0].get_int() == 0, "whoever comes next reads it from its beginning"
    with pytest.raises(paramiko.SSHException, match="more than it was granted"):
        packets.read_message()


def test_a_megabyte_more_than_the_first_grant_comes_through() -> None:
    with connected() as (near, _):
        near.begin_login("ann", KEY)
        channel = wire.start(near, "flood")
        channel.settimeout(20)
        channel.sendall(b"hello")
        total = 0
        while piece := channel.recv(1 << 16):
            total += len(piece)
        assert total > near.default_window_size
        assert near.packetizer.taken[channel.chanid] == total
        assert total <= near.packetizer.granted[channel.chanid] <= total + near.default_window_size
