"""In whose name a stranger may write: DMARC, for others' domains and for our own, whatever is in the DNS."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import dkim
import pytest

from mailops.lab import replica
from tests.e2e.house import House, token
from tests.e2e.test_dkim import public_half
from tests.e2e.test_from_outside import say_message

USER1, STRANGER = "user1@example.test", "stranger@elsewhere.test"
ELSEWHERE = "somebody@nowhere.test"  # a sender who is in no DNS


def message(subject: str, *head: str) -> bytes:
    lines = [*head, f"To: {USER1}", f"Subject: {subject}", "Date: Fri, 27 Nov 2026 11:00:00 +0000"]
    text = "\r\n".join([*lines, f"Message-ID: <{token()}@x.test>", "", "Please pay the invoice of today, thank you."])
    return text.encode("latin-1")


def reply(house: House, *head: str, sender: str = STRANGER, subject: str = "") -> str:
    return say_message(house, USER1, message(subject or token(), *head), sender)[-2].strip()


@contextmanager
def published(house: House, *records: tuple[str, str]) -> Iterator[None]:
    """TXT records, for a while."""
    replica.publish(house.lab, [(name, "TXT", text) for name, text in records])
    try:
        yield
    finally:
        replica.unpublish(house.lab, [(name, "TXT") for name, _ in records])


def sign(house: House, raw: bytes, domain: str = "elsewhere.test") -> tuple[bytes, tuple[str, str]]:
    """The message signed by dkimpy, and the record of the key, by a name that nobody has asked for before: Rspamd keeps
    the keys that it has found."""
    selector = f"theirs-{token()}"
    generate = ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]
    private = subprocess.run(generate, capture_output=True, check=True).stdout
    signed = dkim.sign(raw, selector.encode(), domain.encode(), private, include_headers=[b"from", b"subject"]) + raw
    return signed, (f"{selector}._domainkey.{domain}", f"v=DKIM1; k=rsa; p={public_half(private)}")


@pytest.mark.parametrize("sender", ["", STRANGER, "admin@example.test"])
@pytest.mark.parametrize(
    "address",
    [
        "admin@example.test",
        "user2@second.test",
        "root@backup.example.test",
        "root@mail.example.test",
        "a@sub.second.test",
    ],
)
def test_a_stranger_in_our_name_is_refused_and_told_why(up: House, address: str, sender: str) -> None:
    said = reply(up, f"From: The Boss <{address}>", sender=sender)
    assert said.startswith("554 5.7.1 mail from ")
    assert address.partition("@")[2] in said


def test_a_domain_counts_as_ours_as_long_as_it_is_added(up: House) -> None:
    def say() -> str:
        return reply(up, "From: boss@added.test", sender="")

    assert say().startswith("250")
    up.fab("domain.add", "added.test")
    try:
        assert say().startswith("554 5.7.1 mail from added.test needs")
    finally:
        up.fab("domain.rm", "added.test")
    assert say().startswith("250")


TRICKS = (
    "From: ADMIN@Example.TEST",
    "From: admin(x)@(y)example.test",
    "From: admin @ example . test",
    "From: admin@example.test.",
    'From:\r\n "admin"@example.test',
    "From: <@elsewhere.test:admin@example.test>",
    "From: admin@example.test\0",
    f"From: {STRANGER}; admin@example.test",
    "X-First: 1\r\nFrom : admin@example.test",
    f"From: {STRANGER}, admin@example.test",
    f"From: admin@example.test, {STRANGER}",
    f"From: <{STRANGER}> <admin@example.test>",
    f"From: {STRANGER}\r\nFrom: admin@example.test",
    f"From: admin@example.test\r\nfrom: {STRANGER}",
    "From: admin",
    "From: The Boss <>",
    "From: admin@example..test",
    "From: admin@127.0.0.1",
    "From: admin@[127.0.0.1]",
    "From: admin@[127.0.0.1] (x)",
    "From: The Boss <admin@[127.0.0.1]>",
    "From: =?utf-8?q?admin=40example=2Etest?=",
    "From: undisclosed: admin@example.test;",
    "From: admin@example.test\r\nList-Id: <list.elsewhere.test>",  # a list must not change our policy
)


def test_no_way_of_writing_it_gets_through(up: House) -> None:
    replies = {trick: reply(up, trick) for trick in TRICKS}
    assert {trick: said for trick, said in replies.items() if said[:2] != "55"} == {}


BOUNCES = (
    "From: MAILER-DAEMON <>",  # dma
    "From: MAILER-DAEMON",
    "From: <MAILER-DAEMON>",
    "From: Mail Delivery System <MAILER-DAEMON>",
    "From: Mail Delivery Subsystem <MAILER-DAEMON@[192.0.2.1]>",
    "From: MAILER-DAEMON@(none)",
    "From: Postmaster <MAILER-DAEMON@192.0.2.1>",
)
NO_BOUNCES = ("From: =?utf-8?q?admin=40example=2Etest?=", "From: admin@(x)example.test")


def test_a_bounce_of_another_system_does_not_vanish(up: House) -> None:
    """It has no sender who would be told of a refusal. In Junk it is, as anybody can write one."""
    subjects = {head: token() for head in BOUNCES}
    replies = {head: reply(up, head, sender="", subject=subject) for head, subject in subjects.items()}
    assert {head: said for head, said in replies.items() if not said.startswith("250")} == {}
    up.arrives(USER1, subjects[BOUNCES[-1]], "Junk")
    assert [head for head, subject in subjects.items() if not up.messages(USER1, subject, "Junk")] == []
    assert {head for head in NO_BOUNCES if not reply(up, head, sender="").startswith("55")} == set()


IDN = (
    "From: Boss <boss@bücher.test>",
    "From: boss@BÜCHER.TEST",
    "From: Boss <boss@bücher.test>".encode("latin-1"),
    "From: boss@sub.bücher.test",
    "From: Boss <=?utf-8?q?boss=40b=C3=BCcher=2Etest?=>",
    "From: =?utf-8?q?boss=40b=C3=BCcher=2Etest?=",
    "From: Boss <boss@=?utf-8?q?b=C3=BCcher=2Etest?=>",
    "From: Boss <boss@bu\u0308cher.test>",
    "From: Boss <boss@bücher\uff0etest>",
    "From: boss@xn--bcher-kva.test",
)


def test_a_domain_in_other_letters_than_mail_has_is_refused(up: House) -> None:
    up.fab("domain.add", "bücher.test")
    try:
        replies = {}
        for head in IDN:
            raw = message(token(), "From: -").replace(b"From: -", head if isinstance(head, bytes) else head.encode())
            replies[head] = say_message(up, USER1, raw, STRANGER)[-2].strip()
    finally:
        up.fab("domain.rm", "bücher.test")
    assert {head: said for head, said in replies.items() if said[:2] != "55"} == {}
    assert "must be ASCII" in replies[IDN[0]]


def test_a_name_may_have_what_an_address_may_not(up: House) -> None:
    names = ('"Sales @ [Firm]"', "Sales @ [Firm]", "=?utf-8?q?Sales_=40_[Firm]?=", '"a \\" @[b]"', "Jürgen")
    replies = {name: reply(up, f"From: {name} <{STRANGER}>") for name in names}
    assert {name: said for name, said in replies.items() if not said.startswith("250")} == {}


SHOWN = (
    'From: "admin@example.test" <{}>',
    "From: admin@example.test <{}>",
    "From: =?utf-8?q?admin=40example.test?= <{}>",
    "From: {} (admin@example.test)",
    'From: "admin@(x)example.test" <{}>',
    'From: "admin\uff20example.test" <{}>',
    'From: "admin@exam\u200bple.test" <{}>',
    "From: =?utf-8?q?boss=40b=C3=BCcher=2Etest?= <{}>",
    "From: =?utf-8?q?boss=40B=C3=9CCHER=2Etest?= <{}>",
    'From: "boss@bu\u0308cher.test" <{}>',
    'From: "boss@xn--bcher-kva.test" <{}>',
    b'From: "boss@b\xfccher.test" <{}>',
    "From: {}\r\nSender: The Boss <admin@example.test>",
    "From: {}\r\nSender: =?utf-8?q?admin=40example.test?= <{}>",
    "From: {}\r\nResent-From: boss@xn--bcher-kva.test",
    "Sender: admin@example.test",
    "From: admin@example\r\n .test",
    "From: root@localhost",
    "From: root@mail.local",
)


def test_our_address_for_show_is_filed_into_junk(up: House) -> None:
    """In a name, or in the headers that clients show beside From; and what our machines call themselves at home."""
    up.fab("domain.add", "bücher.test")
    subjects = {}
    try:
        for shown in SHOWN:
            head = shown if isinstance(shown, bytes) else shown.encode()
            subjects[shown] = token()
            raw = message(subjects[shown], "From: -").replace(b"From: -", head.replace(b"{}", STRANGER.encode()))
            assert say_message(up, USER1, raw, STRANGER)[-2].startswith("250"), shown
    finally:
        up.fab("domain.rm", "bücher.test")
    up.arrives(USER1, subjects[SHOWN[-1]], "Junk")
    assert [shown for shown, subject in subjects.items() if not up.messages(USER1, subject, "Junk")] == []


def test_a_sender_of_ours_that_our_signature_confirms_is_no_show(up: House) -> None:
    """By way of somebody else's server."""
    subject = token()
    head = ("From: admin@example.test", "Sender: user1@example.test")
    signed, record = sign(up, message(subject, *head), "example.test")
    with published(up, record):
        assert say_message(up, USER1, signed, ELSEWHERE)[-2].startswith("250")
    up.arrives(USER1, subject)


