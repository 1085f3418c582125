"""Which of a daemon's log lines a report shows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mailops.remote.services import daemon_log


def journal(monkeypatch: pytest.MonkeyPatch, *lines: tuple[str, str, str | list[int]], priority: int = 6) -> None:
    """Lines of a unit, a program, and what it said."""
    entries = [
        {"_SYSTEMD_UNIT": unit, "SYSLOG_IDENTIFIER": program, "MESSAGE": text, "PRIORITY": str(priority)}
        for unit, program, text in lines
    ]

    class Said:
        stdout = "\n".join(json.dumps(entry) for entry in entries)

    def run(*command: str, **more: Any) -> type[Said]:
        return Said

    monkeypatch.setattr(daemon_log, "run", run)


def test_reasons_of_the_unit_alone_each_once_without_our_own_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    unit, smtpd = "postfix@-.service", "postfix/smtpd"
    journal(
        monkeypatch,
        (unit, smtpd, "connect from mail.example.test[10.0.0.1]"),
        (unit, smtpd, 'warning: unknown smtpd restriction: "x"'),
        ("", "postfix/submission/smtpd", 'warning: unknown smtpd restriction: "x"'),  # it died before it was known
        (unit, smtpd, "NOQUEUE: reject: RCPT from a[10.0.0.1]: 554 5.7.1 <probe@foreign.invalid>: Relay access denied"),
        (unit, smtpd, "NOQUEUE: reject: RCPT from b[192.0.2.1]: 550 5.1.1 <x@example.test>: User unknown"),
        (unit, smtpd, "lost connection after RCPT from mail.example.test[10.0.0.1]"),
        (unit, smtpd, "fatal: pid 4711"),
        (unit, smtpd, "fatal: pid 4712"),
        ("dovecot.service", "dovecot", "auth: Error: not asked for"),
    )
    said = ['postfix/smtpd: warning: unknown smtpd restriction: "x"', "postfix/smtpd: fatal: pid 4711"]
    assert daemon_log.since(["postfix.service"], 0) == said
    assert daemon_log.since(["postfix.service"], 0, lines=1) == said[:1]


def test_without_a_reason_the_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    journal(monkeypatch, *(("rspamd.service", "rspamd", f"word {word}") for word in "abc"))
    assert daemon_log.since(["rspamd.service"], 0, lines=2) == ["rspamd: word b", "rspamd: word c"]


def test_a_line_of_priority_warning_is_a_reason_whatever_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    journal(monkeypatch, ("dovecot.service", "dovecot", "oh dear"), priority=4)
    assert daemon_log.since(["dovecot.service"], 0) == ["dovecot: oh dear"]


def test_stamps_passwords_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    journal(
        monkeypatch,
        ("redis-server.service", "redis-server", "88:M 23 Nov 2026 20:23:28.788 # Failed opening Unix socket"),
        ("dovecot.service", "dovecot", "auth: Error: sql(u): Password mismatch (given password: s3cret)"),
        ("dovecot.service", "dovecot", [*b"Error: \xff"]),
    )
    assert daemon_log.since(["redis-server.service", "dovecot.service"], 0) == [
        "redis-server: Failed opening Unix socket",
        "dovecot: auth: Error: sql(u): Password mismatch (given password: …",
        "dovecot: Error: \N{REPLACEMENT CHARACTER}",
    ]


def test_a_death_is_one_after_which_the_daemon_gave_up(monkeypatch: pytest.MonkeyPatch) -> None:
    dying = ("postfix.service", "postfix/smtpd", "fatal: bad numerical configuration: x = many")
    gave_up = ("postfix.service", "postfix/master", "warning: /usr/sbin/smtpd: bad command startup -- throttling")
    without_dovecot = ("postfix.service", "postfix/smtpd", "fatal: no SASL authentication mechanisms")
    journal(monkeypatch, dying)
    assert daemon_log.death("postfix.service", 0) == ""
    journal(monkeypatch, without_dovecot, gave_up)
    assert daemon_log.death("postfix.service", 0) == ""
    journal(monkeypatch, without_dovecot, dying, gave_up)
    assert daemon_log.death("postfix.service", 0) == f"postfix/smtpd: {dying[2]}"


def test_what_was_said_before_the_last_reload_is_past(monkeypatch: pytest.MonkeyPatch) -> None:
    reload = "master: Warning: SIGHUP received - reloading configuration"
    lines = ["auth: Error: old", reload, "auth: Error: old, too", reload, "auth: Error: new"]
    journal(monkeypatch, *(("dovecot.service", "dovecot", line) for line in lines))
    assert daemon_log.since_reload("dovecot.service") == ["dovecot: auth: Error: new"]
    journal(monkeypatch, ("dovecot.service", "dovecot", "auth: Error: of a reload long ago"))
    assert daemon_log.since_reload("dovecot.service") == []
