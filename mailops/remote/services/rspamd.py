"""Rspamd: its milter, as Postfix opens it; what it says of its configuration, and what it computes once in its life."""

from __future__ import annotations

import os
import struct

from ..system.lock import RUN
from ..system.shell import ENVIRONMENT, write_atomic
from . import conversation
from .checks import said, without_a_word
from .conversation import Conversation, Wrong
from .daemons import Daemon, Options

# libmilter's protocol, version 6: a length, a letter, and for option negotiation version, actions, steps.
VERSION, ALL_ACTIONS, ALL_STEPS = 6, 0x1FF, 0x1FFFFF
NEGOTIATE, QUIT = b"O", b"Q"
PROMPT = 5.0  # seconds; nothing is looked up for this answer
# The list of all top-level domains: its own on Debian 12 and in its makers' package, another package's on 13.
TOP_LEVEL_DOMAINS = tuple(f"/usr/share/{folder}/effective_tld_names.dat" for folder in ("rspamd", "publicsuffix"))
CACHE = "/var/lib/rspamd"
WARM = f"{RUN}/rspamd-warm.conf"


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


def _settings(_: Options) -> str:
    """It ends well with an element that it does not know; then "syntax OK" is not all it says."""
    done = said("rspamadm", "configtest")
    words = f"{done.out}{done.err}".strip()
    return "" if words == "syntax OK" else words or without_a_word(done.code)


def _warm() -> None:
    """Compiles the list of all top-level domains (43 MB, ten seconds), which Rspamd keeps under a name made of it.

    Its own configuration, which says where the list is, is not there yet when this runs: dpkg brings that last.
    """
    import subprocess

    lists = [path for path in TOP_LEVEL_DOMAINS if os.path.exists(path)]
    if not lists:
        return
    options = f'url_tld = "{lists[0]}"; hs_cache_dir = "{CACHE}";'
    write_atomic(WARM, f"options {{ {options} }} actions {{ reject = 15; }}\n".encode(), 0o600)
    null = subprocess.DEVNULL
    command = ("rspamadm", "mime", "--config", WARM, "urls", "/dev/null")
    # Whatever it makes _rspamd has to read.
    subprocess.run(command, stdin=null, stdout=null, stderr=null, env=ENVIRONMENT, umask=0o022, check=False)
    os.unlink(WARM)


DAEMON = Daemon(
    checks=(_settings,),
    warm=_warm,
    package="rspamd",  # there is a choice of two
    processes="rspamd",
    chatter="; map; .*cannot resolve",
)
