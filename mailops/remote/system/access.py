"""Whether a daemon may do what it has to with a file: root, who asks, always may, and so notices nothing by itself."""

from __future__ import annotations

import os
import pwd
import stat

from .files import told

Account = tuple[int, list[int]]  # the number of a user, and of all groups that it is in
READ, WRITE, ENTER = 4, 2, 1


def account(user: str) -> Account:
    """KeyError for a user that this machine does not know."""
    entry = pwd.getpwnam(user)
    return entry.pw_uid, os.getgrouplist(user, entry.pw_gid)


def allows(found: os.stat_result, who: Account, bits: int) -> bool:
    """Whether the permissions of a file give `who` all of `bits` (path_resolution(7))."""
    uid, groups = who
    shift = 6 if found.st_uid == uid else 3 if found.st_gid in groups else 0
    return uid == 0 or (found.st_mode >> shift) & bits == bits


def obstacle(user: str, path: str, bits: int) -> str:
    """What keeps `user` from reading, writing, entering `path`, as a person is told; "" for nothing."""
    try:
        who = account(user)
    except KeyError:
        return f"there is no user {user}"
    parents = [path[:at] for at, letter in enumerate(path) if letter == "/" and at]
    for place, wanted in [*((parent, ENTER) for parent in parents), (path, bits)]:
        try:
            found = os.stat(place)
        except FileNotFoundError:
            return f"{place} is not there"
        if not allows(found, who, wanted):
            return f"{user} may not use {place} ({owner(place)})"
    return ""


def owner(path: str) -> str:
    """ "0600 root:root" """
    found = os.stat(path)
    return told({"mode": stat.S_IMODE(found.st_mode), "uid": found.st_uid, "gid": found.st_gid})


def barred(options: dict[str, str]) -> str:
    """Why the `user` of a probe's options may not speak at their `socket`; "" where none is named."""
    return obstacle(options["user"], options["socket"], READ | WRITE) if "user" in options else ""
