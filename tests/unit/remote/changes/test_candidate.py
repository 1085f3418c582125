"""What the files of a machine should be, how they differ, and whose the differences are."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mailops.remote.changes import candidate as candidates
from mailops.remote.changes import generations
from mailops.remote.changes.candidate import Candidate
from mailops.remote.shared.errors import AgentError
from mailops.remote.system.files import observe

MANIFEST = "manifest.json"


class Machine:
    """A machine's managed files in a temporary folder, with a store; and the laptop that knows the contents."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.laptop: dict[str, bytes] = {}
        self.asked: list[str] = []

    def path(self, name: str) -> str:
        return str(self.root / name)

    def file(
        self, name: str, content: bytes, local: str = "", merge: str = "append", mode: int = 0o644
    ) -> dict[str, Any]:
        """A file of the manifest."""
        self.laptop[self.path(name)] = content
        owner = {"owner": self.root.owner(), "group": self.root.group()}
        digest = hashlib.sha256(content).hexdigest()
        addition = {"local": self.path(local) if local else "", "merge": merge}
        return {"path": self.path(name), "sha256": digest, "mode": mode, "secret": False, **owner, **addition}

    def there(self, name: str, content: bytes, mode: int = 0o644) -> None:
        (self.root / name).write_bytes(content)
        (self.root / name).chmod(mode)

    def wrote(self, **contents: bytes) -> dict[str, Any]:
        """The active generation, after mailops wrote these files."""
        for name, content in contents.items():
            self.there(name, content)
        return {"number": 1, "files": {self.path(name): observe(self.path(name)) for name in contents}, "locals": {}}

    def ask(self, what: str, paths: list[str]) -> dict[str, str]:
        assert what == "files"
        self.asked += paths
        return {path: base64.b64encode(self.laptop[path]).decode() for path in paths}

    def candidate(self, files: list[dict[str, Any]], active: dict[str, Any], hidden: str = "/vault/") -> Candidate:
        return Candidate({"files": files}, active, self, lambda path: not path.startswith(hidden))

    def changes(self, found: Candidate) -> dict[str, Any]:
        return {Path(path).name: state for path, state in found.changes.items() if not path.endswith(MANIFEST)}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    for name in ("OBJECTS", "RECORDS", "ACTIVE", "ORIGINS"):
        monkeypatch.setattr(generations, name, str(tmp_path / "state" / name.lower()))
    (tmp_path / "state").mkdir()
    monkeypatch.setattr(candidates, "MANIFEST", str(tmp_path / "state" / MANIFEST))
    return Machine(tmp_path)


def test_what_is_as_it_should_be_asks_for_nothing(machine: Machine) -> None:
    active = machine.wrote(main=b"then")
    found = machine.candidate([machine.file("main", b"then")], active)
    assert machine.changes(found) == {}
    assert machine.asked == []


@pytest.mark.parametrize("spoil", ["content", "mode", "absence", "link"])
def test_every_way_to_differ_is_a_change(machine: Machine, spoil: str) -> None:
    active = machine.wrote(main=b"then")
    path = machine.root / "main"
    match spoil:
        case "content":
            path.write_bytes(b"other")
        case "mode":
            path.chmod(0o600)
        case "absence":
            path.unlink()
        case "link":
            path.rename(machine.root / "elsewhere")
            path.symlink_to("elsewhere")
    found = machine.candidate([machine.file("main", b"then")], active)
    assert list(machine.changes(found)) == ["main"]
    assert found.edited() == ([] if spoil == "absence" else [machine.path("main")])


def test_a_hand_edit_is_told_from_our_own_change(machine: Machine) -> None:
    active = machine.wrote(edited=b"then", ours=b"then", gone=b"then", agreed=b"then")
    machine.there("edited", b"by hand")
    machine.there("agreed", b"now")  # the same by hand as we want it: nothing is lost
    (machine.root / "gone").unlink()
    found = machine.candidate(
        [machine.file(name, b"now") for name in ("edited", "ours", "gone", "agreed", "new")], active
    )
    assert found.edited() == [machine.path("edited")]
    assert sorted(machine.changes(found)) == ["agreed", "edited", "gone", "new", "ours"]  # no daemon knows it yet


