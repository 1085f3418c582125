"""Redis, as Rspamd opens it, and what it says of its configuration."""

from __future__ import annotations

import re

from ..system.files import read
from . import conversation
from .checks import said, without_a_word
from .conversation import NotYet, Wrong
from .daemons import Daemon, Options

CONF = "/etc/redis/redis.conf"
# A last directive that it cannot know.
END = "mailops-checked"
WRONG = (">>>", "atal error", "failed to load")
# The number of the process, the time.
STAMP = re.compile(r"^\d*:[A-Z] .* [#*] ")


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


def _settings(options: Options) -> str:
    """Redis has no check of its own: it reads the file up to END, and ends there.

    Nothing is opened by then but what `dir`, `include` and `loadmodule` name; the vault may be locked.
    """
    inside = f"dir {options['vault']}/redis".encode()
    text = b"\n".join(line for line in read(CONF).split(b"\n") if line != inside)
    done = said("redis-server", "-", "--pidfile", "", "--logfile", "", f"--{END}", "1", stdin=text)
    return objection(f"{done.out}{done.err}", done.code)


def objection(words: str, code: int) -> str:
    """What it has against the file, of all that it says; "" where END is all that it does not know."""
    lines = words.splitlines()
    others = [line for line in lines if END not in line]
    wrong = [
        line
        for before, line in zip(["", *others], others, strict=False)
        if any(sign in part for part in (before, line) for sign in WRONG)
    ]
    if END in words and not wrong:
        return ""
    return "\n".join(STAMP.sub("", line) for line in wrong or lines) or without_a_word(code)


# It says at every start that the kernel may run out of memory.
DAEMON = Daemon(checks=(_settings,), chatter="Memory overcommit")
