"""Make the machine what its manifest says, or say what would change.

The order keeps half-configured machines silent: the units' ties to the vault come before the packages
that bring the daemons, and a daemon starts only when everything it needs is in place. Packages, accounts and keys
are made, never unmade; the files of the configuration change all together, proven to work, or not at all.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from . import dkim, machine
from .accounts import rows
from .certificates import certificate, served
from .changes import before, drift, generations, rollback, sources, transaction, validate
from .changes.candidate import Candidate, Reachable
from .changes.run import Run, is_hidden, lines
from .health import glance, look, mailboxes
from .machine import MANIFEST
from .services import ports, relay, srs
from .services.warming import Warming
from .shared.errors import REFUSED, AgentError
from .system import dpkg, files, installed, packages, users
from .system import units as services
from .system.shell import write_atomic
from .vault import conf, owners

if TYPE_CHECKING:
    from .shared.calls import Changed, ConvergeArgs, Edit, Link, Plan, PlanArgs
    from .shared.forms import Generation, Manifest

UNPACKED = f"{machine.STATE}/unpacked.json"
# Before the packages that they tie to the vault: the units, and what opens it.
FIRST = (f"{services.UNIT_FILES}/", "/usr/lib/mailops/")


def call(args: ConvergeArgs | PlanArgs, link: Link) -> Changed | Plan:
    """The agent call behind `plan`, `bootstrap` and `push`.

    args: task ("plan", "bootstrap" or "push"), who (for the lock and the history), take_over (from a run that holds the
    machine), overwrite (hand edits), and the manifest with the facts that it was made from, if the laptop remembers
    them. Returns {"changes": {room: [line, ...]}, "generation", "locked", "unknown" (to its mailhost)}; for a plan, see
    `plan`.
    """
    if args["task"] == "plan":
        return plan(_manifest(args, link), link)
    if args["task"] == "push":
        machine.manifest()  # refuses a machine that was never set up: there is nothing yet to configure
    with Convergence(args["task"], args["who"], link, bool(args.get("take_over"))).alone() as run:
        wanted = _manifest(args, link)
        if args["task"] == "push" and sources.named(wanted) != sources.named(machine.manifest()):
            told = f"a push brings no packages, and is to come from elsewhere: {', '.join(sources.waiting(wanted))}"
            raise AgentError(told, "fab -H NAME bootstrap")
        run.converge(wanted, bool(args.get("overwrite")))
    return run.result() | {"locked": not run.opened, "unknown": relay.is_unknown(run.wanted)}


def _manifest(args: ConvergeArgs | PlanArgs, link: Link) -> Manifest:
    """The laptop's guess, if it was made from the facts as they are; else one made for them."""
    facts = machine.facts()
    guess = args.get("manifest")
    if guess and args.get("facts") == facts:
        return guess
    return link.ask("manifest", facts)


def plan(wanted: Manifest, link: Link) -> Plan:
    """What bootstrap would do here; nothing is touched.

    Returns changes as `call` does, "files" (before and after of each, as `rollback.diff`), "edited" (hand edits
    that would stop it), "refused" (the objections of the daemons' own checks, "" for none), "locked", "new_vault".
    """
    from .vault import vault

    opened = machine.vault_is_open(wanted)
    if wanted["vault"]:
        conf.require(wanted["vault"])
    active = generations.active()
    candidate = Candidate(wanted, active, link, _reachable(wanted, opened))
    absent = packages.converge(wanted["packages"], wanted["debconf"], link, dry_run=True)
    for line in before.told(wanted):
        link.say(line)
    room, refused = _room(wanted, link)
    changes = {
        "ports": room,
        "packages": absent,
        "sources": sources.waiting(wanted),
        "users": users.converge(wanted["users"], dry_run=True),
        "boot": services.at_boot(wanted["services"], dry_run=True) + packages.keep_policy(wanted, dry_run=True),
        "directories": files.make_directories(wanted["directories"], dry_run=True),
        "agent": installed.converge(dry_run=True),
        "certificates": certificate.converge(wanted["certificates"], dry_run=True),
        "files": lines(candidate.changes),
    }
    if wanted["vault"]:
        changes["vault"] = vault.converge(wanted["vault"], link, dry_run=True)
        if opened:
            changes["vault"] += owners.converge(wanted["vault"], dry_run=True)
            changes["vault"] += files.make_directories(wanted["vault"]["directories"], dry_run=True)
    if wanted["accounts"] and opened:
        changes["accounts"] = rows.converge(wanted["accounts"], link, dry_run=True)
        changes["srs"] = srs.converge(wanted["accounts"]["database"], dry_run=True)
        if os.path.exists(wanted["accounts"]["database"]):
            changes["mailboxes"] = mailboxes.converge(wanted, dry_run=True)
    if wanted["dkim"] and opened:
        changes["dkim"] = dkim.converge(wanted["dkim"], link, dry_run=True)
    able = machine.able(wanted, opened)
    changes["services"] = services.foreseen(
        able["services"], [*candidate.changes, *served.unseen(wanted["certificates"])]
    )
    return {
        "changes": {room: found for room, found in changes.items() if found},
        "files": _differences(candidate),
        "edited": [
            drift.entry(path, active["files"][path], candidate.now[path])
            for path in candidate.edited()
            if not transaction.is_its_work(path, candidate.now[path])
        ],
        "refused": refused or ("" if absent else _objections(wanted, candidate)),
        "interrupted": transaction.pending() is not None,
        "locked": not opened,
        "new_vault": wanted["vault"] is not None and not conf.exists(wanted["vault"]),
    }


