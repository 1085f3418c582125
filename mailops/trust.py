"""Pinning a host key: show its fingerprint, ask, write it into hosts.toml."""

from __future__ import annotations

import sys
from typing import Any

import paramiko

from mailops import fleet, site_file
from mailops.connection import PinnedConnection, fingerprint, parse_key
from mailops.errors import BAD_INPUT, UNREACHABLE, MailopsError
from mailops.site import Host, Site

PATIENCE = 15.0  # seconds for the key exchange


def trust(c: Any, name: str, expected: str = "") -> None:
    """Pin the key that `name` shows now, once a person, or the `expected` fingerprint, has agreed to it."""
    site = fleet.load()
    if name not in site.hosts:
        raise MailopsError(f"{site.path.name} has no host {name!r}", f"it has: {', '.join(site.hosts)}", BAD_INPUT)
    host = site.hosts[name]
    key = _read_key(c, site, host)
    pin = f"{key.get_name()} {key.get_base64()}"
    if host.host_key and host.host_key.split()[:2] == pin.split():
        print(f"{name}: {fingerprint(key)} is pinned already")
        return
    if host.host_key:
        print(f"{name}: pinned so far  {fingerprint(parse_key(host.host_key))}")
    print(f"{name}: shows now      {fingerprint(key)}")
    _agree(name, key, expected)
    site_file.set_value(site.path, ("hosts", name, "host_key"), pin)
    print(f"{name}: pinned in {site.path.name}")


def _agree(name: str, key: paramiko.PKey, expected: str) -> None:
    if expected:
        if expected != fingerprint(key).split()[0]:
            raise MailopsError(f"{name}: that is not the fingerprint expected; nothing was pinned", code=UNREACHABLE)
        return
    if not sys.stdin.isatty():
        hint = f"name the fingerprint you expect: fab trust {name} --fingerprint SHA256:…"
        raise MailopsError("nobody is at the terminal to say whether this is the right key", hint, BAD_INPUT)
    print("Compare it with what the machine's own console shows:\n  ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub")
    if input("Is it the same? [y/N] ").strip().lower() not in ("y", "yes"):
        raise MailopsError(f"{name}: not pinned")


def _read_key(c: Any, site: Site, host: Host) -> paramiko.PKey:
    """The key exchange alone: nobody logs in, nothing of ours is sent."""
    connection = PinnedConnection(site, host, c.config)
    where = f"{connection.host} port {connection.port}"
    try:
        sock: Any = connection.open_gateway() if connection.gateway else (connection.host, connection.port)
        transport = paramiko.Transport(sock)
        try:
            transport.start_client(timeout=PATIENCE)
            return transport.get_remote_server_key()
        finally:
            transport.close()
    except (OSError, paramiko.SSHException, EOFError) as error:
        raise MailopsError(f"{host.name}: no connection to {where}: {error}", code=UNREACHABLE) from None
