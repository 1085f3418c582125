"""Earlier generations: which there are, how they differ, and going back to one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import machine
from ..machine import MANIFEST
from ..shared.errors import BACK, BAD_INPUT, DIFFERENT, LOCKED, REFUSED, AgentError
from ..system.files import Change, observe, same
from . import drift, generations
from .run import Run

if TYPE_CHECKING:
    from ..shared.calls import Changed, Diff, DiffArgs, Edit, Generations, Link, Nothing, Past, RollbackArgs
    from ..shared.forms import Generation, State


def listing(args: Nothing, link: Link) -> Generations:
    """The agent call behind `fab generations`."""
    return {"active": generations.active()["number"], "generations": [_past(record) for record in generations.every()]}


def _past(record: Generation) -> Past:
    return {
        "number": record["number"],
        "when": record.get("when", 0.0),
        "who": record.get("who", ""),
        "from": record.get("from", ""),
        "revision": record.get("revision", ""),
        "task": record.get("task", ""),
        "changed": record.get("changed", []),
        "proven": record["proven"],
    }


def diff(args: DiffArgs, link: Link) -> Diff:
    """The agent call behind `fab diff`: from generation `since` to the active one; None: the one that was active
    before it.

    A secret file's content stays here. AgentError (2) for a generation that is not here.
    """
    after = generations.active()
    before = _earlier(after, args.get("since"))
    origins = generations.origins()
    files = []
    for path in sorted({*before["files"], *after["files"]} - {MANIFEST}):
        was, now = _state(before, path, origins), _state(after, path, origins)
        if not same(was, now):
            files.append(_difference(path, was, now))
    return {"from": before["number"], "to": after["number"], "files": files}


def call(args: RollbackArgs, link: Link) -> Changed:
    """The agent call behind `fab rollback`: files as generation `to` had them; None: the one before the active.

    Packages, users and database rows stay. AgentError: 2 for a generation that is not here, 3 when a file was
    edited on the machine and `overwrite` is not set, 5 while a part of it lies in a locked vault.
    """
    with Run("rollback", args["who"], link, bool(args.get("take_over"))).alone() as run:
        run.recover()
        active = generations.active()
        target = _earlier(active, args.get("to"))
        wanted = generations.manifest(target)
        if upgraded := machine.other_release(wanted):
            raise AgentError(
                f"generation {target['number']} cannot come back: {upgraded}", "fab generations lists the others"
            )
        opened = machine.vault_is_open(machine.manifest())
        run.mountpoint = machine.mountpoint(wanted)
        change = _change(active, target, opened)
        edits = [path for path, now in change.before.items() if path != MANIFEST and _is_edited(path, now, active)]
        if edits and not args.get("overwrite"):
            refuse(link, active, edits)
        run.apply(wanted, change, target, opened)
        if opened:
            run.examine(wanted)
    return run.result() | {"locked": not opened}


def prove(run: Run) -> None:
    """Start what is down and await that everything answers; the end of an unlock.

    A generation that was pushed while the vault was locked is proven here. If it does not work the one before it
    that was proven comes back, and AgentError says so.
    """
    active = generations.active()
    try:
        run.activate(machine.manifest(), [], prove=True)
    except AgentError as error:
        target = generations.proven_before(active)
        if active["proven"] or not target or machine.other_release(generations.manifest(target)):
            raise
        change = _change(active, target, True)
        edits = [path for path, now in change.before.items() if path != MANIFEST and _is_edited(path, now, active)]
        for path in edits:  # whoever edited it is not here to be asked
            del change.before[path], change.after[path]
        run.apply(generations.manifest(target), change, target, True)
        text = f"generation {active['number']}, pushed while the vault was locked, does not work: {error.what}"
        back = f"generation {target['number']} is active again, and answers; mail is up"
        more = [*error.more, back, *([f"left as edited on this machine: {', '.join(edits)}"] if edits else [])]
        raise AgentError(text, "mend hosts.toml, then: fab push", outcome=BACK, more=more) from None
    if active["number"] and not active["proven"]:
        generations.mark_proven(active)


def refuse(link: Link, active: Generation, edits: list[str]) -> None:
    """Show the hand edits that are in the way, and stop. AgentError (3)."""
    link.ask("edited", [drift.entry(path, active["files"][path], observe(path)) for path in edits])
    raise AgentError(
        f"edited on this machine since mailops wrote it: {', '.join(edits)}; no file was changed",
        "fab -H NAME drift shows it. To keep it, move it into hosts.toml ([override]) or /etc/mailops/local/ on the "
        "machine. To drop it, type the same with --overwrite (what it said stays in the generations)",
        DIFFERENT,
        outcome=REFUSED,
    )


def _earlier(active: Generation, number: int | None) -> Generation:
    if number is None:
        earlier = [known for known in generations.numbers() if known < active["number"]]
        if not earlier:
            raise AgentError("there is no earlier generation here", "fab generations", BAD_INPUT)
        number = active["parent"] if active["parent"] in earlier else earlier[-1]
    if number == active["number"]:
        raise AgentError(f"generation {number} is the active one", "fab generations lists the others", BAD_INPUT)
    return generations.load(number)


def _change(active: Generation, target: Generation, opened: bool) -> Change:
    """What has to become of which path, the hand-edited ones included."""
    origins = generations.origins()
    inside = (machine.mountpoint(machine.manifest()) or "/nowhere") + "/"
    change = Change({}, {}, _content)
    for path in sorted({*active["files"], *target["files"]}):
        after = _state(target, path, origins)
        if path.startswith(inside) and not opened:
            if not same(after, _state(active, path, origins)):
                raise AgentError(f"{path} is a part of it, and the vault is locked", "fab -H NAME unlock", LOCKED)
        elif not same(after, now := observe(path)):
            change.before[path], change.after[path] = now, after
    return change


def _state(record: Generation, path: str, origins: dict[str, State]) -> State:
    state: State = record["files"][path] if path in record["files"] else origins.get(path)
    return state


def _is_edited(path: str, now: State, active: Generation) -> bool:
    return now is not None and path in active["files"] and not same(now, active["files"][path])


def _difference(path: str, was: State, now: State) -> Edit:
    secret = any(state and state.get("secret") for state in (was, now))
    return drift.difference(path, was, now, secret, [generations.content(state) for state in (was, now)])


def _content(state: State) -> bytes:
    content = generations.content(state)
    if content is None:
        raise AgentError("a content of that generation is not kept here any more")
    return content
