"""Who did what to the machines, as the machines themselves have recorded it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mailops import fleet
from mailops.cli import words
from mailops.roles import MADE
from mailops.screen import tables
from mailops.ssh import protocol

if TYPE_CHECKING:
    from mailops.remote.shared.calls import History
    from mailops.remote.shared.forms import Entry


def show(c: Any, count: str, as_json: bool = False) -> None:
    """List the last `count` runs on each machine that changed something, or tried to."""
    number = min(words.number(count, "a count of runs"), protocol.RUNS)
    fleet.each(c, MADE, lambda machine: machine.call("history", {"count": number}), as_json, _print)


def _print(name: str, result: History) -> None:
    if result.get("unseen"):
        print(f"{name}  the vault is closed, and what was done to accounts is told in it; next: fab -H {name} unlock")
    if not result["entries"]:
        print(f"{name}  no run is recorded yet")
        return
    print(f"{name}  the last runs that changed something, or tried to")
    tables.show([_row(entry) for entry in result["entries"]])


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "when": tables.when(entry["when"]),
        "who": entry["who"],
        "from": entry["from"],
        "task": entry["task"],
        "revision": entry.get("revision", ""),  # of a run that was cut short, not everything is known
        "seconds": f"{entry['seconds']:.1f}" if entry.get("seconds") is not None else "",
        "outcome": entry["outcome"],
        "changed": _changed(entry),
    }


def _changed(entry: Entry) -> str:
    """The rooms with what changed in them, and why a run did not do what it should."""
    rooms = [
        "; ".join(lines) if room == "accounts" and isinstance(lines, list) else _named(room, _amount(lines))
        for room, lines in entry["changed"].items()
    ]
    return "; ".join([*rooms, *([entry["why"]] if entry.get("why") else [])])


def _named(room: str, amount: str) -> str:
    """What changed, after the name of its room, unless it begins with that."""
    return amount if amount.startswith(f"{room.removesuffix('s')} ") else f"{room} {amount}"


def _amount(lines: list[str] | int) -> str:
    return str(lines) if isinstance(lines, int) else tables.few(lines, "change")
