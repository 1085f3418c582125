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

    The command line prints it and exits with `code`; no traceback is shown. `where` it is (a machine, a key of
    hosts.toml) stands before `what` is wrong in the `message`.
    """

    def __init__(self, what: str, hint: str = "", code: int = FAILED, where: str = "") -> None:
        self.message = f"{where}: {what}" if where else what
        super().__init__(self.message)
        self.what = what
        self.where = where
        self.hint = hint
        self.code = code

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message
