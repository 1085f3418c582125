"""What dpkg knows of the packages, read from its own files, which spares a process: `packages` changes them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct

STATUS = "/var/lib/dpkg/status"
UPDATES = "/var/lib/dpkg/updates"  # what is newer than the status: there after a dpkg that was cut, or while one runs
LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock")
FLOCK = "hhqqi4x"  # struct flock on a 64-bit machine
FINE = (" ok installed", " config-files", " not-installed")  # ends of a Status
UCF = "/var/lib/ucf/hashfile"


def broken() -> list[str]:
    """Packages that are neither installed nor removed: an upgrade that did not end well, and is not going on."""
    return [] if at_work() else half_done()


def half_done() -> list[str]:
    """As `broken`, while an apt is at it, too."""
    unfinished = {name: status for name, status in _statuses().items() if not status.endswith(FINE)}
    told = [f"{name} is {_words(status)}" for name, status in unfinished.items()]
    return told or (["dpkg was interrupted"] if _cut() else [])


def torn() -> list[str]:
    """Packages of which dpkg was killed among their files: it cannot finish them, they must be unpacked anew."""
    return [name for name, status in _statuses().items() if " reinstreq " in status]


def _words(status: str) -> str:
    _, flag, state = status.split()
    return f"{state} and must be reinstalled" if flag == "reinstreq" else state


def _statuses() -> dict[str, str]:
    """Package → what is wanted, a flag, and its state (dpkg-query(1))."""
    found: dict[str, str] = {}
    name = ""
    for line in _record().splitlines():
        if line.startswith("Package: "):
            name = line.split()[-1]
        elif line.startswith("Status: "):
            found.setdefault(name, line.removeprefix("Status: "))  # the newest one stands first
    return found


def held(wanted: list[str]) -> list[str]:
    """Those of `wanted` that somebody has told dpkg to leave as they are: they get no security updates."""
    text = _record()
    return [name for name in wanted if f"\nPackage: {name}\nStatus: hold " in text]


def at_work() -> bool:
    """Whether an apt or a dpkg is at it. Asked without taking the lock (fcntl(2), F_GETLK): nobody must meet ours."""
    for path in LOCKS:
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
            question = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            if struct.unpack(FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, question))[0] != fcntl.F_UNLCK:
                return True
    return False


def _record() -> str:
    """What dpkg knows of the packages; an entry that is newer than another one stands before it."""
    texts = []
    for path in [*(f"{UPDATES}/{name}" for name in reversed(_cut())), STATUS]:
        with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8", errors="replace") as file:
            texts.append(file.read())
    return "\n" + "\n".join(texts)


def _cut() -> list[str]:
    """What dpkg has noted and not yet put into its status, the oldest first."""
    with contextlib.suppress(OSError):
        return sorted(name for name in os.listdir(UPDATES) if name.isdigit())
    return []


def provides(package: str) -> set[str]:
    """What else the package counts as (deb-control(5), Provides)."""
    _, _, entry = _record().partition(f"\nPackage: {package}\n")
    line = next((line for line in entry.partition("\n\n")[0].splitlines() if line.startswith("Provides: ")), "")
    return {word.split()[0] for word in line.removeprefix("Provides: ").split(",") if word.strip()}


def conffiles() -> dict[str, str]:
    """The configuration files of packages, as they brought them: path -> MD5 (deb822(5), Conffiles; ucf(1))."""
    with open(STATUS, encoding="utf-8", errors="replace") as file:
        lines = [line.split()[:2] for line in file if line.startswith(" /")]
    with contextlib.suppress(FileNotFoundError), open(UCF, encoding="utf-8", errors="replace") as file:
        lines += [line.split()[::-1] for line in file]
    return {words[0]: words[1] for words in lines if len(words) == 2}


def missing(wanted: list[str]) -> list[str]:
    """Those of `wanted` that are not installed; read from dpkg's own files, which spares a process."""
    text = _record()
    return [name for name in wanted if not _is_installed(text, name)]


def version(name: str) -> str:
    """The installed version of a package, "" when it is not there."""
    _, found, entry = _record().partition(f"\nPackage: {name}\n")
    fields = dict(line.split(": ", 1) for line in entry.partition("\n\n")[0].splitlines() if ": " in line)
    return fields.get("Version", "") if found and fields.get("Status", "").endswith(" installed") else ""


def _is_installed(text: str, name: str) -> bool:
    """deb822(5): each entry begins with its Package, and has a Status."""
    entry = text.find(f"\nPackage: {name}\n")
    status = text.find("\nStatus: ", entry + 1)
    return entry >= 0 and text[status + 1 : text.find("\n", status + 1)].endswith(" ok installed")  # held ones, too
