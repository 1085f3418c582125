"""What this machine is and knows: its facts, the manifest last applied to it, whether its vault is open."""

from __future__ import annotations

import os
import re
from typing import Any

from .errors import AgentError
from .files import read_json

STATE = "/var/lib/mailops"
MANIFEST = f"{STATE}/manifest.json"
SUPPORTED = (12, 13)
BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+-----END CERTIFICATE-----")


def facts() -> dict[str, Any]:
    """What a role must know of the machine before it can say what belongs on it.

    Source: os-release(5). AgentError on anything but the Debian releases that mailops supports.
    """
    release = _os_release()
    number = release.get("VERSION_ID", "")
    if release.get("ID") != "debian" or not number.isdigit() or int(number) not in SUPPORTED:
        name = release.get("PRETTY_NAME", "an unknown system")
        raise AgentError(f"this machine runs {name}; mailops looks after Debian 12 and 13")
    return {"release": int(number), "mailhost_certificate": certificates("/etc/mailops/mailhost.pem")}


def certificates(path: str) -> str:
    """Those of a PEM file, without the remarks, or the key, that somebody keeps beside them; "" for none."""
    found = BLOCK.findall(_read(path).replace("\r\n", "\n"))
    return "".join(f"{block}\n" for block in found)


def manifest() -> dict[str, Any]:
    """The manifest last applied here; AgentError when there has been none."""
    data: dict[str, Any] | None = read_json(MANIFEST, f"as root there: rm {MANIFEST}; then fab -H NAME bootstrap")
    if data is None:
        raise AgentError("this machine is not set up yet", hint="fab -H NAME bootstrap")
    return data


def vault_is_open(applied: dict[str, Any]) -> bool:
    """Whether the vault's filesystem is mounted and alive (a killed gocryptfs leaves a dead mount behind)."""
    vault = applied.get("vault")
    if not vault:
        return True
    return is_mounted(vault["mountpoint"])


def is_mounted(mountpoint: str) -> bool:
    try:
        return os.path.ismount(mountpoint) and bool(os.statvfs(mountpoint))
    except OSError:  # ENOTCONN: mounted, but the process that served it has died
        return False


def _os_release() -> dict[str, str]:
    pairs = (line.partition("=") for line in _read("/etc/os-release").splitlines())
    return {key: value.strip().strip('"') for key, _, value in pairs}


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
