"""Postfix: how it is asked on the mailhost, what it says of its configuration and in its log, what it is to be told.

Nothing that is asked makes a message. RFC 5321 (smtp), RFC 6409 (submission), RFC 8314 (submissions).
"""

from __future__ import annotations

import glob
import ipaddress
import os
import re

from ..system import dpkg, shell
from . import conversation
from .checks import quiet, said
from .conversation import NotYet, Unsatisfied, Wrong
from .daemons import Daemon, Grammar, Options
from .nullclient import relay
from .queue import QUEUE
from .smtp import DOVECOT, FOREIGN, STRAY, Client, must_know, must_welcome, refusal

TABLE = re.compile(r"(?:regexp|pcre|cidr|texthash):/[^ ,}\n]+")
# mynetworks with a shorter prefix than this trusts strangers.
NARROW = {4: 8, 6: 16}
CHATTER = (
    r"\b(connect|disconnect|lost connection|timeout|hangup|improper command pipelining) (from|after)\b"
    r"|: client=|removed \(canceled\)|TLS connection established"
    r"|NOQUEUE: milter-reject|\w+: reject: .*: 5\d\d |does not resolve to address"
    r"|SASL \w+ authentication failed|SSL_accept error"
)


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
            must_know(client, f"SRS0={STRAY}@{domain}")
        welcome = must_welcome(client, options, excused=450)
        client.leave()
    if not welcome:
        relay(port, options)


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


def _must_not_relay(client: Client, here: str) -> None:
    code, text = client.ask(f"RCPT TO:<{FOREIGN}>")
    if code // 100 == 2 and not _is_trusted(here):
        raise Wrong(f"it is an open relay: a stranger's mail for {FOREIGN} is taken ({code} {text})")
    if code // 100 == 4 and code != 450:
        raise refusal(f"a stranger's mail for {FOREIGN} is not refused for good", code, text)


def _is_trusted(address: str) -> bool:
    """Whether mynetworks (postconf(5)) has been widened by the network of our own address, and no more than that:
    then we are no stranger, and what we may do says nothing about strangers."""
    ours = ipaddress.ip_address(address)
    for word in re.split(r"[,\s]+", shell.run("postconf", "-xh", "mynetworks", check=False).stdout.strip()):
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
        raise refusal("mail without a login is not refused for good", code, text)
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


# --- Its own judgement of its configuration


def _settings(_: Options) -> str:
    """postconf(1) warns of what it does not know."""
    return quiet("postconf")


def _services(_: Options) -> str:
    return quiet("postconf", "-M")


def _numbers(_: Options) -> str:
    """Any other command reads the numbers, and says what is wrong with them where Debian 12's `postfix check` ends
    without a word."""
    return quiet("postmap", "-q", "mailops", "inline:{mailops=x}")


def _tables(_: Options) -> str:
    """A line of a table that makes no sense is left out with a warning when a daemon opens it, and no other check
    opens any. (To find nothing is no failure.)"""
    named = {table for option in ("-n", "-P") for table in TABLE.findall(said("postconf", option).out)}
    return "\n".join(filter(None, (said("postmap", "-q", "mailops", table).err.strip() for table in sorted(named))))


def _files(_: Options) -> str:
    """`postfix check` looks at files and their owners.

    A file that a killed cleanup(8) left behind is no fault of the configuration, and stays there for days.
    """
    return quiet("postfix", "check", but="postsuper: warning: bogus file name: ")


def _gist(line: str) -> str:
    """Each of its programs reads all of the configuration, and begins a line with its own name."""
    return line.partition(": ")[2] or line


# --- Its files


def _parameter(line: bytes) -> bytes | None:
    """main.cf: `name = value`, `name=value`."""
    name, equals, _ = line.partition(b"=")
    return name.strip() if equals else None


def _service(line: bytes) -> bytes | None:
    """master.cf: the service's name and type; there may be an `smtp inet` and an `smtp unix`."""
    fields = line.split(maxsplit=2)
    return b" ".join(fields[:2]) if len(fields) > 1 else None


# --- What it was before it is ours


def _mailboxes() -> list[str]:
    home = shell.answer("postconf", "-hx", "home_mailbox") if dpkg.version("postfix") else ""
    return [f"~/{home} of Unix users"] if home else []


def _queues() -> list[str]:
    """Those that are not in Debian's place, from which ours goes on."""
    if not dpkg.version("postfix"):
        return []
    lines = []
    others = shell.answer("postconf", "-hx", "multi_instance_directories")
    for conf in ["/etc/postfix", *others.replace(",", " ").split()]:
        folder = shell.answer("postconf", "-c", conf, "-hx", "queue_directory")
        names = ("deferred", "active", "incoming", "hold", "maildrop")
        found = [
            path for name in names for path in glob.glob(f"{folder}/{name}/**", recursive=True) if _is_message(path)
        ]
        if folder and found and os.path.realpath(folder) != os.path.realpath(QUEUE):
            count = f"{len(found)} messages wait" if found[1:] else "1 message waits"
            again = f"as root there, while its Postfix still runs: postqueue -c {conf} -f"
            lines.append(f"{count} in {folder}, where ours does not look; {again}")
    return lines


def _is_message(path: str) -> bool:
    return os.path.isfile(path) and not os.path.islink(path)


def _resume() -> None:
    """What was put off meanwhile need not wait for its turn."""
    shell.run("postqueue", "-f", check=False)


DAEMON = Daemon(
    checks=(_settings, _services, _numbers, _tables, _files),
    gist=_gist,
    processes="postfix/",
    chatter=CHATTER,
    # postconf(1) warns of everything that is set twice; sendmail(1) reads main.cf as whoever calls it.
    grammars={"main.cf": Grammar(_parameter, public=True), "master.cf": Grammar(_service)},
    resume=_resume,
    mailboxes=_mailboxes,
    queues=_queues,
)
