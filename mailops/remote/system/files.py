"""What stands at a path: a state to compare, to write and to bring back; and the directories of a role.

A state is plain JSON (`shared.forms`): {"sha256", "mode", "uid", "gid"} for a file, {"link"} for a symbolic link,
{"other"} for anything else, None for nothing. More keys may stand beside these; `same` looks at these alone.
"""

from __future__ import annotations

import grp
import hashlib
import json
import os
import pwd
import stat
import time
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

from ..shared.errors import AgentError
from .shell import naming

if TYPE_CHECKING:
    from typing import TypeVar

    from ..shared.forms import Directory, State

    T = TypeVar("T")

COOL = 2.5  # seconds
COMPARED = ("sha256", "mode", "uid", "gid", "link", "other")


class Change:
    """Paths, the states that they are believed to be in, and those that they are to be in; what these say.

    (No dataclass: to load what makes one would take as long as to compare all files.)
    """

    def __init__(self, before: dict[str, State], after: dict[str, State], content: Callable[[State], bytes]) -> None:
        self.before = before
        self.after = after
        self.content = content


def observe(path: str) -> State:
    """The state of `path` as it is now; OSError when it cannot be read."""
    try:
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            return {"link": os.readlink(path)}
        if not stat.S_ISREG(found.st_mode):
            return {"other": stat.S_IFMT(found.st_mode)}
        with open(path, "rb") as file:
            content = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    mode = stat.S_IMODE(found.st_mode)
    return {"sha256": digest(content), "mode": mode, "uid": found.st_uid, "gid": found.st_gid}


def same(one: State, other: State) -> bool:
    if one is None or other is None:
        return one is other
    return all(one.get(key) == other.get(key) for key in COMPARED)


def is_secret(*states: State) -> bool:
    """Whether what a path says in these states, earlier first, is not to be shown: one is secret, or a later one was
    closed to others, who could read it before.
    """
    if any(state and state.get("secret") for state in states):
        return True
    modes = [state["mode"] for state in states if state and "mode" in state]
    return any(was & ~now & 0o004 for was, now in pairwise(modes))


def told(state: State) -> str:
    """A state's mode and owner for a person: "0644 root:root", "absent"."""
    if state is None:
        return "absent"
    if "link" in state:
        return f"a link to {state['link']}"
    return f"{state['mode']:04o} {_user(state['uid'])}:{_group(state['gid'])}" if "mode" in state else "not a file"


def read(path: str) -> bytes:
    """A file's content, b"" when there is none."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return b""


def read_json(path: str, remedy: str, instead: T) -> T:
    """What our own file says, `instead` when there is none; AgentError, with a `remedy`, for one that is damaged."""
    try:
        with open(path, encoding="utf-8") as file:
            found: T = json.load(file)
            return found
    except FileNotFoundError:
        return instead
    except ValueError as error:  # after a power cut, on a disk that had promised more than it kept
        raise AgentError(f"{path} on this machine is damaged: {error}", remedy) from None


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_whole(path: str, content: bytes, mode: int, uid: int = 0, gid: int = 0) -> None:
    """A new file, durable before this returns (fsync(2)), in the place of whatever stood there.

    Not atomic: for names that nobody reads yet, which a rename then puts in place. It is dated COOL seconds back:
    there are daemons that wait until a file is older than a second or two, lest it be half written.
    """
    remove(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with naming(path), os.fdopen(descriptor, "wb") as file:
        file.write(content)
        os.fchown(file.fileno(), uid, gid)
        os.fchmod(file.fileno(), mode)
        file.flush()
        os.utime(file.fileno(), (past := time.time() - COOL, past))
        os.fsync(file.fileno())


def remove(path: str) -> None:
    if os.path.lexists(path):
        os.unlink(path)


def make_directories(wanted: list[Directory], dry_run: bool = False) -> list[str]:
    """Make missing directories and mend owners and modes; returns a line per change."""
    changes: list[str] = []
    for directory in wanted:
        path = directory["path"]
        if not os.path.isdir(path):
            changes.append(f"directory {path}")
        elif directory.get("mend", True) and not _directory_same(directory):
            changes.append(f"permissions of {path}")
        else:
            continue
        if not dry_run:
            os.makedirs(path, mode=0o700, exist_ok=True)
            os.chown(path, *ids(directory["owner"], directory["group"]))
            os.chmod(path, directory["mode"])
    return changes


def ids(owner: str, group: str) -> tuple[int, int]:
    """The numbers behind two names; AgentError names the one that this machine does not know."""
    try:
        return pwd.getpwnam(owner).pw_uid, grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise AgentError(f"no such user or group on this machine: {error.args[0]}") from None


def _directory_same(directory: Directory) -> bool:
    state = os.stat(directory["path"])
    try:
        owner = ids(directory["owner"], directory["group"])
    except AgentError:  # the account comes with a package that is not installed yet
        return False
    return (stat.S_IMODE(state.st_mode), state.st_uid, state.st_gid) == (directory["mode"], *owner)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
