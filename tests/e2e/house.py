"""A site in the lab as the tests see it: `fab` from a laptop, mail clients, a stranger, and a way in."""

from __future__ import annotations

import email
import email.message
import email.policy
import email.utils
import imaplib
import json
import os
import secrets
import smtplib
import socket
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mailops.lab import replica
from mailops.lab.layout import Lab
from tests.e2e.nursery import Nursery
from tests.e2e.pace import pace

if TYPE_CHECKING:
    from tests.e2e.watch import Watch

T = TypeVar("T")
PROJECT = Path(__file__).parents[2]
RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID", "alone")  # the same in all workers of a run
FAB = [str(Path(sys.executable).with_name("fab")), "--search-root", str(PROJECT)]

SITE = """
domain = "example.test"
admin_email = "admin@example.test"
mail_domains = ["example.test", "second.test"]
mail_users = [
    {{ email = "admin@example.test", pw = {{ env = "X" }} }},
    {{ email = "relay@example.test", pw = {{ env = "X" }} }},
    {{ email = "user1@example.test", pw = {{ env = "X" }} }},
    {{ email = "user2@second.test", pw = {{ env = "X" }} }},
]
mail_aliases = [
    {{ src = "sales@example.test", dst = "user1@example.test" }},
    {{ src = "both@second.test", dst = "user1@example.test" }},
    {{ src = "both@second.test", dst = "user2@second.test" }},
]
cryptdir_pw = {{ env = "X" }}
dkim_selector = "202611" # the one that signs

[hosts.mail]
role = "mailhost"
debian = {release}

[hosts.backup]
role = "mailnull"
debian = {release}
user = "admin"
sudo_pw = {{ env = "X" }}

[hosts.web]
role = "mailnull"
debian = {other}
user = "ops"
"""


# Nothing is down, restarting, or stopped by a signal.
LOOKS_UP = """
units="mailops-vault.service dovecot.service rspamd.service redis-server.service"
[ $(systemctl is-active $postfix $units | grep -cx active) = 5 ] || exit
mountpoint -q /vault && [ -e /vault/db/mail.sqlite ] && [ -e /vault/senders/table ] || exit
! ps -eo stat= | grep -q ^T && echo up
"""

# How `status` may end where it has asked all machines: its word for how they are.
WORD = (0, 1, 5)


@cache
def _nursery() -> Nursery:
    return Nursery()


def _as_a_process(
    words: list[str], env: dict[str, str], stdin: str, timeout: float
) -> subprocess.CompletedProcess[str]:
    """The command itself, in a session of its own: what is meant for the terminal is captured, too."""
    more: dict[str, Any] = {"text": True, "capture_output": True, "start_new_session": True}
    return subprocess.run(words, input=stdin, check=False, timeout=timeout, env=env, **more)


