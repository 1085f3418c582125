"""The files of a role: which differ, writing them atomically, keeping what they replace.

What a run replaces goes into a numbered generation under /var/lib/mailops/generations first: contents,
modes, owners and absence, so that nobody's hand edit is lost and an earlier state can be brought back.
"""

from __future__ import annotations

import base64
import grp
import hashlib
import json
import os
import pwd
import shutil
import stat
import time
from typing import Any

from .errors import AgentError
from .machine import STATE
from .shell import sync_directory, write_atomic

GENERATIONS = f"{STATE}/generations"
KEPT = 50


def different(wanted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The wanted files that are absent here or differ in content, mode, owner or group."""
    return [file for file in wanted if not _same(file)]


def stale(before: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Files an earlier manifest put here that the new one does not have, still as mailops wrote them."""
    paths = {file["path"] for file in wanted}
    return [file for file in before if file["path"] not in paths and _same(file)]


def edited(before: list[dict[str, Any]], files: list[dict[str, Any]]) -> list[str]:
    """The paths among `files` where somebody else has changed what mailops had written before."""
    written = {file["path"]: file["sha256"] for file in before}
    found = {file["path"]: _content(file["path"]) for file in files if file["path"] in written}
    return [path for path, old in found.items() if old is not None and _digest(old) != written[path]]


def current(files: list[dict[str, Any]]) -> dict[str, str | None]:
    """What stands here now, in base64, for a diff on the laptop. A secret file's content stays here."""
    found: dict[str, str | None] = {}
    for file in files:
        if not file["secret"]:
            content = _content(file["path"])
            found[file["path"]] = None if content is None else base64.b64encode(content).decode()
    return found


def write(files: list[dict[str, Any]], removed: list[dict[str, Any]], link: Any, who: str) -> None:
    """Fetch the contents of `files` from the laptop, keep what they replace, and put them in place."""
    if not files and not removed:
        return
    contents = _fetch(files, link)
    _keep([file["path"] for file in files + removed], who)
    for file in files:
        _make_parents(file["path"])
        uid, gid = ids(file["owner"], file["group"])
        write_atomic(file["path"], contents[file["path"]], file["mode"], uid, gid)
    for file in removed:
        os.unlink(file["path"])


def make_directories(wanted: list[dict[str, Any]], dry_run: bool = False) -> list[str]:
    """Make missing directories and mend owners and modes; returns a line per change."""
    changes: list[str] = []
    for directory in wanted:
        path = directory["path"]
        if not os.path.isdir(path):
            changes.append(f"directory {path}")
        elif not _directory_same(directory):
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


def _same(file: dict[str, Any]) -> bool:
    try:
        state = os.lstat(file["path"])
    except OSError:
        return False
    if not stat.S_ISREG(state.st_mode) or stat.S_IMODE(state.st_mode) != file["mode"]:
        return False
    content = _content(file["path"])
    if content is None or _digest(content) != file["sha256"]:
        return False
    try:
        return (state.st_uid, state.st_gid) == ids(file["owner"], file["group"])
    except AgentError:  # the account comes with a package that is not installed yet
        return False


def _content(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _fetch(files: list[dict[str, Any]], link: Any) -> dict[str, bytes]:
    """The new contents, each checked against the digest that the manifest promised."""
    if not files:
        return {}
    answer = link.ask("files", [file["path"] for file in files])
    contents = {path: base64.b64decode(text) for path, text in answer.items()}
    for file in files:
        if _digest(contents[file["path"]]) != file["sha256"]:
            raise AgentError(f"{file['path']} did not arrive as it was promised; nothing was written")
    return contents


def _keep(paths: list[str], who: str) -> None:
    """One new generation with what stands at `paths` now; complete before anything is replaced."""
    os.makedirs(GENERATIONS, mode=0o700, exist_ok=True)
    numbers = sorted(int(name) for name in os.listdir(GENERATIONS) if name.isdigit())
    number = numbers[-1] + 1 if numbers else 1
    building = f"{GENERATIONS}/{number}.new"
    shutil.rmtree(building, ignore_errors=True)
    os.mkdir(building, mode=0o700)
    record: dict[str, Any] = {"who": who, "when": time.time(), "files": {}}
    for index, path in enumerate(paths):
        content = _content(path)
        record["files"][path] = None
        if content is not None:
            state = os.stat(path)
            owner = [state.st_uid, state.st_gid]
            record["files"][path] = {"kept": str(index), "mode": stat.S_IMODE(state.st_mode), "owner": owner}
            write_atomic(f"{building}/{index}", content, 0o600)
    write_atomic(f"{building}/record.json", json.dumps(record, indent=1).encode(), 0o600)
    os.rename(building, f"{GENERATIONS}/{number}")
    sync_directory(GENERATIONS)
    for old in numbers[: -(KEPT - 1)]:
        shutil.rmtree(f"{GENERATIONS}/{old}", ignore_errors=True)


def _make_parents(path: str) -> None:
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)


def _directory_same(directory: dict[str, Any]) -> bool:
    state = os.stat(directory["path"])
    try:
        owner = ids(directory["owner"], directory["group"])
    except AgentError:  # the account comes with a package that is not installed yet
        return False
    return (stat.S_IMODE(state.st_mode), state.st_uid, state.st_gid) == (directory["mode"], *owner)
