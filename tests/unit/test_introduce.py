"""Who tells the mailhost of a null client that was set up alone, and until when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mailops import bootstrap
from mailops.errors import MailopsError
from tests.unit import pretend


class Machines:
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.mailhost_answers = True
        self.changes: dict[str, list[str]] = {}
        self.unknown = False

    def agent(self, host: str, name: str, args: Any, answers: Any) -> Any:
        self.calls.append(host)
        if host == "mail":
            return (
                {"changes": {}, "locked": False} if self.mailhost_answers else MailopsError("no answer", where="mail")
            )
        return {"changes": self.changes, "generation": 1, "locked": False, "unknown": self.unknown}


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machines:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return Machines()


@pytest.mark.parametrize("hosts", ["backup", ""])
def test_what_failed_is_tried_again_until_the_mailhost_has_heard_it(
    machines: Machines, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hosts: str
) -> None:
    everywhere = pretend.site(monkeypatch, tmp_path, machines.agent, hosts)
    alone = pretend.site(monkeypatch, tmp_path, machines.agent, "backup")
    machines.changes, machines.mailhost_answers = {"files": ["/etc/postfix/main.cf"]}, False
    with pytest.raises(MailopsError, match="told of backup" if hosts else "1 of 2 machines failed"):
        bootstrap.bootstrap(everywhere)
    machines.changes = {}
    for _ in range(2):
        machines.calls.clear()
        with pytest.raises(
            MailopsError, match=r"^mail: no answer \(it is to be told of backup, whose mail waits until then\)"
        ):
            bootstrap.bootstrap(alone)
    machines.mailhost_answers = True
    for calls in (["backup", "mail"], ["backup"]):
        machines.calls.clear()
        bootstrap.bootstrap(alone)
        assert machines.calls == calls


def test_a_null_client_whose_mail_waits_for_it_brings_the_mailhost_along(
    machines: Machines, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another laptop may have set it up."""
    machines.unknown = True
    bootstrap.bootstrap(pretend.site(monkeypatch, tmp_path, machines.agent, "backup"))
    assert machines.calls == ["backup", "mail"]
    assert "the mailhost does not know this machine" in capsys.readouterr().out
    machines.calls.clear()
    bootstrap.bootstrap(pretend.site(monkeypatch, tmp_path, machines.agent))
    assert machines.calls == ["mail", "backup"]
