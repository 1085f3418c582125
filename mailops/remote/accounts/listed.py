"""What hosts.toml lists, beside what is in the accounts.

Kept in the vault, for mailcfg to know: the manifest outside names nobody. Beside the rows that hosts.toml had at the
last bootstrap stand those that it has had, lost, and that are still in the accounts (`left`), and those that
mailcfg took out of the accounts (`gone`): a bootstrap does not bring back those of them that hosts.toml lists.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..system.files import read, read_json
from ..system.shell import write_atomic

if TYPE_CHECKING:
    from ..shared.forms import Accounts
    from ..shared.forms import Listed as Stored
    from ..shared.forms import Rows as StoredRows

KINDS = ("domains", "users", "aliases")
Row = tuple[str, ...]  # a domain, a user's address; of an alias both of its addresses
Rows = dict[str, set[Row]]


def rows_of(found: Accounts | StoredRows) -> Rows:
    return {
        "domains": {(name,) for name in found.get("domains", [])},
        "users": {(email,) for email in found.get("users", [])},
        "aliases": {(src, dst) for src, dst in found.get("aliases", [])},
    }


@dataclass
class Listed:
    """The three sets of rows."""

    now: Rows
    left: Rows
    gone: Rows
    needed: tuple[tuple[str, str], ...] = ()  # what machines and the administrator depend on (Accounts)

    def follow(self, wanted: Rows, there: Rows, needed: Iterable[tuple[str, str]] = ()) -> Listed:
        """The same once hosts.toml lists `wanted`, with what `there` is in the accounts."""
        left = {kind: ((self.now[kind] | self.left[kind]) - wanted[kind]) & there[kind] for kind in KINDS}
        gone = {kind: (self.gone[kind] & wanted[kind]) - there[kind] for kind in KINDS}
        return Listed(wanted, left, gone, tuple((email, machines) for email, machines in needed))

    def came(self, kind: str, row: Row) -> bool:
        """Somebody adds it by hand, or says that it is to stay; whether it had left hosts.toml."""
        news = row in self.left[kind]
        self.left[kind].discard(row)
        self.gone[kind].discard(row)
        return news

    def went(self, kind: str, row: Row) -> None:
        self.left[kind].discard(row)
        self.gone[kind].add(
            row
        )  # hosts.toml may list it since the last bootstrap; the next one forgets what it does not

    def content(self) -> bytes:
        stored = _stored(self.now)
        more = {"left": _stored(self.left), "gone": _stored(self.gone), "needed": self.needed}
        return json.dumps({**stored, **more}).encode()


def load(database: str) -> Listed:
    """As the last bootstrap, and mailcfg since, have left it."""
    nothing: Stored = {"domains": [], "users": [], "aliases": []}
    found = read_json(path_of(database), "fab bootstrap", nothing)
    left, gone = (rows_of(found.get("left", nothing)), rows_of(found.get("gone", nothing)))
    return Listed(rows_of(found), left, gone, tuple((email, names) for email, names in found.get("needed", [])))


def save(database: str, listed: Listed) -> None:
    """Nothing is written where it says so already."""
    path, content = path_of(database), listed.content()
    if read(path) != content:
        write_atomic(path, content, 0o600)


def path_of(database: str) -> str:
    return f"{os.path.dirname(database)}/listed.json"


def there(db: sqlite3.Connection) -> Rows:
    """What is in the accounts."""
    queries = {"domains": "name FROM domains", "users": "email FROM users", "aliases": "src, dst FROM aliases"}
    return {kind: set(db.execute(f"SELECT {query}")) for kind, query in queries.items()}


def _stored(rows: Rows) -> StoredRows:
    aliases = [(src, dst) for src, dst in sorted(rows["aliases"])]
    return {"domains": _names(rows["domains"]), "users": _names(rows["users"]), "aliases": aliases}


def _names(rows: set[Row]) -> list[str]:
    return [name for (name,) in sorted(rows)]
