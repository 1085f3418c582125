"""Dovecot's own ports: IMAP (RFC 9051), a login there, and ManageSieve (RFC 5804)."""

from __future__ import annotations

import re
import secrets

from . import conversation, daemon_log
from .conversation import Conversation, NotYet, Wrong
from .smtp import DOVECOT, FOREIGN

# In Dovecot's log: a reload that it did not accept, and a file of passwords or users that it cannot read.
OBJECTION = re.compile(
    r"Config reload failed|\bauth(-worker)?\b.*: ((Fatal|Panic): |Error: .*\b(open|stat|access)\(.*\) failed)"
)


def imaps(port: int, options: dict[str, str]) -> None:
    """A greeting over TLS, and a login for the asking."""
    with conversation.stranger(port) as connection:
        _greeting(connection, options)
        said = _command(connection, "CAPABILITY")
        if "AUTH=PLAIN" not in " ".join(said).upper().split():
            raise Wrong("no PLAIN login is offered")
        _command(connection, "LOGOUT")


def login(port: int, options: dict[str, str]) -> None:
    """A login that must fail, and for the right reason: the password is wrong, not `the passwords cannot be read`.

    RFC 5530 has the codes. Where there are several passdbs the answer hides that one of them is broken, and after a
    reload that Dovecot did not accept all answers are the old ones: the log has both.
    Takes the 2 s for which Dovecot holds back such an answer.
    """
    with conversation.nobody(port) as connection:
        _greeting(connection, options)
        user, password = FOREIGN, secrets.token_urlsafe(16)
        said = _command(connection, f'LOGIN "{user}" "{password}"')
        if not said[-1].upper().startswith("NO [AUTHENTICATIONFAILED]"):
            raise Wrong(f"an unknown user's login is answered by: {said[-1]}")
        _command(connection, "LOGOUT")
    if objection := next(filter(OBJECTION.search, daemon_log.since_reload(DOVECOT)), ""):
        raise Wrong(objection)


def managesieve(port: int, options: dict[str, str]) -> None:
    """The greeting lists capabilities; STARTTLS is one, and works."""
    with conversation.stranger(port) as connection:
        if not any(line.upper().startswith('"STARTTLS"') for line in _until_ok(connection)):
            raise Wrong("STARTTLS is not offered")
        connection.say("STARTTLS")
        _until_ok(connection)
        connection.start_tls()
        connection.must_serve(options.get("certificate", ""))
        if not any(line.upper().startswith('"SASL"') and "PLAIN" in line for line in _until_ok(connection)):
            raise Wrong("no PLAIN login is offered")
        connection.say("LOGOUT")
        _until_ok(connection)


def _greeting(connection: Conversation, options: dict[str, str]) -> None:
    connection.start_tls()
    connection.must_serve(options.get("certificate", ""))
    line = connection.line()
    if line.upper().startswith("* BYE"):
        raise NotYet(line)
    if not line.upper().startswith("* OK"):
        raise Wrong(f"no greeting of IMAP: {line}")


def _command(connection: Conversation, command: str) -> list[str]:
    """What is said in answer, the tagged line last and without its tag."""
    connection.say(f"a {command}")
    said = []
    while not (line := connection.line()).startswith("a "):
        said.append(line)
    return [*said, line.removeprefix("a ")]


def _until_ok(connection: Conversation) -> list[str]:
    said = []
    while not (line := connection.line()).upper().startswith("OK"):
        if line.upper().startswith("BYE"):
            raise NotYet(line)
        if line.upper().startswith("NO"):
            raise Wrong(line)
        said.append(line)
    return said
