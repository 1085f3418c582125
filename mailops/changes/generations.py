"""The generations of a machine's files: listing them, showing what differs, and going back to an earlier one."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from mailops import bootstrap, fleet
from mailops.cli import words
from mailops.errors import BAD_INPUT, MailopsError
from mailops.roles import MADE
from mailops.screen import diffs, tables
from mailops.ssh.machine import Answers, Machine

if TYPE_CHECKING:
    from typing import TypedDict

    from mailops.remote.shared.calls import Changed, Diff, Generations, Past, RollbackArgs

    # A Diff as it may be printed.
    Shown = TypedDict("Shown", {"from": int, "to": int, "files": list[diffs.Shown]})

AFTERWARDS = (
    "generation {number} is active again; {packages}, system users, accounts and keys stayed as they are",
    "hosts.toml is as it was: the next push or bootstrap does what it says; fab -H {name} plan shows what that is",
)


def show(c: Any, as_json: bool = False) -> None:
    """List the generations that each machine keeps."""
    fleet.each(c, MADE, lambda machine: machine.call("generations", {}), as_json, _print_generations)


def rollback(
    c: Any, to: str | None = None, overwrite: bool = False, as_json: bool = False, take_over: bool = False
) -> None:
    """Bring the files of generation `to` back on one machine, or those of the one before the active.

    MailopsError: 2 when `to` is no number or when more than one machine is meant, 3 when files were edited by
    hand and `overwrite` is not set, 1 when the machine has no such generation.
    """
    number = _number(to)
    _need_one(c, "rollback", to, "a rollback is for one machine at a time")
    args: RollbackArgs = {"who": fleet.who(), "to": number, "overwrite": overwrite, "take_over": take_over}
    fleet.each(c, MADE, lambda machine: _rollback(machine, args), as_json)


def diff(c: Any, since: str | None = None, as_json: bool = False) -> None:
    """What the active generation changed, or all that changed since generation `since`.

    MailopsError: 2 when `since` is no number, or is one while more than one machine is meant.
    """
    number = _number(since)
    if number:
        _need_one(c, "diff", since, "a generation's number is that of one machine")
    fleet.each(c, MADE, lambda machine: _diff(machine, number), as_json, _print_diff)


def _number(text: str | None) -> int | None:
    return None if text is None else words.number(text, "a generation; `fab generations` lists them")


def _need_one(c: Any, task: str, word: str | None, why: str) -> None:
    hosts = fleet.select(c, fleet.load(), MADE)
    if len(hosts) > 1:
        command = f"fab -H {hosts[0].name} {task} {word or ''}".rstrip()
        raise MailopsError(f"{why}, and this means {len(hosts)}", f"name it: {command}", BAD_INPUT)


def _rollback(machine: Machine, args: RollbackArgs) -> Changed:
    started = time.monotonic()
    answers: Answers = {"edited": partial(diffs.show_edits, machine.host.name, machine.listener)}
    done: Changed = machine.call("rollback", args, answers)
    result = done | {"seconds": round(time.monotonic() - started, 1)}
    names = {"number": result["generation"], "name": machine.host.name}
    names |= {"packages": "other packages" if "sources" in result["changes"] else "packages"}
    afterwards = (line.format(**names) for line in AFTERWARDS)
    for text in (bootstrap.summary(result), *afterwards):
        machine.listener.say(text)
    return result


def _diff(machine: Machine, since: int | None) -> Shown:
    result: Diff = machine.call("diff", {"since": since})
    labels = (f"generation {result['from']}", f"generation {result['to']}")
    return {"from": result["from"], "to": result["to"], "files": diffs.all_shown(result["files"], labels)}


def _print_generations(name: str, result: Generations) -> None:
    if not result["generations"]:
        print(f"{name}  no generation yet")
        return
    print(f"{name}  generation {result['active']} is active")
    tables.show([_row(each, result["active"]) for each in result["generations"]])


def _row(generation: Past, active: int) -> dict[str, Any]:
    number = generation["number"]
    return {
        "number": number,
        "": "active" if number == active else "" if generation["proven"] else "not proven",
        "when": tables.when(generation["when"]),
        "who": generation["who"],
        "from": generation["from"],
        "task": generation["task"],
        "revision": generation["revision"],
        "changed": tables.few(generation["changed"], "file"),
    }


def _print_diff(name: str, result: Shown) -> None:
    span = f"generation {result['from']} to {result['to']}"
    count = len(result["files"])
    print(f"{name}  {span}: {'nothing differs' if not count else f'{count} files' if count > 1 else '1 file'}")
    for entry in result["files"]:
        print(f"{name}  {diffs.line(entry)}")
    for entry in result["files"]:
        if entry["diff"]:
            print(f"\n{entry['diff']}", end="")
