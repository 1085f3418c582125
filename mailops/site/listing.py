"""What a mailcfg command means for hosts.toml: the rows that it would add there, or take out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mailops.errors import BAD_INPUT, MailopsError
from mailops.remote.shared.mailcfg import Command
from mailops.roles import runs
from mailops.site import edit, reader

if TYPE_CHECKING:
    from mailops.site.model import Site


@dataclass(frozen=True)
class Change:
    """Of one list of hosts.toml: what is added at its end, and which rows go, counted from 0."""

    key: str
    add: tuple[Any, ...] = ()
    remove: tuple[int, ...] = ()

    def told(self, file: str) -> str:
        return f"{file} {'does not list it' if self.add else 'still lists it'}"

    def write(self, path: Path) -> None:
        """MailopsError where hosts.toml would be wrong with it; nothing is written then."""
        edit.change_list(path, self.key, self.add, self.remove, _check)


def change(site: Site, command: Command) -> Change | None:
    """None where hosts.toml says so already, or does not speak of it (passwords)."""
    words, found = command.words, None
    emails, pairs = [user.email for user in site.mail_users], _listed(site)
    match command.name:
        case "adduser" if words[0] not in emails:
            pw = {"prompt": f"First password of {words[0]}"}
            found = Change("mail_users", add=({"email": words[0], "pw": pw},))
        case "rmuser" if words[0] in emails:
            found = Change("mail_users", remove=(emails.index(words[0]),))
        case "addalias" if words not in (*pairs, *((alias.src, alias.dst) for alias in site.system_aliases())):
            found = Change("mail_aliases", add=({"src": words[0], "dst": words[1]},))
        case "rmalias" if gone := [at for at, pair in enumerate(pairs) if words in (pair, pair[:1])]:
            found = Change("mail_aliases", remove=tuple(gone))
        case "adddom" if words[0] not in site.mail_domains:
            found = Change("mail_domains", add=words)
        case "rmdom" if words[0] in site.mail_domains:
            found = Change("mail_domains", remove=(site.mail_domains.index(words[0]),))
    return found


def needed(site: Site) -> list[tuple[str, str]]:
    """The accounts that machines log in with, and their names; the administrator's address, and no name."""
    found: dict[str, list[str]] = {}
    for host in site.hosts.values():
        if runs(host.role, "nullclient"):
            found.setdefault(site.seen_by(host).relay_email, []).append(host.name)
    return [*((email, ", ".join(names)) for email, names in found.items()), (site.admin_email, "")]


def _listed(site: Site) -> list[tuple[str, ...]]:
    return [(alias.src, alias.dst) for alias in site.mail_aliases]


def _check(written: Path, path: Path) -> None:
    _, problems = reader.read(written)
    if problems:
        told = "\n  ".join(problem.replace(str(written), path.name) for problem in problems)
        raise MailopsError(
            f"{path.name} was not changed, as it would be wrong:\n  {told}", "change it by hand", BAD_INPUT
        )
