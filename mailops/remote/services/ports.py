"""Who has the ports that our daemons need: other mail servers, which make room for them, and others, who are named.

Read from proc(5) and dpkg's own files. An old mail server's queue is sent on while that server still runs; what is
left of it stays where it is, and is told of: nobody delivers it any more. What is of the same package stops as well:
nobody should read mail on a port that we do not need, in mailboxes that get none any more.
"""

from __future__ import annotations

import contextlib
import glob
import os
from typing import TYPE_CHECKING, NamedTuple

from ..shared.errors import AgentError
from ..system import dpkg
from ..system import units as services
from ..system.shell import run

if TYPE_CHECKING:
    from ..shared.calls import Link
    from ..shared.forms import Manifest

LISTS = "/var/lib/dpkg/info"  # which files each package has brought
LISTEN = "0A"  # the kernel's TCP_LISTEN
MAIL = {"mail-transport-agent", "imap-server", "pop3-server"}  # what Debian's packages of mail servers provide
# Where other mail servers keep what they have not delivered yet (a file for each message), and what sends it now.
QUEUES = {
    "exim4": ("/var/spool/exim4/input/*-H", "/var/spool/exim4/input/?/*-H", (("exim4", "-qf"),)),
    "sendmail": (
        "/var/spool/mqueue/qf*",
        "/var/spool/mqueue-client/qf*",
        (("sendmail-mta", "-Ac", "-q"), ("sendmail-mta", "-q")),
    ),
    "nullmailer": ("/var/spool/nullmailer/queue/*", "/var/spool/nullmailer/failed/*", (("nullmailer-send", "-s"),)),
    "dma": ("/var/spool/dma/Q*", "", (("dma", "-q1"),)),
    "opensmtpd": ("/var/spool/smtpd/queue/*/*", "", (("smtpctl", "schedule", "all"),)),
    "courier": ("/var/lib/courier/msgs/*/C*", "/var/lib/courier/tmp/*/C*", (("courier", "flush"),)),
}
FLUSH = "60"  # seconds
# A process that has just ended; systemd's, on their way to become a program: they have its sockets for a moment.
PASSING = ("", "/usr/lib/systemd/systemd-executor")
SYSTEMD = 1  # its process: it listens for a unit's socket, whether or not the service behind it runs


class Holder(NamedTuple):
    """Who has a port: a process, and what it belongs to ("" where it belongs to none)."""

    port: int
    pid: int
    program: str
    unit: str
    package: str
    owner: str  # the package that the unit is of; "" where somebody has written it

    def __str__(self) -> str:
        belongs = [f"package {self.package}" if self.package else "", self.unit or "no unit", f"process {self.pid}"]
        return f"{self.program} ({', '.join(filter(None, belongs))})"


def make_room(wanted: Manifest, link: Link, dry_run: bool = False) -> list[str]:
    """Stop the mail servers that have our ports. AgentError, and nothing is touched, when somebody else has one."""
    found = holders(wanted)
    if strangers := [holder for holder in found if not (_is_mail(holder) and holder.unit)]:
        told = "; ".join(f"port {holder.port} is taken by {holder}" for holder in strangers)
        raise AgentError(f"{told}; nothing was made", "stop it or give it another port, then try again")
    units = {holder.unit: [one for one in found if one.unit == holder.unit] for holder in found}
    others = _siblings(found, wanted)
    waiting = _waiting() if units or "postfix" in dpkg.missing(wanted["packages"]) else {}
    if not dry_run and (units or waiting):
        _send(waiting)
        for unit in [*units, *others]:
            run("systemctl", "stop", unit, timeout=180)
            run("systemctl", "disable", unit, check=False)
        for name, paths in _waiting().items():
            text = f"in {_folder(paths)} is left what {name} could not deliver ({_messages(paths)})"
            link.say(f"{text}: nobody delivers it any more, look at it")
    sending = [f"send what waits in {_folder(paths)} ({_messages(paths)})" for paths in waiting.values()]
    stopping = [f"stop {unit}, which has {_ports(holders)}: {holders[0]}" for unit, holders in units.items()]
    return sending + stopping + [f"stop {unit}, which is of package {owner} as well" for unit, owner in others.items()]


def _ports(found: list[Holder]) -> str:
    return f"port{'s' if found[1:] else ''} {', '.join(str(holder.port) for holder in found)}"


def _siblings(found: list[Holder], wanted: Manifest) -> dict[str, str]:
    """Running units of the same packages that have none of our ports, and the package of each."""
    owners: dict[str, str] = {}
    for owner in {holder.owner for holder in found if holder.owner}:
        for path in glob.glob(f"{LISTS}/{owner}.list") + glob.glob(f"{LISTS}/{owner}:*.list"):
            with open(path, encoding="utf-8") as file:
                names = [os.path.basename(line) for line in file.read().split("\n") if "/systemd/system/" in line]
            owners |= {name: owner for name in names if name.endswith(".service") and "@" not in name}
    known = {holder.unit for holder in found} | services.names(
        [service["unit"] for service in wanted["services"]]
    ).keys()
    return {unit: owners[unit] for unit in services.active(sorted(owners.keys() - known))}


