"""Mail that waits on the machines: shown, tried again, held, released, deleted."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mailops import fleet
from mailops.errors import BAD_INPUT, MailopsError
from mailops.roles import MADE
from mailops.screen import tables
from mailops.ssh.machine import Machine

if TYPE_CHECKING:
    from mailops.remote.shared.calls import Change, ChangeArgs, Counts, Deletion, Done, Listed, Shown, Waiting

ID = re.compile(r"[0-9A-Za-z]{5,30}")
FEW = 20  # messages that have a line each
WIDE = 40  # characters of an address in a table, WIDEST of a reason
WIDEST = 160
# Why a message waits that was not tried yet, or is not to be.
STATES = {"hold": "on hold", "active": "on its way just now", "incoming": "new", "maildrop": "new", "deferred": ""}
# What tells a reason from the next one of its kind, and nothing else.
OWN = re.compile(r"<[^<>]*>|\[[^\]]*\]|\S+@\S+|\d+")


def show(c: Any, each: bool = False, as_json: bool = False) -> None:
    """List what waits on each machine; many messages by their reasons, unless `each` is wanted."""

    def listing(name: str, result: Listed) -> None:
        _list(name, result, each)

    fleet.each(c, MADE, lambda machine: machine.call("queue", {"task": "queue"}), as_json, listing)


def look(c: Any, name: str, as_json: bool = False) -> None:
    """Show one message, on the machine that has it; MailopsError (1) when none has."""
    wanted = _ids(name)
    if len(wanted) != 1:
        raise MailopsError("one message is shown at a time", "fab queue shows the IDs", BAD_INPUT)
    found: list[str] = []

    def work(machine: Machine) -> Shown:
        result = machine.call("queue", {"task": "queue.show", "id": wanted[0]})
        found.extend([machine.host.name] if result["message"] else [])
        return result

    fleet.each(c, MADE, work, as_json, _print_message)
    if not found:
        raise _missing(wanted)


def flush(c: Any) -> None:
    """Have each machine try again, now, what it could not deliver."""

    def tell(name: str, result: Counts) -> None:
        held = f" ({result['held']} on hold, which stay)" if result["held"] else ""
        if not (waiting := result["count"] - result["held"]):
            print(f"{name}  nothing waits to be tried again{held}")
            return
        print(f"{name}  {_messages(waiting)} tried again now{held}; next: fab -H {name} queue shows what is left")

    fleet.each(c, MADE, lambda machine: machine.call("queue", {"task": "queue.flush"}), show=tell)


def change(c: Any, task: Change, ids: str | None, which: str = "", sure: bool = False) -> None:
    """Delete, hold or release messages: those of `ids`, or all that are `which` ("deferred", "all").

    MailopsError (2) when nothing is chosen, or nobody is there to say yes; (1) when there is no such message.
    """
    wanted = _ids(ids or "", task)
    if bool(wanted) == bool(which):
        flags = "--deferred or --all" if task == "queue.rm" else "--all"
        raise MailopsError(f"say which messages: their IDs, or {flags}", "fab queue shows the IDs", BAD_INPUT)
    if which and task == "queue.rm" and not (sure or sys.stdin.isatty()):
        hint = f"fab queue.rm --{which} --yes deletes without a question"
        raise MailopsError("nobody is at the terminal to say yes", hint, BAD_INPUT)
    args: ChangeArgs = {"task": task, "who": fleet.who(), "ids": wanted, "which": which, "sure": sure}
    found: set[str] = set()

    def work(machine: Machine) -> Done:
        result = machine.call("queue", args, {"delete": lambda data: _agreed(machine.host.name, data)})
        if not result["agreed"]:
            raise MailopsError(f"{machine.host.name}: nothing was deleted")
        found.update(set(wanted) - set(result["missing"]))
        return result

    def tell(name: str, result: Done) -> None:
        if which or result["chosen"]:
            print(f"{name}  {_changed(task, result)}")

    fleet.each(c, MADE, work, show=tell)
    if missing := [name for name in wanted if name not in found]:
        raise _missing(missing)


def _missing(ids: Sequence[str]) -> MailopsError:
    hint = f"fab queue shows what is; fab trace {ids[0]} tells where it went"
    return MailopsError(f"not in the queue (any more): {', '.join(ids)}", hint)


def _ids(text: str, task: str = "queue.rm") -> list[str]:
    """MailopsError (2) for what cannot be an ID: it reaches no machine."""
    ids = list(dict.fromkeys(text.replace(",", " ").split()))
    for name in ids:
        if name.lower() in ("all", "deferred"):
            raise MailopsError(f"{name} is no ID of a message", f"fab {task} --{name.lower()}", BAD_INPUT)
        if not ID.fullmatch(name):
            raise MailopsError(f"{name!r} is no ID of a message", "fab queue shows them", BAD_INPUT)
    return ids


def _agreed(name: str, asked: Deletion) -> bool:
    """Ask the person at the terminal."""
    what = f"{name}  delete {_messages(asked['count'])}, the oldest from {tables.age(asked['age'])} ago? Nobody is told"
    try:
        return input(f"{what}. [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _changed(task: Change, result: Done) -> str:
    if not result["chosen"]:
        return "no such message in the queue"
    words = {"queue.rm": "deleted", "queue.hold": "put on hold", "queue.release": "released from hold"}[task]
    others = result["chosen"] - result["done"]
    why = {"queue.rm": "delivered meanwhile", "queue.hold": "on hold already, or delivered meanwhile"}
    left = f"; {others} not ({why.get(task, 'not on hold')})" if others else ""
    return f"{words}: {_messages(result['done'])}{left}"


def _list(name: str, result: Listed, each: bool) -> None:
    if not result["count"]:
        print(f"{name}  nothing waits in the queue")
        return
    held = f", {result['held']} on hold" if result["held"] else ""
    print(f"{name}  {_messages(result['count'])} in the queue{held}")
    if each or result["count"] <= FEW:
        tables.show([_row(message, result["now"]) for message in result["messages"]])
        if cut := result["count"] - len(result["messages"]):
            print(f"  and {cut} more, which came later")
    else:
        tables.show(_reasons(result["messages"], result["now"]))
        print(f"  fab -H {name} queue --each lists every message")


def _row(message: Waiting, now: float) -> dict[str, Any]:
    others = message["count"] - 1
    first = tables.clip(message["recipients"][0], WIDE) if message["recipients"] else ""
    return {
        "id": message["id"],
        "age": tables.age(now - message["since"]),
        "size": tables.size(message["size"]),
        "sender": tables.clip(message["sender"], WIDE),
        "recipients": first + (f" and {others} more" if others > 0 else ""),
        "reason": tables.clip(_reason(message), WIDEST),
    }


def _reason(message: Waiting) -> str:
    state = STATES.get(message["queue"], message["queue"])
    others = f" (and {message['reasons'] - 1} more reasons)" if message["reasons"] > 1 else ""
    return ": ".join(filter(None, [state, message["reason"] + others])) or "not tried yet"


def _reasons(messages: Sequence[Waiting], now: float) -> list[dict[str, Any]]:
    """A row for each reason, the most frequent first, with one message for which it is so."""
    groups: dict[str, list[Waiting]] = {}
    for message in messages:
        groups.setdefault(OWN.sub("…", _reason(message)), []).append(message)
    return [
        {
            "messages": len(group),
            "oldest": tables.age(now - group[0]["since"]),
            "one of them": group[0]["id"],
            "reason": tables.clip(_reason(group[0]), WIDEST),
        }
        for group in sorted(groups.values(), key=len, reverse=True)
    ]


def _print_message(name: str, result: Shown) -> None:
    if not (message := result["message"]):
        return
    came = f"{tables.age(result['now'] - message['since'])} ago, {tables.size(message['size'])}"
    print(f"{name}  {message['id']}  came {came}, from {message['sender']}")
    others = message["count"] - len(message["recipients"])
    print(f"  to {', '.join(message['recipients'])}" + (f" and {others} more" if others > 0 else ""))
    print(f"  {_reason(message)}\n")
    for line in [*result["head"], "", *result["body"]]:
        print(f"    {line}".rstrip())
    if result["more"]:
        print(f"\n  there is more of it; next, as root there: postcat -hbq {message['id']}")


def _messages(count: int) -> str:
    return f"{count} message{'' if count == 1 else 's'}"
