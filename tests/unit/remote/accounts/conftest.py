"""What the tests of accounts share."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mailops.remote import machine
from mailops.remote.accounts import (
    database,
    sessions,
)
from mailops.remote.accounts import mailcfg as accounts
from mailops.remote.accounts import rows as account_rows
from mailops.remote.accounts.commands import Place
from mailops.remote.shared.errors import AgentError
from mailops.remote.system import shell
from tests.unit.remote.accounts.pretend import OTHER, WANTED, hashing


@pytest.fixture
def me(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database belongs to whoever runs the tests: there is no group mailauth here."""
    monkeypatch.setattr(database, "OWNER", pwd.getpwuid(os.getuid()).pw_name)
    monkeypatch.setattr(database, "GROUP", grp.getgrgid(os.getgid()).gr_name)


@pytest.fixture
def doveadm(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commands that Dovecot would have got; it is down, as it may be."""
    seen: list[str] = []

    def run(*command: str, **_: Any) -> SimpleNamespace:
        seen.append(" ".join(command[1:]))
        if command[1] == "kick":
            raise AgentError("doveadm did not end within 5 s")
        return SimpleNamespace(stdout="")

    monkeypatch.setattr(shell, "run", run)
    monkeypatch.setattr(sessions, "_processes", lambda _: iter(()))  # lest a mail server here loses its connections
    return seen


@pytest.fixture
def wanted(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "db").mkdir()
    return WANTED | {"database": str(tmp_path / "db" / "mail.sqlite")}


@pytest.fixture
def place(wanted: dict[str, Any], tmp_path: Path) -> Place:
    account_rows.converge(wanted, hashing())
    return Place(
        wanted["database"],
        str(tmp_path / "mail"),
        frozenset(wanted["domains"]),
        frozenset(wanted["users"]),
        frozenset((src, dst) for src, dst in wanted["aliases"]),
    )


@pytest.fixture
def mailcfg(place: Place) -> Callable[..., list[str]]:
    """Run a command as the laptop would; a refusal comes out as AgentError."""

    def run(*argv: str) -> list[str]:
        done = accounts.execute(accounts.parse(argv), place, lambda email: OTHER)
        return [*accounts.table(done.rows or []), *done.lines]

    return run


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, wanted: dict[str, Any], place: Place) -> dict[str, Any]:
    """This computer as a bootstrapped machine with an open vault."""
    applied: dict[str, Any] = {"role": "mailhost", "accounts": wanted, "users": [], "open": True}
    monkeypatch.setattr(machine, "manifest", lambda: applied)
    monkeypatch.setattr(machine, "vault_is_open", lambda manifest: manifest["open"])
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return applied
