"""The demo itself: the main job, step by step, on the machines of the lab "demo".

Every step looks at what it claims; what is not so ends the demo with a line that says what.
"""

from __future__ import annotations

import imaplib
import os
import secrets
import shutil
import smtplib
import sys
import time
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from typing import TypeVar

from mailops.errors import MailopsError
from mailops.lab import demo, demo_packages, demo_remove, layout, replica
from mailops.lab.demo_mail import Account, connects, parse
from mailops.lab.demo_screen import Screen
from mailops.roles import is_central
from mailops.site import edit, reader
from mailops.site.model import Host, Site

T = TypeVar("T")

PORTS = (25, 465, 587, 993)
STRANGER = "stranger@elsewhere.test"
PATIENCE = 60  # seconds for a message to arrive; a second or two are usual

NEXT = """\
. .venv/bin/activate
export MAILOPS_LAB={lab} MAILOPS_SITE={site}
fab status
fab user.ls
fab mailcfg help
fab tunnel              # the spam filter's console in your browser
fab lab.shell {mail}      # a root shell on the mail server
fab --list              # everything there is
script/demo --remove    # when you have seen enough"""


class Demo:
    """One performance. The steps are in the order of the methods."""

    def __init__(self, screen: Screen, release: int) -> None:
        self.screen = screen
        self.release = release
        self.lab = layout.Lab(demo.LAB)
        self.env = {name: value for name, value in os.environ.items() if name != "MAILOPS_SITE"}

    def perform(self) -> None:
        began = time.monotonic()
        self.bare_machines()
        self.bootstrap()
        self.message_from_outside()
        self.read_over_imaps()
        self.submission()
        self.reboot()
        self.unlock()
        self.screen.heading(f"All of it was seen, in {time.monotonic() - began:.0f} s.")
        print("The machines stay on; to try next:\n")
        print(NEXT.format(lab=demo.LAB, site=self.lab.hosts_file, mail=self.mail.name))

    # The steps

    def bare_machines(self) -> None:
        self.screen.heading("1  Bare machines: a mail server to be, another server, and the outside world")
        self.set("MAILOPS_LAB", demo.LAB)
        if self.lab.folder.exists():
            self.screen.note("(the machines of an earlier demo go first)")
            self.fab("lab.down")
        self.choose_release()
        self.fab("lab.up")
        self.set("MAILOPS_SITE", str(self.lab.hosts_file))
        self.site: Site = reader.load(self.lab.hosts_file)
        self.mail: Host = next(host for host in self.site.hosts.values() if is_central(host.role))
        self.user = next(
            (user.email for user in self.site.mail_users if self.is_a_person(user.email)), self.site.admin_email
        )
        said = self.on(self.mail.name, "dpkg-query --show postfix dovecot-core rspamd gocryptfs", check=False)
        need(said.count("no packages found") == 4, f"{self.mail.name} is not bare")
        self.ports(opened=False)

    def bootstrap(self) -> None:
        self.screen.heading("2  One command makes them what hosts.toml says")
        self.fab("bootstrap")
        self.ports(opened=True)

    def message_from_outside(self) -> None:
        self.screen.heading("3  A stranger's message comes in through port 25")
        self.subject = f"Hello from outside {token()}"
        swaks = f"swaks --server {self.site.mail_server_hostname} --tls --from {STRANGER} --to {self.user}"
        said = self.on("outside", f"{swaks} --header 'Subject: {self.subject}' | grep -E '~> (MAIL|RCPT)|queued'")
        need("250 2.0.0 Ok: queued" in said, "the message was not taken")

    def read_over_imaps(self) -> None:
        self.screen.heading("4  The same message, read over IMAPS, and what the disk shows of it")
        message = self.arrives(self.subject)
        self.headers(message, "From", "To", "Subject", "Date")
        self.screen.seen(f"in the inbox of {self.user}, port 993, TLS with the server's own certificate")
        vault = self.site.vault_cipherdir
        self.on(self.mail.name, f"ls {vault} | head -n 3")
        found = self.on(self.mail.name, f"grep -rl '{self.subject}' {vault} | wc -l")
        need(found.strip() == "0", f"{vault} shows the message in clear")
        self.screen.seen("the disk has names and contents encrypted; no file there shows the message")

    def submission(self) -> None:
        self.screen.heading(f"5  An answer, submitted on port 587 by {self.user}")
        subject = f"Hello back {token()}"
        self.account().submit(STRANGER, subject)
        self.screen.seen("taken after STARTTLS and a login")
        message = until(lambda: self.strangers_message(subject), "the answer does not arrive at the stranger's")
        signature = str(message["DKIM-Signature"] or "")
        self.headers(message, "From", "To", "Subject", "DKIM-Signature")
        need(f"s={self.site.dkim_selector};" in signature, f"it is not signed with {self.site.dkim_selector}")
        self.screen.seen(f"in the stranger's mailbox, signed with the key {self.site.dkim_selector}")

    def reboot(self) -> None:
        self.screen.heading("6  A reboot: the vault is locked, nothing mail-related runs, mail waits where it is")
        self.fab("lab.reboot", self.mail.name)
        need("● locked" in self.fab("-H", self.mail.name, "status"), "status does not say that the vault is locked")
        self.ports(opened=False)
        found = self.on(self.mail.name, f"find {self.site.vault}")
        need(found.strip() == self.site.vault, f"there is something below the bare {self.site.vault}")
        self.subject = f"Sent meanwhile {token()}"
        text = f"Subject: {self.subject}\\n\\nHello?\\n"
        self.on("outside", f"printf '{text}' | sendmail -f {STRANGER} {self.user}")
        queue = until(
            lambda: self.quietly("outside", "mailq | grep refused"), "the message is not in the stranger's queue"
        )
        self.screen.command("mailq | grep refused", "outside#")
        self.screen.output(queue)
        self.screen.seen("the stranger's own mail server keeps the message and tries again")

    def unlock(self) -> None:
        self.screen.heading("7  The administrator unlocks it: mail flows again")
        self.fab("unlock")
        self.ports(opened=True)
        message = self.arrives(self.subject)
        self.headers(message, "From", "Subject")
        self.screen.seen(f"the message that waited is in the inbox of {self.user}")
        need("✓ up" in self.fab("-H", self.mail.name, "status"), "status does not say that all is up")

    # What the steps are made of

    def set(self, name: str, value: str) -> None:
        self.screen.command(f"export {name}={value}")
        self.env[name] = value

    def choose_release(self) -> None:
        """hosts.toml as it is, or a copy of it with the other release for the mailhost."""
        hosts_toml = demo.PROJECT / "hosts.toml"
        mailhost = next(host for host in reader.load(hosts_toml).hosts.values() if is_central(host.role))
        if mailhost.debian != self.release:
            copy = demo.VENV / "demo-hosts.toml"
            shutil.copyfile(hosts_toml, copy)
            edit.set_value(copy, ("hosts", mailhost.name, "debian"), self.release)
            self.screen.note(f"(a copy of hosts.toml with debian = {self.release} for {mailhost.name})")
            self.set("MAILOPS_SITE", str(copy.relative_to(demo.PROJECT)))

    def is_a_person(self, address: str) -> bool:
        return address not in (self.site.admin_email, self.site.relay_email)

    def fab(self, *words: str) -> str:
        """Run a task as a person would, and show it. `status` says by its code how the machines are."""
        self.screen.command(f"fab {' '.join(words)}")
        code, said = self.screen.run([str(Path(sys.executable).with_name("fab")), *words], self.env, demo.PROJECT)
        need(code == 0 or words[-1] == "status", f"`fab {' '.join(words)}` ended with {code}")
        return said

    def on(self, name: str, script: str, check: bool = True) -> str:
        """Run a shell script as root on a machine, and show it and what it says."""
        self.screen.command(script, f"{name}#")
        done = replica.run(demo.LAB, name, script, check=check)
        self.screen.output(done.stdout + done.stderr)
        return done.stdout + done.stderr

    def quietly(self, name: str, script: str) -> str:
        return replica.run(demo.LAB, name, script, check=False).stdout

    def ports(self, opened: bool) -> None:
        """Whether all of the mail ports answer, or none of them."""
        address = str(self.mail.address)
        answer = {port: connects(address, port) for port in PORTS}
        line = ", ".join(f"{port} {'open' if answer[port] else 'closed'}" for port in PORTS)
        need(
            all(is_open == opened for is_open in answer.values()),
            f"the ports of {address} are not as they should be: {line}",
        )
        self.screen.seen(f"ports of {self.site.mail_server_hostname}: {line}")

    def account(self) -> Account:
        """The user's mailbox; the certificate is read from the machine's own disk."""
        password = (self.lab.secrets / f"mail_users.{self.user}.pw").read_text().strip()
        certificate = replica.root_path(demo.LAB, self.mail.name) / "etc/mailops/tls/fullchain.pem"
        return Account(str(self.mail.address), self.user, password, certificate)

    def arrives(self, subject: str) -> EmailMessage:
        account = self.account()
        return until(lambda: account.find(subject), f'"{subject}" does not arrive in the inbox of {self.user}')

    def strangers_message(self, subject: str) -> EmailMessage | None:
        path = self.quietly("outside", f"grep -rlF 'Subject: {subject}' /home/stranger/Maildir/new | head -n 1").strip()
        return parse((replica.root_path(demo.LAB, "outside") / path.lstrip("/")).read_bytes()) if path else None

    def headers(self, message: EmailMessage, *names: str) -> None:
        for name in names:
            value = " ".join(str(message[name] or "").split())
            self.screen.output(f"  {name}: {value if len(value) <= 84 else value[:83] + '…'}")


def need(fact: bool, otherwise: str) -> None:
    if not fact:
        raise MailopsError(otherwise)


def until(ask: Callable[[], T | None], otherwise: str, seconds: float = PATIENCE) -> T:
    """Ask until there is an answer."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        need(time.monotonic() < deadline, f"{otherwise} within {seconds:.0f} s")
        time.sleep(0.3)
    return answer


def token() -> str:
    return secrets.token_hex(3)


def main(argv: list[str]) -> int:
    options = demo.arguments().parse_args(argv)
    try:
        with demo_remove.alone():
            demo_packages.remember()
            screen = Screen(options.record)
            Demo(screen, options.debian).perform()
            screen.save()
    except (MailopsError, OSError, imaplib.IMAP4.error, smtplib.SMTPException) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted; run it again, or script/demo --remove", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
