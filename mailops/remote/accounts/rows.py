"""The mail accounts that hosts.toml wants: which are missing in the database, and adding them.

What it wants is kept beside the database, in the vault, for mailcfg to know; the manifest outside names nobody.
"""

from __future__ import annotations

import json
import os
import sqlite3
from typing import TYPE_CHECKING

from ..shared import passwords
from ..shared.errors import LOCKED, AgentError
from ..system.files import read, read_json
from ..system.shell import write_atomic
from . import database, senders

if TYPE_CHECKING:
    from ..shared.calls import Link
    from ..shared.forms import Accounts, Listed


def converge(wanted: Accounts, link: Link, dry_run: bool = False) -> list[str]:
    """Add what `wanted` (Manifest.accounts) has and the database lacks, in one transaction; nothing is reset.

    Hashes are asked for as "hashes", for users that do not exist. Returns a line for each change that was
    made, or would be. AgentError (5) when the vault is locked: its directories are never made here.
    """
    path = wanted["database"]
    if not os.path.isdir(os.path.dirname(path)):
        if dry_run:
            return [f"accounts in {path}, as far as they are missing: the vault is not open to look"]
        raise AgentError(f"{os.path.dirname(path)} is not there: the vault is locked", "fab unlock", LOCKED)
    new = not os.path.exists(path)
    changes = [f"database {path}"] if new else database.mend(path, dry_run)
    if new or not _all_there(path, wanted):
        changes += _add_missing(path, wanted, link, dry_run, new)
    table = senders.path_of(path)
    if not new and os.path.isdir(os.path.dirname(table)) and not os.path.exists(table):
        changes.append(f"table {table}")
    if changes and not dry_run:
        senders.ensure(path)
    return changes + _keep_listed(path, wanted, dry_run, told=bool(changes))


def listed(path: str) -> Listed:
    """The domains, users and aliases that hosts.toml had at the last bootstrap; `path` is the database."""
    nothing: Listed = {"domains": [], "users": [], "aliases": []}
    return nothing | read_json(_listed_file(path), "fab bootstrap", nothing)


def _keep_listed(path: str, wanted: Accounts, dry_run: bool, told: bool) -> list[str]:
    """A line only where nothing else tells that hosts.toml has other accounts now."""
    listed: Listed = {"domains": wanted["domains"], "users": wanted["users"], "aliases": wanted["aliases"]}
    content = json.dumps(listed).encode()
    if read(_listed_file(path)) == content:
        return []
    if not dry_run:
        write_atomic(_listed_file(path), content, 0o600)
    return [] if told else ["note which accounts hosts.toml lists"]


def _listed_file(path: str) -> str:
    return f"{os.path.dirname(path)}/listed.json"


def _add_missing(path: str, wanted: Accounts, link: Link, dry_run: bool, new: bool) -> list[str]:
    copy = database.rehearsal(path)
    there = set(row[0] for row in copy.execute("SELECT email FROM users"))
    missing = [email for email in wanted["users"] if email not in there]
    rows, remarks = _fill(copy, wanted, dict.fromkeys(missing, ""))
    copy.close()
    for remark in remarks:
        link.say(remark)
    if dry_run or not (new or rows):
        return rows
    hashes = _ask_hashes(missing, link)
    if new:
        database.create(path, lambda db: _fill(db, wanted, hashes))
    else:
        with database.opened(path) as db, database.transaction(db):
            database.make_tables(db)
            rows, _ = _fill(db, wanted, hashes)
    return rows


def _all_there(path: str, wanted: Accounts) -> bool:
    """The usual answer, found without a rehearsal."""
    rows: dict[str, set[tuple[str, ...]]] = {
        "name FROM domains": {(name,) for name in wanted["domains"]},
        "email FROM users": {(email,) for email in wanted["users"]},
        "src, dst FROM aliases": {(src, dst) for src, dst in wanted["aliases"]},
    }
    with database.opened(path) as db:
        try:
            return all(expected <= set(db.execute(f"SELECT {what}")) for what, expected in rows.items())
        except sqlite3.OperationalError:  # a table is missing
            return False


def _fill(db: sqlite3.Connection, wanted: Accounts, hashes: dict[str, str]) -> tuple[list[str], list[str]]:
    """Insert the wanted rows that are missing: a line for each, and remarks on those that are left out."""
    from .commands import Place, Work, objection  # costs more than all the rest, and is seldom needed

    work = Work(db, Place(wanted["database"], ""))
    rows: list[str] = []
    for name in wanted["domains"]:
        if db.execute("INSERT OR IGNORE INTO domains(name) VALUES (?)", (name,)).rowcount:
            rows.append(f"domain {name}")
    for email, hashed in hashes.items():
        insert = "INSERT OR IGNORE INTO users(email, password) VALUES (?, ?)"
        if db.execute(insert, (email, hashed)).rowcount:
            rows.append(f"user {email}")
    remarks = []
    for src, dst in sorted(wanted["aliases"], key=lambda row: row[0].startswith("@")):  # they ask for the others
        if work.has("aliases", src=src, dst=dst):
            continue
        if refused := objection(work, src, dst):
            remarks.append(f"left out the alias {src} -> {dst}: {refused.message}")
            continue
        db.execute("INSERT INTO aliases(src, dst) VALUES (?, ?)", (src, dst))
        rows.append(f"alias {src} -> {dst}")
    return rows, remarks


def _ask_hashes(missing: list[str], link: Link) -> dict[str, str]:
    if not missing:
        return {}
    hashes = link.ask("hashes", missing)
    for email in missing:
        if not passwords.is_hash(hashes.get(email, "")):
            raise AgentError(f"the laptop sent no password hash for {email}; no account was added")
    return hashes
