"""DKIM: what leaves is signed, and the keys are changed without a moment at which a signature is worth nothing.

The judges are dkimpy, openssl and dig; the records are looked up in the lab's DNS.
"""

from __future__ import annotations

import base64
import json
import re
import smtplib
import subprocess
from collections.abc import Callable, Iterator
from email import message_from_bytes
from pathlib import Path
from typing import Any

import dkim
import dns.exception
import dns.rdatatype
import dns.resolver
import dns.zonefile
import pytest

from mailops.lab import replica
from tests.e2e.house import House, token

USER1, USER2, STRANGER = "user1@example.test", "user2@second.test", "stranger@elsewhere.test"
DOMAINS = ("example.test", "second.test")
NOW, NEXT = "202611", "202703"  # the selector of the test site, and one that no test but these uses
SIGNING = "/etc/rspamd/local.d/dkim_signing.conf"


# Judges


def lookup(house: House) -> Callable[..., bytes | None]:
    """dkimpy's way to ask for a key: the lab's name server, as the stranger would."""
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers = [house.address("outside")]

    def ask(name: bytes, timeout: float = 5) -> bytes | None:
        try:
            answer = resolver.resolve(name.decode(), "TXT", lifetime=timeout)
        except dns.exception.DNSException:
            return None
        return b"".join(answer[0].strings)

    return ask


def verifies(house: House, raw: bytes) -> bool:
    return bool(dkim.verify(raw, dnsfunc=lookup(house)))


def signature(raw: bytes) -> dict[str, str]:
    """The tags of the one DKIM-Signature of a message."""
    (value,) = message_from_bytes(raw).get_all("DKIM-Signature", [])
    pairs = (part.partition("=") for part in str(value).split(";") if part.strip())
    return {name.strip(): re.sub(r"\s", "", text) for name, _, text in pairs}


def signed_by(raw: bytes) -> tuple[str, str]:
    tags = signature(raw)
    return tags["d"], tags["s"]


def received(house: House, user: str = USER1) -> bytes:
    """A message of `user`, as it reaches the stranger."""
    return house.stranger_reads(house.submit(user, STRANGER))


def record(house: House, domain: str, selector: str) -> tuple[str, str, str]:
    """What an administrator publishes: the name, type and text in the file beside the key."""
    text = house.run("mail", f"cat /vault/dkim/{domain}.{selector}.txt")
    (entry,) = dns.zonefile.read_rrsets(text, rdclass=None, default_ttl=5)
    assert entry.rdtype == dns.rdatatype.TXT
    return entry.name.to_text(omit_final_dot=True), "TXT", b"".join(entry[0].strings).decode()


def public_half(private: bytes) -> str:
    command = ["openssl", "pkey", "-pubout", "-outform", "DER"]
    return base64.b64encode(subprocess.run(command, input=private, capture_output=True, check=True).stdout).decode()


def public_key(house: House, domain: str, selector: str) -> str:
    """What belongs to the private key in the vault, as openssl on this computer sees it."""
    return public_half(house.run("mail", f"cat /vault/dkim/{domain}.{selector}.key").encode())


def dig(house: House, name: str) -> str:
    """The text that the world gets to see under a name, or nothing."""
    return "".join(re.findall(r'"([^"]*)"', house.run("outside", f"dig +short TXT {name}")))


# The site, before and after


def publish(house: House, *selectors: str) -> None:
    replica.publish(house.lab, [record(house, domain, selector) for selector in selectors for domain in DOMAINS])


def unpublish(house: House, *selectors: str) -> None:
    names = [f"{selector}._domainkey.{domain}" for selector in selectors for domain in DOMAINS]
    replica.unpublish(house.lab, [(name, "TXT") for name in names])


@pytest.fixture
def published(up: House) -> Iterator[House]:
    """The keys that sign are in the DNS."""
    publish(up, NOW)
    yield up
    unpublish(up, NOW)


@pytest.fixture
def rotation(published: House) -> Iterator[House]:
    """A house in which keys may be prepared and switched to; afterwards everything is as it was."""
    before = published.hosts_toml.read_bytes()
    yield published
    published.hosts_toml.write_bytes(before)
    published.fab("-H", "mail", "push")
    published.run("mail", f"rm -f /vault/dkim/*.{NEXT}.*")
    unpublish(published, NEXT)
    assert signed_by(received(published)) == ("example.test", NOW)


@pytest.fixture
def prepared(rotation: House) -> House:
    rotation.fab("dkim.prepare", "--selector", NEXT)
    return rotation


