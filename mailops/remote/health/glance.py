"""A glance at daemons that should be well, as nothing was changed: do they take connections, and know who exists?

It loads no TLS and speaks none, for a run that changes nothing is to cost next to nothing. Whom it suspects is asked in
full (`mailops.remote.services.probe`), whose word counts.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

from ..services import queue
from ..system import asleep
from ..system.access import barred
from . import look

if TYPE_CHECKING:
    from typing import BinaryIO

    from ..shared.forms import Manifest, Probe, Service

LOOPBACK = ("127.0.0.1", "::1")
PATIENCE = 3.0  # seconds
HELLO = {"smtp": "EHLO [127.0.0.1]", "relay": "EHLO [127.0.0.1]", "lmtp": "LHLO [127.0.0.1]"}


class Ahead:
    """A glance begun while the run has other things to do."""

    def __init__(self, wanted: Manifest, but: tuple[str, ...] = ()) -> None:
        probes = [item for item in wanted["probes"] if not item.get("when")]
        self._suspects: list[Probe] = []
        self._asleep: list[str] = []
        self._health = look.begin(wanted, look.NOT_A_RUNS + but)
        self._thread = threading.Thread(target=self._look, args=(probes, wanted["services"]), daemon=True)
        self._thread.start()

    def is_healthy(self) -> bool:
        """Whether what the daemons need was as it should be when this was begun."""
        return not any(said.words for said in self._health().values())

    def _look(self, probes: list[Probe], services: list[Service]) -> None:
        self._asleep.extend(asleep.found(services))
        # Of a unit that has to be started afresh anyway nothing is asked.
        self._suspects.extend(suspects([probe for probe in probes if probe["service"] not in self._asleep]))

    def found(self) -> tuple[list[str], list[Probe]]:
        """The units with a process that is stopped, and the probes of the others that are worth asking in full."""
        self._thread.join()
        return self._asleep, self._suspects


def suspects(probes: list[Probe]) -> list[Probe]:
    """Those of the probes that are worth asking in full."""
    seen = [probe for probe in probes if probe["port"] or "socket" in probe["options"]]
    opened = [(probe, _connection(probe)) for probe in seen]  # all first: who answers slowly does so meanwhile
    found = []
    for probe, connection in opened:
        with contextlib.closing(connection) if connection else contextlib.nullcontext():
            if not connection or not _is_well(probe, connection):
                found.append(probe)
    return found + [probe for probe in probes if probe["kind"] == "queue" and any(queue.fault(probe["options"]))]


def _connection(probe: Probe) -> socket.socket | None:
    places: list[tuple[int, str | tuple[str, int]]] = [(socket.AF_UNIX, probe["options"].get("socket", ""))]
    if probe["port"]:
        places = [(socket.AF_INET6 if ":" in host else socket.AF_INET, (host, probe["port"])) for host in LOOPBACK]
    for family, place in places:
        connection = None
        with contextlib.suppress(OSError):
            connection = socket.socket(family)
            connection.settimeout(PATIENCE)
            connection.connect(place)
            return connection
        if connection:
            connection.close()
    return None


def _is_well(probe: Probe, connection: socket.socket) -> bool:
    """Whoever else speaks there is let in, and what is asked in one line has its right answer."""
    options = probe["options"]
    if barred(options):
        return False
    try:
        lines = connection.makefile("rb")
        if "line" in options:
            connection.sendall(f"{options['line']}\r\n".encode())
            return bool(lines.readline().decode(errors="replace").strip() == options["answer"])
        return probe["kind"] not in HELLO or _knows_who_exists(probe, connection, lines)
    except (OSError, ValueError):
        return False


def _knows_who_exists(probe: Probe, connection: socket.socket, lines: BinaryIO) -> bool:
    """SMTP and LMTP as far as RCPT: no table is missing. 450 says nothing about them (see `probe_smtp`)."""
    codes = [_code(lines)]
    commands = [HELLO[probe["kind"]], "MAIL FROM:<>"]
    if recipient := probe["options"].get("recipient"):
        commands += [f"RCPT TO:<{recipient}>", f"RCPT TO:<mailops-probe@{recipient.partition('@')[2]}>"]
    for command in commands:
        connection.sendall(f"{command}\r\n".encode())
        codes.append(_code(lines))
    connection.sendall(b"QUIT\r\n")
    return not any(code // 100 == 4 and code != 450 for code in codes)


def _code(lines: BinaryIO) -> int:
    """Of the next reply; ValueError where there is none."""
    while (line := lines.readline())[3:4] == b"-":
        pass
    return int(line[:3])
