"""A password that is made here, and what its owner has to know: the settings of a mail program."""

from __future__ import annotations

from random import SystemRandom

from mailops.site.model import Site

# Without those that look like others (0 and o, 1, i and l), or are somewhere else on another keyboard (y and z).
LETTERS = "abcdefghjkmnpqrstuvwx23456789"
GROUPS, LONG = 4, 4  # 29^16, or 77 bits


def password() -> str:
    """Letters and digits in groups, to be read aloud or typed from paper."""
    random = SystemRandom()
    return "-".join("".join(random.choice(LETTERS) for _ in range(LONG)) for _ in range(GROUPS))


def message(site: Site, email: str, password: str) -> str:
    """What to send to the person, by a way that nobody else reads."""
    server = site.mail_server_hostname
    return f"""
  To send to the person, by a way that nobody else reads. The password is shown once and kept nowhere.

    Mail address and user name  {email}
    Password                    {password}
    Incoming mail               IMAP, {server}, port 993, SSL/TLS, normal password
    Outgoing mail               SMTP, {server}, port 587, STARTTLS, normal password

"""
