"""The commands of mailcfg, one function each, working inside a transaction that `accounts.execute` holds."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field

from ..shared.address import can_log_in, domain_of, without_detail
from ..shared.errors import AgentError

Row = tuple[str, tuple[str, ...]]  # its kind, and what `listed` has of it


@dataclass(frozen=True)
class Place:
    """Where this machine keeps its accounts, and what hosts.toml wants among them."""

    database: str
    mail: str  # the folder that holds <domain>/<user>/Maildir
    domains: frozenset[str] = frozenset()
    users: frozenset[str] = frozenset()
    aliases: frozenset[tuple[str, ...]] = frozenset()
    needed: tuple[tuple[str, str], ...] = ()  # what machines and the administrator depend on
    left: frozenset[tuple[str, ...]] = frozenset()  # aliases that it had, and that are still here


@dataclass
class Work:
    """One command at work inside a transaction. A `hashed` that is needed but absent raises NeedsPassword."""

    db: sqlite3.Connection
    place: Place
    hashed: str | None = None
    lines: list[str] = field(default_factory=list)
    rows: list[dict[str, str | int]] | None = None
    changes: list[str] = field(default_factory=list)  # those of the lines that say what was changed
    came: list[Row] = field(default_factory=list)  # that somebody wants here, there already or not
    went: list[Row] = field(default_factory=list)  # that were removed

    def did(self, what: str) -> None:
        self.lines.append(what)
        self.changes.append(what)

    def has(self, table: str, **columns: str) -> bool:
        where = " AND ".join(f"{column} = ?" for column in columns)
        found = self.db.execute(f"SELECT 1 FROM {table} WHERE {where}", (*columns.values(),))  # noqa: S608
        return found.fetchone() is not None

    def column(self, query: str, *values: str) -> list[str]:
        return [row[0] for row in self.db.execute(query, values)]

    def count(self, table: str, column: str, name: str) -> int:
        """How many rows have an address of this domain in `column`."""
        found = self.db.execute(f"SELECT count(*) FROM {table} WHERE {column} LIKE ?", (_like(name),))  # noqa: S608
        return int(found.fetchone()[0])

    def home(self, email: str) -> str:
        local, _, name = email.rpartition("@")
        return f"{self.place.mail}/{name}/{local}"

    def need_hash(self) -> str:
        if self.hashed is None:
            raise NeedsPassword
        return self.hashed


class NeedsPassword(Exception):
    """Everything else about the command is right; now it is worth asking for the password."""


def _adddom(work: Work, name: str) -> None:
    work.came.append(("domains", (name,)))
    if work.has("domains", name=name):
        return work.lines.append(f"{name} is there already")
    work.db.execute("INSERT INTO domains(name) VALUES (?)", (name,))
    work.did(f"added {name}")
    if has := _contents(work, name):
        work.lines.append(f"in use again, of an earlier time: {has}")
    if name not in work.place.domains:
        work.lines.append("note: hosts.toml does not list it, so it has no DKIM key and no system aliases")


def _rmdom(work: Work, name: str) -> None:
    if not work.has("domains", name=name):
        raise AgentError(f"{name} is not a domain of this machine", hint="mailcfg lsdom")
    work.db.execute("DELETE FROM domains WHERE name = ?", (name,))
    work.went.append(("domains", (name,)))
    work.did(f"removed {name}; mail for it is refused from now on")
    if has := _contents(work, name):
        work.lines.append(f"dormant until it is added again: {has}")
    _mention_hosts_toml(work, name in work.place.domains)


def _lsdom(work: Work) -> None:
    work.rows = []
    for name in work.column("SELECT name FROM domains ORDER BY name"):
        users, aliases = work.count("users", "email", name), work.count("aliases", "src", name)
        work.rows.append({"domain": name, "users": users, "aliases": aliases})
    if not work.rows:
        work.lines.append("no domains")


def _adduser(work: Work, email: str) -> None:
    if without_detail(email) != email:
        hint = f"add {without_detail(email)}; what is sent to {email} is delivered there"
        raise AgentError(f"{email} has a +detail, which no mailbox has", hint=hint)
    if not can_log_in(email):
        hint = "use letters, digits, '.', '_' and '-' before the @"
        raise AgentError(f"{email} could not log in: Dovecot does not allow such a name", hint=hint)
    work.came.append(("users", (email,)))
    if work.has("users", email=email):
        return work.lines.append(f"{email} is there already; its password stays as it is")
    _need_domain(work, email)
    work.db.execute("INSERT INTO users(email, password) VALUES (?, ?)", (email, work.need_hash()))
    work.did(f"added {email}")
    if os.path.isdir(folder := work.home(email)):
        work.lines.append(f"note: the mail in {folder}, of an earlier time, is in the mailbox again")
    goes_to = work.column("SELECT dst FROM aliases WHERE src = ? ORDER BY dst", email)
    if goes_to and email not in goes_to:
        work.lines.append(f"note: an alias sends the mail for {email} to {', '.join(goes_to)} instead")


def _rmuser(work: Work, email: str) -> None:
    _need_user(work, email)
    work.db.execute("DELETE FROM users WHERE email = ?", (email,))
    work.went.append(("users", (email,)))
    work.did(f"removed {email}")
    if os.path.isdir(folder := work.home(email)):
        work.lines.append(f"its mail stays in {folder}")
    caught = _mention_catch_all(work, email)
    for number, src in work.db.execute("SELECT id, src FROM aliases WHERE dst = ? ORDER BY id", (email,)):
        ends = "comes there, too" if caught else "will bounce"
        work.lines.append(f"note: the alias {src} (id {number}) still points there, and its mail {ends}")
    _mention_hosts_toml(work, email in work.place.users)


def _passwd(work: Work, email: str) -> None:
    _need_user(work, email)
    work.db.execute("UPDATE users SET password = ? WHERE email = ?", (work.need_hash(), email))
    work.did(f"changed the password of {email}")


def _disable(work: Work, email: str) -> None:
    if _set_active(work, email, 0, "disabled"):
        work.lines.append("they cannot log in; mail for them is still delivered")


def _enable(work: Work, email: str) -> None:
    _set_active(work, email, 1, "enabled")


def _set_active(work: Work, email: str, active: int, state: str) -> bool:
    """Whether that changed anything."""
    _need_user(work, email)
    query = "UPDATE users SET active = ? WHERE email = ? AND active <> ?"
    changed = work.db.execute(query, (active, email, active)).rowcount > 0
    if changed:
        work.did(f"{state} {email}")
    else:
        work.lines.append(f"{email} is {state} already")
    return changed


def _lsuser(work: Work, name: str = "") -> None:
    query = """SELECT email, active, (SELECT count(*) FROM aliases WHERE dst = email) FROM users
        WHERE email LIKE ? ORDER BY substr(email, instr(email, '@')), email"""
    domains = set(work.column("SELECT name FROM domains"))
    work.rows = []
    for email, active, aliases in work.db.execute(query, (_like(name),)):
        state = "disabled" if not active else "active" if domain_of(email) in domains else "dormant"
        work.rows.append({"email": email, "state": state, "aliases": aliases})
    _explain_nothing(work, name, "users")


def _addalias(work: Work, src: str, dst: str) -> None:
    work.came.append(("aliases", (src, dst)))
    if work.has("aliases", src=src, dst=dst):
        return work.lines.append(f"{src} -> {dst} is there already")
    _need_domain(work, src)
    if refused := objection(work, src, dst):
        raise refused
    work.db.execute("INSERT INTO aliases(src, dst) VALUES (?, ?)", (src, dst))
    work.did(f"added {src} -> {dst}")
    if src.startswith("@"):
        work.lines.append("it takes what no mailbox and no other alias there has; who is disabled keeps their mail")
    if work.has("domains", name=domain_of(dst)) and not exists(work, dst) and not _alias_of(work, dst):
        work.lines.append(f"note: {dst} does not exist here, and what goes there will bounce")


def _rmalias(work: Work, src: str, which: str = "") -> None:
    """All of an address, one by its number after "-id", the one to `which`; all that left hosts.toml after "-left"."""
    if src == "-left":
        if not work.place.left:
            raise AgentError("no alias has left hosts.toml", hint="mailcfg lsalias")
        for row in sorted(work.place.left):
            _rmalias(work, *row)
        return
    if src == "-id":
        where, values, what = "id = ?", [which], f"there is no alias with id {which}"
    elif which:
        where, values, what = "src = ? AND dst = ?", [src, which], f"{src} -> {which} is not an alias"
    else:
        where, values, what = "src = ?", [src], f"{src} is not an alias"
    gone = work.db.execute(f"SELECT src, dst FROM aliases WHERE {where} ORDER BY id", values).fetchall()  # noqa: S608
    if not gone:
        raise AgentError(what, hint="mailcfg lsalias")
    work.db.execute(f"DELETE FROM aliases WHERE {where}", values)  # noqa: S608
    work.went += [("aliases", row) for row in gone]
    for row in gone:
        work.did(f"removed {' -> '.join(row)}")
    if len(gone) > 1:
        work.lines.append(f"that were all {len(gone)} of them; `mailcfg rmalias -id <num>` removes one")
    src = gone[0][0]
    if work.has("users", email=src) and gone == [(src, src)] and work.has("aliases", src=src):
        work.lines.append(f"note: {src} keeps no copy any more; its mail goes to its other aliases alone")
    _mention_catch_all(work, src)
    _mention_hosts_toml(work, any(row in work.place.aliases for row in gone))


def _lsalias(work: Work, name: str = "") -> None:
    query = """SELECT id, src, dst FROM aliases WHERE src LIKE ?
        ORDER BY substr(src, instr(src, '@')), src, dst"""
    found = work.db.execute(query, (_like(name),))
    work.rows = [{"id": number, "src": src, "dst": dst} for number, src, dst in found]
    _explain_nothing(work, name, "aliases")


def objection(work: Work, src: str, dst: str) -> AgentError | None:
    """Why `src` must not become an alias of `dst`: Postfix asks aliases first, mailboxes after."""
    is_mailbox = work.has("users", email=src)
    if src == dst:
        if is_mailbox:
            return None  # beside other destinations: the mailbox keeps a copy
        return AgentError(f"{src} would be an alias of itself, and there is no such mailbox")
    if src == f"@{domain_of(dst)}" and not exists(work, dst):
        return AgentError(f"{dst} does not exist here: {src} would lead to itself", hint=f"mailcfg adduser {dst}")
    if _reaches(work, dst, src):
        return AgentError(f"{src} -> {dst} would make a loop: mail for {dst} comes back to {src} already")
    if is_mailbox and not work.has("aliases", src=src, dst=src):
        hint = f"to keep a copy in the mailbox, first: mailcfg addalias {src} {src}"
        return AgentError(f"{src} is a mailbox, and the alias would take all its mail away", hint=hint)
    return None


def _reaches(work: Work, start: str, goal: str) -> bool:
    """Whether the aliases lead from `start` to `goal`."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        here = waiting.pop()
        if goal in (here, without_detail(here)):
            return True
        if here not in seen:
            seen.add(here)
            key = _alias_of(work, here)
            if key == goal or (goal == f"@{domain_of(here)}" and not exists(work, here)):
                return True
            waiting += work.column("SELECT dst FROM aliases WHERE src = ?", key)
    return False


