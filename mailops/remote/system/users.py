"""System accounts and their groups."""

from __future__ import annotations

import grp
import pwd
from typing import TYPE_CHECKING

from .shell import run

if TYPE_CHECKING:
    from ..shared.forms import User


def converge(wanted: list[User], dry_run: bool = False) -> list[str]:
    """Make missing accounts and group memberships; nothing that exists is taken away."""
    changes: list[str] = []
    for user in wanted:
        for group in user["groups"]:
            if not _group(group):
                changes.append(f"group {group}")
                if not dry_run:
                    run("groupadd", "--system", group)
        if not _exists(user["name"]):
            changes.append(f"user {user['name']}")
            if not dry_run:
                _add(user)
        for group in user["groups"]:
            if not _member(user["name"], group):
                changes.append(f"{user['name']} joins {group}")
                if not dry_run:
                    run("usermod", "--append", "--groups", group, user["name"])
    return changes


def _add(user: User) -> None:
    command = ["useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin"]
    command += ["--home-dir", user["home"]]
    if user["uid"] is not None:
        command += ["--uid", str(user["uid"])]
    run(*command, user["name"])


def _exists(name: str) -> bool:
    try:
        return bool(pwd.getpwnam(name))
    except KeyError:
        return False


def _group(name: str) -> grp.struct_group | None:
    try:
        return grp.getgrnam(name)
    except KeyError:
        return None


def _member(name: str, group: str) -> bool:
    entry = _group(group)
    return bool(entry and (name in entry.gr_mem or (_exists(name) and pwd.getpwnam(name).pw_gid == entry.gr_gid)))
