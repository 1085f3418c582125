"""The agent's one exception; the laptop shows it as its own `MailopsError`."""

from __future__ import annotations

from collections.abc import Sequence

# Exit codes, as in the laptop's half: mailops/errors.py says what each means.
FAILED, BAD_INPUT, DIFFERENT, LOCKED = 1, 2, 3, 5


class AgentError(Exception):
    """What is wrong on this machine, what to type next, and the exit code it deserves.

    `outcome` is the history's word for a run that ends with it: "failed", "refused", "rolled back". `units` are
    the systemd units that are to blame, where that is known.
    """

    def __init__(
        self, message: str, hint: str = "", code: int = 1, outcome: str = "failed", units: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code
        self.outcome = outcome
        self.units = tuple(units)