class Convergence(Run):
    """A bootstrap or a push."""

    opened = True  # the vault, as the run leaves it

    def converge(self, wanted: Manifest, overwrite: bool) -> None:
        self.wanted = wanted
        self.mountpoint = machine.mountpoint(wanted)
        self._candidate: Candidate | None = None
        opened = machine.vault_is_open(wanted)
        able = machine.able(wanted, opened)
        if able["services"]:
            self.glance = glance.Ahead(able, () if opened else look.IN_THE_VAULT)
        self._contents: dict[str, bytes] = {}  # that came from the laptop, which sends each file once
        if self.task == "bootstrap" and (place := wanted["vault"]):
            conf.require(place)
            if opened and not owners.are_right(place):  # a run that adopted it was cut
                self.room("vault", lambda: owners.converge(place))
        self.recover_with_vault()
        if not overwrite:
            self.refuse_edits()
        if self.task == "bootstrap":
            if sources.waiting(wanted):
                sources.refuse_shared(wanted)
            self.forwards()
            if self.changes and "packages" not in self.changes and not overwrite:
                self.refuse_edits()  # somebody may have been at work there while this run was
        self.configure()
        files.remove(UNPACKED)
        if self.opened:
            self.examine(wanted)

    def recover_with_vault(self) -> None:
        """What an interrupted run left in the vault can be undone as soon as that is open."""
        journal = transaction.pending()
        hidden = journal and is_hidden(journal["vault"], journal["paths"])
        if hidden and self.task == "bootstrap" and self.wanted["vault"]:
            self.room("vault", self.open_vault)
        self.recover()

    def refuse_edits(self) -> None:
        """Stop before a file is changed."""
        active = generations.active()
        edits = self.candidate(machine.vault_is_open(self.wanted)).edited()
        if edits := [path for path in edits if path not in _debians()]:
            rollback.refuse(self.link, active, edits)

    def forwards(self) -> None:
        """What is made and never unmade."""
        wanted, link = self.wanted, self.link
        if not ports.are_all_ours(wanted):
            self.room("ports", lambda: ports.make_room(wanted, link))
        for line in before.told(wanted, displaced="ports" in self.changes):
            link.say(line)
        if dpkg.missing(wanted["packages"]):
            _expect_debians()
            self.room("units", self.tie_units)
        warm = Warming(wanted["services"])
        self.room("packages", lambda: self.install(warm))
        self.room("boot", lambda: services.at_boot(wanted["services"]) + packages.keep_policy(wanted))
        self.room("users", lambda: users.converge(wanted["users"]))
        self.room("directories", lambda: files.make_directories(wanted["directories"]))
        self.room("agent", installed.converge)
        self.room("certificates", lambda: certificate.converge(wanted["certificates"]))
        if wanted["vault"]:
            self.room("vault", self.open_vault)
        if accounts := wanted["accounts"]:
            self.room("accounts", lambda: rows.converge(accounts, link))
            self.room("srs", lambda: srs.converge(accounts["database"]))
            self.room("mailboxes", lambda: mailboxes.converge(wanted))
        if keys := wanted["dkim"]:
            self.room("dkim", lambda: dkim.converge(keys, link))
        warm.end()

    def configure(self) -> None:
        """The files, and whatever must notice them: a new generation, or none."""
        wanted = self.wanted
        self.opened = machine.vault_is_open(wanted)
        self.unseen = served.unseen(wanted["certificates"])
        served.require_pairs(wanted["certificates"], self.unseen)
        candidate = self.candidate(self.opened)
        change = candidate.change(candidate.changes)
        if set(change.after) - {MANIFEST} or not candidate.active["number"] or self.can_move():
            if self.task == "push":
                self.refuse_files_alone()
            self.apply(wanted, change, self.record(candidate), self.opened)
        else:
            self.amend(change, candidate.record())
            self.activate(machine.able(wanted, self.opened), [])
        served.seen(wanted["certificates"])
        if self.unseen:
            self.link.say("the certificate is new; null clients keep their mail until they know it; next: fab push")

    def refuse_files_alone(self) -> None:
        """A push brings the files of a newer mailops, and not what these may need."""
        wanted = self.wanted
        folders = list(wanted["directories"])
        lacking = [*dpkg.missing(wanted["packages"]), *users.converge(wanted["users"], dry_run=True)]
        if self.opened and wanted["vault"]:
            folders += wanted["vault"]["directories"]
        lacking += [f"folder {folder['path']}" for folder in folders if not os.path.isdir(folder["path"])]
        if self.opened and wanted["accounts"]:
            lacking += srs.converge(wanted["accounts"]["database"], dry_run=True)
        if lacking:
            told = f"a push brings files alone, and these need what is not there: {', '.join(lacking)}"
            raise AgentError(told, "fab -H NAME bootstrap", outcome=REFUSED)

    def can_move(self) -> bool:
        """Whether packages that could not be had from their source before are to be had now."""
        if self.task == "push" or not sources.waiting(self.wanted):
            return False
        return bool(sources.Move(self.wanted, self.link).targets())

    def candidate(self, opened: bool) -> Candidate:
        """What the files should be; looked at again once something else has been changed."""
        if self._candidate is None or self.changes:
            self._candidate = self._compare(self.wanted, _reachable(self.wanted, opened))
        return self._candidate

    def _compare(self, wanted: Manifest, reachable: Reachable) -> Candidate:
        candidate = Candidate(wanted, generations.active(), self.link, reachable, self._contents)
        self._contents = candidate.contents
        return candidate

    def record(self, candidate: Candidate) -> Generation:
        """The generation that is to come; whether it works, and what it replaces, is still to be seen."""
        said = candidate.record()
        return {
            "number": max(generations.numbers(), default=0) + 1,
            "parent": candidate.active["number"],
            "when": self.began,
            "changed": [path for path in candidate.changes if path != MANIFEST],
            "who": self.by["who"],
            "from": self.by["from"],
            "task": self.task,
            "revision": self.ask_revision(),
            "files": said["files"],
            "locals": said["locals"],
            "replaced": {},
            "proven": False,
        }

    def tie_units(self) -> list[str]:
        """Written before the packages that bring the units, so that none of them ever runs without the vault; and
        before those that have a source of their own, that source."""
        origins = sources.PLACES if sources.lacking(self.wanted) else ()
        early = FIRST + origins
        wanted = self.wanted | {"files": [f for f in self.wanted["files"] if f["path"].startswith(early)]}
        candidate = self._compare(wanted, lambda path: path.startswith(early))
        paths = [file["path"] for file in wanted["files"]]
        # One that is there ties its unit already, as the active generation has it, and is changed with the rest.
        new = [path for path in paths if not candidate.now[path] or (origins and path.startswith(origins))]
        units = candidate.change([path for path in candidate.changes if path in new])
        active = generations.active()
        self.amend(units, {"files": active["files"] | units.after, "locals": active["locals"]})
        return lines(units.after)

    def install(self, warm: Warming) -> list[str]:
        """Debian's first: without its certificates apt believes no source that is asked over HTTPS."""
        wanted, others = self.wanted["packages"], sources.lacking(self.wanted)
        done: list[str] = []
        if others:
            done = self._install([name for name in wanted if name not in others], warm)
            sources.require(self.wanted, self.link)
        return done + self._install(wanted, warm)

    def _install(self, names: list[str], warm: Warming) -> list[str]:
        return packages.converge(names, self.wanted["debconf"], self.link, unpacked=warm.begin)

    def open_vault(self) -> list[str]:
        changes, place = [], machine.vault(self.wanted)
        if not machine.is_mounted(self.mountpoint):
            from .vault import vault  # loads more than a run that finds it open needs

            changes = vault.converge(place, self.link)
        conf.keep_first(place)
        changes += owners.converge(place)
        return changes + files.make_directories(place["directories"])


