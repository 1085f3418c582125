"""Generations: whole states of the managed files, by number, of which one is active.

    /var/lib/mailops/objects/<sha256>     contents, for root alone
    /var/lib/mailops/generations/<N>.json  a record: which state each managed path has, who made it, when
    /var/lib/mailops/active                the number of the active one
    /var/lib/mailops/origins.json          what stood at a path before mailops took it over

Generation 0 is a machine that is being set up: its units are tied to the vault, nothing else is there yet. It is
never listed, and nobody goes back to it.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING

from ..machine import MANIFEST, STATE
from ..shared.errors import BAD_INPUT, AgentError
from ..shared.stored import lift, numbered
from ..system.files import digest, read, read_json, write_whole
from ..system.shell import sync_directory, write_atomic

if TYPE_CHECKING:
    from ..shared.forms import Generation, Manifest, Origins, State

OBJECTS = f"{STATE}/objects"
RECORDS = f"{STATE}/generations"
ACTIVE = f"{STATE}/active"
ORIGINS = f"{STATE}/origins.json"
KEPT = 50  # the latest so many; the active one stays, however old it is

EMPTY: Generation = {"number": 0, "parent": None, "files": {}, "locals": {}, "replaced": {}, "proven": False}


def path(number: int) -> str:
    return f"{RECORDS}/{number}.json"


def numbers() -> list[int]:
    """The generations there are, oldest first; 0 is none of them."""
    try:
        names = os.listdir(RECORDS)
    except FileNotFoundError:
        return []
    found = (name.removesuffix(".json") for name in names if name.endswith(".json"))
    return sorted(int(stem) for stem in found if stem.isdigit() and int(stem))


def load(number: int) -> Generation:
    """AgentError (2) for a generation that is not here; (1) for one whose record is damaged."""
    record: Generation | None = read_json(path(number), f"no way back to it any more: rm {path(number)}", None)
    if record is None:
        known = ", ".join(map(str, numbers())) or "none"
        raise AgentError(f"there is no generation {number} here", f"there are: {known}", code=BAD_INPUT)
    return lift("generation", record)


def active() -> Generation:
    """The active generation; an empty one on a machine that has none yet. AgentError when it is damaged."""
    anew = f"as root there: rm {ACTIVE}; the next bootstrap takes the files as they are, and goes on from there"
    number = read_json(ACTIVE, anew, None)
    if number is None:
        return EMPTY
    record: Generation | None = read_json(path(number), anew, None)
    if record is None:
        raise AgentError(f"{path(number)}, the active generation, is gone", anew)
    return lift("generation", record)


def every() -> list[Generation]:
    """Those that can be read, oldest first. A damaged one is lost, and no reason to stop."""
    found = []
    for number in numbers():
        with contextlib.suppress(AgentError):
            found.append(load(number))
    return found


def origins() -> dict[str, State]:
    remedy = f"what stood there before mailops is not known: rm {ORIGINS}"
    stored: Origins | None = read_json(ORIGINS, remedy, None)
    return lift("origins", stored)["paths"] if stored else {}


def remember_origins(taken: dict[str, State]) -> None:
    """Keep what stood at paths that mailops takes over now; a path that it had left before counts anew."""
    if taken:
        write_atomic(ORIGINS, json.dumps(numbered({"paths": origins() | taken})).encode(), 0o600)


def store(content: bytes) -> str:
    """Keep a content; returns its name."""
    name = digest(content)
    if digest(read(f"{OBJECTS}/{name}")) != name or not os.path.exists(f"{OBJECTS}/{name}"):
        os.makedirs(OBJECTS, mode=0o700, exist_ok=True)
        write_atomic(f"{OBJECTS}/{name}", content, 0o600)
    return name


def content(state: State) -> bytes | None:
    """What a state's file said, None when it is not kept here (or damaged, or was no file)."""
    if not state or "sha256" not in state:
        return None
    found = read(f"{OBJECTS}/{state['sha256']}")
    return found if digest(found) == state["sha256"] else None


def manifest(record: Generation) -> Manifest:
    """The manifest that the files of a generation are of. AgentError when it is not kept any more."""
    text = content(record["files"].get(MANIFEST))
    if text is None:
        raise AgentError(f"the manifest of generation {record['number']} is not kept here any more")
    return lift("manifest", json.loads(text))


def write_record(target: str, record: Generation) -> None:
    os.makedirs(RECORDS, mode=0o700, exist_ok=True)
    write_whole(target, json.dumps(numbered(record)).encode(), 0o600)
    sync_directory(RECORDS)


def mark_proven(record: Generation, proven: bool = True) -> None:
    write_atomic(path(record["number"]), json.dumps(numbered(record | {"proven": proven})).encode(), 0o600)


def proven_before(record: Generation) -> Generation | None:
    """The latest one that is known to work and that `record` came from; else the latest of all that work."""
    proven = {found["number"]: found for found in every() if found["proven"] and found["number"] != record["number"]}
    parents = {found["number"]: found["parent"] for found in every()}
    number, seen = record["parent"], set()
    while number and number not in proven and number not in seen:
        seen.add(number)
        number = parents.get(number)
    return proven.get(number or 0) or proven.get(max(proven, default=0))


def prune() -> None:
    """Drop the oldest generations beyond KEPT, and every content that nobody names.

    Never the active one, nor the one to fall back to while that is not proven.
    """
    now = active()
    fallback = EMPTY if now["proven"] else proven_before(now) or EMPTY
    for number in numbers()[:-KEPT]:
        if number not in (now["number"], fallback["number"]):
            os.unlink(path(number))
    used = {state["sha256"] for state in origins().values() if state and "sha256" in state}
    for record in (now, *every()):
        used |= _contents_of(record)
    for name in set(os.listdir(OBJECTS)) - used:
        os.unlink(f"{OBJECTS}/{name}")


def _contents_of(record: Generation) -> set[str]:
    states = [*record["files"].values(), *record["replaced"].values()]
    return {state[key] for state in states if state for key in ("sha256", "base") if key in state}
