"""What a service is: all that a machine needs for it, as a value.

`services/S.py` has one function, `service(at) -> Service`; the files that it brings lie in `templates/S/`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from mailops import manifest
from mailops.site.model import Host, Secret, Site

if TYPE_CHECKING:
    from mailops.remote.shared.calls import Facts

# Where the administrator's own additions are, in files that mailops never writes.
LOCAL = "/etc/mailops/local"
PLAIN = (0o644, "root", "root")

Attributes = tuple[int, str, str]  # mode, owner, group


class Tie(NamedTuple):
    """A unit that runs only while the vault is open: never at boot, and it stops when the vault goes away.

    `queue`: and while what the vault holds of the mail queue is shown in its place. `timed`: it starts again and again;
    to assert that the vault is mounted systemd itself would look into one that hangs, and hang with it.
    """

    unit: str
    queue: bool = False
    timed: bool = False


class At(NamedTuple):
    """Where a service is to run."""

    site: Site  # as `host` sees it
    host: Host
    facts: Facts  # what the machine says of itself
    secret: Callable[[Secret], str]  # gives a password for its reference

    @property
    def release(self) -> int:
        """12 or 13, of Debian."""
        return self.facts["release"]


class Service(NamedTuple):
    """What it puts into the manifest. Directories below the vault go into the vault's part by themselves."""

    packages: tuple[str, ...] = ()
    sources: tuple[manifest.Source, ...] = ()
    debconf: tuple[str, ...] = ()
    users: tuple[manifest.User, ...] = ()
    directories: tuple[manifest.Directory, ...] = ()
    units: tuple[manifest.Unit, ...] = ()
    ties: tuple[Tie, ...] = ()
    probes: tuple[manifest.Probe, ...] = ()
    # Files that no template makes.
    files: tuple[manifest.File, ...] = ()
    # Of files that templates make: path, or a folder that ends with "/" -> mode, owner, group; else they are `PLAIN`.
    attributes: Mapping[str, Attributes] = {}
    # Path -> the file of the administrator's additions to it, and how the two are merged.
    additions: Mapping[str, tuple[str, str]] = {}
    # The beginning of a path below templates/S -> that of the path on the machine.
    places: Mapping[str, str] = {}
    # What templates, of other services too, may use by name.
    names: Mapping[str, Any] = {}
    # The one part of the manifest that is of a kind of its own.
    vault: manifest.Vault | None = None
    accounts: manifest.Accounts | None = None
    dkim: manifest.Dkim | None = None
    certificates: tuple[manifest.Certificate, ...] = ()
