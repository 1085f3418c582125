"""Opening and closing the mail system: `fab unlock`, `fab lock`, and /usr/sbin/mailboot on the console."""

from __future__ import annotations

import getpass
import sys
from typing import Any

from . import database, lock, machine, probe, services, vault
from .errors import AgentError
from .link import Console


def unlock(args: dict[str, Any], link: Any) -> dict[str, Any]:
    """Open the vault, start the mail daemons, and wait until they really answer.

    args: who. Returns {"changed": bool}; AgentError code 5 on a wrong passphrase, with nothing changed.
    """
    wanted = machine.manifest()
    if not wanted["vault"]:
        raise AgentError(f"this machine is a {wanted['role']}; it has no vault", code=2)
    with lock.held(args["who"], "unlock"):
        changed = False
        if not machine.vault_is_open(wanted):
            passphrase = str(link.ask("passphrase", {"new": False}))
            link.step("vault", "start")
            vault.unlock(wanted["vault"], passphrase)
            database.recover(wanted["accounts"]["database"])  # before Postfix and Dovecot, who may only read
            link.step("vault", "changed", f"{wanted['vault']['mountpoint']} is open")
            changed = True
        link.step("services", "start")
        started = services.activate(wanted["services"], [])
        link.step("services", "changed" if started else "ok", ", ".join(started))
        link.step("probes", "start")
        probe.await_all(wanted["probes"])
        link.step("probes", "ok", "SMTP and IMAP answer")
    return {"changed": changed or bool(started)}


def close(args: dict[str, Any], link: Any) -> dict[str, Any]:
    """Stop the mail daemons and unmount the vault. Returns {"changed": bool}."""
    wanted = machine.manifest()
    if not wanted["vault"]:
        raise AgentError(f"this machine is a {wanted['role']}; it has no vault", code=2)
    with lock.held(args["who"], "lock"):
        units = [service["unit"] for service in wanted["services"] if service["mail"]]
        running = [unit for unit, state in services.states(units).items() if state["ActiveState"] != "inactive"]
        opened = machine.is_mounted(wanted["vault"]["mountpoint"])
        link.step("services", "start")
        services.stop(units)
        link.step("services", "changed" if running else "ok", f"stop {', '.join(running)}" if running else "")
        link.step("vault", "start")
        vault.lock(wanted["vault"])
        link.step("vault", "changed" if opened else "ok", "locked")
    return {"changed": opened or bool(running)}


def main(argv: list[str]) -> int:
    """/usr/sbin/mailboot: ask for the passphrase on the console and open the mail system."""
    if argv:
        print("Usage: mailboot\n\nAsks for the vault's passphrase, mounts it and starts mail.", file=sys.stderr)
        return 0 if argv[0] in ("-h", "--help", "help") else 2
    console = Console({"passphrase": lambda _: _passphrase()})
    done = unlock({"who": "mailboot on the console"}, console)
    print("the mail system is up" if done["changed"] else "the mail system is up already; nothing to do")
    return 0


def _passphrase() -> str:
    if sys.stdin.isatty():
        return getpass.getpass("Passphrase of the vault: ")
    return sys.stdin.readline().rstrip("\n")