class Untouched:
    """Says whether a mailhost signs as before, by the same processes and files, and hosts.toml has the same bytes."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.before = self.look()

    def look(self) -> tuple[bytes, str, str]:
        files = "find /etc /vault/dkim -type f -exec stat -c '%n %Y %Z %s %a' {} + | sort"
        daemons = "for unit in postfix dovecot rspamd; do systemctl show -P MainPID -P StateChangeTimestamp $unit; done"
        reloads = "journalctl -q --no-pager -o cat -u rspamd | grep -c -i reload"
        run = self.house.run
        return self.house.hosts_toml.read_bytes(), run("mail", files), run("mail", f"{daemons}; {reloads}", check=False)

    def now(self) -> bool:
        assert self.look() == self.before
        return signed_by(received(self.house)) == ("example.test", NOW)


# Signatures


@pytest.mark.parametrize(("user", "domain"), [(USER1, "example.test"), (USER2, "second.test")])
def test_a_users_message_carries_a_signature_that_verifies(published: House, user: str, domain: str) -> None:
    raw = received(published, user)
    assert signed_by(raw) == (domain, NOW)
    assert verifies(published, raw)
    assert {"from", "to", "subject", "date"} <= set(signature(raw)["h"].lower().split(":"))
    # The judge is not blind.
    assert not verifies(published, raw.replace(b"Hello.", b"Hallo."))
    assert not verifies(published, raw.replace(f"From: {user}".encode(), b"From: admin@example.test"))


def test_without_the_record_the_signature_proves_nothing(up: House) -> None:
    assert not verifies(up, received(up))


@pytest.mark.parametrize("machine", ["backup", "web"])
def test_the_mail_of_a_null_client_is_signed_for_the_site(published: House, machine: str) -> None:
    subject = token()
    published.run(machine, f"sendmail {STRANGER}", stdin=f"Subject: {subject}\n\nThe backup is done.\n")
    raw = published.stranger_reads(subject)
    assert f"From: root <root@{machine}.example.test>".encode() in raw
    assert signed_by(raw) == ("example.test", NOW)
    assert verifies(published, raw)


def test_the_mail_of_the_mailhosts_own_root_is_signed_for_the_site(published: House) -> None:
    subject = token()
    published.run("mail", f"sendmail {STRANGER}", stdin=f"Subject: {subject}\n\nThe disk is nearly full.\n")
    raw = published.stranger_reads(subject)
    assert signed_by(raw) == ("example.test", NOW)
    assert verifies(published, raw)


@pytest.fixture
def shop(published: House, site: Callable[[Callable[[Any], None]], Path]) -> Iterator[House]:
    """The programs of `web` may write as an address of the site's second domain."""
    allowed = site(lambda document: document["hosts"]["web"].update(senders=["noreply@second.test"]))
    try:
        published.fab("push", site=allowed)
        yield published
    finally:
        published.fab("push")


def test_what_a_machine_may_write_as_is_signed_by_that_domain(shop: House) -> None:
    subject = token()
    shop.run("web", f"sendmail {STRANGER}", stdin=f"From: Shop <noreply@second.test>\nSubject: {subject}\n\nHello.\n")
    raw = shop.stranger_reads(subject)
    assert b"Return-Path: <root@web.example.test>" in raw
    assert signed_by(raw) == ("second.test", NOW)
    assert verifies(shop, raw)


@pytest.mark.parametrize("envelope", [USER1, ""])
def test_a_user_who_writes_as_an_alias_of_another_domain_gets_its_signature(published: House, envelope: str) -> None:
    subject = token()
    text = f"From: both@second.test\r\nTo: {STRANGER}\r\nSubject: {subject}\r\n\r\nHello.\r\n"
    with published.submission() as client:
        client.login(USER1, published.password(USER1))
        client.sendmail(envelope, [STRANGER], text)
    raw = published.stranger_reads(subject)
    assert signed_by(raw) == ("second.test", NOW)
    assert verifies(published, raw)


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_program_of_the_mailhost_gets_the_signature_of_its_from_header(published: House, domain: str) -> None:
    subject = token()
    text = f"From: Shop <shop@{domain}>\nSubject: {subject}\n\nHello.\n"
    published.run("mail", f"sendmail {STRANGER}", stdin=text)
    raw = published.stranger_reads(subject)
    assert b"Return-Path: <root@mail.example.test>" in raw
    assert signed_by(raw) == (domain, NOW)
    assert verifies(published, raw)


def test_nobody_gets_the_signature_of_somebody_elses_domain(published: House) -> None:
    """Neither a stranger who writes in our name, nor a user of one domain in the name of another."""
    subject = token()
    done = published.swaks("--from", "admin@example.test", "--to", USER1, "--header", f"Subject: {subject}")
    assert "554 5.7.1 mail from example.test" in done.stdout  # not even taken
    text = f"From: admin@example.test\r\nTo: {STRANGER}\r\nSubject: forged-{subject}\r\n\r\nHello.\r\n"
    with published.submission() as client:
        client.login(USER2, published.password(USER2))
        with pytest.raises(smtplib.SMTPDataError, match="is not an address of user2") as refused:
            client.sendmail(USER2, [STRANGER], text)
    assert refused.value.smtp_code == 554


