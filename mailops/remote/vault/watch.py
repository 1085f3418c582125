"""An end for whoever waits for a vault that does not answer any more, in the middle of a call.

A thread that waits for a FUSE filesystem hears nothing, no signal either, until that answers or is closed (fuse(4)). So
another one asks now and then, and ends the process: to the next run it is one that was killed.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, NoReturn

from .. import machine
from ..link import HEARTBEAT
from ..shared.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable

# Times that a vault may owe the answer. A disk may be slow for a while, which ends no change that is under way; and a
# status tells of it by itself, unless it hangs as well.
PATIENT, OTHERS = 3, 1
CALLS = ("bootstrap", "push", "rollback", "unlock", "mailboot", "status")
CLOSES = ("lock",)  # which waits for nobody


class Watch:
    """Of one call; `end` is told why it comes to nothing, and does not return."""

    def __init__(self, call: str, end: Callable[[AgentError], None]) -> None:
        self._end = end
        self._most = 0 if call in CLOSES else PATIENT if call in CALLS else OTHERS
        self._silent = 0

    def look(self) -> None:
        """To be called every few seconds."""
        try:
            vault = machine.manifest()["vault"]
        except (AgentError, OSError):  # not set up yet, or not to be read: that is told elsewhere
            return
        if not vault or not self._most:
            return
        self._silent = self._silent + 1 if machine.answers(machine.places(vault)) is None else 0
        if self._silent >= self._most:
            self._end(machine.silence(vault["mountpoint"]))

    def begin(self) -> None:
        """Look by itself, for a command on the console."""
        threading.Thread(target=self._keep_looking, daemon=True).start()

    def _keep_looking(self) -> None:
        pause = threading.Event()
        while not pause.wait(HEARTBEAT):
            self.look()


def leave(code: int) -> NoReturn:
    """At once: the interpreter's own end would wait for the thread that cannot be reached."""
    os._exit(code)
