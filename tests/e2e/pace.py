"""How patient a guard against hangs is: as patient as this computer was slow when the run began.

A guard tells a hang from work. Three times as many programs on the same cores make work three times as long.
"""

from __future__ import annotations

import functools
import statistics
import subprocess
import sys
import time

IDLE = 0.03  # seconds in which an idle computer starts and ends a small program
MOST = 10.0


@functools.cache
def pace() -> float:
    """From 1 on an idle computer to MOST."""
    found = []
    for _ in range(9):
        began = time.monotonic()
        subprocess.run([sys.executable, "-I", "-S", "-c", "pass"], check=True)
        found.append(time.monotonic() - began)
    return min(MOST, max(1.0, statistics.median(found) / IDLE))