def _alias_of(work: Work, email: str) -> str:
    """The alias that mail for an address goes by, as Postfix asks: with the +detail, without it, for the whole domain;
    "" for a mailbox or nobody."""
    for name in (email, without_detail(email)):
        if work.has("aliases", src=name):
            return name
        if work.has("users", email=name):
            return ""
    whole = f"@{domain_of(email)}"
    return whole if work.has("aliases", src=whole) else ""


def exists(work: Work, email: str) -> bool:
    """As a mailbox, or an alias of its own."""
    names = (email, without_detail(email))
    return any(work.has("users", email=name) or work.has("aliases", src=name) for name in names)


def _mention_catch_all(work: Work, email: str) -> bool:
    """Whether an alias for the whole domain takes what is for `email` now, which is nobody's any more."""
    whole = f"@{domain_of(email)}"
    if exists(work, email) or _alias_of(work, email) != whole or email == whole:
        return False
    others = [dst for dst in work.column("SELECT dst FROM aliases WHERE src = ? ORDER BY dst", whole) if dst != email]
    if others:
        work.lines.append(f"note: what comes for {email} goes to {', '.join(others)} from now on (alias {whole})")
    return bool(others)


def _need_domain(work: Work, email: str) -> None:
    if not work.has("domains", name=domain_of(email)):
        hint = f"mailcfg adddom {domain_of(email)}"
        raise AgentError(f"{domain_of(email)} is not a domain of this machine", hint=hint)


