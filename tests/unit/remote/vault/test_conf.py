"""gocryptfs.conf: every way in which it can be gone or broken is noticed, and a vault that is not made yet is none."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mailops.remote import status
from mailops.remote.shared.errors import AgentError
from mailops.remote.vault import conf as vault_conf
from mailops.remote.vault import vault as vaults

WHOLE = {
    "Creator": "gocryptfs 2.5.1",
    "EncryptedKey": base64.b64encode(bytes(range(64))).decode(),
    "ScryptObject": {"Salt": base64.b64encode(bytes(32)).decode(), "N": 65536, "R": 8, "P": 1, "KeyLen": 32},
    "Version": 2,
    "FeatureFlags": ["HKDF", "GCMIV128", "DirIV", "EMENames", "LongNames", "Raw64"],
}


@pytest.fixture
def vault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setattr(vault_conf, "COPY", str(tmp_path / "copy"))
    folder = tmp_path / "vault"
    folder.mkdir()
    (folder / "gocryptfs.conf").write_text(json.dumps(WHOLE))
    (folder / "gocryptfs.diriv").write_bytes(bytes(range(16)))
    return {"cipherdir": str(folder)}


def conf(vault: dict[str, str]) -> Path:
    return Path(vault["cipherdir"], "gocryptfs.conf")


def test_a_whole_one_and_a_vault_that_was_never_made_are_no_damage(vault: dict[str, str], tmp_path: Path) -> None:
    assert vault_conf.damage(vault) == ""
    assert vault_conf.damage({"cipherdir": str(tmp_path / "none")}) == ""
    (tmp_path / "empty").mkdir()
    assert vault_conf.damage({"cipherdir": str(tmp_path / "empty")}) == ""


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 400,
        b"\xff\xfe garbage \x80",
        json.dumps(WHOLE)[:200].encode(),
        b"[]",
        b"null",
        b"2",
        json.dumps(WHOLE | {"Version": 1}).encode(),
        json.dumps(WHOLE | {"Version": "2"}).encode(),
        json.dumps(WHOLE | {"EncryptedKey": "AAAA"}).encode(),
        json.dumps(WHOLE | {"EncryptedKey": "no base64!"}).encode(),
        json.dumps(WHOLE | {"EncryptedKey": None}).encode(),
        json.dumps(WHOLE | {"ScryptObject": {}}).encode(),
        json.dumps(WHOLE | {"ScryptObject": None}).encode(),
    ],
)
def test_a_damaged_one_is_noticed(vault: dict[str, str], content: bytes) -> None:
    conf(vault).write_bytes(content)
    with pytest.raises(AgentError, match=r"gocryptfs\.conf is damaged") as refused:
        vault_conf.require(vault)
    assert "recovery key" in refused.value.hint, "there is no copy yet"


def test_the_way_back_is_the_copy_of_what_opened_the_vault_last(vault: dict[str, str]) -> None:
    vault_conf.keep(vault)
    conf(vault).unlink()
    with pytest.raises(AgentError, match=r"gocryptfs\.conf is missing") as refused:
        vault_conf.require(vault)
    assert f"cp -p {vault_conf.COPY}/*" in refused.value.hint
    vault_conf.keep(vault)
    assert Path(vault_conf.COPY, "gocryptfs.conf").read_text() == json.dumps(WHOLE), "no damaged one takes its place"


def to_nowhere(path: Path) -> None:
    path.symlink_to("/nowhere/gocryptfs.conf")


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, to_nowhere])
def test_what_is_no_file_is_moved_out_of_the_copys_way(vault: dict[str, str], make: Callable[[Path], None]) -> None:
    vault_conf.keep(vault)
    conf(vault).unlink()
    make(conf(vault))
    with pytest.raises(AgentError, match=r"gocryptfs\.conf is damaged: it is no file") as refused:
        vault_conf.require(vault)
    assert not vault_conf.is_as_it_was(vault)
    command = refused.value.hint.partition("there: ")[2].replace("/root/", f"{vault['cipherdir']}-away")
    subprocess.run(command, shell=True, check=True)
    assert vault_conf.damage(vault) == ""


def test_a_new_passphrase_leaves_no_copy_that_the_old_one_opens(vault: dict[str, str]) -> None:
    vault_conf.keep(vault)
    changed = json.dumps(WHOLE | {"EncryptedKey": base64.b64encode(bytes(64)).decode()})
    conf(vault).write_text(changed)
    assert not vault_conf.is_as_it_was(vault)
    vault_conf.keep(vault)
    assert Path(vault_conf.COPY, "gocryptfs.conf").read_text() == changed
    assert {path.stat().st_mode & 0o777 for path in Path(vault_conf.COPY).iterdir()} == {0o400}


def test_status_tells_of_a_conf_that_is_not_the_one_of_the_last_unlock(vault: dict[str, str]) -> None:
    """Another vault's is as whole as ours; before the next unlock is the time to know."""
    there = vault | {"mountpoint": "/vault"}
    assert "damage" not in status._vault(there, False), "no copy yet"
    vault_conf.keep(vault)
    assert "damage" not in status._vault(there, False)
    conf(vault).write_text(json.dumps(WHOLE | {"EncryptedKey": base64.b64encode(bytes(64)).decode()}))
    told = status._vault(there, False)["damage"]
    assert "has changed since it opened the vault last" in told["what"]
    assert f"cp -p {vault_conf.COPY}/*" in told["next"]


def test_an_empty_folder_where_a_vault_was_is_no_new_vault(vault: dict[str, str], tmp_path: Path) -> None:
    vault_conf.keep(vault)
    (tmp_path / "unmounted").mkdir()
    with pytest.raises(AgentError, match="is empty, and this machine has had a vault there") as refused:
        vault_conf.require({"cipherdir": str(tmp_path / "unmounted")})
    assert "mount its disk" in refused.value.hint


@pytest.mark.parametrize("code", [vaults.WRONG_PASSPHRASE, 23])
def test_a_vault_that_does_not_open_with_another_conf_tells_where_the_last_one_is(
    vault: dict[str, str], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """One changed byte is a wrong passphrase, or a number that gocryptfs refuses."""
    monkeypatch.setattr(vaults, "_exit_status", lambda: code)
    monkeypatch.setattr(vaults.units, "log", lambda _: "scryptn too low")
    vault_conf.keep(vault)
    assert vault_conf.COPY not in vaults._refusal(vault).hint
    conf(vault).write_text(json.dumps(WHOLE).replace("65536", "5536"))
    assert vault_conf.COPY in vaults._refusal(vault).hint
