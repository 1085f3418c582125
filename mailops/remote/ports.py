"""Who has the ports that our daemons need: other mail servers, which make room for them, and others, who are named.

Read from proc(5) and dpkg's own files. An old mail server's queue is sent on while that server still runs; what is
left of it stays where it is, and is told of: nobody delivers it any more.
"""

from __future__ import annotations

import contextlib
import glob
import os
from typing import Any, NamedTuple

from . import packages, services
from .errors import AgentError
from .shell import run

LISTEN = "0A"  # the kernel's TCP_LISTEN
MAIL = {"mail-transport-agent", "imap-server", "pop3-server"}  # what Debian's packages of mail servers provide
# Where other mail servers keep what they have not delivered yet (a file for each message), and what sends it now.
QUEUES = {
    "exim4": ("/var/spool/exim4/input/*-H", "/var/spool/exim4/input/?/*-H", ("exim4", "-qf")),
    "sendmail": ("/var/spool/mqueue/qf*", "/var/spool/mqueue-client/qf*", ("sendmail-mta", "-q")),
    "nullmailer": ("/var/spool/nullmailer/queue/*", "", ("nullmailer-send", "-s")),
    "dma": ("/var/spool/dma/Q*", "", ("dma", "-q1")),
    "opensmtpd": ("/var/spool/smtpd/queue/*/*", "", ("smtpctl", "schedule", "all")),
    "courier": ("/var/lib/courier/msgs/*/C*", "", ("courier", "flush")),
}
FLUSH = "60"  # seconds


class Holder(NamedTuple):
    """Who has a port: a process, and what it belongs to ("" where it belongs to none)."""

    port: int
    pid: int
    program: str
    unit: str
    package: str

    def __str__(self) -> str:
        belongs = [f"package {self.package}" if self.package else "", self.unit or "no unit", f"process {self.pid}"]
        return f"{self.program} ({', '.join(filter(None, belongs))})"


def make_room(wanted: dict[str, Any], link: Any, dry_run: bool = False) -> list[str]:
    """Stop the mail servers that have our ports. AgentError, and nothing is touched, when somebody else has one."""
    found = holders(wanted)
    if strangers := [holder for holder in found if not (_is_mail(holder) and holder.unit)]:
        told = "; ".join(f"port {holder.port} is taken by {holder}" for holder in strangers)
        raise AgentError(f"{told}; nothing was made", "stop it or give it another port, then try again")
    units = {holder.unit: holder for holder in found}
    waiting = _waiting() if units or "postfix" in packages.missing(wanted["packages"]) else {}
    if not dry_run and (units or waiting):
        _send(waiting)
        for unit in units:
            run("systemctl", "stop", unit, timeout=180)
            run("systemctl", "disable", unit, check=False)
        for name, paths in _waiting().items():
            text = f"in {_folder(paths)} is left what {name} could not deliver ({_messages(paths)})"
            link.say(f"{text}: nobody delivers it any more, look at it")
    sending = [f"send what waits in {_folder(paths)} ({_messages(paths)})" for paths in waiting.values()]
    return sending + [f"stop {unit}, which has port {holder.port}: {holder}" for unit, holder in units.items()]


def holders(wanted: dict[str, Any]) -> list[Holder]:
    """Those who listen on a port of ours and are not ours."""
    ours = services.names([service["unit"] for service in wanted["services"]])
    sockets = _sockets({probe["port"] for probe in wanted["probes"] if probe["port"]})
    found = {}
    for port, pid in _processes(sockets) if sockets else ():
        unit, program = services.unit_of(pid), _program(pid)
        if unit not in ours and pid != 1:
            found[port] = Holder(port, pid, program, unit, _package(program))
    return [found[port] for port in sorted(found)]


def _sockets(ports: set[int]) -> dict[str, int]:
    """The inodes of the sockets that listen on one of `ports`, and that port."""
    found = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(FileNotFoundError), open(table, encoding="ascii") as file:
            for _, local, _, state, *rest in map(str.split, file.readlines()[1:]):
                port = int(local.rpartition(":")[2], 16)
                if state == LISTEN and port in ports:
                    found[rest[5]] = port
    return found


def _processes(sockets: dict[str, int]) -> list[tuple[int, int]]:
    """(port, process) for each process that holds one of the sockets; of many the first, which is the master."""
    found: dict[int, int] = {}
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdecimal()):
        with contextlib.suppress(OSError):  # it has just gone
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    port = sockets.get(os.readlink(f"/proc/{pid}/fd/{descriptor}").removeprefix("socket:[")[:-1])
                    if port and pid != 1:
                        found.setdefault(port, pid)
    return list(found.items())


def _program(pid: int) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")
    return "a program that cannot be seen"


def _package(program: str) -> str:
    """The package that the program is of (dpkg's lists of files)."""
    names = {program.encode(), program.removeprefix("/usr").encode()}
    for path in glob.iglob("/var/lib/dpkg/info/*.list"):
        with open(path, "rb") as file:
            if not names.isdisjoint(file.read().split(b"\n")):
                return os.path.basename(path).removesuffix(".list").partition(":")[0]
    return ""


def _is_mail(holder: Holder) -> bool:
    """Whether it is of a package that Debian takes for a mail server, or was (it may be removed, and run on)."""
    name = holder.unit.removesuffix(".service").partition("@")[0]
    return name in QUEUES or bool(MAIL & packages.provides(holder.package))


def _waiting() -> dict[str, list[str]]:
    """The messages in other mail servers' queues."""
    found = {name: [*glob.glob(one), *glob.glob(other)] for name, (one, other, _) in QUEUES.items()}
    return {name: paths for name, paths in found.items() if paths}


def _send(waiting: dict[str, list[str]]) -> None:
    for name in waiting:
        with contextlib.suppress(AgentError):  # what becomes of it the queue tells
            run("timeout", FLUSH, *QUEUES[name][2], check=False, timeout=None)


def _messages(paths: list[str]) -> str:
    return f"{len(paths)} messages" if len(paths) > 1 else "1 message"


def _folder(paths: list[str]) -> str:
    return os.path.dirname(min(paths))


def are_all_ours(wanted: dict[str, Any]) -> bool:
    """Whether our daemons run, so that nobody else can have their ports, and are still installed.

    A Postfix whose package another mail server has replaced may run on (Debian 13 leaves it so).
    """
    running = services.running(wanted["services"])
    return len(running) == len(wanted["services"]) and not packages.missing(wanted["packages"])
