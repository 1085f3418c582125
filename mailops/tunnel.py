"""A tunnel to the rspamd console, which listens on the mailhost's own loopback and nowhere else.

`console_door` says who may pass. The console's password comes from the machine's half, and is another one after each
start of Rspamd: then it is asked for again.
Paramiko channels carried by hand: Invoke's `forward_local` notices a busy port only at its end, and dies
with the first refused connection.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import webbrowser
from typing import Any

import paramiko

from mailops import fleet, secrets
from mailops.console_door import LONGEST_HEAD, Door, Refused, answered, wants_another, with_password
from mailops.errors import BAD_INPUT, MailopsError
from mailops.ssh import tcp
from mailops.ssh.machine import Machine

CONSOLE = ("127.0.0.1", 11334)
OWNER = {"port": CONSOLE[1], "user": "_rspamd"}  # nobody else is brought the password
CHUNK = 1 << 16
LONGEST_BODY = 64 << 20  # bytes; Rspamd takes 50 MB
PATIENCE = 30  # seconds for a browser to say what it wants
SILENCE = 120  # seconds for the console to take or say anything
KEEPALIVE = 15  # seconds
DEAD_AFTER = 30_000  # milliseconds without an acknowledgement (tcp(7), TCP_USER_TIMEOUT)


def tunnel(c: Any, port: int = CONSOLE[1], browser: bool = True) -> None:
    """Serve the console on a local port until Ctrl-C; a dropped SSH connection is opened again when needed."""
    site = fleet.load()
    with fleet.mailhost(c, site) as machine, _listen(port) as listener:
        door = Door(listener.getsockname()[1], f"{CONSOLE[0]}:{CONSOLE[1]}")
        forwarder = Forwarder(machine, door)
        forwarder.check()
        shown = door.address if browser else f"{door.link}  (good for one browser)"
        print(f"{machine.host.name}  rspamd console: {shown}  (Ctrl-C ends the tunnel)", flush=True)
        if browser:
            _open_browser(door.link)
        try:
            while True:
                client, _ = listener.accept()
                if tcp.is_strangers(client):  # who sees the link in the browser's argv may be quicker than the browser
                    client.close()
                    continue
                threading.Thread(target=forwarder.carry, args=(client,), daemon=True).start()
        except KeyboardInterrupt:
            print(f"\n{machine.host.name}  tunnel closed")


class Forwarder:
    """Carries what the door lets in through one SSH connection, which it opens again after a drop."""

    def __init__(self, machine: Machine, door: Door) -> None:
        self.machine = machine
        self.door = door
        self._password = ""
        self._connecting = threading.RLock()

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
        """MailopsError when the console does not answer, or refuses its password: better now than in the browser."""
        name, here = self.machine.host.name, ("127.0.0.1", 0)
        try:
            self._channel(here).close()
            self._renew("")
            channel, said, _ = self._ask(
                here, f"GET /auth HTTP/1.1\r\nHost: {self.door.upstream}\r\n\r\n".encode(), b""
            )
            channel.close()
        except (OSError, EOFError, paramiko.SSHException) as error:
            hint = f"fab -H {name} status says how it is; while the vault is locked, rspamd does not run"
            raise MailopsError(f"{name}: the rspamd console does not answer: {error}", hint) from None
        except Refused:
            raise MailopsError(f"{name}: what answers at the rspamd console's port is not the console") from None
        if wants_another(said):
            hint = "does an addition to Rspamd there (/etc/mailops/local/rspamd/rspamd.conf) set another? Take it out"
            raise MailopsError(f"{name}: the rspamd console does not take its password", hint)

    def _renew(self, old: str) -> str:
        """The password that follows `old`, which the console does not take any more; MailopsError as a call has it."""
        with self._connecting:  # many requests may find out at once
            if self._password == old:
                self.connect()
                self._password = secrets.remember(self.machine.call("tunnel", OWNER)["password"])
            return self._password

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
        """The one request of a local connection, and its answer."""
        with client, contextlib.suppress(OSError):  # a browser may leave at any time
            client.settimeout(PATIENCE)
            try:
                head, body = _read_head(client, time.monotonic() + PATIENCE)
                passed_on, length = self.door.admit(head)
                self._pass_on(client, passed_on, _read_body(client, body, length))
            except Refused as refused:
                client.sendall(refused.answer)
            _hang_up(client)

    def _pass_on(self, client: socket.socket, head: bytes, body: bytes) -> None:
        try:
            channel, said, data = self._ask(client.getpeername(), head, body)
        except (MailopsError, OSError, EOFError, paramiko.SSHException) as error:
            self.machine.listener.say(f"the console does not answer: {error}")
            raise Refused("502 Bad Gateway", "The console does not answer.") from None
        with channel:
            if wants_another(said):
                raise Refused("502 Bad Gateway", "The console does not take its password. Run `fab tunnel` again.")
            client.sendall(answered(said) + data)
            while data := channel.recv(CHUNK):
                client.sendall(data)

    def _ask(self, peer: tuple[str, int], head: bytes, body: bytes) -> tuple[paramiko.Channel, bytes, bytes]:
        """The console's answer: its head, what has come of its body, and the channel with the rest.

        After a restart of Rspamd the password is another one: it is asked for, and the console as well, once more.
        """
        password = self._password
        channel, said, data = self._say(peer, with_password(head, password) + body)
        if wants_another(said):
            channel.close()
            channel, said, data = self._say(peer, with_password(head, self._renew(password)) + body)
        return channel, said, data

    def _say(self, peer: tuple[str, int], request: bytes) -> tuple[paramiko.Channel, bytes, bytes]:
        channel = self._channel(peer)
        try:
            channel.settimeout(SILENCE)
            channel.sendall(request)
            return channel, *_read_head(channel, time.monotonic() + SILENCE)
        except BaseException:
            channel.close()
            raise


def _read_body(client: socket.socket, body: bytes, length: int) -> bytes:
    """All of a request's body: it may have to be sent twice."""
    if length > LONGEST_BODY:
        raise Refused("413 Content Too Large", "This is more than the console takes.")
    pieces, missing = [body[:length]], length - len(body)
    while missing > 0:
        if not (more := client.recv(min(CHUNK, missing))):
            raise ConnectionError
        pieces.append(more)
        missing -= len(more)
    return b"".join(pieces)


def _read_head(client: Any, deadline: float) -> tuple[bytes, bytes]:
    """A request or an answer up to its empty line, and what has come of its body; an OSError when the client leaves."""
    data = b""
    while b"\r\n\r\n" not in data:
        if time.monotonic() > deadline:  # a head that comes drop by drop
            raise TimeoutError
        if len(data) > LONGEST_HEAD:
            raise Refused("431 Request Header Fields Too Large", "The head of this request is too long.")
        if not (more := client.recv(CHUNK)):
            raise ConnectionError
        data += more
    head, end, body = data.partition(b"\r\n\r\n")
    return head + end, body


def _open_browser(link: str) -> None:
    opened = False
    with contextlib.suppress(webbrowser.Error):
        opened = webbrowser.open(link)
    if not opened:
        print(f"no browser could be opened; this link is good for one: {link}", flush=True)


def _hang_up(client: socket.socket) -> None:
    """Close so that the answer arrives: with bytes unread, a kernel would take it back (RFC 9112, 9.6)."""
    client.shutdown(socket.SHUT_WR)
    client.settimeout(1)
    deadline = time.monotonic() + PATIENCE
    while client.recv(CHUNK) and time.monotonic() < deadline:
        pass


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