def test_our_policy_holds_without_a_record_and_is_the_records_if_there_is_one(up: House) -> None:
    with published(up, ("_dmarc.example.test", "nothing")):
        assert reply(up, "From: admin@example.test").startswith("554 5.7.1 mail from example.test needs")
    with published(up, ("_dmarc.example.test", "v=DMARC1; p=quarantine")):
        subject = token()
        assert reply(up, "From: admin@example.test", subject=subject).startswith("250")
        up.arrives(USER1, subject, "Junk")


def test_others_policies_are_followed(up: House) -> None:
    records = (
        ("_dmarc.second.elsewhere.test", "v=DMARC1; p=quarantine"),
        ("_dmarc.third.elsewhere.test", "v=DMARC1; p=none"),
    )
    head = "From: a@{}.elsewhere.test"
    said = reply(up, "From: boss@elsewhere.test", sender=ELSEWHERE)
    assert said.startswith("554 5.7.1 elsewhere.test wants mail refused")
    with published(up, *records):
        quarantined, none = token(), token()
        assert reply(up, head.format("second"), sender=ELSEWHERE, subject=quarantined).startswith("250")
        assert reply(up, head.format("third"), sender=ELSEWHERE, subject=none).startswith("250")
        up.arrives(USER1, quarantined, "Junk")
        up.arrives(USER1, none)


