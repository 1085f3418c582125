"""What a machine should be: plain data, made without I/O, sent to the agent as JSON.

`mailops.services` build a `Manifest`; `mailops.remote.bootstrap` makes the machine so. The order of the fields
is the order in which the agent works. Named tuples, because dataclasses take ten times as long to be defined, and every
command defines them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from mailops.remote.shared.stored import numbered

if TYPE_CHECKING:
    from mailops.remote.shared import forms


class User(NamedTuple):
    """A system account or, with `groups` alone, the groups an existing account must be in."""

    name: str
    home: str = "/nonexistent"
    groups: tuple[str, ...] = ()
    uid: int | None = None  # None: the package made the account, or the system picks a number


class Directory(NamedTuple):
    path: str
    mode: int = 0o755
    owner: str = "root"
    group: str = "root"
    mend: bool = True  # whether one that is there gets this mode and owner


class File(NamedTuple):
    """One file of the machine. `secret` files never show in a diff and never travel back.

    `local` names the administrator's own additions on the machine, which mailops never writes; how the agent
    merges them into this file is for `merge` to say: "append", "main.cf" or "master.cf" (`remote.changes.additions`).
    """

    path: str
    content: bytes
    mode: int = 0o644
    owner: str = "root"
    group: str = "root"
    secret: bool = False
    local: str = ""
    merge: str = "append"

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


class Check(NamedTuple):
    """A daemon's own judgement of its configuration: the checks of `remote/services/DAEMON.py`, and what they have to
    know of the site."""

    daemon: str
    options: Mapping[str, str] = {}


class Unit(NamedTuple):
    """A systemd unit that owns the paths below its `roots`.

    A changed file under a root means `on_change` ("reload" or "restart"); nobody lists handlers by hand.
    A `mail` unit never starts at boot: it waits for the vault. Its service's `Tie` says so, and nobody else.
    """

    unit: str
    roots: tuple[str, ...] = ()
    on_change: str = "reload"
    mail: bool = False
    checks: tuple[Check, ...] = ()


class Source(NamedTuple):
    """Where apt gets `packages` from instead of Debian. Its files are among the manifest's, and carry its key."""

    name: str
    url: str
    suite: str
    packages: tuple[str, ...]


class Vault(NamedTuple):
    """The encrypted directory: `cipherdir` is what is on the disk, everyone sees `mountpoint`.

    What it holds of the mail queue is shown at `queue` as well.
    """

    mountpoint: str
    cipherdir: str
    queue: str = ""
    directories: tuple[Directory, ...] = ()


class Accounts(NamedTuple):
    """The virtual-user database and the rows it must have; users' hashes are asked for when missing."""

    database: str
    domains: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    needed: tuple[
        tuple[str, str], ...
    ] = ()  # addresses and the machines that log in with each, "" for the administrator's


class Dkim(NamedTuple):
    keyroot: str
    selectors: tuple[str, ...]
    domains: tuple[str, ...]


class Certificate(NamedTuple):
    """A self-signed certificate for `names`, made only when `cert` does not exist."""

    names: tuple[str, ...]
    cert: str
    key: str


class Probe(NamedTuple):
    """A question the running machine must answer, as a stranger or a mail client would ask it.

    kind: see `remote.services.probe`, as for the options; port 0 where a Unix socket is asked. `service` is the unit
    that a wrong answer accuses. `when` names a unit: asked only after that one was started or told of changed files.
    """

    kind: str
    port: int = 0
    options: Mapping[str, str] = {}
    service: str = ""
    when: str = ""


class Manifest(NamedTuple):
    role: str
    hostname: str
    release: int  # of Debian: the files are for this one and no other
    packages: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()  # of packages that do not come from Debian
    debconf: tuple[str, ...] = ()  # answers to what a package asks as it is installed (debconf-set-selections(1))
    users: tuple[User, ...] = ()
    directories: tuple[Directory, ...] = ()
    vault: Vault | None = None
    accounts: Accounts | None = None
    dkim: Dkim | None = None
    certificates: tuple[Certificate, ...] = ()
    files: tuple[File, ...] = ()
    services: tuple[Unit, ...] = ()
    probes: tuple[Probe, ...] = ()

    def to_json(self) -> forms.Manifest:
        """The manifest as plain JSON types; file contents stay behind, their SHA-256 goes."""
        data: dict[str, Any] = _plain(self)
        for file, plain in zip(self.files, data["files"], strict=True):
            del plain["content"]
            plain["sha256"] = file.digest
        return cast("forms.Manifest", numbered(data))


def _plain(value: Any) -> Any:
    """Named tuples as dictionaries, other tuples as lists; bytes pass through untouched."""
    if hasattr(value, "_fields"):
        return {name: _plain(item) for name, item in zip(value._fields, value, strict=True)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
