"""Which passwords a task is going to need: they are fetched before the first machine is spoken to.

What a machine has already (the passwords of users that exist, the passphrase of an open vault) it does not ask for, and
nobody is to type it. So what may be needed, and need not be, is only looked at: can it be had at all?
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from mailops import cache, secrets
from mailops.errors import BAD_INPUT, MailopsError, Untouched
from mailops.remote.shared import passwords
from mailops.remote.shared.errors import AgentError
from mailops.roles import runs
from mailops.site.model import Host, Secret, Site

CONVERGE = ("bootstrap", "push", "plan")
PASSPHRASE_SHORTEST = 8


class Need(NamedTuple):
    """Whose password, from where, and how it is fetched."""

    whose: str
    secret: Secret
    fetch: Callable[[Secret], object]


def of(task: str, site: Site, hosts: list[Host], sudo: Iterable[Host]) -> list[Need]:
    """The passwords of `task` for `hosts`; `sudo` are those of them where somebody else than root logs in."""
    needs = [Need(f"sudo on {host.name}", host.sudo_pw, secrets.resolve) for host in sudo if host.sudo_pw]
    for host in hosts:
        if task in CONVERGE and runs(host.role, "nullclient"):
            email = site.seen_by(host).relay_email
            needs += [Need(email, user.pw, secrets.resolve) for user in site.mail_users if user.email == email]
        if runs(host.role, "vault"):
            needs += _of_vault(task, site, host)
    return list({(need.secret.kind, need.secret.value, need.secret.where): need for need in needs}.values())


def _of_vault(task: str, site: Site, host: Host) -> list[Need]:
    vault = "the passphrase of the vault"
    if task == "unlock":
        typed = site.cryptdir_pw.kind == "prompt"
        return [Need(vault, site.cryptdir_pw, secrets.possible if typed else secrets.resolve)]
    if task != "bootstrap" or cache.facts(site, host) is not None:
        return []
    # This computer has never seen the machine: it is new, or as good as new.
    users = [Need(user.email, user.pw, new_password) for user in site.mail_users]
    return [Need(vault, site.cryptdir_pw, new_passphrase), *users]


def fetch(needs: list[Need]) -> None:
    """All of them, or MailopsError (2) with every one that is not to be had."""
    failed: list[tuple[str, MailopsError]] = []
    for need in needs:
        try:
            need.fetch(need.secret)
        except MailopsError as error:
            failed.append((f"{need.whose} ({need.secret.where})", error))
        except KeyboardInterrupt:
            raise Untouched from None
    if len(failed) == 1:
        ((what, why),) = failed
        raise MailopsError(f"the password of {what}: {why.what}", why.hint, BAD_INPUT)
    if failed:
        lines = [f"{what}: {why.what}\n    {why.hint}".rstrip() for what, why in failed]
        message = f"{len(failed)} passwords are not to be had, so no machine was spoken to"
        raise MailopsError(message, "\n  ".join(lines), BAD_INPUT)


def new_password(secret: Secret) -> str:
    """The first password of a mailbox; MailopsError (2) for one that is too short, or longer than it would count."""
    value = secrets.confirmed(secret)
    try:
        passwords.check_new(value)
    except AgentError as error:
        raise MailopsError(error.message, error.hint, error.code, secret.where) from None
    return value


def new_passphrase(secret: Secret) -> str:
    """For a vault that is about to be made."""
    value = secrets.confirmed(secret)
    if len(value) < PASSPHRASE_SHORTEST:
        what = f"the passphrase has {len(value)} characters, and {PASSPHRASE_SHORTEST} are the least"
        hint = "four words that have nothing to do with each other are easy to keep"
        raise MailopsError(what, hint, BAD_INPUT, secret.where)
    return value
