"""One run that changes the machine: its rooms as a person sees them, and a change of files that is proven or undone.

checks → files → services → probes → the new generation is active
             └─────────┴────────┴─→ rollback: the files before, the daemons told, the probes asked again
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Self

from .. import machine
from ..health import glance, look
from ..services import daemons, probe, queue
from ..shared.errors import BACK, BAD_INPUT, CUT, DONE, FELL, LOCKED, UNDONE, AgentError
from ..system import lock
from ..system import units as services
from ..system.files import Change, read
from ..system.shell import run as run_program
from . import generations, history, sources, transaction, validate

if TYPE_CHECKING:
    from ..shared import forms
    from ..shared.calls import Changed, Link
    from ..shared.forms import By, Entry, Files, Generation, Holder, Journal, Manifest, Probe, Service, State

CUT_OFF = "it ended without a word"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class Run:
    """A bootstrap, push, rollback or unlock: who does it, and what it has changed so far."""

    def __init__(self, task: str, who: str, link: Link, take_over: bool = False) -> None:
        self.task = task
        self.link = link
        self.take_over = take_over
        self.cut_by = ""  # who has ended the run before this one, where it was this one
        self.origin = str(getattr(link, "origin", ""))
        self.began = time.time()
        self.counted_from = time.monotonic()  # a clock that is set meanwhile, as on a new machine, makes no run shorter
        self.changes: dict[str, list[str]] = {}
        self.generation: int | None = None  # the one that this run has made active
        self.revision: str | None = None  # of the site; asked for when there is something to record
        self.by: By = {"who": who, "from": self.origin, "task": task}
        self.unseen: list[str] = []  # what is new beside the files of the generations: daemons have to notice it, too
        self.glance: glance.Ahead | None = None  # at daemons of which nothing may have to be changed
        self.move: sources.Move | None = None  # of packages to another source, within a change of files
        self.unwell: dict[str, str] = {}  # what is wrong with the machine when all is done, by its name
        self.mountpoint = ""  # of the vault: what lies below it can be looked at only while that is open

    @contextlib.contextmanager
    def alone(self) -> Iterator[Self]:
        """Hold the machine, and note in the history how it went."""
        with lock.held(self.by["who"], self.task, self.origin, self.began, self.take_over) as killed:
            if killed.get("by"):
                self.cut_by = f"{killed['by']} took over"
                self.link.say(f"the {killed['doing']} of {killed['who']} was ended")
            _note_killed(killed, self.cut_by or CUT_OFF)
            try:
                yield self
            except AgentError as error:
                if error.code != BAD_INPUT:
                    self._note(error.outcome, history.reason(error))
                raise
            except OSError as error:
                self._note(FELL, str(error))
                where = error.filename or "on this machine"
                remedy = "make room there, and run it again" if error.errno in FULL else ""
                raise AgentError(f"{error.strerror}: {where}", remedy) from None
            if self.changes:
                self._note(DONE, "; ".join(f"{name}: {said}" for name, said in self.unwell.items()))

    def room(self, name: str, work: Callable[[], list[str]]) -> None:
        """One step of the run, announced, and its changes kept for the report."""
        self.link.step(name, "start")
        try:
            lines = work()
        except Exception:
            self.link.step(name, "failed")
            raise
        if lines:
            self.changes[name] = lines
        self.link.step(name, "changed" if lines else "ok", lines)

    def result(self) -> Changed:
        return {"changes": self.changes, "generation": self.generation, "unwell": self.unwell}

    def examine(self, wanted: Manifest) -> None:
        """The end of a run, its vault open: what is not well is told, also where nothing had to be changed."""
        if self.changes or not self.glance or not self.glance.is_healthy():
            self.unwell = look.faults(wanted)
        if not self.unwell and wanted["vault"] and (waiting := queue.left(time.time(), look.LONG)):
            daemons.resume(service["unit"] for service in wanted["services"])
            self.link.say(f"mail is tried again that waits: {waiting}")

    def ask_revision(self) -> str:
        if self.revision is None:
            self.revision = ""
            if self.task in ("bootstrap", "push"):  # the others do not bring anything of the site
                with contextlib.suppress(AgentError):  # the laptop has left
                    self.revision = str(self.link.ask("revision") or "")
        return self.revision

    # --- What an interrupted run left

    def recover(self) -> None:
        """Finish or undo it. AgentError (5) when a part of it lies in the vault, which is locked."""
        journal = transaction.pending()
        if journal is None:
            return
        if transaction.is_finished(journal):
            transaction.finish()
            history.append(_past(journal, DONE, "it was cut off when all was done"), {})
            return
        if is_hidden(journal["vault"], journal["paths"]):
            text = "an interrupted run has to be undone first, and part of it lies in the vault"
            raise AgentError(text, "fab -H NAME unlock", LOCKED)
        paths = transaction.undo()
        _reload_units(paths)
        with contextlib.suppress(AgentError):  # they may have been down before, and are looked after below
            if generations.active()["number"]:
                applied = machine.manifest()["services"]
                running = services.running(applied)
                applied = [service for service in applied if service["unit"] in running]
            else:  # a first bootstrap: what it had started does not go on with Debian's own files
                applied, running = journal.get("services", []), journal.get("running", [])
            _leave_to(applied, running, paths)
        transaction.forget()
        history.append(_past(journal, UNDONE, self.cut_by or "it was interrupted"), {})
        self.link.say(f"the changes of an interrupted {journal['task']} by {journal['who']} were undone")

    # --- A change of files

    def amend(self, change: Change, record: Files) -> None:
        """Change files without a generation of their own: no daemon has to notice, nothing is to be proven."""
        if not change.after:
            return
        active = generations.active()
        self._keep(change, record, active)
        amended: Generation = {**active, **record, "number": active["number"]}
        transaction.prepare(change, amended, self._journal(), amend=active != generations.EMPTY)
        try:
            transaction.put_in_place()
        except Exception:
            transaction.undo()
            transaction.forget()
            raise
        transaction.finish()
        _reload_units(list(change.after))

    def apply(self, wanted: Manifest, change: Change, record: Generation, opened: bool) -> None:
        """Make `record` the active generation, proven, or leave everything as it was.

        While the vault is locked (not `opened`) what waits for it cannot be proven: `unlock` does it.
        AgentError when a daemon's check objects, or when it was rolled back; OSError when the disk is full.
        """
        self.room("checks", lambda: _checked(wanted, change))
        active = generations.active()
        self._keep(change, record, active)
        able = machine.able(wanted, opened)
        running = services.running(able["services"])
        record = record | {"proven": opened, "replaced": record.get("replaced", {}) | change.before}
        transaction.prepare(change, record, self._journal() | {"services": wanted["services"], "running": running})
        self.link.resolute = True  # from here to the end, with or without the laptop
        began = time.time()
        try:
            self.room("files", lambda: self._put(change))
            renewed = self._take(wanted)
            self.activate(able, [*change.after, *renewed])
        except Exception as error:  # a mistake of our own included: it must not leave a half-proven machine
            raise self._roll_back(error, wanted, change, active, running, began) from None
        transaction.finish()
        if self.move:
            self.move.settle()
        self.generation = record["number"]
        self.link.resolute = False

    def activate(self, wanted: Manifest, paths: list[str], prove: bool = False) -> None:
        """Tell the daemons of `paths`, start what is down, and await that everything answers.

        Where no file was changed whoever does not look well is started afresh; where nothing was, and `prove` is not
        set, that is all. `wanted` has what can run now, see `machine.able`.
        """
        if not wanted["services"]:
            return
        told: list[services.Told] = []
        self.room("services", lambda: _noted(told, services.activate(wanted["services"], [*paths, *self.unseen])))
        if self.glance and not paths:
            asleep, suspects = self.glance.found()
            if asleep or suspects:
                self.room("services", lambda: _noted(told, _mend(asleep, suspects)))
        if self.changes or prove:
            units = {unit for _, unit in told}
            probes = [item for item in wanted["probes"] if not item.get("when") or item["when"] in units]
            self.room("probes", lambda: _probed(probes))

    def _take(self, wanted: Manifest) -> list[str]:
        """Packages from where the files that are in place now let them come from; the unit files that are new so."""
        if self.task == "push" or not sources.waiting(wanted):
            return []
        move = self.move = sources.Move(wanted, self.link)
        self.room("sources", move.go)
        units = [f"{name}.service" for name in move.changed]
        validate.judge([service for service in wanted["services"] if service["unit"] in units])
        return [f"{services.UNIT_FILES}/{unit}" for unit in units]

    def _put(self, change: Change) -> list[str]:
        transaction.put_in_place()
        _reload_units(list(change.after))
        return lines(change.after)

    def _keep(self, change: Change, record: Files, active: Generation) -> None:
        """Put into store what is to be written and what it replaces, and the origins of what is taken over."""
        agreed = {path: state for path, state in record["files"].items() if path not in change.before}
        as_it_was = {path: state for path, state in agreed.items() if path not in active["files"]}
        for path, state in as_it_was.items():  # it says already what it should: kept it has to be all the same
            if state and "sha256" in state:
                generations.store(read(path))
        for path, state in change.before.items():
            if state and "sha256" in state and generations.store(read(path)) != state["sha256"]:
                raise AgentError(f"{path} was changed by somebody else in this moment; run it again")
        for after in change.after.values():
            for key in ("sha256", "base"):
                if after and key in after:
                    generations.store(change.content({"sha256": after[key]}))
        taken = {path: state for path, state in change.before.items() if path not in active["files"]}
        generations.remember_origins(as_it_was | taken)

    def _journal(self) -> forms.Run:
        return {
            "who": self.by["who"],
            "from": self.by["from"],
            "task": self.task,
            "when": self.began,
            "revision": self.revision or "",
            "vault": self.mountpoint,
        }

    def _roll_back(  # noqa: PLR0913, PLR0917 - all that is known of a failed change
        self,
        error: Exception,
        wanted: Manifest,
        change: Change,
        active: Generation,
        running: list[str],
        began: float,
    ) -> AgentError:
        """Bring the files of before back, have the daemons notice and answer; returns what to tell the person."""
        from . import blame

        self.link.step("rollback", "start")
        reasons = blame.reasons(error, wanted, change, began)
        fallen = blame.fallen(error)
        if is_hidden(self.mountpoint, change.after):
            self.link.step("rollback", "failed")
            text = "the vault has gone in the middle of it, and with it a part of what is to be undone"
            return AgentError(reasons[0], "fab -H NAME unlock undoes it", LOCKED, more=[text])
        if active["number"] and (upgraded := machine.other_release(generations.manifest(active))):
            return self._stay(reasons, upgraded)
        paths = transaction.undo()
        _reload_units(paths)
        after = ""
        try:
            renewed = self._take_back()
            if active["number"]:
                before = machine.manifest()
                before = machine.able(before, machine.vault_is_open(before))
                others = [service for service in before["services"] if service["unit"] not in fallen]
                afresh = [service["unit"] for service in before["services"] if service["unit"] in fallen]
                paths += renewed
                services.do_all([lambda: services.activate(others, paths), lambda: services.restart(afresh)])
                _prove_again([item for item in before["probes"] if not item.get("when")])
                daemons.resume(service["unit"] for service in before["services"])
            else:  # there was no mail system before: none stays behind half made
                _leave_to(wanted["services"], running, paths)
        except Exception as second:  # whatever it is, the files of before are back, and that is told
            after = f", which does not answer either: {getattr(second, 'message', second)}"
        transaction.forget()
        self.changes = {room: done for room, done in self.changes.items() if room not in ("files", "services")}
        self.link.step("rollback", "failed" if after else "changed", ["the files of before are back"])
        self.link.resolute = False
        back = f"rolled back to generation {active['number']}" if active["number"] else "rolled back to what was before"
        stays = " (packages, users and database rows stay)" if self.changes else ""
        back += after or (", which answers" if active["number"] else "")
        return AgentError(reasons[0], outcome=BACK, more=[back + stays, *reasons[1:]])

    def _take_back(self) -> list[str]:
        """The packages of before; the unit files that are new so."""
        if self.move is None:
            return []
        self.move.back()
        self.changes.pop("sources", None)
        return [f"{services.UNIT_FILES}/{name}.service" for name in self.move.changed]

    def _stay(self, reasons: list[str], upgraded: str) -> AgentError:
        """Files that do not work yet are better than those of a release that is gone."""
        transaction.finish()
        generations.mark_proven(generations.active(), proven=False)
        self.link.step("rollback", "failed", ["there is nothing to go back to"])
        self.link.resolute = False
        stays = f"the new files stay, not proven to work: {upgraded} in the generation before"
        return AgentError(reasons[0], "mend it, then: fab -H NAME bootstrap", more=[stays, *reasons[1:]])

    def _note(self, outcome: str, why: str = "") -> None:
        entry: Entry = {
            "when": self.began,
            "who": self.by["who"],
            "from": self.by["from"],
            "task": self.task,
            "revision": self.ask_revision(),
            "generation": self.generation,
            "seconds": round(time.monotonic() - self.counted_from, 2),
            "outcome": outcome,
            "why": why,
        }
        history.append(entry, self.changes)


def _note_killed(killed: Holder, why: str) -> None:
    """A run that died has noted nothing of itself. If it was changing files, `recover` has more to tell."""
    noted = {entry["when"] for entry in history.entries(10)} if killed else set()
    if killed and killed["since"] not in noted and transaction.pending() is None:
        entry: Entry = {
            "when": killed["since"],
            "who": killed["who"],
            "from": killed["from"],
            "task": killed["doing"],
            "outcome": CUT,
            "why": why,
        }
        history.append(entry, {})


def _past(journal: Journal, outcome: str, why: str) -> Entry:
    """What the history says of a run that could not say it."""
    return {
        "when": journal["when"],
        "who": journal["who"],
        "from": journal["from"],
        "task": journal["task"],
        "revision": journal["revision"],
        "generation": journal["number"],
        "outcome": outcome,
        "why": why,
    }


def lines(changes: dict[str, State]) -> list[str]:
    """Changes as a person reads them; the manifest itself is no news."""
    shown = {path: state for path, state in changes.items() if path != machine.MANIFEST}
    return [path if state else f"remove {path}" for path, state in shown.items()]


def is_hidden(mountpoint: str, paths: Iterable[str]) -> bool:
    """Whether one of the paths lies in the vault of this mountpoint, if any, and that is locked."""
    inside = any(path.startswith(f"{mountpoint}/") for path in paths) if mountpoint else False
    return inside and not machine.is_mounted(mountpoint)


def _checked(wanted: Manifest, change: Change) -> list[str]:
    validate.check(wanted["services"], change)
    return []


def _probed(probes: list[Probe]) -> list[str]:
    probe.await_all(probes)
    return []


def _noted(told: list[services.Told], more: list[services.Told]) -> list[str]:
    """All that was told so far, a line each, with what has just been."""
    told += more
    return [str(one) for one in told]


def _mend(asleep: list[str], suspects: list[Probe]) -> list[services.Told]:
    """What runs and does nothing, or does not answer as it should, though nothing differs, is started afresh."""
    services.restart(asleep)
    units = list(asleep)
    try:
        probe.await_all(suspects, 10.0)
    except probe.ProbesFailed as error:
        mute = [unit for unit in dict.fromkeys(item["service"] for item, _ in error.failures) if unit]
        services.restart(mute)
        units += mute
    return [services.Told("restart", unit) for unit in units]


def _prove_again(probes: list[Probe]) -> None:
    """After a rollback. A daemon that does not answer even now is started afresh."""
    try:
        probe.await_all(probes)
    except probe.ProbesFailed as error:
        services.restart([unit for unit in dict.fromkeys(item["service"] for item, _ in error.failures) if unit])
        probe.await_all(probes)


def _leave_to(known: list[Service], running: list[str], paths: list[str]) -> None:
    """Of the services that are known, those that ran before are told of the files of before; the others stop."""
    services.stop([service["unit"] for service in known if service["unit"] not in running])
    services.activate([service for service in known if service["unit"] in running], paths)


def _reload_units(paths: list[str]) -> None:
    if any(path.startswith(f"{services.UNIT_FILES}/") for path in paths):
        run_program("systemctl", "daemon-reload")
