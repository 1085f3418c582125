"""Who may write as whom, for Rspamd: the domains, mailboxes and aliases without the passwords that stand beside them.

Written in the transaction that changes the accounts, before its COMMIT. `lua.local.d/` has who reads it. While
there is none, Rspamd lets a From header pass only that is the envelope's sender, which Postfix has looked up.
"""

from __future__ import annotations

import os
import sqlite3

from ..shared import idn
from ..system.access import READ, obstacle
from ..system.files import ids, read
from ..system.shell import write_atomic
from . import database

OWNER, GROUP, MODE = "root", "_rspamd", 0o640


def path_of(accounts: str) -> str:
    """Where the table lies that belongs to the database `accounts`; its folder is made by bootstrap."""
    return f"{os.path.dirname(os.path.dirname(accounts))}/senders/table"


def keep(db: sqlite3.Connection, accounts: str) -> None:
    """Write the table when it does not say what `db` does. A machine that has no place for it yet gets none."""
    path = path_of(accounts)
    if fault(db, accounts):
        write_atomic(path, table(db), MODE, *ids(OWNER, GROUP))


def fault(db: sqlite3.Connection, accounts: str) -> str:
    """What keeps Rspamd from knowing who may write as whom, and what to do; "" for nothing."""
    path = path_of(accounts)
    if not os.path.isdir(os.path.dirname(path)):  # a machine from before: it goes by the envelope
        return ""
    why = obstacle(GROUP, path, READ) or (
        "" if read(path) == table(db) else f"{path} does not say what the accounts do"
    )
    return f"{why}, and mail of users is refused by its From header; next: fab -H NAME bootstrap" if why else ""


def ensure(accounts: str) -> None:
    """The same outside of a transaction: after a crash between the two, and on a machine that had no table."""
    if os.path.isdir(os.path.dirname(path_of(accounts))) and os.path.exists(accounts):
        with database.opened(accounts) as db, database.transaction(db):
            keep(db, accounts)


def table(db: sqlite3.Connection) -> bytes:
    """A line for each domain, mailbox and alias; no address of ours has a tab in it.

    A domain that people read in other letters than mail has stands there in both, with its marks in and beside them.
    """
    domains = db.execute("SELECT name FROM domains ORDER BY name")
    users = [f"user\t{email}\n" for (email,) in db.execute("SELECT email FROM users ORDER BY email")]
    rows = db.execute("SELECT src, dst FROM aliases ORDER BY src, dst")
    own = ["\t".join(dict.fromkeys(("domain", name, *idn.to_unicode(name)))) + "\n" for (name,) in domains]
    return "".join([*own, *users, *(f"alias\t{src}\t{dst}\n" for src, dst in rows)]).encode()
