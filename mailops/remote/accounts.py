"""Mail domains, users and aliases: one `mailcfg` with two doors, the machine's shell and the laptop.

What the commands do stands in `account_commands`.
"""

from __future__ import annotations

import ctypes
import getpass
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import account_rows, crypt, database, machine, senders, sessions
from .account_commands import HANDLERS, NeedsPassword, Place, Work
from .address import address, domain
from .errors import BAD_INPUT, FAILED, LOCKED, AgentError

INTERRUPTED = 130

HELP = """\
mailcfg <command>

 help                   Print this message

 addalias <src> <dst>   Adds alias if missing
 adddom <dom>           Add domain if missing
 adduser <email> <pw>   Adds user if missing

 lsalias [<dom>]        List aliases, all or for a domain
 lsdom                  List known domain
 lsuser [<dom>]         List users, all or for a domain

 rmalias <src>          Remove alias
 rmalias -id <num>      Remove alias with given id
 rmdom <dom>            Remove domain
 rmuser <email>         Removes user

 passwd <email> <pw>    Changes user password
 disable <email>        Marks user as inactive
 enable <email>         Marks user as active

A password that is left out is asked for."""

# The words that each command takes; those in brackets may be left out.
USAGE_OF = {
    "help": "",
    "addalias": "<src> <dst>",
    "adddom": "<dom>",
    "adduser": "<email> [<pw>]",
    "lsalias": "[<dom>]",
    "lsdom": "",
    "lsuser": "[<dom>]",
    "rmalias": "<src> | -id <num>",
    "rmdom": "<dom>",
    "rmuser": "<email>",
    "passwd": "<email> [<pw>]",
    "disable": "<email>",
    "enable": "<email>",
}


@dataclass(frozen=True)
class Command:
    """A command line that was understood: addresses checked and in lower case, the password set apart."""

    name: str
    words: tuple[str, ...] = ()
    pw: str | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()  # what is taken otherwise than it was written


def main(argv: list[str]) -> int:
    """The machine's /usr/bin/mailcfg. Returns 0 done or already so, 1 refused, 2 usage, 5 locked."""
    try:
        command = parse(argv)
        if command.pw is not None:
            _take_out_of_sight(command.pw.encode())
        if command.name == "help":
            print(HELP)
            return 0
        if os.geteuid() != 0:
            raise AgentError("the mail accounts can be read and changed by root only", hint="use sudo")
        given = None if command.pw is None else crypt.hash_password(command.pw)
        done = execute(command, _here(), lambda email: crypt.hash_password(read_password(email)), given)
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


def call(args: dict[str, Any], link: Any) -> dict[str, Any]:
    """The laptop's door: `args` = {"argv": [...]}; a password never comes in.

    Returns {"code", "lines", "rows" (None or a list of dicts), "error", "hint"}; a refusal (code 1 or 2)
    is an answer, too. A hash that is needed is asked for as "hash", once all else about the command is right.
    AgentError when the accounts cannot be reached at all: locked, not set up, damaged.
    """
    place = _here()
    answer: dict[str, Any] = {"code": 0, "lines": [], "rows": None, "error": "", "hint": ""}
    try:
        command = parse(args["argv"])
        if command.pw is not None:
            raise AgentError("a password came where its hash should be", code=BAD_INPUT)
        if command.name == "help":
            return answer | {"lines": HELP.splitlines()}
        done = execute(command, place, lambda email: str(link.ask("hash", email)))
    except AgentError as error:
        if error.code not in (FAILED, BAD_INPUT):
            raise
        return answer | {"code": error.code, "error": error.message, "hint": error.hint}
    return answer | {"lines": [*command.notes, *done.lines], "rows": done.rows}


# --- understanding a command line ------------------------------------------------------------------------


