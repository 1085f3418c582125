"""Whole runs on a machine on paper: real files, records and journal; systemd, the checks and the probes are pretended.

What happens between two runs, or to one of them, and what is on the disk and in the report then.
"""

from __future__ import annotations

import base64
import grp
import hashlib
import json
import os
import pwd
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mailops.remote import bootstrap, machine
from mailops.remote.accounts import past
from mailops.remote.changes import candidate, drift, generations, history, rollback, run, sources, transaction, validate
from mailops.remote.services import daemon_log, probe, srs
from mailops.remote.shared.errors import REFUSED, AgentError
from mailops.remote.system import asleep, dpkg, lock, packages, shell
from mailops.remote.system import units as services
from mailops.remote.system.files import observe

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


@pytest.fixture
def paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paper:
    return Paper(tmp_path, monkeypatch)


# Edits by hand


def test_an_edit_that_the_site_adopts_is_checked_and_proven_and_a_generation_of_its_own(paper: Paper) -> None:
    paper.push(paper.file("main.cf", b"limit = 1\n"))
    (paper.etc / "main.cf").write_bytes(b"limit = 2\n")
    wanted = paper.file("main.cf", b"limit = 2\n")
    assert paper.push(wanted) == {"files": [wanted["path"]], "services": ["reload postfix.service"]}
    assert wanted["path"] in paper.checked
    assert paper.active() == 2
    assert paper.kept(b"limit = 1\n")
    assert paper.kept(b"limit = 2\n")
    assert paper.push(wanted) == {}
    rollback.call({"who": "me@here", "to": 1}, paper)
    assert paper.read("main.cf") == b"limit = 1\n"


def test_an_adopted_edit_that_does_not_work_is_left_to_its_author_and_told(paper: Paper) -> None:
    paper.push(paper.file("main.cf", b"limit = 1\n"))
    (paper.etc / "main.cf").write_bytes(b"limit = many\n")
    paper.bad_once()
    assert "rolled back to generation 1" in paper.refused(paper.file("main.cf", b"limit = many\n")).message
    assert paper.active() == 1
    assert paper.read("main.cf") == b"limit = many\n"
    assert [entry["path"] for entry in drift.call({}, None)["files"]] == [str(paper.etc / "main.cf")]


def test_an_edit_while_a_bootstrap_is_at_work_stops_it(paper: Paper, monkeypatch: pytest.MonkeyPatch) -> None:
    paper.push(paper.file("main.cf", b"1"))

    def somebody_edits(*_: Any, **__: Any) -> list[str]:
        (paper.etc / "main.cf").write_bytes(b"by hand")
        return ["user x"]

    monkeypatch.setattr(bootstrap.users, "converge", somebody_edits)
    assert paper.refused(paper.file("main.cf", b"2"), task="bootstrap").code == 3
    assert paper.read("main.cf") == b"by hand"


