"""One machine of the lab: what is known of it, and its file system, an overlay on an image.

`running` switches it on and off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mailops.lab.host import sh
from mailops.lab.layout import Lab, LabError, write


@dataclass(frozen=True)
class Machine:
    """What is decided when a machine is made, and stays."""

    lab: Lab
    name: str
    role: str
    image: str
    hostname: str
    number: int  # the last number of its address

    @property
    def folder(self) -> Path:
        return self.lab.machines / self.name

    @property
    def root(self) -> Path:
        """The machine's file system as seen from this computer, whether it is on or off."""
        return self.folder / "root"

    @property
    def address(self) -> str:
        return self.lab.address(self.number)

    @property
    def unit(self) -> str:
        """What this computer calls the machine: its systemd unit or cgroup, and its mount."""
        return f"mailops-lab.{self.lab.name}.{self.name}"

    @property
    def short_name(self) -> str:
        """Unique on this computer and short: nspawn names the machine's cable after it, in 15 characters."""
        return f"mo{self.lab.slot}n{self.number}"

    @property
    def cable(self) -> Path:
        return Path("/sys/class/net", f"vb-{self.short_name}")

    def save(self) -> None:
        """Written last when a machine is made: a folder without it is half built."""
        facts = asdict(self)
        del facts["lab"], facts["name"]
        write(self.folder / "machine.json", json.dumps(facts, indent=1) + "\n")

    @classmethod
    def load(cls, lab: Lab, name: str) -> Machine:
        path = lab.machines / name / "machine.json"
        if not path.exists():
            known = ", ".join(machine.name for machine in machines(lab)) or "none"
            raise LabError(f'the lab "{lab.name}" has no machine "{name}" (it has: {known})', "fab lab.up")
        return cls(lab=lab, name=name, **json.loads(path.read_text()))


def machines(lab: Lab) -> list[Machine]:
    """The machines of `lab` that are fully made, by their number."""
    found = [Machine.load(lab, path.parent.name) for path in lab.machines.glob("*/machine.json")]
    return sorted(found, key=lambda machine: machine.number)


def lay_out(machine: Machine, image: Path) -> None:
    """Make the overlay of a machine that has no folder."""
    make_layer(machine)
    (machine.folder / "root").mkdir()
    (machine.folder / "image").symlink_to(image)
    mount(machine)


def make_layer(machine: Machine) -> None:
    """An empty layer for all that the machine writes."""
    for part in ("upper", "work"):
        (machine.folder / part).mkdir(parents=True)


def layers(machine: Machine) -> list[Path]:
    """What the machine had written until each snapshot was taken, oldest first; below them is the image."""
    return sorted(machine.folder.glob("below.*"), key=lambda folder: int(folder.suffix[1:]))


def mount(machine: Machine) -> None:
    if not os.path.ismount(machine.root):
        lower, upper, work = (machine.folder / part for part in ("image", "upper", "work"))
        stack = ":".join(map(str, [*reversed(layers(machine)), lower]))
        options = f"lowerdir={stack},upperdir={upper},workdir={work}"
        try:
            sh(["mount", "-t", "overlay", machine.unit, "-o", options, machine.root])
        except LabError as error:
            raise LabError(error.message, "MAILOPS_LAB_DIR can name a folder on ext4, xfs or btrfs") from None


def put(machine: Machine, path: str, text: str, mode: int = 0o644) -> None:
    """Write a file in the machine, from outside."""
    target = machine.root / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    write(target, text, mode)


def chroot(machine: Machine, argv: Sequence[str], text: str = "") -> str:
    """Run a command in the file system of a machine, which may be off."""
    return sh(["chroot", machine.root, *argv], text)