def parse(argv: Sequence[str]) -> Command:
    """What `argv` asks for; AgentError (2), which never repeats a password, when it is no command of ours.

    Pure: the laptop calls it before it connects.
    """
    name, *words = argv or ["help"]
    if name in ("-h", "--help"):
        name = "help"
    if name not in USAGE_OF:
        raise AgentError(f"mailcfg has no command {name!r}", hint="mailcfg help", code=BAD_INPUT)
    takes = USAGE_OF[name].split()
    if name == "rmalias":
        takes = ["-id", "<num>"] if words[:1] == ["-id"] else ["<src>"]
    least = sum(not word.startswith("[") for word in takes)
    if not least <= len(words) <= len(takes):
        raise AgentError(f"usage: mailcfg {name} {USAGE_OF[name]}".rstrip(), hint="mailcfg help", code=BAD_INPUT)
    pw = words.pop() if takes[-1:] == ["[<pw>]"] and len(words) == 2 else None
    if pw is not None:
        crypt.check(pw)
    taken = tuple(_word(name, *pair) for pair in zip(takes, words, strict=False))
    notes = tuple(f"{text} is {word} in mail" for text, word in zip(words, taken, strict=True) if not text.isascii())
    return Command(name, taken, pw, notes)


def _word(name: str, kind: str, text: str) -> str:
    if kind in ("<dom>", "[<dom>]"):
        return domain(text)
    if kind == "<num>":
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise AgentError(f"{text!r} is not the number of an alias", hint="mailcfg lsalias", code=BAD_INPUT)
        return text
    if kind == "-id":
        return kind
    try:
        return address(text)
    except AgentError as error:
        if name not in ("adduser", "passwd"):
            raise
        # The two words may have been swapped, and then this one is the password.
        raise AgentError(f"the first word after {name} is not an address", error.hint, BAD_INPUT) from None


def read_password(email: str) -> str:
    """A password typed twice without echo or, when stdin is no terminal, the first line of stdin."""
    if not sys.stdin.isatty():
        try:
            pw = sys.stdin.readline().rstrip("\r\n")
        except UnicodeDecodeError:
            raise AgentError("the password is not valid UTF-8", code=BAD_INPUT) from None
        crypt.check(pw)
        return pw
    try:
        pw = getpass.getpass(f"Password for {email}: ")
        crypt.check(pw)
        again = getpass.getpass("The same again: ")
    except EOFError:
        raise AgentError("no password was given; nothing was changed") from None
    if pw != again:
        raise AgentError("the two passwords differ; nothing was changed")
    return pw


# --- doing it --------------------------------------------------------------------------------------------


def execute(command: Command, place: Place, ask: Callable[[str], str], hashed: str | None = None) -> Work:
    """Carry out `command` in one transaction; `ask(email)` gives a hash, and is called outside of it."""
    if hashed is not None and not crypt.is_hash(hashed):
        raise AgentError("what came in place of a password hash is not one; nothing was changed")
    try:
        with database.opened(place.database) as db, database.transaction(db):
            work = Work(db, place, hashed)
            HANDLERS[command.name](work, *command.words)
            senders.keep(db, place.database)
    except NeedsPassword:
        return execute(command, place, ask, ask(command.words[0]))
    if command.name in ("adduser", "rmuser", "passwd", "disable", "enable"):
        sessions.forget_login(command.words[0])
    if command.name in ("rmuser", "passwd", "disable"):
        work.lines += sessions.end(command.words[0]) + sessions.redirects(work.home(command.words[0]))
    return work


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Rows under their headings, a line each; numbers to the right. No rows, no lines."""
    if not rows:
        return []
    cells = [[key.upper() for key in rows[0]], *([str(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    right = [isinstance(value, int) for value in rows[0].values()]
    if not all(right[-1:]):
        widths[-1] = 0  # nothing stands beside the last
    return [
        "  ".join(
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in cells
    ]


def _here() -> Place:
    """This machine's accounts. AgentError (5) while the vault is locked."""
    applied = machine.manifest()
    wanted = applied.get("accounts")
    if not wanted:
        raise AgentError(f"this machine has no mail accounts: its role is {applied.get('role')}")
    if not machine.vault_is_open(applied):
        raise AgentError(
            "the vault, with the accounts, is locked", "fab unlock, or on the server's console: mailboot", LOCKED
        )
    homes = [user["home"] for user in applied.get("users", []) if user["name"] == "vmail"]
    mail = homes[0] if homes else os.path.dirname(os.path.dirname(wanted["database"])) + "/mail"
    listed = {key: frozenset(rows) for key, rows in account_rows.listed(wanted["database"]).items()}
    return Place(wanted["database"], mail, **listed)
