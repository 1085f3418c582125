"""gocryptfs.conf, without which no passphrase opens the vault: whether it is whole, and the copy that is kept of it.

It holds the vault's master key, encrypted with the passphrase, and gocryptfs.diriv what the names in the vault's
uppermost directory are encrypted with (gocryptfs(1)). Whoever has the vault has both, so the copy, for root alone
and on the same disk, gives nothing away. It is taken when the vault has just been opened with them.
"""

from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING

from ..machine import STATE
from ..shared.errors import AgentError
from ..system.files import read
from ..system.shell import write_atomic

if TYPE_CHECKING:
    from ..shared.forms import Vault

COPY = f"{STATE}/vault-conf"
CONF, NAMES = "gocryptfs.conf", "gocryptfs.diriv"
VERSION = 2  # of gocryptfs's format, since 2016
KEY_BYTES, NAMES_BYTES = 64, 16  # an encrypted key with its nonce and tag; a directory's initialisation vector


def exists(vault: Vault) -> bool:
    return os.path.exists(f"{vault['cipherdir']}/{CONF}")


def damage(vault: Vault) -> str:
    """What is wrong with them; "" for nothing, and where there has never been a vault."""
    folder = vault["cipherdir"]
    there = os.listdir(folder) if os.path.isdir(folder) else []
    if not there:
        return f"{folder} is empty, and this machine has had a vault there" if os.path.isdir(COPY) else ""
    for name in (CONF, NAMES):
        if name not in there:
            return f"{folder}/{name} is missing, without which nobody can open the vault"
        if wrong := _wrong(f"{folder}/{name}"):
            return f"{folder}/{name} is damaged: {wrong}"
    return ""


def require(vault: Vault) -> None:
    """AgentError, with the way back, unless the vault's own files are whole or there is no vault yet."""
    if found := damage(vault):
        raise AgentError(found, way_back(vault))


def way_back(vault: Vault) -> str:
    """What to type to have a damaged vault's own files back."""
    folder = vault["cipherdir"]
    if not os.path.isdir(folder) or not os.listdir(folder):
        return f"mount its disk, or bring its files back; for a new vault instead, as root there: rm -r {COPY}"
    if not any(_wrong(f"{COPY}/{name}") for name in (CONF, NAMES)):
        odd = [path for path in (f"{folder}/{name}" for name in (CONF, NAMES)) if _is_odd(path)]
        away = f"mv {' '.join(odd)} /root/ && " if odd else ""
        return f"bring back the copy, as root there: {away}cp -p {COPY}/* {folder}/"
    return "bring them back from a backup, or open the vault with its recovery key: see docs/how-to/vault.md"


def keep(vault: Vault) -> None:
    """Copy what has just opened the vault. The copy of before, with the passphrase of before, is overwritten."""
    if damage(vault):
        return
    os.makedirs(COPY, mode=0o700, exist_ok=True)
    for name in (CONF, NAMES):
        content = read(f"{vault['cipherdir']}/{name}")
        if content != read(f"{COPY}/{name}"):
            write_atomic(f"{COPY}/{name}", content, 0o400)


def keep_first(vault: Vault) -> None:
    """The copy of a vault that was opened before copies were kept."""
    if not os.path.exists(f"{COPY}/{NAMES}"):
        keep(vault)


def is_as_it_was(vault: Vault) -> bool:
    """Whether gocryptfs.conf is the one that opened the vault the last time."""
    conf = f"{vault['cipherdir']}/{CONF}"
    return not _is_odd(conf) and read(f"{COPY}/{CONF}") in (b"", read(conf))


def _is_odd(path: str) -> bool:
    """A folder, a pipe, a link to nowhere… where a file should be: cp(1) writes over none of them."""
    return os.path.lexists(path) and not os.path.isfile(path)


def _wrong(path: str) -> str:
    if _is_odd(path):
        return "it is no file"
    name, content = os.path.basename(path), read(path)
    if not content.strip(b"\0"):
        return "there is nothing in it"
    if name == NAMES:
        return "" if len(content) == NAMES_BYTES else f"it has {len(content)} bytes, not {NAMES_BYTES}"
    try:
        conf = json.loads(content)
        if conf["Version"] != VERSION:
            return f"its version is {conf['Version']}, not {VERSION}"
        key = base64.b64decode(conf["EncryptedKey"], validate=True)
        salt = base64.b64decode(conf["ScryptObject"]["Salt"], validate=True)
    except (ValueError, TypeError, KeyError):
        return "it is not what gocryptfs writes"
    return "" if len(key) == KEY_BYTES and salt else "its key is incomplete"
