"""Every mailcfg command through every door, judged by what Postfix and Dovecot do next, without a reload."""

from __future__ import annotations

import contextlib
import imaplib
import itertools
import re
import smtplib
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mailops.lab import replica
from tests.e2e.house import House, token, until, unverified
from tests.e2e.terminal import CTRL_C, typed
from tests.e2e.watch import Watch

# What `fab mailcfg` calls a command, and what the task of its own is called.
TASKS = {
    "addalias": "alias.add",
    "adddom": "domain.add",
    "adduser": "user.add",
    "lsalias": "alias.ls",
    "lsdom": "domain.ls",
    "lsuser": "user.ls",
    "rmalias": "alias.rm",
    "rmdom": "domain.rm",
    "rmuser": "user.rm",
    "passwd": "user.passwd",
    "disable": "user.disable",
    "enable": "user.enable",
}
Run = Callable[..., subprocess.CompletedProcess[str]]


def on_the_machine(house: House, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return replica.run(house.lab, "mail", ["/usr/bin/mailcfg", *words], stdin, False)


def by_fab_mailcfg(house: House, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    words, stdin = _without_password(words, stdin)
    return house.fab("mailcfg", " ".join(words), check=False, stdin=stdin)


def by_a_task(house: House, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """`fab user.…`, `alias.…`, `domain.…`: a password goes in by stdin, a domain to list by its option."""
    (name, *rest), stdin = _without_password(words, stdin)
    if name.startswith("ls"):
        rest = [f"--domain={word}" for word in rest]
    if rest[:1] == ["-id"]:
        rest = rest[1:]
    return house.fab(TASKS[name], *rest, check=False, stdin=stdin)


def _without_password(words: tuple[str, ...], stdin: str) -> tuple[tuple[str, ...], str]:
    """The laptop takes no password as a word: it goes in by stdin."""
    given = words[0] in ("adduser", "passwd") and len(words) == 3
    return (words[:2], words[2] + "\n") if given else (words, stdin)


DOORS = (on_the_machine, by_fab_mailcfg, by_a_task)


@pytest.fixture(params=DOORS, ids=lambda door: door.__name__)
def mailcfg(request: pytest.FixtureRequest, up: House) -> Run:
    """mailcfg through one of its doors; what it printed, and its exit code."""
    return lambda *words, stdin="": request.param(up, *words, stdin=stdin)


@dataclass(frozen=True)
class Person:
    email: str
    password: str
    domain: str


@pytest.fixture
def ann(up: House) -> Iterator[Person]:
    """A user in a domain of her own, who was not there a moment ago; both are gone afterwards."""
    domain = f"{token()}.test"
    person = Person(f"ann@{domain}", token(), domain)
    assert on_the_machine(up, "adddom", domain).returncode == 0
    assert on_the_machine(up, "adduser", person.email, person.password).returncode == 0
    yield person
    on_the_machine(up, "rmuser", person.email)
    on_the_machine(up, "rmdom", domain)
    up.run("mail", f"rm -rf /vault/mail/{domain}")


def can_submit(house: House, user: str, password: str) -> bool:
    with house.submission() as client:
        client.user, client.password = user, password  # type: ignore[attr-defined]
        try:
            client.auth("PLAIN", client.auth_plain)  # login() would try again by the next mechanism
        except smtplib.SMTPAuthenticationError:
            return False
    return True


def can_log_in_anywhere(house: House, user: str, password: str) -> set[str]:
    """The doors that open; both are tried at once, since Dovecot lets a wrong password wait for two seconds."""
    with ThreadPoolExecutor() as pool:
        imap = pool.submit(house.can_log_in, user, password)
        submission = pool.submit(can_submit, house, user, password)
    return {name for name, door in (("imap", imap), ("submission", submission)) if door.result()}


def reply_to_rcpt(house: House, to: str) -> str:
    """What port 25 says to a stranger's RCPT TO."""
    said = house.swaks("--from", "stranger@elsewhere.test", "--to", to, "--quit-after", "RCPT").stdout
    reply = re.search(rf" -> RCPT TO:<{re.escape(to)}>\n<(?:-|\*\*)\s+(\d.*)", said)
    assert reply, said
    return reply[1]


def strangers_message(house: House, to: str) -> str:
    """Hand a message to port 25 at once, no queue in between; returns its subject."""
    subject = token()
    done = house.swaks("--from", "stranger@elsewhere.test", "--to", to, "--header", f"Subject: {subject}")
    assert done.returncode == 0, done.stdout
    return subject


def reaches(house: House, person: Person, subject: str) -> None:
    until(lambda: house.messages(person.email, subject, password=person.password), 30, f"{subject} in the mailbox")


# Domains in other letters than ASCII


def test_a_domain_as_people_write_it_gets_mail_in_the_form_that_mail_has(up: House, mailcfg: Run) -> None:
    written = f"mü{token()}.test"
    kept = written.encode("idna").decode()
    ann = Person(f"ann@{kept}", token(), kept)
    try:
        assert mailcfg("adddom", written).stdout.splitlines()[:2] == [f"{written} is {kept} in mail", f"added {kept}"]
        said = mailcfg("adduser", f"ann@{written}", ann.password).stdout.splitlines()
        assert said == [f"ann@{written} is {ann.email} in mail", f"added {ann.email}"]
        reaches(up, ann, strangers_message(up, ann.email))
        assert mailcfg("adddom", f"p\N{CYRILLIC SMALL LETTER A}{token()}.test").returncode == 2
    finally:
        on_the_machine(up, "rmuser", ann.email)
        on_the_machine(up, "rmdom", kept)
        up.run("mail", f"rm -rf /vault/mail/{kept}")


# Passwords given as a word


AGENT = ("python3", "-IS", "/usr/lib/mailops/agent.pyz", "mailcfg")


@pytest.mark.parametrize("program", [("/usr/bin/mailcfg",), AGENT], ids=["mailcfg", "agent"])
def test_a_password_as_a_word_is_taken_by_the_machine_alone_and_is_not_in_ps(
    up: House, ann: Person, program: tuple[str, ...]
) -> None:
    new = f"{token()} $(false) `'\" \\"
    held = (
        'python3 -c \'import sqlite3, time; d = sqlite3.connect("/vault/db/mail.sqlite"); d.execute("BEGIN IMMEDIATE");'
    )
    up.run(
        "mail", f"{held} print(1, flush=True); time.sleep(2)' >/run/held & until [ -s /run/held ]; do sleep 0.1; done"
    )
    with ThreadPoolExecutor() as pool:  # it waits for the database meanwhile
        changing = pool.submit(replica.run, up.lab, "mail", [*program, "passwd", ann.email, new], "", False)
        until(lambda: "mailcfg" in (seen := up.run("mail", "ps axww -o args")) and ann.email in seen, 10, "mailcfg")
        shown = new.partition(" ")[0]
        until(lambda: shown not in up.run("mail", "cat /proc/[0-9]*/cmdline", check=False), 1, "a clean argv")
        done = changing.result()
    assert done.returncode == 0, done.stderr
    assert "warning: ps showed this password" in done.stderr
    assert up.can_log_in(ann.email, new)
    refused = up.fab("mailcfg", f"passwd {ann.email} {token()}", check=False, env={"MAILOPS_SITE": "/nowhere"})
    assert refused.returncode == 2
    assert "token-" not in refused.stderr.replace(ann.domain, "")
    assert "asks for it" in refused.stderr


# Domains and users


def test_a_new_domain_and_user_get_mail_and_log_in_at_once(up: House, mailcfg: Run) -> None:
    domain = f"{token()}.test"
    ann = Person(f"ann@{domain}", token(), domain)
    assert reply_to_rcpt(up, ann.email)[0] == "5"
    assert mailcfg("adddom", domain).stdout.startswith(f"added {domain}\n")
    assert mailcfg("adduser", ann.email, ann.password).stdout == f"added {ann.email}\n"
    try:
        assert can_log_in_anywhere(up, ann.email, ann.password) == {"imap", "submission"}
        reaches(up, ann, strangers_message(up, ann.email))
        again = mailcfg("adduser", ann.email, "another-password")
        assert again.returncode == 0
        assert "is there already; its password stays as it is" in again.stdout
        assert can_log_in_anywhere(up, ann.email, "another-password") == set()
    finally:
        on_the_machine(up, "rmuser", ann.email)
        on_the_machine(up, "rmdom", domain)


def test_a_changed_password_works_at_once_and_the_old_one_does_not(up: House, mailcfg: Run, ann: Person) -> None:
    assert can_log_in_anywhere(up, ann.email, ann.password) == {"imap", "submission"}  # Dovecot has cached it now
    new = token()
    assert mailcfg("passwd", ann.email, new).returncode == 0
    assert can_log_in_anywhere(up, ann.email, new) == {"imap", "submission"}
    assert can_log_in_anywhere(up, ann.email, ann.password) == set()


def test_a_disabled_user_is_thrown_out_and_still_gets_mail(up: House, mailcfg: Run, ann: Person) -> None:
    client = imaplib.IMAP4_SSL(up.address("mail"), 993, ssl_context=unverified(), timeout=30)
    client.login(ann.email, ann.password)
    client.select()
    assert mailcfg("disable", ann.email).returncode == 0
    until(lambda: not _is_alive(client), 10, "the running session to be ended")
    assert can_log_in_anywhere(up, ann.email, ann.password) == set()
    subject = strangers_message(up, ann.email)
    assert mailcfg("enable", ann.email).returncode == 0
    assert can_log_in_anywhere(up, ann.email, ann.password) == {"imap", "submission"}
    reaches(up, ann, subject)


def test_what_is_being_scanned_when_its_user_is_disabled_is_not_taken(up: House, ann: Person) -> None:
    subject, queue = token(), "/var/spool/postfix"
    unfinished = f"find {queue}/incoming -type f ! -perm -100"
    with up.submission() as client:
        client.login(ann.email, ann.password)
        client.mail(ann.email)
        client.rcpt("user1@example.test")
        assert client.docmd("DATA")[0] == 354
        up.run("mail", "systemctl kill --signal=STOP rspamd")
        try:
            client.send(f"From: {ann.email}\r\nTo: user1@example.test\r\nSubject: {subject}\r\n\r\nHi.\r\n.\r\n")
            until(lambda: up.run("mail", unfinished), 20, "the message to be looked at")
            assert on_the_machine(up, "disable", ann.email).returncode == 0
        finally:
            up.run("mail", "systemctl kill --signal=CONT rspamd")
        with pytest.raises((smtplib.SMTPServerDisconnected, OSError)):
            client.getreply()
    until(lambda: not up.run("mail", unfinished), 20, "the file to go")
    assert up.run("mail", f"grep -rl {subject} {queue}/incoming {queue}/active {queue}/hold /vault/mail || true") == ""


def test_a_removed_user_is_unknown_and_the_mail_stays_in_the_vault(up: House, mailcfg: Run, ann: Person) -> None:
    reaches(up, ann, strangers_message(up, ann.email))
    done = mailcfg("rmuser", ann.email)
    assert done.stdout.startswith(f"removed {ann.email}\n")
    assert reply_to_rcpt(up, ann.email).startswith("550 ")
    assert can_log_in_anywhere(up, ann.email, ann.password) == set()
    folder = f"/vault/mail/{ann.domain}/ann"
    assert folder in done.stdout
    assert up.run("mail", f"grep -rl stranger@elsewhere.test {folder}/Maildir/new {folder}/Maildir/cur")


def test_mail_for_a_removed_domain_is_refused(up: House, mailcfg: Run, ann: Person) -> None:
    assert reply_to_rcpt(up, ann.email).startswith("250 ")
    assert mailcfg("rmdom", ann.domain).returncode == 0
    assert reply_to_rcpt(up, ann.email)[0] == "5"
    assert mailcfg("adddom", ann.domain).returncode == 0
    assert reply_to_rcpt(up, ann.email).startswith("250 ")


# Aliases


def test_an_alias_delivers_at_once_and_bounces_when_it_is_removed(up: House, mailcfg: Run, ann: Person) -> None:
    alias = f"sales@{ann.domain}"
    assert reply_to_rcpt(up, alias).startswith("550 ")
    assert mailcfg("addalias", alias, ann.email).stdout == f"added {alias} -> {ann.email}\n"
    reaches(up, ann, strangers_message(up, alias))
    assert mailcfg("rmalias", alias).stdout.startswith(f"removed {alias} -> {ann.email}\n")
    assert reply_to_rcpt(up, alias).startswith("550 ")


def test_one_alias_of_several_is_removed_by_its_number(up: House, mailcfg: Run, ann: Person) -> None:
    alias = f"both@{ann.domain}"
    mailcfg("addalias", alias, ann.email)
    mailcfg("addalias", alias, "user1@example.test")
    listed = mailcfg("lsalias", ann.domain).stdout
    number = next(line.split()[0] for line in listed.splitlines() if line.endswith(ann.email))
    assert mailcfg("rmalias", "-id", number).returncode == 0
    assert mailcfg("lsalias", ann.domain).stdout.splitlines()[1:] != []
    subject = strangers_message(up, alias)
    up.arrives("user1@example.test", subject)
    assert up.messages(ann.email, subject, password=ann.password) == []
    assert mailcfg("rmalias", alias).returncode == 0


# An alias for a whole domain


@pytest.fixture
def whole(up: House, ann: Person) -> Iterator[str]:
    """What nobody in ann's domain has goes to user2; ann herself is disabled."""
    on_the_machine(up, "addalias", f"@{ann.domain}", "user2@second.test")
    on_the_machine(up, "addalias", f"away@{ann.domain}", "stranger@elsewhere.test")
    on_the_machine(up, "disable", ann.email)
    yield f"@{ann.domain}"
    on_the_machine(up, "rmalias", f"@{ann.domain}")
    on_the_machine(up, "rmalias", f"away@{ann.domain}")


def test_an_alias_for_a_whole_domain_spares_who_is_there(up: House, whole: str, ann: Person) -> None:
    on_the_machine(up, "addalias", f"team{whole}", "user1@example.test")
    try:
        caught = [strangers_message(up, f"{name}{whole}") for name in ("whoever", "whoever+shop")]
        hers = [strangers_message(up, address) for address in (ann.email, f"ann+shop{whole}")]
        teams = strangers_message(up, f"team{whole}")
        for subject in caught:
            up.arrives("user2@second.test", subject)
        up.arrives("user1@example.test", teams)
        on_the_machine(up, "enable", ann.email)
        for subject in hers:
            reaches(up, ann, subject)
        spared = [*hers, teams]
        assert [subject for subject in spared if up.messages("user2@second.test", subject)] == []
    finally:
        on_the_machine(up, "rmalias", f"team{whole}")
    assert reply_to_rcpt(up, f"whoever@sub.{ann.domain}")[0] == "5"
    assert reply_to_rcpt(up, "whoever@second.test").startswith("550 ")
    on_the_machine(up, "rmalias", whole)
    assert reply_to_rcpt(up, f"whoever{whole}").startswith("550 ")


def test_who_has_a_whole_domain_writes_as_what_is_nobody_elses_there(up: House, whole: str, ann: Person) -> None:
    up.arrives("user2@second.test", up.submit("user2@second.test", "user2@second.test", sender=f"shop{whole}"))
    for other in (ann.email, f"ann+x{whole}", f"away{whole}", f"SRS0=x=y=z=a{whole}"):
        with pytest.raises(smtplib.SMTPRecipientsRefused, match="not owned by user"):
            up.submit("user2@second.test", "user2@second.test", sender=other)
    with up.submission() as client:
        client.login("user2@second.test", up.password("user2@second.test"))
        for other in (ann.email, f"away{whole}"):
            client.mail("user2@second.test")
            client.rcpt("user2@second.test")
            code, said = client.data(f"From: {other}\r\nSubject: {token()}\r\n\r\nHi.\r\n".encode())
            assert (code, b"is not an address of" in said) == (554, True), said


def test_an_alias_for_a_whole_domain_as_it_is_written_elsewhere_is_refused(up: House) -> None:
    for done in (door(up, "addalias", "*@second.test", "user1@example.test") for door in DOORS):
        assert done.returncode == 2
        assert "write @second.test" in done.stderr


# hosts.toml and the accounts


LEAVER, MOVED, FIRST = "leaver@second.test", "moved@second.test", "the first password"


@pytest.fixture
def before(up: House, site: Callable[..., Path]) -> Iterator[tuple[Path, str]]:
    """A site that was bootstrapped with a user and an alias more than the usual one has; its text."""

    def edit(document: Any) -> None:
        document["mail_users"].append({"email": LEAVER, "pw": {"command": f"echo {FIRST}"}})
        document["mail_aliases"].append({"src": MOVED, "dst": "user1@example.test"})

    path = site(edit)
    up.fab("-H", "mail", "bootstrap", site=path)
    yield path, path.read_text()
    on_the_machine(up, "rmuser", LEAVER)
    on_the_machine(up, "rmalias", MOVED)
    up.fab("-H", "mail", "bootstrap")


def test_what_left_hosts_toml_is_listed_with_what_to_type_and_a_leaver_does_not_return(
    up: House, before: tuple[Path, str]
) -> None:
    path, text = before
    assert up.can_log_in(LEAVER, FIRST)
    leaver = next(line for line in text.splitlines() if LEAVER in line)
    path.write_text(re.sub(rf'("{MOVED}".*?)user1@example', r"\1admin@example", text.replace(leaver, "")))
    assert LEAVER not in path.read_text()
    said = [up.fab("-H", "mail", task, site=path, check=False).stdout for task in ("plan", "status")]
    up.fab("-H", "mail", "bootstrap", site=path)
    said.append(up.fab("-H", "mail", "status", site=path).stdout)
    for shown in said:
        typed = re.findall(r"left hosts\.toml.*; next: fab (\S+) (.*)", shown)
        assert typed == [("user.rm", LEAVER), ("alias.rm", f"{MOVED} user1@example.test")], shown
    both = strangers_message(up, MOVED)
    up.arrives("user1@example.test", both)
    up.arrives("admin@example.test", both)
    for task, words in typed:
        up.fab(task, *words.split(), site=path)
    assert not up.can_log_in(LEAVER, FIRST)
    assert reply_to_rcpt(up, LEAVER).startswith("550 ")
    one = strangers_message(up, MOVED)
    up.arrives("admin@example.test", one)
    assert up.messages("user1@example.test", one) == []
    assert "hosts.toml" not in up.fab("-H", "mail", "status", site=path).stdout
    path.write_text(text)  # whoever removed her by hand has not told the file, or took an old one
    on_the_machine(up, "adduser", LEAVER, FIRST)
    up.fab("-H", "mail", "bootstrap", site=path)
    on_the_machine(up, "rmuser", LEAVER)
    assert f"{LEAVER} stands in hosts.toml" in up.fab("-H", "mail", "bootstrap", site=path).stdout
    assert not up.can_log_in(LEAVER, FIRST)


def test_a_user_is_written_into_hosts_toml_too(up: House, site: Callable[..., Path]) -> None:
    path, email = site(lambda _: None), f"{token()}@second.test"
    up.fab("user.add", email, "--write", site=path, stdin=f"{token()}\n")
    assert f'{{ email = "{email}", pw = {{ prompt = ' in path.read_text()
    assert "hosts.toml" not in up.fab("-H", "mail", "status", site=path).stdout
    up.fab("user.rm", email, "--write", site=path)
    assert email not in path.read_text()
    alone = up.fab("user.rm", "relay@example.test", check=False)
    assert (alone.returncode, alone.stdout) == (2, "")
    assert "relay@example.test is what backup, web log in with" in alone.stderr
    there = on_the_machine(up, "rmuser", "relay@example.test")
    assert (there.returncode, there.stdout) == (1, "")
    assert "relay@example.test is what backup, web log in with" in there.stderr
    assert up.can_log_in("relay@example.test", up.password("relay@example.test"))


# Lists, help, mistakes


def test_the_lists_show_what_is_there(up: House, mailcfg: Run, ann: Person) -> None:
    alias = f"sales@{ann.domain}"
    mailcfg("addalias", alias, ann.email)
    assert [ann.domain, "1", "1"] in _cells(mailcfg("lsdom"))
    assert _cells(mailcfg("lsuser", ann.domain)) == [["EMAIL", "STATE", "ALIASES"], [ann.email, "active", "1"]]
    assert [row[1:] for row in _cells(mailcfg("lsalias", ann.domain))] == [["SRC", "DST"], [alias, ann.email]]
    assert [ann.email, "active", "1"] in _cells(mailcfg("lsuser"))
    assert alias in [row[1] for row in _cells(mailcfg("lsalias"))]
    mailcfg("disable", ann.email)
    assert _cells(mailcfg("lsuser", ann.domain))[1:] == [[ann.email, "disabled", "1"]]
    mailcfg("rmalias", alias)


def test_the_lists_are_there_as_json(up: House, ann: Person) -> None:
    assert [row["email"] for row in up.fab_json("user.ls", "--domain", ann.domain)["rows"]] == [ann.email]
    assert ann.domain in [row["domain"] for row in up.fab_json("domain.ls")["rows"]]
    assert up.fab_json("alias.ls")["rows"]


def test_help_lists_every_command_of_the_seed(up: House) -> None:
    for done in (on_the_machine(up, "help"), on_the_machine(up), by_fab_mailcfg(up, "help")):
        assert done.returncode == 0
        assert {line.split()[0] for line in done.stdout.splitlines()[1:] if line[:1] == " "} == {*TASKS, "help"}


@pytest.mark.parametrize("words", [["frobnicate"], ["adddom"], ["addalias", "a@b.test"], ["rmalias", "-id", "x"]])
def test_wrong_usage_is_code_2(up: House, words: list[str]) -> None:
    for done in (on_the_machine(up, *words), by_fab_mailcfg(up, *words)):
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr


def test_an_unknown_user_is_code_1_and_no_password_is_asked_for(up: House, mailcfg: Run) -> None:
    nobody = f"nobody-{token()}@example.test"
    for words in (["rmuser", nobody], ["disable", nobody], ["enable", nobody], ["passwd", nobody]):
        done = mailcfg(*words)
        assert (done.returncode, done.stdout) == (1, ""), words
        assert f"there is no user {nobody}" in done.stderr


def test_an_ordinary_user_of_the_machine_may_not(up: House) -> None:
    said = up.run("mail", "setpriv --reuid=nobody --regid=nogroup --clear-groups mailcfg lsuser; echo $?; true")
    assert said.strip() == "1"


# Passwords


def test_a_password_is_typed_twice_at_the_terminal_and_never_echoed(up: House, ann: Person) -> None:
    new = token()
    answers = [(f"Password for {ann.email}: ", new), ("The same again: ", new)]
    code, screen = typed(up, "user.passwd", ann.email, answers=answers)
    assert code == 0
    assert new not in screen
    assert can_log_in_anywhere(up, ann.email, new) == {"imap", "submission"}


def test_a_password_typed_differently_the_second_time_changes_nothing(up: House, ann: Person) -> None:
    answers = [("Password for ", "one-password"), ("The same again: ", "another-one")]
    code, screen = typed(up, "mailcfg", f"passwd {ann.email}", answers=answers)
    assert code == 1
    assert "the two passwords differ; nothing was changed" in screen
    assert "one-password" not in screen
    assert can_log_in_anywhere(up, ann.email, ann.password) == {"imap", "submission"}


def test_ctrl_c_at_the_password_changes_nothing_and_says_so(up: House, ann: Person) -> None:
    code, screen = typed(up, "user.passwd", ann.email, answers=[("Password for ", CTRL_C)])
    assert code == 130, screen
    assert "interrupted; nothing was changed" in screen
    assert up.can_log_in(ann.email, ann.password)


def test_on_the_machine_a_password_left_out_is_read_from_stdin(up: House, ann: Person) -> None:
    new = token()
    assert on_the_machine(up, "passwd", ann.email, stdin=f"{new}\n").returncode == 0
    assert up.can_log_in(ann.email, new)


def test_no_process_on_either_side_shows_a_password_that_was_asked_for(up: House, ann: Person) -> None:
    first, second = token(), token()
    with Watch(up) as watch:
        answers = [("Password for ", first), ("The same again: ", first)]
        assert typed(up, "user.passwd", ann.email, answers=answers)[0] == 0
        assert by_a_task(up, "passwd", ann.email, second).returncode == 0
    assert watch.shows(first, second) == []
    assert up.can_log_in(ann.email, second)


# Locked


def test_while_locked_mailcfg_says_so_and_makes_no_database(up: House) -> None:
    commands = (["lsuser"], ["adddom", "locked.test"], ["passwd", "user1@example.test", "a-new-password"])
    up.fab("lock")
    try:
        for door, words in itertools.product(DOORS, commands):
            done = door(up, *words)
            assert (done.returncode, done.stdout) == (5, ""), (door, words)
            assert "the vault, with the accounts, is locked" in done.stderr
            assert "fab unlock, or on the server's console: mailboot" in done.stderr
        assert up.run("mail", "ls -A /vault") == ""
    finally:
        up.fab("unlock")
    assert "locked.test" not in on_the_machine(up, "lsdom").stdout


def _cells(done: subprocess.CompletedProcess[str]) -> list[list[str]]:
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def _is_alive(client: imaplib.IMAP4_SSL) -> bool:
    with contextlib.suppress(imaplib.IMAP4.abort, OSError):
        return client.noop()[0] == "OK"
    return False
