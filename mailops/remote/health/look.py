"""How well a machine is, beyond what its daemons answer to a probe: what they need and how it lies on the disk, name
servers, room, mail that waits. One look, for `status` and for the end of every run.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from .. import dkim, machine
from ..accounts import database, senders
from ..certificates import certificate
from ..services import queue, relay, srs
from ..shared.errors import AgentError
from ..system import files
from ..system.access import READ, obstacle
from . import disks, mailboxes, resolver

if TYPE_CHECKING:
    from ..shared.forms import Manifest

LONG = 300.0  # seconds; mail that waits is a matter of a moment, or of a minute after the unlock
NULL = "/dev/null"


class Said(NamedTuple):
    """What is wrong, or "" when it is well; and whether that says what to do."""

    words: str = ""
    advises: bool = True


def look(wanted: Manifest, but: tuple[str, ...] = ()) -> dict[str, Said]:
    """What is said of each thing that the machine of the manifest `wanted` needs. While its vault is locked `but` has
    what only an open one shows (IN_THE_VAULT)."""
    every = MAILHOST | EVERYBODY if wanted["vault"] else EVERYBODY | NULL_CLIENT
    looks = {name: asked for name, asked in every.items() if name not in but}
    said: dict[str, Said] = dict.fromkeys(looks, Said())

    def ask(name: str) -> None:
        said[name] = _said(looks[name], wanted)

    others = [threading.Thread(target=ask, args=(name,), daemon=True) for name in looks.keys() & {"resolver"}]
    for waiting in others:  # for somebody else; the rest is our own work
        waiting.start()
    for name in looks.keys() - {"resolver"}:
        ask(name)
    for waiting in others:
        waiting.join()
    return said


def begin(wanted: Manifest, but: tuple[str, ...] = ()) -> Callable[[], dict[str, Said]]:
    """Begin to look; the function that is returned awaits it."""
    said: dict[str, Said] = {}
    thread = threading.Thread(target=lambda: said.update(look(wanted, but)), daemon=True)
    thread.start()

    def result() -> dict[str, Said]:
        thread.join()
        return said

    return result


def faults(wanted: Manifest) -> dict[str, str]:
    """What is wrong by which a run is measured."""
    return {name: said.words for name, said in look(wanted, but=NOT_A_RUNS).items() if said.words}


def _said(asked: Callable[[Manifest], str], wanted: Manifest) -> Said:
    """A disk that fails, or a vault that goes away meanwhile, is an answer as well."""
    try:
        return Said(asked(wanted))
    except AgentError as error:
        return Said(f"{error.message}; next: {error.hint}") if error.hint else Said(error.message, advises=False)
    except OSError as error:
        return Said(f"{error.filename or 'a file'}: {error.strerror}", advises=False)
    except Exception as error:  # it must not pass for well
        return Said(f"it cannot be looked at ({type(error).__name__}: {error})", advises=False)


def _room(wanted: Manifest) -> str:
    return disks.fault(wanted["vault"], queue.QUEUE)


def _names(wanted: Manifest) -> str:
    return resolver.fault(wanted["hostname"], f"{queue.QUEUE}/etc/resolv.conf")


def _null(_: Manifest) -> str:
    state = os.stat(NULL) if os.path.exists(NULL) else None
    if state and stat.S_ISCHR(state.st_mode) and state.st_mode & 0o666 == 0o666:
        return ""
    return f"it is not what everybody may write to; next, as root there: rm -f {NULL}; mknod -m 666 {NULL} c 1 3"


def _served(wanted: Manifest) -> str:
    """Whether clients refuse a certificate for its dates; one of ours is told of two months before."""
    found = [said for item in wanted["certificates"] if (said := certificate.refused(item, time.time()))]
    return "; ".join(found)


def _accounts(wanted: Manifest) -> str:
    path = machine.database(wanted)
    with database.opened(path) as db:
        said = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
    return "" if said == "ok" else f"{path} is damaged: {said.splitlines()[-1]}; next: put a backup in its place"


def _senders(wanted: Manifest) -> str:
    path = machine.database(wanted)
    try:
        with database.opened(path) as db:
            return senders.fault(db, path)
    except AgentError:  # told of as the accounts
        return ""


def _mailboxes(wanted: Manifest) -> str:
    try:
        return mailboxes.fault(wanted)
    except AgentError:
        return ""


def _srs(wanted: Manifest) -> str:
    return srs.fault(machine.database(wanted))


def _dkim(wanted: Manifest) -> str:
    return dkim.fault(wanted["dkim"]) if wanted["dkim"] else ""


def _folders(wanted: Manifest) -> str:
    """Those in the vault, and the files in it that daemons read and we write."""
    vault = machine.vault(wanted)
    found = files.make_directories(vault["directories"], dry_run=True)
    inside = [item for item in wanted["files"] if item["path"].startswith(f"{vault['mountpoint']}/")]
    found += [why for item in inside if (why := obstacle(item["owner"], item["path"], READ))]
    return f"not as it should be: {', '.join(dict.fromkeys(found))}; next: fab -H NAME bootstrap" if found else ""


def _waiting(wanted: Manifest) -> str:
    said = queue.left(time.time(), LONG)
    return f"{said}; next, when that is mended, as root there: {queue.AGAIN}" if said else ""


# Each returns what is wrong and what to do, "" for nothing.
EVERYBODY: dict[str, Callable[[Manifest], str]] = {"disk": _room, "resolver": _names, NULL: _null}
MAILHOST: dict[str, Callable[[Manifest], str]] = {
    "accounts": _accounts,
    "mailboxes": _mailboxes,
    "senders": _senders,
    "SRS": _srs,
    "DKIM": _dkim,
    "folders": _folders,
    "certificate": _served,
    "waiting mail": _waiting,
}
NULL_CLIENT: dict[str, Callable[[Manifest], str]] = {"the mailhost": relay.fault}
IN_THE_VAULT = tuple(name for name in MAILHOST if name != "certificate")
NOT_A_RUNS = ("the mailhost", "waiting mail")  # other machines' matters, or of before: no run is measured by them
