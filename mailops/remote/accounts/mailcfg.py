"""Mail domains, users and aliases: one `mailcfg` with two doors, the machine's shell and the laptop.

What can be typed stands in `shared.mailcfg`, what the commands do in `account_commands`.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from .. import machine
from ..shared import passwords
from ..shared.errors import BAD_INPUT, FAILED, INTERRUPTED, LOCKED, AgentError
from ..shared.mailcfg import HELP, Command, depends, parse, read_password
from ..shared.tables import table
from . import crypt, database, listed, past, senders, sessions
from .commands import HANDLERS, NeedsPassword, Place, Work, exists

if TYPE_CHECKING:
    from ..shared.calls import Link, Mailcfg, MailcfgArgs
    from ..shared.forms import Author


def main(argv: list[str]) -> int:
    """The machine's /usr/bin/mailcfg. Returns 0 done or already so, 1 refused, 2 usage, 5 locked."""
    sure = argv[:1] == ["--yes"]
    try:
        command = parse(argv[sure:])
        if command.pw is not None:
            _take_out_of_sight(command.pw.encode())
        if command.name == "help":
            print(HELP)
            return 0
        if os.geteuid() != 0:
            raise AgentError("the mail accounts can be read and changed by root only", hint="use sudo")
        done = _typed(command, sure)
    except AgentError as error:
        print(f"mailcfg: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("\nmailcfg: interrupted; nothing was changed", file=sys.stderr)
        return INTERRUPTED
    for line in [*command.notes, *table(done.rows or []), *done.lines]:
        print(line)
    return 0


def _typed(command: Command, sure: bool) -> Work:
    """Do what somebody has typed, and ask them where something depends on it."""
    given = None if command.pw is None else crypt.hash_password(command.pw)
    try:
        by = past.typist()
        return perform(command, _here(sure), by, lambda email: crypt.hash_password(read_password(email)), given)
    except Depends as why:
        if not sys.stdin.isatty():
            raise AgentError(f"{why}; nothing was changed", f"mailcfg --yes {command.name} … does it") from None
        print(f"{why}.\nDo it all the same? [y/N] ", end="", flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise AgentError("nothing was changed") from None
    return _typed(command, True)


def _take_out_of_sight(word: bytes) -> None:
    """Wipe `word` where it is the last one of this process's command line, which ps(1) shows to everybody.

    It comes with a pipe from /usr/bin/mailcfg; this is for who calls the agent by itself.
    """
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()  # from the third on (proc_pid_stat(5))
    start, end = int(fields[45]), int(fields[46])
    if ctypes.string_at(start, end - start).endswith(b"\0" + word + b"\0"):
        ctypes.memset(end - 1 - len(word), 0, len(word))
        print("mailcfg: warning: ps showed this password; leave it out, and you are asked for it", file=sys.stderr)


def call(args: MailcfgArgs, link: Link) -> Mailcfg:
    """The laptop's door: `args` = {"argv": [...], "who"}; a password never comes in.

    Returns {"code", "lines", "rows" (None or a list of dicts), "error", "hint"}; a refusal (code 1 or 2)
    is an answer, too. A hash that is needed is asked for as "hash", once all else about the command is right.
    AgentError when the accounts cannot be reached at all: locked, not set up, damaged.
    """
    place = _here(sure=args["sure"])
    answer: Mailcfg = {"code": 0, "lines": [], "rows": None, "error": "", "hint": ""}
    try:
        command = parse(args["argv"])
        if command.pw is not None:
            raise AgentError("a password came where its hash should be", code=BAD_INPUT)
        if command.name == "help":
            return answer | {"lines": HELP.splitlines()}
        by: Author = {"who": args["who"], "from": link.origin}
        done = perform(command, place, by, lambda email: link.ask("hash", email))
    except Depends as why:
        return answer | {"code": FAILED, "error": f"{why}; nothing was changed", "hint": "--yes does it all the same"}
    except AgentError as error:
        if error.code not in (FAILED, BAD_INPUT):
            raise
        return answer | {"code": error.code, "error": error.message, "hint": error.hint}
    removed = [list(row) for kind, row in done.went if kind == "aliases"]
    return answer | {"lines": [*command.notes, *done.lines], "rows": done.rows, "removed": removed}


class Depends(Exception):
    """Machines or the administrator depend on what would be done, and nobody has said that it is to be all the same."""


def perform(command: Command, place: Place, by: Author, ask: Callable[[str], str], hashed: str | None = None) -> Work:
    """`execute`, and a line of it in the history: by whom, what was changed, or why nothing was."""
    try:
        work = execute(command, place, ask, hashed)
    except AgentError as error:
        if not command.name.startswith("ls"):
            past.note(place.database, command.name, by, [], error.message)
        raise
    if work.changes:
        past.note(place.database, command.name, by, work.changes)
    return work


def execute(command: Command, place: Place, ask: Callable[[str], str], hashed: str | None = None) -> Work:
    """Carry out `command` in one transaction; `ask(email)` gives a hash, and is called outside of it."""
    if why := depends(command, place.needed):
        raise Depends(why)
    if hashed is not None and not passwords.is_hash(hashed):
        raise AgentError("what came in place of a password hash is not one; nothing was changed")
    try:
        with database.opened(place.database) as db, database.transaction(db):
            work = Work(db, place, hashed)
            HANDLERS[command.name](work, *command.words)
            gone = {src for kind, (src, *_) in work.went if kind == "aliases" and not exists(work, src)}
            if why := depends(command, place.needed, gone):
                raise Depends(why)
            senders.keep(db, place.database)
            _keep_listed(work)
    except NeedsPassword:
        return execute(command, place, ask, ask(command.words[0]))
    if command.name in ("adduser", "rmuser", "passwd", "disable", "enable"):
        sessions.forget_login(command.words[0])
    if command.name in ("rmuser", "passwd", "disable"):
        work.lines += sessions.end(command.words[0]) + sessions.redirects(work.home(command.words[0]))
    return work


def _keep_listed(work: Work) -> None:
    """What is removed by hand stays away, and what is added by hand stays, whatever hosts.toml lists."""
    known = listed.load(work.place.database)
    for kind, row in work.came:
        if known.came(kind, row):
            work.lines.append("it stays, although it left hosts.toml")
    for kind, row in work.went:
        known.went(kind, row)
    if work.came or work.went:
        listed.save(work.place.database, known)


def _here(sure: bool = False) -> Place:
    """This machine's accounts, on which nothing depends for who is `sure`. AgentError (5) while the vault is locked."""
    applied = machine.manifest()
    path = machine.database(applied)
    if not machine.vault_is_open(applied):
        raise AgentError(
            "the vault, with the accounts, is locked", "fab unlock, or on the server's console: mailboot", LOCKED
        )
    known = listed.load(path)
    domains, users = ({name for (name,) in known.now[kind]} for kind in ("domains", "users"))
    homes = [user["home"] for user in applied["users"] if user["name"] == "vmail"]
    mail = homes[0] if homes else os.path.dirname(os.path.dirname(path)) + "/mail"
    needed = () if sure else known.needed
    aliases, left = frozenset(known.now["aliases"]), frozenset(known.left["aliases"])
    return Place(path, mail, frozenset(domains), frozenset(users), aliases, needed, left)
