"""The agent's one exception, the exit codes of all that mailops does, and the words for how a run ended."""

from __future__ import annotations

from collections.abc import Sequence

# Exit codes. A script may rely on them; `CODES` says what each means.
FAILED = 1  # a machine did not become what it should be
BAD_INPUT = 2  # hosts.toml or the command line is wrong; nothing was contacted
DIFFERENT = 3  # something differs, where the task only asked
UNREACHABLE = 4  # no connection, or not with the machine we trust
LOCKED = 5  # the vault is locked or does not answer, or another run holds the machine
DISTRUSTED = 6  # a machine asked for, or answered, what ours never do: it may be compromised
INTERRUPTED = 130  # as a shell has it for SIGINT
PIPE_CLOSED = 141  # and for SIGPIPE

OF_MACHINES = (
    FAILED,
    BAD_INPUT,
    DIFFERENT,
    LOCKED,
)  # which a machine may name; the others are the laptop's

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

# How a run ended, as the history has it.
DONE, REFUSED, FELL, BACK, CUT, UNDONE = "done", "refused", "failed", "rolled back", "interrupted", "undone"
OUTCOMES = {
    DONE: "it did what it was for; a reason beside it says what is still wrong with the machine",
    REFUSED: "a daemon's own check objected, somebody had edited the files, or mailcfg had a reason; all is as it was",
    FELL: "it ended with an error; what it had done may stay, and the reason says what",
    BACK: "a daemon did not work with the new files: those of before are back",
    CUT: "it ended without a word (power, a killed agent); what it had done may stay",
    UNDONE: "it was interrupted, and the next run has put the files of before back",
}


class AgentError(Exception):
    """What is wrong on this machine, what to type next, and the exit code it deserves.

    The `message` is `what`, a line of which the history takes note, and what `more` there is to say, a line each.
    `outcome` is the history's word for a run that ends with it. `units` are the systemd units that are to blame, where
    that is known.
    """

    def __init__(  # noqa: PLR0913 - by their names
        self,
        what: str,
        hint: str = "",
        code: int = FAILED,
        *,
        outcome: str = FELL,
        units: Sequence[str] = (),
        more: Sequence[str] = (),
    ) -> None:
        self.message = "\n  ".join((what, *more))
        super().__init__(self.message)
        self.what = what
        self.more = tuple(more)
        self.hint = hint
        self.code = code
        self.outcome = outcome
        self.units = tuple(units)
