"""Who owns what in the vault: by place, and looked at afresh whenever the numbers are others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mailops.remote.vault import owners

UID, GID = os.getuid(), os.getgid()


def directory(path: Path, owner: str, group: str, mode: int) -> dict[str, Any]:
    return {"path": str(path), "owner": owner, "group": group, "mode": mode}


@pytest.fixture
def vault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A vault on a machine where everybody has the numbers of whoever runs the tests."""
    monkeypatch.setattr(owners, "ids", lambda user, group: (UID, GID))
    root = tmp_path / "vault"
    (root / "redis").mkdir(parents=True)
    (root / "db").mkdir()
    (tmp_path / "cipher").mkdir()
    directories = [directory(root, "root", "root", 0o711), directory(root / "db", "root", "mailauth", 0o750)]
    directories.append(directory(root / "redis", "redis", "redis", 0o2770))
    return {"mountpoint": str(root), "cipherdir": f"{tmp_path}/cipher", "queue": "/q", "directories": directories}


def test_a_place_says_who_owns_it_and_what_is_in_it(vault: dict[str, Any]) -> None:
    own, inside = owners.places(vault)
    root = vault["mountpoint"]
    assert (own[f"{root}/db"], inside[f"{root}/db"]) == (("root", "mailauth"), ("root", "mailauth"))
    assert (own[f"{root}/redis"], inside[f"{root}/redis"]) == (("redis", "redis"), ("vmail", "redis"))
    assert own[f"{root}/queue/active"] == ("postfix", "root")
    assert inside[root] == ("", ""), "what mailops does not know is left alone"


def test_the_note_is_believed_only_if_numbers_and_its_own_owner_are_right(
    vault: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    note = Path(vault["mountpoint"], owners.NOTE)
    monkeypatch.setattr(owners, "_mend", lambda *_: 0)
    monkeypatch.setattr(owners, "_mend_maildrop", lambda *_: 0)
    monkeypatch.setattr(owners, "_mend_gocryptfs", lambda *_: 0)
    assert not owners.are_right(vault)
    owners.converge(vault, dry_run=True)
    assert not note.exists()
    owners.converge(vault)
    assert owners.are_right(vault)
    note.write_text(note.read_text()[:20])
    assert not owners.are_right(vault)
    owners.converge(vault)
    monkeypatch.setattr(owners, "ids", lambda user, group: (UID, GID + (group == "mailauth")))
    assert not owners.are_right(vault), "somebody has another number here"


@pytest.mark.skipif(UID != 0, reason="only root can give files away")
def test_what_waits_to_be_taken_from_elsewhere_is_not_taken_for_postfixs_own(vault: dict[str, Any]) -> None:
    queue = Path(vault["mountpoint"], "queue")
    (queue / "maildrop").mkdir(parents=True)
    (queue / "active").mkdir()
    os.chown(queue / "active", 105, 0)
    for uid in (0, 105, 1000):  # programs, what Postfix itself put there, a person
        (queue / "maildrop" / str(uid)).touch()
        os.chown(queue / "maildrop" / str(uid), uid, 0)
    numbers = {"postfix:postfix": [103, 103], "postfix:postdrop": [103, 104]}
    assert owners._mend_maildrop(vault, numbers, dry_run=True) == 3
    assert owners._mend_maildrop(vault, numbers, dry_run=False) == 3
    found = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in (queue / "maildrop").iterdir()}
    assert found == {"0": (0, 104), "105": (103, 104), "1000": (owners.NOBODY, 104)}
    assert owners._mend_maildrop(vault, numbers, dry_run=False) == 0, "a run that was cut goes on"
