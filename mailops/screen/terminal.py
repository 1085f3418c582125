"""What is for the person at the terminal alone, and for no file that stdout goes to: a new key, a new password."""

from __future__ import annotations

import sys


def show(text: str) -> None:
    """To the terminal, unmasked, also when stdout goes to a file."""
    if sys.stdout.isatty():
        print(text, end="", flush=True)
        return
    try:
        with open("/dev/tty", "w", encoding="utf-8") as terminal:
            terminal.write(text)
    except OSError:  # no terminal at all: a script asked for it, and is told on the side
        print(text, end="", file=sys.stderr, flush=True)
