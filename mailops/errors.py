"""The one exception of mailops: what is wrong, where, and what to type next."""

from __future__ import annotations

# Exit codes. A script may rely on them; the README lists them.
FAILED = 1  # a machine did not become what it should be
BAD_INPUT = 2  # hosts.toml or the command line is wrong; nothing was contacted
DIFFERENT = 3  # something differs, where the task only asked
UNREACHABLE = 4  # no connection, or not with the machine we trust
LOCKED = 5  # the vault is locked or does not answer, or another run holds the machine
DISTRUSTED = 6  # a machine asked for, or answered, what ours never do: it may be compromised


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