def test_a_unit_that_is_there_waits_for_the_generation(paper: Paper, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only missing ones are written before packages come, which may fail to come."""
    monkeypatch.setattr(bootstrap, "FIRST", (str(paper.etc / "units"),))
    paper.push(paper.file("units/a", b"a1"), paper.file("main.cf", b"1"))
    monkeypatch.setattr(dpkg, "missing", lambda _: ["new"])

    def fail() -> list[str]:
        raise AgentError("apt-get could not")

    paper.packages = fail
    wanted = [paper.file("units/a", b"a2"), paper.file("units/b", b"b2"), paper.file("main.cf", b"2")]
    assert paper.refused(*wanted, task="bootstrap").message == "apt-get could not"
    assert (paper.read("units/a"), paper.read("units/b"), paper.read("main.cf")) == (b"a1", b"b2", b"1")
    assert "need what is not there: new" in paper.refused(*wanted, task="push").message
    monkeypatch.setattr(dpkg, "missing", lambda _: [])
    assert paper.push(*wanted)["files"] == [str(paper.etc / "units/a"), str(paper.etc / "main.cf")]
    rollback.call({"who": "me@here", "to": 1}, paper)
    assert (paper.read("units/a"), paper.read("main.cf")) == (b"a1", b"1")


# Packages from another source


def test_packages_move_within_a_change_and_back_with_it(paper: Paper, monkeypatch: pytest.MonkeyPatch) -> None:
    did: list[str] = []

    class Move:
        changed = ("postfix",)
        go = targets = settle = back = lambda *_: []

        def __init__(self, *_: Any) -> None: ...

        def __getattribute__(self, name: str) -> Any:
            did.append(name)
            return object.__getattribute__(self, name)

    source = {"name": "x", "url": "https://x.test/", "suite": "y", "packages": ["postfix"]}
    monkeypatch.setattr(sources, "Move", Move)
    monkeypatch.setattr(sources, "refuse_shared", lambda _: None)
    paper.push(paper.file("main.cf", b"1"))
    paper.bad_once()
    told = paper.refused(paper.file("main.cf", b"2"), task="bootstrap", sources=[source]).message
    assert "rolled back to generation 1, which answers" in told
    assert [name for name in did if name != "changed"] == ["go", "back"]
    assert paper.told == ["restart postfix.service"] * 2
    did.clear()
    paper.push(paper.file("main.cf", b"2"), task="bootstrap", sources=[source])
    assert [name for name in did if name != "changed"] == ["go", "settle"]
    assert paper.told == ["restart postfix.service"]
    did.clear()  # no file differs; it is asked whether the packages can be had by now
    paper.push(paper.file("main.cf", b"2"), task="bootstrap", sources=[source])
    assert did == ["targets"]
    did.clear()
    paper.push(paper.file("main.cf", b"3"), sources=[source])
    assert (did, paper.told) == ([], ["reload postfix.service"])


def test_debians_certificates_come_before_a_source_is_asked(paper: Paper, monkeypatch: pytest.MonkeyPatch) -> None:
    did: list[Any] = []
    source = {"name": "x", "url": "https://x.test/", "suite": "y", "packages": ["new"]}
    monkeypatch.setattr(dpkg, "missing", lambda names: [name for name in names if name == "new"])
    monkeypatch.setattr(packages, "converge", lambda names, *_, **__: did.append(names) or [])

    def refuse(*_: Any) -> None:
        did.append("asked")
        raise AgentError("it does not answer")

    monkeypatch.setattr(sources, "require", refuse)
    monkeypatch.setattr(sources, "refuse_shared", lambda _: None)
    wanted = {"sources": [source], "packages": ["ca-certificates", "new"]}
    assert paper.refused(paper.file("main.cf", b"1"), task="bootstrap", **wanted).message == "it does not answer"
    assert did == [["ca-certificates"], "asked"]
    assert paper.active() == 0


# What was there before


def test_a_path_that_says_what_it_should_when_it_is_taken_over_is_not_taken_away(paper: Paper) -> None:
    (paper.etc / "mailname").write_bytes(b"x\n")
    (paper.etc / "mailname").chmod(0o644)
    paper.push(paper.file("main.cf", b"1"))
    wanted = paper.file("mailname", b"x\n")
    paper.push(paper.file("main.cf", b"2"), wanted)
    assert paper.kept(b"x\n")
    (paper.etc / "mailname").write_bytes(b"by hand\n")
    (entry,) = drift.call({}, None)["files"]
    assert base64.b64decode(entry["before"]) == b"x\n"
    rollback.call({"who": "me@here", "to": 1, "overwrite": True}, paper)
    assert paper.read("mailname") == b"x\n"


def test_a_file_of_which_the_mode_alone_is_wrong_needs_no_content(
    paper: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    (paper.etc / "mailname").write_bytes(b"x\n")
    (paper.etc / "mailname").chmod(0o600)
    monkeypatch.setattr(validate, "check", lambda _, change: [change.content(s) for s in change.after.values() if s])
    assert paper.push(paper.file("mailname", b"x\n"))["files"] == [str(paper.etc / "mailname")]
    assert (paper.etc / "mailname").stat().st_mode & 0o777 == 0o644


# Rolling back


@pytest.mark.parametrize("trouble", [AgentError("journalctl did not end within 120 s"), TypeError("a list")])
def test_a_report_that_fails_does_not_keep_the_files_of_before_from_coming_back(
    paper: Paper, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    paper.push(paper.file("main.cf", b"1"))

    def fail(*_: Any) -> list[str]:
        raise trouble

    monkeypatch.setattr(daemon_log, "since", fail)
    paper.bad_once()
    told = paper.refused(paper.file("main.cf", b"2")).message
    assert "rolled back to generation 1, which answers" in told
    assert "the suspects are not known" in told
    assert (paper.read("main.cf"), paper.active(), transaction.pending()) == (b"1", 1, None)


def test_everybody_is_told_although_one_does_not_obey(paper: Paper, monkeypatch: pytest.MonkeyPatch) -> None:
    def tell(verb: str, unit: str) -> None:
        paper.told.append(unit)
        if unit != "b.service":
            raise AgentError(f"{unit} did not {verb}", units=[unit])

    monkeypatch.setattr(services, "_tell", tell)
    wanted = [{"unit": f"{name}.service", "roots": ["/etc/x"], "on_change": "reload"} for name in "abc"]
    with pytest.raises(AgentError, match=r"a\.service did not reload; c\.service did not reload") as caught:
        services.activate(wanted, ["/etc/x"])
    assert paper.told == ["a.service", "b.service", "c.service"]
    assert caught.value.units == ("a.service", "c.service")


def test_what_is_asked_after_a_change_goes_by_the_units_that_were_told_not_by_the_words_for_it(
    paper: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(services.Told, "__str__", lambda _: "somebody was told")
    monkeypatch.setattr(probe, "await_all", lambda probes, *_: asked.extend(item["kind"] for item in probes))
    whens = {"smtp": "", "login": "postfix.service", "imaps": "dovecot.service"}
    probes = [{"kind": kind, "port": 1, "when": unit, "options": {}} for kind, unit in whens.items()]
    changes = paper.push(paper.file("main.cf", b"1"), probes=probes)
    assert changes["services"] == ["somebody was told"]
    assert asked == ["smtp", "login"]


def test_a_failed_first_bootstrap_tells_the_daemon_that_ran_before(paper: Paper) -> None:
    (paper.etc / "main.cf").write_bytes(b"an administrator's own")
    paper.bad_once()
    assert "rolled back to what was before" in paper.refused(paper.file("main.cf", b"ours")).message
    assert paper.read("main.cf") == b"an administrator's own"
    assert (paper.told, paper.stopped) == (["reload postfix.service"] * 2, [])


def test_a_daemon_that_cannot_be_started_afresh_keeps_no_other_down(
    paper: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tell(verb: str, unit: str) -> None:
        paper.told.append(f"{verb} {unit}")
        if unit == "redis.service":
            raise AgentError("redis.service did not restart", units=[unit])

    monkeypatch.setattr(services, "_tell", tell)
    with pytest.raises(AgentError, match=r"redis\.service"):
        services.restart(["redis.service", "postfix.service"])
    assert paper.told == ["restart redis.service", "restart postfix.service"]


def test_a_vault_that_goes_in_the_middle_leaves_the_undoing_to_the_unlock(
    paper: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault, hidden = paper.root / "vault", paper.root / "hidden"
    vault.mkdir()
    mounted = [True]
    monkeypatch.setattr(machine, "is_mounted", lambda _: mounted[0])
    wanted = {"vault": {"mountpoint": str(vault), "cipherdir": "x", "directories": []}}

    def files(text: bytes) -> list[dict[str, Any]]:
        sieve = str(vault / "junk.sieve")
        return [paper.file("main.cf", text), paper.file("sieve", text) | {"path": sieve}]

    paper.laptop[str(vault / "junk.sieve")] = b"1"
    paper.push(*files(b"1"), **wanted)

    def die() -> None:
        mounted[0] = False
        vault.rename(hidden)
        vault.mkdir()
        raise AgentError("no answer")

    paper.answer = die
    paper.laptop[str(vault / "junk.sieve")] = b"2"
    error = paper.refused(*files(b"2"), **wanted)
    assert (error.code, "the vault has gone" in error.message, "unlock" in error.hint) == (5, True, True)
    assert transaction.pending()
    vault.rmdir()
    hidden.rename(vault)
    mounted[0] = True
    paper.answer = lambda: None
    run.Run("unlock", "me@here", paper).recover()
    assert [path.read_bytes() for path in vault.iterdir()] == [b"1"]
    assert paper.read("main.cf") == b"1"


def test_a_script_that_comes_back_is_not_run_as_it_was_compiled_meanwhile(paper: Paper) -> None:
    paper.push(paper.file("junk.sieve", b"keep;"))
    compiled = paper.etc / "junk.svbin"
    compiled.write_bytes(b"keep")
    (paper.etc / "other.svbin").write_bytes(b"another's")

    def a_message_comes() -> None:
        assert not compiled.exists()
        compiled.write_bytes(b"discard")
        paper.bad_once()
        paper.answer()

    paper.answer = a_message_comes
    paper.refused(paper.file("junk.sieve", b"discard;"))
    assert paper.read("junk.sieve") == b"keep;"
    assert sorted(path.name for path in paper.etc.iterdir()) == ["junk.sieve", "other.svbin"]


# A push while the vault is locked, and the unlock


def unlock(paper: Paper) -> AgentError | None:
    paper.opened = True
    try:
        with run.Run("unlock", "me@here", paper).alone() as done:
            rollback.prove(done)
    except AgentError as error:
        return error
    return None


def test_an_unlock_falls_back_to_what_the_change_came_from(paper: Paper) -> None:
    for text in (b"1", b"2", b"3"):
        paper.push(paper.file("main.cf", text))
    rollback.call({"who": "me@here", "to": 2}, paper)
    paper.opened = False
    paper.push(paper.file("main.cf", b"4"))
    paper.bad_once()
    error = unlock(paper)
    assert error
    assert "generation 2 is active again, and answers" in error.message
    assert (paper.active(), paper.read("main.cf")) == (2, b"2")


def test_an_unlock_that_falls_back_leaves_a_hand_edit_alone_and_names_it(paper: Paper) -> None:
    paper.push(paper.file("main.cf", b"1"), paper.file("other", b"o"))
    paper.opened = False
    paper.push(paper.file("main.cf", b"2"), paper.file("other", b"o"))
    (paper.etc / "other").write_bytes(b"by hand")
    paper.bad_once()
    error = unlock(paper)
    assert error
    assert f"left as edited on this machine: {paper.etc / 'other'}" in error.message
    assert (paper.read("main.cf"), paper.read("other")) == (b"1", b"by hand")


def beside_the_vault(paper: Paper) -> dict[str, Any]:
    """A manifest's services and probes: a web server that needs no vault, and Postfix, which does."""
    web = {"unit": "nginx.service", "roots": [str(paper.etc)], "on_change": "reload", "mail": False, "checks": []}
    probes = [{"kind": "http", "port": 80, "options": {}, "service": "nginx.service"}]
    probes += [{"kind": "smtp", "port": 25, "options": {}, "service": "postfix.service"}]
    return {"services": [web, *paper.manifest()["services"]], "probes": probes}


def test_what_needs_no_vault_is_told_and_asked_while_that_is_locked(
    paper: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(probe, "await_all", lambda probes, *_: asked.extend(item["port"] for item in probes))
    paper.opened = False
    paper.push(paper.file("main.cf", b"1"), **beside_the_vault(paper))
    assert (paper.told, asked) == (["reload nginx.service"], [80])
    assert not generations.active()["proven"]
    assert unlock(paper) is None
    assert (asked, generations.active()["proven"]) == ([80, 80, 25], True)


def test_a_push_that_what_needs_no_vault_does_not_survive_is_rolled_back_at_once(paper: Paper) -> None:
    more = beside_the_vault(paper)
    paper.push(paper.file("main.cf", b"1"), **more)
    paper.opened = False
    paper.bad_once()
    paper.refused(paper.file("main.cf", b"2"), **more)
    assert paper.read("main.cf") == b"1"
    assert paper.told == ["reload nginx.service"] * 2  # of both files, and Postfix of none


def test_the_generation_to_fall_back_to_is_not_pruned(paper: Paper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generations, "KEPT", 2)
    paper.push(paper.file("main.cf", b"good"))
    paper.opened = False
    for number in range(4):
        paper.push(paper.file("main.cf", b"%d" % number))
    assert generations.numbers() == [1, 4, 5]
    paper.bad_once()
    assert unlock(paper)
    assert (paper.active(), paper.read("main.cf")) == (1, b"good")


# A run that was cut


@pytest.mark.parametrize("ran", [False, True], ids=["a new daemon", "one that ran before"])
def test_a_first_bootstrap_that_was_cut_leaves_no_daemon_of_its_own_with_debians_files(
    paper: Paper, monkeypatch: pytest.MonkeyPatch, ran: bool
) -> None:
    monkeypatch.setattr(services, "running", lambda _: ["postfix.service"] * ran)
    (paper.etc / "main.cf").write_bytes(b"Debian's")
    paper.dies_in_the_probes(paper.file("main.cf", b"ours"))
    transaction.undo()  # and that was cut as well, before anybody was told
    run.Run("bootstrap", "me@here", paper).recover()
    assert paper.read("main.cf") == b"Debian's"
    assert (paper.stopped, paper.told) == (([], ["reload postfix.service"]) if ran else (["postfix.service"], []))


def test_a_first_bootstrap_that_was_cut_while_it_tied_the_units_is_undone(
    paper: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any package is there: no daemon has anything to do with it, and the journal names none."""
    monkeypatch.setattr(dpkg, "missing", lambda _: ["postfix"])
    monkeypatch.setattr(bootstrap, "FIRST", (str(paper.etc / "tie"),))
    with monkeypatch.context() as cut:
        cut.setattr(transaction, "finish", lambda: os._exit(DIED))
        paper.dies(paper.file("tie", b"ours"))
    assert paper.read("tie") == b"ours"
    run.Run("bootstrap", "me@here", paper).recover()
    assert not (paper.etc / "tie").exists()
    assert transaction.pending() is None


def test_what_a_cut_run_has_left_is_nobodys_edit(paper: Paper) -> None:
    paper.push(paper.file("main.cf", b"1"), paper.file("other", b"o"))
    paper.dies_in_the_probes(paper.file("main.cf", b"2"), paper.file("other", b"o"))
    assert drift.call({}, None)["files"] == []
    planned = bootstrap.plan(paper.manifest(paper.file("main.cf", b"3"), paper.file("other", b"o")), paper)
    assert (planned["edited"], planned["interrupted"]) == ([], True)
    (paper.etc / "other").write_bytes(b"by hand")
    assert [entry["path"] for entry in drift.call({}, None)["files"]] == [str(paper.etc / "other")]


# Secrets


def shown(files: list[dict[str, Any]]) -> str:
    return json.dumps([entry | {"before": _plain(entry["before"]), "after": _plain(entry["after"])} for entry in files])


def _plain(text: str | None) -> str:
    return base64.b64decode(text or "").decode()


def test_an_edit_that_closed_its_file_shows_in_no_plan_and_in_no_report(paper: Paper) -> None:
    paper.push(paper.file("dovecot.conf", b"a\n"))
    (paper.etc / "dovecot.conf").write_bytes(b"a\npassword = hunter2\n")
    (paper.etc / "dovecot.conf").chmod(0o600)
    planned = bootstrap.plan(paper.manifest(paper.file("dovecot.conf", b"b\n")), paper)
    assert [entry["secret"] for entry in (*planned["files"], *planned["edited"])] == [True, True]
    assert "hunter2" not in shown(planned["files"]) + shown(planned["edited"])
    paper.bad_once()
    assert "hunter2" not in paper.refused(paper.file("dovecot.conf", b"b\n"), overwrite=True).message
    assert b"hunter2" in (paper.read("dovecot.conf") or b"")


def test_a_plan_shows_nothing_of_what_was_secret_until_now(paper: Paper) -> None:
    addition = paper.root / "local"
    addition.write_bytes(b"requirepass hunter2\n")
    addition.chmod(0o600)
    redis = paper.file("redis.conf", b"base\n", local=str(addition))
    login = paper.file("login", b"relay:hunter2\n", 0o600, secret=True)
    paper.push(redis, login)
    addition.unlink()
    planned = bootstrap.plan(paper.manifest(redis), paper)
    assert sorted(entry["path"] for entry in planned["files"]) == [login["path"], redis["path"]]
    assert "hunter2" not in shown(planned["files"])


def test_an_edit_that_closed_its_file_to_others_is_not_shown(paper: Paper) -> None:
    paper.push(paper.file("dovecot.conf", b"a\n"))
    (paper.etc / "dovecot.conf").write_bytes(b"a\npassword = hunter2\n")
    (paper.etc / "dovecot.conf").chmod(0o600)
    (entry,) = drift.call({}, None)["files"]
    assert (entry["state"], entry["secret"], entry["after"]) == ("edited", True, None)


def test_a_refused_run_has_the_daemons_words_in_the_history() -> None:
    words = ["postfix: main.cf, line 3: missing '='"]
    assert history.reason(AgentError("refused by checks", outcome=REFUSED, more=words)).endswith(f"; {words[0]}")
    assert history.reason(AgentError("no answer", more=words)) == "no answer"
    assert len(history.reason(AgentError("no", outcome=REFUSED, more=["x" * 5000]))) <= history.REASON


def test_history_has_what_mailcfg_did_while_the_vault_is_open(
    paper: Paper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paper.push(paper.file("main.cf", b"1"))
    database, by = str(tmp_path / "mail.sqlite"), {"who": "ann on the machine", "from": "its console"}
    monkeypatch.setattr(os, "fchown", lambda *_: None)
    past.note(database, "passwd", by, ["changed the password of bob@example.test"])
    monkeypatch.setattr(machine, "manifest", lambda: {"accounts": {"database": database}, "vault": {}})
    monkeypatch.setattr(machine, "vault_is_open", lambda _: True)
    assert [entry["task"] for entry in history.call({"count": 5}, None)["entries"]] == ["push", "mailcfg passwd"]
    assert [entry["task"] for entry in history.call({"count": 1}, None)["entries"]] == ["mailcfg passwd"]
    monkeypatch.setattr(machine, "vault_is_open", lambda _: False)
    closed = history.call({"count": 5}, None)
    assert ([entry["task"] for entry in closed["entries"]], closed["unseen"]) == (["push"], True)


def test_history_names_no_mailbox(paper: Paper) -> None:
    paper.push(paper.file("main.cf", b"1"))
    paper.bad_once()
    assert "ann@example.test" in paper.refused(paper.file("main.cf", b"2")).message
    (entry,) = history.entries(1)
    assert entry["why"] == "smtp 25: 451 for …@example.test"
    assert entry["who"] == "me@here"


def test_a_clock_that_is_set_back_makes_no_run_shorter_than_nothing(
    paper: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(range(1_800_000_000, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(times)))
    paper.push(paper.file("main.cf", b"1"))
    (entry,) = history.entries(1)
    assert 0 <= entry["seconds"] < 60


def test_the_manifest_that_is_kept_names_nobody(paper: Paper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(srs, "converge", lambda *_, **__: [])
    accounts = {"database": "/vault/db/mail.sqlite", "domains": [], "users": ["ann@example.test"], "aliases": []}
    paper.push(paper.file("main.cf", b"1"), accounts=accounts)
    assert machine.manifest()["accounts"] == {"database": "/vault/db/mail.sqlite"}
    kept = [path.read_bytes() for path in (paper.root / "state").rglob("*") if path.is_file()]
    assert not [content for content in kept if b"ann@" in content]
    assert observe(str(paper.etc / "main.cf"))
