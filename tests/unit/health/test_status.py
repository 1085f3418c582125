"""What `status` tells of a machine."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mailops.health import status as screen
from mailops.remote.services import queue
from mailops.remote.system import asleep, dpkg, units
from tests.unit import pretend
from tests.unit.ssh import hostile


def test_the_version_of_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "Package: {0}\nStatus: {1}\nVersion: {2}\n\n"
    rows = [("rspamd", "install ok installed", "3.4-1"), ("redis", "deinstall ok config-files", "7"), ("z", "x", "1")]
    (tmp_path / "status").write_text("".join(said.format(*row) for row in rows))
    monkeypatch.setattr(dpkg, "STATUS", str(tmp_path / "status"))
    assert [dpkg.version(name) for name in ("rspamd", "redis", "nothing")] == ["3.4-1", "", ""]


def test_new_mail_that_nobody_takes_up_is_told() -> None:
    found = [("deferred", 0.0, True), ("incoming", 990.0, True), ("incoming", 0.0, False), ("maildrop", 0.0, True)]
    messages = [queue.Message(*message) for message in found]
    assert queue.untouched(messages[:3], 1000.0, 300.0) == ""
    assert queue.untouched(messages, 1000.0, 300.0).startswith("1 new in it that nobody takes up")


@pytest.mark.parametrize(
    ("stat", "found"),
    [
        ("12 (qmgr) T 1 12", ("qmgr", "T")),
        ("12 (rspamd: main) S 1 12", ("rspamd: main", "S")),
        ("12 (a ) Z (b) T 1", ("a ) Z (b", "T")),
    ],
)
def test_the_state_of_a_process(stat: str, found: tuple[str, str]) -> None:
    assert asleep.parsed(stat) == found


def test_a_process_that_a_signal_has_stopped_is_told_by_its_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    unit = {7: "postfix@-.service", 8: "postfix.service", 9: "cron.service"}
    monkeypatch.setattr(asleep, "_stopped", lambda: [(7, "qmgr"), (8, "master"), (9, "cron")])
    monkeypatch.setattr(units, "unit_of", lambda pid: unit[pid])
    wanted = [{"unit": "postfix.service"}, {"unit": "dovecot.service"}]
    assert asleep.found(wanted) == {"postfix.service": ["qmgr (process 7)", "master (process 8)"]}
    assert "systemctl restart postfix.service" in asleep.told(wanted)["postfix.service"]


def test_a_daemon_that_is_down_has_a_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = hostile.HONEST["status"] | {"services": {"redis-server.service": "failed"}}
    screen.show(pretend.site(monkeypatch, tmp_path, lambda *_: told, "mail"))
    assert "✗ redis-server.service is failed; next: fab -H mail bootstrap\n" in capsys.readouterr().out


def test_what_to_type_has_the_machines_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = hostile.HONEST["status"] | {"probes": {"DKIM": "the key is missing; next: fab -H NAME bootstrap"}}
    screen.show(pretend.site(monkeypatch, tmp_path, lambda *_: told, "mail"))
    assert "✗ DKIM: the key is missing; next: fab -H mail bootstrap\n" in capsys.readouterr().out


@pytest.mark.parametrize(("hours", "words"), [(3, "3 h 0 min ahead of"), (-49, "2 d behind"), (0, "")])
def test_a_clock_that_is_far_off_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], hours: int, words: str
) -> None:
    told = hostile.HONEST["status"] | {"now": time.time() + hours * 3600 + 1, "held": 2}
    screen.show(pretend.site(monkeypatch, tmp_path, lambda *_: told, "mail"))
    said = capsys.readouterr().out
    assert f"● its clock is {words} this computer's" in said if words else "clock" not in said
    assert "queue 0 (2 on hold)" in said
