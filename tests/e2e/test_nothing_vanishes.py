"""Mail of odd kinds from everybody to everybody: delivered, refused to the sender's face, or bounced to a reader.

It is counted: nothing is missing, and nothing is there twice.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import pytest

from mailops.lab import replica
from tests.e2e.house import House, token, until
from tests.e2e.odd_mail import KINDS

ADMIN, USER1, USER2, RELAY = "admin@example.test", "user1@example.test", "user2@second.test", "relay@example.test"
OFF, IDN, FORWARD = "off@example.test", "ann@xn--mller-kva.test", "forward@example.test"
STRANGER = "stranger@elsewhere.test"
AWAY, ALSO_AWAY = "away@example.test", "also-away@example.test"
READERS = (ADMIN, USER1, USER2, RELAY, OFF, IDN, FORWARD)  # whose mailboxes are looked into

# Run on the machine that sends: smtplib's conversation, or sendmail(1). A line of JSON in, a line of JSON out.
SENDER = r"""
import base64, json, smtplib, ssl, subprocess, sys, time

def patient(job, data):
    # As a mail server does: who was told to come again comes again, so that a slow machine fails nothing.
    refused = {}
    for wait in (2, 5, 10, 20, 0):
        answers = smtp(job, data)
        later = {to: answer for to, answer in answers.items() if 400 <= answer[0] < 500}
        refused.update((to, answer) for to, answer in answers.items() if to not in later)
        if not later or not wait:
            return refused | later
        print(f"{job['mark']} had to wait: {later}", file=sys.stderr)
        job["to"] = list(later)
        time.sleep(wait)

def smtp(job, data):
    context = ssl._create_unverified_context()
    options = {"local_hostname": job["helo"], "timeout": 120}
    if job["port"] == 465:
        client = smtplib.SMTP_SSL(job["server"], 465, context=context, **options)
    else:
        client = smtplib.SMTP(job["server"], job["port"], **options)
    try:
        client.ehlo()
        if job["port"] == 587:
            client.starttls(context=context)
        if job["login"]:
            client.login(*job["login"])
        refused = client.sendmail(job["sender"], job["to"], data)
        return {to: [code, text.decode()] for to, (code, text) in refused.items()}
    except smtplib.SMTPRecipientsRefused as error:
        return {to: [code, text.decode()] for to, (code, text) in error.recipients.items()}
    except smtplib.SMTPResponseException as error:
        return dict.fromkeys(job["to"], [error.smtp_code, str(error.smtp_error)])
    finally:
        client.close()

def local(job, data):
    done = subprocess.run(["sendmail", "-i", "-f", job["sender"], "--", *job["to"]], input=data, capture_output=True)
    return dict.fromkeys(job["to"], [500, done.stderr.decode()]) if done.returncode else {}

for line in sys.stdin:
    job = json.loads(line)
    data = base64.b64decode(job["data"])
    print(json.dumps([job["mark"], (patient if job["port"] else local)(job, data)]), flush=True)
