"""The mail accounts that hosts.toml wants: which are missing in the database, and adding them."""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING

from ..shared import passwords
from ..shared.errors import LOCKED, AgentError
from . import agree, database, listed, senders

if TYPE_CHECKING:
    from ..shared.calls import Link
    from ..shared.forms import Accounts


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
    known = listed.load(path)
    whole, wanted = wanted, _without(wanted, known.gone)
    changes = [f"database {path}"] if new else database.mend(path, dry_run)
    if new or not _all_there(path, wanted):
        changes += _add_missing(path, wanted, link, dry_run, new)
    table = senders.path_of(path)
    if not new and os.path.isdir(os.path.dirname(table)) and not os.path.exists(table):
        changes.append(f"table {table}")
    if changes and not dry_run:
        senders.ensure(path)
    return changes + _keep_listed(path, known, whole, link, dry_run, told=bool(changes))


def _without(wanted: Accounts, gone: listed.Rows) -> Accounts:
    """What somebody has removed here since hosts.toml listed it does not come back: a leaver has no first password."""
    return {
        "database": wanted["database"],
        "domains": [name for name in wanted["domains"] if (name,) not in gone["domains"]],
        "users": [email for email in wanted["users"] if (email,) not in gone["users"]],
        "aliases": [(src, dst) for src, dst in wanted["aliases"] if (src, dst) not in gone["aliases"]],
    }


def _keep_listed(  # noqa: PLR0913, PLR0917 - all that is known of them
    path: str, known: listed.Listed, wanted: Accounts, link: Link, dry_run: bool, told: bool
) -> list[str]:
    """Tell where hosts.toml and the accounts differ, and keep it. A line only where nothing else tells that hosts.toml
    has other accounts now."""
    rows, needed = listed.rows_of(wanted), wanted.get("needed", [])
    if os.path.exists(path):
        with database.opened(path) as db:
            now = known.follow(rows, listed.there(db), needed)
            lines = [*agree.told(now), *([] if dry_run and told else agree.to_nobody(db))]
    else:
        now, lines = known.follow(rows, rows, needed), []
    for line in agree.few(lines):
        link.say(line)
    if now.content() == known.content():
        return []
    if not dry_run:
        listed.save(path, now)
    return [] if told or now.now == known.now else ["note which accounts hosts.toml lists"]


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
