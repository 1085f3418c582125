"""What a user's sieve script sends on: a stranger's words, which are not ours to sign, and the user answers for it."""

from __future__ import annotations

import email.utils
import re
from collections.abc import Iterator

import pytest

from tests.e2e.house import House, token

USER1, STRANGER = "user1@example.test", "stranger@elsewhere.test"
HOME = "/vault/mail/example.test/user1"
SCRIPT = """require ["copy", "vacation"];
redirect :copy "stranger@elsewhere.test";
if header :is "X-Ask" "yes" { vacation :addresses "user1@example.test" "I am away."; }
"""


@pytest.fixture
def sending_on(up: House) -> Iterator[House]:
    up.run("mail", f"install -d -m 700 -o vmail -g vmail {HOME}; rm -rf {HOME}/.dovecot.*")
    up.run("mail", f"cat >{HOME}/.dovecot.sieve; chown vmail:vmail {HOME}/.dovecot.sieve", stdin=SCRIPT)
    try:
        yield up
    finally:
        up.run("mail", f"rm -rf {HOME}/.dovecot.*")


def test_a_redirect_is_not_signed_and_names_the_user_in_its_envelope(sending_on: House) -> None:
    subject = sending_on.stranger_sends(USER1)
    raw = sending_on.stranger_reads(subject)
    assert f"Return-Path: <{USER1}>".encode() in raw
    assert not re.search(rb"(?im)^DKIM-Signature:", raw)
    own = sending_on.submit("admin@example.test", USER1)
    assert b"d=example.test" in sending_on.stranger_reads(own), "what one of us wrote is signed, as ever"


def test_a_bounce_is_sent_on_as_a_bounce(sending_on: House) -> None:
    subject = token()
    message = f"From: <mailer-daemon@mx.elsewhere.test>\\nTo: {USER1}\\nSubject: {subject}\\n"
    message += f"Date: {email.utils.formatdate()}\\nMessage-ID: <{token()}@elsewhere.test>\\n\\nNot delivered.\\n"
    sending_on.run("outside", f"printf '{message}' | sendmail -f '' {USER1}")
    assert b"Return-Path: <>" in sending_on.stranger_reads(subject)


def test_an_answer_that_a_script_gives_is_not_signed(sending_on: House) -> None:
    subject = token()
    message = f"From: {STRANGER}\\nTo: {USER1}\\nSubject: {subject}\\nX-Ask: yes\\n\\nHello?\\n"
    sending_on.run("outside", f"printf '{message}' | sendmail -f {STRANGER} {USER1}")
    raw = sending_on.stranger_reads(f"Auto: {subject}")
    assert not re.search(rb"(?im)^DKIM-Signature:", raw)
