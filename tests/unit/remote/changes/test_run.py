"""Whole runs on a machine on paper: what happens between two of them, or to one, and what is on the disk then."""

from __future__ import annotations

import base64
import os
from typing import Any

import pytest

from mailops.remote import bootstrap
from mailops.remote.changes import drift, rollback, run, sources, transaction, validate
from mailops.remote.shared.errors import AgentError
from mailops.remote.system import dpkg, packages
from mailops.remote.system import units as services
from tests.unit.remote.changes.paper import DIED, Paper

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
