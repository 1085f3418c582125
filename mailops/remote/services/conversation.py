"""Talking with this machine's own daemons as others do: from an address that nothing trusts, in lines, over TLS.

A conversation ends well, or raises Wrong (waiting will not better that answer) or NotYet (it may).
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import re
import secrets
import socket
from types import TracebackType
from typing import TYPE_CHECKING

from ..system.access import barred
from ..system.shell import run

if TYPE_CHECKING:
    import ssl

PATIENCE = 10.0  # seconds for one answer; Postfix may be looking up our name
LONGEST = 1 << 16  # bytes in a line
LOOPBACK = ("127.0.0.1", "::1")
SIOCGIFADDR = 0x8915  # netdevice(7)


class Unsatisfied(Exception):
    """Not the answer of a working daemon. `accused`: the unit at fault, where it is not the one that was asked."""

    def __init__(self, reason: str, accused: str = "") -> None:
        super().__init__(reason)
        self.accused = accused


class Wrong(Unsatisfied):
    """An answer that stays as it is."""


class Fallen(Wrong):
    """No answer, and none to come: the daemon no longer starts what would give it, until it is itself restarted."""


class NotYet(Unsatisfied):
    """What a daemon says, or does not say, while it or another one is starting."""


class Silence(NotYet):
    """Nobody listens there."""


class Conversation:
    """Lines of text over one socket, in clear or over TLS; closed at the end of its `with`."""

    def __init__(self, connection: socket.socket, patience: float = PATIENCE) -> None:
        connection.settimeout(patience)
        self._socket = connection
        self._lines = connection.makefile("rb")

    def __enter__(self) -> Conversation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()
        self._socket.close()

    @property
    def here(self) -> str:
        """Our own address, as the daemon sees it; "" on a Unix socket."""
        return str(self._socket.getsockname()[0]) if self._socket.family != socket.AF_UNIX else ""

    def line(self) -> str:
        """The next line without its end."""
        data = self._lines.readline(LONGEST)
        if not data.endswith(b"\n"):
            raise Wrong("it hangs up")
        return data.decode(errors="replace").rstrip("\r\n")

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        data = self._lines.read(count)
        if len(data) < count:
            raise Wrong("it hangs up")
        return data

    def say(self, line: str) -> None:
        self.send(line.encode() + b"\r\n")

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def close_writing(self) -> None:
        """No more is said from here; what the other side says can still be read."""
        self._socket.shutdown(socket.SHUT_WR)

    def start_tls(self) -> None:
        """From here on over TLS, whoever the certificate belongs to: `must_serve` asks for that."""
        import ssl  # many a conversation, and all else in a daemon's file, does without

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            self._socket = context.wrap_socket(self._socket)
        except ssl.SSLError as error:
            raise Wrong(f"no TLS: {error.reason or error}") from None
        self._lines.close()
        self._lines = self._socket.makefile("rb")

    def must_serve(self, path: str) -> None:
        """The certificate of this connection is the first one (the leaf) in the PEM file `path`; "" asks nothing."""
        if not path:
            return
        connection: ssl.SSLSocket = self._socket  # type: ignore[assignment]
        served, wanted = connection.getpeercert(binary_form=True) or b"", _leaf(path)
        if served != wanted:
            raise Wrong(f"it serves another certificate ({_named(served)}) than {path} has ({_named(wanted)})")


def stranger(port: int) -> Conversation:
    """To `port` from one of this machine's own addresses, which is nobody that a daemon would trust.

    From the loopback address on a machine that has no other.
    """
    addresses = own_addresses()
    for address in addresses:
        with contextlib.suppress(ConnectionRefusedError, TimeoutError):
            return dial(address, port)
    connection = local(port)
    if addresses:
        connection.__exit__(None, None, None)
        raise Wrong("it answers on the loopback address alone")
    return connection


def local(port: int, patience: float = PATIENCE) -> Conversation:
    """To `port` over the loopback address."""
    for address in LOOPBACK:
        with contextlib.suppress(OSError):
            return dial(address, port, patience=patience)
    raise Silence("nobody answers")


def nobody(port: int) -> Conversation:
    """To `port` from a loopback address that no program uses: a daemon that slows down whoever guesses at
    passwords (Dovecot's auth penalty, by address) slows down nobody."""
    source = f"127.{64 + secrets.randbelow(64)}.{secrets.randbelow(256)}.{1 + secrets.randbelow(254)}"
    with contextlib.suppress(ConnectionRefusedError):
        return dial(LOOPBACK[0], port, source)
    return stranger(port)


def dial(address: str, port: int, source: str = "", patience: float = PATIENCE) -> Conversation:
    connection = socket.create_connection((address, port), patience, (source, 0) if source else None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Conversation(connection, patience)


def unix(path: str, patience: float = PATIENCE) -> Conversation:
    """To the Unix socket at `path`."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(patience)
        connection.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        raise Silence(f"nobody answers at {path}") from None
    except OSError:
        connection.close()
        raise
    return Conversation(connection, patience)


def must_let_in(options: dict[str, str]) -> None:
    """The `user` who speaks at the `socket` otherwise may do so: we are root, and always may."""
    if why := barred(options):
        raise Wrong(why)


def own_addresses() -> list[str]:
    """This machine's addresses but for loopback and link-local ones, IPv4 before IPv6; see netdevice(7), if_inet6."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # an interface without an IPv4 address
                answer = fcntl.ioctl(any_socket, SIOCGIFADDR, name.encode().ljust(256, b"\0"))
                found.append(socket.inet_ntoa(answer[20:24]))
    with contextlib.suppress(OSError), open("/proc/net/if_inet6", encoding="ascii") as table:
        for row in table:
            digits, _, _, scope, _, _ = row.split()
            if scope == "00":  # global
                found.append(socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits)))
    return [address for address in found if not address.startswith("127.")]


def _leaf(path: str) -> bytes:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            text = file.read()
    except OSError as error:
        raise Wrong(f"{path} cannot be read: {error.strerror}") from None
    first = re.search(r"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", text, re.DOTALL)
    if not first:
        raise Wrong(f"there is no certificate in {path}")
    return base64.b64decode(first[1])


def _named(certificate: bytes) -> str:
    """Whose it is, until when, and the start of the fingerprint that openssl-x509(1) shows as well."""
    command = ("openssl", "x509", "-inform", "DER", "-noout", "-nameopt", "RFC2253", "-subject", "-enddate")
    said = dict(line.split("=", 1) for line in run(*command, stdin=certificate, check=False).stdout.splitlines())
    print_ = hashlib.sha256(certificate).digest()[:6].hex(":").upper()
    return f"{said.get('subject', 'of nobody')}, until {said.get('notAfter', 'when')}, SHA-256 {print_}…"
