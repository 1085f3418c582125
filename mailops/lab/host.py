"""What the lab needs of this computer: root, five commands, a few kernel modules and a bridge."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from mailops.lab.layout import BRIDGE, THIS_COMPUTER, LabError

# command -> the Debian package that has it
COMMANDS = {
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "ip": "iproute2",
    "ssh-keygen": "openssh-client",
    "setpriv": "util-linux",
}
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# A machine cannot load a module itself. One that is built in, or has another name, is no error here.
MODULES = ("bridge", "veth", "overlay", "fuse", "nf_tables")

# A machine takes about a dozen inotify instances, all of them root's; the kernel's 128 are soon gone.
INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
INOTIFY_ENOUGH = 4096

BRIDGE_MAC = "02:6d:6f:00:00:01"  # locally administered

# The shell of a user who is not root may not have the sbin directories.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def sh(argv: Sequence[str | Path], text: str = "", ok: Sequence[int] = (0,)) -> str:
    """Run a command of this computer with `text` on its stdin, and return what it printed.

    Raises LabError with the command's own last words when it ends with a status that is not `ok`.
    """
    words = [str(word) for word in argv]
    # It dies with us, so that the next run never meets a command of this one at work in a machine.
    done = subprocess.run(
        ["setpriv", "--pdeathsig", "KILL", *words],
        env=plain_environment(),
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in ok:
        raise LabError(f"`{' '.join(words)[:120]}` failed: {last_words(done.stderr or done.stdout)}")
    return done.stdout


def delete(folder: Path) -> None:
    """Delete a folder if it exists, and never what is mounted below it: that may be this computer's /proc."""
    points = [line.split(" ")[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for point in reversed(points):
        if folder in Path(point).parents:
            sh(["umount", "--lazy", point])
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except PermissionError:  # somebody used chattr +i in there
        sh(["chattr", "-R", "-f", "-i", folder], ok=(0, 1))
        shutil.rmtree(folder)


def plain_environment() -> dict[str, str]:
    """The caller's environment would leak locale, proxies and temporary folders into the machines."""
    keep = {name: value for name, value in os.environ.items() if name.lower() in ("http_proxy", "no_proxy")}
    return {"PATH": PATH, "LANG": "C.UTF-8", "HOME": "/root", "DEBIAN_FRONTEND": "noninteractive", **keep}


def last_words(output: str, lines: int = 3) -> str:
    """The last lines of a command's output that say something."""
    return " / ".join([line.strip() for line in output.splitlines() if line.strip()][-lines:])


def require_root() -> None:
    if os.geteuid() != 0:
        raise LabError("the lab boots machines, and only root may do that", "sudo -E fab lab.up")


def require_commands() -> None:
    """Say in one line what to install, if anything."""
    missing = {package for command, package in COMMANDS.items() if not shutil.which(command, path=PATH)}
    if not KEYRING.exists():
        missing.add("debian-archive-keyring")
    if missing:
        packages = " ".join(sorted(missing))
        raise LabError(f"the lab needs {packages} on this computer", f"sudo apt install {packages}")


def prepare() -> None:
    """Make this computer ready to carry machines. Idempotent; call it with the lock "computer" held."""
    require_commands()
    if shutil.which("modprobe", path=PATH):
        sh(["modprobe", "--quiet", "--all", *MODULES], ok=(0, 1))
    # Until the next boot of this computer; the one setting of it that the lab touches.
    if int(INOTIFY.read_text()) < INOTIFY_ENOUGH:
        INOTIFY.write_text(str(INOTIFY_ENOUGH))
    if not Path("/sys/class/net", BRIDGE).exists():
        sh(["ip", "link", "add", BRIDGE, "type", "bridge"])
    # A bridge without an address of its own takes that of one of its ports, and another one when that port leaves:
    # then the other labs' machines go on talking to an address that is gone, for a minute.
    sh(["ip", "link", "set", BRIDGE, "address", BRIDGE_MAC])
    sh(["ip", "address", "replace", f"{THIS_COMPUTER}/16", "dev", BRIDGE])
    sh(["ip", "link", "set", BRIDGE, "up"])


def bridge_down() -> None:
    if Path("/sys/class/net", BRIDGE).exists():
        sh(["ip", "link", "delete", BRIDGE])
