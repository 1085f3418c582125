"""What mailcfg can be told: its commands, and how its words are understood. Pure, but for a typed password."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field

from . import passwords
from .address import address, domain, domain_of, source
from .errors import BAD_INPUT, AgentError

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
 rmalias <src> <dst>    Remove alias to one destination
 rmalias -id <num>      Remove alias with given id
 rmalias -left          Remove aliases that left hosts.toml
 rmdom <dom>            Remove domain
 rmuser <email>         Removes user

 passwd <email> <pw>    Changes user password
 disable <email>        Marks user as inactive
 enable <email>         Marks user as active

A password that is left out is asked for. A <src> of @<dom> takes what
no mailbox and no other alias of the domain has. After --yes, in front of the
command, it is done although machines or the administrator depend on it."""

# The words that each command takes; those in brackets may be left out.
USAGE_OF = {
    "help": "",
    "addalias": "<src> <dst>",
    "adddom": "<dom>",
    "adduser": "<email> [<pw>]",
    "lsalias": "[<dom>]",
    "lsdom": "",
    "lsuser": "[<dom>]",
    "rmalias": "<src> [<dst>] | -id <num> | -left",
    "rmdom": "<dom>",
    "rmuser": "<email>",
    "passwd": "<email> [<pw>]",
    "disable": "<email>",
    "enable": "<email>",
}
# Other ways to say which aliases are to go.
ALIASES = {"-id": ["-id", "<num>"], "-left": ["-left"]}


@dataclass(frozen=True)
class Command:
    """A command line that was understood: addresses checked and in lower case, the password set apart."""

    name: str
    words: tuple[str, ...] = ()
    pw: str | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()  # what is taken otherwise than it was written


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
        takes = ALIASES.get(words[0] if words else "", ["<src>", "[<dst>]"])
    least = sum(not word.startswith("[") for word in takes)
    if not least <= len(words) <= len(takes):
        raise AgentError(f"usage: mailcfg {name} {USAGE_OF[name]}".rstrip(), hint="mailcfg help", code=BAD_INPUT)
    pw = words.pop() if takes[-1:] == ["[<pw>]"] and len(words) == 2 else None
    if pw is not None:
        passwords.check_new(pw)
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
    if kind in ALIASES:
        return kind
    if kind == "<src>" and (name == "addalias" or text.startswith("@")):  # one of before may go whatever it is
        return source(text)
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
        passwords.check_new(pw)
        return pw
    try:
        pw = getpass.getpass(f"Password for {email}: ")
        passwords.check_new(pw)
        again = getpass.getpass("The same again: ")
    except EOFError:
        raise AgentError("no password was given; nothing was changed") from None
    if pw != again:
        raise AgentError("the two passwords differ; nothing was changed")
    return pw


def depends(command: Command, needed: Iterable[tuple[str, str]], gone: Container[str] = ()) -> str:
    """What depends on what `command` takes away or changes, as a sentence; "" for nothing.

    `needed` has addresses and the machines that log in with each, "" for the administrator's; `gone` are addresses that
    nobody has any more once aliases are removed.
    """
    told = []
    for email, machines in needed:
        taken = command.name in ("rmuser", "passwd", "disable") and command.words[0] == email
        taken = taken or (command.name == "rmdom" and command.words[0] == domain_of(email)) or email in gone
        if taken and machines:
            until = (
                "until they have the new one: pw in mail_users, then a push"
                if command.name == "passwd"
                else "without it"
            )
            told.append(
                f"{email} is what {machines} log{'' if ',' in machines else 's'} in with: mail from there waits {until}"
            )
        elif taken and command.name != "passwd":
            told.append(f"{email} gets root's mail of all machines, and postmaster's and abuse's of all domains")
    return "; ".join(told)
