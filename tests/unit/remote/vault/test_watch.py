"""A vault that begins to hang ends who waits for it."""

from __future__ import annotations

import io
import os
import threading
from typing import Any

import pytest

from mailops.remote import link, machine
from mailops.remote.shared.errors import LOCKED, AgentError
from mailops.remote.vault import watch

VAULT = {"mountpoint": "/vault", "queue": ""}


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[bool | None]:
    """What the vault says each time that it is asked, None for nothing; the last one again and again."""
    answers: list[bool | None] = [True]
    monkeypatch.setattr(machine, "manifest", lambda: {"vault": VAULT})
    monkeypatch.setattr(machine, "answers", lambda _: answers.pop(0) if len(answers) > 1 else answers[0])
    return answers


@pytest.mark.parametrize(
    ("call", "answers", "ends"),
    [
        ("drift", [True, False, None], 3),
        ("mailcfg", [None], 1),
        ("status", [None, None, True, None, None, None], 6),
        ("unlock", [False, None], 4),
        ("lock", [None], None),
    ],
)
def test_a_call_ends_when_the_vault_owes_the_answer(
    call: str, answers: list[bool | None], ends: int | None, said: list[bool | None]
) -> None:
    said[:] = answers
    told: list[AgentError] = []
    watching = watch.Watch(call, told.append)
    for _ in range(ends or 10):
        assert told == []
        watching.look()
    assert [error.code for error in told] == ([LOCKED] if ends else [])
    assert all("the vault /vault does not answer" in error.message for error in told)


def test_a_machine_without_a_vault_or_a_manifest_has_nothing_to_wait_for(
    said: list[bool | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def bare() -> dict[str, Any]:
        raise AgentError("not set up yet")

    said[:] = [None]
    told: list[AgentError] = []
    for manifest in (lambda: {"vault": None}, bare):
        monkeypatch.setattr(machine, "manifest", manifest)
        watch.Watch("status", told.append).look()
    assert told == []


def test_the_link_looks_with_each_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "HEARTBEAT", 0.01)
    reading, _ = os.pipe()
    looked = threading.Event()
    laptop = link.Link(os.fdopen(reading, "rb"), io.BytesIO())
    laptop.watch = looked.set
    assert looked.wait(10)
    laptop.finish({})
