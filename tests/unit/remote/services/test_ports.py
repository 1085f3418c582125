"""Who has a port that we need: named by process, unit and package, and stopped where it is a mail server."""

from __future__ import annotations

from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from mailops.remote.services import ports
from mailops.remote.shared.errors import AgentError
from mailops.remote.system import dpkg
from mailops.remote.system import units as services

WANTED: dict[str, Any] = {
    "services": [{"unit": "postfix.service"}, {"unit": "dovecot.service"}],
    "probes": [{"port": 25}, {"port": 993}, {"port": 0}],
    "packages": ["postfix"],
}
STATUS = """Package: courier-base
Status: install ok installed

Package: courier-mta
Status: install ok installed
Provides: mail-transport-agent

Package: courier-imap
Status: install ok installed
Provides: imap-server, something-else (= 1)

Package: nginx
Status: install ok installed
Provides: httpd
"""
UNITS = {
    "courier-mta": ["courier-mta.service", "courier.service", "odd@.service"],
    "courier-imap": ["courier-imap-ssl.service", "courier-imap.service"],
    "nginx": ["nginx.service"],
}


class Machine:
    """Its sockets' holders by port, what it runs, and what was said to systemd and to the queue."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.holders: dict[int, tuple[str, str]] = {}
        self.active = {unit for units in UNITS.values() for unit in units}
        self.ran: list[tuple[str, ...]] = []
        self.said: list[str] = []
        (root / "status").write_text(STATUS)
        (root / "courier-base.list").write_text("/usr/sbin/couriertcpd\n")
        for package, units in UNITS.items():
            (root / f"{package}.list").write_text("".join(f"/usr/lib/systemd/system/{unit}\n" for unit in units))
        patch.setattr(dpkg, "STATUS", str(root / "status"))
        patch.setattr(ports, "LISTS", str(root))
        patch.setattr(ports, "QUEUES", {"courier": (f"{root}/queue/C*", "", (("courier", "flush"),))})
        patch.setattr(ports, "_sockets", lambda wanted: {str(port): port for port in self.holders if port in wanted})
        patch.setattr(ports, "_processes", lambda sockets: [(port, port) for port in sockets.values()])
        patch.setattr(ports, "_socket_unit", lambda port: "courier-imap.socket")
        patch.setattr(ports, "_program", lambda pid: self.holders[pid][0])
        patch.setattr(services, "unit_of", lambda pid: self.holders[pid][1])
        patch.setattr(services, "active", lambda units: [unit for unit in units if unit in self.active])
        patch.setattr(ports, "run", lambda *command, **_: self.ran.append(command))

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_a_mail_server_is_known_by_the_package_of_its_unit_and_all_of_that_stops(machine: Machine) -> None:
    machine.holders = {port: ("/usr/sbin/couriertcpd", "courier-mta.service") for port in (25, 587)}
    machine.holders[993] = ("/usr/sbin/couriertcpd", "courier-imap-ssl.service")
    wanted = WANTED | {"probes": [*WANTED["probes"], {"port": 587}]}
    planned = ports.make_room(wanted, machine, dry_run=True)
    assert planned == [
        "stop courier-mta.service, which has ports 25, 587: "
        "/usr/sbin/couriertcpd (package courier-base, courier-mta.service, process 25)",
        "stop courier-imap-ssl.service, which has port 993: "
        "/usr/sbin/couriertcpd (package courier-base, courier-imap-ssl.service, process 993)",
        "stop courier-imap.service, which is of package courier-imap as well",
        "stop courier.service, which is of package courier-mta as well",
    ]
    assert machine.ran == []
    assert ports.make_room(wanted, machine) == planned
    units = ["courier-mta.service", "courier-imap-ssl.service", "courier-imap.service", "courier.service"]
    assert [command for command in machine.ran if "stop" in command] == [("systemctl", "stop", unit) for unit in units]


def test_its_queue_is_sent_on_before_it_stops_and_what_is_left_is_told_of(machine: Machine, tmp_path: Path) -> None:
    machine.holders = {25: ("/usr/sbin/couriertcpd", "courier-mta.service")}
    (tmp_path / "queue").mkdir()
    for name in ("C1", "C2", "D1"):
        (tmp_path / "queue" / name).touch()
    assert ports.make_room(WANTED, machine)[0] == f"send what waits in {tmp_path}/queue (2 messages)"
    assert machine.ran[0] == ("timeout", "-k", "5", "60", "courier", "flush")
    assert machine.said == [
        f"in {tmp_path}/queue is left what courier could not deliver (2 messages): "
        "nobody delivers it any more, look at it"
    ]


@pytest.mark.parametrize(
    ("program", "unit", "told"),
    [
        ("/usr/sbin/nginx", "nginx.service", "/usr/sbin/nginx (nginx.service, process 25)"),
        ("/opt/mta", "", "/opt/mta (no unit, process 25)"),
        ("/usr/sbin/couriertcpd", "", "/usr/sbin/couriertcpd (package courier-base, no unit, process 25)"),
    ],
)
def test_whoever_else_has_one_is_named_and_nothing_is_touched(
    machine: Machine, program: str, unit: str, told: str
) -> None:
    machine.holders = {25: (program, unit), 993: ("/usr/sbin/couriertcpd", "courier-imap-ssl.service")}
    with pytest.raises(AgentError) as refused:
        ports.make_room(WANTED, machine)
    assert refused.value.message == f"port 25 is taken by {told}; nothing was made"
    assert machine.ran == []


def test_our_own_daemons_hold_nothing_up(machine: Machine) -> None:
    machine.holders = {25: ("/usr/lib/postfix/sbin/master", "postfix@-.service"), 993: ("dovecot", "dovecot.service")}
    assert ports.make_room(WANTED | {"packages": []}, machine) == []


LISTEN = """ActiveState=active
Listen=/run/odd.sock (Stream)
Id=odd.socket

