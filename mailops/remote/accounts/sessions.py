"""What a user who is disabled, removed or has a new password leaves behind: open sessions, queued mail, redirects."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import signal
import stat
from collections.abc import Callable, Iterator

from ..shared.address import without_detail
from ..shared.errors import AgentError
from ..system import shell

INCOMING = "/var/spool/postfix/incoming"
HEAD = 1 << 16  # bytes of a queue file, whose beginning says who sent it
READY = stat.S_IXUSR  # a queue file that is complete may be executed by its owner, which nobody does
SUBMISSION = ("submission", "submissions")  # as master.cf calls them; each of their processes serves one connection
LOGIN = re.compile(r"smtpd\[(\d+)\]: \w+: client=.*\bsasl_username=(\S+)")
RECORD = re.compile(r"^\*\*\* ENVELOPE RECORDS (\S+) \*\*\*$", re.MULTILINE)
SCRIPT_OF = re.compile(r"^named_attribute: helo_name=([^\s=]+)=([^\s=]+)$", re.MULTILINE)
BATCH = 200  # messages that are looked at together
# A text of several lines (RFC 5228, 2.4.2) first. What is not closed goes to the end: to try that again from each place
# in it would take hours.
TOKEN = re.compile(
    r'text:[ \t]*(?:#[^\n]*)?\r?\n.*?(?:^\.\r?$|\Z)|"(?:\\.|[^"\\])*(?:"|\\?\Z)|'
    r"#[^\n]*|/\*.*?(?:\*/|\Z)|[a-z_]\w*|[;{}]",
    re.DOTALL | re.IGNORECASE | re.MULTILINE,
)
BIGGEST_SCRIPT = 1 << 20  # bytes
MOST_WORDS = 8  # of a command and its tags that are looked at
CODES = re.compile(r"\$\{(hex|unicode):([0-9a-f\s]+)\}", re.IGNORECASE)
Command = tuple[str, tuple[str, ...], tuple[str, ...]]  # its name, its tags, its texts


def end(email: str) -> list[str]:
    """End what `email` has open, and hold the mail that it has in the queue. A daemon that is down has neither."""
    lines: list[str] = []
    for work in (_end_mailbox_sessions, _end_submissions, _end_scans):
        with contextlib.suppress(AgentError):
            work(email)
    try:
        lines += _hold_mail(email)
    except AgentError as error:
        lines.append(f"note: mail of theirs in the queue was not put on hold: {error.message}")
    return lines


def forget_login(email: str) -> None:
    """Dovecot remembers for a while which passwords were right."""
    with contextlib.suppress(AgentError):
        shell.run("doveadm", "auth", "cache", "flush", email, check=False, timeout=5)


def _end_mailbox_sessions(email: str) -> None:
    shell.run("doveadm", "kick", email, check=False, timeout=5)


def _end_submissions(email: str) -> None:
    """End the SMTP sessions on 465 and 587 but those that have sent mail as somebody else.

    Who has logged in and sent nothing yet is known to the process alone; its client comes back by itself.
    """
    open_ones = list(_submissions())
    if not open_ones:
        return
    by_process = [f"_PID={number}" for number in open_ones]
    said = shell.run("journalctl", "-q", "-o", "short", "--since=-1d", *by_process, check=False, timeout=10).stdout
    logins = {int(number): login.lower() for number, login in LOGIN.findall(said)}
    for number in open_ones:
        if logins.get(number, email) == email:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGTERM)


def _submissions() -> Iterator[int]:
    return _processes(lambda words: words[:2] == ["smtpd", "-n"] and words[2] in SUBMISSION)


def _processes(is_one: Callable[[list[str]], bool]) -> Iterator[int]:
    """This machine's own, and not those of a container on it, whose logins are in a log that is not ours."""
    ours = os.readlink("/proc/self/ns/pid")
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as file:
            words = file.read().decode(errors="replace").split("\0")
            if is_one(words) and os.readlink(f"/proc/{name}/ns/pid") == ours:
                yield int(name)


def _end_scans(email: str) -> None:
    """End the taking of what is being scanned: its session is gone, so nobody was told that it was taken, and it would
    be in the queue after all of theirs was put on hold. cleanup(8) takes its file away as it ends."""
    for number, path in _cleanups():
        with contextlib.suppress(OSError):
            if os.stat(path).st_mode & READY:
                continue
            if email in map(without_detail, _senders(_begun(path))):
                os.kill(number, signal.SIGTERM)


def _begun(path: str) -> str:
    """The attributes and the sender with which a message begins that is still coming, as postcat(1) shows them: in such
    a file that of Postfix 3.7 goes round for ever. A record is a letter, a length of seven bits a byte, a text
    (Postfix's global/record.c)."""
    with open(path, "rb") as file:
        head = file.read(HEAD)
    lines, at = list[str](), 0
    while at < len(head) and (kind := head[at : at + 1]) != b"M":  # the message itself
        at, length, shift, more = at + 1, 0, 0, True
        while more and at < len(head):
            length |= (head[at] & 0x7F) << shift
            at, shift, more = at + 1, shift + 7, head[at] > 0x7F
        if name := {b"A": "named_attribute", b"S": "sender"}.get(kind):
            lines.append(f"{name}: {head[at : at + length].decode(errors='replace')}")
        at += length
    return "\n".join(lines)


def _cleanups() -> Iterator[tuple[int, str]]:
    """This machine's processes that take a message, each with the file of what it takes."""
    for number in _processes(lambda words: words[0] == "cleanup"):
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{number}/fd"):
                path = os.readlink(f"/proc/{number}/fd/{name}")
                if os.path.dirname(path) == INCOMING:
                    yield number, path


