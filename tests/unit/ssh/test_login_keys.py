"""Keys that we cannot use are said to be so, each with what to do."""

from __future__ import annotations

import base64
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from mailops.errors import MailopsError
from mailops.health import status
from mailops.ssh import login_keys
from tests.unit.ssh.test_hostile_server import serving, speaks_ssh


def string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def openssh_form(kind: bytes, cipher: bytes = b"none") -> str:
    """A private key as OpenSSH writes it, as far as one reads before the secret part."""
    public = string(string(kind) + string(b"\1" * 32))
    data = (
        login_keys.MAGIC + string(cipher) + string(cipher) + string(b"") + struct.pack(">I", 1) + public + string(b"x")
    )
    body = base64.b64encode(data).decode()
    return f"-----BEGIN OPENSSH PRIVATE KEY-----\n{body}\n-----END OPENSSH PRIVATE KEY-----\n"


FILES: dict[str, tuple[bytes, str]] = {
    "of hardware": (
        openssh_form(b"sk-ssh-ed25519@openssh.com").encode(),
        "of the kind sk-ssh-ed25519@openssh.com, which",
    ),
    "of an old kind": (openssh_form(b"ssh-dss").encode(), "of the kind ssh-dss, which mailops cannot use"),
    "of an old kind, in PEM": (b"-----BEGIN DSA PRIVATE KEY-----\nAAAA\n-----END DSA PRIVATE KEY-----", "ssh-dss"),
    "with a passphrase": (openssh_form(b"ssh-ed25519", b"aes256-ctr").encode(), "a passphrase; load it .* ssh-add /"),
    "damaged": (openssh_form(b"ssh-ed25519").encode(), "its form is not OpenSSH's"),
    "cut": (b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----", "not a private key"),
    "public": (b"ssh-ed25519 AAAAC3Nz ann@laptop\n", "a public key; .* without .pub"),
    "of PuTTY": (b"PuTTY-User-Key-File-3: ssh-ed25519\n", "of PuTTY's; .* puttygen /"),
    "binary": (bytes(range(256)), "not a private key"),
    "empty": (b"", "not a private key"),
}


@pytest.mark.parametrize("what", FILES)
def test_a_key_that_we_cannot_use_says_why(what: str, tmp_path: Path) -> None:
    content, told = FILES[what]
    (tmp_path / "id").write_bytes(content)
    ((path, reason),) = login_keys.refused([str(tmp_path / "id"), str(tmp_path / "absent")]).items()
    assert path == str(tmp_path / "id")
    assert re.search(told, reason), reason


def test_a_folder_is_no_key(tmp_path: Path) -> None:
    assert login_keys.refused([str(tmp_path)]) == {str(tmp_path): "Is a directory"}


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="there is no ssh-keygen")
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_good_key_is_not_refused_and_a_passphrase_is_enough(kind: str, tmp_path: Path) -> None:
    for name, passphrase in (("open", ""), ("closed", "passphrase")):
        make = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", str(tmp_path / name)]
        subprocess.run(make, check=True)
    paths = [str(tmp_path / "open"), str(tmp_path / "closed")]
    assert list(login_keys.refused(paths)) == paths[1:]
    assert login_keys.refused(paths, "passphrase") == {}


@pytest.mark.parametrize("what", ["of hardware", "of an old kind", "binary", "public"])
@pytest.mark.parametrize("place", ["key", ".ssh/id_rsa"])
def test_a_person_who_is_not_let_in_hears_of_the_key(
    what: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("HOME", tmp_path), ("MAILOPS_SITE", tmp_path), ("XDG_CACHE_HOME", tmp_path / "cache")):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("SSH_AUTH_SOCK", "")
    (tmp_path / ".ssh").mkdir()
    with serving(tmp_path, speaks_ssh(lambda channel: None)) as context:
        (tmp_path / "key").unlink()
        (tmp_path / place).write_bytes(FILES[what][0])
        if place != "key":
            text = (tmp_path / "hosts.toml").read_text()
            (tmp_path / "hosts.toml").write_text(re.sub("identity = .*", "", text))
        with pytest.raises(MailopsError, match="lets none of our keys in") as caught:
            status.show(context)
    assert caught.value.hint.startswith(f"not used: {tmp_path / place}: ")
