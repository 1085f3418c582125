"""Running the machine's own programs: output captured, input on stdin, failures in one line."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ..shared.errors import AgentError

if TYPE_CHECKING:
    import subprocess

# One language and one path for every program: their output is read by us, not by the locale.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "HOME": "/root",
    # systemctl(1) would keep the links of init scripts in step, which nobody reads where a unit has the same name; that
    # takes ten times as long as its own work.
    "SYSTEMCTL_SKIP_SYSV": "1",
}

Words = Callable[[], str]
runs: list[str] = []  # the programs run so far; what was seen before the latest of them may not hold any more


def run(
    *command: str, stdin: str | bytes = b"", check: bool = True, timeout: float | None = 120
) -> subprocess.CompletedProcess[str]:
    """Run `command` and capture what it says; AgentError when it fails and `check` is set.

    `timeout` is in seconds. Secrets travel in `stdin`, never in `command`.
    """
    import subprocess  # where nothing differs nothing is run, and it need not be loaded

    runs.append(command[0])
    data = stdin.encode() if isinstance(stdin, str) else stdin
    try:
        done = subprocess.run(command, input=data, capture_output=True, env=ENVIRONMENT, timeout=timeout, check=False)
    except FileNotFoundError:
        raise AgentError(f"{command[0]} is not installed on this machine") from None
    except subprocess.TimeoutExpired:
        raise AgentError(f"{' '.join(command)} did not end within {timeout:.0f} s") from None
    out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    if check and done.returncode:
        raise AgentError(f"{' '.join(command)} failed ({done.returncode}): {tail(err or out)}")
    return subprocess.CompletedProcess(command, done.returncode, out, err)


def answer(*command: str, timeout: float = 10) -> str:
    """What it says; "" where it is broken, or hangs."""
    try:
        return run(*command, check=False, timeout=timeout).stdout.strip()
    except AgentError:
        return ""


def beginning(most: int, *command: str) -> tuple[bytes, bool]:
    """The first `most` bytes of what `command` says, and whether there was more; it is ended then."""
    import subprocess

    null = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=null, stdout=subprocess.PIPE, stderr=null, env=ENVIRONMENT) as program:
        said = program.stdout.read(most + 1) if program.stdout else b""
        program.kill()
    return said[:most], len(said) > most


def start(*command: str) -> Words:
    """Start a program that only looks at something. The function that is returned awaits it: what it said on stdout."""
    reading, writing = os.pipe()
    quiet = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 2)]
    actions = [*quiet, (os.POSIX_SPAWN_DUP2, writing, 1)]
    child = os.posix_spawnp(command[0], command, ENVIRONMENT, file_actions=actions)
    os.close(writing)

    def words() -> str:
        with open(reading, encoding="utf-8", errors="replace") as file:
            said = file.read()
        os.waitpid(child, 0)
        return said

    return words


def tail(text: str, lines: int = 4) -> str:
    """The last few lines of a program's output, which is where the reason usually stands."""
    return " | ".join(last(text, lines))


def last(text: str, lines: int) -> list[str]:
    return text.strip().splitlines()[-lines:]


def write_atomic(path: str, content: bytes, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
    """Replace `path` so that a reader, or a power cut, sees the old file or the new one and nothing else."""
    temporary = f"{path}.mailops-new"
    if os.path.lexists(temporary):  # an interrupted run's leftover, perhaps with other permissions
        os.unlink(temporary)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with naming(temporary), os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchown(file.fileno(), uid, gid)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise
    sync_directory(os.path.dirname(path))


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """An error of write(2) or fsync(2) does not say which file it was: a full disk is named by this."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or path
        raise


def sync_directory(path: str) -> None:
    """A rename is only durable once its directory is (fsync(2))."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
