"""systemd units: what runs, what starts at boot, and who must notice a changed file."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ..shared.errors import AgentError
from . import shell
from .shell import run

if TYPE_CHECKING:
    from ..shared.forms import Service

UNIT_FILES = "/etc/systemd/system"
SHOW = ("systemctl", "show", "--property=Id,ActiveState,UnitFileState,LoadState")
FRESH = 1.0  # seconds for which systemd's answer is believed, unless we have run something since


START = "start"


class Told(NamedTuple):
    """What a unit was told to do: a verb of systemctl(1)."""

    verb: str
    unit: str

    def __str__(self) -> str:
        return f"{self.verb} {self.unit}"


class _Known:
    """What systemd has been asked, and what it has said."""

    asked: list[str]
    answer: shell.Words | None = None
    states: dict[str, dict[str, str]]
    runs = -1  # how many programs had been run when it was asked
    when = 0.0  # time.monotonic() of the question


def look_ahead(services: list[Service]) -> None:
    """Begin to ask systemd what `states` is going to be asked; the agent has other things to do meanwhile."""
    if services:
        _Known.asked = [service["unit"] for service in services]
        _Known.answer = shell.start(*SHOW, *_Known.asked)
        _Known.runs, _Known.when = len(shell.runs), time.monotonic()


def states(units: list[str]) -> dict[str, dict[str, str]]:
    """ActiveState, UnitFileState and LoadState of each unit, from one `systemctl show`."""
    if not units:
        return {}
    answer, _Known.answer = _Known.answer, None
    if answer:
        _Known.states = _parsed(_Known.asked, answer())
    fresh = _Known.runs == len(shell.runs) and time.monotonic() - _Known.when < FRESH
    if not fresh or not set(units).issubset(_Known.states):
        _Known.states = _parsed(units, run(*SHOW, *units).stdout)
        _Known.runs, _Known.when = len(shell.runs), time.monotonic()
    return {unit: _Known.states[unit] for unit in units}


def _parsed(units: list[str], text: str) -> dict[str, dict[str, str]]:
    if not text:  # a look ahead that came to nothing: it is asked again, and then it says why
        return {}
    blocks = text.strip().split("\n\n")
    parsed = [dict(line.split("=", 1) for line in block.splitlines()) for block in blocks]
    return dict(zip(units, parsed, strict=True))


def names(units: list[str]) -> dict[str, str]:
    """Every name that the processes of `units` run under, and the unit that it stands for."""
    return {name: unit for unit in units for name in (unit, instance(unit), unit.replace(".service", ".socket"))}


def instance(unit: str) -> str:
    """Where Debian 12 runs a daemon that may run several times: the unit itself only stands for its instances."""
    return unit.replace(".service", "@-.service")


def unit_of(pid: int) -> str:
    """The unit that systemd runs the process in; "" for one that somebody started by hand."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
        for line in file:
            if line.startswith("0::") or ":name=systemd:" in line:
                names = [name for name in line.strip().split("/") if name.endswith(".service")]
                if names and not names[-1].startswith("user@"):
                    return names[-1]
    return ""


def at_boot(services: list[Service], dry_run: bool = False) -> list[str]:
    """Mail daemons never start at boot, they wait for the vault; the others do."""
    now = states([service["unit"] for service in services])
    found: dict[str, list[str]] = {}
    for service in services:
        unit, state = service["unit"], now[service["unit"]]["UnitFileState"]
        verb = "disable" if service["mail"] else "enable"
        if state == {"disable": "enabled", "enable": "disabled"}[verb]:
            found.setdefault(verb, []).append(unit)
    if not dry_run:
        for verb, units in found.items():
            run("systemctl", verb, *units)
    return [f"{verb} {unit} at boot" for verb, units in found.items() for unit in units]


def touched(service: Service, paths: list[str]) -> str:
    """What the changed `paths` ask of a service: "" for nothing, else "reload" or "restart"."""
    unit = service["unit"]
    instances = unit.replace(".", "@.")  # see `instance`
    own_unit = (f"{UNIT_FILES}/{unit}", f"{UNIT_FILES}/{unit}.d/", f"{UNIT_FILES}/{instances}.d/")
    if any(path.startswith(own_unit) for path in paths):
        return "restart"
    if any(path == root or path.startswith(f"{root}/") for path in paths for root in service["roots"]):
        return service["on_change"]
    return ""


