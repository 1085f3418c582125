"""Whether mail can be stored: all that is looked at of a mailbox belongs to the user who delivers (Maildir++).

A look at the folders and the files beside them, not at the messages.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .. import machine
from ..accounts import database
from ..system.access import account, owner
from ..system.files import ids

if TYPE_CHECKING:
    from ..shared.forms import Manifest

OWNER = "vmail"
SHOWN = 3


def fault(wanted: Manifest) -> str:
    """Which mailboxes cannot be written, and what to do; "" for none. The vault is open."""
    found = _barred(wanted)
    if not found:
        return ""
    first = [f"{email} ({path} is {owner(path)})" for email, path in list(found.items())[:SHOWN]]
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"no mail can be stored for {', '.join(first)}{more}, and it waits; next: fab -H NAME bootstrap"


def converge(wanted: Manifest, dry_run: bool = False) -> list[str]:
    """Give a mailbox that cannot be written back to who delivers; returns a line for each."""
    found = _barred(wanted)
    if not dry_run:
        mail = _root(wanted)
        for email in found:
            _mend(mail, _home(mail, email))
    return [f"owners in the mailbox of {email}" for email in found]


def _root(wanted: Manifest) -> str:
    return f"{machine.mountpoint(wanted)}/mail"


def _home(mail: str, email: str) -> str:
    local, _, domain = email.rpartition("@")
    return f"{mail}/{domain}/{local}"


def _barred(wanted: Manifest) -> dict[str, str]:
    """Each mailbox that cannot be written, with the first path that stands in the way."""
    with database.opened(machine.database(wanted)) as db:
        emails = [email for (email,) in db.execute("SELECT email FROM users ORDER BY email")]
    mail, (uid, _) = _root(wanted), account(OWNER)
    found = {}
    for email in emails:
        home = _home(mail, email)
        for path, state in (*_ways(mail, home), *_inside(home), *_inside(f"{home}/Maildir")):
            if not stat.S_ISLNK(state.st_mode) and (state.st_uid != uid or _lacks(state)):
                found[email] = path
                break
    return found


def _ways(mail: str, home: str) -> Iterator[tuple[str, os.stat_result]]:
    for path in (mail, os.path.dirname(home), home):
        if os.path.lexists(path):
            yield path, os.stat(path)


def _inside(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    """What is in a folder; nothing where no mail has come yet."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.path for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return
    for path in names:
        try:
            yield path, os.lstat(path)
        except FileNotFoundError:  # a lock, gone meanwhile
            continue


def _mend(mail: str, home: str) -> None:
    numbers = ids(OWNER, OWNER)
    for path in (mail, os.path.dirname(home)):
        _give(path, numbers)
    for folder, folders, names in os.walk(home):
        for name in ("", *folders, *names):
            _give(f"{folder}/{name}" if name else folder, numbers)


def _give(path: str, numbers: tuple[int, int]) -> None:
    state = os.lstat(path)
    if (state.st_uid, state.st_gid) != numbers:
        os.chown(path, *numbers, follow_symlinks=False)
    if lacking := _lacks(state):
        os.chmod(path, stat.S_IMODE(state.st_mode) | lacking)


def _lacks(state: os.stat_result) -> int:
    """What the owner has to have, and has not; some files nobody may write, by purpose."""
    if stat.S_ISLNK(state.st_mode):
        return 0
    return (0o700 if stat.S_ISDIR(state.st_mode) else 0o400) & ~state.st_mode