"""


@dataclass(frozen=True)
class Origin:
    """From where: a machine (or this computer), how, as whom, to whom each message goes in turn."""

    machine: str
    sender: str
    to: tuple[tuple[str, ...], ...]
    server: str = ""  # of SMTP; sendmail(1) where there is none
    port: int = 0
    login: str = ""


# An address -> the mailboxes that a message to it ends in.
ENDS: dict[str, tuple[str, ...]] = {
    USER1: (USER1,),
    USER2: (USER2,),
    OFF: (OFF,),
    IDN: (IDN,),
    ADMIN: (ADMIN,),
    "User1+Shop@Example.test": (USER1,),
    "sales@example.test": (USER1,),
    "both@second.test": (USER1, USER2),
    "postmaster@second.test": (ADMIN,),
    FORWARD: (FORWARD, STRANGER),  # by her own sieve script; spam does not go on, here and below
    STRANGER: (STRANGER,),
    AWAY: (STRANGER,),
    ALSO_AWAY: (USER1, STRANGER),
    "root": (ADMIN,),
    "root@localhost": (ADMIN,),
}
INNER = ((USER1,), (USER2,), ("both@second.test",), (OFF,), ("sales@example.test", USER2), ("User1+Shop@Example.test",))
EVERYBODY = (*INNER, (IDN,), ("postmaster@second.test",), (FORWARD,))
ALIASES = {AWAY: (STRANGER,), ALSO_AWAY: (USER1, STRANGER)}
STRANGERS = (*EVERYBODY, (AWAY,), (ALSO_AWAY,), (USER2, AWAY))
ORIGINS = (
    Origin("outside", STRANGER, STRANGERS, "mail.example.test", 25),
    Origin("outside", "", STRANGERS, "mail.example.test", 25),
    Origin("", USER1, (*EVERYBODY, (STRANGER,), (STRANGER, USER2)), "mail.example.test", 587, USER1),
    Origin("", USER2, ((USER1,), (STRANGER,), ("both@second.test",), (IDN,)), "mail.example.test", 465, USER2),
    Origin("backup", "root@backup.example.test", (("root",), (STRANGER,), (USER1,), (STRANGER, "root"))),
    Origin("web", "www-data@web.example.test", (("root@localhost",), (STRANGER,), (USER2,)), "127.0.0.1", 25),
    Origin("web", "noreply@example.test", (("root",), (STRANGER,), (USER1,))),
    Origin("mail", "root@mail.example.test", (("root",), (STRANGER,), (USER1,), ("sales@example.test", STRANGER))),
)


class Sent(NamedTuple):
    kind: str
    origin: Origin
    to: tuple[str, ...]


@pytest.fixture
def people(up: House) -> Iterator[House]:
    """A disabled user, one with a redirect of her own, one at an IDN domain, and aliases that lead away."""
    script = 'require ["copy"];\nredirect :copy "stranger@elsewhere.test";\n'
    home = "/vault/mail/example.test/forward"
    try:
        up.run("mail", f"mailcfg adddom {IDN.partition('@')[2]}")
        for user in (OFF, FORWARD, IDN):
            up.run("mail", f"mailcfg adduser {user}", stdin=f"{token()}\n")
        up.run("mail", f"mailcfg disable {OFF}")
        for alias, ends in ALIASES.items():
            up.run("mail", "; ".join(f"mailcfg addalias {alias} {end}" for end in ends))
        up.run("mail", f"install -d -m 700 -o vmail -g vmail {home}")
        up.run("mail", f"cat >{home}/.dovecot.sieve; chown vmail:vmail {home}/.dovecot.sieve", stdin=script)
        yield up
    finally:
        up.run("mail", "; ".join(f"mailcfg rmalias {alias}" for alias in ALIASES))
        for user in (OFF, FORWARD, IDN):
            up.run("mail", f"mailcfg rmuser {user}; rm -rf /vault/mail/{user.partition('@')[2]}/{user.split('@')[0]}")
        up.run("mail", f"mailcfg rmdom {IDN.partition('@')[2]}")


def jobs(house: House, sent: dict[str, Sent]) -> Iterator[tuple[str, str]]:
    """(machine, a line for SENDER) for each kind from each origin, and into `sent` what each was."""
    for origin in ORIGINS:
        turns = itertools.cycle(origin.to)
        author = origin.sender or STRANGER
        for kind, make in KINDS.items():
            mark, to = f"odd-{token()}", next(turns)
            sent[mark] = Sent(kind, origin, to)
            data = make(author, to[0], mark)
            if origin.port:
                data = re.sub(rb"\r?\n", b"\r\n", data)
            job = {
                "mark": mark,
                "sender": origin.sender,
                "to": to,
                "server": house.address("mail") if origin.port and origin.server != "127.0.0.1" else origin.server,
                "port": origin.port,
                "helo": f"{origin.machine or 'laptop'}.test",
                "login": [origin.login, house.password(origin.login)] if origin.login else None,
                "data": base64.b64encode(data).decode(),
            }
            yield origin.machine, json.dumps(job)


def send(house: House, machine: str, lines: list[str]) -> str:
    command = ["python3", "-c", SENDER]
    if machine:
        done = replica.run(house.lab, machine, command, "\n".join(lines), False)
    else:
        here = [sys.executable, *command[1:]]
        done = subprocess.run(here, input="\n".join(lines), text=True, capture_output=True, check=False)
    assert done.returncode == 0, f"from {machine or 'here'}: {done.stderr}"
    if done.stderr:
        warnings.warn(done.stderr, stacklevel=1)
    return done.stdout


def all_sent(house: House, sent: dict[str, Sent]) -> dict[str, dict[str, tuple[int, str]]]:
    """Send everything, two lines of work for each origin; mark -> address -> the answer that refused it."""
    by_machine: dict[tuple[str, int], list[str]] = {}
    for number, (machine, line) in enumerate(jobs(house, sent)):
        by_machine.setdefault((machine, number % 2), []).append(line)
    with ThreadPoolExecutor(len(by_machine)) as pool:
        outputs = list(pool.map(lambda item: send(house, item[0][0], item[1]), by_machine.items()))
    return dict(json.loads(line) for output in outputs for line in output.splitlines())


def settled(house: House) -> bool:
    """Whether no queue holds anything any more; what waits is told to go."""
    waiting = []
    for machine in ("backup", "web", "mail", "outside"):
        waiting.append(house.run(machine, "postqueue -j; postqueue -f"))
    return not any(text.strip() for text in waiting)


class Found(NamedTuple):
    """A message in somebody's mailbox, or in a bounce that is there."""

    mark: str
    box: str
    bounce: bool
    junk: bool


