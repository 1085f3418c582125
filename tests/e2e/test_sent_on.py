"""What a user's sieve script sends on: a stranger's words, which are not ours to sign, and the user answers for it."""

from __future__ import annotations

import email.utils
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mailops.lab import replica
from tests.e2e.house import House, token

USER1, USER2, STRANGER = "user1@example.test", "user2@second.test", "stranger@elsewhere.test"
HOME = "/vault/mail/example.test/user1"
SIGNATURE = re.compile(rb"(?im)^DKIM-Signature:")
SCRIPT = """require ["copy", "vacation", "reject", "enotify", "variables"];
if header :is "X-Ask" "no" { reject "Not today."; stop; }
if allof (header :is "X-Ask" "tell", header :matches "Subject" "*") {
    notify :message "Told: ${1}" "mailto:stranger@elsewhere.test"; stop;
}
redirect :copy "stranger@elsewhere.test";
if header :is "X-Ask" "yes" { vacation :addresses "user1@example.test" "I am away."; }
"""


@contextmanager
def suspect(house: House, domain: str, policy: str = "quarantine") -> Iterator[None]:
    """Rspamd takes mail of this domain for spam meanwhile, and does not refuse it."""
    records = [(domain, "TXT", "v=spf1 -all"), (f"_dmarc.{domain}", "TXT", f"v=DMARC1; p={policy}")]
    replica.publish(house.lab, records)
    try:
        yield
    finally:
        replica.unpublish(house.lab, [(name, kind) for name, kind, _ in records])


@pytest.fixture
def sending_on(up: House) -> Iterator[House]:
    up.run("mail", f"install -d -m 700 -o vmail -g vmail {HOME}; rm -rf {HOME}/.dovecot.*")
    up.run("mail", f"cat >{HOME}/.dovecot.sieve; chown vmail:vmail {HOME}/.dovecot.sieve", stdin=SCRIPT)
    try:
        yield up
    finally:
        up.run("mail", f"rm -rf {HOME}/.dovecot.*")


def test_a_redirect_is_not_signed_and_names_the_user_in_its_envelope(sending_on: House) -> None:
    """A message from outside in the name of one of our domains, which its SPF allows just now."""
    sending_on.run("mail", f"mailcfg addalias away@example.test {STRANGER}")
    record = f"v=spf1 mx ip4:{sending_on.address('outside')} -all"
    replica.publish(sending_on.lab, [("example.test", "TXT", record)])
    try:
        redirected = sending_on.stranger_sends(USER1, sender="admin@example.test")
        forwarded = sending_on.stranger_sends("away@example.test", sender="admin@example.test")
        raw = sending_on.stranger_reads(redirected)
        assert f"Return-Path: <{USER1}>".encode() in raw
        for text in (raw, sending_on.stranger_reads(forwarded)):
            assert not SIGNATURE.search(text)
    finally:
        replica.unpublish(sending_on.lab, [("example.test", "TXT")])
        sending_on.run("mail", "mailcfg rmalias away@example.test")
    own = sending_on.submit("admin@example.test", USER1)
    signed = sending_on.arrives(USER1, own)
    assert "d=example.test" in signed["DKIM-Signature"], "what one of us wrote is signed, as ever"


def test_spam_is_not_sent_on(sending_on: House) -> None:
    domain, spam = "suspect.elsewhere.test", token()
    with suspect(sending_on, domain):
        sending_on.swaks("--from", f"a@{domain}", "--to", USER1, "--header", f"Subject: {spam}")
    sending_on.arrives(USER1, spam, folder="Junk")
    sending_on.stranger_reads(sending_on.stranger_sends(USER1))  # what came after it has arrived
    assert not sending_on.run("outside", f"grep -rl {spam} /home/stranger/Maildir || true")


