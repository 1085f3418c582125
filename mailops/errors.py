"""The one exception of mailops: what is wrong, where, and what to type next."""

from __future__ import annotations

from mailops.remote.shared.errors import (
    BAD_INPUT,
    CODES,
    DIFFERENT,
    DISTRUSTED,
    FAILED,
    INTERRUPTED,
    LOCKED,
    PIPE_CLOSED,
    UNREACHABLE,
)

__all__ = [
    "BAD_INPUT",
    "CODES",
    "DIFFERENT",
    "DISTRUSTED",
    "FAILED",
    "INTERRUPTED",
    "LOCKED",
    "PIPE_CLOSED",
    "UNREACHABLE",
    "MailopsError",
    "Untouched",
]


class Untouched(KeyboardInterrupt):
    """Ctrl-C while nothing was changed yet, on any machine."""


class MailopsError(Exception):
    """A user's problem, told in one line, with the next thing to type in a second.

    The command line prints it and exits with `code`; no traceback is shown.
    """

    def __init__(self, message: str, hint: str = "", code: int = FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message
