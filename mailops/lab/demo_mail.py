"""The mail client of the demo: reads over IMAPS and submits on port 587, as a user of the site."""

from __future__ import annotations

import email
import email.policy
import email.utils
import imaplib
import smtplib
import socket
import ssl
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path


@dataclass(frozen=True)
class Account:
    """A mailbox on the server at `address`, which must show the certificate in the file `certificate`."""

    address: str
    user: str
    password: str
    certificate: Path

    def find(self, subject: str) -> EmailMessage | None:
        """The message in the inbox with this subject, or None."""
        with imaplib.IMAP4_SSL(self.address, 993, ssl_context=self._tls(), timeout=30) as client:
            client.login(self.user, self.password)
            client.select("INBOX", readonly=True)
            numbers = client.search(None, "HEADER", "Subject", f'"{subject}"')[1][0].split()
            if not numbers:
                return None
            fetched = client.fetch(numbers[0], "(BODY.PEEK[])")[1][0]
            return parse(fetched[1]) if isinstance(fetched, tuple) else None

    def submit(self, to: str, subject: str) -> None:
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = self.user, to, subject
        message["Date"] = email.utils.localtime()
        message["Message-ID"] = email.utils.make_msgid(domain="laptop.test")
        message.set_content("Thank you for your message.\n")
        with smtplib.SMTP(self.address, 587, local_hostname="laptop.test", timeout=30) as client:
            client.starttls(context=self._tls())
            client.login(self.user, self.password)
            client.send_message(message)

    def _tls(self) -> ssl.SSLContext:
        """Trusts the mail server's own certificate, and no other."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        context.check_hostname = False  # we connect to its address
        return context


def parse(raw: bytes) -> EmailMessage:
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)  # noqa: S101 - that policy makes them
    return message


def connects(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=5).close()
    except OSError:
        return False
    return True