def test_a_strangers_signature_is_judged(up: House) -> None:
    """What dkimpy signs for elsewhere.test passes; with another word in it, it fails."""
    generate = ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]
    private = subprocess.run(generate, capture_output=True, check=True).stdout
    replica.publish(up.lab, [("theirs._domainkey.elsewhere.test", "TXT", f"v=DKIM1; k=rsa; p={public_half(private)}")])
    try:
        for word, verdict in (("Hello.", "dkim=pass"), ("Hallo.", "dkim=fail")):
            subject = token()
            text = f"From: {STRANGER}\r\nTo: {USER1}\r\nSubject: {subject}\r\n\r\nHello.\r\n".encode()
            signed = dkim.sign(
                text, b"theirs", b"elsewhere.test", private, include_headers=[b"from", b"to", b"subject"]
            )
            message = (signed + text).decode().replace("\r\n", "\n").replace("Hello.", word)
            up.run("outside", f"sendmail -f {STRANGER} {USER1}", stdin=message)
            assert verdict in up.arrives(USER1, subject)["Authentication-Results"]
    finally:
        replica.unpublish(up.lab, [("theirs._domainkey.elsewhere.test", "TXT")])


# The keys and their records


def test_the_records_are_those_of_the_keys_in_the_vault(published: House) -> None:
    listed = {(key["domain"], key["selector"]): key for key in published.fab_json("dkim.ls")}
    for domain in DOMAINS:
        name, _, text = record(published, domain, NOW)
        assert name == f"{NOW}._domainkey.{domain}"
        assert text == f"v=DKIM1; k=rsa; p={public_key(published, domain, NOW)}"
        assert dig(published, name) == text
        assert (listed[domain, NOW]["name"], listed[domain, NOW]["value"]) == (name, text)


def test_only_root_and_rspamd_can_read_the_keys(up: House) -> None:
    assert up.run("mail", "stat -c '%a %U:%G' /vault/dkim").split() == ["750", "root:_rspamd"]
    modes = up.run("mail", "stat -c '%a %U:%G' /vault/dkim/*").splitlines()
    assert set(modes) == {"640 root:_rspamd"}
    assert len(modes) == 2 * len(DOMAINS)
    for user in ("vmail", "postfix", "nobody"):
        key = f"/vault/dkim/example.test.{NOW}.key"
        assert "denied" in up.run("mail", f"setpriv --reuid {user} --clear-groups cat {key} 2>&1", check=False)


def test_the_private_keys_never_leave_the_machine(up: House) -> None:
    said = up.fab("dkim.ls").stdout + up.fab("dkim.ls", "--json").stdout
    assert "p=" in said
    middle = up.run("mail", f"sed -n 5p /vault/dkim/example.test.{NOW}.key").strip()
    assert len(middle) == 64
    assert middle not in said


# Rotation


def test_rotate_without_prepared_keys_says_what_to_do(up: House) -> None:
    untouched = Untouched(up)
    done = up.fab("dkim.rotate", check=False)
    assert done.returncode == 2
    assert "dkim_selector_next" in done.stderr
    assert "fab dkim.prepare" in done.stderr
    assert untouched.now()


def test_prepare_makes_the_next_keys_and_goes_on_signing_with_the_old(rotation: House) -> None:
    before = rotation.hosts_toml.read_text()
    said = rotation.fab("dkim.prepare", "--selector", NEXT).stdout
    after = rotation.hosts_toml.read_text()
    assert f'dkim_selector = "{NOW}" # the one that signs\n' in after
    added = [line for line in after.splitlines() if line not in before.splitlines()]
    assert added == [f'dkim_selector_next = "{NEXT}"']
    assert after.replace(f"{added[0]}\n", "") == before, "not another character has changed"
    for domain in DOMAINS:
        assert (
            rotation.run("mail", f"stat -c '%a %U:%G' /vault/dkim/{domain}.{NEXT}.*").split()
            == ["640", "root:_rspamd"] * 2
        )
        name, _, text = record(rotation, domain, NEXT)
        assert text == f"v=DKIM1; k=rsa; p={public_key(rotation, domain, NEXT)}"
        assert name in said, "what to publish is shown"
        assert public_key(rotation, domain, NEXT) != public_key(rotation, domain, NOW)
    raw = received(rotation)
    assert signed_by(raw) == ("example.test", NOW)
    assert verifies(rotation, raw)


