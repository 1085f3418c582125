"""What a machine may ask for goes by the services of its role: a new role needs no line of its own."""

from __future__ import annotations

from typing import Any

import pytest

from mailops import roles
from mailops.ssh.questions import Questions
from mailops.ssh.shapes import Odd

MANIFEST = {"files": [{"path": "/etc/x"}], "accounts": {"users": ["ann@example.org"]}}
FILES = ("files", ["/etc/x"])
HASHES = ("hashes", ["ann@example.org"])
PASSPHRASE = ("passphrase", {"new": False})


@pytest.fixture(autouse=True)
def new_roles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(roles.ROLES, "sender", roles.Role(("resolver", "nullclient")))
    monkeypatch.setitem(roles.ROLES, "store", roles.Role(("vault", "redis")))


@pytest.mark.parametrize(
    ("role", "task", "question"),
    [
        ("sender", "bootstrap", FILES),
        ("sender", "push", FILES),
        ("sender", "rollback", ("edited", [])),
        ("store", "bootstrap", PASSPHRASE),
        ("store", "unlock", PASSPHRASE),
    ],
)
def test_a_new_role_asks_for_what_its_services_need(role: str, task: str, question: tuple[str, Any]) -> None:
    Questions(role, task, {"manifest": MANIFEST}).check(*question)


@pytest.mark.parametrize(
    ("role", "task", "question"),
    [
        ("sender", "bootstrap", PASSPHRASE),
        ("sender", "bootstrap", HASHES),
        ("sender", "unlock", PASSPHRASE),
        ("store", "bootstrap", HASHES),
        ("store", "push", PASSPHRASE),
        ("bastion", "bootstrap", FILES),
        ("nobody", "bootstrap", FILES),
    ],
)
def test_and_for_nothing_else(role: str, task: str, question: tuple[str, Any]) -> None:
    with pytest.raises(Odd):
        Questions(role, task, {"manifest": MANIFEST}).check(*question)
