"""mailcfg from the laptop: passwords are typed and hashed here, and only the hash travels."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mailops import needed, secrets
from mailops.cli.words import SEEN
from mailops.errors import BAD_INPUT, MailopsError
from mailops.remote.shared import mailcfg as remote
from mailops.remote.shared import passwords
from mailops.remote.shared.errors import AgentError
from mailops.roles import having
from mailops.screen import paint
from mailops.screen.tables import fitted

# What the machine's mailcfg says to type next, as it is typed here.
TASKS = {
    "adddom": "domain.add",
    "lsdom": "domain.ls",
    "lsuser": "user.ls",
    "addalias": "alias.add",
    "rmalias -id": "alias.rm",
    "lsalias": "alias.ls",
    "help": "mailcfg help",
}
NEXT = re.compile(rf"\bmailcfg ({'|'.join(TASKS)})(?=\W|$)")

if TYPE_CHECKING:
    from mailops.remote.shared.calls import Mailcfg, MailcfgArgs
    from mailops.site.model import Secret, Site
    from mailops.ssh.machine import Machine


def run(  # noqa: PLR0913
    c: Any,
    argv: Sequence[str],
    as_json: bool = False,
    *,
    write: bool = False,
    yes: bool = False,
    generate: bool = False,
) -> None:
    """Do a mailcfg command on the site's mailhost. MailopsError, with mailcfg's exit code, when refused.

    What can be refused here is refused before there is a connection. `write`: into hosts.toml, too; `yes`: although
    machines or the administrator depend on it. With `generate` the password is made here, and shown with what to tell
    its owner.
    """
    from mailops import fleet

    command = parse(argv)
    if command.name == "help":
        print(remote.HELP)
        return
    site = fleet.load()
    host = fleet.select(c, site, having("accounts"))[0]
    sure = yes or _sure(site, command)
    with fleet.machine(c, site, host, quiet=as_json) as machine:
        made: list[str] = []
        done = mailcfg(machine, command, as_json, sure, (lambda _: _make(made)) if generate else None)
    if made:  # else the machine had no use for one
        from mailops import welcome
        from mailops.screen import terminal

        terminal.show(welcome.message(site, command.words[0], made[0]))
    _list(site, done, write, as_json)


def _make(made: list[str]) -> str:
    """The hash of a new password, which goes into `made`."""
    from mailops import welcome

    made.append(secrets.remember(welcome.password()))
    return hash_password(made[0])


def _sure(site: Site, command: remote.Command) -> bool:
    """Whether a person has agreed to what machines or the administrator depend on; MailopsError when they do not."""
    from mailops.site import listing

    why = remote.depends(command, listing.needed(site))
    if why and not sys.stdin.isatty():
        raise MailopsError(f"{why}; nothing was changed", "--yes does it all the same", BAD_INPUT)
    if why:
        print(f"{why}.")
        if not _agrees("Do it all the same? [y/N] ", usual=False):
            raise MailopsError("nothing was changed")
    return bool(why)


def _list(site: Site, done: remote.Command, write: bool, quiet: bool) -> None:
    """Have hosts.toml say what was done: with `write`, or when the person at the terminal agrees."""
    from mailops.site import listing

    change = listing.change(site, done)
    if change is None:
        return
    if not write and (quiet or not sys.stdin.isatty()):
        print(f"note: {change.told(site.path.name)}; --write changes that, too", file=sys.stderr)
    elif write or _agrees(f"{change.told(site.path.name)}; change that, too? [Y/n] ", usual=True):
        change.write(site.path)
        more = "; next: fab bootstrap, then publish its records: fab dkim.ls" if done.name == "adddom" else ""
        print(f"{site.path.name} is changed{more}", file=sys.stderr)


def _agrees(question: str, usual: bool) -> bool:
    try:
        answer = input(question).strip().lower()
    except EOFError:
        return False
    return answer in ("y", "yes") or (usual and not answer)


def aliases(src: str | None, dst: str | None, left: bool) -> list[str]:
    """What `alias.rm` has mailcfg do; MailopsError (2) where it is not said which aliases are to go."""
    if left == bool(src):
        raise MailopsError(
            "which alias?", "fab alias.rm ADDRESS, fab alias.rm NUMBER, or fab alias.rm --left", BAD_INPUT
        )
    if src is None:
        return ["rmalias", "-left"]
    return ["rmalias", *(["-id"] if src.isdigit() else []), src, *([dst] if dst else [])]


def parse(argv: Sequence[str]) -> remote.Command:
    """The command that `argv` is; MailopsError (2), which never repeats a password, when it is none or has one."""
    if argv[:1] in (["adduser"], ["passwd"]) and len(argv) > 2:
        raise MailopsError(SEEN, f'choose another one; fab mailcfg "{argv[0]} <email>" asks for it', BAD_INPUT)
    with _as_mailops_error():
        return remote.parse(argv)


def whole(email: str) -> str:
    """An address for a new user; MailopsError (2) where the domain was left out. Here the word is never a password."""
    if "@" not in email:
        raise MailopsError(f"{email!r} is not an address", f"write {email}@domain", BAD_INPUT)
    return email


def mailcfg(
    machine: Machine,
    command: remote.Command,
    as_json: bool = False,
    sure: bool = False,
    ask: Callable[[str], str] | None = None,
) -> remote.Command:
    """Have `machine` do `command`, and print what it says, as a table or as JSON; `ask` gives the hash of a password.

    Returns what that was: an alias that was named by its number is known then.
    """
    from mailops import fleet

    args: MailcfgArgs = {"argv": [command.name, *command.words], "who": fleet.who(), "sure": sure}
    # The machine asks only when a password is really needed, and all else is right.
    answer: Mailcfg = machine.call("mailcfg", args, {"hash": ask or ask_hash})
    answer["lines"] = [*command.notes, *map(_here, answer["lines"])]
    answer["hint"] = _here(answer["hint"])
    if as_json:
        print(json.dumps(secrets.masked(answer), indent=2))
    else:
        for line in [*fitted(answer["rows"] or [], paint.columns()), *answer["lines"]]:
            print(secrets.mask(line))
    if answer["code"]:
        raise MailopsError(answer["error"], answer["hint"], answer["code"])
    removed = answer.get("removed", [])
    return remote.Command("rmalias", tuple(removed[0])) if command.words[:1] == ("-id",) and removed else command


def hashes(site: Site, emails: Sequence[str]) -> dict[str, str]:
    """Hashes of the initial passwords of `emails`, all of them site.mail_users; no other one is fetched."""
    users = {user.email: user.pw for user in site.mail_users}
    return {email: _hash_of(email, users[email]) for email in emails}


def _hash_of(email: str, pw: Secret) -> str:
    """MailopsError names the person as well as the key in hosts.toml."""
    try:
        return hash_password(needed.new_password(pw), pw.where)
    except MailopsError as error:
        where = f"the password of {email} ({pw.where})"
        raise MailopsError(error.what, error.hint, error.code, where) from None


def ask_hash(email: str) -> str:
    """The hash of a password that is typed twice without echo, or read from a stdin that is no terminal."""
    with _as_mailops_error():
        pw = remote.read_password(email)
    return hash_password(secrets.remember(pw))


def hash_password(pw: str, where: str = "") -> str:
    """As `mailops.remote.accounts.crypt` does it, by passlib. MailopsError names `where` the password comes from."""
    from passlib.hash import bcrypt

    with _as_mailops_error(where):
        passwords.check(pw)
    return passwords.SCHEME + str(bcrypt.using(rounds=passwords.ROUNDS, ident="2b", truncate_error=True).hash(pw))


@contextmanager
def _as_mailops_error(where: str = "") -> Iterator[None]:
    try:
        yield
    except AgentError as error:
        raise MailopsError(error.message, _here(error.hint), error.code, where) from None


def _here(text: str) -> str:
    return NEXT.sub(lambda found: f"fab {TASKS[found[1]]}", text)
