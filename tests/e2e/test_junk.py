"""What Rspamd holds to be spam is filed into Junk; what it is sure of is refused (see test_from_outside)."""

from __future__ import annotations

from mailops.lab import replica
from tests.e2e.house import House, token

USER1 = "user1@example.test"


def test_spam_is_filed_into_junk(up: House) -> None:
    """A stranger who writes in the name of a domain that wants such mail suspected."""
    subject, domain = token(), "suspect.elsewhere.test"
    replica.publish(up.lab, [(domain, "TXT", "v=spf1 -all"), (f"_dmarc.{domain}", "TXT", "v=DMARC1; p=quarantine")])
    try:
        done = up.swaks("--from", f"a@{domain}", "--to", USER1, "--header", f"Subject: {subject}")
    finally:
        replica.unpublish(up.lab, [(domain, "TXT"), (f"_dmarc.{domain}", "TXT")])
    assert done.returncode == 0, done.stdout
    message = up.arrives(USER1, subject, folder="Junk")
    assert message["X-Spam"] == "Yes"
    assert "spf=fail" in message["Authentication-Results"]
    assert "dmarc=fail" in message["Authentication-Results"]
    assert not up.messages(USER1, subject)


def test_an_honest_strangers_message_is_not(up: House) -> None:
    subject = up.stranger_sends(USER1)
    message = up.arrives(USER1, subject)
    assert message["X-Spam"] is None
    assert not up.messages(USER1, subject, folder="Junk")


def test_junk_is_shown_as_such_to_mail_clients(up: House) -> None:
    with up.imap(USER1) as client:
        folders = [line.decode() for line in client.list()[1] if isinstance(line, bytes)]
    assert any("\\Junk" in line and line.endswith("Junk") for line in folders), folders
