"""SMTP and its kin, asked as far as RCPT: no message ever comes into being.

RFC 5321 (smtp, relay), RFC 6409 (submission), RFC 8314 (submissions), RFC 2033 (lmtp).
"""

from __future__ import annotations

import os

from ..shared.errors import AgentError
from .conversation import Conversation, NotYet, Wrong

# Nobody's, for ever (RFC 2606); `daemon_log` knows our own refusals by it.
FOREIGN = "probe@foreign.invalid"
# Nobody here, unless a site takes mail for whatever name: then it is taken.
STRAY = "mailops-probe"
RSPAMD, DOVECOT = "rspamd.service", "dovecot.service"
# milter_default_action = tempfail (postconf(5)): to a command, at the start, to STARTTLS.
MILTER_AWAY = ("451 4.7.1 Service unavailable", "421 4.7.1", "454 4.3.0 Try again later")


class Client:
    """The client's side of one conversation."""

    def __init__(self, connection: Conversation, hello: str = "EHLO") -> None:
        self._connection = connection
        self._hello = hello
        self.offers: dict[str, str] = {}  # keyword -> its parameters

    def greet(self) -> None:
        """The server's greeting, and what it offers."""
        code, text = self._reply()
        if code != 220:
            raise refusal("greeting", code, text)
        self.hello()

    def hello(self) -> None:
        """With an address literal for a name, which is true and which no rule about names refuses."""
        here = self._connection.here or "127.0.0.1"
        name = f"[IPv6:{here}]" if ":" in here else f"[{here}]"
        offers = self.must(f"{self._hello} {name}").splitlines()[1:]
        self.offers = {word.upper(): rest for word, _, rest in (offer.partition(" ") for offer in offers)}

    def start_tls(self, certificate: str) -> None:
        """STARTTLS (RFC 3207) must be offered, work, and show the first certificate of the PEM file."""
        if "STARTTLS" not in self.offers:
            raise Wrong("STARTTLS is not offered")
        self.must("STARTTLS")
        self._connection.start_tls()
        self._connection.must_serve(certificate)
        self.hello()

    def ask(self, command: str) -> tuple[int, str]:
        self._connection.say(command)
        return self._reply()

    def must(self, command: str) -> str:
        """What follows the code of a reply that says yes (2xx)."""
        code, text = self.ask(command)
        if code // 100 != 2:
            raise refusal(command, code, text)
        return text

    def leave(self) -> None:
        self.must("RSET")
        self.must("QUIT")

    def _reply(self) -> tuple[int, str]:
        lines = []
        while True:
            line = self._connection.line()
            lines.append(line[4:])
            if line[3:4] != "-":
                break
        if not line[:3].isdigit():
            raise Wrong(f"no reply of SMTP: {line}")
        return int(line[:3]), "\n".join(lines)


def must_welcome(client: Client, options: dict[str, str], excused: int = 0) -> bool:
    """The recipient is taken; False when the code is the one that proves nothing either way.

    450 is for who asks, not for whom: greylisting, or no name in the DNS for our own address.
    """
    recipient = options.get("recipient")
    if not recipient:
        return True
    code, text = client.ask(f"RCPT TO:<{recipient}>")
    if code == excused:
        return False
    if code == 550 and not _exists(recipient, options.get("database", "")):
        return True  # `mailcfg rmuser`: the machine knows better than the site
    if code // 100 != 2:
        raise refusal(f"mail for {recipient} is refused", code, text)
    must_know(client, f"{STRAY}@{recipient.partition('@')[2]}")
    return True


def must_know(client: Client, stray: str) -> None:
    """Whether somebody exists is answered at once, even when it takes every table to find out."""
    code, text = client.ask(f"RCPT TO:<{stray}>")
    if code // 100 == 4 and code != 450:
        raise refusal(f"whether there is a {stray} is not known", code, text)


def _exists(recipient: str, database: str) -> bool:
    """Whether the accounts know this user; yes, where they cannot be asked."""
    if not os.path.exists(database):
        return True
    from ..accounts import database as accounts

    try:
        with accounts.opened(database) as db:
            return bool(db.execute("SELECT 1 FROM users WHERE email = ?", (recipient,)).fetchone())
    except AgentError:
        return True


def refusal(what: str, code: int, text: str) -> Wrong | NotYet:
    """What Postfix says while its milter is away, and 421 or 4.3.2 while it is itself going or coming, passes."""
    reason = f"{what}: {code} {' '.join(text.splitlines())}"
    if f"{code} {text}".startswith(MILTER_AWAY):
        return NotYet(reason, accused=RSPAMD)
    if code == 421 or text.startswith("4.3.2"):
        return NotYet(reason)
    return Wrong(reason)
