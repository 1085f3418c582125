"""SMTP and its kin, asked as far as RCPT: no message ever comes into being.

RFC 5321 (smtp, relay), RFC 6409 (submission), RFC 8314 (submissions), RFC 2033 (lmtp).
"""

from __future__ import annotations

import ipaddress
import os
import re

from ..shared.errors import AgentError
from ..system.shell import run
from . import conversation
from .conversation import Conversation, NotYet, Unsatisfied, Wrong

# Nobody's, for ever (RFC 2606); `daemon_log` knows our own refusals by it.
FOREIGN = "probe@foreign.invalid"
# Nobody here, unless a site takes mail for whatever name: then it is taken.
STRAY = "mailops-probe"
RSPAMD, DOVECOT = "rspamd.service", "dovecot.service"
# milter_default_action = tempfail (postconf(5)): to a command, at the start, to STARTTLS.
MILTER_AWAY = ("451 4.7.1 Service unavailable", "421 4.7.1", "454 4.3.0 Try again later")
# mynetworks with a shorter prefix than this trusts strangers.
NARROW = {4: 8, 6: 16}


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
            raise _refusal("greeting", code, text)
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
            raise _refusal(command, code, text)
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


def smtp(port: int, options: dict[str, str]) -> None:
    """A stranger's conversation: mail for us is welcome, mail for others is not, for good."""
    with conversation.stranger(port) as connection:
        client = Client(connection)
        client.greet()
        client.start_tls(options.get("certificate", ""))
        client.must("MAIL FROM:<>")
        if connection.here not in conversation.LOOPBACK:
            _must_not_relay(client, connection.here)
        if domain := options.get("srs"):
            _must_know(client, f"SRS0={STRAY}@{domain}")
        welcome = _must_welcome(client, options, excused=450)
        client.leave()
    if not welcome:
        with conversation.local(port) as connection:
            client = Client(connection)
            client.greet()
            client.must("MAIL FROM:<>")
            _must_welcome(client, options)
            client.leave()


def submission(port: int, options: dict[str, str]) -> None:
    """A login is offered behind STARTTLS and not before, and without one nothing is taken."""
    _login_service(options.get("login", ""))
    with conversation.stranger(port) as connection:
        client = Client(connection)
        client.greet()
        if "AUTH" in client.offers:
            raise Wrong("a login is offered without TLS")
        client.start_tls(options.get("certificate", ""))
        _must_ask_for_login(client)


def submissions(port: int, options: dict[str, str]) -> None:
    """The same with TLS from the first byte."""
    _login_service(options.get("login", ""))
    with conversation.stranger(port) as connection:
        connection.start_tls()
        connection.must_serve(options.get("certificate", ""))
        client = Client(connection)
        client.greet()
        _must_ask_for_login(client)


def relay(port: int, options: dict[str, str]) -> None:
    """What a program of a null client asks: mail for the machine's own root is taken."""
    with conversation.local(port) as connection:
        client = Client(connection)
        client.greet()
        client.must("MAIL FROM:<>")
        _must_welcome(client, options)
        client.leave()


def lmtp(port: int, options: dict[str, str]) -> None:
    """Dovecot would deliver to the recipient, whom it looks up for the answer; and Postfix is let in, as we are."""
    with conversation.unix(options["socket"]) as connection:
        client = Client(connection, "LHLO")
        client.greet()
        client.must("MAIL FROM:<>")
        _must_welcome(client, options)
        client.leave()
    conversation.must_let_in(options)


def _must_welcome(client: Client, options: dict[str, str], excused: int = 0) -> bool:
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
        raise _refusal(f"mail for {recipient} is refused", code, text)
    _must_know(client, f"{STRAY}@{recipient.partition('@')[2]}")
    return True


def _must_know(client: Client, stray: str) -> None:
    """Whether somebody exists is answered at once, even when it takes every table to find out."""
    code, text = client.ask(f"RCPT TO:<{stray}>")
    if code // 100 == 4 and code != 450:
        raise _refusal(f"whether there is a {stray} is not known", code, text)


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


def _must_not_relay(client: Client, here: str) -> None:
    code, text = client.ask(f"RCPT TO:<{FOREIGN}>")
    if code // 100 == 2 and not _is_trusted(here):
        raise Wrong(f"it is an open relay: a stranger's mail for {FOREIGN} is taken ({code} {text})")
    if code // 100 == 4 and code != 450:
        raise _refusal(f"a stranger's mail for {FOREIGN} is not refused for good", code, text)


def _is_trusted(address: str) -> bool:
    """Whether mynetworks (postconf(5)) has been widened by the network of our own address, and no more than that:
    then we are no stranger, and what we may do says nothing about strangers."""
    ours = ipaddress.ip_address(address)
    for word in re.split(r"[,\s]+", run("postconf", "-xh", "mynetworks", check=False).stdout.strip()):
        try:
            network = ipaddress.ip_network(word.replace("[", "").replace("]", ""), strict=False)
        except ValueError:  # the name of a table
            continue
        if ours in network and network.prefixlen >= NARROW[network.version]:
            return True
    return False


def _must_ask_for_login(client: Client) -> None:
    if "AUTH" not in client.offers:
        raise Wrong("no login is offered")
    code, text = client.ask("MAIL FROM:<>")
    if code // 100 == 2:
        code, text = client.ask(f"RCPT TO:<{FOREIGN}>")
    if code // 100 == 2:
        raise Wrong(f"mail is taken without a login ({code} {text})")
    if code // 100 != 5:
        raise _refusal("mail without a login is not refused for good", code, text)
    client.leave()


def _login_service(path: str) -> None:
    """Dovecot's end of Postfix's logins (its auth client protocol, 1.2), asked before Postfix is:

    a smtpd that does not find it there dies, and Postfix then leaves the port unanswered for a minute.
    """
    if not path:
        return
    try:
        with conversation.unix(path) as dovecot:
            dovecot.send(b"VERSION\t1\t1\n")  # Dovecot 2.4 waits for it
            offers = []
            while (line := dovecot.line()) != "DONE":
                offers.append(line)
    except (OSError, Unsatisfied) as error:
        kind = type(error) if isinstance(error, Unsatisfied) else NotYet
        raise kind(f"Dovecot checks no logins: {error}", accused=DOVECOT) from None
    if not any(line.startswith("MECH\tPLAIN") for line in offers):
        raise Wrong(f"Dovecot offers no PLAIN login at {path}", accused=DOVECOT)


def _refusal(what: str, code: int, text: str) -> Wrong | NotYet:
    """What Postfix says while its milter is away, and 421 or 4.3.2 while it is itself going or coming, passes."""
    reason = f"{what}: {code} {' '.join(text.splitlines())}"
    if f"{code} {text}".startswith(MILTER_AWAY):
        return NotYet(reason, accused=RSPAMD)
    if code == 421 or text.startswith("4.3.2"):
        return NotYet(reason)
    return Wrong(reason)
