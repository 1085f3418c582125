"""`script/bench`, once everything is there: one benchmark at a time, and no traceback for what is not a bug."""

from __future__ import annotations

import argparse
import fcntl
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks import arguments
from benchmarks.lab import clean
from mailops.errors import MailopsError
from mailops.lab.layout import BASE, LabError, write


def main(argv: list[str]) -> int:
    options = arguments.parse(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # tidied up after like Ctrl-C
    try:
        with alone():
            figures = run(options)
    except MailopsError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("\nbench: interrupted", file=sys.stderr)
        return 130
    if figures and options.json:
        write(options.json, json.dumps(figures, indent=2) + "\n")
    return 0


def run(options: argparse.Namespace) -> dict[str, Any]:
    if options.benchmark == "converge":
        from benchmarks import converge

        return converge.run(options)
    if options.benchmark == "start":
        from benchmarks import start

        return start.run(options)
    if options.benchmark == "first":
        from benchmarks import first

        return first.run(options)
    if options.benchmark == "memory":
        from benchmarks import memory

        return memory.run(options)
    clean()
    return {}


@contextmanager
def alone() -> Iterator[None]:
    """Two benchmarks at the same time would measure each other."""
    (BASE / "locks").mkdir(parents=True, exist_ok=True)
    with open(BASE / "locks/bench", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError("another benchmark is running on this computer", "wait until it ends") from None
        yield


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
