"""Make the machine what its manifest says, or say what would change.

The order keeps half-configured machines silent: the units' ties to the vault come before the packages
that bring the daemons, and a daemon starts only when everything it needs is in place.
"""

from __future__ import annotations

from typing import Any

from . import (
    accounts,
    certificate,
    dkim,
    files,
    installed,
    lock,
    machine,
    packages,
    pending,
    probe,
    services,
    users,
    vault,
)
from .errors import AgentError
from .shell import run as run_program

UNITS = services.UNIT_FILES + "/"
# Written before everything else: the units' ties to the vault, and what opens it.
FIRST = (UNITS, "/usr/lib/mailops/")


def call(args: dict[str, Any], link: Any) -> dict[str, Any]:
    """The agent call behind `plan`, `bootstrap` and `push`.

    args: task ("plan", "bootstrap" or "push") and who (for the lock and the record). The manifest is asked
    for with the machine's facts. Returns {"changes": {room: [line, ...]}, ...}.
    """
    if args["task"] == "plan":
        return plan(link.ask("manifest", machine.facts()), link)
    if args["task"] == "push":
        machine.manifest()  # refuses a machine that was never set up: there is nothing yet to configure
    with lock.held(args["who"], args["task"]):
        run = Run(link.ask("manifest", machine.facts()), link, args["who"])
        run.bootstrap() if args["task"] == "bootstrap" else run.push()
    return {"changes": run.changes, "locked": not machine.vault_is_open(run.wanted)}


def plan(wanted: dict[str, Any], link: Any) -> dict[str, Any]:
    """What bootstrap would do here; nothing is touched."""
    opened = machine.vault_is_open(wanted)
    reachable = [file for file in wanted["files"] if opened or not _in_vault(file["path"], wanted)]
    differing = files.different(reachable)
    removed = files.stale(_before(), wanted["files"])
    changes = {
        "packages": packages.converge(wanted["packages"], link, dry_run=True),
        "users": users.converge(wanted["users"], dry_run=True),
        "boot": services.at_boot(wanted["services"], dry_run=True),
        "directories": files.make_directories(wanted["directories"], dry_run=True),
        "agent": installed.converge(dry_run=True),
        "certificates": certificate.converge(wanted["certificates"], dry_run=True),
        "files": _lines(differing, removed),
    }
    if wanted["vault"]:
        changes["vault"] = vault.converge(wanted["vault"], link, dry_run=True)
        if opened:
            changes["vault"] += files.make_directories(wanted["vault"]["directories"], dry_run=True)
    if wanted["accounts"] and opened:
        changes["accounts"] = accounts.converge(wanted["accounts"], link, dry_run=True)
    if wanted["dkim"] and opened:
        changes["dkim"] = dkim.converge(wanted["dkim"], link, dry_run=True)
    if opened:
        paths = [file["path"] for file in differing + removed] + pending.load()
        changes["services"] = services.activate(wanted["services"], paths, dry_run=True)
    return {
        "changes": {room: lines for room, lines in changes.items() if lines},
        "current": files.current(differing + removed),
        "removed": [file["path"] for file in removed],
        "locked": not opened,
        "new_vault": bool(wanted["vault"]) and not vault.exists(wanted["vault"]),
    }


class Run:
    """One bootstrap or push: the manifest, what it changed so far, and the paths that daemons must notice."""

    def __init__(self, wanted: dict[str, Any], link: Any, who: str) -> None:
        self.wanted = wanted
        self.link = link
        self.who = who
        self.changes: dict[str, list[str]] = {}
        self.changed_paths = pending.load()  # what an interrupted run wrote and no daemon has noticed yet

    def bootstrap(self) -> None:
        wanted, link = self.wanted, self.link
        self.room("units", lambda: self.write([f for f in wanted["files"] if f["path"].startswith(FIRST)]))
        self.room("packages", lambda: packages.converge(wanted["packages"], link))
        self.room("boot", lambda: services.at_boot(wanted["services"]))
        self.room("users", lambda: users.converge(wanted["users"]))
        self.room("directories", lambda: files.make_directories(wanted["directories"]))
        self.room("agent", installed.converge)
        self.room("certificates", lambda: certificate.converge(wanted["certificates"]))
        if wanted["vault"]:
            self.room("vault", self.open_vault)
        if wanted["accounts"]:
            self.room("accounts", lambda: accounts.converge(wanted["accounts"], link))
        if wanted["dkim"]:
            self.room("dkim", lambda: dkim.converge(wanted["dkim"], link))
        self.push()

    def push(self) -> None:
        """The configuration alone: files, and whatever must notice them."""
        opened = machine.vault_is_open(self.wanted)
        self.room("files", lambda: self.write(self.reachable(opened), files.stale(_before(), self.wanted["files"])))
        self.room("checks", self.check)
        machine.remember(self.wanted)
        if opened:
            self.room("services", lambda: services.activate(self.wanted["services"], self.changed_paths))
            if self.changes:
                self.room("probes", self.probe)
        pending.clear()  # a locked machine starts its daemons afresh when it is unlocked

    def room(self, name: str, work: Any) -> None:
        """One step of the run, announced, and its changes kept for the report."""
        self.link.step(name, "start")
        try:
            lines = work()
        except Exception:
            self.link.step(name, "failed")
            raise
        if lines:
            self.changes[name] = lines
        self.link.step(name, "changed" if lines else "ok", ", ".join(lines))

    def write(self, wanted: list[dict[str, Any]], removed: list[dict[str, Any]] | None = None) -> list[str]:
        removed = removed or []
        differing = files.different(wanted)
        paths = [file["path"] for file in differing + removed]
        if paths:
            edited = [path for path in files.edited(_before(), differing) if path not in self.changed_paths]
            self.changed_paths += [path for path in paths if path not in self.changed_paths]
            pending.store(self.changed_paths)
            files.write(differing, removed, self.link, self.who)
            for path in edited:
                self.link.say(f"{path} had been edited on this machine; what it said is in {files.GENERATIONS}")
        if any(path.startswith(UNITS) for path in paths):
            run_program("systemctl", "daemon-reload")
        return _lines(differing, removed)

    def reachable(self, opened: bool) -> list[dict[str, Any]]:
        """The files that can be written now: those in the vault wait until it is open."""
        return [file for file in self.wanted["files"] if opened or not _in_vault(file["path"], self.wanted)]

    def open_vault(self) -> list[str]:
        changes = vault.converge(self.wanted["vault"], self.link)
        return changes + files.make_directories(self.wanted["vault"]["directories"])

    def check(self) -> list[str]:
        services.check(self.wanted["services"], self.changed_paths)
        return []

    def probe(self) -> list[str]:
        probe.await_all(self.wanted["probes"])
        return []


def _in_vault(path: str, wanted: dict[str, Any]) -> bool:
    return bool(wanted["vault"]) and path.startswith(wanted["vault"]["mountpoint"] + "/")


def _before() -> list[dict[str, Any]]:
    """The files of the manifest applied last; none on a machine that has not been set up."""
    try:
        return list(machine.manifest()["files"])
    except AgentError:
        return []


def _lines(differing: list[dict[str, Any]], removed: list[dict[str, Any]]) -> list[str]:
    return [file["path"] for file in differing] + [f"remove {file['path']}" for file in removed]
