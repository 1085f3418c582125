"""What `status` tells of a machine."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mailops.errors import FAILED, LOCKED, UNREACHABLE, MailopsError
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


@pytest.mark.parametrize("unadvised", [[], ["smtp 25"]])
def test_a_machine_that_does_not_say_what_to_do_is_to_be_bootstrapped_whatever_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], unadvised: list[str]
) -> None:
    probes = {"smtp 25": "450 come back next week", "SRS": "it is too short"}
    told = hostile.HONEST["status"] | {"probes": probes, "unadvised": unadvised, "upgraded": ""}
    screen.show(pretend.site(monkeypatch, tmp_path, lambda *_: told, "mail"))
    assert ("which starts afresh what does not answer" in capsys.readouterr().out) == bool(unadvised)


@pytest.mark.parametrize("torn", [[], ["dovecot-core"]])
def test_what_dpkg_cannot_finish_is_to_be_reinstalled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], torn: list[str]
) -> None:
    told = hostile.HONEST["status"] | {"torn": torn}
    screen.show(pretend.site(monkeypatch, tmp_path, lambda *_: told, "mail"))
    assert ("apt-get install --reinstall" in capsys.readouterr().out) == bool(torn)


@pytest.mark.parametrize(("hours", "words"), [(3, "3 h 0 min ahead of"), (-49, "2 d behind"), (0, "")])
def test_a_clock_that_is_far_off_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], hours: int, words: str
) -> None:
    told = hostile.HONEST["status"] | {"now": time.time() + hours * 3600 + 1, "held": 2, "oldest": None}
    screen.show(pretend.site(monkeypatch, tmp_path, lambda *_: told, "mail"))
    said = capsys.readouterr().out
    assert f"● its clock is {words} this computer's" in said if words else "clock" not in said
    assert "queue 0 (2 on hold)" in said


def answers(states: dict[str, str]) -> pretend.Agent:
    """Each machine's own state; the others cannot be reached."""

    def agent(name: str, *_: object) -> object:
        if name not in states:
            return MailopsError("no connection", code=UNREACHABLE)
        vault = {"mountpoint": "/vault", "open": states[name] != "locked"}
        return hostile.HONEST["status"] | {"state": states[name], "vault": vault}

    return agent


@pytest.mark.parametrize(
    ("states", "code"),
    [
        ({"mail": "up", "backup": "up"}, 0),
        ({"mail": "locked", "backup": "up"}, LOCKED),
        ({"mail": "locked", "backup": "degraded"}, FAILED),
        ({"mail": "up", "backup": "bare"}, FAILED),
        ({"mail": "locked"}, UNREACHABLE),
    ],
)
def test_a_script_learns_it_from_the_exit_code_and_cron_from_the_words(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    states: dict[str, str],
    code: int,
) -> None:
    c = pretend.site(monkeypatch, tmp_path, answers(states), "mail,backup")
    said = 0
    try:
        screen.show(c, quiet=True)
    except MailopsError as error:
        said = error.code
    assert said == code
    shown = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line[:1].strip()]
    assert shown == [name for name, state in states.items() if state != "up"]


def test_a_locked_machine_shows_what_runs_without_the_vault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = hostile.HONEST["status"] | {"state": "locked", "vault": {"mountpoint": "/vault", "open": False}}
    told |= {"able": ["nginx.service", "acme.service"], "probes": {"http 80": "no answer"}}
    told |= {"services": {"nginx.service": "active", "acme.service": "failed", "postfix.service": "inactive"}}
    with pytest.raises(MailopsError):
        screen.show(pretend.site(monkeypatch, tmp_path, lambda *_: told, "mail"))
    said = capsys.readouterr().out
    assert "mail is off, nginx.service runs all the same; next:" in said
    assert "✗ acme.service is failed; next: fab -H mail bootstrap" in said
    assert "✗ http 80: no answer" in said
    assert "postfix.service is" not in said


def test_why_the_oldest_message_waits_and_how_long_the_certificate_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = time.time()
    told = hostile.HONEST["status"] | {"now": now, "queue": 3, "oldest": {"since": now - 7500, "reason": "no route"}}
    told |= {"certificates": [{"names": ["mail.example.test", "imap.example.test"], "ends": now + 30.5 * 86400}]}
    screen.show(pretend.site(monkeypatch, tmp_path, lambda *_: told, "mail"))
    said = capsys.readouterr().out
    assert "queue 3, oldest 2 h 5 min" in said
    assert "● the oldest message in the queue waits: no route; see: fab -H mail queue" in said
    assert "certificate mail.example.test, imap.example.test 30 d left" in said
    assert "● the kernel x; next, as root there: reboot" in said
