"""Packages from a source of the site's: what is said, what is noted, and what comes back."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mailops.remote.changes import sources
from mailops.remote.shared.errors import AgentError
from mailops.remote.system import dpkg, packages

URL = "https://apt.elsewhere.test/stable/"
SOURCE = {"name": "rspamd", "url": URL, "suite": "trixie", "packages": ["rspamd"]}
UPSTREAM: dict[str, Any] = {"sources": [SOURCE]}
DEBIAN: dict[str, Any] = {"sources": []}


class Apt:
    """What apt knows, and what it was asked to take."""

    def __init__(self, tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
        self.installed = "3.12"
        self.offers = {"3.12": "http://deb.debian.org/debian", "9.0": URL.rstrip("/")}
        self.said: list[str] = []
        self.taken: list[dict[str, str]] = []
        self.answers = True
        patch.setattr(sources, "NOTE", str(tmp_path / "sources.json"))
        patch.setattr(sources, "run", self.run)
        patch.setattr(packages, "update", lambda _: None)
        patch.setattr(dpkg, "version", lambda _: self.installed)
        patch.setattr(dpkg, "missing", lambda names: [] if self.installed else names)
        patch.setattr(packages, "take", self.take)
        patch.setattr(sources, "write_atomic", lambda path, content, _: Path(path).write_bytes(content))

    def say(self, text: str) -> None:
        self.said.append(text)

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        rows = [f"rspamd | {v} | {self.offers[v]} trixie/main amd64 Packages" for v in sorted(self.offers)[::-1]]
        debians = [v for v, place in self.offers.items() if "debian" in place]
        answers = {"madison": "\n".join(rows), "policy": f"rspamd:\n  Candidate: {(debians or ['(none)'])[0]}\n"}
        return subprocess.CompletedProcess(command, 0, answers[command[-2]], "")

    def take(self, versions: dict[str, str], link: Any) -> None:
        if not self.answers:
            raise packages.Unfetched("Unable to fetch some archives")
        self.taken.append(versions)
        self.installed = versions["rspamd"]

    def move(self, wanted: dict[str, Any]) -> sources.Move:
        return sources.Move(wanted, self)


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Apt:
    return Apt(tmp_path, monkeypatch)


def test_there_and_back(apt: Apt) -> None:
    assert sources.waiting(UPSTREAM) == [f"rspamd from {URL}"]
    move = apt.move(UPSTREAM)
    assert move.go() == ["rspamd 3.12 → 9.0"]
    assert sources.waiting(UPSTREAM) == [f"rspamd from {URL}"]  # it is not proven yet
    move.settle()
    assert sources.waiting(UPSTREAM) == []
    assert sources.waiting(DEBIAN) == ["rspamd from Debian"]
    move = apt.move(DEBIAN)
    assert move.go() == ["rspamd 9.0 → 3.12"]
    move.settle()
    assert (sources.waiting(DEBIAN), sources.waiting({})) == ([], [])


def test_what_does_not_work_goes_back_to_the_very_version(apt: Apt) -> None:
    apt.offers["3.12.1"] = "http://security.debian.org/debian"
    move = apt.move(UPSTREAM)
    move.go()
    move.back()
    assert apt.taken == [{"rspamd": "9.0"}, {"rspamd": "3.12"}]
    assert sources.waiting(DEBIAN) == []


def test_a_version_that_is_not_to_be_had_any_more_is_replaced_by_what_apt_would_take(apt: Apt) -> None:
    apt.installed = "3.11"
    move = apt.move(UPSTREAM)
    move.go()
    move.back()
    assert apt.installed == "3.12"


def test_a_run_that_is_cut_in_between_is_not_taken_for_done(apt: Apt) -> None:
    apt.move(UPSTREAM).go()
    assert sources.waiting(DEBIAN) == ["rspamd from Debian"]
    assert apt.move(DEBIAN).go() == ["rspamd 9.0 → 3.12"]


@pytest.mark.parametrize("answers", [True, False])
def test_a_source_that_fails_changes_nothing_and_is_tried_again(apt: Apt, answers: bool) -> None:
    apt.answers = answers
    if answers:
        del apt.offers["9.0"]
    move = apt.move(UPSTREAM)
    assert move.go() == []
    move.settle()
    move.back()
    assert (apt.taken, move.changed) == ([], [])
    assert apt.said[0].startswith("rspamd stays 3.12: ")
    assert apt.said[0].endswith("; next: fab bootstrap, when it does")
    assert sources.waiting(UPSTREAM) == [f"rspamd from {URL}"]
    assert sources.waiting(DEBIAN) == []


def test_debians_is_not_taken_in_silence_where_there_was_none(apt: Apt) -> None:
    sources.require(UPSTREAM, apt)  # there is one
    apt.installed = ""
    sources.require(UPSTREAM, apt)
    sources.require(DEBIAN, apt)
    del apt.offers["9.0"]
    with pytest.raises(AgentError, match=f"rspamd is to come from {URL} trixie, which does not answer"):
        sources.require(UPSTREAM, apt)


def test_a_host_that_serves_others_as_well_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    monkeypatch.setattr(sources, "LISTS", (str(tmp_path / "sources.list"), str(parts)))
    monkeypatch.setattr(sources, "PLACES", (f"{parts}/mailops-",))
    (tmp_path / "sources.list").write_text("deb http://deb.debian.org/debian trixie main\n")
    (parts / "mailops-rspamd.sources").write_text(f"URIs: {URL}\n")
    (parts / "other.list").write_text(
        "deb http://my-apt.elsewhere.test/ x y\ndeb http://apt.elsewhere.test.example/ x y\n"
    )
    sources.refuse_shared(UPSTREAM)
    (parts / "debian.sources").write_text("URIs: http://apt.elsewhere.test:8080/debian\n")
    with pytest.raises(AgentError, match=r"debian\.sources has a source on apt\.elsewhere\.test, too"):
        sources.refuse_shared(UPSTREAM)
    sources.refuse_shared(DEBIAN)


def test_the_note_of_an_earlier_version_is_none(apt: Apt) -> None:
    assert sources.waiting({}) == []
    Path(sources.NOTE).write_text(json.dumps({"from": [SOURCE]}))
    assert sources.waiting({}) == ["rspamd from Debian"]