def test_a_bounce_is_sent_on_as_a_bounce(sending_on: House) -> None:
    subject = token()
    message = f"From: <mailer-daemon@mx.elsewhere.test>\\nTo: {USER1}\\nSubject: {subject}\\n"
    message += f"Date: {email.utils.formatdate()}\\nMessage-ID: <{token()}@elsewhere.test>\\n\\nNot delivered.\\n"
    sending_on.run("outside", f"printf '{message}' | sendmail -f '' {USER1}")
    assert b"Return-Path: <>" in sending_on.stranger_reads(subject)


@pytest.mark.parametrize(
    ("ask", "answer", "sender"),
    [("yes", "Auto: {}", "<>"), ("no", "Rejected: {}", "<>"), ("tell", "Told: {}", f"<{USER1}>")],
    ids=["vacation", "reject", "notify"],
)
def test_an_answer_that_a_script_gives_is_not_signed(sending_on: House, ask: str, answer: str, sender: str) -> None:
    subject = token()
    message = f"From: {STRANGER}\nTo: {USER1}\nSubject: {subject}\nX-Ask: {ask}\n\nHello?\n"
    sending_on.run("outside", f"sendmail -f {STRANGER} {USER1}", stdin=message)
    raw = sending_on.stranger_reads(answer.format(subject))
    assert not SIGNATURE.search(raw)
    assert f"Return-Path: {sender}".encode() in raw


def test_spam_gets_no_answer_to_whom_it_claims_to_be_from(sending_on: House) -> None:
    subject, domain = token(), "suspect.elsewhere.test"
    with suspect(sending_on, domain):
        about = ["--header", f"Subject: {subject}", "--header", "X-Ask: no"]
        sending_on.swaks("--from", f"{subject}@{domain}", "--to", USER1, *about)
    sending_on.arrives(USER1, subject, folder="Junk")
    sending_on.stranger_reads(sending_on.stranger_sends(USER1))  # what came after it has been sent on
    assert f"from=<{subject}@" in (log := sending_on.run("mail", f"journalctl -o cat | grep {subject}"))
    assert f"to=<{subject}@" not in log


FORGED = """require ["vacation", "enotify"];
if header :is "X-Ask" "vacation" {{ vacation :handle "a" :subject "{0}" :from "The Boss <admin@example.test>" "Pay."; }}
elsif header :is "X-Ask" "mime" {{ vacation :handle "b" :mime "From: admin@example.test\r\nSubject: {0}\r\n\r\nPay."; }}
elsif header :is "X-Ask" "notify" {{ notify :from "admin@example.test" :message "{0}" "mailto:{2}"; }}
elsif header :is "X-Ask" "outside" {{ notify :from "a@elsewhere.test" :message "{0}" "mailto:{2}"; }}
else {{ vacation :handle "c" :subject "{1}" :from "Sales <sales@example.test>" "I am away."; }}
"""


def test_a_script_writes_in_nobody_elses_name(sending_on: House) -> None:
    forged, own, kept = token(), token(), []
    sending_on.run("mail", f"cat >{HOME}/.dovecot.sieve", stdin=FORGED.format(forged, own, USER2))
    for ask in ("vacation", "mime", "notify", "outside", "as one may"):
        kept.append(token())
        message = f"From: {STRANGER}\nTo: {USER1}\nSubject: {kept[-1]}\nX-Ask: {ask}\n\nHello?\n"
        sending_on.run("outside", f"sendmail -f {STRANGER} {USER1}", stdin=message)
    answer = sending_on.stranger_reads(own)
    assert b"From: Sales <sales@example.test>" in answer
    assert b"user1" not in answer, "whose alias it is"
    for subject in kept:
        sending_on.arrives(USER1, subject)
    sending_on.arrives(USER2, sending_on.submit(USER1, USER2))  # what came before it has arrived
    for folder in ("INBOX", "Junk"):
        assert not sending_on.messages(USER2, forged, folder)
    assert not sending_on.run("outside", f"grep -rl {forged} /home/stranger/Maildir || true")
    said = sending_on.run("mail", f"cat {HOME}/.dovecot.sieve.log")
    assert f"From admin@example.test is not an address of {USER1}" in said
