"""The power switch of a kept process: on, off, pulled out of the wall, and is it on?

The other half of `keeper`.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mailops.lab import keeper
from mailops.lab.host import plain_environment, sh
from mailops.lab.layout import LabError

LOCK = "keeper"
FLOCK = "@hhqqi"  # struct flock: type, whence, start, length, process (fcntl(2))


def turn_on(name: str, folder: Path, command: list[str]) -> None:
    """Start a keeper for `command`, detached: no terminal, no session, no file of the caller's stays open."""
    argv = [sys.executable, "-I", "-S", keeper.__file__, name, str(folder / LOCK), *command]
    log = folder / "console.log"
    if Path("/run/systemd/system").exists():
        _turn_on_as_unit(name, log, argv)
        return
    with log.open("a") as output:
        subprocess.run(
            ["setsid", "--fork", *argv],
            env=plain_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=True,
            cwd="/",
        )


def _turn_on_as_unit(name: str, log: Path, argv: list[str]) -> None:
    """A unit of its own outlives the login session, and has a cgroup for this machine alone."""
    sh(["systemctl", "stop", f"{name}.service"], ok=(0, 5))  # what a killed keeper left; 5: nothing
    output = f"append:{log}"
    options = ["Delegate=yes", "KillMode=mixed", f"StandardOutput={output}", f"StandardError={output}"]
    properties = [f"--property={option}" for option in options]
    sh(["systemd-run", "--quiet", "--collect", f"--unit={name}", *properties, *argv])


def keeper_pid(folder: Path) -> int | None:
    """The process number of the living keeper, or None. The kernel knows who holds the lock."""
    try:
        with open(folder / LOCK) as file:
            question = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, pid = struct.unpack(FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, question))
    except FileNotFoundError:
        return None
    return None if kind == fcntl.F_UNLCK else pid


def press(folder: Path, seconds: float = 60) -> None:
    """The power button: an orderly shutdown, waited for."""
    _end(folder, signal.SIGTERM, seconds)


def cut(folder: Path) -> None:
    """Pull the plug on the keeper and its child, now."""
    _end(folder, signal.SIGKILL, 10)


def _end(folder: Path, how: signal.Signals, seconds: float) -> None:
    pid = keeper_pid(folder)
    if pid:
        os.kill(pid, how)
        wait(lambda: keeper_pid(folder) is None, seconds, f"{folder.name} is still on")


def wait(until: Callable[[], object], seconds: float, otherwise: str, pause: float = 0.05) -> None:
    """Wait for something to become true; LabError(otherwise) after `seconds`."""
    deadline = time.monotonic() + seconds
    while not until():
        if time.monotonic() > deadline:
            raise LabError(f"{otherwise} after {seconds:.0f} s")
        time.sleep(pause)
