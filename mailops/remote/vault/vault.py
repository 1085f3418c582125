"""The encrypted vault: made once, opened by a passphrase, closed by `lock` or by the death of its process.

gocryptfs(1) runs as `mailops-vault.service`. Every mail unit is bound to that unit, so whatever ends the
mount ends the mail daemons with it. The bare mountpoint is immutable (ioctl_iflags(2)): not even root can
write below it by mistake.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from subprocess import DEVNULL
from typing import TYPE_CHECKING

from .. import machine
from ..shared.errors import LOCKED, AgentError
from ..system import units
from ..system.lock import RUN
from ..system.shell import ENVIRONMENT, run, sync_directory
from . import conf

if TYPE_CHECKING:
    from ..shared.calls import Link
    from ..shared.forms import Vault

UNIT = "mailops-vault.service"
QUEUE_UNIT = "mailops-queue.service"  # shows the queue in it to Postfix; goes with it
PASSPHRASE = f"{RUN}/passphrase"  # a FIFO for root alone, there only while the unit starts
WRONG_PASSPHRASE = 12  # gocryptfs(1), EXIT CODES
WRONG = "wrong passphrase; the vault stays locked"  # both as in the laptop's half: mailops/secrets.py says why
AGAIN = "try again; whoever has forgotten it sets a new one with the recovery key: docs/how-to/vault.md"
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IMMUTABLE_FL = 0x80086601, 0x40086602, 0x10  # linux/fs.h
MASTER_KEY = re.compile(r"[0-9a-f]{64}")


def converge(vault: Vault, link: Link, dry_run: bool = False) -> list[str]:
    """Make the vault when there is none and open it when it is locked; both ask for the passphrase."""
    if machine.is_mounted(vault["mountpoint"]):
        return []
    conf.require(vault)
    new = not conf.exists(vault)
    if not dry_run:
        passphrase = link.ask("passphrase", {"new": new})
        if new:
            make(vault, passphrase, link)
        unlock(vault, passphrase)
    return [f"{'make' if new else 'open'} the vault {vault['mountpoint']}"]


def make(vault: Vault, passphrase: str, link: Link) -> None:
    """A new gocryptfs filesystem. It counts only once the person has been shown its recovery key."""
    building = f"{vault['cipherdir']}.new"
    shutil.rmtree(building, ignore_errors=True)  # an interrupted run's: its key was never shown, it holds nothing
    os.makedirs(building, mode=0o700)
    run("gocryptfs", "-init", "-nosyslog", building, stdin=f"{passphrase}\n")
    # Away from a terminal gocryptfs keeps the master key to itself; its companion tells it.
    told = run("gocryptfs-xray", "-dumpmasterkey", f"{building}/gocryptfs.conf", stdin=f"{passphrase}\n").stdout
    key = MASTER_KEY.fullmatch(told.strip())
    if not key:
        raise AgentError("gocryptfs did not tell the new vault's recovery key; nothing was made")
    link.ask("recovery", "-".join(re.findall(".{8}", key.group())))
    if os.path.isdir(vault["cipherdir"]):
        os.rmdir(vault["cipherdir"])  # fails, as it should, if anything at all is in it
    os.rename(building, vault["cipherdir"])
    sync_directory(os.path.dirname(vault["cipherdir"]))


def unlock(vault: Vault, passphrase: str) -> None:
    """Mount the vault. AgentError, and nothing changed, when the passphrase is wrong."""
    mountpoint = vault["mountpoint"]
    if machine.is_mounted(mountpoint):
        return
    conf.require(vault)
    # What an unlock that died half way left waiting for its passphrase, or a killed gocryptfs still being cleared.
    units.stop([UNIT])
    run("systemctl", "reset-failed", UNIT, check=False)
    _clear_dead_mounts(mountpoint)
    seal(mountpoint)
    with _passphrase_fifo(), _start() as starting:
        _feed(passphrase, starting)
    if starting.returncode or not machine.is_mounted(mountpoint):
        refusal = _refusal(vault)
        run("systemctl", "reset-failed", UNIT, check=False)  # a slip of the fingers is no failure of the machine
        raise refusal
    conf.keep(vault)


def lock(vault: Vault) -> None:
    """Unmount the vault; the mail daemons bound to it must have been stopped before."""
    units.stop([UNIT])
    _clear_dead_mounts(vault["mountpoint"])
    run("systemctl", "reset-failed", UNIT, check=False)


def break_off(vault: Vault) -> None:
    """End a vault that does not answer: whoever waits for it gets an error instead (fuse(4), ENOTCONN)."""
    run("systemctl", "kill", "--signal=KILL", UNIT, QUEUE_UNIT, check=False)
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        for fields in (line.split() for line in mounts):
            if fields[4] in machine.places(vault):  # its process may wait for a disk, and then not even SIGKILL ends it
                connection = fields[2].partition(":")[2]
                with open(f"/sys/fs/fuse/connections/{connection}/abort", "w", encoding="ascii") as end:
                    end.write("1")


def seal(mountpoint: str) -> None:
    """An empty directory that nobody, root included, can write into while nothing is mounted on it."""
    os.makedirs(mountpoint, mode=0o755, exist_ok=True)
    descriptor = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if os.listdir(descriptor):
            raise AgentError(
                f"{mountpoint} is not empty although no vault is mounted there; nothing was mounted over it",
                hint=f"look at what is in {mountpoint}, move it away, then try again",
            )
        flags = struct.unpack("l", fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, struct.pack("l", 0)))[0]
        if not flags & FS_IMMUTABLE_FL:
            fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, struct.pack("l", flags | FS_IMMUTABLE_FL))
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EPERM):
            raise
        os.fchmod(descriptor, 0o000)  # a filesystem without the flag: keep at least everyone but root out
    finally:
        os.close(descriptor)


def _clear_dead_mounts(mountpoint: str) -> None:
    """Take away what is mounted there without serving: a killed gocryptfs leaves a mount that answers ENOTCONN."""
    while machine.answers([mountpoint]) is not False or _is_dead(mountpoint):
        run("umount", "--lazy", mountpoint)


def _is_dead(mountpoint: str) -> bool:
    try:
        os.stat(mountpoint)
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


@contextlib.contextmanager
def _passphrase_fifo() -> Iterator[None]:
    """What the unit reads its stdin from: a pipe with a name, so that the passphrase touches neither disk nor argv."""
    os.makedirs(RUN, mode=0o700, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(PASSPHRASE)
    os.mkfifo(PASSPHRASE, 0o600)
    try:
        yield
    finally:
        os.unlink(PASSPHRASE)


def _start() -> subprocess.Popen[bytes]:
    """Ends when the unit is up, which means mounted, or has failed; the unit has a time limit of its own."""
    command = ("systemctl", "start", UNIT)
    return subprocess.Popen(command, env=ENVIRONMENT, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)


def _feed(passphrase: str, starting: subprocess.Popen[bytes]) -> None:
    """Write the passphrase once the unit has opened its end (fifo(7): ENXIO until then), unless it never does."""
    while starting.poll() is None:
        try:
            descriptor = os.open(PASSPHRASE, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            time.sleep(0.02)
            continue
        with contextlib.suppress(BrokenPipeError), os.fdopen(descriptor, "wb") as pipe:
            pipe.write(passphrase.encode() + b"\n")
        return


def _refusal(vault: Vault) -> AgentError:
    """Why the unit did not start."""
    other = f"gocryptfs.conf is not as it was: the one that opened the vault last is in {conf.COPY}"
    hints = [] if conf.is_as_it_was(vault) else [other]
    if _exit_status() == WRONG_PASSPHRASE:
        return AgentError(WRONG, "; ".join([AGAIN, *hints]), LOCKED)
    return AgentError(f"the vault could not be opened: {units.log(UNIT)}", "; ".join(hints))


def _exit_status() -> int:
    return int(run("systemctl", "show", "--property=ExecMainStatus", "--value", UNIT).stdout)
