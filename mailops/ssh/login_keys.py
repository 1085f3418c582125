"""Private keys to log in with: which files Paramiko can use, and why it cannot use the others.

To Paramiko a file that it cannot read is an error of Python's, or a key that was refused. A person is to be told.
"""

from __future__ import annotations

import base64
import contextlib
import re
import struct
import warnings
from collections.abc import Iterable
from pathlib import Path

import paramiko

from mailops import printable

# In ~/.ssh: those that Paramiko looks for, and those that only OpenSSH does.
LOOKED_FOR = ("id_rsa", "id_ecdsa", "id_ed25519")
NOT_LOOKED_FOR = ("id_dsa", "id_ecdsa_sk", "id_ed25519_sk", "id_xmss")
USABLE = ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2", "RSA", "EC", "PEM")  # and how the files say it
MAGIC = b"openssh-key-v1\0"
ANOTHER = "make one that can be: ssh-keygen -t ed25519"
LOCKED = "it has a passphrase"
PUTTY = "turn it into one of OpenSSH's: puttygen {path} -O private-openssh -o NEW"


def load(path: str) -> paramiko.PKey | None:
    """The key in that file, None where there is none that we can use without a passphrase."""
    # Each kind of file has another error, of Paramiko's, cryptography's or Python's, or a warning.
    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        return paramiko.PKey.from_path(path)
    return None


def refused(paths: Iterable[str], passphrase: str | None = None) -> dict[str, str]:
    """Why each file that is there and that we cannot use is not used; what to do about it, where that is known."""
    reasons = {path: _reason(path) for path in paths if Path(path).exists() and not load(path)}
    return {path: why for path, why in reasons.items() if not (passphrase and why.startswith(LOCKED))}


def own(names: tuple[str, ...]) -> list[str]:
    """The files of these names in ~/.ssh that are there."""
    folder = Path("~/.ssh").expanduser()
    return [str(folder / name) for name in names if (folder / name).is_file()]


def _reason(path: str) -> str:
    try:
        text = Path(path).read_bytes().decode("latin-1")
    except OSError as error:
        return printable.line(error.strerror or "it cannot be read")
    if text.startswith("PuTTY-User-Key-File"):
        return f"a key of PuTTY's; {PUTTY.format(path=path)}"
    if re.match(r"(ssh|ecdsa|sk)-\S+ AAAA", text):
        return "a public key; name the file of the private one, without .pub"
    return _unread(path, *_kind(text))


def _unread(path: str, kind: str, encrypted: bool) -> str:
    if not kind:
        return "not a private key of a form that mailops can read"
    if not kind.startswith(USABLE):
        return f"a key of the kind {printable.line(kind)}, which mailops cannot use; {ANOTHER}"
    if encrypted:
        return f"{LOCKED}; load it into the ssh-agent: ssh-add {path}"
    return f"its form is not OpenSSH's, and mailops cannot read it; {ANOTHER}"


def _kind(text: str) -> tuple[str, bool]:
    """The kind of key that a PEM text says to hold, "" for none, and whether it is encrypted."""
    found = re.search(r"-----BEGIN (OPENSSH|DSA|RSA|EC|ENCRYPTED|) ?PRIVATE KEY-----(.*?)-----END", text, re.DOTALL)
    if not found:
        return "", False
    kind, body = found[1], found[2]
    if kind != "OPENSSH":
        return {"": "PEM", "ENCRYPTED": "PEM", "DSA": "ssh-dss"}.get(kind, kind), "ENCRYPTED" in found[0]
    try:
        rest = base64.b64decode(body).removeprefix(MAGIC)
        cipher, rest = _string(rest)
        for _ in ("kdf", "its options"):
            rest = _string(rest)[1]
        public = _string(rest[4:])[0]  # behind the number of keys
        return _string(public)[0].decode("latin-1"), cipher != b"none"
    except (ValueError, struct.error):
        return "", False


def _string(data: bytes) -> tuple[bytes, bytes]:
    """An SSH string (RFC 4251, 5), and what follows it."""
    length = struct.unpack_from(">I", data)[0]
    return data[4 : 4 + length], data[4 + length :]
