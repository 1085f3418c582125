"""What a daemon computes once in its life, done while other packages are still being installed."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from . import daemons

if TYPE_CHECKING:
    from ..shared.forms import Service

PATIENCE = 60.0  # seconds; whatever is not done by then the daemon does itself


class Warming:
    """Of each service that has something to compute, and whose package has the name of its unit.

    A failure is none: the daemon then takes longer at its first start.
    """

    def __init__(self, services: list[Service]) -> None:
        self._units = {service["unit"].removesuffix(".service"): service["unit"] for service in services}
        self._running: list[threading.Thread] = []

    def begin(self, package: str) -> None:
        """The files of `package`, and of what it depends on, are there; nothing has been set up yet.

        (dpkg may tell of an architecture behind the name.)
        """
        unit = self._units.pop(package.partition(":")[0], "")
        if work := daemons.of(unit).warm:
            thread = threading.Thread(target=_try, args=(work,), daemon=True)
            self._running.append(thread)
            thread.start()

    def end(self) -> None:
        """Await them: a daemon that starts before would begin anew."""
        deadline = time.monotonic() + PATIENCE
        for thread in self._running:
            thread.join(max(0.0, deadline - time.monotonic()))


def _try(work: Callable[[], None]) -> None:
    with contextlib.suppress(OSError):  # a full disk stops the run somewhere else
        work()
