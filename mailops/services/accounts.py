"""The virtual users, domains and aliases in SQL, and who may write as whom."""

from __future__ import annotations

from mailops.manifest import Accounts, Directory
from mailops.services.service import At, Service, Tie
from mailops.site import listing
from mailops.site.model import Site


def database(site: Site) -> str:
    """The path of the SQLite file."""
    return f"{site.vault}/db/mail.sqlite"


def listed(site: Site) -> Accounts:
    """What hosts.toml wants there to be."""
    aliases = (*site.mail_aliases, *site.system_aliases())
    return Accounts(
        database=database(site),
        domains=site.mail_domains,
        users=tuple(user.email for user in site.mail_users),
        aliases=tuple((alias.src, alias.dst) for alias in aliases),
        needed=tuple(listing.needed(site)),
    )


def service(at: At) -> Service:
    site = at.site
    return Service(
        directories=(
            Directory(f"{site.vault}/db", 0o750, "root", "mailauth"),
            Directory(f"{site.vault}/senders", 0o750, "root", "_rspamd"),
        ),
        ties=(Tie("mailops-accounts.timer", timed=True), Tie("mailops-accounts.service", timed=True)),
        attributes={"/usr/bin/mailcfg": (0o755, "root", "root")},
        names={"database": database(site)},
        accounts=listed(site),
    )


def local(site: Site) -> dict[str, str]:
    """For a probe: where the accounts are, and somebody who has a mailbox."""
    users = [user.email for user in site.mail_users]
    found = {"database": database(site)}
    if users:  # the administrator, whose address stands outside the vault anyway (host_aliases)
        found["recipient"] = site.admin_email if site.admin_email in users else users[0]
    return found