def running(services: list[Service]) -> list[str]:
    """The units of `services` that run now."""
    return active([service["unit"] for service in services])


def active(units: list[str]) -> list[str]:
    """Those of `units` that run now."""
    return [unit for unit, state in states(units).items() if state["ActiveState"] == "active"]


def activate(services: list[Service], paths: list[str]) -> list[Told]:
    """Start what should run and is down; reload or restart what runs with changed files.

    AgentError when somebody did not; by then everybody has been told.
    """
    due = _due(services, paths)
    down = [unit for verb, unit in due if verb == START]
    others: list[Callable[[], None]] = [partial(_tell, verb, unit) for verb, unit in due if verb != START]
    do_all([lambda: start(down)] * bool(down) + others)
    return due


def foreseen(services: list[Service], paths: list[str]) -> list[str]:
    """What `activate` would do, a line each, and whom it could not start."""
    due = _due(services, paths)
    down = [unit for verb, unit in due if verb == START]
    shut = masked(down) if down else []
    barred = [names(down)[name] for name in shut]
    return [_shut(shut)] * bool(shut) + [str(told) for told in due if told.unit not in barred]


def _due(services: list[Service], paths: list[str]) -> list[Told]:
    now = states([service["unit"] for service in services])
    down = [unit for unit, state in now.items() if state["ActiveState"] != "active"]
    told = [Told(touched(service, paths), service["unit"]) for service in services if service["unit"] not in down]
    return [*(Told(START, unit) for unit in down), *(one for one in told if one.verb)]


def do_all(works: Sequence[Callable[[], object]]) -> None:
    """Each of `works`, whatever becomes of the others; then an AgentError for those that failed."""
    failed: list[AgentError] = []
    for work in works:
        try:
            work()
        except AgentError as error:
            failed.append(error)
    if failed:
        units = [unit for error in failed for unit in error.units]
        raise AgentError("; ".join(error.message for error in failed), units=units)


def _tell(verb: str, unit: str) -> None:
    done = run("systemctl", verb, unit, check=False, timeout=180)
    if done.returncode:
        raise AgentError(f"{unit} did not {verb}: {log(unit)}", units=[unit])


def start(units: list[str]) -> None:
    """Start `units` together; AgentError carries the log of the first that fails, or names who is masked."""
    _forget_failures(units)
    if shut := masked(units):
        raise AgentError(_shut(shut), units=units)
    if run("systemctl", "start", *units, check=False, timeout=180).returncode:
        broken = [unit for unit, state in states(units).items() if state["ActiveState"] != "active"]
        reason = log(broken[0]) if broken else "no reason given"
        raise AgentError(f"{', '.join(broken)} did not start: {reason}", units=broken)


def masked(units: list[str]) -> list[str]:
    """Those of the daemons of `units` that nobody can start."""
    daemons = [name for name in names(units) if name.endswith(".service")]
    return [unit for unit, state in states(daemons).items() if state["LoadState"] == "masked"]


def _shut(units: list[str]) -> str:
    told = f"{' and '.join(units)} cannot be started by anybody (masked)"
    return f"{told}; next, as root there: systemctl unmask {' '.join(units)}"


def restart(units: list[str]) -> None:
    """Start `units` afresh, one after the other, whatever state they are in; AgentError as with `activate`."""
    for unit in units:
        _forget_failures([unit])
    do_all([partial(_tell, "restart", unit) for unit in units])


def _forget_failures(units: list[str]) -> None:
    """Lest systemd refuse to start what has failed too often; nor what it needs, the queue's mount above all."""
    run("systemctl", "reset-failed", *units, "mailops-*.service", check=False)


def stop(units: list[str]) -> None:
    if units:
        run("systemctl", "stop", *units, timeout=180)


def log(unit: str, lines: int = 5) -> str:
    """The unit's last own words in the journal, on one line."""
    text = run("journalctl", "--no-pager", "--output=cat", f"--lines={lines}", f"--unit={unit}", check=False)
    return " | ".join(text.stdout.strip().splitlines())