def _debians() -> list[str]:
    """Paths where a package that this run, or one that was cut, has installed anew may have put its own file."""
    return files.read_json(UNPACKED, f"as root there: rm {UNPACKED}", list[str]())


def _expect_debians() -> None:
    """Note which managed files are missing before packages come: what stands there next is nobody's edit."""
    missing = [path for path in generations.active()["files"] if not os.path.lexists(path)]
    if missing:
        write_atomic(UNPACKED, json.dumps([*_debians(), *missing]).encode(), 0o600)


def _reachable(wanted: Manifest, opened: bool) -> Reachable:
    """Which paths can be seen now: those in the vault while it is open."""
    mountpoint = machine.mountpoint(wanted)
    return lambda path: opened or not mountpoint or not path.startswith(f"{mountpoint}/")


def _differences(candidate: Candidate) -> list[Edit]:
    found: list[Edit] = []
    for path, after in candidate.changes.items():
        if path != MANIFEST:
            secret = files.is_secret(candidate.active["files"].get(path) or after, candidate.now[path])
            secret |= files.is_secret(after)
            was = files.read(path) if candidate.now[path] and not secret else None
            now = candidate.content(after) if after and not secret else None
            found.append(drift.difference(path, candidate.now[path], after, secret, [was, now]))
    return found


def _room(wanted: Manifest, link: Link) -> tuple[list[str], str]:
    """What would be done for the ports that we need, and why nothing would be."""
    try:
        return ([] if ports.are_all_ours(wanted) else ports.make_room(wanted, link, dry_run=True)), ""
    except AgentError as error:
        return [], error.message


def _objections(wanted: Manifest, candidate: Candidate) -> str:
    try:
        validate.check(wanted["services"], candidate.change(candidate.changes))
    except AgentError as error:
        return error.message
    return ""
