"""A tunnel to the rspamd console, which listens on the mailhost's own loopback and nowhere else.

Paramiko channels carried by hand: Invoke's `forward_local` notices a busy port only at its end, and dies
with the first refused connection.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import webbrowser
from typing import Any

import paramiko

from mailops import fleet
from mailops.connection import Machine
from mailops.errors import BAD_INPUT, MailopsError

CONSOLE = ("127.0.0.1", 11334)
CHUNK = 1 << 16
KEEPALIVE = 15  # seconds
DEAD_AFTER = 30_000  # milliseconds without an acknowledgement (tcp(7), TCP_USER_TIMEOUT)


def tunnel(c: Any, port: int = CONSOLE[1], browser: bool = True) -> None:
    """Serve the console on a local port until Ctrl-C; a dropped SSH connection is opened again when needed."""
    site = fleet.load()
    with fleet.mailhost(c, site) as machine, _listen(port) as listener:
        forwarder = Forwarder(machine)
        forwarder.check()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        print(f"{machine.host.name}  rspamd console: {address}  (Ctrl-C ends the tunnel)", flush=True)
        if browser:
            with contextlib.suppress(webbrowser.Error):
                webbrowser.open(address)
        try:
            while True:
                client, _ = listener.accept()
                threading.Thread(target=forwarder.carry, args=(client,), daemon=True).start()
        except KeyboardInterrupt:
            print(f"\n{machine.host.name}  tunnel closed")


class Forwarder:
    """Carries local connections through one SSH connection, which it opens again after a drop."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._connecting = threading.Lock()

    def connect(self) -> paramiko.Transport:
        with self._connecting:
            transport: paramiko.Transport | None = self.machine.connection.transport
            if transport is None or not transport.is_active():
                if transport is not None:
                    self.machine.listener.say("the connection was dropped; connecting again")
                transport = self.machine.open()
                transport.set_keepalive(KEEPALIVE)
                if hasattr(socket, "TCP_USER_TIMEOUT") and isinstance(transport.sock, socket.socket):
                    transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_AFTER)
            return transport

    def check(self) -> None:
        """MailopsError when the console does not answer: better now than in the browser."""
        try:
            self._channel(("127.0.0.1", 0)).close()
        except (OSError, paramiko.SSHException) as error:
            name = self.machine.host.name
            hint = f"fab -H {name} status says how it is; while the vault is locked, rspamd does not run"
            raise MailopsError(f"{name}: the rspamd console does not answer: {error}", hint) from None

    def _channel(self, peer: tuple[str, int]) -> paramiko.Channel:
        """A channel to the console; a connection that turns out to be dead is opened again, once."""
        transport = self.connect()
        try:
            return transport.open_channel("direct-tcpip", CONSOLE, peer, timeout=15)
        except paramiko.ChannelException:  # the connection is well, the console is not
            raise
        except (OSError, EOFError, paramiko.SSHException):
            transport.close()
            return self.connect().open_channel("direct-tcpip", CONSOLE, peer, timeout=15)

    def carry(self, client: socket.socket) -> None:
        """One local connection, both ways, until either side closes."""
        with client:
            try:
                channel = self._channel(client.getpeername())
            except (MailopsError, OSError, EOFError, paramiko.SSHException) as error:
                self.machine.listener.say(f"the console does not answer: {error}")
                return
            with channel:
                upward = threading.Thread(target=_pump, args=(client, channel), daemon=True)
                upward.start()
                _pump(channel, client)
                _hang_up(client)
                upward.join()


def _pump(source: Any, target: Any) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK):
            target.sendall(data)
    if isinstance(target, paramiko.Channel):
        with contextlib.suppress(OSError):
            target.shutdown_write()


def _hang_up(client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)


def _listen(port: int) -> socket.socket:
    """A listener on loopback: at `port`, or at a free one when that is taken."""
    if not 0 <= port < 1 << 16:
        raise MailopsError(f"{port} is not a port", "ports go from 1 to 65535; 0 picks a free one", BAD_INPUT)
    for candidate in (port, 0):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", candidate))
        except OSError:
            listener.close()
            continue
        listener.listen(64)
        return listener
    raise MailopsError("no local port is free")
