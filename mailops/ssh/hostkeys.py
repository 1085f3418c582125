"""Pinned host keys: what Paramiko compares with, and what a person is told where the one that is found is another."""

from __future__ import annotations

import base64
import hashlib

import paramiko

from mailops.errors import UNREACHABLE, MailopsError
from mailops.site.model import Host

JUMP = "jump"  # the role of a ProxyJump hop that hosts.toml does not know


class Refuse(paramiko.MissingHostKeyPolicy):
    """No pinned key, or a key of another type than the pinned one: the connection ends here."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        if self.host.host_key:
            raise changed_key(self.host, parse_key(self.host.host_key), key)
        hint = f"look at its fingerprint and pin it: fab trust {self.host.name}"
        if self.host.role == JUMP:
            hint = "it is a hop of ssh_config: log in there once with ssh, or give it a [hosts] entry of its own"
        raise MailopsError("its host key is not pinned, so nothing was sent", hint, UNREACHABLE, self.host.name)


def changed_key(host: Host, pinned: paramiko.PKey, found: paramiko.PKey) -> MailopsError:
    hint = (
        f"a reinstalled machine? Check the fingerprint on its own console with\n"
        f"  ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub\n"
        f"  and if it is the one found: {_repin(host)}. If not, somebody stands in between: do not go on."
    )
    message = (
        f"the host key has changed, so nothing was sent\n"
        f"  pinned  {fingerprint(pinned)}\n"
        f"  found   {fingerprint(found)}"
    )
    return MailopsError(message, hint, UNREACHABLE, host.name)


def _repin(host: Host) -> str:
    return f"fab trust {host.name}" if host.role != JUMP else f"ssh-keygen -R {host.name}, and log in with ssh"


def fingerprint(key: paramiko.PKey) -> str:
    """As `ssh-keygen -l` shows it: SHA256:, base64 without padding, and the type."""
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
    return f"SHA256:{digest} ({key.get_name()})"


def parse_key(pin: str) -> paramiko.PKey:
    kind, data = pin.split()[:2]
    return paramiko.PKey.from_type_string(kind, base64.b64decode(data))


def pin(client: paramiko.SSHClient, host: Host, address: str, port: int) -> None:
    """Put the pinned key where Paramiko looks for it: under `[host]:port`, the bare host for port 22."""
    if host.host_key:
        key = parse_key(host.host_key)
        name = address if port == 22 else f"[{address}]:{port}"
        client.get_host_keys().add(name, key.get_name(), key)
    elif host.role == JUMP:
        client.load_system_host_keys()