class House:
    """One lab with its site. Everything a test does to it goes through here."""

    def __init__(self, lab: str, release: int, folder: Path) -> None:
        self.lab = lab
        self.release = release
        self.folder = folder
        self.printed: list[str] = []  # all that mailops said since the lab was made, for the search for secrets
        self.watched = False  # somebody looks at the process table
        self.bootstrap_watch: Watch  # who could have looked on while the machines were set up
        self.hosts_toml = folder / "hosts.toml"
        self.is_new = False
        self.spoiled = False  # a test has failed in it
        self.failures: list[str] = []  # why it could not be made at first
        self.restored = 0  # how often it was put back

    def build(self, anew: bool) -> None:
        if anew:
            replica.down(self.lab)
        self.is_new = not replica.status(self.lab)
        source = self.folder / "hosts.toml"
        source.write_text(SITE.format(release=self.release, other=25 - self.release))
        self.hosts_toml = replica.up(source, self.lab, print)
        self._run_file(self.lab).write_text(RUN)
        if self._printed_log.exists():  # a lab that was kept
            self.printed.append(self._printed_log.read_text())

    def build_like(self, other: str) -> None:
        """From the snapshot of another lab, which somebody else bootstraps just now."""
        until(lambda: self._is_ready(other), 300, f"the snapshot of {other}")
        self.is_new = True
        self.hosts_toml = replica.copy(other, self.lab, print)

    def _is_ready(self, other: str) -> bool:
        """A lab that an earlier run has left is about to be removed."""
        file = self._run_file(other)
        return file.exists() and file.read_text() == RUN and replica.is_kept(other)

    @staticmethod
    def _run_file(lab: str) -> Path:
        return Lab(lab).folder / "run"

    def keep(self) -> None:
        """Remember how all is now, just bootstrapped; a lab of an earlier run has met tests already."""
        if self.is_new and not replica.is_kept(self.lab):
            replica.keep(self.lab)
            self.fab("unlock")

    def restore(self) -> None:
        """As it was then, whatever a failed test has left: stopped agents, held locks, daemons that hang."""
        if replica.is_kept(self.lab):
            replica.come_back(self.lab)
            self.restored += 1
        self.fab("bootstrap")  # by what the site says now; the vault is open after it
        self.spoiled = False

    @property
    def _printed_log(self) -> Path:
        return self.hosts_toml.parent / "printed.log"

    def _keep(self, *texts: str) -> None:
        self.printed += texts
        with self._printed_log.open("a") as log:
            log.writelines(texts)

    def remove(self) -> None:
        replica.down(self.lab)

    def open_up(self) -> None:
        """The vault open and every daemon running; `fab unlock` is asked to see to it if anything looks otherwise."""
        if not self._looks_up():
            self.fab("unlock")

    def _looks_up(self) -> bool:
        """A look that costs a tenth of an unlock, which finds nothing to do before nearly every test."""
        folder = replica.root_path(self.lab, "mail") / "var/lib/mailops"
        try:
            active = json.loads((folder / "generations" / f"{(folder / 'active').read_text()}.json").read_text())
        except (OSError, ValueError):
            return False
        if (folder / "journal.json").exists() or not active["proven"]:
            return False
        postfix = "postfix@-.service" if self.release == 12 else "postfix.service"
        said = self.run("mail", f"postfix={postfix}{LOOKS_UP}", check=False).strip()
        return said == "up" and all(map(self._greets, (25, 587, 4190)))

    def _greets(self, port: int) -> bool:
        try:
            with socket.create_connection((self.address("mail"), port), 5) as connection:
                connection.settimeout(5)
                return connection.recv(100).startswith((b"220 ", b'"IMPLEMENTATION"'))
        except OSError:
            return False

    # The laptop

    def fab(
        self,
        *args: str,
        check: bool = True,
        stdin: str = "",
        site: Path | None = None,
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a task against the replica, without a terminal; both streams are captured."""
        start = _as_a_process if self.watched else _nursery().run
        done = start([*FAB, *args], self.env(site, env), stdin, 600 * pace())
        self._keep(done.stdout, done.stderr)
        assert "Traceback" not in done.stderr, done.stderr
        if check and done.returncode not in (WORD if "status" in args else (0,)):
            raise AssertionError(f"fab {' '.join(args)} ended {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def fab_json(self, *args: str) -> Any:
        return json.loads(self.fab(*args, "--json").stdout)

    def env(self, site: Path | None = None, more: dict[str, str] | None = None) -> dict[str, str]:
        return os.environ | {"MAILOPS_SITE": str(site or self.hosts_toml), "MAILOPS_LAB": self.lab} | (more or {})

    # The machines

    def run(self, name: str, script: str, check: bool = True, stdin: str | None = None) -> str:
        """What a shell script says that runs as root inside a machine, without ssh or mailops in between."""
        done = replica.run(self.lab, name, script, stdin, check)
        return done.stdout

    def console(self, page: str) -> str:
        """What the console of Rspamd says to root, at the socket that wants no password."""
        program = (
            "import http.client as h, socket as s; c = h.HTTPConnection('mail'); c.sock = s.socket(s.AF_UNIX); "
            f"c.sock.connect('/run/rspamd/controller.sock'); c.request('GET', '/{page}'); "
            "print(c.getresponse().read().decode())"
        )
        return self.run("mail", f'python3 -c "{program}"')

    def address(self, name: str) -> str:
        return replica.address(self.lab, name)

    def secret(self, where: str) -> str:
        """A password of the site by its place in hosts.toml, such as "cryptdir_pw"."""
        return (self.hosts_toml.parent / "secrets" / where).read_text().strip()

    def secrets(self) -> dict[str, str]:
        folder = self.hosts_toml.parent / "secrets"
        return {path.name: path.read_text().strip() for path in folder.iterdir()}

    def password(self, address: str) -> str:
        return self.secret(f"mail_users.{address}.pw")

    # A stranger, on the outside machine

    def stranger_sends(
        self, to: str, subject: str = "", body: str = "Hello.", sender: str = "stranger@elsewhere.test"
    ) -> str:
        """Hand a message to the outside machine's own MTA, which queues and retries; returns its subject."""
        subject = subject or token()
        head = f"From: {sender}\nTo: {to}\nSubject: {subject}\nDate: {_date()}\n"
        text = f"{head}Message-ID: <{uuid.uuid4()}@elsewhere.test>\n\n{body}\n"
        self.run("outside", f"sendmail -f {sender} {to}", stdin=text)
        return subject

    def swaks(self, *args: str) -> subprocess.CompletedProcess[str]:
        """One SMTP conversation from the outside machine; swaks exits 0 only if the message was taken."""
        command = ["swaks", "--server", "mail.example.test", "--helo", "mx.elsewhere.test", "--timeout", "30", *args]
        return replica.run(self.lab, "outside", command, None, False)

    def stranger_reads(self, subject: str, seconds: float = 60) -> bytes:
        """The raw message with this subject in the stranger's mailbox, once it is there."""
        script = f"grep -rlF 'Subject: {subject}' /home/stranger/Maildir/new /home/stranger/Maildir/cur | head -1"
        path = until(lambda: self.run("outside", script, check=False).strip(), seconds, f"{subject} at the stranger's")
        return (replica.root_path(self.lab, "outside") / path.lstrip("/")).read_bytes()

    # A mail client

    @contextmanager
    def imap(self, user: str, password: str = "") -> Iterator[imaplib.IMAP4_SSL]:
        client = imaplib.IMAP4_SSL(self.address("mail"), 993, ssl_context=unverified(), timeout=30 * pace())
        try:
            client.login(user, password or self.password(user))
            yield client
        finally:
            client.logout()

    def can_log_in(self, user: str, password: str) -> bool:
        try:
            with self.imap(user, password):
                return True
        except imaplib.IMAP4.error:
            return False

    def messages(self, user: str, subject: str, folder: str = "INBOX", password: str = "") -> list[EmailMessage]:
        """The messages with this subject, as the mail client gets them over IMAPS."""
        with self.imap(user, password) as client:
            if client.select(folder, readonly=True)[0] != "OK":
                return []
            numbers = client.search(None, "HEADER", "Subject", f'"{subject}"')[1][0].split()
            raws = [client.fetch(number, "(BODY.PEEK[])")[1][0][1] for number in numbers]
        return [email.message_from_bytes(raw, policy=email.policy.default) for raw in raws]  # type: ignore[misc]

    def arrives(
        self, user: str, subject: str, folder: str = "INBOX", seconds: float = 60, sender: str = ""
    ) -> EmailMessage:
        """The message with this subject, once it is in the user's mailbox.

        The machine `sender` is told again and again not to wait for its next turn: a queue manager that is being
        replaced by a reload, or has the message in its hands just now, does not hear it.
        """

        def there() -> list[EmailMessage]:
            if sender:
                self.run(sender, "postqueue -f")
            return self.messages(user, subject, folder)

        return until(there, seconds, f"{subject} in {user}'s {folder}")[0]

    def submission(self, tls: bool = True) -> smtplib.SMTP:
        client = smtplib.SMTP(self.address("mail"), 587, local_hostname="laptop.test", timeout=30 * pace())
        client.ehlo()
        if tls:
            client.starttls(context=unverified())
            client.ehlo()
        return client

    def submit(self, user: str, to: str, subject: str = "", password: str = "", sender: str = "") -> str:
        """Send a message as a user's mail client does, over submission; returns its subject."""
        message = EmailMessage()
        message["From"], message["To"] = sender or user, to
        message["Subject"] = subject or token()
        message["Date"], message["Message-ID"] = _date(), f"<{uuid.uuid4()}@laptop.test>"
        message.set_content("Hello.\n")
        with self.submission() as client:
            client.login(user, password or self.password(user))
            client.send_message(message, sender or user, [to])
        return str(message["Subject"])

    def state(self, name: str = "mail") -> str:
        return str(self.fab_json("-H", name, "status")[name]["state"])


def until(ask: Callable[[], T], seconds: float, what: str) -> T:
    """Ask until the answer is true; AssertionError when that takes longer than `seconds`, on a slow computer more."""
    seconds *= pace()
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.3)
    return answer


def token() -> str:
    """A subject that occurs nowhere else."""
    return f"token-{secrets.token_hex(8)}"


def unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _date() -> str:
    return email.utils.formatdate(localtime=False)
