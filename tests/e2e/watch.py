"""Who could have read a password over our shoulder: the process tables of the laptop and of every machine.

A machine's processes are this computer's, too, so one look at /proc sees both sides.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from mailops.lab import replica
from tests.e2e.house import House, token, until

PAUSE = 0.03  # seconds between two looks
LIFE = 0.3  # seconds that a process lives which must not escape; on a busy computer more


class Watch:
    """While it is open, notes every argv and every environment that any process shows."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.seen: set[bytes] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        self.house.watched = True
        self.prove()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.prove()
        finally:
            self.house.watched = False
            self._over.set()
            self._thread.join()

    def shows(self, *words: str) -> list[bytes]:
        """What showed one of these words; the harmless case is an empty list."""
        return [text for text in tuple(self.seen) if any(word.encode() in text for word in words)]

    def prove(self) -> None:
        """See that careless processes are caught, on the laptop and in each machine."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(self._prove_in, ["", *(there["name"] for there in replica.status(self.house.lab))]))

    def _prove_in(self, machine: str) -> None:
        argv, variable = token(), token()
        lives = itertools.chain([LIFE, 2 * LIFE, 4 * LIFE], itertools.repeat(8 * LIFE))

        def seen() -> bool:
            """Whether they are caught now; on a busy computer the watch may have looked away for so long."""
            life = next(lives)
            # The shell reads what to do from its stdin, so that nothing on the way in shows it.
            careless = f"sh -c ': {argv}; sleep {life}; :'\nCARELESS={variable} sleep {life}\n"
            if machine:
                self.house.run(machine, "sh", stdin=careless)
            else:
                subprocess.run(["sh"], input=careless, text=True, check=True)
            return bool(self.shows(argv) and self.shows(variable))

        where = machine or "the laptop"
        until(seen, 120, f"the watch to see careless processes on {where}")

    def _look_on(self) -> None:
        known: dict[str, bytes] = {}
        while not self._over.wait(PAUSE):
            now = {name: argv for name in os.listdir("/proc") if name.isdigit() and (argv := _read(name, "cmdline"))}
            for name, argv in now.items():
                if known.get(name) != argv:  # a new process, or one that has become another
                    self.seen.add(argv)
                    self.seen.add(_read(name, "environ"))
            known = now


def _read(process: str, what: str) -> bytes:
    with contextlib.suppress(OSError):  # it has ended
        return Path("/proc", process, what).read_bytes()
    return b""
