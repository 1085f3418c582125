"""The SQLite file of the mail accounts: made whole or not at all, changed in transactions.

journal_mode=DELETE, so that Postfix and Dovecot can read with no right to write (sqlite.org/lockingv3.html).
A journal that a crash left behind is rolled back by the next one who opens the file with write access: root.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator

from ..shared.errors import LOCKED, AgentError
from ..system.files import ids
from ..system.shell import sync_directory

OWNER, GROUP, MODE = "root", "mailauth", 0o640
BUSY = 5.0  # seconds to wait for another writer
SCHEMA = (
    "CREATE TABLE IF NOT EXISTS domains(name TEXT PRIMARY KEY)",
    "CREATE TABLE IF NOT EXISTS users(id INTEGER PRIMARY KEY, email TEXT UNIQUE, password TEXT,"
    " active INTEGER NOT NULL DEFAULT 1)",
    "CREATE TABLE IF NOT EXISTS aliases(id INTEGER PRIMARY KEY, src TEXT, dst TEXT, UNIQUE(src, dst))",
)


@contextlib.contextmanager
def opened(path: str) -> Iterator[sqlite3.Connection]:
    """The database at `path`, which opening never makes. AgentError for any failure of SQLite."""
    try:
        # The URI alone can say "do not create it" (sqlite.org/uri.html).
        escaped = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        db = sqlite3.connect(f"file:{escaped}?mode=rw", uri=True, timeout=BUSY, isolation_level=None)
        with contextlib.closing(db):
            db.execute("PRAGMA journal_mode=DELETE")
            db.execute("PRAGMA synchronous=FULL")
            # The first read rolls back a hot journal.
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            yield db
    except sqlite3.Error as error:
        raise _explain(path, error) from None


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing; the write lock is taken first, so what is read inside stays true."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def create(path: str, fill: Callable[[sqlite3.Connection], object]) -> None:
    """A new database that `fill` has filled, under its name only once it is complete.

    An empty one in between would make Postfix bounce mail for people who are about to exist.
    """
    owner = ids(OWNER, GROUP)
    building = f"{path}.new"
    for leftover in (building, f"{building}-journal"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(leftover)
    os.close(os.open(building, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    with opened(building) as db, transaction(db):
        make_tables(db)
        fill(db)
    os.chown(building, *owner)
    os.chmod(building, MODE)
    os.rename(building, path)
    sync_directory(os.path.dirname(path))


def rehearsal(path: str) -> sqlite3.Connection:
    """A copy in memory, to find out what a change would do; empty where there is no database yet."""
    copy = sqlite3.connect(":memory:", isolation_level=None)
    if os.path.exists(path):
        with opened(path) as db:
            db.backup(copy)
    make_tables(copy)
    return copy


def make_tables(db: sqlite3.Connection) -> None:
    for statement in SCHEMA:
        db.execute(statement)


def recover(path: str) -> None:
    """Roll back what a crash left half written, before daemons that may only read are started."""
    if os.path.exists(path):
        with opened(path):
            pass


def mend(path: str, dry_run: bool = False) -> list[str]:
    """The owner and mode that Postfix and Dovecot need; returns a line when they were different."""
    state = os.stat(path)
    owner = ids(OWNER, GROUP)
    if (state.st_uid, state.st_gid, stat.S_IMODE(state.st_mode)) == (*owner, MODE):
        return []
    if not dry_run:
        os.chown(path, *owner)
        os.chmod(path, MODE)
    return [f"permissions of {path}"]


def _explain(path: str, error: sqlite3.Error) -> AgentError:
    """SQLite's words never carry a bound value, so a hash cannot leak through them."""
    name = str(getattr(error, "sqlite_errorname", ""))
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        said = f"{path} has been in use by another program for {BUSY:.0f} s; nothing was changed"
        return AgentError(said, hint="try again", code=LOCKED)
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        hint = f"put a backup in its place; what can still be read, as root there: sqlite3 {path} .recover"
        return AgentError(f"{path} is damaged ({error})", hint=hint)
    if name.startswith("SQLITE_READONLY"):
        return AgentError(f"{path} cannot be written here", hint="run it as root")
    if not os.path.exists(path):
        return AgentError(f"there is no mail database at {path}", hint="fab bootstrap makes it")
    return AgentError(f"{path}: {error}")
