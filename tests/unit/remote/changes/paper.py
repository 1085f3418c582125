"""A machine on paper: real files, records and journal; systemd, the checks and the probes are pretended."""

from __future__ import annotations

import base64
import grp
import hashlib
import os
import pwd
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mailops.remote import bootstrap, machine
from mailops.remote.changes import candidate, generations, history, rollback, run, sources, transaction, validate
from mailops.remote.services import daemon_log, probe
from mailops.remote.shared.errors import AgentError
from mailops.remote.system import asleep, dpkg, lock, packages, shell
from mailops.remote.system import units as services

ME, MINE = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
DIED = 9


class Paper:
    """A machine whose managed files lie below a folder, its laptop, and what its daemons were told."""

    origin = ""
    resolute = False

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.etc = root / "etc"
        self.etc.mkdir()
        self.laptop: dict[str, bytes] = {}
        self.told: list[str] = []
        self.stopped: list[str] = []
        self.checked: list[str] = []
        self.opened = True
        self.answer: Callable[[], None] = lambda: None  # what the probes do
        self.packages: Callable[[], list[str]] = list
        self._pretend(patch)

    def _pretend(self, patch: pytest.MonkeyPatch) -> None:
        state = str(self.root / "state")
        os.mkdir(state)
        for module in (machine, transaction, generations, candidate, bootstrap, rollback, sources):
            for name, value in list(vars(module).items()):
                if isinstance(value, str) and value.startswith(machine.STATE) and name != "STATE":
                    patch.setattr(module, name, value.replace(machine.STATE, state))
        patch.setattr(transaction, "STATE", state)
        patch.setattr(history, "FOLDER", str(self.root / "log"))
        patch.setattr(history, "PATH", str(self.root / "log" / "history.jsonl"))
        patch.setattr(lock, "RUN", str(self.root / "run"))
        patch.setattr(lock, "PATH", str(self.root / "run" / "lock"))
        patch.setattr(os, "fchown", lambda *_: None)  # root's files belong to whoever runs the tests
        patch.setattr(os, "fsync", lambda _: None)
        active = {"ActiveState": "active", "UnitFileState": "disabled"}
        patch.setattr(services, "states", lambda units: dict.fromkeys(units, active))
        patch.setattr(services, "stop", self.stopped.extend)
        patch.setattr(services, "_tell", lambda verb, unit: self.told.append(f"{verb} {unit}"))
        quiet = subprocess.CompletedProcess((), 0, "", "")
        for module in (services, run, daemon_log, shell):
            for name in ("run", "run_program"):
                if callable(getattr(module, name, None)):
                    patch.setattr(module, name, lambda *_, **__: quiet)
        patch.setattr(asleep, "_stopped", list)  # of this computer's own processes
        patch.setattr(validate, "check", lambda _, change: self.checked.extend(change.after))
        patch.setattr(probe, "await_all", lambda *_: self.answer())
        patch.setattr(machine, "vault_is_open", lambda _: self.opened)
        patch.setattr(bootstrap.installed, "converge", lambda **_: [])
        patch.setattr(dpkg, "missing", lambda _: [])
        patch.setattr(packages, "converge", lambda *_, **__: self.packages())

    # The laptop's side of the link

    def step(self, *_: object) -> None: ...

    def say(self, _: str) -> None: ...

    def ask(self, what: str, data: Any = None) -> Any:
        if what == "files":
            return {path: base64.b64encode(self.laptop[path]).decode() for path in data}
        return None

    # What the site wants, and runs

    def file(self, name: str, content: bytes, mode: int = 0o644, **more: Any) -> dict[str, Any]:
        path = str(self.etc / name)
        self.laptop[path] = content
        plain = {"owner": ME, "group": MINE, "secret": False, "local": "", "merge": "append"}
        return {"path": path, "sha256": hashlib.sha256(content).hexdigest(), "mode": mode} | plain | more

    def manifest(self, *files: dict[str, Any]) -> dict[str, Any]:
        unit = {"unit": "postfix.service", "roots": [str(self.etc)], "on_change": "reload", "mail": True, "checks": []}
        empty: dict[str, list[Any]] = {
            key: [] for key in ("packages", "debconf", "users", "directories", "certificates", "probes")
        }
        nothing = {"vault": None, "accounts": None, "dkim": None}
        return {"role": "mailnull", "hostname": "x", "files": [*files], "services": [unit], **empty, **nothing}

    def push(
        self, *files: dict[str, Any], task: str = "push", overwrite: bool = False, **more: Any
    ) -> dict[str, list[str]]:
        """The changes of a run; AgentError as the laptop gets it."""
        self.told.clear()
        self.checked.clear()
        with bootstrap.Convergence(task, "me@here", self).alone() as done:
            done.converge(self.manifest(*files) | more, overwrite)
        return done.changes

    def refused(self, *files: dict[str, Any], **more: Any) -> AgentError:
        with pytest.raises(AgentError) as caught:
            self.push(*files, **more)
        return caught.value

    def dies_in_the_probes(self, *files: dict[str, Any]) -> None:
        with pytest.MonkeyPatch.context() as cut:
            cut.setattr(self, "answer", lambda: os._exit(DIED))
            self.dies(*files)

    def dies(self, *files: dict[str, Any]) -> None:
        """A bootstrap, which somewhere ends this process with DIED."""
        child = os.fork()
        if not child:
            try:
                self.push(*files, task="bootstrap")
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == DIED
        assert transaction.pending()

    def bad_once(self) -> None:
        """The probes fail, and then they do not any more."""

        def fail() -> None:
            self.answer = lambda: None
            smtp = {"kind": "smtp", "port": 25, "service": "postfix.service"}
            raise probe.ProbesFailed([(smtp, "451 for ann@example.test")])

        self.answer = fail

    # What there is

    def read(self, name: str) -> bytes | None:
        path = self.etc / name
        return path.read_bytes() if path.exists() else None

    def active(self) -> int:
        return int(generations.active()["number"])

    def kept(self, content: bytes) -> bool:
        return generations.content({"sha256": hashlib.sha256(content).hexdigest()}) == content


def unlock(paper: Paper) -> AgentError | None:
    paper.opened = True
    try:
        with run.Run("unlock", "me@here", paper).alone() as done:
            rollback.prove(done)
    except AgentError as error:
        return error
    return None
