"""Pinning a host key: show its fingerprint, ask, write it into hosts.toml."""

from __future__ import annotations

import sys
from typing import Any

from mailops import fleet
from mailops.errors import BAD_INPUT, UNREACHABLE, MailopsError
from mailops.site import edit
from mailops.ssh.connection import PinnedConnection
from mailops.ssh.hostkeys import fingerprint, parse_key


def trust(c: Any, name: str, expected: str = "") -> None:
    """Pin the key that `name` shows now, once a person, or the `expected` fingerprint, has agreed to it."""
    site = fleet.load()
    if name not in site.hosts:
        raise MailopsError(f"{site.path.name} has no host {name!r}", f"it has: {', '.join(site.hosts)}", BAD_INPUT)
    host = site.hosts[name]
    key = PinnedConnection(site, host, c.config).read_key()
    pin = f"{key.get_name()} {key.get_base64()}"
    found = fingerprint(key)
    if expected and expected not in (found, found.partition(" ")[0]):
        hint = f"it shows {found}"
        raise MailopsError(f"{name}: that is not the fingerprint expected; nothing was pinned", hint, UNREACHABLE)
    if host.host_key and host.host_key.split()[:2] == pin.split():
        print(f"{name}: {found} is pinned already")
        return
    if host.host_key:
        print(f"{name}: pinned so far  {fingerprint(parse_key(host.host_key))}")
    print(f"{name}: shows now      {found}")
    if not expected:
        _agree(name)
    edit.set_value(site.path, ("hosts", name, "host_key"), pin)
    print(f"{name}: pinned in {site.path.name}")


def _agree(name: str) -> None:
    """Ask the person at the terminal; MailopsError unless the answer is yes."""
    if not sys.stdin.isatty():
        hint = f"name the fingerprint you expect: fab trust {name} --fingerprint SHA256:…"
        raise MailopsError("nobody is at the terminal to say whether this is the right key", hint, BAD_INPUT)
    print("Compare it with what the machine's own console shows:\n  ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub")
    try:
        answer = input("Is it the same? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise MailopsError(f"{name}: not pinned")
