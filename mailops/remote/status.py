"""How the machine is: what a mail administrator wants to know in the morning. Nothing is changed."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from typing import TYPE_CHECKING

from . import machine
from .accounts import agree
from .certificates import certificate as certificates
from .changes import drift, generations, sources, transaction
from .health import look, reboot, swap
from .services import daemons, probe
from .services import queue as queues
from .shared.errors import AgentError
from .system import asleep, dpkg, lock
from .system import units as services
from .vault import conf

if TYPE_CHECKING:
    from .shared.calls import Link, Nothing, NotSetUp, Served, Status, StatusArgs, VaultState
    from .shared.forms import Manifest, Vault

# What is not looked at, by whether the vault is open: None for one that does not answer, and would not let go of us.
HIDDEN = {True: (), False: look.IN_THE_VAULT, None: (*look.IN_THE_VAULT, "disk", "resolver")}
CERTIFICATE = "/etc/mailops/tls/fullchain.pem"


def call(args: StatusArgs, link: Link) -> Status | NotSetUp:
    """The agent call behind `fab status`; sizes in bytes, times in seconds."""
    facts = machine.facts()
    try:
        wanted = machine.manifest()
    except AgentError:
        return {"state": "bare", "release": facts["release"]}
    opened = machine.answers(machine.places(wanted["vault"])) if wanted["vault"] else True
    units = services.states([service["unit"] for service in wanted["services"]])
    running = {unit: _state(state) for unit, state in units.items()}
    able = machine.able(wanted, bool(opened))
    asked = [item for item in able["probes"] if not item.get("when")]  # the others take their time
    looking = look.begin(wanted, HIDDEN[opened])
    answers = probe.ask_all(asked)
    unadvised = [name for name, said in answers.items() if said]
    looked = looking()
    unadvised += [name for name, said in looked.items() if not said.advises]
    answers |= asleep.told(able["services"]) | {name: said.words for name, said in looked.items()}
    queue = queues.listed() if opened else None  # it lies in the vault
    oldest = queues.oldest() if queue else None
    if untouched := queues.untouched(queue or [], time.time(), look.LONG):
        answers["queue"] = untouched
    active = generations.active()
    well = all(state == "active" for state in running.values()) and not any(answers.values())
    return {
        "state": "locked" if opened is False else "up" if well and opened else "degraded",
        "role": wanted["role"],
        "hostname": wanted["hostname"],
        "release": facts["release"],
        "upgraded": machine.other_release(wanted),
        "vault": _vault(wanted["vault"], opened) if wanted["vault"] else None,
        "services": running,
        "able": [service["unit"] for service in able["services"]],
        "probes": answers,
        "unadvised": unadvised,
        "queue": None if queue is None else len(queue),
        "oldest": oldest,
        "held": sum(message.folder == "hold" for message in queue or []),
        "uptime": _uptime(),
        "versions": daemons.versions(service["unit"] for service in wanted["services"]),
        "generation": active["number"],
        "applied": active.get("when"),
        "busy": (busy := lock.holder()),
        "interrupted": not busy and transaction.pending() is not None,
        "drift": [entry["path"] for entry in drift.edits(wanted, active, bool(opened))],
        "packages": (broken := dpkg.broken()[:20]),
        "torn": dpkg.torn()[:20] if broken else [],
        "held_packages": dpkg.held(wanted["packages"])[:20],
        "swap": swap.in_clear()[:10] if wanted["vault"] else [],
        "sources": sources.waiting(wanted)[:20],
        "now": time.time(),
        "certificate": machine.certificates(CERTIFICATE),
        "certificates": certificates.shown(wanted["certificates"]),
        "certificate_fault": certificates.look(wanted["certificates"]),
        "reboot": reboot.needed(),
        "accounts": _accounts(wanted, args) if opened else [],
    }


def _accounts(wanted: Manifest, args: StatusArgs) -> list[str]:
    """Where they and hosts.toml do not agree. What is wrong with the database is told elsewhere (`look`)."""
    with contextlib.suppress(AgentError, sqlite3.Error):
        if wanted["accounts"]:
            return agree.look(wanted["accounts"]["database"], args.get("accounts"))
    return []


def certificate(args: Nothing, link: Link) -> Served:
    """The certificate that this mailhost serves, for the null clients that verify it."""
    return {"certificate": machine.certificates(CERTIFICATE)}


def _vault(wanted: Vault, opened: bool | None) -> VaultState:
    """`opened` is None for a vault that is mounted and does not answer."""
    told: VaultState = {"mountpoint": wanted["mountpoint"], "open": opened is not False}
    if damage := conf.damage(wanted):
        told["damage"] = {"what": damage, "next": conf.way_back(wanted)}
    elif not conf.is_as_it_was(wanted):  # another vault's, or another passphrase's: only an unlock can tell
        changed = f"{wanted['cipherdir']}/{conf.CONF} has changed since it opened the vault last"
        back = f"unless somebody has set a new passphrase, {conf.way_back(wanted)}"
        told["damage"] = {"what": changed, "next": back}
    if not told["open"]:
        return told | {"made": conf.exists(wanted)}
    if not opened:
        return told | {"answers": False}
    space = os.statvfs(wanted["mountpoint"])
    return told | {"free": space.f_bavail * space.f_frsize}


def _state(unit: dict[str, str]) -> str:
    """One that is masked will not start again, whatever it does now."""
    return "masked" if unit["LoadState"] == "masked" else unit["ActiveState"]


def _uptime() -> float:
    with open("/proc/uptime", encoding="ascii") as file:
        return float(file.read().split()[0])