def test_a_file_of_somebody_else_is_taken_over_and_no_hand_edit(machine: Machine) -> None:
    machine.there("main", b"Debian's")
    found = machine.candidate([machine.file("main", b"ours")], generations.EMPTY)
    assert list(machine.changes(found)) == ["main"]
    assert found.edited() == []


def test_a_path_given_up_goes_back_to_what_it_was_unless_somebody_made_it_theirs(machine: Machine) -> None:
    active = machine.wrote(born=b"ours", taken=b"ours", edited=b"ours", kept=b"ours")
    before = {"sha256": generations.store(b"Debian's"), "mode": 0o640, "uid": 0, "gid": 0}
    generations.remember_origins({machine.path("born"): None, machine.path("taken"): before})
    machine.there("edited", b"by hand")
    found = machine.candidate([machine.file("kept", b"ours")], active)
    assert machine.changes(found) == {"born": None, "taken": before}
    assert set(found.files) == {machine.path("kept"), str(machine.root / "state" / MANIFEST)}
    assert found.edited() == []


def test_contents_that_the_machine_keeps_do_not_travel(machine: Machine) -> None:
    active = machine.wrote(main=b"then")
    generations.store(b"now")
    found = machine.candidate([machine.file("main", b"now")], active)
    assert machine.asked == []
    assert found.content(machine.changes(found)["main"]) == b"now"


def test_a_content_that_is_not_the_promised_one_is_refused(machine: Machine) -> None:
    file = machine.file("main", b"now")
    machine.laptop[machine.path("main")] = b"other"
    with pytest.raises(AgentError, match="did not arrive as it was promised"):
        machine.candidate([file], generations.EMPTY)


@pytest.fixture
def with_local(machine: Machine) -> Callable[[], Candidate]:
    """A file with a local addition, which mailops wrote before there was any."""
    active = machine.wrote(main=b"a = 1\n")
    file = machine.file("main", b"a = 1\n", local="local")
    return lambda: machine.candidate([file], active)


def test_a_local_addition_becomes_part_of_the_file(machine: Machine, with_local: Callable[[], Candidate]) -> None:
    machine.there("local", b"b = 2\n")
    found = with_local()
    state = machine.changes(found)["main"]
    assert found.content(state).startswith(b"a = 1\n")
    assert found.content(state).endswith(b"b = 2\n")
    assert found.content({"sha256": state["base"]}) == b"a = 1\n"
    assert found.record()["locals"] == {machine.path("local"): hashlib.sha256(b"b = 2\n").hexdigest()}
    assert found.edited() == []  # what the administrator adds there is no hand edit
    assert (state["mode"], state["secret"]) == (0o644, False)


def test_a_private_addition_makes_the_file_private(machine: Machine, with_local: Callable[[], Candidate]) -> None:
    machine.there("local", b"password = x\n", mode=0o600)
    state = machine.changes(with_local())["main"]
    assert (state["mode"], state["secret"]) == (0o640, True)


@pytest.mark.parametrize("addition", [None, b"", b"# nothing yet\n\n"])
def test_no_addition_means_the_file_as_it_is(
    machine: Machine, with_local: Callable[[], Candidate], addition: bytes | None
) -> None:
    if addition is not None:
        machine.there("local", addition)
    assert machine.changes(with_local()) == {}


def test_what_lies_in_a_locked_vault_stays_as_it_is_recorded(machine: Machine) -> None:
    inside = machine.path("vault/script")
    active = machine.wrote(main=b"then")
    active["files"][inside] = recorded = {"sha256": "0" * 64, "mode": 0o644, "uid": 0, "gid": 0}
    files = [machine.file("main", b"then"), machine.file("vault/script", b"new")]
    found = machine.candidate(files, active, hidden=machine.path("vault/"))
    assert machine.changes(found) == {}
    assert found.files[inside] == recorded


def test_the_manifest_is_a_file_of_its_generation(machine: Machine) -> None:
    file = machine.file("main", b"then")
    found = machine.candidate([file], machine.wrote(main=b"then"))
    (path,) = found.changes
    assert json.loads(found.content(found.changes[path])) == {"files": [file], "accounts": None}
    assert found.changes[path]["mode"] == 0o600
    assert found.edited() == []