def test_a_lists_copy_of_refused_mail_is_filed_into_junk(up: House) -> None:
    """Lists change what others wrote. One whose name nothing confirms is no list."""
    records = (
        ("_dmarc.author.elsewhere.test", "v=DMARC1; p=reject; adkim=s; aspf=s"),
        ("list.elsewhere.test", "v=spf1 a:mx.elsewhere.test -all"),
    )
    head = ("From: a@author.elsewhere.test", "List-Id: Talk <talk.list.elsewhere.test>")
    with published(up, *records):
        subject = token()
        said = reply(up, *head, sender="bounces@list.elsewhere.test", subject=subject)
        assert said.startswith("250"), said
        up.arrives(USER1, subject, "Junk")
        assert reply(up, *head, sender=ELSEWHERE).startswith("554 5.7.1 author.elsewhere.test wants mail refused")


def test_a_valid_signature_survives_a_forward(up: House) -> None:
    """From elsewhere.test by way of a machine that its SPF does not know; and our own mail the same way."""
    for address in ("boss@elsewhere.test", "admin@example.test"):
        subject = token()
        signed, record = sign(up, message(subject, f"From: {address}"), address.partition("@")[2])
        with published(up, record):
            assert say_message(up, USER1, signed, ELSEWHERE)[-2].startswith("250")
        up.arrives(USER1, subject)


def test_an_spf_record_that_cannot_be_followed_refuses_nothing(up: House) -> None:
    """The domain refers to one whose name servers are away: neither pass nor fail (RFC 7208, 2.6.6)."""
    doubts = (
        "include:spf.broken.test -all",
        "a:spf.broken.test -all",
        "mx:spf.broken.test -all",
        "exists:%{i}.broken.test -all",
        "redirect=spf.broken.test",
        "include:{}.second.elsewhere.test -all",
        "include:spf.broken.test -ip4:10.0.0.0/8",
        "ip4:192.0.2.1 include:spf.broken.test",
    )
    answers = {}
    for record in (*doubts, "include:mail.example.test -all"):
        key, subject = token(), token()  # a name of which nothing is remembered
        name, rest = f"{key}.elsewhere.test", record.replace("{}", key)
        with published(
            up,
            (name, f"v=spf1 {rest}"),
            (f"{key}.second.elsewhere.test", "v=spf1 include:spf.broken.test -all"),
            (f"_dmarc.{name}", "v=DMARC1; p=reject"),
        ):
            answers[rest] = reply(up, f"From: sales@{name}", sender=f"sales@{name}", subject=subject)
    *doubtful, known = answers.values()
    assert known.startswith("554"), known
    assert [said for said in doubtful if not said.startswith("250")] == [], answers


def test_a_signature_whose_key_cannot_be_asked_for_refuses_nothing(up: House) -> None:
    """Nor does a policy that nobody can be asked for."""
    for domain in ("broken.elsewhere.test", "broken.test"):
        subject = token()
        signed, _ = sign(up, message(subject, f"From: sales@{domain}"), domain)
        with published(up, ("_dmarc.broken.elsewhere.test", "v=DMARC1; p=reject")):
            assert say_message(up, USER1, signed, ELSEWHERE)[-2].startswith("250"), domain
        up.arrives(USER1, subject)
