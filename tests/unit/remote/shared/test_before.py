"""What the mailops left on a machine that had no numbers yet (0e8b357): generations, and a push that was killed.

`before/` is /var/lib/mailops of a mailhost in the lab, without the contents of files and generations 2 and 3, and its
history.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mailops.remote import machine
from mailops.remote.changes import generations, history, transaction
from mailops.remote.shared.errors import AgentError
from mailops.remote.shared.stored import FORMAT

BEFORE = Path(__file__).with_name("before")


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of such a machine."""
    folder = tmp_path / "mailops"
    shutil.copytree(BEFORE, folder)
    monkeypatch.setattr(machine, "MANIFEST", str(folder / "manifest.json"))
    for name, file in (("RECORDS", "generations"), ("ACTIVE", "active"), ("ORIGINS", "origins.json")):
        monkeypatch.setattr(generations, name, str(folder / file))
    monkeypatch.setattr(transaction, "JOURNAL", str(folder / "journal.json"))
    monkeypatch.setattr(history, "PATH", str(folder / "history.jsonl"))
    return folder


@pytest.mark.usefixtures("left")
def test_a_machine_of_before_is_read_whole() -> None:
    applied = machine.manifest()
    assert (applied["format"], applied["role"]) == (FORMAT, "mailhost")
    assert all({"unit", "roots", "warm", "checks"} <= service.keys() for service in applied["services"])
    assert generations.active()["number"] == generations.numbers()[-1] == 4
    assert [record["number"] for record in generations.every()] == [1, 4]
    assert all(record["format"] == FORMAT and record["files"] for record in generations.every())
    assert "/etc/postfix/main.cf" in generations.origins()
    assert [entry["outcome"] for entry in history.entries(10)] == ["done"] * 4


@pytest.mark.usefixtures("left")
def test_its_interrupted_run_is_known_for_what_it_is() -> None:
    journal = transaction.pending()
    assert journal is not None
    assert (journal["number"], journal["amend"], journal["task"]) == (5, False, "push")
    assert not transaction.is_finished(journal)
    states = journal["paths"]["/etc/postfix/main.cf"]
    assert transaction.is_its_work("/etc/postfix/main.cf", states["after"])
    assert not transaction.is_its_work("/etc/postfix/main.cf", states["before"])


@pytest.mark.parametrize("name", ["manifest", "generation", "journal", "origins"])
def test_what_a_newer_mailops_left_there_is_touched_by_nobody(left: Path, name: str) -> None:
    files = {"generation": "generations/4.json"}
    file = left / files.get(name, f"{name}.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": FORMAT + 1}))
    read = {
        "manifest": machine.manifest,
        "generation": generations.active,
        "journal": transaction.pending,
        "origins": generations.origins,
    }
    with pytest.raises(AgentError, match="a newer mailops has worked here") as refused:
        read[name]()
    assert refused.value.hint == "update mailops on this computer"
