"""Who owns what in the vault, by its place there: a vault that comes from another machine has that one's numbers.

(Which number an account has is a matter of the order in which packages came.) A note in the vault has the numbers
that were given to all of it last, so that a look at the note is all there is to do as long as they are the same.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING

from ..shared.errors import AgentError
from ..system.files import ids, read
from ..system.shell import write_atomic

if TYPE_CHECKING:
    from ..shared.forms import Vault

Owner = tuple[str, str]  # user and group, by name
Numbers = dict[str, list[int]]  # "user:group" -> their numbers here

NOTE = ".owners"
SERVER: Owner = ("vmail", "vmail")  # gocryptfs runs as this user, to whom all belongs that is made in the vault
ROOT: Owner = ("root", "root")
POSTFIX: Owner = ("postfix", "postfix")
NOBODY = 65534
# Postfix's own rules for its queue (postfix-files(5)): each folder, and what is in it.
PRIVATE = ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace")
QUEUE: dict[str, tuple[Owner, Owner]] = {
    **dict.fromkeys(PRIVATE, (("postfix", "root"), POSTFIX)),
    "public": (("postfix", "postdrop"), POSTFIX),
    "maildrop": (("postfix", "postdrop"), ("", "")),  # see _mend_maildrop
    "rspamd": (("_rspamd", "postfix"), ("_rspamd", "postfix")),
}


def are_right(vault: Vault) -> bool:
    """Whether everything in the open vault belongs to whom it should, as far as its note tells."""
    note = f"{vault['mountpoint']}/{NOTE}"
    try:
        found, numbers = os.lstat(note), _numbers(vault)
        # A copy that has become root's, or another's, as a whole says the right thing and is wrong all the same.
        return [found.st_uid, found.st_gid] == numbers[":".join(SERVER)] and bool(json.loads(read(note)) == numbers)
    except (FileNotFoundError, ValueError):
        return False
    except AgentError:  # an account comes with a package that is not installed yet
        return True


def converge(vault: Vault, dry_run: bool = False) -> list[str]:
    """Give everything in the open vault to whom it belongs here. May be cut anywhere: the note comes last."""
    if are_right(vault):
        return []
    numbers = _numbers(vault)
    changed = _mend_maildrop(vault, numbers, dry_run) + _mend(vault, numbers, dry_run)
    if not dry_run:
        changed += _mend_gocryptfs(vault, numbers)
        content = json.dumps(numbers).encode()
        with contextlib.suppress(OSError):  # no room for it: a full vault has to open all the same
            write_atomic(f"{vault['mountpoint']}/{NOTE}", content, 0o600, *numbers[":".join(SERVER)])
    return [f"owners in {vault['mountpoint']}: {changed} mended"] if changed else []


def places(vault: Vault) -> tuple[dict[str, Owner], dict[str, Owner]]:
    """Folders of the vault -> who owns them; and who owns what is in them. Pure."""
    root = vault["mountpoint"]
    own: dict[str, Owner] = {}
    inside: dict[str, Owner] = {root: ("", "")}  # what we do not know stays as it is
    for directory in vault["directories"]:
        path, group = directory["path"], directory["group"]
        own[path] = (directory["owner"], group)
        # A folder that gives its group away (setgid) is for somebody who writes there and does not own what he writes.
        inside.setdefault(path, (SERVER[0], group) if directory["mode"] & 0o2000 else own[path])
    if vault.get("queue"):
        own[f"{root}/queue"] = inside[f"{root}/queue"] = ROOT
        for name, (folder, content) in QUEUE.items():
            own[f"{root}/queue/{name}"], inside[f"{root}/queue/{name}"] = folder, content
    return own, inside


def _numbers(vault: Vault) -> Numbers:
    own, inside = places(vault)
    owners = {SERVER, *own.values(), *inside.values()} - {("", "")}
    return {":".join(owner): list(ids(*owner)) for owner in sorted(owners)}


def _mend(vault: Vault, numbers: Numbers, dry_run: bool) -> int:
    own, inside = places(vault)
    changed = _give(vault["mountpoint"], [0, 0], None, dry_run)
    for folder, folders, names, descriptor in os.fwalk(vault["mountpoint"]):
        below = inside[folder]
        for name in (*folders, *names):
            owner = own.get(f"{folder}/{name}", below)
            if any(owner):
                changed += _give(name, numbers[":".join(owner)], descriptor, dry_run)
        for name in folders:
            inside.setdefault(f"{folder}/{name}", below)
    return changed


def _mend_maildrop(vault: Vault, numbers: Numbers, dry_run: bool) -> int:
    """What the other machine's programs and people had handed in, and Postfix had not taken yet.

    Postfix believes more of what is its own, so nobody who had the number of ours must keep it. Goes before the
    rest, for it goes by Postfix's old number.
    """
    queue = f"{vault['mountpoint']}/queue"
    if not os.path.isdir(f"{queue}/maildrop") or not os.path.isdir(f"{queue}/active"):
        return 0
    was, (postfix, _) = os.stat(f"{queue}/active").st_uid, numbers[":".join(POSTFIX)]
    if was == postfix:
        return 0
    known = {was: postfix, postfix: postfix, 0: 0}
    group = numbers["postfix:postdrop"][1]
    descriptor = os.open(f"{queue}/maildrop", os.O_RDONLY | os.O_DIRECTORY)
    try:
        found = {name: os.stat(name, dir_fd=descriptor, follow_symlinks=False) for name in os.listdir(descriptor)}
        owners = {name: [known.get(state.st_uid, NOBODY), group] for name, state in found.items()}
        return sum(_give(name, owner, descriptor, dry_run) for name, owner in owners.items())
    finally:
        os.close(descriptor)


def _mend_gocryptfs(vault: Vault, numbers: Numbers) -> int:
    """Its own files, which the mounted vault does not show (gocryptfs(1), FORWARD_MODE.md)."""
    changed = 0
    for folder, _, names, descriptor in os.fwalk(vault["cipherdir"]):
        owner = [0, 0] if folder == vault["cipherdir"] else numbers[":".join(SERVER)]
        for name in names:
            if name in ("gocryptfs.conf", "gocryptfs.diriv") or name.endswith(".name"):
                changed += _give(name, owner, descriptor, dry_run=False)
    return changed


def _give(name: str, owner: list[int], descriptor: int | None, dry_run: bool) -> int:
    """1 for a change, 0 for none, also where it has gone meanwhile. Never follows a link."""
    try:
        found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        if [found.st_uid, found.st_gid] == owner:
            return 0
        if not dry_run:
            os.chown(name, *owner, dir_fd=descriptor, follow_symlinks=False)
    except FileNotFoundError:
        return 0
    return 1
