"""`ssh host true`, which is what being there costs, and mailops' own two: nothing to do, and one file changed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.lab import CHANGED_FILE, FAB, PROJECT, House, environment
from benchmarks.rounds import Contender
from mailops.lab.layout import LabError

YARDSTICK, NOOP, CHANGE = "ssh_true", "mailops_noop", "mailops_change"
# Its default is a post-quantum exchange, which costs OpenSSH's client a tenth of a second of computing.
CURVE = "-oKexAlgorithms=curve25519-sha256"


def contenders(house: House) -> list[Contender]:
    state = State(house)
    return [
        ssh_true(house, YARDSTICK),
        ssh_true(house, f"{YARDSTICK}_curve25519", CURVE),
        Contender(NOOP, bootstrap, lambda: environment(state.site), nothing_changed, folder=PROJECT),
        # There and back, so that the machine is as the others expect it when their turn comes.
        Contender(
            CHANGE,
            lambda: [*bootstrap(), "--json"],
            lambda: environment(state.other),
            one_file_changed,
            after=state.turn,
            turns=2,
            folder=PROJECT,
        ),
    ]


def ssh_true(house: House, name: str, *options: str) -> Contender:
    """A cold login, and nothing done there."""
    command = [*ssh(house, "mail", *options), "true"]
    return Contender(name, lambda: command, lambda: environment(house.sites[0]))


def ssh(house: House, name: str, *options: str) -> list[str]:
    """No shared connection, no agent, no configuration but OpenSSH's defaults; the machine's key is known."""
    host = house.hosts[name]
    identity = ["-i", str(host["identity"]), "-oIdentitiesOnly=yes"]
    known = [f"-oUserKnownHostsFile={house.known_hosts}", "-oBatchMode=yes"]
    return ["ssh", "-F", "none", *identity, *known, *options, f"{host['user']}@{host['address']}"]


def bootstrap() -> list[str | Path]:
    """The line that a person types in the site's folder."""
    return [FAB, "-H", "mail", "bootstrap"]


@dataclass
class State:
    """Which of the two site files the machine is like."""

    house: House
    number: int = 0

    @property
    def site(self) -> Path:
        return self.house.sites[self.number]

    @property
    def other(self) -> Path:
        return self.house.sites[1 - self.number]

    def turn(self) -> None:
        self.number = 1 - self.number


def nothing_changed(said: str) -> None:
    if "nothing changed" not in said:
        raise LabError(f"{NOOP} was to change nothing, and it said: {' / '.join(said.split())[-300:]}")


def one_file_changed(said: str) -> None:
    """That one file, and Postfix reloaded for it."""
    changes = _json(said)["mail"]["changes"]
    lines = [line for room in changes.values() for line in room]
    if changes.get("files") != [CHANGED_FILE] or not any(_is_reload(line) for line in lines) or len(lines) != 2:
        raise LabError(f"{CHANGE} was to change {CHANGED_FILE} and to reload Postfix, and it did: {changes}")


def _is_reload(line: str) -> bool:
    return line.startswith("reload postfix")


def _json(said: str) -> Any:
    """stdout and stderr came together: the JSON starts at a line with a brace alone, and goes to the end."""
    lines = said.splitlines()
    start = next((number for number, line in enumerate(lines) if line == "{"), 0)
    end = next((number for number, line in enumerate(lines) if line == "}"), len(lines))
    try:
        return json.loads("\n".join(lines[start : end + 1]))
    except ValueError:
        raise LabError(f"no JSON came from fab: {said[-300:]}") from None
