"""A daemon's own judgement of its configuration. The manifest names a daemon and what its checks have to know of the
site; the checks themselves are in that daemon's file.

They run side by side, and each end, good or bad, has a time: a program that hangs is killed, with all that it started.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ..shared.errors import AgentError
from ..system.shell import ENVIRONMENT, last, runs
from . import daemons

if TYPE_CHECKING:
    from ..shared.forms import Check, Service

# Seconds for a program of a check.
PATIENCE = 120.0
GRACE = 5.0  # seconds for a check to end whose program was killed
WORDS = 8  # lines of an objection


class Objection(NamedTuple):
    unit: str
    lines: list[str]

    def words(self) -> str:
        return " | ".join(self.lines)


class Said(NamedTuple):
    """How a program ended, and what it said."""

    code: int
    out: str
    err: str


def objections(services: Iterable[Service]) -> list[Objection]:
    """What the checks of these services object to, in their order. AgentError when one of them does not end."""
    asked = [
        (service["unit"], check) for service in services for named in service["checks"] for check in _checks(named)
    ]
    answers: dict[int, list[str]] = {}

    def ask(number: int) -> None:
        answers[number] = _answer(asked[number][1])

    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(len(asked))]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + PATIENCE + GRACE
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if silent := dict.fromkeys(unit for number, (unit, _) in enumerate(asked) if number not in answers):
        raise AgentError(f"the checks of {', '.join(silent)} did not end within {PATIENCE:.0f} s")
    return [Objection(unit, answers[number]) for number, (unit, _) in enumerate(asked) if answers[number]]


def _checks(named: Check | list[str]) -> list[Callable[[], str]]:
    """Those of a daemon; or the one command that a manifest of an earlier mailops has in their place."""
    if isinstance(named, list):
        return [partial(_command, named)]
    return [partial(check, named["options"]) for check in daemons.named(named["daemon"]).checks]


def _command(command: list[str]) -> str:
    done = said(*command)
    return (done.err.strip() or done.out.strip() or without_a_word(done.code)) if done.code else ""


def _answer(check: Callable[[], str]) -> list[str]:
    try:
        return last(check(), WORDS)
    except AgentError as error:
        return [error.message]
    except Exception as error:  # it must not pass for an approval
        return [f"it cannot be checked ({type(error).__name__}: {error})"]


def quiet(*command: str, but: str = "") -> str:
    """What `command` says on stderr, where daemons put what they only warn of; or that it failed without a word.

    `but`: lines with this in them say nothing against a configuration.
    """
    done = said(*command)
    lines = [line for line in done.err.splitlines() if line.strip() and not (but and but in line)]
    news = [line for before, line in zip(["", *lines], lines, strict=False) if line != before]
    return "\n".join(news) or (without_a_word(done.code) if done.code else "")


def without_a_word(code: int) -> str:
    return f"ended with {code} without a word"


def said(*command: str, stdin: bytes = b"") -> Said:
    """Run a program of a check. AgentError when it is not there, or does not end in time."""
    import subprocess  # where nothing differs nothing is run, and it need not be loaded

    runs.append(command[0])
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, env=ENVIRONMENT, start_new_session=True
        )
    except FileNotFoundError:
        raise AgentError(f"{command[0]} is not installed on this machine") from None
    try:
        out, err = process.communicate(stdin, PATIENCE)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise AgentError(f"{' '.join(command)} did not end within {PATIENCE:.0f} s") from None
    return Said(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))
