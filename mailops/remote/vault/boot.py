"""Opening and closing the mail system: `fab unlock`, `fab lock`, and /usr/sbin/mailboot on the console."""

from __future__ import annotations

import contextlib
import getpass
import os
import sys
import time
from typing import TYPE_CHECKING

from .. import machine
from ..accounts import database, senders
from ..certificates import served
from ..changes import rollback
from ..changes.run import Run
from ..link import Console
from ..services import daemons
from ..shared.errors import BAD_INPUT, FAILED, LOCKED, AgentError
from ..system import lock
from ..system import units as services
from . import conf, owners, vault

if TYPE_CHECKING:
    from ..shared.calls import Changed, Link, RunArgs
    from ..shared.forms import Vault

A_RUNS_END = 10.0  # seconds that a run has to note that the vault is gone
TAKE_OVER = "--take-over"
USAGE = f"""Usage: mailboot [{TAKE_OVER}]

Asks for the passphrase of the vault, mounts it, starts mail, and returns when it really answers.

{TAKE_OVER}  end another run that holds the machine, and undo what it had begun"""


def unlock(args: RunArgs, link: Link) -> Changed:
    """Open the vault, start the mail daemons, and wait until they really answer.

    args: who, take_over. Returns {"changed": bool}; AgentError code 5 on a wrong passphrase, with nothing changed.
    """
    wanted = machine.manifest()
    place = machine.vault(wanted)
    if upgraded := machine.other_release(wanted):
        raise AgentError(f"{upgraded}; nothing was started", "fab -H NAME bootstrap")
    # Asked for before the lock is taken: a prompt that somebody walked away from must not keep others out.
    passphrase = None
    if not machine.vault_is_open(wanted):
        conf.require(place)
        passphrase = link.ask("passphrase", {"new": False})
    with Run("unlock", args["who"], link, bool(args.get("take_over"))).alone() as run:
        changed = not machine.vault_is_open(wanted)
        if changed:
            if passphrase is None:
                raise AgentError("the vault was locked a moment ago", hint="try again", code=LOCKED)
            run.room("vault", lambda: _open(place, passphrase))
        elif not owners.are_right(place):  # an unlock that mended them was cut
            run.room("vault", lambda: owners.converge(place))
        run.mountpoint = place["mountpoint"]
        run.recover()
        accounts = machine.database(machine.manifest())
        with contextlib.suppress(OSError):  # a full vault has to open all the same
            senders.ensure(accounts)
        database.recover(accounts)  # before Postfix and Dovecot, who may only read
        rollback.prove(run)
        if changed:  # they were started with the certificates as they are
            served.seen(machine.manifest()["certificates"])
        run.examine(machine.manifest())
        if run.changes:
            daemons.resume(service["unit"] for service in machine.manifest()["services"])
    return run.result() | {"changed": bool(run.changes)}


def _open(wanted: Vault, passphrase: str) -> list[str]:
    vault.unlock(wanted, passphrase)
    return [f"{wanted['mountpoint']} is open", *owners.converge(wanted)]  # it may be another machine's, or a backup


def close(args: RunArgs, link: Link) -> Changed:
    """Stop the mail daemons and unmount the vault. Returns {"changed": bool}."""
    wanted = machine.manifest()
    place = machine.vault(wanted)
    opened = machine.answers(machine.places(place))
    if opened is None:
        _break_off(place, link)
    with Run("lock", args["who"], link, bool(args.get("take_over"))).alone() as run:
        units = [service["unit"] for service in wanted["services"] if service["mail"]]
        now = services.states(units)
        running = [unit for unit in units if now[unit]["ActiveState"] not in ("inactive", "failed")]
        run.room("services", lambda: _stop(units, running))
        run.room("vault", lambda: _lock(place, opened is not False))
    return run.result() | {"changed": bool(run.changes)}


def _break_off(wanted: Vault, link: Link) -> None:
    """Before the machine is held: whoever holds it waits for the vault, and comes to its end with that."""
    link.say("the vault does not answer; it is closed all the same")
    vault.break_off(wanted)
    deadline = time.monotonic() + A_RUNS_END
    while lock.holder() and time.monotonic() < deadline:
        time.sleep(0.1)


def _stop(units: list[str], running: list[str]) -> list[str]:
    services.stop(units)
    return [f"stop {unit}" for unit in running]


def _lock(wanted: Vault, opened: bool) -> list[str]:
    vault.lock(wanted)
    return ["locked"] if opened else []


def main(argv: list[str]) -> int:
    """/usr/sbin/mailboot: ask for the passphrase on the console and open the mail system."""
    if argv not in ([], [TAKE_OVER]):
        wanted = argv[0] in ("-h", "--help", "help")
        print(USAGE, file=sys.stdout if wanted else sys.stderr)
        return 0 if wanted else BAD_INPUT
    if os.geteuid():
        raise AgentError("only root can open the vault", hint="sudo mailboot")
    console = Console({"passphrase": lambda _: _passphrase()})
    done = unlock({"who": "mailboot on the console", "take_over": bool(argv)}, console)
    for name, said in done["unwell"].items():
        print(f"✗ {name}: {said}", file=sys.stderr)
    if done["unwell"]:
        return FAILED
    print("the mail system is up" if done["changed"] else "the mail system was up already")
    return 0


def _passphrase() -> str:
    """Typed without echo, or the first line of a stdin that is no terminal."""
    try:
        typed = getpass.getpass("Passphrase of the vault: ") if sys.stdin.isatty() else sys.stdin.readline()
    except EOFError:
        typed = ""
    if not typed.rstrip("\n"):
        raise AgentError("no passphrase was given; the vault stays locked", code=LOCKED)
    return typed.rstrip("\n")
