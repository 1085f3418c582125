"""Accounts on a real SQLite file, and a laptop that answers."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from mailops.remote.accounts import crypt
from mailops.remote.accounts.commands import Place
from mailops.remote.shared.errors import AgentError

HASH = crypt.hash_password("initial")
OTHER = crypt.hash_password("other")
SECRET = "S3cret-pässword"
WANTED: dict[str, Any] = {
    "domains": ["example.test", "second.test"],
    "users": ["admin@example.test", "user1@example.test", "user2@second.test"],
    "aliases": [["postmaster@example.test", "admin@example.test"], ["info@second.test", "user2@second.test"]],
}


class Link:
    """A laptop that answers from a table and writes down what it was asked and told."""

    origin = "192.0.2.7"

    def __init__(self, **answers: Callable[[Any], Any]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, Any]] = []
        self.said: list[str] = []

    def ask(self, what: str, data: Any = None) -> Any:
        self.asked.append((what, data))
        return self.answers[what](data)

    def say(self, text: str) -> None:
        self.said.append(text)


def hashing() -> Link:
    return Link(hashes=lambda emails: dict.fromkeys(emails, HASH), hash=lambda email: OTHER)


def rows(place: Place | dict[str, Any], query: str) -> list[Any]:
    path = place["database"] if isinstance(place, dict) else place.database
    db = sqlite3.connect(path)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def refused(run: Callable[..., list[str]], *argv: str, code: int = 1) -> AgentError:
    with pytest.raises(AgentError) as caught:
        run(*argv)
    assert caught.value.code == code
    return caught.value
