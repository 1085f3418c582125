"""Daemons that are there and do nothing: what has been stopped by a signal (SIGSTOP, a debugger that was left, a frozen
container) keeps its ports and its unit stays active, and mail waits. proc(5) tells of it.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from . import units

if TYPE_CHECKING:
    from ..shared.forms import Service


def found(wanted: list[Service]) -> dict[str, list[str]]:
    """By unit, the processes of the services that are stopped, as a person is told of them."""
    asleep: dict[str, list[str]] = {}
    ours = units.names([service["unit"] for service in wanted])
    for pid, program in _stopped():
        if unit := ours.get(units.unit_of(pid)):
            asleep.setdefault(unit, []).append(f"{program} (process {pid})")
    return asleep


def told(wanted: list[Service]) -> dict[str, str]:
    """By unit, what is wrong with it, and what to do."""
    said = "a signal has stopped {}, and mail waits; next: fab bootstrap, or as root there: systemctl restart {}"
    return {unit: said.format(", ".join(names), unit) for unit, names in found(wanted).items()}


def _stopped() -> list[tuple[int, str]]:
    """(process, program) for each process that is stopped, of anybody."""
    stopped = []
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdecimal()):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            program, state = parsed(file.read())
            if state == "T":
                stopped.append((pid, program))
    return stopped


def parsed(stat: str) -> tuple[str, str]:
    """(program, state) of a process; a program's name may have brackets and spaces in it."""
    program, _, rest = stat.partition("(")[2].rpartition(")")
    return program, rest.split()[0]
