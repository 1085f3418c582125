"""The one exception of mailops: what is wrong, where, and what to type next."""

from __future__ import annotations

# Exit codes. A script may rely on them; `CODES` says what each means.
FAILED = 1  # a machine did not become what it should be
BAD_INPUT = 2  # hosts.toml or the command line is wrong; nothing was contacted
DIFFERENT = 3  # something differs, where the task only asked
UNREACHABLE = 4  # no connection, or not with the machine we trust
LOCKED = 5  # the vault is locked or does not answer, or another run holds the machine
DISTRUSTED = 6  # a machine asked for, or answered, what ours never do: it may be compromised
INTERRUPTED = 130  # as a shell has it for SIGINT
PIPE_CLOSED = 141  # and for SIGPIPE

CODES = {
    0: "done, or nothing was to be done",
    FAILED: "a machine did not become what it should be, or all is done and mail does not work there; a change was "
    "refused by a check, or rolled back",
    BAD_INPUT: "hosts.toml or the command line is wrong, and nothing was contacted (but to find that a generation is "
    "not there); or a password could not be had, and what a `bootstrap` made before it asked stays",
    DIFFERENT: "files were edited on the machine: `drift` found some, or they stopped a `push`, `bootstrap`, "
    "`rollback` or `dkim.rotate`",
    UNREACHABLE: "no connection, or not with the machine that we trust",
    LOCKED: "the vault is locked or does not answer, the passphrase is wrong, or another run holds the machine",
    DISTRUSTED: "a machine asked for what the task does not need from here, or answered what cannot be right: it may "
    "be compromised",
    INTERRUPTED: "interrupted with Ctrl-C; run it again",
    PIPE_CLOSED: "whoever read the output has gone",
}


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
