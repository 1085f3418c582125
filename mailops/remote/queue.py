"""Mail that waits on this machine: shown, tried again, held, released, deleted."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from . import machine
from .changes import history
from .services import mailq
from .shared.errors import BAD_INPUT, DONE, LOCKED, AgentError

if TYPE_CHECKING:
    from .shared.calls import (
        ChangeArgs,
        Counts,
        Deletion,
        Done,
        FlushArgs,
        Link,
        Listed,
        QueueArgs,
        ShowArgs,
        Shown,
        Waiting,
    )
    from .shared.forms import Entry

MOST = 10_000  # messages of which each is told
DEFERRED = "deferred"
CHANGES = {
    "queue.rm": (mailq.DELETE, "deleted"),
    "queue.hold": (mailq.HOLD, "put on hold"),
    "queue.release": (mailq.RELEASE, "released from hold"),
}


def call(args: QueueArgs | FlushArgs | ShowArgs | ChangeArgs, link: Link) -> Counts | Listed | Shown | Done:
    """The agent call behind `fab queue` and the tasks below it. AgentError (5) while the vault is locked."""
    _must_be_there()
    found = mailq.listed()
    match args["task"]:
        case "queue.show":
            return _show(args["id"], found)
        case "queue.flush":
            mailq.flush()
            return _counts(found)
        case "queue.rm" | "queue.hold" | "queue.release":
            return _change(args, found, link)
    return {**_counts(found), "now": time.time(), "messages": found[:MOST]}


def _must_be_there() -> None:
    """A mailhost's queue lies in the vault, and is mounted from there while mail runs."""
    applied = machine.manifest()
    if not machine.vault_is_open(applied):
        raise AgentError("the vault, with the queue, is locked", "fab -H NAME unlock", LOCKED)
    place = applied["vault"]["queue"] if applied["vault"] else ""
    if place and not machine.is_mounted(place):
        raise AgentError("mail is off, and the queue in the vault not mounted", "fab -H NAME unlock")


def _counts(found: list[Waiting]) -> Counts:
    return {"count": len(found), "held": sum(message["queue"] == "hold" for message in found)}


def _show(name: str, found: list[Waiting]) -> Shown:
    """`message` is None where there is none of that name."""
    message = next((message for message in found if message["id"] == _known(name)), None)
    head, body, more = mailq.content(name) if message else ([], [], False)
    return {"now": time.time(), "message": message, "head": head, "body": body, "more": more}


def _change(args: ChangeArgs, found: list[Waiting], link: Link) -> Done:
    """What was asked for by name, or is in the queue at this moment; what comes later is not touched."""
    there = {message["id"] for message in found}
    wanted = [_known(name) for name in args["ids"]]
    if args["which"]:
        queues = {DEFERRED} if args["which"] == DEFERRED else {"hold"} if args["task"] == "queue.release" else set()
        chosen = [message for message in found if not queues or message["queue"] in queues]
    else:
        chosen = [message for message in found if message["id"] in wanted]
    if args["task"] == "queue.rm" and args["which"] and chosen and not args["sure"]:
        question: Deletion = {"count": len(chosen), "age": max(0.0, time.time() - chosen[0]["since"])}
        if link.ask("delete", question) is not True:
            return {"chosen": len(chosen), "done": 0, "missing": [], "agreed": False}
    option, words = CHANGES[args["task"]]
    done = mailq.change(option, (message["id"] for message in chosen))
    if done:
        _note(args, link, f"{done} message{'' if done == 1 else 's'} {words}")
    missing = [name for name in wanted if name not in there]
    return {"chosen": len(chosen), "done": done, "missing": missing, "agreed": True}


def _note(args: ChangeArgs, link: Link, line: str) -> None:
    """In the history: mail that somebody deleted or holds back is missed by somebody else."""
    entry: Entry = {
        "when": time.time(),
        "who": args["who"],
        "from": link.origin,
        "task": args["task"],
        "outcome": DONE,
        "why": "",
    }
    history.append(entry, {"queue": [line]})


def _known(name: str) -> str:
    if not mailq.ID.fullmatch(name):
        raise AgentError("that is no ID of a message", "fab -H NAME queue lists them", BAD_INPUT)
    return name
