"""What an alias sends on to another server: with a sender of ours, so that SPF passes, and bounces find back."""

from __future__ import annotations

import email
import re
from collections.abc import Iterator

import pytest

from mailops.lab import replica
from tests.e2e.house import House, token, until
from tests.e2e.test_sent_on import suspect

USER1, STRANGER = "user1@example.test", "stranger@elsewhere.test"
AWAY, BOTH, NOWHERE = "away@example.test", "also-away@example.test", "nowhere@example.test"
ALIASES = {AWAY: (STRANGER,), BOTH: (USER1, STRANGER), NOWHERE: ("no-such-person@elsewhere.test",)}
SRS = re.compile(rb"Return-Path: <(SRS0=[^>]+@example\.test)>")
# A server that refuses what SPF does not allow (policyd-spf(1)); it asks the lab's DNS.
JUDGE = """set -e
[ -e /usr/bin/policyd-spf ] || { apt-get -yqq update
    apt-get -yqq -o DPkg::Lock::Timeout=60 install --no-install-recommends postfix-policyd-spf-python; }
postconf -M 'judge/unix=judge unix - n n - 0 spawn user=nobody argv=/usr/bin/policyd-spf'
judge='check_policy_service unix:private/judge'
postconf "smtpd_recipient_restrictions=permit_mynetworks,reject_unauth_destination,$judge"
postfix reload
"""
NO_JUDGE = "postconf -X smtpd_recipient_restrictions; postconf -MX judge/unix; postfix reload"
SAYS_IT_IS_ANOTHER = """
import smtplib
with smtplib.SMTP("mx.elsewhere.test") as client:
    client.ehlo("mail.example.test")
    client.mail("stranger@elsewhere.test")
    print(*client.rcpt("stranger@elsewhere.test"))
"""


@pytest.fixture
def aliases(up: House) -> Iterator[House]:
    add = [f"mailcfg addalias {alias} {there}" for alias, all_ in ALIASES.items() for there in all_]
    up.run("mail", " && ".join(add))
    try:
        yield up
    finally:
        up.run("mail", "; ".join(f"mailcfg rmalias {alias}" for alias in ALIASES))


@pytest.fixture
def strict(aliases: House) -> Iterator[House]:
    """The stranger's server refuses what SPF does not allow."""
    aliases.run("outside", JUDGE)
    try:
        yield aliases
    finally:
        aliases.run("outside", NO_JUDGE)


def sender_of(raw: bytes) -> str:
    found = SRS.search(raw)
    assert found, raw
    return found[1].decode()


def bounce_about(house: House, subject: str) -> bytes:
    """The stranger's mailbox has a report that what had this subject was not delivered."""
    of_it = f"grep -rlF 'Subject: {subject}' /home/stranger/Maildir/new"
    script = f"{of_it} | xargs -r grep -lF 'Subject: Undelivered' | head -1"
    path = until(lambda: house.run("outside", script).strip(), 60, f"a bounce of {subject}")
    return (replica.root_path(house.lab, "outside") / path.lstrip("/")).read_bytes()


def is_with_the_stranger(house: House, subject: str) -> bool:
    """Asked once what was sent after it has arrived there."""
    house.stranger_reads(house.stranger_sends(AWAY))
    return bool(house.run("outside", f"grep -rl {subject} /home/stranger/Maildir || true"))


def test_what_an_alias_sends_on_passes_spf_at_a_strict_receiver(strict: House) -> None:
    refused = until(
        lambda: (said := strict.run("mail", "python3 -", stdin=SAYS_IT_IS_ANOTHER)).startswith("550") and said,
        20,
        "a receiver that insists on SPF",
    )
    assert "SPF" in refused
    raw = strict.stranger_reads(strict.stranger_sends(AWAY))
    sender_of(raw)
    assert re.search(rb"(?i)^Received-SPF: Pass", raw, re.MULTILINE)
    back = strict.stranger_sends(NOWHERE)
    bounce_about(strict, back)


def test_only_what_leaves_is_rewritten_and_only_a_strangers(aliases: House) -> None:
    both = aliases.stranger_sends(BOTH)
    assert aliases.arrives(USER1, both)["Return-Path"] == f"<{STRANGER}>"
    sender_of(aliases.stranger_reads(both))
    own = aliases.submit(USER1, AWAY)
    assert f"Return-Path: <{USER1}>".encode() in aliases.stranger_reads(own)
    from_a_machine = token()
    aliases.run("backup", f"sendmail {AWAY}", stdin=f"Subject: {from_a_machine}\n\nDone.\n")
    assert b"Return-Path: <root@backup.example.test>" in aliases.stranger_reads(from_a_machine)
    bounce = token()
    message = f"From: mailer-daemon@mx.elsewhere.test\nSubject: {bounce}\n\nNot delivered.\n"
    aliases.run("outside", f"sendmail -f '' {AWAY}", stdin=message)
    assert b"Return-Path: <>" in aliases.stranger_reads(bounce)


def test_a_later_bounce_goes_to_who_wrote_and_a_made_up_one_to_nobody(aliases: House) -> None:
    address = sender_of(aliases.stranger_reads(aliases.stranger_sends(AWAY)))
    subject = token()
    message = f"From: mailer-daemon@mx.elsewhere.test\nTo: {address}\nSubject: {subject}\n\nThe mailbox is full.\n"
    aliases.run("outside", f"sendmail -f '' {address.lower()}", stdin=message)
    raw = aliases.stranger_reads(subject)
    assert b"X-Original-To: stranger@elsewhere.test" in raw
    assert b"Return-Path: <>" in raw
    name = address.partition("@")[0]
    for wrong in (name.replace("stranger", "victim"), name[:6] + "AAAAAAA" + name[13:], "SRS0=x", "SRS1=x"):
        done = aliases.swaks("--from", "<>", "--to", f"{wrong}@example.test", "--quit-after", "RCPT")
        assert "<** 550 5.1.1" in done.stdout, done.stdout


