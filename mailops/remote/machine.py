"""What this machine is and knows: its facts, the manifest last applied to it, whether its vault is open."""

from __future__ import annotations

import os
import re
import threading
from typing import TYPE_CHECKING

from .shared.errors import BAD_INPUT, LOCKED, AgentError
from .shared.stored import lift
from .system.files import read_json

if TYPE_CHECKING:
    from .shared.calls import Facts
    from .shared.forms import Manifest, Vault

STATE = "/var/lib/mailops"
MANIFEST = f"{STATE}/manifest.json"
SUPPORTED = (12, 13)
BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+-----END CERTIFICATE-----")
PATIENCE = 5.0  # seconds in which a vault answers that is well


def facts() -> Facts:
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


def manifest() -> Manifest:
    """The manifest last applied here; AgentError when there has been none."""
    remedy = f"as root there: rm {MANIFEST}; then fab -H NAME bootstrap"
    data: Manifest | None = read_json(MANIFEST, remedy, None)
    if data is None:
        raise AgentError("this machine is not set up yet", hint="fab -H NAME bootstrap")
    return lift("manifest", data)


def other_release(applied: Manifest) -> str:
    """What to tell a person when Debian was upgraded since the files of the manifest `applied` were made; else ""."""
    made_for, now = applied["release"], facts()["release"]
    if made_for in (None, now):
        return ""
    return f"this machine runs Debian {now}, and the configuration is for Debian {made_for}"


def vault_is_open(applied: Manifest) -> bool:
    """Whether the vault's filesystem is mounted and alive. AgentError (5) when it does not answer."""
    vault = applied["vault"]
    if not vault:
        return True
    return all(is_mounted(place) or place == vault["queue"] for place in places(vault))


def able(wanted: Manifest, opened: bool) -> Manifest:
    """The manifest with what can run now: all of it where the vault is open, else what does not wait for that."""
    if opened:
        return wanted
    services = [service for service in wanted["services"] if not service["mail"]]
    units = [service["unit"] for service in services]
    return wanted | {
        "services": services,
        "probes": [item for item in wanted["probes"] if item.get("service") in units],
    }


def vault(applied: Manifest) -> Vault:
    """AgentError (2) where it has none."""
    if not applied["vault"]:
        raise AgentError(f"this machine is a {applied['role']}; it has no vault", code=BAD_INPUT)
    return applied["vault"]


def mountpoint(applied: Manifest) -> str:
    """Of the vault, if it has one; else ""."""
    return applied["vault"]["mountpoint"] if applied["vault"] else ""


def database(applied: Manifest) -> str:
    """Of the mail accounts. AgentError where it has none."""
    if not applied["accounts"]:
        raise AgentError(f"this machine has no mail accounts: its role is {applied['role']}")
    return applied["accounts"]["database"]


def places(vault: Vault) -> list[str]:
    """Where an open vault is mounted: the queue in it has a place of its own, which is mounted while mail runs."""
    return [place for place in (vault["mountpoint"], vault["queue"]) if place]


def is_mounted(mountpoint: str) -> bool:
    """Whether something is mounted there, and serves. AgentError (5) when it does not answer."""
    found = answers([mountpoint])
    if found is None:
        raise silence(mountpoint)
    return found


def silence(mountpoint: str) -> AgentError:
    hint = "fab -H NAME lock, or as root there: systemctl kill -s KILL mailops-vault mailops-queue; then unlock it"
    return AgentError(f"the vault {mountpoint} does not answer: the process that serves it hangs", hint, LOCKED)


def answers(mountpoints: list[str]) -> bool | None:
    """Whether the first of them is mounted, and serves; None when one of them does not answer within PATIENCE.

    Whoever waits for a FUSE filesystem whose process hangs cannot be interrupted: so a thread does, and is left behind.
    """
    said: list[bool] = []
    asking = threading.Thread(target=lambda: said.extend([_serves(place) for place in mountpoints]), daemon=True)
    asking.start()
    asking.join(PATIENCE)
    return said[0] if said else None


def _serves(mountpoint: str) -> bool:
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
