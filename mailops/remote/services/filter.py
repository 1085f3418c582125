"""The spam filter: Rspamd's milter, as Postfix opens it, and the Redis that it remembers with."""

from __future__ import annotations

import struct

from . import conversation
from .conversation import Conversation, NotYet, Wrong

# libmilter's protocol, version 6: a length, a letter, and for option negotiation version, actions, steps.
VERSION, ALL_ACTIONS, ALL_STEPS = 6, 0x1FF, 0x1FFFFF
NEGOTIATE, QUIT = b"O", b"Q"
PROMPT = 5.0  # seconds; nothing is looked up for this answer


def milter(port: int, options: dict[str, str]) -> None:
    """Each of the sockets in `options` is asked; a port, where an earlier mailops has set up the machine."""
    if port:
        _negotiates(conversation.local(port, PROMPT), f"port {port}")
    for path in options.values():
        _negotiates(conversation.unix(path, PROMPT), path)


def _negotiates(milter: Conversation, place: str) -> None:
    """It agrees on a protocol, which is how every conversation between Postfix and a milter starts."""
    with milter as connection:
        body = NEGOTIATE + struct.pack("!III", VERSION, ALL_ACTIONS, ALL_STEPS)
        connection.send(struct.pack("!I", len(body)) + body)
        try:
            length, letter = struct.unpack("!Ic", connection.take(5))
        except TimeoutError:  # Rspamd keeps a socket that none of its workers serves any more
            raise Wrong(f"{place} takes connections and does not answer") from None
        if letter != NEGOTIATE or length != len(body):
            raise Wrong("it speaks, but not as a milter")
        version, _, _ = struct.unpack("!III", connection.take(12))
        if not 2 <= version <= VERSION:
            raise Wrong(f"it wants version {version} of the milter protocol")
        connection.send(struct.pack("!I", len(QUIT)) + QUIT)


def redis(port: int, options: dict[str, str]) -> None:
    """A `line` over its Unix socket that has one right `answer`; and whoever asks it otherwise is let in."""
    with conversation.unix(options["socket"]) as connection:
        connection.say(options.get("line", "PING"))
        answer = connection.line()
        if answer.startswith("-LOADING"):
            raise NotYet(answer)
        if answer != options.get("answer", "+PONG"):
            raise Wrong(answer)
    conversation.must_let_in(options)
