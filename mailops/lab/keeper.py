"""The supervisor of one machine: starts it, starts it again when it reboots, ends when it is switched off.

Run as a program of its own (`python keeper.py NAME LOCK COMMAND…`), detached from whoever started
it, so it imports nothing of mailops. It holds a lock on the file LOCK as long as it lives; the kernel
tells anyone who asks which process that is (see `power`), so nothing stale can be taken for a keeper.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

REBOOT = 133  # what systemd-nspawn --keep-unit exits with when the machine asked for a reboot
CGROUPS = Path("/sys/fs/cgroup")


def main(name: str, lock: str, command: list[str]) -> int:
    with open(lock, "w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return 0  # somebody started this machine a moment ago
        if not Path("/run/systemd/system").exists():
            enter_cgroup(name)
        while (status := run(command)) == REBOOT:
            pass
        return status


def run(command: list[str]) -> int:
    """Run the machine until it ends. SIGTERM to the keeper is its power button."""
    # If the keeper is killed, the machine loses its supervisor in the same instant: a power cut.
    child = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    return child.wait()


def enter_cgroup(name: str) -> None:
    """Take a cgroup for this machine alone, where no systemd of this computer gives it one.

    Machines that share one would find each other's services in it, and wait for them to end.
    """
    for tree in cgroup_trees():
        folder = tree / "mailops-lab" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup.procs").write_text(str(os.getpid()))


def cgroup_trees() -> list[Path]:
    """Where systemd in a machine looks for its cgroup: one tree, or two on a hybrid host."""
    hybrid = [CGROUPS / "systemd", CGROUPS / "unified"]
    return [tree for tree in hybrid if tree.is_dir()] or [CGROUPS]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
