"""A lab as it was at one moment, to come back to within seconds: its machines' file systems, its DNS, its site.

What the machines had written until then becomes a layer below, which nobody writes to any more; what they write from
then on goes into a fresh one. To come back is to throw that away. Names, addresses, keys and machine ids stay the same.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from mailops.lab import dns, running
from mailops.lab.host import delete, last_words, plain_environment, sh
from mailops.lab.layout import OUTSIDE, Lab, LabError, write
from mailops.lab.machine import Machine, machines, make_layer, mount
from mailops.lab.outside import wait_for_services

# Programs stay below. Data is copied up before a machine starts: a daemon that has a file of a lower layer open goes on
# reading that one when another writes to it, which no real file system does.
BELOW = ("./usr", "./var/cache", "./var/lib/apt")
COPY = (
    "tar -C {0} {2} --xattrs --xattrs-include='*' --acls --numeric-owner -cf - . | "
    "tar -C {1} --xattrs --xattrs-include='*' --acls --numeric-owner --same-permissions -xf -"
)


def exists(lab: Lab) -> bool:
    return (lab.folder / "snapshot").exists()


def take(lab: Lab) -> None:
    """Note how the lab is now. Its machines are switched off for that, and on again."""
    there = machines(lab)
    _at_once(running.stop, there)
    shutil.rmtree(lab.folder / "snapshot", ignore_errors=True)
    for one in there:
        if (one.folder / "below").exists():
            raise LabError(f"there is a snapshot of the lab {lab.name} already", "fab lab.down")
        _unmount(one)
        (one.folder / "upper").rename(one.folder / "below")
    kept = lab.folder / "snapshot.new"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(mode=0o700)
    for name in ("hosts.toml", "source.toml", "dns.json"):
        shutil.copy2(lab.folder / name, kept / name)
    kept.rename(lab.folder / "snapshot")  # from now on there is one
    _start_anew(lab, there)


def come_back(lab: Lab) -> None:
    """The lab as it was when the snapshot was taken, its machines freshly booted, whatever state they are in."""
    if not exists(lab):
        raise LabError(f"there is no snapshot of the lab {lab.name}")
    there = machines(lab)
    _at_once(running.kill, there)
    kept = lab.folder / "snapshot"
    serial = json.loads((lab.folder / "dns.json").read_text())["serial"]  # a name server's goes up alone
    records = json.loads((kept / "dns.json").read_text())["published"]
    for name in ("hosts.toml", "source.toml"):
        write(lab.folder / name, (kept / name).read_text())
    write(lab.folder / "dns.json", json.dumps({"serial": serial, "published": records}, indent=1) + "\n")
    _start_anew(lab, there)


def _start_anew(lab: Lab, there: list[Machine]) -> None:
    _at_once(_fresh_layer, there)
    dns.refresh(lab)  # before the first machine asks
    _at_once(running.start, there)
    wait_for_services(Machine.load(lab, OUTSIDE))


def _at_once(work: Callable[[Machine], None], there: list[Machine]) -> None:
    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(work, there))


def _fresh_layer(machine: Machine) -> None:
    _unmount(machine)
    for part in ("upper", "work"):
        delete(machine.folder / part)
    make_layer(machine)
    below, upper = machine.folder / "below", machine.folder / "upper"
    below.mkdir(exist_ok=True)  # a machine that came later begins as a provider hands it out
    script = COPY.format(below, upper, " ".join(f"--exclude={path}" for path in BELOW))
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", script],
        env=plain_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise LabError(f"the snapshot of {machine.name} could not be copied: {last_words(done.stderr)}")
    mount(machine)


def _unmount(machine: Machine) -> None:
    if os.path.ismount(machine.root):
        sh(["umount", "--lazy", machine.root])
