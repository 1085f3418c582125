"""Unlock and lock: from a passphrase to a mail system that answers, and back to a closed vault."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mailops import bootstrap, fleet
from mailops.roles import having
from mailops.ssh.machine import Machine

if TYPE_CHECKING:
    from mailops.remote.shared.calls import Changed


def unlock(c: Any, take_over: bool = False) -> None:
    """Open the vault, start mail, and return when SMTP and IMAP really answer."""

    def work(machine: Machine) -> Changed:
        answers = {"passphrase": lambda _: bootstrap.passphrase(machine.site, machine.listener, new=False)}
        result: Changed = machine.call("unlock", {"who": fleet.who(), "take_over": take_over}, answers)
        if not result.get("unwell"):
            machine.listener.say("the mail system is up" if result["changed"] else "the mail system was up already")
        return result

    fleet.each(c, having("vault"), work, task="unlock")


def lock(c: Any, take_over: bool = False) -> None:
    """Stop mail and close the vault."""

    def work(machine: Machine) -> Changed:
        result: Changed = machine.call("lock", {"who": fleet.who(), "take_over": take_over})
        machine.listener.say("the vault is locked" if result["changed"] else "the vault was locked already")
        return result

    fleet.each(c, having("vault"), work)
