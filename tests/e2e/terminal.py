"""A person at a terminal: `fab` on a pty of its own, prompts answered as they appear."""

from __future__ import annotations

import errno
import os
import pty
import select
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.house import FAB, House

CTRL_C = "\x03"
PATIENCE = 60.0  # seconds for the whole conversation


def typed(house: House, *args: str, answers: Sequence[tuple[str, str]], site: Path | None = None) -> tuple[int, str]:
    """Run a task at a terminal; each answer is typed once its prompt stands there. Exit code, and all that was seen."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", *FAB, *args],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=house.env(site),
    )
    os.close(slave)
    try:
        screen = _converse(master, list(answers))
        return process.wait(PATIENCE), screen
    finally:
        process.kill()
        process.wait()
        os.close(master)


def _converse(master: int, answers: list[tuple[str, str]]) -> str:
    screen, read_to = "", 0
    deadline = time.monotonic() + PATIENCE
    while True:
        assert time.monotonic() < deadline, f"waited in vain for {answers}; on the screen stands:\n{screen}"
        if answers and (found := screen.find(answers[0][0], read_to)) >= 0:
            read_to = found + len(answers[0][0])
            text = answers.pop(0)[1]
            os.write(master, text.encode() + b"\n" * (text != CTRL_C))  # else the line may be read before the signal
        if not select.select([master], [], [], 0.1)[0]:
            continue
        try:
            chunk = os.read(master, 65536)
        except OSError as error:
            if error.errno != errno.EIO:  # Linux's word for: the other side has closed
                raise
            chunk = b""
        if not chunk:
            assert not answers, f"it ended without asking {answers[0][0]!r}:\n{screen}"
            return screen
        screen += chunk.decode(errors="replace")
