"""A lab as it was at one moment, to come back to within seconds or to make another lab from: its machines' files, its
DNS, its site.

What the machines had written until then becomes a layer below, which nobody writes to any more; what they write from
then on goes into a fresh one. To come back is to throw that away. Names, addresses, keys and machine ids stay the same;
in another lab addresses, the keys of ssh and machine ids are its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from mailops.lab import dns, running
from mailops.lab.furnish import refurnish
from mailops.lab.host import delete, last_words, plain_environment, sh
from mailops.lab.layout import OUTSIDE, Lab, LabError, write
from mailops.lab.machine import Machine, layers, machines, make_layer, mount
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
        _unmount(one)
        (one.folder / "upper").rename(one.folder / f"below.{len(layers(one)) + 1}")
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
    for newest in layers(machine)[-1:]:  # a machine that came later begins as a provider hands it out
        _copy(newest, machine)
    mount(machine)


def _copy(layer: Path, machine: Machine) -> None:
    """All data of `layer`, which has that of the layers below it as well, into what the machine writes to."""
    script = COPY.format(layer, machine.folder / "upper", " ".join(f"--exclude={path}" for path in BELOW))
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


def give(lab: Lab, other: Lab) -> None:
    """Make the machines of `other`, which has none, from the snapshot of `lab`; they are off.

    The layers are copied, so either lab may go first. Hard links would show: a machine would count more links than it
    made, and a file's change time would move while another reads it.
    """
    if not exists(lab):
        raise LabError(f"there is no snapshot of the lab {lab.name}")
    shutil.copytree(lab.secrets, other.secrets)
    for name in ("hosts.toml", "source.toml", "dns.json"):
        shutil.copy2(lab.folder / "snapshot" / name, other.folder / name)
    _at_once(lambda one: _give(one, other), machines(lab))


def _give(one: Machine, other: Lab) -> None:
    new = replace(one, lab=other)
    new.folder.mkdir(parents=True)
    new.root.mkdir()
    (new.folder / "image").symlink_to(os.readlink(one.folder / "image"))
    for layer in layers(one):
        sh(["cp", "--archive", "--reflink=auto", layer, new.folder])
    _fresh_layer(new)
    refurnish(new)
    new.save()


def _unmount(machine: Machine) -> None:
    if os.path.ismount(machine.root):
        sh(["umount", "--lazy", machine.root])
