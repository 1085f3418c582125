"""A machine on which mail does not work is never up, and no run over it ends as a success."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.house import House, until

USER = "user1@example.test"
KEEP = "rm -rf /root/kept; mkdir /root/kept; cp -aL --parents /etc/resolv.conf /etc/mailops/tls /vault/dkim /root/kept"
BREAK = """
chown -R root: /vault/mail/example.test/user1/Maildir
rm /vault/senders/table
chmod 600 /vault/srs/secret
chmod 600 /vault/dkim/example.test.202611.key; rm /vault/dkim/second.test.202611.key
chown root: /vault/sieve; chmod 700 /vault/sieve
rm -f /etc/resolv.conf
rm /dev/null; touch /dev/null
"""
MEND = """
rm -f /dev/null; mknod -m 666 /dev/null c 1 3
cp -a /root/kept/etc/. /etc/; cp -a /root/kept/vault/. /vault/; rm -r /root/kept
systemctl start mailops-resolver.service; systemctl reload dovecot postfix
"""
SAID = {
    "mailboxes": f"no mail can be stored for {USER} (/vault/mail/example.test/user1/Maildir is 0700 root:root)",
    "senders": "/vault/senders/table is not there",
    "SRS": "mailops-srs may not use /vault/srs/secret (0600 root:mailops-srs)",
    "DKIM": "the key of second.test (202611) is missing, and mail leaves unsigned",
    "folders": "not as it should be: permissions of /vault/sieve",
    "resolver": "no name can be looked up, and mail waits: /etc/resolv.conf is not there",
    "/dev/null": "it is not what everybody may write to",
}


@pytest.fixture
def broken(up: House) -> Iterator[House]:
    until(lambda: up.state() == "up", 30, "a machine that is well")
    up.arrives(USER, up.submit("admin@example.test", USER))  # there is a mailbox
    up.run("mail", KEEP)
    up.run("mail", BREAK)
    try:
        yield up
    finally:
        up.run("mail", MEND)
        up.fab("-H", "mail", "bootstrap")


def test_what_mail_needs_and_is_away_or_closed_is_told(broken: House) -> None:
    told = broken.fab_json("-H", "mail", "status")["mail"]
    assert broken.fab("-H", "mail", "status", check=False).returncode == 1
    pushed = broken.fab("-H", "mail", "push", check=False)
    assert told["state"] == "degraded"
    assert pushed.returncode == 1
    for name, words in SAID.items():
        assert told["probes"][name].startswith(words)
        assert f"✗ {name}: {words}" in pushed.stderr
    assert "mail of example.test leaves unsigned: _rspamd may not use" in told["probes"]["DKIM"]
    broken.run("mail", MEND)
    broken.run("mail", KEEP)
    done = broken.fab("-H", "mail", "bootstrap").stdout  # the rest
    for line in ("mailbox of user1@example.test", "table /vault/senders/table", "permissions of /vault/sieve"):
        assert line in done
    until(lambda: broken.state() == "up", 10, "a machine that is well")
    broken.arrives(USER, broken.submit("admin@example.test", USER))


def test_a_domain_that_only_a_push_has_brought_has_no_key_yet(
    up: House, site: Callable[[Callable[[Any], None]], Path]
) -> None:
    def add(document: Any) -> None:
        document["mail_domains"].append("third.test")

    try:
        pushed = up.fab("-H", "mail", "push", check=False, site=site(add))
        assert pushed.returncode == 1
        assert "✗ DKIM: there is no key yet for third.test (202611); next: fab -H mail bootstrap" in pushed.stderr
    finally:
        up.fab("-H", "mail", "push")
    assert up.state() == "up"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (r"sed -i 's/:[^:]*$/:wrong/' {}/sasl_passwd", "it refuses the login of relay@example.test (535)"),
        (
            "openssl req -x509 -newkey rsa:2048 -nodes -keyout {0}/k -subj /CN=mail.example.test -days 9 "
            "-out /etc/mailops/mailhost.pem 2>&1; rm {0}/k",
            "its certificate is not the one that is known here",
        ),
    ],
    ids=["password", "certificate"],
)
def test_a_null_client_that_its_mailhost_does_not_let_in(up: House, script: str, words: str) -> None:
    up.run("backup", "rm -rf /root/kept; mkdir /root/kept; cp -a --parents /etc/postfix /etc/mailops /root/kept")
    try:
        up.run("backup", script.format("/etc/postfix"))
        told = up.fab_json("-H", "backup", "status")["backup"]
        assert told["state"] == "degraded"
        assert told["probes"]["the mailhost"].startswith(words)
    finally:
        up.run("backup", "cp -a /root/kept/. /; rm -r /root/kept")
    assert up.state("backup") == "up"
