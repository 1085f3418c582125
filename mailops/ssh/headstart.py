"""A connection that is begun before Fabric is loaded, which takes longer than it takes to reach the machine.

Where to is what the same words led to the last time, as long as neither hosts.toml nor ssh_config has changed: nothing
is begun for a command line or a site that has not passed every check before. It goes as far as the handshake; whoever
logs in then checks the host key, as ever.
"""

from __future__ import annotations

import hashlib
import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from mailops import cache
from mailops.errors import MailopsError
from mailops.site.place import find
from mailops.ssh import tcp
from mailops.ssh.background import Background

if TYPE_CHECKING:
    from mailops.ssh.wire import Transport

NOTES = "begun"  # the folder of the cache
SWITCH = 0.001  # seconds; a handshake is many short turns beside one long import


class Place(NamedTuple):
    """A machine, as far as a handshake needs to know it; `timeout` is in seconds, `host_key` "" for any.

    `identity` is the private key of hosts.toml, "" for none: where that file is missing nobody is to be contacted.
    """

    address: str
    port: int
    host_key: str
    timeout: float
    identity: str = ""


_begun: list[tuple[Place, Background[Transport]]] = []  # one, or none


def begin() -> None:
    """Begin to connect to where this command line led before, if it did and nothing speaks against it."""
    try:
        note = cache.recall(NOTES, _words()) or {}
        if note.get("state") != _state(note["files"]):
            return
        place = Place(*note["place"])
        if place.identity and not os.path.isfile(place.identity):
            return
    except (
        MailopsError,
        OSError,
        KeyError,
        TypeError,
    ):  # no site, no note of ours: whoever comes next says what is wrong
        return
    sys.setswitchinterval(SWITCH)
    sock = Background(lambda: tcp.connect(place.address, place.port, place.timeout))
    from mailops.ssh import wire  # and with it Paramiko, while the machine answers

    _begun.append((place, Background(lambda: wire.shake_hands(sock.result(), place.host_key, place.timeout))))


def transport(place: Place) -> Transport:
    """A connection to `place` with the handshake behind it: the one that was begun, or a new one.

    Raises OSError and what Paramiko raises.
    """
    if _begun:
        begun, beginning = _begun.pop()
        if begun == place:
            return beginning.result()
    from mailops.ssh import wire

    return wire.shake_hands(tcp.connect(place.address, place.port, place.timeout), place.host_key, place.timeout)


def remember(place: Place, files: list[str]) -> None:
    """This command line has passed every check, and leads to `place` first; `files` are those of ssh_config."""
    note = {"state": _state(files), "place": list(place), "files": files}
    words = _words()
    if cache.recall(NOTES, words) != note:
        cache.keep(NOTES, words, note)


def _words() -> str:
    """What was typed, and for which site, as a name; MailopsError without a site."""
    return hashlib.sha256("\0".join([str(find().resolve()), *sys.argv[1:]]).encode()).hexdigest()[:32]


def _state(files: list[str]) -> list[list[int]]:
    """What a file is known by, of all that decide where the words lead."""
    states = [os.stat(path) for path in map(str, [find(), *files]) if os.path.exists(path)]
    return [[state.st_ino, state.st_mtime_ns, state.st_size] for state in states]
