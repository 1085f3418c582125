"""One run that changes the machine: its rooms as a person sees them, and a change of files that is proven or undone.

checks → files → services → probes → the new generation is active
             └─────────┴────────┴─→ rollback: the files before, the daemons told, the probes asked again
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

from . import generations, history, lock, machine, probe, services, transaction, validate
from .errors import AgentError
from .files import State, observe, read
from .shell import run as run_program

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
BAD_INPUT, LOCKED = 2, 5  # exit codes


class Run:
    """A bootstrap, push, rollback or unlock: who does it, and what it has changed so far."""

    def __init__(self, task: str, who: str, link: Any) -> None:
        self.task = task
        self.link = link
        self.origin = str(getattr(link, "origin", ""))
        self.began = time.time()
        self.changes: dict[str, list[str]] = {}
        self.notes: list[str] = []
        self.generation: int | None = None  # the one that this run has made active
        self.revision: str | None = None  # of the site; asked for when there is something to record
        self.by = {"who": who, "from": self.origin, "task": task}

    @contextlib.contextmanager
    def alone(self) -> Iterator[Self]:
        """Hold the machine, and note in the history how it went."""
        with lock.held(self.by["who"], self.task, self.origin):
            try:
                yield self
            except AgentError as error:
                if error.code != BAD_INPUT:
                    self._note(error.outcome, error.message)
                raise
            except OSError as error:
                self._note("failed", str(error))
                if error.errno not in FULL:
                    raise
                raise AgentError(
                    f"{error.strerror}: {error.filename or 'on this machine'}", "make room there"
                ) from None
            if self.changes:
                self._note("done")

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
        self.link.step(name, "changed" if lines else "ok", ", ".join(lines))

    def result(self, **more: Any) -> dict[str, Any]:
        return {"changes": self.changes, "generation": self.generation, "notes": self.notes} | more

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
            return
        if is_hidden(journal):
            text = "an interrupted run has to be undone first, and part of it lies in the vault"
            raise AgentError(text, "fab -H NAME unlock", LOCKED)
        paths = transaction.undo()
        _reload_units(paths)
        with contextlib.suppress(AgentError):  # they may have been down before, and are looked after below
            applied = machine.manifest()
            now = services.states([service["unit"] for service in applied["services"]])
            running = [s for s in applied["services"] if now[s["unit"]]["ActiveState"] == "active"]
            services.activate(running, paths)
        transaction.forget()
        past = {key: journal.get(key, "") for key in ("who", "from", "task")}
        history.append({"when": journal.get("when"), **past, "outcome": "undone", "why": "it was interrupted"}, {})
        self.link.say(f"the changes of an interrupted {past['task']} by {past['who']} were undone")

    # --- A change of files

    def amend(self, changes: dict[str, State], record: dict[str, Any], content: Callable[[State], bytes]) -> None:
        """Change files without a generation of their own: no daemon has to notice, nothing is to be proven."""
        if not changes:
            return
        active = generations.active()
        self._keep(changes, content, active["files"])
        amended = active | record | {"number": active["number"]}
        transaction.prepare(changes, amended, self._journal(), amend=active != generations.EMPTY)
        transaction.put_in_place()
        transaction.finish()
        _reload_units(list(changes))

    def apply(
        self,
        wanted: dict[str, Any],
        changes: dict[str, State],
        record: dict[str, Any],
        content: Callable[[State], bytes],
        opened: bool,
    ) -> None:
        """Make `record` the active generation, proven, or leave everything as it was.

        While the vault is locked (not `opened`) nothing can be proven: `unlock` does it.
        AgentError when a daemon's check objects, or when it was rolled back; OSError when the disk is full.
        """
        self.room("checks", lambda: _checked(wanted, changes, content))
        active = generations.active()
        replaced = self._keep(changes, content, active["files"])
        running = services.running(wanted["services"]) if opened else []
        record = record | {"proven": opened, "replaced": record.get("replaced", {}) | replaced}
        transaction.prepare(changes, record, self._journal())
        self.link.resolute = True  # from here to the end, with or without the laptop
        began = time.time()
        try:
            self.room("files", lambda: self._put(changes))
            if opened:
                self.activate(wanted, list(changes))
        except Exception as error:  # a mistake of our own included: it must not leave a half-proven machine
            raise self._roll_back(error, wanted, changes, active, running, began) from None
        transaction.finish()
        self.generation = record["number"]
        generations.prune()
        self.link.resolute = False

    def activate(self, wanted: dict[str, Any], paths: list[str], prove: bool = False) -> None:
        """Tell the daemons of `paths`, start what is down, and await that everything answers.

        Where nothing was changed nobody is asked, unless `prove` is set.
        """
        self.room("services", lambda: services.activate(wanted["services"], paths))
        if self.changes or prove:
            told = {line.split()[-1] for line in self.changes.get("services", [])}
            probes = [item for item in wanted["probes"] if not item.get("when") or item["when"] in told]
            self.room("probes", lambda: _probed(probes))

    def _put(self, changes: dict[str, State]) -> list[str]:
        transaction.put_in_place()
        _reload_units(list(changes))
        return lines(changes)

    def _keep(self, changes: dict[str, State], content: Callable[[State], bytes], managed: Any) -> dict[str, State]:
        """Put into store what is to be written and what it replaces; returns the states that are replaced."""
        replaced = {path: observe(path) for path in changes}
        for path, state in replaced.items():
            if state and "sha256" in state:
                generations.store(read(path))
        for after in changes.values():
            for key in ("sha256", "base"):
                if after and key in after:
                    generations.store(content({"sha256": after[key]}))
        generations.remember_origins({path: state for path, state in replaced.items() if path not in managed})
        return replaced

    def _journal(self) -> dict[str, Any]:
        return self.by | {"when": self.began}

    def _roll_back(  # noqa: PLR0913, PLR0917 - all that is known of a failed change
        self,
        error: Exception,
        wanted: dict[str, Any],
        changes: dict[str, State],
        active: dict[str, Any],
        running: list[str],
        began: float,
    ) -> AgentError:
        """Bring the files of before back, have the daemons notice and answer; returns what to tell the person."""
        from . import blame

        self.link.step("rollback", "start")
        reasons = blame.reasons(error, wanted, changes, began)
        paths = transaction.undo()
        _reload_units(paths)
        after = ""
        try:
            if active["number"]:
                before = machine.manifest()
                services.activate(before["services"], paths)
                _prove_again([item for item in before["probes"] if not item.get("when")])
            else:  # there was no mail system before: none stays behind half made
                services.stop([service["unit"] for service in wanted["services"] if service["unit"] not in running])
        except AgentError as second:
            after = f", which does not answer either: {second.message}"
        transaction.forget()
        self.changes = {room: done for room, done in self.changes.items() if room not in ("files", "services")}
        self.link.step("rollback", "failed" if after else "changed", "the files of before are back")
        self.link.resolute = False
        back = f"rolled back to generation {active['number']}" if active["number"] else "rolled back to what was before"
        stays = " (packages, users and database rows stay)" if self.changes else ""
        back += after or (", which answers" if active["number"] else "")
        told = "\n  ".join([reasons[0], back + stays, *reasons[1:]])
        return AgentError(told, outcome="rolled back")

    def _note(self, outcome: str, why: str = "") -> None:
        entry = {"when": self.began, **self.by, "revision": self.ask_revision(), "generation": self.generation}
        entry |= {"seconds": round(time.time() - self.began, 2), "outcome": outcome, "why": why.partition("\n")[0]}
        history.append(entry, self.changes)


def lines(changes: dict[str, State]) -> list[str]:
    """Changes as a person reads them; the manifest itself is no news."""
    shown = {path: state for path, state in changes.items() if path != machine.MANIFEST}
    return [path if state else f"remove {path}" for path, state in shown.items()]


def is_hidden(journal: dict[str, Any]) -> bool:
    """Whether a part of the journal's paths lies in a vault that is locked."""
    try:
        applied = machine.manifest()
    except AgentError:
        return False
    mountpoint = (applied.get("vault") or {}).get("mountpoint", "")
    inside = mountpoint and any(path.startswith(f"{mountpoint}/") for path in journal["paths"])
    return bool(inside) and not machine.vault_is_open(applied)


def _checked(wanted: dict[str, Any], changes: dict[str, State], content: Callable[[State], bytes]) -> list[str]:
    validate.check(wanted["services"], changes, content)
    return []


def _probed(probes: list[dict[str, Any]]) -> list[str]:
    probe.await_all(probes)
    return []


def _prove_again(probes: list[dict[str, Any]]) -> None:
    """After a rollback. A daemon that fell over meanwhile is started afresh.

    master(8) does not start a program of Postfix for a minute after it has died, whatever is reloaded.
    """
    try:
        probe.await_all(probes)
    except probe.ProbesFailed as error:
        for unit in dict.fromkeys(failed.get("service", "") for failed, _ in error.failures):
            if unit:
                run_program("systemctl", "restart", unit)
        probe.await_all(probes)


def _reload_units(paths: list[str]) -> None:
    if any(path.startswith(f"{services.UNIT_FILES}/") for path in paths):
        run_program("systemctl", "daemon-reload")