MARK = "odd-token-[0-9a-f]{16}"
REPORT = "^Content-Type: multipart/report; report-type=delivery-status"


def found(house: House) -> list[Found]:
    """What is in the mailboxes of the site and in the stranger's, file by file."""
    places = {f"/vault/mail/{user.partition('@')[2]}/{user.partition('@')[0]}/Maildir": user for user in READERS}
    return grep(house, "mail", places) + grep(house, "outside", {"/home/stranger/Maildir": STRANGER})


def grep(house: House, machine: str, places: dict[str, str]) -> list[Found]:
    """Each file counts once for each mark that is in it, however often it says it."""
    folders = " ".join(places)
    marks = house.run(machine, f"grep -raoE '{MARK}' --exclude='dovecot*' {folders} || true")
    reports = set(house.run(machine, f"grep -rlaiE '{REPORT}' {folders} || true").splitlines())
    pairs = {tuple(line.rsplit(":", 1)) for line in marks.splitlines()}
    counted = []
    for path, mark in pairs:
        (box,) = [box for place, box in places.items() if path.startswith(f"{place}/")]
        counted.append(Found(mark, box, path in reports, "/.Junk/" in path))
    return counted


def test_every_odd_message_is_delivered_refused_or_bounced_to_a_reader(people: House) -> None:
    sent: dict[str, Sent] = {}
    refused = all_sent(people, sent)
    assert len(KINDS) >= 60
    assert len(sent) >= 500
    assert refused.keys() == sent.keys()
    until(lambda: settled(people), 240, "empty queues")
    there = found(people)
    wrong = [
        f"{message.kind!r} from {message.origin.machine or 'a user'} <{message.origin.sender}> to {message.to}: {fault}"
        for mark, message in sent.items()
        for fault in faults(message, refused[mark], [each for each in there if each.mark == mark])
    ]
    assert not wrong, "\n".join(wrong)


def faults(message: Sent, refused: dict[str, tuple[int, str]], there: list[Found]) -> Iterator[str]:
    yield from (f"{to} got {code} {text}, for now" for to, (code, text) in refused.items() if 400 <= code < 500)
    boxes = {box for to in message.to if to not in refused for box in ENDS[to]}
    if {FORWARD, ALSO_AWAY} & set(message.to) and any(each.junk for each in there):
        boxes -= {STRANGER}
    counts = Counter(each.box for each in there if not each.bounce)
    for box, count in counts.items():
        if box not in boxes:
            yield f"{box} has it, and was no recipient"
        if count > 1:
            yield f"{box} has it {count} times"
    missing = boxes - counts.keys()
    if missing and not any(each.bounce for each in there):
        yield f"{', '.join(sorted(missing))} did not get it, and nobody was told"
