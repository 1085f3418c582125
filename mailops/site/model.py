"""The site: what it is called, who lives in it, and the machines that it runs on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mailops.roles import is_central

# What a template variable can be; lists become tuples.
Override = bool | int | float | str | tuple[str, ...]

# RFC 2142's names for those who run things (its sales and marketing are for people to claim), RFC 5321's
# postmaster, and the system accounts whose mail is worth reading.
LOCAL_ADMIN_ALIASES = (
    "abuse",
    "admin",
    "administrator",
    "ftp",
    "hostmaster",
    "mailer-daemon",
    "noc",
    "nobody",
    "postmaster",
    "root",
    "security",
    "usenet",
    "webmaster",
    "www",
)


# The Site's own keys that a mailnull may see otherwise than the rest. (A site has one mailhost: its are the Site's.)
MAILNULL_KEYS = ("admin_email", "mail_server_hostname", "relay_email")


@dataclass(frozen=True)
class Secret:
    """Where a password comes from, never the password; `mailops.secrets.resolve` fetches it."""

    kind: str  # "prompt" | "env" | "command" | "keyring"
    value: str = field(repr=False)  # a careless command may hold more than it should
    where: str = ""  # the key in hosts.toml, for messages; lists are counted from 1


@dataclass(frozen=True)
class User:
    """A mailbox, and the password that it gets when it is made; an existing one keeps its own."""

    email: str
    pw: Secret


@dataclass(frozen=True)
class Alias:
    src: str
    dst: str


@dataclass(frozen=True)
class Host:
    """A machine. What is None is left to ssh_config and its defaults; `address` None means `name`."""

    name: str
    role: str
    address: str | None = None
    port: int | None = None
    user: str | None = None
    host_key: str | None = None  # "ssh-ed25519 AAAA…", the only key that this machine may show
    identity: str | None = None  # a private key's path on this computer, "~" not yet expanded
    sudo_pw: Secret | None = None
    debian: int | None = None  # 12 or 13; None: whatever the machine runs
    senders: tuple[str, ...] = ()  # addresses of the site's domains that a mailnull's programs may write as
    override: Mapping[str, Override] = field(default_factory=dict)  # template variables, and some of the Site's keys


@dataclass(frozen=True)
class Upstream:
    """Where packages of a daemon's own makers come from."""

    url: str
    suite: str | None  # None: the code name of the machine's Debian release
    key: str  # the one public key that signs it, in ASCII armour


@dataclass(frozen=True)
class Site:
    """A whole hosts.toml, checked; domains and addresses are in lower case."""

    path: Path
    domain: str
    admin_email: str
    mail_domains: tuple[str, ...]
    mail_users: tuple[User, ...]
    mail_aliases: tuple[Alias, ...]
    mail_local_admin_aliases: tuple[str, ...]
    mail_server_hostname: str
    relay_email: str  # the account that mailnull machines log in with
    cryptdir_pw: Secret
    dkim_selector: str  # "" means no signing
    dkim_selector_next: str  # "" means that none is being prepared
    dkim_keyroot: str
    sieve_root: str
    vault: str
    vault_cipherdir: str
    resolver: str | None  # the name server that this computer asks about the site's DNS; None: its own
    hosts: dict[str, Host]
    rspamd: str = "debian"  # or "upstream": whose packages
    rspamd_upstream: Upstream | None = None
    override: Mapping[str, Override] = field(default_factory=dict)  # template variables of every machine
    notes: tuple[str, ...] = ()  # what is taken otherwise than it was written, or leads to nobody, a line each

    def seen_by(self, host: Host) -> Site:
        """The site with those of its own keys that `host` overrides."""
        own: dict[str, Any] = {name: host.override[name] for name in MAILNULL_KEYS if name in host.override}
        return replace(self, **own) if own else self

    def mailhost(self) -> Host | None:
        """The one machine through which all mail of the site goes; None where the site has none."""
        return next((host for host in self.hosts.values() if is_central(host.role)), None)

    def name_of(self, host: Host) -> str:
        """The name that a machine goes by in mail: the mailhost's is the one its clients connect to."""
        if is_central(host.role):
            return self.mail_server_hostname
        return host.name if "." in host.name else f"{host.name}.{self.domain}"

    def own_names(self, host: Host) -> list[str]:
        """What programs on a machine call it in mail, its real name first; a name that has mailboxes is left out."""
        fqdn = self.name_of(host)
        shorts = dict.fromkeys((host.name.partition(".")[0], fqdn.partition(".")[0], "localhost"))
        tails = dict.fromkeys(("", ".local", ".localdomain", f".{fqdn.partition('.')[2]}", f".{self.domain}"))
        others = {self.name_of(other) for other in self.hosts.values() if other.name != host.name}
        names = dict.fromkeys((fqdn, host.name, *(f"{short}{tail}" for short in shorts for tail in tails)))
        return [name for name in names if name not in others and name not in self.mail_domains]

    def system_aliases(self) -> tuple[Alias, ...]:
        """postmaster, abuse and the like of every domain, to `admin_email`.

        Left out: a mailbox of that name, an alias of that name in `mail_aliases`, and `admin_email` itself.
        """
        taken = {self.admin_email, *(user.email for user in self.mail_users)}
        taken.update(alias.src for alias in self.mail_aliases)
        locals_ = self.mail_local_admin_aliases
        sources = (f"{local}@{domain}" for domain in self.mail_domains for local in locals_)
        return tuple(Alias(src, self.admin_email) for src in sources if src not in taken)


# Their keys in hosts.toml.
HOST_KEYS = tuple(name for name in Host.__dataclass_fields__ if name != "name")
SITE_KEYS = tuple(name for name in Site.__dataclass_fields__ if name not in ("path", "notes"))
