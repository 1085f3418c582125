"""Dovecot: IMAP (RFC 9051), a login there, ManageSieve (RFC 5804) and delivery (LMTP, RFC 2033), as others ask; what it
says of its configuration and in its log.
"""

from __future__ import annotations

import os
import re
import secrets

from ..system import dpkg, shell
from ..system.files import remove
from . import conversation, daemon_log
from .checks import quiet, said
from .conversation import Conversation, NotYet, Wrong
from .daemons import Daemon, Options
from .smtp import DOVECOT, FOREIGN, Client, must_welcome

# In Dovecot's log: a reload that it did not accept, and a file of passwords or users that it cannot read.
OBJECTION = re.compile(
    r"Config reload failed|\bauth(-worker)?\b.*: ((Fatal|Panic): |Error: .*\b(open|stat|access)\(.*\) failed)"
)
# What a passdb or userdb names, its last word: `args = scheme=… /etc/dovecot/users` on 2.3.
NAMED = re.compile(r"^ *(?:args|passwd_file_path|sqlite_path) = (?:.* )?(.*)$", re.MULTILINE)
# Where it keeps mail: 2.3, and what 2.4 has made of it.
PLACES = ("mail_location", "mail_driver", "mail_path", "mail_inbox_path")
# What became of one recipient's copy, in Dovecot's log of both releases.
COPY = re.compile(r"lmtp\([^()]*\)<\d+><([^<>]*)>: sieve: msgid=(.*)", re.DOTALL)
BY_SCRIPT = "by the user's sieve script"
OUTCOMES = (
    (re.compile(r"stored mail into mailbox '([^']*)'$"), "in {}"),
    (re.compile(r"forwarded to <([^<>]*)>$"), f"sent on to {{}} {BY_SCRIPT}"),
    (re.compile(r"arked message to be discarded\b[^<>]*$"), f"discarded {BY_SCRIPT}, unless it was filed as well"),
    (re.compile(r"rejected message from <([^<>]*)> \(e?reject\)$"), f"sent back to {{}} {BY_SCRIPT}"),
    (re.compile(r"sent vacation response to <([^<>]*)>$"), "answered to {} (vacation)"),
)
CHATTER = (
    r"^dovecot: .*(auth failed,|no auth attempts)|(Connect|Disconnect) from local"
    r"|\brip=127\.(?!0\.0\.1\b)"  # see conversation.nobody
    r"|SIGHUP received"
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


def lmtp(port: int, options: dict[str, str]) -> None:
    """Dovecot would deliver to the recipient, whom it looks up for the answer; and Postfix is let in, as we are."""
    with conversation.unix(options["socket"]) as connection:
        client = Client(connection, "LHLO")
        client.greet()
        client.must("MAIL FROM:<>")
        must_welcome(client, options)
        client.leave()
    conversation.must_let_in(options)


# --- Its log


def copy(text: str) -> tuple[str, str] | None:
    """The delivery that a line is about, by the name that Postfix is told, and what was done in it, in words."""
    found = COPY.match(text)
    if not found:
        return None
    for pattern, words in OUTCOMES:
        if said := pattern.search(found[2]):
            return found[1], words.format(*said.groups())
    return found[1], found[2].rpartition(">: ")[2][:300]


# --- Its own judgement of its configuration


def _settings(_: Options) -> str:
    """doveconf(1) -x opens the files behind settings, but not those of passdb and userdb."""
    return quiet("doveconf", "-nx")


def _databases(options: Options) -> str:
    """Those in the vault are not there while it is locked."""
    done = said("doveconf", "-n")
    named = [path for path in NAMED.findall(done.out) if path.startswith("/") and "%" not in path]
    missing = [path for path in named if not path.startswith(f"{options['vault']}/") and not os.path.exists(path)]
    lines = [f"{path}, which a passdb or userdb names, does not exist" for path in missing]
    return "\n".join(filter(None, [done.err.strip(), *lines]))


# --- Its files, and what it was before it is ours


def _replaced(path: str) -> None:
    """It compares dates, and an older script that comes back would not be compiled anew (sievec(1))."""
    if path.endswith(".sieve"):
        remove(f"{path.removesuffix('.sieve')}.svbin")


def _mailboxes() -> list[str]:
    if not dpkg.version("dovecot-core"):
        return []
    lines = shell.answer("doveconf", "-n").splitlines()
    settings = dict(line.split(" = ", 1) for line in lines if " = " in line)
    found = [f"{name} = {settings[name]}" for name in PLACES if settings.get(name)]
    return [f"Dovecot's {', '.join(found)}"] if found else []


DAEMON = Daemon(
    checks=(_settings, _databases), processes="dovecot", chatter=CHATTER, replaced=_replaced, mailboxes=_mailboxes
)
