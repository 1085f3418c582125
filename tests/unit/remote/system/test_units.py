"""What systemd is asked, how often, and how long its answer is believed."""

from __future__ import annotations

import subprocess
import time
from typing import Any

import pytest

from mailops.remote.shared.errors import AgentError
from mailops.remote.system import shell
from mailops.remote.system import units as services

WANTED = [{"unit": "one.service"}, {"unit": "two.service"}]
UNITS = ["one.service", "two.service"]


class Systemd:
    """Answers `systemctl show`; `asked` counts how often it was run, ahead or not."""

    def __init__(self) -> None:
        self.active = "active"
        self.masked: set[str] = set()
        self.asked = 0
        self.answers_ahead = True

    def _show(self, units: tuple[str, ...]) -> str:
        self.asked += 1
        load = {unit: "masked" if unit in self.masked else "loaded" for unit in units}
        head = f"ActiveState={self.active}\nUnitFileState=disabled"
        return "\n\n".join(f"Id={unit}\n{head}\nLoadState={load[unit]}" for unit in units) + "\n"

    def run(self, *command: str, **_: Any) -> subprocess.CompletedProcess[str]:
        shell.runs.append(command[0])
        return subprocess.CompletedProcess(command, 0, self._show(command[3:]), "")

    def start(self, *command: str) -> shell.Words:
        said = self._show(command[3:]) if self.answers_ahead else ""
        return lambda: said


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> Systemd:
    double = Systemd()
    monkeypatch.setattr(shell, "runs", [])
    monkeypatch.setattr(shell, "start", double.start)
    monkeypatch.setattr(services, "run", double.run)
    for name, value in {"answer": None, "runs": -1, "when": 0.0}.items():
        monkeypatch.setattr(services._Known, name, value)
    return double


def states() -> list[str]:
    return [services.states(UNITS)[unit]["ActiveState"] for unit in UNITS]


def test_one_question_is_enough_while_nothing_is_run(systemd: Systemd) -> None:
    services.look_ahead(WANTED)
    assert [states(), states()] == [["active"] * 2] * 2
    assert services.states(["two.service"])["two.service"]["Id"] == "two.service"
    assert systemd.asked == 1


def test_what_was_seen_before_a_program_was_run_is_asked_again(systemd: Systemd) -> None:
    services.look_ahead(WANTED)
    shell.runs.append("apt-get")
    systemd.active = "inactive"
    assert states() == ["inactive"] * 2
    shell.runs.append("systemctl")
    systemd.active = "failed"
    assert states() == ["failed"] * 2
    assert systemd.asked == 3


def test_an_old_answer_is_not_believed(systemd: Systemd, monkeypatch: pytest.MonkeyPatch) -> None:
    services.look_ahead(WANTED)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + services.FRESH)
    systemd.active = "failed"
    assert states() == ["failed"] * 2


def test_a_look_ahead_that_came_to_nothing_is_made_up_for(systemd: Systemd) -> None:
    systemd.answers_ahead = False
    services.look_ahead(WANTED)
    assert states() == ["active"] * 2


def test_units_that_were_not_looked_at_are_asked_for(systemd: Systemd) -> None:
    services.look_ahead(WANTED[:1])
    assert states() == ["active"] * 2
    assert services.states([]) == {}


def test_a_program_that_looks_is_started_and_read_later() -> None:
    words = shell.start("sh", "-c", "echo said; echo not this >&2; cat; exit 3")
    assert words() == "said\n"


def test_a_unit_that_is_masked_is_named_with_the_way_back(systemd: Systemd) -> None:
    systemd.active = "inactive"
    systemd.masked = {"one@-.service", "two.socket"}  # Debian 12 runs a daemon in an instance; a socket we do without
    with pytest.raises(AgentError) as refused:
        services.start(UNITS)
    told = "one@-.service cannot be started by anybody (masked); next, as root there: systemctl unmask one@-.service"
    assert refused.value.message == told
    wanted = [{"unit": unit, "roots": [], "on_change": "reload"} for unit in UNITS]
    assert services.foreseen(wanted, []) == [told, "start two.service"]
    systemd.masked = {"two.socket"}
    services.start(UNITS)
