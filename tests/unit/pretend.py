"""Machines that exist on paper: a site whose agents answer what a test wants them to."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any

from mailops.errors import MailopsError
from mailops.screen.report import Report
from mailops.site.model import Host, Site
from mailops.ssh.machine import Answers
from tests.unit.site.test_site import GOOD

Agent = Callable[..., Any]


class PretendMachine:
    """As `fleet.machine` makes them; `agent(name, args, answers)` is all that is behind it."""

    def __init__(self, site: Site, host: Host, listener: Report, agent: Agent) -> None:
        self.site, self.host, self.listener, self.agent = site, host, listener, agent

    def __enter__(self) -> PretendMachine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        pass

    def call(self, name: str, args: dict[str, Any], answers: Answers | None = None, **_: Any) -> dict[str, Any]:
        found = self.agent(self.host.name, name, args, answers or {})
        if isinstance(found, MailopsError):
            raise found
        return dict(found)


def site(monkeypatch: Any, folder: Path, agent: Agent, hosts: str = "") -> SimpleNamespace:
    """The context of a task (`c`) for the good site of the tests, with `-H hosts`, where `agent` answers all calls."""
    import sys

    from mailops import fleet

    (folder / "hosts.toml").write_text(GOOD)
    monkeypatch.setenv("MAILOPS_SITE", str(folder / "hosts.toml"))

    def machine(_: Any, site: Site, host: Host, quiet: bool = False) -> PretendMachine:
        return PretendMachine(site, host, Report(host.name, sys.stderr if quiet else sys.stdout), agent)

    monkeypatch.setattr(fleet, "machine", machine)
    monkeypatch.setattr("mailops.needed.fetch", lambda needs: None)
    return SimpleNamespace(config={"mailops_hosts": hosts})


def entry(path: str, before: str | None, after: str | None, **more: Any) -> dict[str, Any]:
    """What an agent tells of a file that differs."""
    coded = [None if text is None else base64.b64encode(text.encode()).decode() for text in (before, after)]
    usual = {"state": "changed", "secret": False, "was": "0644 root:root", "now": "0644 root:root"}
    return {"path": path, "before": coded[0], "after": coded[1], **usual, **more}
