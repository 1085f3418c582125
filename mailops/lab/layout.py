"""Where the lab keeps things, and which numbers it uses: one folder, one bridge, one address range.

    <base>/images/      the Debian roots that machines are laid over
    <base>/cache/       the packages that apt-cacher-ng has seen
    <base>/labs/NAME/   one lab: hosts.toml, secrets/, ssh/, dns.json, machines/
    <base>/locks/       so that two commands at the same time wait for each other

Nothing else on this computer changes (but for one limit, see `host.prepare`), and nothing is installed:
without the folder and the bridge no trace of the lab is left.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mailops.errors import BAD_INPUT, MailopsError

BASE = Path(os.environ.get("MAILOPS_LAB_DIR", "/var/lib/mailops-lab")).absolute()

BRIDGE = "mailopslab0"
NETWORK = "10.213"  # a lab takes 10.213.SLOT.0/24; slot 0 is this computer's
THIS_COMPUTER = f"{NETWORK}.0.1"
OUTSIDE = "outside"  # the machine that plays the rest of the world
OUTSIDE_NUMBER = 2
FIRST_HOST_NUMBER = 10


class LabError(MailopsError):
    """The lab could not be built or reached."""


@dataclass(frozen=True)
class Lab:
    """The folder of one lab. A lab exists when its folder has a slot number."""

    name: str

    def __post_init__(self) -> None:
        # The name becomes part of a folder, a unit and a cgroup.
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?", self.name):
            raise LabError(
                f'"{self.name}" is not a name for a lab',
                "use up to 20 lower-case letters, digits and hyphens, as in MAILOPS_LAB=rehearsal",
                BAD_INPUT,
            )

    @property
    def folder(self) -> Path:
        return BASE / "labs" / self.name

    @property
    def hosts_file(self) -> Path:
        return self.folder / "hosts.toml"

    @property
    def secrets(self) -> Path:
        return self.folder / "secrets"

    @property
    def identity(self) -> Path:
        """The private key that logs in to every machine of this lab."""
        return self.folder / "ssh" / "id_ed25519"

    @property
    def machines(self) -> Path:
        return self.folder / "machines"

    @property
    def slot_file(self) -> Path:
        return self.folder / "slot"

    @property
    def exists(self) -> bool:
        return self.slot_file.exists()

    @property
    def slot(self) -> int:
        """The number that tells this lab's addresses from those of the other labs on this computer."""
        if not self.exists:
            raise LabError(f"there is no lab called {self.name}", "fab lab.up")
        return int(self.slot_file.read_text())

    @property
    def network(self) -> str:
        """The first three numbers of every address in this lab."""
        return f"{NETWORK}.{self.slot}"

    def address(self, number: int) -> str:
        return f"{self.network}.{number}"

    @property
    def name_server(self) -> str:
        return self.address(OUTSIDE_NUMBER)


def labs() -> list[Lab]:
    """Every lab on this computer, also one that is only half built."""
    folder = BASE / "labs"
    return [Lab(entry.name) for entry in sorted(folder.iterdir())] if folder.is_dir() else []


def give_slot(lab: Lab) -> None:
    """Give `lab` a slot that no other lab has; it stays. Call it with the lock "computer" held."""
    if lab.exists:
        return
    taken = {other.slot for other in labs() if other.exists}
    free = next((slot for slot in range(1, 255) if slot not in taken), None)
    if free is None:
        raise LabError("there are 254 labs on this computer already", "fab lab.down")
    lab.folder.mkdir(parents=True, exist_ok=True)
    write(lab.slot_file, f"{free}\n")


@contextmanager
def locked(what: str) -> Iterator[int]:
    """Hold the lock called `what`, waiting for it; yields its file descriptor.

    The kernel drops the lock when the process dies, however it dies.
    """
    folder = BASE / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    fd = os.open(folder / what, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file whole or not at all, even if this process is killed on the way."""
    new = path.with_name(f".{path.name}.new")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
    new.replace(path)