def _need_user(work: Work, email: str) -> None:
    if not work.has("users", email=email):
        raise AgentError(f"there is no user {email}", hint="mailcfg lsuser")


def _explain_nothing(work: Work, name: str, what: str) -> None:
    if work.rows:
        return
    if name and not work.has("domains", name=name):
        raise AgentError(f"{name} is not a domain of this machine", hint="mailcfg lsdom")
    work.lines.append(f"no {what}")


def _mention_hosts_toml(work: Work, listed: bool) -> None:
    if listed:
        work.lines.append("note: hosts.toml still lists it; it stays away until somebody adds it by hand")


def _contents(work: Work, name: str) -> str:
    """The numbers of users and aliases of a domain in words; "" when it has none."""
    users, aliases = work.count("users", "email", name), work.count("aliases", "src", name)
    words = [f"{users} user{'s' * (users > 1)}"] * (users > 0)
    return ", ".join(words + [f"{aliases} alias{'es' * (aliases > 1)}"] * (aliases > 0))


def _like(name: str) -> str:
    """A LIKE pattern for the addresses of a domain, or of all; no domain name has a wildcard in it."""
    return f"%@{name}" if name else "%"


HANDLERS: dict[str, Callable[..., None]] = {  # type: ignore[explicit-any]  # each takes its own words
    "addalias": _addalias,
    "adddom": _adddom,
    "adduser": _adduser,
    "lsalias": _lsalias,
    "lsdom": _lsdom,
    "lsuser": _lsuser,
    "rmalias": _rmalias,
    "rmdom": _rmdom,
    "rmuser": _rmuser,
    "passwd": _passwd,
    "disable": _disable,
    "enable": _enable,
}
