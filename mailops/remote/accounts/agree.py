"""Where hosts.toml and the accounts do not agree, in words: for `plan`, `bootstrap` and `status`, with what to type."""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING

from ..shared.address import domain_of
from . import database, listed

if TYPE_CHECKING:
    from ..shared.forms import Rows

MOST = 20  # lines that a person is shown
MANY = 3  # aliases, from which on there is a shorter way
# What a row is, what becomes of one that left hosts.toml, the tasks that add and remove one.
WORDS = {
    "domains": ("", "its mail is still taken", "domain.add", "domain.rm"),
    "users": ("", "still has a mailbox and a login", "user.add", "user.rm"),
    "aliases": ("the alias ", "still delivers", "alias.add", "alias.rm"),
}


def look(path: str, wanted: Rows | None) -> list[str]:
    """The lines for `status`; `wanted` is what hosts.toml lists now, None where the laptop does not say."""
    if not os.path.exists(path):
        return []
    known = listed.load(path)
    rows = known.now if wanted is None else listed.rows_of(wanted)
    with database.opened(path) as db:
        there = listed.there(db)
        now = known.follow(rows, there)
        return few([*told(now), *_missing(now, there), *to_nobody(db)])


def told(known: listed.Listed) -> list[str]:
    """A line for each row that left hosts.toml and is here, or stands there and was removed here."""
    lines = []
    for kind, (what, still, _, remove) in WORDS.items():
        for row in sorted(known.left[kind]):
            lines.append(f"{what}{' -> '.join(row)} left hosts.toml, and {still}; next: fab {remove} {' '.join(row)}")
    if len(known.left["aliases"]) > MANY:
        lines.insert(
            0, f"{len(known.left['aliases'])} aliases left hosts.toml; next: fab alias.rm --left, for all of them"
        )
    for kind, (what, _, add, _) in WORDS.items():
        for row in sorted(known.gone[kind]):
            told = f"{what}{' -> '.join(row)} stands in hosts.toml, and was removed here by hand: it stays away; "
            lines.append(f"{told}next: take it out of hosts.toml, or fab {add} {' '.join(row)}")
    return lines


def _missing(now: listed.Listed, there: listed.Rows) -> list[str]:
    count = sum(len(now.now[kind] - there[kind] - now.gone[kind]) for kind in listed.KINDS)
    what = "1 account that is" if count == 1 else f"{count} accounts that are"
    return [f"hosts.toml lists {what} not here yet; next: fab -H NAME bootstrap"] if count else []


def to_nobody(db: sqlite3.Connection) -> list[str]:
    """Aliases to an address of ours that no mailbox and no alias has."""
    from .commands import Place, Work, exists  # costs more than the rest of a plan that finds nothing

    work = Work(db, Place("", ""))
    domains = set(work.column("SELECT name FROM domains"))
    lines = []
    for src, dst in db.execute("SELECT src, dst FROM aliases ORDER BY src, dst").fetchall():
        whole = f"@{domain_of(dst)}"
        caught = src != whole and work.has("aliases", src=whole)
        if {domain_of(src), domain_of(dst)} <= domains and not caught and not exists(work, dst):
            told = f"mail for {src} bounces: its alias leads to {dst}, which does not exist here"
            lines.append(f"{told}; next: fab user.add {dst}, or fab alias.rm {src} {dst}")
    return lines


def few(lines: list[str]) -> list[str]:
    more = len(lines) - MOST
    return lines if more <= 0 else [*lines[:MOST], f"and {more} more of the accounts and hosts.toml that do not agree"]