Listen=127.0.0.1:25 (Stream)
Listen=127.0.0.1:465 (Stream)
Id=fallen.socket
ActiveState=failed

Listen=[::]:125 (Stream)
Listen=127.0.0.1:25 (Stream)
Id=mta.socket
ActiveState=active
"""


def test_whoever_systemd_listens_for_is_named_and_stops_before_its_service(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine.holders[993] = ("/usr/sbin/couriertcpd", "courier-imap.service")
    monkeypatch.setattr(ports, "_processes", lambda _: [(993, 993), (993, 1)])
    (tmp_path / "courier-imap.list").write_text(
        "/usr/lib/systemd/system/courier-imap.socket\n/usr/lib/systemd/system/courier-imap.service\n"
    )
    planned = ports.make_room(WANTED | {"packages": []}, machine)
    assert planned[0] == "stop courier-imap.socket, which has port 993: systemd (courier-imap.socket, process 1)"
    stopped = [command[2] for command in machine.ran if "stop" in command]
    assert stopped == ["courier-imap.socket", "courier-imap.service"]
    monkeypatch.setattr(ports, "_socket_unit", lambda port: "dovecot.socket")
    assert [holder.unit for holder in ports.holders(WANTED)] == ["courier-imap.service"]


def test_who_has_a_socket_in_passing_holds_nothing_up(machine: Machine) -> None:
    machine.holders = {25: ("", ""), 993: ("/usr/lib/systemd/systemd-executor", "odd.service")}
    assert ports.holders(WANTED) == []


def test_systemd_says_for_which_unit_it_has_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    socket_unit = ports._socket_unit
    monkeypatch.setattr(ports, "run", lambda *_, **__: CompletedProcess((), 0, LISTEN, ""))
    assert [socket_unit(port) for port in (25, 125, 5)] == ["mta.socket", "mta.socket", ""]
    assert socket_unit(465) == "fallen.socket", "the only one that had it, a moment ago"
