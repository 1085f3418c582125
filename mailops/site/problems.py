"""What is wrong with a hosts.toml: the lines to show, and which keys they are about."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from mailops.errors import BAD_INPUT, MailopsError


class SiteError(MailopsError):
    """A hosts.toml that cannot be used; `problems` has a line for each thing that is wrong."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems), code=BAD_INPUT)
        self.problems = tuple(problems)


@dataclass
class Problems:
    """The lines to show, and which keys they are about."""

    file: str
    lines: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what is taken otherwise than it was written
    _keys: set[str] = field(default_factory=set)

    def add(self, key: str, text: str) -> None:
        self.lines.append(f"{self.file}: {key}: {text}")
        self.spoil(key)

    def spoil(self, key: str) -> None:
        """Note that `key` cannot be judged, without a line of its own."""
        self._keys.add(_plain(key))

    def broken(self, *keys: str) -> bool:
        """Whether something is wrong with one of `keys`, in it, or around it."""
        return any(_overlap(_plain(key), wrong) for key in keys for wrong in self._keys)


def _plain(key: str) -> str:
    """`mail_users[2].email` as `mail_users.email`: what is wrong in one row is wrong in the list."""
    return re.sub(r"\[\d+\]", "", key)


def _overlap(one: str, other: str) -> bool:
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")
