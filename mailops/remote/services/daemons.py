"""What the engine has to know of a daemon, asked by the name of its unit.

It knows none of them itself: each has a file here, with a `DAEMON` that says what of all this goes for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from typing import NamedTuple

from ..system import dpkg

# The file of a unit. What the files of others say is nobody's here, and nothing is special about it.
FILES = {
    "postfix.service": "postfix",
    "dovecot.service": "dovecot",
    "rspamd.service": "rspamd",
    "redis-server.service": "redis",
}
Options = Mapping[str, str]


class Grammar(NamedTuple):
    """Of a file in which nothing may be set twice."""

    # What a line begins to set; None for a line that begins nothing.
    name: Callable[[bytes], bytes | None]
    # Whether everybody reads it.
    public: bool = False


class Daemon(NamedTuple):
    # Its own judgement of its configuration: what it objects to, or nothing (see `checks`).
    checks: tuple[Callable[[Options], str], ...] = ()
    # What it would compute at its very first start (see `warming`).
    warm: Callable[[], None] | None = None
    # Of a line that its programs say of it, what they say, without which of them it is.
    gist: Callable[[str], str] = str
    # Its package, where a person wants to know which one it is.
    package: str = ""
    # How its processes' names begin in the journal, which finds no unit for one that dies at once.
    processes: str = ""
    # In its log, what says nothing of a failure: our own questions, and what strangers leave behind on any day.
    chatter: str = ""
    # How files are written to which there are additions, by the name of the way in which they are merged.
    grammars: Mapping[str, Grammar] = {}
    # To be done when another file is at this path: something is kept of what was there.
    replaced: Callable[[str], None] | None = None
    # To be done when what it had to do without is there again.
    resume: Callable[[], None] | None = None
    # Where its configuration, which is not ours yet, has mail that ours will not show, for a person.
    mailboxes: Callable[[], list[str]] | None = None
    # The same for what it has not delivered; whole lines.
    queues: Callable[[], list[str]] | None = None


def of(unit: str) -> Daemon:
    return named(FILES[unit]) if unit in FILES else Daemon()


def every() -> Iterator[Daemon]:
    return map(named, FILES.values())


def versions(units: Iterable[str]) -> dict[str, str]:
    """By package, those of the daemons of `units` that a person wants to know."""
    packages = filter(None, (of(unit).package for unit in units))
    return {package: version for package in packages if (version := dpkg.version(package))}


def grammar(style: str) -> Grammar:
    return next(daemon.grammars[style] for daemon in every() if style in daemon.grammars)


def replaced(path: str) -> None:
    for daemon in every():
        if daemon.replaced:
            daemon.replaced(path)


def resume(units: Iterable[str]) -> None:
    for unit in units:
        if work := of(unit).resume:
            work()


def named(file: str) -> Daemon:
    found: Daemon = import_module(f".{file}", __package__).DAEMON
    return found
