"""What a daemon computes once in its life, done while other packages are still being installed."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from .shell import ENVIRONMENT

if TYPE_CHECKING:
    import subprocess

PATIENCE = 60.0  # seconds; whatever is not done by then the daemon does itself


class Warming:
    """The `warm` commands of services. Their failure is none: the daemon then takes longer at its first start."""

    def __init__(self, services: list[dict[str, Any]]) -> None:
        self._commands = {s["unit"].removesuffix(".service"): s["warm"] for s in services if s.get("warm")}
        self._running: list[subprocess.Popen[bytes]] = []

    def begin(self, package: str) -> None:
        """The files of `package`, and of what it depends on, are there; nothing has been set up yet.

        (dpkg may tell of an architecture behind the name.)
        """
        command = self._commands.pop(package.partition(":")[0], None)
        if command:
            import subprocess

            null = subprocess.DEVNULL
            with contextlib.suppress(OSError):
                process = subprocess.Popen(command, stdin=null, stdout=null, stderr=null, env=ENVIRONMENT)
                self._running.append(process)

    def end(self) -> None:
        """Await them: a daemon that starts before would begin anew."""
        for process in self._running:
            import subprocess

            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
