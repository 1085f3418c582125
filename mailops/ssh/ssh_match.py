"""`Host` and `Match` of ssh_config(5): whether the lines below them are for this host; what %h and the like stand for.

A criterion that we do not know (where the laptop is, a tag of the command line, …) may be true or not. So the lines
below such a Match are left out, and a person is told which, once, if nothing else of it has already said no.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
import subprocess
import sys
from typing import Protocol

from mailops import printable

PATIENCE = 30  # seconds for a program of `Match exec`
ALONE = ("all", "canonical", "final")  # criteria without a value
_named: set[str] = set()  # the places that a person has been told of


class Search(Protocol):
    """What is known so far of the host that is looked for."""

    name: str
    host: str
    final: bool

    @property
    def user(self) -> str: ...
    @property
    def hostname(self) -> str: ...


def names(patterns: list[str], name: str) -> bool:
    """Whether one of the patterns is for `name`, and none with a `!` is."""
    found = False
    for pattern in patterns:
        if _like(pattern.removeprefix("!"), name):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def matches(words: list[str], search: Search, where: str) -> bool:
    """Whether all criteria of a Match hold; programs are asked last, and only if the rest does."""
    programs: list[tuple[str, bool]] = []
    unknown = "" if words else "nothing"
    rest = list(words)
    while rest:
        word = rest.pop(0)
        kind, _, value = word.removeprefix("!").partition("=")
        kind, wanted = kind.lower(), not word.startswith("!")
        if kind not in ALONE and "=" not in word:
            value = rest.pop(0) if rest else ""
        if kind == "exec":
            programs.append((value, wanted))
        elif (holds := _holds(kind, value, search)) is None:
            unknown = unknown or kind
        elif holds != wanted:
            return False
    if unknown:
        _name(where, unknown)
        return False
    return all(_succeeds(program, search, where) == wanted for program, wanted in programs)


def tokens(name: str, hostname: str, port: str, user: str) -> dict[str, str]:
    """What each letter behind a % stands for."""
    local = socket.gethostname()
    own = {"d": os.path.expanduser("~"), "u": getpass.getuser(), "l": local, "L": local.partition(".")[0]}
    return own | {"i": str(os.getuid()), "n": name, "h": hostname, "p": port, "r": user}


def expand(text: str, known: dict[str, str]) -> str:
    """The text with each %x replaced that is known; %% is a %."""
    return re.sub(r"%(.)", lambda found: {"%": "%", **known}.get(found[1], found[0]), text)


def _holds(kind: str, value: str, search: Search) -> bool | None:
    """Whether a criterion holds; None for one that we do not know."""
    flags = {"all": True, "canonical": search.final, "final": search.final}
    if kind in flags:
        return flags[kind]
    texts = {"host": search.hostname, "originalhost": search.name, "user": search.user, "localuser": getpass.getuser()}
    return names(value.split(","), texts[kind]) if kind in texts else None


def _succeeds(program: str, search: Search, where: str) -> bool:
    """Whether a program of `Match exec` ends well; it is run as OpenSSH does, and has nothing to read."""
    command = expand(program, tokens(search.name, search.hostname, "22", search.user))
    shell = [os.environ.get("SHELL") or "/bin/sh", "-c", command]
    try:
        done = subprocess.run(shell, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        _name(where, f"exec that ends within {PATIENCE} s")
        return False
    return done.returncode == 0


def _like(pattern: str, name: str) -> bool:
    """`*` and `?` are all that is special."""
    plain = "".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in pattern)
    return bool(re.fullmatch(plain, name, re.IGNORECASE | re.DOTALL))


def _name(where: str, what: str) -> None:
    if where not in _named:
        _named.add(where)
        text = f"mailops: {where}: the lines below this Match are left out: mailops does not know '{what}'"
        print(printable.line(text), file=sys.stderr)