def test_prepare_again_keeps_the_keys(prepared: House) -> None:
    key = public_key(prepared, "example.test", NEXT)
    site = prepared.hosts_toml.read_bytes()
    prepared.fab("dkim.prepare")
    assert public_key(prepared, "example.test", NEXT) == key
    assert prepared.hosts_toml.read_bytes() == site


def test_rotate_before_publishing_refuses_and_changes_nothing(prepared: House) -> None:
    untouched = Untouched(prepared)
    done = prepared.fab("dkim.rotate", check=False)
    assert done.returncode != 0
    assert "nothing was changed" in done.stderr
    for domain in DOMAINS:
        assert f"{domain}: ns.{domain} has no such record" in done.stderr
    assert untouched.now()


def test_rotate_refuses_when_one_domain_has_another_key(prepared: House) -> None:
    """As after a slip of the hand, or with the record of last time under the new name."""
    publish(prepared, NEXT)
    name, kind, _ = record(prepared, "second.test", NEXT)
    replica.publish(prepared.lab, [(name, kind, record(prepared, "second.test", NOW)[2])])
    untouched = Untouched(prepared)
    done = prepared.fab("dkim.rotate", check=False)
    assert done.returncode != 0
    assert "second.test: ns.second.test has another key" in done.stderr
    assert "example.test: " not in done.stderr, "that one is published"
    assert untouched.now()


def test_after_publishing_rotate_switches_and_messages_verify_with_the_new_key(prepared: House) -> None:
    publish(prepared, NEXT)
    for domain in DOMAINS:
        assert f"p={public_key(prepared, domain, NEXT)}" in dig(prepared, f"{NEXT}._domainkey.{domain}")
    on_its_way = received(prepared)
    prepared.fab("dkim.rotate")
    for user, domain in ((USER1, "example.test"), (USER2, "second.test")):
        raw = received(prepared, user)
        assert signed_by(raw) == (domain, NEXT)
        assert verifies(prepared, raw)
    text = prepared.hosts_toml.read_text()
    assert f'dkim_selector = "{NEXT}" # the one that signs\n' in text
    assert NOW not in text
    assert verifies(prepared, on_its_way), "the old record still serves mail on its way"
    for domain in DOMAINS:
        prepared.run("mail", f"test -s /vault/dkim/{domain}.{NOW}.key")
    # And it stays so.
    again = Untouched(prepared)
    assert prepared.fab_json("-H", "mail", "bootstrap")["mail"]["changes"] == {}
    assert again.look() == again.before
    assert signed_by(received(prepared)) == ("example.test", NEXT)


def test_a_forced_rotation_warns_and_names_what_is_missing(prepared: House) -> None:
    done = prepared.fab("dkim.rotate", "--force")
    assert "warning" in done.stdout + done.stderr
    for domain in DOMAINS:
        assert f"ns.{domain}" in done.stdout + done.stderr
    raw = received(prepared)
    assert signed_by(raw) == ("example.test", NEXT)
    assert not verifies(prepared, raw), "which is what the warning was about"


def test_a_rotation_that_cannot_be_pushed_leaves_hosts_toml_as_it_was(prepared: House) -> None:
    """The vault is locked in the meantime: neither the machine nor the file may be ahead of the other."""
    publish(prepared, NEXT)
    prepared.fab("lock")
    try:
        before = prepared.hosts_toml.read_bytes()
        done = prepared.fab("dkim.rotate", check=False)
        assert done.returncode != 0
        assert "locked" in done.stderr
        assert prepared.hosts_toml.read_bytes() == before
    finally:
        prepared.fab("unlock")
    assert signed_by(received(prepared)) == ("example.test", NOW)


def test_dkim_ls_says_which_keys_sign_and_which_come_next(prepared: House) -> None:
    states = {
        (key["domain"], key["selector"]): key["state"] for key in json.loads(prepared.fab("dkim.ls", "--json").stdout)
    }
    assert states == {(domain, NOW): "signs now" for domain in DOMAINS} | {(domain, NEXT): "next" for domain in DOMAINS}


def test_a_lost_key_is_told_and_a_new_one_is_not_taken_for_it(house: House) -> None:
    key = "/vault/dkim/second.test.202611.key"
    house.run("mail", f"mv {key} {key}.kept")
    try:
        said = house.fab("-H", "mail", "status", check=False).stdout
        planned = house.fab("-H", "mail", "plan", check=False).stdout
    finally:
        house.run("mail", f"mv {key}.kept {key}")
    assert "✗ DKIM: the key of second.test (202611) is missing, and mail leaves unsigned" in said
    assert f"DKIM key {key}, whose record must be published anew" in planned
    assert house.state() == "up"