def _hold_mail(email: str) -> list[str]:
    queue = shell.run("postqueue", "-j", check=False, timeout=60).stdout
    numbers = re.findall(r'"queue_name": ?"(?!hold)\w+", ?"queue_id": ?"(\w+)"', queue)
    theirs: list[str] = []
    for at in range(0, len(numbers), BATCH):
        theirs += _sent_by(email, numbers[at : at + BATCH])
    if not theirs:
        return []
    shell.run("postsuper", "-h", "-", stdin="\n".join(theirs) + "\n", timeout=60)
    count = f"{len(theirs)} message{'s' * (len(theirs) > 1)} of theirs in the queue"
    shown = " ".join(theirs) if len(theirs) <= 5 else "ID"
    return [f"put {count} on hold; as root there: `postqueue -p` lists, `postsuper -H {shown}` sends, `-d` deletes"]


def _sent_by(email: str, numbers: list[str]) -> list[str]:
    """Those of these messages that `email` sent, or a sieve script of theirs."""
    said = shell.run("postcat", "-e", "-q", *numbers, check=False, timeout=60).stdout
    _, *records = RECORD.split(said)
    found = zip(records[::2], map(_senders, records[1::2]), strict=True)
    return [os.path.basename(path) for path, senders in found if email in map(without_detail, senders)]


def _senders(envelope: str) -> list[str]:
    """Whom a message is from, in lower case: its login, its envelope's sender, and whose sieve script made it, which
    Dovecot says in HELO (what a script answers, and a bounce that it sends on, has no sender)."""
    said = re.findall(r"^(?:named_attribute: sasl_username=|sender: )(.*)$", envelope, re.MULTILINE)
    if "named_attribute: client_address=127.0.0.1" in envelope.splitlines():
        said += [f"{user}@{domain}" for user, domain in SCRIPT_OF.findall(envelope)]
    return [sender.strip().lower() for sender in said]


def redirects(home: str) -> list[str]:
    """A line for each address that the user's own sieve scripts send mail on to (a thief leaves one behind), and for
    answers that those in use give."""
    scripts: dict[str, list[Command]] = {}
    lines = []
    for path in sorted(_scripts(home)):
        try:
            with open(path, encoding="utf-8", errors="replace", opener=_a_file) as file:
                scripts[path] = list(_commands(file.read(BIGGEST_SCRIPT)))
        except OSError as error:  # the account is changed by now: nothing of this may look like a failure
            lines.append(f"note: the sieve script {path} cannot be read: {error.strerror}")
    used = _in_use(home, scripts)
    for path, commands in scripts.items():
        use = "in use" if path in used else "not in use"
        found = dict.fromkeys(filter(None, map(_sending, commands)))
        lines += [f"note: the sieve script {path} ({use}) {sending}" for sending in found]
        if path in used and any(command == "vacation" for command, _, _ in commands):
            lines.append(f"note: the sieve script {path} (in use) answers mail for them (vacation)")
    return lines


def _in_use(home: str, scripts: dict[str, list[Command]]) -> set[str]:
    """The active script, and what it includes of the user's own, and these in turn (RFC 6609, 3.2)."""
    active = os.path.basename(os.path.realpath(f"{home}/.dovecot.sieve"))
    waiting, used = [path for path in scripts if os.path.basename(path) == active], set[str]()
    while waiting:
        path = waiting.pop()
        if path in scripts and path not in used:
            used.add(path)
            named = (texts for command, tags, texts in scripts[path] if command == "include" and "global" not in tags)
            waiting += [f"{home}/sieve/{name}.sieve" for name in itertools.chain(*named)]
    return used


def _scripts(home: str) -> Iterator[str]:
    for folder, _, names in os.walk(f"{home}/sieve"):
        yield from (f"{folder}/{name}" for name in names if name.endswith(".sieve"))
    plain = f"{home}/.dovecot.sieve"
    if os.path.isfile(plain) and not os.path.islink(plain):
        yield plain


def _a_file(path: str, flags: int) -> int:
    """As root, in a folder that others write in: not through a link, and no pipe that keeps us waiting."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no file")
    return descriptor


def _commands(script: str) -> Iterator[Command]:
    """Each command in a script that has texts, with its tags, comments left out (RFC 5228)."""
    words, texts = list[str](), list[str]()
    for token in [*TOKEN.findall(script), ";"]:
        if token[0] in "#/":
            continue
        if token[0] == '"' or token[:5].lower() == "text:":
            texts.append(_text(token))
        elif token in (";", "{", "}"):
            if words and texts:
                yield words[0], tuple(words[1:]), tuple(texts)
            words, texts = [], []
        elif len(words) < MOST_WORDS:
            words.append(token.lower())


def _sending(command: Command) -> str:
    """Where a command sends mail: `redirect`, or a notice by mail (RFC 5436); "" for anything else."""
    name, _, texts = command
    to = CODES.sub(_letters, texts[-1])
    worked_out = "${" in to
    if name == "redirect" or (name == "notify" and (to.lower().startswith("mailto:") or to.startswith("${"))):
        return f"sends mail on to {shown(to)}" + (", which it works out for each message" if worked_out else "")
    return ""


def _letters(codes: re.Match[str]) -> str:
    """As "encoded-character" has them (RFC 5228, 2.4.2.4)."""
    numbers = [int(each, 16) for each in codes[2].split()]
    if codes[1].lower() == "hex":
        return bytes(number & 255 for number in numbers).decode(errors="replace")
    return "".join(chr(number) if number < 0x110000 else "?" for number in numbers)


def _text(token: str) -> str:
    if token[0] == '"':
        return re.sub(r"\\(.)", r"\1", token[1:-1])
    return token.partition("\n")[2].rpartition("\n")[0].strip()


def shown(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in text[:254])