def holders(wanted: Manifest) -> list[Holder]:
    """Those who listen on a port of ours and are not ours."""
    ours = services.names([service["unit"] for service in wanted["services"]])
    sockets = _sockets({probe["port"] for probe in wanted["probes"] if probe["port"]})
    found = []
    for port, pid in (
        sorted(_processes(sockets)) if sockets else ()
    ):  # systemd first: its service would be started again
        unit = _socket_unit(port) if pid == SYSTEMD else services.unit_of(pid)
        program = "systemd" if pid == SYSTEMD else _program(pid)
        if unit not in ours and program not in PASSING:
            found.append(Holder(port, pid, program, unit, _package(program), _package(*_unit_files(unit))))
    return found


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
    """(port, process) for who holds one of the sockets: systemd, and of many others the first, which is the master."""
    found: dict[tuple[int, bool], int] = {}
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdecimal()):
        with contextlib.suppress(OSError):  # it has just gone
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    port = sockets.get(os.readlink(f"/proc/{pid}/fd/{descriptor}").removeprefix("socket:[")[:-1])
                    if port:
                        found.setdefault((port, pid == SYSTEMD), pid)
    return [(port, pid) for (port, _), pid in found.items()]


def _socket_unit(port: int) -> str:
    """The unit for which systemd listens on the port; "" where it says of none.

    One that has just failed counts where no other has it: its service may not have survived our own question.
    """
    text = run("systemctl", "show", "--property=Id,Listen,ActiveState", "*.socket", check=False).stdout
    found: dict[bool, str] = {}
    for block in text.split("\n\n"):
        pairs = [line.partition("=") for line in block.strip().splitlines()]
        said = {key: value for key, _, value in pairs}
        if any(key == "Listen" and value.split(" ")[0].endswith(f":{port}") for key, _, value in pairs):
            found.setdefault(said.get("ActiveState") in ("inactive", "failed"), said.get("Id", ""))
    return found.get(False) or found.get(True, "")


def _program(pid: int) -> str:
    """ "" for a process that has ended meanwhile."""
    try:
        return os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")
    except FileNotFoundError:
        return ""
    except OSError:
        return "a program that cannot be seen"


def _unit_files(unit: str) -> list[str]:
    """Where a package may have put the unit."""
    name, kind = os.path.splitext(unit)
    template = f"{name.partition('@')[0]}@" if "@" in name else name
    return [f"/usr/lib/systemd/system/{template}{kind}", f"/etc/init.d/{name}"] if unit else []


def _package(*files: str) -> str:
    """The package that one of the files is of (dpkg's lists of files)."""
    names = {name.encode() for file in files for name in (file, file.removeprefix("/usr"))}
    for path in sorted(glob.iglob(f"{LISTS}/*.list")) if names else ():
        with open(path, "rb") as file:
            if not names.isdisjoint(file.read().split(b"\n")):
                return os.path.basename(path).removesuffix(".list").partition(":")[0]
    return ""


def _is_mail(holder: Holder) -> bool:
    """Whether it is of a package that Debian takes for a mail server, or was (it may be removed, and run on)."""
    name = holder.unit.removesuffix(".service").partition("@")[0]
    return name in QUEUES or bool(MAIL & (dpkg.provides(holder.package) | dpkg.provides(holder.owner)))


def _waiting() -> dict[str, list[str]]:
    """The messages in other mail servers' queues."""
    found = {name: [*glob.glob(one), *glob.glob(other)] for name, (one, other, _) in QUEUES.items()}
    return {name: paths for name, paths in found.items() if paths}


def _send(waiting: dict[str, list[str]]) -> None:
    for command in (command for name in waiting for command in QUEUES[name][2]):
        with contextlib.suppress(AgentError):  # what becomes of it the queue tells
            run("timeout", "-k", "5", FLUSH, *command, check=False, timeout=None)


def _messages(paths: list[str]) -> str:
    return f"{len(paths)} messages" if len(paths) > 1 else "1 message"


def _folder(paths: list[str]) -> str:
    folders = sorted({os.path.dirname(path) for path in paths})
    return os.path.commonpath(folders) if folders[3:] else " and ".join(folders)


def are_all_ours(wanted: Manifest) -> bool:
    """Whether our daemons run, so that nobody else can have their ports, and are still installed.

    A Postfix whose package another mail server has replaced may run on (Debian 13 leaves it so).
    """
    running = services.running(wanted["services"])
    return len(running) == len(wanted["services"]) and not dpkg.missing(wanted["packages"])
