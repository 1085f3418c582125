"""The connection that is begun before the task itself is loaded: for whom, and for whom not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fabric import Config
from fabric.main import Fab

import tasks
from mailops.cli import executor
from mailops.ssh import machine

SITE = """
domain = "example.test"
admin_email = "admin@example.test"
mail_users = [
    { email = "admin@example.test", pw = { env = "X" } },
    { email = "relay@example.test", pw = { env = "X" } },
]
cryptdir_pw = { env = "X" }
[hosts.backup]
role = "mailnull"
host_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEGndHo9mQZxhpYYJIDBcQqJ5TANU+hYdKa1pVVoXqPZ"
[hosts.mail]
role = "mailhost"
host_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEGndHo9mQZxhpYYJIDBcQqJ5TANU+hYdKa1pVVoXqPZ"
[hosts.new]
role = "mailnull"
"""


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hosts to which a connection is begun; nothing else is done."""
    (tmp_path / "hosts.toml").write_text(SITE)
    monkeypatch.setenv("MAILOPS_SITE", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("X", "long enough")
    hosts: list[str] = []
    monkeypatch.setattr(machine, "begin", lambda site, host, config: hosts.append(host.name))
    monkeypatch.setattr("mailops.fleet.each", lambda *_, **__: None)
    return hosts


def fab(*words: str) -> None:
    program = Fab(namespace=tasks.namespace, executor_class=executor.Executor, config_class=Config)
    program.run(["fab", *words], exit=False)


@pytest.mark.parametrize(
    ("words", "hosts"),
    [
        (["bootstrap"], ["mail"]),
        (["-H", "backup", "bootstrap", "--json"], ["backup"]),
        (["-H", "backup,mail", "status"], ["mail"]),
        (["unlock"], ["mail"]),
        (["status", "drift"], ["mail"]),
        (["-H", "new", "status"], []),  # no pinned key: not a word to it
        (["-H", "nobody", "status"], []),
        (["-H", "backup", "unlock"], []),
        (["history", "--count", "none"], []),
        (["--list"], []),
        (["--help", "bootstrap"], []),
    ],
)
def test_who_is_connected_to_at_once(begun: list[str], words: list[str], hosts: list[str]) -> None:
    fab(*words)
    assert begun == hosts


def test_a_wrong_site_is_told_of_before_any_connection(
    begun: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "hosts.toml").write_text(SITE + 'role = "mailhost"\n')
    fab("bootstrap")
    assert begun == []
    assert "hosts.toml" in capsys.readouterr().err


def test_only_tasks_without_words_of_their_own_begin_at_once() -> None:
    known: dict[str, Any] = {name: tasks.namespace[name] for name in executor.AT_ONCE}
    for name, task in known.items():
        flags = {argument.name for argument in task.get_arguments()}
        assert flags <= {"json", "overwrite", "quiet", "each", "take_over"}, name