@pytest.fixture
def catch_all(aliases: House) -> Iterator[House]:
    aliases.run("mail", f"mailcfg addalias @example.test {USER1}")
    try:
        yield aliases
    finally:
        aliases.run("mail", "mailcfg rmalias @example.test")


def test_an_alias_for_a_whole_domain_does_not_have_what_is_made_up(catch_all: House) -> None:
    for name, code in (("SRS0=x", "550 5.1.1"), ('"srs1=a=b==c"', "550 5.1.1"), ("anybody", "250")):
        done = catch_all.swaks("--from", "<>", "--to", f"{name}@example.test", "--quit-after", "RCPT")
        assert re.search(rf"<(\*\*|- ) {code}", done.stdout), done.stdout


@pytest.mark.parametrize("sender", ['""@elsewhere.test', '"a b"@elsewhere.test'])
def test_an_odd_sender_gets_its_bounce_like_any_other(aliases: House, sender: str) -> None:
    subject = token()
    about = ["--header", f"From: {STRANGER}", "--header", f"Subject: {subject}"]
    assert not aliases.swaks("--from", sender, "--to", AWAY, *about).returncode
    address = email.message_from_bytes(aliases.stranger_reads(subject))["Return-Path"][1:-1]
    bounce = aliases.swaks("--from", "<>", "--to", address, "--header", "From: mailer-daemon@mx.elsewhere.test")
    number = bounce.stdout.partition("queued as ")[2].split()[0]
    until(
        lambda: f"{number}: to=<{sender}>" in aliases.run("mail", "journalctl -o cat -n 300"), 20, "the bounce to leave"
    )


def test_a_loop_between_two_servers_ends_and_the_stranger_is_told(aliases: House) -> None:
    aliases.run("mail", "mailcfg addalias loop@example.test loop@elsewhere.test")
    replica.publish(aliases.lab, [("_dmarc.elsewhere.test", "TXT", "v=DMARC1; p=none")])  # or it ends at once
    back = "virtual_alias_maps=inline:{loop@elsewhere.test=loop@example.test}"
    aliases.run("outside", f"postconf '{back}' hopcount_limit=12; postfix reload")
    try:
        subject = aliases.stranger_sends("loop@example.test")
        report = email.message_from_bytes(bounce_about(aliases, subject))
        assert "too many hops" in report.as_string()
    finally:
        aliases.run("outside", "postconf -X virtual_alias_maps hopcount_limit; postfix reload")
        replica.unpublish(aliases.lab, [("_dmarc.elsewhere.test", "TXT")])
        aliases.run("mail", "mailcfg rmalias loop@example.test")


def test_spam_is_refused_where_an_alias_leads_elsewhere_alone(aliases: House) -> None:
    subject, sender = token(), "somebody@suspect.elsewhere.test"
    with suspect(aliases, "suspect.elsewhere.test"):
        done = aliases.swaks("--from", sender, "--to", f"{AWAY},{USER1}", "--header", f"Subject: {subject}")
        bounce = aliases.swaks("--from", "<>", "--to", BOTH, "--header", f"From: {sender}")
    assert re.search(r"<\*\* 5.*no spam is sent on", done.stdout), done.stdout
    assert re.search(r"<\*\* 5.*no spam is sent on", bounce.stdout), "it would leave without that round"
    assert not is_with_the_stranger(aliases, subject)


def test_spam_by_its_score_alone_is_refused_as_well(aliases: House) -> None:
    subject, domain = token(), "suspect.elsewhere.test"
    data = f"From: somebody@{domain}\\nSubject: {subject}\\n\\nNo date, no Message-ID, no SPF.\\n"
    with suspect(aliases, domain, policy="none"):
        taken = aliases.swaks("--from", f"somebody@{domain}", "--to", USER1, "--data", data)
        refused = aliases.swaks("--from", f"somebody@{domain}", "--to", AWAY, "--data", data)
    assert taken.returncode == 0, taken.stdout
    aliases.arrives(USER1, subject, folder="Junk")
    assert re.search(r"<\*\* 5.*no spam is sent on", refused.stdout), refused.stdout


def test_spam_for_a_mailbox_and_elsewhere_is_in_junk_and_not_sent_on(aliases: House) -> None:
    subject, sender = token(), "somebody@suspect.elsewhere.test"
    with suspect(aliases, "suspect.elsewhere.test"):
        done = aliases.swaks("--from", sender, "--to", BOTH, "--header", f"Subject: {subject}")
    assert done.returncode == 0, done.stdout
    aliases.arrives(USER1, subject, folder="Junk")
    assert not is_with_the_stranger(aliases, subject)


def test_the_secret_is_in_the_vault_for_its_program_alone_and_stays(house: House) -> None:
    look = "stat -c '%a %U %G %s %i' /vault/srs/secret"
    before = house.run("mail", look)
    assert before.startswith("640 root mailops-srs 32 ")
    house.fab("-H", "mail", "bootstrap")
    assert house.run("mail", look) == before
    house.run("mail", "mv /vault/srs/secret /vault/srs/kept")
    try:
        pushed = house.fab("-H", "mail", "push", check=False)
    finally:
        house.run("mail", "mv /vault/srs/kept /vault/srs/secret")
    assert pushed.returncode
    assert "✗ SRS: /vault/srs/secret is not there" in pushed.stderr
    assert house.fab("-H", "mail", "push").returncode == 0
