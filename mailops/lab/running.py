"""A machine that is running: on, off, a power cut, a reboot, and commands inside.

systemd-nspawn boots it, with an address on the bridge, its own systemd and sshd. It is enough of a real
server for gocryptfs, nftables, chattr and private mount namespaces; its kernel is this computer's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from mailops.lab import keeper, power
from mailops.lab.host import PATH, delete, last_words
from mailops.lab.layout import BRIDGE, LabError
from mailops.lab.machine import Machine, mount

BOOT_SECONDS = 60  # one is usual
_last_seen: dict[Path, str] = {}

# As /proc/net/tcp shows them (proc(5)): port 22 in hexadecimal, and the kernel's TCP_LISTEN.
SSH_PORT = ":0016"
LISTEN = "0A"


def start(machine: Machine) -> None:
    """Switch the machine on and wait until sshd answers. One that is on already is left alone."""
    if not is_on(machine):
        kill(machine)  # the remains of one whose keeper was killed
        mount(machine)
        power.turn_on(machine.unit, machine.folder, _nspawn(machine))
        try:
            power.wait(lambda: is_on(machine), 10, "")
        except LabError:
            raise _went_off(machine) from None
    wait_for_ssh(machine)


def _went_off(machine: Machine) -> LabError:
    console = (machine.folder / "console.log").read_text(errors="replace")
    return LabError(f"{machine.name} went off while booting: {last_words(console)}")


def _nspawn(machine: Machine) -> list[str]:
    return [
        # In a mount namespace of its own, so that what nspawn mounts goes with it, even when it is killed.
        *("unshare", "--mount", "--propagation=slave"),
        "systemd-nspawn",
        "--quiet",
        "--boot",
        "--register=no",  # no machined needed
        "--keep-unit",
        f"--directory={machine.root}",
        f"--machine={machine.short_name}",
        f"--hostname={machine.hostname}",
        "--private-users=no",
        "--link-journal=no",
        "--timezone=off",
        "--resolv-conf=off",
        "--console=read-only",
        f"--network-bridge={BRIDGE}",  # the other end of the cable is called host0
        # Beyond nspawn's own set: mounts and overlays, nftables, device nodes.
        "--capability=CAP_SYS_ADMIN,CAP_NET_ADMIN,CAP_MKNOD",
        "--bind=/dev/fuse",
    ]


def is_on(machine: Machine) -> bool:
    return power.keeper_pid(machine.folder) is not None


def stop(machine: Machine) -> None:
    """An orderly shutdown."""
    power.press(machine.folder)


def kill(machine: Machine) -> None:
    """A power cut: every process of the machine is gone at once, whatever it was doing."""
    power.cut(machine.folder)
    pid = leader(machine)
    if pid:  # without its process 1 the kernel ends all others
        os.kill(pid, signal.SIGKILL)
    power.wait(lambda: leader(machine) is None, 20, f"{machine.name} does not die")
    # The kernel takes the cable away a moment later; a new machine could not have its name until then.
    power.wait(lambda: not machine.cable.exists(), 90, f"the cable of {machine.name} does not go away")


def reboot(machine: Machine, seconds: float = BOOT_SECONDS) -> None:
    """Reboot from inside, and wait until the machine is really back."""
    before = boot_id(machine)
    run(machine, ["systemctl", "reboot"], check=False)
    power.wait(lambda: boot_id(machine) not in (None, before), seconds, f"{machine.name} does not come back")
    wait_for_ssh(machine, seconds)


def remove(machine: Machine) -> None:
    """Switch off and delete, whatever state it is in."""
    kill(machine)
    delete(machine.folder)
    for tree in keeper.cgroup_trees():
        for group, _, _ in os.walk(tree / "mailops-lab" / machine.unit, topdown=False):
            with contextlib.suppress(OSError):  # somebody in it is still dying; empty, it does no harm
                os.rmdir(group)


def wait_for_ssh(machine: Machine, seconds: float = BOOT_SECONDS) -> None:
    """Wait until sshd can be reached; say what the console said if the machine went away."""

    def ready() -> bool:
        if not is_on(machine):
            raise _went_off(machine)
        return answers(machine)

    power.wait(ready, seconds, f"sshd on {machine.name} ({machine.address}) did not come up")


def answers(machine: Machine) -> bool:
    """Whether the machine has its address and its sshd listens.

    Looked up, not tried: sshd of Debian 13 shuts out an address that often connects and does not log in.
    """
    net = Path("/proc", str(leader(machine)), "net")
    try:
        sockets = [line.split() for table in net.glob("tcp*") for line in table.read_text().splitlines()]
        addresses = (net / "fib_trie").read_text().split()
    except OSError:  # off, or going off in this moment
        return False
    return machine.address in addresses and any(
        local.endswith(SSH_PORT) and state == LISTEN for _, local, _, state, *_ in sockets
    )


def leader(machine: Machine) -> int | None:
    """The process that is number 1 in the machine.

    Found by looking: it is the one that sees itself as 1, one level down, and whose root directory is the machine's
    overlay. The one that was it the last time is looked at first.
    """
    try:
        overlay = os.stat(machine.root).st_dev
    except FileNotFoundError:
        return None
    if not os.path.ismount(machine.root):
        return None
    last = _last_seen.get(machine.root)
    if last and _is_leader(last, overlay):
        return int(last)
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal() and _is_leader(entry.name, overlay):
            _last_seen[machine.root] = entry.name
            return int(entry.name)
    return None


def _is_leader(pid: str, overlay: int) -> bool:
    """Numbers first: to look at the root of a daemon in a vault hangs while the gocryptfs of that is stopped."""
    try:
        status = Path("/proc", pid, "status").read_text()
        namespaces = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
        return len(namespaces) == 2 and namespaces[1] == "1" and os.stat(f"/proc/{pid}/root").st_dev == overlay
    except OSError:
        return False


def boot_id(machine: Machine) -> str | None:
    """Differs after each boot. The kernel's own boot id is this computer's, so the leader's birth serves."""
    pid = leader(machine)
    try:
        return Path("/proc", str(pid), "stat").read_text().rsplit(")", 1)[1].split()[19] if pid else None
    except OSError:
        return None


def enter(machine: Machine, argv: Sequence[str]) -> list[str]:
    """The command line that runs `argv` as root inside, past ssh and its configuration."""
    pid = leader(machine)
    if pid is None:
        raise LabError(f"{machine.name} is off", "fab lab.up")
    namespaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd"]
    term = os.environ.get("TERM", "dumb")
    variables = [f"PATH={PATH}", "HOME=/root", "USER=root", "LOGNAME=root", "LANG=C.UTF-8", f"TERM={term}"]
    dies_with_us = ["setpriv", "--pdeathsig", "KILL"]
    return ["nsenter", f"--target={pid}", *namespaces, "env", "-i", *variables, *dies_with_us, *argv]


def run(
    machine: Machine,
    command: Sequence[str] | str,
    text: str | None = None,
    check: bool = True,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command (a list) or a shell script (a string) as root inside, and capture what it says.

    Raises LabError when it fails, unless `check` is false, and subprocess.TimeoutExpired after
    `timeout` seconds.
    """
    argv = ["sh", "-c", command] if isinstance(command, str) else list(command)
    done = subprocess.run(
        enter(machine, argv),
        input=text or "",
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=timeout,
    )
    if check and done.returncode != 0:
        said = last_words(done.stderr or done.stdout, lines=12)
        raise LabError(f"on {machine.name}, `{' '.join(argv)[:120]}` ended with {done.returncode}: {said}")
    return done
